//! The members of a JSON object: names decoded, values as their text.
//!
//! A value is parsed only by the step that works on it. So a number that no step touches keeps its text (`1.10`, an
//! integer beyond 64 bits), and a nested value costs no more than its length.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Cause, check_length};
pub use crate::reading::JsonType;
use crate::reading::{Excerpt, Field};

/// The members of an object, in their order. A name may occur more than once, as in the input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields<'a>(Vec<Member<'a>>);

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// Its name.
    pub name: Cow<'a, str>,
    /// Its value: valid JSON.
    pub json: Cow<'a, str>,
    /// Whether its type is certain: a number of a reading that was checked before, or a value that a step made. The
    /// type of any other is the sender's choice, and may differ from record to record.
    pub certain: bool,
}

impl<'a> Member<'a> {
    /// A member that a step made.
    #[must_use]
    pub fn made(name: impl Into<Cow<'a, str>>, json: impl Into<Cow<'a, str>>) -> Member<'a> {
        Member { name: name.into(), json: json.into(), certain: true }
    }

    /// The type of its value.
    #[must_use]
    pub fn json_type(&self) -> JsonType {
        JsonType::of(&self.json)
    }

    /// Its value as a string; `None` if it is of another type, or has a lone surrogate.
    #[must_use]
    pub fn as_str(&self) -> Option<Cow<'_, str>> {
        unquoted(&self.json)
    }

    /// Replaces its value by one that a step made.
    pub(super) fn set(&mut self, json: impl Into<Cow<'a, str>>) {
        self.json = json.into();
        self.certain = true;
    }

    /// A cause that names the member and shows its value.
    pub(super) fn cause(&self, wanted: &str) -> Cause {
        format!("field `{}` {wanted}; found {}", self.name.escape_debug(), Excerpt(self.json.as_bytes()))
    }
}

/// The text of a JSON string.
fn unquoted(json: &str) -> Option<Cow<'_, str>> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.as_bytes().contains(&b'\\') {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(json).ok().map(Cow::Owned)
}

/// A string as JSON.
pub(super) fn quoted(text: &str) -> String {
    let mut json = Vec::with_capacity(text.len() + 2);
    write_string(&mut json, text);
    // What was written is UTF-8, as a string is.
    String::from_utf8(json).unwrap_or_default()
}

fn write_string(json: &mut Vec<u8>, text: &str) {
    let plain = |byte: &u8| *byte >= 0x20 && *byte != b'"' && *byte != b'\\';
    if text.as_bytes().iter().all(plain) {
        json.push(b'"');
        json.extend_from_slice(text.as_bytes());
        json.push(b'"');
        return;
    }
    // Writing into memory can't fail.
    let _ = serde_json::to_writer(json, text);
}

impl<'a> Fields<'a> {
    /// Parses a JSON object: its names, and the extent of each value.
    ///
    /// # Errors
    /// With what is wrong with it.
    pub fn parse(value: &'a [u8]) -> Result<Fields<'a>, String> {
        check_length(value)?;
        let text = std::str::from_utf8(value).map_err(|_| "the value is not UTF-8".to_owned())?;
        serde_json::from_str::<Fields<'a>>(text).map_err(|error| {
            let excerpt = Excerpt(value);
            if error.is_data() {
                return format!("the value is not a JSON object; found {excerpt}");
            }
            format!("the value is not JSON ({error}); found {excerpt}")
        })
    }

    /// The members in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Member<'a>> {
        self.0.iter()
    }

    /// The last member with this name, which is the one that most readers of JSON take.
    #[must_use]
    pub fn last(&self, name: &str) -> Option<&Member<'a>> {
        self.0.iter().rev().find(|member| member.name == name)
    }

    /// The object as JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let size = self.0.iter().map(|member| member.name.len() + member.json.len() + 4).sum::<usize>();
        let mut json = Vec::with_capacity(size + 2);
        json.push(b'{');
        for (number, member) in self.0.iter().enumerate() {
            if number > 0 {
                json.push(b',');
            }
            write_string(&mut json, &member.name);
            json.push(b':');
            json.extend_from_slice(member.json.as_bytes());
        }
        json.push(b'}');
        json
    }

    /// The members, to change.
    pub(super) fn members(&mut self) -> &mut Vec<Member<'a>> {
        &mut self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                // More than nearly all readings have, with room for what steps insert.
                let mut members = Vec::with_capacity(12);
                while let Some(Name(name)) = map.next_key()? {
                    let json: &RawValue = map.next_value()?;
                    let certain = Field::from_name(&name).is_some();
                    members.push(Member { name, json: Cow::Borrowed(json.get()), certain });
                }
                Ok(Fields(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// A member's name: borrowed unless it has an escape.
struct Name<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E: serde::de::Error>(self, name: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_str(Text).map_err(D::Error::custom)
    }
}
