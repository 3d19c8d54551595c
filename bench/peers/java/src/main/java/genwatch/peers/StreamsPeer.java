package genwatch.peers;

import genwatch.peers.job.Alarms;
import genwatch.peers.job.Alert;
import genwatch.peers.job.Clients;
import genwatch.peers.job.Options;
import genwatch.peers.job.Reading;
import genwatch.peers.job.Run;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.CommonClientConfigs;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Utils;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.processor.api.RecordMetadata;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/** Kafka Streams: the Processor API, alarm states in an in-memory store with a changelog. */
public final class StreamsPeer {

  private static final String READINGS = "readings";
  private static final String DETECTOR = "detector";
  private static final String ALARMS = "alarms";
  private static final String ALERTS = "alerts";
  private static final String DLQ = "dlq";

  private StreamsPeer() {}

  public static void main(String[] args) {
    Options options = Options.parse(args);
    Run run = new Run(options);
    run.main(() -> run(options, run));
  }

  private static void run(Options options, Run run) throws Exception {
    Path directory = Files.createTempDirectory("streams-peer");
    try (KafkaStreams streams = new KafkaStreams(topology(options, run), config(options, directory))) {
      streams.setUncaughtExceptionHandler(
          e -> {
            run.fail(e);
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
          });
      streams.setStateListener(
          (now, before) -> {
            if (now == KafkaStreams.State.RUNNING) {
              run.assigned();
            }
          });
      streams.start();
      run.awaitOver();
      // Commits what is open.
      streams.close(Duration.ofSeconds(30));
    } finally {
      Utils.delete(directory.toFile());
    }
  }

  private static Topology topology(Options options, Run run) {
    var bytes = Serdes.ByteArray();
    return new Topology()
        .addSource(READINGS, bytes.deserializer(), bytes.deserializer(), options.topic())
        .addProcessor(DETECTOR, () -> new Detector(options, run), READINGS)
        .addStateStore(
            Stores.keyValueStoreBuilder(Stores.inMemoryKeyValueStore(ALARMS), Serdes.String(), bytes)
                .withLoggingEnabled(Map.of())
                .withCachingDisabled(),
            DETECTOR)
        .addSink(ALERTS, options.alertsTopic(), bytes.serializer(), bytes.serializer(), DETECTOR)
        .addSink(DLQ, options.dlqTopic(), bytes.serializer(), bytes.serializer(), DETECTOR);
  }

  private static Properties config(Options options, Path directory) {
    Properties config = new Properties();
    config.put(CommonClientConfigs.BOOTSTRAP_SERVERS_CONFIG, options.brokers());
    config.put(StreamsConfig.APPLICATION_ID_CONFIG, options.group());
    config.put(StreamsConfig.STATE_DIR_CONFIG, directory.toString());
    config.put(
        StreamsConfig.PROCESSING_GUARANTEE_CONFIG,
        options.exactlyOnce() ? StreamsConfig.EXACTLY_ONCE_V2 : StreamsConfig.AT_LEAST_ONCE);
    config.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, Clients.COMMIT_EVERY_MILLIS);
    config.put(
        StreamsConfig.NUM_STREAM_THREADS_CONFIG,
        options.threads() > 0 ? options.threads() : Runtime.getRuntime().availableProcessors());
    // As many as a poll brings, so that partitions aren't paused and resumed all the time.
    config.put(StreamsConfig.BUFFERED_RECORDS_PER_PARTITION_CONFIG, 10_000);
    Clients.fastConsumer().forEach((name, value) -> config.put(StreamsConfig.mainConsumerPrefix(name), value));
    Clients.fastProducer().forEach((name, value) -> config.put(StreamsConfig.producerPrefix(name), value));
    return config;
  }

  private static final class Detector implements Processor<byte[], byte[], byte[], byte[]> {

    private final Options options;
    private final Run run;
    private ProcessorContext<byte[], byte[]> context;
    private KeyValueStore<String, byte[]> states;

    Detector(Options options, Run run) {
      this.options = options;
      this.run = run;
    }

    @Override
    public void init(ProcessorContext<byte[], byte[]> context) {
      this.context = context;
      states = context.getStateStore(ALARMS);
    }

    @Override
    public void process(Record<byte[], byte[]> record) {
      run.received();
      options.work();
      Reading reading = Reading.parse(record.key(), record.value());
      if (reading == null) {
        forward(record, DLQ, options.dlqTopic());
      } else {
        detect(reading, record);
      }
      run.processed();
    }

    private void detect(Reading reading, Record<byte[], byte[]> record) {
      byte[] state = states.get(reading.id());
      Alarms alarms = state == null ? new Alarms() : Alarms.fromBytes(state);
      RecordMetadata source = context.recordMetadata().orElseThrow();
      var alerts = alarms.apply(reading, record.timestamp(), source.partition(), source.offset());
      if (alerts.isEmpty()) {
        return;
      }
      states.put(reading.id(), alarms.toBytes());
      for (Alert alert : alerts) {
        forward(
            new Record<>(alert.key(), alert.toJson(options.topic()), System.currentTimeMillis()),
            ALERTS,
            options.alertsTopic());
      }
    }

    /** Counted at once: the commit that ends a run has waited for the acknowledgement. */
    private void forward(Record<byte[], byte[]> record, String sink, String topic) {
      context.forward(record, sink);
      run.sent(topic);
    }
  }
}
