//! Checks one worker between two turns: its pool against its ledgers, and its bounds.

use super::{Replica, Surroundings};
use crate::invariants::{Violation, ensure};
use crate::ledger::{Ledger, Stage};

/// The most bytes of a record, even as a dead letter.
const MAX_RECORD_BYTES: usize = 500;

impl Replica {
    /// Checks what must hold between two turns.
    pub(super) fn check(&self, around: &Surroundings<'_>) -> Result<(), Violation> {
        let scenario = around.scenario;
        let live = self.work.iter().filter(|work| !work.void).count();
        let running = self.engine.pool().running();
        ensure!(running == live, Counts, "the pool says that {running} readings run, but {live} do");
        let concurrency = self.lanes.unwrap_or(0);
        ensure!(live <= concurrency, Bounds, "{live} readings run at once, but {concurrency} may");
        let in_flight: usize = self.ledgers.values().map(Ledger::in_flight).sum();
        let held = self.engine.pool().in_flight();
        ensure!(
            held >= in_flight,
            Counts,
            "the pool says that {held} records are in flight, but {in_flight} are"
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
        // Each partition may have filled its share when fewer partitions shared the bounds, and then got another
        // batch.
        let shares: usize = (1..=scenario.partitions).map(|n| (scenario.bounds.bytes / n).max(1)).sum();
        // Records that were in flight then have yet to produce their effects.
        let record = scenario.effect_bytes() + MAX_RECORD_BYTES;
        let backlog: usize = self.loads.values().map(|load| load.backlog).sum();
        // All generators may fall silent at once, and be forgotten at once; no worker reads less because of it.
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
