//! Applies all rules to one generator: a reading, a decommissioning or a silence becomes effects.

use std::sync::Arc;

use super::event::{AlertEvent, AlertKind, Reason};
use super::machine::{Phase, RuleState, Step, step};
use super::rules::{Condition, Rule, Rules};
use super::state::{AlarmState, StoredAlarms, heard_again_after};
use crate::handler::{Handler, Incoming, Outputs, Place, ReadingPosition, Verdict, Watch};
use crate::reading::{self, BadRecord, Parsed, Values};
use crate::types::{GeneratorId, Millis, Now};

/// What a record asks of its generator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Job {
    /// Evaluate a reading.
    Reading(Values),
    /// Clear and forget the generator.
    Decommission,
}

impl Job {
    /// The job of a parsed record, and whose it is.
    #[inline]
    #[must_use]
    pub fn of<'a>(parsed: &Parsed<'a>) -> (&'a str, Job) {
        match *parsed {
            Parsed::Reading { generator, values } => (generator, Job::Reading(values)),
            Parsed::Decommissioned { generator } => (generator, Job::Decommission),
        }
    }
}

/// The rules in force, ready to apply. Stateless: the caller owns the state.
#[derive(Clone, Debug)]
pub struct Detector {
    rules: Rules,
    watch_silence: bool,
    /// Milliseconds of silence after which a generator is forgotten.
    forget_after: Option<i64>,
}

/// Where its alerts go.
type Alerts<'a> = Outputs<'a, Box<AlertEvent>>;

impl Detector {
    /// A detector for these rules.
    #[must_use]
    pub fn new(rules: Rules) -> Detector {
        let watch_silence = rules.watch_silence();
        Detector { rules, watch_silence, forget_after: None }
    }

    /// Forgets generators after `millis` of silence, if any, as if they were decommissioned. A generator is forgotten
    /// only after each deadman rule has raised its alarm, and never without such a rule, whose state holds the time
    /// of the last reading.
    #[must_use]
    pub fn forget_silent_after(self, millis: Option<i64>) -> Detector {
        let forget_after =
            millis.zip(self.rules.longest_silence()).map(|(limit, longest)| limit.max(longest));
        Detector { forget_after, ..self }
    }

    /// The rules in force.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Applies a reading: updates the state, puts out alerts, counts late evaluations by rule index.
    #[inline]
    fn reading(
        &self,
        state: &mut AlarmState,
        values: &Values,
        at: &Place<'_>,
        out: &mut Alerts<'_>,
    ) -> Verdict {
        let Place { generator, source, .. } = *at;
        let mut changed = self.watch_silence && !at.is_stored;
        for (index, rule) in self.rules.as_slice().iter().enumerate() {
            let rule_state = &mut state.rule_states[index];
            let (entered, event) = match &rule.condition {
                Condition::Threshold { field, limits, delays } => {
                    // An absent optional field neither raises nor clears.
                    let Some(value) = values.get(*field) else { continue };
                    let (entered, decided) = match step(*limits, *delays, *rule_state, value, source.at) {
                        Step::Same => continue,
                        Step::Late => {
                            out.count(index);
                            continue;
                        }
                        Step::Moved(entered) => (entered, None),
                        Step::Raised { entered, began } => (entered, Some((AlertKind::Raised, began))),
                        Step::Cleared { entered, began } => (entered, Some((AlertKind::Cleared, began))),
                    };
                    (entered, decided.map(|(kind, began)| (kind, Some(value), began)))
                }
                // Any reading ends a silence, even a late one: the generator is alive.
                Condition::Deadman { .. } if rule_state.phase.is_active() => (
                    RuleState { phase: Phase::Normal, since: source.at },
                    Some((AlertKind::Cleared, None, source.at)),
                ),
                // Stored now and then, so that the next owner knows. In event time, as all states are.
                Condition::Deadman { after } => {
                    let again = rule_state.since.0.max(-1).saturating_add(heard_again_after(*after));
                    if source.at.0 < 0 || (*rule_state != RuleState::INITIAL && source.at.0 < again) {
                        continue;
                    }
                    (RuleState { phase: Phase::Normal, since: source.at }, None)
                }
            };
            *rule_state = entered;
            changed = true;
            if let Some((kind, value, since)) = event {
                let position = Some((values.lat(), values.lon()));
                let event = AlertEvent::new(generator, Arc::clone(rule), kind, source, since);
                out.push(Box::new(AlertEvent { value, position, ..event }));
            }
        }
        // Only changes are stored.
        if changed { Verdict::Changed } else { Verdict::Same }
    }

    /// Clears the active alarms for `reason`, which has held since `since`.
    fn clear_all(
        &self,
        generator: &GeneratorId,
        state: &AlarmState,
        source: ReadingPosition,
        since: Millis,
        reason: Reason,
        out: &mut Alerts<'_>,
    ) {
        let rule_states = self.rules.as_slice().iter().zip(&state.rule_states);
        let active = rule_states.filter(|(_, rule_state)| rule_state.phase.is_active());
        for rule in active.map(|(rule, _)| Arc::clone(rule)).chain(state.carried_alarms()) {
            let event = AlertEvent::new(generator, rule, AlertKind::Cleared, source, since);
            out.push(Box::new(AlertEvent { reason: Some(reason), ..event }));
        }
    }
}

impl Handler for Detector {
    type Task = Job;
    type Answer = ();
    type State = AlarmState;
    type Stored = StoredAlarms;
    type Output = Box<AlertEvent>;

    fn parse<'a>(&self, record: &Incoming<'a>) -> Result<(&'a str, Job), BadRecord> {
        reading::parse(record.key, record.value).map(|parsed| Job::of(&parsed))
    }

    fn create(&self, now: Now) -> AlarmState {
        AlarmState::new(&self.rules, now.mono)
    }

    fn restore(&self, stored: StoredAlarms, now: Now) -> AlarmState {
        AlarmState::restore(stored, &self.rules, now)
    }

    fn store(&self, state: &AlarmState) -> StoredAlarms {
        state.to_stored(&self.rules)
    }

    #[inline]
    fn handle(
        &self,
        state: &mut AlarmState,
        job: Job,
        (): (),
        at: &Place<'_>,
        out: &mut Alerts<'_>,
    ) -> Verdict {
        match job {
            Job::Reading(values) => self.reading(state, &values, at, out),
            Job::Decommission => {
                self.clear_all(at.generator, state, at.source, at.source.at, Reason::Decommissioned, out);
                Verdict::Gone
            }
        }
    }

    /// A repeat is a sign of life too; at worst, a silence is noticed later.
    #[inline]
    fn seen(&self, state: &mut AlarmState, now: Now) {
        state.last_seen = now.mono;
    }

    /// Whether there is a deadman rule.
    fn watches(&self) -> bool {
        self.watch_silence
    }

    /// Checks whether the generator has been silent for too long: raises alarms, or forgets it as if it were
    /// decommissioned.
    fn watch(&self, state: &mut AlarmState, at: &Watch<'_>, out: &mut Alerts<'_>) -> Verdict {
        let Watch { generator, partition, asked, now, .. } = *at;
        if !at.is_stored {
            return Verdict::Same;
        }
        // Measured by the monotonic clock, which nobody sets; reported by the wall clock as it is now.
        let quiet = asked.mono.since(state.last_seen);
        let time = Millis(now.wall.0 - now.mono.since(asked.mono));
        let mut changed = false;
        for (rule, rule_state) in self.rules.as_slice().iter().zip(&mut state.rule_states) {
            let raise = |after: i64| quiet >= after && !rule_state.phase.is_active();
            let Rule { condition: Condition::Deadman { after }, .. } = **rule else {
                continue;
            };
            if !raise(after) {
                continue;
            }
            *rule_state = RuleState { phase: Phase::Raised, since: time };
            changed = true;
            let source = ReadingPosition { partition, offset: at.last, at: time };
            let (value, reason) = (Some(quiet as f64 / 1000.0), Some(Reason::Silent));
            let since = Millis(time.0 - quiet);
            let event = AlertEvent::new(generator, Arc::clone(rule), AlertKind::Raised, source, since);
            out.push(Box::new(AlertEvent { value, reason, ..event }));
        }
        if changed {
            return Verdict::Changed;
        }
        // Each deadman rule has raised its alarm, as none waits for longer. So the state covers the last reading, and
        // the partition's next owner decides the same.
        if self.forget_after.is_none_or(|limit| quiet < limit) {
            return Verdict::Same;
        }
        let source = ReadingPosition { partition, offset: at.covered, at: time };
        self.clear_all(generator, state, source, Millis(time.0 - quiet), Reason::Forgotten, out);
        Verdict::Gone
    }

    fn may_forget(&self, state: &AlarmState, idle: i64, now: Now) -> bool {
        state.is_new() && now.mono.since(state.last_seen) >= idle
    }

    /// One a rule.
    fn counters(&self) -> usize {
        self.rules.as_slice().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::effect::Effect;
    use crate::handler::tracked::{Applied, Passed, Times};
    use crate::handler::{LogIdentity, StoredState, Tracked};
    use crate::types::{Epoch, Mono, Offset, PartitionId};

    type State = Tracked<Detector>;

    const DEADMAN: &str = "[[rule]]\nname = \"gone\"\nsilent_for = \"10s\"\n";

    fn detector_rules() -> Rules {
        Rules::parse(DEADMAN, "rules.toml".as_ref()).expect("valid rules")
    }

    fn detector() -> Detector {
        Detector::new(detector_rules())
    }

    /// Both clocks; the wall clock is set `set` ahead.
    fn both(mono: i64, set: i64) -> Now {
        Now { mono: Mono(mono), wall: Millis(mono + set) }
    }

    fn read(detector: &Detector, state: &mut State, offset: i64, now: i64) -> Vec<Effect> {
        read_record(detector, state, offset, 0, now)
    }

    /// A reading that is processed as soon as it is written.
    fn read_at(detector: &Detector, state: &mut State, offset: i64, at: i64) -> Vec<Effect> {
        read_record(detector, state, offset, at, at)
    }

    fn read_record(detector: &Detector, state: &mut State, offset: i64, at: i64, now: i64) -> Vec<Effect> {
        let text = br#"{"generatorID":"g","lat":1,"lon":2,"temperature":74,"pressure":198,"fuel":10}"#;
        let Ok(crate::reading::Parsed::Reading { values, .. }) =
            crate::reading::parse(Some(b"g"), Some(text))
        else {
            panic!("a reading");
        };
        let source = ReadingPosition { partition: PartitionId(0), offset: Offset(offset), at: Millis(at) };
        let mut effects = Vec::new();
        apply(detector, state, Job::Reading(values), source, both(now, 0), &mut effects);
        effects
    }

    /// Returns whether the generator is gone.
    fn apply(
        detector: &Detector,
        state: &mut State,
        job: Job,
        source: ReadingPosition,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let log = LogIdentity { topic: None, epoch: || Epoch(4) };
        let (g, times) = (GeneratorId::from("g"), Times { now, watermark: Millis(0) });
        state.apply(detector, &g, job, (), source, &log, times, effects, &mut [0, 0]) == Applied::Gone
    }

    /// Looks for silence up to `asked`. Returns whether the generator is forgotten.
    fn silence(
        detector: &Detector,
        state: &mut State,
        (partition, last): (i32, i64),
        (asked, now): (Now, Now),
        effects: &mut Vec<Effect>,
    ) -> bool {
        let passed = Passed {
            partition: PartitionId(partition),
            asked,
            times: Times { now, watermark: Millis(0) },
            quiet: None,
        };
        let last = (Offset(last), Epoch(4));
        state.watch(detector, &GeneratorId::from("g"), last, passed, None, effects, &mut [])
    }

    fn look(detector: &Detector, state: &mut State, last: i64, asked: i64, now: i64) -> Option<StoredState> {
        let mut effects = Vec::new();
        silence(detector, state, (0, last), (both(asked, 0), both(now, 0)), &mut effects);
        let json = effects.last()?.as_state()?.json.as_ref()?;
        Some(StoredState::from_json(json).expect("own format"))
    }

    #[test]
    fn a_silence_is_not_ended_by_readings_before_it() {
        let detector = detector();
        let mut state = State::new(&detector, both(0, 0));
        assert_eq!(read(&detector, &mut state, 5, 0).len(), 1, "it is known from now on");
        assert_eq!(read(&detector, &mut state, 9, 0).len(), 0, "nothing new");
        let stored = look(&detector, &mut state, 9, 10_000, 10_000).expect("raised");
        assert_eq!(stored.offset, Offset(9));

        let mut next = State::restore(&detector, stored, both(20_000, 0));
        assert_eq!(read(&detector, &mut next, 9, 20_000), [], "a repeat");
        assert_eq!(read(&detector, &mut next, 10, 20_000).len(), 2, "back again");
    }

    #[test]
    fn silence_is_measured_up_to_the_question_and_a_repeat_shows_life() {
        let detector = detector();
        let mut state = State::new(&detector, both(0, 0));
        read(&detector, &mut state, 5, 0);
        assert!(look(&detector, &mut state, 5, 9_999, 60_000).is_none(), "what came since is unknown");
        read(&detector, &mut state, 5, 8_000);
        assert!(look(&detector, &mut state, 5, 17_999, 17_999).is_none());
        assert!(look(&detector, &mut state, 5, 18_000, 18_000).is_some());
    }

    #[test]
    fn a_clock_that_is_set_raises_no_silence_and_puts_none_off() {
        let detector = detector();
        for set in [3_600_000, -3_600_000] {
            let mut state = State::new(&detector, both(0, 0));
            read(&detector, &mut state, 5, 1_000);
            let silent = |state: &mut State, mono: i64| {
                let mut effects = Vec::new();
                let at = both(mono, set);
                silence(&detector, state, (0, 5), (at, at), &mut effects);
                effects.into_iter().find_map(|effect| match effect {
                    Effect::Output(alert) => Some((alert.value, alert.at.0, alert.since.0)),
                    _ => None,
                })
            };
            assert_eq!(silent(&mut state, 10_999), None);
            let told = (Some(10.0), 11_000 + set, 1_000 + set);
            assert_eq!(silent(&mut state, 11_000), Some(told), "by the current wall clock");
        }
    }

    /// Raises after 10 s of silence, and forgets a generator after a minute.
    fn forgetful() -> Detector {
        let rules =
            format!("{DEADMAN}[[rule]]\nname = \"low_fuel\"\nfield = \"fuel\"\nraise_below = 200.0\n");
        let rules = Rules::parse(&rules, "rules.toml".as_ref()).expect("valid rules");
        Detector::new(rules).forget_silent_after(Some(60_000))
    }

    /// As [`look`], with the alerts and whether the generator is forgotten.
    fn look_at_all(
        detector: &Detector,
        state: &mut State,
        last: i64,
        now: Now,
    ) -> (bool, Vec<(String, i64, i64)>, Option<StoredState>) {
        let mut effects = Vec::new();
        let is_forgotten = silence(detector, state, (3, last), (now, now), &mut effects);
        let json = effects.last().and_then(Effect::as_state).and_then(|change| change.json.as_ref());
        let stored = json.map(|json| StoredState::from_json(json).expect("own format"));
        let told = effects.iter().filter_map(|effect| match effect {
            Effect::Output(alert) => Some((alert.id("t"), alert.at.0, alert.since.0)),
            _ => None,
        });
        (is_forgotten, told.collect(), stored)
    }

    #[test]
    fn who_is_silent_for_longer_than_anybody_waits_is_forgotten() {
        let detector = forgetful();
        let mut state = State::new(&detector, both(0, 0));
        read(&detector, &mut state, 5, 0);
        read(&detector, &mut state, 9, 1_000);
        let told = |is_forgotten, names: &[&str], at: i64| {
            let told = names.iter().map(|name| (format!("t-3-9-{name}"), at, 1_000));
            (is_forgotten, told.collect::<Vec<_>>())
        };
        // A long absence, as its partition was away: its alarm is raised all the same, and then it is forgotten.
        let (is_forgotten, alerts, _) = look_at_all(&detector, &mut state.clone(), 9, both(99_000, 0));
        assert_eq!((is_forgotten, alerts), told(false, &["gone-silent"], 99_000));

        look_at_all(&detector, &mut state, 9, both(11_000, 0));
        let (is_forgotten, alerts, stored) = look_at_all(&detector, &mut state, 9, both(60_999, 0));
        assert_eq!((is_forgotten, alerts, stored), (false, vec![], None));
        let (is_forgotten, alerts, stored) = look_at_all(&detector, &mut state, 9, both(61_000, 0));
        assert_eq!((is_forgotten, alerts), told(true, &["gone-forgotten", "low_fuel-forgotten"], 61_000));
        let stored = stored.expect("a decommissioned state");
        assert_eq!((stored.decommissioned, stored.offset, stored.epoch), (true, Offset(9), Epoch(4)));
        assert!(state.state.is_new());
        let again = read(&detector, &mut state, 10, 62_000);
        assert_eq!(again.len(), 2, "it begins as any new one: low on fuel, and known: {again:?}");
    }

    #[test]
    fn silence_is_forgotten_as_of_the_last_reading_whoever_looks() {
        let detector = forgetful();
        let mut state = State::new(&detector, both(0, 0));
        read_at(&detector, &mut state, 5, 1_000);
        let (_, _, raised) = look_at_all(&detector, &mut state, 5, both(11_000, 0));
        let raised = raised.expect("raised");
        // Each owner lives for a second; its own clock begins at zero.
        let forgotten = (12..200).find(|second| {
            let now = Now { mono: Mono(0), wall: Millis(second * 1_000) };
            let mut state = State::restore(&detector, raised.clone(), now);
            look_at_all(&detector, &mut state, 5, now).0
        });
        assert_eq!(forgotten, Some(1 + 60 + 10), "with the benefit of the time in which nothing is written");
    }

    #[test]
    fn nobody_is_forgotten_without_a_deadman_rule_nor_before_it_is_missed() {
        let detector = Detector::new(Rules::default()).forget_silent_after(Some(1));
        let mut state = State::new(&detector, both(0, 0));
        assert_eq!(read(&detector, &mut state, 5, 0).len(), 2, "low on fuel");
        assert_eq!(look_at_all(&detector, &mut state, 5, both(1 << 40, 0)), (false, vec![], None));

        let detector = Detector::new(detector_rules()).forget_silent_after(Some(1));
        let mut state = State::new(&detector, both(0, 0));
        read(&detector, &mut state, 5, 0);
        assert_eq!(look_at_all(&detector, &mut state, 5, both(9_999, 0)), (false, vec![], None));
    }

    #[test]
    fn silence_outlives_owners_that_come_and_go() {
        const HOUR: i64 = 3_600_000;
        let rules = "[[rule]]\nname = \"gone\"\nsilent_for = \"12h\"\n";
        let detector = Detector::new(Rules::parse(rules, "rules.toml".as_ref()).expect("valid rules"));
        let stored = |effects: Vec<Effect>| -> Option<StoredState> {
            let json = effects.last()?.as_state()?.json.clone()?;
            Some(StoredState::from_json(&json).expect("own format"))
        };
        let mut state = State::new(&detector, both(0, 0));
        let first = stored(read_at(&detector, &mut state, 1, HOUR)).expect("known from now on");
        assert!(stored(read_at(&detector, &mut state, 2, 3 * HOUR)).is_none(), "not each time");
        let last = stored(read_at(&detector, &mut state, 3, 4 * HOUR)).expect("after a quarter of the time");
        assert_eq!((first.body.rules["gone"].since.0, last.body.rules["gone"].since.0), (HOUR, 4 * HOUR));

        // The generator reports no more. Each owner lives for an hour; its own clock begins at zero.
        let raised = (5..40).find(|hour| {
            let now = Now { mono: Mono(0), wall: Millis(hour * HOUR) };
            let mut state = State::restore(&detector, last.clone(), now);
            let mut effects = Vec::new();
            silence(&detector, &mut state, (0, 3), (now, now), &mut effects);
            !effects.is_empty()
        });
        assert_eq!(raised, Some(4 + 12 + 3), "with the benefit of the quarter in which nothing is written");
    }

    const LOW_FUEL: &str = "[[rule]]\nname = \"low\"\nfield = \"fuel\"\nraise_below = 20.0\nclear_above = 25.5\n\
                            severity = \"critical\"\n";
    const HOT: &str = "[[rule]]\nname = \"hot\"\nfield = \"temperature\"\nraise_above = 10.0\n";

    fn running(rules: &[&str]) -> Detector {
        Detector::new(Rules::parse(&rules.concat(), "rules.toml".as_ref()).expect("valid rules"))
    }

    fn last_state(effects: &[Effect]) -> StoredState {
        let last = effects.iter().rev().find_map(Effect::as_state).expect("a state change");
        StoredState::from_json(last.json.as_ref().expect("a value")).expect("own format")
    }

    /// The alerts of a decommissioning at offset 20 by a worker that took over this state.
    fn goodbye(detector: &Detector, stored: &StoredState) -> Vec<String> {
        let mut state = State::restore(detector, stored.clone(), both(60_000, 0));
        let source = ReadingPosition { partition: PartitionId(0), offset: Offset(20), at: Millis(90_000) };
        let mut effects = Vec::new();
        assert!(apply(detector, &mut state, Job::Decommission, source, both(60_000, 0), &mut effects));
        let alerts = effects.iter().filter_map(|effect| match effect {
            Effect::Output(alert) => Some(String::from_utf8(alert.to_json("t")).expect("UTF-8")),
            _ => None,
        });
        alerts.collect()
    }

    #[test]
    fn decommissioning_clears_the_alarms_of_rules_that_are_run_elsewhere() {
        let (all, hot) = (running(&[LOW_FUEL, DEADMAN]), running(&[HOT]));
        let mut state = State::new(&all, both(0, 0));
        read(&all, &mut state, 5, 0);
        let stored = look(&all, &mut state, 5, 10_000, 10_000).expect("silent");
        let mut told = goodbye(&all, &stored);
        told.sort();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[1].contains(r#""severity":"critical","field":"fuel","value":null,"threshold":25.5"#));

        // A worker that runs neither rule, and has written the state once more.
        let mut state = State::restore(&hot, stored, both(20_000, 0));
        let carried = last_state(&read(&hot, &mut state, 10, 20_000));
        let elsewhere =
            goodbye(&running(&["[[rule]]\nname = \"far\"\nfield = \"lat\"\nraise_above = 80.0\n"]), &carried);
        let (hot, other): (Vec<_>, Vec<_>) = elsewhere.into_iter().partition(|alert| alert.contains("hot"));
        assert_eq!((hot.len(), other), (1, told), "the same alerts from either worker");
    }

    #[test]
    fn an_alarm_of_which_nothing_but_its_name_is_known_is_cleared_too() {
        let older = br#"{"generatorID":"g","offset":1,"rules":{"calm":{"phase":"normal","since":3},"low":{"phase":"raised","since":3}}}"#;
        let stored = StoredState::from_json(older).expect("valid");
        let expected = concat!(
            r#"{"id":"t-0-20-low","generatorID":"g","rule":"low","state":"cleared","severity":"warning","field":null,"#,
            r#""value":null,"threshold":0.0,"at":90000,"since":90000,"lat":null,"lon":null,"reason":"decommissioned","#,
            r#""source":{"topic":"t","partition":0,"offset":20}}"#
        );
        assert_eq!(goodbye(&running(&[HOT]), &stored), [expected]);
    }
}
