//! `genwatch alerts`: prints alert events.

use std::io::{BufWriter, Write as _};
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Args;
use serde::Deserialize;

use super::{ClusterOptions, Failure};
use crate::kafka::admin::Cluster;
use crate::kafka::tail::{StartAt, Tail};
use crate::log::Millis;

/// Print alert events, as far as they are committed.
#[derive(Debug, Args)]
pub struct Options {
    /// Where to begin: beginning, now, or a time (2026-01-31T12:00:00Z, or a duration ago such as 2h).
    #[arg(long, default_value = "beginning", value_parser = from, env = "GENWATCH_FROM")]
    from: StartAt,

    /// End at the end the topic had at the start.
    #[arg(long, env = "GENWATCH_EXIT_AT_END")]
    exit_at_end: bool,

    /// One JSON document a line, as it is in the topic.
    #[arg(long, env = "GENWATCH_JSON")]
    json: bool,

    #[command(flatten)]
    cluster: ClusterOptions,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let stop = super::stop_on_signals()?;
    let connection = options.cluster.connection()?;
    let cluster = Cluster::connect(&connection)?;
    let mut tail = Tail::new(&connection, &cluster, &options.cluster.topics().alerts, options.from)?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    while !(stop.load(Ordering::Relaxed) || options.exit_at_end && tail.at_end()) {
        tail.read(Duration::from_millis(100), |record| -> Result<(), anyhow::Error> {
            let Some(value) = record.value else { return Ok(()) };
            if options.json {
                out.write_all(value)?;
                out.write_all(b"\n")?;
            } else {
                writeln!(out, "{}", line(value))?;
            }
            Ok(())
        })?;
        out.flush()?;
    }
    Ok(())
}

/// What a person wants to read of an alert event.
#[derive(Deserialize)]
struct Alert {
    #[serde(rename = "generatorID")]
    generator: String,
    rule: String,
    state: String,
    severity: String,
    field: Option<String>,
    value: Option<f64>,
    threshold: f64,
    at: i64,
    reason: Option<String>,
}

/// One alert as a line for people; what isn't an alert is shown as it is.
pub(crate) fn line(value: &[u8]) -> String {
    let Ok(alert) = serde_json::from_slice::<Alert>(value) else {
        return String::from_utf8_lossy(value).into_owned();
    };
    let time = jiff::Timestamp::from_millisecond(alert.at)
        .map_or_else(|_| alert.at.to_string(), |time| format!("{time:.3}"));
    let cause = match (&alert.field, alert.value, &alert.reason) {
        (Some(field), Some(value), _) => format!("{field} {value} (threshold {})", alert.threshold),
        (None, Some(value), _) => format!("silent for {value} s"),
        (_, None, Some(reason)) => reason.clone(),
        (_, None, None) => "seen again".to_owned(),
    };
    format!(
        "{time} {:8} {:8} {} {}: {cause}",
        alert.state.to_uppercase(),
        alert.severity,
        alert.generator,
        alert.rule
    )
}

fn from(text: &str) -> Result<StartAt, String> {
    match text {
        "beginning" => Ok(StartAt::Beginning),
        "now" => Ok(StartAt::Now),
        _ => {
            if let Ok(ago) = humantime::parse_duration(text) {
                let then =
                    jiff::Timestamp::now().as_millisecond() - i64::try_from(ago.as_millis()).unwrap_or(0);
                return Ok(StartAt::Time(Millis(then)));
            }
            let time: jiff::Timestamp = text.parse().map_err(|_| {
                "beginning, now, a time such as 2026-01-31T12:00:00Z, or a duration such as 2h".to_owned()
            })?;
            Ok(StartAt::Time(Millis(time.as_millisecond())))
        }
    }
}
