//! The data that genwatch writes and prints matches `docs/schemas`.

use std::io::Write as _;
use std::path::Path;

use serde_json::{Map, Value};

use crate::oracle::log::Stored;
use crate::world::mosquitto::Mosquitto;
use crate::world::process::Process;
use crate::world::records::{Outgoing, stormy_readings};
use crate::world::{World, until};

/// A schema that forbids members it doesn't describe: the published ones are open.
pub struct Strict(jsonschema::Validator);

impl Strict {
    pub fn of(name: &str) -> Strict {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schemas").join(format!("{name}.json"));
        let mut schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        close(&mut schema);
        Strict(jsonschema::draft202012::new(&schema).expect("a schema"))
    }

    #[track_caller]
    pub fn check(&self, document: &Value) {
        let errors: Vec<String> =
            self.0.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{errors:#?} in {document:#}");
    }

    /// Checks all of them, and returns how many there were.
    #[track_caller]
    pub fn check_all<'a>(&self, documents: impl IntoIterator<Item = &'a Value>) -> usize {
        documents.into_iter().inspect(|document| self.check(document)).count()
    }
}

fn close(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            members.values_mut().for_each(close);
            // Not a document's own member named "properties", which would be no object of schemas.
            if members.get("properties").is_some_and(Value::is_object) {
                members.entry("additionalProperties").or_insert(Value::Bool(false));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

fn values(world: &World, topic: &str) -> Vec<Value> {
    let records = world.read(topic);
    records.iter().filter_map(|record| serde_json::from_slice(record.value.as_deref()?).ok()).collect()
}

fn headers(record: &Stored, prefix: &str) -> Value {
    let named = record.headers.iter().filter(|(name, _)| name.starts_with(prefix) || name == "content-type");
    let text = |value: &Option<Vec<u8>>| String::from_utf8(value.clone().expect("a value")).expect("UTF-8");
    named.map(|(name, value)| (name.clone(), Value::from(text(value)))).collect::<Map<_, _>>().into()
}

#[test]
fn a_worker_writes_and_prints_what_the_schemas_say() {
    let world = World::new(2);
    let mut rules = tempfile::NamedTempFile::new().unwrap();
    let silence = "[[rule]]\nname = \"silent\"\nsilent_for = \"2s\"\nseverity = \"info\"\n";
    let fuel = "[[rule]]\nname = \"fuel\"\nfield = \"fuel\"\nraise_below = 200.0\nclear_above = 250.0\nseverity = \"warning\"\n";
    // The fuel never stays low for that long: pending again and again.
    let slow = format!(
        "{}on_delay = \"10s\"\noff_delay = \"10s\"\n",
        fuel.replace("name = \"fuel\"", "name = \"slow\"")
    );
    let heat =
        "[[rule]]\nname = \"heat\"\nfield = \"temperature\"\nraise_above = 100.0\nseverity = \"critical\"\n";
    write!(rules, "{silence}{fuel}{slow}{heat}").unwrap();
    world.produce(&stormy_readings(20, 2000));
    world.produce(&[Outgoing::new("g", b"{}"), Outgoing::new("g", b"\xff"), Outgoing::default()]);
    // Some of these have an alarm.
    let gone: Vec<_> = (0..10).map(|n| Outgoing::tombstone(&format!("generator{n}"))).collect();
    world.produce(&gone);
    let worker = world.working(&["--rules", rules.path().to_str().unwrap()]);
    let alert = Strict::of("alert");
    until("somebody has been missed", || {
        values(&world, &world.alerts_topic()).iter().any(|alert| alert["reason"] == "silent")
    });
    Strict::of("group-status").check(&world.run("status", &["--json"]).success().json());
    let summary = worker.stop().json();

    let alerts = values(&world, &world.alerts_topic());
    assert!(alert.check_all(&alerts) > 100);
    for wanted in ["silent", "fuel", "heat"] {
        assert!(alerts.iter().any(|alert| alert["rule"] == wanted), "{wanted}");
    }
    for wanted in ["silent", "decommissioned"] {
        assert!(alerts.iter().any(|alert| alert["reason"] == wanted), "{wanted}");
    }
    let of_alerts = Strict::of("alert-headers");
    world.read(&world.alerts_topic()).iter().for_each(|record| of_alerts.check(&headers(record, "ce_")));
    let states = values(&world, &world.state_topic());
    assert!(Strict::of("state").check_all(&states) > 100);
    let letters = world.read(&world.dlq_topic());
    let of_letters = Strict::of("dead-letter-headers");
    assert_eq!(letters.iter().inspect(|letter| of_letters.check(&headers(letter, "dlq."))).count(), 3);
    Strict::of("worker-summary").check(&summary);
    assert!(Strict::of("report").check_all(&values(&world, &world.workers_topic())) > 1);
    let described = world.run("topics describe", &["--json"]).success().json();
    Strict::of("topics-description").check(&described);
}

#[test]
fn aggregates_and_their_states_are_what_the_schemas_say() {
    let world = World::new(1);
    let topic = format!("{}_1s", world.topic);
    let short = ["--window", "1s", "--grace", "0s", "--late", "correct", "--commit-interval", "100ms"];
    let downsample = world.start("downsample", &short);
    world.run("simulate", &["--count", "300", "--rate", "100"]).success();
    until("windows are closed", || values(&world, &topic).len() > 2);
    let summary = downsample.stop().json();

    assert!(Strict::of("aggregate").check_all(&values(&world, &topic)) > 2);
    let of_aggregates = Strict::of("aggregate-headers");
    world.read(&topic).iter().for_each(|record| of_aggregates.check(&headers(record, "genwatch.")));
    let states = values(&world, &format!("{}_1s_state", world.group));
    assert!(Strict::of("aggregate-state").check_all(&states) > 0);
    assert!(states.iter().any(|state| state["kept"].is_array()), "for corrections");
    Strict::of("downsample-summary").check(&summary);
    assert!(Strict::of("report").check_all(&values(&world, &world.workers_topic())) > 0);
}

#[test]
fn a_fleet_and_a_bridge_write_and_print_what_the_schemas_say() {
    let world = World::new(1);
    let simulated = world.run("simulate", &["--count", "300", "--rate", "0"]).success().json();
    let mqtt = Mosquitto::start();
    let url = mqtt.url();
    let bridge = world.start("bridge", &["--mqtt", &url, "--http", "127.0.0.1:0"]);
    let address = bridge.http();
    until("the bridge is connected", || crate::world::http::get(&address, "/readyz").0 == 200);
    let by_mqtt = ["simulate", "--to", "mqtt", "--mqtt", &url, "--generators", "5", "--count", "50"];
    let fleet = Process::start("simulate", &by_mqtt).wait().success().json();
    let status_topic = format!("{}_status", world.topic);
    until("every generator has gone offline", || {
        values(&world, &status_topic).iter().filter(|status| status["status"] == "offline").count() == 5
    });
    let bridged = bridge.stop().json();

    let (reading, summary) = (Strict::of("reading"), Strict::of("simulate-summary"));
    assert_eq!(reading.check_all(&values(&world, &world.topic)), 350);
    summary.check_all([&simulated, &fleet]);
    assert_eq!(Strict::of("generator-status").check_all(&values(&world, &status_topic)), 10);
    Strict::of("bridge-summary").check(&bridged);
    assert!(Strict::of("report").check_all(&values(&world, &world.workers_topic())) > 0);
}
