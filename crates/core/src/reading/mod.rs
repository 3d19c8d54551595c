//! What a record says: a reading, a decommissioned generator, or the reason why the record is bad.
//!
//! A pure function of a record's key and value, [`parse`], and the types of its result. Two parsers give the same
//! result: `fast` reads the form of nearly every reading, allocates nothing and says only "yes, these values" or "not
//! sure"; `classify` reads every form, and it alone judges what is wrong with a record.
//!
//! # Invariants
//!
//! 1. `fast` accepts nothing that `classify` doesn't accept with the same values, to the bit.
//! 2. The code of a bad record is the first that applies in the order of [`ErrorCode`], over all of it.
//! 3. No input panics, overflows the stack or takes more than linear time.
//! 4. A bad record's message is bounded, whatever the record holds.
//! 5. Every number in [`Values`] is finite, the position is on the globe.
//!
//! # Must not know
//!
//! Kafka, rules and alarms, a clock, randomness.

pub mod bad_ratio;
mod classify;
mod fast;
mod json_type;

pub use json_type::JsonType;

use std::fmt;

use thiserror::Error;

pub(crate) use classify::Excerpt;

/// The longest value of a record that is parsed, in bytes: 1 MiB.
pub const MAX_VALUE_BYTES: usize = 1 << 20;

/// The longest `generatorID`, in bytes of UTF-8.
pub const MAX_ID_BYTES: usize = 256;

/// The name of the field that names the generator.
const ID_NAME: &str = "generatorID";

/// The numeric fields of a reading by a dense index: a rule resolves its field once at start and then reads an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Field {
    /// Latitude in degrees, north positive.
    Lat,
    /// Longitude in degrees, east positive.
    Lon,
    /// Coolant temperature in °C.
    Temperature,
    /// Oil pressure in kPa.
    Pressure,
    /// Fuel in the tank in litres.
    Fuel,
    /// Load in percent of the rated power. Optional.
    Load,
    /// Power delivered in kW. Optional.
    Power,
}

impl Field {
    /// Every field, at its index.
    pub const ALL: [Field; 7] =
        [Field::Lat, Field::Lon, Field::Temperature, Field::Pressure, Field::Fuel, Field::Load, Field::Power];

    /// The name of the field in a reading's JSON, and in a rule.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Field::Lat => "lat",
            Field::Lon => "lon",
            Field::Temperature => "temperature",
            Field::Pressure => "pressure",
            Field::Fuel => "fuel",
            Field::Load => "load",
            Field::Power => "power",
        }
    }

    /// The field with this name; names are case-sensitive.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Field> {
        match Name::of(name.as_bytes()) {
            Some(Name::Number(field)) => Some(field),
            Some(Name::Id) | None => None,
        }
    }

    /// Whether a reading may leave the field out, or give it as `null`.
    #[must_use]
    pub fn is_optional(self) -> bool {
        matches!(self, Field::Load | Field::Power)
    }

    /// The least and the greatest accepted value, both inclusive. A position must be on the globe; any other field
    /// must only be a finite double, because plausible values differ from one generator to the next.
    #[must_use]
    pub fn range(self) -> (f64, f64) {
        match self {
            Field::Lat => (-90.0, 90.0),
            Field::Lon => (-180.0, 180.0),
            Field::Temperature | Field::Pressure | Field::Fuel | Field::Load | Field::Power => {
                (f64::MIN, f64::MAX)
            }
        }
    }

    fn accepts(self, value: f64) -> bool {
        let (least, greatest) = self.range();
        (least..=greatest).contains(&value)
    }
}

/// A field of a reading that the worker reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    /// `generatorID`.
    Id,
    /// One of the numbers.
    Number(Field),
}

impl Name {
    fn as_str(self) -> &'static str {
        match self {
            Name::Id => ID_NAME,
            Name::Number(field) => field.name(),
        }
    }

    /// Takes bytes, because a JSON name may hold a lone surrogate, which no `str` can.
    fn of(name: &[u8]) -> Option<Name> {
        match name {
            b"generatorID" => Some(Name::Id),
            b"lat" => Some(Name::Number(Field::Lat)),
            b"lon" => Some(Name::Number(Field::Lon)),
            b"temperature" => Some(Name::Number(Field::Temperature)),
            b"pressure" => Some(Name::Number(Field::Pressure)),
            b"fuel" => Some(Name::Number(Field::Fuel)),
            b"load" => Some(Name::Number(Field::Load)),
            b"power" => Some(Name::Number(Field::Power)),
            _ => None,
        }
    }
}

/// The numbers of one reading. Copied freely: 56 bytes, no heap.
///
/// Two are equal when the same fields are present with equal numbers.
#[derive(Clone, Copy)]
pub struct Values(
    /// By [`Field`]; NaN where an optional field is absent: JSON can't express NaN.
    [f64; Field::ALL.len()],
);

impl Values {
    /// The values of a reading, in the units of [`Field`]. All must be finite, which [`parse`] ensures.
    #[must_use]
    pub fn new(
        lat: f64,
        lon: f64,
        temperature: f64,
        pressure: f64,
        fuel: f64,
        load: Option<f64>,
        power: Option<f64>,
    ) -> Values {
        let absent = f64::NAN;
        Values([lat, lon, temperature, pressure, fuel, load.unwrap_or(absent), power.unwrap_or(absent)])
    }

    /// The number in this field; `None` only when the field is optional and absent.
    #[inline]
    #[must_use]
    pub fn get(&self, field: Field) -> Option<f64> {
        let value = self.0[field as usize];
        (!value.is_nan()).then_some(value)
    }

    /// Latitude in degrees, from -90 to 90.
    #[must_use]
    pub fn lat(&self) -> f64 {
        self.0[Field::Lat as usize]
    }

    /// Longitude in degrees, from -180 to 180.
    #[must_use]
    pub fn lon(&self) -> f64 {
        self.0[Field::Lon as usize]
    }
}

impl PartialEq for Values {
    /// Not derived: with the NaN of an absent field a reading would differ from itself.
    fn eq(&self, other: &Values) -> bool {
        Field::ALL.iter().all(|&field| self.get(field) == other.get(field))
    }
}

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let present = Field::ALL.iter().filter_map(|&field| Some((field.name(), self.get(field)?)));
        f.debug_map().entries(present).finish()
    }
}

/// The meaning of a good record. The generator is borrowed from the record's key, which is its identity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Parsed<'a> {
    /// A reading.
    Reading {
        /// The generator.
        generator: &'a str,
        /// Its values.
        values: Values,
    },
    /// The generator sends no more readings: a record without a value.
    Decommissioned {
        /// The generator.
        generator: &'a str,
    },
}

/// Why a record is bad, in order of precedence: the first that applies is the record's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorCode {
    /// The value is longer than [`MAX_VALUE_BYTES`].
    TooLarge,
    /// The value isn't UTF-8 (RFC 3629), which RFC 8259 section 8.1 requires; or the key of a decommissioning isn't.
    NotUtf8,
    /// The value isn't exactly one JSON document (RFC 8259 section 2). `NaN`, a byte order mark and an empty value
    /// aren't JSON.
    NotJson,
    /// The document isn't a JSON object.
    NotObject,
    /// A field that the worker reads occurs twice, with whatever values: readers differ in which one they take (RFC
    /// 8259 section 4).
    DuplicateField,
    /// A required field is absent or `null`.
    MissingField,
    /// A field that the worker reads isn't a string or a number, as required.
    WrongType,
    /// A `generatorID` that is empty or longer than [`MAX_ID_BYTES`], a number outside of [`Field::range`] or
    /// too large for a double.
    OutOfRange,
    /// The record has no key.
    KeyMissing,
    /// The key isn't the `generatorID`, byte for byte.
    KeyMismatch,
}

impl ErrorCode {
    /// Every code, in order of precedence.
    pub const ALL: [ErrorCode; 10] = [
        ErrorCode::TooLarge,
        ErrorCode::NotUtf8,
        ErrorCode::NotJson,
        ErrorCode::NotObject,
        ErrorCode::DuplicateField,
        ErrorCode::MissingField,
        ErrorCode::WrongType,
        ErrorCode::OutOfRange,
        ErrorCode::KeyMissing,
        ErrorCode::KeyMismatch,
    ];

    /// The code as in headers and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorCode::TooLarge => "too_large",
            ErrorCode::NotUtf8 => "not_utf8",
            ErrorCode::NotJson => "not_json",
            ErrorCode::NotObject => "not_object",
            ErrorCode::DuplicateField => "duplicate_field",
            ErrorCode::MissingField => "missing_field",
            ErrorCode::WrongType => "wrong_type",
            ErrorCode::OutOfRange => "out_of_range",
            ErrorCode::KeyMissing => "key_missing",
            ErrorCode::KeyMismatch => "key_mismatch",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A record that can't be read, and the reason.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{code}: {message}")]
pub struct BadRecord {
    /// The reason, for machines.
    pub code: ErrorCode,
    /// The reason, for readers of the dead letter queue: names the field, the value found and the limit. Quotes at
    /// most a short excerpt of the record, with control characters escaped.
    pub message: String,
}

impl BadRecord {
    fn new(code: ErrorCode, message: impl Into<String>) -> BadRecord {
        BadRecord { code, message: message.into() }
    }
}

/// Reads a record of the readings topic from its key and value; `None` stands for null, which isn't the same as
/// empty.
///
/// A good reading in the usual form is read without allocation; only other records pay for the thorough parser.
///
/// # Errors
///
/// [`BadRecord`] with the first code that applies in the order of [`ErrorCode`]. A record without a value is judged
/// by its key: `key_missing`, `not_utf8`, or `out_of_range` when the key can't be a `generatorID`.
///
/// # Examples
///
/// ```
/// use genwatch_core::reading::{ErrorCode, Parsed, Values, parse};
///
/// let key = Some(b"g4".as_slice());
/// let value = br#"{"generatorID":"g4","lat":40.6,"lon":-111.9,"temperature":74,"pressure":198,"fuel":901}"#;
/// let values = Values::new(40.6, -111.9, 74.0, 198.0, 901.0, None, None);
/// assert_eq!(parse(key, Some(value)), Ok(Parsed::Reading { generator: "g4", values }));
///
/// assert_eq!(parse(key, None), Ok(Parsed::Decommissioned { generator: "g4" }));
///
/// let bad = parse(key, Some(br#"{"generatorID":"g4"}"#)).unwrap_err();
/// assert_eq!(bad.code, ErrorCode::MissingField);
/// assert_eq!(bad.message, "required field `lat` is absent");
/// ```
pub fn parse<'a>(key: Option<&'a [u8]>, value: Option<&'a [u8]>) -> Result<Parsed<'a>, BadRecord> {
    let Some(value) = value else {
        return classify::decommissioning(key).map(|generator| Parsed::Decommissioned { generator });
    };
    if let Some(key) = key
        && let Some((generator, values)) = fast::reading(key, value)
    {
        return Ok(Parsed::Reading { generator, values });
    }
    classify::reading(key, value).map(|(generator, values)| Parsed::Reading { generator, values })
}

#[cfg(test)]
mod tests;
