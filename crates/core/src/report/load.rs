//! How loaded a worker is, and by what: what the advisor wants to know of it.

use serde::{Deserialize, Serialize};

/// At most so many generators are named.
pub const TOP_MAX: usize = 5;
/// A generator with a smaller share of a worker's readings isn't named.
pub const TOP_SHARE_MIN: f64 = 0.01;

/// The load of a worker since its last report. What is left out in JSON is 0.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Load {
    /// The share of time in which its loop was at work, 0 to 1.
    #[serde(rename = "loop")]
    pub loop_busy: f64,
    /// The share of its lanes' time in which work was under way, 0 to 1. 0 without work.
    #[serde(skip_serializing_if = "is_zero")]
    pub lanes_busy: f64,
    /// Mean wall time of a reading's work, in seconds. 0 without work, or if none was finished.
    #[serde(skip_serializing_if = "is_zero")]
    pub work: f64,
    /// How many generators it handles at once. 0 without work: readings are evaluated as they arrive.
    #[serde(skip_serializing_if = "is_none")]
    pub lanes: u64,
    /// Its limit of readings a second.
    #[serde(rename = "limit", skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<u32>,
    /// Cores that its process could have used: its own, and those that were idle.
    pub cores: f64,
    /// The machine that it runs on: the first digits of its boot id, which all containers of a machine share.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub machine: String,
    /// The share of time in which a commit was under way, 0 to 1.
    #[serde(skip_serializing_if = "is_zero")]
    pub committing: f64,
    /// The share of time in which some partition was paused because unfinished readings, or effects that weren't
    /// committed yet, filled its share of the bounds, 0 to 1.
    #[serde(skip_serializing_if = "is_zero")]
    pub full: f64,
    /// The share of time for which a quota of a broker delayed its fetches, 0 to 1.
    #[serde(skip_serializing_if = "is_zero")]
    pub fetch_throttled: f64,
    /// The same of what it produces.
    #[serde(skip_serializing_if = "is_zero")]
    pub produce_throttled: f64,
    /// The generators with the largest shares of its readings, largest first: at most [`TOP_MAX`], each with
    /// [`TOP_SHARE_MIN`] or more. It is an estimate, of seconds at a high rate and of minutes at a low one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub top: Vec<TopGenerator>,
}

/// A generator with a large share of a worker's readings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TopGenerator {
    /// Its name, cut at 64 bytes.
    #[serde(rename = "id")]
    pub generator: String,
    /// Its share of the worker's readings, 0 to 1.
    pub share: f64,
}

impl Load {
    /// Rounds everything: a report has to stay small.
    #[must_use]
    pub fn rounded(mut self) -> Load {
        let numbers = [
            &mut self.loop_busy,
            &mut self.lanes_busy,
            &mut self.work,
            &mut self.cores,
            &mut self.committing,
            &mut self.full,
            &mut self.fetch_throttled,
            &mut self.produce_throttled,
        ];
        let shares = self.top.iter_mut().map(|top| &mut top.share);
        for number in numbers.into_iter().chain(shares) {
            *number = rounded(*number);
        }
        self
    }
}

/// Rounds to three significant digits.
fn rounded(number: f64) -> f64 {
    format!("{number:.2e}").parse().unwrap_or(number)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &f64) -> bool {
    *number == 0.0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_none(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_are_kept_of_small_numbers_and_of_large_ones() {
        for (number, wanted) in [
            (0.002_134_5, 0.00213),
            (0.123_456, 0.123),
            (12.345, 12.3),
            (0.0, 0.0),
            (1.0, 1.0),
            (0.9999, 1.0),
        ] {
            assert_eq!(rounded(number), wanted);
        }
        let top = vec![TopGenerator { generator: "g".to_owned(), share: 0.712_345 }];
        let load = Load { work: 0.002_000_001, lanes: 64, top, ..Load::default() }.rounded();
        let json = serde_json::to_string(&load).unwrap();
        assert_eq!(
            json,
            r#"{"loop":0.0,"work":0.002,"lanes":64,"cores":0.0,"top":[{"id":"g","share":0.712}]}"#
        );
        assert_eq!(serde_json::from_str::<Load>(&json).unwrap(), load);
    }

    #[test]
    fn what_is_left_out_is_nothing() {
        assert_eq!(serde_json::from_str::<Load>(r#"{"of_the_future":1}"#).unwrap(), Load::default());
    }
}
