//! The columns of the table of partitions: their texts, and which of them fit.

use genwatch_core::lag::Trend;
use ratatui::style::Style;
use ratatui::text::Span;

use super::state::Sort;
use super::theme::Theme;
use crate::cli::printable;
use crate::status::document::PartitionStatus;
use crate::status::words::{self, known};

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Only where the group reads several topics.
    Topic,
    /// The partition's number.
    Partition,
    /// Who owns it.
    Owner,
    /// What the owner does with it.
    Phase,
    /// The committed offset.
    Committed,
    /// The end of the log.
    End,
    /// The records that wait.
    Lag,
    /// The lag over the last half a minute.
    History,
    /// Where the lag goes.
    Trend,
    /// The age of the oldest record that waits.
    TimeLag,
    /// Records committed a second.
    Rate,
    /// When the lag will be gone.
    Eta,
    /// What to think of it.
    Verdict,
}

use Column::{
    Committed, End, Eta, History, Lag, Owner, Partition, Phase, Rate, TimeLag, Topic, Trend as TrendOf,
    Verdict,
};

const ALL: [Column; 13] =
    [Topic, Partition, Owner, Phase, Committed, End, Lag, History, TrendOf, TimeLag, Rate, Eta, Verdict];
/// What is left out first where there is no room.
const LEFT_OUT: [Column; 9] = [Committed, End, History, Phase, Rate, TrendOf, TimeLag, Eta, Owner];
const GAP: u16 = 1;
/// An owner's name has at least so much room, and a topic's at most.
const OWNER_MIN: u16 = 10;
const TOPIC_MAX: u16 = 28;

/// The columns that fit, each with its width.
#[must_use]
pub fn fit(width: u16, longest_topic: Option<usize>, longest_owner: usize) -> Vec<(Column, u16)> {
    let topic = longest_topic.map(|longest| u16::try_from(longest).unwrap_or(u16::MAX).clamp(5, TOPIC_MAX));
    let mut columns: Vec<(Column, u16)> = ALL
        .into_iter()
        .filter(|column| *column != Topic || topic.is_some())
        .map(|column| (column, if column == Topic { topic.unwrap_or(0) } else { column.width() }))
        .collect();
    let needed = |columns: &[(Column, u16)]| {
        columns.iter().map(|(_, width)| width + GAP).sum::<u16>().saturating_sub(GAP)
    };
    for column in LEFT_OUT {
        if needed(&columns) <= width {
            break;
        }
        columns.retain(|(kept, _)| *kept != column);
    }
    let spare = width.saturating_sub(needed(&columns));
    let wanted = u16::try_from(longest_owner).unwrap_or(u16::MAX).saturating_sub(OWNER_MIN);
    for (column, width) in &mut columns {
        if *column == Owner {
            *width += spare.min(wanted);
        }
    }
    columns
}

impl Column {
    fn width(self) -> u16 {
        match self {
            Topic => 0,
            Partition => 5,
            Owner => OWNER_MIN,
            Phase | Lag | TrendOf => 9,
            Committed | End => 11,
            History => 10,
            TimeLag => 9,
            Rate => 7,
            Verdict => 8,
            Eta => 6,
        }
    }

    /// Whether its texts are to the right.
    #[must_use]
    pub fn is_right(self) -> bool {
        matches!(self, Partition | Committed | End | Lag | TimeLag | Rate | Eta)
    }

    /// Its heading, with a mark if the table is in its order.
    #[must_use]
    pub fn heading(self, sort: Sort, reversed: bool) -> String {
        let (heading, of) = match self {
            Topic => ("TOPIC", None),
            Partition => ("PART", Some(Sort::Partition)),
            Owner => ("OWNER", Some(Sort::Owner)),
            Phase => ("PHASE", None),
            Committed => ("COMMITTED", None),
            End => ("END", None),
            Lag => ("LAG", Some(Sort::Lag)),
            History => ("LAST 30 s", None),
            TrendOf => ("TREND", None),
            TimeLag => ("TIME LAG", Some(Sort::TimeLag)),
            Rate => ("REC/S", Some(Sort::Rate)),
            Eta => ("ETA", Some(Sort::Eta)),
            Verdict => ("VERDICT", Some(Sort::Verdict)),
        };
        let descends = !matches!(sort, Sort::Partition | Sort::Owner);
        let mark = if descends == reversed { '▲' } else { '▼' };
        if of == Some(sort) { format!("{heading}{mark}") } else { heading.to_owned() }
    }

    /// Its text for a partition, in at most so many cells. What others have named is printable.
    #[must_use]
    pub fn cell(self, topic: &str, of: &PartitionStatus, width: u16, theme: Theme) -> Span<'static> {
        let movement = of.movement.as_ref();
        let phase = movement.and_then(|movement| movement.phase);
        let trend = movement.and_then(|movement| movement.trend);
        let plain = |text: String| Span::raw(text);
        match self {
            Topic => plain(tail(&printable(topic), width)),
            Partition => plain(of.partition.to_string()),
            Owner => match &of.owner {
                Some(owner) => plain(tail(&printable(owner), width)),
                None => Span::styled(words::UNKNOWN, theme.dim()),
            },
            Phase => Span::styled(
                known(phase, |phase| phase.as_str().to_owned()),
                phase.map_or(theme.dim(), |phase| theme.phase(phase)),
            ),
            Committed => plain(known(of.committed, |offset| offset.to_string())),
            End => plain(of.end.to_string()),
            Lag => plain(of.lag.to_string()),
            History => Span::styled(sparkline(&of.lags, usize::from(width)), theme.curve()),
            TrendOf => Span::styled(
                known(trend, |trend| format!("{} {}", arrow(trend), words::trend(trend))),
                trend.map_or(Style::new(), |trend| theme.trend(trend)),
            ),
            TimeLag => plain(words::span(of.time_lag_ms as f64 / 1000.0)),
            Rate => plain(known(movement.and_then(|movement| movement.processed), words::rate)),
            Eta => plain(known(movement, |movement| words::gone(movement.gone))),
            Verdict => Span::styled(of.verdict.as_str(), theme.verdict(of.verdict)),
        }
    }
}

fn arrow(trend: Trend) -> char {
    match trend {
        Trend::Falling => '↘',
        Trend::Steady => '→',
        Trend::Growing => '↗',
    }
}

/// The end of a text that is too long: names differ there.
#[must_use]
pub fn tail(text: &str, width: u16) -> String {
    let width = usize::from(width);
    if Span::raw(text).width() <= width {
        return text.to_owned();
    }
    let mut rest = text.char_indices();
    while rest.next().is_some() {
        let end = rest.as_str();
        if Span::raw(end).width() < width {
            return format!("…{end}");
        }
    }
    String::new()
}

/// Lags as a line of bars, the newest to the right, the largest one full. With more lags than cells each cell shows the
/// largest of some.
#[must_use]
pub fn sparkline(lags: &[i64], cells: usize) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let each = lags.len().div_ceil(cells.max(1)).max(1);
    let largest = lags.iter().copied().max().unwrap_or(0).max(1);
    // From the end, so that a cell is always full of what is newest.
    let mut shown: Vec<char> = lags
        .rchunks(each)
        .map(|some| {
            let lag = some.iter().copied().max().unwrap_or(0).max(0);
            let bar = usize::try_from(i128::from(lag) * 7 / i128::from(largest)).unwrap_or(0);
            BARS[bar.min(7)]
        })
        .collect();
    shown.reverse();
    shown.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn width(columns: &[(Column, u16)]) -> u16 {
        columns.iter().map(|(_, width)| width + GAP).sum::<u16>() - GAP
    }

    #[test]
    fn what_users_need_most_stays_in_a_small_terminal() {
        let has = |columns: &[(Column, u16)], wanted| columns.iter().any(|(column, _)| *column == wanted);
        for (of, kept) in [
            (140, &ALL[1..]),
            (80, &[Partition, Owner, Phase, Lag, TrendOf, TimeLag, Rate, Eta, Verdict][..]),
            (60, &[Partition, Owner, Lag, TimeLag, Eta, Verdict]),
            (40, &[Partition, Lag, Verdict]),
        ] {
            let columns = fit(of, None, 20);
            assert!(width(&columns) <= of, "{of}: {columns:?}");
            assert!(kept.iter().all(|column| has(&columns, *column)), "{of}: {columns:?}");
        }
        assert!(has(&fit(100, Some(30), 20), Topic));
        assert!(!fit(0, Some(300), 300).is_empty());
    }

    #[test]
    fn an_owner_has_the_room_that_is_left_and_needed() {
        let owner =
            |of, longest| fit(of, None, longest).into_iter().find(|(column, _)| *column == Owner).unwrap().1;
        assert_eq!((owner(200, 24), owner(200, 5)), (24, OWNER_MIN));
        assert!((OWNER_MIN..24).contains(&owner(80, 24)));
    }

    #[test]
    fn a_long_name_keeps_its_end() {
        assert_eq!(tail("genwatch-host-4242", 10), "…host-4242");
        assert_eq!(tail("short", 10), "short");
        assert_eq!(tail("発電機発電機", 5), "…電機");
        assert_eq!(tail("abc", 0), "");
    }

    #[test]
    fn a_sparkline_is_scaled_to_its_largest_lag() {
        assert_eq!(sparkline(&[0, 50, 100], 10), "▁▄█");
        assert_eq!(sparkline(&[0, 0], 10), "▁▁");
        assert_eq!(sparkline(&[], 10), "");
        assert_eq!(sparkline(&(0..30).collect::<Vec<_>>(), 10).chars().count(), 10);
        assert_eq!(sparkline(&[i64::MAX, -5], 0).chars().count(), 1);
    }
}
