//! One attempt at a commit: which calls it takes, in which order, and what each answer means.
//!
//! The executor (the committer's thread, or the simulation) makes the [`Call`] that [`Attempt::next`] names, waits as long as
//! the cluster needs, and tells [`Attempt::answered`] how it ended, until the attempt has [`Ended`].
//!
//! ```text
//! exactly-once   begin ─► write all ─► offsets ─► end ─► done
//!                   any of these refused ─► settle ─► abort
//!                   the producer broken, or some record not settled ─► discard it
//!                   no answer to `end` ─► discard ─► register another ─► does anything bear our token?
//! at-least-once  write all but states ─► flush ─► write states ─► flush ─► offsets ─► done
//!                   any of these refused ─► purge
//! ```
//!
//! A producer that has given up a record isn't used again: the record may be in the log, and the next one would bear its sequence
//! number (`rd_kafka_toppar_purge_queues`, librdkafka 2.12.1), so that the broker took it for a repeat and wrote nothing.
//!
//! Without transactions nobody stops a process that stood still, and that the group threw out meanwhile, from writing states on
//! top of its successor's: so it backs out by itself.
//!
//! Under at-least-once the order is the promise: an alert is durable before the state that says so, and both before the
//! offset, so a crash between them repeats an alert (with the same id) and loses none.

use super::membership::Refusal;
use crate::alarm::effect::Effect;

/// The promise about effects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Every effect is visible once to a reader of committed records.
    ExactlyOnce,
    /// None is lost; after a crash some are repeated, with the same id.
    AtLeastOnce,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Begin a transaction.
    Begin,
    /// Hand these effects to the producer, in their order.
    Write(Portion),
    /// Wait until all that was handed over is durable.
    Flush,
    /// Have the group take the offsets, under the commit's fence: in the transaction, or at once where there is none.
    Offsets,
    /// End the transaction so that all of it becomes visible.
    End,
    /// Wait, for a moment, until it's known of each record that was handed over that it's in the log.
    Confirm,
    /// End the transaction so that nothing of it becomes visible.
    Abort,
    /// Forget what was handed over and isn't delivered: it must not arrive later, on top of what the next owner writes.
    Purge,
    /// Do without this producer.
    Discard,
    /// Have another producer of the same transactional id, which ends what the former one has left open.
    Register,
    /// See whether the committed offset of any of its partitions bears this commit's token. The offsets are a part of the
    /// transaction, so one that does says that all is done; another's may stand where the partition has a new owner.
    FindToken,
}

/// Which effects of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Portion {
    /// All.
    All,
    /// Alerts and dead letters.
    ButStates,
    /// States.
    States,
}

impl Portion {
    /// Whether the effect is one of them.
    #[must_use]
    pub fn holds(self, effect: &Effect) -> bool {
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
    /// As it should.
    Done,
    /// It was refused, and the producer can go on.
    Refused(Refusal),
    /// A topic refuses a record now and for ever.
    Rejected,
    /// This producer can't go on; another may.
    Broken,
    /// It wasn't done within the time that a transaction has, and the broker is about to end it.
    Overdue,
    /// It isn't done, and the worker can't wait any longer.
    GivenUp,
    /// It isn't done, and nothing that the commit holds is ours any more.
    Abandoned,
    /// It's done, but the process stood still meanwhile, for longer than its membership may have lasted.
    StoodStill,
    /// To [`Call::FindToken`]: whether anything bears it.
    TokenFound(bool),
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All of it is durable.
    Done,
    /// Nothing of it is visible (exactly-once), or perhaps a part (at-least-once).
    Refused {
        /// Why.
        refusal: Refusal,
        /// All effects are durable, the offsets aren't: at-least-once only.
        published: bool,
    },
    /// No attempt can succeed: a topic refuses a record for ever.
    Rejected,
    /// It isn't known whether it is done, so it must not be made again. Nobody may go on but who asks the group anew.
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
    /// A call, whose answer is waited for.
    Call(Call),
    /// Nothing.
    Ended(Ended),
}

/// One attempt.
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
    Purge(Ended),
    Discard(Ended),
    /// The broker was asked to end the transaction, and has not answered.
    DiscardInDoubt(Refusal),
    Register(Refusal),
    FindToken(Refusal),
    Ended(Ended),
}

impl Attempt {
    /// From the beginning.
    #[must_use]
    pub fn new(delivery: Delivery) -> Attempt {
        let step = match delivery {
            Delivery::ExactlyOnce => Step::Begin,
            Delivery::AtLeastOnce => Step::ButStates,
        };
        Attempt { delivery, step }
    }

    /// One that somebody else has begun, who doesn't come back from a call, longer than a transaction may last: by another
    /// producer.
    #[must_use]
    pub fn taken_over() -> Attempt {
        Attempt { delivery: Delivery::ExactlyOnce, step: Step::Register(Refusal::Overdue) }
    }

    /// What is to be done.
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
            Step::Abort(_) => Call::Abort,
            Step::Purge(_) => Call::Purge,
            Step::Discard(_) | Step::DiscardInDoubt(_) => Call::Discard,
            Step::Register(_) => Call::Register,
            Step::FindToken(_) => Call::FindToken,
            Step::Ended(ended) => return Next::Ended(ended),
        })
    }

    /// The call has ended.
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
            (Step::Confirm(ended), _) => Step::Discard(ended),
            // An abort that isn't done is done by the broker, when the next producer registers or the time is over.
            (Step::Abort(ended), CallResult::Done) => Step::Ended(ended),
            (Step::Abort(ended), _) => Step::Discard(ended),
            (Step::Purge(ended) | Step::Discard(ended), _) => Step::Ended(ended),
            (Step::DiscardInDoubt(refusal), _) => Step::Register(refusal),
            // Only now: registering is what ends the old transaction, one way or the other.
            (Step::Register(refusal), CallResult::Done) => Step::FindToken(refusal),
            (Step::FindToken(_), CallResult::TokenFound(true)) => Step::Ended(Ended::Done),
            (Step::FindToken(refusal), CallResult::TokenFound(false)) => Step::Ended(Ended::refused(refusal)),
            (Step::Register(_) | Step::FindToken(_), CallResult::Abandoned) => {
                Step::Ended(Ended::refused(Refusal::Other))
            }
            (Step::Register(_) | Step::FindToken(_), _) => Step::Ended(Ended::InDoubt),
            // All else is durable.
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
            // A matter of the client alone: one that refuses to begin always will.
            (Delivery::ExactlyOnce, Step::Begin) if matches!(answer, CallResult::Refused(_)) => {
                Step::Discard(ended)
            }
            (Delivery::ExactlyOnce, Step::Begin) => Step::Ended(ended),
            // The broker ends it by itself, and takes nothing more from this producer.
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

    /// The calls of an attempt that is given these answers, and how it ends.
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
                assert_eq!(after(&[CallResult::Broken, DONE]), [Call::Confirm, Call::Discard]);
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
            assert_eq!(after(&[CallResult::Abandoned]).1, OTHER, "who takes over asks the group");
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
