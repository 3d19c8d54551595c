//! A record that the steps of `--transform` changed, as a point in line protocol.
//!
//! Whether a record is a reading, and whose, is judged before the steps see it. So the tag `generatorID` is always the
//! record's key. The fields are what the steps left, flattened and typed as those of any other record
//! ([`super::line_protocol`]).
//!
//! A reading has two lines. The first one has the fields whose type is certain: the reading's own numbers, whatever
//! they are called now, and values that steps made. The second one has the rest: members that only the device knows,
//! and whose type may differ from one device to the next.

use std::borrow::Cow;
use std::collections::BTreeMap;

use genwatch_core::transform::fields::{Fields, JsonType, Member};
use genwatch_core::transform::record::Record;
use genwatch_core::transform::{Changed, Outcome, Transform};
use serde_json::Value;

use super::line_protocol::{
    AT, GENERATOR, Judged, Kind, MEASUREMENT, PointShape, SkipReason, append_fields, append_pair,
    append_time, collect, escaped, is_representable,
};
use crate::sink::{NotWritten, Skipped, SourceRecord};

impl From<SkipReason> for NotWritten {
    fn from(reason: SkipReason) -> Self {
        Skipped { label: reason.as_str(), reason: reason.to_string() }.into()
    }
}

impl PointShape {
    /// Appends the record of this topic as the steps leave it.
    ///
    /// # Errors
    /// When it makes no point: it can't be one, a step filtered it out, or a step failed. Then nothing is appended.
    pub fn append_transformed(
        &self,
        record: &SourceRecord<'_>,
        topic: &str,
        transform: &Transform,
        lines: &mut String,
    ) -> Result<(), NotWritten> {
        let judged = self.judge(record)?;
        let input = Record {
            partition: Some(record.partition),
            offset: Some(record.offset),
            timestamp: record.at,
            key: record.key,
            headers: record.headers,
            ..Record::new(topic, record.value.unwrap_or_default())
        };
        let changed = match transform.apply(&input) {
            Ok(Outcome::Unchanged) => return Ok(self.write(&judged, record, lines)?),
            Ok(Outcome::Changed(changed)) => *changed,
            Ok(Outcome::Filtered(_)) => return Err(NotWritten::Filtered),
            Err(failure) => return Err(NotWritten::Failed(failure)),
        };
        let Changed { target, timestamp, fields, tags } = changed;
        let mut judged = judged;
        if let Some(set) = timestamp {
            let time = self.ticks(set.value, judged.offset);
            judged.time = time.ok_or_else(|| {
                let cause =
                    format!("the timestamp {} is out of the range that the database keeps", set.value.0);
                NotWritten::Failed(set.step.failure(cause))
            })?;
        }
        let routed =
            target.map(|set| PointShape { measurement: escaped(&set.value, MEASUREMENT), ..self.clone() });
        let shape = routed.as_ref().unwrap_or(self);
        match fields {
            None => Ok(shape.write(&judged, record, lines)?),
            Some(fields) => Ok(shape.write_fields(&judged, &fields, &tags, lines)?),
        }
    }

    fn write_fields(
        &self,
        judged: &Judged<'_>,
        members: &Fields<'_>,
        names: &[&str],
        lines: &mut String,
    ) -> Result<(), SkipReason> {
        let mut tags: BTreeMap<&str, Cow<'_, str>> = BTreeMap::new();
        tags.insert(GENERATOR, judged.generator.into());
        let (mut certain, mut others) = (BTreeMap::new(), BTreeMap::new());
        for member in members.iter().filter(|member| member.name != GENERATOR) {
            let name: &str = &member.name;
            if self.kind.tags().contains(&name) || names.contains(&name) {
                if let Some(text) = tag(member) {
                    if !is_representable(name) || !is_representable(&text) {
                        return Err(SkipReason::BadTag);
                    }
                    tags.insert(name, text);
                }
                continue;
            }
            if self.kind == Kind::Alerts && name == AT {
                continue;
            }
            // A nested value that can't be read, or a number too large for a float, is left out.
            let Ok(value) = serde_json::from_str::<Value>(&member.json) else { continue };
            let alone = self.kind == Kind::Readings && !member.certain;
            // Of members of one name the last one stays.
            let fields = if alone { &mut others } else { &mut certain };
            fields.remove(name);
            collect("", name, &value, fields);
        }
        others.retain(|name, _| !certain.contains_key(name));
        if certain.is_empty() && others.is_empty() {
            return Err(SkipReason::NoField);
        }
        let begun = lines.len();
        lines.push_str(&self.measurement);
        for (name, text) in &tags {
            append_pair(lines, ',', name, text);
        }
        let series = begun..lines.len();
        if !certain.is_empty() {
            append_fields(lines, &certain);
            append_time(lines, judged.time);
        }
        if !others.is_empty() {
            if !certain.is_empty() {
                lines.extend_from_within(series);
            }
            append_fields(lines, &others);
            append_time(lines, judged.time);
        }
        Ok(())
    }
}

/// The text of a tag; `None` for null, lists and objects, and for an empty one, which the format doesn't have.
fn tag<'m>(member: &'m Member<'_>) -> Option<Cow<'m, str>> {
    let text = match member.json_type() {
        JsonType::String => member.as_str()?,
        JsonType::Number | JsonType::Boolean => Cow::Borrowed(&*member.json),
        JsonType::Null | JsonType::Array | JsonType::Object => return None,
    };
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
