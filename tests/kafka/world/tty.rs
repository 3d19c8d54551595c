//! A `genwatch` process on a terminal: a pseudo-terminal, whose keys are typed and whose output is read here.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use super::World;
use super::waiting::until_some;
use crate::signal::{self, Signal};

/// A process and its terminal. Killed when dropped.
pub struct Tty {
    child: Child,
    /// The other end of the terminal, until it is hung up.
    keys: Option<File>,
    reader: Option<JoinHandle<()>>,
    hung_up: Arc<AtomicBool>,
    /// Kept open, so that its settings outlive the process.
    terminal: OwnedFd,
    text: Arc<Mutex<Vec<u8>>>,
}

impl Tty {
    /// Starts `genwatch COMMAND` in this world, on a terminal of 100 columns and 30 rows.
    pub fn start(world: &World, command: &str, arguments: &[&str]) -> Tty {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .expect("a pseudo-terminal");
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap();
        let terminal =
            rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let size = Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&terminal, size).unwrap();
        let end = || Stdio::from(terminal.try_clone().unwrap());
        let mut process = Command::new(env!("CARGO_BIN_EXE_genwatch"));
        process.arg(command).args([
            "--brokers",
            &world.brokers,
            "--topic",
            &world.topic,
            "--group",
            &world.group,
        ]);
        process.args(arguments).stdin(end()).stdout(end()).stderr(end());
        for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("GENWATCH_") || key == "RUST_LOG")
        {
            process.env_remove(key);
        }
        let child = process.env("TERM", "xterm").env_remove("NO_COLOR").spawn().expect("the binary starts");
        let mut output = File::from(ours);
        rustix::fs::fcntl_setfl(&output, OFlags::NONBLOCK).unwrap();
        let keys = Some(output.try_clone().unwrap());
        let (text, hung_up) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (into, ended) = (Arc::clone(&text), Arc::clone(&hung_up));
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !ended.load(Ordering::Relaxed) {
                match output.read(&mut buffer) {
                    Ok(read @ 1..) => into.lock().unwrap().extend_from_slice(&buffer[..read]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    _ => return,
                }
            }
        });
        Tty { child, keys, reader: Some(reader), hung_up, terminal, text }
    }

    /// All that it has written so far, escape sequences included.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().unwrap()).into_owned()
    }

    /// Whether the terminal itself edits lines, as for a shell.
    pub fn edits_lines(&self) -> bool {
        tcgetattr(&self.terminal).unwrap().local_modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    }

    /// Types.
    pub fn press(&mut self, keys: &str) {
        self.keys.as_mut().expect("a terminal").write_all(keys.as_bytes()).unwrap();
    }

    /// Closes the terminal, as the window of a terminal emulator that is killed. Nobody sends SIGHUP.
    pub fn hang_up(&mut self) {
        self.keys = None;
        self.hung_up.store(true, Ordering::Relaxed);
        self.reader.take().expect("a reader").join().expect("no panic");
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        signal::send(&self.child, Signal::TERM);
    }

    /// Waits for its end; returns the exit code.
    #[track_caller]
    pub fn wait(&mut self) -> Option<i32> {
        until_some("it ends", || self.child.try_wait().expect("a child")).code()
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
