//! A `genwatch` process: started as a user starts it, its output captured, ended by its own id.

use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{PATIENCE, until, until_some};
use crate::signal::{self, Signal};

/// A child process. Killed when dropped.
pub struct Process {
    name: String,
    child: Child,
    stdout: Captured,
    stderr: Captured,
    started: Instant,
}

/// How a process ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit code; `None` after a signal.
    pub code: Option<i32>,
    /// All of it.
    pub stdout: String,
    /// All of it.
    pub stderr: String,
    /// From its start to its end.
    pub took: Duration,
}

impl Process {
    /// Starts the binary under test.
    pub fn start(name: &str, arguments: &[&str]) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_genwatch"));
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // The caller's settings for his own cluster are not for these processes.
        for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("GENWATCH_") || key == "RUST_LOG")
        {
            command.env_remove(key);
        }
        // To find the cause of a failure: GENWATCH_TEST_LOG=debug.
        if let Ok(level) = std::env::var("GENWATCH_TEST_LOG") {
            command.env("RUST_LOG", level);
        }
        let mut child = command.spawn().expect("the binary starts");
        let stdout = Captured::of(child.stdout.take().unwrap());
        let stderr = Captured::of(child.stderr.take().unwrap());
        Process { name: name.to_owned(), child, stdout, stderr, started: Instant::now() }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal, such as `TERM`.
    pub fn signal(&self, signal: &str) {
        let signal = match signal {
            "TERM" => Signal::TERM,
            "INT" => Signal::INT,
            "HUP" => Signal::HUP,
            "QUIT" => Signal::QUIT,
            "STOP" => Signal::STOP,
            "CONT" => Signal::CONT,
            _ => panic!("no test sends {signal}"),
        };
        signal::send(&self.child, signal);
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }

    /// SIGTERM, and waits for the end, which must be an orderly one.
    pub fn stop(self) -> Ended {
        self.signal("TERM");
        self.wait().success()
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Ended {
        let deadline = Instant::now() + 2 * PATIENCE;
        let status: ExitStatus = loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                break status;
            }
            assert!(Instant::now() < deadline, "{} does not end; its stderr:\n{}", self.name, self.stderr());
            std::thread::sleep(Duration::from_millis(10));
        };
        let took = self.started.elapsed();
        let ended =
            Ended { code: status.code(), stdout: self.stdout.finish(), stderr: self.stderr.finish(), took };
        assert_ne!(status.signal(), Some(11), "{} crashed: {ended:#?}", self.name);
        ended
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    /// Its stderr so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Its stdout so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Waits until its log contains this.
    #[track_caller]
    pub fn wait_until_it_says(&self, words: &str) {
        until(&format!("{} says '{words}'", self.name), || self.stderr().contains(words));
    }

    /// Waits until the group has given it at least one partition.
    #[track_caller]
    pub fn wait_until_assigned(&self) {
        until("the worker has partitions", || !self.assignments().iter().all(String::is_empty));
    }

    /// The partitions of each assignment that it has logged, oldest first, such as `0-2, 5`.
    pub fn assignments(&self) -> Vec<String> {
        self.rebalances("assigned=\"")
    }

    /// The partitions of each revocation that it has logged, oldest first.
    pub fn revocations(&self) -> Vec<String> {
        self.rebalances("revoked=\"")
    }

    fn rebalances(&self, field: &str) -> Vec<String> {
        let text = self.stderr();
        let values = text.lines().filter_map(|line| line.split_once(field)?.1.split('"').next());
        values.map(str::to_owned).collect()
    }

    /// Its HTTP address.
    pub fn http(&self) -> String {
        until_some("the worker serves HTTP", || {
            let text = self.stderr();
            Some(text.split_once("address=")?.1.split_whitespace().next()?.to_owned())
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- stderr of {} (pid {}):\n{}", self.name, self.id(), self.stderr());
        }
    }
}

impl Ended {
    /// Fails the test unless the exit code is 0.
    #[track_caller]
    pub fn success(self) -> Ended {
        self.exited(0)
    }

    /// Fails the test unless this is the exit code.
    #[track_caller]
    pub fn exited(self, code: i32) -> Ended {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// The one JSON document that it has printed.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {self:#?}"))
    }

    /// A number of the JSON document that it has printed.
    #[track_caller]
    pub fn number(&self, name: &str) -> u64 {
        self.json()[name].as_u64().unwrap_or_else(|| panic!("no {name} in {self:#?}"))
    }

    /// Fails the test unless it ended with this code after one line of plain text that contains these words.
    #[track_caller]
    pub fn refused(self, code: i32, words: &[&str]) -> Ended {
        let ended = self.exited(code);
        assert!(ended.took < PATIENCE, "it took {:?}: {}", ended.took, ended.stderr);
        let said: Vec<&str> = ended.stderr.lines().filter(|line| line.starts_with("genwatch: ")).collect();
        assert_eq!(said.len(), 1, "one clear line, not:\n{}", ended.stderr);
        for words in words {
            assert!(said[0].contains(words), "'{words}' is not in: {}", said[0]);
        }
        for noise in ["panicked", "stack backtrace", "RUST_BACKTRACE"] {
            assert!(!ended.stderr.contains(noise), "{}", ended.stderr);
        }
        ended
    }
}

/// Output of a process, read by a thread as it comes.
struct Captured {
    text: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Captured {
    fn of(source: impl Read + Send + 'static) -> Captured {
        let text = Arc::new(Mutex::new(String::new()));
        let into = Arc::clone(&text);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(source).split(b'\n').map_while(Result::ok) {
                let mut text = into.lock().unwrap();
                text.push_str(&String::from_utf8_lossy(&line));
                text.push('\n');
            }
        });
        Captured { text, reader: Some(reader) }
    }

    fn text(&self) -> String {
        self.text.lock().unwrap().clone()
    }

    fn finish(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reader of the output");
        }
        self.text()
    }
}
