package genwatch.peers.job;

/** The two default rules. All thresholds are strict. */
enum Rule {
  LOW_FUEL("low_fuel", "warning", "fuel", 200.0, 250.0) {
    @Override
    double value(Reading reading) {
      return reading.fuel();
    }

    @Override
    boolean raises(double value) {
      return value < raise;
    }

    @Override
    boolean clears(double value) {
      return value > clear;
    }
  },
  OVER_TEMPERATURE("over_temperature", "critical", "temperature", 100.0, 95.0) {
    @Override
    double value(Reading reading) {
      return reading.temperature();
    }

    @Override
    boolean raises(double value) {
      return value > raise;
    }

    @Override
    boolean clears(double value) {
      return value < clear;
    }
  };

  static final Rule[] ALL = values();

  final String label;
  final String severity;
  final String field;
  final double raise;
  final double clear;

  Rule(String label, String severity, String field, double raise, double clear) {
    this.label = label;
    this.severity = severity;
    this.field = field;
    this.raise = raise;
    this.clear = clear;
  }

  abstract double value(Reading reading);

  abstract boolean raises(double value);

  abstract boolean clears(double value);
}
