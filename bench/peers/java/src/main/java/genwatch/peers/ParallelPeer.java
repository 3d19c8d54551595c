package genwatch.peers;

import genwatch.peers.job.Alarms;
import genwatch.peers.job.Alert;
import genwatch.peers.job.Clients;
import genwatch.peers.job.Options;
import genwatch.peers.job.Reading;
import genwatch.peers.job.Run;
import io.confluent.parallelconsumer.ParallelConsumerOptions;
import io.confluent.parallelconsumer.ParallelConsumerOptions.CommitMode;
import io.confluent.parallelconsumer.ParallelConsumerOptions.ProcessingOrder;
import io.confluent.parallelconsumer.ParallelEoSStreamProcessor;
import io.confluent.parallelconsumer.PollContext;
import io.confluent.parallelconsumer.internal.DrainingCloseable.DrainingMode;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.BytesDeserializer;
import org.apache.kafka.common.serialization.BytesSerializer;
import org.apache.kafka.common.utils.Bytes;

/** Confluent Parallel Consumer, ordered by key. */
public final class ParallelPeer {

  /** Without work, threads alone cost; with it, each waits, and there is one reading a thread. */
  private static final int THREADS_WITHOUT_WORK = 4;

  private static final int BATCH_WITHOUT_WORK = 250;
  private static final int THREADS_WITHOUT_BATCH = 16;
  private static final int THREADS_WITH_WORK = 100;

  /** Readings to choose from, at least: enough for many different generators, whatever the concurrency. */
  private static final int BUFFER = 20_000;

  private final Options options;
  private final Run run;

  /** Of every generator ever seen: nothing is restored, nothing forgotten. */
  private final Map<String, State> states = new ConcurrentHashMap<>();

  /** Used by one thread at a time: the order by key sees to that, and publishes it to the next. */
  private static final class State {
    final Alarms alarms = new Alarms();
    long offset = -1;
    List<Alert> alerts = List.of();
  }

  private ParallelPeer(Options options, Run run) {
    this.options = options;
    this.run = run;
  }

  public static void main(String[] args) {
    Options options = Options.parse(args);
    Run run = new Run(options);
    run.main(() -> new ParallelPeer(options, run).run());
  }

  private void run() throws Exception {
    boolean idle = options.workMillis() == 0;
    int concurrency =
        options.concurrency() > 0
            ? options.concurrency()
            : !idle ? THREADS_WITH_WORK : options.exactlyOnce() ? THREADS_WITHOUT_BATCH : THREADS_WITHOUT_WORK;
    // Readings of a batch would wait for one another's work. And with transactions, version 0.5.3.3 gives the produce
    // lock back once for each record of a batch, though it was taken once: "Need to call #beginProducing first".
    boolean single = !idle || options.exactlyOnce();
    int batch = single ? 1 : options.batch() > 0 ? options.batch() : BATCH_WITHOUT_WORK;
    var config =
        ParallelConsumerOptions.<Bytes, Bytes>builder()
            .consumer(
                new KafkaConsumer<>(Clients.consumer(options), new BytesDeserializer(), new BytesDeserializer()))
            .producer(new KafkaProducer<>(Clients.producer(options), new BytesSerializer(), new BytesSerializer()))
            .ordering(ProcessingOrder.KEY)
            .maxConcurrency(concurrency)
            .batchSize(batch)
            .messageBufferSize(Math.max(BUFFER, 4 * concurrency * batch))
            .commitInterval(Duration.ofMillis(Clients.COMMIT_EVERY_MILLIS));
    if (options.exactlyOnce()) {
      config
          .commitMode(CommitMode.PERIODIC_TRANSACTIONAL_PRODUCER)
          // Readings go on during a commit; only those that send something wait for it.
          .allowEagerProcessingDuringTransactionCommit(true);
    } else {
      config.commitMode(CommitMode.PERIODIC_CONSUMER_ASYNCHRONOUS);
    }
    ParallelEoSStreamProcessor<Bytes, Bytes> parallel =
        new ParallelEoSStreamProcessor<>(config.build());
    parallel.subscribe(List.of(options.topic()), new Assigned(run));
    parallel.pollAndProduceMany(this::handle, result -> run.sent(result.getOut().topic()));
    while (!run.isOver()) {
      if (parallel.isClosedOrFailed()) {
        throw new IllegalStateException("the parallel consumer ended", parallel.getFailureCause());
      }
      Thread.sleep(50);
    }
    parallel.close(Duration.ofSeconds(30), DrainingMode.DONT_DRAIN);
  }

  private List<ProducerRecord<Bytes, Bytes>> handle(PollContext<Bytes, Bytes> readings) {
    run.received();
    List<ProducerRecord<Bytes, Bytes>> effects = new ArrayList<>(0);
    for (var reading : readings.getConsumerRecordsFlattened()) {
      handle(reading, effects);
    }
    return effects;
  }

  private void handle(ConsumerRecord<Bytes, Bytes> record, List<ProducerRecord<Bytes, Bytes>> effects) {
    options.work();
    Reading reading = Reading.parse(unwrap(record.key()), unwrap(record.value()));
    if (reading == null) {
      // A record keeps its partition number.
      effects.add(
          new ProducerRecord<>(
              options.dlqTopic(), record.partition(), record.timestamp(), record.key(), record.value()));
    } else {
      State state = states.computeIfAbsent(reading.id(), id -> new State());
      // What failed to be sent comes again: the state has moved, the alerts are the same.
      if (state.offset != record.offset()) {
        state.alerts = state.alarms.apply(reading, record.timestamp(), record.partition(), record.offset());
        state.offset = record.offset();
      }
      for (Alert alert : state.alerts) {
        effects.add(
            new ProducerRecord<>(
                options.alertsTopic(), Bytes.wrap(alert.key()), Bytes.wrap(alert.toJson(options.topic()))));
      }
    }
    run.processed();
  }

  private static byte[] unwrap(Bytes bytes) {
    return bytes == null ? null : bytes.get();
  }

  private record Assigned(Run run) implements ConsumerRebalanceListener {
    @Override
    public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
      if (!partitions.isEmpty()) {
        run.assigned();
      }
    }

    @Override
    public void onPartitionsRevoked(Collection<TopicPartition> partitions) {}
  }
}
