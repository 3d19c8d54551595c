package genwatch.peers.job;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.atomic.LongAdder;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AdminClientConfig;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * One run of a peer: counts, decides when it is over, prints the summary.
 *
 * <p>The end is told by the broker, for all peers alike: the sum of the offsets that the group has committed. So the
 * time includes the last commit, whoever makes it and in whatever way.
 */
public final class Run {

  /** What the end's time may be late by. */
  private static final long LOOK_EVERY_MILLIS = 20;

  private static final Logger LOG = LoggerFactory.getLogger(Run.class);

  private final Options options;
  private final LongAdder records = new LongAdder();
  private final LongAdder alerts = new LongAdder();
  private final LongAdder dlq = new LongAdder();
  private final CountDownLatch over = new CountDownLatch(1);
  private volatile long begun;
  private volatile long ended;
  private volatile Throwable failure;

  public Run(Options options) {
    this.options = options;
  }

  /**
   * Runs the peer on this thread: {@code body} returns after {@link #isOver}, everything committed and closed. Ends the
   * process.
   */
  public void main(Body body) {
    Thread main = Thread.currentThread();
    // An orderly end at SIGTERM: the JVM halts once this hook is done, so it waits for the summary.
    Thread hook =
        new Thread(
            () -> {
              over.countDown();
              try {
                main.join();
              } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
              }
            });
    Runtime.getRuntime().addShutdownHook(hook);
    if (options.count() > 0) {
      Thread watch = new Thread(this::watch, "end-of-run");
      watch.setDaemon(true);
      watch.start();
    }
    try {
      body.run();
    } catch (Throwable e) {
      fail(e);
    }
    if (ended == 0) {
      ended = System.nanoTime();
    }
    if (failure != null) {
      LOG.error("failed", failure);
      System.err.flush();
      Runtime.getRuntime().halt(1);
    }
    double seconds = begun == 0 ? 0 : (ended - begun) / 1e9;
    System.out.printf(
        Locale.ROOT,
        "{\"records\":%d,\"seconds\":%.6f,\"alerts\":%d,\"dlq\":%d}%n",
        records.sum(),
        seconds,
        alerts.sum(),
        dlq.sum());
    System.out.flush();
    // Not exit: at SIGTERM it would wait for the hook, and the hook waits for this thread.
    Runtime.getRuntime().halt(0);
  }

  /** What a peer does. */
  @FunctionalInterface
  public interface Body {
    void run() throws Exception;
  }

  public void assigned() {
    System.err.println("assigned");
  }

  /** A record has arrived. */
  public void received() {
    if (begun == 0) {
      synchronized (this) {
        if (begun == 0) {
          begun = System.nanoTime();
        }
      }
    }
  }

  public void processed() {
    records.increment();
  }

  /** A record was acknowledged on the topic of that name: an alert or a bad record. */
  public void sent(String topic) {
    (topic.equals(options.dlqTopic()) ? dlq : alerts).increment();
  }

  public boolean isOver() {
    return over.getCount() == 0;
  }

  public void awaitOver() throws InterruptedException {
    over.await();
  }

  /** The run is over and has failed. */
  public void fail(Throwable cause) {
    if (failure == null) {
      failure = cause;
    }
    over.countDown();
  }

  private void watch() {
    try (Admin admin = Admin.create(Map.of(AdminClientConfig.BOOTSTRAP_SERVERS_CONFIG, options.brokers()))) {
      Map<TopicPartition, Long> start = beginnings(admin);
      while (!isOver()) {
        if (committed(admin, start) >= options.count()) {
          ended = System.nanoTime();
          over.countDown();
          return;
        }
        Thread.sleep(LOOK_EVERY_MILLIS);
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    } catch (ExecutionException e) {
      fail(e.getCause());
    }
  }

  private Map<TopicPartition, Long> beginnings(Admin admin) throws InterruptedException, ExecutionException {
    List<TopicPartition> partitions = new ArrayList<>();
    admin
        .describeTopics(List.of(options.topic()))
        .topicNameValues()
        .get(options.topic())
        .get()
        .partitions()
        .forEach(info -> partitions.add(new TopicPartition(options.topic(), info.partition())));
    Map<TopicPartition, OffsetSpec> ask = new HashMap<>();
    partitions.forEach(partition -> ask.put(partition, OffsetSpec.earliest()));
    Map<TopicPartition, Long> start = new HashMap<>();
    var answer = admin.listOffsets(ask);
    for (TopicPartition partition : partitions) {
      start.put(partition, answer.partitionResult(partition).get().offset());
    }
    return start;
  }

  private long committed(Admin admin, Map<TopicPartition, Long> start) throws InterruptedException {
    Map<TopicPartition, OffsetAndMetadata> offsets;
    try {
      offsets = admin.listConsumerGroupOffsets(options.group()).partitionsToOffsetAndMetadata().get();
    } catch (ExecutionException e) {
      // The group or its coordinator isn't there yet, or moves: the next look will tell.
      return 0;
    }
    long sum = 0;
    for (var entry : offsets.entrySet()) {
      Long from = start.get(entry.getKey());
      if (from != null && entry.getValue() != null) {
        sum += entry.getValue().offset() - from;
      }
    }
    return sum;
  }
}
