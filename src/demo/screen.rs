//! The terminal: alerts that scroll, and below them a table that refreshes. Plain lines if piped.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::Instant;

use console::{Term, style};

use crate::fleet::FleetView;

/// The screen.
pub struct Screen {
    term: Term,
    /// Lines of the table below everything.
    table: Vec<String>,
    last: Option<(Instant, u64)>,
}

impl Default for Screen {
    fn default() -> Self {
        Screen::new()
    }
}

impl Screen {
    /// Creates a screen on stdout.
    #[must_use]
    pub fn new() -> Screen {
        Screen { term: Term::stdout(), table: Vec::new(), last: None }
    }

    /// Prints a line that stays.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn say(&mut self, line: &str) -> io::Result<()> {
        if !self.term.is_term() {
            return writeln!(io::stdout().lock(), "{line}");
        }
        self.term.clear_last_lines(self.table.len())?;
        self.term.write_line(line)?;
        self.show_table()
    }

    /// Refreshes the table of partitions, owners, lag and throughput.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn table(&mut self, fleet: &FleetView, sent: u64) -> io::Result<()> {
        let now = Instant::now();
        let records = fleet.records();
        let rate = self.last.map_or(0.0, |(at, before)| {
            (records.saturating_sub(before)) as f64 / now.duration_since(at).as_secs_f64().max(1e-9)
        });
        self.last = Some((now, records));
        if !self.term.is_term() {
            return writeln!(io::stdout().lock(), "{}", summary_line(fleet, sent, rate));
        }
        self.term.clear_last_lines(self.table.len())?;
        self.table = table_lines(fleet, sent, rate);
        self.show_table()
    }

    fn show_table(&self) -> io::Result<()> {
        if self.table.is_empty() { Ok(()) } else { self.term.write_line(&self.table.join("\n")) }
    }
}

/// Formats an alert event as a line.
#[must_use]
pub fn alert_line(value: &[u8]) -> String {
    crate::cli::alert_line(value, Term::stdout().is_term())
}

fn summary_line(fleet: &FleetView, sent: u64, rate: f64) -> String {
    let mut shares: BTreeMap<String, usize> = BTreeMap::new();
    for view in fleet.partitions().into_values() {
        *shares.entry(view.owner.unwrap_or_else(|| "(changing hands)".to_owned())).or_default() += 1;
    }
    let shares: Vec<String> =
        shares.into_iter().map(|(owner, partitions)| format!("{owner} {partitions}")).collect();
    let lag = sent.saturating_sub(fleet.records());
    format!(
        "sent {sent}, processed {} ({rate:.0}/s), lag {lag}; partitions: {}",
        fleet.records(),
        shares.join(", ")
    )
}

fn table_lines(fleet: &FleetView, sent: u64, rate: f64) -> Vec<String> {
    let mut lines = vec![
        style(format!("{:>9}  {:12} {:>10} {:>10} {:>6}", "PARTITION", "OWNER", "COMMITTED", "END", "LAG"))
            .bold()
            .to_string(),
    ];
    for (id, view) in fleet.partitions() {
        let lag = (view.end.0 - view.committed.0).max(0);
        let owner = view.owner.as_deref().unwrap_or("...");
        let mut line = String::new();
        // Writing into a String can't fail.
        let _ = write!(line, "{id:>9}  {owner:12} {:>10} {:>10} {lag:>6}", view.committed, view.end);
        lines.push(line);
    }
    let lag = sent.saturating_sub(fleet.records());
    lines.push(format!(
        "{} generators, sent {sent}, processed {} ({rate:.0} readings/s), lag {lag}",
        fleet.generators(),
        fleet.records()
    ));
    lines
}
