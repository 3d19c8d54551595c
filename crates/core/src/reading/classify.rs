//! The thorough parser: reads every form of a good record, and says what is wrong with a bad one.
//!
//! serde_json parses the JSON, in one pass that keeps the raw text of the known fields and checks only the grammar of
//! the others, however deep they nest. The checks follow, one after another, as the steps of [`reading`]. Owns
//! nothing; must not know what happens to a bad record.

use std::borrow::Cow;
use std::fmt::{self, Write};

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{BadRecord, ErrorCode, Field, JsonType, MAX_ID_BYTES, MAX_VALUE_BYTES, Name, Values};

/// The longest excerpt of a record in a message, in characters.
const EXCERPT_CHARS: usize = 40;

/// Returns the generator and the values of a good reading, or the first fault in the order of [`ErrorCode`].
pub(super) fn reading<'a>(key: Option<&'a [u8]>, value: &[u8]) -> Result<(&'a str, Values), BadRecord> {
    let text = text(value)?;
    let document = object(text)?;
    let document = without_duplicates(document)?;
    let id = complete(&document)?;
    let numbers = typed(id, &document)?;
    let id = in_range(id, &numbers, &document)?;
    let generator = identified(key, &id)?;
    Ok((generator, Values(numbers)))
}

/// Returns the generator that a record without a value decommissions: there is only its key, which must be an
/// identity.
pub(super) fn decommissioning(key: Option<&[u8]>) -> Result<&str, BadRecord> {
    let Some(key) = key else {
        return Err(BadRecord::new(
            ErrorCode::KeyMissing,
            "the record has neither a value nor a key; without a value, the key says which generator ends",
        ));
    };
    let generator = str::from_utf8(key).map_err(|error| {
        let message =
            format!("the record's key isn't UTF-8 from byte {} on: {}", error.valid_up_to(), Excerpt(key));
        BadRecord::new(ErrorCode::NotUtf8, message)
    })?;
    check_id("the record's key", key)?;
    Ok(generator)
}

/// Steps 1 and 2: the value as text.
fn text(value: &[u8]) -> Result<&str, BadRecord> {
    if value.len() > MAX_VALUE_BYTES {
        let message = format!("the value has {} bytes; the limit is {MAX_VALUE_BYTES}", value.len());
        return Err(BadRecord::new(ErrorCode::TooLarge, message));
    }
    str::from_utf8(value).map_err(|error| {
        let message = format!("the value isn't UTF-8 from byte {} on", error.valid_up_to());
        BadRecord::new(ErrorCode::NotUtf8, message)
    })
}

/// Steps 3 and 4: the text as a JSON object.
fn object(text: &str) -> Result<Document<'_>, BadRecord> {
    if text.is_empty() {
        return Err(BadRecord::new(ErrorCode::NotJson, "the value is empty, which is no JSON document"));
    }
    if text.starts_with('\u{feff}') {
        // Invisible in most viewers, hence its own message. RFC 8259 section 8.1 forbids sending it.
        let message = "the value begins with a byte order mark, which is no part of a JSON document";
        return Err(BadRecord::new(ErrorCode::NotJson, message));
    }
    if JsonType::of(text.trim_start_matches([' ', '\n', '\r', '\t'])) == JsonType::Object {
        return serde_json::from_str(text).map_err(not_json);
    }
    // Not by the error above: serde_json refuses `[` for an object before it sees whether a `]` follows.
    serde_json::from_str::<IgnoredAny>(text).map_err(not_json)?;
    let found = JsonType::of(text.trim_start_matches([' ', '\n', '\r', '\t']));
    Err(BadRecord::new(ErrorCode::NotObject, format!("the document must be an object; found {found}")))
}

fn not_json(error: serde_json::Error) -> BadRecord {
    BadRecord::new(ErrorCode::NotJson, format!("the value isn't one JSON document: {error}"))
}

/// Step 5.
fn without_duplicates(document: Document<'_>) -> Result<Document<'_>, BadRecord> {
    match document.duplicate {
        Some(name) => {
            let message = format!("field `{}` is given more than once", name.as_str());
            Err(BadRecord::new(ErrorCode::DuplicateField, message))
        }
        None => Ok(document),
    }
}

/// Step 6: every required field is there. Returns the raw `generatorID`.
fn complete<'v>(document: &Document<'v>) -> Result<&'v str, BadRecord> {
    let id = required(Name::Id, document.id)?;
    for field in Field::ALL.into_iter().filter(|field| !field.is_optional()) {
        required(Name::Number(field), document.numbers[field as usize])?;
    }
    Ok(id)
}

fn required(name: Name, raw: Option<&str>) -> Result<&str, BadRecord> {
    let found = match raw {
        Some("null") => "null",
        Some(raw) => return Ok(raw),
        None => "absent",
    };
    Err(BadRecord::new(ErrorCode::MissingField, format!("required field `{}` is {found}", name.as_str())))
}

/// Step 7: every known field has the right type. Returns the nearest doubles, NaN where a field is absent.
fn typed(id: &str, document: &Document<'_>) -> Result<[f64; Field::ALL.len()], BadRecord> {
    if JsonType::of(id) != JsonType::String {
        return Err(wrong_type(Name::Id, JsonType::String, id));
    }
    let mut numbers = [f64::NAN; Field::ALL.len()];
    for field in Field::ALL {
        let raw = document.numbers[field as usize].unwrap_or("null");
        numbers[field as usize] = match JsonType::of(raw) {
            // Only an optional field gets here with null.
            JsonType::Null => continue,
            // Correctly rounded. This accepts a larger grammar than JSON's, but the text is already checked for that
            // one.
            JsonType::Number => {
                raw.parse().map_err(|_| wrong_type(Name::Number(field), JsonType::Number, raw))?
            }
            _ => return Err(wrong_type(Name::Number(field), JsonType::Number, raw)),
        };
    }
    Ok(numbers)
}

fn wrong_type(name: Name, wanted: JsonType, raw: &str) -> BadRecord {
    let (name, found, excerpt) = (name.as_str(), JsonType::of(raw), Excerpt(raw.as_bytes()));
    BadRecord::new(ErrorCode::WrongType, format!("field `{name}` must be {wanted}; found {found}: {excerpt}"))
}

/// Step 8: every known field is within its limits. Returns the `generatorID` itself.
fn in_range<'v>(id: &'v str, numbers: &[f64], document: &Document<'v>) -> Result<Cow<'v, [u8]>, BadRecord> {
    let id = unescaped(id).map_err(not_json)?;
    check_id("field `generatorID`", &id)?;
    for field in Field::ALL {
        let Some(raw) = document.numbers[field as usize] else {
            continue;
        };
        let number = numbers[field as usize];
        if number.is_nan() || field.accepts(number) {
            continue;
        }
        let (name, excerpt) = (field.name(), Excerpt(raw.as_bytes()));
        let (least, greatest) = field.range();
        let message = if number.is_infinite() {
            format!("field `{name}` is too large for a double; found {excerpt}")
        } else {
            format!("field `{name}` must be from {least} to {greatest}; found {excerpt}")
        };
        return Err(BadRecord::new(ErrorCode::OutOfRange, message));
    }
    Ok(id)
}

fn check_id(what: &str, id: &[u8]) -> Result<(), BadRecord> {
    let message = match id.len() {
        0 => format!("{what} is empty; it must name the generator"),
        1..=MAX_ID_BYTES => return Ok(()),
        long => format!("{what} has {long} bytes; the limit is {MAX_ID_BYTES}; found {}", Excerpt(id)),
    };
    Err(BadRecord::new(ErrorCode::OutOfRange, message))
}

/// Steps 9 and 10: the key is the identity. Returns it as text; a key that isn't text can't be a `generatorID`
/// either.
fn identified<'a>(key: Option<&'a [u8]>, id: &[u8]) -> Result<&'a str, BadRecord> {
    let Some(key) = key else {
        let message = format!("the record has no key; it must be the generatorID, {}", Excerpt(id));
        return Err(BadRecord::new(ErrorCode::KeyMissing, message));
    };
    match str::from_utf8(key) {
        Ok(generator) if key == id => Ok(generator),
        _ => {
            let message =
                format!("the record's key, {}, isn't the generatorID, {}", Excerpt(key), Excerpt(id));
            Err(BadRecord::new(ErrorCode::KeyMismatch, message))
        }
    }
}

/// A JSON object, as far as the worker reads it: the raw text of each known field's first occurrence.
#[derive(Default)]
struct Document<'v> {
    id: Option<&'v str>,
    numbers: [Option<&'v str>; Field::ALL.len()],
    /// The first field that occurs again.
    duplicate: Option<Name>,
}

impl<'v> Deserialize<'v> for Document<'v> {
    fn deserialize<D: Deserializer<'v>>(deserializer: D) -> Result<Document<'v>, D::Error> {
        deserializer.deserialize_map(DocumentVisitor)
    }
}

struct DocumentVisitor;

impl<'v> Visitor<'v> for DocumentVisitor {
    type Value = Document<'v>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    /// Fails only where the grammar does, so any error of it means "not JSON".
    fn visit_map<A: MapAccess<'v>>(self, mut map: A) -> Result<Document<'v>, A::Error> {
        let mut document = Document::default();
        // Raw, because a name may hold a lone surrogate, which is grammatical (RFC 8259 section 8.2) but not a `str`.
        while let Some(name) = map.next_key::<&RawValue>()? {
            let name = unescaped(name.get()).map_err(A::Error::custom)?;
            let Some(name) = Name::of(&name) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let raw = map.next_value::<&RawValue>()?.get();
            let place = match name {
                Name::Id => &mut document.id,
                Name::Number(field) => &mut document.numbers[field as usize],
            };
            if place.is_some() {
                document.duplicate.get_or_insert(name);
            } else {
                *place = Some(raw);
            }
        }
        Ok(document)
    }
}

/// The content of a raw JSON string, in UTF-8. A lone surrogate becomes three bytes that UTF-8 never has (the WTF-8
/// encoding), so it equals no text.
fn unescaped(raw: &str) -> Result<Cow<'_, [u8]>, serde_json::Error> {
    /// A string read as bytes: serde_json refuses lone surrogates only when it must produce a `str`.
    #[derive(Deserialize)]
    struct Bytes<'v>(#[serde(borrow)] Cow<'v, [u8]>);

    serde_json::from_str(raw).map(|Bytes(bytes)| bytes)
}

/// The beginning of a raw value, safe for a terminal and a header: bounded in length, nothing invisible.
pub(crate) struct Excerpt<'v>(pub(crate) &'v [u8]);

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A character has at most four bytes, so this is enough, and no long value is converted.
        let enough = self.0.len().min(4 * (EXCERPT_CHARS + 1));
        let beginning = String::from_utf8_lossy(&self.0[..enough]);
        f.write_char('`')?;
        for (index, char) in beginning.chars().enumerate() {
            if index == EXCERPT_CHARS {
                f.write_char('…')?;
                break;
            }
            match char {
                '"' | '\'' | '\\' => f.write_char(char)?,
                _ => write!(f, "{}", char.escape_debug())?,
            }
        }
        f.write_char('`')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(key: Option<&[u8]>, value: &str) -> String {
        reading(key, value.as_bytes()).unwrap_err().to_string()
    }

    fn of(id: &str, fuel: &str) -> String {
        format!(r#"{{"generatorID":{id},"lat":0,"lon":0,"temperature":0,"pressure":0,"fuel":{fuel}}}"#)
    }

    #[test]
    fn a_message_tells_what_was_found_and_what_is_called_for() {
        let good = of("\"g\"", "1");
        for (key, value, message) in [
            (Some("g"), "", "not_json: the value is empty, which is no JSON document"),
            (
                Some("g"),
                "\u{feff}{}",
                "not_json: the value begins with a byte order mark, which is no part of a JSON document",
            ),
            (
                Some("g"),
                "{\"fuel\":NaN}",
                "not_json: the value isn't one JSON document: expected value at line 1 column 9",
            ),
            (Some("g"), " [1]", "not_object: the document must be an object; found an array"),
            (Some("g"), "{\"fuel\":1,\"fuel\":1}", "duplicate_field: field `fuel` is given more than once"),
            (Some("g"), "{}", "missing_field: required field `generatorID` is absent"),
            (
                Some("g"),
                &of("\"g\"", "\"1\""),
                "wrong_type: field `fuel` must be a number; found a string: `\"1\"`",
            ),
            (
                Some("g"),
                &of("7", "1"),
                "wrong_type: field `generatorID` must be a string; found a number: `7`",
            ),
            (
                Some("g"),
                &of("\"g\"", "1e999"),
                "out_of_range: field `fuel` is too large for a double; found `1e999`",
            ),
            (
                Some(""),
                &of("\"\"", "1"),
                "out_of_range: field `generatorID` is empty; it must name the generator",
            ),
            (None, &good, "key_missing: the record has no key; it must be the generatorID, `g`"),
            (Some("h"), &good, "key_mismatch: the record's key, `h`, isn't the generatorID, `g`"),
        ] {
            assert_eq!(told(key.map(str::as_bytes), value), message);
        }
        let long = " ".repeat(MAX_VALUE_BYTES + 1);
        assert_eq!(told(None, &long), "too_large: the value has 1048577 bytes; the limit is 1048576");
        let error = reading(None, b"{\"a\":\"\xff\"}").unwrap_err();
        assert_eq!(error.message, "the value isn't UTF-8 from byte 6 on");
    }

    #[test]
    fn a_message_is_bounded_and_free_of_control_characters_whatever_the_record_holds() {
        for filler in ["x", "\u{202e}", "\u{1f600}", "\u{7f}", "\\u001b", "\\n", "\\ud800"] {
            let long = format!("\"{}\"", filler.repeat(20_000));
            let short = format!("\"{}\"", filler.repeat(50));
            let key = [0x1b; 300];
            let mut messages = vec![
                told(None, &of("\"g\"", &long)),
                told(None, &of(&long, "1")),
                told(None, &of(&short, "1")),
            ];
            messages.push(told(Some(&key), &of(&short, "1")));
            messages.push(decommissioning(Some(&key)).unwrap_err().message);
            for message in messages {
                assert!(message.len() < 1024, "{message}");
                assert!(!message.contains(|char: char| char.is_control() || char == '\u{202e}'), "{message}");
            }
        }
        let cut = told(None, &of("\"g\"", &format!("\"{}\"", "x".repeat(50))));
        assert_eq!(
            cut,
            format!("wrong_type: field `fuel` must be a number; found a string: `\"{}…`", "x".repeat(39))
        );
    }
}
