//! The meaning of a record: a reading, a decommissioning, or the first code in the list of `docs/formats.md` that
//! applies.

use crate::json::{self, Object, Shape};

/// The numbers of a reading.
#[derive(Clone, Debug, PartialEq)]
pub struct Numbers {
    /// Degrees.
    pub lat: f64,
    /// Degrees.
    pub lon: f64,
    /// °C.
    pub temperature: f64,
    /// kPa.
    pub pressure: f64,
    /// Litres.
    pub fuel: f64,
    /// Percent.
    pub load: Option<f64>,
    /// kW.
    pub power: Option<f64>,
}

impl Numbers {
    /// The number with this name in the JSON.
    pub(crate) fn field(&self, name: &str) -> Option<f64> {
        match name {
            "lat" => Some(self.lat),
            "lon" => Some(self.lon),
            "temperature" => Some(self.temperature),
            "pressure" => Some(self.pressure),
            "fuel" => Some(self.fuel),
            "load" => self.load,
            "power" => self.power,
            _ => None,
        }
    }
}

/// The meaning of a record.
#[derive(Clone, Debug, PartialEq)]
pub enum Meaning {
    /// A reading of its key's generator.
    Reading(Numbers),
    /// No value: its key's generator is decommissioned.
    Decommissioned,
    /// A bad record, with its code.
    Bad(&'static str),
}

const REQUIRED: [&str; 6] = ["generatorID", "lat", "lon", "temperature", "pressure", "fuel"];
const NUMBERS: [&str; 7] = ["lat", "lon", "temperature", "pressure", "fuel", "load", "power"];

/// Returns the meaning of a record with this key and value.
#[must_use]
pub fn classify(key: Option<&[u8]>, value: Option<&[u8]>) -> Meaning {
    let meaning = match value {
        Some(value) => reading(key, value).map(Meaning::Reading),
        None => tombstone(key).map(|()| Meaning::Decommissioned),
    };
    meaning.unwrap_or_else(Meaning::Bad)
}

fn reading(key: Option<&[u8]>, value: &[u8]) -> Result<Numbers, &'static str> {
    if value.len() > 1 << 20 {
        return Err("too_large");
    }
    let text = std::str::from_utf8(value).map_err(|_| "not_utf8")?;
    let object = match json::parse(text) {
        None => return Err("not_json"),
        Some(Shape::Object(object)) => object,
        Some(_) => return Err("not_object"),
    };
    if REQUIRED.iter().chain(&NUMBERS[5..]).any(|name| all(&object, name).count() > 1) {
        return Err("duplicate_field");
    }
    let one = |name| all(&object, name).next();
    if REQUIRED.iter().any(|name| matches!(one(name), None | Some(Shape::Null))) {
        return Err("missing_field");
    }
    let Some(Shape::String(id)) = one("generatorID") else {
        return Err("wrong_type");
    };
    let mut numbers = [None; NUMBERS.len()];
    for (number, name) in numbers.iter_mut().zip(NUMBERS) {
        *number = match one(name) {
            Some(Shape::Number(number)) => Some(*number),
            None | Some(Shape::Null) => None,
            Some(_) => return Err("wrong_type"),
        };
    }
    let [Some(lat), Some(lon), Some(temperature), Some(pressure), Some(fuel), load, power] = numbers else {
        return Err("missing_field");
    };
    let beyond = lat.abs() > 90.0 || lon.abs() > 180.0;
    let infinite = numbers.iter().flatten().any(|number| number.is_infinite());
    if id.is_empty() || id.len() > 256 || beyond || infinite {
        return Err("out_of_range");
    }
    match key {
        None => Err("key_missing"),
        Some(key) if key != id => Err("key_mismatch"),
        Some(_) => Ok(Numbers { lat, lon, temperature, pressure, fuel, load, power }),
    }
}

/// Judges a record without a value by its key.
fn tombstone(key: Option<&[u8]>) -> Result<(), &'static str> {
    let key = key.ok_or("key_missing")?;
    std::str::from_utf8(key).map_err(|_| "not_utf8")?;
    if key.is_empty() || key.len() > 256 { Err("out_of_range") } else { Ok(()) }
}

fn all<'o>(object: &'o Object, name: &str) -> impl Iterator<Item = &'o Shape> {
    object.iter().filter(move |(key, _)| key == name.as_bytes()).map(|(_, shape)| shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"generatorID":"g","lat":1,"lon":2,"temperature":70,"pressure":1,"fuel":100}"#;

    fn of(key: Option<&str>, value: &str) -> Result<Numbers, &'static str> {
        match classify(key.map(str::as_bytes), Some(value.as_bytes())) {
            Meaning::Reading(numbers) => Ok(numbers),
            Meaning::Bad(code) => Err(code),
            Meaning::Decommissioned => panic!("it has a value"),
        }
    }

    #[test]
    fn each_fault_has_its_code() {
        assert_eq!(of(Some("g"), GOOD).map(|numbers| numbers.fuel), Ok(100.0));
        assert_eq!(of(Some("g"), &GOOD.replace("\"g\"", "\"\\u0067\"")).map(|numbers| numbers.lon), Ok(2.0));
        for (from, to, code) in [
            ("{", "", "not_json"),
            ("\"lat\":1", "\"lat\":91", "out_of_range"),
            ("\"pressure\":1,", "", "missing_field"),
            ("\"fuel\":100", "\"fuel\":\"100\"", "wrong_type"),
            ("\"fuel\":100", "\"fuel\":null", "missing_field"),
            ("\"fuel\":100", "\"fuel\":100,\"fuel\":100", "duplicate_field"),
            ("\"fuel\":100", "\"fuel\":100,\"load\":true", "wrong_type"),
            ("\"fuel\":100", "\"fuel\":1e999", "out_of_range"),
            ("\"g\"", "\"h\"", "key_mismatch"),
        ] {
            assert_eq!(of(Some("g"), &GOOD.replace(from, to)), Err(code), "{from} for {to}");
        }
        assert_eq!(of(Some("g"), &format!("[{GOOD}]")), Err("not_object"));
        assert_eq!(of(None, GOOD), Err("key_missing"));
        assert_eq!(of(Some("g"), &format!("{GOOD}{}", " ".repeat(1 << 20))), Err("too_large"));
        assert!(of(Some("g"), &GOOD.replace("100", "100,\"load\":null,\"x\":[1]")).is_ok());
    }

    #[test]
    fn a_record_without_a_value_is_judged_by_its_key() {
        assert_eq!(classify(Some(b"g"), None), Meaning::Decommissioned);
        assert_eq!(classify(None, None), Meaning::Bad("key_missing"));
        assert_eq!(classify(Some(b"\xff"), None), Meaning::Bad("not_utf8"));
        assert_eq!(classify(Some(b""), None), Meaning::Bad("out_of_range"));
    }
}
