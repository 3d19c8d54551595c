//! Readings that are due by the clock and can be told apart by their alerts.
//!
//! Open loop: readings are due however slow anything is, and time counts from when a reading was due, not from when it
//! was sent (no coordinated omission). Every reading crosses a threshold, so each has its alert; the reading's number, in
//! millionths, is added to its fuel, which the alert carries as its value.

use std::time::{Duration, Instant};

use genwatch_kafka::producer::ReadingProducer;
use serde::Deserialize;

use super::BenchError;

/// A sleeping thread wakes late; it spins for the last stretch.
const WATCHED: Duration = Duration::from_micros(200);
/// A reading's number is added to its fuel in these steps: there is room for fifty million.
const STEPS: f64 = 1e6;

/// When each reading is due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    begun: Instant,
    interval: Duration,
}

impl Schedule {
    /// A schedule of `rate` readings a second that begins at `begun`.
    pub(super) fn new(begun: Instant, rate: u32) -> Schedule {
        Schedule { begun, interval: Duration::from_secs(1) / rate.max(1) }
    }

    /// Returns when this reading is due.
    pub(super) fn due(&self, number: u64) -> Instant {
        self.begun + self.interval * u32::try_from(number).unwrap_or(u32::MAX)
    }
}

/// Sends readings 0, 1, 2 and so on, each when it is due, until `over`; returns how many. The generators take turns.
pub(super) fn produce(
    producer: &ReadingProducer,
    generators: &[String],
    schedule: Schedule,
    over: impl Fn(u64) -> bool,
) -> Result<u64, BenchError> {
    let all = generators.len() as u64;
    let mut number = 0;
    loop {
        let due = schedule.due(number);
        std::thread::sleep(due.saturating_duration_since(Instant::now()).saturating_sub(WATCHED));
        while Instant::now() < due {
            std::hint::spin_loop();
        }
        if over(number) {
            return Ok(number);
        }
        let (round, place) = (number / all, usize::try_from(number % all).unwrap_or(0));
        let fuel = if round % 2 == 0 { 100.0 } else { 300.0 } + number as f64 / STEPS;
        let key = &generators[place];
        let value = format!(
            r#"{{"generatorID":"{key}","lat":40.65995,"lon":-111.99633,"temperature":74,"pressure":198,"fuel":{fuel:.6}}}"#
        );
        producer.send(Some(key.as_bytes()), Some(value.as_bytes()))?;
        number += 1;
    }
}

#[derive(Deserialize)]
struct Alert {
    value: f64,
}

/// Returns the number of the reading that an alert is about.
///
/// # Errors
/// When it is no alert.
pub(super) fn number_of(alert: &[u8]) -> Result<u64, serde_json::Error> {
    let alert: Alert = serde_json::from_slice(alert)?;
    let base = if alert.value < 200.0 { 100.0 } else { 300.0 };
    Ok(((alert.value - base) * STEPS).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_tells_the_number_of_its_reading() {
        for number in [0, 1, 77_777, 999_999, 49_999_999] {
            for base in [100.0, 300.0] {
                let alert = format!(r#"{{"value":{:.6}}}"#, base + number as f64 / STEPS);
                assert_eq!(number_of(alert.as_bytes()).expect("a number"), number, "{alert}");
            }
        }
        assert!(number_of(b"{}").is_err());
    }
}
