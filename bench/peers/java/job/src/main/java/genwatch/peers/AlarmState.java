package genwatch.peers;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;

/** The two default rules for one generator: raised below or above, cleared beyond the deadband. */
public final class AlarmState {
    private boolean low;
    private boolean hot;
    private long lowSince = Long.MIN_VALUE;
    private long hotSince = Long.MIN_VALUE;

    /** Applies a reading; gives the alerts it calls for, null for none, as most readings do. */
    public List<byte[]> apply(Reading reading, String topic, int partition, long offset, long at) {
        List<byte[]> alerts = null;
        double fuel = reading.fuel();
        if (at >= lowSince && (low ? fuel > 250 : fuel < 200)) {
            low = !low;
            lowSince = at;
            alerts = add(alerts, alert(reading, "low_fuel", low, "warning", "fuel", fuel, low ? 200 : 250, topic, partition, offset, at));
        }
        double heat = reading.temperature();
        if (at >= hotSince && (hot ? heat < 95 : heat > 100)) {
            hot = !hot;
            hotSince = at;
            alerts = add(alerts,
                alert(reading, "over_temperature", hot, "critical", "temperature", heat, hot ? 100 : 95, topic, partition, offset, at));
        }
        return alerts;
    }

    public byte[] toBytes() {
        return ByteBuffer.allocate(18).put((byte) (low ? 1 : 0)).put((byte) (hot ? 1 : 0)).putLong(lowSince).putLong(hotSince).array();
    }

    public static AlarmState fromBytes(byte[] bytes) {
        AlarmState state = new AlarmState();
        if (bytes != null) {
            ByteBuffer buffer = ByteBuffer.wrap(bytes);
            state.low = buffer.get() == 1;
            state.hot = buffer.get() == 1;
            state.lowSince = buffer.getLong();
            state.hotSince = buffer.getLong();
        }
        return state;
    }

    private static List<byte[]> add(List<byte[]> alerts, byte[] alert) {
        List<byte[]> all = alerts == null ? new ArrayList<>(2) : alerts;
        all.add(alert);
        return all;
    }

    private static byte[] alert(Reading reading, String rule, boolean raised, String severity, String field, double value,
                                double threshold, String topic, int partition, long offset, long at) {
        String generator = reading.generator();
        return new StringBuilder(360)
            .append("{\"id\":\"").append(topic).append('-').append(partition).append('-').append(offset).append('-').append(rule)
            .append("\",\"generatorID\":\"").append(generator)
            .append("\",\"rule\":\"").append(rule)
            .append("\",\"state\":\"").append(raised ? "raised" : "cleared")
            .append("\",\"severity\":\"").append(severity)
            .append("\",\"field\":\"").append(field)
            .append("\",\"value\":").append(value)
            .append(",\"threshold\":").append(threshold)
            .append(",\"at\":").append(at)
            .append(",\"since\":").append(at)
            .append(",\"lat\":").append(reading.lat())
            .append(",\"lon\":").append(reading.lon())
            .append(",\"source\":{\"topic\":\"").append(topic).append("\",\"partition\":").append(partition)
            .append(",\"offset\":").append(offset).append("}}")
            .toString().getBytes(java.nio.charset.StandardCharsets.UTF_8);
    }
}
