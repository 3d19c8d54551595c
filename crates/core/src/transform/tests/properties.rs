//! Properties: what each kind of step does to any object, and what it leaves. Proptest prints the smallest record that
//! breaks one.

use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Value;

use super::{SINK, after, record, transform};
use crate::transform::fields::{Fields, JsonType};
use crate::transform::record::Record;
use crate::transform::steps::units::UNITS;
use crate::transform::{Outcome, Transform};

/// Names, some of which need an escape.
const NAMES: [&str; 8] = ["fuel", "temperature", "a", "b", "site", "é", "q\"", "new\nline"];

/// Values whose text a parser might change.
fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        select(vec![
            "1.10",
            "-0",
            "0.0",
            "1e3",
            "123456789012345678901234567890",
            "9007199254740993",
            "74",
            "-1.5e-7",
            "null",
            "true",
            "false",
            r#""""#,
            r#""north""#,
            r#""\u00e9\n""#,
            r#""\ud800""#,
            "[]",
            "{}",
            r#"[ 1, {"a":2} ]"#,
        ])
        .prop_map(str::to_owned),
        any::<i64>().prop_map(|number| number.to_string()),
        (-1e9..1e9f64).prop_map(|number| number.to_string()),
        "[a-z0-9. ]{0,6}".prop_map(|text| format!("\"{text}\"")),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        vec((select(vec!["x", "y", "z"]), inner), 0..3).prop_map(|members| {
            let members = members.iter().map(|(name, json)| (*name, json.as_str())).collect::<Vec<_>>();
            written(&members)
        })
    })
}

fn members() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    vec((select(NAMES.to_vec()), json()), 0..8)
}

fn written(members: &[(&str, &str)]) -> String {
    let all: Vec<String> = members
        .iter()
        .map(|(name, json)| format!("{}:{json}", serde_json::to_string(name).expect("a string")))
        .collect();
    format!("{{{}}}", all.join(","))
}

type Members = Vec<(String, String)>;

fn text(members: &[(&'static str, String)]) -> String {
    written(&members.iter().map(|(name, json)| (*name, json.as_str())).collect::<Vec<_>>())
}

fn own(members: &[(&'static str, String)]) -> Members {
    members.iter().map(|(name, json)| ((*name).to_owned(), json.clone())).collect()
}

/// The members that come out; `None` for a failure. Its JSON reads back the same.
fn through(steps: &str, value: &str) -> Option<Members> {
    let transform = transform(steps);
    let outcome = transform.apply(&record(value.as_bytes())).ok()?;
    let json = match outcome {
        Outcome::Changed(changed) => changed.fields.map(|fields| fields.to_json()),
        Outcome::Unchanged => None,
        Outcome::Filtered(step) => panic!("filtered by {step}"),
    };
    let json = json.unwrap_or_else(|| value.as_bytes().to_vec());
    let fields = Fields::parse(&json).expect("an object");
    Some(fields.iter().map(|member| (member.name.to_string(), member.json.to_string())).collect())
}

fn type_of(json: &str) -> JsonType {
    JsonType::of(json)
}

/// What flattening means, on a tree.
fn flat(prefix: &str, value: &Value, into: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(name, value)| flat(&format!("{prefix}_{name}"), value, into))
        }
        other => into.push((prefix.to_owned(), other.clone())),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1024) })]

    #[test]
    fn property_rename_changes_names_only(members in members()) {
        let mut expected = own(&members);
        expected.iter_mut().filter(|(name, _)| name == "a").for_each(|(name, _)| *name = "q\"".to_owned());
        let has = |wanted: &str| members.iter().any(|(name, _)| *name == wanted);
        let clash = has("a") && has("q\"");
        let found = through(r#"kind = "rename", fields = { a = "q\"" }"#, &text(&members));
        prop_assert_eq!(found, (!clash).then_some(expected));
    }

    #[test]
    fn property_drop_and_keep_are_complements(members in members()) {
        let (mut dropped, mut kept) = (own(&members), own(&members));
        dropped.retain(|(name, _)| name != "a" && name != "é");
        kept.retain(|(name, _)| name == "a" || name == "é");
        prop_assert_eq!(through(r#"kind = "drop", fields = ["a", "é"]"#, &text(&members)), Some(dropped));
        prop_assert_eq!(through(r#"kind = "keep", fields = ["a", "é"]"#, &text(&members)), Some(kept));
    }

    #[test]
    fn property_insert_leaves_one_member_of_the_name(members in members()) {
        let steps = r#"kind = "insert", field = "a", from = "offset""#;
        let found = through(steps, &text(&members)).expect("it can't fail");
        let (inserted, others): (Members, Members) = found.into_iter().partition(|(name, _)| name == "a");
        prop_assert_eq!(inserted, [("a".to_owned(), "1042".to_owned())]);
        let mut expected = own(&members);
        expected.retain(|(name, _)| name != "a");
        prop_assert_eq!(others, expected);
    }

    #[test]
    fn property_a_cast_gives_the_type_and_leaves_the_rest(members in members(), to in 0..4usize) {
        let (to, wanted) = [
            ("integer", JsonType::Number),
            ("float", JsonType::Number),
            ("string", JsonType::String),
            ("boolean", JsonType::Boolean),
        ][to];
        let Some(found) = through(&format!(r#"kind = "cast", fields = "a", to = "{to}""#), &text(&members)) else {
            return Ok(());
        };
        prop_assert_eq!(found.len(), members.len());
        for ((name, json), (before, value)) in found.iter().zip(own(&members)) {
            prop_assert_eq!(name, &before);
            if name != "a" || type_of(&value) == JsonType::Null {
                prop_assert_eq!(json, &value);
                continue;
            }
            prop_assert_eq!(type_of(json), wanted);
            let is_integer = !json.contains(['.', 'e', 'E']);
            let is_right = match to { "integer" => is_integer, "float" => !is_integer, _ => true };
            prop_assert!(is_right, "{} to {}", value, json);
        }
    }

    #[test]
    fn property_a_mask_leaves_type_and_names(members in members()) {
        let found = through(r#"kind = "mask", fields = ["a"]"#, &text(&members)).expect("it can't fail");
        prop_assert_eq!(found.len(), members.len());
        for ((name, json), (before, value)) in found.iter().zip(own(&members)) {
            prop_assert_eq!(name, &before);
            prop_assert_eq!(type_of(json), type_of(&value));
            if name == "a" {
                prop_assert!(["null", "0", "\"\"", "false", "[]", "{}"].contains(&json.as_str()), "{}", json);
            } else {
                prop_assert_eq!(json, &value);
            }
        }
    }

    #[test]
    fn property_flatten_gives_the_leaves_of_the_tree(members in members()) {
        let mut expected = Vec::new();
        for (name, json) in &members {
            match serde_json::from_str::<Value>(json) {
                Ok(Value::Object(inner)) => {
                    // A tree has no duplicates, and no lone surrogates.
                    let as_text = serde_json::to_string(&inner).expect("JSON");
                    prop_assume!(as_text.matches(':').count() == json.matches(':').count());
                    flat(name, &Value::Object(inner), &mut expected);
                }
                Ok(other) => expected.push(((*name).to_owned(), other)),
                Err(_) => return Ok(()),
            }
        }
        let nested = members.iter().any(|(_, json)| json.starts_with('{'));
        let mut names: Vec<&String> = expected.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        let twice = nested && names.windows(2).any(|pair| pair[0] == pair[1]);
        let parsed = |(name, json): (String, String)| (name, serde_json::from_str(&json).expect("JSON"));
        let found = through(r#"kind = "flatten""#, &text(&members));
        let found: Option<Vec<(String, Value)>> = found.map(|found| found.into_iter().map(parsed).collect());
        prop_assert_eq!(found, (!twice).then_some(expected));
    }

    #[test]
    fn property_there_and_back_is_the_same_quantity(
        number in -1e6..1e6f64, from in 0..UNITS.len(), to in 0..UNITS.len()
    ) {
        let unit = |index: usize| format!("{:?}", UNITS[index]).split('"').nth(1).map(str::to_owned).expect("a name");
        let (from, to) = (unit(from), unit(to));
        let step = |from: &str, to: &str| {
            format!(r#"step = [{{ kind = "convert", fields = "x", from = "{from}", to = "{to}", decimals = 15 }}]"#)
        };
        let Ok(there) = Transform::parse(&step(&from, &to), Path::new("t.toml"), SINK) else { return Ok(()) };
        let back = Transform::parse(&step(&to, &from), Path::new("t.toml"), SINK).expect("the same quantity");
        let value = format!(r#"{{"x":{number:?}}}"#);
        let convert = |transform: &Transform, value: &[u8]| match transform.apply(&record(value)) {
            Ok(Outcome::Changed(changed)) => changed.fields.expect("fields").to_json(),
            other => panic!("{other:?}"),
        };
        let value = convert(&back, &convert(&there, value.as_bytes()));
        let found = serde_json::from_slice::<Value>(&value).expect("JSON")["x"].as_f64().expect("a number");
        let close = (found - number).abs() <= 1e-6 * number.abs().max(1.0);
        prop_assert!(close, "{} {} in {}: {}", number, from, to, found);
    }

    #[test]
    fn property_a_route_is_the_replacement_of_the_whole(topic in "[a-z]{1,8}_[0-9]{1,3}") {
        let steps = r#"kind = "route", regex = "([a-z]+)_(?<number>[0-9]+)", to = "t.$number.${1}_x""#;
        let transform = transform(steps);
        let (word, number) = topic.split_once('_').expect("both");
        match transform.apply(&Record::new(&topic, b"")) {
            Ok(Outcome::Changed(changed)) => {
                prop_assert_eq!(&changed.target.expect("a target").value, &format!("t.{number}.{word}_x"));
                prop_assert!(changed.fields.is_none());
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn property_a_filter_drops_what_its_condition_says_and_changes_nothing(
        members in members(), limit in -1e9..1e9f64
    ) {
        let transform = transform(&format!(r#"kind = "filter", when = {{ field = "a", below = {limit:?} }}"#));
        let value = text(&members);
        let last = members.iter().rev().find(|(name, _)| *name == "a");
        let number = last.and_then(|(_, json)| serde_json::from_str::<Value>(json).ok()?.as_f64());
        match transform.apply(&record(value.as_bytes())) {
            Ok(Outcome::Filtered(_)) => prop_assert!(number.is_some_and(|number| number < limit)),
            Ok(Outcome::Unchanged) => prop_assert!(number.is_none_or(|number| number >= limit)),
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn property_a_timestamp_is_the_same_in_every_unit(at in 1i64..253_402_300_799_000) {
        let rfc = jiff::Timestamp::from_millisecond(at).expect("in range").to_string();
        for (unit, value) in [
            ("ms", at.to_string()),
            ("us", format!("{at}999")),
            ("rfc3339", format!("{rfc:?}")),
        ] {
            let steps = format!(r#"kind = "timestamp", field = "x", unit = "{unit}""#);
            let expected =
                if at == 1_766_400_000_000 { "unchanged".to_owned() } else { format!("at {at}") };
            prop_assert_eq!(after(&steps, &format!(r#"{{"x":{value}}}"#)), expected);
        }
    }

    #[test]
    fn property_a_tag_names_what_is_there_and_changes_nothing(members in members()) {
        let transform = transform(r#"kind = "tag", fields = ["a", "é", "none"]"#);
        let value = text(&members);
        let (tags, fields) = match transform.apply(&record(value.as_bytes())) {
            Ok(Outcome::Changed(changed)) => (changed.tags, changed.fields),
            _ => (Vec::new(), None),
        };
        let is_there = |tag: &&str| members.iter().any(|(name, _)| name == tag);
        let expected: Vec<&str> = ["a", "é"].into_iter().filter(is_there).collect();
        prop_assert_eq!(tags, expected);
        if let Some(fields) = fields {
            prop_assert_eq!(fields.to_json(), value.as_bytes());
        }
    }

    #[test]
    fn property_an_object_is_written_as_it_was_read(members in members()) {
        let value = text(&members);
        prop_assert_eq!(Fields::parse(value.as_bytes()).expect("an object").to_json(), value.as_bytes());
    }
}
