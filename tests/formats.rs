//! The published formats are consistent: schemas, examples, `docs/formats.md` and the AsyncAPI document.
//! `tests/kafka/formats.rs` checks against a real Kafka that the binary keeps to them.

#![allow(clippy::expect_used, missing_docs)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use genwatch_core::reading::{self, ErrorCode};
use genwatch_core::transform;
use genwatch_kafka::topics::{Role, Topics};
use serde_json::Value;
use yaml_rust2::{Yaml, YamlLoader};

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn schemas() -> BTreeMap<String, Value> {
    let entries = std::fs::read_dir(docs().join("schemas")).expect("a folder of schemas");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let schema = |path: PathBuf| {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        (name, serde_json::from_str(&read(&path)).expect("JSON"))
    };
    paths.map(schema).collect()
}

#[track_caller]
fn assert_valid(schema: &Value, document: &Value, what: &str) {
    let validator = jsonschema::draft202012::new(schema).expect("a schema");
    let errors: Vec<String> =
        validator.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{what}: {errors:#?} in {document:#}");
}

#[test]
fn schemas_are_schemas_and_their_examples_are_valid() {
    let schemas = schemas();
    assert_eq!(schemas.len(), 19);
    for (name, schema) in schemas {
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema", "{name}");
        assert!(jsonschema::draft202012::meta::is_valid(&schema), "{name}");
        let examples = schema["examples"].as_array().expect("examples");
        assert!(!examples.is_empty(), "{name}");
        examples.iter().for_each(|example| assert_valid(&schema, example, &name));
    }
}

/// A block of formats.md that begins with "```json NAME" is a document of that schema.
#[test]
fn every_example_of_the_page_is_valid() {
    let (page, schemas) = (read(&docs().join("formats.md")), schemas());
    let mut seen = Vec::new();
    for block in page.split("\n```json ").skip(1) {
        let (name, rest) = block.split_once('\n').expect("a line");
        let (document, _) = rest.split_once("\n```").expect("an end");
        let document = serde_json::from_str(document).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_valid(schemas.get(name).expect(name), &document, name);
        seen.push(name);
    }
    for name in [
        "reading",
        "alert",
        "state",
        "generator-status",
        "aggregate",
        "aggregate-state",
        "report",
        "group-status",
    ] {
        assert!(seen.contains(&name), "no example of {name} in {seen:?}");
    }
    for name in schemas.keys() {
        assert!(page.contains(&format!("(schemas/{name}.json)")), "the page doesn't lead to {name}.json");
    }
}

#[test]
fn the_page_names_every_code_and_every_topic() {
    let page = read(&docs().join("formats.md"));
    let codes = &schemas()["dead-letter-headers"]["properties"]["dlq.error.code"]["enum"];
    let expected = ErrorCode::ALL.map(ErrorCode::as_str).into_iter().chain([transform::ERROR_CODE]);
    assert_eq!(*codes, Value::from(expected.collect::<Vec<_>>()));
    assert!(page.contains(&format!("`{}`", transform::ERROR_CODE)));
    for (number, code) in ErrorCode::ALL.iter().enumerate() {
        assert!(page.contains(&format!("\n{}. `{code}`", number + 1)), "{code}");
    }
    let topics = Topics::new("<topic>", "<group>");
    for role in Role::ALL {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{}` |", topics.name(role))));
        let row = row.unwrap_or_else(|| panic!("no row of {role:?}"));
        assert!(row.contains(&format!("| {} |", role.cleanup().as_str())), "{row}");
    }
    let windows = format!("| `{}` |", state_of_windows("<topic>", "<group>"));
    let row = page.lines().find(|line| line.starts_with(&windows)).expect("a row of open windows");
    assert!(row.contains(&format!("| {} |", Role::State.cleanup().as_str())), "{row}");
}

/// The topic of the states of `downsample`, which `topics create` doesn't create.
fn state_of_windows(topic: &str, group: &str) -> String {
    genwatch::downsample::topics(topic, group, None, Duration::from_secs(60), None).state
}

/// The schema and the worker agree on what a reading is, except for what a schema can't know: keys, bytes and doubles.
#[test]
fn the_schema_of_readings_judges_as_the_worker_does() {
    let schema = &schemas()["reading"];
    let validator = jsonschema::draft202012::new(schema).expect("a schema");
    let good = r#"{"generatorID":"g","lat":40.6,"lon":-111.9,"temperature":74,"pressure":198,"fuel":901}"#;
    for (from, to) in [
        ("", ""),
        ("{", r#"{"load":null,"#),
        ("{", r#"{"load":50.5,"power":120,"maker":{"name":"x"},"#),
        ("74", "-1e300"),
        (r#""g""#, r#""""#),
        (r#""g""#, "7"),
        ("40.6", "90.5"),
        ("-111.9", "-181"),
        ("198", "\"198\""),
        ("198", "null"),
        ("{", r#"{"power":"12","#),
        (r#","fuel":901"#, ""),
    ] {
        let text = if from.is_empty() { good.to_owned() } else { good.replacen(from, to, 1) };
        let document: Value = serde_json::from_str(&text).expect("JSON");
        let key = document["generatorID"].as_str().unwrap_or("g");
        let judged = reading::parse(Some(key.as_bytes()), Some(text.as_bytes()));
        assert_eq!(validator.is_valid(&document), judged.is_ok(), "{text}: {judged:?}");
    }
}

#[test]
fn the_asyncapi_document_has_the_topics_and_its_references_lead_somewhere() {
    let text = read(&docs().join("asyncapi.yaml"));
    let document = YamlLoader::load_from_str(&text).expect("YAML").remove(0);
    assert_eq!(document["asyncapi"].as_str(), Some("3.0.0"));
    assert_eq!(document["info"]["version"].as_str(), Some(env!("CARGO_PKG_VERSION")));

    let topics = Topics::new("{topic}", "{group}");
    let mut expected: Vec<_> = Role::ALL.map(|role| (topics.name(role), role.cleanup().as_str())).to_vec();
    let windows = state_of_windows("{topic}", "{group}");
    expected.push((windows.as_str(), Role::State.cleanup().as_str()));
    let channels = document["channels"].as_hash().expect("channels");
    let mut found: Vec<_> = channels
        .values()
        .map(|channel| {
            let cleanup = &channel["bindings"]["kafka"]["topicConfiguration"]["cleanup.policy"];
            (channel["address"].as_str().expect("an address"), cleanup[0].as_str().expect("a policy"))
        })
        .collect();
    expected.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, expected);

    let mut references = Vec::new();
    collect_references(&document, &mut references);
    assert!(references.len() > 30, "{references:?}");
    for reference in references {
        match reference.strip_prefix("#/") {
            Some(path) => {
                let target = path.split('/').fold(&document, |node, name| &node[name]);
                assert!(!target.is_badvalue(), "{reference}");
            }
            None => assert!(docs().join(&reference).is_file(), "{reference}"),
        }
    }
    // Each topic's payload has its own schema.
    for schema in [
        "reading",
        "alert",
        "state",
        "generator-status",
        "aggregate",
        "aggregate-state",
        "report",
        "alert-headers",
        "aggregate-headers",
        "dead-letter-headers",
    ] {
        assert!(text.contains(&format!("$ref: schemas/{schema}.json")), "{schema}");
    }
}

fn collect_references(node: &Yaml, into: &mut Vec<String>) {
    match node {
        Yaml::Hash(hash) => hash.iter().for_each(|(key, value)| match (key.as_str(), value.as_str()) {
            (Some("$ref"), Some(target)) => into.push(target.to_owned()),
            _ => collect_references(value, into),
        }),
        Yaml::Array(items) => items.iter().for_each(|item| collect_references(item, into)),
        _ => {}
    }
}

/// Dashboards and alerts ask Prometheus for metrics that some service registers, by whatever file they come.
#[test]
fn what_dashboards_and_alerts_ask_for_is_registered_somewhere() {
    fn files(folder: &Path) -> Vec<PathBuf> {
        let entries =
            std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
    }
    let names = |text: &str| -> Vec<String> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        words.filter(|word| word.starts_with("genwatch_")).map(str::to_owned).collect()
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source: String = files(&root.join("src")).iter().map(|path| read(path)).collect();
    let registered = names(&source);
    let mut asked = 0;
    for folder in ["compose/grafana", "compose/prometheus", "kubernetes/components/alerts"] {
        for path in files(&root.join("deploy").join(folder)) {
            for name in names(&read(&path)) {
                let metric = ["_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end));
                let metric = metric.unwrap_or(&name);
                assert!(registered.iter().any(|one| one == metric), "{}: {name}", path.display());
                asked += 1;
            }
        }
    }
    assert!(asked > 50, "{asked}");
}
