//! The exact sum of doubles as a long integer: a fixed-point number that has a bit for every bit a double can have.

/// Bits of a digit. A digit has room for the sums of 2^31 numbers before it is carried.
const DIGIT: u32 = 32;

/// A magnitude that makes a sum unknown by `docs/formats.md`: over 2^970.
fn is_too_large(number: f64) -> bool {
    number.abs() > 2f64.powi(970)
}

/// The sum, rounded to the nearest double, half to even; `None` if a number is too large to be summed.
pub fn sum(numbers: &[f64]) -> Option<f64> {
    if numbers.iter().any(|number| is_too_large(*number)) {
        return None;
    }
    // Digit 0 has the bits from 2^-1074 on.
    let mut digits = vec![0i64; 70];
    for number in numbers {
        let bits = number.to_bits();
        let exponent = (bits >> 52) & 0x7ff;
        let fraction = bits & ((1 << 52) - 1);
        let (mantissa, shift) =
            if exponent == 0 { (fraction, 0) } else { (fraction | 1 << 52, exponent as u32 - 1) };
        let shifted = u128::from(mantissa) << (shift % DIGIT);
        for part in 0..3 {
            let piece = ((shifted >> (part * DIGIT)) & 0xffff_ffff) as i64;
            digits[(shift / DIGIT + part) as usize] += if *number < 0.0 { -piece } else { piece };
        }
    }
    carry(&mut digits);
    let negative = digits.last().is_some_and(|top| *top < 0);
    if negative {
        digits.iter_mut().for_each(|digit| *digit = -*digit);
        carry(&mut digits);
    }
    let magnitude = round(&digits);
    Some(if negative { -magnitude } else { magnitude })
}

/// Brings each digit but the last between 0 and 2^32.
fn carry(digits: &mut [i64]) {
    for index in 0..digits.len() - 1 {
        let over = digits[index] >> DIGIT;
        digits[index] -= over << DIGIT;
        digits[index + 1] += over;
    }
}

/// The nearest double of a number that isn't negative.
fn round(digits: &[i64]) -> f64 {
    let bit = |position: i64| position >= 0 && digits[position as usize / 32] >> (position % 32) & 1 == 1;
    let Some(top) = (0..digits.len() as i64 * 32).rev().find(|&position| bit(position)) else { return 0.0 };
    let lowest = (top - 52).max(0);
    let mut mantissa = (lowest..=top).rev().fold(0u64, |bits, position| bits << 1 | u64::from(bit(position)));
    let half = bit(lowest - 1);
    let below = (0..lowest - 1).any(bit);
    if half && (below || mantissa & 1 == 1) {
        mantissa += 1;
    }
    // Both powers are exact, and so is the product: the mantissa has no more bits than a double.
    let exponent = lowest - 1074;
    if exponent < -1000 {
        mantissa as f64 * 2f64.powi(exponent as i32 + 200) * 2f64.powi(-200)
    } else {
        mantissa as f64 * 2f64.powi(exponent as i32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_exact_and_rounded_once() {
        assert_eq!(sum(&[]), Some(0.0));
        assert_eq!(sum(&[0.1; 10]), Some(1.0));
        assert_eq!(sum(&[1e100, 1.0, -1e100]), Some(1.0));
        assert_eq!(sum(&[1e16, 1.0, 1e-16]), Some(1e16 + 2.0));
        assert_eq!(sum(&[1e16, 1.0]), Some(1e16));
        assert_eq!(sum(&[-0.1, -0.2]), Some(-0.1 - 0.2));
        assert_eq!(sum(&[5e-324]), Some(5e-324));
        assert_eq!(sum(&[1.5e-310, -1e-320]), Some(1.5e-310 - 1e-320));
        assert_eq!(sum(&[-1.25, 1.25]), Some(0.0));
        assert_eq!(sum(&[f64::MAX, 1.0]), None);
    }
}
