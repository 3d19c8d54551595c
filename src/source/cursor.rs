//! What a source remembers in Kafka: how far it is, and which rows it has produced.
//!
//! The topic of cursors is compacted. A source has one record with its cursor, whose key is its name, and one record
//! for each chunk of digests, `NAME/TIME/CHUNK`.

use std::collections::BTreeMap;

use genwatch_core::types::Millis;
use serde::{Deserialize, Serialize};

use super::seen::{ChunkChange, ChunkId, Digest, Seen};
use super::time::Nanos;

/// How far a source is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The process that wrote it: the last one that began owns the name.
    pub instance: String,
    /// When it was written.
    pub at: Millis,
    /// The time of the newest row that was produced, or where the source began.
    pub cursor: Nanos,
    /// Where each scan begins: rows that are older are never read again.
    pub floor: Nanos,
    /// A digest of the query.
    pub query: String,
    /// Rows dealt with since the source first began: produced, filtered out, or made dead letters.
    pub rows: u64,
}

/// A record of the topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StateKey {
    /// The cursor.
    Cursor,
    /// A chunk of digests.
    Chunk(ChunkId),
}

impl StateKey {
    /// Returns the key of the record.
    #[must_use]
    pub fn to_text(self, name: &str) -> String {
        match self {
            StateKey::Cursor => name.to_owned(),
            StateKey::Chunk(ChunkId { bucket, number }) => format!("{name}/{bucket}/{number}"),
        }
    }

    /// Reads a record's key; `None` if it is another source's. (No name has a slash.)
    #[must_use]
    pub fn parse(name: &str, key: &[u8]) -> Option<StateKey> {
        let rest = std::str::from_utf8(key).ok()?.strip_prefix(name)?;
        if rest.is_empty() {
            return Some(StateKey::Cursor);
        }
        let (bucket, number) = rest.strip_prefix('/')?.rsplit_once('/')?;
        Some(StateKey::Chunk(ChunkId { bucket: Nanos::parse(bucket)?, number: number.parse().ok()? }))
    }
}

/// The value of a record of digests.
#[derive(Debug, Serialize, Deserialize)]
struct Chunk {
    rows: Vec<String>,
}

/// A record of the topic that this version can't read.
#[derive(Debug, thiserror::Error)]
#[error("the record {key} of the topic of cursors can't be read; was it written by a newer version?")]
pub struct StateError {
    key: String,
}

/// Returns the value of a chunk's record; `None` deletes it.
#[must_use]
pub fn chunk_value(change: &ChunkChange) -> Option<Vec<u8>> {
    let rows = change.rows.as_ref()?;
    // A chunk that became empty needs no record; its number stays taken.
    if rows.is_empty() {
        return None;
    }
    let chunk = Chunk { rows: rows.iter().map(|digest| digest.to_hex()).collect() };
    // A list of texts can't fail to be encoded.
    serde_json::to_vec(&chunk).ok()
}

/// Folds the topic's records to what they mean for one source.
#[derive(Debug)]
pub struct StateFold {
    name: String,
    records: BTreeMap<StateKey, Vec<u8>>,
}

impl StateFold {
    /// Begins for the source of this name.
    #[must_use]
    pub fn new(name: &str) -> StateFold {
        StateFold { name: name.to_owned(), records: BTreeMap::new() }
    }

    /// Takes in a record, in the order of the topic.
    pub fn apply(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) {
        let Some(key) = key.and_then(|key| StateKey::parse(&self.name, key)) else { return };
        match value {
            Some(value) => self.records.insert(key, value.to_vec()),
            None => self.records.remove(&key),
        };
    }

    /// Returns the cursor, if the source ever began, and the digests.
    ///
    /// # Errors
    /// When a record is not what this version writes.
    pub fn finish(self) -> Result<(Option<Cursor>, Seen), StateError> {
        let (mut cursor, mut seen) = (None, Seen::default());
        for (key, value) in self.records {
            let unreadable = || StateError { key: key.to_text(&self.name) };
            match key {
                StateKey::Cursor => {
                    cursor = Some(serde_json::from_slice(&value).map_err(|_| unreadable())?);
                }
                StateKey::Chunk(id) => {
                    let chunk: Chunk = serde_json::from_slice(&value).map_err(|_| unreadable())?;
                    let rows: Option<Vec<Digest>> =
                        chunk.rows.iter().map(|text| Digest::from_hex(text)).collect();
                    seen.restore(id, rows.ok_or_else(unreadable)?);
                }
            }
        }
        Ok((cursor, seen))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn cursor() -> Cursor {
        Cursor {
            instance: "a".to_owned(),
            at: Millis(7),
            cursor: Nanos(1_766_400_000_000_000_001),
            floor: Nanos(1_766_399_400_000_000_000),
            query: "0".to_owned(),
            rows: 3,
        }
    }

    #[test]
    fn what_is_written_is_read_and_others_records_are_not() {
        let id = ChunkId { bucket: Nanos(60_000_000_000), number: 12 };
        let rows = vec![Digest { identity: 1, content: 2 }, Digest { identity: 3, content: u64::MAX }];
        let value = chunk_value(&ChunkChange { chunk: id, rows: Some(rows) }).unwrap();
        let key = StateKey::Chunk(id).to_text("rows");
        assert_eq!(key, "rows/1970-01-01T00:01:00Z/12");
        let mut fold = StateFold::new("rows");
        fold.apply(Some(b"rows"), Some(b"overwritten"));
        fold.apply(Some(b"rows"), Some(&serde_json::to_vec(&cursor()).unwrap()));
        fold.apply(Some(key.as_bytes()), Some(&value));
        for other in ["row", "rows2", "rows2/1970-01-01T00:01:00Z/12", "rows/", "rows/x/1", ""] {
            fold.apply(Some(other.as_bytes()), Some(b"not ours"));
        }
        fold.apply(None, Some(b"not ours"));
        let (found, seen) = fold.finish().unwrap();
        assert_eq!((found, seen.len()), (Some(cursor()), 2));
    }

    #[test]
    fn a_deleted_record_is_gone_and_an_unreadable_one_is_named() {
        let mut fold = StateFold::new("rows");
        fold.apply(Some(b"rows/1970-01-01T00:01:00Z/0"), Some(br#"{"rows":["12"]}"#));
        let mut same = StateFold::new("rows");
        same.apply(Some(b"rows/1970-01-01T00:01:00Z/0"), Some(b"x"));
        same.apply(Some(b"rows/1970-01-01T00:01:00Z/0"), None);
        assert!(same.finish().unwrap().1.is_empty());
        let said = fold.finish().unwrap_err().to_string();
        assert!(said.contains("rows/1970-01-01T00:01:00Z/0"), "{said}");
    }
}
