package genwatch.peers.job;

import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.CommonClientConfigs;
import org.apache.kafka.common.utils.Utils;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;

/** A run of Kafka Streams: any topology, the same clients. */
public final class StreamsRun {

  private StreamsRun() {}

  /** Runs the topology until the run is over; {@code own} is what only this peer configures. */
  public static void run(Options options, Run run, Topology topology, Map<String, Object> own) throws Exception {
    Path directory = Files.createTempDirectory("streams-peer");
    try (KafkaStreams streams = new KafkaStreams(topology, config(options, directory, own))) {
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
      // Commits what is open, and leaves at once: otherwise the others wait for the session to end.
      streams.close(new KafkaStreams.CloseOptions().timeout(Duration.ofSeconds(30)).leaveGroup(true));
    } finally {
      Utils.delete(directory.toFile());
    }
  }

  private static Properties config(Options options, Path directory, Map<String, Object> own) {
    Properties config = new Properties();
    config.put(CommonClientConfigs.BOOTSTRAP_SERVERS_CONFIG, options.brokers());
    config.put(StreamsConfig.APPLICATION_ID_CONFIG, options.group());
    config.put(StreamsConfig.STATE_DIR_CONFIG, directory.toString());
    config.put(
        StreamsConfig.PROCESSING_GUARANTEE_CONFIG,
        options.exactlyOnce() ? StreamsConfig.EXACTLY_ONCE_V2 : StreamsConfig.AT_LEAST_ONCE);
    config.put(
        StreamsConfig.NUM_STREAM_THREADS_CONFIG,
        options.threads() > 0 ? options.threads() : Runtime.getRuntime().availableProcessors());
    // As many as a poll brings, so that partitions aren't paused and resumed all the time.
    config.put(StreamsConfig.BUFFERED_RECORDS_PER_PARTITION_CONFIG, 10_000);
    Clients.fastConsumer().forEach((name, value) -> config.put(StreamsConfig.mainConsumerPrefix(name), value));
    Clients.fastProducer().forEach((name, value) -> config.put(StreamsConfig.producerPrefix(name), value));
    config.putAll(own);
    return config;
  }
}
