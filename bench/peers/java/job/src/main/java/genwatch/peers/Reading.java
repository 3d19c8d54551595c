package genwatch.peers;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;

/** A reading, by Jackson's streaming parser: no tree, no reflection. */
public record Reading(String generator, double lat, double lon, double temperature, double fuel) {
    private static final JsonFactory FACTORY = new JsonFactory();

    /** The reading, or null where the record isn't a good one. */
    public static Reading parse(String key, byte[] value) {
        if (key == null || value == null) {
            return null;
        }
        String generator = null;
        double lat = Double.NaN;
        double lon = Double.NaN;
        double temperature = Double.NaN;
        double pressure = Double.NaN;
        double fuel = Double.NaN;
        try (JsonParser parser = FACTORY.createParser(value)) {
            if (parser.nextToken() != JsonToken.START_OBJECT) {
                return null;
            }
            while (parser.nextToken() == JsonToken.FIELD_NAME) {
                String field = parser.currentName();
                parser.nextToken();
                switch (field) {
                    case "generatorID" -> generator = parser.getText();
                    case "lat" -> lat = parser.getDoubleValue();
                    case "lon" -> lon = parser.getDoubleValue();
                    case "temperature" -> temperature = parser.getDoubleValue();
                    case "pressure" -> pressure = parser.getDoubleValue();
                    case "fuel" -> fuel = parser.getDoubleValue();
                    default -> parser.skipChildren();
                }
            }
        } catch (IOException error) {
            return null;
        }
        // NaN, where one was missing, is in no range.
        boolean good = key.equals(generator) && Math.abs(lat) <= 90 && Math.abs(lon) <= 180
            && !Double.isNaN(temperature) && !Double.isNaN(pressure) && !Double.isNaN(fuel);
        return good ? new Reading(generator, lat, lon, temperature, fuel) : null;
    }
}
