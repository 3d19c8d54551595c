//! The rules file: TOML, read once at start and checked, so that an operator learns of a mistake before it costs an
//! alarm.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::machine::{Delays, Limits};
use crate::reading::Field;

/// The rules in force when no file is given.
pub const DEFAULT_RULES: &str = r#"[[rule]]
name = "low_fuel"
field = "fuel"
raise_below = 200.0
clear_above = 250.0
severity = "warning"

[[rule]]
name = "over_temperature"
field = "temperature"
raise_above = 100.0
clear_below = 95.0
severity = "critical"
"#;

/// The longest rule name; names are part of event ids and a metric label.
const MAX_NAME_BYTES: usize = 64;

/// One enabled rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Its name, unique in the file.
    pub name: String,
    /// `info`, `warning`, `critical`, or any name that the operator's paging uses.
    pub severity: String,
    /// What it watches for.
    pub condition: Condition,
}

/// What a rule watches for.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// A field against thresholds, in event time.
    Threshold {
        /// Which field.
        field: Field,
        /// The thresholds and the side that is bad.
        limits: Limits,
        /// How long the conditions must hold.
        delays: Delays,
    },
    /// A deadman rule: no reading for this many milliseconds of wall clock.
    Deadman {
        /// Milliseconds without a reading.
        after: i64,
    },
}

/// The enabled rules, in the order of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules(Vec<Arc<Rule>>);

impl Rules {
    /// Reads and checks a rules file.
    ///
    /// # Errors
    /// When the file can't be read, isn't TOML, or a rule makes no sense; the message names file and line.
    pub fn load(path: &Path) -> Result<Rules, RulesError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| RulesError::Unreadable { path: path.to_owned(), error })?;
        Rules::parse(&text, path)
    }

    /// Checks the text of a rules file; `path` only appears in messages.
    ///
    /// # Errors
    /// As [`Rules::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Rules, RulesError> {
        let reject = |span: Option<Range<usize>>, message: String| RulesError::Invalid {
            path: path.to_owned(),
            line: span.map_or(1, |span| text[..span.start].matches('\n').count() + 1),
            message,
        };
        let file: RulesFile =
            toml::from_str(text).map_err(|error| reject(error.span(), error.message().to_owned()))?;
        if file.rule.is_empty() {
            return Err(reject(None, "there is no [[rule]] in it, so nothing would be flagged".to_owned()));
        }

        let mut names = Vec::new();
        let mut rules = Vec::new();
        for entry in file.rule {
            let span = entry.span();
            let RuleEntry { name, severity, enabled, .. } = entry.get_ref().clone();
            check_name(name.get_ref()).map_err(|message| reject(Some(name.span()), message))?;
            if names.contains(name.get_ref()) {
                return Err(reject(
                    Some(name.span()),
                    format!("a second rule is named '{}'", name.get_ref()),
                ));
            }
            names.push(name.get_ref().clone());
            let condition = condition(entry.into_inner()).map_err(|Mistake { span: at, message }| {
                reject(Some(at.unwrap_or(span)), format!("rule '{}': {message}", name.get_ref()))
            })?;
            if enabled {
                rules.push(Arc::new(Rule { name: name.into_inner(), severity, condition }));
            }
        }
        if rules.is_empty() {
            return Err(reject(
                None,
                "every [[rule]] in it is disabled, so nothing would be flagged".to_owned(),
            ));
        }
        Ok(Rules(rules))
    }

    /// The enabled rules, in the order of the file; a rule's index is also that of its state in a generator's state.
    #[inline]
    #[must_use]
    pub fn as_slice(&self) -> &[Arc<Rule>] {
        &self.0
    }

    /// Whether some rule needs to know a generator that has had no alarm yet: a deadman rule does.
    #[must_use]
    pub fn watch_silence(&self) -> bool {
        self.longest_silence().is_some()
    }

    /// The longest `silent_for`, in milliseconds; `None` without a deadman rule.
    #[must_use]
    pub fn longest_silence(&self) -> Option<i64> {
        let silences = self.0.iter().filter_map(|rule| match rule.condition {
            Condition::Deadman { after } => Some(after),
            Condition::Threshold { .. } => None,
        });
        silences.max()
    }
}

impl Default for Rules {
    /// The built-in [`DEFAULT_RULES`].
    fn default() -> Self {
        // The text is a constant, parsed in a test; an empty set would be the only other answer.
        Rules::parse(DEFAULT_RULES, Path::new("built-in rules")).unwrap_or(Rules(Vec::new()))
    }
}

/// Why a rules file was refused.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// The file can't be read.
    #[error("cannot read the rules file {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        error: std::io::Error,
    },
    /// It makes no sense.
    #[error("{}:{line}: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The mistake and the remedy.
        message: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RulesFile {
    #[serde(default)]
    rule: Vec<Spanned<RuleEntry>>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleEntry {
    name: Spanned<String>,
    field: Option<Spanned<String>>,
    raise_below: Option<Spanned<f64>>,
    raise_above: Option<Spanned<f64>>,
    clear_below: Option<Spanned<f64>>,
    clear_above: Option<Spanned<f64>>,
    on_delay: Option<Spanned<String>>,
    off_delay: Option<Spanned<String>>,
    realarm: Option<Spanned<String>>,
    silent_for: Option<Spanned<String>>,
    #[serde(default = "default_severity")]
    severity: String,
    #[serde(default = "enabled_by_default")]
    enabled: bool,
}

pub(super) fn default_severity() -> String {
    "warning".to_owned()
}

fn enabled_by_default() -> bool {
    true
}

/// A mistake in one rule; `span` is set where a single value is to blame.
struct Mistake {
    span: Option<Range<usize>>,
    message: String,
}

impl Mistake {
    fn at<T>(value: &Spanned<T>, message: impl fmt::Display) -> Mistake {
        Mistake { span: Some(value.span()), message: message.to_string() }
    }

    fn of_rule(message: impl fmt::Display) -> Mistake {
        Mistake { span: None, message: message.to_string() }
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.chars().all(allowed) {
        return Err(format!(
            "a rule's name is 1 to {MAX_NAME_BYTES} of the characters a-z A-Z 0-9 _ - . (it becomes a part of event ids), not '{name}'"
        ));
    }
    Ok(())
}

fn condition(entry: RuleEntry) -> Result<Condition, Mistake> {
    match &entry.silent_for {
        Some(silent_for) => silence(silent_for, &entry),
        None => threshold(&entry),
    }
}

fn silence(silent_for: &Spanned<String>, entry: &RuleEntry) -> Result<Condition, Mistake> {
    let thresholds = [&entry.raise_below, &entry.raise_above, &entry.clear_below, &entry.clear_above];
    let delays = [&entry.on_delay, &entry.off_delay, &entry.realarm];
    if entry.field.is_some() || thresholds.iter().any(|t| t.is_some()) || delays.iter().any(|d| d.is_some()) {
        return Err(Mistake::at(
            silent_for,
            "a deadman rule (silent_for) takes no field, threshold or delay: write a second rule for those",
        ));
    }
    match millis(silent_for)? {
        0 => Err(Mistake::at(silent_for, "silent_for must be longer than zero")),
        after => Ok(Condition::Deadman { after }),
    }
}

fn threshold(entry: &RuleEntry) -> Result<Condition, Mistake> {
    let Some(field) = &entry.field else {
        return Err(Mistake::of_rule("it needs a field and a raise threshold, or silent_for"));
    };
    let known = || Field::ALL.map(Field::name).join(", ");
    let field = Field::from_name(field.get_ref()).ok_or_else(|| {
        Mistake::at(field, format!("unknown field '{}'; there are {}", field.get_ref(), known()))
    })?;

    let limits = match (&entry.raise_below, &entry.raise_above) {
        (Some(raise), None) => low(field, raise, entry)?,
        (None, Some(raise)) => high(field, raise, entry)?,
        (None, None) => {
            return Err(Mistake::of_rule("it never raises: give raise_below or raise_above"));
        }
        (Some(_), Some(above)) => {
            return Err(Mistake::at(
                above,
                "raise_below and raise_above in one rule: write a rule for each side, so that each has its own alarm",
            ));
        }
    };
    let delay = |value: &Option<Spanned<String>>| value.as_ref().map_or(Ok(0), millis);
    let realarm = match &entry.realarm {
        Some(value) if value.get_ref() != "off" => match millis(value)? {
            0 => return Err(Mistake::at(value, "realarm must be longer than zero, or \"off\"")),
            every => Some(every),
        },
        _ => None,
    };
    let delays = Delays { on: delay(&entry.on_delay)?, off: delay(&entry.off_delay)?, realarm };
    Ok(Condition::Threshold { field, limits, delays })
}

fn low(field: Field, raise: &Spanned<f64>, entry: &RuleEntry) -> Result<Limits, Mistake> {
    if let Some(clear) = &entry.clear_below {
        return Err(Mistake::at(
            clear,
            "it can never clear: raise_below is cleared by clear_above, not clear_below",
        ));
    }
    let (min, max) = field.range();
    let raise_below = finite("raise_below", raise)?;
    if raise_below <= min {
        return Err(Mistake::at(
            raise,
            format!("it never raises: {} is never below {raise_below}", field.name()),
        ));
    }
    let clear = entry.clear_above.as_ref().map(|clear| {
        let value = finite("clear_above", clear)?;
        if value < raise_below {
            return Err(Mistake::at(
                clear,
                format!("the deadband is inverted: clear_above ({value}) must not be less than raise_below ({raise_below})"),
            ));
        }
        if value >= max {
            return Err(Mistake::at(clear, format!("it can never clear: {} is never above {value}", field.name())));
        }
        Ok(value)
    });
    if clear.is_none() && raise_below > max {
        return Err(Mistake::at(
            raise,
            format!("it can never clear: {} is always below {raise_below}", field.name()),
        ));
    }
    Ok(Limits::Low { raise: raise_below, clear: clear.transpose()? })
}

fn high(field: Field, raise: &Spanned<f64>, entry: &RuleEntry) -> Result<Limits, Mistake> {
    if let Some(clear) = &entry.clear_above {
        return Err(Mistake::at(
            clear,
            "it can never clear: raise_above is cleared by clear_below, not clear_above",
        ));
    }
    let (min, max) = field.range();
    let raise_above = finite("raise_above", raise)?;
    if raise_above >= max {
        return Err(Mistake::at(
            raise,
            format!("it never raises: {} is never above {raise_above}", field.name()),
        ));
    }
    let clear = entry.clear_below.as_ref().map(|clear| {
        let value = finite("clear_below", clear)?;
        if value > raise_above {
            return Err(Mistake::at(
                clear,
                format!("the deadband is inverted: clear_below ({value}) must not be more than raise_above ({raise_above})"),
            ));
        }
        if value <= min {
            return Err(Mistake::at(clear, format!("it can never clear: {} is never below {value}", field.name())));
        }
        Ok(value)
    });
    if clear.is_none() && raise_above < min {
        return Err(Mistake::at(
            raise,
            format!("it can never clear: {} is always above {raise_above}", field.name()),
        ));
    }
    Ok(Limits::High { raise: raise_above, clear: clear.transpose()? })
}

fn finite(name: &str, value: &Spanned<f64>) -> Result<f64, Mistake> {
    if value.get_ref().is_finite() {
        Ok(*value.get_ref())
    } else {
        Err(Mistake::at(value, format!("{name} must be a finite number, not {}", value.get_ref())))
    }
}

fn millis(value: &Spanned<String>) -> Result<i64, Mistake> {
    let duration: Duration = humantime::parse_duration(value.get_ref()).map_err(|error| {
        Mistake::at(value, format!("'{}' is no duration such as 90s or 5m: {error}", value.get_ref()))
    })?;
    i64::try_from(duration.as_millis())
        .map_err(|_| Mistake::at(value, format!("'{}' is longer than a clock can count", value.get_ref())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        Rules::parse(text, Path::new("rules.toml")).expect_err("must be refused").to_string()
    }

    fn rule(lines: &str) -> String {
        format!("[[rule]]\nname = \"r\"\n{lines}")
    }

    #[test]
    fn the_default_rules_are_those_of_the_contract() {
        let rules = Rules::default();
        let names: Vec<_> = rules.as_slice().iter().map(|r| (r.name.as_str(), r.severity.as_str())).collect();
        assert_eq!(names, [("low_fuel", "warning"), ("over_temperature", "critical")]);
        let Condition::Threshold { field, limits, delays } = &rules.as_slice()[0].condition else {
            panic!("a threshold rule")
        };
        assert_eq!(*field, Field::Fuel);
        assert_eq!(*limits, Limits::Low { raise: 200.0, clear: Some(250.0) });
        assert_eq!(*delays, Delays { on: 0, off: 0, realarm: None });
    }

    #[test]
    fn every_key_of_the_contract_is_read() {
        let text = rule(
            "field = \"load\"\nraise_above = 90\nclear_below = 80\non_delay = \"10s\"\noff_delay = \"1m\"\nrealarm = \"1h\"\nenabled = true",
        );
        let rules = Rules::parse(&text, Path::new("rules.toml")).expect("valid");
        let Condition::Threshold { delays, .. } = &rules.as_slice()[0].condition else {
            panic!("a threshold rule")
        };
        assert_eq!(*delays, Delays { on: 10_000, off: 60_000, realarm: Some(3_600_000) });
        let deadman = Rules::parse(&rule("silent_for = \"60s\""), Path::new("rules.toml")).expect("valid");
        assert_eq!(deadman.as_slice()[0].condition, Condition::Deadman { after: 60_000 });
        assert_eq!((deadman.watch_silence(), deadman.longest_silence()), (true, Some(60_000)));
    }

    #[test]
    fn a_disabled_rule_is_checked_and_left_out() {
        let disabled = rule("field = \"fuel\"\nraise_below = 1\nenabled = false");
        let text = format!("{disabled}\n[[rule]]\nname = \"other\"\nsilent_for = \"1s\"");
        let rules = Rules::parse(&text, Path::new("rules.toml")).expect("valid");
        assert_eq!(rules.as_slice().iter().map(|rule| rule.name.as_str()).collect::<Vec<_>>(), ["other"]);
        assert!(refusal(&disabled).contains("disabled, so nothing would be flagged"));
        assert!(
            refusal(&rule("field = \"oil\"\nraise_below = 1\nenabled = false"))
                .contains("unknown field 'oil'")
        );
    }

    #[test]
    fn a_mistake_is_named_with_file_and_line() {
        let cases = [
            ("field = \"oil\"\nraise_below = 1", "rules.toml:3:", "unknown field 'oil'"),
            ("field = \"fuel\"", "rules.toml:1:", "never raises"),
            ("raise_below = 1", "rules.toml:1:", "needs a field"),
            ("field = \"fuel\"\nraise_below = 200\nclear_above = 150", "rules.toml:5:", "inverted"),
            ("field = \"fuel\"\nraise_above = 100\nclear_below = 101", "rules.toml:5:", "inverted"),
            ("field = \"fuel\"\nraise_below = 200\nclear_below = 100", "rules.toml:5:", "never clear"),
            ("field = \"fuel\"\nraise_above = 200\nclear_above = 300", "rules.toml:5:", "never clear"),
            ("field = \"lat\"\nraise_below = 10\nclear_above = 90", "rules.toml:5:", "never clear"),
            ("field = \"lon\"\nraise_above = -190", "rules.toml:4:", "never clear"),
            ("field = \"lat\"\nraise_above = 90", "rules.toml:4:", "never raises"),
            ("field = \"fuel\"\nraise_below = inf", "rules.toml:4:", "finite"),
            ("field = \"fuel\"\nraise_below = 1\nraise_above = 2", "rules.toml:5:", "a rule for each side"),
            ("field = \"fuel\"\nraise_below = 1\non_delay = \"soon\"", "rules.toml:5:", "no duration"),
            ("field = \"fuel\"\nraise_below = 1\nrealarm = \"0s\"", "rules.toml:5:", "realarm"),
            ("field = \"fuel\"\nraise_belov = 1", "rules.toml:4:", "raise_belov"),
            ("silent_for = \"0s\"", "rules.toml:3:", "longer than zero"),
            ("silent_for = \"9s\"\nfield = \"fuel\"", "rules.toml:3:", "no field"),
        ];
        for (lines, place, words) in cases {
            let message = refusal(&rule(lines));
            assert!(message.starts_with(place), "{lines}\n  gave: {message}");
            assert!(message.contains(words), "{lines}\n  gave: {message}");
        }
        assert!(refusal("").contains("no [[rule]]"));
        assert!(refusal("[[rule]]\nname = \"a b\"\nsilent_for = \"1s\"").contains("a rule's name"));
        assert!(
            refusal(
                "[[rule]]\nname = \"a\"\nsilent_for = \"1s\"\n[[rule]]\nname = \"a\"\nsilent_for = \"1s\""
            )
            .starts_with("rules.toml:5: a second rule")
        );
    }

    #[test]
    fn an_unreadable_file_is_named() {
        let error = Rules::load(Path::new("/nowhere/rules.toml")).expect_err("must be refused").to_string();
        assert!(error.contains("/nowhere/rules.toml"), "{error}");
    }
}
