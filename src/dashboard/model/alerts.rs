//! Alert events: the last ones, each generator's incidents, and how many operators have to bear (ISA-18.2).
//!
//! Which alarms are active is for [`fleet`](super::fleet) to know: an alarm may be older than the events that
//! are kept.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use genwatch_core::types::{GeneratorId, Millis};
use serde::{Deserialize, Serialize};

use super::names::{Name, Names};

/// How many events are kept as they are.
const RECENT: usize = 2000;
/// How many ids are remembered, to know a repeat by.
const IDS: usize = 8192;
/// A longer id isn't one of ours.
const ID_BYTES_MAX: usize = 1024;
/// Incidents of all generators together, and of one at least and at most.
const INCIDENTS: usize = 100_000;
const INCIDENTS_OF_ONE: (usize, usize) = (8, 64);
/// Events of the last day whose generator is kept; older ones are only counted.
const COUNTED: usize = 300_000;
/// How long an alarm that chattered is said to chatter after its last change.
const CHATTERS_FOR: i64 = 5 * MINUTE;
/// Alarms that chatter, at most.
const CHATTERING: usize = 10_000;
const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
/// Hours of the statistics.
const HOURS: i64 = 24;
/// Raise and clear cycles of one alarm within a minute that make it chatter (ISA-18.2).
const CYCLES: usize = 3;
/// Generators that are named as the worst.
const TOP: usize = 10;

/// An alert event, as in the topic (docs/formats.md).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// Deterministic: a repeat has the same.
    pub id: String,
    /// The generator.
    #[serde(rename = "generatorID")]
    pub generator: String,
    /// The rule.
    pub rule: String,
    /// `raised` or `cleared`.
    pub state: AlertState,
    /// The rule's severity.
    pub severity: String,
    /// The field that the rule looks at; a deadman rule looks at none.
    pub field: Option<String>,
    /// The deciding value.
    pub value: Option<f64>,
    /// The threshold.
    pub threshold: Option<f64>,
    /// Event time of the deciding reading.
    pub at: Millis,
    /// When the condition began to hold.
    pub since: Millis,
    /// Where the generator is.
    pub lat: Option<f64>,
    /// Where the generator is.
    pub lon: Option<f64>,
    /// The deciding reading.
    pub source: Option<Source>,
    /// Why, if no value decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Where the deciding reading is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

/// Whether an alarm was raised or cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertState {
    /// It began.
    Raised,
    /// It is over.
    Cleared,
}

impl Alert {
    /// Reads a record of the alerts topic; `None` if it isn't one.
    #[must_use]
    pub fn from_json(value: &[u8]) -> Option<Alert> {
        let alert: Alert = serde_json::from_slice(value).ok()?;
        let sane = |text: &str| !text.is_empty() && text.len() <= ID_BYTES_MAX;
        let texts = [&alert.id, &alert.generator, &alert.rule, &alert.severity];
        texts.iter().all(|text| sane(text)).then_some(alert)
    }
}

/// From raised to cleared, of one alarm of one generator.
#[derive(Clone, Debug, PartialEq)]
pub struct Incident {
    /// The rule.
    pub rule: Name,
    /// Its severity.
    pub severity: Name,
    /// When it was raised; `None` if that is older than what is kept.
    pub raised: Option<Millis>,
    /// When it was cleared; `None` if it wasn't.
    pub cleared: Option<Millis>,
    /// The value that raised it.
    pub value: Option<f64>,
    /// The threshold.
    pub threshold: Option<f64>,
    /// Why, if no value decided.
    pub reason: Option<Name>,
}

impl Incident {
    /// Whether it was active at this time.
    #[must_use]
    pub fn is_active_at(&self, at: Millis) -> bool {
        self.raised.is_none_or(|raised| raised <= at) && self.cleared.is_none_or(|cleared| at < cleared)
    }
}

/// How often alarms were raised.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HourRate {
    /// The hour's begin.
    pub hour: Millis,
    /// Alarms raised in it.
    pub raised: u64,
}

/// A generator and how often it raised an alarm.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Worst {
    /// The generator.
    #[serde(rename = "generatorID")]
    pub generator: GeneratorId,
    /// Alarms raised in the last day.
    pub raised: u64,
}

/// All that is known of alert events.
#[derive(Debug, Default)]
pub struct AlertLog {
    /// The last ones. Partitions are read in any order, so those of one millisecond are in the order of their
    /// partitions and offsets; the number tells those of one reading apart.
    recent: BTreeMap<(Millis, i32, i64, u64), Arc<Alert>>,
    added: u64,
    ids: HashSet<Box<str>>,
    id_order: VecDeque<Box<str>>,
    /// The event that raised each alarm last.
    raised: HashMap<(GeneratorId, Name), Arc<Alert>>,
    incidents: HashMap<GeneratorId, Vec<Incident>>,
    /// Raised events by minute since the epoch.
    minutes: BTreeMap<i64, Vec<(GeneratorId, Name)>>,
    counted: usize,
    /// Raised events by hour since the epoch.
    hours: BTreeMap<i64, u64>,
    chattering: HashMap<(GeneratorId, Name), Millis>,
}

impl AlertLog {
    /// Adds an event. Returns it, unless it is a repeat.
    pub fn add(&mut self, alert: Alert, names: &mut Names, now: Millis) -> Option<Arc<Alert>> {
        if !self.remember(&alert.id) {
            return None;
        }
        let generator = GeneratorId::from(alert.generator.as_str());
        let rule = names.number(&alert.rule);
        let alert = Arc::new(alert);
        self.added += 1;
        let (partition, offset) =
            alert.source.as_ref().map_or((-1, -1), |source| (source.partition, source.offset));
        self.recent.insert((alert.at, partition, offset, self.added), Arc::clone(&alert));
        if self.recent.len() > RECENT {
            self.recent.pop_first();
        }
        self.note_incident(&generator, rule, &alert, names);
        match alert.state {
            AlertState::Raised => {
                self.count(&generator, rule, alert.at, now);
                self.raised.insert((generator, rule), Arc::clone(&alert));
            }
            AlertState::Cleared => {
                self.raised.remove(&(generator, rule));
            }
        }
        Some(alert)
    }

    /// Remembers an id; `false` if it was known.
    fn remember(&mut self, id: &str) -> bool {
        if !self.ids.insert(id.into()) {
            return false;
        }
        self.id_order.push_back(id.into());
        if self.id_order.len() > IDS
            && let Some(oldest) = self.id_order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }

    fn note_incident(&mut self, generator: &GeneratorId, rule: Name, alert: &Alert, names: &mut Names) {
        let most = (INCIDENTS / (self.incidents.len() + 1)).clamp(INCIDENTS_OF_ONE.0, INCIDENTS_OF_ONE.1);
        let incidents = self.incidents.entry(generator.clone()).or_default();
        let open = incidents.iter_mut().rev().find(|incident| incident.rule == rule);
        let open = open.filter(|incident| incident.cleared.is_none());
        match (alert.state, open) {
            // A repeat while it stands (`realarm`).
            (AlertState::Raised, Some(_)) => {}
            (AlertState::Cleared, Some(incident)) => incident.cleared = Some(alert.at),
            (state, None) => {
                let is_raised = state == AlertState::Raised;
                incidents.push(Incident {
                    rule,
                    severity: names.number(&alert.severity),
                    raised: is_raised.then_some(alert.at),
                    cleared: (!is_raised).then_some(alert.at),
                    value: alert.value,
                    threshold: alert.threshold,
                    reason: alert.reason.as_deref().map(|reason| names.number(reason)),
                });
                if incidents.len() > most {
                    incidents.drain(..incidents.len() - most);
                }
            }
        }
        if alert.state == AlertState::Cleared
            && chatters(incidents, rule)
            && self.chattering.len() < CHATTERING
        {
            self.chattering.insert((generator.clone(), rule), alert.at);
        }
    }

    fn count(&mut self, generator: &GeneratorId, rule: Name, at: Millis, now: Millis) {
        if now.since(at) > HOURS * HOUR {
            return;
        }
        *self.hours.entry(at.0.div_euclid(HOUR)).or_default() += 1;
        self.minutes.entry(at.0.div_euclid(MINUTE)).or_default().push((generator.clone(), rule));
        self.counted += 1;
        while self.counted > COUNTED
            && let Some((_, oldest)) = self.minutes.pop_first()
        {
            self.counted -= oldest.len();
        }
    }

    /// Forgets what is older than a day.
    pub fn forget(&mut self, now: Millis) {
        let (first_hour, first_minute) =
            (now.0.div_euclid(HOUR) - HOURS, now.0.div_euclid(MINUTE) - HOURS * 60);
        while let Some(hour) = self.hours.first_entry().filter(|hour| *hour.key() <= first_hour) {
            hour.remove();
        }
        while let Some(minute) = self.minutes.first_entry().filter(|minute| *minute.key() <= first_minute) {
            self.counted -= minute.remove().len();
        }
        self.chattering.retain(|_, last| now.since(*last) <= CHATTERS_FOR);
        let oldest = Millis(now.0 - HOURS * HOUR);
        self.incidents.retain(|_, incidents| {
            incidents.retain(|incident| incident.cleared.is_none_or(|cleared| cleared >= oldest));
            !incidents.is_empty()
        });
    }

    /// Forgets a generator that is decommissioned, but not that it raised alarms.
    pub fn forget_generator(&mut self, generator: &GeneratorId) {
        self.incidents.remove(generator);
        self.raised.retain(|(of, _), _| of != generator);
        self.chattering.retain(|(of, _), _| of != generator);
    }

    /// The last events, newest first.
    pub fn recent(&self) -> impl Iterator<Item = &Alert> {
        self.recent.values().rev().map(|alert| &**alert)
    }

    /// The event that raised this alarm, if it is known.
    #[must_use]
    pub fn raised_by(&self, generator: &GeneratorId, rule: Name) -> Option<&Alert> {
        self.raised.get(&(generator.clone(), rule)).map(|alert| &**alert)
    }

    /// A generator's incidents, oldest first.
    #[must_use]
    pub fn incidents(&self, generator: &str) -> &[Incident] {
        self.incidents.get(generator).map_or(&[], Vec::as_slice)
    }

    /// Whether an alarm chatters.
    #[must_use]
    pub fn is_chattering(&self, generator: &GeneratorId, rule: Name) -> bool {
        self.chattering.contains_key(&(generator.clone(), rule))
    }

    /// The alarms that chatter, by generator and rule.
    #[must_use]
    pub fn chattering(&self) -> Vec<(&GeneratorId, Name)> {
        let mut all: Vec<_> = self.chattering.keys().map(|(generator, rule)| (generator, *rule)).collect();
        all.sort_unstable();
        all
    }

    /// Alarms raised in each of the last 24 hours, oldest first; the last one isn't over.
    #[must_use]
    pub fn per_hour(&self, now: Millis) -> Vec<HourRate> {
        let last = now.0.div_euclid(HOUR);
        let rate = |hour: i64| HourRate {
            hour: Millis(hour * HOUR),
            raised: self.hours.get(&hour).copied().unwrap_or(0),
        };
        (last - HOURS + 1..=last).map(rate).collect()
    }

    /// Alarms raised in the last hour, by rule.
    #[must_use]
    pub fn last_hour(&self, now: Millis) -> BTreeMap<Name, u64> {
        let mut rules = BTreeMap::new();
        let minute = now.0.div_euclid(MINUTE);
        for (_, rule) in self.minutes.range(minute - 59..).flat_map(|(_, raised)| raised) {
            *rules.entry(*rule).or_default() += 1;
        }
        rules
    }

    /// The generators that raised most alarms in the last day.
    #[must_use]
    pub fn top(&self) -> Vec<Worst> {
        let mut counts: HashMap<&GeneratorId, u64> = HashMap::new();
        for (generator, _) in self.minutes.values().flatten() {
            *counts.entry(generator).or_default() += 1;
        }
        let mut all: Vec<_> = counts.into_iter().collect();
        all.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
        all.truncate(TOP);
        all.into_iter().map(|(generator, raised)| Worst { generator: generator.clone(), raised }).collect()
    }
}

/// Whether the last cycles of an alarm, each raised and cleared, are within a minute.
fn chatters(incidents: &[Incident], rule: Name) -> bool {
    let mut last = incidents.iter().rev().filter(|incident| incident.rule == rule).take(CYCLES);
    let (Some(newest), Some(oldest)) = (last.next(), last.nth(CYCLES - 2)) else { return false };
    let (Some(end), Some(begin)) = (newest.cleared, oldest.raised) else { return false };
    end.since(begin) <= MINUTE
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_766_400_000_000);

    fn alert(generator: &str, state: AlertState, at: Millis) -> Alert {
        Alert {
            id: format!("{generator}-{at}-{state:?}"),
            generator: generator.to_owned(),
            rule: "low_fuel".to_owned(),
            state,
            severity: "warning".to_owned(),
            field: Some("fuel".to_owned()),
            value: Some(199.0),
            threshold: Some(200.0),
            at,
            since: at,
            lat: None,
            lon: None,
            source: None,
            reason: None,
        }
    }

    fn log(events: &[(&str, AlertState, i64)]) -> (AlertLog, Names) {
        let (mut log, mut names) = (AlertLog::default(), Names::default());
        for (generator, state, seconds) in events {
            log.add(alert(generator, *state, Millis(NOW.0 + seconds * 1000)), &mut names, NOW);
        }
        (log, names)
    }

    use AlertState::{Cleared, Raised};

    #[test]
    fn the_event_of_the_contract_is_read_and_written_alike() {
        let text = concat!(
            r#"{"id":"emergency_generators-3-1042-low_fuel","generatorID":"generator4","rule":"low_fuel","#,
            r#""state":"raised","severity":"warning","field":"fuel","value":199.0,"threshold":200.0,"#,
            r#""at":1766400000000,"since":1766400000000,"lat":40.65995,"lon":-111.99633,"#,
            r#""source":{"topic":"emergency_generators","partition":3,"offset":1042}}"#
        );
        let read = Alert::from_json(text.as_bytes()).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        assert_eq!(Alert::from_json(b"{}"), None);
        let endless = text.replace("generator4", &"g".repeat(5000));
        assert_eq!(Alert::from_json(endless.as_bytes()), None);
    }

    #[test]
    fn incidents_go_from_raised_to_cleared() {
        let (log, _) =
            log(&[("g", Cleared, -90), ("g", Raised, -60), ("g", Raised, -50), ("g", Cleared, -30)]);
        let times: Vec<_> = log.incidents("g").iter().map(|i| (i.raised, i.cleared)).collect();
        let at = |seconds: i64| Some(Millis(NOW.0 + seconds * 1000));
        assert_eq!(times, [(None, at(-90)), (at(-60), at(-30))]);
        let incident = &log.incidents("g")[1];
        assert!(
            incident.is_active_at(Millis(NOW.0 - 60_000)) && !incident.is_active_at(Millis(NOW.0 - 30_000))
        );
    }

    #[test]
    fn events_of_one_millisecond_have_one_order_however_they_are_read() {
        let of = |partition: i32, offset: i64| {
            let source = Source { topic: "t".to_owned(), partition, offset };
            let id = format!("{partition}-{offset}");
            Alert { id, source: Some(source), ..alert("g", Raised, NOW) }
        };
        let order = |alerts: [Alert; 3]| -> Vec<String> {
            let (mut log, mut names) = (AlertLog::default(), Names::default());
            alerts.into_iter().for_each(|alert| drop(log.add(alert, &mut names, NOW)));
            log.recent().map(|alert| alert.id.clone()).collect()
        };
        assert_eq!(order([of(0, 7), of(1, 3), of(1, 4)]), order([of(1, 3), of(1, 4), of(0, 7)]));
    }

    #[test]
    fn a_repeat_counts_once() {
        let (log, _) = log(&[("g", Raised, -60), ("g", Raised, -60)]);
        assert_eq!((log.recent().count(), log.per_hour(NOW).iter().map(|hour| hour.raised).sum()), (1, 1));
    }

    #[test]
    fn three_cycles_within_a_minute_chatter_and_two_do_not() {
        let cycle = |at: i64| [("g", Raised, at), ("g", Cleared, at + 5)];
        let (quiet, names) = log(&[cycle(-60), cycle(-40)].concat());
        let rule = names.known("low_fuel").unwrap();
        assert!(!quiet.is_chattering(&GeneratorId::from("g"), rule));
        let (slow, _) = log(&[cycle(-100), cycle(-60), cycle(-40)].concat());
        assert!(!slow.is_chattering(&GeneratorId::from("g"), rule), "65 s");
        let (mut loud, _) = log(&[cycle(-90), cycle(-60), cycle(-40)].concat());
        assert!(loud.is_chattering(&GeneratorId::from("g"), rule), "55 s");
        assert_eq!(loud.chattering().len(), 1);
        loud.forget(Millis(NOW.0 + 6 * MINUTE));
        assert!(loud.chattering().is_empty());
    }

    #[test]
    fn rates_and_the_worst_are_of_the_last_day() {
        let day = 24 * 3600;
        let (mut log, names) = log(&[
            ("old", Raised, -day - 10),
            ("a", Raised, -7200),
            ("a", Cleared, -7100),
            ("a", Raised, -100),
            ("b", Raised, -50),
        ]);
        log.forget(NOW);
        let top: Vec<_> = log.top().into_iter().map(|w| (w.generator.to_string(), w.raised)).collect();
        assert_eq!(top, [("a".to_owned(), 2), ("b".to_owned(), 1)]);
        assert_eq!(log.last_hour(NOW)[&names.known("low_fuel").unwrap()], 2);
        let hours = log.per_hour(NOW);
        assert_eq!((hours.len(), hours[23].hour.0), (24, NOW.0.div_euclid(HOUR) * HOUR));
        assert_eq!(hours.iter().map(|hour| hour.raised).sum::<u64>(), 3);
    }

    #[test]
    fn a_storm_takes_bounded_memory() {
        let (mut log, mut names) = (AlertLog::default(), Names::default());
        for n in 0..50_000_i64 {
            let state = if n % 2 == 0 { Raised } else { Cleared };
            log.add(alert("g", state, Millis(NOW.0 - 50_000 + n)), &mut names, NOW);
        }
        assert_eq!((log.recent.len(), log.ids.len()), (RECENT, IDS));
        assert!(log.incidents("g").len() <= INCIDENTS_OF_ONE.1);
        assert_eq!(log.recent().next().unwrap().at, Millis(NOW.0 - 1), "newest first");
    }
}
