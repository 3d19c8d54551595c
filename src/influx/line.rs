//! A record as a point in InfluxDB's line protocol.
//!
//! What becomes what: a point's tags are the generator (and of an alert its rule, severity and state), its time is the
//! event time: the record's timestamp, of an alert its `at`. Every number of the JSON object is a float field, so that a field never changes its type, whoever
//! writes `80` today and `80.5` tomorrow. Objects in the object are flattened with `_`; null, lists and what has no name are
//! left out.
//!
//! What the format can't say: a line feed, or a backslash before a delimiter or another backslash, outside of a quoted
//! string (its readers disagree there). A tag with one makes no point, as the point would be another generator's; a
//! field's name with one leaves out the field; in a quoted string a line feed is written as `\n`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value};

use crate::log::Millis;

/// The member of the object that names the generator; the record's key is the tag.
const GENERATOR: &str = "generatorID";

/// The member of an alert that is its event time; the record's timestamp is when it was written.
const AT: &str = "at";

/// The times that InfluxDB takes, in milliseconds: it keeps nanoseconds in 64 bits, and the two lowest are its own.
const TIMES: std::ops::RangeInclusive<i64> = -9_223_372_036_854..=9_223_372_036_854;

/// The unit of a point's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Precision {
    /// Milliseconds, as Kafka has them.
    Ms,
    /// Seconds: readings of one generator within a second overwrite each other.
    S,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
}

impl Precision {
    /// As the write API calls it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Precision::Ms => "ms",
            Precision::S => "s",
            Precision::Us => "us",
            Precision::Ns => "ns",
        }
    }

    /// The time in this unit; `None` if InfluxDB can't keep it.
    fn ticks(self, at: Millis) -> Option<i64> {
        if !TIMES.contains(&at.0) {
            return None;
        }
        Some(match self {
            Precision::Ms => at.0,
            Precision::S => at.0.div_euclid(1000),
            Precision::Us => at.0 * 1000,
            Precision::Ns => at.0 * 1_000_000,
        })
    }
}

/// Why a record makes no point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Unfit {
    /// The generator was decommissioned: nothing to write.
    #[error("a tombstone")]
    Tombstone,
    /// No key, so nobody knows whose it is.
    #[error("it has no key")]
    NoKey,
    /// A key, or another tag, that a tag can't hold.
    #[error("a tag can't hold its key, rule, state or severity")]
    BadTag,
    /// Not one JSON document, or a number too large for a float.
    #[error("it is not JSON")]
    NotJson,
    /// JSON, but no object.
    #[error("it is no JSON object")]
    NotObject,
    /// `generatorID` differs from the key.
    #[error("its generatorID is not its key")]
    KeyMismatch,
    /// No timestamp, or one that InfluxDB can't keep.
    #[error("it has no timestamp that InfluxDB can keep")]
    BadTime,
    /// An object without anything to write.
    #[error("it has no field")]
    NoField,
}

impl Unfit {
    /// The reason, as a label of metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Unfit::Tombstone => "tombstone",
            Unfit::NoKey => "no_key",
            Unfit::BadTag => "bad_tag",
            Unfit::NotJson => "not_json",
            Unfit::NotObject => "not_object",
            Unfit::KeyMismatch => "key_mismatch",
            Unfit::BadTime => "bad_time",
            Unfit::NoField => "no_field",
        }
    }
}

/// The record, as far as a point is made of it.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
    /// Its timestamp.
    pub at: Option<Millis>,
}

/// How the records of one topic become points.
#[derive(Clone, Debug)]
pub struct Shape {
    measurement: String,
    tags: &'static [&'static str],
    /// The member that is the time, where it isn't the record's timestamp.
    time: Option<&'static str>,
    precision: Precision,
}

impl Shape {
    /// Readings and aggregates: the generator is the only tag.
    #[must_use]
    pub fn of_readings(measurement: &str, precision: Precision) -> Shape {
        Shape { measurement: escaped(measurement, MEASUREMENT), tags: &[], time: None, precision }
    }

    /// Alert events.
    #[must_use]
    pub fn of_alerts(measurement: &str, precision: Precision) -> Shape {
        // In the order that InfluxDB sorts them in.
        let tags = &["rule", "severity", "state"];
        Shape { tags, time: Some(AT), ..Shape::of_readings(measurement, precision) }
    }

    /// Appends the record as one line, with its line feed.
    ///
    /// # Errors
    /// When it makes no point; then nothing is appended.
    pub fn append(&self, record: &Source<'_>, lines: &mut String) -> Result<(), Unfit> {
        let value = record.value.ok_or(Unfit::Tombstone)?;
        let key = record.key.filter(|key| !key.is_empty()).ok_or(Unfit::NoKey)?;
        let generator = std::str::from_utf8(key).ok().filter(|key| is_sayable(key)).ok_or(Unfit::BadTag)?;
        let object = match serde_json::from_slice(value) {
            Ok(Value::Object(object)) => object,
            Ok(_) => return Err(Unfit::NotObject),
            Err(_) => return Err(Unfit::NotJson),
        };
        if object.get(GENERATOR).is_some_and(|id| id.as_str() != Some(generator)) {
            return Err(Unfit::KeyMismatch);
        }
        let at = self.time.and_then(|name| object.get(name)).and_then(Value::as_i64).map(Millis);
        let time = at.or(record.at).and_then(|at| self.precision.ticks(at)).ok_or(Unfit::BadTime)?;
        let tags = self.tags(&object)?;
        let mut fields = BTreeMap::new();
        self.collect("", &object, &mut fields);
        if fields.is_empty() {
            return Err(Unfit::NoField);
        }

        lines.push_str(&self.measurement);
        append_pair(lines, ',', GENERATOR, generator);
        for (name, value) in tags {
            append_pair(lines, ',', name, value);
        }
        for (n, (name, value)) in fields.iter().enumerate() {
            lines.push(if n == 0 { ' ' } else { ',' });
            append_escaped(lines, name, NAME);
            lines.push('=');
            append_field(lines, value);
        }
        // Writing into a string can't fail.
        let _ = writeln!(lines, " {time}");
        Ok(())
    }

    fn tags<'o>(&self, object: &'o Map<String, Value>) -> Result<Vec<(&'static str, &'o str)>, Unfit> {
        let mut tags = Vec::with_capacity(self.tags.len());
        for name in self.tags {
            // The format has no empty tag.
            let Some(value) = object.get(*name).and_then(Value::as_str).filter(|value| !value.is_empty())
            else {
                continue;
            };
            if !is_sayable(value) {
                return Err(Unfit::BadTag);
            }
            tags.push((*name, value));
        }
        Ok(tags)
    }

    /// Of two members that come to one name, as `{"a":{"b":1},"a_b":2}`, the first stays.
    fn collect<'o>(
        &self,
        prefix: &str,
        object: &'o Map<String, Value>,
        fields: &mut BTreeMap<String, &'o Value>,
    ) {
        for (name, value) in object {
            // A field of a tag's name could only be asked for by tricks.
            let is_told = prefix.is_empty()
                && (name == GENERATOR
                    || self.time == Some(name.as_str())
                    || self.tags.contains(&name.as_str()));
            if is_told || name.is_empty() || !is_sayable(name) {
                continue;
            }
            match value {
                Value::Null | Value::Array(_) => {}
                Value::Object(inner) => self.collect(&format!("{prefix}{name}_"), inner, fields),
                Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                    fields.entry(format!("{prefix}{name}")).or_insert(value);
                }
            }
        }
    }
}

/// Whether a measurement can have this name: what the format can say, and InfluxDB doesn't take for a comment.
#[must_use]
pub fn is_measurement(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('#') && is_sayable(name)
}

/// What a measurement's name must have escaped.
const MEASUREMENT: &[char] = &[',', ' '];
/// What the names of tags and fields and the values of tags must have escaped.
const NAME: &[char] = &[',', '=', ' '];

/// Whether a name, or a tag's value, reads back as it is written.
fn is_sayable(text: &str) -> bool {
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let unclear = match c {
            '\n' => true,
            '\\' => matches!(chars.peek(), None | Some('\\' | ',' | '=' | ' ')),
            _ => false,
        };
        if unclear {
            return false;
        }
    }
    true
}

fn append_pair(lines: &mut String, separator: char, name: &str, value: &str) {
    lines.push(separator);
    append_escaped(lines, name, NAME);
    lines.push('=');
    append_escaped(lines, value, NAME);
}

fn append_escaped(lines: &mut String, text: &str, special: &[char]) {
    for c in text.chars() {
        if special.contains(&c) {
            lines.push('\\');
        }
        lines.push(c);
    }
}

fn escaped(text: &str, special: &[char]) -> String {
    let mut escaped = String::with_capacity(text.len());
    append_escaped(&mut escaped, text, special);
    escaped
}

fn append_field(lines: &mut String, value: &Value) {
    // Writing into a string can't fail.
    let _ = match value {
        Value::Bool(value) => write!(lines, "{value}"),
        // A number without a suffix is a float. `Debug` gives the shortest form that reads back the same.
        Value::Number(number) => write!(lines, "{:?}", number.as_f64().unwrap_or_default()),
        Value::String(text) => {
            lines.push('"');
            for c in text.chars() {
                match c {
                    '"' => lines.push_str("\\\""),
                    '\\' => lines.push_str("\\\\"),
                    '\n' => lines.push_str("\\\\n"),
                    c => lines.push(c),
                }
            }
            lines.push('"');
            Ok(())
        }
        Value::Null | Value::Array(_) | Value::Object(_) => Ok(()),
    };
}

#[cfg(test)]
mod tests;
