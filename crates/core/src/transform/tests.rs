//! Tests steps one by one, against what a naive reader of the same record expects, and files with mistakes.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Value;

use super::fields::{Fields, JsonType};
use super::record::{Command, Headers, Record};
use super::steps::units::UNITS;
use super::{Changed, Outcome, Transform};
use crate::reading::MAX_VALUE_BYTES;
use crate::types::{Millis, Offset, PartitionId};

fn any_name(_: &str) -> Result<(), String> {
    Ok(())
}

const SINK: Command = Command::sink("sink", any_name);

/// The steps of a file without `[[step]]`, one a line.
fn transform(steps: &str) -> Transform {
    let tables: Vec<String> = steps.trim().lines().map(|step| format!("{{ {} }}", step.trim())).collect();
    let text = format!("step = [{}]", tables.join(","));
    Transform::parse(&text, Path::new("t.toml"), SINK).unwrap_or_else(|error| panic!("{steps}: {error}"))
}

#[derive(Debug)]
struct Firmware;

impl Headers for Firmware {
    fn last(&self, name: &str) -> Option<&[u8]> {
        match name {
            "firmware" => Some(b"1.10"),
            "binary" => Some(b"\xff"),
            _ => None,
        }
    }
}

fn record(value: &[u8]) -> Record<'_> {
    Record {
        partition: Some(PartitionId(3)),
        offset: Some(Offset(1042)),
        timestamp: Some(Millis(1_766_400_000_000)),
        key: Some(b"generator4"),
        headers: &Firmware,
        ..Record::new("readings", value)
    }
}

/// What becomes of a value: JSON, or a word, or the failure.
fn after(steps: &str, value: &str) -> String {
    match transform(steps).apply(&record(value.as_bytes())) {
        Ok(Outcome::Unchanged) => "unchanged".to_owned(),
        Ok(Outcome::Filtered(step)) => format!("filtered by {}", step.label()),
        Ok(Outcome::Changed(changed)) => {
            let Changed { target, timestamp, fields, .. } = *changed;
            let mut words: Vec<String> = Vec::new();
            words.extend(target.map(|set| format!("to {}", set.value)));
            words.extend(timestamp.map(|set| format!("at {}", set.value.0)));
            words.extend(fields.map(|fields| String::from_utf8(fields.to_json()).unwrap()));
            words.join(" ")
        }
        Err(failure) => failure.to_string(),
    }
}

#[track_caller]
fn assert_after(steps: &str, cases: &[(&str, &str)]) {
    for (value, expected) in cases {
        assert_eq!(after(steps, value), *expected, "{value} after {steps}");
    }
}

#[test]
fn steps_apply_in_the_order_of_the_file_and_what_they_leave_keeps_its_text() {
    let steps = r#"
        kind = "rename", fields = { temperature = "coolant" }
        kind = "convert", fields = ["coolant"], from = "celsius", to = "fahrenheit"
        kind = "drop", fields = ["lat"]
        kind = "insert", field = "site", value = "north""#;
    assert_after(
        steps,
        &[(
            r#"{ "a":1.10, "lat":4, "temperature":74, "big":123456789012345678901234567890, "o":{ "x": 1 } }"#,
            r#"{"a":1.10,"coolant":165.2,"big":123456789012345678901234567890,"o":{ "x": 1 },"site":"north"}"#,
        )],
    );
}

#[test]
fn what_no_step_changes_passes_byte_for_byte() {
    let steps = r#"
        kind = "rename", fields = { other = "another" }
        kind = "drop", fields = ["other"]
        kind = "cast", fields = ["fuel"], to = "float"
        kind = "flatten"
        kind = "mask", fields = ["nothing"]
        kind = "insert", field = "firmware", header = "none"
        kind = "route", regex = "alerts", to = "elsewhere"
        kind = "timestamp", field = "at", unit = "ms""#;
    let value = r#" { "fuel" : 1.10 , "nothing": null, "at":1766400000000, "fuel": 2.0 } "#;
    assert_after(steps, &[(value, "unchanged")]);
    // Not even looked at, where the topic decides.
    assert_after(
        r#"kind = "mask", fields = ["a"], when = { topic = "alerts" }"#,
        &[("no JSON", "unchanged")],
    );
    assert_after(r#"kind = "route", regex = "(read).*", to = "${1}_2""#, &[("no JSON", "to read_2")]);
}

#[test]
fn fields_are_renamed_at_once_and_never_onto_another() {
    let steps = r#"kind = "rename", fields = { a = "b", b = "a" }"#;
    assert_after(steps, &[(r#"{"a":1,"b":2}"#, r#"{"b":1,"a":2}"#)]);
    let steps = r#"kind = "rename", fields = { a = "b" }"#;
    assert_after(
        steps,
        &[
            (r#"{"a":1,"c":0,"a":2}"#, r#"{"b":1,"c":0,"b":2}"#),
            (r#"{"\u0061":1}"#, r#"{"b":1}"#),
            (
                r#"{"a":1,"b":2}"#,
                "step 1 (rename, t.toml:1): there is a field `b` already: drop or rename it in a step before",
            ),
            (r#"{"b":2}"#, "unchanged"),
        ],
    );
}

#[test]
fn metadata_and_headers_are_inserted() {
    for (source, expected) in [
        (r#"from = "topic""#, r#"{"x":"readings"}"#),
        (r#"from = "partition""#, r#"{"x":3}"#),
        (r#"from = "offset""#, r#"{"x":1042}"#),
        (r#"from = "timestamp""#, r#"{"x":1766400000000}"#),
        (r#"from = "key""#, r#"{"x":"generator4"}"#),
        (r#"header = "firmware""#, r#"{"x":"1.10"}"#),
        (r#"header = "binary""#, "step 1 (insert, t.toml:1): header `binary` is not UTF-8"),
        (r#"value = 1.50"#, r#"{"x":1.5}"#),
        (r#"value = 0x1f"#, r#"{"x":31}"#),
        (r#"value = "a\"b""#, r#"{"x":"a\"b"}"#),
        (r#"value = true"#, r#"{"x":true}"#),
    ] {
        assert_eq!(after(&format!(r#"kind = "insert", field = "x", {source}"#), "{}"), expected, "{source}");
    }
    let steps = r#"kind = "insert", field = "x", value = 7"#;
    assert_after(steps, &[(r#"{"x":1,"y":2,"x":3}"#, r#"{"x":7,"y":2}"#), (r#"{"x":7}"#, "unchanged")]);
}

#[test]
fn a_cast_makes_the_type_or_fails() {
    for (to, value, expected) in [
        ("integer", "74", "unchanged"),
        ("integer", "123456789012345678901234567890", "unchanged"),
        ("integer", "-74.9", "-74"),
        ("integer", "1e3", "1000"),
        ("integer", r#""074""#, "74"),
        ("integer", r#""9007199254740993""#, "9007199254740993"),
        ("integer", "true", "1"),
        ("integer", "1e30", "fails"),
        ("integer", r#""0x10""#, "fails"),
        ("integer", r#""""#, "fails"),
        ("float", "74", "74.0"),
        ("float", "1.10", "unchanged"),
        ("float", r#""1e2""#, "100.0"),
        ("float", r#""inf""#, "fails"),
        ("float", r#""NaN""#, "fails"),
        ("float", r#"" 1""#, "fails"),
        ("float", "[1]", "fails"),
        ("string", "1.10", r#""1.10""#),
        ("string", "false", r#""false""#),
        ("string", r#""a""#, "unchanged"),
        ("string", "{}", "fails"),
        ("boolean", "0.0", "false"),
        ("boolean", "-1", "true"),
        ("boolean", r#""True""#, "true"),
        ("boolean", r#""yes""#, "fails"),
        ("boolean", "null", "unchanged"),
    ] {
        let found =
            after(&format!(r#"kind = "cast", fields = "x", to = "{to}""#), &format!(r#"{{"x":{value}}}"#));
        let found = match found.strip_prefix(r#"{"x":"#).and_then(|rest| rest.strip_suffix('}')) {
            Some(json) => json,
            None if found.starts_with("step 1 (cast, t.toml:1): field `x` is n") => "fails",
            None => found.as_str(),
        };
        assert_eq!(found, expected, "{value} to {to}");
    }
}

#[test]
fn a_mask_covers_every_member_of_the_name() {
    let value = r#"{"a":"secret","a":7,"a":true,"a":["secret"],"a":{"b":1},"a":null,"b":1}"#;
    assert_after(
        r#"kind = "mask", fields = ["a"]"#,
        &[(value, r#"{"a":"","a":0,"a":false,"a":[],"a":{},"a":null,"b":1}"#)],
    );
    assert_after(r#"kind = "mask", fields = ["a"], with = "***""#, &[(r#"{"a":1}"#, r#"{"a":"***"}"#)]);
}

#[test]
fn nested_objects_are_flattened_in_place() {
    let value = r#"{"a":{"b":1.10,"c":{"d":[{"e":1}],"e":{}}},"z":{"y":null}}"#;
    assert_after(
        r#"kind = "flatten""#,
        &[
            (value, r#"{"a_b":1.10,"a_c_d":[{"e":1}],"z_y":null}"#),
            (
                r#"{"a":{"b":1},"a_b":2}"#,
                "step 1 (flatten, t.toml:1): two fields would be named `a_b`: drop or rename one of them in a step before",
            ),
        ],
    );
    let steps = r#"kind = "flatten", fields = ["a"], separator = ".""#;
    assert_after(steps, &[(r#"{"a":{"b":1},"z":{"y":2}}"#, r#"{"a.b":1,"z":{"y":2}}"#)]);
}

#[test]
fn units_are_converted() {
    for (from, to, value, expected) in [
        ("celsius", "fahrenheit", "74", "165.2"),
        ("fahrenheit", "celsius", "212", "100.0"),
        ("celsius", "kelvin", "-273.15", "0.0"),
        ("kilopascal", "psi", "198", "28.717472071"),
        ("kilopascal", "bar", "198", "1.98"),
        ("litre", "us_gallon", "901", "238.019019175"),
        ("litre", "imperial_gallon", "4.54609", "1.0"),
        ("kilowatt", "horsepower", "100", "134.10220896"),
    ] {
        let steps = format!(r#"kind = "convert", fields = "x", from = "{from}", to = "{to}""#);
        let found = after(&steps, &format!(r#"{{"x":{value}}}"#));
        assert_eq!(found, format!(r#"{{"x":{expected}}}"#), "{value} {from} in {to}");
    }
    let steps = r#"kind = "convert", fields = "x", from = "kilopascal", to = "psi", decimals = 1"#;
    assert_after(
        steps,
        &[
            (r#"{"x":198}"#, r#"{"x":28.7}"#),
            (r#"{"x":null}"#, "unchanged"),
            (
                r#"{"x":"198"}"#,
                "step 1 (convert, t.toml:1): field `x` must be a number: cast it in a step before; found `\"198\"`",
            ),
            (
                r#"{"x":1e999}"#,
                "step 1 (convert, t.toml:1): field `x` is too large for a double; found `1e999`",
            ),
        ],
    );
}

#[test]
fn a_route_takes_groups_of_its_pattern() {
    let value = r#"{"site":"north-1"}"#;
    for (steps, expected) in [
        (r#"kind = "route", regex = "(?<all>.*)", to = "${all}_v2""#, "to readings_v2"),
        (r#"kind = "route", regex = "read", to = "x""#, "unchanged"),
        (r#"kind = "route", field = "site", regex = "([a-z]+)-(\\d)", to = "$2.$1""#, "to 1.north"),
        (r#"kind = "route", field = "none", regex = ".*", to = "x""#, "unchanged"),
        (r#"kind = "route", from = "key", regex = "generator(\\d)", to = "g$1$$""#, "to g4$"),
    ] {
        assert_eq!(after(steps, value), expected, "{steps}");
    }
    // Later steps see the new topic.
    let steps = r#"
        kind = "route", regex = "readings", to = "hot"
        kind = "insert", field = "to", from = "topic", when = { topic = "hot" }
        kind = "filter", when = { topic = "readings" }"#;
    assert_after(steps, &[("{}", r#"to hot {"to":"hot"}"#)]);
}

#[test]
fn a_route_goes_only_where_the_target_can_be() {
    let steps = r#"step = [{ kind = "route", field = "site", regex = "(.*)", to = "r_$1" }]"#;
    let transform = Transform::parse(steps, Path::new("t.toml"), Command::BRIDGE).unwrap();
    let apply = |value: &'static [u8]| transform.apply(&Record::new("readings", value)).map(|_| ());
    apply(br#"{"site":"north"}"#).unwrap();
    let failure = apply(br#"{"site":"../\u001b"}"#).unwrap_err().to_string();
    assert_eq!(
        failure,
        "step 1 (route, t.toml:1): it can't go to `r_../\\u{1b}`: a topic's name is 1 to 249 of the characters a-z A-Z 0-9 _ - ."
    );
}

#[test]
fn a_timestamp_has_its_unit() {
    for (unit, value, expected) in [
        ("ms", "1766400000001", "at 1766400000001"),
        ("s", "1766400001", "at 1766400001000"),
        ("s", "1766400000.0019", "at 1766400000001"),
        ("s", r#""1766400001""#, "at 1766400001000"),
        ("us", "1766400000001999", "at 1766400000001"),
        ("ns", "1766400000001999999", "at 1766400000001"),
        ("s", "-1.5", "at -1500"),
        ("rfc3339", r#""2025-12-22T10:40:00.001Z""#, "at 1766400000001"),
        ("rfc3339", r#""2025-12-22T11:40:00.001+01:00""#, "at 1766400000001"),
        ("ms", "1766400000000", "unchanged"),
    ] {
        let steps = format!(r#"kind = "timestamp", field = "x", unit = "{unit}""#);
        assert_eq!(after(&steps, &format!(r#"{{"x":{value}}}"#)), expected, "{value} {unit}");
    }
    for (unit, value) in
        [("s", "1e30"), ("ms", "null"), ("ms", r#""soon""#), ("rfc3339", "7"), ("s", "9999999999999")]
    {
        let steps = format!(r#"kind = "timestamp", field = "x", unit = "{unit}""#);
        let found = after(&steps, &format!(r#"{{"x":{value}}}"#));
        assert!(found.starts_with("step 1 (timestamp, t.toml:1): field `x` is no time"), "{found}");
    }
    let steps = r#"kind = "timestamp", field = "x", unit = "s""#;
    assert!(
        after(steps, "{}").ends_with(r#"field `x` is absent: where it may be, use when = { exists = "x" }"#)
    );
}

#[test]
fn conditions_say_when() {
    for (when, holds) in [
        (r#"topic = "readings""#, true),
        (r#"topic = ["alerts", "readings"]"#, true),
        (r#"topic_matches = "read.*""#, true),
        (r#"topic_matches = "read""#, false),
        (r#"exists = "fuel""#, true),
        (r#"exists = ["fuel", "load"]"#, false),
        (r#"absent = "load""#, true),
        (r#"absent = ["load", "fuel"]"#, false),
        (r#"field = "fuel", below = 200"#, true),
        (r#"field = "fuel", below = 199.5"#, false),
        (r#"field = "fuel", at_most = 199.5"#, true),
        (r#"field = "fuel", above = 100, below = 200"#, true),
        (r#"field = "fuel", at_least = 200"#, false),
        (r#"field = "fuel", equals = 199.5"#, true),
        (r#"field = "fuel", equals = "199.5""#, false),
        (r#"field = "big", equals = 9007199254740993"#, true),
        (r#"field = "big", equals = 9007199254740992"#, false),
        (r#"field = "site", one_of = ["south", "north"]"#, true),
        (r#"field = "site", matches = "n.*h""#, true),
        (r#"field = "site", matches = "n""#, false),
        (r#"field = "fuel", matches = ".*""#, false),
        (r#"field = "on", equals = true"#, true),
        (r#"field = "none", below = 1"#, false),
        (r#"not = { field = "none", below = 1 }"#, true),
        (r#"any = [{ exists = "none" }, { field = "site", equals = "north" }]"#, true),
        (r#"any = [{ exists = "none" }], exists = "fuel""#, false),
    ] {
        let value =
            r#"{"fuel":7,"fuel":199.5,"load":null,"site":"n\u006frth","on":true,"big":9007199254740993}"#;
        let found = after(&format!(r#"kind = "filter", when = {{ {when} }}"#), value);
        assert_eq!(found, if holds { "filtered by 1-filter" } else { "unchanged" }, "{when}");
    }
}

#[test]
fn a_mistake_is_named_with_file_line_and_remedy() {
    let cases = [
        ("", 1, "there is no [[step]] in it"),
        ("[[steps]]\n", 1, "unknown key `steps`; known here: step"),
        ("a = \n", 1, ""),
        ("[[step]]\nkind = \"drop\"\n\n[[step]]\nfields = [\"a\"]", 1, "`fields` is missing"),
        ("\n[[step]]\nfields = [\"a\"]", 2, "`kind` is missing"),
        ("[[step]]\nkind = \"remove\"", 2, "there is no kind `remove`; there are cast, convert, drop"),
        (
            "[[step]]\nkind = \"drop\"\nfields = [\"a\"]\nfield = \"b\"",
            4,
            "unknown key `field`; known here: fields, kind, when",
        ),
        ("[[step]]\nkind = \"drop\"\nfields = []", 3, "`fields` is empty"),
        ("[[step]]\nkind = \"drop\"\nfields = [\"a\", 7]", 3, "`fields` takes strings, not an integer"),
        (
            "[[step]]\nkind = \"rename\"\nfields = { a = \"x\", b = \"x\" }",
            3,
            "two fields would be named `x`",
        ),
        ("[[step]]\nkind = \"cast\"\nfields = \"a\"\nto = \"number\"", 4, "there is no type `number`"),
        ("[[step]]\nkind = \"insert\"\nfield = \"a\"", 1, "one of `value`"),
        (
            "[[step]]\nkind = \"insert\"\nfield = \"a\"\nfrom = \"mqtt_topic\"",
            4,
            "has no `mqtt_topic`; it has topic, partition",
        ),
        ("[[step]]\nkind = \"insert\"\nfield = \"a\"\nvalue = inf", 4, "must be finite"),
        ("[[step]]\nkind = \"insert\"\nfield = \"a\"\nvalue = [1]", 4, "not a list"),
        (
            "[[step]]\nkind = \"convert\"\nfields = \"a\"\nfrom = \"celsius\"\nto = \"psi\"",
            5,
            "`celsius` is a unit of temperature, `psi` one of pressure",
        ),
        (
            "[[step]]\nkind = \"convert\"\nfields = \"a\"\nfrom = \"degrees\"\nto = \"psi\"",
            4,
            "there is no unit `degrees`; there are celsius",
        ),
        (
            "[[step]]\nkind = \"convert\"\nfields = \"a\"\nfrom = \"bar\"\nto = \"psi\"\ndecimals = 99",
            6,
            "from 0 to 15",
        ),
        (
            "[[step]]\nkind = \"route\"\nregex = \"(\"\nto = \"a\"",
            3,
            "is no regular expression: unclosed group",
        ),
        ("[[step]]\nkind = \"route\"\nregex = \"a)(b\"\nto = \"a\"", 3, "is no regular expression"),
        ("[[step]]\nkind = \"route\"\nregex = \"(a)\"\nto = \"$1_v2\"", 4, "no group `1_v2`"),
        ("[[step]]\nkind = \"route\"\nregex = \"(a)\"\nto = \"$2\"", 4, "no group `2`"),
        ("[[step]]\nkind = \"route\"\nregex = \"(a)\"\nto = \"${1\"", 4, "without `}`"),
        ("[[step]]\nkind = \"route\"\nregex = \"a\"\nto = \"b\"\nfrom = \"offset\"", 5, "not at offset"),
        ("[[step]]\nkind = \"filter\"", 1, "would drop every record"),
        ("[[step]]\nkind = \"drop\"\nfields = \"a\"\nwhen = {}", 4, "`when` is empty"),
        ("[[step]]\nkind = \"drop\"\nfields = \"a\"\nwhen = { below = 1 }", 4, "a test needs `field`"),
        ("[[step]]\nkind = \"drop\"\nfields = \"a\"\nwhen = { field = \"a\" }", 4, "`field` needs a test"),
        (
            "[[step]]\nkind = \"drop\"\nfields = \"a\"\n[step.when]\nfield = \"a\"\nbelow = \"1\"",
            6,
            "`below` is a number",
        ),
        (
            "[[step]]\nkind = \"drop\"\nfields = \"a\"\nwhen = { not = { fild = \"a\" } }",
            4,
            "unknown key `fild`",
        ),
        ("[[step]]\nkind = \"timestamp\"\nfield = \"a\"\nunit = \"min\"", 4, "there is no unit `min`"),
    ];
    for (text, line, words) in cases {
        let error = Transform::parse(text, Path::new("t.toml"), SINK).expect_err(text).to_string();
        assert!(error.starts_with(&format!("t.toml:{line}: ")), "{text}\n  gave: {error}");
        assert!(error.contains(words) && !error.contains('\n'), "{text}\n  gave: {error}");
    }
    for (text, words) in [
        ("step = [{ kind = \"tag\", fields = \"a\" }]", "`bridge` writes no tags"),
        (
            "step = [{ kind = \"insert\", field = \"a\", from = \"offset\" }]",
            "a record of `bridge` has no `offset`",
        ),
        ("step = [{ kind = \"route\", regex = \"a\", to = \"a b\" }]", "a topic's name is 1 to 249"),
    ] {
        let error = Transform::parse(text, Path::new("t.toml"), Command::BRIDGE).expect_err(text).to_string();
        assert!(error.starts_with("t.toml:1: ") && error.contains(words), "{error}");
    }
    let error = Transform::load(Path::new("/nowhere/t.toml"), SINK).expect_err("no file").to_string();
    assert!(error.contains("/nowhere/t.toml"), "{error}");
}

#[test]
fn what_is_no_object_fails_and_shows_its_beginning() {
    let steps = r#"kind = "drop", fields = "a""#;
    let found = |value: &[u8]| transform(steps).apply(&record(value)).expect_err("it fails").to_string();
    assert_eq!(found(b"[1]"), "step 1 (drop, t.toml:1): the value is not a JSON object; found `[1]`");
    assert!(found(b"{\"a\":1").contains("the value is not JSON ("), "{}", found(b"{\"a\":1"));
    assert!(found(b"").contains("the value is not JSON ("));
    assert!(found(b"{\"a\":NaN}").contains("the value is not JSON ("));
    assert!(found(b"{} {}").contains("the value is not JSON ("));
    assert_eq!(found(b"{\"a\":\"\xff\"}"), "step 1 (drop, t.toml:1): the value is not UTF-8");
    let long = vec![b' '; MAX_VALUE_BYTES + 1];
    assert!(found(&long).ends_with("the value has 1048577 bytes; the most is 1048576"));
}

#[test]
fn hostile_records_end_in_time_and_without_a_deep_stack() {
    let steps = r#"
        kind = "flatten"
        kind = "insert", field = "x", value = 1
        kind = "rename", fields = { x = "y" }"#;
    let filled = |unit: &str| unit.repeat(MAX_VALUE_BYTES / unit.len() - 8);
    let deep = format!("{{\"a\":{}", filled("{\"a\":"));
    let brackets = MAX_VALUE_BYTES / 2 - 8;
    let lists = format!("{{\"a\":{}{}}}", "[".repeat(brackets), "]".repeat(brackets));
    let objects = format!("{}1{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    let wide = format!("{{{}\"b\":1}}", filled("\"a\":1,"));
    // A long name above many members.
    let tall = format!("{{\"{}\":{{{}\"b\":1}}}}", "n".repeat(500_000), "\"a\":1,".repeat(80_000));
    for value in [&deep, &lists, &objects, &wide, &tall] {
        assert!(value.len() <= MAX_VALUE_BYTES, "{}", value.len());
        let begun = std::time::Instant::now();
        let outcome = std::thread::scope(|scope| {
            let run =
                || transform(steps).apply(&record(value.as_bytes())).map(|_| ()).map_err(|f| f.to_string());
            let thread = std::thread::Builder::new().stack_size(256 << 10).spawn_scoped(scope, run);
            thread.expect("a thread").join().expect("no panic")
        });
        if let Err(message) = outcome {
            assert!(message.len() < 400, "{message}");
        }
        assert!(begun.elapsed().as_secs() < 20, "{:.40}", value);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Properties: what each kind does to any object, and what it leaves.

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
        let clash = members.iter().any(|(name, _)| *name == "a") && members.iter().any(|(name, _)| *name == "q\"");
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
        let found = through(r#"kind = "insert", field = "a", from = "offset""#, &text(&members)).expect("it can't fail");
        let (inserted, others): (Members, Members) = found.into_iter().partition(|(name, _)| name == "a");
        prop_assert_eq!(inserted, [("a".to_owned(), "1042".to_owned())]);
        let mut expected = own(&members);
        expected.retain(|(name, _)| name != "a");
        prop_assert_eq!(others, expected);
    }

    #[test]
    fn property_a_cast_gives_the_type_and_leaves_the_rest(members in members(), to in 0..4usize) {
        let (to, wanted) = [
            ("integer", JsonType::Number), ("float", JsonType::Number), ("string", JsonType::String), ("boolean", JsonType::Boolean),
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
            prop_assert!(match to { "integer" => is_integer, "float" => !is_integer, _ => true }, "{} to {}", value, json);
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
        let found = through(r#"kind = "flatten""#, &text(&members)).map(|found| {
            found.into_iter().map(|(name, json)| (name, serde_json::from_str(&json).expect("JSON"))).collect::<Vec<(String, Value)>>()
        });
        prop_assert_eq!(found, (!twice).then_some(expected));
    }

    #[test]
    fn property_there_and_back_is_the_same_quantity(number in -1e6..1e6f64, from in 0..UNITS.len(), to in 0..UNITS.len()) {
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
        prop_assert!((found - number).abs() <= 1e-6 * number.abs().max(1.0), "{} {} in {}: {}", number, from, to, found);
    }

    #[test]
    fn property_a_route_is_the_replacement_of_the_whole(topic in "[a-z]{1,8}_[0-9]{1,3}") {
        let transform = transform(r#"kind = "route", regex = "([a-z]+)_(?<number>[0-9]+)", to = "t.$number.${1}_x""#);
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
    fn property_a_filter_drops_what_its_condition_says_and_changes_nothing(members in members(), limit in -1e9..1e9f64) {
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
            let found = after(&format!(r#"kind = "timestamp", field = "x", unit = "{unit}""#), &format!(r#"{{"x":{value}}}"#));
            prop_assert_eq!(found, if at == 1_766_400_000_000 { "unchanged".to_owned() } else { format!("at {at}") });
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
        let expected: Vec<&str> = ["a", "é"].into_iter().filter(|tag| members.iter().any(|(name, _)| name == tag)).collect();
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
