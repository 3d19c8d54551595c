//! HTTP of a service: `/metrics`, `/livez`, `/readyz`. Only reads what the service's threads write.

mod address;
mod patient;

pub use address::HttpAddress;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::{Context, Health};
use patient::Patient;

/// Serves on a thread of its own until the process ends; returns the bound address (the port may have been 0).
///
/// # Errors
/// When it can't listen at the address.
pub fn serve(address: &HttpAddress, context: &Context) -> std::io::Result<SocketAddr> {
    let listening = Listening::at(address)?;
    let bound = listening.address();
    listening.serve(context, |routes| routes)?;
    Ok(bound)
}

/// An address that is bound: clients can connect, and are answered once it is served.
#[derive(Debug)]
pub struct Listening {
    listener: std::net::TcpListener,
    address: SocketAddr,
}

impl Listening {
    /// Listens at this address.
    ///
    /// # Errors
    /// When it is taken, or isn't this machine's.
    pub fn at(address: &HttpAddress) -> std::io::Result<Listening> {
        let listener = address.listen()?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Listening { listener, address })
    }

    /// Returns the bound address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves on a thread of its own until the process ends; `extend` adds to the routes that all services have.
    ///
    /// # Errors
    /// When the thread can't be started.
    pub fn serve(self, context: &Context, extend: impl FnOnce(Router) -> Router) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let routes = extend(routes(context));
        std::thread::Builder::new().name("http".to_owned()).spawn(move || {
            runtime.block_on(async move {
                let served = match tokio::net::TcpListener::from_std(self.listener) {
                    Ok(listener) => axum::serve(Patient(listener), routes).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = served {
                    tracing::error!(%error, "HTTP has ended");
                }
            });
        })?;
        Ok(())
    }
}

fn routes(context: &Context) -> Router {
    let Context { health, metrics, .. } = context.clone();
    let (live, ready) = (Arc::clone(&health), Arc::clone(&health));
    let metrics = move || async move {
        let page = metrics.render() + &readiness(&health) + &process_metrics();
        ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page)
    };
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(move || async move { probe(live.live()) }))
        .route("/readyz", get(move || async move { probe(ready.ready()) }))
}

/// Returns the answer of `/readyz` as a metric, for alerting rules.
fn readiness(health: &Health) -> String {
    let ready = u8::from(health.ready().is_ok());
    format!(
        "# HELP genwatch_ready 1: /readyz says yes.\n# TYPE genwatch_ready gauge\ngenwatch_ready {ready}\n"
    )
}

/// Returns the metrics that every process has.
fn process_metrics() -> String {
    format!(
        "# HELP genwatch_log_lines_dropped_total Log lines that could not be written, as to a full disk.\n\
         # TYPE genwatch_log_lines_dropped_total counter\n\
         genwatch_log_lines_dropped_total {}\n",
        super::stderr::dropped()
    )
}

fn probe(state: Result<(), String>) -> Response {
    match state {
        Ok(()) => (StatusCode::OK, "ok\n").into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metrics_say_what_readyz_says() {
        let health = Health::default();
        let joining = health.register("not joined the group yet", true);
        assert!(readiness(&health).ends_with("\ngenwatch_ready 0\n"));
        joining.set(false);
        assert!(readiness(&health).ends_with("\ngenwatch_ready 1\n"));
    }
}
