package genwatch.peers.job;

import java.util.HashMap;
import java.util.Map;
import java.util.UUID;
import org.apache.kafka.clients.CommonClientConfigs;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.producer.ProducerConfig;

/** The settings of the Kafka clients that all peers share. */
public final class Clients {

  /** How often effects and offsets are committed, by every peer in either delivery. */
  public static final int COMMIT_EVERY_MILLIS = 100;

  /** As genwatch's: how soon a crash is noticed. Brokers allow no less by default. */
  private static final int SESSION_TIMEOUT_MILLIS = 6_000;

  private static final int HEARTBEAT_MILLIS = 100;

  /** Short: an open transaction holds up everyone who reads committed records alone. */
  private static final int TRANSACTION_TIMEOUT_MILLIS = 15_000;

  private Clients() {}

  /** For a fast drain of a backlog: much at once, and no copy of the socket's data in small pieces. */
  public static Map<String, Object> fastConsumer() {
    Map<String, Object> config = new HashMap<>();
    config.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
    config.put(ConsumerConfig.MAX_POLL_RECORDS_CONFIG, 10_000);
    config.put(ConsumerConfig.MAX_PARTITION_FETCH_BYTES_CONFIG, 8 << 20);
    config.put(ConsumerConfig.FETCH_MAX_BYTES_CONFIG, 64 << 20);
    config.put(CommonClientConfigs.RECEIVE_BUFFER_CONFIG, -1);
    // As librdkafka's default is.
    config.put(ConsumerConfig.CHECK_CRCS_CONFIG, false);
    config.put(ConsumerConfig.SESSION_TIMEOUT_MS_CONFIG, SESSION_TIMEOUT_MILLIS);
    // By this a member hears of a rebalance.
    config.put(ConsumerConfig.HEARTBEAT_INTERVAL_MS_CONFIG, HEARTBEAT_MILLIS);
    return config;
  }

  public static Map<String, Object> consumer(Options options) {
    Map<String, Object> config = fastConsumer();
    config.put(CommonClientConfigs.BOOTSTRAP_SERVERS_CONFIG, options.brokers());
    config.put(CommonClientConfigs.GROUP_ID_CONFIG, options.group());
    config.put(ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, false);
    config.put(
        ConsumerConfig.PARTITION_ASSIGNMENT_STRATEGY_CONFIG, CooperativeStickyAssignor.class.getName());
    return config;
  }

  /** For latency: nothing waits for company. */
  public static Map<String, Object> fastProducer() {
    Map<String, Object> config = new HashMap<>();
    config.put(ProducerConfig.LINGER_MS_CONFIG, 0);
    config.put(ProducerConfig.COMPRESSION_TYPE_CONFIG, "none");
    // A bad record of more than 1 MiB, which is why it is bad, must fit.
    config.put(ProducerConfig.MAX_REQUEST_SIZE_CONFIG, 8 << 20);
    // The default of 100 can make a transaction wait for the end of the one before.
    config.put(ProducerConfig.RETRY_BACKOFF_MS_CONFIG, 5);
    return config;
  }

  public static Map<String, Object> producer(Options options) {
    Map<String, Object> config = fastProducer();
    config.put(CommonClientConfigs.BOOTSTRAP_SERVERS_CONFIG, options.brokers());
    config.put(ProducerConfig.ENABLE_IDEMPOTENCE_CONFIG, true);
    if (options.exactlyOnce()) {
      // Of its own for each instance: the group's generation is what fences zombies.
      config.put(ProducerConfig.TRANSACTIONAL_ID_CONFIG, options.group() + "-" + UUID.randomUUID());
      config.put(ProducerConfig.TRANSACTION_TIMEOUT_CONFIG, TRANSACTION_TIMEOUT_MILLIS);
    }
    return config;
  }
}
