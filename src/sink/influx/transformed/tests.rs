//! What a transformed record looks like in line protocol.

use std::path::Path;

use genwatch_core::transform::Transform;
use genwatch_core::transform::record::Command;
use genwatch_core::types::{Millis, Offset};

use crate::sink::influx::line_protocol::{PointShape, Precision, is_measurement};
use crate::sink::{NotWritten, SourceRecord};

fn check(name: &str) -> Result<(), String> {
    if is_measurement(name) { Ok(()) } else { Err("no measurement".to_owned()) }
}

fn transform(steps: &str) -> Transform {
    let tables: Vec<String> = steps.trim().lines().map(|step| format!("{{ {} }}", step.trim())).collect();
    let text = format!("step = [{}]", tables.join(","));
    Transform::parse(&text, Path::new("t.toml"), Command::sink("sink", check)).expect(steps)
}

/// The lines, or why there are none.
fn lines_of(shape: &PointShape, steps: &str, value: &str) -> Result<String, String> {
    let record = SourceRecord {
        key: Some(b"g"),
        value: Some(value.as_bytes()),
        at: Some(Millis(1_766_400_000_123)),
        offset: Offset(42),
        ..SourceRecord::default()
    };
    let mut lines = "before\n".to_owned();
    let appended = shape.append_transformed(&record, "readings", &transform(steps), &mut lines);
    let lines = lines.strip_prefix("before\n").expect("it only appends").to_owned();
    match appended {
        Ok(()) => Ok(lines),
        Err(reason) => {
            assert_eq!(lines, "", "nothing is appended");
            Err(match reason {
                NotWritten::Skipped(skipped) => skipped.label.to_owned(),
                NotWritten::Filtered => "filtered".to_owned(),
                NotWritten::Failed(failure) => failure.to_string(),
            })
        }
    }
}

fn of_reading(steps: &str, members: &str) -> Result<String, String> {
    let value = format!(
        r#"{{"generatorID":"g","lat":1,"lon":-2.5,"temperature":74,"pressure":198,"fuel":901{members}}}"#
    );
    lines_of(&PointShape::of_readings("m", Precision::Ns), steps, &value)
}

const TIME: &str = "1766400000123000042";

#[track_caller]
fn assert_lines(found: Result<String, String>, expected: &[&str]) {
    let expected: String = expected.iter().map(|line| format!("{line}\n")).collect();
    assert_eq!(found.as_deref(), Ok(expected.as_str()));
}

#[test]
fn what_no_step_changes_is_the_line_that_it_would_be_without_steps() {
    let unchanged = of_reading(r#"kind = "drop", fields = "other""#, r#","load":55,"site":"north""#);
    let base = "m,generatorID=g";
    assert_lines(
        unchanged,
        &[
            &format!("{base} fuel=901.0,lat=1.0,load=55.0,lon=-2.5,pressure=198.0,temperature=74.0 {TIME}"),
            &format!("{base} site=\"north\" {TIME}"),
        ],
    );
}

#[test]
fn fields_of_a_certain_type_are_apart_from_those_of_the_device() {
    let steps = r#"
        kind = "rename", fields = { temperature = "coolant" }
        kind = "keep", fields = ["coolant", "fuel", "site", "gps"]
        kind = "insert", field = "maker", value = "acme""#;
    let members = r#","load":55,"site":"north","gps":{"fix":true}"#;
    assert_lines(
        of_reading(steps, members),
        &[
            &format!(r#"m,generatorID=g coolant=74.0,fuel=901.0,maker="acme" {TIME}"#),
            &format!(r#"m,generatorID=g gps_fix=true,site="north" {TIME}"#),
        ],
    );
    // A cast makes the type certain.
    let steps = r#"
        kind = "keep", fields = ["load", "site"]
        kind = "cast", fields = ["site", "load"], to = "string""#;
    assert_lines(of_reading(steps, members), &[&format!(r#"m,generatorID=g load="55",site="north" {TIME}"#)]);
    let steps = r#"kind = "keep", fields = "site""#;
    assert_lines(of_reading(steps, members), &[&format!(r#"m,generatorID=g site="north" {TIME}"#)]);
}

#[test]
fn fields_become_tags_a_route_names_the_measurement_and_a_field_the_time() {
    let steps = r#"
        kind = "keep", fields = ["fuel", "site", "unit", "at"]
        kind = "tag", fields = ["site", "unit", "none"]
        kind = "route", field = "site", regex = "(.*) (\\d)", to = "hall $2, $1"
        kind = "timestamp", field = "at", unit = "s"
        kind = "drop", fields = "at""#;
    assert_lines(
        of_reading(steps, r#","at":1766400001,"site":"north 1","unit":7"#),
        &[r"hall\ 1\,\ north,generatorID=g,site=north\ 1,unit=7 fuel=901.0 1766400001000000042"],
    );
    // Without a change of fields.
    let steps = r#"kind = "route", regex = "readings", to = "hot""#;
    let found = of_reading(steps, "").expect("lines");
    assert!(found.starts_with("hot,generatorID=g fuel=901.0,lat=1.0,"), "{found}");
}

#[test]
fn alerts_keep_their_tags_and_the_time_of_their_reading() {
    let shape = PointShape::of_alerts("a", Precision::Ns);
    let value = r#"{"generatorID":"g","rule":"low_fuel","state":"raised","severity":"warning","value":199.0,"at":1766400000000,"source":{"topic":"t","offset":7}}"#;
    let steps = r#"
        kind = "drop", fields = ["source", "at"]
        kind = "rename", fields = { value = "litres" }"#;
    let tags = "rule=low_fuel,severity=warning,state=raised";
    assert_lines(
        lines_of(&shape, steps, value),
        &[&format!("a,generatorID=g,{tags} litres=199.0 1766400000000000007")],
    );
    assert_eq!(lines_of(&shape, r#"kind = "keep", fields = "rule""#, value), Err("no_field".to_owned()));
    // An aggregate has no offset in its time.
    let shape = PointShape::of_aggregates("m", Precision::Ns);
    let steps = r#"kind = "timestamp", field = "end", unit = "ms""#;
    let found = lines_of(&shape, steps, r#"{"generatorID":"g","end":5,"fuel":{"min":1}}"#);
    assert_lines(found, &["m,generatorID=g end=5.0,fuel_min=1.0 5000000"]);
}

#[test]
fn what_makes_no_point_says_why() {
    for (steps, expected) in [
        (r#"kind = "filter", when = { exists = "fuel" }"#, "filtered"),
        (r#"kind = "keep", fields = "generatorID""#, "no_field"),
        (r#"kind = "tag", fields = "note""#, "bad_tag"),
    ] {
        assert_eq!(of_reading(steps, r#","note":"a\nb""#), Err(expected.to_owned()), "{steps}");
    }
    let failed = |steps, members| of_reading(steps, members).expect_err("it fails");
    let far = failed(r#"kind = "timestamp", field = "at", unit = "s""#, r#","at":99999999999"#);
    assert!(far.starts_with("step 1 (timestamp, t.toml:1): the timestamp 99999999999000 is out"), "{far}");
    let nowhere = failed(r##"kind = "route", field = "site", regex = "(.*)", to = "#$1""##, r#","site":"x""#);
    assert!(
        nowhere.starts_with("step 1 (route, t.toml:1): it can't go to `#x`: no measurement"),
        "{nowhere}"
    );
    // Judged before: what isn't a reading stays none, whatever the steps would make of it.
    let steps = r#"kind = "insert", field = "fuel", value = 1"#;
    let shape = PointShape::of_readings("m", Precision::Ns);
    assert_eq!(lines_of(&shape, steps, r#"{"generatorID":"g"}"#), Err("missing_field".to_owned()));
}
