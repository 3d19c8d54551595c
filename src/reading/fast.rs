//! The quick look at a reading that is written as nearly all are: one pass over the bytes, no allocation.
//!
//! It knows a strict subset of JSON and takes no decision against a record: whatever it isn't sure about (an escape, an
//! exponent, a number of 16 digits or more, an unknown field, anything wrong) it leaves to the thorough look, so that it can
//! only ever be as right as that. Owns nothing; must not know error codes.

use super::{Field, MAX_ID_BYTES, MAX_VALUE_BYTES, Name, Values};

/// One bit for each known field that must be there, the numbers by their index and the identity after them.
const REQUIRED: u8 = ID_BIT | 0b001_1111;
const ID_BIT: u8 = 1 << Field::ALL.len();

/// Largest integer up to which every integer is a double.
const EXACT_INTEGERS: u64 = 1 << 53;

/// Powers of ten that are exact as doubles: 5²² < 2⁵³.
const EXACT_TENS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

/// The generator and the values of a good reading; `None` says nothing about the record.
pub(super) fn reading<'a>(key: &'a [u8], value: &[u8]) -> Option<(&'a str, Values)> {
    if value.len() > MAX_VALUE_BYTES || key.is_empty() || key.len() > MAX_ID_BYTES {
        return None;
    }
    let mut text = Text { rest: value };
    let mut numbers = [f64::NAN; Field::ALL.len()];
    let mut seen = 0u8;
    text.take(b'{')?;
    loop {
        let name = Name::of(text.string()?)?;
        text.take(b':')?;
        let bit = match name {
            Name::Id => {
                if text.string()? != key {
                    return None;
                }
                ID_BIT
            }
            Name::Number(field) => {
                let number = text.number()?;
                if !field.accepts(number) {
                    return None;
                }
                numbers[field as usize] = number;
                1 << field as u8
            }
        };
        if seen & bit != 0 {
            return None;
        }
        seen |= bit;
        match text.next_token()? {
            b',' => {}
            b'}' => break,
            _ => return None,
        }
    }
    if seen & REQUIRED != REQUIRED || text.next_token().is_some() {
        return None;
    }
    // The rest of the value is ASCII, and the identity is the key byte for byte: this is the check of both for UTF-8.
    let generator = str::from_utf8(key).ok()?;
    Some((generator, Values(numbers)))
}

/// What is left to read.
struct Text<'v> {
    rest: &'v [u8],
}

impl<'v> Text<'v> {
    /// The next byte that isn't whitespace; `None` at the end.
    #[inline(always)]
    fn next_token(&mut self) -> Option<u8> {
        while let Some((&byte, rest)) = self.rest.split_first() {
            self.rest = rest;
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
        }
        None
    }

    /// Goes past `token`, if it is next.
    #[inline(always)]
    fn take(&mut self, token: u8) -> Option<()> {
        (self.next_token()? == token).then_some(())
    }

    /// A string without escapes. Not checked for UTF-8: the caller compares it with what is.
    #[inline(always)]
    fn string(&mut self) -> Option<&'v [u8]> {
        self.take(b'"')?;
        let end = self
            .rest
            .iter()
            .position(|&byte| byte == b'"' || byte == b'\\' || byte < b' ')?;
        let (string, rest) = self.rest.split_at(end);
        self.rest = rest;
        self.take(b'"')?;
        Some(string)
    }

    /// A number without exponent that is surely the nearest double: digits and scale that are both exact as doubles are
    /// divided, and IEEE 754 rounds a division correctly (W. D. Clinger, How to Read Floating Point Numbers Accurately, 1990).
    #[inline(always)]
    fn number(&mut self) -> Option<f64> {
        let first = self.next_token()?;
        let negative = first == b'-';
        let first = if negative {
            self.next_digit()?
        } else {
            digit(first)?
        };
        let mut mantissa = first;
        // RFC 8259 section 6: a zero in front is the whole integer part. Another digit after it would be what no caller expects.
        if first != 0 {
            self.digits(&mut mantissa)?;
        }
        let mut value = if let Some((b'.', rest)) = self.rest.split_first() {
            self.rest = rest;
            let scale = self.digits(&mut mantissa)?;
            if scale == 0 {
                return None;
            }
            mantissa as f64 / EXACT_TENS.get(scale)?
        } else {
            mantissa as f64
        };
        if negative {
            // Also for zero: "-0" is -0.0 to every reader of IEEE 754.
            value = -value;
        }
        Some(value)
    }

    /// Appends digits to `mantissa`, as long as it stays exact as a double; how many there were.
    #[inline(always)]
    fn digits(&mut self, mantissa: &mut u64) -> Option<usize> {
        let mut count = 0;
        while let Some(next) = self.rest.first().copied().and_then(digit) {
            *mantissa = mantissa.wrapping_mul(10).wrapping_add(next);
            self.rest = &self.rest[1..];
            count += 1;
        }
        (count < 17 && *mantissa <= EXACT_INTEGERS).then_some(count)
    }

    fn next_digit(&mut self) -> Option<u64> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        digit(byte)
    }
}

fn digit(byte: u8) -> Option<u64> {
    byte.is_ascii_digit().then(|| u64::from(byte - b'0'))
}

static STOPS: [bool; 256] = {
    let mut t = [false; 256];
    let mut i = 0;
    while i < 32 { t[i] = true; i += 1; }
    t[34] = true; t[92] = true;
    t
};
