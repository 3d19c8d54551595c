//! `/events`: a snapshot, then what changes, to each client at its own pace.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::dashboard::feed::{Due, Feed};
use crate::dashboard::questions::{Asker, Question};

/// Without events, a comment goes out this often: proxies end connections that are quiet.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Clients at most.
pub const CLIENTS: usize = 256;

/// One client.
struct Client {
    feed: Arc<Feed>,
    asker: Asker,
    news: watch::Receiver<u64>,
    /// The last event that it has; `None`: it needs a snapshot.
    has: Option<u64>,
    _place: OwnedSemaphorePermit,
}

/// Answers `/events`.
pub fn answer(feed: &Arc<Feed>, asker: &Asker, places: &Arc<Semaphore>) -> Response {
    let Ok(place) = Arc::clone(places).try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many clients\n").into_response();
    };
    let client = Client {
        feed: Arc::clone(feed),
        asker: asker.clone(),
        news: feed.subscribe(),
        has: None,
        _place: place,
    };
    // The server asks for more only when the client has taken what there was: nothing queues up here.
    let events = stream::unfold(client, |mut client| async move {
        let bytes = client.next().await?;
        Some((Ok::<Bytes, Infallible>(bytes), client))
    });
    let mut response = Response::new(Body::from_stream(events));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // For nginx.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

impl Client {
    /// Waits for what the client needs next; `None` ends it.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let Some(has) = self.has else { return self.snapshot().await };
            self.news.mark_unchanged();
            match self.feed.after(has) {
                Due::Events(bytes, last) => {
                    self.has = Some(last);
                    return Some(bytes);
                }
                Due::Snapshot => self.has = None,
                Due::Nothing => match tokio::time::timeout(KEEP_ALIVE, self.news.changed()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return None,
                    Err(_) => return Some(Bytes::from_static(b": still here\n\n")),
                },
            }
        }
    }

    async fn snapshot(&mut self) -> Option<Bytes> {
        let answer = self.asker.ask(Question::Snapshot).await.ok()?;
        self.has = Some(answer.number);
        Some(answer.body)
    }
}
