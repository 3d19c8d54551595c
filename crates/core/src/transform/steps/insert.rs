//! `insert`: a field with a fixed value, a piece of metadata, or a header.

use std::borrow::Cow;

use toml::Spanned;

use super::super::fields::{Fields, Member, quoted};
use super::super::file::{Mistake, Scalar, Table};
use super::super::record::{Command, Metadata, text_of};
use super::super::{Cause, State};

/// A field and where its value comes from.
#[derive(Debug)]
pub(in crate::transform) struct Insert {
    field: String,
    value: Value,
}

#[derive(Debug)]
enum Value {
    /// JSON.
    Fixed(String),
    Metadata(Metadata),
    Header(String),
}

impl Insert {
    pub(super) fn read(table: &mut Table<'_>, command: &Command) -> Result<Insert, Mistake> {
        let field = table.require_string("field", "\"site\"")?.into_inner();
        let value = table.scalar("value")?;
        let from = table.string("from")?;
        let header = table.string("header")?;
        let value = match (value, from, header) {
            (Some(value), None, None) => Value::Fixed(Scalar::to_json(value.get_ref())),
            (None, Some(from), None) => Value::Metadata(metadata(&from, command)?),
            (None, None, Some(header)) if !command.headers => {
                let message = format!("a record of `{}` has no headers", command.name);
                return Err(Mistake::at(header.span(), message));
            }
            (None, None, Some(header)) => Value::Header(header.into_inner()),
            _ => {
                let message = "an insert has one of `value` (a fixed one), `from` (metadata) and `header`";
                return Err(Mistake::at(table.span(), message));
            }
        };
        Ok(Insert { field, value })
    }

    pub(super) fn apply<'a>(&'a self, state: &mut State<'a>) -> Result<bool, Cause> {
        let Some(json) = self.json(state)? else { return Ok(false) };
        Ok(put(state.fields()?, &self.field, json))
    }

    /// The value as JSON; `None` if the record has no such metadata or header.
    fn json<'a>(&'a self, state: &State<'a>) -> Result<Option<Cow<'a, str>>, Cause> {
        let record = &state.record;
        let number = |number: i64| Cow::Owned(number.to_string());
        Ok(match &self.value {
            Value::Fixed(json) => Some(Cow::Borrowed(json)),
            Value::Metadata(Metadata::Topic) => Some(quoted(state.topic()).into()),
            Value::Metadata(Metadata::Partition) => record.partition.map(|one| number(one.0.into())),
            Value::Metadata(Metadata::Offset) => record.offset.map(|one| number(one.0)),
            Value::Metadata(Metadata::Timestamp) => state.timestamp().map(|one| number(one.0)),
            Value::Metadata(Metadata::Key) => {
                record.key.map(|key| text_of(key, "the key").map(|key| quoted(&key).into())).transpose()?
            }
            Value::Metadata(Metadata::MqttTopic) => record.mqtt_topic.map(|topic| quoted(topic).into()),
            Value::Header(name) => {
                let text =
                    |value| text_of(value, &format!("header `{name}`")).map(|text| quoted(&text).into());
                record.headers.last(name).map(text).transpose()?
            }
        })
    }
}

/// Reads the name of a piece of metadata.
pub(super) fn metadata(name: &Spanned<String>, command: &Command) -> Result<Metadata, Mistake> {
    command.metadata(name.get_ref()).map_err(|message| Mistake::at(name.span(), message))
}

/// Replaces a field's value where it stands, or appends the field. Returns whether that changed anything.
fn put<'a>(fields: &mut Fields<'a>, name: &'a str, json: Cow<'a, str>) -> bool {
    let members = fields.members();
    let Some(at) = members.iter().position(|member| member.name == name) else {
        members.push(Member::made(name, json));
        return true;
    };
    let before = members.len();
    let mut number = 0;
    members.retain(|member| {
        number += 1;
        number - 1 <= at || member.name != name
    });
    let changed = members.len() != before || members[at].json != json;
    members[at].set(json);
    changed
}
