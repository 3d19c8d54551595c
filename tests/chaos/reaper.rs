//! No process outlives a run, however it ends.
//!
//! A test binary has no exit hook, and may be killed. So a child in its own session reads from us which processes run;
//! its input ends when we end. Then it ends the remaining ones, each by its id, and the cluster. SIGINT and SIGTERM end
//! us through [`check`], and so in the same way.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

const SCRIPT: &str = r#"
while read -r word pid; do
    case $word in
        began) all="$all $pid" ;;
        ended) left=; for one in $all; do [ "$one" = "$pid" ] || left="$left $one"; done; all=$left ;;
    esac
done
for pid in $all; do kill -KILL "$pid" 2>/dev/null; done
exec "$0" stop --dir "$1"
"#;

static INPUT: Mutex<Option<ChildStdin>> = Mutex::new(None);

/// Ends everything when dropped, and waits for it.
pub struct Reaper(Child);

impl Reaper {
    /// Creates one for a cluster in this folder.
    pub fn start(kafka: &Path, dir: &Path) -> Reaper {
        let mut child = Command::new("setsid")
            .args(["sh", "-c", SCRIPT])
            .args([kafka, dir])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh runs");
        *INPUT.lock().unwrap() = child.stdin.take();
        Reaper(child)
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        *INPUT.lock().unwrap() = None;
        let _ = self.0.wait();
    }
}

/// A process has begun.
pub fn began(id: u32) {
    tell("began", id);
}

/// A process has ended, and has been waited for.
pub fn ended(id: u32) {
    tell("ended", id);
}

fn tell(word: &str, id: u32) {
    if let Some(input) = INPUT.lock().unwrap().as_mut() {
        writeln!(input, "{word} {id}").expect("the reaper reads");
    }
}

/// Ends the run if it has been interrupted: by a panic, so that everything is cleaned up on the way.
pub fn check() {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    let flag = FLAG.get_or_init(|| {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP]
        {
            signal_hook::flag::register(signal, Arc::clone(&flag)).expect("a signal handler");
        }
        flag
    });
    assert!(!flag.load(Ordering::Relaxed), "interrupted");
}

/// Sleeps this long, unless interrupted.
pub fn pause(duration: Duration) {
    let end = Instant::now() + duration;
    loop {
        check();
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
}
