//! Which partition a key belongs to, as every client that partitions by `murmur2` sees it: the Java client, and ours.

use crate::types::PartitionId;

/// The partition of a record with this key in a topic of so many partitions.
#[must_use]
pub fn partition_of(key: &[u8], partitions: u32) -> PartitionId {
    let partition = (murmur2(key) & 0x7fff_ffff) % partitions.max(1);
    // Less than 2^31.
    PartitionId(partition as i32)
}

/// MurmurHash2, 32 bits, as in Kafka's `org.apache.kafka.common.utils.Utils.murmur2`.
#[must_use]
pub fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    // Kafka's lengths are 32 bits too.
    let mut hash = SEED ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (place, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * place);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From Kafka's UtilsTest.
    #[test]
    fn hashes_are_those_of_kafka() {
        for (text, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()) as i32, hash, "{text}");
        }
    }

    #[test]
    fn a_sign_bit_is_no_negative_partition() {
        // murmur2("21") is negative in Java.
        assert_eq!(partition_of(b"21", 12), PartitionId(((-973_932_308_i32) & i32::MAX) % 12));
        assert_eq!(partition_of(b"21", 0), PartitionId(0));
    }
}
