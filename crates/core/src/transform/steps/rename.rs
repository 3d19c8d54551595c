//! `rename`: fields get other names.

use std::borrow::Cow;

use super::super::Cause;
use super::super::fields::Fields;
use super::super::file::{Mistake, Table};

/// Old and new names. All are renamed at once, so that two fields can change names.
#[derive(Debug)]
pub(in crate::transform) struct Rename(Vec<(String, String)>);

impl Rename {
    pub(super) fn read(table: &mut Table<'_>) -> Result<Rename, Mistake> {
        let mut names: Vec<(String, String)> = Vec::new();
        for (from, to) in table.names("fields")? {
            if names.iter().any(|(_, other)| other == to.get_ref()) {
                let message = format!("two fields would be named `{}`", to.get_ref());
                return Err(Mistake::at(to.span(), message));
            }
            names.push((from, to.into_inner()));
        }
        Ok(Rename(names))
    }

    pub(super) fn apply<'a>(&'a self, fields: &mut Fields<'a>) -> Result<bool, Cause> {
        let new_name = |name: &str| self.0.iter().find(|(from, _)| from == name).map(|(_, to)| to);
        for (from, to) in &self.0 {
            // A field of the new name that keeps it would make two.
            let stays = || new_name(to).is_none_or(|other| other == to) && fields.last(to).is_some();
            if from != to && fields.last(from).is_some() && stays() {
                return Err(format!("there is a field `{to}` already: drop or rename it in a step before"));
            }
        }
        let mut changed = false;
        for member in fields.members() {
            if let Some(to) = new_name(&member.name).filter(|to| **to != member.name) {
                member.name = Cow::Borrowed(to);
                changed = true;
            }
        }
        Ok(changed)
    }
}
