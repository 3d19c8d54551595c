//! Draws results as SVG: capacity by workers, throughput by work per reading and by partitions, standstills.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use genwatch_core::numbers::grouped;
use plotters::prelude::*;
use serde_json::Value;

use super::{BenchError, report};

const SIZE: (u32, u32) = (860, 520);
/// Distinct for the colour-blind too (Okabe and Ito, 2008).
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(110, 110, 110),
    RGBColor(0, 0, 0),
];

/// One line of a plot.
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
    /// A theoretical bound, not a measurement.
    is_bound: bool,
}

/// Labels of a plot.
struct Words<'a> {
    title: &'a str,
    x: &'a str,
    y: &'a str,
}

/// The kinds of events, and what their plots are called.
const STANDSTILLS: [(&str, &str); 4] = [
    ("join", "A worker joins"),
    ("leave", "A worker leaves in order"),
    ("kill", "A worker is killed"),
    ("restart", "One of six workers is restarted"),
];

/// Draws the results that the folder holds; returns the files written.
///
/// # Errors
/// When there are none, or a file can't be read or written.
pub fn draw(folder: &Path) -> Result<Vec<PathBuf>, BenchError> {
    let results = report::read(folder)?;
    let of = |benchmark: &str| {
        results.values().filter(|result| result["benchmark"] == benchmark).collect::<Vec<_>>()
    };
    let mut written = Vec::new();
    if let Some(scale) = of("scale").last() {
        let path = folder.join("scale.svg");
        let words =
            Words { title: "Capacity by workers (lag stays flat)", x: "workers", y: "readings a second" };
        chart(&path, &words, &scale_lines(scale), false)?;
        written.push(path);
    }
    let drains = drain_lines(&of("drain"));
    if drains.iter().any(|line| line.points.len() > 1) {
        let path = folder.join("work.svg");
        let words = Words {
            title: "Throughput of one worker by work per reading",
            x: "work per reading, ms",
            y: "readings a second (log)",
        };
        chart(&path, &words, &drains, true)?;
        written.push(path);
    }
    if let Some(partitions) = of("partitions").last() {
        let path = folder.join("partitions.svg");
        let points = points(partitions, "partitions", "records_per_s");
        let lines = [Line { name: "genwatch".to_owned(), points, is_bound: false }];
        let words = Words {
            title: "Throughput of one worker by partitions",
            x: "partitions",
            y: "readings a second",
        };
        chart(&path, &words, &lines, false)?;
        written.push(path);
    }
    if let Some(rebalance) = of("rebalance").last() {
        for (event, title) in STANDSTILLS {
            let lines = standstill_lines(rebalance, event);
            if lines.is_empty() {
                continue;
            }
            let path = folder.join(format!("rebalance-{event}.svg"));
            let words =
                Words { title, x: "part of the events, %", y: "standstill of the worst partition, ms" };
            chart(&path, &words, &lines, false)?;
            written.push(path);
        }
    }
    if written.is_empty() {
        let reason =
            "no results to draw: run `genwatch bench scale`, `drain`, `partitions` or `rebalance` first"
                .to_owned();
        return Err(BenchError::File { path: folder.display().to_string(), reason });
    }
    Ok(written)
}

fn points(result: &Value, x: &str, y: &str) -> Vec<(f64, f64)> {
    let rows = result["results"].as_array().into_iter().flatten();
    rows.filter_map(|row| Some((row[x].as_f64()?, row[y].as_f64()?))).collect()
}

/// One line per contender: in which part of the events the standstill was no longer than this.
fn standstill_lines(result: &Value, event: &str) -> Vec<Line> {
    let mut standstills: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for run in result["runs"].as_array().into_iter().flatten().filter(|run| run["event"] == event) {
        if let (Some(name), Some(ms)) = (run["contender"].as_str(), run["moved_ms"].as_f64()) {
            standstills.entry(name).or_default().push(ms);
        }
    }
    let line = |(name, mut all): (&str, Vec<f64>)| {
        all.sort_by(f64::total_cmp);
        let part = |place: usize| 100.0 * (place + 1) as f64 / all.len() as f64;
        let points = all.iter().enumerate().map(|(place, ms)| (part(place), *ms)).collect();
        Line { name: name.to_owned(), points, is_bound: false }
    };
    let mut lines: Vec<Line> = standstills.into_iter().map(line).collect();
    lines.sort_by_key(|line| !line.name.starts_with("genwatch"));
    lines
}

fn scale_lines(scale: &Value) -> Vec<Line> {
    let measured = points(scale, "replicas", "capacity_per_s");
    let single = measured.first().map_or(0.0, |(replicas, capacity)| capacity / replicas);
    let bound = points(scale, "replicas", "skew_bound");
    let ideal = measured.iter().map(|(replicas, _)| (*replicas, single * replicas)).collect();
    let bound = bound.iter().map(|(replicas, bound)| (*replicas, single * replicas * bound)).collect();
    vec![
        Line { name: "genwatch".to_owned(), points: measured, is_bound: false },
        Line { name: "one worker times n".to_owned(), points: ideal, is_bound: true },
        Line { name: "what the skew of the keys allows".to_owned(), points: bound, is_bound: true },
    ]
}

/// One line per contender, over all drains with any amount of work.
fn drain_lines(drains: &[&Value]) -> Vec<Line> {
    let mut lines: BTreeMap<String, BTreeMap<u64, f64>> = BTreeMap::new();
    for drain in drains {
        let Some(work) = drain["configuration"]["work_ms"].as_f64() else { continue };
        for row in drain["results"].as_array().into_iter().flatten() {
            let (Some(name), Some(rate)) = (row["contender"].as_str(), row["records_per_s"].as_f64()) else {
                continue;
            };
            lines.entry(name.to_owned()).or_default().insert((work * 1e3) as u64, rate);
        }
    }
    let line = |(name, points): (String, BTreeMap<u64, f64>)| Line {
        name,
        points: points.into_iter().map(|(micros, rate)| (micros as f64 / 1e3, rate)).collect(),
        is_bound: false,
    };
    let mut lines: Vec<Line> = lines.into_iter().map(line).collect();
    // genwatch first, then by name.
    lines.sort_by_key(|line| !line.name.starts_with("genwatch"));
    lines
}

fn chart(path: &Path, words: &Words<'_>, lines: &[Line], log: bool) -> Result<(), BenchError> {
    let all = || lines.iter().flat_map(|line| &line.points);
    let right = all().map(|(x, _)| *x).fold(0.0, f64::max) * 1.05;
    let top = all().map(|(_, y)| *y).fold(0.0, f64::max);
    let bottom = all().map(|(_, y)| *y).fold(f64::INFINITY, f64::min);
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE).map_err(|error| BenchError::file(path, error))?;
    let mut builder = ChartBuilder::on(&root);
    builder.margin(16).x_label_area_size(42).y_label_area_size(84);
    builder.caption(words.title, ("sans-serif", 20));
    // The two kinds of axes are two types.
    macro_rules! draw {
        ($y:expr) => {{
            let mut chart =
                builder.build_cartesian_2d(0.0..right, $y).map_err(|error| BenchError::file(path, error))?;
            chart
                .configure_mesh()
                .light_line_style(TRANSPARENT)
                .bold_line_style(RGBColor(225, 225, 225))
                .x_desc(words.x)
                .y_desc(words.y)
                .y_label_formatter(&|value: &f64| grouped(*value))
                .x_label_formatter(&|value: &f64| format!("{value}"))
                .label_style(("sans-serif", 14))
                .draw()
                .map_err(|error| BenchError::file(path, error))?;
            for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
                let width = if line.is_bound { 1 } else { 3 };
                let style = colour.stroke_width(width);
                chart
                    .draw_series(LineSeries::new(line.points.iter().copied(), style))
                    .map_err(|error| BenchError::file(path, error))?
                    .label(line.name.as_str())
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
                let dots = line.points.iter().filter(|_| !line.is_bound);
                chart
                    .draw_series(dots.map(|point| Circle::new(*point, 4, colour.filled())))
                    .map_err(|error| BenchError::file(path, error))?;
            }
            chart
                .configure_series_labels()
                .position(if log { SeriesLabelPosition::UpperRight } else { SeriesLabelPosition::UpperLeft })
                .background_style(WHITE.mix(0.9))
                .border_style(RGBColor(200, 200, 200))
                .label_font(("sans-serif", 14))
                .draw()
                .map_err(|error| BenchError::file(path, error))?;
        }};
    }
    if log {
        // Room for the legend above the lines.
        draw!((bottom * 0.7..top * 40.0).log_scale());
    } else {
        draw!(0.0..top * 1.1);
    }
    root.present().map_err(|error| BenchError::file(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_become_plots_and_an_empty_folder_is_said_to_be_one() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(draw(folder.path()).is_err());
        let scale = serde_json::json!({
            "benchmark": "scale",
            "results": [
                {"replicas": 1, "capacity_per_s": 480, "skew_bound": 1.0},
                {"replicas": 2, "capacity_per_s": 900, "skew_bound": 0.97},
            ],
        });
        std::fs::write(folder.path().join("scale.json"), scale.to_string()).expect("written");
        let written = draw(folder.path()).expect("drawn");
        let svg = std::fs::read_to_string(&written[0]).expect("a plot");
        assert!(svg.starts_with("<svg") && svg.contains("what the skew of the keys allows"), "{svg}");
        assert_eq!(grouped(1_250_000.0), "1,250,000");
    }
}
