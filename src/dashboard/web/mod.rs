//! The dashboard's HTTP: the page, the documents, the events. Knows nothing of Kafka: it asks the loop.

pub mod access;
pub mod assets;
mod events;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Form, Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse as _, Redirect, Response};
use axum::routing::get;
use genwatch_core::types::Millis;
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::feed::Feed;
use super::model::documents::RECENT;
use super::questions::{Asker, Question, Unanswered};
use access::{Access, COOKIE, Tried};
use assets::{asset, is_of_login, takes_gzip};

/// No script but ours, no style but ours, nothing from elsewhere, in no frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
/// A shorter document isn't worth compressing.
const WORTH_ZIPPING: usize = 4096;
/// Recent alerts that may be asked for.
const ALERTS_MAX: usize = 2000;

/// What all handlers share.
#[derive(Clone)]
pub struct Web {
    feed: Arc<Feed>,
    asker: Asker,
    access: Arc<Access>,
    places: Arc<Semaphore>,
}

impl Web {
    /// The HTTP of a dashboard.
    #[must_use]
    pub fn new(feed: Arc<Feed>, asker: Asker, access: Access) -> Web {
        Web { feed, asker, access: Arc::new(access), places: Arc::new(Semaphore::new(events::CLIENTS)) }
    }

    /// Adds it to the routes that all services have.
    pub fn extend(self, routes: Router) -> Router {
        let own = Router::new()
            .route("/", get(page))
            .route("/login", get(login_page).post(login))
            .route("/assets/{name}", get(file))
            .route("/api/partitions", get(partitions))
            .route("/api/lineage", get(lineage))
            .route("/api/fleet", get(fleet))
            .route("/api/generators/{id}", get(generator))
            .route("/api/alerts", get(alerts))
            .route("/api/time", get(time))
            .route("/api/plan", get(plan))
            .route("/events", get(changes))
            .with_state(self.clone());
        routes.merge(own).layer(from_fn_with_state(self, guard))
    }
}

/// Lets in who may look, and sets the headers of every answer.
async fn guard(State(web): State<Web>, request: Request, next: Next) -> Response {
    let mut response = match refusal(&web.access, &request) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Why a request isn't answered.
fn refusal(access: &Access, request: &Request) -> Option<Response> {
    let text = |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if !access.takes_host(text(header::HOST)) {
        let reason = "without --http-token only this machine's own names are answered, such as localhost";
        return Some(error(StatusCode::MISDIRECTED_REQUEST, reason));
    }
    if !access.wants_token() || is_open(request.uri().path()) {
        return None;
    }
    if text(header::COOKIE).is_some_and(|cookies| access.has_session(cookies)) {
        return None;
    }
    if let Some(given) = text(header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer ")) {
        return match access.try_token(given.trim()) {
            Tried::Right => None,
            Tried::Wrong => Some(error(StatusCode::UNAUTHORIZED, "this token is wrong")),
            Tried::TooMany => {
                Some(error(StatusCode::TOO_MANY_REQUESTS, "too many wrong tokens: wait a moment"))
            }
        };
    }
    if request.method() == Method::GET && request.uri().path() == "/" {
        return Some(Redirect::to("/login").into_response());
    }
    let mut response = error(
        StatusCode::UNAUTHORIZED,
        "log in at /login, or send the token as `Authorization: Bearer TOKEN`",
    );
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    Some(response)
}

/// What needs no token: probes, metrics, and the page that asks for it.
fn is_open(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz" | "/metrics" | "/login")
        || path.strip_prefix("/assets/").is_some_and(is_of_login)
}

async fn page(headers: HeaderMap) -> Response {
    match asset("index.html") {
        Some(page) => page.answer(&headers),
        None => {
            Html("<!doctype html><title>genwatch</title><p>This build has no page. /api has all documents.")
                .into_response()
        }
    }
}

async fn file(Path(name): Path<String>, headers: HeaderMap) -> Response {
    match asset(&name).filter(|_| !name.ends_with(".html")) {
        Some(file) => file.answer(&headers),
        None => error(StatusCode::NOT_FOUND, "there is no such file"),
    }
}

async fn login_page(State(web): State<Web>) -> Response {
    if web.access.wants_token() { form() } else { Redirect::to("/").into_response() }
}

/// The page that asks for the token; it says so itself if the last one was wrong (`?failed`).
fn form() -> Response {
    let page = asset("login.html").map_or_else(
        || {
            "<!doctype html><title>genwatch</title><form method=post action=/login><label>Token \
             <input name=token type=password autofocus></label> <button>Log in</button></form>"
                .to_owned()
        },
        assets::Asset::text,
    );
    Html(page).into_response()
}

#[derive(Deserialize)]
struct Login {
    #[serde(default)]
    token: String,
}

async fn login(State(web): State<Web>, Form(login): Form<Login>) -> Response {
    match web.access.try_token(login.token.trim()) {
        Tried::Right => {
            let cookie =
                format!("{COOKIE}={}; HttpOnly; SameSite=Strict; Path=/", web.access.begin_session());
            let mut response = Redirect::to("/").into_response();
            if let Ok(cookie) = HeaderValue::from_str(&cookie) {
                response.headers_mut().insert(header::SET_COOKIE, cookie);
            }
            response
        }
        Tried::Wrong => Redirect::to("/login?failed=1").into_response(),
        Tried::TooMany => error(StatusCode::TOO_MANY_REQUESTS, "too many wrong tokens: wait a moment"),
    }
}

async fn partitions(State(web): State<Web>, headers: HeaderMap) -> Response {
    web.document(Question::Partitions, &headers).await
}

async fn lineage(State(web): State<Web>, headers: HeaderMap) -> Response {
    web.document(Question::Lineage, &headers).await
}

#[derive(Deserialize)]
struct At {
    at: Option<i64>,
}

async fn fleet(State(web): State<Web>, Query(At { at }): Query<At>, headers: HeaderMap) -> Response {
    web.document(Question::Fleet { at: at.map(Millis) }, &headers).await
}

#[derive(Deserialize)]
struct Span {
    from: Option<i64>,
    to: Option<i64>,
}

async fn generator(
    State(web): State<Web>,
    Path(id): Path<String>,
    Query(Span { from, to }): Query<Span>,
    headers: HeaderMap,
) -> Response {
    let question = Question::Generator { id, from: from.map(Millis), to: to.map(Millis) };
    web.document(question, &headers).await
}

#[derive(Deserialize)]
struct Limit {
    limit: Option<usize>,
}

async fn alerts(
    State(web): State<Web>,
    Query(Limit { limit }): Query<Limit>,
    headers: HeaderMap,
) -> Response {
    let limit = limit.unwrap_or(RECENT).min(ALERTS_MAX);
    web.document(Question::Alerts { limit }, &headers).await
}

async fn time(State(web): State<Web>, headers: HeaderMap) -> Response {
    web.document(Question::Time, &headers).await
}

#[derive(Deserialize)]
struct Target {
    target_rate: Option<f64>,
}

async fn plan(
    State(web): State<Web>,
    Query(Target { target_rate }): Query<Target>,
    headers: HeaderMap,
) -> Response {
    if target_rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
        return error(StatusCode::BAD_REQUEST, "target_rate is readings a second, more than 0");
    }
    web.document(Question::Plan { target_rate }, &headers).await
}

async fn changes(State(web): State<Web>) -> Response {
    events::answer(&web.feed, &web.asker, &web.places)
}

impl Web {
    /// Asks the loop for a document.
    async fn document(&self, question: Question, request: &HeaderMap) -> Response {
        match self.asker.ask(question).await {
            Ok(answer) => json(answer.body, request).await,
            Err(Unanswered::Unknown) => error(StatusCode::NOT_FOUND, "there is no such generator"),
            Err(Unanswered::NotYet(reason)) => error(StatusCode::SERVICE_UNAVAILABLE, &reason),
            Err(Unanswered::Busy) => {
                error(StatusCode::SERVICE_UNAVAILABLE, "the dashboard is busy: try again")
            }
        }
    }
}

async fn json(body: Bytes, request: &HeaderMap) -> Response {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if body.len() < WORTH_ZIPPING || !takes_gzip(request) {
        *response.body_mut() = Body::from(body);
        return response;
    }
    // A fleet of 100,000 takes a while: other clients are served meanwhile.
    let plain = body.clone();
    match tokio::task::spawn_blocking(move || gzip(&plain)).await {
        Ok(Ok(zipped)) => {
            response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            *response.body_mut() = Body::from(zipped);
        }
        _ => *response.body_mut() = Body::from(body),
    }
    response
}

fn gzip(plain: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder =
        flate2::write::GzEncoder::new(Vec::with_capacity(plain.len() / 4), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, plain)?;
    encoder.finish()
}

fn error(status: StatusCode, reason: &str) -> Response {
    let body = serde_json::json!({ "error": reason }).to_string() + "\n";
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
