//! Which keys have most of a stream's records, in little memory and time.
//!
//! [`TopKeys`] is the Space-Saving sketch (Metwally, Agrawal, El Abbadi, "Efficient computation of frequent and top-k
//! elements in data streams", ICDT 2005). A key without a counter takes over the lowest one, count included, and notes
//! that count as its possible error. So a count is never too low, nor too high by more than its share of the total:
//! `total / counters`. Each key above that has a counter.
//!
//! [`KeySampler`] feeds it with some of the records: a counter for each would cost more than to process them.

use std::hash::BuildHasher as _;

use foldhash::fast::RandomState;

/// A longer key is cut in what is returned. Keys that differ only behind it still have counters of their own.
pub const KEY_BYTES_MAX: usize = 64;
/// Counters of a [`KeySampler`]: 48 KiB.
const COUNTERS: usize = 512;
/// All counts are halved after so many records, so that they follow changes: seconds at a high rate, minutes at a low
/// one.
const AGE_AFTER: u32 = 16_384;
/// With more samples than this between two calls of [`KeySampler::tick`], half as many are taken.
const SAMPLES_MAX: u32 = 8_192;
/// At most one of so many records is sampled.
const GAP_MAX: u32 = 256;

/// Samples the keys of a stream of records. The gaps between samples are pseudo-random, so that they are never in step
/// with producers that take turns.
///
/// Each sample stands for the mean gap, which follows the rate: all records of a slow stream, one of 256 of a fast one.
#[derive(Debug)]
pub struct KeySampler {
    keys: TopKeys,
    /// Records until the next sample.
    left: u32,
    /// A power of two.
    mean_gap: u32,
    /// Samples since the last tick, or since the gap was widened.
    samples: u32,
    random: u64,
}

impl Default for KeySampler {
    fn default() -> KeySampler {
        let keys = TopKeys::new(COUNTERS);
        KeySampler { keys, left: 1, mean_gap: 1, samples: 0, random: 0x9E37_79B9_7F4A_7C15 }
    }
}

impl KeySampler {
    /// Sees the keys of some records, and counts a few. A record without a key, or with one that isn't text, counts for
    /// nothing.
    pub fn see_all<'k>(&mut self, mut keys: impl ExactSizeIterator<Item = Option<&'k [u8]>>) {
        while keys.len() >= self.left as usize {
            let key = keys.nth(self.left as usize - 1).flatten();
            match key.and_then(|key| str::from_utf8(key).ok()) {
                Some(key) => self.sample(key),
                None => self.left = 1,
            }
        }
        self.left -= keys.len() as u32;
    }

    #[cold]
    fn sample(&mut self, key: &str) {
        self.keys.add(key, self.mean_gap);
        self.samples += 1;
        if self.samples == SAMPLES_MAX {
            self.samples = 0;
            self.mean_gap = (2 * self.mean_gap).min(GAP_MAX);
        }
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let gaps = u64::from(2 * self.mean_gap - 1);
        self.left = 1 + (((self.random >> 32) * gaps) >> 32) as u32;
    }

    /// Fits the gap to the rate. Call it once a second.
    pub fn tick(&mut self) {
        if self.samples < SAMPLES_MAX / 4 {
            self.mean_gap = (self.mean_gap / 2).max(1);
            self.left = self.left.min(2 * self.mean_gap - 1);
        }
        self.samples = 0;
    }

    /// As [`TopKeys::top`].
    #[must_use]
    pub fn top(&self, most: usize, least_share: f64) -> Vec<(String, f64)> {
        self.keys.top(most, least_share)
    }
}

/// Counts the most frequent keys of a stream.
#[derive(Debug)]
pub struct TopKeys {
    /// Seeded, because keys come from outside.
    hasher: RandomState,
    /// A hash table of chains: each bucket's first counter. (A `HashMap` that is half full grows when keys only come and
    /// go.)
    buckets: Vec<u16>,
    counters: Vec<Counter>,
    /// Each counter's count, apart from the rest: the lowest is searched among them.
    counts: Vec<u32>,
    /// The sum of all counts.
    total: u64,
    /// The lowest count when it was last searched. Counts only grow, so those before `cursor` are above it.
    lowest: u32,
    cursor: usize,
    records: u32,
}

/// The end of a chain.
const NONE: u16 = u16::MAX;

#[derive(Debug)]
struct Counter {
    /// The key's hash stands for the key: with 64 bits no two keys of a fleet are expected to share one.
    hash: u64,
    /// The next counter of its bucket.
    next: u16,
    /// What the count may be too high by.
    error: u32,
    bytes: u8,
    name: [u8; KEY_BYTES_MAX],
}

impl Counter {
    /// Not in a bucket yet.
    fn new(hash: u64, error: u32, key: &str) -> Counter {
        let mut bytes = key.len().min(KEY_BYTES_MAX);
        while !key.is_char_boundary(bytes) {
            bytes -= 1;
        }
        let mut name = [0; KEY_BYTES_MAX];
        name[..bytes].copy_from_slice(&key.as_bytes()[..bytes]);
        Counter { hash, next: NONE, error, bytes: bytes as u8, name }
    }

    fn name(&self) -> String {
        String::from_utf8_lossy(&self.name[..usize::from(self.bytes)]).into_owned()
    }
}

impl TopKeys {
    /// With so many counters, up to 32,768. All memory is allocated now.
    #[must_use]
    pub fn new(counters: usize) -> TopKeys {
        let counters = counters.clamp(1, 1 << 15);
        TopKeys {
            hasher: RandomState::default(),
            buckets: vec![NONE; counters.next_power_of_two()],
            counters: Vec::with_capacity(counters),
            counts: Vec::with_capacity(counters),
            total: 0,
            lowest: 0,
            cursor: 0,
            records: 0,
        }
    }

    /// Counts a record that stands for `weight` records.
    pub fn add(&mut self, key: &str, weight: u32) {
        let hash = self.hasher.hash_one(key);
        self.total += u64::from(weight);
        if let Some(slot) = self.find(hash) {
            self.counts[slot] += weight;
        } else if self.counters.len() < self.counters.capacity() {
            self.counters.push(Counter::new(hash, 0, key));
            self.counts.push(weight);
            self.link(self.counters.len() - 1);
            // It may be below all others.
            (self.lowest, self.cursor) = (0, 0);
        } else {
            let slot = self.find_lowest();
            self.unlink(slot);
            self.counters[slot] = Counter::new(hash, self.counts[slot], key);
            self.counts[slot] += weight;
            self.link(slot);
        }
        self.records += 1;
        if self.records == AGE_AFTER {
            self.age();
        }
    }

    fn bucket(&self, hash: u64) -> usize {
        hash as usize & (self.buckets.len() - 1)
    }

    fn find(&self, hash: u64) -> Option<usize> {
        let mut slot = self.buckets[self.bucket(hash)];
        while slot != NONE {
            let counter = &self.counters[usize::from(slot)];
            if counter.hash == hash {
                return Some(usize::from(slot));
            }
            slot = counter.next;
        }
        None
    }

    fn link(&mut self, slot: usize) {
        let bucket = self.bucket(self.counters[slot].hash);
        self.counters[slot].next = std::mem::replace(&mut self.buckets[bucket], slot as u16);
    }

    fn unlink(&mut self, slot: usize) {
        let (bucket, next) = (self.bucket(self.counters[slot].hash), self.counters[slot].next);
        if usize::from(self.buckets[bucket]) == slot {
            self.buckets[bucket] = next;
            return;
        }
        let mut before = usize::from(self.buckets[bucket]);
        while usize::from(self.counters[before].next) != slot {
            before = usize::from(self.counters[before].next);
        }
        self.counters[before].next = next;
    }

    /// Returns a counter with the lowest count. Few counts are looked at, on average: the lowest ones are near each
    /// other, and each search goes on where the last one ended.
    fn find_lowest(&mut self) -> usize {
        loop {
            let later = &self.counts[self.cursor..];
            if let Some(further) = later.iter().position(|count| *count == self.lowest) {
                self.cursor += further;
                return self.cursor;
            }
            self.search_again();
        }
    }

    fn search_again(&mut self) {
        self.cursor = 0;
        self.lowest = self.counts.iter().copied().min().unwrap_or(0);
    }

    /// Halves all counts.
    fn age(&mut self) {
        self.records = 0;
        for (counter, count) in self.counters.iter_mut().zip(&mut self.counts) {
            *count /= 2;
            // Rounded up: an error is never understated.
            counter.error = counter.error.div_ceil(2).min(*count);
        }
        self.total = self.counts.iter().map(|count| u64::from(*count)).sum();
        self.search_again();
    }

    /// Returns the most frequent keys with their shares, highest first: at most so many, each with at least this share.
    /// A share may be too low by what is uncertain, and isn't too high.
    #[must_use]
    pub fn top(&self, most: usize, least_share: f64) -> Vec<(String, f64)> {
        let total = (self.total as f64).max(1.0);
        let share = |(counter, count): (&Counter, &u32)| f64::from(count - counter.error) / total;
        let shares = self.counters.iter().zip(&self.counts).map(share).enumerate();
        let mut shares: Vec<(usize, f64)> = shares.filter(|(_, share)| *share >= least_share).collect();
        shares.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        shares.truncate(most);
        shares.into_iter().map(|(slot, share)| (self.counters[slot].name(), share)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    impl TopKeys {
        /// Count and error.
        fn of(&self, key: &str) -> Option<(u32, u32)> {
            let slot = self.find(self.hasher.hash_one(key))?;
            Some((self.counts[slot], self.counters[slot].error))
        }

        fn bytes(&self) -> usize {
            self.buckets.capacity() * size_of::<u16>()
                + self.counters.capacity() * size_of::<Counter>()
                + self.counts.capacity() * size_of::<u32>()
                + size_of::<TopKeys>()
        }
    }

    /// Records of skewed keys, with weights.
    fn records() -> impl Strategy<Value = Vec<(u32, u32)>> {
        let key = prop_oneof![3 => 0_u32..3, 2 => 0_u32..20, 2 => 0_u32..1000];
        proptest::collection::vec((key, 1_u32..20), 1..2000)
    }

    fn name(key: u32) -> String {
        format!("gen-{key}")
    }

    fn see(sampler: &mut KeySampler, key: &str) {
        sampler.see_all(std::iter::once(Some(key.as_bytes())));
    }

    proptest! {
        #[test]
        fn a_count_is_never_too_low_nor_too_high_by_more_than_its_part(records in records(), counters in 1_usize..40) {
            let (mut keys, mut truth) = (TopKeys::new(counters), BTreeMap::<u32, u32>::new());
            for (key, weight) in &records {
                keys.add(&name(*key), *weight);
                *truth.entry(*key).or_default() += weight;
            }
            let total: u32 = truth.values().sum();
            prop_assert_eq!(keys.total, u64::from(total));
            prop_assert!(keys.counters.len() <= counters);
            let held = keys.counters.iter().all(|counter| keys.find(counter.hash).is_some());
            prop_assert!(held, "a counter has fallen out of its chain");
            let bound = total / counters as u32;
            for (key, count) in truth {
                let Some((counted, error)) = keys.of(&name(key)) else {
                    prop_assert!(count <= bound, "{key} has {count} of {total} and no counter of {counters}");
                    continue;
                };
                prop_assert!(counted >= count && counted - count <= error && error <= bound, "{counted} for {count}");
            }
        }

        #[test]
        fn the_lowest_counter_is_found_also_after_aging(records in records(), counters in 1_usize..40) {
            let mut keys = TopKeys::new(counters);
            for (number, (key, weight)) in records.iter().enumerate() {
                keys.add(&name(*key), *weight);
                if number % 97 == 96 {
                    keys.age();
                }
                let lowest = keys.find_lowest();
                prop_assert_eq!(Some(&keys.counts[lowest]), keys.counts.iter().min());
                prop_assert_eq!(keys.total, keys.counts.iter().map(|count| u64::from(*count)).sum::<u64>());
                prop_assert!(keys.counters.iter().zip(&keys.counts).all(|(counter, count)| counter.error <= *count));
            }
        }
    }

    #[test]
    fn it_is_small_however_long_the_keys_are() {
        let mut keys = TopKeys::new(COUNTERS);
        for number in 0..10_000 {
            keys.add(&format!("{number}{}", "x".repeat(1000)), 1);
        }
        assert!(keys.bytes() <= 64 << 10, "{} bytes", keys.bytes());
        assert_eq!(keys.counters.len(), COUNTERS);
    }

    #[test]
    fn a_long_key_is_cut_between_characters_and_stays_another_than_its_neighbour() {
        let mut keys = TopKeys::new(8);
        let prefix = format!("x{}", "ü".repeat(40));
        for end in ["a", "b"] {
            keys.add(&format!("{prefix}{end}"), 10);
        }
        let cut = format!("x{}", "ü".repeat(31));
        assert_eq!(keys.top(5, 0.01), [(cut.clone(), 0.5), (cut, 0.5)]);
    }

    #[test]
    fn it_follows_a_change() {
        let mut keys = TopKeys::new(64);
        for _ in 0..10 * AGE_AFTER {
            keys.add("old", 1);
        }
        for _ in 0..4 * AGE_AFTER {
            keys.add("new", 1);
        }
        let top = keys.top(5, 0.01);
        assert_eq!(top[0].0, "new");
        assert!(top[0].1 > 0.9, "{top:?}");
    }

    #[test]
    fn samples_are_not_in_step_with_producers_that_take_turns() {
        for turns in [2, 3, 16, 31, 32, 64] {
            let mut sampler = KeySampler::default();
            let names: Vec<String> = (0..turns).map(name).collect();
            for record in 0..2_000_000 {
                if record % 200_000 == 0 {
                    sampler.tick();
                }
                see(&mut sampler, &names[record % names.len()]);
            }
            let top = sampler.top(100, 0.0);
            assert_eq!(top.len(), names.len());
            let fair = 1.0 / names.len() as f64;
            for (key, share) in top {
                assert!((share / fair - 1.0).abs() < 0.25, "{key} of {turns}: {share}, not {fair}");
            }
        }
    }

    #[test]
    fn a_slow_stream_is_counted_and_a_fast_one_sampled() {
        let mut sampler = KeySampler::default();
        let see_some = |sampler: &mut KeySampler, records: u32| {
            (0..records).for_each(|record| see(sampler, &name(record % 10)));
            sampler.tick();
        };
        for _ in 0..10 {
            see_some(&mut sampler, 100);
        }
        assert_eq!(sampler.mean_gap, 1);
        for _ in 0..10 {
            see_some(&mut sampler, 2_000_000);
        }
        assert_eq!(sampler.mean_gap, GAP_MAX);
        let top = sampler.top(3, 0.05);
        assert_eq!(top.len(), 3);
        for _ in 0..10 {
            see_some(&mut sampler, 100);
        }
        assert_eq!(sampler.mean_gap, 1);
    }

    #[test]
    fn a_hot_key_among_many_has_its_share() {
        let mut sampler = KeySampler::default();
        for record in 0..400_000_u32 {
            let key = if record % 10 < 7 { "hot".to_owned() } else { name(record) };
            see(&mut sampler, &key);
        }
        let top = sampler.top(5, 0.01);
        assert_eq!(top.len(), 1, "{top:?}");
        assert!(top[0].0 == "hot" && (0.65..0.75).contains(&top[0].1), "{top:?}");
    }
}
