package genwatch.peers.job;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonFactoryBuilder;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.StreamReadFeature;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;

/** A good reading. */
public record Reading(String id, double lat, double lon, double temperature, double pressure, double fuel) {

  private static final int MAX_VALUE_BYTES = 1 << 20;
  private static final int MAX_ID_BYTES = 256;

  private static final JsonFactory JSON =
      new JsonFactoryBuilder()
          // UTF-8 alone is allowed, so there is nothing to detect.
          .disable(JsonFactory.Feature.CHARSET_DETECTION)
          .enable(StreamReadFeature.USE_FAST_DOUBLE_PARSER)
          .build();

  private static final int ID = 1;
  private static final int LAT = 1 << 1;
  private static final int LON = 1 << 2;
  private static final int TEMPERATURE = 1 << 3;
  private static final int PRESSURE = 1 << 4;
  private static final int FUEL = 1 << 5;
  private static final int REQUIRED = (1 << 6) - 1;
  private static final int LOAD = 1 << 6;
  private static final int POWER = 1 << 7;

  /** The reading in a record, or null where there is no good one. */
  public static Reading parse(byte[] key, byte[] value) {
    if (key == null || value == null || value.length > MAX_VALUE_BYTES) {
      return null;
    }
    try (JsonParser json = JSON.createParser(value)) {
      return read(json, key);
    } catch (IOException e) {
      return null;
    }
  }

  private static Reading read(JsonParser json, byte[] key) throws IOException {
    if (json.nextToken() != JsonToken.START_OBJECT) {
      return null;
    }
    String id = null;
    double lat = 0;
    double lon = 0;
    double temperature = 0;
    double pressure = 0;
    double fuel = 0;
    int seen = 0;
    for (String name; (name = json.nextFieldName()) != null; ) {
      int field =
          switch (name) {
            case "generatorID" -> ID;
            case "lat" -> LAT;
            case "lon" -> LON;
            case "temperature" -> TEMPERATURE;
            case "pressure" -> PRESSURE;
            case "fuel" -> FUEL;
            case "load" -> LOAD;
            case "power" -> POWER;
            default -> 0;
          };
      JsonToken token = json.nextToken();
      if (field == 0) {
        json.skipChildren();
        continue;
      }
      if ((seen & field) != 0) {
        return null;
      }
      seen |= field;
      if (field == ID) {
        if (token != JsonToken.VALUE_STRING) {
          return null;
        }
        id = json.getText();
        continue;
      }
      if (token == JsonToken.VALUE_NULL && field > REQUIRED) {
        continue;
      }
      if (token != JsonToken.VALUE_NUMBER_INT && token != JsonToken.VALUE_NUMBER_FLOAT) {
        return null;
      }
      double number = json.getDoubleValue();
      if (!Double.isFinite(number)) {
        return null;
      }
      switch (field) {
        case LAT -> lat = number;
        case LON -> lon = number;
        case TEMPERATURE -> temperature = number;
        case PRESSURE -> pressure = number;
        case FUEL -> fuel = number;
        default -> {}
      }
    }
    boolean good =
        json.currentToken() == JsonToken.END_OBJECT
            && json.nextToken() == null
            && (seen & REQUIRED) == REQUIRED
            && Math.abs(lat) <= 90
            && Math.abs(lon) <= 180
            && isIdentity(id, key);
    return good ? new Reading(id, lat, lon, temperature, pressure, fuel) : null;
  }

  /** Whether the key is that id, and one that may be. Without an allocation where it is ASCII. */
  private static boolean isIdentity(String id, byte[] key) {
    if (key.length == 0 || key.length > MAX_ID_BYTES) {
      return false;
    }
    if (id.length() == key.length) {
      for (int i = 0; i < key.length; i++) {
        if (id.charAt(i) != key[i]) {
          return false;
        }
      }
      return true;
    }
    return Arrays.equals(id.getBytes(StandardCharsets.UTF_8), key);
  }
}
