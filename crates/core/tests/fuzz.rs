//! Runs the fuzz targets on the stable toolchain: the committed corpus, then seeded mutations of it.
//!
//! `GENWATCH_FUZZ_INPUTS` sets the number of inputs (default: four million readings, a million rules files, a
//! million transformations and half a million parts and states of aggregates),
//! `GENWATCH_FUZZ_SEED` replays a run.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../fuzz/targets.rs"]
#[allow(dead_code)]
mod targets;

use std::path::Path;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Fragments that random mutations would take long to find.
const WORDS: [&[u8]; 24] = [
    b"NaN",
    b"1e999",
    b"-0",
    b"null",
    b"true",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\u0000",
    b"\\ud800",
    b"\xff",
    b"\"fuel\":1,",
    b"\"generatorID\":\"g\",",
    b"9999999999999999999999",
    b"0.1e-5",
    b"\xef\xbb\xbf",
    b"[[rule]]",
    b"inf",
    b"'''",
    b"= ",
    b"\n",
    b"1979-05-27",
];

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |value| value.parse().expect("a number"))
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect("a corpus").map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 10, "the corpus of {target} is too small: {}", files.len());
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

fn mutate(random: &mut ChaCha8Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut data = corpus[random.random_range(0..corpus.len())].clone();
    for _ in 0..random.random_range(1..6) {
        let at = random.random_range(0..=data.len());
        match random.random_range(0..7) {
            0 if at < data.len() => data[at] = random.random(),
            1 if at < data.len() => data[at] ^= 1 << random.random_range(0..8),
            2 => data.insert(at, random.random()),
            3 if at < data.len() => {
                let end = (at + random.random_range(1..16)).min(data.len());
                data.drain(at..end);
            }
            4 => {
                let word = WORDS[random.random_range(0..WORDS.len())];
                data.splice(at..at, word.iter().copied());
            }
            5 => {
                let other = &corpus[random.random_range(0..corpus.len())];
                let from = random.random_range(0..=other.len());
                data.truncate(at);
                data.extend_from_slice(&other[from..]);
            }
            6 if at < data.len() => {
                let end = (at + random.random_range(1..32)).min(data.len());
                let part = data[at..end].to_vec();
                data.splice(at..at, part);
            }
            _ => {}
        }
    }
    data
}

fn run(target: &str, inputs: u64, feed: impl Fn(&[u8]) + std::panic::RefUnwindSafe) {
    let seed = number("GENWATCH_FUZZ_SEED", u64::from(std::process::id()));
    println!("fuzzing {target}: {inputs} inputs, GENWATCH_FUZZ_SEED={seed}");
    let corpus = corpus(target);
    corpus.iter().for_each(|data| feed(data));
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    for count in 0..inputs {
        let data = mutate(&mut random, &corpus);
        let fed = std::panic::catch_unwind(|| feed(&data));
        assert!(fed.is_ok(), "input {count} of seed {seed} panics; it is:\n{}", data.escape_ascii());
    }
}

#[test]
fn no_record_makes_the_parser_panic() {
    run("reading", number("GENWATCH_FUZZ_INPUTS", 4_000_000), targets::reading);
}

#[test]
fn no_rules_file_makes_its_reader_panic() {
    run("rules", number("GENWATCH_FUZZ_INPUTS", 4_000_000) / 4, targets::rules);
}

#[test]
fn no_transformation_panics_or_makes_anything_but_json() {
    run("transform", number("GENWATCH_FUZZ_INPUTS", 4_000_000) / 4, targets::transform);
}

#[test]
fn no_part_or_state_of_an_aggregate_panics_or_fills_memory() {
    run("aggregate", number("GENWATCH_FUZZ_INPUTS", 4_000_000) / 8, targets::aggregate);
}
