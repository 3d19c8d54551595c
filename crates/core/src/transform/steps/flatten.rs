//! `flatten`: the members of nested objects become fields.

use std::borrow::Cow;

use super::super::Cause;
use super::super::fields::{Fields, JsonType, Member};
use super::super::file::{Mistake, Table};
use super::check_names;
use crate::reading::{Excerpt, MAX_VALUE_BYTES};

/// The deepest nesting that is flattened.
const DEPTH_MAX: usize = 32;

/// What is flattened, and how names are joined.
#[derive(Debug)]
pub(in crate::transform) struct Flatten {
    /// `None`: every field.
    names: Option<Vec<String>>,
    separator: String,
}

impl Flatten {
    pub(super) fn read(table: &mut Table<'_>) -> Result<Flatten, Mistake> {
        let names = table.strings("fields")?;
        let separator = table.string("separator")?.map_or_else(|| "_".to_owned(), |own| own.into_inner());
        Ok(Flatten { names, separator })
    }

    pub(super) fn apply<'a>(&'a self, fields: &mut Fields<'a>) -> Result<bool, Cause> {
        let is_meant = |member: &Member<'_>| {
            let named = self.names.as_ref().is_none_or(|names| names.iter().any(|name| *name == member.name));
            named && member.json_type() == JsonType::Object
        };
        if !fields.iter().any(is_meant) {
            return Ok(false);
        }
        let mut flat = Flat { members: Vec::new(), separator: &self.separator, name_bytes: 0 };
        for member in std::mem::take(fields.members()) {
            if is_meant(&member) {
                flat.take(member, 1)?;
            } else {
                flat.members.push(member);
            }
        }
        *fields.members() = flat.members;
        check_names(fields)?;
        Ok(true)
    }
}

/// The members that came out so far.
struct Flat<'s, 'a> {
    members: Vec<Member<'a>>,
    separator: &'s str,
    /// Names are repeated for each member, so that a long name above many members could take any amount of memory.
    name_bytes: usize,
}

impl<'a> Flat<'_, 'a> {
    fn take(&mut self, object: Member<'a>, depth: usize) -> Result<(), Cause> {
        if depth > DEPTH_MAX {
            return Err(format!(
                "field {} is nested deeper than {DEPTH_MAX} objects",
                Excerpt(object.name.as_bytes())
            ));
        }
        let Cow::Borrowed(json) = object.json else {
            // Steps make no objects other than what the record had.
            self.members.push(object);
            return Ok(());
        };
        for inner in Fields::parse(json.as_bytes())?.members().drain(..) {
            let name = [&object.name, self.separator, &inner.name].concat();
            self.name_bytes += name.len();
            if self.name_bytes > MAX_VALUE_BYTES {
                return Err(format!("the names of the flat fields have more than {MAX_VALUE_BYTES} bytes"));
            }
            let inner = Member { name: name.into(), certain: false, ..inner };
            if inner.json_type() == JsonType::Object {
                self.take(inner, depth + 1)?;
            } else {
                self.members.push(inner);
            }
        }
        Ok(())
    }
}
