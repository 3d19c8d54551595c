//! A real InfluxDB: the one that `GENWATCH_TEST_INFLUXDB` names (what `scripts/influxdb start` prints), or one started
//! here; or a test's own, to be broken. Queried by HTTP and Flux, so that the crate is not checked by itself.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::{Value, json};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// A server, and its operator's access to it.
pub struct Server {
    /// `--url`
    pub url: String,
    /// `--org`
    pub org: String,
    /// A token with all rights.
    pub token: String,
    /// `--ca-file`, if it speaks HTTPS.
    pub ca_file: Option<String>,
    dir: Option<String>,
    agent: ureq::Agent,
    _reaper: Option<Child>,
}

/// A bucket that no other test uses.
pub struct Bucket<'s> {
    pub server: &'s Server,
    pub name: String,
    pub id: String,
}

/// The server that tests share.
pub fn shared() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| match std::env::var("GENWATCH_TEST_INFLUXDB") {
        Ok(settings) if !settings.is_empty() => Server::new(&settings, None, None),
        _ => Server::start("shared", &[]),
    })
}

impl Server {
    /// Starts a test's own server. Stopped when dropped, or when this process ends.
    pub fn start(name: &str, options: &[&str]) -> Server {
        let dir = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("influxdb-{name}"));
        let dir = dir.to_str().expect("a path in UTF-8").to_owned();
        let reaper = stop_when_we_have_ended(&dir);
        let settings = script(&[&["start", "--dir", &dir, "--fresh"], options].concat());
        Server::new(&settings, Some(dir), Some(reaper))
    }

    fn new(settings: &str, dir: Option<String>, reaper: Option<Child>) -> Server {
        let setting = |name: &str| {
            let line = settings.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.map(str::to_owned)
        };
        let needed = |name| setting(name).unwrap_or_else(|| panic!("no {name} in {settings:?}"));
        let ca_file = setting("GENWATCH_CA_FILE");
        let mut agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)));
        if let Some(file) = &ca_file {
            let pem = std::fs::read(file).expect("a CA");
            let ca = Certificate::from_pem(&pem).expect("a certificate");
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let tls = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&[ca]));
            agent = agent.tls_config(tls.unversioned_rustls_crypto_provider(provider).build());
        }
        Server {
            url: needed("GENWATCH_URL"),
            org: needed("GENWATCH_ORG"),
            token: needed("GENWATCH_TOKEN"),
            ca_file,
            dir,
            agent: agent.build().new_agent(),
            _reaper: reaper,
        }
    }

    /// SIGKILL.
    pub fn crash(&self) {
        script(&["kill", "--dir", self.dir()]);
    }

    /// Starts it again with its data.
    pub fn recover(&self) {
        script(&["start", "--dir", self.dir()]);
    }

    fn dir(&self) -> &str {
        self.dir.as_deref().expect("a server of the test's own")
    }

    /// A new bucket that keeps everything.
    pub fn bucket(&self) -> Bucket<'_> {
        self.bucket_for(0)
    }

    /// A new bucket that keeps points for this many seconds; 0 is for ever.
    pub fn bucket_for(&self, seconds: u64) -> Bucket<'_> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test {}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let rules =
            if seconds == 0 { json!([]) } else { json!([{ "type": "expire", "everySeconds": seconds }]) };
        let made = self.post(
            "/api/v2/buckets",
            &json!({ "orgID": self.org_id(), "name": name, "retentionRules": rules }),
        );
        Bucket { server: self, name, id: made["id"].as_str().expect("an id").to_owned() }
    }

    /// The names of all buckets.
    pub fn buckets(&self) -> Vec<String> {
        let found = self.get("/api/v2/buckets?limit=100");
        let buckets = found["buckets"].as_array().expect("a list");
        buckets.iter().map(|bucket| bucket["name"].as_str().expect("a name").to_owned()).collect()
    }

    fn org_id(&self) -> String {
        let orgs = self.get("/api/v2/orgs");
        orgs["orgs"][0]["id"].as_str().expect("an organization").to_owned()
    }

    fn get(&self, path: &str) -> Value {
        let request = self.agent.get(format!("{}{path}", self.url));
        let answer = request.header("Authorization", format!("Token {}", self.token)).call();
        json_of(path, answer)
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let request = self.agent.post(format!("{}{path}", self.url));
        let request = request.header("Authorization", format!("Token {}", self.token));
        json_of(path, request.header("Content-Type", "application/json").send(body.to_string()))
    }

    /// Runs a query in Flux; a row of its answer is its columns by name.
    fn query(&self, flux: &str) -> Vec<BTreeMap<String, String>> {
        let request = self.agent.post(format!("{}/api/v2/query", self.url)).query("org", &self.org);
        let request = request.header("Authorization", format!("Token {}", self.token));
        let mut answer = request
            .header("Content-Type", "application/vnd.flux")
            .header("Accept", "application/csv")
            .send(flux)
            .expect("InfluxDB answers");
        let status = answer.status();
        let text = answer.body_mut().with_config().limit(1 << 30).read_to_string().expect("CSV");
        assert!(status.is_success(), "{status}: {text}\n{flux}");
        let mut names: Vec<&str> = Vec::new();
        let mut rows = Vec::new();
        // No test data contains commas or quotes. A table begins with its column names, after an empty line.
        for line in text.lines() {
            let cells: Vec<&str> = line.split(',').collect();
            if line.is_empty() {
                names.clear();
            } else if names.is_empty() {
                names = cells;
            } else {
                let row = names.iter().zip(cells).map(|(name, cell)| ((*name).to_owned(), cell.to_owned()));
                rows.push(row.collect());
            }
        }
        rows
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(dir) = &self.dir {
            script(&["stop", "--dir", dir]);
        }
    }
}

impl Bucket<'_> {
    /// The sink's options to write to it.
    pub fn options(&self) -> Vec<String> {
        let Server { url, org, token, ca_file, .. } = self.server;
        let mut options = vec!["--url", url, "--org", org, "--bucket", &self.name, "--token", token];
        options.extend(ca_file.iter().flat_map(|file| ["--ca-file", file.as_str()]));
        options.into_iter().map(str::to_owned).collect()
    }

    /// A source's options to read from its server.
    pub fn access(&self) -> Vec<String> {
        let options = self.options();
        let at = options.iter().position(|option| option == "--bucket").expect("an option");
        [&options[..at], &options[at + 2..]].concat()
    }

    /// Writes lines of line protocol, with times in nanoseconds.
    pub fn write(&self, lines: &str) {
        let request = self.server.agent.post(format!("{}/api/v2/write", self.server.url));
        let request = request.query("org", &self.server.org).query("bucket", &self.name);
        let request = request.header("Authorization", format!("Token {}", self.server.token));
        let mut answer = request.send(lines).expect("InfluxDB answers");
        let said = answer.body_mut().read_to_string().unwrap_or_default();
        assert!(answer.status().is_success(), "{}: {said}", answer.status());
    }

    /// A token with write access to it and no other right.
    pub fn write_only_token(&self) -> String {
        self.token_to("write")
    }

    /// A token with read access to it and no other right.
    pub fn read_only_token(&self) -> String {
        self.token_to("read")
    }

    fn token_to(&self, action: &str) -> String {
        let org = self.server.org_id();
        let resource = json!({ "type": "buckets", "id": self.id, "orgID": org });
        let permissions = json!([{ "action": action, "resource": resource }]);
        let made =
            self.server.post("/api/v2/authorizations", &json!({ "orgID": org, "permissions": permissions }));
        made["token"].as_str().expect("a token").to_owned()
    }

    /// How many points of a measurement have this field, and the sum of its values.
    pub fn count_and_sum(&self, measurement: &str, field: &str) -> (u64, f64) {
        let of = |function: &str| {
            let flux = format!("{} |> group() |> {function}()", self.values(measurement, field));
            let rows = self.server.query(&flux);
            rows.first().map_or(0.0, |row| row["_value"].parse().expect("a number"))
        };
        (of("count") as u64, of("sum"))
    }

    /// The points of a measurement that have this field: generator, time in nanoseconds, value.
    pub fn points(&self, measurement: &str, field: &str) -> BTreeMap<(String, i64), String> {
        let keep = r#"keep(columns: ["generatorID", "_time", "_value"])"#;
        let rows = self.server.query(&format!("{} |> {keep}", self.values(measurement, field)));
        let point = |row: BTreeMap<String, String>| {
            let time: jiff::Timestamp = row["_time"].parse().expect("a time");
            let time = i64::try_from(time.as_nanosecond()).expect("a time of InfluxDB");
            ((row["generatorID"].clone(), time), row["_value"].clone())
        };
        rows.into_iter().map(point).collect()
    }

    /// All tags and the time of the points of a measurement that have this field.
    pub fn rows(&self, measurement: &str, field: &str) -> Vec<BTreeMap<String, String>> {
        self.server.query(&self.values(measurement, field))
    }

    fn values(&self, measurement: &str, field: &str) -> String {
        format!(
            r#"from(bucket: "{}") |> range(start: 1678-01-01T00:00:00Z, stop: 2262-01-01T00:00:00Z)
            |> filter(fn: (r) => r._measurement == "{measurement}" and r._field == "{field}")"#,
            self.name
        )
    }
}

fn json_of(path: &str, answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Value {
    let mut answer = answer.unwrap_or_else(|error| panic!("{path}: {error}"));
    let text = answer.body_mut().read_to_string().unwrap_or_default();
    assert!(answer.status().is_success(), "{path}: {} {text}", answer.status());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
}

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/influxdb");

fn script(arguments: &[&str]) -> String {
    let output =
        Command::new(SCRIPT).args(arguments).stdin(Stdio::null()).output().expect("scripts/influxdb runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "scripts/influxdb {} failed:\n{said}", arguments.join(" "));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// As for the brokers of tests: a child waits for the end of its standard input, which is the end of this process.
fn stop_when_we_have_ended(dir: &str) -> Child {
    Command::new("setsid")
        .args(["sh", "-c", "cat >/dev/null; exec \"$0\" stop --dir \"$1\"", SCRIPT, dir])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("sh runs")
}
