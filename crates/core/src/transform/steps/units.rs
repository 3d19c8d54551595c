//! Units of measurement, by quantity.

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transform) enum Quantity {
    Temperature,
    Pressure,
    Volume,
    Power,
    Length,
    Speed,
    Time,
    Share,
}

impl Quantity {
    fn as_str(self) -> &'static str {
        match self {
            Quantity::Temperature => "temperature",
            Quantity::Pressure => "pressure",
            Quantity::Volume => "volume",
            Quantity::Power => "power",
            Quantity::Length => "length",
            Quantity::Speed => "speed",
            Quantity::Time => "time",
            Quantity::Share => "share",
        }
    }
}

/// A unit: `base = value * factor + offset`, where the base is the first unit of its quantity.
#[derive(Clone, Copy, Debug)]
pub(in crate::transform) struct Unit {
    name: &'static str,
    quantity: Quantity,
    factor: f64,
    offset: f64,
}

const fn unit(name: &'static str, quantity: Quantity, factor: f64) -> Unit {
    Unit { name, quantity, factor, offset: 0.0 }
}

/// Exact by definition: the inch is 2.54 cm, the pound 0.45359237 kg, the US gallon 231 cubic inches.
pub(in crate::transform) const UNITS: [Unit; 30] = [
    unit("celsius", Quantity::Temperature, 1.0),
    Unit { name: "fahrenheit", quantity: Quantity::Temperature, factor: 5.0 / 9.0, offset: -160.0 / 9.0 },
    Unit { name: "kelvin", quantity: Quantity::Temperature, factor: 1.0, offset: -273.15 },
    unit("kilopascal", Quantity::Pressure, 1.0),
    unit("pascal", Quantity::Pressure, 0.001),
    unit("bar", Quantity::Pressure, 100.0),
    unit("psi", Quantity::Pressure, 6.894_757_293_168_361),
    unit("litre", Quantity::Volume, 1.0),
    unit("cubic_metre", Quantity::Volume, 1000.0),
    unit("us_gallon", Quantity::Volume, 3.785_411_784),
    unit("imperial_gallon", Quantity::Volume, 4.546_09),
    unit("kilowatt", Quantity::Power, 1.0),
    unit("watt", Quantity::Power, 0.001),
    unit("megawatt", Quantity::Power, 1000.0),
    unit("horsepower", Quantity::Power, 0.745_699_871_582_270_2),
    unit("metre", Quantity::Length, 1.0),
    unit("kilometre", Quantity::Length, 1000.0),
    unit("foot", Quantity::Length, 0.3048),
    unit("mile", Quantity::Length, 1609.344),
    unit("metre_per_second", Quantity::Speed, 1.0),
    unit("kilometre_per_hour", Quantity::Speed, 1.0 / 3.6),
    unit("mile_per_hour", Quantity::Speed, 0.447_04),
    unit("second", Quantity::Time, 1.0),
    unit("millisecond", Quantity::Time, 0.001),
    unit("minute", Quantity::Time, 60.0),
    unit("hour", Quantity::Time, 3600.0),
    unit("day", Quantity::Time, 86_400.0),
    unit("percent", Quantity::Share, 1.0),
    unit("ratio", Quantity::Share, 100.0),
    unit("per_mille", Quantity::Share, 0.1),
];

impl Unit {
    /// The unit with this name.
    pub(super) fn named(name: &str) -> Result<Unit, String> {
        UNITS.into_iter().find(|unit| unit.name == name).ok_or_else(|| {
            let all: Vec<&str> = UNITS.iter().map(|unit| unit.name).collect();
            format!("there is no unit `{name}`; there are {}", all.join(", "))
        })
    }

    /// `value * factor + offset` from this unit to another one of the same quantity.
    pub(super) fn to(self, other: Unit) -> Result<(f64, f64), String> {
        if self.quantity != other.quantity {
            let (own, others) = (self.quantity.as_str(), other.quantity.as_str());
            return Err(format!("`{}` is a unit of {own}, `{}` one of {others}", self.name, other.name));
        }
        Ok((self.factor / other.factor, (self.offset - other.offset) / other.factor))
    }
}
