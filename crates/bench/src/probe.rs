//! HTTP requests to a worker under test.

use std::net::TcpListener;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::contender::Running;
use super::{BenchError, go_on};

const LOOK: Duration = Duration::from_millis(10);
const TIMEOUT: Duration = Duration::from_secs(60);

/// Where a worker serves its health and metrics.
pub(super) struct Probe {
    address: String,
    agent: ureq::Agent,
}

impl Probe {
    /// Picks a port that is free now.
    pub(super) fn new() -> std::io::Result<Probe> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let agent = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(5))).build();
        Ok(Probe { address, agent: agent.new_agent() })
    }

    /// Returns the worker's options for serving there.
    pub(super) fn options(&self) -> [&str; 2] {
        ["--http", &self.address]
    }

    /// Waits until the worker is ready.
    ///
    /// # Errors
    /// When it ends before, isn't ready within a minute, or when stopped.
    pub(super) fn wait_until_ready(&self, running: &Running, stop: &AtomicBool) -> Result<(), BenchError> {
        let deadline = Instant::now() + TIMEOUT;
        while self.get("readyz").is_none() {
            go_on(stop)?;
            if running.has_ended() || Instant::now() > deadline {
                return Err(running.failed("did not become ready".to_owned()));
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Returns the value of a metric without labels.
    pub(super) fn metric(&self, name: &str) -> Option<f64> {
        let page = self.get("metrics")?;
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        line.parse().ok()
    }

    /// Returns the page, if the answer is a success.
    fn get(&self, path: &str) -> Option<String> {
        let answer = self.agent.get(format!("http://{}/{path}", self.address)).call();
        answer.ok()?.body_mut().read_to_string().ok()
    }
}
