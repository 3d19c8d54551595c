//! One attempt at a commit: which calls it takes, in which order, and what each answer means.
//!
//! The executor (the committer's thread, or the simulation) makes the [`Call`] that [`Attempt::next`] names, waits as
//! long as the cluster needs, and passes the result to [`Attempt::answered`], until the attempt has [`Ended`].
//!
//! ```text
//! exactly-once   begin ─► write all ─► offsets ─► end ─► done
//!                   any of these refused ─► confirm ─► abort
//!                   some record unconfirmed ─► abort ─► discard the producer
//!                   the producer broken ─► discard it
//!                   no answer to `end` ─► discard ─► register another ─► find our token
//! at-least-once  write all but states ─► flush ─► write states ─► flush ─► offsets ─► done
//!                   any of these refused ─► purge
//! ```
//!
//! A producer that has given up a record isn't used again: the record may be in the log, and the next one would have
//! its sequence number (`rd_kafka_toppar_purge_queues`, librdkafka 2.12.1), so the broker would take it for a repeat
//! and write nothing.
//!
//! Without transactions, nothing stops a process that stood still, and was thrown out of the group meanwhile, from
//! overwriting its successor's states: so it backs out by itself.
//!
//! Under at-least-once the order is the promise: an alert is durable before its state, and both before the offset, so
//! a crash between them repeats an alert (with the same id) and loses none.

use super::membership::Refusal;
use crate::handler::effect::{Effect, Output};

/// The promise about effects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// A `read_committed` consumer sees every effect once.
    ExactlyOnce,
    /// No effect is lost; after a crash some are repeated, with the same id.
    AtLeastOnce,
}

/// The next call to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Begin a transaction.
    Begin,
    /// Pass these effects to the producer, in their order.
    Write(Portion),
    /// Wait until all passed records are durable.
    Flush,
    /// Commit the offsets to the group under the commit's fence: in the transaction, or at once if there is none.
    Offsets,
    /// End the transaction and make all of it visible.
    End,
    /// Wait briefly until every passed record is known to be in the log.
    Confirm,
    /// End the transaction and make nothing of it visible.
    Abort,
    /// Drop the undelivered records: they must not arrive later and overwrite what the next owner writes.
    Purge,
    /// Discard this producer.
    Discard,
    /// Register another producer with the same transactional id, which ends the former one's open transaction.
    Register,
    /// Look for this commit's token at the committed offset of any of its partitions. The offsets are part of the
    /// transaction, so one token proves the commit; a partition with a new owner may have another's token.
    FindToken,
}

/// Which effects of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Portion {
    /// All effects.
    All,
    /// Outputs and dead letters.
    ButStates,
    /// States.
    States,
}

impl Portion {
    /// Whether the effect belongs to this portion.
    #[must_use]
    pub fn holds<O: Output>(self, effect: &Effect<O>) -> bool {
        match self {
            Portion::All => true,
            Portion::ButStates => effect.as_state().is_none(),
            Portion::States => effect.as_state().is_some(),
        }
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallResult {
    /// It succeeded.
    Done,
    /// It was refused; the producer is usable.
    Refused(Refusal),
    /// A topic refuses a record permanently.
    Rejected,
    /// This producer can't go on; another one may.
    Broken,
    /// It didn't finish within the transaction timeout; the broker is about to abort the transaction.
    Overdue,
    /// It didn't finish, and the worker can't wait any longer.
    GivenUp,
    /// It didn't finish, and no partition of the commit is ours any more.
    Abandoned,
    /// It succeeded, but meanwhile the process stood still for longer than its membership may have lasted.
    StoodStill,
    /// The answer to [`Call::FindToken`]: whether the token is there.
    TokenFound(bool),
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All of it is durable.
    Done,
    /// Nothing of it is visible (exactly-once), or perhaps a part of it (at-least-once).
    Refused {
        /// Why.
        refusal: Refusal,
        /// All effects are durable, but not the offsets: at-least-once only.
        published: bool,
    },
    /// No attempt can succeed: a topic refuses a record permanently.
    Rejected,
    /// The outcome is unknown, so the commit must not be repeated. Only an owner that asks the group again may go on.
    InDoubt,
}

impl Ended {
    const fn refused(refusal: Refusal) -> Ended {
        Ended::Refused { refusal, published: false }
    }
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Make this call and answer it.
    Call(Call),
    /// The attempt is over.
    Ended(Ended),
}

/// One attempt at a commit.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    delivery: Delivery,
    step: Step,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Begin,
    All,
    ButStates,
    FlushButStates,
    States,
    FlushStates,
    Offsets,
    End,
    Confirm(Ended),
    Abort(Ended),
    /// What another producer would have to wait for.
    AbortAndDiscard(Ended),
    Purge(Ended),
    Discard(Ended),
    /// We asked the broker to end the transaction and got no answer.
    DiscardInDoubt(Refusal),
    Register(Refusal),
    FindToken(Refusal),
    Ended(Ended),
}

impl Attempt {
    /// A new attempt.
    #[must_use]
    pub fn new(delivery: Delivery) -> Attempt {
        let step = match delivery {
            Delivery::ExactlyOnce => Step::Begin,
            Delivery::AtLeastOnce => Step::ButStates,
        };
        Attempt { delivery, step }
    }

    /// Takes over an attempt whose thread is stuck in a call for longer than a transaction may last, with another
    /// producer.
    #[must_use]
    pub fn taken_over() -> Attempt {
        Attempt { delivery: Delivery::ExactlyOnce, step: Step::Register(Refusal::Overdue) }
    }

    /// What to do next.
    #[must_use]
    pub fn next(&self) -> Next {
        Next::Call(match self.step {
            Step::Begin => Call::Begin,
            Step::All => Call::Write(Portion::All),
            Step::ButStates => Call::Write(Portion::ButStates),
            Step::States => Call::Write(Portion::States),
            Step::FlushButStates | Step::FlushStates => Call::Flush,
            Step::Offsets => Call::Offsets,
            Step::End => Call::End,
            Step::Confirm(_) => Call::Confirm,
            Step::Abort(_) | Step::AbortAndDiscard(_) => Call::Abort,
            Step::Purge(_) => Call::Purge,
            Step::Discard(_) | Step::DiscardInDoubt(_) => Call::Discard,
            Step::Register(_) => Call::Register,
            Step::FindToken(_) => Call::FindToken,
            Step::Ended(ended) => return Next::Ended(ended),
        })
    }

    /// Takes the answer to the call.
    pub fn answered(&mut self, answer: CallResult) {
        self.step = match (self.step, answer) {
            (Step::Begin, CallResult::Done) => Step::All,
            (Step::All, CallResult::Done) => Step::Offsets,
            (Step::ButStates, CallResult::Done) => Step::FlushButStates,
            (Step::FlushButStates, CallResult::Done) => Step::States,
            (Step::States, CallResult::Done) => Step::FlushStates,
            (Step::FlushStates, CallResult::Done) => Step::Offsets,
            (Step::Offsets, CallResult::Done) => match self.delivery {
                Delivery::ExactlyOnce => Step::End,
                Delivery::AtLeastOnce => Step::Ended(Ended::Done),
            },
            (Step::End, CallResult::Done) => Step::Ended(Ended::Done),
            (Step::End, CallResult::Refused(refusal)) => Step::Confirm(Ended::refused(refusal)),
            (Step::End, CallResult::Rejected) => Step::Confirm(Ended::Rejected),
            (Step::End, answer) => Step::DiscardInDoubt(refusal(answer)),
            (Step::Confirm(ended), CallResult::Done) => Step::Abort(ended),
            (Step::Confirm(ended), _) => Step::AbortAndDiscard(ended),
            (Step::AbortAndDiscard(ended), _) => Step::Discard(ended),
            // If we can't abort, the broker does, when the next producer registers or the transaction times out.
            (Step::Abort(ended), CallResult::Done) => Step::Ended(ended),
            (Step::Abort(ended), _) => Step::Discard(ended),
            (Step::Purge(ended) | Step::Discard(ended), _) => Step::Ended(ended),
            (Step::DiscardInDoubt(refusal), _) => Step::Register(refusal),
            // Only now: registering ends the old transaction, one way or the other.
            (Step::Register(refusal), CallResult::Done) => Step::FindToken(refusal),
            (Step::FindToken(_), CallResult::TokenFound(true)) => Step::Ended(Ended::Done),
            (Step::FindToken(refusal), CallResult::TokenFound(false)) => Step::Ended(Ended::refused(refusal)),
            (Step::Register(_) | Step::FindToken(_), CallResult::Abandoned) => {
                Step::Ended(Ended::refused(Refusal::Other))
            }
            (Step::Register(_) | Step::FindToken(_), _) => Step::Ended(Ended::InDoubt),
            // Everything but the offsets is durable.
            (Step::Offsets, answer) if self.delivery == Delivery::AtLeastOnce => {
                Step::Ended(Ended::Refused { refusal: refusal(answer), published: true })
            }
            (_, CallResult::Broken) => Step::Discard(Ended::refused(Refusal::Other)),
            (_, answer) => self.back_out(answer),
        };
    }

    fn back_out(&self, answer: CallResult) -> Step {
        let ended = match answer {
            CallResult::Rejected => Ended::Rejected,
            answer => Ended::refused(refusal(answer)),
        };
        match (self.delivery, self.step) {
            (Delivery::AtLeastOnce, _) => Step::Purge(ended),
            // Begin involves the client alone: a producer that refuses once always will.
            (Delivery::ExactlyOnce, Step::Begin) if matches!(answer, CallResult::Refused(_)) => {
                Step::Discard(ended)
            }
            (Delivery::ExactlyOnce, Step::Begin) => Step::Ended(ended),
            // The broker aborts the transaction by itself, and accepts nothing more from this producer.
            (Delivery::ExactlyOnce, _) if answer == CallResult::Overdue => Step::Discard(ended),
            (Delivery::ExactlyOnce, _) => Step::Confirm(ended),
        }
    }
}

fn refusal(answer: CallResult) -> Refusal {
    match answer {
        CallResult::Refused(refusal) => refusal,
        CallResult::Overdue => Refusal::Overdue,
        CallResult::StoodStill => Refusal::NotAMember,
        _ => Refusal::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The calls of an attempt that gets these answers, and how it ends.
    fn calls(mut attempt: Attempt, answers: &[CallResult]) -> (Vec<Call>, Ended) {
        let mut calls = Vec::new();
        let mut answers = answers.iter();
        loop {
            match attempt.next() {
                Next::Ended(ended) => {
                    assert_eq!(answers.next(), None, "ended as {ended:?} after {calls:?}");
                    return (calls, ended);
                }
                Next::Call(call) => {
                    calls.push(call);
                    attempt.answered(*answers.next().unwrap_or_else(|| panic!("it goes on after {calls:?}")));
                }
            }
        }
    }

    const DONE: CallResult = CallResult::Done;
    const BEGUN: [Call; 4] = [Call::Begin, Call::Write(Portion::All), Call::Offsets, Call::End];
    const OTHER: Ended = Ended::refused(Refusal::Other);

    #[test]
    fn exactly_once_is_one_transaction() {
        let attempt = Attempt::new(Delivery::ExactlyOnce);
        assert_eq!(calls(attempt, &[DONE; 4]), (BEGUN.to_vec(), Ended::Done));
    }

    #[test]
    fn what_is_refused_before_the_end_is_aborted_and_without_a_doubt() {
        let attempt = Attempt::new(Delivery::ExactlyOnce);
        for done in 1..4 {
            for (answer, ended) in [
                (CallResult::Refused(Refusal::NotAMember), Ended::refused(Refusal::NotAMember)),
                (CallResult::Rejected, Ended::Rejected),
            ] {
                let after = |rest: &[CallResult]| {
                    let (made, how) = calls(attempt, &[&vec![DONE; done][..], &[answer], rest].concat());
                    assert_eq!(how, ended);
                    made[done + 1..].to_vec()
                };
                assert_eq!(after(&[DONE, DONE]), [Call::Confirm, Call::Abort]);
                assert_eq!(
                    after(&[CallResult::Broken, DONE, DONE]),
                    [Call::Confirm, Call::Abort, Call::Discard]
                );
                assert_eq!(
                    after(&[DONE, CallResult::Overdue, DONE]),
                    [Call::Confirm, Call::Abort, Call::Discard]
                );
            }
        }
        let (made, how) = calls(attempt, &[DONE, DONE, CallResult::Overdue, DONE]);
        assert_eq!((made.last(), how), (Some(&Call::Discard), Ended::refused(Refusal::Overdue)));
        assert_eq!(calls(attempt, &[DONE, DONE, CallResult::Broken, DONE]).1, OTHER);
        assert_eq!(calls(attempt, &[DONE, CallResult::GivenUp, DONE, DONE]).1, OTHER);
    }

    #[test]
    fn a_producer_that_refuses_to_begin_is_done_without() {
        let attempt = Attempt::new(Delivery::ExactlyOnce);
        let refused = calls(attempt, &[CallResult::Refused(Refusal::Other), DONE]);
        assert_eq!(refused, (vec![Call::Begin, Call::Discard], OTHER));
        assert_eq!(calls(attempt, &[CallResult::GivenUp]), (vec![Call::Begin], OTHER), "there is none");
    }

    #[test]
    fn an_end_without_an_answer_is_asked_for_when_another_producer_has_ended_it() {
        let attempt = Attempt::new(Delivery::ExactlyOnce);
        let doubt = [&BEGUN[..], &[Call::Discard, Call::Register, Call::FindToken]].concat();
        for lost in [CallResult::Broken, CallResult::GivenUp, CallResult::Abandoned] {
            let after =
                |rest: &[CallResult]| calls(attempt, &[&[DONE, DONE, DONE, lost, DONE], rest].concat());
            assert_eq!(after(&[DONE, CallResult::TokenFound(true)]), (doubt.clone(), Ended::Done));
            assert_eq!(after(&[DONE, CallResult::TokenFound(false)]), (doubt.clone(), OTHER));
            assert_eq!(after(&[DONE, CallResult::GivenUp]).1, Ended::InDoubt);
            assert_eq!(after(&[CallResult::GivenUp]).1, Ended::InDoubt);
            assert_eq!(after(&[CallResult::Abandoned]).1, OTHER, "the next owner asks the group");
        }
        let late = calls(
            attempt,
            &[DONE, DONE, DONE, CallResult::Overdue, DONE, DONE, CallResult::TokenFound(false)],
        );
        assert_eq!(late.1, Ended::refused(Refusal::Overdue));
        let taken_over = calls(Attempt::taken_over(), &[DONE, CallResult::TokenFound(true)]);
        assert_eq!(taken_over, (vec![Call::Register, Call::FindToken], Ended::Done));
        let taken_over = calls(Attempt::taken_over(), &[DONE, CallResult::TokenFound(false)]);
        assert_eq!(taken_over.1, Ended::refused(Refusal::Overdue));
    }

    #[test]
    fn at_least_once_each_step_is_durable_before_the_next_and_what_is_given_up_is_purged() {
        let attempt = Attempt::new(Delivery::AtLeastOnce);
        let all = vec![
            Call::Write(Portion::ButStates),
            Call::Flush,
            Call::Write(Portion::States),
            Call::Flush,
            Call::Offsets,
        ];
        assert_eq!(calls(attempt, &[DONE; 5]), (all, Ended::Done));
        for done in 0..4 {
            for (answer, last) in [(CallResult::GivenUp, Call::Purge), (CallResult::Broken, Call::Discard)] {
                let (made, how) = calls(attempt, &[vec![DONE; done], vec![answer, DONE]].concat());
                assert_eq!((made.last(), how), (Some(&last), OTHER));
            }
        }
        let (made, how) = calls(attempt, &[DONE, CallResult::StoodStill, DONE]);
        assert_eq!((made.last(), how), (Some(&Call::Purge), Ended::refused(Refusal::NotAMember)));
        let (_, how) =
            calls(attempt, &[DONE, DONE, DONE, DONE, CallResult::Refused(Refusal::StaleGeneration)]);
        assert_eq!(how, Ended::Refused { refusal: Refusal::StaleGeneration, published: true });
    }
}
