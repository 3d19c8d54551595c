//! One step of one rule for one generator.
//!
//! The phases are those of alarm management (ISA-18.2, IEC 62682): a *deadband* between the raise and the clear
//! threshold, an *on-delay* before an alarm is raised, an *off-delay* before it is cleared. The whole memory is
//! `(phase, since)`, so that a new owner of the partition restores it exactly.

use serde::{Deserialize, Serialize};

use crate::types::Millis;

/// The phase of one rule for one generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// No alarm.
    Normal,
    /// The raise condition holds; its on-delay isn't over.
    Pending,
    /// The alarm is active.
    Raised,
    /// The alarm is active, the clear condition holds; its off-delay isn't over.
    Clearing,
}

impl Phase {
    /// Whether a raised event has no cleared event yet.
    #[inline]
    #[must_use]
    pub fn is_active(self) -> bool {
        matches!(self, Phase::Raised | Phase::Clearing)
    }
}

/// A phase and the event time it was entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RuleState {
    /// The phase.
    pub phase: Phase,
    /// When it was entered, event time.
    pub since: Millis,
}

impl RuleState {
    /// The state of a generator that no reading has touched.
    pub const INITIAL: RuleState = RuleState { phase: Phase::Normal, since: Millis::NEVER };
}

/// What a rule compares: a limit and its bad side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limits {
    /// Raised below `raise` (strict), cleared above `clear` (strict), or where raise no longer holds when `None`.
    Low {
        /// `raise_below`
        raise: f64,
        /// `clear_above`
        clear: Option<f64>,
    },
    /// Raised above `raise` (strict), cleared below `clear` (strict), or where raise no longer holds when `None`.
    High {
        /// `raise_above`
        raise: f64,
        /// `clear_below`
        clear: Option<f64>,
    },
}

impl Limits {
    /// Whether `value` meets the raise condition.
    #[inline]
    #[must_use]
    pub fn raises(self, value: f64) -> bool {
        match self {
            Limits::Low { raise, .. } => value < raise,
            Limits::High { raise, .. } => value > raise,
        }
    }

    /// Whether `value` meets the clear condition.
    #[inline]
    #[must_use]
    pub fn clears(self, value: f64) -> bool {
        match self {
            Limits::Low { clear: Some(clear), .. } => value > clear,
            Limits::High { clear: Some(clear), .. } => value < clear,
            Limits::Low { clear: None, .. } | Limits::High { clear: None, .. } => !self.raises(value),
        }
    }

    /// The threshold that raises.
    #[must_use]
    pub fn raise_threshold(self) -> f64 {
        match self {
            Limits::Low { raise, .. } | Limits::High { raise, .. } => raise,
        }
    }

    /// The threshold that clears.
    #[must_use]
    pub fn clear_threshold(self) -> f64 {
        match self {
            Limits::Low { raise, clear } | Limits::High { raise, clear } => clear.unwrap_or(raise),
        }
    }
}

/// The delays of a rule, in milliseconds of event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delays {
    /// How long the raise condition must hold.
    pub on: i64,
    /// How long the clear condition must hold.
    pub off: i64,
    /// Repeat the raised event after this long while active; `None`: never.
    pub realarm: Option<i64>,
}

/// The outcome of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The reading is older than the phase: not evaluated.
    Late,
    /// Nothing changed.
    Same,
    /// The phase changed or was entered again; no event.
    Moved(RuleState),
    /// The alarm is raised: an event leaves. `began`: when the condition began to hold.
    Raised {
        /// The new rule state.
        entered: RuleState,
        /// When the condition began to hold.
        began: Millis,
    },
    /// The alarm is cleared: an event leaves. `began`: when the clear condition began to hold.
    Cleared {
        /// The new rule state.
        entered: RuleState,
        /// When the clear condition began to hold.
        began: Millis,
    },
}

/// Evaluates a value measured `at` some event time, by the rule's `limits`, `delays` and current state.
#[inline]
#[must_use]
pub fn step(limits: Limits, delays: Delays, rule_state: RuleState, value: f64, at: Millis) -> Step {
    use Phase::{Clearing, Normal, Pending, Raised};

    if at < rule_state.since {
        return Step::Late;
    }
    let enter = |phase| RuleState { phase, since: at };
    let held = at.since(rule_state.since);
    match rule_state.phase {
        Normal if !limits.raises(value) => Step::Same,
        Normal if delays.on > 0 => Step::Moved(enter(Pending)),
        Normal => Step::Raised { entered: enter(Raised), began: at },

        Pending if !limits.raises(value) => Step::Moved(enter(Normal)),
        Pending if held >= delays.on => Step::Raised { entered: enter(Raised), began: rule_state.since },
        Pending => Step::Same,

        Raised if limits.clears(value) && delays.off > 0 => Step::Moved(enter(Clearing)),
        Raised if limits.clears(value) => Step::Cleared { entered: enter(Normal), began: at },
        Raised => match delays.realarm {
            // Entered again, so that `since` alone says when the next repeat is due.
            Some(every) if held >= every => Step::Raised { entered: enter(Raised), began: rule_state.since },
            _ => Step::Same,
        },

        Clearing if !limits.clears(value) => Step::Moved(enter(Raised)),
        Clearing if held >= delays.off => Step::Cleared { entered: enter(Normal), began: rule_state.since },
        Clearing => Step::Same,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FUEL: Limits = Limits::Low { raise: 200.0, clear: Some(250.0) };
    const AT_ONCE: Delays = Delays { on: 0, off: 0, realarm: None };
    const DELAYED: Delays = Delays { on: 10, off: 20, realarm: None };

    fn rule_state(phase: Phase, since: i64) -> RuleState {
        RuleState { phase, since: Millis(since) }
    }

    /// Feeds `(at, value)` pairs; returns the phases that follow and a label for each event.
    fn run(limits: Limits, delays: Delays, readings: &[(i64, f64)]) -> Vec<(Phase, &'static str)> {
        let mut now = RuleState::INITIAL;
        readings
            .iter()
            .map(|&(at, value)| {
                let mark = match step(limits, delays, now, value, Millis(at)) {
                    Step::Late => "late",
                    Step::Same => "",
                    Step::Moved(next) => {
                        now = next;
                        "silent"
                    }
                    Step::Raised { entered: next, .. } => {
                        now = next;
                        "RAISED"
                    }
                    Step::Cleared { entered: next, .. } => {
                        now = next;
                        "CLEARED"
                    }
                };
                (now.phase, mark)
            })
            .collect()
    }

    #[test]
    fn thresholds_are_strict_and_the_deadband_changes_nothing() {
        use Phase::{Normal, Raised};
        let readings = [(1, 200.0), (2, 199.9), (3, 150.0), (4, 225.0), (5, 250.0), (6, 250.1), (7, 225.0)];
        assert_eq!(
            run(FUEL, AT_ONCE, &readings),
            [
                (Normal, ""),
                (Raised, "RAISED"),
                (Raised, ""),
                (Raised, ""),
                (Raised, ""),
                (Normal, "CLEARED"),
                (Normal, "")
            ]
        );
    }

    #[test]
    fn a_high_limit_mirrors_a_low_one() {
        let limits = Limits::High { raise: 100.0, clear: Some(95.0) };
        let marks: Vec<_> = run(limits, AT_ONCE, &[(1, 100.0), (2, 100.1), (3, 95.0), (4, 94.9)]);
        assert_eq!(marks.iter().map(|m| m.1).collect::<Vec<_>>(), ["", "RAISED", "", "CLEARED"]);
    }

    #[test]
    fn without_a_clear_threshold_clear_means_that_raise_no_longer_holds() {
        let limits = Limits::Low { raise: 200.0, clear: None };
        let marks: Vec<_> = run(limits, AT_ONCE, &[(1, 199.0), (2, 200.0), (3, 199.0)]);
        assert_eq!(marks.iter().map(|m| m.1).collect::<Vec<_>>(), ["RAISED", "CLEARED", "RAISED"]);
    }

    #[test]
    fn an_on_delay_needs_the_condition_to_hold_throughout() {
        use Phase::{Normal, Pending, Raised};
        let readings = [(0, 100.0), (9, 100.0), (9, 200.0), (12, 100.0), (21, 100.0), (22, 100.0)];
        assert_eq!(
            run(FUEL, DELAYED, &readings),
            [
                (Pending, "silent"),
                (Pending, ""),
                (Normal, "silent"),
                (Pending, "silent"),
                (Pending, ""),
                (Raised, "RAISED")
            ]
        );
    }

    #[test]
    fn an_off_delay_falls_back_to_raised_in_silence() {
        use Phase::{Clearing, Normal, Raised};
        let readings = [(0, 1.0), (10, 1.0), (11, 300.0), (20, 225.0), (21, 300.0), (40, 300.0), (41, 300.0)];
        let phases = run(FUEL, DELAYED, &readings);
        assert_eq!(
            phases[2..],
            [
                (Clearing, "silent"),
                (Raised, "silent"),
                (Clearing, "silent"),
                (Clearing, ""),
                (Normal, "CLEARED")
            ]
        );
    }

    #[test]
    fn a_reading_older_than_its_phase_is_late_and_one_of_the_same_instant_is_not() {
        let raised = rule_state(Phase::Raised, 100);
        assert_eq!(step(FUEL, AT_ONCE, raised, 300.0, Millis(99)), Step::Late);
        let cleared = Step::Cleared { entered: rule_state(Phase::Normal, 100), began: Millis(100) };
        assert_eq!(step(FUEL, AT_ONCE, raised, 300.0, Millis(100)), cleared);
    }

    #[test]
    fn an_event_says_when_its_condition_began() {
        let pending = rule_state(Phase::Pending, 5);
        let step = step(FUEL, DELAYED, pending, 1.0, Millis(15));
        assert_eq!(step, Step::Raised { entered: rule_state(Phase::Raised, 15), began: Millis(5) });
    }

    #[test]
    fn realarm_repeats_while_active_and_counts_from_the_last_event() {
        let delays = Delays { realarm: Some(10), ..AT_ONCE };
        let readings = [(0, 1.0), (9, 1.0), (10, 225.0), (19, 1.0), (20, 1.0), (21, 300.0), (40, 300.0)];
        let marks: Vec<_> = run(FUEL, delays, &readings).iter().map(|m| m.1).collect();
        assert_eq!(marks, ["RAISED", "", "RAISED", "", "RAISED", "CLEARED", ""]);
    }
}
