//! The hard one: the source is killed at random moments while points are written, late ones among them.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::{Rng as _, SeedableRng as _};
use rand_pcg::Pcg32;

use super::{counts, now_ns, point, produced, source, source_to_the_end};
use crate::world::influxdb::shared;
use crate::world::{World, until};

/// `GENWATCH_TEST_KILLS=30` for the proof by hand.
pub(super) fn kills() -> usize {
    std::env::var("GENWATCH_TEST_KILLS").map_or(4, |count| count.parse().expect("a number"))
}

#[test]
fn each_row_is_there_once_though_the_source_is_killed_while_points_are_written() {
    let seed =
        std::env::var("GENWATCH_TEST_SEED").map_or_else(|_| now_ns() as u64, |seed| seed.parse().unwrap());
    eprintln!("GENWATCH_TEST_SEED={seed}");
    let world = World::new(3);
    let bucket = shared().bucket();
    let written: Mutex<BTreeSet<(String, i64)>> = Mutex::default();
    let stop = AtomicBool::new(false);
    let rescan = ["--rescan", "3m", "--every", "100ms"];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Pcg32::seed_from_u64(seed);
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                let mut lines = Vec::new();
                let mut rows = Vec::new();
                for _ in 0..random.random_range(1..200) {
                    count += 1;
                    let late =
                        if random.random_bool(0.2) { random.random_range(0..120_000_000_000) } else { 0 };
                    let (generator, at) =
                        (format!("g{}", random.random_range(0..50)), now_ns() - late - count % 1_000_000);
                    lines.push(point(&generator, count, at));
                    rows.push((generator, count));
                }
                bucket.write(&lines.join("\n"));
                written.lock().unwrap().extend(rows);
                std::thread::sleep(Duration::from_millis(random.random_range(0..40)));
            }
        });
        let mut random = Pcg32::seed_from_u64(seed ^ 1);
        let mut in_the_middle = 0;
        for kill in 0..kills() {
            let running = source(&world, &bucket, &rescan);
            // From its first request to Kafka on, and mostly while it produces.
            let life = random.random_range(20..1500);
            if life > 400 {
                running.wait_until_it_says("producing the rows");
            }
            let begun = Instant::now();
            let before = if kill % 5 == 0 { counts(&world).0 } else { 0 };
            while begun.elapsed() < Duration::from_millis(life) {
                std::thread::sleep(Duration::from_millis(1));
            }
            if kill % 5 == 0 && counts(&world).0 > before {
                in_the_middle += 1;
            }
            running.kill();
        }
        eprintln!(
            "{} kills, {in_the_middle} of {} looked at were seen to produce",
            kills(),
            kills().div_ceil(5)
        );
        stop.store(true, Ordering::Relaxed);
    });
    let ended = source_to_the_end(&world, &bucket, &rescan);
    let written = written.into_inner().unwrap();
    until("the last transaction has ended", || counts(&world).0 >= written.len());
    let (rows, repeated) = counts(&world);
    let found: BTreeSet<(String, i64)> =
        produced(&world).into_keys().map(|(generator, _, fuel)| (generator, fuel)).collect();
    let missing: Vec<_> = written.difference(&found).take(5).collect();
    let strange: Vec<_> = found.difference(&written).take(5).collect();
    eprintln!(
        "{} points written, {rows} rows in the topic, {} repeated, {} missing; the last source produced {}",
        written.len(),
        repeated.len(),
        written.len() - found.intersection(&written).count(),
        ended.number("rows"),
    );
    assert!(repeated.is_empty(), "seed {seed}: {:?}", &repeated[..repeated.len().min(5)]);
    assert!(
        missing.is_empty() && strange.is_empty(),
        "seed {seed}: missing {missing:?}, strange {strange:?}"
    );
}
