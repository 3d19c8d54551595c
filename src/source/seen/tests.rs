use proptest::prelude::*;

use super::*;

const MINUTE: i64 = BUCKET;

fn digest(identity: u64, content: u64) -> Digest {
    Digest { identity, content }
}

/// One answer, from its first row to its commit; returns what each row was.
fn scan(seen: &mut Seen, rows: &[(i64, Digest)], floor: i64) -> (Vec<Observed>, Vec<ChunkChange>) {
    seen.begin();
    let observed = rows.iter().map(|(time, digest)| seen.observe(Nanos(*time), *digest)).collect();
    seen.complete();
    (observed, seen.commit(Nanos(floor)))
}

#[test]
fn a_row_is_new_once() {
    let mut seen = Seen::default();
    let rows = [(0, digest(1, 1)), (5, digest(2, 2))];
    assert_eq!(scan(&mut seen, &rows, 0).0, [Observed::New; 2]);
    assert_eq!(scan(&mut seen, &rows, 0), (vec![Observed::Known; 2], vec![]), "and nothing is written again");
}

#[test]
fn a_value_that_changes_is_a_correction_and_so_is_one_that_changes_back() {
    let mut seen = Seen::default();
    let (first, second) = (digest(1, 1), digest(1, 2));
    assert_eq!(scan(&mut seen, &[(0, first)], 0).0, [Observed::New]);
    assert_eq!(scan(&mut seen, &[(0, second)], 0).0, [Observed::Correction]);
    assert_eq!(scan(&mut seen, &[(0, first)], 0).0, [Observed::Correction]);
    assert_eq!(scan(&mut seen, &[(0, first)], 0).0, [Observed::Known]);
    assert_eq!(seen.len(), 1);
}

#[test]
fn a_row_that_vanishes_stays_known() {
    let mut seen = Seen::default();
    scan(&mut seen, &[(0, digest(1, 1))], 0);
    scan(&mut seen, &[], 0);
    assert_eq!(scan(&mut seen, &[(0, digest(1, 1))], 0).0, [Observed::Known]);
}

#[test]
fn equal_rows_of_one_answer_are_rows_of_their_own() {
    let mut seen = Seen::default();
    let row = (0, digest(1, 1));
    assert_ne!(scan(&mut seen, &[row, row], 0).0[1], Observed::Known);
    assert_eq!(scan(&mut seen, &[row, row], 0).0, [Observed::Known; 2]);
    let third = scan(&mut seen, &[row, row, row], 0).0;
    assert_eq!(third[..2], [Observed::Known; 2]);
    assert_ne!(third[2], Observed::Known);
}

#[test]
fn an_answer_that_breaks_off_leaves_nothing_but_what_was_committed() {
    let mut seen = Seen::default();
    seen.begin();
    assert_eq!(seen.observe(Nanos(0), digest(1, 1)), Observed::New);
    seen.commit(Nanos(0));
    assert_eq!(seen.observe(Nanos(0), digest(2, 2)), Observed::New);
    seen.begin();
    assert_eq!(seen.observe(Nanos(0), digest(1, 1)), Observed::Known);
    assert_eq!(seen.observe(Nanos(0), digest(2, 2)), Observed::New);
}

#[test]
fn buckets_below_the_floor_are_deleted_and_a_commit_writes_only_what_changed() {
    let mut seen = Seen::default();
    let rows: Vec<_> = (0..2500).map(|n| (n % 2 * MINUTE, digest(n as u64, 0))).collect();
    let changes = scan(&mut seen, &rows, 0).1;
    assert_eq!(changes.len(), 4, "two chunks for each bucket");
    let changes = scan(&mut seen, &[(MINUTE, digest(9999, 0))], 0).1;
    let rows = changes[0].rows.as_ref().unwrap();
    assert_eq!((changes.len(), changes[0].chunk.number, rows.len()), (1, 1, 251));
    assert_eq!(scan(&mut seen, &[], MINUTE - 1).1, []);
    let gone = scan(&mut seen, &[], MINUTE).1;
    assert!(gone.len() == 2 && gone.iter().all(|change| change.rows.is_none()), "{gone:?}");
    assert_eq!(seen.len(), 1251);
}

#[test]
fn hexadecimal_digests_are_read_and_nothing_else() {
    let some = digest(0xfedc_ba98_7654_3210, 7);
    assert_eq!(Digest::from_hex(&some.to_hex()), Some(some));
    for text in ["", "12", &"g".repeat(32), &"0".repeat(33), &"ü".repeat(16)] {
        assert_eq!(Digest::from_hex(text), None, "{text}");
    }
}

/// What a test does.
#[derive(Clone, Debug)]
enum Step {
    /// The database has this content for this identity from now on; the identity decides the time.
    Write(u64, u64),
    /// A complete scan, and a commit.
    Scan,
    /// A scan that breaks off after some rows, of which some are committed.
    Broken { committed: usize, lost: usize },
    /// A crash: all but what is stored is gone.
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..40_u64, 0..3_u64).prop_map(|(identity, content)| Step::Write(identity, content)),
        3 => Just(Step::Scan),
        2 => (0..20_usize, 0..20_usize).prop_map(|(committed, lost)| Step::Broken { committed, lost }),
        1 => Just(Step::Crash),
    ]
}

/// What a topic of cursors has after compaction.
type Stored = BTreeMap<ChunkId, Vec<Digest>>;

fn store(stored: &mut Stored, changes: Vec<ChunkChange>) {
    for change in changes {
        match change.rows {
            Some(rows) => stored.insert(change.chunk, rows),
            None => stored.remove(&change.chunk),
        };
    }
}

fn time_of(identity: u64) -> i64 {
    i64::try_from(identity).unwrap() * MINUTE / 10
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// A naive model knows the whole history: what the topic got, and what the database has. Each version that a
    /// complete scan could see is produced once; nothing that didn't change is produced twice, whatever breaks.
    #[test]
    fn each_version_is_produced_once_whatever_breaks(steps in prop::collection::vec(step(), 1..80)) {
        let mut seen = Seen::default();
        let mut stored = Stored::new();
        let mut database: BTreeMap<u64, u64> = BTreeMap::new();
        let mut topic: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        // After an answer that was committed in part: see the module.
        let mut partly = false;
        for step in steps {
            match step {
                Step::Write(identity, content) => {
                    if !partly {
                        database.insert(identity, content);
                    }
                }
                Step::Scan => {
                    partly = false;
                    seen.begin();
                    for (identity, content) in &database {
                        if seen.observe(Nanos(time_of(*identity)), digest(*identity, *content)) != Observed::Known {
                            topic.entry(*identity).or_default().push(*content);
                        }
                    }
                    seen.complete();
                    store(&mut stored, seen.commit(Nanos(0)));
                    for (identity, content) in &database {
                        prop_assert_eq!(topic[identity].last(), Some(content), "the last version is there");
                    }
                }
                Step::Broken { committed, lost } => {
                    partly |= committed > 0;
                    seen.begin();
                    for (identity, content) in database.iter().take(committed) {
                        if seen.observe(Nanos(time_of(*identity)), digest(*identity, *content)) != Observed::Known {
                            topic.entry(*identity).or_default().push(*content);
                        }
                    }
                    store(&mut stored, seen.commit(Nanos(0)));
                    for (identity, content) in database.iter().skip(committed).take(lost) {
                        seen.observe(Nanos(time_of(*identity)), digest(*identity, *content));
                    }
                }
                Step::Crash => {
                    seen = Seen::default();
                    stored.iter().for_each(|(chunk, rows)| seen.restore(*chunk, rows.iter().copied()));
                }
            }
            for versions in topic.values() {
                prop_assert!(versions.windows(2).all(|pair| pair[0] != pair[1]), "repeated: {versions:?}");
            }
        }
    }
}
