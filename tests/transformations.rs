//! Runs every example of `docs/transformations.md`, and checks that the page names every kind of step and every unit.

#![allow(clippy::expect_used, missing_docs)]

use std::path::Path;

use genwatch_core::transform::record::{Command, Headers, Record};
use genwatch_core::transform::{Outcome, Transform};
use genwatch_core::types::{Millis, Offset, PartitionId};

#[derive(Debug)]
struct Firmware;

impl Headers for Firmware {
    fn last(&self, name: &str) -> Option<&[u8]> {
        (name == "firmware").then_some(b"1.10")
    }
}

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/transformations.md");
    std::fs::read_to_string(path).expect("the page")
}

/// The blocks of the page that have two words behind the fence: both words, and the content.
fn blocks(page: &str) -> Vec<(&str, &str)> {
    let mut blocks = Vec::new();
    let mut rest = page;
    while let Some((_, after)) = rest.split_once("\n```") {
        let (words, after) = after.split_once('\n').expect("a line");
        let (content, after) = after.split_once("\n```").unwrap_or_else(|| panic!("no end of {words}"));
        if words.contains(' ') {
            blocks.push((words, content));
        }
        rest = after;
    }
    blocks
}

/// What becomes of the record: its value as JSON if that has changed, and in words what else.
fn outcome(transform: &Transform, value: &str) -> (Option<String>, Option<String>) {
    let record = Record {
        partition: Some(PartitionId(3)),
        offset: Some(Offset(1042)),
        timestamp: Some(Millis(1_766_400_000_000)),
        key: Some(b"generator4"),
        headers: &Firmware,
        ..Record::new("emergency_generators", value.as_bytes())
    };
    let changed = match transform.apply(&record) {
        Ok(Outcome::Unchanged) => return (None, Some("unchanged".to_owned())),
        Ok(Outcome::Filtered(_)) => return (None, Some("filtered".to_owned())),
        Ok(Outcome::Changed(changed)) => *changed,
        Err(failure) => return (None, Some(format!("fails: {failure}"))),
    };
    let json = changed.fields.map(|fields| String::from_utf8(fields.to_json()).expect("UTF-8"));
    let words = [
        changed.target.map(|set| format!("to {}", set.value)),
        changed.timestamp.map(|set| format!("at {}", set.value.0)),
        (!changed.tags.is_empty()).then(|| format!("tags {}", changed.tags.join(", "))),
    ];
    let words: Vec<String> = words.into_iter().flatten().collect();
    (json, (!words.is_empty()).then(|| words.join(", ")))
}

#[test]
fn every_example_of_the_page_does_what_it_shows() {
    let page = page();
    let sink = Command::sink("sink influx", |_| Ok(()));
    let (mut transform, mut found, mut checked) = (None, (None, None), 0);
    for (words, content) in blocks(&page) {
        match words {
            "toml steps" => {
                let read = Transform::parse(content, Path::new("page.toml"), sink);
                transform = Some(read.unwrap_or_else(|error| panic!("{error} in:\n{content}")));
            }
            "json before" => {
                assert_eq!(found, (None, None), "the page doesn't show it, before:\n{content}");
                found = outcome(transform.as_ref().expect("steps come first"), content);
                checked += 1;
            }
            "json after" => assert_eq!(found.0.take().as_deref(), Some(content)),
            "text after" => assert_eq!(found.1.take().as_deref(), Some(content)),
            other => panic!("unknown block {other}"),
        }
    }
    assert_eq!(found, (None, None), "the page doesn't show it");
    assert!(checked >= 15, "{checked}");
}

#[test]
fn a_source_takes_the_example_of_its_section() {
    let page = page();
    let (_, section) = page.split_once("\n## In a source\n").expect("a section");
    let (section, _) = section.split_once("\n## ").expect("an end");
    let (_, steps) = blocks(section).into_iter().find(|(words, _)| *words == "toml steps").expect("steps");
    let transform = Transform::parse(steps, Path::new("page.toml"), Command::SOURCE).expect("a file");
    assert_eq!(transform.steps().count(), 4);
}

#[test]
fn the_page_has_every_kind_and_every_unit() {
    let page = page();
    let error = |text: &str| {
        let read = Transform::parse(text, Path::new("page.toml"), Command::BRIDGE);
        read.expect_err("no such thing").to_string()
    };
    let listed = |message: String| -> Vec<String> {
        let (_, all) = message.split_once("there are ").expect("a list");
        all.split(", ").map(str::to_owned).collect()
    };
    let kinds = listed(error("step = [{ kind = \"none\" }]"));
    let units =
        listed(error("step = [{ kind = \"convert\", fields = \"a\", from = \"none\", to = \"bar\" }]"));
    assert!(kinds.len() == 12 && units.len() == 30, "{kinds:?} {units:?}");
    let examples: String =
        blocks(&page).iter().filter(|(words, _)| *words == "toml steps").map(|(_, steps)| *steps).collect();
    for kind in kinds {
        assert!(page.contains(&format!("| [`{kind}`](#")), "{kind}");
        assert!(examples.contains(&format!("kind = \"{kind}\"")), "no example of {kind}");
    }
    for unit in units {
        assert!(page.contains(&format!("`{unit}`")), "{unit}");
    }
}
