//! `timestamp`: the record's timestamp from a field.

use super::super::fields::{JsonType, Member};
use super::super::file::{Mistake, Table};
use super::super::number;
use super::super::{Cause, Set, State, StepPlace};
use crate::types::Millis;

/// The years 0 to 9999 in milliseconds: what RFC 3339 can express.
const TIMES: std::ops::RangeInclusive<i64> = -62_167_219_200_000..=253_402_300_799_999;

/// The field and its form.
#[derive(Debug)]
pub(in crate::transform) struct Timestamp {
    field: String,
    unit: Unit,
}

#[derive(Clone, Copy, Debug)]
enum Unit {
    /// So many in a second, since 1970.
    Ticks(i64),
    Rfc3339,
}

impl Timestamp {
    pub(super) fn read(table: &mut Table<'_>) -> Result<Timestamp, Mistake> {
        let field = table.require_string("field", "\"taken_at\"")?.into_inner();
        let unit = table.require_string("unit", "\"ms\"")?;
        let known = match unit.get_ref().as_str() {
            "s" => Unit::Ticks(1),
            "ms" => Unit::Ticks(1000),
            "us" => Unit::Ticks(1_000_000),
            "ns" => Unit::Ticks(1_000_000_000),
            "rfc3339" => Unit::Rfc3339,
            other => {
                let message = format!("there is no unit `{other}`; there are s, ms, us, ns and rfc3339");
                return Err(Mistake::at(unit.span(), message));
            }
        };
        Ok(Timestamp { field, unit: known })
    }

    pub(super) fn apply<'a>(&'a self, state: &mut State<'a>, place: &'a StepPlace) -> Result<(), Cause> {
        let Some(member) = state.fields()?.last(&self.field) else {
            let field = &self.field;
            return Err(format!(
                "field `{field}` is absent: where it may be, use when = {{ exists = \"{field}\" }}"
            ));
        };
        let at = self.unit.millis(member).filter(|at| TIMES.contains(&at.0));
        let value = at.ok_or_else(|| member.cause(self.unit.wanted()))?;
        if state.timestamp() != Some(value) {
            state.changed.timestamp = Some(Set { value, step: place });
        }
        Ok(())
    }
}

impl Unit {
    fn wanted(self) -> &'static str {
        match self {
            Unit::Ticks(1) => "is no time in seconds since 1970",
            Unit::Ticks(1000) => "is no time in milliseconds since 1970",
            Unit::Ticks(1_000_000) => "is no time in microseconds since 1970",
            Unit::Ticks(_) => "is no time in nanoseconds since 1970",
            Unit::Rfc3339 => "is no time such as \"2026-11-28T21:00:00.5Z\"",
        }
    }

    /// The time in milliseconds, rounded down.
    fn millis(self, member: &Member<'_>) -> Option<Millis> {
        match self {
            Unit::Rfc3339 => {
                let time: jiff::Timestamp = member.as_str()?.parse().ok()?;
                Some(Millis(time.as_nanosecond().div_euclid(1_000_000).try_into().ok()?))
            }
            Unit::Ticks(per_second) => {
                let text = match member.json_type() {
                    JsonType::Number => member.json.as_ref().into(),
                    JsonType::String => member.as_str()?,
                    _ => return None,
                };
                // Integers first: a double has no nanoseconds of today.
                if let Ok(ticks) = text.parse::<i64>() {
                    let millis = i128::from(ticks) * 1000;
                    return Some(Millis(millis.div_euclid(per_second.into()).try_into().ok()?));
                }
                let millis = (number::in_text(&text)? * (1000.0 / per_second as f64)).floor();
                // Doubles beyond the range become its end, which is no time either.
                Some(Millis(millis as i64))
            }
        }
    }
}
