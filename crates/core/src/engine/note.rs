//! The metadata that a worker commits with each offset: which commit of which process it was, and of which topic.
//!
//! The token shows a worker how a commit ended if it never got the answer. The topic shows the next owner whether the
//! offset means anything in the log that it finds: Kafka forgets the offsets of a deleted topic, but a late commit
//! brings one back, and a mirror copies them. The member shows the next owner whether who committed last is still there:
//! if not, and a transaction holds the partition up, it is theirs to end ([`Note::departed`]).

use std::fmt;
use std::sync::Arc;

use crate::types::{Millis, TopicId};

/// `INSTANCE/COMMIT/TOPIC/TIME/MEMBER`; `-` for the topic if the broker knows no ids, for the time if the handler has no
/// use for it; what is unknown at the end is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Which commit of which process: `INSTANCE/COMMIT`.
    pub token: String,
    /// The id of the offset's topic.
    pub topic: Option<TopicId>,
    /// The latest event time before the offset; see [`Handler::EVENT_TIME`](crate::handler::Handler::EVENT_TIME).
    pub event_time: Option<Millis>,
    /// The member id under which it was committed.
    pub member: Option<Arc<str>>,
}

/// In the place of what isn't known.
const NONE: &str = "-";
/// The length of a UUID as text.
const INSTANCE_CHARS: usize = 36;

impl Note {
    /// Parses the metadata of an offset; `None` if it isn't ours, such as that of an offset set by a tool.
    #[must_use]
    pub fn parse(metadata: &str) -> Option<Note> {
        // A member id may hold anything: it is the last.
        let mut parts = metadata.splitn(5, '/');
        let (instance, commit) = (parts.next()?, parts.next()?);
        let [topic, time, member] = [parts.next(), parts.next(), parts.next()];
        let is_instance =
            instance.len() == INSTANCE_CHARS && instance.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
        let is_commit = !commit.is_empty() && commit.chars().all(|c| c.is_ascii_digit());
        let event_time = time.filter(|time| *time != NONE).map(|time| time.parse().map(Millis));
        let event_time = event_time.transpose().ok()?;
        if !is_instance || !is_commit || topic == Some("") || member == Some("") {
            return None;
        }
        let topic = topic.filter(|topic| *topic != NONE).map(TopicId::from);
        Some(Note { token: format!("{instance}/{commit}"), topic, event_time, member: member.map(Arc::from) })
    }

    /// The instance that committed it.
    #[must_use]
    pub fn instance(&self) -> &str {
        self.token.split('/').next().unwrap_or_default()
    }

    /// The instance that committed it, if it was a member of the group then and no member of these is it: whatever it has
    /// left open, nobody will end. A member that is still there is never taken for departed, whatever has happened to the
    /// partition since: its own transactions go on.
    #[must_use]
    pub fn departed<'m>(&self, mut members: impl Iterator<Item = &'m str>) -> Option<&str> {
        let member = self.member.as_deref()?;
        (!members.any(|id| id == member)).then(|| self.instance())
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.token)?;
        let Note { topic, event_time, member, .. } = self;
        let parts: [Option<&dyn fmt::Display>; 3] = [
            topic.as_ref().map(|topic| topic as _),
            event_time.as_ref().map(|time| time as _),
            member.as_ref().map(|member| member as _),
        ];
        let known = parts.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        parts[..known].iter().try_for_each(|part| write!(f, "/{}", part.unwrap_or(&NONE)))
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
                for member in [None, Some("genwatch-host-1-0c1d"), Some("a/b/")] {
                    let member = member.map(Arc::from);
                    let note = Note { token: MARK.to_owned(), topic: topic.clone(), event_time, member };
                    assert_eq!(Note::parse(&note.to_string()), Some(note));
                }
            }
        }
        let note = Note { token: MARK.to_owned(), topic: None, event_time: None, member: Some("m".into()) };
        assert_eq!(note.to_string(), format!("{MARK}/-/-/m"));
    }

    #[test]
    fn only_who_is_no_member_any_more_has_departed() {
        let note = |member: Option<&str>| {
            let member = member.map(Arc::from);
            Note { token: MARK.to_owned(), topic: None, event_time: None, member }
        };
        let instance = MARK.split('/').next();
        assert_eq!(note(Some("m")).departed(["n", "o"].into_iter()), instance);
        assert_eq!(note(Some("m")).departed(["n", "m"].into_iter()), None);
        assert_eq!(note(None).departed(["n"].into_iter()), None, "nobody knows who that was");
    }

    #[test]
    fn what_others_left_is_no_note() {
        let foreign = ["", "/", "me/42", "67e55044-10b1-426f-9247-bb680e5fe0c8", "2026-11-28 by hand"];
        let almost =
            [format!("{MARK}x"), format!("{MARK}/"), format!("{MARK}/t/more"), format!("{MARK}/t/1/")];
        for text in foreign.into_iter().chain(almost.iter().map(String::as_str)) {
            assert_eq!(Note::parse(text), None, "{text}");
        }
    }
}
