//! One frame: header, table of partitions, workers, keys.

use genwatch_core::alarm::rules::Rules;
use genwatch_core::types::Millis;
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table, Wrap};

use super::chart;
use super::columns::{Column, fit, tail};
use super::state::{Mode, State};
use super::theme::Theme;
use crate::cli::printable;
use crate::status::document::{Gone, OwnersFrom, Status};
use crate::status::history::History;
use crate::status::lines::note;
use crate::status::roster::{WorkerState, WorkerStatus};
use crate::status::words::{self, known};

/// A status that is so many milliseconds old isn't the present.
const OLD: i64 = 4_000;
/// The least height of the table; the workers have to be shorter.
const TABLE_MIN: u16 = 4;

const HELP: [(&str, &str); 11] = [
    ("q, Ctrl-C", "quit"),
    ("Esc", "back; shows all again; quits"),
    ("s, S", "the next order, and the other way round"),
    ("/", "only rows that contain a text: number, owner, phase, verdict"),
    ("p", "only partitions with a problem"),
    ("g", "the last minutes of one generator"),
    ("arrows, PgUp, PgDn", "scroll"),
    ("ETA", "when the lag is gone if nothing changes; the group's is that of its slowest partition"),
    ("BEHIND", "works, but the oldest waiting record is older than 10 s"),
    ("STALLED", "has records and an owner, and commits nothing"),
    ("UNOWNED", "has records, and no owner"),
];

/// What is known.
#[derive(Debug)]
pub struct View<'a> {
    /// The addresses of Kafka.
    pub brokers: &'a str,
    /// For thresholds.
    pub rules: &'a Rules,
    /// The colours.
    pub theme: Theme,
    /// The time.
    pub now: Millis,
    /// The last status.
    pub status: Option<Status>,
    /// Why there is no newer one.
    pub trouble: Option<String>,
    /// The history that was asked for, or why there is none.
    pub history: Option<Result<History, String>>,
}

impl<'a> View<'a> {
    /// Nothing is known.
    #[must_use]
    pub fn new(brokers: &'a str, rules: &'a Rules, theme: Theme) -> View<'a> {
        View { brokers, rules, theme, now: Millis(0), status: None, trouble: None, history: None }
    }

    /// Says since when Kafka is silent, if it is.
    fn away(&self) -> Option<String> {
        let last = self.status.as_ref()?.at?;
        if self.now.since(last) < OLD {
            return None;
        }
        let reason = self.trouble.as_deref().map_or_else(String::new, |reason| format!(" ({reason})"));
        Some(
            printable(&format!("Kafka does not answer since {}; trying again{reason}", words::clock(last)))
                .into_owned(),
        )
    }
}

/// Draws all of it.
pub fn draw(frame: &mut Frame<'_>, state: &mut State, view: &View<'_>) {
    let Some(status) = &view.status else {
        let text = format!("asking Kafka at {} ...", printable(view.brokers));
        frame.render_widget(Paragraph::new(text), frame.area());
        return;
    };
    let away = view.away();
    let [header, silence, body, footer] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(u16::from(away.is_some())),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    draw_header(frame, header, status, view);
    if let Some(away) = away {
        let style = view.theme.alarm().add_modifier(Modifier::REVERSED);
        frame.render_widget(Paragraph::new(away).style(style), silence);
    }
    match &state.mode {
        Mode::Help => draw_help(frame, body, view.theme),
        Mode::History(generator) => chart::draw(frame, body, generator, view),
        _ => draw_body(frame, body, state, status, view),
    }
    frame.render_widget(Paragraph::new(keys(state, view.theme)), footer);
}

fn draw_header(frame: &mut Frame<'_>, area: Rect, status: &Status, view: &View<'_>) {
    let theme = view.theme;
    let [first, second] = Layout::vertical([Constraint::Length(1); 2]).areas(area);
    let clock = status.at.map_or_else(String::new, words::clock);
    let [left, right] =
        Layout::horizontal([Constraint::Min(0), Constraint::Length(u16::try_from(clock.len()).unwrap_or(0))])
            .spacing(1)
            .areas(first);
    let more = match status.other_topics.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let title = Line::from(vec![
        Span::raw("group "),
        Span::styled(printable(&status.group).into_owned(), theme.heading()),
        Span::raw("  topic "),
        Span::styled(printable(&status.main.topic).into_owned(), theme.heading()),
        Span::raw(more),
    ]);
    frame.render_widget(Paragraph::new(title), left);
    frame.render_widget(Paragraph::new(clock).alignment(Alignment::Right), right);

    let (arrivals, processed) = status.rates().unzip();
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let eta = words::gone(status.gone.unwrap_or(Gone(None)));
    let never = eta == "never";
    let totals = Line::from(vec![
        Span::raw("lag "),
        Span::styled(status.lag().to_string(), bold),
        Span::raw("  ETA "),
        Span::styled(eta, if never { theme.alarm() } else { bold }),
        Span::raw("  arrivals "),
        Span::styled(format!("{}/s", known(arrivals, words::rate)), bold),
        Span::raw("  processed "),
        Span::styled(format!("{}/s", known(processed, words::rate)), bold),
    ]);
    frame.render_widget(Paragraph::new(totals), second);
}

fn draw_body(frame: &mut Frame<'_>, area: Rect, state: &mut State, status: &Status, view: &View<'_>) {
    let rows = state.rows(status);
    let all = status.partitions().count();
    let chosen = (!state.filter.is_empty() || state.problems).then(|| {
        let filter = if state.filter.is_empty() {
            String::new()
        } else {
            format!("containing \"{}\", ", printable(&state.filter))
        };
        let problems = if state.problems { "with a problem, " } else { "" };
        format!("{} of {all} partitions: {filter}{problems}Esc shows all", rows.len())
    });
    let note = match status.owners_from {
        OwnersFrom::MembersAt(at) => Some(note(&printable(&status.group), at)),
        OwnersFrom::Members | OwnersFrom::Reports => None,
    };
    let lines = |there: bool| Constraint::Length(u16::from(there));
    let fixed = u16::from(chosen.is_some()) + u16::from(note.is_some());
    let room = area.height.saturating_sub(fixed + TABLE_MIN);
    let wanted = u16::try_from(status.workers.len()).unwrap_or(u16::MAX).saturating_add(2);
    let partitions = u16::try_from(rows.len()).unwrap_or(u16::MAX).saturating_add(1);
    // What the table doesn't need, and else a third; a heading alone says nothing.
    let workers = wanted.min(room.max(1) / 3).max(wanted.min(area.height.saturating_sub(fixed + partitions)));
    let workers = if workers < 3 || status.workers.is_empty() { 0 } else { workers };
    let table = partitions.min(area.height.saturating_sub(fixed + workers));
    let [above, table, below, _, last] = Layout::vertical([
        lines(chosen.is_some()),
        Constraint::Length(table),
        Constraint::Length(workers),
        Constraint::Min(0),
        lines(note.is_some()),
    ])
    .areas(area);
    if let Some(chosen) = chosen {
        frame.render_widget(Paragraph::new(chosen).style(view.theme.warning()), above);
    }
    draw_table(frame, table, state, status, view.theme);
    draw_workers(frame, below, &status.workers, view.theme);
    if let Some(note) = note {
        frame.render_widget(Paragraph::new(note).style(view.theme.dim()), last);
    }
}

fn draw_table(frame: &mut Frame<'_>, area: Rect, state: &mut State, status: &Status, theme: Theme) {
    let rows = state.rows(status);
    let room = usize::from(area.height.saturating_sub(1));
    // What is hidden takes a line.
    let visible = if rows.len() > room { room.saturating_sub(1) } else { room };
    state.scroll = state.scroll.min(rows.len().saturating_sub(visible));
    let longest = |text: &str| Span::raw(printable(text).into_owned()).width();
    let topic = (!status.other_topics.is_empty())
        .then(|| status.topics().map(|of| longest(&of.topic)).max().unwrap_or(0));
    let owner = rows.iter().filter_map(|(_, of)| of.owner.as_deref()).map(longest).max().unwrap_or(0);
    let columns = fit(area.width, topic, owner);
    let aligned = |column: Column, span: Span<'static>| {
        let line = Line::from(span);
        Cell::from(if column.is_right() { line.right_aligned() } else { line })
    };
    let heading = columns
        .iter()
        .map(|(column, _)| aligned(*column, Span::raw(column.heading(state.sort, state.reversed))));
    let shown = rows.iter().skip(state.scroll).take(visible).map(|(topic, of)| {
        Row::new(
            columns.iter().map(|(column, width)| aligned(*column, column.cell(topic, of, *width, theme))),
        )
    });
    let widths = columns.iter().map(|(_, width)| Constraint::Length(*width));
    let table = Table::new(shown, widths).header(Row::new(heading).style(theme.heading())).column_spacing(1);
    frame.render_widget(table, area);
    if rows.len() > visible && area.height > 1 {
        let (first, last) = (state.scroll + 1, state.scroll + visible);
        let more = format!("rows {first} to {last} of {}", rows.len());
        let place = Rect { y: area.y + area.height - 1, height: 1, ..area };
        frame.render_widget(Paragraph::new(more).style(theme.dim()), place);
    }
}

fn draw_workers(frame: &mut Frame<'_>, area: Rect, workers: &[WorkerStatus], theme: Theme) {
    // The first line is empty, the second the heading.
    let Some(visible) = usize::from(area.height).checked_sub(2).filter(|visible| *visible > 0) else {
        return;
    };
    let area = Rect { y: area.y + 1, height: area.height - 1, ..area };
    let mut workers: Vec<&WorkerStatus> = workers.iter().collect();
    // What needs a look comes first, if not all fit.
    if workers.len() > visible {
        workers.sort_by_key(|worker| worker.state);
    }
    let name = |worker: &WorkerStatus| printable(&worker.name).into_owned();
    let longest = workers.iter().map(|worker| Span::raw(name(worker)).width()).max().unwrap_or(0);
    let wide = area.width >= 76;
    let kind = |worker: &WorkerStatus| printable(worker.kind.as_str()).into_owned();
    let longest_kind = workers.iter().map(|worker| Span::raw(kind(worker)).width()).max().unwrap_or(0);
    let kind_width = u16::try_from(longest_kind).unwrap_or(u16::MAX).clamp(6, 10);
    let name_width = u16::try_from(longest).unwrap_or(u16::MAX).clamp(6, if wide { 30 } else { 16 });
    let right = |text: String| Cell::from(Line::from(text).right_aligned());
    let row = |worker: &&WorkerStatus| {
        let state = Span::styled(worker.state.as_str(), theme.worker(worker.state));
        let quiet = worker.state == WorkerState::Overdue;
        let number = |text: String| right(if quiet { words::UNKNOWN.to_owned() } else { text });
        let mut cells = vec![
            Cell::from(tail(&name(worker), name_width)),
            Cell::from(tail(&kind(worker), kind_width)),
            Cell::from(state),
            number(words::rate(worker.rate)),
            number(words::percent(worker.busy)),
        ];
        if wide {
            cells.push(number(format!("{:.2}", worker.cpu)));
            cells.push(Cell::from(printable(&worker.version).into_owned()));
        }
        let held = if worker.held.is_empty() { words::UNKNOWN } else { &worker.held };
        let why = worker.not_ready.as_deref().map_or_else(String::new, |why| format!("  not ready: {why}"));
        cells.push(Cell::from(printable(&format!("{held}{why}")).into_owned()));
        Row::new(cells)
    };
    let mut widths = vec![name_width, kind_width, 9, 7, 5];
    let mut heading = vec![
        Cell::from("WORKER"),
        Cell::from("KIND"),
        Cell::from("STATE"),
        right("REC/S".into()),
        right("BUSY".into()),
    ];
    if wide {
        widths.extend([5, 8]);
        heading.extend([right("CPU".into()), Cell::from("VERSION")]);
    }
    heading.push(Cell::from("PARTITIONS"));
    let widths = widths.into_iter().map(Constraint::Length).chain([Constraint::Min(4)]);
    let rows = workers.iter().take(visible).map(row);
    let table = Table::new(rows, widths).header(Row::new(heading).style(theme.heading())).column_spacing(1);
    frame.render_widget(table, area);
}

fn draw_help(frame: &mut Frame<'_>, area: Rect, theme: Theme) {
    let lines = HELP.iter().map(|(key, what)| {
        Line::from(vec![Span::styled(format!("{key:20}"), theme.heading()), Span::raw(*what)])
    });
    let lines = Paragraph::new(lines.collect::<Vec<_>>()).wrap(Wrap { trim: false });
    frame.render_widget(lines, area);
}

fn keys(state: &State, theme: Theme) -> Line<'static> {
    let typed = |what: &str, text: &str, then: &str| {
        Line::from(vec![
            Span::styled(format!("{what}: "), theme.heading()),
            Span::raw(printable(text).into_owned()),
            Span::styled(" ", Style::new().add_modifier(Modifier::REVERSED)),
            Span::styled(format!("  {then}"), theme.dim()),
        ])
    };
    let line = |keys: &[(&str, String)]| {
        let spans = keys.iter().flat_map(|(key, what)| {
            [Span::styled((*key).to_owned(), theme.heading()), Span::raw(format!(" {what}  "))]
        });
        Line::from(spans.collect::<Vec<_>>())
    };
    let owned = |text: &str| text.to_owned();
    match &state.mode {
        Mode::Filter(_) => typed("filter", &state.filter, "Enter keeps it, Esc drops it"),
        Mode::Generator(id) => typed("generator", id, "Enter shows it, Esc goes back"),
        Mode::History(_) => {
            line(&[("Esc", owned("back")), ("g", owned("another generator")), ("q", owned("quit"))])
        }
        Mode::Help => line(&[("any key", owned("back")), ("q", owned("quit"))]),
        Mode::Table => line(&[
            ("q", owned("quit")),
            ("s", format!("sort: {}", state.sort.as_str())),
            ("S", owned("reverse")),
            ("/", owned("filter")),
            ("p", owned("problems")),
            ("g", owned("generator")),
            ("?", owned("help")),
        ]),
    }
}

#[cfg(test)]
mod tests;
