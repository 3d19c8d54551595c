//! What a record says: a reading, that a generator is decommissioned, or why the record is bad.
//!
//! A pure function of a record's key and value, [`parse`], and the vocabulary of its answer. There are two
//! ways to the same answer: `fast` reads the form that nearly every reading has, allocates nothing and says
//! only "yes, these values" or "not sure"; `classify` reads everything, and is the only judge of what is
//! wrong with a record.
//!
//! # Invariants
//!
//! 1. `fast` accepts nothing that `classify` doesn't accept with the same values, to the bit.
//! 2. The code of a bad record is the first that applies in the order of [`ErrorCode`], over all of it.
//! 3. No input panics, overflows the stack or takes more than linear time.
//! 4. What is told of a bad record is bounded, whatever the record holds.
//! 5. Every number in [`Values`] is finite, the position is on the globe.
//!
//! # Must not know
//!
//! Kafka, rules and alarms, a clock, randomness.

mod classify;
mod fast;

use std::fmt;

use thiserror::Error;

/// The longest value of a record that is looked at, in bytes: 1 MiB.
pub const MAX_VALUE_BYTES: usize = 1 << 20;

/// The longest `generatorID`, in bytes of UTF-8.
pub const MAX_ID_BYTES: usize = 256;

/// The name of the field that names the generator.
const ID_NAME: &str = "generatorID";

/// The numeric fields of a reading by a dense index, so that a rule names its field once at start and reads
/// an array afterwards.
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
    /// Every field; the place of each is its index.
    pub const ALL: [Field; 7] = [
        Field::Lat,
        Field::Lon,
        Field::Temperature,
        Field::Pressure,
        Field::Fuel,
        Field::Load,
        Field::Power,
    ];

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

    /// The field of this name; names are case-sensitive.
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

    /// The least and the greatest value that is accepted, both inclusive. A position has to be on the globe;
    /// anything else only has to be a finite double, since what is plausible differs from one generator to
    /// the next.
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

/// A field's name as a reading gives it, if it is one that the worker reads.
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

    /// Takes bytes, since a name in JSON may hold a lone surrogate, which no `str` can.
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

/// The numbers of one reading. Copied wherever they go: 56 bytes, no heap.
///
/// Two are equal when the same fields are present with equal numbers.
#[derive(Clone, Copy)]
pub struct Values(
    /// By [`Field`]; NaN where an optional field is absent, which JSON has no way to say.
    [f64; Field::ALL.len()],
);

impl Values {
    /// The values of a reading, in the units of [`Field`]. All have to be finite, which [`parse`] ensures.
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
        Values([
            lat,
            lon,
            temperature,
            pressure,
            fuel,
            load.unwrap_or(absent),
            power.unwrap_or(absent),
        ])
    }

    /// The number in this field; `None` only when the field is optional and absent.
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
    /// Not derived: the NaN of an absent field would make a reading differ from itself.
    fn eq(&self, other: &Values) -> bool {
        Field::ALL
            .iter()
            .all(|&field| self.get(field) == other.get(field))
    }
}

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let present = Field::ALL
            .iter()
            .filter_map(|&field| Some((field.name(), self.get(field)?)));
        f.debug_map().entries(present).finish()
    }
}

/// What a good record means to the worker. The generator is borrowed from the record's key, which is its
/// identity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Parsed<'a> {
    /// A reading.
    Reading {
        /// Whose reading it is.
        generator: &'a str,
        /// What was read.
        values: Values,
    },
    /// The generator sends no more readings: a record without a value.
    Decommissioned {
        /// Which generator it is.
        generator: &'a str,
    },
}

/// Why a record is bad. In the order of precedence: the first that applies is the record's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorCode {
    /// The value is longer than [`MAX_VALUE_BYTES`].
    TooLarge,
    /// The value isn't UTF-8 (RFC 3629), which RFC 8259 section 8.1 calls for; or the key of a
    /// decommissioning isn't.
    NotUtf8,
    /// The value isn't one JSON document (RFC 8259 section 2) and nothing else. `NaN`, a byte order mark and
    /// an empty value are no JSON.
    NotJson,
    /// The document is another JSON value than an object.
    NotObject,
    /// A field that the worker reads is given twice, whatever its values: readers differ in which one they
    /// take (RFC 8259 section 4).
    DuplicateField,
    /// A required field is absent or `null`.
    MissingField,
    /// A field that the worker reads isn't a string or a number as called for.
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
    /// Every code, in the order of precedence.
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

    /// The code as it stands in headers and metrics.
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

/// A record that can't be read, and why.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{code}: {message}")]
pub struct BadRecord {
    /// Why, for machines.
    pub code: ErrorCode,
    /// Why, for whoever reads the dead letter queue: names the field, what was found and the limit. Holds at
    /// most a short excerpt of what the record says, with control characters escaped.
    pub message: String,
}

impl BadRecord {
    fn new(code: ErrorCode, message: impl Into<String>) -> BadRecord {
        BadRecord {
            code,
            message: message.into(),
        }
    }
}

/// Reads a record of the readings topic from its key and value; `None` stands for null, which isn't the same
/// as empty.
///
/// A good reading is read without allocation if it is written as nearly all are; the cost of a thorough look
/// is paid by the others.
///
/// # Errors
///
/// [`BadRecord`] with the first code that applies in the order of [`ErrorCode`]. A record without a value is
/// judged by its key: `key_missing`, `not_utf8`, or `out_of_range` when the key is no possible `generatorID`.
///
/// # Examples
///
/// ```
/// use genwatch::reading::{ErrorCode, Parsed, Values, parse};
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
mod tests {
    use super::*;

    const SEED_FORM: &str = concat!(
        r#"{"generatorID":"generator4","lat":40.65995,"lon":-111.99633,"#,
        r#""temperature":74,"pressure":198,"fuel":901}"#
    );

    /// The code of a record; `None` for a good reading.
    fn code_of(key: Option<&[u8]>, value: &[u8]) -> Option<ErrorCode> {
        parse(key, Some(value)).err().map(|bad| bad.code)
    }

    /// A good document of generator "g" with these members in place of, or after, its own.
    fn with(members: &[(&str, &str)]) -> String {
        let mut all = vec![
            ("generatorID", r#""g""#),
            ("lat", "40.5"),
            ("lon", "-112"),
            ("temperature", "74"),
            ("pressure", "198"),
            ("fuel", "901"),
        ];
        for &(name, value) in members {
            match all.iter_mut().find(|(known, _)| *known == name) {
                Some(member) => member.1 = value,
                None => all.push((name, value)),
            }
        }
        let all: Vec<String> = all
            .iter()
            .map(|(name, value)| format!(r#""{name}":{value}"#))
            .collect();
        format!("{{{}}}", all.join(","))
    }

    /// A good document without this field.
    fn without(field: &str) -> String {
        let document = with(&[]);
        let inner = document.trim_matches(['{', '}']);
        let left: Vec<&str> = inner
            .split(',')
            .filter(|member| !member.starts_with(&format!("\"{field}\"")))
            .collect();
        format!("{{{}}}", left.join(","))
    }

    #[track_caller]
    fn assert_good(document: &str) -> Values {
        match parse(Some(b"g"), Some(document.as_bytes())) {
            Ok(Parsed::Reading {
                generator: "g",
                values,
            }) => values,
            other => panic!("{:.200}: {other:?}", document),
        }
    }

    #[track_caller]
    fn assert_bad(document: &str, code: ErrorCode) -> String {
        match parse(Some(b"g"), Some(document.as_bytes())) {
            Err(bad) if bad.code == code => bad.message,
            other => panic!("{:.200}: {other:?}", document),
        }
    }

    #[test]
    fn a_reading_of_the_seed_is_read() {
        let values = Values::new(40.65995, -111.99633, 74.0, 198.0, 901.0, None, None);
        let parsed = parse(Some(b"generator4"), Some(SEED_FORM.as_bytes()));
        assert_eq!(
            parsed,
            Ok(Parsed::Reading {
                generator: "generator4",
                values
            })
        );
    }

    #[test]
    fn the_optional_numbers_are_read_and_null_is_absent() {
        let both = assert_good(&with(&[("load", "55.5"), ("power", "120")]));
        assert_eq!(
            (both.get(Field::Load), both.get(Field::Power)),
            (Some(55.5), Some(120.0))
        );
        let null = assert_good(&with(&[("load", "null"), ("power", "0")]));
        assert_eq!((null.get(Field::Load), null.get(Field::Power)), (None, Some(0.0)));
        assert_eq!(
            null,
            Values::new(40.5, -112.0, 74.0, 198.0, 901.0, None, Some(0.0))
        );
        assert_ne!(null, both);
        let beginning = r#"{"lat": 40.5, "lon": -112.0, "temperature": 74.0, "pressure": 198.0, "#;
        assert_eq!(
            format!("{null:?}"),
            format!("{beginning}\"fuel\": 901.0, \"power\": 0.0}}")
        );
    }

    #[test]
    fn every_field_has_its_own_name_and_index() {
        for (index, field) in Field::ALL.into_iter().enumerate() {
            assert_eq!(field as usize, index);
            assert_eq!(Field::from_name(field.name()), Some(field));
            let document = with(&[("load", "1"), ("power", "1"), (field.name(), "2.5")]);
            assert_eq!(assert_good(&document).get(field), Some(2.5));
        }
        for name in ["", "Fuel", "fuel ", "generatorID", "site"] {
            assert_eq!(Field::from_name(name), None);
        }
    }

    #[test]
    fn every_code_has_its_name_and_its_place() {
        let names: Vec<String> = ErrorCode::ALL.iter().map(ErrorCode::to_string).collect();
        let contract = "too_large not_utf8 not_json not_object duplicate_field missing_field wrong_type \
                        out_of_range key_missing key_mismatch";
        assert_eq!(names.join(" "), contract);
        assert!(ErrorCode::ALL.is_sorted());
    }

    #[test]
    fn a_value_over_one_mebibyte_is_too_large() {
        let mut document = with(&[]);
        document.extend(std::iter::repeat_n(' ', MAX_VALUE_BYTES - document.len()));
        assert_good(&document);
        document.push(' ');
        assert_bad(&document, ErrorCode::TooLarge);
    }

    #[test]
    fn utf8_is_called_for_in_the_whole_value() {
        for at in 0..SEED_FORM.len() {
            let mut value = SEED_FORM.as_bytes().to_vec();
            value[at] = 0xff;
            assert_eq!(
                code_of(Some(b"generator4"), &value),
                Some(ErrorCode::NotUtf8),
                "byte {at}"
            );
        }
        let unknown = with(&[("site", r#""?""#)]).replace('?', "\u{e9}");
        assert_good(&unknown);
        // The encoding of a surrogate, an overlong "/", a character cut short.
        for bytes in [b"\xed\xa0\x80".as_slice(), b"\xc0\xaf", b"\xe2\x82"] {
            let value = [br#"{"site":""#, bytes, br#"","#, &with(&[]).as_bytes()[1..]].concat();
            assert_eq!(code_of(Some(b"g"), &value), Some(ErrorCode::NotUtf8));
        }
    }

    #[test]
    fn a_generator_may_have_a_name_in_any_script() {
        let value = with(&[("generatorID", "\"発電機\"")]);
        let parsed = parse(Some("発電機".as_bytes()), Some(value.as_bytes()));
        assert!(matches!(
            parsed,
            Ok(Parsed::Reading {
                generator: "発電機",
                ..
            })
        ));
    }

    #[test]
    fn what_is_no_json_by_rfc_8259_is_no_json() {
        let good = with(&[]);
        let cut: Vec<&str> = (0..good.len()).map(|end| &good[..end]).collect();
        for document in cut {
            assert_bad(document, ErrorCode::NotJson);
        }
        let after = |tail: &str| format!("{good}{tail}");
        let number = |raw: &str| with(&[("fuel", raw)]);
        let unknown = |raw: &str| with(&[("site", raw)]);
        let mut documents = vec![
            " ".into(),
            "nul".into(),
            "[1,]".into(),
            "[1 2]".into(),
            "[}".into(),
            "\"".into(),
            "\u{feff}{}".into(),
            format!("\u{feff}{good}"),
            after(","),
            after("}"),
            after("{}"),
            after("\0"),
            after("\u{a0}"),
            after("//"),
            good.replace(",\"fuel\"", ",,\"fuel\""),
            good.replace(",\"fuel\"", "\"fuel\""),
            good.replace("901}", "901,}"),
            good.replace("\"fuel\":", "\"fuel\""),
            good.replace("\"fuel\"", "fuel"),
            good.replace("\"fuel\"", "'fuel'"),
            good.replace("\"fuel\"", "1"),
            good.replace("\"fuel\"", "\"fu\\el\""),
            good.replace("\"fuel\"", "\"fu\nel\""),
        ];
        for raw in [
            "",
            "NaN",
            "Infinity",
            "-Infinity",
            "nan",
            "01",
            "-01",
            "00",
            "+1",
            ".5",
            "1.",
            "1.e5",
            "-",
            "--1",
            "1e",
            "1e+",
            "1E-",
            "0x10",
            "1_000",
            "1,5",
            "True",
            "nulll",
            "undefined",
            "٣",
        ] {
            documents.push(number(raw));
            documents.push(unknown(raw));
        }
        for raw in [
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\u12g4\"",
            "\"\t\"",
            "\"\u{1f}\"",
            "\"\n\"",
            "[1,]",
            "{\"a\"}",
            "{\"a\":1,}",
        ] {
            documents.push(unknown(raw));
            documents.push(with(&[("generatorID", raw)]));
        }
        for document in documents {
            assert_bad(&document, ErrorCode::NotJson);
        }
    }

    #[test]
    fn another_json_value_than_an_object_is_no_object() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        for document in [
            "[]",
            " [{}] ",
            "1",
            "-0.5e9",
            "1e999",
            "\"{}\"",
            "\"\\ud800\"",
            "true",
            "false",
            "null",
            &deep,
        ] {
            assert_bad(document, ErrorCode::NotObject);
        }
        assert_bad(&deep[1..], ErrorCode::NotJson);
    }

    #[test]
    fn a_known_field_given_twice_is_a_duplicate_whatever_its_values() {
        for name in [
            "generatorID",
            "lat",
            "lon",
            "temperature",
            "pressure",
            "fuel",
            "load",
            "power",
        ] {
            let both = with(&[("load", "1"), ("power", "1")]);
            for value in ["1", "null", "\"g\"", "[]"] {
                for document in [
                    format!("{{\"{name}\":{value},{}", &both[1..]),
                    format!("{},\"{name}\":{value}}}", &both[..both.len() - 1]),
                ] {
                    assert!(assert_bad(&document, ErrorCode::DuplicateField).contains(name));
                }
            }
        }
        let escaped = with(&[("fu\\u0065l", "901")]);
        assert_bad(&escaped, ErrorCode::DuplicateField);
        assert_good(&with(&[("site", "1,\"site\":2")]));
    }

    #[test]
    fn a_required_field_that_is_absent_or_null_is_missing() {
        assert_bad("{}", ErrorCode::MissingField);
        for name in ["generatorID", "lat", "lon", "temperature", "pressure", "fuel"] {
            let absent = assert_bad(&without(name), ErrorCode::MissingField);
            assert_eq!(absent, format!("required field `{name}` is absent"));
            let null = assert_bad(&with(&[(name, "null")]), ErrorCode::MissingField);
            assert_eq!(null, format!("required field `{name}` is null"));
            // Names are case-sensitive.
            let other = with(&[]).replace(name, &name.to_uppercase());
            assert_bad(&other, ErrorCode::MissingField);
        }
    }

    #[test]
    fn a_known_field_of_another_type_is_of_the_wrong_type() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        for field in Field::ALL {
            for raw in [
                "\"74\"",
                "\"\"",
                "true",
                "false",
                "[]",
                "[1]",
                "{}",
                "{\"fuel\":1}",
                &deep,
            ] {
                let message = assert_bad(&with(&[(field.name(), raw)]), ErrorCode::WrongType);
                assert!(
                    message.starts_with(&format!("field `{}` must be a number; found ", field.name())),
                    "{message}"
                );
            }
        }
        for raw in ["4", "true", "[\"g\"]", "{}"] {
            assert_bad(&with(&[("generatorID", raw)]), ErrorCode::WrongType);
        }
    }

    #[test]
    fn a_position_is_on_the_globe_limits_included() {
        for (name, limit) in [("lat", "90"), ("lon", "180")] {
            let limit: f64 = limit.parse().unwrap();
            for good in [limit, -limit, limit.next_down(), 0.0, -0.0] {
                assert_good(&with(&[(name, &format!("{good}"))]));
                assert_good(&with(&[(name, &format!("{good:e}"))]));
            }
            for bad in [limit.next_up(), -limit.next_up(), limit + 1.0, 1e300] {
                assert_bad(&with(&[(name, &format!("{bad}"))]), ErrorCode::OutOfRange);
                assert_bad(&with(&[(name, &format!("{bad:e}"))]), ErrorCode::OutOfRange);
            }
        }
        let message = assert_bad(&with(&[("lat", "91.0")]), ErrorCode::OutOfRange);
        assert_eq!(message, "field `lat` must be from -90 to 90; found `91.0`");
    }

    #[test]
    fn a_number_too_large_for_a_double_is_out_of_range_and_one_too_small_is_zero() {
        let integer = "9".repeat(400);
        for field in Field::ALL {
            for raw in [
                "1e999",
                "-1e999",
                "1E+400",
                "1.8e308",
                &integer,
                "1e99999999999999999999",
            ] {
                let message = assert_bad(&with(&[(field.name(), raw)]), ErrorCode::OutOfRange);
                assert!(
                    message.starts_with(&format!("field `{}` is too large", field.name())),
                    "{message}"
                );
            }
            for raw in [
                "1e-999",
                "0e999",
                "0.000e99999999999999999999",
                "1e-99999999999999999999",
            ] {
                assert_eq!(assert_good(&with(&[(field.name(), raw)])).get(field), Some(0.0));
            }
        }
        assert_good(&with(&[("site", "1e999")]));
    }

    #[test]
    fn numbers_are_the_nearest_doubles() {
        let thirty = "1".repeat(30);
        let long = format!("0.1{}", "0".repeat(5000));
        for raw in [
            "0",
            "-0",
            "-0.0",
            "0.1",
            "1.7976931348623157e308",
            "5e-324",
            "2.4703282292062328e-324",
            "9007199254740992",
            "9007199254740993",
            "9007199254740993.0",
            "900719925474099.3",
            "9007199254740992.5",
            "18446744073709551616",
            "1844674407370955161.6",
            "0.30000000000000004",
            "123456789012345678",
            "0.00000000000000000000001",
            "0.0000000000000000000001",
            "7e22",
            "7e23",
            "3.5E+2",
            "1000000000000000000000000000000",
            &thirty,
            &long,
        ] {
            let values = assert_good(&with(&[("fuel", raw)]));
            let nearest: f64 = raw.parse().unwrap();
            assert_eq!(
                values.get(Field::Fuel).map(f64::to_bits),
                Some(nearest.to_bits()),
                "{raw}"
            );
        }
    }

    #[test]
    fn an_identity_is_1_to_256_bytes() {
        let id = |length: usize| format!("\"{}\"", "x".repeat(length));
        for length in [1, 255, 256] {
            let value = with(&[("generatorID", &id(length))]);
            assert_eq!(
                code_of(Some("x".repeat(length).as_bytes()), value.as_bytes()),
                None
            );
        }
        for length in [0, 257, 100_000] {
            let value = with(&[("generatorID", &id(length))]);
            assert_eq!(
                code_of(Some("x".repeat(length).as_bytes()), value.as_bytes()),
                Some(ErrorCode::OutOfRange)
            );
        }
        // Bytes of UTF-8, neither characters nor what an escape takes.
        let accents = with(&[("generatorID", &format!("\"{}\"", "é".repeat(129)))]);
        assert_eq!(
            code_of(Some(b"x"), accents.as_bytes()),
            Some(ErrorCode::OutOfRange)
        );
        let escapes = with(&[("generatorID", &format!("\"{}\"", "\\u0067".repeat(256)))]);
        assert_eq!(
            code_of(Some("g".repeat(256).as_bytes()), escapes.as_bytes()),
            None
        );
    }

    #[test]
    fn a_reading_without_a_key_has_its_key_missing() {
        assert_eq!(code_of(None, with(&[]).as_bytes()), Some(ErrorCode::KeyMissing));
        let surrogate = with(&[("generatorID", r#""\ud800""#)]);
        assert_eq!(code_of(None, surrogate.as_bytes()), Some(ErrorCode::KeyMissing));
    }

    #[test]
    fn a_key_that_isnt_the_identity_byte_for_byte_is_a_mismatch() {
        for key in [
            b"".as_slice(),
            b"G",
            b"g ",
            b" g",
            b"gg",
            b"\"g\"",
            b"g\0",
            b"\xff",
            b"g\xff",
        ] {
            assert_eq!(
                code_of(Some(key), with(&[]).as_bytes()),
                Some(ErrorCode::KeyMismatch),
                "{key:?}"
            );
        }
        // The same letter to a reader, but composed otherwise.
        let composed = with(&[("generatorID", "\"\u{e9}\"")]);
        assert_eq!(
            code_of(Some("e\u{301}".as_bytes()), composed.as_bytes()),
            Some(ErrorCode::KeyMismatch)
        );
    }

    #[test]
    fn an_identity_may_be_written_with_escapes() {
        for (raw, key) in [
            (r#""\u0067""#, "g"),
            (r#""a\/b\"c\\d\n""#, "a/b\"c\\d\n"),
            (r#""\ud83d\ude00""#, "\u{1f600}"),
            (r#""\u0000""#, "\0"),
        ] {
            let value = with(&[("generatorID", raw)]);
            assert!(matches!(
                parse(Some(key.as_bytes()), Some(value.as_bytes())),
                Ok(Parsed::Reading { generator, .. }) if generator == key
            ));
        }
    }

    #[test]
    fn a_lone_surrogate_is_grammatical_but_names_no_generator() {
        for raw in [
            r#""\ud800""#,
            r#""\udc00""#,
            r#""g\ud800""#,
            r#""\ud800\ud800""#,
            r#""\ud800\n""#,
            r#""\uDEAD""#,
        ] {
            let named = with(&[("generatorID", raw)]);
            for key in [
                b"g".as_slice(),
                b"\xed\xa0\x80",
                b"\xed\xb0\x80",
                b"g\xed\xa0\x80",
                "\u{fffd}".as_bytes(),
            ] {
                assert_eq!(
                    code_of(Some(key), named.as_bytes()),
                    Some(ErrorCode::KeyMismatch),
                    "{raw}"
                );
            }
            assert_good(&with(&[("site", raw)]));
            assert_good(&with(&[(raw.trim_matches('"'), "1")]));
            assert_good(&with(&[("site", &format!("[{{{raw}:{raw}}}]"))]));
        }
        // Not cut off from a name: this isn't `fuel`.
        assert_good(&with(&[(r"fuel\ud800", "1")]));
        assert_bad(&with(&[("load", r#""\ud800""#)]), ErrorCode::WrongType);
    }

    #[test]
    fn a_known_name_may_be_written_with_escapes() {
        let values = assert_good(&with(&[]).replace("\"fuel\"", "\"fu\\u0065l\""));
        assert_eq!(values.get(Field::Fuel), Some(901.0));
        assert_good(&with(&[]).replace("generatorID", "\\u0067eneratorI\\u0044"));
    }

    #[test]
    fn unknown_fields_are_ignored_however_deep_they_nest() {
        let opened = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let mapped = format!("{}1{}", "{\"fuel\":".repeat(100_000), "}".repeat(100_000));
        let long = "7".repeat(100_000);
        let documents: Vec<String> = [
            "\"x\"",
            "true",
            "null",
            "-1.5e3",
            "{\"fuel\":1,\"fuel\":2}",
            &opened,
            &mapped,
            &long,
        ]
        .iter()
        .map(|raw| with(&[("site", raw)]))
        .collect();
        // A stack on which one frame a level wouldn't fit.
        let small = std::thread::Builder::new().stack_size(256 << 10);
        let checked = small.spawn(move || {
            for document in documents {
                assert_good(&document);
            }
        });
        checked.unwrap().join().unwrap();
    }

    #[test]
    fn whitespace_and_order_are_of_no_account() {
        let value = " \r\n\t{ \"fuel\" :\t901 ,\n\"pressure\":198,\"temperature\":74 , \"lon\" : -112,\
                     \"lat\":40.5,\r\"generatorID\" : \"g\" } \n";
        assert_eq!(assert_good(value), assert_good(&with(&[])));
        for other in ["\u{b}", "\u{c}", "\u{a0}", "\u{2028}"] {
            assert_bad(&value.replace('\t', other), ErrorCode::NotJson);
        }
    }

    #[test]
    fn a_record_without_a_value_decommissions_the_generator_of_its_key() {
        let longest = "x".repeat(MAX_ID_BYTES);
        for key in ["g", "発電機", &longest] {
            assert_eq!(
                parse(Some(key.as_bytes()), None),
                Ok(Parsed::Decommissioned { generator: key })
            );
        }
        for (key, code) in [
            (None, ErrorCode::KeyMissing),
            (Some(b"\xff".to_vec()), ErrorCode::NotUtf8),
            (Some(vec![0xff; 300]), ErrorCode::NotUtf8),
            (Some(vec![]), ErrorCode::OutOfRange),
            (Some(vec![b'x'; MAX_ID_BYTES + 1]), ErrorCode::OutOfRange),
        ] {
            assert_eq!(parse(key.as_deref(), None).unwrap_err().code, code);
        }
        assert_eq!(
            code_of(Some(b"g"), b""),
            Some(ErrorCode::NotJson),
            "an empty value isn't null"
        );
    }

    /// A document with each of these faults, and its key; the faults don't hide one another.
    fn faulty(faults: &[ErrorCode]) -> (Option<&'static [u8]>, Vec<u8>) {
        let has = |code| faults.contains(&code);
        let mut document = with(&[]);
        if has(ErrorCode::DuplicateField) {
            document = document.replace("}", ",\"load\":1,\"load\":null}");
        }
        if has(ErrorCode::MissingField) {
            document = document.replace("\"fuel\"", "\"Fuel\"");
        }
        if has(ErrorCode::WrongType) {
            document = document.replace("198", "\"198\"");
        }
        if has(ErrorCode::OutOfRange) {
            document = document.replace("40.5", "90.5");
        }
        if has(ErrorCode::NotObject) {
            document = format!("[{document}]");
        }
        if has(ErrorCode::NotJson) {
            document.push(',');
        }
        let mut value = document.into_bytes();
        if has(ErrorCode::NotUtf8) {
            value.push(0xff);
        }
        if has(ErrorCode::TooLarge) {
            value.resize(MAX_VALUE_BYTES + 1, b' ');
        }
        let key = match (has(ErrorCode::KeyMissing), has(ErrorCode::KeyMismatch)) {
            (true, _) => None,
            (false, true) => Some(b"h".as_slice()),
            (false, false) => Some(b"g".as_slice()),
        };
        (key, value)
    }

    #[test]
    fn of_any_set_of_faults_the_first_in_the_order_of_the_codes_is_told() {
        for set in 0..1_u32 << ErrorCode::ALL.len() {
            let faults: Vec<ErrorCode> = ErrorCode::ALL
                .into_iter()
                .enumerate()
                .filter(|(bit, _)| set >> bit & 1 == 1)
                .map(|(_, code)| code)
                .collect();
            let (key, value) = faulty(&faults);
            assert_eq!(code_of(key, &value), faults.first().copied(), "{faults:?}");
        }
    }
}
