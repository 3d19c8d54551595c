package genwatch.peers;

/** The command line that all peers take. */
public final class Options {
    public String brokers;
    public String topic;
    public String group;
    public boolean exactlyOnce;
    public long workMs;
    public int concurrency = 1000;
    public int threads = 1;
    /** End after so many records; negative: when told to. */
    public long count = -1;

    public static Options parse(String[] args) {
        Options options = new Options();
        for (int i = 0; i + 1 < args.length; i += 2) {
            String value = args[i + 1];
            switch (args[i]) {
                case "--brokers" -> options.brokers = value;
                case "--topic" -> options.topic = value;
                case "--group" -> options.group = value;
                case "--delivery" -> options.exactlyOnce = value.equals("exactly-once");
                case "--work-ms" -> options.workMs = Long.parseLong(value);
                case "--concurrency" -> options.concurrency = Integer.parseInt(value);
                case "--threads" -> options.threads = Integer.parseInt(value);
                case "--count" -> options.count = Long.parseLong(value);
                default -> throw new IllegalArgumentException("there is no option " + args[i]);
            }
        }
        if (args.length % 2 != 0 || options.brokers == null || options.topic == null || options.group == null) {
            throw new IllegalArgumentException("wanted: --brokers B --topic T --group G [OPTION VALUE]...");
        }
        return options;
    }

    public String alertsTopic() {
        return topic + "_alerts";
    }

    public String deadLetterTopic() {
        return topic + "_dlq";
    }

    /** The one line that the benchmark reads. */
    public static void tell(long records, double seconds, long alerts, long deadLetters) {
        System.out.printf(java.util.Locale.ROOT,
            "{\"records\":%d,\"seconds\":%.6f,\"alerts\":%d,\"dlq\":%d}%n", records, seconds, alerts, deadLetters);
        System.out.flush();
    }
}
