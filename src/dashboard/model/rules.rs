//! Rules as the page draws them: thresholds and delays.

use genwatch_core::alarm::machine::Limits;
use genwatch_core::alarm::rules::{Condition, Rule};
use serde::Serialize;

/// A rule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shown<'r> {
    /// Its name.
    pub rule: &'r str,
    /// The field that it looks at; a deadman rule looks at none.
    pub field: Option<&'static str>,
    /// On which side of the threshold the alarm is raised; a deadman rule has none.
    direction: Option<&'static str>,
    /// The threshold that raises.
    pub raise: Option<f64>,
    clear: Option<f64>,
    on_delay_ms: i64,
    off_delay_ms: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    silent_for_ms: Option<i64>,
    /// Its severity.
    pub severity: &'r str,
}

/// Shows a rule.
#[must_use]
pub fn show(rule: &Rule) -> Shown<'_> {
    let mut shown = Shown {
        rule: &rule.name,
        field: None,
        direction: None,
        raise: None,
        clear: None,
        on_delay_ms: 0,
        off_delay_ms: 0,
        silent_for_ms: None,
        severity: &rule.severity,
    };
    match &rule.condition {
        Condition::Threshold { field, limits, delays } => {
            shown.field = Some(field.name());
            shown.direction = Some(if matches!(limits, Limits::Low { .. }) { "below" } else { "above" });
            (shown.raise, shown.clear) = (Some(limits.raise_threshold()), Some(limits.clear_threshold()));
            (shown.on_delay_ms, shown.off_delay_ms) = (delays.on, delays.off);
        }
        Condition::Deadman { after } => shown.silent_for_ms = Some(*after),
    }
    shown
}

#[cfg(test)]
mod tests {
    use genwatch_core::alarm::rules::Rules;

    use super::*;

    #[test]
    fn a_rule_is_shown_with_its_thresholds() {
        let rules = Rules::default();
        let json = serde_json::to_string(&show(&rules.as_slice()[0])).unwrap();
        assert_eq!(
            json,
            r#"{"rule":"low_fuel","field":"fuel","direction":"below","raise":200.0,"clear":250.0,"on_delay_ms":0,"off_delay_ms":0,"severity":"warning"}"#
        );
    }
}
