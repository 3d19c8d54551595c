package genwatch.peers;

import genwatch.peers.job.Alarms;
import genwatch.peers.job.Alert;
import genwatch.peers.job.Clients;
import genwatch.peers.job.Options;
import genwatch.peers.job.Reading;
import genwatch.peers.job.Run;
import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** The plain Java client: one thread, one poll loop, one reading after another. */
public final class PlainPeer implements ConsumerRebalanceListener {

  private static final Logger LOG = LoggerFactory.getLogger(PlainPeer.class);

  /** The clock is looked at once in so many readings, where they cost nothing. */
  private static final int LOOK_AT_CLOCK_EVERY = 256;

  private static final long COMMIT_EVERY_NANOS = TimeUnit.MILLISECONDS.toNanos(Clients.COMMIT_EVERY_MILLIS);

  private final Options options;
  private final Run run;
  private final KafkaConsumer<byte[], byte[]> consumer;
  private final KafkaProducer<byte[], byte[]> producer;

  /** By partition, so that what is revoked is forgotten. */
  private final Map<TopicPartition, Map<String, Alarms>> states = new HashMap<>();

  private final Map<TopicPartition, OffsetAndMetadata> uncommitted = new HashMap<>();
  private boolean inTransaction;
  private boolean broken;
  private long lastCommit = System.nanoTime();
  private volatile Exception sendFailure;

  private PlainPeer(Options options, Run run) {
    this.options = options;
    this.run = run;
    consumer =
        new KafkaConsumer<>(Clients.consumer(options), new ByteArrayDeserializer(), new ByteArrayDeserializer());
    producer =
        new KafkaProducer<>(Clients.producer(options), new ByteArraySerializer(), new ByteArraySerializer());
  }

  public static void main(String[] args) {
    Options options = Options.parse(args);
    Run run = new Run(options);
    run.main(() -> new PlainPeer(options, run).loop());
  }

  private void loop() throws Exception {
    try (producer; consumer) {
      if (options.exactlyOnce()) {
        producer.initTransactions();
      }
      consumer.subscribe(List.of(options.topic()), this);
      while (!run.isOver()) {
        ConsumerRecords<byte[], byte[]> records = consumer.poll(untilCommit());
        if (!records.isEmpty()) {
          run.received();
        }
        for (TopicPartition partition : records.partitions()) {
          handle(partition, records.records(partition));
        }
        if (untilCommit().isZero()) {
          commit(false);
        }
      }
      commit(true);
    }
  }

  private void handle(TopicPartition partition, List<ConsumerRecord<byte[], byte[]>> records) throws Exception {
    Map<String, Alarms> states = this.states.computeIfAbsent(partition, p -> new HashMap<>());
    int untilClock = LOOK_AT_CLOCK_EVERY;
    ConsumerRecord<byte[], byte[]> last = null;
    for (ConsumerRecord<byte[], byte[]> record : records) {
      handle(states, record);
      last = record;
      if (options.workMillis() > 0 || --untilClock == 0) {
        untilClock = LOOK_AT_CLOCK_EVERY;
        if (untilCommit().isZero()) {
          uncommitted.put(partition, new OffsetAndMetadata(record.offset() + 1));
          commit(false);
        }
        if (run.isOver()) {
          break;
        }
      }
    }
    if (last != null) {
      uncommitted.put(partition, new OffsetAndMetadata(last.offset() + 1));
    }
  }

  private void handle(Map<String, Alarms> states, ConsumerRecord<byte[], byte[]> record) {
    options.work();
    Reading reading = Reading.parse(record.key(), record.value());
    if (reading == null) {
      // A record keeps its partition number.
      send(
          new ProducerRecord<>(
              options.dlqTopic(), record.partition(), record.timestamp(), record.key(), record.value()));
    } else {
      Alarms alarms = states.computeIfAbsent(reading.id(), id -> new Alarms());
      for (Alert alert : alarms.apply(reading, record.timestamp(), record.partition(), record.offset())) {
        send(new ProducerRecord<>(options.alertsTopic(), alert.key(), alert.toJson(options.topic())));
      }
    }
    run.processed();
  }

  private void send(ProducerRecord<byte[], byte[]> record) {
    begin();
    producer.send(
        record,
        (metadata, e) -> {
          if (e == null) {
            run.sent(record.topic());
          } else {
            sendFailure = e;
          }
        });
  }

  private void begin() {
    if (options.exactlyOnce() && !inTransaction) {
      producer.beginTransaction();
      inTransaction = true;
    }
  }

  private Duration untilCommit() {
    return Duration.ofNanos(Math.max(0, lastCommit + COMMIT_EVERY_NANOS - System.nanoTime()));
  }

  /** Commits all that was handled. A failure ends the process: what is open is aborted, and the next one repeats it. */
  private void commit(boolean sync) throws Exception {
    if (!uncommitted.isEmpty() && !broken) {
      // Until it has gone well, so that closing the consumer doesn't try again what can't be.
      broken = true;
      if (options.exactlyOnce()) {
        begin();
        producer.sendOffsetsToTransaction(Map.copyOf(uncommitted), consumer.groupMetadata());
        producer.commitTransaction();
        inTransaction = false;
      } else {
        producer.flush();
        if (sendFailure != null) {
          throw sendFailure;
        }
        if (sync) {
          consumer.commitSync(Map.copyOf(uncommitted));
        } else {
          // Without waiting: a later commit makes good for one that failed.
          consumer.commitAsync(
              Map.copyOf(uncommitted),
              (offsets, e) -> {
                if (e != null) {
                  LOG.warn("commit failed", e);
                }
              });
        }
      }
      uncommitted.clear();
      broken = false;
    }
    lastCommit = System.nanoTime();
  }

  @Override
  public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
    if (!partitions.isEmpty()) {
      run.assigned();
    }
  }

  @Override
  public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
    if (partitions.isEmpty()) {
      return;
    }
    try {
      commit(true);
    } catch (Exception e) {
      throw new IllegalStateException("commit at a revocation", e);
    }
    partitions.forEach(states::remove);
  }

  @Override
  public void onPartitionsLost(Collection<TopicPartition> partitions) {
    // The open transaction may hold effects of theirs that another member repeats.
    run.fail(new IllegalStateException("lost " + partitions));
  }
}
