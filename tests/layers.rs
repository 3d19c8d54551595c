//! The core stays pure: what `ARCHITECTURE.md` says its modules must not know, they don't.

#![allow(clippy::expect_used, missing_docs)]

use std::path::{Path, PathBuf};

const PURE: [&str; 8] = [
    "mqtt/topic.rs",
    "mqtt/message.rs",
    "mqtt/unacked.rs",
    "mqtt/share.rs",
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
/// Modules of the shell: the core must not reach them either, by whatever path.
const SHELL: [&str; 20] = [
    "bench",
    "cli",
    "clock",
    "demo",
    "fleet",
    "flood",
    "health",
    "kafka",
    "metrics",
    "rate",
    "stderr",
    "web",
    "work",
    "worker",
    // Of `mqtt` and `influx` what is not pure.
    "bridge",
    "broker",
    "client",
    "config",
    "log_limit",
    "writer",
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
            let shell = SHELL.iter().find(|module| reaches(line, module));
            assert!(shell.is_none(), "{}:{}: the core reaches {shell:?}: {line}", file.display(), index + 1);
        }
    }
}

/// Files and folders outside of `src/kafka` that know rdkafka, as `ARCHITECTURE.md` lists them.
const KNOW_RDKAFKA: [&str; 5] =
    ["bench/", "demo/broker.rs", "mqtt/bridge", "worker/config.rs", "worker/watch.rs"];

#[test]
fn nobody_else_knows_rdkafka() {
    for file in sources(&src()).into_iter().filter(|file| !file.starts_with(src().join("kafka"))) {
        let name = file.strip_prefix(src()).expect("a source").to_str().expect("UTF-8");
        let text = std::fs::read_to_string(&file).expect("readable");
        let knows =
            text.lines().any(|line| !line.trim_start().starts_with("//") && line.contains("rdkafka::"));
        let listed = KNOW_RDKAFKA.iter().any(|place| name.starts_with(place));
        assert!(!knows || listed, "{name} isn't listed in ARCHITECTURE.md");
    }
}

/// Whether a line of code names this module of the crate: `crate::kafka::…`, `super::config::…`, `use crate::{kafka, …}`.
fn reaches(line: &str, module: &str) -> bool {
    let path = ["crate::", "super::", "{", ", "]
        .iter()
        .flat_map(|before| line.match_indices(before).map(move |(at, before)| &line[at + before.len()..]));
    let is_import = line.trim_start().starts_with("use ") || line.trim_start().starts_with("pub use ");
    path.filter_map(|rest| rest.strip_prefix(module))
        .any(|rest| rest.starts_with("::") || is_import && rest.starts_with([',', ';', '}']))
}

#[test]
fn a_way_into_the_shell_is_seen_however_it_is_written() {
    for line in [
        "use crate::kafka::config::Connection;",
        "use crate::{kafka, log};",
        "use crate::{log, kafka::tail};",
        "    let client = crate::kafka::admin::Cluster::connect(c);",
        "pub use crate::kafka;",
    ] {
        assert!(reaches(line, "kafka"), "{line}");
    }
    for line in ["use crate::log::Offset;", "let kafka = 1;", "call(a, kafka);", "use crate::kafkaesque::X;"]
    {
        assert!(!reaches(line, "kafka"), "{line}");
    }
    assert!(reaches("use super::config::Config;", "config"));
}

#[test]
fn unsafe_code_is_in_one_module() {
    let allows =
        |file: &PathBuf| std::fs::read_to_string(file).expect("readable").contains("allow(unsafe_code)");
    let found: Vec<_> = sources(&src()).into_iter().filter(allows).collect();
    assert_eq!(found, [src().join("kafka").join("native").join("mod.rs")]);
}
