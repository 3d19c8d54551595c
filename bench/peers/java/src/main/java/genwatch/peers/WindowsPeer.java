package genwatch.peers;

import genwatch.peers.job.Options;
import genwatch.peers.job.Reading;
import genwatch.peers.job.Run;
import genwatch.peers.job.StreamsRun;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Map;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
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
    // Commits as scripts/bench runs genwatch downsample; a cache with room for all open windows, so that the changelog gets
    // one record a window and commit.
    Map<String, Object> config =
        Map.of(
            StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 1_000,
            StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 256L << 20);
    run.main(() -> StreamsRun.run(options, run, topology(options, run), config));
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
}
