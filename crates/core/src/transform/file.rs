//! Reads TOML tables key by key, each with its type. A key that nobody asked for is a mistake, with its line.

use std::borrow::Cow;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{fields, number};

/// A mistake, and where it is.
#[derive(Debug)]
pub(super) struct Mistake {
    span: Range<usize>,
    pub(super) message: String,
}

impl Mistake {
    pub(super) fn at(span: Range<usize>, message: impl Into<String>) -> Mistake {
        Mistake { span, message: message.into() }
    }

    /// The line in the file's text, from 1.
    pub(super) fn line(&self, text: &str) -> usize {
        text.get(..self.span.start).unwrap_or(text).matches('\n').count() + 1
    }
}

/// A table on its way to be read.
#[derive(Debug)]
pub(super) struct Table<'i> {
    left: Vec<(Spanned<Cow<'i, str>>, Spanned<DeValue<'i>>)>,
    span: Range<usize>,
    /// Every key that was asked for.
    known: Vec<&'static str>,
}

/// A value that can stand in a record: as JSON.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar {
    Text(String),
    /// Its JSON text.
    Number(String),
    Boolean(bool),
}

impl Scalar {
    pub(super) fn to_json(&self) -> String {
        match self {
            Scalar::Text(text) => fields::quoted(text),
            Scalar::Number(json) => json.clone(),
            Scalar::Boolean(yes) => yes.to_string(),
        }
    }
}

impl<'i> Table<'i> {
    /// Reads a whole document.
    pub(super) fn document(text: &'i str) -> Result<Table<'i>, Mistake> {
        let table = DeTable::parse(text)
            .map_err(|error| Mistake::at(error.span().unwrap_or(0..0), error.message()))?;
        let span = table.span();
        Ok(Table::new(table.into_inner(), span))
    }

    fn new(table: DeTable<'i>, span: Range<usize>) -> Table<'i> {
        Table { left: table.into_iter().collect(), span, known: Vec::new() }
    }

    /// Where it is.
    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    fn take(&mut self, key: &'static str) -> Option<Spanned<DeValue<'i>>> {
        self.known.push(key);
        let at = self.left.iter().position(|(own, _)| own.get_ref() == key)?;
        Some(self.left.swap_remove(at).1)
    }

    /// Refuses keys that nobody asked for.
    pub(super) fn finish(mut self) -> Result<(), Mistake> {
        // The first one in the file.
        self.left.sort_by_key(|(key, _)| key.span().start);
        let Some((key, _)) = self.left.first() else { return Ok(()) };
        self.known.sort_unstable();
        self.known.dedup();
        let message = format!("unknown key `{}`; known here: {}", key.get_ref(), self.known.join(", "));
        Err(Mistake::at(key.span(), message))
    }

    /// A string.
    pub(super) fn string(&mut self, key: &'static str) -> Result<Option<Spanned<String>>, Mistake> {
        self.take(key).map(|value| string(key, value)).transpose()
    }

    /// A string that must be there.
    pub(super) fn require_string(
        &mut self,
        key: &'static str,
        example: &str,
    ) -> Result<Spanned<String>, Mistake> {
        let span = self.span();
        self.string(key)?
            .ok_or_else(|| Mistake::at(span, format!("`{key}` is missing, such as {key} = {example}")))
    }

    /// One string or a list of strings, at least one.
    pub(super) fn strings(&mut self, key: &'static str) -> Result<Option<Vec<String>>, Mistake> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let span = value.span();
        let all: Result<Vec<Spanned<String>>, Mistake> = match value.into_inner() {
            DeValue::Array(items) => items.into_iter().map(|item| string(key, item)).collect(),
            one => string(key, Spanned::new(span.clone(), one)).map(|one| vec![one]),
        };
        let all = all?;
        if all.is_empty() {
            return Err(Mistake::at(span, format!("`{key}` is empty: name at least one")));
        }
        Ok(Some(all.into_iter().map(Spanned::into_inner).collect()))
    }

    /// Names of fields that must be there.
    pub(super) fn require_fields(&mut self) -> Result<Vec<String>, Mistake> {
        let span = self.span();
        self.strings("fields")?
            .ok_or_else(|| Mistake::at(span, "`fields` is missing, such as fields = [\"temperature\"]"))
    }

    /// A table of strings.
    pub(super) fn names(&mut self, key: &'static str) -> Result<Vec<(String, Spanned<String>)>, Mistake> {
        let span = self.span();
        let missing = || {
            let message = format!("`{key}` is missing, such as {key} = {{ temperature = \"coolant\" }}");
            Mistake::at(span.clone(), message)
        };
        let table = self.table(key)?.ok_or_else(missing)?;
        if table.left.is_empty() {
            return Err(Mistake::at(table.span, format!("`{key}` is empty: name at least one")));
        }
        let pair = |(own, value): (Spanned<Cow<'i, str>>, Spanned<DeValue<'i>>)| {
            let name = own.into_inner().into_owned();
            Ok((name, string(key, value)?))
        };
        table.left.into_iter().map(pair).collect()
    }

    /// An integer within bounds.
    pub(super) fn integer(
        &mut self,
        key: &'static str,
        bounds: std::ops::RangeInclusive<i32>,
    ) -> Result<Option<i32>, Mistake> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let number = match value.get_ref() {
            DeValue::Integer(integer) => i32::from_str_radix(integer.as_str(), integer.radix()).ok(),
            _ => None,
        };
        let number = number.filter(|number| bounds.contains(number));
        number.map(Some).ok_or_else(|| {
            let message = format!("`{key}` is an integer from {} to {}", bounds.start(), bounds.end());
            Mistake::at(value.span(), message)
        })
    }

    /// A string, number or boolean.
    pub(super) fn scalar(&mut self, key: &'static str) -> Result<Option<Spanned<Scalar>>, Mistake> {
        self.take(key).map(|value| scalar(key, value)).transpose()
    }

    /// Strings, numbers or booleans.
    pub(super) fn scalars(&mut self, key: &'static str) -> Result<Option<Vec<Spanned<Scalar>>>, Mistake> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let span = value.span();
        let items = match value.into_inner() {
            DeValue::Array(items) if !items.is_empty() => items,
            _ => return Err(Mistake::at(span, format!("`{key}` is a list of at least one value"))),
        };
        items.into_iter().map(|item| scalar(key, item)).collect::<Result<_, _>>().map(Some)
    }

    /// A number.
    pub(super) fn number(&mut self, key: &'static str) -> Result<Option<f64>, Mistake> {
        let Some(value) = self.scalar(key)? else { return Ok(None) };
        let span = value.span();
        let number = match value.into_inner() {
            Scalar::Number(json) => number::parse(&json),
            Scalar::Text(_) | Scalar::Boolean(_) => None,
        };
        number.map(Some).ok_or_else(|| Mistake::at(span, format!("`{key}` is a number")))
    }

    /// A table.
    pub(super) fn table(&mut self, key: &'static str) -> Result<Option<Table<'i>>, Mistake> {
        self.take(key).map(|value| table(key, value)).transpose()
    }

    /// A list of tables; none if the key isn't there.
    pub(super) fn tables(&mut self, key: &'static str) -> Result<Vec<Table<'i>>, Mistake> {
        let Some(value) = self.take(key) else { return Ok(Vec::new()) };
        let span = value.span();
        match value.into_inner() {
            DeValue::Array(items) => items.into_iter().map(|item| table(key, item)).collect(),
            _ => Err(Mistake::at(span, format!("`{key}` is a list of tables: write [[{key}]]"))),
        }
    }
}

fn string(key: &str, value: Spanned<DeValue<'_>>) -> Result<Spanned<String>, Mistake> {
    let span = value.span();
    match value.into_inner() {
        DeValue::String(text) if text.is_empty() && key != "separator" => {
            Err(Mistake::at(span, format!("`{key}` is empty")))
        }
        DeValue::String(text) => Ok(Spanned::new(span, text.into_owned())),
        other => Err(Mistake::at(span, format!("`{key}` takes strings, not {}", kind(&other)))),
    }
}

fn scalar(key: &str, value: Spanned<DeValue<'_>>) -> Result<Spanned<Scalar>, Mistake> {
    let span = value.span();
    let scalar = match value.into_inner() {
        DeValue::String(text) => Scalar::Text(text.into_owned()),
        DeValue::Boolean(yes) => Scalar::Boolean(yes),
        DeValue::Integer(integer) => {
            let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
            let number = number.ok_or_else(|| {
                Mistake::at(span.clone(), format!("`{key}`: the integer is out of the range of 64 bits"))
            })?;
            Scalar::Number(number.to_string())
        }
        DeValue::Float(float) => {
            let number = number::parse(float.as_str())
                .ok_or_else(|| Mistake::at(span.clone(), format!("`{key}`: the number must be finite")))?;
            Scalar::Number(number::to_json(number))
        }
        other => {
            let message = format!("`{key}` takes a string, a number or a boolean, not {}", kind(&other));
            return Err(Mistake::at(span, message));
        }
    };
    Ok(Spanned::new(span, scalar))
}

fn table<'i>(key: &str, value: Spanned<DeValue<'i>>) -> Result<Table<'i>, Mistake> {
    let span = value.span();
    match value.into_inner() {
        DeValue::Table(table) => Ok(Table::new(table, span)),
        other => Err(Mistake::at(span, format!("`{key}` is a table, not {}", kind(&other)))),
    }
}

/// The kind of a value, with its article.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
