//! The demo's dashboard: it sees the workers through Kafka alone, as everywhere.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context as _;
use genwatch_core::alarm::rules::Rules;

use super::DemoConfig;
use super::broker::EmbeddedBroker;
use crate::dashboard::{Dashboard, DashboardConfig, DashboardError};
use crate::service::Context;

/// Longer than any demo.
const HISTORY: Duration = Duration::from_secs(24 * 60 * 60);

/// Starts it on a thread of its own, until the process ends; returns its URL. If the usual port is taken, it takes
/// another one.
///
/// # Errors
/// When the chosen address is taken, or other machines could look without a token.
pub fn start(
    broker: &EmbeddedBroker,
    config: &DemoConfig,
    rules: &Rules,
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<String> {
    let wanted = DashboardConfig {
        connection: broker.connection().clone(),
        topics: broker.topics().clone(),
        group: broker.group().to_owned(),
        rules: rules.clone(),
        history: HISTORY,
        http: config.http.clone(),
        token: config.http_token.clone(),
    };
    let (dashboard, note) = match Dashboard::bind(wanted.clone()) {
        Err(DashboardError::Listen { .. }) if !config.http_is_chosen => {
            let note = format!(" (the port of {} is taken)", config.http);
            (Dashboard::bind(DashboardConfig { http: config.http.at_any_port(), ..wanted })?, note)
        }
        bound => (bound?, String::new()),
    };
    let address = dashboard.address();
    let host = if address.ip().is_loopback() { "localhost".to_owned() } else { address.ip().to_string() };
    let context = Context::stopped_by(Arc::clone(stop));
    std::thread::Builder::new()
        .name("dashboard".to_owned())
        .spawn(move || {
            if let Err(error) = dashboard.run(context) {
                tracing::error!(%error, "the dashboard has ended");
            }
        })
        .context("cannot start a thread for the dashboard")?;
    Ok(format!("http://{host}:{}/{note}", address.port()))
}
