//! The workers: child processes of two groups, at two sites. The remote site's reach the brokers by a link that can
//! fail.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::RangeInclusive;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::aggregates;
use crate::fleet;
use crate::options::{Options, Protocol};
use crate::probe;
use crate::reaper;
use crate::signal::{self, Signal};

/// An orderly end takes at most the drain timeout (20 s) and a little.
const END_TIMEOUT: Duration = Duration::from_secs(45);
/// The group is quiet when nothing has moved for this long; after this time it is taken as it is.
const QUIET: Duration = Duration::from_secs(2);
const QUIET_TIMEOUT: Duration = Duration::from_secs(30);

/// What a worker does, and so its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// `genwatch worker`: alarms.
    Alarms,
    /// `genwatch downsample`.
    Aggregates,
}

impl Job {
    /// Never fewer or more of a group than these.
    pub fn workers(self) -> RangeInclusive<usize> {
        match self {
            Job::Alarms => 3..=6,
            Job::Aggregates => 1..=3,
        }
    }

    /// The subcommand, which is also its name in reports.
    fn command(self) -> &'static str {
        match self {
            Job::Alarms => "worker",
            Job::Aggregates => "downsample",
        }
    }
}

/// What all workers share.
pub struct Settings {
    pub options: Options,
    /// The worker's binary.
    pub binary: PathBuf,
    pub topic: String,
    pub group: String,
    pub rules: PathBuf,
    /// This many partitions have a generator that makes a drain slow.
    pub drags: i32,
    /// Where logs go.
    pub dir: PathBuf,
    /// `--brokers` of the brokers' own site.
    pub near: String,
    /// `--brokers` of the remote site.
    pub remote: String,
}

pub struct Worker {
    pub number: usize,
    job: Job,
    /// Its slot in its group: the site, its handicap, and under static membership its name.
    pub slot: usize,
    child: Child,
    paused: bool,
    /// The address of its metrics, once it has logged it.
    address: OnceCell<String>,
}

impl Worker {
    pub fn name(&self) -> String {
        let Worker { number, job, slot, .. } = self;
        format!("{} {number} (slot {slot}, pid {})", job.command(), self.child.id())
    }
}

pub struct Workers {
    settings: Settings,
    all: Vec<Worker>,
    started: usize,
    /// Workers that ended unexpectedly, or in the wrong way.
    pub complaints: Vec<String>,
    /// How many ended because the broker fenced their name (see [`Workers::was_fenced`]).
    pub fenced: usize,
}

/// Every third slot is at the remote site.
pub fn is_remote(slot: usize) -> bool {
    slot % 3 == 1
}

impl Workers {
    pub fn new(settings: Settings) -> Workers {
        Workers { settings, all: Vec::new(), started: 0, complaints: Vec::new(), fenced: 0 }
    }

    /// How many do this.
    pub fn len(&self, job: Job) -> usize {
        self.all.iter().filter(|worker| worker.job == job).count()
    }

    /// Starts a worker in the lowest free slot of its group.
    pub fn start(&mut self, job: Job) -> usize {
        let is_free = |slot: &usize| self.all.iter().all(|worker| (worker.job, worker.slot) != (job, *slot));
        let slot = (0..).find(is_free).unwrap();
        let number = self.started;
        self.started += 1;
        let settings = &self.settings;
        let log = File::create(self.log_of(number)).expect("a log file");
        let brokers = if is_remote(slot) { &settings.remote } else { &settings.near };
        let mut command = Command::new(&settings.binary);
        command.args([
            job.command(),
            "--brokers",
            brokers,
            "--topic",
            &settings.topic,
            "--group",
            &settings.group,
        ]);
        command.arg("--rules").arg(&settings.rules).args(["--http", "127.0.0.1:0"]);
        command.args(["--delivery", settings.options.delivery.name(), "--on-new-topic", "keep-states"]);
        // So that growth is noticed sooner than by default (30 s).
        command.args(["-X", "topic.metadata.refresh.interval.ms=5000"]);
        command.args(["--threads", if number.is_multiple_of(2) { "1" } else { "3" }]);
        match settings.options.protocol {
            Protocol::Classic => {}
            Protocol::Consumer => drop(command.args(["--group-protocol", "consumer"])),
            Protocol::Static => drop(command.args(["-X", &format!("group.instance.id=slot{slot}")])),
        }
        match job {
            Job::Alarms => drop(command.args(work(number, slot, settings.drags))),
            Job::Aggregates => drop(command.args(aggregates::OPTIONS)),
        }
        for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("GENWATCH_") || key == "RUST_LOG")
        {
            command.env_remove(key);
        }
        if settings.options.debug {
            command.env("RUST_LOG", "debug").args(["-X", "debug=cgrp,eos,consumer"]);
        }
        let out = File::create(settings.dir.join(format!("worker-{number}.out"))).expect("a file");
        let child = command.stdin(Stdio::null()).stdout(out).stderr(log).spawn().expect("the binary starts");
        reaper::began(child.id());
        self.all.push(Worker { number, job, slot, child, paused: false, address: OnceCell::new() });
        number
    }

    /// Those not stopped by SIGSTOP.
    pub fn active(&self) -> Vec<usize> {
        self.all.iter().filter(|worker| !worker.paused).map(|worker| worker.number).collect()
    }

    /// The same, of the remote site.
    pub fn remote(&self) -> Vec<usize> {
        self.all.iter().filter(|w| !w.paused && is_remote(w.slot)).map(|worker| worker.number).collect()
    }

    /// The same, of those that do this.
    pub fn active_of(&self, job: Job) -> Vec<usize> {
        self.active().into_iter().filter(|number| self.job(*number) == job).collect()
    }

    pub fn job(&self, number: usize) -> Job {
        self.all[self.index(number)].job
    }

    pub fn newest(&self, job: Job) -> usize {
        self.active_of(job).into_iter().max().expect("a worker")
    }

    pub fn describe(&self, number: usize) -> String {
        self.all[self.index(number)].name()
    }

    /// SIGKILL.
    pub fn kill(&mut self, number: usize) {
        let mut worker = self.all.remove(self.index(number));
        worker.child.kill().expect("killed");
        worker.child.wait().expect("ended");
        reaper::ended(worker.child.id());
    }

    pub fn pause(&mut self, number: usize) {
        self.signal(number, Signal::STOP);
        let index = self.index(number);
        self.all[index].paused = true;
    }

    pub fn resume(&mut self, number: usize) {
        self.signal(number, Signal::CONT);
        let index = self.index(number);
        self.all[index].paused = false;
    }

    /// SIGTERM, and waits for an orderly end. A worker that was just started has to be up first.
    pub fn stop(&mut self, number: usize) -> Duration {
        let said =
            |workers: &Workers| std::fs::metadata(workers.log_of(number)).is_ok_and(|log| log.len() > 0);
        let deadline = Instant::now() + END_TIMEOUT;
        while !said(self) && Instant::now() < deadline {
            reaper::pause(Duration::from_millis(20));
        }
        let begun = Instant::now();
        self.signal(number, Signal::TERM);
        let mut worker = self.all.remove(self.index(number));
        loop {
            if let Some(status) = worker.child.try_wait().expect("a child") {
                reaper::ended(worker.child.id());
                if !status.success() {
                    self.complaints.push(format!("{} was asked to stop: {}", worker.name(), how(status)));
                }
                return begun.elapsed();
            }
            if begun.elapsed() > END_TIMEOUT {
                self.complaints.push(format!("{} does not end within {END_TIMEOUT:?}", worker.name()));
                worker.child.kill().expect("killed");
                worker.child.wait().expect("ended");
                reaper::ended(worker.child.id());
                return begun.elapsed();
            }
            reaper::pause(Duration::from_millis(20));
        }
    }

    /// Notes those that ended by themselves, and replaces them, as a supervisor would.
    pub fn replace_ended(&mut self) {
        let mut complaints = Vec::new();
        for worker in &mut self.all {
            if let Some(status) = worker.child.try_wait().expect("a child") {
                reaper::ended(worker.child.id());
                let complaint = format!("{} ended by itself: {}", worker.name(), how(status));
                println!("  {complaint}");
                complaints.push((worker.number, worker.job, complaint));
            }
        }
        for (number, job, complaint) in complaints {
            if self.was_fenced(number) {
                self.fenced += 1;
            } else if !self.could_not_begin(number) {
                self.complaints.push(complaint);
            }
            self.all.remove(self.index(number));
            self.start(job);
        }
    }

    /// Whether a worker ended because, according to the broker, another one has its name under static membership.
    /// librdkafka treats that as fatal. It happens without another one too: a member that rejoins while the coordinator
    /// moves may fence itself by its own repeated request. The worker then ends with a clear message, because two
    /// workers of one name must not keep taking partitions from each other; its supervisor restarts it.
    fn was_fenced(&self, number: usize) -> bool {
        let log = std::fs::read(self.log_of(number)).unwrap_or_default();
        self.settings.options.protocol == Protocol::Static
            && String::from_utf8_lossy(&log).contains("fenced by other consumer with same group.instance.id")
    }

    /// Whether a worker ended because no broker answered at its start: its supervisor restarts it.
    fn could_not_begin(&self, number: usize) -> bool {
        let log = std::fs::read(self.log_of(number)).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        log.contains("no broker answers") && !log.contains("the worker joins its group")
    }

    fn log_of(&self, number: usize) -> PathBuf {
        self.settings.dir.join(format!("worker-{number}.log"))
    }

    /// Workers that aren't ready: they have no partitions, or can't commit.
    pub fn unready(&self) -> Vec<String> {
        let unready = |worker: &&Worker| !worker.paused && !probe::is_ok(&self.ask(worker, "/readyz"));
        self.all.iter().filter(unready).map(Worker::name).collect()
    }

    /// How often the assignment of each worker has changed.
    pub fn rebalances(&self) -> BTreeMap<usize, u64> {
        let count = |number| Some((number, self.rebalances_and_in_flight(number)?.0));
        self.active().into_iter().filter_map(count).collect()
    }

    /// The same for one worker, and how many readings it is processing, if it answers.
    pub fn rebalances_and_in_flight(&self, number: usize) -> Option<(u64, u64)> {
        let page = self.ask(&self.all[self.index(number)], "/metrics");
        let value = |name| probe::metric(&page, name);
        value("genwatch_rebalances_total").zip(value("genwatch_in_flight"))
    }

    /// Waits, with a deadline, until all are ready and no partition moves. Returns the count of each worker's
    /// rebalances then.
    pub fn wait_until_quiet(&mut self) -> BTreeMap<usize, u64> {
        let deadline = Instant::now() + QUIET_TIMEOUT;
        loop {
            let before = self.rebalances();
            reaper::pause(QUIET);
            self.replace_ended();
            let is_quiet = before.len() == self.all.len() && before == self.rebalances();
            if is_quiet && self.unready().is_empty() || Instant::now() > deadline {
                return before;
            }
        }
    }

    fn ask(&self, worker: &Worker, path: &str) -> String {
        if worker.address.get().is_none() {
            let log = std::fs::read_to_string(self.log_of(worker.number)).unwrap_or_default();
            let told = log.split_once("address=").and_then(|(_, rest)| rest.split_once(char::is_whitespace));
            let Some((address, _)) = told else { return String::new() };
            let _ = worker.address.set(address.to_owned());
        }
        worker.address.get().map_or_else(String::new, |address| probe::get(address, path))
    }

    /// Writes each worker's state to files beside its log: metrics, and the stacks of its threads if there's a gdb.
    pub fn examine(&self) {
        for worker in &self.all {
            let pages = ["/livez", "/readyz", "/metrics"].map(|path| self.ask(worker, path));
            let mut text = pages.join("\n");
            let id = worker.child.id().to_string();
            let stacks =
                Command::new("gdb").args(["-p", &id, "-batch", "-ex", "thread apply all bt"]).output();
            if let Ok(stacks) = stacks {
                text.push_str(&String::from_utf8_lossy(&stacks.stdout));
            }
            let _ = std::fs::write(self.settings.dir.join(format!("worker-{}.txt", worker.number)), text);
        }
    }

    fn signal(&self, number: usize, signal: Signal) {
        signal::send(&self.all[self.index(number)].child, signal);
    }

    fn index(&self, number: usize) -> usize {
        self.all.iter().position(|worker| worker.number == number).expect("a worker that runs")
    }

    /// Lines in the logs of all workers that contain each of these words.
    pub fn count_in_logs(&self, words: &[&str]) -> Vec<usize> {
        let logs: Vec<String> = (0..self.started)
            .map(|number| std::fs::read(self.log_of(number)).unwrap_or_default())
            .map(|log| String::from_utf8_lossy(&log).into_owned())
            .collect();
        let count =
            |word: &&str| logs.iter().flat_map(|log| log.lines()).filter(|l| l.contains(*word)).count();
        words.iter().map(count).collect()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for worker in &mut self.all {
            let _ = worker.child.kill();
            let _ = worker.child.wait();
            reaper::ended(worker.child.id());
        }
    }
}

/// What readings cost a worker. Some work takes long at each reading. Others have no work at all, as with most workers
/// in production: a quarter of those after the first, so that their place is not predictable.
fn work(number: usize, slot: usize, drags: i32) -> Vec<String> {
    let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    if number > 0 && number.is_multiple_of(4) {
        return Vec::new();
    }
    let mut arguments = match slot % 3 {
        0 => Vec::new(),
        1 => text(&["--work", "1ms"]),
        // One generator at a time, beside the slow one.
        _ => text(&["--work", "2ms", "--concurrency", "2"]),
    };
    let slow = [(fleet::SLOW.to_owned(), fleet::SLOW_WORK)];
    let drags = (0..drags).map(|partition| (fleet::drag(partition), fleet::DRAG_WORK));
    for (generator, work) in slow.into_iter().chain(drags) {
        arguments.extend(["--work-of".to_owned(), format!("{generator}={}s", work.as_secs())]);
    }
    arguments
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (_, Some(signal)) => format!("signal {signal}"),
        _ => status.to_string(),
    }
}
