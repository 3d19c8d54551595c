//! `cast`: fields get another type.

use super::super::Cause;
use super::super::fields::{Fields, JsonType, Member, quoted};
use super::super::file::{Mistake, Table};
use super::super::number;

/// The fields and their new type.
#[derive(Debug)]
pub(in crate::transform) struct Cast {
    names: Vec<String>,
    to: Type,
}

#[derive(Clone, Copy, Debug)]
enum Type {
    Integer,
    Float,
    String,
    Boolean,
}

/// Doubles from here on aren't 64-bit integers: 2^63.
const INTEGER_END: f64 = 9_223_372_036_854_775_808.0;

const NO_INTEGER: &str = "is no integer of 64 bits";
const NO_DOUBLE: &str = "is no number that a double can hold";

impl Cast {
    pub(super) fn read(table: &mut Table<'_>) -> Result<Cast, Mistake> {
        let names = table.require_fields()?;
        let to = table.require_string("to", "\"float\"")?;
        let known = match to.get_ref().as_str() {
            "integer" => Type::Integer,
            "float" => Type::Float,
            "string" => Type::String,
            "boolean" => Type::Boolean,
            other => {
                let message =
                    format!("there is no type `{other}`; there are integer, float, string and boolean");
                return Err(Mistake::at(to.span(), message));
            }
        };
        Ok(Cast { names, to: known })
    }

    pub(super) fn apply(&self, fields: &mut Fields<'_>) -> Result<bool, Cause> {
        let mut changed = false;
        for member in fields.members() {
            if !self.names.iter().any(|name| *name == member.name) {
                continue;
            }
            if let Some(json) = self.to.cast(member)? {
                member.set(json);
                changed = true;
            } else if member.json_type() != JsonType::Null {
                member.certain = true;
            }
        }
        Ok(changed)
    }
}

impl Type {
    /// The new value; `None` if it stays as it is: it has the type already, or is null.
    fn cast(self, member: &Member<'_>) -> Result<Option<String>, Cause> {
        let json = member.json.as_ref();
        let failed = |wanted: &str| member.cause(wanted);
        match (self, member.json_type()) {
            (_, JsonType::Null) => Ok(None),
            (_, JsonType::Array | JsonType::Object) => Err(failed("is no single value")),
            (Type::String, JsonType::String) | (Type::Boolean, JsonType::Boolean) => Ok(None),
            (Type::String, _) => Ok(Some(quoted(json))),
            (Type::Integer, JsonType::Number) if number::is_integer(json) => Ok(None),
            (Type::Integer, JsonType::Boolean) => Ok(Some(if json == "true" { "1" } else { "0" }.to_owned())),
            (Type::Integer, _) => match text_number(member) {
                Some((text, number)) => {
                    // Integers first: a double has 53 bits. Any other is in range, and loses its fraction.
                    let in_range = || (number.abs() < INTEGER_END).then_some(number.trunc() as i64);
                    let integer = text.parse::<i64>().ok().or_else(in_range);
                    integer.map(|integer| Some(integer.to_string())).ok_or_else(|| failed(NO_INTEGER))
                }
                None => Err(failed(NO_INTEGER)),
            },
            (Type::Float, JsonType::Boolean) => {
                Ok(Some(if json == "true" { "1.0" } else { "0.0" }.to_owned()))
            }
            (Type::Float, JsonType::Number) if !number::is_integer(json) => Ok(None),
            (Type::Float, _) => match text_number(member) {
                Some((_, number)) => Ok(Some(number::to_json(number))),
                None => Err(failed(NO_DOUBLE)),
            },
            (Type::Boolean, JsonType::Number) => match number::parse(json) {
                Some(number) => Ok(Some((number != 0.0).to_string())),
                None => Err(failed(NO_DOUBLE)),
            },
            (Type::Boolean, JsonType::String) => {
                let text = member.as_str().unwrap_or_default();
                let is = |word: &str| text.eq_ignore_ascii_case(word);
                match (is("true"), is("false")) {
                    (true, _) => Ok(Some("true".to_owned())),
                    (_, true) => Ok(Some("false".to_owned())),
                    _ => Err(failed("is neither true nor false")),
                }
            }
        }
    }
}

/// The text and the value of a number, or of a string that spells one.
fn text_number(member: &Member<'_>) -> Option<(String, f64)> {
    let text = match member.json_type() {
        JsonType::String => member.as_str()?,
        _ => member.json.as_ref().into(),
    };
    let number = number::in_text(&text)?;
    Some((text.into_owned(), number))
}
