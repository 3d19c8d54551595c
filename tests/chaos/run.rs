//! One run: start everything, let it fail, put it right, compare.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::cluster::{self, Cluster};
use crate::faults::{self, World};
use crate::feed::{Feed, RULES};
use crate::link::{Link, State};
use crate::monitor::Monitor;
use crate::options::Options;
use crate::oracle::{self, Rule};
use crate::reaper::{self, Reaper, pause};
use crate::report::{self, Observation, Report};
use crate::schedule::schedule;
use crate::workers::{Settings, Workers};

const TOPIC: &str = "chaos";
const GROUP: &str = "chaos-group";
const PARTITIONS: i32 = 12;
const FIRST_WORKERS: usize = 4;
/// Whatever happened, this long after it everything works again.
const RECOVERY: Duration = Duration::from_secs(90);

/// Runs, reports, and fails with the way to replay it.
pub fn run(options: &Options) {
    reaper::check();
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!(
        "chaos-{}-{}-{}",
        options.seed,
        options.protocol.name(),
        std::process::id()
    ));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("a folder for the run");
    println!("chaos: seed {}, {} faults, {} protocol", options.seed, options.faults, options.protocol.name());

    let mut report = Report::default();
    let outcome = {
        let _reaper = Reaper::start(cluster::path(), &dir.join("kafka"));
        catch_unwind(AssertUnwindSafe(|| go(options, &dir, &mut report)))
    };
    let failure = match outcome {
        Ok(complaints) if complaints.is_empty() => None,
        Ok(complaints) => Some(complaints.join("; ")),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
            Some(text.lines().next().unwrap_or_default().to_owned())
        }
    };
    report.verdict = match &failure {
        None => "nothing lost, nothing twice, in order".to_owned(),
        Some(failure) => format!("FAILED: {failure}"),
    };
    let text = report.to_markdown(options);
    println!("\n{text}");
    if let Some(path) = &options.report {
        report::append(path, &text);
    }
    if failure.is_none() && !options.keep {
        let _ = std::fs::remove_dir_all(&dir);
    } else {
        println!("chaos: logs of workers and brokers are in {}", dir.display());
    }
    if let Some(failure) = failure {
        panic!(
            "{failure}\nreplay: scripts/chaos --seed {} --faults {} --protocol {}",
            options.seed,
            options.faults,
            options.protocol.name()
        );
    }
}

/// The run itself. Complaints are what no comparison of records shows; a difference panics.
fn go(options: &Options, dir: &Path, report: &mut Report) -> Vec<String> {
    let begun = Instant::now();
    let cluster = Cluster::start(&dir.join("kafka"));
    let brokers = cluster.brokers.clone();
    let link = Link::start(&cluster.relays);
    let remote = link.brokers.clone();
    create_topics(&brokers);
    let settings = Settings {
        options: options.clone(),
        binary: binary(dir),
        topic: TOPIC.to_owned(),
        group: GROUP.to_owned(),
        rules: rules_file(dir),
        dir: dir.to_owned(),
        near: brokers.clone(),
        remote,
    };
    let mut world =
        World { cluster, link, workers: Workers::new(settings), group: GROUP.to_owned(), kills: 0 };
    for _ in 0..FIRST_WORKERS {
        world.workers.start();
    }
    let feed = Feed::start(&brokers, TOPIC, options.rate, options.seed);
    let monitor = Monitor::start(&brokers, TOPIC, GROUP, PARTITIONS, feed.delivered.clone());
    pause(Duration::from_secs(3));
    recover(&mut world, &monitor, &monitor.ends());
    monitor.take_gaps();
    println!("  all is well after {:.1?}", begun.elapsed());

    let chaos = Instant::now();
    for (number, fault) in schedule(options.seed, options.faults).iter().enumerate() {
        let since = Instant::now();
        let told = faults::inject(&mut world, fault);
        let over = Instant::now();
        let recovery = match fault.then {
            Some(wait) => {
                pause(wait);
                world.workers.replace_ended();
                None
            }
            None => {
                recover(&mut world, &monitor, &monitor.ends());
                Some(over.elapsed())
            }
        };
        let gaps = monitor.take_gaps();
        let standstill = gaps.values().max().copied().unwrap_or_default();
        keep_longest(&mut report.gaps, gaps);
        println!(
            "  {:5.1} s  {:3}. {}: {told}; {}, a partition stood still for {:.1} s",
            since.duration_since(chaos).as_secs_f64(),
            number + 1,
            fault.kind.name(),
            recovery.map_or("the next at once".to_owned(), |time| format!(
                "recovered after {:.1} s",
                time.as_secs_f64()
            )),
            standstill.as_secs_f64(),
        );
        report.faults.entry(fault.kind).or_default().push(Observation { standstill, recovery });
    }

    world.link.set(State::Up);
    report.records = feed.finish();
    println!("  {} records are in the log; draining", report.records);
    recover(&mut world, &monitor, &monitor.ends());
    keep_longest(&mut report.gaps, monitor.take_gaps());
    for number in world.workers.active() {
        world.workers.stop(number);
    }
    report.took = chaos.elapsed();
    report.kills = world.kills;
    report.fenced = world.workers.fenced;
    let counts = world.workers.count_in_logs(&[
        "assigned=\"",
        "revoked=\"",
        "lost=\"",
        "a commit was refused",
        "made anew",
        "the worker joins its group",
    ]);
    report.rebalances = [counts[0], counts[1], counts[2]];
    report.refused_commits = counts[3];
    report.producers_anew = counts[4];
    report.workers_started = counts[5];
    compare(&brokers, report);
    std::mem::take(&mut world.workers.complaints)
}

/// Waits until everything up to these offsets is committed.
fn recover(world: &mut World, monitor: &Monitor, ends: &BTreeMap<i32, i64>) {
    let deadline = Instant::now() + RECOVERY;
    loop {
        monitor.check();
        world.workers.replace_ended();
        let behind = monitor.behind(ends);
        if behind.is_empty() {
            return;
        }
        if Instant::now() >= deadline {
            world.workers.examine();
        }
        assert!(
            Instant::now() < deadline,
            "{} s after the fault partitions are still behind, by so many records: {behind:?}",
            RECOVERY.as_secs()
        );
        pause(Duration::from_millis(50));
    }
}

fn compare(brokers: &str, report: &mut Report) {
    let readings = oracle::log::read(brokers, TOPIC);
    // The feed's client may write a record twice where an answer was lost and its idempotence began a new epoch
    // (librdkafka); nothing that was acknowledged may be missing.
    let surplus = (readings.len() as u64).checked_sub(report.records);
    report.surplus = surplus.expect("the log holds all that was acknowledged");
    report.records = readings.len() as u64;
    let expected = oracle::evaluate(TOPIC, &readings, &RULES);
    report.alerts = expected.alert_count();
    report.dead_letters = expected.dead_letter_count();
    report.states = expected.states.len();
    oracle::check_alerts(&expected, oracle::log::read(brokers, &format!("{TOPIC}_alerts")).values());
    let letters = oracle::log::read(brokers, &format!("{TOPIC}_dlq"));
    oracle::check_dead_letters(&expected, TOPIC, &readings, &letters);
    oracle::check_states(&expected, &oracle::log::read(brokers, &format!("{GROUP}_state")));
}

fn keep_longest(all: &mut BTreeMap<i32, Duration>, more: BTreeMap<i32, Duration>) {
    for (id, gap) in more {
        let longest = all.entry(id).or_default();
        *longest = (*longest).max(gap);
    }
}

/// The binary under test, by a name of this run's own: a build meanwhile doesn't change what is started.
fn binary(dir: &Path) -> PathBuf {
    let (built, ours) = (env!("CARGO_BIN_EXE_genwatch"), dir.join("genwatch"));
    if std::fs::hard_link(built, &ours).is_err() {
        std::fs::copy(built, &ours).expect("a copy of the binary");
    }
    ours
}

fn rules_file(dir: &Path) -> PathBuf {
    let path = dir.join("rules.toml");
    let text: Vec<String> = RULES.iter().map(|rule: &Rule| rule.to_toml()).collect();
    std::fs::write(&path, text.join("\n")).expect("the rules file");
    path
}

fn create_topics(brokers: &str) {
    let partitions = PARTITIONS.to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_genwatch"))
        .args(["topics", "create", "--brokers", brokers, "--topic", TOPIC, "--group", GROUP])
        .args(["--partitions", &partitions, "--replication-factor", "3", "--min-insync", "2"])
        .output()
        .expect("the binary starts");
    assert!(output.status.success(), "topics create: {}", String::from_utf8_lossy(&output.stderr));
}
