//! How fast the bridge forwards, beside `mosquitto_sub`, which only receives: the same messages, QoS 1, from the same
//! broker, in turn.
//!
//! Each turn has its own Mosquitto: the contender's session is created so that the broker queues its messages, the
//! messages are published, and then the contender starts on them. A message counts as forwarded once Kafka has it;
//! Kafka must have each message exactly once, in its generator's order.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use foldhash::fast::FixedState;
use genwatch_core::simulator::{Faults, Fleet};
use genwatch_core::types::PartitionId;
use genwatch_kafka::admin::TopicPlan;
use genwatch_kafka::clock;
use genwatch_kafka::config::Connection;
use genwatch_kafka::topic_reader::{StartAt, TopicReader};
use genwatch_kafka::topics::{Role, Topics};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, PublishOptions, PublishProperties};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use serde_json::json;
use wait4::Wait4 as _;

use super::report::{Report, rounded, row};
use super::scratch_topics::ScratchTopics;
use super::statistics::median;
use super::{BenchError, Tell, go_on};

/// Messages in flight for every contender: the bridge's receive maximum.
const WINDOW: u16 = 1000;
const SUBSCRIBER: &str = "mosquitto_sub";
const FILTER: &str = "generators/+/telemetry";
/// How long a turn may make no progress.
const TURN_TIMEOUT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);

/// What to forward, and by how many bridges.
#[derive(Clone, Debug)]
pub struct BridgeBenchConfig {
    /// The cluster.
    pub connection: Connection,
    /// Makes an MQTT client with room for the given number of requests.
    pub connect: fn(MqttOptions, usize) -> std::io::Result<(AsyncClient, EventLoop)>,
    /// The user property with the time a reading was taken, in milliseconds.
    pub timestamp: &'static str,
    /// Numbers of bridges that share the fleet; `mosquitto_sub` runs as well.
    pub bridges: Vec<usize>,
    /// Number of messages.
    pub count: u64,
    /// Number of generators that send them.
    pub generators: u32,
    /// Partitions of the topic.
    pub partitions: i32,
    /// How often each contender runs.
    pub repetitions: u32,
    /// Seed of the fleet.
    pub seed: u64,
}

/// Runs the benchmark.
///
/// # Errors
/// When a contender fails or Kafka doesn't have exactly the messages, when the cluster or Mosquitto fails, or when
/// stopped.
pub fn run(config: &BridgeBenchConfig, stop: &AtomicBool, tell: Tell<'_>) -> Result<Report, BenchError> {
    let mut report = Report::new(
        "bridge",
        json!({
            "messages": config.count, "generators": config.generators, "partitions": config.partitions,
            "repetitions": config.repetitions, "window": WINDOW, "seed": config.seed,
        }),
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let contenders: Vec<usize> = std::iter::once(0).chain(config.bridges.iter().copied()).collect();
    let steps = u64::from(config.repetitions) * contenders.len() as u64;
    let mut done = 0;
    for repetition in 1..=config.repetitions {
        for bridges in &contenders {
            go_on(stop)?;
            let name = name(*bridges);
            tell(&format!("repetition {repetition}: {name}"), done, steps);
            let mosquitto = Mosquitto::start()?;
            let turn = match bridges {
                0 => subscribe(config, &mosquitto, &runtime, stop)?,
                bridges => forward(config, *bridges, &mosquitto, &runtime, stop)?,
            };
            let count = config.count as f64;
            report.runs.push(row(json!({
                "contender": name, "repetition": repetition,
                "messages_per_s": rounded(count / turn.seconds),
                "cpu_us_per_message": rounded(turn.cpu.as_secs_f64() * 1e6 / count),
                "broker_cpu_us_per_message": rounded(turn.broker_cpu * 1e6 / count),
                "seconds": turn.seconds,
            })));
            done += 1;
        }
    }
    summarize(&contenders, &mut report);
    Ok(report)
}

fn summarize(contenders: &[usize], report: &mut Report) {
    let middle = |name: &str, column: &str| median(report.measured(name, column));
    let rate = |bridges: usize| middle(&name(bridges), "messages_per_s");
    let results = contenders.iter().map(|bridges| {
        let name = name(*bridges);
        row(json!({
            "contender": name,
            "messages_per_s": rate(*bridges),
            "cpu_us_per_message": rounded(middle(&name, "cpu_us_per_message")),
            "broker_cpu_us_per_message": rounded(middle(&name, "broker_cpu_us_per_message")),
            "rate_ratio": rounded(rate(*bridges) / rate(0)),
            // Relative to as many times one bridge; meaningful only with enough cores for the bridges and the broker.
            "efficiency": (*bridges > 0 && contenders.contains(&1))
                .then(|| rounded(rate(*bridges) / (rate(1) * *bridges as f64))),
        }))
    });
    report.results = results.collect();
}

fn name(bridges: usize) -> String {
    match bridges {
        0 => SUBSCRIBER.to_owned(),
        1 => "genwatch bridge".to_owned(),
        several => format!("{several} bridges"),
    }
}

/// What a turn took.
struct Turn {
    seconds: f64,
    cpu: Duration,
    broker_cpu: f64,
}

/// Receives all messages by `mosquitto_sub`; timed from its start to its exit.
fn subscribe(
    config: &BridgeBenchConfig,
    mosquitto: &Mosquitto,
    runtime: &tokio::runtime::Runtime,
    stop: &AtomicBool,
) -> Result<Turn, BenchError> {
    let command = |more: &[&str]| {
        let (port, window) = (mosquitto.port.to_string(), WINDOW.to_string());
        let mut command = Command::new(SUBSCRIBER);
        command
            .args([
                "-V",
                "mqttv5",
                "-h",
                "127.0.0.1",
                "-p",
                &port,
                "-i",
                "bench",
                "-c",
                "-x",
                "3600",
                "-q",
                "1",
            ])
            .args(["-D", "connect", "receive-maximum", &window, "-t", FILTER])
            .args(more);
        command
    };
    // Creates its session.
    Program::start(SUBSCRIBER, command(&["-E"]))?.wait(stop)?;
    runtime.block_on(publish(config, mosquitto.port, stop))?;
    let (begun, broker_before) = (Instant::now(), mosquitto.cpu());
    let ended = Program::start(SUBSCRIBER, command(&["-C", &config.count.to_string()]))?.wait(stop)?;
    let seconds = begun.elapsed().as_secs_f64();
    Ok(Turn { seconds, cpu: ended.cpu, broker_cpu: mosquitto.cpu() - broker_before })
}

#[derive(Deserialize)]
struct ContenderResult {
    received: u64,
    readings: u64,
    dropped: u64,
    seconds: f64,
}

/// Forwards all messages by `bridges` bridges; timed from the first message of any to Kafka's last acknowledgement.
fn forward(
    config: &BridgeBenchConfig,
    bridges: usize,
    mosquitto: &Mosquitto,
    runtime: &tokio::runtime::Runtime,
    stop: &AtomicBool,
) -> Result<Turn, BenchError> {
    let arena = ScratchTopics::new(&config.connection, config.partitions)?;
    let status = Topics::new(&arena.topic, &arena.topic).status;
    let plan = TopicPlan::like_its_cluster(&arena.cluster, &status, 1, Role::Status.config())?;
    arena.cluster.create(&plan)?;
    let name = name(bridges);
    let start = || -> Result<Vec<Program>, BenchError> {
        (1..=bridges)
            .map(|one| Program::start(&name, bridge(config, &arena, mosquitto, one, bridges)?))
            .collect()
    };
    // Creates their sessions.
    let running = start()?;
    mosquitto.wait_for_subscriptions(2 * bridges, stop)?;
    for program in running {
        program.ask_to_end();
        program.wait(stop)?;
    }
    runtime.block_on(publish(config, mosquitto.port, stop))?;
    let broker_before = mosquitto.cpu();
    let running = start()?;
    wait_until_in_kafka(config, &arena, stop)?;
    let broker_cpu = mosquitto.cpu() - broker_before;
    let (mut cpu, mut seconds, mut readings) = (Duration::ZERO, 0.0_f64, 0);
    for program in running {
        program.ask_to_end();
        let ended = program.wait(stop)?;
        let told: ContenderResult =
            serde_json::from_str(&ended.stdout).map_err(|error| wrong(&name, &error))?;
        cpu += ended.cpu;
        seconds = seconds.max(told.seconds);
        readings += told.readings;
        if told.received < config.count || told.dropped > 0 {
            return Err(wrong(&name, &"a bridge hasn't received all messages, or has left some out"));
        }
    }
    if readings != config.count {
        return Err(wrong(&name, &format!("{readings} readings forwarded of {}", config.count)));
    }
    check(config, &arena, &name, stop)?;
    Ok(Turn { seconds, cpu, broker_cpu })
}

fn bridge(
    config: &BridgeBenchConfig,
    arena: &ScratchTopics,
    mosquitto: &Mosquitto,
    one: usize,
    of: usize,
) -> Result<Command, BenchError> {
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    let url = format!("mqtt://127.0.0.1:{}", mosquitto.port);
    command.args(["bridge", "--brokers", config.connection.brokers(), "--topic", &arena.topic]);
    command.args(["--mqtt", &url, "--share", &format!("{one}/{of}")]);
    // Not as arguments, which every user of the machine can see: they may contain a password.
    let properties: Vec<String> =
        config.connection.properties().map(|(key, value)| format!("{key}={value}")).collect();
    for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("GENWATCH_")) {
        command.env_remove(key);
    }
    command.env("GENWATCH_X", properties.join("\n")).env("RUST_LOG", "warn");
    Ok(command)
}

/// Publishes the messages over one connection, in order.
async fn publish(config: &BridgeBenchConfig, port: u16, stop: &AtomicBool) -> Result<(), BenchError> {
    let mut options = MqttOptions::new("publisher", ("127.0.0.1", port));
    options.set_outgoing_inflight_upper_limit(WINDOW).set_clean_start(true);
    let (client, mut events) = (config.connect)(options, usize::from(WINDOW)).map_err(failed)?;
    let mut fleet = Fleet::new(config.seed, config.generators, Faults::None);
    let (mut sent, mut acknowledged) = (0, 0);
    while acknowledged < config.count {
        while sent < config.count && sent - acknowledged < u64::from(WINDOW) {
            let record = fleet.next();
            let generator = String::from_utf8_lossy(record.key.unwrap_or_default());
            let properties = PublishProperties {
                user_properties: vec![(config.timestamp.to_owned(), clock::now().to_string())],
                ..PublishProperties::default()
            };
            let topic = format!("generators/{generator}/telemetry");
            let how = PublishOptions::at_least_once().properties(properties);
            client.try_publish(topic, record.value.unwrap_or_default().to_vec(), how).map_err(failed)?;
            sent += 1;
            if sent % 10_000 == 0 {
                go_on(stop)?;
            }
        }
        if let Event::Incoming(Packet::PubAck(_)) = events.poll().await.map_err(failed)? {
            acknowledged += 1;
        }
    }
    Ok(())
}

fn wait_until_in_kafka(
    config: &BridgeBenchConfig,
    arena: &ScratchTopics,
    stop: &AtomicBool,
) -> Result<(), BenchError> {
    let (mut before, mut moved) = (0, Instant::now());
    loop {
        go_on(stop)?;
        let mut records = 0;
        for partition in 0..config.partitions {
            records += arena.cluster.watermarks(&arena.topic, PartitionId(partition))?.1.0.unsigned_abs();
        }
        if records >= config.count {
            return Ok(());
        }
        if records != before {
            (before, moved) = (records, Instant::now());
        }
        if moved.elapsed() > TURN_TIMEOUT {
            return Err(wrong("the bridge", &format!("stands still at {records} of {}", config.count)));
        }
        std::thread::sleep(LOOK);
    }
}

/// Checks that Kafka has each message once, in its generator's order, by a chain of hashes per generator.
fn check(
    config: &BridgeBenchConfig,
    arena: &ScratchTopics,
    name: &str,
    stop: &AtomicBool,
) -> Result<(), BenchError> {
    let mut said = Chains::default();
    let mut fleet = Fleet::new(config.seed, config.generators, Faults::None);
    for _ in 0..config.count {
        let record = fleet.next();
        said.add(record.key.unwrap_or_default(), record.value.unwrap_or_default());
    }
    let mut found = Chains::default();
    let mut tail = TopicReader::new(&arena.connection, &arena.cluster, &arena.topic, StartAt::Beginning)?;
    while !tail.at_end() {
        go_on(stop)?;
        tail.read(LOOK, |record| {
            found.add(record.key.unwrap_or_default(), record.value.unwrap_or_default());
            Ok::<(), BenchError>(())
        })?;
    }
    if found == said { Ok(()) } else { Err(wrong(name, &"Kafka doesn't have each message once, in order")) }
}

#[derive(Default, PartialEq, Eq)]
struct Chains(HashMap<Vec<u8>, u64>);

impl Chains {
    fn add(&mut self, generator: &[u8], value: &[u8]) {
        let chain = self.0.entry(generator.to_vec()).or_default();
        *chain = FixedState::default().hash_one((*chain, value));
    }
}

fn failed(error: impl ToString) -> BenchError {
    BenchError::Contender {
        name: "the benchmark".to_owned(),
        what: "failed".to_owned(),
        said: error.to_string(),
    }
}

fn wrong(name: &str, what: &impl ToString) -> BenchError {
    BenchError::Wrong { name: name.to_owned(), what: what.to_string() }
}

/// A program under test, or one that it needs. Killed when dropped.
struct Program {
    name: String,
    child: Option<Child>,
}

struct ContenderExit {
    stdout: String,
    cpu: Duration,
}

impl Program {
    fn start(name: &str, mut command: Command) -> Result<Program, BenchError> {
        use std::os::unix::process::CommandExt as _;
        // Its own process group, so that Ctrl-C reaches only us: we end it. Nobody reads its stdout while it runs, so a
        // subscriber's goes to null.
        command.process_group(0).stdin(Stdio::null()).stderr(Stdio::inherit());
        command.stdout(if name == SUBSCRIBER { Stdio::null() } else { Stdio::piped() });
        let child = command.spawn().map_err(|error| BenchError::Contender {
            name: name.to_owned(),
            what: "can't be started".to_owned(),
            said: error.to_string(),
        })?;
        Ok(Program { name: name.to_owned(), child: Some(child) })
    }

    fn ask_to_end(&self) {
        let pid = self.child.as_ref().and_then(|child| Pid::from_raw(child.id().try_into().unwrap_or(0)));
        if let Some(pid) = pid {
            // It isn't reaped before `wait`, so the id is still its own.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    fn wait(mut self, stop: &AtomicBool) -> Result<ContenderExit, BenchError> {
        use std::io::Read as _;
        let Some(mut child) = self.child.take() else { return Err(wrong(&self.name, &"was lost")) };
        let pid = Pid::from_raw(child.id().try_into().unwrap_or(0));
        let stdout = child.stdout.take();
        let (reaped, exit) = std::sync::mpsc::channel();
        std::thread::spawn(move || reaped.send(child.wait4()));
        let used = loop {
            match exit.recv_timeout(LOOK) {
                Ok(used) => break used.map_err(failed)?,
                Err(_) => {
                    if let (Err(stopped), Some(pid)) = (go_on(stop), pid) {
                        let _ = kill_process(pid, Signal::KILL);
                        return Err(stopped);
                    }
                }
            }
        };
        let mut text = String::new();
        stdout.map_or(Ok(0), |mut stdout| stdout.read_to_string(&mut text)).map_err(failed)?;
        if !used.status.success() {
            return Err(wrong(&self.name, &format!("it failed, {}", used.status)));
        }
        Ok(ContenderExit { stdout: text, cpu: used.rusage.utime + used.rusage.stime })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The broker of one turn. Killed when dropped.
struct Mosquitto {
    port: u16,
    folder: PathBuf,
    process: Program,
}

impl Mosquitto {
    fn start() -> Result<Mosquitto, BenchError> {
        let folder = std::env::temp_dir().join(format!("genwatch-bench-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&folder).map_err(|error| BenchError::file(&folder, error))?;
        let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = listener.map_err(failed)?.port();
        let path = folder.join("mosquitto.conf");
        let lines = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\nmax_queued_messages 0\nmax_inflight_messages {WINDOW}\n\
             log_type subscribe\nlog_dest file {}\n",
            folder.join("log").display()
        );
        std::fs::write(&path, lines).map_err(|error| BenchError::file(&path, error))?;
        let mut command = Command::new("mosquitto");
        command.env("PATH", std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/usr/local/sbin");
        command.arg("-c").arg(path);
        let mosquitto = Mosquitto { port, folder, process: Program::start("mosquitto", command)? };
        let deadline = Instant::now() + TURN_TIMEOUT;
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() > deadline {
                return Err(wrong("mosquitto", &"doesn't listen"));
            }
            std::thread::sleep(LOOK);
        }
        Ok(mosquitto)
    }

    /// Waits for `wanted` subscriptions; each is a line in the broker's log.
    fn wait_for_subscriptions(&self, wanted: usize, stop: &AtomicBool) -> Result<(), BenchError> {
        let deadline = Instant::now() + TURN_TIMEOUT;
        loop {
            go_on(stop)?;
            let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            if log.matches("generators/+/").count() >= wanted {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(wrong("the bridge", &"doesn't subscribe"));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Returns the seconds of CPU time it has used.
    fn cpu(&self) -> f64 {
        let pid = self.process.child.as_ref().map_or(0, Child::id);
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // After the name, which may contain anything: utime and stime are the 12th and 13th field, in hundredths of a
        // second.
        let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields).split(' ').skip(11).take(2);
        fields.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / 100.0
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        if let Some(mut child) = self.process.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
