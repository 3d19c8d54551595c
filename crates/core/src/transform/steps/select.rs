//! `drop` and `keep`: which fields stay.

use super::super::fields::Fields;
use super::super::file::{Mistake, Table};

/// The fields to drop, or to keep.
#[derive(Debug)]
pub(in crate::transform) struct Select {
    names: Vec<String>,
    keep: bool,
}

impl Select {
    pub(super) fn read_drop(table: &mut Table<'_>) -> Result<Select, Mistake> {
        Ok(Select { names: table.require_fields()?, keep: false })
    }

    pub(super) fn read_keep(table: &mut Table<'_>) -> Result<Select, Mistake> {
        Ok(Select { names: table.require_fields()?, keep: true })
    }

    pub(super) fn apply(&self, fields: &mut Fields<'_>) -> bool {
        let members = fields.members();
        let before = members.len();
        members.retain(|member| self.names.iter().any(|name| *name == member.name) == self.keep);
        members.len() != before
    }
}
