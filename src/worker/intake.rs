//! Records on their way from a batch to the engine: parsed and taken in, by one thread or several.
//!
//! Partitions share nothing while records are taken in ([`Intake`]). So with `--threads` each partition's part of a batch is
//! one job, and threads take the jobs in turn, the largest first. When all are done, the loop goes on alone: commits,
//! rebalances and restores never meet a record under way.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use genwatch_core::engine::Engine;
use genwatch_core::handler::effect::DeadLetter;
use genwatch_core::handler::{Handler, Incoming};
use genwatch_core::pool::intake::Intake;
use genwatch_core::reading::ErrorCode;
use genwatch_core::types::PartitionId;
use genwatch_kafka::consumer::{Record, Run};

use super::Observed;

/// With fewer records in a batch, other threads aren't worth waking.
const SHARED_FROM: usize = 2048;

/// What became of a partition's records.
pub(super) struct Taken {
    pub records: usize,
    /// The bad ones: which of them, and what is wrong.
    pub bad: Vec<(usize, ErrorCode)>,
}

/// Takes in these runs, each partition's in their order, on so many threads. `keeps_letters`: bad records become dead
/// letters.
pub(super) fn take_in<H: Observed>(
    engine: &mut Engine<H>,
    mut runs: BTreeMap<PartitionId, Vec<Run<'_>>>,
    keeps_letters: bool,
    threads: usize,
) -> Vec<Taken> {
    let size = |runs: &[Run<'_>]| runs.iter().map(Run::len).sum::<usize>();
    let records: usize = runs.values().map(|runs| size(runs)).sum();
    let intakes = engine.intakes();
    let jobs = intakes.filter_map(|intake| Some((runs.remove(&intake.partition())?, intake)));
    if threads == 1 || records < SHARED_FROM {
        return jobs.map(|(runs, intake)| take_in_runs(intake, &runs, keeps_letters)).collect();
    }
    let mut jobs: Vec<_> = jobs.collect();
    jobs.sort_by_key(|(runs, _)| size(runs));
    let helpers = (threads - 1).min(jobs.len().saturating_sub(1));
    let jobs = Mutex::new(jobs);
    let next = || jobs.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let work = || {
        let mut taken = Vec::new();
        while let Some((runs, intake)) = next() {
            taken.push(take_in_runs(intake, &runs, keeps_letters));
        }
        taken
    };
    std::thread::scope(|scope| {
        let helpers: Vec<_> = (0..helpers).map(|_| scope.spawn(work)).collect();
        let mut taken = work();
        for helper in helpers {
            match helper.join() {
                Ok(more) => taken.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        taken
    })
}

fn take_in_runs<H: Handler>(mut intake: Intake<'_, H>, runs: &[Run<'_>], keeps_letters: bool) -> Taken {
    let mut taken = Taken { records: 0, bad: Vec::new() };
    for record in runs.iter().flat_map(Run::records) {
        if let Err(code) = take_in_record(&mut intake, &record, keeps_letters) {
            taken.bad.push((taken.records, code));
        }
        taken.records += 1;
    }
    taken
}

/// Parses a record and gives it to the engine: to its generator's lane or, if it's bad, as a dead letter, if those are
/// kept here.
///
/// # Errors
/// With what is wrong with a bad one.
#[inline(always)]
fn take_in_record<H: Handler>(
    intake: &mut Intake<'_, H>,
    record: &Record<'_>,
    keeps_letters: bool,
) -> Result<(), ErrorCode> {
    let (partition, offset, timestamp) = (record.partition, record.offset, record.timestamp);
    let header = |name: &str| {
        let found = record.headers().into_iter().rev().find(|(header, _)| header == name);
        found.and_then(|(_, value)| value)
    };
    let incoming = Incoming { key: record.key, value: record.value, header: &header };
    match intake.handler().parse(&incoming) {
        Ok((generator, task)) => {
            let epoch = || record.epoch();
            intake.take_in(offset, timestamp, generator, task, record.bytes(), epoch);
            Ok(())
        }
        Err(error) => {
            let code = error.code;
            if keeps_letters {
                intake.take_in_bad(DeadLetter {
                    partition,
                    offset,
                    timestamp,
                    key: record.key.map(<[u8]>::to_vec),
                    value: record.value.map(<[u8]>::to_vec),
                    headers: record.headers(),
                    error,
                });
            } else {
                intake.skip(offset, timestamp);
            }
            Err(code)
        }
    }
}
