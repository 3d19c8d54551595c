//! `convert`: numbers in another unit.

use super::super::Cause;
use super::super::fields::{Fields, JsonType};
use super::super::file::{Mistake, Table};
use super::super::number;
use super::units::Unit;

/// The decimals that a converted number has at most, without `decimals`: enough for any sensor, and it hides what a
/// double can't express.
const DECIMALS: i32 = 9;

/// The fields, and the way from one unit to the other.
#[derive(Debug)]
pub(in crate::transform) struct Convert {
    names: Vec<String>,
    factor: f64,
    offset: f64,
    decimals: i32,
}

impl Convert {
    pub(super) fn read(table: &mut Table<'_>) -> Result<Convert, Mistake> {
        let names = table.require_fields()?;
        let from = table.require_string("from", "\"celsius\"")?;
        let to = table.require_string("to", "\"fahrenheit\"")?;
        let unit = |name: &toml::Spanned<String>| {
            Unit::named(name.get_ref()).map_err(|message| Mistake::at(name.span(), message))
        };
        let (factor, offset) =
            unit(&from)?.to(unit(&to)?).map_err(|message| Mistake::at(to.span(), message))?;
        let decimals = table.integer("decimals", 0..=15)?.unwrap_or(DECIMALS);
        Ok(Convert { names, factor, offset, decimals })
    }

    pub(super) fn apply(&self, fields: &mut Fields<'_>) -> Result<bool, Cause> {
        let mut changed = false;
        for member in fields.members() {
            if !self.names.iter().any(|name| *name == member.name) {
                continue;
            }
            let number = match member.json_type() {
                JsonType::Null => continue,
                JsonType::Number => number::parse(&member.json),
                _ => return Err(member.cause("must be a number: cast it in a step before")),
            };
            let converted = number.map(|number| number * self.factor + self.offset);
            let Some(converted) = converted.filter(|number| number.is_finite()) else {
                return Err(member.cause("is too large for a double"));
            };
            member.set(number::to_json(number::round(converted, self.decimals)));
            changed = true;
        }
        Ok(changed)
    }
}
