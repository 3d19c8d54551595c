//! A plan as people read it: what was measured, what each limit allows, and two sentences.

use std::fmt::Write as _;

use genwatch_core::numbers::{count, grouped};
use genwatch_core::plan::{Measurements, Plan};

use crate::status::words::percent;

/// Renders it.
#[must_use]
pub fn table(measurements: &Measurements, plan: &Plan) -> String {
    let mut text = String::new();
    // Writing to a string can't fail.
    let _ = write(&mut text, measurements, plan);
    text
}

fn write(text: &mut String, measurements: &Measurements, plan: &Plan) -> std::fmt::Result {
    let measured = &plan.measured;
    writeln!(
        text,
        "{}, {}: {} readings/s arrive, {} are processed, {} wait\n",
        count(measured.partitions, "partition"),
        count(measured.replicas, "worker"),
        grouped(measured.arrival),
        grouped(measured.rate),
        grouped(measured.lag)
    )?;
    writeln!(
        text,
        "{:<28}{:>12}{:>8}{:>8}{:>8}{:>12}{:>12}",
        "worker", "readings/s", "loop", "lanes", "cores", "work", "partitions"
    )?;
    for (index, worker) in measurements.workers.iter().enumerate() {
        let held = measurements.partitions.iter().filter(|load| load.worker == Some(index)).count();
        let lanes = if worker.lanes == 0 { "-".to_owned() } else { percent(worker.lanes_busy) };
        let work = if worker.work > 0.0 { format!("{:.2} ms", worker.work * 1e3) } else { "-".to_owned() };
        writeln!(
            text,
            "{:<28}{:>12}{:>8}{:>8}{:>8.2}{:>12}{:>12}",
            worker.name,
            grouped(worker.rate),
            percent(worker.loop_busy),
            lanes,
            worker.cpu,
            work,
            held
        )?;
    }
    writeln!(text, "\n{:<28}{:>12}", "limit", "readings/s")?;
    for bound in &plan.limits {
        let mark = if bound.limit == plan.binding.limit { "  binds" } else { "" };
        writeln!(text, "{:<28}{:>12}{mark}", bound.limit.as_str(), grouped(bound.capacity))?;
    }
    writeln!(text)?;
    plan.sentences().iter().try_for_each(|sentence| writeln!(text, "{sentence}"))?;
    match plan.drain_seconds {
        _ if measured.lag < measured.rate => Ok(()),
        Some(seconds) => writeln!(text, "What waits is worked off in {seconds:.0} s."),
        None => writeln!(text, "What waits is never worked off: more arrives than can be processed."),
    }
}
