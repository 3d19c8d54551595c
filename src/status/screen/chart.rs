//! One generator's history: a curve for each field, thresholds, active alarms.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Sparkline, Wrap};

use super::draw::View;
use crate::cli::printable;
use crate::status::history::{FIELDS, History, thresholds};
use crate::status::words;

/// The steps of a bar in one cell.
const STEPS: u64 = 8;
const UNITS: [&str; FIELDS.len()] = ["°C", "kPa", "l"];

/// Draws it, or why it isn't there.
pub fn draw(frame: &mut Frame<'_>, area: Rect, generator: &str, view: &View<'_>) {
    let generator = printable(generator).into_owned();
    let history = match &view.history {
        Some(Ok(history)) if history.caught_up || !history.is_empty() => history,
        Some(Err(reason)) => {
            let text = format!("{generator}: no history: {}", printable(reason));
            frame.render_widget(
                Paragraph::new(text).style(view.theme.alarm()).wrap(Wrap { trim: true }),
                area,
            );
            return;
        }
        Some(Ok(_)) | None => {
            frame.render_widget(Paragraph::new(format!("{generator}: reading its last minutes ...")), area);
            return;
        }
    };
    let alarms = alarms(history, view);
    let shown = u16::try_from(alarms.len()).unwrap_or(u16::MAX).min(area.height.saturating_sub(4) / 2);
    let [title, curves, below] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(0), Constraint::Length(shown)]).areas(area);
    frame.render_widget(Paragraph::new(heading(&generator, history, view)), title);
    if !history.is_empty() {
        let fields: [Rect; FIELDS.len()] =
            Layout::vertical([Constraint::Fill(1); FIELDS.len()]).areas(curves);
        for (field, area) in fields.into_iter().enumerate() {
            draw_field(frame, area, field, history, view);
        }
    }
    frame.render_widget(Paragraph::new(alarms), below);
}

fn heading(generator: &str, history: &History, view: &View<'_>) -> Line<'static> {
    let what = match history.span() {
        None => ": no reading in the last five minutes".to_owned(),
        Some((first, last)) => format!(
            ": {} readings in {}, the last one {} ago",
            history.len(),
            words::span(last.since(first) as f64 / 1000.0),
            words::span(view.now.since(last) as f64 / 1000.0)
        ),
    };
    Line::from(vec![
        Span::styled(generator.to_owned(), view.theme.heading()),
        Span::raw(format!(", partition {}{what}", history.partition)),
    ])
}

fn draw_field(frame: &mut Frame<'_>, area: Rect, field: usize, history: &History, view: &View<'_>) {
    let Some((last, min, max)) = history.range(field) else { return };
    let rules = thresholds(view.rules, FIELDS[field]);
    let has_alarm = history
        .alarms()
        .any(|alarm| rules.iter().any(|rule| rule.split(' ').next() == Some(alarm.rule.as_str())));
    let style = if has_alarm { view.theme.alarm() } else { view.theme.curve() };
    let [title, curve] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
    let number = |value: f64| format!("{value:.1}");
    let title_line = Line::from(vec![
        Span::styled(format!("{:12}", FIELDS[field].name()), Style::new().add_modifier(Modifier::BOLD)),
        Span::styled(format!("{:>8} {:3}", number(last), UNITS[field]), style.add_modifier(Modifier::BOLD)),
        Span::raw(format!("  {} to {}", number(min), number(max))),
        Span::styled(format!("  {}", rules.join("; ")), view.theme.dim()),
    ]);
    frame.render_widget(Paragraph::new(title_line), title);
    // A line of space below, if there is room for it.
    let curve = if curve.height > 2 { Rect { height: curve.height - 1, ..curve } } else { curve };
    let top = u64::from(curve.height) * STEPS;
    let height = |value: f64| {
        // From one step to all, so that the least value is seen, too. A float becomes the nearest integer.
        let share = if max > min { (value - min) / (max - min) } else { 0.5 };
        1 + (share * top.saturating_sub(1) as f64).round() as u64
    };
    let columns = history.columns(field, usize::from(curve.width));
    let bars: Vec<Option<u64>> = columns.into_iter().map(|value| value.map(height)).collect();
    frame.render_widget(Sparkline::default().data(bars).max(top.max(1)).style(style), curve);
}

fn alarms(history: &History, view: &View<'_>) -> Vec<Line<'static>> {
    let alarm = |alarm: &crate::status::history::Alarm| {
        let value = alarm.value.map_or_else(String::new, |value| format!("{value}, "));
        let text = format!(
            "{} {} since {} ({value}threshold {})",
            alarm.severity.to_uppercase(),
            alarm.rule,
            words::time(alarm.at),
            alarm.threshold
        );
        Line::styled(printable(&text).into_owned(), view.theme.severity(&alarm.severity))
    };
    let lines: Vec<_> = history.alarms().map(alarm).collect();
    if lines.is_empty() { vec![Line::styled("no active alarm", view.theme.good())] } else { lines }
}
