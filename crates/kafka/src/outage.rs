//! Logs that no broker answers and why, for as long as that lasts, and that one answers again.
//!
//! librdkafka reports many times a second; this logs a line every half a minute.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode;

/// Interval between two lines about the same outage.
const LOG_INTERVAL: Duration = Duration::from_secs(30);
/// A shorter interruption isn't logged: brokers restart, and close idle connections.
const GRACE: Duration = Duration::from_secs(1);

/// The state of an outage. Shared by the client's callbacks and by the thread that sees answers.
#[derive(Debug, Default)]
pub struct Outage {
    /// Read for each delivery, so not behind the mutex.
    under_way: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    begun: Option<Instant>,
    said: Option<Instant>,
    /// Why a connection failed; "all brokers are down" doesn't say.
    reason: Option<String>,
}

impl Outage {
    /// Notes an error of the client that concerns no single record.
    pub fn error(&self, code: Option<RDKafkaErrorCode>, reason: &str) {
        if let Some(reason) = self.note(code, reason, Instant::now()) {
            tracing::warn!(reason, "no broker answers: waiting");
        }
    }

    /// Notes that a broker has answered.
    pub fn answered(&self) {
        if !self.under_way.load(Ordering::Relaxed) {
            return;
        }
        if let Some(lasted) = self.end(Instant::now()) {
            tracing::info!(after = format!("{} s", lasted.as_secs()), "the brokers answer again");
        }
    }

    /// Whether no broker has answered since an error said that none does.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        self.under_way.load(Ordering::Relaxed)
    }

    /// Returns the reason, if it is time to log it.
    fn note(&self, code: Option<RDKafkaErrorCode>, reason: &str, now: Instant) -> Option<String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Refused credentials don't become valid by themselves.
        let grace = match code {
            Some(RDKafkaErrorCode::AllBrokersDown) => GRACE,
            Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed) => {
                state.reason = Some(reason.to_owned());
                Duration::ZERO
            }
            // One connection; there may be others.
            Some(
                RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::Resolve | RDKafkaErrorCode::SSL,
            ) => {
                state.reason = Some(reason.to_owned());
                return None;
            }
            _ => {
                tracing::debug!(?code, reason, "the Kafka client");
                return None;
            }
        };
        self.under_way.store(true, Ordering::Relaxed);
        let begun = *state.begun.get_or_insert(now);
        let due = state.said.is_none_or(|said| now.duration_since(said) >= LOG_INTERVAL);
        if now.duration_since(begun) < grace || !due {
            return None;
        }
        state.said = Some(now);
        Some(state.reason.clone().unwrap_or_else(|| reason.to_owned()))
    }

    /// Ends the outage; returns its duration if it was logged.
    fn end(&self, now: Instant) -> Option<Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = std::mem::take(&mut *state);
        self.under_way.store(false, Ordering::Relaxed);
        ended.said.and(ended.begun).map(|begun| now.duration_since(begun))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOWN: Option<RDKafkaErrorCode> = Some(RDKafkaErrorCode::AllBrokersDown);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_outage_is_a_line_every_half_a_minute_with_its_cause() {
        let (outage, begun) = (Outage::default(), Instant::now());
        let cause = Some(RDKafkaErrorCode::BrokerTransportFailure);
        assert_eq!(outage.note(cause, "connect to a:1 failed", begun), None);
        assert!(!outage.is_under_way(), "other brokers may answer");
        let lines: Vec<_> = (0..300)
            .filter_map(|n| outage.note(DOWN, "1/1 brokers are down", begun + SECOND / 5 * n))
            .collect();
        assert_eq!(lines, ["connect to a:1 failed"; 2]);
        assert!(outage.is_under_way());
        assert_eq!(outage.end(begun + 60 * SECOND), Some(60 * SECOND));
        assert!(!outage.is_under_way());
    }

    #[test]
    fn a_short_break_is_not_worth_a_line() {
        let (outage, begun) = (Outage::default(), Instant::now());
        for broken in [begun, begun + 60 * SECOND] {
            assert_eq!(outage.note(DOWN, "1/1 brokers are down", broken), None);
            assert_eq!(outage.end(broken + SECOND), None);
        }
    }

    #[test]
    fn refused_credentials_are_told_at_once() {
        let outage = Outage::default();
        let refused = Some(RDKafkaErrorCode::Authentication);
        assert!(outage.note(refused, "Authentication failed", Instant::now()).is_some());
        assert!(outage.note(refused, "Authentication failed", Instant::now()).is_none());
    }

    #[test]
    fn what_concerns_one_topic_is_no_outage() {
        let outage = Outage::default();
        assert_eq!(outage.note(Some(RDKafkaErrorCode::UnknownTopic), "no such topic", Instant::now()), None);
        assert!(!outage.is_under_way());
    }
}
