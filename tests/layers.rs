//! The core stays pure: what `ARCHITECTURE.md` says its modules must not know, they don't.

#![allow(clippy::expect_used, missing_docs)]

use std::path::{Path, PathBuf};

const PURE: [&str; 13] = [
    "log.rs",
    "effect.rs",
    "reading",
    "alarm",
    "pool",
    "simulator",
    "mqtt/topic.rs",
    "mqtt/message.rs",
    "mqtt/unacked.rs",
    "influx/line.rs",
    "influx/batch.rs",
    "influx/ledger.rs",
    "influx/verdict.rs",
];
const FOREIGN: [&str; 9] = [
    "rdkafka",
    "tokio",
    "crossbeam",
    "std::thread",
    "Instant::now",
    "SystemTime",
    "rand::rng",
    "thread_rng",
    "tracing",
];

fn sources(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = std::fs::read_dir(path).expect("a folder of sources");
    entries.flat_map(|entry| sources(&entry.expect("an entry").path())).collect()
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

#[test]
fn the_core_knows_no_kafka_clock_thread_or_global_randomness() {
    for file in
        PURE.iter().flat_map(|part| sources(&src().join(part))).filter(|file| !file.ends_with("tests.rs"))
    {
        let text = std::fs::read_to_string(&file).expect("readable");
        let code = text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
        for (index, line) in code {
            let found = FOREIGN.iter().find(|word| line.contains(**word));
            assert!(found.is_none(), "{}:{}: {found:?} in: {line}", file.display(), index + 1);
        }
    }
}

/// Files outside of `src/kafka` that know rdkafka, as `ARCHITECTURE.md` lists them.
const KNOW_RDKAFKA: [&str; 7] = [
    "bench/bare.rs",
    "bench/mod.rs",
    "bench/report.rs",
    "demo/broker.rs",
    "mqtt/bridge.rs",
    "worker/config.rs",
    "worker/watch.rs",
];

#[test]
fn nobody_else_knows_rdkafka() {
    for file in sources(&src()).into_iter().filter(|file| !file.starts_with(src().join("kafka"))) {
        let name = file.strip_prefix(src()).expect("a source").to_str().expect("UTF-8");
        let text = std::fs::read_to_string(&file).expect("readable");
        let knows =
            text.lines().any(|line| !line.trim_start().starts_with("//") && line.contains("rdkafka::"));
        assert!(!knows || KNOW_RDKAFKA.contains(&name), "{name} isn't listed in ARCHITECTURE.md");
    }
}

#[test]
fn unsafe_code_is_in_one_module() {
    let allows =
        |file: &PathBuf| std::fs::read_to_string(file).expect("readable").contains("allow(unsafe_code)");
    let found: Vec<_> = sources(&src()).into_iter().filter(allows).collect();
    assert_eq!(found, [src().join("kafka").join("native").join("mod.rs")]);
}
