//! Which rows have been produced: a digest of each row that a scan may find again, so that none is produced twice.
//!
//! Rows are kept in buckets of a minute of their times. A bucket is stored in chunks: records of the topic of cursors,
//! written in the transaction of the rows that they are about. A commit writes only chunks that have changed, and
//! deletes buckets that no scan reads any more.
//!
//! What a scan finds again is no news. A row whose identity is known with another content is a correction: a new
//! version of it. When a slice has been read completely, versions that are no longer there are forgotten, so that a
//! value that changes back is a correction too. A row that has vanished altogether stays known. (If an answer that was
//! committed in parts breaks off, a value that changes back before the repetition isn't noticed.)

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use foldhash::fast::RandomState;

use super::time::Nanos;

/// The time that a bucket covers.
const BUCKET: i64 = 60_000_000_000;
/// The most digests of a chunk: a record of 35 KB at most.
const CHUNK_ROWS: usize = 1000;
/// Tells rows apart that are equal in every column: added once for the second, twice for the third, and so on.
const REPEATED: u64 = 0x9e37_79b9_7f4a_7c15;

/// What tells a row from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    /// Of its time, its group key and its key: the same for each version of a row.
    pub identity: u64,
    /// Of all its columns.
    pub content: u64,
}

impl Digest {
    /// Returns it as 32 hexadecimal digits.
    #[must_use]
    pub fn to_hex(self) -> String {
        format!("{:016x}{:016x}", self.identity, self.content)
    }

    /// Reads what [`Digest::to_hex`] writes.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Digest> {
        let half = |range| u64::from_str_radix(text.get(range)?, 16).ok();
        (text.len() == 32).then_some(Digest { identity: half(0..16)?, content: half(16..32)? })
    }
}

/// What a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observed {
    /// It has been produced.
    Known,
    /// Nobody has seen it.
    New,
    /// It has been produced with another content.
    Correction,
}

/// A chunk to be written, or deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkChange {
    /// Where it belongs.
    pub chunk: ChunkId,
    /// Its digests; `None` deletes it.
    pub rows: Option<Vec<Digest>>,
}

/// A chunk of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChunkId {
    /// The first time of the bucket.
    pub bucket: Nanos,
    /// Its number within the bucket.
    pub number: u32,
}

/// The digests of all rows that may be found again.
#[derive(Debug, Default)]
pub struct Seen {
    buckets: BTreeMap<Nanos, Bucket>,
    /// The number of the query under way: a row counts as repeated only within one answer.
    attempt: u32,
    /// Rows observed since the last commit.
    pending: Vec<(Nanos, Digest)>,
    /// Identities in this answer that have several versions.
    several: BTreeMap<Nanos, HashSet<u64, RandomState>>,
}

#[derive(Debug, Default)]
struct Bucket {
    rows: HashMap<Digest, Place, RandomState>,
    /// How many versions each identity has.
    versions: HashMap<u64, u32, RandomState>,
    /// Rows in each chunk.
    sizes: Vec<usize>,
    /// Chunks that differ from what is stored.
    dirty: BTreeSet<u32>,
    /// Chunks that are stored.
    stored: u32,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    /// `None` until it is committed.
    chunk: Option<u32>,
    /// The last answer that had it.
    attempt: u32,
}

impl Seen {
    /// Returns the number of digests.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buckets.values().map(|bucket| bucket.rows.len()).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// Puts a stored chunk back.
    pub fn restore(&mut self, chunk: ChunkId, rows: impl IntoIterator<Item = Digest>) {
        let bucket = self.buckets.entry(chunk.bucket).or_default();
        bucket.stored = bucket.stored.max(chunk.number + 1);
        bucket.sizes.resize(bucket.stored as usize, 0);
        for digest in rows {
            bucket.insert(digest, Place { chunk: Some(chunk.number), attempt: 0 });
            bucket.sizes[chunk.number as usize] += 1;
        }
    }

    /// Begins a query's answer. What was observed since the last commit is forgotten.
    pub fn begin(&mut self) {
        for (bucket, digest) in std::mem::take(&mut self.pending) {
            if let Some(bucket) = self.buckets.get_mut(&bucket) {
                bucket.remove(digest);
            }
        }
        self.several.clear();
        // Never the number of restored rows, nor that of the last answer.
        self.attempt = self.attempt.checked_add(1).unwrap_or(1);
    }

    /// Notes a row of the answer, and tells what it is.
    pub fn observe(&mut self, time: Nanos, mut digest: Digest) -> Observed {
        let at = time.floor(BUCKET);
        let bucket = self.buckets.entry(at).or_default();
        let known = loop {
            match bucket.rows.get_mut(&digest) {
                // The answer has the same row twice.
                Some(place) if place.attempt == self.attempt => {
                    digest.content = digest.content.wrapping_add(REPEATED);
                }
                Some(place) => {
                    place.attempt = self.attempt;
                    break true;
                }
                None => break false,
            }
        };
        if !known {
            bucket.insert(digest, Place { chunk: None, attempt: self.attempt });
            self.pending.push((at, digest));
        }
        let several = bucket.versions.get(&digest.identity).is_some_and(|versions| *versions > 1);
        if several {
            self.several.entry(at).or_default().insert(digest.identity);
        }
        match (known, several) {
            (true, _) => Observed::Known,
            (false, false) => Observed::New,
            (false, true) => Observed::Correction,
        }
    }

    /// Ends the answer: forgets versions of its rows that it hasn't. Returns whether there were any.
    pub fn complete(&mut self) -> bool {
        let mut found = false;
        for (at, identities) in std::mem::take(&mut self.several) {
            let Some(bucket) = self.buckets.get_mut(&at) else { continue };
            let is_replaced = |(digest, place): &(&Digest, &Place)| {
                place.attempt != self.attempt && identities.contains(&digest.identity)
            };
            let replaced: Vec<Digest> =
                bucket.rows.iter().filter(is_replaced).map(|(digest, _)| *digest).collect();
            found |= !replaced.is_empty();
            replaced.into_iter().for_each(|digest| bucket.remove(digest));
        }
        found
    }

    /// Takes what was observed for committed, and forgets buckets that end at `floor` or before. Returns what must be
    /// written in the same transaction. If that fails, restore all from what is stored.
    pub fn commit(&mut self, floor: Nanos) -> Vec<ChunkChange> {
        for (at, digest) in std::mem::take(&mut self.pending) {
            if let Some(bucket) = self.buckets.get_mut(&at) {
                bucket.settle(digest);
            }
        }
        let first = Nanos(floor.0.saturating_sub(BUCKET - 1));
        let kept = self.buckets.split_off(&first);
        let gone = std::mem::replace(&mut self.buckets, kept);
        let mut changes = Vec::new();
        for (at, bucket) in gone {
            changes.extend(
                (0..bucket.stored)
                    .map(|number| ChunkChange { chunk: ChunkId { bucket: at, number }, rows: None }),
            );
        }
        for (at, bucket) in &mut self.buckets {
            bucket.changes(*at, &mut changes);
        }
        changes
    }
}

impl Bucket {
    fn insert(&mut self, digest: Digest, place: Place) {
        if self.rows.insert(digest, place).is_none() {
            *self.versions.entry(digest.identity).or_default() += 1;
        }
    }

    fn remove(&mut self, digest: Digest) {
        let Some(place) = self.rows.remove(&digest) else { return };
        if let Some(versions) = self.versions.get_mut(&digest.identity) {
            *versions -= 1;
            if *versions == 0 {
                self.versions.remove(&digest.identity);
            }
        }
        if let Some(chunk) = place.chunk {
            self.sizes[chunk as usize] -= 1;
            self.dirty.insert(chunk);
        }
    }

    /// Gives a row its chunk.
    fn settle(&mut self, digest: Digest) {
        if self.sizes.last().is_none_or(|size| *size >= CHUNK_ROWS) {
            self.sizes.push(0);
        }
        let chunk = self.sizes.len() - 1;
        // A bucket has far fewer chunks than 2^32.
        let number = chunk as u32;
        if let Some(place) = self.rows.get_mut(&digest) {
            place.chunk = Some(number);
            self.sizes[chunk] += 1;
            self.dirty.insert(number);
        }
    }

    fn changes(&mut self, bucket: Nanos, into: &mut Vec<ChunkChange>) {
        let dirty = std::mem::take(&mut self.dirty);
        if dirty.is_empty() {
            return;
        }
        let mut rows: BTreeMap<u32, Vec<Digest>> = dirty.iter().map(|number| (*number, Vec::new())).collect();
        for (digest, place) in &self.rows {
            if let Some(rows) = place.chunk.and_then(|chunk| rows.get_mut(&chunk)) {
                rows.push(*digest);
            }
        }
        for (number, mut rows) in rows {
            rows.sort_unstable();
            into.push(ChunkChange { chunk: ChunkId { bucket, number }, rows: Some(rows) });
            self.stored = self.stored.max(number + 1);
        }
    }
}

#[cfg(test)]
#[path = "seen/tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
