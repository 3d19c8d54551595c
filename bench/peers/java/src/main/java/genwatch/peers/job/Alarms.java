package genwatch.peers.job;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/** The alarm state of one generator: per rule, whether it is raised and since when it is so. Not thread-safe. */
public final class Alarms {

  private static final int BYTES = Rule.ALL.length * (1 + Long.BYTES);

  private final boolean[] raised = new boolean[Rule.ALL.length];
  private final long[] since = new long[Rule.ALL.length];

  public Alarms() {
    Arrays.fill(since, Long.MIN_VALUE);
  }

  /** Takes in a reading; the alerts that it leads to. The state has changed if there are any, and else not. */
  public List<Alert> apply(Reading reading, long at, int partition, long offset) {
    List<Alert> alerts = List.of();
    for (Rule rule : Rule.ALL) {
      int i = rule.ordinal();
      double value = rule.value(reading);
      // A reading older than the phase it would change is late: not evaluated.
      if (at < since[i] || !(raised[i] ? rule.clears(value) : rule.raises(value))) {
        continue;
      }
      raised[i] = !raised[i];
      since[i] = at;
      if (alerts.isEmpty()) {
        alerts = new ArrayList<>(Rule.ALL.length);
      }
      alerts.add(new Alert(rule, raised[i], reading, value, at, partition, offset));
    }
    return alerts;
  }

  public byte[] toBytes() {
    ByteBuffer bytes = ByteBuffer.allocate(BYTES);
    for (int i = 0; i < raised.length; i++) {
      bytes.put((byte) (raised[i] ? 1 : 0)).putLong(since[i]);
    }
    return bytes.array();
  }

  public static Alarms fromBytes(byte[] bytes) {
    ByteBuffer from = ByteBuffer.wrap(bytes);
    Alarms alarms = new Alarms();
    for (int i = 0; i < alarms.raised.length; i++) {
      alarms.raised[i] = from.get() != 0;
      alarms.since[i] = from.getLong();
    }
    return alarms;
  }
}
