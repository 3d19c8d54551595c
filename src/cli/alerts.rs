//! `genwatch alerts`: prints alert events.

use std::io::{BufWriter, IsTerminal as _, Write as _};
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Args;
use console::{Style, StyledObject};
use genwatch_core::types::Millis;
use genwatch_kafka::admin::Cluster;
use genwatch_kafka::topic_reader::{StartAt, TopicReader};
use serde::Deserialize;

use super::terminal::printable;
use super::{ClusterOptions, Failure};

/// Print committed alert events, as they happen.
///
/// On a terminal severities have colours: critical red, warning yellow, cleared green (not if NO_COLOR is set).
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Where to begin: beginning, now, or a time (2026-01-31T12:00:00Z, or a duration ago such as 2h).
    #[arg(long, default_value = "beginning", value_parser = from, env = "GENWATCH_FROM")]
    from: StartAt,

    /// Wait for more at the end of the topic: so it is unless --exit-at-end is given.
    #[arg(short, long, env = "GENWATCH_FOLLOW", conflicts_with = "exit_at_end")]
    follow: bool,

    /// Stop at the end that the topic had at the start.
    #[arg(long, env = "GENWATCH_EXIT_AT_END")]
    exit_at_end: bool,

    /// One JSON document a line, as in the topic (what isn't JSON is left out, with a warning).
    #[arg(long, env = "GENWATCH_JSON")]
    json: bool,

    #[command(flatten)]
    cluster: ClusterOptions,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let stop = super::stop_on_signals()?;
    let connection = options.cluster.connection()?;
    let cluster = Cluster::connect(&connection)?;
    let mut tail = TopicReader::new(&connection, &cluster, &options.cluster.topics().alerts, options.from)?;
    let on_terminal = std::io::stdout().is_terminal();
    let mut out = BufWriter::new(std::io::stdout().lock());
    while !(stop.load(Ordering::Relaxed) || options.exit_at_end && tail.at_end()) {
        tail.read(Duration::from_millis(100), |record| -> Result<(), anyhow::Error> {
            let Some(value) = record.value else { return Ok(()) };
            if !options.json {
                writeln!(out, "{}", line(value, on_terminal))?;
            } else if let Some(document) = document(value) {
                writeln!(out, "{document}")?;
            } else {
                let (partition, offset) = (record.partition, record.offset);
                tracing::warn!(%partition, %offset, "a record of the alerts topic is not JSON: left out");
            }
            Ok(())
        })?;
        out.flush()?;
        tail.watch(&cluster);
    }
    Ok(())
}

/// The fields of an alert event that people read.
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

/// Formats an alert as a line for people; anything else is shown as it is, without what a terminal would obey. For a
/// terminal columns are aligned, and state and severity have a colour, if stdout takes one.
pub(crate) fn line(value: &[u8], on_terminal: bool) -> String {
    let Ok(alert) = serde_json::from_slice::<Alert>(value) else {
        return printable(&String::from_utf8_lossy(value)).into_owned();
    };
    let time = jiff::Timestamp::from_millisecond(alert.at)
        .map_or_else(|_| alert.at.to_string(), |time| format!("{time:.3}"));
    let cause = match (&alert.field, alert.value, &alert.reason) {
        (Some(field), Some(value), _) => format!("{field} {value} (threshold {})", alert.threshold),
        (None, Some(value), _) => format!("silent for {value} s"),
        (_, None, Some(reason)) => reason.clone(),
        (_, None, None) => "seen again".to_owned(),
    };
    // Escaped before it is coloured: a device has no say in that.
    let what = format!("{:8} {:8}", alert.state.to_uppercase(), alert.severity);
    let what = printable(&what);
    let generator = printable(&alert.generator);
    let rule = format!("{}:", printable(&alert.rule));
    let cause = printable(&cause);
    if on_terminal {
        let what = coloured(&what, &alert.state, &alert.severity);
        format!("{time} {what} {generator:14} {rule:17} {cause}")
    } else {
        format!("{time} {what} {generator} {rule} {cause}")
    }
}

fn coloured<'a>(what: &'a str, state: &str, severity: &str) -> StyledObject<&'a str> {
    let style = match (state, severity) {
        ("cleared", _) => Style::new().green(),
        (_, "critical") => Style::new().red().bold(),
        (_, "warning") => Style::new().yellow(),
        _ => Style::new().bold(),
    };
    style.apply_to(what)
}

/// Formats an alert as a line of JSON: exactly the worker's bytes if they are one line. JSON may hold line feeds
/// between its tokens, and in its strings characters that a terminal obeys.
fn document(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?;
    let json: &serde_json::value::RawValue = serde_json::from_str(text).ok()?;
    if !json.get().contains(char::is_control) {
        return Some(json.get().to_owned());
    }
    let compact = serde_json::from_str::<serde_json::Value>(text).ok()?.to_string();
    // JSON allows these unescaped: DEL and C1.
    let escape = |c: char| if c.is_control() { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    Some(compact.chars().map(escape).collect())
}

pub(super) fn from(text: &str) -> Result<StartAt, String> {
    match text {
        "beginning" => Ok(StartAt::Beginning),
        "now" => Ok(StartAt::Now),
        _ => {
            if let Ok(ago) = humantime::parse_duration(text) {
                let then =
                    jiff::Timestamp::now().as_millisecond() - i64::try_from(ago.as_millis()).unwrap_or(0);
                return Ok(since(then));
            }
            let time: jiff::Timestamp = text.parse().map_err(|_| {
                "beginning, now, a time such as 2026-01-31T12:00:00Z, or a duration such as 2h".to_owned()
            })?;
            Ok(since(time.as_millisecond()))
        }
    }
}

/// Kafka has no time before 1970, so no such record.
fn since(at: i64) -> StartAt {
    if at < 0 { StartAt::Beginning } else { StartAt::Time(Millis(at)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_before_1970_is_the_beginning() {
        for text in ["100y", "99999999999h", "1969-01-01T00:00:00Z", "beginning"] {
            assert_eq!(from(text), Ok(StartAt::Beginning), "{text}");
        }
        assert_eq!(from("1970-01-01T00:00:00.007Z"), Ok(StartAt::Time(Millis(7))));
        assert!(from("yesterday").is_err());
    }

    #[test]
    fn a_device_can_not_write_to_the_terminal() {
        let forged = r#"{"generatorID":"g\u001b]0;x\u0007\nCLEARED","rule":"low_fuel","state":"raised","severity":"warning","field":"fuel","value":1.0,"threshold":2.0,"at":0}"#;
        let shown = line(forged.as_bytes(), false);
        assert!(shown.contains("g\\u{1b}]0;x\\u{7}\\u{a}CLEARED low_fuel: fuel 1"), "{shown}");
        assert!(!shown.contains(char::is_control), "{shown:?}");
        assert_eq!(line(b"\x1b[2Jno alert\n", true), "\\u{1b}[2Jno alert\\u{a}");
    }

    #[test]
    fn on_a_terminal_columns_are_aligned_and_severities_have_colours() {
        let alert = |state: &str, severity: &str| {
            format!(
                r#"{{"generatorID":"g\u001b[0m","rule":"low_fuel","state":"{state}","severity":"{severity}","field":"fuel","value":1.0,"threshold":2.0,"at":0}}"#
            )
        };
        let plain = "1970-01-01T00:00:00.000Z RAISED   warning  g\\u{1b}[0m low_fuel: fuel 1 (threshold 2)";
        assert_eq!(line(alert("raised", "warning").as_bytes(), false), plain);
        for (state, severity, start) in [
            ("raised", "critical", "\u{1b}[31m\u{1b}[1mRAISED   critical\u{1b}[0m"),
            ("raised", "warning", "\u{1b}[33mRAISED   warning \u{1b}[0m"),
            ("cleared", "critical", "\u{1b}[32mCLEARED  critical\u{1b}[0m"),
        ] {
            let text = format!("{:8} {severity:8}", state.to_uppercase());
            let style = coloured(&text, state, severity).force_styling(true).to_string();
            assert_eq!(style, start);
            let shown = line(alert(state, severity).as_bytes(), true);
            let shown = shown.replace(&style, &text);
            assert!(
                shown.ends_with(&format!("{text} g\\u{{1b}}[0m     low_fuel:         fuel 1 (threshold 2)")),
                "{shown}"
            );
        }
    }

    #[test]
    fn json_is_one_line_and_left_as_it_is_where_it_can_be() {
        let alert = r#"{"b":1.50,"a":"g\u001b"}"#;
        assert_eq!(document(alert.as_bytes()).as_deref(), Some(alert));
        assert_eq!(document(b"{\n \"a\": \"\xc2\x9b\x7f\"\n}").as_deref(), Some(r#"{"a":"\u009b\u007f"}"#));
        assert_eq!(document(b"no JSON"), None);
        assert_eq!(document(b"\xff"), None);
    }
}
