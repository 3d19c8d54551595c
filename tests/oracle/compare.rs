//! Compares the workers' results with the expected ones: exact lists, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use serde_json::Value;

use super::log::{Records, Stored};
use super::{Alert, Expected, Standings};

/// All alerts, each once, in the order of each generator's log.
#[track_caller]
pub fn check_alerts(expected: &Expected, found: impl IntoIterator<Item = Value>) {
    assert_same("alerts", &expected.alerts, &by_generator(found));
}

/// As [`check_alerts`], but an alert may come again later, equal in every field.
#[track_caller]
pub fn check_alerts_but_repeats(expected: &Expected, found: impl IntoIterator<Item = Value>) {
    let mut found = by_generator(found);
    for alerts in found.values_mut() {
        let mut first: BTreeMap<String, Alert> = BTreeMap::new();
        alerts.retain(|alert| match first.get(&alert.id) {
            Some(before) => {
                assert_eq!(before, alert, "a repeat differs");
                false
            }
            None => first.insert(alert.id.clone(), alert.clone()).is_none(),
        });
    }
    assert_same("alerts", &expected.alerts, &found);
}

fn by_generator(found: impl IntoIterator<Item = Value>) -> BTreeMap<String, Vec<Alert>> {
    let mut alerts: BTreeMap<String, Vec<Alert>> = BTreeMap::new();
    for alert in found.into_iter().map(|json| alert(&json)) {
        alerts.entry(alert.generator.clone()).or_default().push(alert);
    }
    alerts
}

/// Reads an alert event strictly: no field of the contract may be missing, and no other may be there.
pub fn alert(json: &Value) -> Alert {
    const FIELDS: [&str; 14] = [
        "id",
        "generatorID",
        "rule",
        "state",
        "severity",
        "field",
        "value",
        "threshold",
        "at",
        "since",
        "lat",
        "lon",
        "reason",
        "source",
    ];
    let object = json.as_object().expect("an alert is an object");
    for name in object.keys() {
        assert!(FIELDS.contains(&name.as_str()), "the contract has no field '{name}': {json}");
    }
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("no text in {json}")).to_owned();
    let integer = |value: &Value| value.as_i64().unwrap_or_else(|| panic!("no integer in {json}"));
    let position = json["lat"].as_f64().zip(json["lon"].as_f64());
    let source = &json["source"];
    assert_eq!(source.as_object().map(|source| source.len()), Some(3), "{json}");
    Alert {
        id: text(&json["id"]),
        generator: text(&json["generatorID"]),
        rule: text(&json["rule"]),
        state: text(&json["state"]),
        severity: text(&json["severity"]),
        field: text(&json["field"]),
        value: json["value"].as_f64(),
        threshold: json["threshold"].as_f64().unwrap_or_else(|| panic!("no threshold in {json}")),
        at: integer(&json["at"]),
        since: integer(&json["since"]),
        position,
        reason: json.get("reason").map(text),
        source: (
            text(&source["topic"]),
            i32::try_from(integer(&source["partition"])).expect("a partition"),
            integer(&source["offset"]),
        ),
    }
}

/// All dead letters, each once, in their record's partition, in order, unchanged, with the headers that give the
/// reason.
#[track_caller]
pub fn check_dead_letters(expected: &Expected, topic: &str, readings: &Records, letters: &Records) {
    let original: BTreeMap<(i32, i64), &Stored> =
        readings.iter().map(|record| ((record.partition, record.offset), record)).collect();
    let mut found: BTreeMap<i32, Vec<(i64, String)>> = BTreeMap::new();
    for letter in letters.iter() {
        let header = |name| letter.header(name).unwrap_or_else(|| panic!("no header {name}: {letter:?}"));
        assert_eq!(header("dlq.topic"), topic);
        let partition: i32 = header("dlq.partition").parse().expect("a partition");
        let offset: i64 = header("dlq.offset").parse().expect("an offset");
        assert_eq!(letter.partition, partition, "a dead letter keeps its partition");
        for name in ["dlq.error.message", "dlq.worker"] {
            assert!(!header(name).is_empty(), "{name}");
        }
        let came = original[&(partition, offset)];
        // Not by assert_eq: a record may have a megabyte.
        assert!(letter.key == came.key, "the key of {partition}/{offset} has changed");
        assert!(letter.value == came.value, "the value of {partition}/{offset} has changed");
        assert_eq!(letter.timestamp, came.timestamp, "of {partition}/{offset}");
        assert_eq!(letter.headers[..came.headers.len()], came.headers, "of {partition}/{offset}");
        assert_eq!(
            letter.headers.len(),
            came.headers.len() + 6,
            "of {partition}/{offset}: {:?}",
            letter.headers
        );
        found.entry(partition).or_default().push((offset, header("dlq.error.code").to_owned()));
    }
    let expected: BTreeMap<i32, Vec<(i64, String)>> = expected
        .dead_letters
        .iter()
        .map(|(partition, letters)| {
            (*partition, letters.iter().map(|(at, code)| (*at, (*code).to_owned())).collect())
        })
        .collect();
    assert_same("dead letters", &expected, &found);
}

/// Dead letters without the repeats of an earlier one for the same record.
pub fn without_repeats(letters: &Records) -> Records {
    let mut seen = BTreeSet::new();
    let origin =
        |letter: &Stored| ["dlq.partition", "dlq.offset"].map(|name| letter.header(name).map(str::to_owned));
    Records(letters.iter().filter(|letter| seen.insert(origin(letter))).cloned().collect())
}

/// The records in the state topic, compacted: the phases of all generators that have any.
#[track_caller]
pub fn check_states(expected: &Expected, states: &Records) {
    let found: BTreeMap<String, Vec<(i32, Standings)>> = states
        .compacted()
        .into_iter()
        // After a crash: a decommissioned state that no worker has deleted yet.
        .filter(|(_, record)| record.json()["decommissioned"] != true)
        .map(|(generator, record)| {
            let json = record.json();
            assert_eq!(json["generatorID"].as_str(), Some(generator.as_str()));
            (generator, vec![(record.partition, standings(&json))])
        })
        .collect();
    let expected = expected.states.iter().map(|(generator, state)| (generator.clone(), vec![state.clone()]));
    assert_same("states", &expected.collect(), &found);
}

/// The phases in a state.
pub fn standings(state: &Value) -> Standings {
    let rules = state["rules"].as_object().expect("rules").iter().map(|(rule, standing)| {
        let phase = standing["phase"].as_str().expect("a phase").to_owned();
        (rule.clone(), (phase, standing["since"].as_i64().expect("a time")))
    });
    rules.collect()
}

/// Fails with the first difference, not with two long maps.
#[track_caller]
pub fn assert_same<K: Ord + Debug, V: PartialEq + Debug>(
    what: &str,
    expected: &BTreeMap<K, Vec<V>>,
    found: &BTreeMap<K, Vec<V>>,
) {
    let keys: BTreeSet<&K> = expected.keys().chain(found.keys()).collect();
    let different: Vec<&K> = keys.into_iter().filter(|key| expected.get(key) != found.get(key)).collect();
    let Some(first) = different.first() else { return };
    let (expected_list, found_list) = (list(expected, first), list(found, first));
    let same = expected_list.iter().zip(found_list).take_while(|(a, b)| a == b).count();
    panic!(
        "{what} differ for {} of {}. Of {first:?}, {} are expected and {} found; \
         the first {same} are the same, then expected: {:#?}\nfound: {:#?}",
        different.len(),
        expected.len(),
        expected_list.len(),
        found_list.len(),
        expected_list.get(same),
        found_list.get(same)
    );
}

fn list<'m, K: Ord, V>(map: &'m BTreeMap<K, Vec<V>>, key: &K) -> &'m [V] {
    map.get(key).map_or(&[], Vec::as_slice)
}
