//! Asks Kafka how far a group is: once, or every second for as long as somebody wants to know.
//!
//! Owners come from the group's coordinator in one look, and at the start of a watch. Later they come from what workers
//! say of themselves: asked for its members again and again while a coordinator fails, librdkafka ends the process by
//! an assertion (2.12.1).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::{Duration, Instant};

use genwatch_core::types::{Millis, PartitionId};
use genwatch_kafka::admin::Cluster;
use genwatch_kafka::clock;
use genwatch_kafka::config::Connection;
use genwatch_kafka::error::Chain;
use genwatch_kafka::group::{Group, GroupError, OldestWaiting, Progress};
use genwatch_kafka::topic_reader::{StartAt, TopicReader, TopicReaderError};
use genwatch_kafka::topics::Topics;

use super::document::Status;
use super::roster::Roster;
use super::watched::{Owners, PartitionLook, TopicLook, Watched, judge};

/// The time between the two looks on which a verdict is based.
const LOOK: Duration = Duration::from_millis(1500);
/// How often a watched group is looked at.
const EVERY: Duration = Duration::from_secs(1);
/// How long the first look waits for what has been reported before.
const CATCH_UP: Duration = Duration::from_secs(2);
/// How often to look for further topics of the group, and for a topic of reports that is missing.
const SEARCH_EVERY: Duration = Duration::from_secs(20);
/// How long one look waits for the oldest records; what isn't there by then keeps its last time.
const PATIENCE: Duration = Duration::from_millis(800);

/// What to observe.
#[derive(Clone, Debug)]
pub struct Subject {
    /// How to reach the cluster.
    pub connection: Connection,
    /// The topics, which derive from one name and the group's.
    pub topics: Topics,
    /// The group.
    pub group: String,
}

type Looked = BTreeMap<PartitionId, Progress>;

/// Looks once.
///
/// # Errors
/// When the topic doesn't exist or Kafka doesn't answer.
pub fn look_once(subject: &Subject) -> Result<Status, GroupError> {
    let cluster = Cluster::connect(&subject.connection)?;
    let group = Group::new(&subject.connection, &cluster, &subject.group, &subject.topics.readings)?;
    let candidates = candidates(&group, &subject.topics)?;
    let owners = owners(&group)?;
    let groups = of_interest(&group, candidates, |topic| owners.contains_key(topic));
    let progress = || groups.iter().map(Group::progress).collect::<Result<Vec<Looked>, _>>();
    let before = progress()?;
    let after = if before.iter().flat_map(BTreeMap::values).any(|progress| progress.lag() > 0) {
        std::thread::sleep(LOOK);
        progress()?
    } else {
        before.clone()
    };
    let mut looks = Vec::with_capacity(groups.len());
    for (group, progress) in groups.iter().zip(&after) {
        looks.push(topic_look(group, progress, &group.oldest_waiting(progress)?));
    }
    let nothing = BTreeMap::new();
    let first = groups.iter().zip(&before).map(|(group, progress)| topic_look(group, progress, &nothing));
    Ok(judge(&subject.group, &first.collect::<Vec<_>>(), looks, &owners, clock::now()))
}

/// Looks every second and tells each result; ends when `tell` returns false. An error doesn't end it: the next look may
/// be a good one.
///
/// # Errors
/// When the cluster doesn't answer at the start, or a client can't be created.
pub fn watch(
    subject: &Subject,
    mut tell: impl FnMut(Result<Status, GroupError>) -> bool,
) -> Result<(), GroupError> {
    let cluster = Cluster::connect(&subject.connection)?;
    let group = Group::new(&subject.connection, &cluster, &subject.group, &subject.topics.readings)?;
    let mut watched = Watched::new(&subject.group);
    let mut reports = Reports { reader: None, searched: None, caught_up: false };
    let mut waiting = Waiting::default();
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut searched: Option<Instant> = None;
    loop {
        let begun = Instant::now();
        // The first look is with what has been reported so far.
        reports.listen(subject, &cluster, &mut watched.roster, Duration::ZERO);
        let mut look = || -> Result<Status, GroupError> {
            if searched.is_none_or(|at| at.elapsed() > SEARCH_EVERY) {
                let candidates = candidates(&group, &subject.topics)?;
                if watched.wants_members() {
                    watched.members(clock::now(), owners(&group)?);
                }
                groups = of_interest(&group, candidates, |topic| watched.owned(topic));
                searched = Some(Instant::now());
            }
            let mut looks = Vec::with_capacity(groups.len());
            for group in &groups {
                let progress = group.progress()?;
                looks.push(topic_look(group, &progress, &waiting.ask(group, &progress)?));
            }
            Ok(watched.look(clock::now(), looks))
        };
        if !tell(look()) {
            return Ok(());
        }
        reports.listen(subject, &cluster, &mut watched.roster, EVERY.saturating_sub(begun.elapsed()));
    }
}

/// The other topics that exist, each with whether the group has committed an offset of it.
fn candidates<'c>(group: &Group<'c>, topics: &Topics) -> Result<Vec<(bool, Group<'c>)>, GroupError> {
    let names = topics.all().into_iter().map(|(name, _)| name).filter(|name| *name != group.topic());
    let mut candidates = Vec::new();
    for other in names.map(|name| group.on(name)) {
        if other.sees_topic()? {
            candidates.push((other.has_committed()?, other));
        }
    }
    Ok(candidates)
}

/// The group in the readings' topic, and in each other one that it reads.
fn of_interest<'c>(
    group: &Group<'c>,
    candidates: Vec<(bool, Group<'c>)>,
    owns: impl Fn(&str) -> bool,
) -> Vec<Group<'c>> {
    let mut groups = vec![group.on(group.topic())];
    let read = |(committed, other): &(bool, Group<'_>)| *committed || owns(other.topic());
    groups.extend(candidates.into_iter().filter(read).map(|(_, other)| other));
    groups
}

fn owners(group: &Group<'_>) -> Result<Owners, GroupError> {
    // This comes first: it names a missing topic, and shows that the coordinator answers. librdkafka can fail an
    // assertion when asked for members while the coordinator doesn't answer.
    group.has_committed()?;
    group.owners()
}

fn topic_look(group: &Group<'_>, progress: &Looked, waiting: &BTreeMap<PartitionId, Millis>) -> TopicLook {
    let look = |p: &Progress, waiting_since| PartitionLook {
        committed: p.committed,
        next: p.next(),
        end: p.end,
        waiting_since,
    };
    let partitions = progress.iter().map(|(id, p)| (*id, look(p, waiting.get(id).copied())));
    TopicLook { topic: group.topic().to_owned(), partitions: partitions.collect() }
}

/// The readers of the oldest records, one a topic; each is created when something waits for the first time.
#[derive(Default)]
struct Waiting(BTreeMap<String, OldestWaiting>);

impl Waiting {
    fn ask(
        &mut self,
        group: &Group<'_>,
        progress: &Looked,
    ) -> Result<BTreeMap<PartitionId, Millis>, GroupError> {
        let reader = match self.0.entry(group.topic().to_owned()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(_) if progress.values().all(|p| p.lag() == 0) => {
                return Ok(BTreeMap::new());
            }
            Entry::Vacant(entry) => entry.insert(group.waiting()?),
        };
        reader.ask(progress, PATIENCE)
    }
}

/// Listens to what workers say of themselves.
struct Reports {
    reader: Option<TopicReader>,
    searched: Option<Instant>,
    /// Whether the reports of before are read: from then on a report is heard when it is said.
    caught_up: bool,
}

impl Reports {
    /// Takes in what is said within this time; with zero, what has been said before.
    fn listen(&mut self, subject: &Subject, cluster: &Cluster, roster: &mut Roster, span: Duration) {
        let deadline = Instant::now() + span;
        if self.reader.is_none() && self.searched.is_none_or(|at| at.elapsed() > SEARCH_EVERY) {
            self.searched = Some(Instant::now());
            match self.open(subject, cluster) {
                Ok(reader) => self.reader = reader,
                Err(error) => tracing::debug!(reason = %Chain(&error), "no reports of workers"),
            }
        }
        let Some(reader) = &mut self.reader else {
            std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
            return;
        };
        // What was said before is worth a moment.
        let latest = if self.caught_up { deadline } else { deadline.max(Instant::now() + CATCH_UP) };
        loop {
            let caught_up = self.caught_up;
            let end = if caught_up { deadline } else { latest };
            let wait = end.saturating_duration_since(Instant::now());
            let read = reader.read(wait, |record| -> Result<(), TopicReaderError> {
                roster.hear(record.key, record.value, caught_up.then(clock::now));
                Ok(())
            });
            if let Err(error) = read {
                tracing::debug!(reason = %Chain(&error), "the reports of workers can't be read: trying again");
                (self.reader, self.caught_up) = (None, false);
                return;
            }
            self.caught_up |= reader.at_end();
            if Instant::now() >= if self.caught_up { deadline } else { latest } {
                return;
            }
        }
    }

    fn open(&self, subject: &Subject, cluster: &Cluster) -> Result<Option<TopicReader>, TopicReaderError> {
        let topic = &subject.topics.workers;
        if cluster.topic(topic)?.is_none() {
            return Ok(None);
        }
        TopicReader::new(&subject.connection, cluster, topic, StartAt::Beginning).map(Some)
    }
}
