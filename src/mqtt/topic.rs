//! Where in the MQTT topic tree generators report: `sites/+/generators/{generatorID}/telemetry`.
//!
//! Must not know: clients, Kafka.

use std::fmt;

/// The placeholder for the level that names the generator.
const GENERATOR: &str = "{generatorID}";

/// A topic filter, one level of which may name the generator.
///
/// The broker can restrict what a device may publish by topic (an ACL such as Mosquitto's `pattern write
/// generators/%u/telemetry`), but not by payload. So if the topic names the generator, the topic decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPattern {
    levels: Vec<Level>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Level {
    Named(String),
    Generator,
    /// `+`
    Any,
    /// `#`, at the end only.
    Rest,
}

impl TopicPattern {
    /// Returns the filter to subscribe to.
    #[must_use]
    pub fn filter(&self) -> String {
        self.join("+")
    }

    /// Returns the topic of one generator; `None` if the pattern has wildcards or doesn't name the generator.
    #[must_use]
    pub fn of(&self, generator: &str) -> Option<String> {
        let one_topic = self.levels.iter().all(|level| matches!(level, Level::Named(_) | Level::Generator));
        (one_topic && self.names_the_generator()).then(|| self.join(generator))
    }

    /// Whether a level names the generator.
    #[must_use]
    pub fn names_the_generator(&self) -> bool {
        self.levels.contains(&Level::Generator)
    }

    fn join(&self, generator: &str) -> String {
        let levels = self.levels.iter().map(|level| match level {
            Level::Named(name) => name,
            Level::Generator => generator,
            Level::Any => "+",
            Level::Rest => "#",
        });
        levels.collect::<Vec<_>>().join("/")
    }

    /// Whether the filter matches this topic, as in MQTT 5.0, 4.7, except for topics that begin with `$`, in which
    /// generators don't report.
    #[must_use]
    pub fn matches(&self, topic: &str) -> bool {
        let mut names = topic.split('/');
        for level in &self.levels {
            // `a/#` also matches `a`.
            if *level == Level::Rest {
                return true;
            }
            match (level, names.next()) {
                (_, None) => return false,
                (Level::Named(wanted), Some(name)) if wanted != name => return false,
                _ => {}
            }
        }
        names.next().is_none()
    }

    /// Returns the generator that a topic names, if the pattern has a level for it.
    #[must_use]
    pub fn generator<'a>(&self, topic: &'a str) -> Option<&'a str> {
        let level = self.levels.iter().position(|level| *level == Level::Generator)?;
        topic.split('/').nth(level)
    }
}

/// Deeper topics match too many filters.
const LEVELS_MAX: usize = 8;

/// Returns every filter that matches this topic: each level by name or as `+`, or `#` from some level on. Empty for a
/// topic of more than `LEVELS_MAX` levels.
#[must_use]
pub fn filters_of(topic: &str) -> Vec<String> {
    let levels: Vec<&str> = topic.split('/').collect();
    if levels.len() > LEVELS_MAX {
        return Vec::new();
    }
    let mut beginnings = vec![String::new()];
    let mut filters = vec!["#".to_owned()];
    for (depth, level) in levels.iter().enumerate() {
        let slash = if depth == 0 { "" } else { "/" };
        let longer = |beginning: &String| [level, "+"].map(|level| format!("{beginning}{slash}{level}"));
        beginnings = beginnings.iter().flat_map(longer).collect();
        filters.extend(beginnings.iter().map(|beginning| format!("{beginning}/#")));
    }
    filters.extend(beginnings);
    filters
}

impl std::str::FromStr for TopicPattern {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Self, TopicError> {
        if text.is_empty() || text.len() > 65_535 || text.contains('\0') {
            return Err(TopicError::Length);
        }
        if text.starts_with("$share/") {
            return Err(TopicError::Shared);
        }
        let mut levels = Vec::new();
        for name in text.split('/') {
            if levels.last() == Some(&Level::Rest) {
                return Err(TopicError::Rest);
            }
            levels.push(match name {
                GENERATOR if levels.contains(&Level::Generator) => return Err(TopicError::Twice),
                GENERATOR => Level::Generator,
                "+" => Level::Any,
                "#" => Level::Rest,
                name if name.contains(['+', '#', '{', '}']) => {
                    return Err(TopicError::Level(name.to_owned()));
                }
                name => Level::Named(name.to_owned()),
            });
        }
        Ok(TopicPattern { levels })
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.join(GENERATOR))
    }
}

/// What is wrong with a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Empty, too long, or with a NUL.
    #[error("a topic has 1 to 65535 bytes, none of them zero")]
    Length,
    /// A wildcard that is only part of its level.
    #[error("'{0}' is not a level: a level is a name, {GENERATOR}, + or #")]
    Level(String),
    /// `#` not at the end.
    #[error("# may stand only at the end")]
    Rest,
    /// Two levels name the generator.
    #[error("{GENERATOR} may occur only once")]
    Twice,
    /// A shared subscription.
    #[error(
        "a shared subscription would deal one generator's readings out to several bridges, out of order; give each bridge \
         a --share or a branch of the tree instead"
    )]
    Shared,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> TopicPattern {
        text.parse().expect("valid")
    }

    #[test]
    fn a_level_names_the_generator() {
        let pattern = pattern("sites/+/generators/{generatorID}/telemetry");
        assert_eq!(pattern.filter(), "sites/+/generators/+/telemetry");
        assert_eq!(pattern.to_string(), "sites/+/generators/{generatorID}/telemetry");
        assert_eq!(pattern.generator("sites/north/generators/generator4/telemetry"), Some("generator4"));
        assert_eq!(pattern.of("generator4"), None, "which site?");
    }

    #[test]
    fn a_generator_has_one_topic_where_there_are_no_wildcards() {
        assert_eq!(pattern("g/{generatorID}/t").of("generator4").as_deref(), Some("g/generator4/t"));
        assert_eq!(pattern("g/t").of("generator4"), None);
        assert_eq!(pattern("g/t").generator("g/t"), None);
    }

    #[test]
    fn filters_match_as_the_standard_says() {
        for (filter, topic, matches) in [
            ("g/{generatorID}/status", "g/generator4/status", true),
            ("g/{generatorID}/status", "g/generator4/telemetry", false),
            ("g/{generatorID}/status", "g/generator4/status/more", false),
            ("g/{generatorID}/status", "g/generator4", false),
            ("g/+", "g/", true),
            ("g/+", "g", false),
            ("g/#", "g", true),
            ("g/#", "g/a/b", true),
            ("g/#", "h/a/b", false),
            ("#", "g/a/b", true),
        ] {
            assert_eq!(pattern(filter).matches(topic), matches, "{filter} {topic}");
        }
    }

    #[test]
    fn a_topic_has_these_filters() {
        let mut filters = filters_of("a/b");
        filters.sort();
        assert_eq!(
            filters,
            ["#", "+/#", "+/+", "+/+/#", "+/b", "+/b/#", "a/#", "a/+", "a/+/#", "a/b", "a/b/#"]
        );
        let topic = "sites/north/generators/g1/telemetry";
        let all = filters_of(topic);
        assert!(all.iter().all(|filter| pattern(filter).matches(topic)));
        assert!(all.contains(&"sites/+/generators/+/telemetry".to_owned()));
        assert_eq!(filters_of("1/2/3/4/5/6/7/8").len(), 1 + 2 * 255 + 256);
        assert!(filters_of("1/2/3/4/5/6/7/8/9").is_empty());
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for (text, error) in [
            ("", TopicError::Length),
            ("a\0b", TopicError::Length),
            ("a/#/b", TopicError::Rest),
            ("a/b+/c", TopicError::Level("b+".to_owned())),
            ("a/{generator}/c", TopicError::Level("{generator}".to_owned())),
            ("{generatorID}/{generatorID}", TopicError::Twice),
            ("$share/bridges/g/+", TopicError::Shared),
        ] {
            assert_eq!(text.parse::<TopicPattern>(), Err(error), "{text}");
        }
    }
}
