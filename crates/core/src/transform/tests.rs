//! Tests each kind of step, files with mistakes and hostile records. [`properties`] has what holds for any record.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod properties;

use std::path::Path;

use super::record::{Command, Headers, Record};
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
