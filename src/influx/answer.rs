//! What any answer of an InfluxDB says: when to ask again, and why it was refused.

use std::time::Duration;

/// The longest wait before asking again.
pub const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// Longer answers are cut off: a proxy may send a page.
pub const REASON_CHARS_MAX: usize = 300;

/// Reads `Retry-After` in seconds. A date, HTTP's other form, falls back to our own back-off.
#[must_use]
pub fn seconds(retry_after: &str) -> Option<Duration> {
    let seconds = retry_after.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_WAIT))
}

/// Formats `503: the server's message`, on one line.
#[must_use]
pub fn reason(status: u16, body: &str) -> String {
    let message = serde_json::from_str::<serde_json::Value>(body)
        .ok()
        .and_then(|answer| Some(answer.get("message")?.as_str()?.to_owned()));
    let message = message.unwrap_or_else(|| body.to_owned());
    let line: Vec<&str> =
        message.split(|c: char| c.is_control() || c == ' ').filter(|word| !word.is_empty()).collect();
    let line = line.join(" ");
    let words: String = line.chars().take(REASON_CHARS_MAX).collect();
    if words.is_empty() { status.to_string() } else { format!("{status}: {words}") }
}
