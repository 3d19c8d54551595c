//! Reads one generator's last minutes, and follows it from then on.

use std::time::{Duration, Instant};

use genwatch_core::partitioner::partition_of;
use genwatch_core::types::Millis;
use genwatch_kafka::admin::Cluster;
use genwatch_kafka::clock;
use genwatch_kafka::topic_reader::{StartAt, TopicReader, TopicReaderError};

use super::history::{History, SPAN};
use super::observer::Subject;

/// How often news are told.
const EVERY: Duration = Duration::from_millis(500);
/// No more of a partition is read: some seconds' worth of the busiest one.
const RECORDS_MAX: i64 = 500_000;

/// Reads and follows the readings and alarms of a generator and tells its history twice a second, until `tell` returns
/// false.
///
/// # Errors
/// When a topic doesn't exist or Kafka doesn't answer at the start, or the broker refuses.
pub fn follow(
    subject: &Subject,
    generator: &str,
    mut tell: impl FnMut(&History) -> bool,
) -> Result<(), TopicReaderError> {
    let cluster = Cluster::connect(&subject.connection)?;
    let reader = |topic: &str, from| -> Result<_, TopicReaderError> {
        let partitions = u32::try_from(cluster.require(topic)?).unwrap_or(u32::MAX);
        let partition = partition_of(generator.as_bytes(), partitions);
        let reader = TopicReader::of_partitions(
            &subject.connection,
            &cluster,
            topic,
            &[partition],
            from,
            RECORDS_MAX,
        )?;
        Ok((partition, reader))
    };
    let since = Millis(clock::now().0 - SPAN);
    let (partition, mut readings) = reader(&subject.topics.readings, StartAt::Time(since))?;
    // An alarm may be active for very long. Without this topic, or the right to read it, there are still readings.
    let mut alerts = reader(&subject.topics.alerts, StartAt::Beginning).ok().map(|(_, reader)| reader);
    let mut history = History::new(generator, partition);
    let mut told: Option<Instant> = None;
    loop {
        readings.read(Duration::from_millis(200), |record| -> Result<(), TopicReaderError> {
            history.hear_reading(record.key, record.value, record.timestamp);
            Ok(())
        })?;
        if let Some(alerts) = &mut alerts {
            alerts.read(Duration::ZERO, |record| -> Result<(), TopicReaderError> {
                history.hear_alert(record.key, record.value);
                Ok(())
            })?;
        }
        history.caught_up = readings.at_end() && alerts.as_ref().is_none_or(TopicReader::at_end);
        if told.is_none_or(|at| at.elapsed() > EVERY) {
            // Even where nothing changed: whoever listens may be gone.
            if !tell(&history) {
                return Ok(());
            }
            told = Some(Instant::now());
        }
    }
}
