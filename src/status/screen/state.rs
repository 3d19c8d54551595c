//! What the user has chosen: order, filter, what is open. Keys change it.

use std::cmp::Ordering;

use genwatch_core::lag::{Eta, Verdict};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::status::document::{PartitionStatus, Phase, Status};

/// The longest text that can be typed: longer than any generator's id.
const TEXT_MAX: usize = 300;
const PAGE: usize = 10;

/// The choices.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The order of partitions.
    pub sort: Sort,
    /// The other way round.
    pub reversed: bool,
    /// Only partitions whose number, topic, owner, phase or verdict contain this, in either case.
    pub filter: String,
    /// Only partitions with a problem.
    pub problems: bool,
    /// What the keys are for.
    pub mode: Mode,
    /// Rows that are scrolled out of view.
    pub scroll: usize,
}

/// What the keys are for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The table.
    #[default]
    Table,
    /// The filter is typed; it was this before.
    Filter(String),
    /// The id of a generator is typed.
    Generator(String),
    /// A generator's history.
    History(String),
    /// The help.
    Help,
}

/// The order of partitions. Numbers: the largest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// By topic and number.
    #[default]
    Partition,
    /// By owner; what has none comes first.
    Owner,
    /// By lag.
    Lag,
    /// By the age of the oldest waiting record.
    TimeLag,
    /// By records a second.
    Rate,
    /// By the time until the lag is gone.
    Eta,
    /// By verdict, the worst first.
    Verdict,
}

/// What a key asks for beyond the choices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Nothing,
    /// End.
    Quit,
    /// Read this generator's history.
    Follow(String),
    /// Read it no longer.
    Unfollow,
}

impl Sort {
    fn next(self) -> Sort {
        match self {
            Sort::Partition => Sort::Owner,
            Sort::Owner => Sort::Lag,
            Sort::Lag => Sort::TimeLag,
            Sort::TimeLag => Sort::Rate,
            Sort::Rate => Sort::Eta,
            Sort::Eta => Sort::Verdict,
            Sort::Verdict => Sort::Partition,
        }
    }

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Sort::Partition => "partition",
            Sort::Owner => "owner",
            Sort::Lag => "lag",
            Sort::TimeLag => "time lag",
            Sort::Rate => "rate",
            Sort::Eta => "ETA",
            Sort::Verdict => "verdict",
        }
    }

    fn order(self, a: &PartitionStatus, b: &PartitionStatus) -> Ordering {
        match self {
            Sort::Partition => Ordering::Equal,
            Sort::Owner => a.owner.cmp(&b.owner),
            Sort::Lag => b.lag.cmp(&a.lag),
            Sort::TimeLag => b.time_lag_ms.cmp(&a.time_lag_ms),
            Sort::Rate => rate(b).total_cmp(&rate(a)),
            Sort::Eta => eta(b).total_cmp(&eta(a)),
            Sort::Verdict => b.verdict.cmp(&a.verdict),
        }
    }
}

fn rate(of: &PartitionStatus) -> f64 {
    of.movement.as_ref().and_then(|movement| movement.processed).unwrap_or(-1.0)
}

fn eta(of: &PartitionStatus) -> f64 {
    match of.movement.as_ref().and_then(|movement| movement.gone.0) {
        None => -1.0,
        Some(Eta::Now) => 0.0,
        Some(Eta::Seconds(seconds)) => seconds,
        Some(Eta::Never) => f64::INFINITY,
    }
}

/// Whether somebody should look at it.
fn is_problem(of: &PartitionStatus) -> bool {
    let movement = of.movement.as_ref();
    let phase = movement.and_then(|movement| movement.phase);
    of.verdict != Verdict::Ok
        || movement.is_some_and(|movement| movement.gone.0 == Some(Eta::Never))
        || !matches!(phase, None | Some(Phase::Active))
}

impl State {
    /// Returns the partitions to show, in order.
    #[must_use]
    pub fn rows<'s>(&self, status: &'s Status) -> Vec<(&'s str, &'s PartitionStatus)> {
        let wanted = self.filter.to_lowercase();
        let contains = |text: &str| text.to_lowercase().contains(&wanted);
        let matches = |topic: &str, of: &PartitionStatus| {
            let phase = of.movement.as_ref().and_then(|movement| movement.phase);
            wanted.is_empty()
                || contains(&of.partition.to_string())
                || contains(topic)
                || of.owner.as_deref().is_some_and(contains)
                || contains(of.verdict.as_str())
                || phase.is_some_and(|phase| contains(phase.as_str()))
        };
        let mut rows: Vec<_> = status
            .partitions()
            .filter(|(topic, of)| matches(topic, of) && (!self.problems || is_problem(of)))
            .collect();
        // Stable: equals stay in the order of partitions.
        rows.sort_by(|a, b| self.sort.order(a.1, b.1));
        if self.reversed {
            rows.reverse();
        }
        rows
    }

    /// Takes in a key.
    pub fn key(&mut self, key: KeyEvent) -> Action {
        if key.kind == KeyEventKind::Release {
            return Action::Nothing;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && matches!(key.code, KeyCode::Char('c' | 'd')) {
            return Action::Quit;
        }
        match std::mem::take(&mut self.mode) {
            Mode::Table => self.key_of_table(key.code),
            Mode::Filter(before) => {
                self.mode = match key.code {
                    KeyCode::Enter => Mode::Table,
                    KeyCode::Esc => {
                        self.filter = before;
                        Mode::Table
                    }
                    code => {
                        type_in(&mut self.filter, code, control);
                        Mode::Filter(before)
                    }
                };
                Action::Nothing
            }
            Mode::Generator(mut id) => match key.code {
                KeyCode::Esc => Action::Nothing,
                KeyCode::Enter if id.is_empty() => Action::Nothing,
                KeyCode::Enter => {
                    self.mode = Mode::History(id.clone());
                    Action::Follow(id)
                }
                code => {
                    type_in(&mut id, code, control);
                    self.mode = Mode::Generator(id);
                    Action::Nothing
                }
            },
            Mode::History(id) => match key.code {
                KeyCode::Char('q') => Action::Quit,
                KeyCode::Esc | KeyCode::Backspace => Action::Unfollow,
                KeyCode::Char('g') => {
                    self.mode = Mode::Generator(String::new());
                    Action::Unfollow
                }
                _ => {
                    self.mode = Mode::History(id);
                    Action::Nothing
                }
            },
            Mode::Help => {
                if key.code == KeyCode::Char('q') {
                    Action::Quit
                } else {
                    Action::Nothing
                }
            }
        }
    }

    fn key_of_table(&mut self, code: KeyCode) -> Action {
        match code {
            KeyCode::Char('q') => return Action::Quit,
            KeyCode::Esc if self.filter.is_empty() && !self.problems => return Action::Quit,
            KeyCode::Esc => {
                self.filter.clear();
                self.problems = false;
            }
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('S') => self.reversed = !self.reversed,
            KeyCode::Char('/') => self.mode = Mode::Filter(self.filter.clone()),
            KeyCode::Char('p') => self.problems = !self.problems,
            KeyCode::Char('g') => self.mode = Mode::Generator(String::new()),
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.mode = Mode::Help,
            KeyCode::Up | KeyCode::Char('k') => self.scroll = self.scroll.saturating_sub(1),
            // Drawing knows where the end is.
            KeyCode::Down | KeyCode::Char('j') => self.scroll = self.scroll.saturating_add(1),
            KeyCode::PageUp => self.scroll = self.scroll.saturating_sub(PAGE),
            KeyCode::PageDown | KeyCode::Char(' ') => self.scroll = self.scroll.saturating_add(PAGE),
            KeyCode::Home => self.scroll = 0,
            KeyCode::End => self.scroll = usize::MAX,
            _ => {}
        }
        Action::Nothing
    }
}

fn type_in(text: &mut String, code: KeyCode, control: bool) {
    match code {
        KeyCode::Char('u') if control => text.clear(),
        KeyCode::Char(c) if !control && text.len() < TEXT_MAX => text.push(c),
        KeyCode::Backspace => {
            text.pop();
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use genwatch_core::lag::Trend;
    use genwatch_core::types::{Offset, PartitionId};

    use super::*;
    use crate::status::document::{Gone, Movement, TopicStatus};

    fn partition(
        id: i32,
        owner: Option<&str>,
        lag: i64,
        verdict: Verdict,
        eta: Option<Eta>,
    ) -> PartitionStatus {
        PartitionStatus {
            partition: PartitionId(id),
            owner: owner.map(str::to_owned),
            committed: Some(Offset(0)),
            end: Offset(lag),
            lag,
            time_lag_ms: lag * 10,
            verdict,
            movement: Some(Movement {
                arrivals: Some(1.0),
                processed: Some(lag as f64 / 2.0),
                trend: Some(Trend::Steady),
                gone: Gone(eta),
                phase: Some(Phase::Active),
            }),
            lags: vec![],
        }
    }

    fn status() -> Status {
        let partitions = vec![
            partition(0, Some("Anna"), 10, Verdict::Ok, Some(Eta::Now)),
            partition(1, Some("ben"), 500, Verdict::Behind, Some(Eta::Seconds(9.0))),
            partition(2, None, 70, Verdict::Unowned, Some(Eta::Never)),
            partition(3, Some("Anna"), 0, Verdict::Ok, None),
        ];
        Status::new("g", vec![TopicStatus { topic: "t".to_owned(), partitions }])
    }

    fn shown(state: &State) -> Vec<i32> {
        state.rows(&status()).iter().map(|(_, of)| of.partition.0).collect()
    }

    fn press(state: &mut State, keys: &str) -> Action {
        let mut last = Action::Nothing;
        for c in keys.chars() {
            let code = match c {
                '\n' => KeyCode::Enter,
                '\u{1b}' => KeyCode::Esc,
                '\u{8}' => KeyCode::Backspace,
                c => KeyCode::Char(c),
            };
            last = state.key(KeyEvent::new(code, KeyModifiers::NONE));
        }
        last
    }

    #[test]
    fn s_goes_through_the_orders_and_shift_s_reverses() {
        let mut state = State::default();
        assert_eq!(shown(&state), [0, 1, 2, 3]);
        for order in [[2, 0, 3, 1], [1, 2, 0, 3], [1, 2, 0, 3], [1, 2, 0, 3], [2, 1, 0, 3], [2, 1, 0, 3]] {
            press(&mut state, "s");
            assert_eq!(shown(&state), order, "{:?}", state.sort);
        }
        press(&mut state, "sS");
        assert_eq!(shown(&state), [3, 2, 1, 0]);
    }

    #[test]
    fn a_filter_is_about_partition_owner_and_verdict() {
        let mut state = State::default();
        press(&mut state, "/anna");
        assert_eq!(shown(&state), [0, 3], "while it is typed");
        press(&mut state, "\n");
        assert_eq!((shown(&state), &state.mode), (vec![0, 3], &Mode::Table));
        press(&mut state, "/\u{8}\u{8}\u{8}\u{8}unOWNed\n");
        assert_eq!(shown(&state), [2]);
        press(&mut state, "/x\u{1b}");
        assert_eq!(state.filter, "unOWNed", "Esc drops what was typed");
        assert_eq!(press(&mut state, "\u{1b}"), Action::Nothing);
        assert_eq!(shown(&state).len(), 4, "Esc shows all");
        press(&mut state, "/3\n");
        assert_eq!(shown(&state), [3]);
    }

    #[test]
    fn p_shows_problems_only() {
        let mut state = State::default();
        press(&mut state, "p");
        assert_eq!(shown(&state), [1, 2]);
        press(&mut state, "p");
        assert_eq!(shown(&state).len(), 4);
    }

    #[test]
    fn every_way_out_quits() {
        for keys in ["q", "\u{1b}", "?q", "gx\nq"] {
            assert_eq!(press(&mut State::default(), keys), Action::Quit, "{keys:?}");
        }
        for mode in [Mode::Table, Mode::Filter(String::new()), Mode::Generator("x".into()), Mode::Help] {
            let mut state = State { mode, ..State::default() };
            let key = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
            assert_eq!(state.key(key), Action::Quit);
        }
    }

    #[test]
    fn g_asks_for_a_generator_and_shows_its_history() {
        let mut state = State::default();
        assert_eq!(press(&mut state, "gquS\u{8}\n"), Action::Follow("qu".to_owned()), "q is a letter here");
        assert_eq!(state.mode, Mode::History("qu".to_owned()));
        assert_eq!(press(&mut state, "\u{1b}"), Action::Unfollow);
        assert_eq!(state.mode, Mode::Table);
        assert_eq!(press(&mut state, "g\n"), Action::Nothing);
        assert_eq!(state.mode, Mode::Table);
    }

    #[test]
    fn a_release_is_no_second_press() {
        let mut state = State::default();
        let mut key = KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE);
        key.kind = KeyEventKind::Release;
        assert_eq!(state.key(key), Action::Nothing);
    }
}
