//! Percentiles of a stream within 1 %, mergeable: a DDSketch.
//!
//! A DDSketch counts values in bins whose bounds grow by a constant factor, so that the relative error is bounded and
//! merging adds bins: the merged sketch equals the sketch of all values (C. Masson, J. E. Rim, H. K. Lee, "DDSketch: A
//! Fast and Fully-Mergeable Quantile Sketch with Relative-Error Guarantees", VLDB 2019). It has at most 2,048 bins a
//! sign: if the values of a window span more than 17 orders of magnitude, the smallest lose their accuracy. Magnitudes
//! up to 1e-9 count as 0.
//!
//! Its stored form is DataDog's binary format (`sketches-java`), in base64.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sketches_ddsketch::{Config, DDSketch};

/// The most values that a stored sketch may count, so that merging never overflows a bin.
pub(super) const MAX_COUNT: u64 = 1 << 40;

/// The most bins of one sign.
const MAX_BINS: u64 = 2048;

/// The bins of all doubles are within this, with room to spare: ln(f64::MAX) / ln(1.01 / 0.99) is 35,488.
const MAX_KEY: i64 = 40_000;

/// So many values wait to be counted: the readings of a minute, one a second. A kibibyte of bins for each field of each
/// generator would take more memory, and each value would find them outside the processor's cache.
const WAITING: usize = 64;

/// The flags of the format's blocks, in the order in which `to_java_bytes` writes them. Of a block that comes twice the
/// decoder takes the last, and would count other values than [`Walk`].
const ORDER: [u8; 8] = [0xa0, 0x88, 0x8c, 0x84, 0x02, 0x04, 0x05, 0x07];

/// The values of one field in one window.
#[derive(Clone)]
pub(super) struct Sketch {
    /// Values that no bin counts yet, in the order of adding.
    waiting: Vec<f64>,
    bins: Option<Box<DDSketch>>,
}

impl Sketch {
    pub(super) fn new() -> Sketch {
        Sketch { waiting: Vec::new(), bins: None }
    }

    #[inline]
    pub(super) fn add(&mut self, value: f64) {
        self.waiting.push(value);
        if self.waiting.len() == WAITING {
            self.settle();
        }
    }

    /// Counts all values in bins. What isn't settled is counted anew by each question.
    pub(super) fn settle(&mut self) {
        let bins = self.bins.get_or_insert_with(|| Box::new(DDSketch::new(Config::defaults())));
        self.waiting.iter().for_each(|value| bins.add(*value));
        self.waiting = Vec::new();
    }

    fn settled(&self) -> Cow<'_, DDSketch> {
        match &self.bins {
            Some(bins) if self.waiting.is_empty() => Cow::Borrowed(bins),
            bins => {
                let mut bins = bins.as_deref().cloned().unwrap_or_else(|| DDSketch::new(Config::defaults()));
                self.waiting.iter().for_each(|value| bins.add(*value));
                Cow::Owned(bins)
            }
        }
    }

    pub(super) fn merge(&mut self, other: &Sketch) {
        self.settle();
        // It only fails for another accuracy, and every sketch has ours: `SketchBytes` lets no other pass.
        let _ = self.bins.as_mut().map(|bins| bins.merge(&other.settled()));
    }

    /// The values of these ranks, floor(q * (n - 1)) from 0, within 1 %, for 0 < q < 1; `None` without values.
    pub(super) fn quantiles<const N: usize>(&self, qs: [f64; N]) -> [Option<f64>; N] {
        let bins = self.settled();
        qs.map(|q| bins.quantile(q).ok().flatten())
    }

    /// Bytes on the heap.
    #[cfg(test)]
    pub(super) fn heap(&self) -> usize {
        let bins = self.bins.as_ref().map(|bins| size_of::<DDSketch>() + bins.length() * size_of::<u64>());
        self.waiting.capacity() * size_of::<f64>() + bins.unwrap_or(0)
    }

    pub(super) fn to_bytes(&self) -> SketchBytes {
        SketchBytes(self.settled().to_java_bytes().into())
    }
}

/// A sketch in DataDog's binary format: compact, and always valid.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct SketchBytes(Box<[u8]>);

impl SketchBytes {
    /// Checks bytes that may come from anywhere. The crate's decoder trusts them: bins that are too far apart make it
    /// panic.
    fn new(bytes: Vec<u8>) -> Option<SketchBytes> {
        Walk { rest: &bytes }.count()?;
        Some(SketchBytes(bytes.into()))
    }

    pub(super) fn decode(&self) -> Sketch {
        // What was checked, or written by the crate itself, is read by it.
        let bins = DDSketch::from_java_bytes(&self.0).unwrap_or_default();
        Sketch { waiting: Vec::new(), bins: Some(Box::new(bins)) }
    }

    /// The number of values.
    pub(super) fn count(&self) -> u64 {
        Walk { rest: &self.0 }.count().unwrap_or(0)
    }
}

impl fmt::Debug for SketchBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sketch({})", STANDARD_NO_PAD.encode(&self.0))
    }
}

impl Serialize for SketchBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD_NO_PAD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for SketchBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SketchBytes, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD_NO_PAD.decode(text).ok();
        let sketch = bytes.and_then(SketchBytes::new);
        sketch.ok_or_else(|| serde::de::Error::custom("not a sketch of this accuracy"))
    }
}

/// Reads the format far enough to know that the decoder can read it.
struct Walk<'b> {
    rest: &'b [u8],
}

impl Walk<'_> {
    /// The number of values; `None` unless it is a sketch as `to_java_bytes` writes it, with our accuracy.
    fn count(mut self) -> Option<u64> {
        let (mut total, mut mapped) = (0u64, false);
        let mut order = ORDER.iter();
        while let Some(flag) = self.byte() {
            order.find(|known| **known == flag)?;
            match flag {
                // Count; minimum, maximum and sum, which we don't read.
                0xa0 => drop(self.whole()?),
                0x84 | 0x88 | 0x8c => drop(self.double()?),
                0x02 => {
                    mapped = self.double()? == Config::defaults().gamma && self.double()? == 0.0;
                }
                0x04 => total += self.whole()?,
                0x05 | 0x07 => total += self.bins()?,
                _ => return None,
            }
            if total > MAX_COUNT {
                return None;
            }
        }
        (mapped && total > 0).then_some(total)
    }

    fn bins(&mut self) -> Option<u64> {
        let bins = self.variable()?;
        if bins > MAX_BINS {
            return None;
        }
        let (mut key, mut total) = (0i64, 0u64);
        for _ in 0..bins {
            let delta = self.variable()?;
            key = key.checked_add((delta >> 1) as i64 ^ -((delta & 1) as i64))?;
            if key.abs() > MAX_KEY {
                return None;
            }
            total += self.whole()?;
        }
        Some(total)
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn double(&mut self) -> Option<f64> {
        let (bytes, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(f64::from_le_bytes(*bytes))
    }

    /// An unsigned integer, seven bits a byte, the low ones first; the ninth byte has eight.
    fn variable(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = self.byte()?;
            if byte < 0x80 || shift == 56 {
                return Some(value | u64::from(byte) << shift);
            }
            value |= u64::from(byte & 0x7f) << shift;
        }
        None
    }

    /// A count: a double, rotated so that a small integer is short; the high bits first.
    fn whole(&mut self) -> Option<u64> {
        let mut bits = 0u64;
        for shift in (1..=57).rev().step_by(7) {
            let byte = self.byte()?;
            if shift == 1 {
                bits |= u64::from(byte);
            } else {
                bits |= u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    break;
                }
            }
        }
        let number = f64::from_bits(bits.rotate_right(6).wrapping_add(1f64.to_bits())) - 1.0;
        let whole = (1.0..=MAX_COUNT as f64).contains(&number) && number.fract() == 0.0;
        whole.then_some(number as u64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sketch(values: &[f64]) -> Sketch {
        let mut sketch = Sketch::new();
        values.iter().for_each(|&value| sketch.add(value));
        sketch
    }

    fn json(sketch: &Sketch) -> String {
        serde_json::to_string(&sketch.to_bytes()).unwrap()
    }

    #[test]
    fn a_sketch_that_would_panic_is_refused() {
        let good = sketch(&[1.0, -2.0, 0.0]).to_bytes();
        assert_eq!(good.count(), 3);
        assert!(SketchBytes::new(good.0.to_vec()).is_some());
        let mapping: Vec<u8> =
            [&[0x02][..], &Config::defaults().gamma.to_le_bytes(), &0f64.to_le_bytes()].concat();
        let with = |bins: &[u8]| SketchBytes::new([&mapping[..], bins].concat());
        // One bin, key 1, count 1.
        assert_eq!(with(&[0x05, 1, 2, 0x02]).map(|sketch| sketch.count()), Some(1));
        let far = [0x05, 2, 0xfe, 0xff, 0xff, 0xff, 0x0f, 2, 0xff, 0xff, 0xff, 0xff, 0x0f, 2];
        assert_eq!(with(&far), None, "keys i32::MAX and i32::MIN");
        assert_eq!(with(&[0x05, 0xff, 0xff, 3]), None, "more bins than there can be");
        assert_eq!(with(&[]), None, "no values");
        assert_eq!(SketchBytes::new(vec![0x05, 1, 2, 2]), None, "no mapping");
        let coarse: Vec<u8> = [&[0x02][..], &1.5f64.to_le_bytes(), &[0; 8], &[0x05, 1, 2, 2]].concat();
        assert_eq!(SketchBytes::new(coarse.clone()), None, "another accuracy");
        let accuracies = [&coarse[..17], &mapping[..], &[0x05, 1, 2, 2]].concat();
        assert_eq!(SketchBytes::new(accuracies), None, "two accuracies");
        assert_eq!(with(&[0x05, 1, 2, 2, 0x05, 1, 4, 2]), None, "bins twice");
    }

    proptest! {
        #[test]
        fn whatever_values_it_has_a_sketch_is_stored_and_continues(
            values in prop::collection::vec(prop::num::f64::NORMAL | prop::num::f64::ZERO | prop::num::f64::SUBNORMAL, 1..200),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut direct = sketch(&values);
            let (before, after) = values.split_at(cut.index(values.len()));
            let mut restored = sketch(before);
            if !before.is_empty() {
                restored = serde_json::from_str::<SketchBytes>(&json(&restored)).unwrap().decode();
            }
            after.iter().for_each(|&value| restored.add(value));
            let qs = [0.01, 0.5, 0.95, 0.99];
            prop_assert_eq!(restored.quantiles(qs), direct.quantiles(qs));
            let unsettled = direct.to_bytes();
            direct.settle();
            prop_assert_eq!(unsettled, direct.to_bytes());
            prop_assert_eq!(direct.to_bytes().count(), values.len() as u64);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), at in any::<prop::sample::Index>()) {
            let _ = SketchBytes::new(bytes.clone()).map(|sketch| sketch.decode().quantiles([0.5]));
            let mut near = sketch(&[1.0, 2.0, 1e300, -5.0, 0.0]).to_bytes().0.to_vec();
            let at = at.index(near.len());
            for (byte, other) in near[at..].iter_mut().zip(bytes.iter().take(2)) {
                *byte = *other;
            }
            let _ = SketchBytes::new(near).map(|sketch| sketch.decode().quantiles([0.5]));
        }
    }
}
