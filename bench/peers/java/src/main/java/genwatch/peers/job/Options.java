package genwatch.peers.job;

/** The command line that all peers share. */
public record Options(
    String brokers,
    String topic,
    String group,
    boolean exactlyOnce,
    long workMillis,
    int concurrency,
    int threads,
    int batch,
    long count) {

  private static final String USAGE =
      """
      usage: PEER --brokers HOST:PORT[,...] --topic T --group G [options]
        --delivery exactly-once|at-least-once  [exactly-once]
        --work-ms N      what each reading costs beside the job itself [0]
        --concurrency N  readings handled at once; 0: the peer's own default [0]
        --threads N      stream threads; 0: the peer's own default [0]
        --batch N        readings a call of the handler; 0: the peer's own default [0]
        --count N        end once the group has committed N records; without it, at SIGTERM""";

  public static Options parse(String[] args) {
    String brokers = null;
    String topic = null;
    String group = null;
    boolean exactlyOnce = true;
    long workMillis = 0;
    int concurrency = 0;
    int threads = 0;
    int batch = 0;
    long count = 0;
    try {
      for (int i = 0; i < args.length; i += 2) {
        if (i + 1 == args.length) {
          throw new IllegalArgumentException(args[i] + " needs a value");
        }
        String value = args[i + 1];
        switch (args[i]) {
          case "--brokers" -> brokers = value;
          case "--topic" -> topic = value;
          case "--group" -> group = value;
          case "--delivery" ->
              exactlyOnce =
                  switch (value) {
                    case "exactly-once" -> true;
                    case "at-least-once" -> false;
                    default -> throw new IllegalArgumentException("unknown delivery " + value);
                  };
          case "--work-ms" -> workMillis = natural(args[i], value);
          case "--concurrency" -> concurrency = (int) natural(args[i], value);
          case "--threads" -> threads = (int) natural(args[i], value);
          case "--batch" -> batch = (int) natural(args[i], value);
          case "--count" -> count = natural(args[i], value);
          default -> throw new IllegalArgumentException("unknown option " + args[i]);
        }
      }
      if (brokers == null || topic == null || group == null) {
        throw new IllegalArgumentException("--brokers, --topic and --group are needed");
      }
    } catch (IllegalArgumentException e) {
      System.err.println(e.getMessage());
      System.err.println(USAGE);
      System.exit(2);
    }
    return new Options(brokers, topic, group, exactlyOnce, workMillis, concurrency, threads, batch, count);
  }

  private static long natural(String option, String value) {
    long number = Integer.parseInt(value);
    if (number < 0) {
      throw new IllegalArgumentException(option + " can't be negative");
    }
    return number;
  }

  public String alertsTopic() {
    return topic + "_alerts";
  }

  public String dlqTopic() {
    return topic + "_dlq";
  }

  /** The remote look-up that a reading stands for: a blocking wait. */
  public void work() {
    if (workMillis > 0) {
      try {
        Thread.sleep(workMillis);
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        throw new IllegalStateException("interrupted in a reading's work", e);
      }
    }
  }
}
