//! Which part of a fleet a bridge forwards, if there are several: `--share 2/4`.
//!
//! A shared subscription (`$share/...`) distributes single messages, so two messages of one generator may overtake each
//! other on two paths. Here each bridge subscribes to everything and forwards only its own generators: each generator
//! has one path, in order.
//!
//! Must not know: clients, clocks.

use genwatch_core::partitioner::murmur2;

/// One of `of` parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// From 0.
    index: u32,
    of: u32,
}

/// With more bridges than this, each would read thousands of messages to forward one.
const SHARES_MAX: u32 = 1000;

impl Share {
    /// The whole fleet.
    pub const ALL: Share = Share { index: 0, of: 1 };

    /// Whether the generator with this key belongs to this part. Uses the hash of Kafka's partitioner: if the number of
    /// parts divides the number of partitions, each bridge writes to its own partitions, in larger batches.
    #[must_use]
    pub fn has(self, key: &[u8]) -> bool {
        self.of == 1 || (murmur2(key) & 0x7fff_ffff) % self.of == self.index
    }

    /// Whether it is less than the whole fleet.
    #[must_use]
    pub fn is_partial(self) -> bool {
        self.of > 1
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.index + 1, self.of)
    }
}

impl std::str::FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || format!("expected I/N with 1 <= I <= N <= {SHARES_MAX}, such as 2/4");
        let (index, of) = text.split_once('/').ok_or_else(wanted)?;
        let (index, of): (u32, u32) =
            index.parse().ok().zip(of.parse().ok()).filter(|(_, of)| *of <= SHARES_MAX).ok_or_else(wanted)?;
        if index == 0 || index > of {
            return Err(wanted());
        }
        Ok(Share { index: index - 1, of })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_generator_is_in_one_share() {
        let shares: Vec<Share> =
            (1..=4).map(|index| format!("{index}/4").parse().expect("a share")).collect();
        let mut sizes = [0; 4];
        for number in 0..4000 {
            let id = format!("generator{number}");
            let of: Vec<usize> = (0..4).filter(|index| shares[*index].has(id.as_bytes())).collect();
            assert_eq!(of.len(), 1, "{id}");
            sizes[of[0]] += 1;
        }
        assert!(sizes.iter().all(|size| (800..1200).contains(size)), "{sizes:?}");
        assert!(Share::ALL.has(b"generator1") && !Share::ALL.is_partial() && shares[1].is_partial());
    }

    #[test]
    fn what_is_no_share_is_refused() {
        for text in ["", "1", "0/4", "5/4", "a/4", "1/b", "1/0", "1/2/3", "1/1001", "-1/4"] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
        assert_eq!("2/4".parse::<Share>().map(|share| share.to_string()), Ok("2/4".to_owned()));
    }
}
