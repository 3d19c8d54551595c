//! Judges the answers of the write API.

use std::time::Duration;

use crate::influx::answer::{reason, seconds};

/// What to do with the lines of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They are written.
    Written,
    /// They are written except some that the server has dropped, and would drop again.
    Partly {
        /// The dropped lines, as the server counts them.
        dropped: usize,
        /// The server's reason.
        reason: String,
    },
    /// At least one is bad: none counts as written.
    Bad(String),
    /// They are too many: write fewer at a time.
    TooLarge(String),
    /// Write the same again, later.
    Wait {
        /// The delay, if the server names one.
        after: Option<Duration>,
        /// The server's reason, or the connection error.
        reason: String,
    },
    /// Nothing was sent: the server's certificate isn't trusted, or it doesn't speak TLS.
    Untrusted(String),
    /// Waiting doesn't help.
    Refused {
        /// The status.
        status: u16,
        /// The server's reason.
        reason: String,
    },
}

/// Judges an answer by its status, its `Retry-After` and its body.
#[must_use]
pub fn judge(status: u16, retry_after: Option<&str>, body: &str) -> Verdict {
    let reason = reason(status, body);
    match status {
        200..=299 => Verdict::Written,
        422 => match dropped(body) {
            Some(dropped) => Verdict::Partly { dropped, reason },
            None => Verdict::Bad(reason),
        },
        // Any other HTTP server may answer 400, too: without JSON it says nothing about the lines.
        400 if serde_json::from_str::<serde_json::Map<_, _>>(body).is_ok() => Verdict::Bad(reason),
        413 => Verdict::TooLarge(reason),
        408 | 429 | 500..=599 => Verdict::Wait { after: retry_after.and_then(seconds), reason },
        _ => Verdict::Refused { status, reason },
    }
}

/// Reads the count from `... partial write: field type conflict: ... dropped=3`.
fn dropped(body: &str) -> Option<usize> {
    let (_, number) = body.rsplit_once("dropped=")?;
    let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::influx::answer::{LONGEST_WAIT, REASON_CHARS_MAX};

    #[test]
    fn each_answer_has_its_consequence() {
        for status in [200, 204, 299] {
            assert_eq!(judge(status, None, ""), Verdict::Written);
        }
        for status in [400, 422] {
            let reason = format!("{status}: no");
            assert_eq!(judge(status, None, r#"{"message":"no"}"#), Verdict::Bad(reason));
        }
        let words = "Client sent an HTTP request to an HTTPS server.";
        assert_eq!(
            judge(400, None, words),
            Verdict::Refused { status: 400, reason: format!("400: {words}") }
        );
        assert_eq!(judge(422, None, "no"), Verdict::Bad("422: no".to_owned()));
        assert_eq!(judge(413, None, ""), Verdict::TooLarge("413".to_owned()));
        for status in [408, 429, 500, 502, 503, 504] {
            let reason = status.to_string();
            assert_eq!(judge(status, None, ""), Verdict::Wait { after: None, reason });
        }
        for status in [301, 307, 401, 403, 404, 405, 415] {
            assert_eq!(judge(status, None, ""), Verdict::Refused { status, reason: status.to_string() });
        }
    }

    #[test]
    fn who_asks_for_time_is_given_it_up_to_a_bound() {
        let after = |header: &str| match judge(503, Some(header), "") {
            Verdict::Wait { after, .. } => after,
            other => panic!("{other:?}"),
        };
        assert_eq!(after("2"), Some(Duration::from_secs(2)));
        assert_eq!(after(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(after("999999999999"), Some(LONGEST_WAIT));
        assert_eq!(after("-1"), None);
        assert_eq!(after("99999999999999999999999"), None);
        assert_eq!(after("Wed, 21 Oct 2026 07:28:00 GMT"), None);
    }

    #[test]
    fn a_reason_is_one_line_of_bounded_length() {
        let json = r#"{"code":"invalid","message":"unable to parse 'm a=':\nmissing field value"}"#;
        assert_eq!(
            judge(400, None, json),
            Verdict::Bad("400: unable to parse 'm a=': missing field value".to_owned())
        );
        let Verdict::Bad(page) = judge(422, None, &"<p>\u{1b}[31m\r\n".repeat(1000)) else { panic!("bad") };
        assert!(page.chars().count() <= REASON_CHARS_MAX + 5 && !page.contains(char::is_control), "{page}");
    }

    #[test]
    fn of_a_partial_write_the_server_says_how_many_it_dropped() {
        for (words, expected) in [
            ("partial write: points beyond retention policy dropped=5", Some(5)),
            (r#"{"message":"partial write: field type conflict: \"dropped=7\" dropped=12"}"#, Some(12)),
            ("dropped=", None),
            ("dropped=99999999999999999999999999", None),
        ] {
            let told = match judge(422, None, words) {
                Verdict::Partly { dropped, .. } => Some(dropped),
                _ => None,
            };
            assert_eq!(told, expected, "{words}");
        }
    }
}
