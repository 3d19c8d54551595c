//! `tag`: fields become tags of a database's point.

use std::ops::Range;

use super::super::file::{Mistake, Table};
use super::super::record::Command;
use super::super::{Cause, State};

/// The fields.
#[derive(Debug)]
pub(in crate::transform) struct Tag(Vec<String>);

impl Tag {
    pub(super) fn read(table: &mut Table<'_>, command: &Command, span: Range<usize>) -> Result<Tag, Mistake> {
        if !command.tags {
            let message = format!("`{}` writes no tags: this step is for a sink", command.name);
            return Err(Mistake::at(span, message));
        }
        Ok(Tag(table.require_fields()?))
    }

    pub(super) fn apply<'a>(&'a self, state: &mut State<'a>) -> Result<(), Cause> {
        for name in &self.0 {
            let is_there = state.fields()?.last(name).is_some();
            if is_there && !state.changed.tags.contains(&name.as_str()) {
                state.changed.tags.push(name);
            }
        }
        Ok(())
    }
}
