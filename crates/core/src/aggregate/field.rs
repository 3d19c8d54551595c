//! The statistics of one field in one window.

use serde::{Deserialize, Serialize};

use super::exact_sum::ExactSum;
use super::part::InvalidPart;
use super::sketch::{Sketch, SketchBytes};

/// The statistics of one field, of at least one value.
#[derive(Clone)]
pub(super) struct FieldStats {
    count: u64,
    min: f64,
    max: f64,
    /// The value of the latest event time; of equal times the later in the log.
    last: f64,
    last_at: i64,
    sum: ExactSum,
    sketch: Sketch,
}

/// The output of a field, in its unit.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct FieldSummary {
    pub(super) min: f64,
    pub(super) max: f64,
    /// `None` where a value is too large to be summed.
    pub(super) mean: Option<f64>,
    pub(super) last: f64,
    pub(super) p50: f64,
    pub(super) p95: f64,
    pub(super) p99: f64,
}

impl FieldStats {
    pub(super) fn new(at: i64, value: f64) -> FieldStats {
        let mut stats = FieldStats {
            count: 0,
            min: value,
            max: value,
            last: value,
            last_at: at,
            sum: ExactSum::new(),
            sketch: Sketch::new(),
        };
        stats.add(at, value);
        stats
    }

    #[inline]
    pub(super) fn add(&mut self, at: i64, value: f64) {
        self.count += 1;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        if at >= self.last_at {
            (self.last, self.last_at) = (value, at);
        }
        self.sum.add(value);
        self.sketch.add(value);
    }

    /// Adds values that are later in the log.
    pub(super) fn merge(&mut self, other: &FieldStats) {
        self.count = self.count.saturating_add(other.count);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        if other.last_at >= self.last_at {
            (self.last, self.last_at) = (other.last, other.last_at);
        }
        self.sum.merge(&other.sum);
        self.sketch.merge(&other.sketch);
    }

    /// Prepares for several readers; see [`Sketch::settle`].
    pub(super) fn settle(&mut self) {
        self.sketch.settle();
    }

    /// Rounding may take a mean, and a bin's middle a percentile, beyond the values themselves: both are held within
    /// them.
    pub(super) fn summary(&self) -> FieldSummary {
        let within = |value: f64| value.clamp(self.min, self.max);
        let quantiles = self.sketch.quantiles([0.5, 0.95, 0.99]);
        let [p50, p95, p99] = quantiles.map(|value| within(value.unwrap_or(self.last)));
        FieldSummary {
            min: self.min,
            max: self.max,
            mean: self.sum.value().map(|sum| within(sum / self.count as f64)),
            last: self.last,
            p50,
            p95,
            p99,
        }
    }

    /// Bytes on the heap; sums of two partials are inline.
    #[cfg(test)]
    pub(super) fn heap(&self) -> usize {
        self.sketch.heap()
    }

    pub(super) fn to_part(&self) -> FieldPart {
        FieldPart {
            count: self.count,
            min: self.min,
            max: self.max,
            last: self.last,
            last_at: self.last_at,
            sum: self.sum.clone(),
            sketch: self.sketch.to_bytes(),
        }
    }
}

/// The statistics of one field, compact and exact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct FieldPart {
    #[serde(rename = "n")]
    count: u64,
    min: f64,
    max: f64,
    last: f64,
    #[serde(rename = "at")]
    last_at: i64,
    sum: ExactSum,
    sketch: SketchBytes,
}

impl FieldPart {
    /// Whether its values fit together; `of` is the number of readings.
    pub(super) fn check(&self, of: u64) -> Result<(), InvalidPart> {
        let in_order = self.min <= self.last && self.last <= self.max;
        // The sketch itself bounds the count.
        let counted = self.count == self.sketch.count() && self.count <= of;
        if in_order && counted { Ok(()) } else { Err(InvalidPart::Contradiction) }
    }

    pub(super) fn decode(&self) -> FieldStats {
        FieldStats {
            count: self.count,
            min: self.min,
            max: self.max,
            last: self.last,
            last_at: self.last_at,
            sum: self.sum.clone(),
            sketch: self.sketch.decode(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_takes_no_statistic_beyond_the_values() {
        for tenths in 1..200 {
            let value = f64::from(tenths) / 10.0;
            let mut stats = FieldStats::new(0, value);
            for at in 1..200 {
                stats.add(at, value);
                let FieldSummary { min, max, mean, last, p50, p95, p99 } = stats.summary();
                assert_eq!((min, max, mean, last), (value, value, Some(value), value));
                assert_eq!((p50, p95, p99), (value, value, value));
            }
        }
    }
}
