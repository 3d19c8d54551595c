// What the fuzzers feed: shared by the cargo-fuzz targets and by the test that runs on the stable toolchain.

/// A record: the first byte tells how key and value are cut out of the rest. Whatever it is, parsing must end, must
/// not panic, and must be consistent with itself.
pub fn reading(data: &[u8]) {
    use genwatch_core::reading::{BadRecord, MAX_ID_BYTES, Parsed, parse};

    let Some((&shape, rest)) = data.split_first() else { return };
    let (key, value) = rest.split_at(usize::from(shape >> 2).min(rest.len()));
    let key = (shape & 1 == 0).then_some(key);
    let value = (shape & 3 != 3).then_some(value);
    let parsed = parse(key, value);
    assert_eq!(parsed, parse(key, value), "the same record is judged the same");
    match parsed {
        Ok(Parsed::Reading { generator, values }) => {
            assert_eq!(Some(generator.as_bytes()), key, "identity is the key");
            assert!((1..=MAX_ID_BYTES).contains(&generator.len()));
            assert!(values.lat().abs() <= 90.0 && values.lon().abs() <= 180.0);
        }
        Ok(Parsed::Decommissioned { generator }) => {
            assert_eq!(Some(generator.as_bytes()), key, "identity is the key");
            assert_eq!(value, None, "only a tombstone decommissions");
        }
        Err(BadRecord { message, .. }) => assert!(message.len() < 4096, "a reason, not the record"),
    }
    // Most inputs die at the key: give the value the key that it names.
    let named = value.and_then(|value| serde_json::from_slice::<serde_json::Value>(value).ok());
    if let Some(id) = named.as_ref().and_then(|document| document.get("generatorID")?.as_str()) {
        let _ = parse(Some(id.as_bytes()), value);
    }
}

/// A rules file: accepted or refused with a place, never a panic; what is accepted can be used.
pub fn rules(data: &[u8]) {
    use genwatch_core::alarm::rules::Rules;

    let Ok(text) = std::str::from_utf8(data) else { return };
    match Rules::parse(text, std::path::Path::new("rules.toml")) {
        Ok(rules) => {
            let _ = genwatch_core::alarm::detector::Detector::new(rules);
        }
        Err(error) => {
            assert!(error.to_string().starts_with("rules.toml:"), "a refusal names its place: {error}")
        }
    }
}

/// A file of transformations, a line `---`, and a record: the file is accepted or refused with a place; what comes out
/// of the record is JSON.
pub fn transform(data: &[u8]) {
    use genwatch_core::transform::record::{Command, Record};
    use genwatch_core::transform::{Outcome, Transform};

    let text = String::from_utf8_lossy(data);
    let (steps, value) = text.split_once("\n---\n").unwrap_or((&text, "{}"));
    let command = Command::sink("sink", |_| Ok(()));
    let transform = match Transform::parse(steps, std::path::Path::new("t.toml"), command) {
        Ok(transform) => transform,
        Err(error) => {
            assert!(error.to_string().starts_with("t.toml:"), "a refusal names its place: {error}");
            return;
        }
    };
    match transform.apply(&Record::new("readings", value.as_bytes())) {
        Ok(Outcome::Changed(changed)) => {
            if let Some(fields) = changed.fields {
                let json = fields.to_json();
                let read = serde_json::from_slice::<&serde_json::value::RawValue>(&json);
                assert!(read.is_ok(), "what comes out is JSON: {}", json.escape_ascii());
            }
        }
        Ok(Outcome::Unchanged | Outcome::Filtered(_)) => {}
        Err(failure) => assert!(failure.to_string().contains(", t.toml:"), "{failure}"),
    }
}
