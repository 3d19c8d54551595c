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

/// A shape, two times, and JSON: a part of an aggregate, or a stored state. It is refused or continued, by readings and
/// parts at hostile times. Nothing may panic, memory must stay bounded, and what comes out can be read.
pub fn aggregate(data: &[u8]) {
    use genwatch_core::aggregate::{
        Aggregate, AggregateCounts, AggregateState, Aggregator, Late, Part, StoredAggregates,
    };
    use genwatch_core::alarm::rules::Rules;
    use genwatch_core::reading::Values;
    use genwatch_core::types::{GeneratorId, Millis};

    const HOUR: i64 = 3_600_000;
    let Some((&[shape, ref times @ ..], json)) = data.split_first_chunk::<17>() else { return };
    let time = |from: usize| i64::from_le_bytes(std::array::from_fn(|byte| times[from + byte]));
    let window = [1_000, 60_000, HOUR, i64::MAX][usize::from(shape >> 1 & 3)];
    let grace = [0, 90_000][usize::from(shape >> 3 & 1)];
    let within = if shape >> 4 & 1 == 0 { 0 } else { 3 * window.min(HOUR) };
    let late = if within == 0 { Late::Drop } else { Late::Correct { within } };
    let aggregator = Aggregator::new(window, grace, late, &Rules::default()).expect("windows");

    let (mut state, mut part) = (AggregateState::new(), None);
    let is_state = shape & 1 == 1;
    if is_state {
        let Ok(stored) = serde_json::from_slice::<StoredAggregates>(json) else { return };
        let checked = aggregator.check_stored(&stored).is_ok();
        let Ok(restored) = aggregator.restore(stored) else { return assert!(!checked) };
        assert!(checked, "what is restored passes the check");
        state = restored;
    } else {
        let Ok(read) = Part::from_json(json) else { return };
        let again = Part::from_json(&read.to_json()).expect("our own part");
        assert_eq!(read, again, "a part is what its JSON says");
        part = Some(read);
    }
    // What a state came with lies wherever it said, so that it closes late; what is added is bounded.
    let open = state.open_windows() as i64 + grace / window + 2;
    let kept = (state.kept_windows() + state.open_windows()) as i64 + within / window + 2;
    let id = GeneratorId::from("g");
    let (mut out, mut counts) = (Vec::new(), AggregateCounts::default());
    let ours = part.as_ref().map_or(time(0), |part| part.event_time().0);
    for at in [ours, time(0), time(8), ours.wrapping_add(window), i64::MIN, ours, i64::MAX, 0, -1] {
        let values = Values::new(0.0, 0.0, at as f64, -1e300, 1e3 - (at % 7) as f64, Some(f64::MAX), None);
        let watermark = Millis(time(8));
        aggregator.add(&id, &mut state, Millis(at), &values, watermark, &mut out, &mut counts);
        if let Some(part) = &part {
            let _ = aggregator.add_part(&id, &mut state, part, watermark, &mut out, &mut counts);
            let stored = serde_json::to_vec(&aggregator.store(&state)).expect("JSON");
            let read = serde_json::from_slice(&stored).expect("our own state");
            state = aggregator.restore(read).expect("a state that goes on can be restored");
        }
        assert!(state.open_windows() as i64 <= open, "{} open windows", state.open_windows());
        assert!(state.kept_windows() as i64 <= kept, "{} kept windows", state.kept_windows());
        let _ = aggregator.is_empty(&state, watermark);
    }
    aggregator.close(&id, &mut state, Millis(time(8)), &mut out);
    aggregator.finish(&id, &mut state, &mut out);
    assert_eq!((state.open_windows(), aggregator.deadline(&state)), (0, None));
    let is_json = |json: Vec<u8>| serde_json::from_slice::<&serde_json::value::RawValue>(&json).is_ok();
    assert!(out.iter().map(Aggregate::to_json).all(is_json), "what comes out is JSON");
    let is_part = |json: Vec<u8>| Part::from_json(&json).is_ok();
    assert!(is_state || out.iter().map(Aggregate::part_json).all(is_part), "and a part for larger windows");
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
