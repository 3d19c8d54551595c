//! What `scripts/chaos` sets.

use std::path::PathBuf;

use crate::schedule::Kind;

/// The group protocol of the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// The classic protocol, cooperative-sticky.
    Classic,
    /// The same, with a name for each worker that its successor inherits.
    Static,
    /// KIP-848.
    Consumer,
}

impl Protocol {
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Classic => "classic",
            Protocol::Static => "static",
            Protocol::Consumer => "consumer",
        }
    }
}

/// The workers' delivery guarantee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    ExactlyOnce,
    AtLeastOnce,
}

impl Delivery {
    pub fn name(self) -> &'static str {
        match self {
            Delivery::ExactlyOnce => "exactly-once",
            Delivery::AtLeastOnce => "at-least-once",
        }
    }
}

/// The options of a run.
#[derive(Clone, Debug)]
pub struct Options {
    pub seed: u64,
    pub faults: usize,
    pub protocol: Protocol,
    pub delivery: Delivery,
    /// Readings a second.
    pub rate: u32,
    /// File that the report is appended to.
    pub report: Option<PathBuf>,
    /// Whether logs and data are kept.
    pub keep: bool,
    /// `RUST_LOG` of the workers, and whether librdkafka logs everything.
    pub debug: bool,
}

impl Options {
    /// The command that repeats this attack.
    pub fn command(&self) -> String {
        format!(
            "scripts/chaos --seed {} --faults {} --protocol {} --delivery {}",
            self.seed,
            self.faults,
            self.protocol.name(),
            self.delivery.name()
        )
    }
}

impl Options {
    pub fn from_environment() -> Options {
        let value = |name: &str| std::env::var(format!("CHAOS_{name}")).ok().filter(|text| !text.is_empty());
        let number = |name: &str| {
            value(name)
                .map(|text| text.parse::<u64>().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
        };
        Options {
            seed: number("SEED").unwrap_or(15),
            faults: number("FAULTS").map_or(Kind::ALL.len(), |count| usize::try_from(count).unwrap()),
            protocol: match value("PROTOCOL").as_deref() {
                None | Some("classic") => Protocol::Classic,
                Some("static") => Protocol::Static,
                Some("consumer") => Protocol::Consumer,
                Some(other) => panic!("there is no protocol {other}: classic, static, consumer"),
            },
            delivery: match value("DELIVERY").as_deref() {
                None | Some("exactly-once") => Delivery::ExactlyOnce,
                Some("at-least-once") => Delivery::AtLeastOnce,
                Some(other) => panic!("there is no delivery {other}: exactly-once, at-least-once"),
            },
            rate: u32::try_from(number("RATE").unwrap_or(300)).unwrap(),
            report: value("REPORT").map(PathBuf::from),
            keep: value("KEEP").is_some(),
            debug: value("DEBUG").is_some(),
        }
    }
}
