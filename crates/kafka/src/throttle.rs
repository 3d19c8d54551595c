//! How long brokers have delayed a client because of a quota: its statistics tell (librdkafka's STATISTICS.md).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::config::ClientConfig;
use serde::Deserialize;

use crate::config::Connection;

/// `statistics.interval.ms`. They take librdkafka and us some microseconds for each partition of the topic.
const INTERVAL_MS: &str = "2000";

/// The share of time for which a client was delayed. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Throttle(Arc<Mutex<Throttled>>);

#[derive(Debug, Default)]
struct Throttled {
    /// When the last statistics were made, by librdkafka's clock.
    at: i64,
    share: f64,
    /// Microseconds of a delay that was announced by then, and wasn't over: a broker says at once how long it will last.
    rest: i64,
}

/// What we read of a client's statistics.
#[derive(Deserialize)]
struct Statistics {
    /// When they were made, in microseconds of a monotonic clock.
    ts: i64,
    /// Microseconds since the client was created.
    age: i64,
    brokers: HashMap<String, Broker>,
}

#[derive(Deserialize)]
struct Broker {
    #[serde(default)]
    throttle: Window,
}

/// What has happened since the last statistics.
#[derive(Default, Deserialize)]
struct Window {
    /// Milliseconds, of all answers that were delayed.
    sum: i64,
    /// The longest of them.
    max: i64,
}

impl Throttle {
    /// Has a client tell, unless the user says how often.
    pub(crate) fn ask(connection: &Connection, config: &mut ClientConfig) {
        if connection.property("statistics.interval.ms").is_none() {
            config.set("statistics.interval.ms", INTERVAL_MS);
        }
    }

    /// Takes in a client's statistics.
    pub(crate) fn take_in(&self, json: &[u8]) {
        let statistics: Statistics = match serde_json::from_slice(json) {
            Ok(statistics) => statistics,
            Err(error) => {
                tracing::debug!(%error, "the client's statistics can't be read");
                return;
            }
        };
        let mut throttled = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = (statistics.ts - throttled.at).min(statistics.age).max(1);
        // Brokers delay independently of each other: the one that does most counts.
        let worst =
            statistics.brokers.into_values().map(|broker| broker.throttle).max_by_key(|window| window.sum);
        let Window { sum, max } = worst.unwrap_or_default();
        let delayed = throttled.rest.saturating_add(sum.saturating_mul(1000));
        // Answers on their way at the same time announce the same delay.
        let longest = throttled.rest.max(max.saturating_mul(1000));
        *throttled = Throttled {
            at: statistics.ts,
            share: (delayed as f64 / elapsed as f64).clamp(0.0, 1.0),
            rest: (delayed - elapsed).clamp(0, longest),
        };
    }

    /// Returns the share of time for which the broker that delays most has delayed the client, 0 to 1, between its last
    /// two statistics.
    pub(crate) fn share(&self) -> f64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).share
    }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;

    fn statistics(ts: i64, age: i64, sums: [i64; 2]) -> String {
        let broker = |sum: i64| {
            format!(
                r#"{{"name":"b:9092/1","nodeid":1,"rtt":{{"sum":77}},"throttle":{{"min":0,"max":{sum},"sum":{sum},"cnt":2}},
                "toppars":{{"t-0":{{"topic":"t","partition":0}}}}}}"#
            )
        };
        format!(
            r#"{{"name":"rdkafka#consumer-1","type":"consumer","ts":{ts},"time":1,"age":{age},
            "brokers":{{"1":{},"2":{},":0/internal":{{"name":":0/internal"}}}},"topics":{{"t":{{"age":5}}}},"cgrp":{{"state":"up"}}}}"#,
            broker(sums[0]),
            broker(sums[1])
        )
    }

    #[test]
    fn the_share_is_that_of_the_time_since_the_last_statistics() {
        let throttle = Throttle::default();
        for (ts, age, sums, share) in [
            (9_000_000, 2_000_000, [0, 500], 0.25),
            (11_000_000, 4_000_000, [1000, 1500], 0.75),
            (13_000_000, 6_000_000, [0, 0], 0.0),
            // Delayed for three seconds from now on, says the broker, and nothing more while it lasts.
            (15_000_000, 8_000_000, [3000, 0], 1.0),
            (17_000_000, 10_000_000, [0, 0], 0.5),
            (19_000_000, 12_000_000, [0, 0], 0.0),
            // Another producer, after the first one was lost.
            (29_000_000, 1_000_000, [100, 0], 0.1),
        ] {
            throttle.take_in(statistics(ts, age, sums).as_bytes());
            assert!((throttle.share() - share).abs() < 1e-9, "{} at {ts}", throttle.share());
        }
        throttle.take_in(b"no JSON");
        assert!((throttle.share() - 0.1).abs() < 1e-9);
    }

    #[test]
    fn the_users_interval_wins() {
        let interval = |properties: &[&str]| {
            let properties: Vec<SecretString> =
                properties.iter().map(|pair| SecretString::from(*pair)).collect();
            let connection = Connection::new("localhost:1", &properties).expect("valid");
            let mut config = connection.producer();
            Throttle::ask(&connection, &mut config);
            config.get("statistics.interval.ms").map(str::to_owned)
        };
        assert_eq!(interval(&[]).as_deref(), Some(INTERVAL_MS));
        assert_eq!(interval(&["statistics.interval.ms=60000"]).as_deref(), Some("60000"));
        assert_eq!(interval(&["statistics.interval.ms=0"]).as_deref(), Some("0"));
    }
}
