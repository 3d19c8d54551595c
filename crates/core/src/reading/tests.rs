//! Tests the parser against `docs/formats.md`, its own thorough path and hostile bytes.

use super::*;

const SEED_FORM: &str = concat!(
    r#"{"generatorID":"generator4","lat":40.65995,"lon":-111.99633,"#,
    r#""temperature":74,"pressure":198,"fuel":901}"#
);

/// The code of a record; `None` for a good reading.
fn code_of(key: Option<&[u8]>, value: &[u8]) -> Option<ErrorCode> {
    parse(key, Some(value)).err().map(|bad| bad.code)
}

/// A good document of generator "g" with these members replacing its own or added after them.
fn with(members: &[(&str, &str)]) -> String {
    let mut all = vec![
        ("generatorID", r#""g""#),
        ("lat", "40.5"),
        ("lon", "-112"),
        ("temperature", "74"),
        ("pressure", "198"),
        ("fuel", "901"),
    ];
    for &(name, value) in members {
        match all.iter_mut().find(|(known, _)| *known == name) {
            Some(member) => member.1 = value,
            None => all.push((name, value)),
        }
    }
    let all: Vec<String> = all.iter().map(|(name, value)| format!(r#""{name}":{value}"#)).collect();
    format!("{{{}}}", all.join(","))
}

/// A good document without this field.
fn without(field: &str) -> String {
    let document = with(&[]);
    let inner = document.trim_matches(['{', '}']);
    let left: Vec<&str> =
        inner.split(',').filter(|member| !member.starts_with(&format!("\"{field}\""))).collect();
    format!("{{{}}}", left.join(","))
}

#[track_caller]
fn assert_good(document: &str) -> Values {
    match parse(Some(b"g"), Some(document.as_bytes())) {
        Ok(Parsed::Reading { generator: "g", values }) => values,
        other => panic!("{:.200}: {other:?}", document),
    }
}

#[track_caller]
fn assert_bad(document: &str, code: ErrorCode) -> String {
    match parse(Some(b"g"), Some(document.as_bytes())) {
        Err(bad) if bad.code == code => bad.message,
        other => panic!("{:.200}: {other:?}", document),
    }
}

#[test]
fn a_reading_of_the_seed_is_read() {
    let values = Values::new(40.65995, -111.99633, 74.0, 198.0, 901.0, None, None);
    let parsed = parse(Some(b"generator4"), Some(SEED_FORM.as_bytes()));
    assert_eq!(parsed, Ok(Parsed::Reading { generator: "generator4", values }));
}

#[test]
fn the_optional_numbers_are_read_and_null_is_absent() {
    let both = assert_good(&with(&[("load", "55.5"), ("power", "120")]));
    assert_eq!((both.get(Field::Load), both.get(Field::Power)), (Some(55.5), Some(120.0)));
    let null = assert_good(&with(&[("load", "null"), ("power", "0")]));
    assert_eq!((null.get(Field::Load), null.get(Field::Power)), (None, Some(0.0)));
    assert_eq!(null, Values::new(40.5, -112.0, 74.0, 198.0, 901.0, None, Some(0.0)));
    assert_ne!(null, both);
    let beginning = r#"{"lat": 40.5, "lon": -112.0, "temperature": 74.0, "pressure": 198.0, "#;
    assert_eq!(format!("{null:?}"), format!("{beginning}\"fuel\": 901.0, \"power\": 0.0}}"));
}

#[test]
fn every_field_has_its_own_name_and_index() {
    for (index, field) in Field::ALL.into_iter().enumerate() {
        assert_eq!(field as usize, index);
        assert_eq!(Field::from_name(field.name()), Some(field));
        let document = with(&[("load", "1"), ("power", "1"), (field.name(), "2.5")]);
        assert_eq!(assert_good(&document).get(field), Some(2.5));
    }
    for name in ["", "Fuel", "fuel ", "generatorID", "site"] {
        assert_eq!(Field::from_name(name), None);
    }
}

#[test]
fn every_code_has_its_name_and_its_place() {
    let names: Vec<String> = ErrorCode::ALL.iter().map(ErrorCode::to_string).collect();
    let contract = "too_large not_utf8 not_json not_object duplicate_field missing_field wrong_type \
                    out_of_range key_missing key_mismatch";
    assert_eq!(names.join(" "), contract);
    assert!(ErrorCode::ALL.is_sorted());
}

#[test]
fn a_value_over_one_mebibyte_is_too_large() {
    let mut document = with(&[]);
    document.extend(std::iter::repeat_n(' ', MAX_VALUE_BYTES - document.len()));
    assert_good(&document);
    document.push(' ');
    assert_bad(&document, ErrorCode::TooLarge);
}

#[test]
fn utf8_is_called_for_in_the_whole_value() {
    for at in 0..SEED_FORM.len() {
        let mut value = SEED_FORM.as_bytes().to_vec();
        value[at] = 0xff;
        assert_eq!(code_of(Some(b"generator4"), &value), Some(ErrorCode::NotUtf8), "byte {at}");
    }
    let unknown = with(&[("site", r#""?""#)]).replace('?', "\u{e9}");
    assert_good(&unknown);
    // The encoding of a surrogate, an overlong "/", a character cut short.
    for bytes in [b"\xed\xa0\x80".as_slice(), b"\xc0\xaf", b"\xe2\x82"] {
        let value = [br#"{"site":""#, bytes, br#"","#, &with(&[]).as_bytes()[1..]].concat();
        assert_eq!(code_of(Some(b"g"), &value), Some(ErrorCode::NotUtf8));
    }
}

#[test]
fn a_generator_may_have_a_name_in_any_script() {
    let value = with(&[("generatorID", "\"発電機\"")]);
    let parsed = parse(Some("発電機".as_bytes()), Some(value.as_bytes()));
    assert!(matches!(parsed, Ok(Parsed::Reading { generator: "発電機", .. })));
}

#[test]
fn what_is_no_json_by_rfc_8259_is_no_json() {
    let good = with(&[]);
    let cut: Vec<&str> = (0..good.len()).map(|end| &good[..end]).collect();
    for document in cut {
        assert_bad(document, ErrorCode::NotJson);
    }
    let after = |tail: &str| format!("{good}{tail}");
    let number = |raw: &str| with(&[("fuel", raw)]);
    let unknown = |raw: &str| with(&[("site", raw)]);
    let mut documents = vec![
        " ".into(),
        "nul".into(),
        "[1,]".into(),
        "[1 2]".into(),
        "[}".into(),
        "\"".into(),
        "\u{feff}{}".into(),
        format!("\u{feff}{good}"),
        after(","),
        after("}"),
        after("{}"),
        after("\0"),
        after("\u{a0}"),
        after("//"),
        good.replace(",\"fuel\"", ",,\"fuel\""),
        good.replace(",\"fuel\"", "\"fuel\""),
        good.replace("901}", "901,}"),
        good.replace("\"fuel\":", "\"fuel\""),
        good.replace("\"fuel\"", "fuel"),
        good.replace("\"fuel\"", "'fuel'"),
        good.replace("\"fuel\"", "1"),
        good.replace("\"fuel\"", "\"fu\\el\""),
        good.replace("\"fuel\"", "\"fu\nel\""),
    ];
    for raw in [
        "",
        "NaN",
        "Infinity",
        "-Infinity",
        "nan",
        "01",
        "-01",
        "00",
        "+1",
        ".5",
        "1.",
        "1.e5",
        "-",
        "--1",
        "1e",
        "1e+",
        "1E-",
        "0x10",
        "1_000",
        "1,5",
        "True",
        "nulll",
        "undefined",
        "٣",
    ] {
        documents.push(number(raw));
        documents.push(unknown(raw));
    }
    for raw in [
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\t\"",
        "\"\u{1f}\"",
        "\"\n\"",
        "[1,]",
        "{\"a\"}",
        "{\"a\":1,}",
    ] {
        documents.push(unknown(raw));
        documents.push(with(&[("generatorID", raw)]));
    }
    for document in documents {
        assert_bad(&document, ErrorCode::NotJson);
    }
}

#[test]
fn another_json_value_than_an_object_is_no_object() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for document in
        ["[]", " [{}] ", "1", "-0.5e9", "1e999", "\"{}\"", "\"\\ud800\"", "true", "false", "null", &deep]
    {
        assert_bad(document, ErrorCode::NotObject);
    }
    assert_bad(&deep[1..], ErrorCode::NotJson);
}

#[test]
fn a_known_field_given_twice_is_a_duplicate_whatever_its_values() {
    for name in ["generatorID", "lat", "lon", "temperature", "pressure", "fuel", "load", "power"] {
        let both = with(&[("load", "1"), ("power", "1")]);
        for value in ["1", "null", "\"g\"", "[]"] {
            for document in [
                format!("{{\"{name}\":{value},{}", &both[1..]),
                format!("{},\"{name}\":{value}}}", &both[..both.len() - 1]),
            ] {
                assert!(assert_bad(&document, ErrorCode::DuplicateField).contains(name));
            }
        }
    }
    let escaped = with(&[("fu\\u0065l", "901")]);
    assert_bad(&escaped, ErrorCode::DuplicateField);
    assert_good(&with(&[("site", "1,\"site\":2")]));
}

#[test]
fn a_required_field_that_is_absent_or_null_is_missing() {
    assert_bad("{}", ErrorCode::MissingField);
    for name in ["generatorID", "lat", "lon", "temperature", "pressure", "fuel"] {
        let absent = assert_bad(&without(name), ErrorCode::MissingField);
        assert_eq!(absent, format!("required field `{name}` is absent"));
        let null = assert_bad(&with(&[(name, "null")]), ErrorCode::MissingField);
        assert_eq!(null, format!("required field `{name}` is null"));
        // Names are case-sensitive.
        let other = with(&[]).replace(name, &name.to_uppercase());
        assert_bad(&other, ErrorCode::MissingField);
    }
}

#[test]
fn a_known_field_of_another_type_is_of_the_wrong_type() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for field in Field::ALL {
        for raw in ["\"74\"", "\"\"", "true", "false", "[]", "[1]", "{}", "{\"fuel\":1}", &deep] {
            let message = assert_bad(&with(&[(field.name(), raw)]), ErrorCode::WrongType);
            assert!(
                message.starts_with(&format!("field `{}` must be a number; found ", field.name())),
                "{message}"
            );
        }
    }
    for raw in ["4", "true", "[\"g\"]", "{}"] {
        assert_bad(&with(&[("generatorID", raw)]), ErrorCode::WrongType);
    }
}

#[test]
fn a_position_is_on_the_globe_limits_included() {
    for (name, limit) in [("lat", "90"), ("lon", "180")] {
        let limit: f64 = limit.parse().unwrap();
        for good in [limit, -limit, limit.next_down(), 0.0, -0.0] {
            assert_good(&with(&[(name, &format!("{good}"))]));
            assert_good(&with(&[(name, &format!("{good:e}"))]));
        }
        for bad in [limit.next_up(), -limit.next_up(), limit + 1.0, 1e300] {
            assert_bad(&with(&[(name, &format!("{bad}"))]), ErrorCode::OutOfRange);
            assert_bad(&with(&[(name, &format!("{bad:e}"))]), ErrorCode::OutOfRange);
        }
    }
    let message = assert_bad(&with(&[("lat", "91.0")]), ErrorCode::OutOfRange);
    assert_eq!(message, "field `lat` must be from -90 to 90; found `91.0`");
}

#[test]
fn a_number_too_large_for_a_double_is_out_of_range_and_one_too_small_is_zero() {
    let integer = "9".repeat(400);
    for field in Field::ALL {
        for raw in ["1e999", "-1e999", "1E+400", "1.8e308", &integer, "1e99999999999999999999"] {
            let message = assert_bad(&with(&[(field.name(), raw)]), ErrorCode::OutOfRange);
            assert!(message.starts_with(&format!("field `{}` is too large", field.name())), "{message}");
        }
        for raw in ["1e-999", "0e999", "0.000e99999999999999999999", "1e-99999999999999999999"] {
            assert_eq!(assert_good(&with(&[(field.name(), raw)])).get(field), Some(0.0));
        }
    }
    assert_good(&with(&[("site", "1e999")]));
}

#[test]
fn numbers_are_the_nearest_doubles() {
    let thirty = "1".repeat(30);
    let long = format!("0.1{}", "0".repeat(5000));
    for raw in [
        "0",
        "-0",
        "-0.0",
        "0.1",
        "1.7976931348623157e308",
        "5e-324",
        "2.4703282292062328e-324",
        "9007199254740992",
        "9007199254740993",
        "9007199254740993.0",
        "900719925474099.3",
        "9007199254740992.5",
        "18446744073709551616",
        "1844674407370955161.6",
        "0.30000000000000004",
        "123456789012345678",
        "0.00000000000000000000001",
        "0.0000000000000000000001",
        "7e22",
        "7e23",
        "3.5E+2",
        "1000000000000000000000000000000",
        &thirty,
        &long,
    ] {
        let values = assert_good(&with(&[("fuel", raw)]));
        let nearest: f64 = raw.parse().unwrap();
        assert_eq!(values.get(Field::Fuel).map(f64::to_bits), Some(nearest.to_bits()), "{raw}");
    }
}

#[test]
fn an_identity_is_1_to_256_bytes() {
    let id = |length: usize| format!("\"{}\"", "x".repeat(length));
    for length in [1, 255, 256] {
        let value = with(&[("generatorID", &id(length))]);
        assert_eq!(code_of(Some("x".repeat(length).as_bytes()), value.as_bytes()), None);
    }
    for length in [0, 257, 100_000] {
        let value = with(&[("generatorID", &id(length))]);
        assert_eq!(
            code_of(Some("x".repeat(length).as_bytes()), value.as_bytes()),
            Some(ErrorCode::OutOfRange)
        );
    }
    // Bytes of UTF-8, not characters or the bytes of an escape.
    let accents = with(&[("generatorID", &format!("\"{}\"", "é".repeat(129)))]);
    assert_eq!(code_of(Some(b"x"), accents.as_bytes()), Some(ErrorCode::OutOfRange));
    let escapes = with(&[("generatorID", &format!("\"{}\"", "\\u0067".repeat(256)))]);
    assert_eq!(code_of(Some("g".repeat(256).as_bytes()), escapes.as_bytes()), None);
}

#[test]
fn a_reading_without_a_key_has_its_key_missing() {
    assert_eq!(code_of(None, with(&[]).as_bytes()), Some(ErrorCode::KeyMissing));
    let surrogate = with(&[("generatorID", r#""\ud800""#)]);
    assert_eq!(code_of(None, surrogate.as_bytes()), Some(ErrorCode::KeyMissing));
}

#[test]
fn a_key_that_isnt_the_identity_byte_for_byte_is_a_mismatch() {
    for key in [b"".as_slice(), b"G", b"g ", b" g", b"gg", b"\"g\"", b"g\0", b"\xff", b"g\xff"] {
        assert_eq!(code_of(Some(key), with(&[]).as_bytes()), Some(ErrorCode::KeyMismatch), "{key:?}");
    }
    // The same letter to a reader, but composed differently.
    let composed = with(&[("generatorID", "\"\u{e9}\"")]);
    assert_eq!(code_of(Some("e\u{301}".as_bytes()), composed.as_bytes()), Some(ErrorCode::KeyMismatch));
}

#[test]
fn an_identity_may_be_written_with_escapes() {
    for (raw, key) in [
        (r#""\u0067""#, "g"),
        (r#""a\/b\"c\\d\n""#, "a/b\"c\\d\n"),
        (r#""\ud83d\ude00""#, "\u{1f600}"),
        (r#""\u0000""#, "\0"),
    ] {
        let value = with(&[("generatorID", raw)]);
        assert!(matches!(
            parse(Some(key.as_bytes()), Some(value.as_bytes())),
            Ok(Parsed::Reading { generator, .. }) if generator == key
        ));
    }
}

#[test]
fn a_lone_surrogate_is_grammatical_but_names_no_generator() {
    for raw in
        [r#""\ud800""#, r#""\udc00""#, r#""g\ud800""#, r#""\ud800\ud800""#, r#""\ud800\n""#, r#""\uDEAD""#]
    {
        let named = with(&[("generatorID", raw)]);
        for key in
            [b"g".as_slice(), b"\xed\xa0\x80", b"\xed\xb0\x80", b"g\xed\xa0\x80", "\u{fffd}".as_bytes()]
        {
            assert_eq!(code_of(Some(key), named.as_bytes()), Some(ErrorCode::KeyMismatch), "{raw}");
        }
        assert_good(&with(&[("site", raw)]));
        assert_good(&with(&[(raw.trim_matches('"'), "1")]));
        assert_good(&with(&[("site", &format!("[{{{raw}:{raw}}}]"))]));
    }
    // The surrogate isn't cut off the name: this isn't `fuel`.
    assert_good(&with(&[(r"fuel\ud800", "1")]));
    assert_bad(&with(&[("load", r#""\ud800""#)]), ErrorCode::WrongType);
}

#[test]
fn a_known_name_may_be_written_with_escapes() {
    let values = assert_good(&with(&[]).replace("\"fuel\"", "\"fu\\u0065l\""));
    assert_eq!(values.get(Field::Fuel), Some(901.0));
    assert_good(&with(&[]).replace("generatorID", "\\u0067eneratorI\\u0044"));
}

#[test]
fn unknown_fields_are_ignored_however_deep_they_nest() {
    let opened = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let mapped = format!("{}1{}", "{\"fuel\":".repeat(100_000), "}".repeat(100_000));
    let long = "7".repeat(100_000);
    let documents: Vec<String> =
        ["\"x\"", "true", "null", "-1.5e3", "{\"fuel\":1,\"fuel\":2}", &opened, &mapped, &long]
            .iter()
            .map(|raw| with(&[("site", raw)]))
            .collect();
    // This stack is too small for one frame per level.
    let small = std::thread::Builder::new().stack_size(256 << 10);
    let checked = small.spawn(move || {
        for document in documents {
            assert_good(&document);
        }
    });
    checked.unwrap().join().unwrap();
}

#[test]
fn whitespace_and_order_are_of_no_account() {
    let value = " \r\n\t{ \"fuel\" :\t901 ,\n\"pressure\":198,\"temperature\":74 , \"lon\" : -112,\
                 \"lat\":40.5,\r\"generatorID\" : \"g\" } \n";
    assert_eq!(assert_good(value), assert_good(&with(&[])));
    for other in ["\u{b}", "\u{c}", "\u{a0}", "\u{2028}"] {
        assert_bad(&value.replace('\t', other), ErrorCode::NotJson);
    }
}

#[test]
fn a_record_without_a_value_decommissions_the_generator_of_its_key() {
    let longest = "x".repeat(MAX_ID_BYTES);
    for key in ["g", "発電機", &longest] {
        assert_eq!(parse(Some(key.as_bytes()), None), Ok(Parsed::Decommissioned { generator: key }));
    }
    for (key, code) in [
        (None, ErrorCode::KeyMissing),
        (Some(b"\xff".to_vec()), ErrorCode::NotUtf8),
        (Some(vec![0xff; 300]), ErrorCode::NotUtf8),
        (Some(vec![]), ErrorCode::OutOfRange),
        (Some(vec![b'x'; MAX_ID_BYTES + 1]), ErrorCode::OutOfRange),
    ] {
        assert_eq!(parse(key.as_deref(), None).unwrap_err().code, code);
    }
    assert_eq!(code_of(Some(b"g"), b""), Some(ErrorCode::NotJson), "an empty value isn't null");
}

/// Returns a document with each of these faults, and its key; the faults don't hide one another.
fn faulty(faults: &[ErrorCode]) -> (Option<&'static [u8]>, Vec<u8>) {
    let has = |code| faults.contains(&code);
    let mut document = with(&[]);
    if has(ErrorCode::DuplicateField) {
        document = document.replace("}", ",\"load\":1,\"load\":null}");
    }
    if has(ErrorCode::MissingField) {
        document = document.replace("\"fuel\"", "\"Fuel\"");
    }
    if has(ErrorCode::WrongType) {
        document = document.replace("198", "\"198\"");
    }
    if has(ErrorCode::OutOfRange) {
        document = document.replace("40.5", "90.5");
    }
    if has(ErrorCode::NotObject) {
        document = format!("[{document}]");
    }
    if has(ErrorCode::NotJson) {
        document.push(',');
    }
    let mut value = document.into_bytes();
    if has(ErrorCode::NotUtf8) {
        value.push(0xff);
    }
    if has(ErrorCode::TooLarge) {
        value.resize(MAX_VALUE_BYTES + 1, b' ');
    }
    let key = match (has(ErrorCode::KeyMissing), has(ErrorCode::KeyMismatch)) {
        (true, _) => None,
        (false, true) => Some(b"h".as_slice()),
        (false, false) => Some(b"g".as_slice()),
    };
    (key, value)
}

#[test]
fn of_any_set_of_faults_the_first_in_the_order_of_the_codes_is_told() {
    for set in 0..1_u32 << ErrorCode::ALL.len() {
        let faults: Vec<ErrorCode> = ErrorCode::ALL
            .into_iter()
            .enumerate()
            .filter(|(bit, _)| set >> bit & 1 == 1)
            .map(|(_, code)| code)
            .collect();
        let (key, value) = faulty(&faults);
        assert_eq!(code_of(key, &value), faults.first().copied(), "{faults:?}");
    }
}
