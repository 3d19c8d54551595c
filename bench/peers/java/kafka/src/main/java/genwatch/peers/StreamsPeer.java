package genwatch.peers;

import java.util.List;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.processor.api.RecordMetadata;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/** Kafka Streams: the Processor API with a state store in memory, whose changelog moves with its partition. */
public final class StreamsPeer {
    private static final String STATES = "states";
    private static final AtomicLong RECORDS = new AtomicLong();
    private static final AtomicLong ALERTS = new AtomicLong();
    private static final AtomicLong DEAD_LETTERS = new AtomicLong();
    private static final AtomicLong FIRST = new AtomicLong();
    private static final CountDownLatch ENOUGH = new CountDownLatch(1);

    public static void main(String[] args) throws Exception {
        Options options = Options.parse(args);
        Properties config = new Properties();
        config.put(StreamsConfig.APPLICATION_ID_CONFIG, options.group);
        config.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, options.brokers);
        config.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, options.threads);
        config.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG,
            options.exactlyOnce ? StreamsConfig.EXACTLY_ONCE_V2 : StreamsConfig.AT_LEAST_ONCE);
        config.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 100);
        config.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        config.put(StreamsConfig.STATE_DIR_CONFIG, java.nio.file.Files.createTempDirectory("genwatch-streams").toString());
        config.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
        config.put(StreamsConfig.consumerPrefix("max.poll.records"), 5000);
        config.put(StreamsConfig.consumerPrefix("max.partition.fetch.bytes"), 4 << 20);
        config.put(StreamsConfig.producerPrefix("linger.ms"), 0);

        Topology topology = new Topology();
        topology.addSource("readings", Serdes.String().deserializer(), Serdes.ByteArray().deserializer(), options.topic);
        topology.addProcessor("judge", () -> new Judge(options), "readings");
        // Changed once an alarm, not once a reading; logged to its changelog topic.
        topology.addStateStore(
            Stores.keyValueStoreBuilder(Stores.inMemoryKeyValueStore(STATES), Serdes.String(), Serdes.ByteArray()), "judge");
        topology.addSink("alerts", options.alertsTopic(), Serdes.String().serializer(), Serdes.ByteArray().serializer(), "judge");
        topology.addSink("dlq", options.deadLetterTopic(), Serdes.String().serializer(), Serdes.ByteArray().serializer(), "judge");

        KafkaStreams streams = new KafkaStreams(topology, config);
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            Runtime.getRuntime().halt(1);
            return null;
        });
        streams.setStateListener((now, before) -> {
            if (now == KafkaStreams.State.RUNNING) {
                System.err.println("assigned");
            }
        });
        CountDownLatch ended = new CountDownLatch(1);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            ENOUGH.countDown();
            try {
                ended.await();
            } catch (InterruptedException ignored) {
                Thread.currentThread().interrupt();
            }
        }));
        streams.start();
        ENOUGH.await();
        // Closing commits what is left; the commit belongs to the time.
        streams.close();
        Options.tell(RECORDS.get(), (System.nanoTime() - FIRST.get()) / 1e9, ALERTS.get(), DEAD_LETTERS.get());
        ended.countDown();
    }

    private static final class Judge implements Processor<String, byte[], String, byte[]> {
        private final Options options;
        private ProcessorContext<String, byte[]> context;
        private KeyValueStore<String, byte[]> states;

        Judge(Options options) {
            this.options = options;
        }

        @Override
        public void init(ProcessorContext<String, byte[]> context) {
            this.context = context;
            states = context.getStateStore(STATES);
        }

        @Override
        public void process(Record<String, byte[]> record) {
            if (FIRST.get() == 0) {
                FIRST.compareAndSet(0, System.nanoTime());
            }
            if (options.workMs > 0) {
                try {
                    Thread.sleep(options.workMs);
                } catch (InterruptedException ended) {
                    Thread.currentThread().interrupt();
                }
            }
            Reading reading = Reading.parse(record.key(), record.value());
            if (reading == null) {
                context.forward(record, "dlq");
                DEAD_LETTERS.incrementAndGet();
            } else {
                judge(record, reading);
            }
            if (RECORDS.incrementAndGet() == options.count) {
                ENOUGH.countDown();
            }
        }

        private void judge(Record<String, byte[]> record, Reading reading) {
            RecordMetadata source = context.recordMetadata().orElseThrow();
            AlarmState state = AlarmState.fromBytes(states.get(reading.generator()));
            List<byte[]> alerts = state.apply(reading, source.topic(), source.partition(), source.offset(), record.timestamp());
            if (alerts == null) {
                return;
            }
            states.put(reading.generator(), state.toBytes());
            for (byte[] alert : alerts) {
                context.forward(new Record<>(reading.generator(), alert, record.timestamp()), "alerts");
                ALERTS.incrementAndGet();
            }
        }
    }
}
