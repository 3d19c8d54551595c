//! Registers a producer, and waits for its deliveries and for the end of its transaction.
//!
//! Why not rust-rdkafka's own (0.39): its `flush`, with which `commit_transaction` begins, polls for 100 ms at a time
//! and doesn't return at the last report, so each commit would take 100 ms. Here librdkafka waits by itself. That needs
//! another thread to serve the delivery reports, which [`ThreadedProducer`] has.

use std::time::{Duration, Instant};

use rdkafka::bindings as sys;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::{Producer, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaRespErr;

use super::consumer::TransactionError;
use super::millis;

/// How long the first call of a registration waits; each further one waits twice as long.
const FIRST_CALL: Duration = Duration::from_millis(10);

/// Registers the producer's transactional id, which fences earlier producers with it and ends their open transaction.
///
/// If no broker is connected yet, as with each new client, or if the coordinator is busy ending a transaction,
/// librdkafka 2.12.1 sleeps for half a second before it asks again (`rd_kafka_txn_coord_query`,
/// `rd_kafka_idemp_pid_timer_restart`). A further call makes it ask at once.
///
/// # Errors
/// When that takes longer than `patience` (retriable), or when the broker refuses.
pub fn register<C: ProducerContext>(producer: &impl Producer<C>, patience: Duration) -> KafkaResult<()> {
    let begun = Instant::now();
    let mut call = FIRST_CALL;
    loop {
        let left = patience.saturating_sub(begun.elapsed());
        match producer.init_transactions(call.min(left)) {
            Err(KafkaError::Transaction(error)) if error.is_retriable() && call < left => call *= 2,
            result => return result,
        }
    }
}

/// Waits until every record sent is reported as delivered or refused; returns whether that was in time.
pub fn flush<C: ProducerContext + 'static>(producer: &ThreadedProducer<C>, timeout: Duration) -> bool {
    // SAFETY: the client is alive as long as `producer`. librdkafka 2.12.1 counts a record as outstanding until its
    // report is freed (rd_kafka_curr_msgs_wait_zero), which is after the context has seen it.
    let code = unsafe { sys::rd_kafka_flush(producer.client().native_ptr(), millis(timeout)) };
    code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR
}

/// Commits the open transaction, after everything sent was delivered.
///
/// # Errors
/// On timeout (retriable), when a delivery failed, or when the broker fences us.
pub fn commit_transaction<C: ProducerContext + 'static>(
    producer: &ThreadedProducer<C>,
    timeout: Duration,
) -> Result<(), TransactionError> {
    // SAFETY: the client is alive as long as `producer`; the error, if there's one, is ours.
    TransactionError::check(unsafe {
        sys::rd_kafka_commit_transaction(producer.client().native_ptr(), millis(timeout))
    })
}

#[cfg(test)]
mod tests {
    use rdkafka::config::ClientConfig;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, DefaultProducerContext};
    use rdkafka::types::RDKafkaApiKey;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn producer(brokers: &str, id: &str) -> BaseProducer {
        ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("transactional.id", id)
            .create()
            .expect("a producer")
    }

    /// As it is for a while after an abort.
    #[test]
    fn a_busy_coordinator_is_asked_again_sooner_than_librdkafka_does() {
        let cluster: MockCluster<'_, DefaultProducerContext> = MockCluster::new(1).expect("a cluster");
        let time = |id: &str, register: &dyn Fn(&BaseProducer) -> KafkaResult<()>| {
            let busy = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS; 3];
            cluster.request_errors(RDKafkaApiKey::InitProducerId, &busy);
            let producer = producer(&cluster.bootstrap_servers(), id);
            let begun = Instant::now();
            register(&producer).expect("registered");
            producer.begin_transaction().expect("it may begin one");
            begun.elapsed()
        };
        let librdkafkas = time("waits", &|producer| producer.init_transactions(PATIENCE));
        let ours = time("asks", &|producer| register(producer, PATIENCE));
        assert!(ours * 2 < librdkafkas, "{ours:?}, and {librdkafkas:?} by librdkafka alone");
    }

    #[test]
    fn nobody_is_asked_for_longer_than_the_patience() {
        let nobody = producer("127.0.0.1:1", "alone");
        let Err(KafkaError::Transaction(error)) = register(&nobody, Duration::from_millis(50)) else {
            panic!("there is no broker");
        };
        assert!(error.is_retriable(), "{error}");
    }
}
