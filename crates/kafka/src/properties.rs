//! The librdkafka properties that a user sets by `-X`: parsed, each under one name, checked against what genwatch
//! needs.

use std::collections::BTreeMap;
use std::path::Path;

use secrecy::{ExposeSecret as _, SecretString};

use super::config::ConfigError;

/// Properties with two names (librdkafka's CONFIGURATION.md, "Alias for"), with the one that genwatch uses. librdkafka
/// accepts both, and the later of two wins: without this the order of a hash map would decide.
const ALIASES: [(&str, &str); 10] = [
    ("metadata.broker.list", "bootstrap.servers"),
    ("max.in.flight.requests.per.connection", "max.in.flight"),
    ("sasl.mechanisms", "sasl.mechanism"),
    ("max.partition.fetch.bytes", "fetch.message.max.bytes"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("message.send.max.retries", "retries"),
    ("compression.codec", "compression.type"),
    ("request.required.acks", "acks"),
    ("delivery.timeout.ms", "message.timeout.ms"),
    ("auto.commit.enable", "enable.auto.commit"),
];

/// A property that the guarantees depend on.
struct Managed {
    key: &'static str,
    /// The correct values, which may be set.
    right: &'static [&'static str],
    /// What to do instead, or why.
    instead: &'static str,
}

const COMMITTED_WITH_EFFECTS: &str = "offsets are committed with the effects they belong to";

const MANAGED_PROPERTIES: [Managed; 12] = [
    Managed {
        key: "group.id",
        right: &[],
        instead: "use --group, which the state topic's name derives from too",
    },
    Managed { key: "group.protocol", right: &[], instead: "use --group-protocol" },
    Managed {
        key: "partitioner",
        right: &["murmur2_random"],
        instead: "every producer partitions like the Java client, so that all agree on a generator's partition",
    },
    Managed { key: "enable.auto.commit", right: &["false"], instead: COMMITTED_WITH_EFFECTS },
    Managed { key: "enable.auto.offset.store", right: &["false"], instead: COMMITTED_WITH_EFFECTS },
    Managed {
        key: "enable.partition.eof",
        right: &["false"],
        instead: "it would make the worker skip records after a rebalance",
    },
    Managed {
        key: "isolation.level",
        right: &["read_committed"],
        instead: "records of a transaction that was aborted must not become alerts or points",
    },
    Managed {
        key: "auto.offset.reset",
        right: &[],
        instead: "a group begins at its committed offsets; see --on-out-of-range and --from",
    },
    Managed {
        key: "enable.idempotence",
        right: &["true"],
        instead: "without it a retry could repeat records or change their order",
    },
    Managed {
        key: "acks",
        right: &["all", "-1"],
        instead: "a record counts as written when all in-sync replicas have it",
    },
    Managed {
        key: "transactional.id",
        right: &[],
        instead: "each worker derives its own from --group: two workers with the same one would fence each other",
    },
    Managed { key: "delivery.report.only.error", right: &["false"], instead: "every delivery is counted" },
];

/// Properties by their canonical name.
#[derive(Clone, Debug, Default)]
pub(super) struct Properties(BTreeMap<String, Property>);

#[derive(Clone, Debug)]
struct Property {
    value: SecretString,
    /// Where the user finds it: `-X KEY` or `FILE:LINE: KEY`.
    origin: String,
}

impl Properties {
    /// Parses `-X` values: `key=value`, or `@file` with one pair per line.
    pub(super) fn read(values: &[SecretString]) -> Result<Properties, ConfigError> {
        let mut properties = Properties::default();
        for (_, pair) in values.iter().flat_map(|value| pairs(value.expose_secret())) {
            match pair.strip_prefix('@') {
                Some(file) => properties.read_file(Path::new(file))?,
                None => properties.set(&pair, None)?,
            }
        }
        properties.check_compiled_in()?;
        Ok(properties)
    }

    fn read_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::File { path: path.display().to_string(), error })?;
        for (line, pair) in pairs(&text) {
            self.set(&pair, Some(format!("{}:{line}", path.display())))?;
        }
        Ok(())
    }

    /// `place` is file and line.
    fn set(&mut self, pair: &str, place: Option<String>) -> Result<(), ConfigError> {
        let (key, value) =
            pair.split_once('=').map(|(key, value)| (key.trim(), value.trim())).unwrap_or_default();
        let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_');
        if key.is_empty() || !key.chars().all(word) {
            // Not the text itself: it may be a secret that lost its key.
            return Err(ConfigError::NoPair { origin: place.unwrap_or_else(|| "-X".to_owned()) });
        }
        let origin = place.map_or_else(|| format!("-X {key}"), |place| format!("{place}: {key}"));
        let key = canonical(key);
        if let Some(managed) = MANAGED_PROPERTIES.iter().find(|managed| managed.key == key)
            && !managed.right.contains(&value.to_ascii_lowercase().as_str())
        {
            return Err(ConfigError::Managed { origin, instead: managed.instead });
        }
        self.0.insert(key.to_owned(), Property { value: value.into(), origin });
        Ok(())
    }

    /// Refuses what this build of librdkafka can't do, in plainer words than its own.
    fn check_compiled_in(&self) -> Result<(), ConfigError> {
        let is = |key: &str, what: &str| self.get(key).is_some_and(|value| value.eq_ignore_ascii_case(what));
        let missing = |key: &str, what| {
            let origin = self.origin(key).to_owned();
            Err(ConfigError::NotCompiledIn { origin, what })
        };
        if is("sasl.oauthbearer.method", "oidc") {
            return missing("sasl.oauthbearer.method", "OIDC");
        }
        if !(is("security.protocol", "sasl_ssl") || is("security.protocol", "sasl_plaintext")) {
            return Ok(());
        }
        if self.get("sasl.mechanism").is_none() {
            return missing("security.protocol", "its default sasl.mechanism, GSSAPI (Kerberos),");
        }
        if is("sasl.mechanism", "GSSAPI") {
            return missing("sasl.mechanism", "GSSAPI (Kerberos)");
        }
        if is("sasl.mechanism", "OAUTHBEARER") && !is("enable.sasl.oauthbearer.unsecure.jwt", "true") {
            return missing("sasl.mechanism", "a source of OAUTHBEARER tokens (OIDC)");
        }
        Ok(())
    }

    /// Returns the value under any of its names.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(canonical(key)).map(|property| property.value.expose_secret())
    }

    /// Removes a value and returns it.
    pub(super) fn take(&mut self, key: &str) -> Option<String> {
        self.0.remove(canonical(key)).map(|property| property.value.expose_secret().to_owned())
    }

    /// Returns where the user set it.
    pub(super) fn origin(&self, key: &str) -> &str {
        self.0.get(canonical(key)).map_or("-X", |property| &property.origin)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, property)| (key.as_str(), property.value.expose_secret()))
    }
}

fn canonical(key: &str) -> &str {
    ALIASES.iter().find(|(alias, _)| *alias == key).map_or(key, |(_, name)| name)
}

/// Returns the pairs of a text, one per line, with their line numbers. Skips blank lines and comments (`#`, `!`); all
/// lines of a PEM block belong to the value before it.
fn pairs(text: &str) -> Vec<(usize, String)> {
    let mut pairs: Vec<(usize, String)> = Vec::new();
    let mut in_block = false;
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim();
        match pairs.last_mut() {
            Some((_, pair)) if in_block || line.starts_with("-----BEGIN ") => {
                pair.push('\n');
                pair.push_str(line);
            }
            _ if line.is_empty() || line.starts_with(['#', '!']) => {}
            _ => pairs.push((index + 1, line.to_owned())),
        }
        in_block = (in_block || line.contains("-----BEGIN ")) && !line.contains("-----END ");
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&str]) -> Result<Properties, ConfigError> {
        Properties::read(&values.iter().map(|value| SecretString::from(*value)).collect::<Vec<_>>())
    }

    fn refusal(values: &[&str]) -> String {
        read(values).expect_err("must be refused").to_string()
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        file
    }

    #[test]
    fn both_names_of_a_property_are_one_and_the_later_value_counts() {
        for (alias, name) in ALIASES {
            if MANAGED_PROPERTIES.iter().any(|managed| managed.key == name) {
                continue;
            }
            let properties = read(&[&format!("{name}=1"), &format!("{alias}=2")]).expect("valid");
            assert_eq!((properties.get(name), properties.get(alias)), (Some("2"), Some("2")), "{name}");
            let properties = read(&[&format!("{alias}=2"), &format!("{name}=1")]).expect("valid");
            assert_eq!(properties.iter().collect::<Vec<_>>(), [(name, "1")]);
        }
    }

    #[test]
    fn what_the_guarantees_rest_on_is_refused_with_the_reason_unless_it_is_right() {
        for wrong in [
            "group.id=other",
            "isolation.level=read_uncommitted",
            "auto.offset.reset=latest",
            "enable.idempotence=false",
            "acks=0",
            "request.required.acks=1",
            "transactional.id=x",
            "auto.commit.enable=true",
            "delivery.report.only.error=true",
        ] {
            let key = wrong.split_once('=').map(|(key, _)| key).unwrap_or_default();
            let said = refusal(&[wrong]);
            assert!(said.starts_with(&format!("-X {key} is not for users to set: ")), "{said}");
        }
        let right = [
            "acks=all",
            "enable.idempotence=true",
            "isolation.level=read_committed",
            "request.required.acks=-1",
        ];
        assert!(read(&right).is_ok());
        assert!(refusal(&["group.id=other"]).contains("use --group"));
    }

    #[test]
    fn a_file_may_have_comments_of_both_kinds_blank_lines_and_a_byte_order_mark() {
        let file = file("\u{feff}# comment\n! Java's\r\n\r\nclient.id = me\n");
        let properties = read(&[&format!("@{}", file.path().display())]).expect("valid");
        assert_eq!(properties.iter().collect::<Vec<_>>(), [("client.id", "me")]);
        assert_eq!(read(&["a=b\n\nc=d"]).expect("valid").iter().count(), 2);
        assert_eq!(read(&[""]).expect("valid").iter().count(), 0);
    }

    #[test]
    fn a_mistake_in_a_file_is_named_with_its_line_and_without_the_value() {
        for (text, words) in
            [("\n\nhunter2\n", ":3"), ("# c\ngroup.id=hunter2\n", ":2: group.id is not for users")]
        {
            let file = file(text);
            let said = refusal(&[&format!("@{}", file.path().display())]);
            assert!(said.contains(&format!("{}{words}", file.path().display())), "{said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
        assert!(refusal(&["@/nowhere/client.properties"]).contains("/nowhere/client.properties"));
    }

    #[test]
    fn a_value_may_be_an_inline_pem() {
        let pem = "-----BEGIN CERTIFICATE-----\nTUlJ\nab==\n-----END CERTIFICATE-----\n-----BEGIN CERTIFICATE-----\nb2==\n-----END CERTIFICATE-----";
        let text = format!("ssl.certificate.pem={pem}\nclient.id=me");
        let file = file(&text);
        for properties in [read(&[&text]), read(&[&format!("@{}", file.path().display())])] {
            let properties = properties.expect("valid");
            assert_eq!(
                (properties.get("ssl.certificate.pem"), properties.get("client.id")),
                (Some(pem), Some("me"))
            );
        }
        let said = refusal(&["-----BEGIN PRIVATE KEY-----\nTUlJ=\n-----END PRIVATE KEY-----"]);
        assert!(!said.contains("TUlJ") && said.contains("key=value"), "{said}");
        assert!(!refusal(&["TUlJ="]).contains("TUlJ"));
    }

    #[test]
    fn what_is_not_compiled_in_is_said_in_plain_words() {
        for (values, words) in [
            (&["security.protocol=SASL_SSL", "sasl.mechanisms=gssapi"][..], "GSSAPI"),
            (&["security.protocol=sasl_ssl"], "default sasl.mechanism"),
            (&["sasl.oauthbearer.method=oidc"], "OIDC"),
            (&["security.protocol=sasl_ssl", "sasl.mechanism=OAUTHBEARER"], "OAUTHBEARER"),
        ] {
            let said = refusal(values);
            assert!(said.contains(words) && said.contains("not compiled into genwatch"), "{said}");
            assert!(said.contains("SCRAM-SHA-512"), "it says what there is: {said}");
        }
        assert!(read(&["security.protocol=sasl_ssl", "sasl.mechanism=PLAIN"]).is_ok());
    }

    #[test]
    fn values_are_not_shown() {
        let properties = read(&["sasl.password=hunter2"]).expect("valid");
        assert!(!format!("{properties:?}").contains("hunter2"), "{properties:?}");
    }
}
