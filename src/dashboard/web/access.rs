//! Who may look: on this machine's own address everybody on it; elsewhere whoever knows the token.
//!
//! Without a token the `Host` header must name this machine: otherwise a web page could make its own name
//! point here (DNS rebinding), and read everything through its visitor's browser.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;

/// Sessions at most: the oldest ends.
const SESSIONS: usize = 1000;
/// Wrong tokens a second, and at once.
const TRIES_PER_SECOND: f64 = 3.0;
const TRIES_AT_ONCE: f64 = 10.0;
/// The name of the session's cookie.
pub const COOKIE: &str = "genwatch_session";

/// Decides who may look.
#[derive(Debug)]
pub struct Access {
    token: Option<SecretString>,
    /// Known only to those who logged in: random, in memory.
    sessions: Mutex<VecDeque<String>>,
    tries: Mutex<Tries>,
}

#[derive(Debug)]
struct Tries {
    left: f64,
    at: Instant,
}

/// What becomes of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tried {
    /// It is the right one.
    Right,
    /// It isn't.
    Wrong,
    /// There were too many wrong ones: it wasn't looked at.
    TooMany,
}

impl Access {
    /// Asks for this token, or for none.
    #[must_use]
    pub fn new(token: Option<SecretString>) -> Access {
        let tries = Tries { left: TRIES_AT_ONCE, at: Instant::now() };
        Access { token, sessions: Mutex::default(), tries: Mutex::new(tries) }
    }

    /// Whether a token is asked for.
    #[must_use]
    pub fn wants_token(&self) -> bool {
        self.token.is_some()
    }

    /// Whether a request to this host may be answered.
    #[must_use]
    pub fn takes_host(&self, host: Option<&str>) -> bool {
        self.token.is_some() || host.is_some_and(is_this_machine)
    }

    /// Judges a token; takes the same time for each of one length.
    pub fn try_token(&self, given: &str) -> Tried {
        let Some(token) = &self.token else { return Tried::Right };
        let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let since = now.duration_since(tries.at).as_secs_f64();
        (tries.left, tries.at) = ((tries.left + since * TRIES_PER_SECOND).min(TRIES_AT_ONCE), now);
        if tries.left < 1.0 {
            return Tried::TooMany;
        }
        if token.expose_secret().as_bytes().ct_eq(given.as_bytes()).into() {
            return Tried::Right;
        }
        tries.left -= 1.0;
        Tried::Wrong
    }

    /// Begins a session; returns its secret.
    pub fn begin_session(&self) -> String {
        let secret = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.push_back(secret.clone());
        if sessions.len() > SESSIONS {
            sessions.pop_front();
        }
        secret
    }

    /// Whether a `Cookie` header holds a session.
    #[must_use]
    pub fn has_session(&self, cookies: &str) -> bool {
        let values = cookies.split(';').filter_map(|cookie| cookie.trim().split_once('='));
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        values
            .filter(|(name, _)| *name == COOKIE)
            .any(|(_, value)| sessions.iter().any(|secret| secret.as_bytes().ct_eq(value.as_bytes()).into()))
    }
}

/// Whether a `Host` header names this machine's own address.
fn is_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(address) => address.split(']').next().unwrap_or(""),
        None => host.split(':').next().unwrap_or(""),
    };
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_token_the_host_must_be_this_machine() {
        let access = Access::new(None);
        for host in ["localhost:8090", "127.0.0.1", "127.0.0.1:1", "[::1]:8090", "LOCALHOST.", "a.localhost"]
        {
            assert!(access.takes_host(Some(host)), "{host}");
        }
        for host in
            ["evil.example", "localhost.evil.example:8090", "10.0.0.1", "[fe80::1]", "", "127.0.0.1.evil"]
        {
            assert!(!access.takes_host(Some(host)), "{host}");
        }
        assert!(!access.takes_host(None));
        assert!(Access::new(Some("t".into())).takes_host(Some("genwatch.example")));
    }

    #[test]
    fn only_the_token_opens_and_guessing_is_slow() {
        let access = Access::new(Some("secret".into()));
        assert_eq!(access.try_token("secret"), Tried::Right);
        let tried: Vec<Tried> = (0..20).map(|n| access.try_token(&format!("guess{n}"))).collect();
        assert_eq!(tried[0], Tried::Wrong);
        assert_eq!(tried[19], Tried::TooMany);
        assert_eq!(access.try_token("secret"), Tried::TooMany, "not even the right one is looked at");
    }

    #[test]
    fn a_session_is_known_by_its_cookie_alone() {
        let access = Access::new(Some("secret".into()));
        let secret = access.begin_session();
        assert!(access.has_session(&format!("theme=dark; {COOKIE}={secret}")));
        assert!(!access.has_session(&format!("{COOKIE}=x{secret}")));
        assert!(!access.has_session(&format!("other={secret}")));
        assert!(!access.has_session(""));
        assert!(!format!("{access:?}").contains("secret\""), "the token isn't shown");
    }
}
