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
    let mut text = Text { bytes: value, at: 0 };
    let mut numbers = [f64::NAN; Field::ALL.len()];
    let mut seen = 0u8;
    text.take(b'{')?;
    loop {
        let name = text.string()?;
        text.take(b':')?;
        let bit = match Name::of(name) {
            Some(Name::Id) => {
                if text.string()? != key {
                    return None;
                }
                ID_BIT
            }
            Some(Name::Number(field)) => {
                let number = text.number()?;
                if !field.accepts(number) {
                    return None;
                }
                numbers[field as usize] = number;
                1 << field as u8
            }
            None => {
                text.scalar(name)?;
                0
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

/// The text, and how far it has been read.
struct Text<'v> {
    bytes: &'v [u8],
    at: usize,
}

impl<'v> Text<'v> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// The next byte that isn't whitespace; `None` at the end.
    fn next_token(&mut self) -> Option<u8> {
        loop {
            let byte = self.peek()?;
            self.at += 1;
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
        }
    }

    /// Goes past `token`, if it is next.
    fn take(&mut self, token: u8) -> Option<()> {
        (self.next_token()? == token).then_some(())
    }

    /// A string without escapes. Not checked for UTF-8: the caller compares it with what is.
    #[inline(always)]
    fn string(&mut self) -> Option<&'v [u8]> {
        self.take(b'"')?;
        let start = self.at;
        loop {
            let byte = self.peek()?;
            self.at += 1;
            if byte == b'"' {
                return self.bytes.get(start..self.at - 1);
            }
            if byte == b'\\' || byte < b' ' {
                return None;
            }
        }
    }

    /// A string of ASCII or a number, whatever it says.
    #[cold]
    fn scalar(&mut self, name: &[u8]) -> Option<()> {
        if !name.is_ascii() {
            return None;
        }
        let start = self.at;
        if let Some(string) = self.string() {
            return string.is_ascii().then_some(());
        }
        self.at = start;
        self.number().map(|_| ())
    }

    /// A number without exponent that is surely the nearest double: digits and scale that are both exact as doubles are
    /// divided, and IEEE 754 rounds a division correctly (W. D. Clinger, How to Read Floating Point Numbers Accurately, 1990).
    fn number(&mut self) -> Option<f64> {
        let first = self.next_token()?;
        let negative = first == b'-';
        if !negative {
            self.at -= 1;
        }
        let start = self.at;
        let mut mantissa = self.digits(0);
        let whole = self.at - start;
        // RFC 8259 section 6: at least one digit, and none after a zero in front.
        if whole == 0 || (whole > 1 && self.bytes.get(start) == Some(&b'0')) {
            return None;
        }
        let mut scale = 0;
        if self.peek() == Some(b'.') {
            self.at += 1;
            let start = self.at;
            mantissa = self.digits(mantissa);
            scale = self.at - start;
            if scale == 0 {
                return None;
            }
        }
        let magnitude = match EXACT_TENS.get(scale) {
            // Nineteen digits can't have wrapped: 10¹⁹ < 2⁶⁴.
            Some(ten) if whole + scale <= 19 && mantissa <= EXACT_INTEGERS => mantissa as f64 / ten,
            _ => nearest(self.bytes.get(start..self.at)?)?,
        };
        // Also for zero: "-0" is -0.0 to every reader of IEEE 754.
        Some(if negative { -magnitude } else { magnitude })
    }

    /// Appends digits to `mantissa`, which may wrap: the caller counts them.
    fn digits(&mut self, mut mantissa: u64) -> u64 {
        while let Some(next) = self.peek().and_then(digit) {
            mantissa = mantissa.wrapping_mul(10).wrapping_add(next);
            self.at += 1;
        }
        mantissa
    }
}

/// Any number, the slow way.
#[cold]
fn nearest(number: &[u8]) -> Option<f64> {
    str::from_utf8(number).ok()?.parse().ok()
}

fn digit(byte: u8) -> Option<u64> {
    byte.is_ascii_digit().then(|| u64::from(byte - b'0'))
}
