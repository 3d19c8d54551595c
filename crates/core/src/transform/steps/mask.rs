//! `mask`: fields keep their name and lose their value.

use super::super::fields::{Fields, JsonType};
use super::super::file::{Mistake, Table};

/// The fields, and what stands in for their values.
#[derive(Debug)]
pub(in crate::transform) struct Mask {
    names: Vec<String>,
    /// JSON; without it, what a type has for nothing.
    with: Option<String>,
}

impl Mask {
    pub(super) fn read(table: &mut Table<'_>) -> Result<Mask, Mistake> {
        let names = table.require_fields()?;
        let with = table.scalar("with")?.map(|value| value.get_ref().to_json());
        Ok(Mask { names, with })
    }

    pub(super) fn apply<'a>(&'a self, fields: &mut Fields<'a>) -> bool {
        let mut changed = false;
        for member in fields.members() {
            if !self.names.iter().any(|name| *name == member.name) {
                continue;
            }
            let json = match (&self.with, member.json_type()) {
                (_, JsonType::Null) => continue,
                (Some(with), _) => with.as_str(),
                (None, JsonType::String) => "\"\"",
                (None, JsonType::Number) => "0",
                (None, JsonType::Boolean) => "false",
                (None, JsonType::Array) => "[]",
                (None, JsonType::Object) => "{}",
            };
            // Without `with`, its type is still the sender's choice.
            let certain = member.certain || self.with.is_some();
            changed |= member.json != json;
            member.set(json);
            member.certain = certain;
        }
        changed
    }
}
