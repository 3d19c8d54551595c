//! Options shared by several commands, and how values are parsed.

use std::time::Duration;

use clap::builder::{BoolishValueParser, PossibleValue};
use clap::{ArgAction, Args};
use genwatch_bench::bare::BareClient;
use genwatch_bench::rebalance::Scenario;
use genwatch_core::engine::commit::Delivery;
use genwatch_core::engine::start::{OnNewTopic, OnOutOfRange};
use genwatch_kafka::config::{Connection, GroupProtocol};
use genwatch_kafka::topics::Topics;
use secrecy::SecretString;

use super::Failure;
use crate::sink::influx::line_protocol::Precision;

/// The longest time that an option takes.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// How to reach the cluster, and the names from which others derive.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Cluster")]
pub(super) struct ClusterOptions {
    /// Address of Kafka: host:port, several separated by commas.
    #[arg(short, long, default_value = "localhost:9092", env = "GENWATCH_BROKERS", value_parser = brokers)]
    pub(super) brokers: String,

    /// The topic of the readings; <TOPIC>_alerts and <TOPIC>_dlq derive from it.
    #[arg(short, long, default_value = "emergency_generators", env = "GENWATCH_TOPIC", value_parser = topic_name)]
    pub(super) topic: String,

    /// The consumer group; <GROUP>_state and <GROUP>_workers derive from it.
    #[arg(short, long, default_value = "genwatch", env = "GENWATCH_GROUP", value_parser = topic_name)]
    pub(super) group: String,

    /// A property of librdkafka's clients, as key=value, or @FILE with one a line. May be repeated; in GENWATCH_X one a
    /// line.
    #[arg(short = 'X', value_name = "KEY=VALUE", env = "GENWATCH_X", hide_env_values = true)]
    properties: Vec<SecretString>,
}

/// A value of an enum that doesn't know clap.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice<T>(pub(super) T);

/// Lets clap parse such an enum: each variant has a name and a help text.
macro_rules! value_enum {
    ($kind:ident { $($variant:ident = $name:literal, $help:literal;)+ }) => {
        impl clap::ValueEnum for Choice<$kind> {
            fn value_variants<'a>() -> &'a [Self] {
                &[$(Choice($kind::$variant)),+]
            }

            fn to_possible_value(&self) -> Option<PossibleValue> {
                Some(match self.0 {
                    $($kind::$variant => PossibleValue::new($name).help($help)),+
                })
            }
        }
    };
}

value_enum! { OnOutOfRange {
    Fail = "fail", "Don't continue there: readings were lost before they were processed";
    Earliest = "earliest", "Continue with the earliest record, and log the gap";
} }

value_enum! { OnNewTopic {
    Fail = "fail", "Stop with an error: nothing of it is processed";
    KeepStates = "keep-states", "Process it from its first reading; alarms stay as they are";
    ForgetStates = "forget-states", "Process it from its first reading, with no alarm known";
} }

value_enum! { Delivery {
    ExactlyOnce = "exactly-once", "Every effect is visible once to a reader of committed records";
    AtLeastOnce = "at-least-once", "None is lost; after a crash some are repeated, with the same id";
} }

value_enum! { GroupProtocol {
    Classic = "classic", "Join and sync, with the cooperative-sticky assignor";
    Consumer = "consumer", "KIP-848: the broker assigns";
} }

value_enum! { Precision {
    Ms = "ms", "Milliseconds, as Kafka has them: readings of one generator within a millisecond overwrite each other";
    S = "s", "Seconds: readings of one generator within a second overwrite each other";
    Us = "us", "Microseconds";
    Ns = "ns", "Nanoseconds, the last six digits from the record's offset: no reading overwrites another";
} }

value_enum! { Scenario {
    JoinAndLeave = "join-leave", "A worker joins two others, and leaves again in order";
    Kill = "kill", "One of three workers is killed; later another takes its place";
    RollingRestart = "rolling-restart", "Each of six workers in turn is stopped in order, and another started in its place";
} }

value_enum! { BareClient {
    Base = "base", "`BaseConsumer`: polled by a thread";
    Stream = "stream", "`StreamConsumer`: awaited in a task";
} }

impl ClusterOptions {
    pub(super) fn connection(&self) -> Result<Connection, Failure> {
        Connection::new(&self.brokers, &self.properties).map_err(Failure::usage)
    }

    pub(super) fn topics(&self) -> Topics {
        Topics::new(&self.topic, &self.group)
    }
}

/// Lets environment variables switch every option without a value as people write it: 1, true, yes, on and their
/// opposites. (clap's own parser takes `true` and `false` only.)
pub(super) fn flags_by_environment(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|arg| match arg.get_action() {
        ArgAction::SetTrue => arg.value_parser(BoolishValueParser::new()),
        _ => arg,
    });
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, flags_by_environment))
}

/// Turns `mqtt://me:secret@host` into `mqtt://...@host`; `None` for a text without a name and a password.
pub(super) fn without_credentials(text: &str) -> Option<String> {
    let (before, host) = text.rsplit_once('@')?;
    let start = before.find("://").map(|at| at + "://".len());
    (start.is_some() || before.contains(':')).then(|| format!("{}...@{host}", &before[..start.unwrap_or(0)]))
}

/// Parses broker addresses; librdkafka would accept an empty list and wait endlessly.
pub(super) fn brokers(text: &str) -> Result<String, String> {
    if text.split(',').any(|broker| broker.trim().is_empty()) {
        return Err("expected host:port, several by commas".to_owned());
    }
    Ok(text.to_owned())
}

/// Parses a name that Kafka allows for a topic (and we for a group, as a topic derives from it), with room for our
/// suffixes.
pub(super) fn topic_name(name: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.len() > 240 || matches!(name, "." | "..") || !name.chars().all(allowed) {
        return Err("1 to 240 of the characters a-z A-Z 0-9 . _ -".to_owned());
    }
    Ok(name.to_owned())
}

/// Parses a duration such as `500ms`, `20s`, `5m`, or `0`. At most a year, so that a point in time can hold it.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration > LONGEST => Err("longer than a year".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("{error} (such as 500ms, 20s, 5m)")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_broker_is_no_address() {
        for text in ["", " ", ",", "a:1,", "a:1,,b:2"] {
            assert!(brokers(text).is_err(), "{text:?}");
        }
        assert_eq!(brokers("a:1,[::1]:2").as_deref(), Ok("a:1,[::1]:2"));
    }

    #[test]
    fn options_show_no_secret() {
        let options = ClusterOptions {
            brokers: "a:1".to_owned(),
            topic: "t".to_owned(),
            group: "g".to_owned(),
            properties: vec!["sasl.password=hunter2".into()],
        };
        assert!(!format!("{options:?}").contains("hunter2"), "{options:?}");
    }
}
