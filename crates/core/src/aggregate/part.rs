//! A mergeable part of a window: everything that it takes to continue or to merge the window exactly.
//!
//! A part is the stored form of an open window, and the header [`HEADER`] of each aggregate, from which `downsample`
//! makes larger windows. The part of a revision holds only what the revision adds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::exact_sum::ExactSum;
use super::field::FieldPart;
use super::rule_name::RuleName;
use super::sketch::MAX_COUNT;
use crate::types::Millis;

/// The name of the record header that holds an aggregate's part, as JSON.
pub const HEADER: &str = "genwatch.part";

/// The most rules that a part may name.
const MAX_RULES: usize = 1024;

/// The part of a window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) count: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) temperature: Option<FieldPart>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pressure: Option<FieldPart>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) fuel: Option<FieldPart>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) load: Option<FieldPart>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) power: Option<FieldPart>,
    /// Milliseconds by rule; a rule that isn't named has 0.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) above: BTreeMap<RuleName, i64>,
    /// Litres, not clamped.
    pub(super) fuel_used: ExactSum,
    /// `None` where the generator's levels before the window's end aren't all known, and in what a revision adds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) outlook: Option<Outlook>,
}

/// How long the fuel lasts, as of a time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Outlook {
    /// The end of the window that it was computed for.
    pub(super) as_of: i64,
    /// Hours; `None` where the levels don't say.
    pub(super) hours: Option<f64>,
}

/// Why a part was refused.
#[derive(Debug, thiserror::Error)]
pub enum InvalidPart {
    /// It isn't the JSON of a part.
    #[error("the header {HEADER} isn't a part of an aggregate")]
    NotAPart(#[from] serde_json::Error),
    /// Its values contradict each other.
    #[error("the header {HEADER} contradicts itself")]
    Contradiction,
    /// Its window isn't within one of ours.
    #[error(
        "an aggregate from {start} to {end} isn't within one window of {window} ms: choose a --window that is a multiple of the aggregates' own"
    )]
    Misaligned {
        /// The part's start, in milliseconds since the epoch.
        start: i64,
        /// Its end.
        end: i64,
        /// The length of our windows, in milliseconds.
        window: i64,
    },
}

impl Part {
    /// Reads a part, which may come from anywhere.
    ///
    /// # Errors
    /// When it isn't a part, or contradicts itself.
    pub fn from_json(bytes: &[u8]) -> Result<Part, InvalidPart> {
        let part: Part = serde_json::from_slice(bytes)?;
        part.check()?;
        Ok(part)
    }

    /// The part as JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        // Only strings, integers and finite numbers: serializing them into memory can't fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The first instant of its window, in milliseconds of event time.
    #[must_use]
    pub fn start(&self) -> Millis {
        Millis(self.start)
    }

    /// The first instant behind its window, in milliseconds of event time.
    #[must_use]
    pub fn end(&self) -> Millis {
        Millis(self.end)
    }

    /// The event time of the part as an input, in milliseconds: the last instant of its window. The watermark of a
    /// topic of aggregates is the greatest of these. It is *not* the record's time, which is the window's end: by that,
    /// one generator's last minute of an hour would make the other generators' same minute late.
    #[must_use]
    pub fn event_time(&self) -> Millis {
        Millis(self.end.saturating_sub(1))
    }

    pub(super) fn check(&self) -> Result<(), InvalidPart> {
        let fields = [&self.temperature, &self.pressure, &self.fuel, &self.load, &self.power];
        for field in fields.into_iter().flatten() {
            field.check(self.count)?;
        }
        let sound =
            self.end >= self.start && are_sound(self.count, self.above.len(), self.above.values().copied());
        if sound { Ok(()) } else { Err(InvalidPart::Contradiction) }
    }

    /// Whether the part lies within one aligned window of this length.
    pub(super) fn fits(&self, window: i64) -> Result<(), InvalidPart> {
        let length = self.end.saturating_sub(self.start);
        if length > 0 && window % length == 0 && self.start % length == 0 {
            Ok(())
        } else {
            Err(InvalidPart::Misaligned { start: self.start, end: self.end, window })
        }
    }
}

/// Whether a part may have so many readings, so many rules, and these milliseconds of theirs.
pub(super) fn are_sound(count: u64, rules: usize, mut millis: impl Iterator<Item = i64>) -> bool {
    (1..=MAX_COUNT).contains(&count)
        && rules <= MAX_RULES
        && millis.all(|millis| (0..=MAX_COUNT as i64).contains(&millis))
}
