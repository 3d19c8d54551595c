//! Bad records go to the dead letter queue unchanged, and block nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::verify;
use crate::world::World;
use crate::world::now_ms;
use crate::world::records::{Outgoing, stormy_readings};

const CODES: [&str; 10] = [
    "too_large",
    "not_utf8",
    "not_json",
    "not_object",
    "duplicate_field",
    "missing_field",
    "wrong_type",
    "out_of_range",
    "key_missing",
    "key_mismatch",
];

/// Records of generator `g`, each with the code that it calls for.
fn faults() -> Vec<(&'static str, Outgoing)> {
    let good = String::from_utf8(Outgoing::reading("g", 80.0, 500.0).value.unwrap()).unwrap();
    let text = |value: &str| Outgoing::new("g", value.as_bytes());
    let with = |from: &str, to: &str| {
        assert!(good.contains(from), "{from} is not in {good}");
        text(&good.replace(from, to))
    };
    let padded = |size: usize| text(&format!("{good}{}", " ".repeat(size - good.len())));
    let long = "x".repeat(257);
    vec![
        ("too_large", padded((1 << 20) + 1)),
        ("too_large", padded(10_000_000)),
        ("not_utf8", Outgoing::new("g", b"{\"generatorID\":\"\xff\"}")),
        ("not_json", text("")),
        ("not_json", text("{\"generatorID\":\"g\"")),
        ("not_json", with("198", "NaN")),
        ("not_json", text(&format!("{good}{good}"))),
        ("not_json", text(&"[".repeat(100_000))),
        ("not_object", text("[1,2]")),
        ("not_object", text("null")),
        ("duplicate_field", with("{", "{\"fuel\":1,")),
        ("duplicate_field", with("{", "{\"load\":1,\"load\":null,")),
        ("missing_field", text("{}")),
        ("missing_field", with("198", "null")),
        ("wrong_type", with("198", "\"198\"")),
        ("wrong_type", with("{", "{\"power\":[],")),
        ("wrong_type", with("\"g\"", "7")),
        ("out_of_range", with("40.65995", "90.5")),
        ("out_of_range", with("198", "1e999")),
        ("out_of_range", Outgoing::new("", with("\"g\"", "\"\"").value.as_deref().unwrap())),
        (
            "out_of_range",
            Outgoing::new(&long, with("\"g\"", &format!("\"{long}\"")).value.as_deref().unwrap()),
        ),
        ("key_missing", Outgoing { key: None, ..text(&good) }),
        ("key_missing", Outgoing::default()),
        ("key_mismatch", Outgoing::new("h", good.as_bytes())),
        ("key_mismatch", Outgoing { key: Some(Vec::new()), ..text(&good) }),
    ]
}

#[test]
fn a_bad_record_is_a_dead_letter_of_the_first_code_that_applies_and_unchanged() {
    let world = World::empty();
    // To let records of next year in; by default Kafka refuses any that is more than an hour ahead.
    let any_time = "readings:message.timestamp.after.max.ms=9223372036854775807";
    world.run("topics create", &["--partitions", "3", "--config", any_time]).success();
    let headers = vec![
        ("trace".to_owned(), Some(b"\x00\xff".to_vec())),
        ("trace".to_owned(), None),
        ("empty".to_owned(), Some(Vec::new())),
    ];
    // From last year to next year.
    let year = 365 * 24 * 3_600_000;
    let mut records = Vec::new();
    for (n, ((_, fault), good)) in faults().into_iter().zip(stormy_readings(5, 100)).enumerate() {
        let at = now_ms() + (i64::try_from(n % 3).unwrap() - 1) * year;
        records.push(Outgoing { headers: headers.clone(), ..fault.at(at).to(i32::try_from(n % 3).unwrap()) });
        records.push(good);
    }
    world.produce(&records);

    let ended = world.work_to_the_end(&[]);

    let expected = verify::all(&world);
    let letters = world.read(&world.dlq_topic());
    let found: BTreeSet<_> = letters.iter().map(|letter| letter.header("dlq.error.code").unwrap()).collect();
    assert_eq!(found, CODES.into_iter().collect(), "every code");
    // By hand, because the oracle might share a mistake with the worker: faults went to the partitions in turn.
    for partition in 0..3 {
        let called_for: Vec<_> = faults().iter().skip(partition).step_by(3).map(|(code, _)| *code).collect();
        let of_partition =
            letters.iter().filter(|letter| letter.partition == i32::try_from(partition).unwrap());
        let found: Vec<_> = of_partition.map(|letter| letter.header("dlq.error.code").unwrap()).collect();
        assert_eq!(found, called_for, "of partition {partition}");
    }
    assert_eq!(ended.number("dlq"), u64::try_from(faults().len()).unwrap());
    assert_eq!(ended.number("records"), u64::try_from(records.len()).unwrap());
    assert_eq!(ended.number("alerts"), u64::try_from(expected.alert_count()).unwrap());
}

#[test]
fn bad_records_cost_no_work_and_delay_nobody() {
    let world = World::new(1);
    // If each of them ran its work, 3,000 records would take 150 s.
    for part in stormy_readings(4, 20).chunks(10) {
        world.produce(&vec![Outgoing::new("g", b"not a reading"); 1500]);
        world.produce(part);
    }

    let ended = world.work_to_the_end(&["--work", "50ms", "--concurrency", "1"]);

    assert!(ended.took < Duration::from_secs(20), "{:?}", ended.took);
    assert_eq!(verify::all(&world).dead_letter_count(), 3000);
}
