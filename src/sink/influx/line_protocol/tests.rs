use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// A point, as a strict reader of the format understands it.
#[derive(Debug, PartialEq)]
struct Point {
    measurement: String,
    tags: BTreeMap<String, String>,
    fields: BTreeMap<String, Content>,
    time: i64,
}

#[derive(Debug, PartialEq)]
enum Content {
    Float(f64),
    Bool(bool),
    Text(String),
}

/// Reads one whole line. Shares no code with the writer: it goes by characters, and a backslash makes the next one
/// literal if that is one of `special`.
fn read(line: &str) -> Point {
    let line = line.strip_suffix('\n').expect("a line ends with a line feed");
    assert!(!line.contains('\n') && !line.starts_with('#'), "{line:?}");
    let mut rest = line.chars().peekable();
    let mut word = |ends: &[char], special: &[char]| {
        let mut word = String::new();
        while let Some(c) = rest.next() {
            match c {
                '\\' if rest.peek().is_some_and(|next| special.contains(next)) => {
                    word.push(rest.next().expect("peeked"));
                }
                '"' if ends == ['"'] => return (word, Some('"')),
                c if ends.contains(&c) => return (word, Some(c)),
                c => word.push(c),
            }
        }
        (word, None)
    };
    let (measurement, mut end) = word(&[',', ' '], &[',', ' ']);
    let mut tags = BTreeMap::new();
    while end == Some(',') {
        let (name, equals) = word(&['='], &[',', '=', ' ']);
        assert_eq!(equals, Some('='), "{line}");
        let (value, next) = word(&[',', ' '], &[',', '=', ' ']);
        assert!(!name.is_empty() && !value.is_empty(), "{line}");
        assert!(tags.insert(name, value).is_none(), "{line}");
        end = next;
    }
    assert_eq!(end, Some(' '), "{line}");
    let mut fields = BTreeMap::new();
    end = Some(',');
    while end == Some(',') {
        let (name, equals) = word(&['='], &[',', '=', ' ']);
        assert_eq!(equals, Some('='), "{line}");
        let (start, after) = word(&[',', ' ', '"'], &[]);
        let field = if after == Some('"') {
            assert_eq!(start, "", "{line}");
            let (text, quote) = word(&['"'], &['"', '\\']);
            assert_eq!(quote, Some('"'), "{line}");
            let (nothing, next) = word(&[',', ' '], &[]);
            assert_eq!(nothing, "", "{line}");
            end = next;
            Content::Text(text)
        } else {
            end = after;
            match start.as_str() {
                "true" => Content::Bool(true),
                "false" => Content::Bool(false),
                number => Content::Float(number.parse().expect("a float without a suffix")),
            }
        };
        assert!(!name.is_empty() && fields.insert(name, field).is_none(), "{line}");
    }
    assert_eq!(end, Some(' '), "{line}");
    let (time, none) = word(&[], &[]);
    assert_eq!(none, None);
    let point = Point { measurement, tags, fields, time: time.parse().expect("a time") };
    // InfluxData's own parser, which is stricter than InfluxDB itself with control characters.
    if !line.chars().any(char::is_control) {
        assert_eq!(read_by_influxdata(line), point, "{line:?}");
    }
    point
}

fn read_by_influxdata(line: &str) -> Point {
    use influxdb_line_protocol::{FieldValue, parse_lines};
    let lines: Vec<_> =
        parse_lines(line).collect::<Result<_, _>>().unwrap_or_else(|error| panic!("{error}: {line:?}"));
    let [line] = &lines[..] else { panic!("{} lines: {line:?}", lines.len()) };
    let tags = line.series.tag_set.iter().flatten();
    let field = |value: &FieldValue<'_>| match value {
        FieldValue::F64(number) => Content::Float(*number),
        FieldValue::Boolean(yes) => Content::Bool(*yes),
        FieldValue::String(text) => Content::Text(text.to_string()),
        other => panic!("{other:?}"),
    };
    Point {
        measurement: line.series.measurement.to_string(),
        tags: tags.map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        fields: line.field_set.iter().map(|(name, value)| (name.to_string(), field(value))).collect(),
        time: line.timestamp.expect("a time"),
    }
}

const AT: i64 = 1_766_400_000_123;
const OFFSET: Offset = Offset(7_001_042);

fn append(shape: &PointShape, key: &str, value: &str) -> Result<String, SkipReason> {
    let (key, value) = (Some(key.as_bytes()), Some(value.as_bytes()));
    let source = SourceRecord {
        topic: 0,
        key,
        value,
        at: Some(Millis(AT)),
        offset: OFFSET,
        ..SourceRecord::default()
    };
    let mut lines = String::new();
    shape.append(&source, &mut lines).map(|()| lines)
}

fn aggregate(value: &serde_json::Value) -> Result<String, SkipReason> {
    append(&PointShape::of_aggregates("m", Precision::Ms), "g", &value.to_string())
}

/// Returns a good reading of generator g with these additional members.
fn reading_with(members: &str) -> String {
    format!(r#"{{"generatorID":"g","lat":1,"lon":-2.5,"temperature":74,"pressure":198,"fuel":901{members}}}"#)
}

const READING: &str = "m,generatorID=g fuel=901.0,lat=1.0,lon=-2.5,pressure=198.0,temperature=74.0";

#[test]
fn a_reading_is_a_point_of_its_generator() {
    let value = concat!(
        r#"{"generatorID":"generator4","lat":40.65995,"lon":-111.99633,"#,
        r#""temperature":74,"pressure":198,"fuel":901}"#
    );
    let line = append(&PointShape::of_readings("emergency_generators", Precision::Ns), "generator4", value);
    let expected = concat!(
        "emergency_generators,generatorID=generator4 fuel=901.0,lat=40.65995,lon=-111.99633,pressure=198.0,",
        "temperature=74.0 1766400000123001042\n"
    );
    assert_eq!(line.as_deref(), Ok(expected));
    read(expected);
}

#[test]
fn a_reading_is_what_the_worker_takes_for_one() {
    let shape = PointShape::of_readings("m", Precision::Ms);
    for (key, value, code) in [
        ("g", reading_with("").replace("74", "\"74\""), ErrorCode::WrongType),
        ("g", reading_with(r#","load":"55""#), ErrorCode::WrongType),
        ("g", reading_with("").replace("\"fuel\":901", "\"fuel\":null"), ErrorCode::MissingField),
        ("g", reading_with(r#","fuel":1"#), ErrorCode::DuplicateField),
        ("g", reading_with("").replace("-2.5", "-200"), ErrorCode::OutOfRange),
        ("h", reading_with(""), ErrorCode::KeyMismatch),
        ("g", "[]".to_owned(), ErrorCode::NotObject),
        ("g", "none".to_owned(), ErrorCode::NotJson),
        ("g", " ".repeat(reading::MAX_VALUE_BYTES) + &reading_with(""), ErrorCode::TooLarge),
    ] {
        assert_eq!(append(&shape, key, &value), Err(SkipReason::DeadLetter(code)), "{value:.200}");
        assert_eq!(SkipReason::DeadLetter(code).as_str(), code.as_str());
    }
    let gone = SourceRecord {
        topic: 0,
        key: Some(b"g"),
        value: None,
        at: Some(Millis(0)),
        offset: Offset(0),
        ..SourceRecord::default()
    };
    assert_eq!(shape.append(&gone, &mut String::new()), Err(SkipReason::Tombstone));
    let of_nobody = SourceRecord { topic: 0, key: None, ..gone };
    let unfit = Err(SkipReason::DeadLetter(ErrorCode::KeyMissing));
    assert_eq!(shape.append(&of_nobody, &mut String::new()), unfit);
    let unsayable = reading_with("").replace("\"g\"", "\"g\\n\"");
    assert_eq!(append(&shape, "g\n", &unsayable), Err(SkipReason::BadTag));
}

#[test]
fn members_that_nobody_knows_are_on_a_line_of_their_own_where_they_can_do_no_harm() {
    let shape = PointShape::of_readings("m", Precision::Ms);
    for (members, expected) in [
        ("", None),
        (r#","load":55"#, None),
        (r#","load":null"#, None),
        (r#","site":null,"list":[{"a":1}],"fuel2":[]"#, None),
        (r#","site":"north","deep":{"a":true},"model":7"#, Some(r#"deep_a=true,model=7.0,site="north""#)),
        (r#","time":1"#, Some("time=1.0")),
        (r#","site":1,"site":"\"""#, Some(r#"site="\"""#)),
        (r#","huge":1e999,"a":1"#, Some("a=1.0")),
        (r#","\ud800":1,"a":1"#, None),
    ] {
        let load = if members.contains("55") { ",load=55.0" } else { "" };
        let mut lines = format!("{} {AT}\n", READING.replace(",lon", &format!("{load},lon")));
        if let Some(fields) = expected {
            lines.push_str(&format!("m,generatorID=g {fields} {AT}\n"));
        }
        assert_eq!(append(&shape, "g", &reading_with(members)), Ok(lines), "{members}");
    }
    let deep = format!(",\"a\":1,\"deep\":{}1{}", "{\"a\":".repeat(10_000), "}".repeat(10_000));
    let lines = append(&shape, "g", &reading_with(&deep)).expect("a point");
    assert_eq!(lines, format!("{READING} {AT}\nm,generatorID=g a=1.0 {AT}\n"));
}

#[test]
fn an_alert_has_rule_severity_and_state_as_tags_and_its_source_flattened() {
    let value = concat!(
        r#"{"id":"t-3-1042-low_fuel","generatorID":"g","rule":"low_fuel","state":"raised","severity":"warning","#,
        r#""field":"fuel","value":199.0,"threshold":200.0,"at":1766400123000,"since":1766400000000,"#,
        r#""lat":null,"source":{"topic":"t","partition":3,"offset":1042}}"#
    );
    let line = append(&PointShape::of_alerts("m_alerts", Precision::S), "g", value);
    let expected = concat!(
        "m_alerts,generatorID=g,rule=low_fuel,severity=warning,state=raised field=\"fuel\",",
        "id=\"t-3-1042-low_fuel\",since=1766400000000.0,source_offset=1042.0,source_partition=3.0,source_topic=\"t\",",
        "threshold=200.0,value=199.0 1766400123\n"
    );
    assert_eq!(line.as_deref(), Ok(expected));
    // It has the time of its reading, to the nanosecond.
    let line = append(&PointShape::of_alerts("m_alerts", Precision::Ns), "g", value).expect("a point");
    assert!(line.ends_with(" 1766400123000001042\n"), "{line}");
    // Without an `at` that is a time, it has the record's timestamp.
    let line = append(&PointShape::of_alerts("m", Precision::S), "g", r#"{"at":"noon","value":1}"#);
    assert_eq!(line.as_deref(), Ok("m,generatorID=g value=1.0 1766400000\n"));
}

#[test]
fn numbers_are_floats_and_null_lists_and_nameless_things_are_left_out() {
    let value = json!({
        "int": 7, "big": u64::MAX, "small": 1e-300, "minus": -0.5, "yes": true, "no": false, "text": "a",
        "null": null, "list": [1, 2], "": 1, "deep": {"a": {"b": 1, "": 2}, "list": []},
    });
    let point = read(&aggregate(&value).expect("a point"));
    let field = |name: &str| point.fields.get(name);
    assert_eq!(field("int"), Some(&Content::Float(7.0)));
    assert_eq!(field("big"), Some(&Content::Float(u64::MAX as f64)));
    assert_eq!(field("small"), Some(&Content::Float(1e-300)));
    assert_eq!(field("minus"), Some(&Content::Float(-0.5)));
    assert_eq!(field("yes"), Some(&Content::Bool(true)));
    assert_eq!(field("no"), Some(&Content::Bool(false)));
    assert_eq!(field("text"), Some(&Content::Text("a".to_owned())));
    assert_eq!(field("deep_a_b"), Some(&Content::Float(1.0)));
    assert_eq!(point.fields.len(), 8, "{point:?}");
}

#[test]
fn of_two_members_that_come_to_one_name_the_first_stays() {
    let line = append(&PointShape::of_aggregates("m", Precision::Ms), "g", r#"{"a":{"b":1},"a_b":2}"#);
    assert_eq!(line.as_deref(), Ok("m,generatorID=g a_b=1.0 1766400000123\n"));
}

#[test]
fn times_are_in_the_unit_asked_for() {
    for (precision, at, expected) in [
        (Precision::Ms, AT, Some(AT)),
        (Precision::S, AT, Some(1_766_400_000)),
        (Precision::S, -1, Some(-1)),
        (Precision::S, -1001, Some(-2)),
        (Precision::Us, AT, Some(1_766_400_000_123_000)),
        (Precision::Ns, AT, Some(1_766_400_000_123_001_042)),
        (Precision::Ns, *TIMES.end(), Some(9_223_372_036_853_001_042)),
        (Precision::Ns, *TIMES.start(), Some(-9_223_372_036_853_998_958)),
        (Precision::Ms, TIMES.end() + 1, None),
        (Precision::S, i64::MIN, None),
    ] {
        assert_eq!(precision.ticks(Millis(at), OFFSET), expected, "{at} in {precision:?}");
    }
    let last = Precision::Ns.ticks(Millis(*TIMES.end()), Offset(999_999));
    assert_eq!(last, Some(9_223_372_036_853_999_999));
}

#[test]
fn a_correction_has_the_time_of_the_aggregate_that_it_corrects() {
    let shape = PointShape::of_aggregates("m", Precision::Ns);
    let line = append(&shape, "g", r#"{"count":1}"#);
    assert_eq!(line.as_deref(), Ok("m,generatorID=g count=1.0 1766400000123000000\n"));
}

#[test]
fn what_makes_no_point_has_its_reason() {
    let shape = PointShape::of_alerts("m", Precision::Ms);
    let whole = SourceRecord {
        topic: 0,
        key: Some(b"g"),
        value: Some(b"{\"a\":1}"),
        at: Some(Millis(0)),
        offset: Offset(0),
        ..SourceRecord::default()
    };
    let mut lines = "before".to_owned();
    assert_eq!(shape.append(&whole, &mut lines), Ok(()));
    for (source, unfit) in [
        (SourceRecord { value: None, ..whole }, SkipReason::Tombstone),
        (SourceRecord { key: None, ..whole }, SkipReason::NoKey),
        (SourceRecord { topic: 0, key: Some(b""), ..whole }, SkipReason::NoKey),
        (SourceRecord { topic: 0, key: Some(b"\xff"), ..whole }, SkipReason::BadTag),
        (SourceRecord { topic: 0, key: Some(b"g\n"), ..whole }, SkipReason::BadTag),
        (SourceRecord { topic: 0, key: Some(b"g\\"), ..whole }, SkipReason::BadTag),
        (SourceRecord { value: Some(b"{\"a\":1,\"rule\":\"x\\ny\"}"), ..whole }, SkipReason::BadTag),
        (SourceRecord { value: Some(b""), ..whole }, SkipReason::NotJson),
        (SourceRecord { value: Some(b"{\"a\":NaN}"), ..whole }, SkipReason::NotJson),
        (SourceRecord { value: Some(b"{\"a\":1e999}"), ..whole }, SkipReason::NotJson),
        (SourceRecord { value: Some(b"{\"a\":\"\xff\"}"), ..whole }, SkipReason::NotJson),
        (SourceRecord { value: Some(b"[{\"a\":1}]"), ..whole }, SkipReason::NotObject),
        (SourceRecord { value: Some(b"{\"a\":1,\"generatorID\":\"h\"}"), ..whole }, SkipReason::KeyMismatch),
        (SourceRecord { value: Some(b"{\"a\":1,\"generatorID\":5}"), ..whole }, SkipReason::KeyMismatch),
        (SourceRecord { at: None, ..whole }, SkipReason::BadTime),
        (SourceRecord { at: Some(Millis(i64::MAX)), ..whole }, SkipReason::BadTime),
        (
            SourceRecord { value: Some(b"{\"generatorID\":\"g\",\"rule\":\"r\",\"x\":null}"), ..whole },
            SkipReason::NoField,
        ),
    ] {
        let mut lines = "before".to_owned();
        assert_eq!(shape.append(&source, &mut lines), Err(unfit), "{source:?}");
        assert_eq!(lines, "before", "{source:?}");
    }
}

#[test]
fn deep_nesting_ends_as_a_reason() {
    let value = format!("{}1{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    assert_eq!(append(&PointShape::of_aggregates("m", Precision::Ms), "g", &value), Err(SkipReason::NotJson));
}

#[test]
fn delimiters_are_escaped_where_they_delimit() {
    let shape = PointShape::of_aggregates("a b,c=d\"e", Precision::Ms);
    let line = append(&shape, "g 1,2=3\"", r#"{"f 1,2=3\"":"say \"a b,c=d\\\"\nend"}"#);
    let expected = concat!(
        r#"a\ b\,c=d"e,generatorID=g\ 1\,2\=3" f\ 1\,2\=3"="say \"a b,c=d\\\"\\nend" 1766400000123"#,
        "\n"
    );
    assert_eq!(line.as_deref(), Ok(expected));
}

#[test]
fn a_measurement_is_checked_before_anything_is_written() {
    for name in ["m", "a b", "a,b", "a=b", "µ", "_m", "a\\b"] {
        assert!(is_measurement(name), "{name}");
    }
    for name in ["", "#m", "a\nb", "a\\", "a\\ b", "a\\\\b"] {
        assert!(!is_measurement(name), "{name}");
    }
}

/// Text full of the format's special characters.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec![",", "=", " ", "\"", "\\", "\n", "\r", "\t", "#", "'", "\u{0}", "n", "\\n", "\\\""]).prop_map(str::to_owned),
        2 => "[a-z0-9µ€\u{1F600}]{1,3}",
        1 => any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

fn hostile_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(|number| json!(number)),
        any::<i64>().prop_map(|number| json!(number)),
        any::<bool>().prop_map(|yes| json!(yes)),
        hostile().prop_map(|text| json!(text)),
        Just(Value::Null),
    ]
}

proptest! {
    /// A reading with any members has one line per kind of members, and the known ones are as the worker reads them.
    #[test]
    fn a_reading_with_any_members_reads_back(
        key in hostile(),
        numbers in prop::array::uniform5(-90.0..90.0_f64),
        members in prop::collection::vec((hostile(), hostile_value()), 0..6),
        offset in 0..3_000_000_i64,
    ) {
        let mut object: Map<String, Value> = members.into_iter().collect();
        let known = ["generatorID", "lat", "lon", "temperature", "pressure", "fuel", "load", "power"];
        object.retain(|name, _| !known.contains(&name.as_str()));
        let unknown = object.clone();
        object.insert("generatorID".to_owned(), json!(key));
        for (name, number) in known[1..6].iter().zip(numbers) {
            object.insert((*name).to_owned(), json!(number));
        }
        let value = serde_json::to_vec(&object).expect("JSON");
        let source =
            SourceRecord { topic: 0, key: Some(key.as_bytes()), value: Some(&value), at: Some(Millis(AT)), offset: Offset(offset), ..SourceRecord::default() };
        let mut lines = String::new();
        match PointShape::of_readings("m", Precision::Ns).append(&source, &mut lines) {
            Ok(()) => {}
            Err(SkipReason::DeadLetter(ErrorCode::OutOfRange)) if key.is_empty() => return Ok(()),
            Err(SkipReason::BadTag) if !is_representable(&key) => return Ok(()),
            Err(unfit) => panic!("{unfit:?}: {key:?}"),
        }
        let mut found = BTreeMap::new();
        for line in lines.split_inclusive('\n') {
            let point = read(line);
            prop_assert_eq!(point.time, AT * 1_000_000 + offset % 1_000_000);
            prop_assert_eq!(&point.tags, &BTreeMap::from([("generatorID".to_owned(), key.clone())]));
            found.extend(point.fields);
        }
        for (name, number) in known[1..6].iter().zip(numbers) {
            prop_assert_eq!(found.remove(*name), Some(Content::Float(number)));
        }
        let expected: BTreeMap<String, Content> = unknown.iter().filter_map(|(name, value)| {
            let content = match value {
                Value::Bool(yes) => Content::Bool(*yes),
                Value::Number(number) => Content::Float(number.as_f64()?),
                Value::String(text) => Content::Text(text.replace('\n', "\\n")),
                _ => return None,
            };
            (!name.is_empty() && is_representable(name)).then(|| (name.clone(), content))
        }).collect();
        prop_assert_eq!(found, expected);
    }

    /// For any record, the written line reads back as intended, and nothing else is written.
    #[test]
    fn what_is_written_reads_back(
        measurement in hostile(),
        key in hostile(),
        rule in hostile(),
        members in prop::collection::vec((hostile(), hostile_value()), 0..6),
        at in prop_oneof![any::<i64>(), -1_000_000_000_000_i64..4_000_000_000_000],
    ) {
        prop_assume!(is_measurement(&measurement));
        let mut object: Map<String, Value> = members.into_iter().collect();
        object.remove("at");
        object.insert("rule".to_owned(), json!(rule));
        object.insert("generatorID".to_owned(), json!(key));
        let value = serde_json::to_vec(&object).expect("JSON");
        let source = SourceRecord { topic: 0, key: Some(key.as_bytes()), value: Some(&value), at: Some(Millis(at)), offset: Offset(0), ..SourceRecord::default() };
        let mut line = String::new();
        let result = PointShape::of_alerts(&measurement, Precision::Ms).append(&source, &mut line);

        // Restates the format: a backslash before a character that may be escaped looks like an escape.
        let unclear = |text: &str| {
            text.contains('\n') || text.ends_with('\\')
                || ["\\\\", "\\,", "\\=", "\\ "].iter().any(|pair| text.contains(pair))
        };
        let tags = ["generatorID", "rule", "severity", "state"];
        let fields: BTreeMap<String, Content> = object.iter().filter_map(|(name, value)| {
            let field = match value {
                Value::Bool(yes) => Content::Bool(*yes),
                Value::Number(number) => Content::Float(number.as_f64()?),
                Value::String(text) => Content::Text(text.replace('\n', "\\n")),
                _ => return None,
            };
            (!name.is_empty() && !unclear(name) && !tags.contains(&name.as_str())).then(|| (name.clone(), field))
        }).collect();
        let expected = if key.is_empty() {
            Err(SkipReason::NoKey)
        } else if unclear(&key) {
            Err(SkipReason::BadTag)
        } else if !(-9_223_372_036_854..=9_223_372_036_853).contains(&at) {
            Err(SkipReason::BadTime)
        } else if unclear(&rule) {
            Err(SkipReason::BadTag)
        } else if fields.is_empty() {
            Err(SkipReason::NoField)
        } else {
            Ok(())
        };
        prop_assert_eq!(result, expected);
        if expected.is_err() {
            prop_assert_eq!(line, "");
            return Ok(());
        }
        let mut tags = BTreeMap::from([("generatorID".to_owned(), key)]);
        if !rule.is_empty() {
            tags.insert("rule".to_owned(), rule);
        }
        prop_assert_eq!(read(&line), Point { measurement, tags, fields, time: at });
    }

    /// Arbitrary bytes crash nothing.
    #[test]
    fn any_bytes_make_one_line_or_none(
        key in prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
        value in prop::option::of(prop::collection::vec(any::<u8>(), 0..200)),
        at in prop::option::of(any::<i64>()),
    ) {
        let source = SourceRecord { topic: 0, key: key.as_deref(), value: value.as_deref(), at: at.map(Millis), offset: Offset(0), ..SourceRecord::default() };
        for shape in [PointShape::of_readings("m", Precision::Ns), PointShape::of_alerts("m", Precision::Ns)] {
            let mut line = String::new();
            match shape.append(&source, &mut line) {
                Ok(()) => { read(&line); }
                Err(_) => prop_assert_eq!(line, ""),
            }
        }
    }
}
