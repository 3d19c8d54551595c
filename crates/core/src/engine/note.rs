//! The metadata that a worker commits with each offset: which commit of which process it was, and of which topic.
//!
//! The token shows a worker how a commit ended if it never got the answer. The topic shows the next owner whether the
//! offset means anything in the log that it finds: Kafka forgets the offsets of a deleted topic, but a late commit
//! brings one back, and a mirror copies them.

use std::fmt;

use crate::types::{Millis, TopicId};

/// `INSTANCE/COMMIT/TOPIC/TIME`; without the topic if the broker knows no ids, without the time if the handler has no
/// use for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Which commit of which process: `INSTANCE/COMMIT`.
    pub token: String,
    /// The id of the offset's topic.
    pub topic: Option<TopicId>,
    /// The latest event time before the offset; see [`Handler::EVENT_TIME`](crate::handler::Handler::EVENT_TIME).
    pub event_time: Option<Millis>,
}

/// In the place of a topic's id.
const NO_TOPIC: &str = "-";
/// The length of a UUID as text.
const INSTANCE_CHARS: usize = 36;

impl Note {
    /// Parses the metadata of an offset; `None` if it isn't ours, such as that of an offset set by a tool.
    #[must_use]
    pub fn parse(metadata: &str) -> Option<Note> {
        let mut parts = metadata.split('/');
        let (instance, commit) = (parts.next()?, parts.next()?);
        let topic = parts.next().filter(|topic| *topic != NO_TOPIC);
        let time = parts.next();
        let is_instance =
            instance.len() == INSTANCE_CHARS && instance.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
        let is_commit = !commit.is_empty() && commit.chars().all(|c| c.is_ascii_digit());
        let event_time = time.map(|time| time.parse().map(Millis)).transpose().ok()?;
        if !is_instance || !is_commit || topic == Some("") || parts.next().is_some() {
            return None;
        }
        let topic = topic.map(TopicId::from);
        Some(Note { token: format!("{instance}/{commit}"), topic, event_time })
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.token)?;
        match (&self.topic, self.event_time) {
            (None, None) => Ok(()),
            (Some(topic), None) => write!(f, "/{topic}"),
            (Some(topic), Some(time)) => write!(f, "/{topic}/{time}"),
            (None, Some(time)) => write!(f, "/{NO_TOPIC}/{time}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8/42";

    #[test]
    fn what_one_owner_noted_the_next_reads() {
        for topic in [Some(TopicId::from("fXb3ZTPHT7y5Iq7LgnAqLQ")), None] {
            for event_time in [None, Some(Millis(1_766_400_000_000)), Some(Millis(-1))] {
                let note = Note { token: MARK.to_owned(), topic: topic.clone(), event_time };
                assert_eq!(Note::parse(&note.to_string()), Some(note));
            }
        }
    }

    #[test]
    fn what_others_left_is_no_note() {
        let foreign = ["", "/", "me/42", "67e55044-10b1-426f-9247-bb680e5fe0c8", "2026-11-28 by hand"];
        let almost =
            [format!("{MARK}x"), format!("{MARK}/"), format!("{MARK}/t/more"), format!("{MARK}/t/1/2")];
        for text in foreign.into_iter().chain(almost.iter().map(String::as_str)) {
            assert_eq!(Note::parse(text), None, "{text}");
        }
    }
}
