//! A status as plain lines: a table, for pipes and for one look.

use std::io::{self, Write};

use super::document::{Gone, OwnersFrom, PartitionStatus, Status};
use super::words;
use crate::cli::printable;

/// A column: its heading, whether its texts are to the right, and the texts.
struct Column {
    heading: &'static str,
    right: bool,
    least: usize,
    cells: Vec<String>,
}

/// Prints the table, with the time if the group is watched.
///
/// # Errors
/// When it can't be written.
pub fn print(out: &mut impl Write, status: &Status) -> io::Result<()> {
    let names: Vec<&str> = status.topics().map(|of| of.topic.as_str()).collect();
    if let Some(at) = status.at {
        write!(out, "{}  ", words::time(at))?;
    }
    let several = names.len() > 1;
    writeln!(out, "group {}, topic{} {}", status.group, if several { "s" } else { "" }, names.join(", "))?;
    let columns = columns(status, several);
    let line = |text: &dyn Fn(&Column) -> String| {
        let mut line = String::new();
        for column in &columns {
            let wide = column.cells.iter().map(|cell| cell.chars().count()).max().unwrap_or(0);
            let wide = wide.max(column.least);
            let text = text(column);
            line += &if column.right { format!("{text:>wide$}  ") } else { format!("{text:wide$}  ") };
        }
        line.truncate(line.trim_end().len());
        line
    };
    writeln!(out, "{}", line(&|column| column.heading.to_owned()))?;
    for row in 0..status.partitions().count() {
        writeln!(out, "{}", line(&|column| column.cells.get(row).cloned().unwrap_or_default()))?;
    }
    if status.at.is_none() {
        return writeln!(out, "lag in all: {}", status.lag());
    }
    let (arrivals, processed) = status.rates().unzip();
    writeln!(
        out,
        "lag in all: {}, arrivals {}/s, processed {}/s, ETA {}",
        status.lag(),
        words::known(arrivals, words::rate),
        words::known(processed, words::rate),
        words::gone(status.gone.unwrap_or(Gone(None)))
    )?;
    if let OwnersFrom::MembersAt(at) = status.owners_from {
        writeln!(out, "{}", note(&status.group, at))?;
    }
    Ok(())
}

/// Says that owners are not from workers' own reports.
#[must_use]
pub fn note(group: &str, at: genwatch_core::types::Millis) -> String {
    format!("owners as of {}: nobody reports them in {group}_workers", words::clock(at))
}

fn columns(status: &Status, several: bool) -> Vec<Column> {
    let all: Vec<(&str, &PartitionStatus)> = status.partitions().collect();
    let column = |heading, right, least: usize, cell: &dyn Fn(&str, &PartitionStatus) -> String| Column {
        heading,
        right,
        least: least.max(heading.len()),
        cells: all.iter().map(|(topic, partition)| cell(topic, partition)).collect(),
    };
    let mut columns = Vec::new();
    if several {
        columns.push(column("TOPIC", false, 0, &|topic, _| topic.to_owned()));
    }
    columns.extend([
        column("PARTITION", true, 0, &|_, p| p.partition.to_string()),
        // Any member of the group chooses its own name.
        column("OWNER", false, 0, &|_, p| {
            printable(p.owner.as_deref().unwrap_or(words::UNKNOWN)).into_owned()
        }),
        column("COMMITTED", true, 12, &|_, p| words::known(p.committed, |offset| offset.to_string())),
        column("END", true, 12, &|_, p| p.end.to_string()),
        column("LAG", true, 10, &|_, p| p.lag.to_string()),
        column("TIME LAG", true, 9, &|_, p| format!("{:.1}s", p.time_lag_ms as f64 / 1000.0)),
    ]);
    if status.at.is_some() {
        let movement = |p: &PartitionStatus| p.movement.clone();
        columns.extend([
            column("TREND", false, 7, &|_, p| {
                words::known(movement(p).and_then(|of| of.trend), |trend| words::trend(trend).to_owned())
            }),
            column("ARRIVALS/S", true, 0, &|_, p| {
                words::known(movement(p).and_then(|of| of.arrivals), words::rate)
            }),
            column("PROCESSED/S", true, 0, &|_, p| {
                words::known(movement(p).and_then(|of| of.processed), words::rate)
            }),
            column("ETA", true, 6, &|_, p| words::known(movement(p), |of| words::gone(of.gone))),
        ]);
    }
    columns.push(column("VERDICT", false, 0, &|_, p| p.verdict.as_str().to_owned()));
    columns
}

#[cfg(test)]
mod tests {
    use genwatch_core::lag::{Eta, Trend, Verdict};
    use genwatch_core::types::{Millis, Offset, PartitionId};

    use super::*;
    use crate::status::document::{Movement, TopicStatus};

    fn partition(owner: Option<&str>) -> PartitionStatus {
        PartitionStatus {
            partition: PartitionId(0),
            owner: owner.map(str::to_owned),
            committed: None,
            end: Offset(10),
            lag: 10,
            time_lag_ms: 1500,
            verdict: Verdict::Behind,
            movement: None,
            lags: Vec::new(),
        }
    }

    fn printed(status: &Status) -> String {
        let mut shown = Vec::new();
        print(&mut shown, status).unwrap();
        String::from_utf8(shown).unwrap()
    }

    fn status(partition: PartitionStatus) -> Status {
        Status::new("g", vec![TopicStatus { topic: "t".to_owned(), partitions: vec![partition] }])
    }

    #[test]
    fn one_look_has_the_columns_that_it_always_had() {
        let shown = printed(&status(partition(None)));
        let expected = "\
group g, topic t
PARTITION  OWNER     COMMITTED           END         LAG   TIME LAG  VERDICT
        0  -                 -            10          10       1.5s  BEHIND
lag in all: 10
";
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_watched_group_has_trend_rates_and_eta() {
        let mut of = partition(Some("me"));
        of.movement = Some(Movement {
            arrivals: Some(100.0),
            processed: Some(150.0),
            trend: Some(Trend::Falling),
            gone: Gone(Some(Eta::Seconds(190.0))),
            phase: None,
        });
        let mut status = status(of);
        status.at = Some(Millis(1_766_400_000_000));
        status.gone = Some(Gone(Some(Eta::Seconds(190.0))));
        status.owners_from = OwnersFrom::MembersAt(Millis(1_766_400_000_000));
        let shown = printed(&status);
        let expected = "\
2025-12-22T10:40:00Z  group g, topic t
PARTITION  OWNER     COMMITTED           END         LAG   TIME LAG  TREND    ARRIVALS/S  PROCESSED/S     ETA  VERDICT
        0  me                -            10          10       1.5s  falling         100          150   3m10s  BEHIND
lag in all: 10, arrivals 100/s, processed 150/s, ETA 3m10s
owners as of 10:40:00Z: nobody reports them in g_workers
";
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_client_id_with_escape_sequences_is_shown_and_not_done() {
        let shown = printed(&status(partition(Some("me\u{1b}[2J\nOK"))));
        assert!(shown.contains("me\\u{1b}[2J\\u{a}OK  "), "{shown}");
        assert!(!shown.contains('\u{1b}'), "{shown}");
        assert_eq!(shown.lines().count(), 4, "{shown}");
    }
}
