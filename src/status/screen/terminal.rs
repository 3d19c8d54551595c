//! The alternate screen. It is left however the process ends: at the end of a scope, by an error, by a panic on any
//! thread. While it is there, log lines wait: they would tear the picture apart.

use std::io::{self, IsTerminal as _, Stdout, stdout};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui::Frame;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};

use crate::service::stderr;

static IS_THERE: AtomicBool = AtomicBool::new(false);

/// The screen; left when dropped.
pub struct Terminal(ratatui::Terminal<CrosstermBackend<Stdout>>);

impl Terminal {
    /// Enters it.
    ///
    /// # Errors
    /// When stdout is no terminal, or there is none to read keys from.
    pub fn enter() -> io::Result<Terminal> {
        static AT_A_PANIC: Once = Once::new();
        AT_A_PANIC.call_once(|| {
            let report = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                leave();
                report(panic);
            }));
        });
        enable_raw_mode()?;
        IS_THERE.store(true, Ordering::SeqCst);
        if io::stderr().is_terminal() {
            stderr::hold();
        }
        let entered = execute!(stdout(), EnterAlternateScreen, Hide)
            .and_then(|()| ratatui::Terminal::new(CrosstermBackend::new(stdout())));
        entered.map(Terminal).inspect_err(|_| leave())
    }

    /// Draws a frame.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn draw(&mut self, frame: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.0.draw(frame).map(drop)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        leave();
    }
}

/// Whether there is a terminal to draw on and to read keys from.
#[must_use]
pub fn is_there() -> bool {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    stdout().is_terminal() && !dumb
}

/// Leaves the screen, once. What fails here fails because the terminal is gone.
fn leave() {
    if IS_THERE.swap(false, Ordering::SeqCst) {
        let _ = execute!(stdout(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
        stderr::release();
    }
}
