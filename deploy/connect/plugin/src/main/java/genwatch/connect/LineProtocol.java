package genwatch.connect;

import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.json.JsonMapper;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.common.config.ConfigException;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.errors.DataException;
import org.apache.kafka.connect.sink.SinkRecord;
import org.apache.kafka.connect.transforms.Transformation;

/**
 * Turns a reading into a line of InfluxDB's line protocol, the one that {@code genwatch sink influx} writes: the tag
 * generatorID, each known number as a float field, and the record's timestamp, which at nanosecond precision has the
 * offset in its last six digits, so that no reading overwrites another and a repeat overwrites itself.
 *
 * <p>Key and value must be bytes (ByteArrayConverter). What isn't a reading is a DataException, which
 * {@code errors.tolerance} and the dead letter queue handle. Members that genwatch doesn't know are left out.
 */
public class LineProtocol implements Transformation<SinkRecord> {
    private static final List<String> REQUIRED = List.of("fuel", "lat", "lon", "pressure", "temperature");
    /** In the order of their names, as InfluxDB sorts them. */
    private static final List<String> FIELDS = List.of("fuel", "lat", "load", "lon", "power", "pressure", "temperature");

    private static final String GENERATOR = "generatorID";
    private static final int GENERATOR_BYTES_MAX = 256;
    private static final int VALUE_BYTES_MAX = 1 << 20;
    /** InfluxDB keeps nanoseconds in 64 bits. */
    private static final long MILLIS_MAX = 9_223_372_036_853L;

    private static final ObjectReader JSON = JsonMapper.builder()
            .enable(JsonParser.Feature.STRICT_DUPLICATE_DETECTION)
            .enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS)
            .build()
            .readerFor(JsonNode.class);

    private static final ConfigDef CONFIG = new ConfigDef()
            .define("measurement", ConfigDef.Type.STRING, "", ConfigDef.Importance.HIGH,
                    "The measurement's name; empty: the topic's")
            .define("precision", ConfigDef.Type.STRING, "ns", ConfigDef.ValidString.in("ns", "us", "ms", "s"),
                    ConfigDef.Importance.HIGH, "The unit of a point's time, as in the URL");

    private String measurement;
    private String precision;

    @Override
    public ConfigDef config() {
        return CONFIG;
    }

    @Override
    public void configure(Map<String, ?> properties) {
        Map<String, Object> config = CONFIG.parse(properties);
        measurement = (String) config.get("measurement");
        precision = (String) config.get("precision");
        if (measurement.startsWith("#") || !isRepresentable(measurement)) {
            throw new ConfigException("measurement", measurement, "line protocol can't express this name");
        }
    }

    @Override
    public SinkRecord apply(SinkRecord record) {
        String line = line(record);
        return record.newRecord(record.topic(), record.kafkaPartition(), record.keySchema(), record.key(),
                Schema.STRING_SCHEMA, line, record.timestamp());
    }

    private String line(SinkRecord record) {
        JsonNode reading = parse(record.value());
        String generator = generator(reading, record.key());
        StringBuilder line = new StringBuilder(200);
        escape(line, measurement.isEmpty() ? record.topic() : measurement, ", ");
        line.append(',').append(GENERATOR).append('=');
        escape(line, generator, ", =");
        char separator = ' ';
        for (String field : FIELDS) {
            JsonNode value = reading.get(field);
            if (value == null || value.isNull()) {
                if (REQUIRED.contains(field)) {
                    throw new DataException("missing_field: " + field);
                }
                continue;
            }
            line.append(separator).append(field).append('=').append(number(field, value));
            separator = ',';
        }
        return line.append(' ').append(time(record)).toString();
    }

    private static JsonNode parse(Object value) {
        if (!(value instanceof byte[])) {
            throw new DataException("the value must be bytes: value.converter=" +
                    "org.apache.kafka.connect.converters.ByteArrayConverter");
        }
        byte[] bytes = (byte[]) value;
        if (bytes.length > VALUE_BYTES_MAX) {
            throw new DataException("too_large");
        }
        try {
            // From text, as Jackson also takes bytes for UTF-16 and UTF-32.
            String text = StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes)).toString();
            JsonNode reading = JSON.readTree(text);
            if (!reading.isObject()) {
                throw new DataException(reading.isMissingNode() ? "not_json" : "not_object");
            }
            return reading;
        } catch (CharacterCodingException error) {
            throw new DataException("not_utf8", error);
        } catch (JsonProcessingException error) {
            throw new DataException("not_json: " + error.getOriginalMessage(), error);
        }
    }

    private static String generator(JsonNode reading, Object key) {
        JsonNode member = reading.get(GENERATOR);
        if (member == null || member.isNull()) {
            throw new DataException("missing_field: " + GENERATOR);
        }
        if (!member.isTextual()) {
            throw new DataException("wrong_type: " + GENERATOR);
        }
        String generator = member.textValue();
        int length = generator.getBytes(StandardCharsets.UTF_8).length;
        if (length == 0 || length > GENERATOR_BYTES_MAX) {
            throw new DataException("out_of_range: " + GENERATOR);
        }
        if (key == null) {
            throw new DataException("key_missing");
        }
        if (!(key instanceof byte[]) || !generator.equals(new String((byte[]) key, StandardCharsets.UTF_8))) {
            throw new DataException("key_mismatch");
        }
        if (!isRepresentable(generator)) {
            throw new DataException("bad_tag: line protocol can't express this key");
        }
        return generator;
    }

    private static double number(String field, JsonNode value) {
        if (!value.isNumber()) {
            throw new DataException("wrong_type: " + field);
        }
        double number = value.doubleValue();
        boolean inRange = !Double.isInfinite(number)
                && (!field.equals("lat") || Math.abs(number) <= 90)
                && (!field.equals("lon") || Math.abs(number) <= 180);
        if (!inRange) {
            throw new DataException("out_of_range: " + field);
        }
        return number;
    }

    private long time(SinkRecord record) {
        Long millis = record.timestamp();
        if (millis == null || Math.abs(millis) > MILLIS_MAX) {
            throw new DataException("bad_time: no timestamp that InfluxDB can keep");
        }
        switch (precision) {
            case "s": return Math.floorDiv(millis, 1000L);
            case "ms": return millis;
            case "us": return millis * 1000;
            default: return millis * 1_000_000 + record.originalKafkaOffset() % 1_000_000;
        }
    }

    private static void escape(StringBuilder line, String text, String special) {
        for (char c : text.toCharArray()) {
            if (special.indexOf(c) >= 0) {
                line.append('\\');
            }
            line.append(c);
        }
    }

    /** Whether a name or a tag's value reads back unchanged: no line feed, no backslash before a delimiter. */
    private static boolean isRepresentable(String text) {
        return !text.contains("\n") && !text.matches("(?s).*\\\\([\\\\,= ].*|)");
    }

    @Override
    public void close() {}
}
