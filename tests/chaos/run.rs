//! One run: start everything, inject faults, repair, compare.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use genwatch_oracle::NaiveRule;

use crate::aggregates;
use crate::cluster::{self, Cluster};
use crate::delays::Stretch;
use crate::faults::{self, Revocations, World};
use crate::feed::Feed;

use crate::fleet::{SLOW_PARTITION, rules};
use crate::link::{Link, State};
use crate::monitor::Monitor;
use crate::observer::Observer;
use crate::options::{Delivery, Options};
use crate::past::Past;
use crate::reaper::{self, Reaper, pause};
use crate::recovery::{calm, drain, recover};
use crate::report::{self, Observation, Report};
use crate::schedule::{Kind, schedule};
use crate::verdict::judge;
use crate::workers::{Job, Settings, Workers};

const TOPIC: &str = "chaos";
const GROUP: &str = "chaos-group";
const PARTITIONS: i32 = 12;
const FIRST_WORKERS: [(Job, usize); 2] = [(Job::Alarms, 4), (Job::Aggregates, 2)];

/// Runs, reports, and on failure names the command that replays it.
pub fn run(options: &Options) {
    reaper::check();
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!(
        "chaos-{}-{}-{}-{}",
        options.seed,
        options.protocol.name(),
        options.delivery.name(),
        std::process::id()
    ));
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("a folder for the run");
    println!("chaos: {}", options.command());

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
        None if options.delivery == Delivery::AtLeastOnce => "nothing lost, in order".to_owned(),
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
        panic!("{failure}\nreplay: {}", options.command());
    }
}

/// The run itself. Complaints are what no comparison of records shows; a difference panics.
fn go(options: &Options, dir: &Path, report: &mut Report) -> Vec<String> {
    let begun = Instant::now();
    let mut world = begin(options, dir, begun);
    pause(Duration::from_secs(3));
    let mut calms: Vec<Stretch> = calm(&mut world, begun).into_iter().collect();
    world.monitor.take_gaps();
    println!("  all is well after {:.1?}", begun.elapsed());

    let chaos = Instant::now();
    for (number, fault) in schedule(options.seed, options.faults).iter().enumerate() {
        if number > 0 && number % Kind::ALL.len() == 0 {
            calms.extend(calm(&mut world, begun));
        }
        let since = Instant::now();
        let told = faults::inject(&mut world, fault);
        let over = Instant::now();
        let recovery = match fault.then {
            Some(wait) => {
                pause(wait);
                world.workers.replace_ended();
                None
            }
            None => Some(recover(&mut world).duration_since(over)),
        };
        let stretch = since.duration_since(begun)..begun.elapsed();
        let gaps = take_gaps(&world);
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
        report.faults.entry(fault.kind).or_default().push(Observation { standstill, recovery, stretch });
    }

    world.link.set(State::Up);
    calms.extend(calm(&mut world, begun));
    world.feed.close_windows(world.partitions);
    let acknowledged = world.feed.finish();
    println!("  {acknowledged} records are in the last log; draining");
    drain(&mut world);
    keep_longest(&mut report.gaps, take_gaps(&world));
    for number in world.workers.active() {
        world.workers.stop(number);
    }
    report.took = chaos.elapsed();
    count(&world, report);
    let mut complaints = judge(&mut world, acknowledged, &calms, report);
    complaints.append(&mut world.workers.complaints);
    complaints
}

/// Starts everything that is to fail.
fn begin(options: &Options, dir: &Path, begun: Instant) -> World {
    let cluster = Cluster::start(&dir.join("kafka"));
    let brokers = cluster.brokers.clone();
    let link = Link::start(&cluster.relays);
    create_topics(&brokers);
    let mut workers = Workers::new(Settings {
        options: options.clone(),
        binary: binary(dir),
        topic: TOPIC.to_owned(),
        group: GROUP.to_owned(),
        rules: rules_file(dir),
        drags: PARTITIONS,
        dir: dir.to_owned(),
        near: brokers.clone(),
        remote: link.brokers.clone(),
    });
    for (job, count) in FIRST_WORKERS {
        for _ in 0..count {
            workers.start(job);
        }
    }
    let feed = Feed::start(&brokers, TOPIC, PARTITIONS, options.rate, options.seed, begun);
    let monitor = |group: &str| Monitor::start(&brokers, TOPIC, group, PARTITIONS, feed.delivered.clone());
    let (monitor, aggregates) = (monitor(GROUP), monitor(&aggregates::of(GROUP)));
    World {
        cluster,
        link,
        workers,
        feed,
        monitor,
        aggregates,
        observer: Observer::start(&brokers, &format!("{TOPIC}_alerts"), &BTreeMap::new(), begun),
        topic: TOPIC.to_owned(),
        group: GROUP.to_owned(),
        partitions: PARTITIONS,
        kills: 0,
        revocations: Revocations::default(),
        options: options.clone(),
        begun,
        past: Past::default(),
    }
}

/// What the world and the logs of all workers say.
fn count(world: &World, report: &mut Report) {
    report.kills = world.kills;
    report.revocations = world.revocations;
    report.partitions = world.partitions;
    report.fenced = world.workers.fenced;
    let counts = world.workers.count_in_logs(&[
        "assigned=\"",
        "revoked=\"",
        "lost=\"",
        "a commit was refused",
        "recreating the producer",
        "serving /metrics",
        "another client takes its place",
    ]);
    report.rebalances = [counts[0], counts[1], counts[2]];
    report.refused_commits = counts[3];
    report.producers_anew = counts[4];
    report.workers_started = counts[5];
    report.clients_anew = counts[6];
}

/// How long each partition stood still since the last call. Not the slow generator's, whose offset waits for it.
fn take_gaps(world: &World) -> BTreeMap<i32, Duration> {
    let mut gaps = world.monitor.take_gaps();
    gaps.remove(&SLOW_PARTITION);
    gaps
}

fn keep_longest(all: &mut BTreeMap<i32, Duration>, more: BTreeMap<i32, Duration>) {
    for (id, gap) in more {
        let longest = all.entry(id).or_default();
        *longest = (*longest).max(gap);
    }
}

/// The binary under test, under a name of this run's own: a build at the same time doesn't change what is started.
fn binary(dir: &Path) -> PathBuf {
    let (built, ours) = (env!("CARGO_BIN_EXE_genwatch"), dir.join("genwatch"));
    if std::fs::hard_link(built, &ours).is_err() {
        std::fs::copy(built, &ours).expect("a copy of the binary");
    }
    ours
}

fn rules_file(dir: &Path) -> PathBuf {
    let path = dir.join("rules.toml");
    let text: Vec<String> = rules().iter().map(NaiveRule::to_toml).collect();
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
