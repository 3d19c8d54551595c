//! Shows that the simulation and the properties of aggregates find bugs: each mutation of the pure core, a line or so,
//! must be caught by one that it names, while the core as it stands is caught by none.

use crate::mutants::{Mutants, Mutation};

/// What catches a mutation.
#[derive(Clone, Copy, Debug)]
enum Check {
    /// The simulation of this folder.
    Simulation,
    /// `aggregate.rs`: any log comes to what the batch says.
    Batch,
    /// A cascade comes to what the readings do.
    Cascade,
    /// A cascade of corrections counts each reading once.
    Corrections,
    /// A clock closes the last window of a silent generator.
    Clock,
}

use Check::*;

const MUTATIONS: &[Mutation<Check>] = &[
    Mutation {
        name: "takes_a_reading_at_the_very_end_of_the_grace",
        file: "aggregate/aggregator.rs",
        before: "span.end.saturating_add(self.grace) <= watermark ||",
        after: "span.end.saturating_add(self.grace) < watermark ||",
        caught_by: &[Simulation],
    },
    Mutation {
        name: "closes_a_millisecond_before_the_grace_is_over",
        file: "aggregate/aggregator.rs",
        before: "if oldest.span.end.saturating_add(self.grace) > up_to {",
        after: "if oldest.span.end.saturating_add(self.grace) > up_to.saturating_add(1) {",
        caught_by: &[Clock],
    },
    Mutation {
        name: "judges_lateness_by_the_generators_own_watermark",
        file: "aggregate/downsampler.rs",
        before: "let Place { generator, source, watermark, .. } = *at;",
        after: "let Place { generator, source, watermark, .. } = Place { watermark: Millis::NEVER, ..*at };",
        caught_by: &[Simulation],
    },
    Mutation {
        name: "lets_a_decommissioning_move_the_watermark",
        file: "aggregate/downsampler.rs",
        before: "Task::Decommission => None,",
        after: "Task::Decommission => Some(at),",
        caught_by: &[Simulation],
    },
    Mutation {
        name: "drops_the_open_windows_of_a_decommissioned_generator",
        file: "aggregate/downsampler.rs",
        before: "self.aggregator.finish(generator, state, &mut made);",
        after: "",
        caught_by: &[Simulation],
    },
    Mutation {
        name: "closes_by_the_clock_without_waiting_for_quiet",
        file: "aggregate/downsampler.rs",
        before: "at.quiet.is_some_and(|quiet| quiet >= self.quiet)",
        after: "at.quiet.is_some()",
        caught_by: &[Simulation],
    },
    Mutation {
        name: "doesnt_remember_what_the_clock_has_closed",
        file: "aggregate/aggregator.rs",
        before: "state.closed = state.closed.max(window.span.end);",
        after: "",
        caught_by: &[Clock],
    },
    Mutation {
        name: "compares_a_reading_with_an_old_one",
        file: "aggregate/aggregator.rs",
        before: "                previous.at = at;\n",
        after: "",
        caught_by: &[Simulation],
    },
    Mutation {
        name: "compares_a_reading_with_one_that_is_younger",
        file: "aggregate/aggregator.rs",
        before: "Some(previous) if at < previous.at =>",
        after: "Some(previous) if at < previous.at && false =>",
        caught_by: &[Simulation],
    },
    Mutation {
        name: "takes_the_outlook_when_the_window_closes",
        file: "aggregate/aggregator.rs",
        before: "for window in &mut state.open[..index] {",
        after: "for window in &mut state.open[..0] {",
        caught_by: &[Batch],
    },
    Mutation {
        name: "gives_all_of_a_gap_to_the_later_window",
        file: "aggregate/aggregator.rs",
        before: "let split = if earlier.is_some() { open[index].span.start } else { previous.at };",
        after: "let split = previous.at;",
        caught_by: &[Simulation],
    },
    Mutation {
        name: "forgets_kept_windows_a_window_too_early",
        file: "aggregate/aggregator.rs",
        before: "!self.is_correctable(kept.part.end, watermark));\n        let old",
        after: "!self.is_correctable(kept.part.end, watermark.saturating_add(self.window)));\n        let old",
        caught_by: &[Batch],
    },
    Mutation {
        name: "gives_a_revision_all_of_the_window_as_its_part",
        file: "aggregate/aggregator.rs",
        before: "let added = revision.map(|_| Arc::new(late.clone()));",
        after: "let added = None;",
        caught_by: &[Corrections],
    },
    Mutation {
        name: "forgets_a_generator_that_the_next_reading_is_compared_with",
        file: "aggregate/aggregator.rs",
        before: "&& passed(state.seen)",
        after: "",
        caught_by: &[Simulation],
    },
    Mutation {
        name: "stores_a_state_without_its_latest_time",
        file: "aggregate/state.rs",
        before: "seen: known(state.seen),",
        after: "seen: None,",
        caught_by: &[Batch],
    },
    Mutation {
        name: "forgets_what_held_when_a_partition_moves",
        file: "aggregate/state.rs",
        before: "stored.held.contains(rule)",
        after: "stored.held.contains(rule) && false",
        caught_by: &[Simulation],
    },
    Mutation {
        name: "keeps_the_levels_from_before_a_refuel",
        file: "aggregate/fuel.rs",
        before: "        self.points.clear();\n",
        after: "",
        caught_by: &[Simulation],
    },
    Mutation {
        name: "counts_the_begin_of_a_refuel_as_negative_use",
        file: "aggregate/fuel.rs",
        before: "            used.add(previous);\n            used.add(-self.low);\n",
        after: "",
        caught_by: &[Simulation],
    },
    Mutation {
        name: "rounds_a_sum_before_it_is_merged",
        file: "aggregate/exact_sum.rs",
        before: "for &partial in &other.partials {",
        after: "for partial in other.value() {",
        caught_by: &[Cascade],
    },
    Mutation {
        name: "takes_the_first_of_equal_times_for_the_last",
        file: "aggregate/field.rs",
        before: "if at >= self.last_at {",
        after: "if at > self.last_at {",
        caught_by: &[Simulation],
    },
    Mutation {
        name: "keeps_the_outlook_of_the_earlier_part",
        file: "aggregate/window.rs",
        before: "known <= later.as_of",
        after: "known > later.as_of",
        caught_by: &[Cascade],
    },
    Mutation {
        name: "commits_past_a_reading_that_is_in_no_stored_state",
        file: "pool/partition.rs",
        before: "self.lanes.dirty_from().map_or(watermark, |from| from.min(watermark))",
        after: "watermark",
        caught_by: &[Simulation],
    },
    Mutation {
        name: "commits_an_offset_without_its_watermark",
        file: "pool/partition.rs",
        before: "offset, event_time, effects }",
        after: "offset, event_time: None, effects }",
        caught_by: &[Simulation],
    },
    Mutation {
        name: "commits_the_watermark_of_a_later_offset",
        file: "pool/partition.rs",
        before: "(*offset, Some(*event_time))",
        after: "(*offset, Some(self.event_time.max(*event_time)))",
        caught_by: &[Simulation],
    },
];

#[test]
fn each_mutation_of_aggregates_is_caught() {
    let mutants = Mutants {
        workspace: "mutations_of_aggregates",
        mutations: MUTATIONS,
        core: &["aggregate", "alarm", "engine", "handler", "pool", "reading", "types"],
        dependencies: &[
            r#"base64 = { version = "0.23", default-features = false, features = ["alloc"] }"#,
            r#"proptest = "1""#,
            r#"sketches-ddsketch = "=0.4.2""#,
        ],
        checks: &[("simulation", "downsample/simulation"), ("properties", "aggregate")],
        main: r#"    let simulation: (&str, fn()) = ("Simulation", || simulation::run_from_environment(0));
    let wanted = std::env::var("GENWATCH_MUTANT_CHECKS").ok();
    for (name, check) in [simulation].into_iter().chain(properties::CHECKS) {
        if wanted.as_ref().is_none_or(|wanted| wanted.contains(name)) && std::panic::catch_unwind(check).is_err() {
            eprintln!("caught: by {name}");
            std::process::exit(1);
        }
    }"#,
        says: |check| format!("by {check:?}"),
        opt_level: 0,
        // Most are caught by the first one, the rarest by the fifth.
        seeds: 60,
        unmutated_seeds: 20,
    };
    mutants.are_caught();
}
