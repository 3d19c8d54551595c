//! Where a partition starts, and with which states: decided from the answers of its restore.
//!
//! Offsets mean something in one log only. A readings topic that is deleted and recreated, or a mirror of it, is
//! another log under the same name whose offsets begin at 0 again: readings would be taken for repeats of others. So
//! the states and the note of the committed offset name the topic's id; if it isn't the log's, [`OnNewTopic`]
//! decides.
//!
//! Within one topic, an unclean election can cause an offset to be used twice. The leader epochs in the states tell
//! such readings apart: see [`Tracked::covers`](crate::handler::Tracked::covers).

use super::Reported;
use super::note::Note;
use super::restore::Fault;
use crate::alarm::state::StoredAlarms;
use crate::handler::{Stored, StoredState};
use crate::pool::{Beginning, NO_EVENT_TIME};
use crate::types::{Epoch, GeneratorId, Offset, TopicId};

/// The user's choices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policies {
    /// When the committed offset isn't in the log.
    pub on_out_of_range: OnOutOfRange,
    /// When the log is of another topic than the one processed before.
    pub on_new_topic: OnNewTopic,
}

/// What to do when the committed offset isn't in the log any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnOutOfRange {
    /// Don't process the partition: readings were lost before they were processed.
    Fail,
    /// Go on with the earliest record in the log, and log an error.
    Earliest,
}

/// What to do when the readings topic was deleted and recreated, or is a mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnNewTopic {
    /// End the worker.
    Fail,
    /// Process the new log from its first reading; alarms stay as they are.
    KeepStates,
    /// Process the new log from its first reading, with no generator known.
    ForgetStates,
}

/// A log: one partition of one incarnation of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The topic's id; `None` if the broker knows no ids.
    pub topic: Option<TopicId>,
    /// The first offset in it.
    pub low: Offset,
    /// The offset after the last one in it.
    pub high: Offset,
}

/// The group's committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The offset.
    pub offset: Offset,
    /// Its note; `None` if no worker has committed it.
    pub note: Option<Note>,
}

/// The states of a partition's generators.
pub type States<B = StoredAlarms> = Vec<(GeneratorId, StoredState<B>)>;

/// Everything found about a partition.
#[derive(Clone, Debug)]
pub struct Found<B = StoredAlarms> {
    /// The group's offset, if there is one.
    pub committed: Option<CommittedOffset>,
    /// The stored states.
    pub states: States<B>,
    /// The topic of the partition when this same worker processed it before.
    pub worked: Option<TopicId>,
    /// Where this worker should have read on, but the client found no record.
    pub stopped: Option<Offset>,
}

impl<B> Default for Found<B> {
    fn default() -> Self {
        Found { committed: None, states: Vec::new(), worked: None, stopped: None }
    }
}

/// How a partition starts.
#[derive(Debug)]
pub struct Start<B = StoredAlarms> {
    /// What the pool begins with.
    pub beginning: Beginning<B>,
    /// The end of the log now.
    pub end: Offset,
    /// What a user should know.
    pub told: Vec<Reported>,
}

impl<B: Stored> Found<B> {
    /// The topics that stored states name, other than this log's.
    #[must_use]
    pub fn other_topics(&self, log: &Log) -> Vec<TopicId> {
        let mut others: Vec<TopicId> =
            self.states.iter().filter_map(|(_, state)| other(state.topic.as_ref(), log)).collect();
        others.sort_unstable();
        others.dedup();
        others
    }

    /// Decides where to start, and with which states.
    ///
    /// # Errors
    /// Returns the fault to fix before the partition can be processed.
    pub fn start(self, log: &Log, policies: Policies) -> Result<Start<B>, Fault> {
        let noted = self.committed.as_ref().and_then(|committed| committed.note.as_ref());
        let noted = noted.and_then(|note| other(note.topic.as_ref(), log));
        let is_noted = noted.is_some();
        let was = noted
            .or_else(|| other(self.worked.as_ref(), log))
            .or_else(|| self.states.iter().find_map(|(_, state)| other(state.topic.as_ref(), log)));
        let Some((was, now)) = was.zip(log.topic.clone()) else { return self.go_on(log, policies) };
        if policies.on_new_topic == OnNewTopic::Fail {
            return Err(Fault::NewTopic { was, now });
        }
        // An offset that doesn't name the other topic was committed in this log, or set by somebody who knew why.
        let committed = self.committed.filter(|_| !is_noted).map(|committed| committed.offset);
        let (start, skipped) = first(committed, log, policies.on_out_of_range)?;
        let (mut states, others): (States<B>, States<B>) =
            self.states.into_iter().partition(|(_, state)| other(state.topic.as_ref(), log).is_none());
        let mut renewals = Vec::with_capacity(others.len());
        let mut kept = 0;
        for (generator, state) in others {
            let keeps = policies.on_new_topic == OnNewTopic::KeepStates && !state.decommissioned;
            // It covers no reading of this log. (Nor does it name one: a deadman alert has the offset in its id.)
            let renewed = keeps.then(|| StoredState {
                topic: log.topic.clone(),
                offset: Offset(-1),
                epoch: Epoch::UNKNOWN,
                ..state
            });
            states.extend(renewed.clone().map(|renewed| (generator.clone(), renewed)));
            kept += usize::from(keeps);
            renewals.push((generator, renewed));
        }
        let mut told = vec![Reported::NewTopic { was, now, kept, forgotten: renewals.len() - kept }];
        told.extend(skipped);
        let beginning = Beginning {
            start,
            topic: log.topic.clone(),
            states,
            renewals,
            owes_offset: is_noted,
            event_time: NO_EVENT_TIME,
        };
        Ok(Start { beginning, end: log.high, told })
    }

    /// Starts in the log that was processed before, as far as is known.
    fn go_on(self, log: &Log, policies: Policies) -> Result<Start<B>, Fault> {
        if let Some(offset) = self.stopped.filter(|offset| *offset > log.high)
            && policies.on_out_of_range == OnOutOfRange::Fail
        {
            return Err(Fault::Truncated { offset, high: log.high });
        }
        let committed = self.committed.as_ref().map(|committed| committed.offset);
        let (start, skipped) = first(committed, log, policies.on_out_of_range)?;
        let mut told: Vec<Reported> = skipped.into_iter().collect();
        let from = |offset: Offset| self.states.iter().filter(|(_, state)| state.offset >= offset).count();
        // States are often ahead of a worker's own offset; for an offset set by others that is unusual.
        let is_noted = self.committed.as_ref().is_some_and(|committed| committed.note.is_some());
        let (ahead, beyond) = (from(start), from(log.high));
        if beyond > 0 {
            told.push(Reported::StatesBeyondTheEnd { generators: beyond, high: log.high });
        } else if ahead > 0 && !is_noted {
            told.push(Reported::StatesAhead { generators: ahead, start });
        }
        let noted = self.committed.filter(|committed| committed.offset == start);
        let event_time = noted.and_then(|committed| committed.note?.event_time).unwrap_or(NO_EVENT_TIME);
        let (states, topic) = (self.states, log.topic.clone());
        let beginning = Beginning { start, topic, states, event_time, ..Beginning::default() };
        Ok(Start { beginning, end: log.high, told })
    }
}

/// The topic, if it is known and isn't the log's.
fn other(topic: Option<&TopicId>, log: &Log) -> Option<TopicId> {
    let known = topic.filter(|topic| log.topic.as_ref().is_some_and(|now| now != *topic));
    known.cloned()
}

/// Where to start for the committed offset, and what to report if it isn't in the log.
fn first(
    committed: Option<Offset>,
    log: &Log,
    on_out_of_range: OnOutOfRange,
) -> Result<(Offset, Option<Reported>), Fault> {
    let Log { low, high, .. } = *log;
    match committed {
        None => Ok((low, None)),
        Some(committed) if (low..=high).contains(&committed) => Ok((committed, None)),
        Some(committed) => match on_out_of_range {
            OnOutOfRange::Fail => Err(Fault::OutOfRange { committed, low, high }),
            OnOutOfRange::Earliest => Ok((low, Some(Reported::Skipped { committed, low }))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAIL: Policies = Policies { on_out_of_range: OnOutOfRange::Fail, on_new_topic: OnNewTopic::Fail };

    fn id(name: &str) -> Option<TopicId> {
        Some(TopicId::from(name))
    }

    fn log() -> Log {
        Log { topic: id("new"), low: Offset(10), high: Offset(20) }
    }

    fn committed(offset: i64, topic: &str) -> Option<CommittedOffset> {
        let note = (topic != "nobody").then(|| Note {
            token: "m/1".to_owned(),
            topic: id(topic),
            event_time: None,
            member: None,
        });
        Some(CommittedOffset { offset: Offset(offset), note })
    }

    fn state(generator: &str, topic: &str, offset: i64) -> (GeneratorId, StoredState) {
        let json =
            format!(r#"{{"generatorID":"{generator}","topic":"{topic}","offset":{offset},"rules":{{}}}}"#);
        (GeneratorId::from(generator), StoredState::from_json(json.as_bytes()).expect("a state"))
    }

    fn on_new_topic(on_new_topic: OnNewTopic) -> Policies {
        Policies { on_new_topic, ..FAIL }
    }

    #[test]
    fn a_partition_starts_where_it_was_committed_or_as_told_where_that_is_gone() {
        let first = |committed: Option<i64>, policy| first(committed.map(Offset), &log(), policy);
        for policy in [OnOutOfRange::Fail, OnOutOfRange::Earliest] {
            assert_eq!(first(None, policy), Ok((Offset(10), None)));
            for within in [10, 15, 20] {
                assert_eq!(first(Some(within), policy), Ok((Offset(within), None)));
            }
        }
        for outside in [9, 21] {
            assert!(matches!(first(Some(outside), OnOutOfRange::Fail), Err(Fault::OutOfRange { .. })));
            let skipped = Reported::Skipped { committed: Offset(outside), low: Offset(10) };
            assert_eq!(first(Some(outside), OnOutOfRange::Earliest), Ok((Offset(10), Some(skipped))));
        }
    }

    #[test]
    fn a_log_of_another_topic_is_known_by_the_offset_by_a_state_and_by_what_was_worked_before() {
        let evidence = [
            Found { committed: committed(15, "old"), ..Found::default() },
            Found { states: vec![state("a", "new", 11), state("b", "old", 11)], ..Found::default() },
            Found { worked: id("old"), ..Found::default() },
        ];
        for found in evidence {
            let fault = found.clone().start(&log(), FAIL).expect_err("another log");
            assert!(matches!(fault, Fault::NewTopic { .. }), "{fault}");
            let start = found.clone().start(&log(), on_new_topic(OnNewTopic::KeepStates)).expect("accepted");
            assert_eq!(start.beginning.start, Offset(10), "the old offset means nothing here");
            assert!(matches!(start.told[..], [Reported::NewTopic { .. }]), "{:?}", start.told);
            let unknown = Log { topic: None, ..log() };
            assert!(found.start(&unknown, FAIL).is_ok(), "the broker knows no ids");
        }
    }

    #[test]
    fn what_is_kept_is_renewed_once_and_covers_nothing_and_what_is_forgotten_is_deleted() {
        let mut decommissioned = state("gone", "old", 700);
        decommissioned.1.decommissioned = true;
        let states = vec![state("a", "old", 900), decommissioned, state("b", "new", 12)];
        let found = Found { states, committed: committed(900, "old"), ..Found::default() };

        let kept = found.clone().start(&log(), on_new_topic(OnNewTopic::KeepStates)).expect("accepted");
        let names =
            |of: &States| of.iter().map(|(id, state)| (id.to_string(), state.offset.0)).collect::<Vec<_>>();
        let Beginning { start, states, renewals, owes_offset, .. } = kept.beginning;
        assert_eq!((start, owes_offset), (Offset(10), true));
        assert_eq!(names(&states), [("b".to_owned(), 12), ("a".to_owned(), -1)]);
        assert!(states.iter().all(|(_, state)| state.topic == id("new")));
        let renewed = |(generator, state): &(GeneratorId, Option<StoredState>)| {
            (generator.to_string(), state.as_ref().map(|state| state.offset.0))
        };
        let renewals: Vec<_> = renewals.iter().map(renewed).collect();
        assert_eq!(renewals, [("a".to_owned(), Some(-1)), ("gone".to_owned(), None)]);

        let forgotten = found.start(&log(), on_new_topic(OnNewTopic::ForgetStates)).expect("accepted");
        assert_eq!(names(&forgotten.beginning.states), [("b".to_owned(), 12)]);
        assert!(forgotten.beginning.renewals.iter().all(|(_, state)| state.is_none()));
        let Some(Reported::NewTopic { kept: 0, forgotten: 2, .. }) = forgotten.told.first() else {
            panic!("{:?}", forgotten.told)
        };
    }

    #[test]
    fn an_offset_of_this_log_counts_though_states_are_of_another() {
        let found = Found {
            states: vec![state("a", "old", 900)],
            committed: committed(15, "new"),
            ..Found::default()
        };
        let start = found.start(&log(), on_new_topic(OnNewTopic::KeepStates)).expect("accepted");
        assert_eq!(start.beginning.start, Offset(15));
        assert_eq!(start.beginning.states[0].1.offset, Offset(-1));
        assert!(!start.beginning.owes_offset);
    }

    #[test]
    fn states_ahead_of_an_offset_that_no_worker_committed_or_of_the_log_are_told() {
        let told = |committed, offsets: &[i64]| {
            let states = offsets.iter().map(|offset| state("a", "new", *offset)).collect();
            Found { committed, states, ..Found::default() }.start(&log(), FAIL).expect("starts").told
        };
        assert_eq!(told(committed(12, "new"), &[11, 12, 19]), []);
        let ahead = Reported::StatesAhead { generators: 2, start: Offset(12) };
        assert_eq!(told(committed(12, "nobody"), &[11, 12, 19]), [ahead]);
        assert_eq!(told(committed(12, "nobody"), &[11]), []);
        let beyond = Reported::StatesBeyondTheEnd { generators: 1, high: Offset(20) };
        assert_eq!(told(committed(12, "new"), &[19, 20]), [beyond]);
    }

    #[test]
    fn a_log_that_ends_before_the_place_that_was_reached_has_lost_readings() {
        let found: Found =
            Found { committed: committed(15, "new"), stopped: Some(Offset(25)), ..Found::default() };
        assert!(matches!(found.clone().start(&log(), FAIL), Err(Fault::Truncated { .. })));
        let earliest = Policies { on_out_of_range: OnOutOfRange::Earliest, ..FAIL };
        assert_eq!(found.start(&log(), earliest).expect("accepted").beginning.start, Offset(15));
    }
}
