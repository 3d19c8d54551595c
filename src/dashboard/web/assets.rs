//! The page's files, embedded by `build.rs` from `src/dashboard/assets`.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;

/// One file.
#[derive(Debug)]
pub struct Asset {
    /// Its name.
    name: &'static str,
    content_type: &'static str,
    /// Changes with its content.
    etag: &'static str,
    raw: &'static [u8],
    gzip: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/dashboard_assets.rs"));

/// Returns the file of this name.
#[must_use]
pub fn asset(name: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.name == name)
}

/// Whether a file belongs to the page that asks for the token.
#[must_use]
pub fn is_of_login(name: &str) -> bool {
    matches!(name, "style.css" | "icon.svg" | "login.js" | "theme.js")
}

impl Asset {
    /// Its content.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.raw).into_owned()
    }

    /// Answers a request for it: compressed where the client takes that, and not at all where it has it.
    #[must_use]
    pub fn answer(&self, request: &HeaderMap) -> Response {
        let known = request.get(header::IF_NONE_MATCH).and_then(|tags| tags.to_str().ok());
        let is_known = known.is_some_and(|tags| {
            tags.split(',')
                .any(|tag| matches!(tag.trim(), "*") || tag.trim().trim_start_matches("W/") == self.etag)
        });
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        headers.insert(header::ETAG, HeaderValue::from_static(self.etag));
        // Asked for each time, and sent only when it has changed: a new release must not meet an old page.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        if is_known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return response;
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        if takes_gzip(request) {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            *response.body_mut() = Body::from(self.gzip);
        } else {
            *response.body_mut() = Body::from(self.raw);
        }
        response
    }
}

/// Whether a client takes gzip.
#[must_use]
pub fn takes_gzip(request: &HeaderMap) -> bool {
    let codings = request.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or("");
    codings.split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let name = parts.next().unwrap_or("");
        let refused = parts
            .any(|part| matches!(part.replace(' ', "").as_str(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
        matches!(name, "gzip" | "*") && !refused
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASSET: Asset =
        Asset { name: "a.js", content_type: "text/javascript", etag: "\"1\"", raw: b"raw", gzip: b"zip" };

    fn request(name: header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn who_has_a_file_is_not_sent_it_again() {
        for tags in ["\"1\"", "W/\"1\"", "\"0\", \"1\"", "*"] {
            let answer = ASSET.answer(&request(header::IF_NONE_MATCH, tags));
            assert_eq!(answer.status(), StatusCode::NOT_MODIFIED, "{tags}");
        }
        assert_eq!(ASSET.answer(&request(header::IF_NONE_MATCH, "\"2\"")).status(), StatusCode::OK);
    }

    #[test]
    fn gzip_is_for_those_who_take_it() {
        for (codings, taken) in [("gzip, br", true), ("br;q=1.0, gzip;q=0.8", true), ("*", true), ("", false)]
        {
            assert_eq!(takes_gzip(&request(header::ACCEPT_ENCODING, codings)), taken, "{codings}");
        }
        assert!(!takes_gzip(&request(header::ACCEPT_ENCODING, "gzip;q=0")));
        assert!(!takes_gzip(&HeaderMap::new()));
        let answer = ASSET.answer(&request(header::ACCEPT_ENCODING, "gzip"));
        assert_eq!(answer.headers()[header::CONTENT_ENCODING], "gzip");
    }
}
