//! A record with its metadata, as steps see it, and what the records of a command have.

use std::borrow::Cow;
use std::fmt;

use crate::types::{Millis, Offset, PartitionId};

/// A record to transform, borrowed from its source.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The topic that it was read from, or will be written to.
    pub topic: &'a str,
    /// Its partition.
    pub partition: Option<PartitionId>,
    /// Its offset.
    pub offset: Option<Offset>,
    /// Its timestamp.
    pub timestamp: Option<Millis>,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// The MQTT topic that it came by.
    pub mqtt_topic: Option<&'a str>,
    /// Its headers.
    pub headers: &'a dyn Headers,
    /// Its value: a JSON object.
    pub value: &'a [u8],
}

impl<'a> Record<'a> {
    /// A record with a topic and a value, and no other metadata.
    #[must_use]
    pub fn new(topic: &'a str, value: &'a [u8]) -> Record<'a> {
        Record {
            topic,
            partition: None,
            offset: None,
            timestamp: None,
            key: None,
            mqtt_topic: None,
            headers: &NoHeaders,
            value,
        }
    }
}

/// The headers of a record: looked up only when a step asks for one.
pub trait Headers: fmt::Debug {
    /// The value of the last header with this name; `None` if there is none, or it is null.
    fn last(&self, name: &str) -> Option<&[u8]>;
}

/// No headers.
#[derive(Clone, Copy, Debug)]
pub struct NoHeaders;

impl Headers for NoHeaders {
    fn last(&self, _: &str) -> Option<&[u8]> {
        None
    }
}

/// The user properties of an MQTT message.
impl Headers for &[(String, String)] {
    fn last(&self, name: &str) -> Option<&[u8]> {
        let mut all = self.iter().rev();
        all.find(|(own, _)| own == name).map(|(_, value)| value.as_bytes())
    }
}

/// A piece of a record's metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metadata {
    /// `topic`, as earlier steps left it.
    Topic,
    /// `partition`
    Partition,
    /// `offset`
    Offset,
    /// `timestamp`, in milliseconds, as earlier steps left it.
    Timestamp,
    /// `key`
    Key,
    /// `mqtt_topic`
    MqttTopic,
}

impl Metadata {
    /// All of them.
    pub const ALL: [Metadata; 6] = [
        Metadata::Topic,
        Metadata::Partition,
        Metadata::Offset,
        Metadata::Timestamp,
        Metadata::Key,
        Metadata::MqttTopic,
    ];

    /// The name in a file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Metadata::Topic => "topic",
            Metadata::Partition => "partition",
            Metadata::Offset => "offset",
            Metadata::Timestamp => "timestamp",
            Metadata::Key => "key",
            Metadata::MqttTopic => "mqtt_topic",
        }
    }
}

/// What the records of a command have, so that a file is checked when the command starts.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// Its name, for messages.
    pub name: &'static str,
    /// The metadata of its records.
    pub metadata: &'static [Metadata],
    /// Whether its records have headers.
    pub headers: bool,
    /// Whether its target has tags.
    pub tags: bool,
    /// Refuses a name that its target can't have, and says what it can have.
    pub check_target: fn(&str) -> Result<(), String>,
}

impl Command {
    /// `bridge`: MQTT messages, whose user properties are the headers, to topics.
    pub const BRIDGE: Command = Command {
        name: "bridge",
        metadata: &[Metadata::Topic, Metadata::Timestamp, Metadata::Key, Metadata::MqttTopic],
        headers: true,
        tags: false,
        check_target: check_topic,
    };

    /// `source influx`: rows of a query to topics.
    pub const SOURCE: Command = Command {
        name: "source",
        metadata: &[Metadata::Topic, Metadata::Timestamp, Metadata::Key],
        headers: false,
        tags: false,
        check_target: check_topic,
    };

    /// A sink: records of Kafka to a database, whose `check_target` knows what it can name.
    #[must_use]
    pub const fn sink(name: &'static str, check_target: fn(&str) -> Result<(), String>) -> Command {
        Command {
            name,
            metadata: &[
                Metadata::Topic,
                Metadata::Partition,
                Metadata::Offset,
                Metadata::Timestamp,
                Metadata::Key,
            ],
            headers: true,
            tags: true,
            check_target,
        }
    }

    /// Returns the metadata with this name.
    ///
    /// # Errors
    /// When the command's records don't have it; the message lists what they have.
    pub(super) fn metadata(&self, name: &str) -> Result<Metadata, String> {
        let known = self.metadata.iter().find(|one| one.as_str() == name);
        known.copied().ok_or_else(|| {
            let all: Vec<&str> = self.metadata.iter().map(|one| one.as_str()).collect();
            format!("a record of `{}` has no `{name}`; it has {}", self.name, all.join(", "))
        })
    }
}

/// Kafka's rule for the name of a topic.
fn check_topic(name: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if (1..=249).contains(&name.len()) && name.chars().all(allowed) && name != "." && name != ".." {
        return Ok(());
    }
    Err("a topic's name is 1 to 249 of the characters a-z A-Z 0-9 _ - .".to_owned())
}

/// Metadata as text: what a pattern sees.
pub(super) fn text_of<'r>(bytes: &'r [u8], what: &str) -> Result<Cow<'r, str>, String> {
    std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| format!("{what} is not UTF-8"))
}
