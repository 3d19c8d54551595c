package genwatch.peers;

import genwatch.peers.job.Alarms;
import genwatch.peers.job.Alert;
import genwatch.peers.job.Clients;
import genwatch.peers.job.Options;
import genwatch.peers.job.Reading;
import genwatch.peers.job.Run;
import genwatch.peers.job.StreamsRun;
import java.util.Map;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
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
    Map<String, Object> config = Map.of(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, Clients.COMMIT_EVERY_MILLIS);
    run.main(() -> StreamsRun.run(options, run, topology(options, run), config));
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
