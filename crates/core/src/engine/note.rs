//! The metadata that a worker commits with each offset: which commit of which process it was, and of which topic.
//!
//! The token shows a worker how a commit ended if it never got the answer. The topic shows the next owner whether the
//! offset means anything in the log that it finds: Kafka forgets the offsets of a deleted topic, but a late commit
//! brings one back, and a mirror copies them.

use std::fmt;

use crate::types::TopicId;

/// `INSTANCE/COMMIT/TOPIC`; without the topic if the broker knows no ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Which commit of which process: `INSTANCE/COMMIT`.
    pub token: String,
    /// The id of the offset's topic.
    pub topic: Option<TopicId>,
}

/// The length of a UUID as text.
const INSTANCE_CHARS: usize = 36;

impl Note {
    /// Parses the metadata of an offset; `None` if it isn't ours, such as that of an offset set by a tool.
    #[must_use]
    pub fn parse(metadata: &str) -> Option<Note> {
        let mut parts = metadata.split('/');
        let (instance, commit) = (parts.next()?, parts.next()?);
        let topic = parts.next();
        let is_instance =
            instance.len() == INSTANCE_CHARS && instance.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
        let is_commit = !commit.is_empty() && commit.chars().all(|c| c.is_ascii_digit());
        if !is_instance || !is_commit || topic == Some("") || parts.next().is_some() {
            return None;
        }
        Some(Note { token: format!("{instance}/{commit}"), topic: topic.map(TopicId::from) })
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.topic {
            Some(topic) => write!(f, "{}/{topic}", self.token),
            None => f.write_str(&self.token),
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
            let note = Note { token: MARK.to_owned(), topic };
            assert_eq!(Note::parse(&note.to_string()), Some(note));
        }
    }

    #[test]
    fn what_others_left_is_no_note() {
        let foreign = ["", "/", "me/42", "67e55044-10b1-426f-9247-bb680e5fe0c8", "2026-11-28 by hand"];
        let almost = [format!("{MARK}x"), format!("{MARK}/"), format!("{MARK}/t/more")];
        for text in foreign.into_iter().chain(almost.iter().map(String::as_str)) {
            assert_eq!(Note::parse(text), None, "{text}");
        }
    }
}
