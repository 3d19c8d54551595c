//! An exact sum of doubles: no order of adding, and no split into partial sums, changes it.
//!
//! The sum is a Shewchuk expansion: doubles that don't overlap, in increasing magnitude, whose exact sum is the value
//! (J. R. Shewchuk, "Adaptive Precision Floating-Point Arithmetic and Fast Robust Geometric Predicates", Discrete &
//! Computational Geometry 18, 1997). It is rounded once, half to even, as Python's `math.fsum` does.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::SmallVec;

/// A larger magnitude makes the sum unknown: 2^970. A million billion of smaller ones can't overflow, so whether a sum
/// is known doesn't depend on the order either.
pub const MAX_SUMMAND: f64 = f64::from_bits((970 + 1023) << 52);

/// The most doubles that a stored expansion may have. An expansion of doubles never needs more: they don't overlap,
/// and 40 of 53 bits each cover all exponents.
const MAX_PARTIALS: usize = 64;

/// An exact, mergeable sum. As JSON it is the array of its partials, or `null` if it is unknown.
#[derive(Clone, Debug, Default)]
pub struct ExactSum {
    /// In increasing magnitude, not overlapping, none 0. One NaN: the sum is unknown.
    partials: SmallVec<[f64; 2]>,
}

impl ExactSum {
    /// The sum of nothing: 0.
    #[must_use]
    pub fn new() -> ExactSum {
        ExactSum::default()
    }

    /// Adds a number. One that isn't finite, or is larger than [`MAX_SUMMAND`], makes the sum unknown from then on.
    #[inline]
    pub fn add(&mut self, number: f64) {
        // Not `>`: NaN must fail, too.
        if number.abs() <= MAX_SUMMAND { self.grow(number) } else { self.spoil() }
    }

    /// Adds another sum. To nothing it is added as it is, to the bit: one value has several expansions.
    pub fn merge(&mut self, other: &ExactSum) {
        if self.partials.is_empty() {
            self.clone_from(other);
            return;
        }
        for &partial in &other.partials {
            self.grow(partial);
        }
    }

    /// The sum, rounded to the nearest double, half to even; `None` if it is unknown.
    #[must_use]
    pub fn value(&self) -> Option<f64> {
        let mut rest = self.partials.iter().rev().copied();
        let Some(mut high) = rest.next() else { return Some(0.0) };
        let mut low = 0.0;
        for partial in rest.by_ref() {
            (high, low) = two_sum(high, partial);
            if low != 0.0 {
                break;
            }
        }
        // Half-way cases are decided by the sign of what is left.
        let left = rest.next().unwrap_or(0.0);
        if (low < 0.0 && left < 0.0) || (low > 0.0 && left > 0.0) {
            let doubled = low * 2.0;
            let up = high + doubled;
            if up - high == doubled {
                high = up;
            }
        }
        high.is_finite().then_some(high)
    }

    /// Whether the sum is unknown, because of a number that is too large.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.partials.first().is_some_and(|first| first.is_nan())
    }

    fn spoil(&mut self) {
        self.partials.clear();
        self.partials.push(f64::NAN);
    }

    #[inline]
    fn grow(&mut self, number: f64) {
        match self.partials.as_mut_slice() {
            // The usual cases, without a loop; both also take NaN and overflow to the slow path.
            [] if number != 0.0 && number.is_finite() => self.partials.push(number),
            [only] => {
                let (high, low) = two_sum(*only, number);
                if low == 0.0 && high != 0.0 && high.is_finite() {
                    *only = high
                } else {
                    self.grow_slowly(number)
                }
            }
            [small, large] => {
                let (carry, low) = two_sum(*small, number);
                let (high, middle) = two_sum(*large, carry);
                if !high.is_finite() || high == 0.0 {
                    self.grow_slowly(number);
                } else if middle == 0.0 {
                    // Of three parts, one or two are left.
                    *large = high;
                    if low == 0.0 {
                        self.partials.remove(0);
                    } else {
                        *small = low;
                    }
                } else if low == 0.0 {
                    (*small, *large) = (middle, high);
                } else {
                    self.grow_slowly(number);
                }
            }
            _ => self.grow_slowly(number),
        }
    }

    fn grow_slowly(&mut self, number: f64) {
        if self.is_unknown() {
            return;
        }
        let mut carry = number;
        let mut kept = 0;
        for index in 0..self.partials.len() {
            let (high, low) = two_sum(carry, self.partials[index]);
            if low != 0.0 {
                self.partials[kept] = low;
                kept += 1;
            }
            carry = high;
        }
        self.partials.truncate(kept);
        if !carry.is_finite() {
            self.spoil();
        } else if carry != 0.0 {
            self.partials.push(carry);
        }
    }
}

/// The rounded sum and its exact error: Knuth's TwoSum, theorem 7 of the paper. It needs no order of magnitudes.
#[inline]
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let of_b = sum - a;
    let of_a = sum - of_b;
    (sum, (a - of_a) + (b - of_b))
}

impl PartialEq for ExactSum {
    /// Two are equal when they continue equally, to the bit; not derived, as NaN differs from itself.
    fn eq(&self, other: &ExactSum) -> bool {
        self.partials == other.partials || (self.is_unknown() && other.is_unknown())
    }
}

impl Serialize for ExactSum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let known = (!self.is_unknown()).then_some(self.partials.as_slice());
        known.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ExactSum {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ExactSum, D::Error> {
        let mut sum = ExactSum::new();
        let Some(partials) = Option::<SmallVec<[f64; 2]>>::deserialize(deserializer)? else {
            sum.spoil();
            return Ok(sum);
        };
        if partials.len() > MAX_PARTIALS {
            return Err(serde::de::Error::custom("an exact sum has too many partials"));
        }
        // Our own partials are taken as they are, bit for bit. Others become an expansion first.
        let in_order = partials.windows(2).all(|pair| pair[0].abs() < pair[1].abs());
        if in_order && partials.iter().all(|partial| *partial != 0.0 && partial.is_finite()) {
            return Ok(ExactSum { partials });
        }
        for partial in partials {
            sum.grow(partial);
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum(numbers: &[f64]) -> ExactSum {
        let mut sum = ExactSum::new();
        numbers.iter().for_each(|&number| sum.add(number));
        sum
    }

    #[test]
    fn a_sum_is_rounded_once() {
        assert_eq!(sum(&[]).value(), Some(0.0));
        assert_eq!(sum(&[0.1; 10]).value(), Some(1.0));
        assert_eq!(sum(&[1e100, 1.0, -1e100]).value(), Some(1.0));
        assert_eq!(sum(&[1e16, 1.0, 1e-16]).value(), Some(1e16 + 2.0), "half a unit and a little more");
        assert_eq!(sum(&[1e16, 1.0]).value(), Some(1e16), "half to even");
        assert_eq!(sum(&[1e16, 1.0, -1e-16]).value(), Some(1e16));
        assert_eq!(sum(&[-1e16, -1.0, -1e-16]).value(), Some(-1e16 - 2.0));
        assert_eq!(sum(&[5e-324, 5e-324, -5e-324]).value(), Some(5e-324));
    }

    #[test]
    fn a_number_that_could_overflow_makes_the_sum_unknown_in_any_order() {
        for numbers in [[f64::MAX, -f64::MAX, 1.0], [1.0, f64::MAX, -f64::MAX], [1.0, 2.0, f64::NAN]] {
            let unknown = sum(&numbers);
            assert_eq!((unknown.value(), unknown.is_unknown()), (None, true));
            let mut merged = sum(&[1.0]);
            merged.merge(&unknown);
            assert_eq!(merged.value(), None);
            assert_eq!(serde_json::to_string(&unknown).unwrap(), "null");
            assert_eq!(serde_json::from_str::<ExactSum>("null").unwrap().value(), None);
        }
        assert_eq!(sum(&[MAX_SUMMAND, MAX_SUMMAND, -MAX_SUMMAND]).value(), Some(MAX_SUMMAND));
    }

    #[test]
    fn a_hostile_expansion_is_a_sum_or_unknown() {
        let read = |text| serde_json::from_str::<ExactSum>(text).unwrap().value();
        assert_eq!(read("[1.0,1.0,1.0]"), Some(3.0));
        assert_eq!(read("[1e308,1e308]"), None);
        assert_eq!(read("[0.0]"), Some(0.0));
        let many = format!("[{}]", ["1.0"; 65].join(","));
        assert!(serde_json::from_str::<ExactSum>(&many).is_err());
    }

    fn number() -> impl Strategy<Value = f64> {
        let wide =
            (any::<i64>(), -60..60i32).prop_map(|(digits, exponent)| digits as f64 * 2f64.powi(exponent));
        prop_oneof![4 => (-100_000..100_000i32).prop_map(|n| f64::from(n) / 100.0), 2 => wide, 1 => Just(0.0)]
    }

    proptest! {
        #[test]
        fn neither_order_nor_grouping_nor_storing_changes_a_sum(
            numbers in prop::collection::vec(number(), 0..60),
            cut in any::<prop::sample::Index>(),
        ) {
            let direct = sum(&numbers);
            let expected = direct.value();
            let mut sorted = numbers.clone();
            sorted.sort_by(f64::total_cmp);
            prop_assert_eq!(sum(&sorted).value(), expected);
            sorted.reverse();
            prop_assert_eq!(sum(&sorted).value(), expected);
            let (left, right) = numbers.split_at(cut.index(numbers.len() + 1));
            let mut merged = sum(left);
            merged.merge(&sum(right));
            prop_assert_eq!(merged.value(), expected);
            let stored = serde_json::to_string(&direct).unwrap();
            prop_assert_eq!(serde_json::from_str::<ExactSum>(&stored).unwrap(), direct.clone());
            // All of it taken away again, nothing is left.
            let mut nothing = direct;
            numbers.iter().for_each(|&number| nothing.add(-number));
            prop_assert_eq!(nothing, ExactSum::new());
        }
    }
}
