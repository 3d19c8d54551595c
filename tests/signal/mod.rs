//! Signals to child processes, by system call: a machine may have no `kill`.

use std::process::Child;

pub use rustix::process::Signal;

/// Sends a signal to a child that has not been reaped, so that its id can't belong to another process.
#[track_caller]
pub fn send(child: &Child, signal: Signal) {
    let id = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(id, signal)
        .unwrap_or_else(|error| panic!("{signal:?} to process {}: {error}", child.id()));
}
