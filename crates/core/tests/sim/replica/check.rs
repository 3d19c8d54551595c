//! What must hold of one replica between two turns: its pool against its ledgers, its bounds.

use super::{Replica, Surroundings};
use crate::invariants::{Violation, ensure};
use crate::ledger::{Ledger, Stage};

/// What a record takes at most, as a dead letter too.
const MAX_RECORD_BYTES: usize = 500;

impl Replica {
    /// What must hold between two turns.
    pub(super) fn check(&self, around: &Surroundings<'_>) -> Result<(), Violation> {
        let scenario = around.scenario;
        let live = self.work.iter().filter(|work| !work.void).count();
        let running = self.engine.pool().running();
        ensure!(running == live, Counts, "the pool says that {running} readings run, {live} do");
        let concurrency = self.lanes.unwrap_or(0);
        ensure!(live <= concurrency, Bounds, "{live} readings run at once, {concurrency} may");
        let in_flight: usize = self.ledgers.values().map(Ledger::in_flight).sum();
        let held = self.engine.pool().in_flight();
        ensure!(
            held >= in_flight,
            Counts,
            "the pool says that {held} records are in flight, {in_flight} are"
        );
        if live < concurrency {
            let idle = self.ledgers.iter().find_map(|(id, ledger)| Some((id, ledger.idle_generator()?)));
            ensure!(
                idle.is_none(),
                HeadOfLine,
                "{idle:?} waits, though only {live} of {concurrency} readings run"
            );
        }
        for (id, fetch) in &self.client.fetched {
            let (Some(ledger), Some(load)) = (self.ledgers.get(id), self.loads.get(id)) else { continue };
            let full = load.full && ledger.stage() == Stage::Working && ledger.in_flight() >= self.share();
            ensure!(
                !full || fetch.paused,
                Bounds,
                "partition {id} holds {} records, its share is {}, and it isn't paused",
                ledger.in_flight(),
                self.share()
            );
        }
        // Each partition may have filled its share when there were fewer partitions to share with, and then a batch came.
        let shares: usize = (1..=scenario.partitions).map(|n| (scenario.bounds.bytes / n).max(1)).sum();
        // What was in flight at that time has its effects still to come.
        let record = scenario.effect_bytes() + MAX_RECORD_BYTES;
        let backlog: usize = self.loads.values().map(|load| load.backlog).sum();
        // All generators may fall silent at once, and be forgotten at once, and nobody reads less for it.
        let times =
            usize::from(scenario.silent_for().is_some()) + usize::from(scenario.forget_after.is_some());
        let silent = times * scenario.partitions * scenario.generators;
        let slack = scenario.partitions * (scenario.batch + 1) * record
            + (backlog + silent) * scenario.effect_bytes();
        let bytes = self.engine.pool().bytes();
        ensure!(
            bytes <= shares + slack,
            Bounds,
            "{bytes} bytes are held, {shares} are allowed and {slack} of slack"
        );
        Ok(())
    }
}
