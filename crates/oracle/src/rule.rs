//! A rule, as the rules file states it.

use std::fmt::Write as _;

/// One rule.
#[derive(Clone, Debug)]
pub struct NaiveRule {
    /// Its name, unique.
    pub name: String,
    /// Copied into the alert.
    pub severity: String,
    /// What it watches for.
    pub kind: Kind,
}

/// What a rule watches for.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A field and its thresholds.
    Limit(Limit),
    /// No reading for this many milliseconds.
    Deadman(i64),
}

/// Thresholds and delays, milliseconds.
#[derive(Clone, Debug)]
pub struct Limit {
    /// The field's name.
    pub field: &'static str,
    /// Whether it is raised below `raise`, else above it.
    pub below: bool,
    /// The threshold that raises.
    pub raise: f64,
    /// The threshold that clears, beyond the deadband; `None`: cleared as soon as raise no longer holds.
    pub clear: Option<f64>,
    /// `on_delay`
    pub on: i64,
    /// `off_delay`
    pub off: i64,
    /// `realarm`
    pub realarm: Option<i64>,
}

impl NaiveRule {
    /// The built-in rules.
    #[must_use]
    pub fn built_in() -> Vec<NaiveRule> {
        let fuel = Limit { below: true, clear: Some(250.0), ..Limit::above("fuel", 200.0) };
        let heat = Limit { clear: Some(95.0), ..Limit::above("temperature", 100.0) };
        vec![
            NaiveRule::limit("low_fuel", "warning", fuel),
            NaiveRule::limit("over_temperature", "critical", heat),
        ]
    }

    /// A rule on a field.
    #[must_use]
    pub fn limit(name: &str, severity: &str, limit: Limit) -> NaiveRule {
        NaiveRule { name: name.to_owned(), severity: severity.to_owned(), kind: Kind::Limit(limit) }
    }

    /// Returns the rule as a table of the rules file.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let NaiveRule { name, severity, kind } = self;
        let mut text = format!("[[rule]]\nname = \"{name}\"\nseverity = \"{severity}\"\n");
        // Writing to a string can't fail.
        let _ = match kind {
            Kind::Deadman(after) => writeln!(text, "silent_for = \"{after}ms\""),
            Kind::Limit(limit) => text.write_str(&limit.to_toml()),
        };
        text
    }
}

impl Limit {
    /// A rule that is raised above a value and cleared as soon as that no longer holds, without delays.
    #[must_use]
    pub fn above(field: &'static str, raise: f64) -> Limit {
        Limit { field, below: false, raise, clear: None, on: 0, off: 0, realarm: None }
    }

    fn to_toml(&self) -> String {
        let Limit { field, below, raise, clear, on, off, realarm } = self;
        let (side, other) = if *below { ("below", "above") } else { ("above", "below") };
        let clear = clear.map_or(String::new(), |clear| format!("clear_{other} = {clear:?}\n"));
        let realarm = realarm.map_or("off".to_owned(), |every| format!("{every}ms"));
        format!(
            "field = \"{field}\"\nraise_{side} = {raise:?}\n{clear}on_delay = \"{on}ms\"\noff_delay = \"{off}ms\"\n\
             realarm = \"{realarm}\"\n"
        )
    }

    pub(crate) fn raises(&self, value: f64) -> bool {
        if self.below { value < self.raise } else { value > self.raise }
    }

    pub(crate) fn clears(&self, value: f64) -> bool {
        match (self.clear, self.below) {
            (None, _) => !self.raises(value),
            (Some(clear), true) => value > clear,
            (Some(clear), false) => value < clear,
        }
    }
}
