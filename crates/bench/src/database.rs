//! The database of a benchmark: its own buckets, and how many points they hold. Asked over HTTP as InfluxDB's own
//! clients do, to check the sink's figures independently.

use std::time::Duration;

use serde_json::{Value, json};
use ureq::http::{HeaderValue, Response, header};

use super::BenchError;
/// A count reads a whole bucket.
pub const TIMEOUT: Duration = Duration::from_secs(300);

/// Its address, and a token that may create buckets.
#[derive(Clone, Debug)]
pub struct DatabaseAccess {
    /// `--url`
    pub url: String,
    /// `--org`
    pub org: String,
    /// May create, read and delete buckets: the value of the `Authorization` header.
    pub authorization: HeaderValue,
    /// Sends the requests, each for at most [`TIMEOUT`].
    pub agent: ureq::Agent,
}

/// A client for what the write API can't do.
pub struct Database {
    access: DatabaseAccess,
    org_id: String,
}

/// A bucket of the benchmark. Deleted when dropped.
pub struct Bucket<'d> {
    database: &'d Database,
    /// Its name.
    pub name: String,
    id: String,
}

impl Database {
    /// Asks for the organization, which also checks the token.
    ///
    /// # Errors
    /// When the server doesn't answer or refuses.
    pub fn new(access: DatabaseAccess) -> Result<Database, BenchError> {
        let mut database = Database { access, org_id: String::new() };
        let request = database.access.agent.get(database.path("orgs")).query("org", &database.access.org);
        let answer = database
            .answer("the organization", request.header(header::AUTHORIZATION, database.token()).call())?;
        let id = answer["orgs"][0]["id"].as_str().unwrap_or_default();
        id.clone_into(&mut database.org_id);
        Ok(database)
    }

    /// Creates a bucket.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn bucket(&self) -> Result<Bucket<'_>, BenchError> {
        let name = format!("genwatch-bench-{}", uuid::Uuid::new_v4().simple());
        let body = json!({ "orgID": self.org_id, "name": name, "retentionRules": [] });
        let request =
            self.access.agent.post(self.path("buckets")).header(header::AUTHORIZATION, self.token());
        let request = request.header(header::CONTENT_TYPE, "application/json");
        let answer = self.answer("a bucket", request.send(body.to_string()))?;
        let id = answer["id"].as_str().unwrap_or_default().to_owned();
        Ok(Bucket { database: self, name, id })
    }

    fn path(&self, path: &str) -> String {
        format!("{}/api/v2/{path}", self.access.url.trim_end_matches('/'))
    }

    fn token(&self) -> &HeaderValue {
        &self.access.authorization
    }

    fn answer(
        &self,
        what: &str,
        answer: Result<Response<ureq::Body>, ureq::Error>,
    ) -> Result<Value, BenchError> {
        let text = text(what, answer)?;
        serde_json::from_str(&text).map_err(|error| failed(what, &error))
    }
}

impl Bucket<'_> {
    /// Returns how many points it holds.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn points(&self) -> Result<u64, BenchError> {
        let flux = format!(
            r#"from(bucket: "{}") |> range(start: 1970-01-01T00:00:00Z, stop: 2200-01-01T00:00:00Z)
            |> filter(fn: (r) => r._field == "fuel") |> group() |> count() |> keep(columns: ["_value"])"#,
            self.name
        );
        let database = self.database;
        let request = database.access.agent.post(database.path("query")).query("org", &database.access.org);
        let request = request.header(header::AUTHORIZATION, database.token());
        let request = request.header(header::CONTENT_TYPE, "application/vnd.flux");
        let answer = text("a count", request.header(header::ACCEPT, "application/csv").send(flux))?;
        // A header line, then one row; without points nothing.
        let row = answer.lines().nth(1).unwrap_or_default();
        let count = row.rsplit(',').next().unwrap_or_default();
        if count.is_empty() { Ok(0) } else { count.parse().map_err(|error| failed("a count", &error)) }
    }
}

impl Drop for Bucket<'_> {
    fn drop(&mut self) {
        let database = self.database;
        let request = database.access.agent.delete(database.path(&format!("buckets/{}", self.id)));
        if let Err(error) =
            text("the end of a bucket", request.header(header::AUTHORIZATION, database.token()).call())
        {
            tracing::warn!(%error, bucket = self.name, "a bucket of the benchmark is left behind");
        }
    }
}

fn text(what: &str, answer: Result<Response<ureq::Body>, ureq::Error>) -> Result<String, BenchError> {
    let mut answer = answer.map_err(|error| failed(what, &error))?;
    let status = answer.status();
    let text = answer.body_mut().read_to_string().map_err(|error| failed(what, &error))?;
    if status.is_success() { Ok(text) } else { Err(failed(what, &format!("{}: {text}", status.as_u16()))) }
}

fn failed(what: &str, error: &dyn std::fmt::Display) -> BenchError {
    BenchError::Database { what: what.to_owned(), reason: error.to_string() }
}
