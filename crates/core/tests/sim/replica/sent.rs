//! What a worker knows to be durable of a partition while it holds it: that must not be sent again.

use std::collections::{BTreeMap, BTreeSet};

use genwatch_core::handler::effect::Effect;
use genwatch_core::pool::{Commit, CommitPart};

/// Identifies an effect: its subject, its offset, and its content.
type Name = (String, i64, String);

/// Effects that are durable, by partition.
#[derive(Debug, Default)]
pub struct Sent(BTreeMap<i32, BTreeSet<Name>>);

impl Sent {
    /// The commit's content is durable.
    pub fn remember(&mut self, commit: &Commit) {
        for part in &commit.parts {
            let known = self.0.entry(part.partition.0).or_default();
            for name in names(part) {
                // A deletion before a state belongs to an earlier state.
                if !name.2.is_empty() {
                    known.retain(|(of, _, says)| *of != name.0 || !says.is_empty());
                }
                known.insert(name);
            }
        }
    }

    /// The partition is no longer held.
    pub fn forget(&mut self, partition: i32) {
        self.0.remove(&partition);
    }

    /// Returns one of a part's effects that is durable already.
    pub fn known(&self, part: &CommitPart) -> Option<Name> {
        let known = self.0.get(&part.partition.0)?;
        names(part).find(|name| known.contains(name))
    }
}

/// The names of a part's effects.
fn names(part: &CommitPart) -> impl Iterator<Item = Name> {
    part.effects.iter().map(|effect| match effect {
        Effect::Output(alert) => (
            alert.generator.to_string(),
            alert.offset.0,
            format!("{} {:?} {:?}", alert.rule.name, alert.kind, alert.at),
        ),
        Effect::State(change) => {
            let json = change.json.as_deref().map(String::from_utf8_lossy);
            (change.generator.to_string(), change.offset.0, json.unwrap_or_default().into_owned())
        }
        Effect::DeadLetter(letter) => (String::new(), letter.offset.0, String::new()),
    })
}
