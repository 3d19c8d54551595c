package genwatch.peers;

import genwatch.peers.job.Clients;
import genwatch.peers.job.Options;
import genwatch.peers.job.Reading;
import genwatch.peers.job.Run;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.CommonClientConfigs;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Utils;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.EmitStrategy;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.state.Stores;

/**
 * Kafka Streams: one-minute windows by the DSL, told when they close (KIP-825), in an in-memory store with a changelog.
 * Count, sum, least and greatest of three fields; no percentiles, no time above limits, no fuel.
 */
public final class WindowsPeer {

  private static final Duration WINDOW = Duration.ofMinutes(1);
  private static final Duration GRACE = Duration.ofSeconds(10);
  private static final int FIELDS = 3;

  private WindowsPeer() {}

  public static void main(String[] args) {
    Options options = Options.parse(args);
    Run run = new Run(options);
    run.main(() -> run(options, run));
  }

  private static void run(Options options, Run run) throws Exception {
    Path directory = Files.createTempDirectory("windows-peer");
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
      streams.close(Duration.ofSeconds(30));
    } finally {
      Utils.delete(directory.toFile());
    }
  }

  private static Topology topology(Options options, Run run) {
    var bytes = Serdes.ByteArray();
    var windows = TimeWindows.ofSizeAndGrace(WINDOW, GRACE);
    var store =
        Stores.inMemoryWindowStore(
            "minutes", WINDOW.plus(GRACE).multipliedBy(2), WINDOW, false);
    StreamsBuilder builder = new StreamsBuilder();
    builder.stream(options.topic(), Consumed.with(bytes, bytes))
        .peek((key, value) -> run.received())
        .groupByKey(Grouped.with(bytes, bytes))
        .windowedBy(windows)
        .emitStrategy(EmitStrategy.onWindowClose())
        .aggregate(
            WindowsPeer::nothing,
            (key, value, sums) -> {
              byte[] added = add(key, value, sums);
              run.processed();
              return added;
            },
            Materialized.<byte[], byte[]>as(store)
                .withKeySerde(bytes)
                .withValueSerde(bytes)
                .withLoggingEnabled(Map.of())
                .withCachingEnabled())
        .toStream((window, sums) -> window.key())
        .mapValues(WindowsPeer::toJson)
        .to(options.topic() + "_1m_streams", Produced.with(bytes, bytes));
    return builder.build();
  }

  private static byte[] nothing() {
    ByteBuffer sums = ByteBuffer.allocate(8 + FIELDS * 24);
    for (int field = 0; field < FIELDS; field++) {
      sums.putDouble(8 + field * 24 + 8, Double.POSITIVE_INFINITY);
      sums.putDouble(8 + field * 24 + 16, Double.NEGATIVE_INFINITY);
    }
    return sums.array();
  }

  private static byte[] add(byte[] key, byte[] value, byte[] before) {
    Reading reading = Reading.parse(key, value);
    if (reading == null) {
      return before;
    }
    ByteBuffer sums = ByteBuffer.wrap(before.clone());
    sums.putLong(0, sums.getLong(0) + 1);
    double[] values = {reading.temperature(), reading.pressure(), reading.fuel()};
    for (int field = 0; field < FIELDS; field++) {
      int at = 8 + field * 24;
      sums.putDouble(at, sums.getDouble(at) + values[field]);
      sums.putDouble(at + 8, Math.min(sums.getDouble(at + 8), values[field]));
      sums.putDouble(at + 16, Math.max(sums.getDouble(at + 16), values[field]));
    }
    return sums.array();
  }

  private static byte[] toJson(byte[] value) {
    ByteBuffer sums = ByteBuffer.wrap(value);
    long count = sums.getLong(0);
    StringBuilder json = new StringBuilder("{\"count\":").append(count);
    for (int field = 0; field < FIELDS; field++) {
      int at = 8 + field * 24;
      json.append(",\"f").append(field).append("\":[").append(sums.getDouble(at) / count).append(',');
      json.append(sums.getDouble(at + 8)).append(',').append(sums.getDouble(at + 16)).append(']');
    }
    return json.append('}').toString().getBytes(StandardCharsets.UTF_8);
  }

  private static Properties config(Options options, Path directory) {
    Properties config = new Properties();
    config.put(CommonClientConfigs.BOOTSTRAP_SERVERS_CONFIG, options.brokers());
    config.put(StreamsConfig.APPLICATION_ID_CONFIG, options.group());
    config.put(StreamsConfig.STATE_DIR_CONFIG, directory.toString());
    config.put(
        StreamsConfig.PROCESSING_GUARANTEE_CONFIG,
        options.exactlyOnce() ? StreamsConfig.EXACTLY_ONCE_V2 : StreamsConfig.AT_LEAST_ONCE);
    // As scripts/bench runs genwatch downsample.
    config.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 1_000);
    config.put(
        StreamsConfig.NUM_STREAM_THREADS_CONFIG,
        options.threads() > 0 ? options.threads() : Runtime.getRuntime().availableProcessors());
    config.put(StreamsConfig.BUFFERED_RECORDS_PER_PARTITION_CONFIG, 10_000);
    // Room for all open windows, so that the changelog gets one record a window and commit.
    config.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 256L << 20);
    Clients.fastConsumer().forEach((name, value) -> config.put(StreamsConfig.mainConsumerPrefix(name), value));
    Clients.fastProducer().forEach((name, value) -> config.put(StreamsConfig.producerPrefix(name), value));
    return config;
  }
}
