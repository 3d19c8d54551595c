package genwatch.peers.job;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;

/** An alert event. */
public record Alert(
    Rule rule, boolean raised, Reading reading, double value, long at, int partition, long offset) {

  private static final JsonFactory JSON = new JsonFactory();

  public byte[] key() {
    return reading.id().getBytes(StandardCharsets.UTF_8);
  }

  /** The event in the form of the alerts topic. {@code topic} is that of the readings. */
  public byte[] toJson(String topic) {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream(400);
    try (JsonGenerator json = JSON.createGenerator(bytes)) {
      json.writeStartObject();
      json.writeStringField("id", topic + "-" + partition + "-" + offset + "-" + rule.label);
      json.writeStringField("generatorID", reading.id());
      json.writeStringField("rule", rule.label);
      json.writeStringField("state", raised ? "raised" : "cleared");
      json.writeStringField("severity", rule.severity);
      json.writeStringField("field", rule.field);
      json.writeNumberField("value", value);
      json.writeNumberField("threshold", raised ? rule.raise : rule.clear);
      json.writeNumberField("at", at);
      // Without delays, the condition began with the reading that decides.
      json.writeNumberField("since", at);
      json.writeNumberField("lat", reading.lat());
      json.writeNumberField("lon", reading.lon());
      json.writeObjectFieldStart("source");
      json.writeStringField("topic", topic);
      json.writeNumberField("partition", partition);
      json.writeNumberField("offset", offset);
      json.writeEndObject();
      json.writeEndObject();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
    return bytes.toByteArray();
  }
}
