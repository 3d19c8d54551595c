//! The kinds of steps, one file each: what it reads from its table, and what it does to a record.

mod cast;
mod convert;
mod flatten;
mod insert;
mod mask;
mod rename;
mod route;
mod select;
mod tag;
mod timestamp;
pub(super) mod units;

use super::file::{Mistake, Table};
use super::record::Command;
use super::{Cause, State, StepPlace};

/// What a step does.
#[derive(Debug)]
pub(super) enum Action {
    Rename(rename::Rename),
    Select(select::Select),
    Insert(insert::Insert),
    Cast(cast::Cast),
    Mask(mask::Mask),
    Flatten(flatten::Flatten),
    Convert(convert::Convert),
    Route(route::Route),
    /// Drops the record, if `when` holds.
    Filter,
    Timestamp(timestamp::Timestamp),
    Tag(tag::Tag),
}

/// Every kind, by its name in a file.
const KINDS: [&str; 12] = [
    "cast",
    "convert",
    "drop",
    "filter",
    "flatten",
    "insert",
    "keep",
    "mask",
    "rename",
    "route",
    "tag",
    "timestamp",
];

impl Action {
    /// Reads a step's own keys; returns its kind, too.
    pub(super) fn read(table: &mut Table<'_>, command: &Command) -> Result<(&'static str, Action), Mistake> {
        let kind = table.require_string("kind", "\"rename\"")?;
        let known = KINDS.into_iter().find(|known| known == kind.get_ref()).ok_or_else(|| {
            let message = format!("there is no kind `{}`; there are {}", kind.get_ref(), KINDS.join(", "));
            Mistake::at(kind.span(), message)
        })?;
        let action = match known {
            "cast" => Action::Cast(cast::Cast::read(table)?),
            "convert" => Action::Convert(convert::Convert::read(table)?),
            "drop" => Action::Select(select::Select::read_drop(table)?),
            "flatten" => Action::Flatten(flatten::Flatten::read(table)?),
            "insert" => Action::Insert(insert::Insert::read(table, command)?),
            "keep" => Action::Select(select::Select::read_keep(table)?),
            "mask" => Action::Mask(mask::Mask::read(table)?),
            "rename" => Action::Rename(rename::Rename::read(table)?),
            "route" => Action::Route(route::Route::read(table, command)?),
            "tag" => Action::Tag(tag::Tag::read(table, command, kind.span())?),
            "timestamp" => Action::Timestamp(timestamp::Timestamp::read(table)?),
            _ => Action::Filter,
        };
        Ok((known, action))
    }

    /// The target that it names literally.
    pub(super) fn fixed_target(&self) -> Option<&str> {
        match self {
            Action::Route(route) => route.fixed_target(),
            _ => None,
        }
    }

    /// Changes the record.
    pub(super) fn apply<'a>(
        &'a self,
        state: &mut State<'a>,
        place: &'a StepPlace,
        command: &Command,
    ) -> Result<(), Cause> {
        let changed = match self {
            Action::Rename(rename) => rename.apply(state.fields()?)?,
            Action::Select(select) => select.apply(state.fields()?),
            Action::Insert(insert) => insert.apply(state)?,
            Action::Cast(cast) => cast.apply(state.fields()?)?,
            Action::Mask(mask) => mask.apply(state.fields()?),
            Action::Flatten(flatten) => flatten.apply(state.fields()?)?,
            Action::Convert(convert) => convert.apply(state.fields()?)?,
            Action::Route(route) => return route.apply(state, place, command),
            Action::Timestamp(timestamp) => return timestamp.apply(state, place),
            Action::Tag(tag) => return tag.apply(state),
            Action::Filter => false,
        };
        state.fields_changed |= changed;
        Ok(())
    }
}

/// Fails if two members have one name: a step that makes names must not make one of two values disappear.
fn check_names(fields: &super::fields::Fields<'_>) -> Result<(), Cause> {
    let mut seen = std::collections::HashSet::with_hasher(foldhash::fast::RandomState::default());
    match fields.iter().find(|member| !seen.insert(&member.name)) {
        None => Ok(()),
        Some(twice) => Err(format!(
            "two fields would be named {}: drop or rename one of them in a step before",
            crate::reading::Excerpt(twice.name.as_bytes())
        )),
    }
}
