use std::path::Path;

use genwatch_core::transform::record::Command;

use super::*;
use crate::source::seen::Digest;
use crate::source::time::Nanos;

const NOW: Millis = Millis(1_766_400_000_000);

fn transforming(steps: &str) -> Transforming {
    let transform = Transform::parse(steps, Path::new("steps.toml"), Command::SOURCE).unwrap();
    let names = Names { source: "fuel".to_owned(), to_topic: "rows".to_owned(), worker: "host-1".to_owned() };
    Transforming {
        transform: Arc::new(transform),
        targets: Targets::of(&["north"], &["nowhere"], &["genwatch_sources"]),
        names,
        limits: Limits::default(),
        log: LogLimiter::default(),
    }
}

/// A row a second ago.
fn row(value: &str) -> SourceRow {
    SourceRow {
        time: Nanos((NOW.0 - 1000) * 1_000_000),
        digest: Digest { identity: 1, content: 2 },
        key: Some(b"g4".to_vec()),
        value: value.as_bytes().to_vec(),
    }
}

fn record(transforming: &mut Transforming, value: &str) -> Outgoing {
    match transforming.apply(row(value), NOW) {
        Transformed::Record(record) => record,
        other => panic!("{other:?}"),
    }
}

fn header<'a>(record: &'a Outgoing, name: &str) -> &'a str {
    let found = record.headers.iter().find(|(key, _)| key == name);
    std::str::from_utf8(found.and_then(|(_, value)| value.as_deref()).unwrap()).unwrap()
}

const CAST: &str = "[[step]]\nkind = \"cast\"\nfields = [\"fuel\"]\nto = \"integer\"\n";
const ROUTE: &str = "[[step]]\nkind = \"route\"\nfield = \"site\"\nregex = \"(.*)\"\nto = \"$1\"\n";
const TIMESTAMP: &str =
    "[[step]]\nkind = \"timestamp\"\nfield = \"at\"\nunit = \"ms\"\nwhen = { exists = \"at\" }\n";

#[test]
fn a_row_that_no_step_changes_is_the_record_that_it_would_be_without_steps() {
    let unchanged = record(&mut transforming(CAST), r#"{"fuel" : 7}"#);
    assert_eq!(unchanged, Outgoing::from(row(r#"{"fuel" : 7}"#)));
}

#[test]
fn a_changed_row_keeps_its_key_and_the_time_that_decides_its_order() {
    let steps = format!("{CAST}{TIMESTAMP}");
    let changed = record(&mut transforming(&steps), r#"{"fuel":7.9,"at":1766300000000}"#);
    assert_eq!(changed.value.as_deref(), Some(&br#"{"fuel":7,"at":1766300000000}"#[..]));
    assert_eq!((changed.time, changed.at), (row("").time, Millis(1_766_300_000_000)));
    assert_eq!((changed.target, changed.key), (Target::Own, row("").key));
}

#[test]
fn a_filtered_row_is_no_record() {
    let steps = "[[step]]\nkind = \"filter\"\nwhen = { field = \"fuel\", below = 0 }\n";
    let mut transforming = transforming(steps);
    assert_eq!(transforming.apply(row(r#"{"fuel":-1}"#), NOW), Transformed::Filtered);
    assert_eq!(record(&mut transforming, r#"{"fuel":0}"#).target, Target::Own);
}

#[test]
fn a_row_that_a_step_fails_on_is_a_dead_letter_as_it_came() {
    let steps = format!("[[step]]\nkind = \"drop\"\nfields = [\"site\"]\n\n{CAST}");
    let value = r#"{"site":"north","fuel":"full"}"#;
    let letter = record(&mut transforming(&steps), value);
    let step = "2-cast".to_owned();
    assert_eq!(
        Outgoing { headers: Vec::new(), ..letter.clone() },
        Outgoing { target: Target::DeadLetters { step }, ..row(value).into() }
    );
    for (name, value) in [
        ("dlq.topic", "rows"),
        ("dlq.source", "fuel"),
        ("dlq.error.code", "transform"),
        (
            "dlq.error.message",
            "step 2 (cast, steps.toml:5): field `fuel` is no integer of 64 bits; found `\"full\"`",
        ),
        ("dlq.worker", "host-1"),
    ] {
        assert_eq!(header(&letter, name), value);
    }
}

#[test]
fn a_route_leads_to_topics_that_exist_and_never_to_the_group_s_own() {
    let mut transforming = transforming(ROUTE);
    assert_eq!(record(&mut transforming, r#"{"site":"north"}"#).routed_to(), Some("north"));
    let own = record(&mut transforming, r#"{"site":"rows"}"#);
    assert_eq!(own.target, Target::Own, "its own topic is no other");
    for (site, cause) in [
        ("nowhere", "there is no topic nowhere"),
        ("genwatch_sources", "the group keeps its own records there"),
        ("no topic", "it can't go to `no topic`"),
    ] {
        let letter = record(&mut transforming, &format!(r#"{{"site":"{site}"}}"#));
        assert_eq!(letter.target, Target::DeadLetters { step: "1-route".to_owned() });
        assert!(header(&letter, "dlq.error.message").contains(cause), "{letter:?}");
    }
    // Nobody to ask.
    assert_eq!(transforming.apply(row(r#"{"site":"south"}"#), NOW), Transformed::Later);
}

#[test]
fn a_timestamp_that_the_topic_would_refuse_fails_instead_of_the_whole_transaction() {
    let mut transforming = transforming(TIMESTAMP);
    let letter = |transforming: &mut Transforming, at: i64| {
        let record = record(transforming, &format!(r#"{{"at":{at}}}"#));
        matches!(record.target, Target::DeadLetters { .. })
    };
    assert!(!letter(&mut transforming, NOW.0 + 60_000) && letter(&mut transforming, NOW.0 + 60_001));
    assert!(!letter(&mut transforming, 0));
    transforming.limits.before_ms = Some(5000);
    assert!(!letter(&mut transforming, NOW.0 - 5000) && letter(&mut transforming, NOW.0 - 5001));
}

#[test]
fn a_dead_letter_that_is_too_large_for_its_topic_goes_without_its_value() {
    let mut transforming = transforming(CAST);
    let value = format!(r#"{{"fuel":"{}"}}"#, "x".repeat(3000));
    assert!(record(&mut transforming, &value).value.is_some());
    transforming.limits.letter_bytes = Some(2000);
    let letter = record(&mut transforming, &value);
    assert!(letter.value.is_none() && letter.fits(2000), "{letter:?}");
    assert_eq!(header(&letter, "dlq.value.dropped"), value.len().to_string());
    let small = record(&mut transforming, r#"{"fuel":"x"}"#);
    assert!(small.value.is_some(), "{small:?}");
}

#[test]
fn what_a_transaction_counts_is_what_the_steps_left() {
    let steps = "[[step]]\nkind = \"keep\"\nfields = [\"fuel\"]\n";
    let changed = record(&mut transforming(steps), &format!(r#"{{"fuel":7,"note":"{}"}}"#, "x".repeat(3000)));
    assert_eq!(changed.bytes(), r#"{"fuel":7}"#.len() + "g4".len());
    let letter = record(&mut transforming(CAST), r#"{"fuel":"x"}"#);
    assert!(letter.bytes() > 100, "headers count: {}", letter.bytes());
}
