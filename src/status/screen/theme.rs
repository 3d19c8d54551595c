//! Colours. None of them carries a meaning alone: there is always a word, too.

use genwatch_core::lag::{Trend, Verdict};
use ratatui::style::{Color, Modifier, Style};

use crate::status::document::Phase;
use crate::status::roster::WorkerState;

/// Whether there are colours.
#[derive(Clone, Copy, Debug)]
pub struct Theme {
    /// False: only bold, dim and reversed.
    pub colours: bool,
}

impl Theme {
    fn of(self, colour: Color) -> Style {
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }

    /// Of a heading.
    #[must_use]
    pub fn heading(self) -> Style {
        self.of(Color::Cyan).add_modifier(Modifier::BOLD)
    }

    /// Of what is less important.
    #[must_use]
    pub fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// Of what must be seen.
    #[must_use]
    pub fn alarm(self) -> Style {
        self.of(Color::Red).add_modifier(Modifier::BOLD)
    }

    /// Of what may become worse.
    #[must_use]
    pub fn warning(self) -> Style {
        self.of(Color::Yellow)
    }

    /// Of what is as it should be.
    #[must_use]
    pub fn good(self) -> Style {
        self.of(Color::Green)
    }

    /// Of a curve.
    #[must_use]
    pub fn curve(self) -> Style {
        self.of(Color::Blue)
    }

    /// Of a verdict.
    #[must_use]
    pub fn verdict(self, verdict: Verdict) -> Style {
        match verdict {
            Verdict::Ok => self.good(),
            Verdict::Behind => self.warning(),
            Verdict::Stalled | Verdict::Unowned => self.alarm(),
        }
    }

    /// Of a trend.
    #[must_use]
    pub fn trend(self, trend: Trend) -> Style {
        match trend {
            Trend::Falling => self.good(),
            Trend::Steady => Style::new(),
            Trend::Growing => self.warning(),
        }
    }

    /// Of a phase.
    #[must_use]
    pub fn phase(self, phase: Phase) -> Style {
        match phase {
            Phase::Active => Style::new(),
            Phase::Restoring | Phase::Draining => self.warning(),
            Phase::Refused | Phase::Overdue => self.alarm(),
        }
    }

    /// Of what a worker does.
    #[must_use]
    pub fn worker(self, state: WorkerState) -> Style {
        match state {
            WorkerState::Active => self.good(),
            WorkerState::Idle => Style::new(),
            WorkerState::Restoring | WorkerState::Draining => self.warning(),
            WorkerState::Refused | WorkerState::Overdue => self.alarm(),
        }
    }

    /// Of an alert's severity.
    #[must_use]
    pub fn severity(self, severity: &str) -> Style {
        match severity {
            "critical" => self.alarm(),
            "warning" => self.warning(),
            _ => Style::new(),
        }
    }
}
