//! A sink of your own: alarms go to a file, one line each, and are on the disk before their offsets are committed.
//!
//! ```text
//! cargo run --release --example own_sink -- localhost:9092 emergency_generators alarms.txt
//! ```
//!
//! What a sink needs to know of a store is the `Store` trait: how a record looks there, and how a batch is written.
//! Joining the group, batching, back-off, halving, drain and offsets are the runtime's. A second instance with
//! another file takes over a part of the partitions. After a crash the last lines are written again, so whoever
//! reads the file goes by the alert's id.

use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use genwatch::service::Context;
use genwatch::sink::{
    self, NotWritten, SinkConfig, SinkError, SinkSummary, Skipped, SourceRecord, Store, WriteAnswer,
};
use genwatch_core::engine::start::OnOutOfRange;
use genwatch_kafka::config::{Connection, worker_name};
use serde::Deserialize;

/// A file to which lines are appended.
pub struct LogFile {
    path: PathBuf,
    shown: String,
    file: Mutex<File>,
}

/// What a line needs of an alert; `docs/formats.md` has all of it.
#[derive(Deserialize)]
struct Alert {
    id: String,
    #[serde(rename = "generatorID")]
    generator: String,
    rule: String,
    state: String,
    severity: String,
    value: Option<f64>,
}

impl LogFile {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn open(path: &Path) -> std::io::Result<LogFile> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(LogFile { path: path.to_owned(), shown: path.display().to_string(), file: Mutex::new(file) })
    }

    /// All lines or none: a batch that is torn by a full disk is cut off again.
    fn append_lines(&self, lines: &str) -> std::io::Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let end = file.seek(SeekFrom::End(0))?;
        let written = file.write_all(lines.as_bytes()).and_then(|()| file.sync_data());
        if written.is_err() {
            file.set_len(end)?;
        }
        written
    }
}

impl Store for LogFile {
    fn name(&self) -> &str {
        "the file"
    }

    fn address(&self) -> &str {
        &self.shown
    }

    fn append(&self, record: &SourceRecord<'_>, batch: &mut String) -> Result<(), NotWritten> {
        let skipped = |label, reason: String| Skipped { label, reason };
        let value = record.value.ok_or_else(|| skipped("tombstone", "it has no value".to_owned()))?;
        let alert: Alert =
            serde_json::from_slice(value).map_err(|error| skipped("no_alert", error.to_string()))?;
        let Alert { id, generator, rule, state, severity, value } = alert;
        // JSON strings, so that no name can break a line.
        let line = serde_json::json!([id, severity, state, rule, generator, value]);
        batch.push_str(&line.to_string());
        batch.push('\n');
        Ok(())
    }

    fn write(&self, records: &str) -> WriteAnswer {
        match self.append_lines(records) {
            Ok(()) => WriteAnswer::Written,
            // A disk that is full is waited for; what else can go wrong with a file doesn't mend by itself.
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                WriteAnswer::Wait { after: None, reason: error.to_string() }
            }
            Err(error) => WriteAnswer::Refused(format!("{}: {error}", self.path.display()).into()),
        }
    }
}

/// Writes the alerts of this readings topic until the context says stop.
///
/// # Errors
/// When Kafka or the file refuses.
pub fn run(
    brokers: &str,
    topic: &str,
    file: LogFile,
    exit_at_end: bool,
    context: Context,
) -> Result<SinkSummary, Box<dyn std::error::Error>> {
    let config = SinkConfig {
        connection: Connection::new(brokers, &[])?,
        group: format!("{topic}_own_sink"),
        topics: vec![format!("{topic}_alerts")],
        name: worker_name(),
        // Where the workers of group `genwatch` report, too.
        reports: "genwatch_workers".to_owned(),
        dead_letters: None,
        store: file,
        connections: 1,
        batch: 1000,
        linger: Duration::from_millis(200),
        exit_at_end,
        on_out_of_range: OnOutOfRange::Earliest,
    };
    sink::run(config, context).map_err(|error: SinkError| error.into())
}

#[allow(dead_code)] // A test takes the file in as a module.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [brokers, topic, path] = arguments.as_slice() else {
        return Err("usage: own_sink BROKERS READINGS-TOPIC FILE".into());
    };
    // The first Ctrl-C drains, the second one ends the process.
    let context = Context::default();
    let signal = signal_hook::consts::SIGINT;
    signal_hook::flag::register_conditional_shutdown(signal, 130, context.stop.clone())?;
    signal_hook::flag::register(signal, context.stop.clone())?;
    let summary = run(brokers, topic, LogFile::open(Path::new(path))?, false, context)?;
    println!("{}", serde_json::to_string(&summary)?);
    Ok(())
}
