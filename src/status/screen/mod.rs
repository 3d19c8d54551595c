//! `genwatch status --watch` on a terminal: what is known of the group, every second, and keys to look at it.
//!
//! * [`state`]: what the user has chosen, by key. [`columns`]: the table's columns, and which of them fit.
//! * [`draw`]: one frame. [`chart`]: one generator's history. [`theme`]: colours.
//! * [`terminal`]: the alternate screen, which is left however the process ends.
//!
//! Only this file and [`terminal`] do anything; the others are pure.

pub mod chart;
pub mod columns;
pub mod draw;
pub mod state;
pub mod terminal;
pub mod theme;

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use genwatch_core::alarm::rules::Rules;
use genwatch_kafka::clock;
use genwatch_kafka::error::Chain;
use genwatch_kafka::group::GroupError;
use ratatui::crossterm::event::{self, Event};

use self::draw::View;
use self::state::{Action, State};
use self::terminal::Terminal;
use super::document::Status;
use super::follower::follow;
use super::history::History;
use super::observer::{Subject, watch};
use theme::Theme;

/// How soon a key, news or a signal is noticed.
const TURN: Duration = Duration::from_millis(100);
/// How soon a closed terminal is noticed.
const HUNG_UP_AFTER: Duration = Duration::from_millis(500);
/// Turns between two frames without news: times pass by.
const IDLE_TURNS: u32 = 10;

/// What the threads that ask Kafka say.
enum News {
    Status(Box<Status>),
    /// A look failed; there will be others.
    Trouble(GroupError),
    /// There will be none.
    Ended(GroupError),
    /// Of the history with this number.
    History(u64, Result<Box<History>, String>),
}

/// Shows the group until the user quits or `stop` is set.
///
/// # Errors
/// When the terminal is gone, or Kafka doesn't answer at the start.
pub fn run(subject: &Subject, rules: &Rules, colours: bool, stop: &AtomicBool) -> anyhow::Result<()> {
    let (sender, news) = channel();
    observe(subject, sender.clone())?;
    let mut terminal = Terminal::enter()?;
    end_with_the_terminal()?;
    let mut app = App {
        subject,
        sender,
        state: State::default(),
        view: View::new(subject.connection.brokers(), rules, Theme { colours }),
        followed: 0,
        follower: None,
    };
    let mut idle = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut changed = app.take(&news)?;
        if idle >= IDLE_TURNS || changed {
            app.view.now = clock::now();
            terminal.draw(|frame| draw::draw(frame, &mut app.state, &app.view))?;
            idle = 0;
        }
        changed = false;
        let mut wait = TURN;
        while event::poll(wait)? {
            changed = true;
            wait = Duration::ZERO;
            if let Event::Key(key) = event::read()? {
                match app.state.key(key) {
                    Action::Nothing => {}
                    Action::Quit => return Ok(()),
                    Action::Follow(generator) => app.follow(generator)?,
                    Action::Unfollow => app.unfollow(),
                }
            }
        }
        idle = if changed { IDLE_TURNS } else { idle + 1 };
    }
    Ok(())
}

/// Ends the process when its terminal is closed, and nobody sends SIGHUP. The loop can't: crossterm (0.29) reads a
/// terminal that was hung up forever.
fn end_with_the_terminal() -> std::io::Result<()> {
    std::thread::Builder::new().name("terminal".to_owned()).spawn(|| {
        while std::io::stdout().is_terminal() {
            std::thread::sleep(HUNG_UP_AFTER);
        }
        std::process::exit(0);
    })?;
    Ok(())
}

/// Asks Kafka on a thread of its own: a request may take ten seconds while Kafka is away. The thread ends with the
/// process, or when nobody listens.
fn observe(subject: &Subject, sender: Sender<News>) -> std::io::Result<()> {
    let subject = subject.clone();
    std::thread::Builder::new().name("looks".to_owned()).spawn(move || {
        let ended = watch(&subject, |look| {
            let news = look.map_or_else(News::Trouble, |status| News::Status(Box::new(status)));
            sender.send(news).is_ok()
        });
        if let Err(error) = ended {
            let _ = sender.send(News::Ended(error));
        }
    })?;
    Ok(())
}

/// What the screen knows, and who asks for it.
struct App<'a> {
    subject: &'a Subject,
    sender: Sender<News>,
    state: State,
    view: View<'a>,
    /// The number of the last history that was asked for.
    followed: u64,
    /// Ends the thread that reads it.
    follower: Option<Arc<AtomicBool>>,
}

impl App<'_> {
    /// Takes in the news; returns whether there are any.
    fn take(&mut self, news: &Receiver<News>) -> anyhow::Result<bool> {
        let mut changed = false;
        while let Ok(news) = news.try_recv() {
            changed = true;
            match news {
                News::Status(status) => {
                    self.view.status = Some(*status);
                    self.view.trouble = None;
                }
                // The first look shows whether there is anything to look at.
                News::Trouble(error) | News::Ended(error) if self.view.status.is_none() => {
                    return Err(error.into());
                }
                News::Trouble(error) | News::Ended(error) => {
                    self.view.trouble = Some(Chain(&error).to_string());
                }
                News::History(number, history) if number == self.followed => {
                    self.view.history = Some(history.map(|history| *history));
                }
                News::History(..) => {}
            }
        }
        Ok(changed)
    }

    fn follow(&mut self, generator: String) -> std::io::Result<()> {
        self.unfollow();
        self.followed += 1;
        let number = self.followed;
        let ended = Arc::new(AtomicBool::new(false));
        self.follower = Some(Arc::clone(&ended));
        let (subject, sender) = (self.subject.clone(), self.sender.clone());
        std::thread::Builder::new().name("history".to_owned()).spawn(move || {
            let followed = follow(&subject, &generator, |history| {
                !ended.load(Ordering::Relaxed)
                    && sender.send(News::History(number, Ok(Box::new(history.clone())))).is_ok()
            });
            if let Err(error) = followed {
                let _ = sender.send(News::History(number, Err(Chain(&error).to_string())));
            }
        })?;
        Ok(())
    }

    fn unfollow(&mut self) {
        self.view.history = None;
        if let Some(ended) = self.follower.take() {
            ended.store(true, Ordering::Relaxed);
        }
    }
}
