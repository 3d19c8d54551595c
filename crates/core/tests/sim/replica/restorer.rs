//! Answers the engine's questions after some time, in any order; the answer to a forgotten question may still arrive.

use genwatch_core::engine::restore::{Answer, AskId, Question};
use genwatch_core::handler::StoredState;
use genwatch_core::types::{GeneratorId, TopicId};
use rand::Rng;

use super::{Replica, Surroundings};
use crate::invariants::Violation;
use crate::trace::say;

/// The answers about a partition.
#[derive(Debug, Default)]
pub struct Restored {
    noted: Option<TopicId>,
    states: Vec<(GeneratorId, StoredState)>,
    /// The topic of the log.
    pub topic: Option<TopicId>,
}

impl Restored {
    fn learn(&mut self, answer: &Answer) {
        match answer {
            Answer::Companions => *self = Restored::default(),
            Answer::Committed(committed) => {
                let note = committed.as_ref().and_then(|committed| committed.note.as_ref());
                self.noted = note.and_then(|note| note.topic.clone());
            }
            Answer::States(states) => self.states.clone_from(states),
            Answer::Log(log) => self.topic.clone_from(&log.topic),
            Answer::Owner(_) | Answer::Never(_) => {}
        }
    }

    /// Whether an answer was of another log.
    pub fn is_of_another_log(&self) -> bool {
        let states = self.states.iter().map(|(_, state)| &state.topic);
        let noted = self.noted.is_some() && self.noted != self.topic;
        noted || states.into_iter().any(|topic| *topic != self.topic)
    }

    /// The states of this log.
    pub fn own(&self) -> Vec<(GeneratorId, StoredState)> {
        self.states.iter().filter(|(_, state)| state.topic == self.topic).cloned().collect()
    }
}

impl Replica {
    /// The restorer answers one question, if it can.
    pub fn restore(&mut self, around: &mut Surroundings<'_>) -> Result<(), Violation> {
        let open: Vec<AskId> = self.asked.keys().copied().collect();
        if open.is_empty() {
            return Ok(());
        }
        let ask = open[around.rng.random_range(0..open.len())];
        let (partition, question) = self.asked[&ask].clone();
        if around.blocked == Some(partition) {
            return Ok(());
        }
        let cluster = &mut around.cluster;
        let answer = match question {
            Question::Companions => Some(Answer::Companions),
            Question::Committed => cluster.stable_offset(partition).map(Answer::Committed),
            Question::States => cluster.stable_states(partition).map(Answer::States),
            Question::Log => Some(Answer::Log(cluster.log(partition))),
            // No other application uses this group.
            Question::Owner(_) => Some(Answer::Owner(None)),
        };
        if let Some(answer) = answer {
            self.asked.remove(&ask);
            self.restored.entry(partition).or_default().learn(&answer);
            self.answers.push((ask, answer));
        } else if around.rng.random_bool(0.3)
            && cluster.end_what_the_dead_left_open(partition, around.group)?
        {
            say!(around.trace, "r{} ends what the dead owner of {partition} has left open", self.id);
        }
        Ok(())
    }
}
