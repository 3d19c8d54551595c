//! `topics create --config`: topic properties, and which of them users can't set.

use genwatch_kafka::topics::{Role, TopicConfig};

/// The settings of `--config`.
#[derive(Debug, Default)]
pub(super) struct Settings(Vec<Setting>);

#[derive(Debug)]
struct Setting {
    /// The topic it is for; `None`: all topics.
    role: Option<Role>,
    key: String,
    value: String,
}

impl Settings {
    /// Parses values of `--config`: `KEY=VALUE` for all topics, `TOPIC:KEY=VALUE` for one. An environment variable has
    /// one a line.
    ///
    /// # Errors
    /// When one has no `=`, names no topic, or sets what genwatch needs otherwise; the error names all of them.
    pub(super) fn parse(values: &[String]) -> Result<Settings, anyhow::Error> {
        let lines =
            values.iter().flat_map(|value| value.lines()).map(str::trim).filter(|line| !line.is_empty());
        let (mut settings, mut refused) = (Settings::default(), Vec::new());
        for line in lines {
            match Setting::parse(line) {
                Ok(setting) => {
                    refused.extend(setting.refusals());
                    settings.0.push(setting);
                }
                Err(reason) => refused.push(format!("{line}: {reason}")),
            }
        }
        match &refused[..] {
            [] => Ok(settings),
            [one] => Err(anyhow::anyhow!("--config {one}")),
            several => Err(anyhow::anyhow!("--config:\n  {}", several.join("\n  "))),
        }
    }

    /// Returns the settings for one topic, in order: those that name the topic come last, and win.
    pub(super) fn of(&self, role: Role) -> impl Iterator<Item = (&str, &str)> {
        let general = self.0.iter().filter(|setting| setting.role.is_none());
        let own = self.0.iter().filter(move |setting| setting.role == Some(role));
        general.chain(own).map(|setting| (setting.key.as_str(), setting.value.as_str()))
    }

    /// Applies a topic's settings to its properties.
    pub(super) fn apply(&self, role: Role, mut config: TopicConfig) -> TopicConfig {
        for (key, value) in self.of(role) {
            config.set(key, value);
        }
        config
    }
}

impl Setting {
    fn parse(text: &str) -> Result<Setting, String> {
        let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE or TOPIC:KEY=VALUE")?;
        // No topic property has a colon in its name.
        let (role, key) = match key.split_once(':') {
            None => (None, key),
            Some((name, key)) => {
                let role = Role::ALL.into_iter().find(|role| role.as_str() == name.trim());
                let names = Role::ALL.map(Role::as_str).join(", ");
                (Some(role.ok_or_else(|| format!("no topic has this name; there are {names}"))?), key)
            }
        };
        if key.trim().is_empty() {
            return Err("expected KEY=VALUE or TOPIC:KEY=VALUE".to_owned());
        }
        Ok(Setting { role, key: key.trim().to_owned(), value: value.trim().to_owned() })
    }

    /// Returns why it is refused, each reason once.
    fn refusals(&self) -> Vec<String> {
        let (key, value) = (&self.key, &self.value);
        let mut reasons: Vec<(String, Vec<&str>)> = Vec::new();
        for role in Role::ALL.into_iter().filter(|role| self.role.is_none_or(|own| own == *role)) {
            let Some(reason) = role.refuses(key, value) else { continue };
            match reasons.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, roles)) => roles.push(role.as_str()),
                None => reasons.push((reason, vec![role.as_str()])),
            }
        }
        let all = Role::ALL.len();
        let of = |roles: Vec<&str>| match roles.len() {
            some if some < all => format!(" of {}", roles.join(", ")),
            _ => String::new(),
        };
        reasons.into_iter().map(|(reason, roles)| format!("{key}={value}{}: {reason}", of(roles))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(values: &[&str]) -> Result<Settings, String> {
        let values: Vec<String> = values.iter().map(ToString::to_string).collect();
        Settings::parse(&values).map_err(|error| error.to_string())
    }

    #[test]
    fn what_names_a_topic_wins_over_what_is_for_all() {
        let settings =
            parse(&["dlq:retention.ms=5", "retention.ms=1\nsegment.ms=2", "retention.ms=3"]).expect("valid");
        let of = |role: Role| settings.apply(role, role.config());
        assert_eq!(of(Role::DeadLetters).get("retention.ms"), "5");
        assert_eq!(of(Role::Alerts).get("retention.ms"), "3");
        assert_eq!(of(Role::Alerts).get("segment.ms"), "2");
        assert_eq!(of(Role::State).get("cleanup.policy"), "compact");
    }

    #[test]
    fn every_mistake_is_named() {
        let refused =
            parse(&["retention.ms", "dead:a=b", "state:cleanup.policy=delete", "min.insync.replicas=2"]);
        let lines: Vec<String> = refused.expect_err("refused").lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), 5, "{lines:#?}");
        assert!(lines[1].contains("KEY=VALUE"));
        assert!(lines[2].contains("readings, alerts, dlq, state, status, 1m, workers"));
        assert!(lines[3].contains("cleanup.policy=delete of state: this topic's is compact"));
        assert_eq!(lines[4].trim(), "min.insync.replicas=2: use --min-insync", "one reason, one line");
    }
}
