package genwatch.peers;

import io.confluent.parallelconsumer.ParallelConsumerOptions;
import io.confluent.parallelconsumer.ParallelConsumerOptions.CommitMode;
import io.confluent.parallelconsumer.ParallelConsumerOptions.ProcessingOrder;
import io.confluent.parallelconsumer.ParallelStreamProcessor;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Confluent's Parallel Consumer, ordered by key. Alarm states are in memory only: it has no place for them. */
public final class ParallelPeer {
    private static final AtomicLong RECORDS = new AtomicLong();
    private static final AtomicLong ALERTS = new AtomicLong();
    private static final AtomicLong DEAD_LETTERS = new AtomicLong();
    private static final AtomicLong FIRST = new AtomicLong();

    public static void main(String[] args) throws Exception {
        Options options = Options.parse(args);
        Properties producing = new Properties();
        producing.put("bootstrap.servers", options.brokers);
        producing.put("enable.idempotence", "true");
        producing.put("linger.ms", "0");
        if (options.exactlyOnce) {
            producing.put("transactional.id", options.group);
        }
        Properties consuming = new Properties();
        consuming.put("bootstrap.servers", options.brokers);
        consuming.put("group.id", options.group);
        consuming.put("enable.auto.commit", "false");
        consuming.put("auto.offset.reset", "earliest");
        consuming.put("max.poll.records", "5000");
        consuming.put("max.partition.fetch.bytes", "4194304");
        KafkaConsumer<String, byte[]> consumer =
            new KafkaConsumer<>(consuming, new StringDeserializer(), new ByteArrayDeserializer());
        ParallelStreamProcessor<String, byte[]> processor = ParallelStreamProcessor.createEosStreamProcessor(
            ParallelConsumerOptions.<String, byte[]>builder()
                .consumer(consumer)
                .producer(new KafkaProducer<>(producing, new StringSerializer(), new ByteArraySerializer()))
                .ordering(ProcessingOrder.KEY)
                .maxConcurrency(options.concurrency)
                .commitMode(options.exactlyOnce
                    ? CommitMode.PERIODIC_TRANSACTIONAL_PRODUCER : CommitMode.PERIODIC_CONSUMER_ASYNCHRONOUS)
                .commitInterval(Duration.ofMillis(100))
                .build());
        Map<String, AlarmState> states = new ConcurrentHashMap<>();
        CountDownLatch enough = new CountDownLatch(1);
        CountDownLatch ended = new CountDownLatch(1);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            enough.countDown();
            try {
                ended.await();
            } catch (InterruptedException ignored) {
                Thread.currentThread().interrupt();
            }
        }));
        processor.subscribe(List.of(options.topic), new ConsumerRebalanceListener() {
            @Override
            public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
            }

            @Override
            public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
                System.err.println("assigned");
            }
        });
        processor.pollAndProduceMany(context -> {
            if (FIRST.get() == 0) {
                FIRST.compareAndSet(0, System.nanoTime());
            }
            List<ProducerRecord<String, byte[]>> out = judge(options, states, context.getSingleConsumerRecord());
            if (RECORDS.incrementAndGet() == options.count) {
                enough.countDown();
            }
            return out;
        });
        enough.await();
        // Draining commits what is left; the commit belongs to the time.
        processor.closeDrainFirst(Duration.ofSeconds(60));
        Options.tell(RECORDS.get(), (System.nanoTime() - FIRST.get()) / 1e9, ALERTS.get(), DEAD_LETTERS.get());
        ended.countDown();
        System.exit(0);
    }

    private static List<ProducerRecord<String, byte[]>> judge(
            Options options, Map<String, AlarmState> states, ConsumerRecord<String, byte[]> record) {
        if (options.workMs > 0) {
            try {
                Thread.sleep(options.workMs);
            } catch (InterruptedException ended) {
                Thread.currentThread().interrupt();
            }
        }
        Reading reading = Reading.parse(record.key(), record.value());
        if (reading == null) {
            DEAD_LETTERS.incrementAndGet();
            return List.of(new ProducerRecord<>(options.deadLetterTopic(), record.partition(), record.key(), record.value()));
        }
        // One reading of a generator at a time: the order by key makes a lock needless.
        List<byte[]> alerts = states.computeIfAbsent(reading.generator(), id -> new AlarmState())
            .apply(reading, record.topic(), record.partition(), record.offset(), record.timestamp());
        if (alerts == null) {
            return List.of();
        }
        List<ProducerRecord<String, byte[]>> out = new ArrayList<>(alerts.size());
        for (byte[] alert : alerts) {
            out.add(new ProducerRecord<>(options.alertsTopic(), reading.generator(), alert));
            ALERTS.incrementAndGet();
        }
        return out;
    }
}
