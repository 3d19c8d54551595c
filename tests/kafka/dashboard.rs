//! `genwatch dashboard`: what it shows is what is in Kafka, whatever happens.

mod client;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use client::{Events, document, ready, request};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};

use crate::world::broker::Cluster;
use crate::world::process::Process;
use crate::world::records::{Outgoing, produce, stormy_readings};
use crate::world::{World, now_ms, until, until_some};

/// A dashboard of this world, that has read what there is.
fn dashboard(world: &World, arguments: &[&str]) -> (Process, String) {
    let dashboard = world.start("dashboard", &[&["--http", "localhost:0"], arguments].concat());
    let address = ready(&dashboard);
    (dashboard, address)
}

fn strings<'v>(list: &'v Value, name: &str) -> BTreeSet<&'v str> {
    list.as_array().unwrap().iter().map(|element| element[name].as_str().unwrap()).collect()
}

#[test]
fn it_shows_what_was_produced_and_what_the_worker_made_of_it() {
    let world = World::new(3);
    world.produce(&stormy_readings(20, 2000));
    let worker = world.working(&[]);
    world.wait_until_worked();
    let (_dashboard, address) = dashboard(&world, &[]);
    let last: BTreeMap<String, Value> = world
        .readings()
        .values()
        .map(|reading| (reading["generatorID"].as_str().unwrap().to_owned(), reading))
        .collect();
    until("each generator is shown as its last reading has it", || {
        let fleet = document(&address, "/api/fleet");
        let generators = fleet["generators"].as_array().unwrap();
        let is_right = |generator: &Value| {
            let expected = &last[generator["generatorID"].as_str().unwrap()];
            let fields = ["lat", "lon", "temperature", "pressure", "fuel"];
            fields.iter().all(|field| generator[field].as_f64() == expected[field].as_f64())
        };
        fleet["count"] == 20 && generators.len() == 20 && generators.iter().all(is_right)
    });
    let oldest = document(&address, "/api/time")["kept_from"].as_i64().unwrap();
    assert!((now_ms() - 600_000..now_ms()).contains(&oldest), "nothing is older than the first reading");

    let events = world.alerts();
    let alerts = until_some("all alerts are read", || {
        let alerts = document(&address, "/api/alerts?limit=2000");
        (alerts["recent"].as_array().unwrap().len() >= events.len()).then_some(alerts)
    });
    let ids = |list: &[Value]| -> BTreeSet<String> {
        list.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(alerts["recent"].as_array().unwrap()), ids(&events));
    let mut open = BTreeMap::new();
    for event in &events {
        let alarm = (event["generatorID"].as_str().unwrap(), event["rule"].as_str().unwrap());
        match event["state"].as_str().unwrap() {
            "raised" => open.insert(alarm, event["id"].as_str().unwrap()),
            _ => open.remove(&alarm),
        };
    }
    assert!(!open.is_empty(), "there is something to compare");
    assert_eq!(strings(&alerts["active"], "id"), open.values().copied().collect());
    let raised = events.iter().filter(|event| event["state"] == "raised").count();
    let counted: u64 =
        alerts["rate_per_hour"].as_array().unwrap().iter().map(|hour| hour["raised"].as_u64().unwrap()).sum();
    assert_eq!(counted, raised as u64);

    let progress = world.progress();
    until("the partitions are as they are", || {
        let shown = document(&address, "/api/partitions");
        let partitions = shown["partitions"].as_array().unwrap();
        partitions.len() == 3
            && partitions.iter().all(|partition| {
                let id = i32::try_from(partition["partition"].as_i64().unwrap()).unwrap();
                let (committed, start, end) = progress.partitions[&id];
                partition["committed"].as_i64() == committed
                    && (partition["start"].as_i64(), partition["end"].as_i64()) == (Some(start), Some(end))
                    && partition["verdict"] == "OK"
                    && partition["phase"] == "active"
                    && partition["owner"] == shown["workers"][0]["worker"]
            })
    });
    let lineage = document(&address, "/api/lineage");
    let nodes = strings(&lineage["nodes"], "id");
    assert!(nodes.iter().any(|id| id.starts_with("worker:")), "{nodes:?}");
    for end in ["from", "to"] {
        let ends = strings(&lineage["edges"], end);
        assert!(ends.is_subset(&nodes), "{ends:?} {nodes:?}");
    }
    worker.stop();
}

#[test]
fn one_generator_is_shown_by_whatever_id_it_has() {
    let world = World::new(2);
    let id = "g/1?<script>alert('ü')</script> &%#";
    // Whole seconds: the time machine knows no finer ones.
    let now = now_ms() / 1000 * 1000;
    let fuels = [500.0, 190.0, 180.0, 300.0, 170.0];
    let readings = fuels
        .iter()
        .zip(0..)
        .map(|(fuel, second)| Outgoing::reading(id, 80.0, *fuel).at(now - 10_000 + second * 1000));
    world.produce(&readings.collect::<Vec<_>>());
    world.produce(&[Outgoing::new("bad", b"no JSON")]);
    world.work_to_the_end(&[]);
    let (_dashboard, address) = dashboard(&world, &[]);
    let encoded: String = id.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let shown = document(&address, &format!("/api/generators/{encoded}"));
    assert_eq!((&shown["generatorID"], &shown["last"]["fuel"]), (&json!(id), &json!(170.0)));
    let low_fuel = &shown["rules"][0];
    assert_eq!((&low_fuel["rule"], &low_fuel["phase"]), (&json!("low_fuel"), &json!("raised")));
    assert_eq!(shown["series"]["fuel"], json!(fuels));
    let incidents: Vec<_> =
        shown["incidents"].as_array().unwrap().iter().map(|i| i["value"].clone()).collect();
    assert_eq!(incidents, [json!(170.0), json!(190.0)], "newest first");
    let before = document(&address, &format!("/api/fleet?at={}", now - 8500));
    assert_eq!(before["generators"][0]["rules"], json!(["low_fuel"]), "{before}");
    assert_eq!(before["generators"][0]["fuel"], 190.0);
    let nobody = request(&address, "GET /api/generators/nobody", &[], "");
    assert_eq!((nobody.status, nobody.json()["error"].is_string()), (404, true));

    world.produce(&[Outgoing::tombstone(id)]);
    until("the decommissioned generator is gone", || document(&address, "/api/fleet")["count"] == 0);
}

#[test]
fn an_alert_is_told_at_once() {
    let world = World::new(2);
    let worker = world.working(&[]);
    let (_dashboard, address) = dashboard(&world, &[]);
    let mut events = Events::listen(&address);
    let (first, snapshot) = events.next();
    assert_eq!((first.as_str(), &snapshot["topic"]), ("snapshot", &json!(world.topic)));
    world.produce(&[Outgoing::reading("hot", 120.0, 500.0)]);
    let told = events.wait_for("the alert", |event, _| event == "alert");
    let late = now_ms() - told["alerts"][0]["at"].as_i64().unwrap();
    assert_eq!(told["alerts"][0]["generatorID"], "hot");
    assert!(late < 2000, "{late} ms after the reading, on a busy machine");
    let fleet = events.wait_for("the generator's alarm", |event, data| {
        event == "fleet" && data["changed"][0]["alarm"] == "critical"
    });
    assert_eq!(fleet["changed"][0]["rules"], json!(["over_temperature"]));
    events.wait_for("the count", |event, data| event == "state" && data["fleet"]["active"]["critical"] == 1);
    worker.stop();
}

/// What a restart must not change: the timeline, up to what goes on, and the alerts.
fn memory(address: &str) -> Value {
    let rows = &document(address, "/api/partitions")["timeline"]["rows"];
    let closed: Vec<Value> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let spans = row["spans"].as_array().unwrap().iter().filter(|span| !span["to"].is_null());
            json!([row["partition"], spans.collect::<Vec<_>>()])
        })
        .collect();
    let alerts = document(address, "/api/alerts");
    json!([closed, alerts["recent"], alerts["active"], alerts["rate_per_hour"]])
}

#[test]
fn a_killed_worker_leaves_a_gap_that_a_restart_of_the_dashboard_shows_alike() {
    let world = World::new(2);
    let options = ["-X", "session.timeout.ms=6000", "-X", "client.id=doomed"];
    let doomed = world.working(&options);
    world.produce(&stormy_readings(5, 200));
    world.wait_until_worked();
    let (first, address) = dashboard(&world, &[]);
    let owners = |address: &str| -> Vec<Value> {
        let shown = document(address, "/api/partitions");
        shown["partitions"].as_array().unwrap().iter().map(|partition| partition["owner"].clone()).collect()
    };
    until("both partitions have their worker", || owners(&address).iter().all(Value::is_string));
    doomed.kill();
    world.produce(&stormy_readings(5, 10));
    until("nobody has them", || {
        let shown = document(&address, "/api/partitions");
        shown["workers"][0]["state"] == "overdue"
            && shown["partitions"][0]["owner"].is_null()
            && shown["timeline"]["rows"][0]["spans"].as_array().unwrap().last().unwrap()["phase"] == "gap"
    });
    let lineage = document(&address, "/api/lineage");
    let nodes = lineage["nodes"].as_array().unwrap();
    assert!(nodes.iter().any(|node| node["name"] == "no worker" && node["status"] == "error"), "{nodes:?}");
    let heir = world.working(&["-X", "session.timeout.ms=6000"]);
    world.wait_until_worked();
    until("the heir has them", || owners(&address).iter().all(Value::is_string));
    let spans = document(&address, "/api/partitions")["timeline"]["rows"][0]["spans"].clone();
    let phases: Vec<_> =
        spans.as_array().unwrap().iter().map(|span| span["phase"].as_str().unwrap()).collect();
    let gap = phases.iter().position(|phase| *phase == "gap").expect("a gap");
    assert!(phases[gap - 1] == "active" && gap + 1 < phases.len(), "{phases:?}");
    assert!(spans[gap]["to"].as_i64().unwrap() - spans[gap]["from"].as_i64().unwrap() > 1000, "{spans}");

    until("nothing moves", || {
        let before = memory(&address);
        std::thread::sleep(Duration::from_millis(1500));
        before == memory(&address)
    });
    let before = memory(&address);
    first.stop();
    let (_second, address) = dashboard(&world, &[]);
    until("the reports are read", || owners(&address).iter().all(Value::is_string));
    assert_eq!(memory(&address), before);
    heir.stop();
}

#[test]
fn a_client_that_does_not_read_gets_a_new_snapshot_and_costs_no_memory() {
    let world = World::new(1);
    let (dashboard, address) = dashboard(&world, &[]);
    let mut events = Events::listen(&address);
    assert_eq!(events.next().0, "snapshot");
    events.wait_for("the first state", |event, _| event == "state");
    let alerts = |from: usize| -> Vec<Outgoing> {
        let alert = |n: usize| {
            let id = format!("{}-0-{n}-low_fuel", world.topic);
            let at = now_ms();
            let state = if n.is_multiple_of(2) { "raised" } else { "cleared" };
            let alert = json!({"id": id, "generatorID": "g", "rule": "low_fuel", "state": state,
                "severity": "warning", "field": "fuel", "value": 1.0, "threshold": 2.0, "at": at,
                "since": at, "lat": 1.0, "lon": 2.0, "source": {"topic": "t", "partition": 0, "offset": n}});
            Outgoing::new("g", alert.to_string().as_bytes())
        };
        (from..from + 20_000).map(alert).collect()
    };
    let resident = || -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", dashboard.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() / 1024
    };
    let before = resident();
    for round in 0..5 {
        produce(&world.brokers, &world.alerts_topic(), &alerts(round * 20_000));
    }
    until("all alerts are read", || {
        let page = request(&address, "GET /metrics", &[], "").body;
        page.contains("genwatch_dashboard_alerts_total 100000\n")
    });
    let grown = resident().saturating_sub(before);
    assert!(grown < 64, "{grown} MiB");
    let snapshot = events.wait_for("another snapshot", |event, _| event == "snapshot");
    assert_eq!(snapshot["alerts"]["recent"][0]["id"], format!("{}-0-99999-low_fuel", world.topic));
    events.wait_for("what follows", |event, _| event == "state");
}

#[test]
fn other_machines_need_the_token() {
    let world = World::empty();
    let refused = world.run("dashboard", &["--http", ":0"]);
    refused.refused(2, &["--http-token", "localhost"]);
    let empty = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(empty.path(), " \n").unwrap();
    let refused = world.run("dashboard", &["--http-token-file", empty.path().to_str().unwrap()]);
    refused.refused(2, &["--http-token-file", "empty"]);

    std::fs::write(empty.path(), "s3cret\n").unwrap();
    let file = empty.path().to_str().unwrap();
    let dashboard = world.start("dashboard", &["--http", ":0", "--http-token-file", file]);
    let address = dashboard.http().replace("[::]", "127.0.0.1").replace("0.0.0.0", "127.0.0.1");
    let get = |path: &str, headers: &[&str]| request(&address, &format!("GET {path}"), headers, "");
    let page = get("/", &[]);
    assert_eq!((page.status, page.header("location")), (303, Some("/login")));
    for path in ["/api/fleet", "/api/time", "/events", "/assets/app.js", "/nothing"] {
        assert_eq!(get(path, &[]).status, 401, "{path}");
    }
    for path in ["/login", "/livez", "/metrics"] {
        assert_eq!(get(path, &[]).status, 200, "{path}");
    }
    assert_eq!(get("/api/time", &["Authorization: Bearer s3cret"]).status, 200);
    assert_eq!(get("/api/time", &["Authorization: Bearer s3cre"]).status, 401);
    assert_eq!(get("/api/time", &["Host: genwatch.example", "Authorization: Bearer s3cret"]).status, 200);
    let form = ["Content-Type: application/x-www-form-urlencoded"];
    let wrong = request(&address, "POST /login", &form, "token=guess");
    assert_eq!((wrong.status, wrong.header("location")), (303, Some("/login?failed=1")));
    assert_eq!(wrong.header("set-cookie"), None);
    let right = request(&address, "POST /login", &form, "token=s3cret");
    let cookie = right.header("set-cookie").expect("a cookie");
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let session = format!("Cookie: {}", cookie.split(';').next().unwrap());
    assert_eq!(get("/api/time", &[&session]).status, 200);
    assert_eq!(get("/api/time", &[&session.replace('a', "b").replace('0', "1")]).status, 401);
    assert!((0..30).any(|_| request(&address, "POST /login", &form, "token=guess").status == 429));
    assert!(!dashboard.stderr().contains("s3cret"), "{}", dashboard.stderr());
    dashboard.stop();
}

#[test]
fn on_this_machine_another_name_for_it_is_refused_and_pages_run_no_foreign_code() {
    let world = World::new(1);
    let (dashboard, address) = dashboard(&world, &[]);
    let evil = request(&address, "GET /api/fleet", &["Host: evil.example"], "");
    assert_eq!(evil.status, 421, "{evil:?}");
    let port = address.rsplit_once(':').unwrap().1;
    for host in
        [format!("Host: localhost:{port}"), format!("Host: 127.0.0.1:{port}"), "Host: [::1]".to_owned()]
    {
        assert_eq!(request(&address, "GET /api/fleet", &[&host], "").status, 200, "{host}");
    }
    let page = request(&address, "GET /", &[], "");
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'; script-src 'self'"), "{policy}");
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
    let (took, _) = client::time(|| dashboard.stop());
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn it_waits_for_topics_and_follows_them_through_growth_and_a_new_beginning() {
    let world = World::empty();
    let (_dashboard, address) = dashboard(&world, &[]);
    let lineage = document(&address, "/api/lineage");
    let readings = |lineage: &Value| -> Value {
        let id = format!("topic:{}", world.topic);
        lineage["nodes"].as_array().unwrap().iter().find(|node| node["id"] == id).unwrap().clone()
    };
    let missing = readings(&lineage);
    assert_eq!(missing["status"], "error");
    assert!(missing["reason"].as_str().unwrap().contains("topics create"), "{missing}");

    world.run("topics create", &["--partitions", "1"]).success();
    world.produce(&[Outgoing::reading("g", 80.0, 500.0)]);
    let fuel = |id: &str| {
        let answer = request(&address, &format!("GET /api/generators/{id}"), &[], "");
        if answer.status == 200 { answer.json()["last"]["fuel"].as_f64() } else { None }
    };
    until("the first reading is there", || fuel("g") == Some(500.0));

    world.grow(2);
    world.produce(&[Outgoing::reading("in the new one", 80.0, 400.0).to(1)]);
    until("the new partition is read", || fuel("in%20the%20new%20one") == Some(400.0));
    until("it is listed", || {
        document(&address, "/api/partitions")["partitions"].as_array().unwrap().len() == 2
    });

    world.make_topic_anew(1);
    until("the reading of the new log is there", || {
        world.produce(&[Outgoing::reading("g", 80.0, 300.0)]);
        std::thread::sleep(Duration::from_millis(500));
        fuel("g") == Some(300.0)
    });
}

#[test]
fn a_connector_of_kafka_connect_has_a_box_with_its_lag() {
    let world = World::new(2);
    world.produce(&(0..10).map(|n| Outgoing::reading("g", 80.0, f64::from(n)).to(1)).collect::<Vec<_>>());
    let elsewhere = world.another(1);
    let [name, other] = [&world, &elsewhere].map(|world| format!("s3-{}", world.group));
    commit_as(&format!("connect-{name}"), &world, 1, 3);
    commit_as(&format!("connect-{other}"), &elsewhere, 0, 0);
    let (_dashboard, address) = dashboard(&world, &[]);
    let shown = || -> Option<(Value, Value)> {
        let lineage = document(&address, "/api/lineage");
        let id = format!("connector:{name}");
        let find = |list: &str, end: &str| {
            lineage[list].as_array().unwrap().iter().find(|part| part[end] == id.as_str()).cloned()
        };
        let others = lineage["nodes"].as_array().unwrap().iter().filter(|node| node["kind"] == "connector");
        assert!(others.clone().all(|node| node["name"] == name.as_str()), "{lineage:#}");
        find("nodes", "id").zip(find("edges", "to"))
    };
    let (node, edge) = until_some("the connector has a box", shown);
    assert_eq!((&node["status"], &node["detail"]), (&json!("warn"), &json!("no task runs")));
    assert_eq!((&edge["from"], &edge["lag"]), (&json!(format!("topic:{}", world.topic)), &json!(7)));
    assert!(node["reason"].as_str().unwrap().contains("none of its tasks runs"), "{node}");

    // A task joins, and goes on from there.
    let task = consumer_of(&format!("connect-{name}"), &world);
    task.subscribe(&[&world.topic]).unwrap();
    until("it is live", || {
        drop(task.poll(Duration::from_millis(100)));
        shown().is_some_and(|(node, _)| node["detail"] == "live")
    });
    commit_as_member(&task, &world, 1, 10);
    until("nothing waits", || {
        drop(task.poll(Duration::from_millis(100)));
        shown().is_some_and(|(node, edge)| node["status"] == "ok" && edge["lag"] == 0)
    });
}

fn consumer_of(group: &str, world: &World) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &world.brokers).set("group.id", group);
    config.set("enable.auto.commit", "false").create().expect("a consumer")
}

fn commit_as_member(consumer: &BaseConsumer, world: &World, partition: i32, offset: i64) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&world.topic, partition, Offset::Offset(offset)).unwrap();
    until("the coordinator takes it", || consumer.commit(&list, CommitMode::Sync).is_ok());
}

/// Commits an offset of the readings, as a task that has left.
fn commit_as(group: &str, world: &World, partition: i32, offset: i64) {
    commit_as_member(&consumer_of(group, world), world, partition, offset);
}

#[test]
fn it_says_that_kafka_is_away_and_when_it_is_back() {
    let cluster = Cluster::start("dashboard-outage", &["broker.session.timeout.ms=6000"]);
    let world = World::in_cluster(&cluster, 1);
    world.produce(&[Outgoing::reading("g", 80.0, 500.0)]);
    let (dashboard, address) = dashboard(&world, &[]);
    until("the reading is there", || document(&address, "/api/fleet")["count"] == 1);
    let mut events = Events::listen(&address);
    let kafka =
        |answers: bool| move |event: &str, data: &Value| event == "state" && data["kafka"]["ok"] == answers;
    events.wait_for("Kafka is there", kafka(true));
    cluster.crash();
    let away = events.wait_for("Kafka is away", kafka(false))["kafka"].clone();
    assert!(away["reason"].is_string() && away["since"].is_i64(), "{away}");
    assert_eq!(request(&address, "GET /readyz", &[], "").status, 503);
    assert_eq!(document(&address, "/api/fleet")["count"], 1, "what was read is still there");
    // Another one starts meanwhile: it waits too.
    let other = world.start("dashboard", &["--http", "localhost:0"]);
    let other_address = other.http();
    until("the other one says so, too", || {
        other.stderr().contains("Kafka does not answer")
            && request(&other_address, "GET /readyz", &[], "").status == 503
    });
    cluster.recover();
    events.wait_for("Kafka is back", kafka(true));
    world.produce(&[Outgoing::reading("g", 80.0, 400.0)]);
    for address in [&address, &other_address] {
        until("readings come again", || {
            let answer = request(address, "GET /api/generators/g", &[], "");
            answer.status == 200 && answer.json()["last"]["fuel"] == 400.0
        });
    }
    assert_eq!(dashboard.stderr().matches("Kafka does not answer").count(), 1, "{}", dashboard.stderr());
}

#[test]
fn the_plan_names_the_limit_that_binds() {
    let world = World::new(2);
    let (_dashboard, address) = dashboard(&world, &[]);
    let nobody = request(&address, "GET /api/plan", &[], "");
    assert_eq!(
        (nobody.status, &nobody.json()["error"]),
        (503, &json!("the group has no workers that say what they do"))
    );
    let refused = request(&address, "GET /api/plan?target_rate=-1", &[], "");
    assert_eq!((refused.status, refused.json()["error"].is_string()), (400, true));

    // A backlog that a serial worker is busy with for a while.
    world.produce(&stormy_readings(20, 6000));
    let worker = world.working(&["--work", "5ms", "--concurrency", "1"]);
    let plan = until_some("there is a plan", || {
        let answer = request(&address, "GET /api/plan?target_rate=600", &[], "");
        let plan = (answer.status == 200).then(|| answer.json())?;
        // A worker counts what it has committed, twenty readings at a time here: in a few seconds that is some percent.
        (plan["seconds"].as_f64()? >= 15.0).then_some(plan)
    });
    assert_eq!(plan["target_rate"], 600.0, "{plan}");
    assert_eq!(plan["binding"]["limit"], "handler", "{plan}");
    let rate = plan["measured"]["rate"].as_f64().unwrap();
    assert!((20.0..=200.0).contains(&rate), "{plan}");
    assert_eq!(
        (&plan["measured"]["replicas"], &plan["measured"]["partitions"]),
        (&json!(1), &json!(2)),
        "{plan}"
    );
    for text in
        [&plan["binding"]["limit"], &plan["binding"]["why"], &plan["sentences"][0], &plan["sentences"][1]]
    {
        assert!(text.as_str().is_some_and(|text| !text.is_empty()), "{plan}");
    }
    let mut events = Events::listen(&address);
    let (first, snapshot) = events.next();
    assert_eq!((first.as_str(), &snapshot["plan"]["measured"]["replicas"]), ("snapshot", &json!(1)));
    events.wait_for("the next plan", |event, plan| event == "plan" && plan["binding"]["limit"].is_string());
    worker.stop();
}
