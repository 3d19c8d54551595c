//! stderr, where log lines go. Drops and counts a line that can't be written: a full disk or a gone reader must not
//! stop alerting. While a picture is on the terminal, lines wait.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

static DROPPED: AtomicU64 = AtomicU64::new(0);
/// Set when the last line was written in part: the next one begins on a line of its own.
static TORN: AtomicBool = AtomicBool::new(false);

/// The lines that wait, the last ones; `None` if none has to.
static HELD: Mutex<Option<VecDeque<Vec<u8>>>> = Mutex::new(None);
const HELD_MAX: usize = 50;

/// Lets lines wait until [`release`].
pub fn hold() {
    HELD.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default();
}

/// Writes the last lines that wait, and all others again.
pub fn release() {
    let held = HELD.lock().unwrap_or_else(PoisonError::into_inner).take();
    for line in held.into_iter().flatten() {
        // `Lines` never fails.
        let _ = Lines.write_all(&line);
    }
}

/// Whether the line waits now.
fn holds(line: &[u8]) -> bool {
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(held) = held.as_mut() else { return false };
    if held.len() == HELD_MAX {
        held.pop_front();
    }
    held.push_back(line.to_vec());
    true
}

/// Returns the lines that could not be written since the process started.
#[must_use]
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Writes one line, or drops it.
pub fn say(line: fmt::Arguments<'_>) {
    // `Lines` never fails.
    let _ = Lines.write_all(format!("{line}\n").as_bytes());
}

/// A writer of whole lines that never fails.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lines;

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if !holds(line) {
            write_or_drop(&mut io::stderr().lock(), line, &TORN, &DROPPED);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_or_drop(out: &mut impl Write, line: &[u8], torn: &AtomicBool, dropped: &AtomicU64) {
    if torn.load(Ordering::Relaxed) && out.write_all(b"\n").is_ok() {
        torn.store(false, Ordering::Relaxed);
    }
    let mut rest = line;
    while !rest.is_empty() {
        match out.write(rest) {
            Ok(written) if written > 0 => rest = &rest[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => {
                dropped.fetch_add(1, Ordering::Relaxed);
                if rest.len() < line.len() {
                    torn.store(true, Ordering::Relaxed);
                }
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with `left` free bytes.
    struct Disk {
        left: usize,
        text: Vec<u8>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.left);
            if taken == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.left -= taken;
            self.text.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_full_disk_does_not_take_is_dropped_and_the_next_line_is_whole() {
        let mut disk = Disk { left: 9, text: Vec::new() };
        let (torn, dropped) = (AtomicBool::new(false), AtomicU64::new(0));
        for line in ["first\n", "second\n", "third\n"] {
            write_or_drop(&mut disk, line.as_bytes(), &torn, &dropped);
        }
        assert_eq!(dropped.load(Ordering::Relaxed), 2);
        disk.left = 100;
        write_or_drop(&mut disk, b"fourth\n", &torn, &dropped);
        write_or_drop(&mut disk, b"fifth\n", &torn, &dropped);
        assert_eq!(String::from_utf8_lossy(&disk.text), "first\nsec\nfourth\nfifth\n");
        assert_eq!(dropped.load(Ordering::Relaxed), 2);
    }
}
