package genwatch.connect;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.nio.charset.StandardCharsets;
import java.util.Map;
import org.apache.kafka.common.config.ConfigException;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.errors.DataException;
import org.apache.kafka.connect.sink.SinkRecord;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class LineProtocolTest {
    private static final String READING =
            "{\"generatorID\":\"generator4\",\"lat\":40.65995,\"lon\":-111.99633,\"temperature\":74,\"pressure\":198,\"fuel\":901}";
    private static final long AT = 1_766_400_000_123L;
    private static final long OFFSET = 3_001_042;

    @Test
    void aReadingBecomesTheLineThatTheNativeSinkWrites() {
        assertEquals("emergency_generators,generatorID=generator4 "
                + "fuel=901.0,lat=40.65995,lon=-111.99633,pressure=198.0,temperature=74.0 1766400000123001042", line(READING));
    }

    @Test
    void optionalNumbersAreFieldsAndUnknownMembersAreLeftOut() {
        String more = READING.replace("}", ",\"power\":1e2,\"load\":80,\"firmware\":\"1.2\",\"x\":{\"y\":1}}");
        assertEquals("emergency_generators,generatorID=generator4 fuel=901.0,lat=40.65995,load=80.0,lon=-111.99633,"
                + "power=100.0,pressure=198.0,temperature=74.0 1766400000123001042", line(more));
        assertEquals(line(READING), line(READING.replace("}", ",\"load\":null}")));
    }

    @ParameterizedTest
    @CsvSource({"ns,1766400000123001042", "us,1766400000123000", "ms,1766400000123", "s,1766400000"})
    void timeHasTheConfiguredPrecision(String precision, String time) {
        String line = line(Map.of("precision", precision), READING, "generator4", AT);
        assertEquals(time, line.substring(line.lastIndexOf(' ') + 1));
    }

    @Test
    void secondsOfATimeBefore1970AreRoundedDown() {
        String line = line(Map.of("precision", "s"), READING, "generator4", -1L);
        assertEquals("-1", line.substring(line.lastIndexOf(' ') + 1));
    }

    @Test
    void delimitersAreEscaped() {
        String odd = READING.replace("generator4", "a,b=c d");
        String line = line(Map.of("measurement", "my plant,1=x"), odd, "a,b=c d", AT);
        assertEquals("my\\ plant\\,1=x,generatorID=a\\,b\\=c\\ d", line.substring(0, line.indexOf(" fuel")));
    }

    @ParameterizedTest
    @CsvSource(delimiter = '|', value = {
        "not_json     | {\"generatorID\":\"generator4\"",
        "not_json     | {\"fuel\":NaN}",
        "not_json     | {} {}",
        "not_json     | ''",
        "not_json     | {\"fuel\":1,\"fuel\":2}",
        "not_object   | [1]",
        "missing_field| {\"lat\":1}",
        "missing_field| {\"generatorID\":\"generator4\",\"lat\":1,\"lon\":1,\"temperature\":1,\"pressure\":1}",
        "missing_field| {\"generatorID\":\"generator4\",\"lat\":1,\"lon\":1,\"temperature\":1,\"pressure\":1,\"fuel\":null}",
        "wrong_type   | {\"generatorID\":4}",
        "wrong_type   | {\"generatorID\":\"generator4\",\"fuel\":\"901\"}",
        "out_of_range | {\"generatorID\":\"\"}",
        "out_of_range | {\"generatorID\":\"generator4\",\"fuel\":1e400}",
        "out_of_range | {\"generatorID\":\"generator4\",\"fuel\":1,\"lat\":90.1}",
        "out_of_range | {\"generatorID\":\"generator4\",\"fuel\":1,\"lat\":1,\"lon\":-180.1}",
        "key_mismatch | {\"generatorID\":\"generator5\"}"})
    void whatIsNoReadingIsRefusedWithTheWorkersCode(String code, String value) {
        assertEquals(code, refusal(value, "generator4", AT));
    }

    @Test
    void aRecordWithoutKeyOrTimeOrWithAKeyThatNoTagCanHoldIsRefused() {
        assertEquals("key_missing", refusal(READING, null, AT));
        assertEquals("bad_time", refusal(READING, "generator4", null));
        assertEquals("bad_time", refusal(READING, "generator4", Long.MAX_VALUE));
        assertEquals("bad_tag", refusal(READING.replace("generator4", "a\\\\"), "a\\", AT));
        assertEquals("bad_tag", refusal(READING.replace("generator4", "a\\nb"), "a\nb", AT));
    }

    @Test
    void onlyUtf8IsText() {
        byte[] utf16 = READING.getBytes(StandardCharsets.UTF_16LE);
        byte[] cut = {'{', '"', (byte) 0xc3, '"', '}'};
        for (byte[] value : new byte[][] {utf16, cut}) {
            assertThrows(DataException.class, () -> transform(Map.of()).apply(record(value, "generator4", AT)));
        }
    }

    @Test
    void aMeasurementThatLineProtocolCannotExpressIsRefusedAtTheStart() {
        for (String name : new String[] {"#plant", "a\nb", "a\\"}) {
            assertThrows(ConfigException.class, () -> transform(Map.of("measurement", name)));
        }
    }

    @Test
    void headersOfTheRecordStay() {
        SinkRecord record = record(READING.getBytes(StandardCharsets.UTF_8), "generator4", AT);
        record.headers().addString("site", "north");
        assertEquals("north", transform(Map.of()).apply(record).headers().lastWithName("site").value());
    }

    private static LineProtocol transform(Map<String, String> properties) {
        LineProtocol transform = new LineProtocol();
        transform.configure(properties);
        return transform;
    }

    private static SinkRecord record(byte[] value, String key, Long at) {
        return new SinkRecord("emergency_generators", 3, Schema.OPTIONAL_BYTES_SCHEMA,
                key == null ? null : key.getBytes(StandardCharsets.UTF_8), Schema.OPTIONAL_BYTES_SCHEMA, value, OFFSET, at,
                TimestampType.CREATE_TIME);
    }

    private static String line(String value) {
        return line(Map.of(), value, "generator4", AT);
    }

    private static String line(Map<String, String> properties, String value, String key, Long at) {
        return (String) transform(properties).apply(record(value.getBytes(StandardCharsets.UTF_8), key, at)).value();
    }

    private static String refusal(String value, String key, Long at) {
        return assertThrows(DataException.class, () -> line(Map.of(), value, key, at)).getMessage().split(":")[0];
    }
}
