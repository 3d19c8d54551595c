//! Names of rules and severities as small numbers: there are few, and a fleet repeats them.

use std::collections::HashMap;
use std::sync::Arc;

/// A name's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(u16);

/// All names so far.
#[derive(Debug, Default)]
pub struct Names {
    numbers: HashMap<Arc<str>, Name>,
    names: Vec<Arc<str>>,
}

/// More are no names of rules, but a fault or an attack.
const MOST: usize = 2000;

impl Names {
    /// Returns the number of a name; beyond 2,000 names the last one stands for all others.
    pub fn number(&mut self, name: &str) -> Name {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let name: Arc<str> = if self.names.len() < MOST { name.into() } else { "other".into() };
        if let Some(number) = self.numbers.get(&name) {
            return *number;
        }
        let number = Name(u16::try_from(self.names.len()).unwrap_or(u16::MAX));
        self.names.push(Arc::clone(&name));
        self.numbers.insert(name, number);
        number
    }

    /// Returns the number of a name that is known.
    #[must_use]
    pub fn known(&self, name: &str) -> Option<Name> {
        self.numbers.get(name).copied()
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self, number: Name) -> &str {
        self.names.get(usize::from(number.0)).map_or("", |name| name)
    }
}

/// How grave a severity is: known words in their order, and any other above a warning.
#[must_use]
pub fn rank(severity: &str) -> u8 {
    match severity {
        "critical" | "emergency" | "fatal" => 5,
        "error" | "high" | "major" => 4,
        "warning" | "medium" | "minor" => 2,
        "info" | "low" | "notice" => 1,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_are_bounded() {
        let mut names = Names::default();
        let low = names.number("low_fuel");
        assert_eq!((names.number("low_fuel"), names.name(low)), (low, "low_fuel"));
        for n in 0..3000 {
            names.number(&format!("rule{n}"));
        }
        assert!(names.names.len() <= MOST + 1);
        let late = names.number("late");
        assert_eq!(names.name(late), "other");
    }
}
