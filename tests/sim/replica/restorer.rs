//! Answers the engine's questions, each some time, in any order; to a forgotten one the answer may be on its way.

use genwatch::engine::restore::{Answer, AskId, Question};
use genwatch::log::Offset;
use rand::Rng;

use super::{Replica, Surroundings};

impl Replica {
    /// The restorer answers one question, if it can.
    pub fn restore(&mut self, around: &mut Surroundings<'_>) {
        let open: Vec<AskId> = self.asked.keys().copied().collect();
        if open.is_empty() {
            return;
        }
        let ask = open[around.rng.random_range(0..open.len())];
        let (partition, question) = self.asked[&ask];
        if around.blocked == Some(partition) {
            return;
        }
        let cluster = &around.cluster;
        let answer = match question {
            Question::Companions => Some(Answer::Companions),
            Question::Committed => {
                cluster.stable_offset(partition).map(|offset| Answer::Committed(Some(Offset(offset))))
            }
            Question::States => cluster.stable_states(partition).map(Answer::States),
            Question::Log => {
                let end = cluster.partitions[partition as usize].end;
                Some(Answer::Log { low: Offset(0), high: Offset(end) })
            }
        };
        if let Some(answer) = answer {
            self.asked.remove(&ask);
            if let Answer::States(states) = &answer {
                self.restored.insert(partition, states.clone());
            }
            self.answers.push((ask, answer));
        }
    }
}
