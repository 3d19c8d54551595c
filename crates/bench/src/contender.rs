//! A program under test: a separate process, from start to exit.
//!
//! All take `--brokers --topic --group --work-ms --count` (see `bench/peers`), exit once they have processed and
//! committed that many records, and print one JSON line; genwatch's worker takes its own options and prints its
//! summary. All find the cluster's client properties (`-X`) in `GENWATCH_X`, one librdkafka property a line.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use wait4::{ResUse, Wait4 as _};

use super::scratch_topics::ScratchTopics;
use super::{BenchError, go_on};

/// How many lines of its stderr are kept.
const LAST_WORDS: usize = 200;

/// A program and its fixed arguments.
#[derive(Clone, Debug)]
pub struct Contender {
    /// Its name in tables.
    pub name: String,
    command: Vec<OsString>,
    /// An environment variable that other users of the machine must not see.
    secret: Option<(&'static str, Secret)>,
    kind: Kind,
}

/// A secret. Not shown by `Debug`.
#[derive(Clone)]
struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The kind of its command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// genwatch's worker.
    Worker,
    /// genwatch's simulator.
    Simulator,
    /// genwatch's sink.
    Sink,
    /// The one common to all peers.
    Peer,
}

/// What it is to do.
#[derive(Clone, Debug)]
pub struct ContenderJob {
    /// Work per reading.
    pub work: Duration,
    /// End when this many records are processed and committed; `None`: when asked to.
    pub count: Option<u64>,
}

/// What it reports at its end.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ContenderResult {
    /// Records processed and committed, or produced and acknowledged.
    #[serde(alias = "delivered")]
    pub records: u64,
    /// From the first record received to the last commit, or from the first sent to the last acknowledged.
    pub seconds: f64,
    /// Alert events committed; `None` from a program that makes none.
    pub alerts: Option<u64>,
}

/// How it ended.
#[derive(Clone, Debug)]
pub struct ContenderExit {
    /// What it reported.
    pub told: ContenderResult,
    /// Time from its start to its exit.
    pub wall: Duration,
    /// Total CPU time, from its start to its exit.
    pub cpu: Duration,
    /// Peak resident memory, in bytes.
    pub peak_memory: u64,
}

impl FromStr for Contender {
    type Err = String;

    /// Parses `NAME=COMMAND`, the command's words separated by spaces.
    fn from_str(text: &str) -> Result<Contender, String> {
        let (name, command) = text.split_once('=').ok_or("expected NAME=COMMAND")?;
        let command: Vec<OsString> = command.split_whitespace().map(OsString::from).collect();
        if name.is_empty() || command.is_empty() {
            return Err("expected NAME=COMMAND".to_owned());
        }
        Ok(Contender { name: name.to_owned(), command, secret: None, kind: Kind::Peer })
    }
}

/// genwatch without its allocator; `cargo build --release` makes both.
const BARE: &str = "genwatch-bare";

impl Contender {
    /// genwatch's worker, with these options.
    ///
    /// # Errors
    /// When this program's own file can't be found.
    pub fn worker(name: &str, options: &[String]) -> std::io::Result<Contender> {
        let mut command = vec![std::env::current_exe()?.into_os_string(), "worker".into()];
        command.extend(options.iter().map(OsString::from));
        Ok(Contender { name: name.to_owned(), command, secret: None, kind: Kind::Worker })
    }

    /// genwatch's simulator, at full speed.
    ///
    /// # Errors
    /// As [`Contender::worker`].
    pub fn simulator(generators: u32, seed: u64) -> std::io::Result<Contender> {
        let mut command = vec![std::env::current_exe()?.into_os_string()];
        let (generators, seed) = (generators.to_string(), seed.to_string());
        let options = ["simulate", "--rate", "0", "--generators", &generators, "--seed", &seed];
        command.extend(options.map(OsString::from));
        Ok(Contender { name: "genwatch simulate".to_owned(), command, secret: None, kind: Kind::Simulator })
    }

    /// genwatch's sink, with these options and a token.
    ///
    /// # Errors
    /// As [`Contender::worker`].
    pub fn sink(options: &[OsString], token: &str) -> std::io::Result<Contender> {
        let mut command = vec![std::env::current_exe()?.into_os_string(), "sink".into(), "influx".into()];
        command.extend(options.iter().cloned());
        let secret = Some(("GENWATCH_TOKEN", Secret(token.to_owned())));
        Ok(Contender { name: "genwatch sink influx".to_owned(), command, secret, kind: Kind::Sink })
    }

    /// Returns the same contender with these options added.
    #[must_use]
    pub fn with(&self, options: &[&str]) -> Contender {
        let mut contender = self.clone();
        contender.command.extend(options.iter().map(OsString::from));
        contender
    }

    /// A bare loop of rust-rdkafka: see [`super::bare`]. Its program has no allocator of genwatch's: see
    /// `src/bin/genwatch-bare.rs`.
    ///
    /// # Errors
    /// As [`Contender::worker`].
    pub fn bare(name: &str, options: &[&str]) -> std::io::Result<Contender> {
        let own = std::env::current_exe()?;
        let mut program = own.with_file_name(BARE).with_extension(std::env::consts::EXE_EXTENSION);
        if !program.is_file() {
            tracing::warn!(
                "there is no {BARE} beside {}: {name} gets genwatch's allocator, and is faster than such a loop is",
                own.display()
            );
            program = own;
        }
        let mut command = vec![program.into_os_string(), "bench".into(), "bare".into()];
        command.extend(options.iter().map(OsString::from));
        Ok(Contender { name: name.to_owned(), command, secret: None, kind: Kind::Peer })
    }

    /// Starts it.
    ///
    /// # Errors
    /// When there is no such program.
    pub fn start(
        &self,
        arena: &ScratchTopics,
        group: &str,
        job: &ContenderJob,
    ) -> Result<Running, BenchError> {
        let mut command = Command::new(&self.command[0]);
        // The user's own variables would change what is measured.
        for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("GENWATCH_"))
        {
            command.env_remove(key);
        }
        command.args(&self.command[1..]);
        command.args(["--brokers", arena.connection.brokers(), "--topic", &arena.topic]);
        let count = || job.count.iter().flat_map(|count| ["--count".to_owned(), count.to_string()]);
        match self.kind {
            Kind::Worker => {
                command.args(["--group", group, "--work", &format!("{}us", job.work.as_micros())]);
                command.args(job.count.map(|_| "--exit-at-end"));
            }
            Kind::Simulator => {
                command.args(count());
            }
            Kind::Sink => {
                command.args(["--group", group, "--exit-at-end"]);
            }
            Kind::Peer => {
                command.args(["--group", group, "--work-ms", &job.work.as_millis().to_string()]);
                command.args(count());
            }
        }
        // Not as arguments, which every user of the machine can see: they may contain a password.
        let properties: Vec<String> =
            arena.connection.properties().map(|(key, value)| format!("{key}={value}")).collect();
        command.env("GENWATCH_X", properties.join("\n"));
        if let Some((name, Secret(value))) = &self.secret {
            command.env(name, value);
        }
        // Its last log lines are shown if it fails.
        command.env("RUST_LOG", "info").env("GENWATCH_LOG_FORMAT", "text");
        // Its own process group, so that Ctrl-C reaches only us: we end it.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running::start(&self.name, command)
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// When it fails, or when stopped.
    pub fn run(
        &self,
        arena: &ScratchTopics,
        group: &str,
        job: &ContenderJob,
        stop: &AtomicBool,
    ) -> Result<ContenderExit, BenchError> {
        self.start(arena, group, job)?.wait(stop)
    }
}

/// A running program. Killed when dropped.
#[derive(Debug)]
pub struct Running {
    name: String,
    pid: Option<Pid>,
    begun: Instant,
    said: Arc<Mutex<VecDeque<String>>>,
    stdout: Option<JoinHandle<String>>,
    exit: Receiver<std::io::Result<ResUse>>,
}

impl Running {
    fn start(name: &str, mut command: Command) -> Result<Running, BenchError> {
        let failed =
            |what: String| BenchError::Contender { name: name.to_owned(), what, said: String::new() };
        let begun = Instant::now();
        let mut child = command.spawn().map_err(|error| failed(format!("can't be started: {error}")))?;
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(0));
        let said = Arc::<Mutex<VecDeque<_>>>::default();
        if let Some(stderr) = child.stderr.take() {
            let said = Arc::clone(&said);
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
                    if said.len() == LAST_WORDS {
                        said.pop_front();
                    }
                    said.push_back(line);
                }
            });
        }
        let stdout = child.stdout.take().map(|mut stdout| {
            std::thread::spawn(move || {
                let mut text = String::new();
                // Output that isn't text is no result; the reader of the result reports it.
                let _ = stdout.read_to_string(&mut text);
                text
            })
        });
        let (outgoing, exit) = crossbeam_channel::bounded(1);
        std::thread::spawn(move || outgoing.send(child.wait4()));
        Ok(Running { name: name.to_owned(), pid, begun, said, stdout, exit })
    }

    /// When it was started.
    #[must_use]
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// Whether it has ended by itself.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        !self.exit.is_empty()
    }

    /// Asks it to end in an orderly way.
    pub fn ask_to_end(&self) {
        self.signal(Signal::TERM);
    }

    /// Kills it, as a crash would.
    pub fn kill(self) {
        drop(self);
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Errors
    /// As [`Running::wait`].
    pub fn stop(self, stop: &AtomicBool) -> Result<ContenderExit, BenchError> {
        self.ask_to_end();
        self.wait(stop)
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// When it fails, or when stopped.
    pub fn wait(mut self, stop: &AtomicBool) -> Result<ContenderExit, BenchError> {
        let mut peak_memory = 0;
        let exit = loop {
            peak_memory = peak_memory.max(self.peak_memory());
            match self.exit.recv_timeout(Duration::from_millis(20)) {
                Ok(exit) => break exit,
                Err(RecvTimeoutError::Timeout) => go_on(stop)?,
                Err(RecvTimeoutError::Disconnected) => return Err(self.failed("was lost".to_owned())),
            }
        };
        self.pid = None;
        let wall = self.begun.elapsed();
        let used = exit.map_err(|error| self.failed(format!("cannot wait for it: {error}")))?;
        let stdout = self.stdout.take().and_then(|reader| reader.join().ok()).unwrap_or_default();
        if !used.status.success() {
            return Err(self.failed(format!("failed, {}", used.status)));
        }
        let told = stdout.lines().rev().find_map(|line| serde_json::from_str(line).ok());
        let told = told.ok_or_else(|| self.failed(format!("printed no result but {stdout:?}")))?;
        let usage = used.rusage;
        Ok(ContenderExit { told, wall, cpu: usage.utime + usage.stime, peak_memory })
    }

    /// Returns its peak resident memory. Not from `wait4`, which also counts what it inherited from us before its exec.
    fn peak_memory(&self) -> u64 {
        let pid = self.pid.map_or(0, |pid| pid.as_raw_nonzero().get());
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kib.unwrap_or(0) << 10
    }

    fn signal(&self, signal: Signal) {
        // Its waiter hasn't reaped it while the channel is empty, so the id is still its own.
        if let Some(pid) = self.pid.filter(|_| self.exit.is_empty()) {
            let _ = kill_process(pid, signal);
        }
    }

    pub(super) fn failed(&self, what: String) -> BenchError {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let last: Vec<&str> = said.iter().rev().take(12).map(String::as_str).collect();
        let said = last.into_iter().rev().collect::<Vec<_>>().join("\n");
        BenchError::Contender { name: self.name.clone(), what, said }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.pid.is_some() {
            self.signal(Signal::KILL);
            let _ = self.exit.recv_timeout(Duration::from_secs(5));
        }
    }
}
