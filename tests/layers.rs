//! The layering rules of `ARCHITECTURE.md` that Cargo doesn't enforce.
//!
//! Cargo enforces most: `genwatch_core` can't name a Kafka client, a runtime or a logger, because none is a dependency
//! of it.

#![allow(clippy::expect_used, missing_docs)]

use std::path::{Path, PathBuf};

/// Files without I/O, in the folders of services.
const PURE: [&str; 36] = [
    "mqtt/topic.rs",
    "mqtt/message.rs",
    "mqtt/unacked.rs",
    "mqtt/share.rs",
    "sink/batch.rs",
    "sink/offsets.rs",
    "sink/influx/line_protocol.rs",
    "sink/influx/response.rs",
    "sink/influx/transformed.rs",
    "influx/answer.rs",
    "source/cursor.rs",
    "source/record.rs",
    "source/seen.rs",
    "source/slices.rs",
    "source/time.rs",
    "source/influx/annotated_csv.rs",
    "source/influx/json_lines.rs",
    "source/influx/query.rs",
    "status/document.rs",
    "status/history.rs",
    "status/lines.rs",
    "status/roster.rs",
    "status/screen/chart.rs",
    "status/screen/columns.rs",
    "status/screen/draw.rs",
    "status/screen/state.rs",
    "status/watched.rs",
    "dashboard/model/alerts.rs",
    "dashboard/model/fleet.rs",
    "dashboard/model/history.rs",
    "dashboard/model/names.rs",
    "dashboard/model/progress.rs",
    "dashboard/model/rules.rs",
    "dashboard/model/time_index.rs",
    "dashboard/model/timeline.rs",
    "dashboard/model/workers.rs",
];
const FOREIGN: [&str; 9] = [
    "genwatch_kafka",
    "tokio",
    "crossbeam",
    "std::thread",
    "Instant::now",
    "SystemTime",
    "rand::rng",
    "thread_rng",
    "tracing",
];
/// The standard library's clocks, threads and processes: Cargo can't keep them from `genwatch_core`.
const IMPURE: [&str; 5] = ["std::thread", "Instant::now", "SystemTime", "std::net", "std::process"];

fn sources(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = std::fs::read_dir(path).expect("a folder of sources");
    entries.flat_map(|entry| sources(&entry.expect("an entry").path())).collect()
}

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The lines of code in a file, without its unit tests, which come last.
fn code(file: &Path) -> Vec<(usize, String)> {
    let text = std::fs::read_to_string(file).expect("readable");
    let lines = text.lines().enumerate().take_while(|(_, line)| line.trim() != "#[cfg(test)]");
    let code = lines.filter(|(_, line)| !line.trim_start().starts_with("//"));
    code.map(|(index, line)| (index + 1, line.to_owned())).collect()
}

/// Fails if one of the files contains one of these words.
fn none_has(files: impl IntoIterator<Item = PathBuf>, words: &[&str]) {
    for file in files {
        for (number, line) in code(&file) {
            let found = words.iter().find(|word| line.contains(**word));
            assert!(found.is_none(), "{}:{number}: {found:?} in: {line}", file.display());
        }
    }
}

#[test]
fn the_core_knows_no_clock_thread_or_socket() {
    let all = sources(&project().join("crates/core/src"));
    none_has(all.into_iter().filter(|file| !file.ends_with("tests.rs")), &IMPURE);
}

#[test]
fn the_pure_parts_of_services_stay_pure() {
    let all = PURE.iter().flat_map(|part| sources(&project().join("src").join(part)));
    none_has(all.filter(|file| !file.ends_with("tests.rs")), &FOREIGN);
}

/// The crate carries records as bytes: their meaning is the business of core and services.
#[test]
fn the_clients_of_kafka_know_no_alarm() {
    let words = ["genwatch_core::alarm", "genwatch_core::reading", "genwatch_core::simulator", "alarm::"];
    none_has(sources(&project().join("crates/kafka/src")), &words);
}

#[test]
fn the_command_line_alone_knows_clap() {
    let all = ["src", "crates/bench/src", "crates/core/src", "crates/kafka/src", "crates/oracle/src"];
    let all = all.iter().flat_map(|folder| sources(&project().join(folder)));
    let cli = project().join("src/cli");
    none_has(all.filter(|file| !file.starts_with(&cli)), &["clap::", "use clap"]);
}

#[test]
fn the_runtime_of_sinks_knows_no_store() {
    let all = sources(&project().join("src/sink"));
    let own = all.into_iter().filter(|file| !file.starts_with(project().join("src/sink/influx")));
    none_has(own, &["influx::", "InfluxDB", "ureq"]);
}

/// The oracle judges all other crates, so it must not depend on any of them.
#[test]
fn the_oracle_depends_on_nothing_of_ours() {
    let manifest = std::fs::read_to_string(project().join("crates/oracle/Cargo.toml")).expect("readable");
    let ours = manifest.lines().find(|line| line.starts_with("genwatch-"));
    assert_eq!(ours, None);
}

/// Tests have their own clients, because they judge ours.
#[test]
fn only_the_clients_and_the_baseline_know_rdkafka() {
    let names = |line: &str| {
        // Not the simulation's model, which is `librdkafka::`.
        let mut found = line.match_indices("rdkafka::");
        found.any(|(at, _)| !line[..at].ends_with(char::is_alphanumeric))
    };
    let knows = |file: &PathBuf| code(file).iter().any(|(_, line)| names(line));
    let all = ["src", "crates/core", "crates/bench/src", "crates/oracle", "examples"];
    let all = all.iter().map(|folder| project().join(folder)).filter(|folder| folder.exists());
    let found: Vec<_> = all.flat_map(|folder| sources(&folder)).filter(|file| is_rust(file)).collect();
    let found: Vec<_> = found.into_iter().filter(knows).collect();
    assert_eq!(found, [project().join("crates/bench/src/bare.rs")]);
}

#[test]
fn unsafe_code_is_in_one_module() {
    let allows =
        |file: &PathBuf| std::fs::read_to_string(file).expect("readable").contains("allow(unsafe_code)");
    let all = ["src", "crates/bench/src", "crates/core/src", "crates/kafka/src", "crates/oracle/src"];
    let all = all.iter().flat_map(|folder| sources(&project().join(folder)));
    let found: Vec<_> = all.filter(allows).collect();
    assert_eq!(found, [project().join("crates/kafka/src/native/mod.rs")]);
}

fn is_rust(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "rs")
}
