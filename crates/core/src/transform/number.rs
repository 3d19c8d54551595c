//! Numbers as JSON text.

/// The greatest double below which every integer is one: beyond, there is nothing to round.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// The value of a JSON number; `None` if it is too large for a double.
pub(super) fn parse(json: &str) -> Option<f64> {
    json.parse().ok().filter(|number: &f64| number.is_finite())
}

/// The number that a text spells as JSON does; `None` for any other text.
pub(super) fn in_text(text: &str) -> Option<f64> {
    let begins = text.strip_prefix('-').unwrap_or(text).as_bytes().first()?.is_ascii_digit();
    let ends = text.as_bytes().last()?.is_ascii_digit();
    if begins && ends { parse(text) } else { None }
}

/// A finite number as JSON, in the shortest form that reads back the same.
pub(super) fn to_json(number: f64) -> String {
    let mut json = Vec::with_capacity(24);
    // Writing into memory can't fail.
    let _ = serde_json::to_writer(&mut json, &number);
    String::from_utf8(json).unwrap_or_default()
}

/// Whether a JSON number is written as an integer.
pub(super) fn is_integer(json: &str) -> bool {
    !json.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E'))
}

/// Rounds to so many decimals.
pub(super) fn round(number: f64, decimals: i32) -> f64 {
    let scale = 10f64.powi(decimals);
    let scaled = number * scale;
    if scaled.abs() < EXACT { scaled.round() / scale } else { number }
}
