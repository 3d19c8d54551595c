package genwatch.peers;

import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.WakeupException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** The plain consumer: one thread, one reading after the other. Alarm states are in memory only. */
public final class PlainPeer {
    private static final long COMMIT_INTERVAL_NANOS = 100_000_000;

    private final Options options;
    private final KafkaProducer<String, byte[]> producer;
    private final KafkaConsumer<String, byte[]> consumer;
    private final Map<String, AlarmState> states = new HashMap<>();
    private final Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
    private long records;
    private long alerts;
    private long deadLetters;

    private PlainPeer(Options options) {
        this.options = options;
        Properties producing = new Properties();
        producing.put("bootstrap.servers", options.brokers);
        producing.put("enable.idempotence", "true");
        producing.put("linger.ms", "0");
        if (options.exactlyOnce) {
            producing.put("transactional.id", options.group);
        }
        producer = new KafkaProducer<>(producing, new StringSerializer(), new ByteArraySerializer());
        Properties consuming = new Properties();
        consuming.put("bootstrap.servers", options.brokers);
        consuming.put("group.id", options.group);
        consuming.put("enable.auto.commit", "false");
        consuming.put("auto.offset.reset", "earliest");
        consuming.put("max.poll.records", "5000");
        consuming.put("max.partition.fetch.bytes", "4194304");
        consumer = new KafkaConsumer<>(consuming, new StringDeserializer(), new ByteArrayDeserializer());
    }

    public static void main(String[] args) throws Exception {
        new PlainPeer(Options.parse(args)).run();
    }

    private void run() throws Exception {
        Thread main = Thread.currentThread();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            consumer.wakeup();
            try {
                main.join(10_000);
            } catch (InterruptedException ignored) {
                Thread.currentThread().interrupt();
            }
        }));
        if (options.exactlyOnce) {
            producer.initTransactions();
            producer.beginTransaction();
        }
        consumer.subscribe(List.of(options.topic), new ConsumerRebalanceListener() {
            @Override
            public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
                commit();
            }

            @Override
            public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
                System.err.println("assigned");
            }
        });
        long first = 0;
        long committed = System.nanoTime();
        try {
            while (options.count < 0 || records < options.count) {
                for (ConsumerRecord<String, byte[]> record : consumer.poll(Duration.ofMillis(20))) {
                    first = first == 0 ? System.nanoTime() : first;
                    work(record);
                }
                if (System.nanoTime() - committed >= COMMIT_INTERVAL_NANOS) {
                    commit();
                    committed = System.nanoTime();
                }
            }
        } catch (WakeupException told) {
            // Told to end.
        }
        commit();
        Options.tell(records, (System.nanoTime() - first) / 1e9, alerts, deadLetters);
        consumer.close();
        producer.close();
    }

    private void work(ConsumerRecord<String, byte[]> record) throws InterruptedException {
        if (options.workMs > 0) {
            Thread.sleep(options.workMs);
        }
        records++;
        offsets.put(new TopicPartition(record.topic(), record.partition()), new OffsetAndMetadata(record.offset() + 1));
        Reading reading = Reading.parse(record.key(), record.value());
        if (reading == null) {
            producer.send(new ProducerRecord<>(options.deadLetterTopic(), record.partition(), record.key(), record.value()));
            deadLetters++;
            return;
        }
        List<byte[]> found = states.computeIfAbsent(reading.generator(), id -> new AlarmState())
            .apply(reading, record.topic(), record.partition(), record.offset(), record.timestamp());
        if (found != null) {
            for (byte[] alert : found) {
                producer.send(new ProducerRecord<>(options.alertsTopic(), reading.generator(), alert));
                alerts++;
            }
        }
    }

    private void commit() {
        if (offsets.isEmpty()) {
            return;
        }
        if (options.exactlyOnce) {
            producer.sendOffsetsToTransaction(offsets, consumer.groupMetadata());
            producer.commitTransaction();
            producer.beginTransaction();
        } else {
            producer.flush();
            consumer.commitSync(offsets);
        }
        offsets.clear();
    }
}
