//! The source of the broker: the one that `GENWATCH_TEST_BROKERS` names, or one started here; or a test's own, to be
//! broken.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// The broker that tests share. Without `GENWATCH_TEST_BROKERS` one is started, and stopped when the tests have ended.
pub fn shared() -> &'static str {
    static BROKERS: OnceLock<(String, Option<Child>)> = OnceLock::new();
    let (brokers, _) = BROKERS.get_or_init(|| match std::env::var("GENWATCH_TEST_BROKERS") {
        Ok(brokers) if !brokers.is_empty() => (brokers, None),
        _ => {
            let dir = folder("shared");
            let reaper = stop_when_we_have_ended(&dir);
            (start(&dir, &["--fresh"]), Some(reaper))
        }
    });
    brokers
}

/// A test's own broker. Stopped when dropped.
pub struct Cluster {
    dir: String,
    /// `--brokers`
    pub brokers: String,
    _reaper: Child,
}

impl Cluster {
    /// Starts one node with these broker properties.
    pub fn start(name: &str, properties: &[&str]) -> Cluster {
        Cluster::start_as(name, &[], properties)
    }

    /// Starts three nodes.
    pub fn start_three(name: &str) -> Cluster {
        Cluster::start_as(name, &["--nodes", "3"], &[])
    }

    /// Starts one node that also has secured listeners, see `scripts/kafka --help`.
    pub fn start_secure(name: &str) -> Cluster {
        Cluster::start_as(name, &["--secure"], &[])
    }

    /// Starts one node with these properties and an extra listener that clients reach by another port, on which a relay
    /// has to listen; returns the relay's port and the node's.
    pub fn start_behind_a_relay(name: &str, properties: &[&str]) -> (Cluster, u16, u16) {
        let cluster = Cluster::start_as(name, &["--relay"], properties);
        let text = std::fs::read_to_string(format!("{}/relay", cluster.dir)).expect("a relayed cluster");
        let mut ports = text.split_whitespace().skip(1).map(|port| port.parse().expect("a port"));
        let (there, here) = (ports.next().expect("a port"), ports.next().expect("a port"));
        (cluster, here, there)
    }

    fn start_as(name: &str, options: &[&str], properties: &[&str]) -> Cluster {
        let dir = folder(name);
        let reaper = stop_when_we_have_ended(&dir);
        let properties: Vec<&str> = properties.iter().flat_map(|property| ["--property", property]).collect();
        let brokers = start(&dir, &[&["--fresh"], options, &properties[..]].concat());
        Cluster { dir, brokers, _reaper: reaper }
    }

    /// Its ports for passwords over TLS, and for certificates.
    pub fn secure_ports(&self) -> (String, String) {
        let text = std::fs::read_to_string(format!("{}/secure", self.dir)).expect("a secure cluster");
        let mut ports = text.split_whitespace().skip(1).map(|port| format!("127.0.0.1:{port}"));
        (ports.next().expect("a port"), ports.next().expect("a port"))
    }

    /// A file made by `scripts/certs`.
    pub fn secret(&self, name: &str) -> String {
        format!("{}/secrets/{name}", self.dir)
    }

    /// SIGKILL to the first node.
    pub fn crash(&self) {
        self.crash_node(1);
    }

    /// SIGKILL to a node.
    pub fn crash_node(&self, node: i32) {
        script(&["kill-node", &node.to_string(), "--dir", &self.dir]);
    }

    /// The node that coordinates the group.
    pub fn coordinator(&self, group: &str) -> i32 {
        let class = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
        let arguments = ["--bootstrap-server", &self.brokers, "--describe", "--state", "--group", group];
        let said = tool(class, &arguments);
        let id = said.split(['(', ')']).nth(3).and_then(|id| id.parse().ok());
        id.unwrap_or_else(|| panic!("no coordinator in {said}"))
    }

    /// Starts it again with its data, and waits until it serves.
    pub fn recover(&self) {
        script(&["start-node", "1", "--dir", &self.dir]);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        script(&["stop", "--dir", &self.dir]);
    }
}

/// The folder of Kafka's jars.
pub fn jars() -> String {
    script(&["jars"])
}

/// Runs a tool of Kafka by its class.
pub fn tool(class: &str, arguments: &[&str]) -> String {
    script(&[&["tool", class], arguments].concat())
}

fn start(dir: &str, arguments: &[&str]) -> String {
    let brokers = script(&[&["start", "--dir", dir], arguments].concat());
    assert!(!brokers.is_empty(), "scripts/kafka start names no broker");
    brokers
}

fn folder(name: &str) -> String {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("kafka-{name}"));
    dir.to_str().expect("a path in UTF-8").to_owned()
}

fn script(arguments: &[&str]) -> String {
    let output =
        Command::new(path()).args(arguments).stdin(Stdio::null()).output().expect("scripts/kafka runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "scripts/kafka {} failed:\n{said}", arguments.join(" "));
    String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
}

/// A test binary has no exit hook, and may be killed. So a child waits for the end of its standard input, which is the
/// end of this process, however it comes, and stops the cluster.
fn stop_when_we_have_ended(dir: &str) -> Child {
    Command::new("setsid")
        .args(["sh", "-c", "cat >/dev/null; exec \"$0\" stop --dir \"$1\""])
        .arg(path())
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("sh runs")
}

/// In the workspace, whichever of its crates is tested.
fn path() -> PathBuf {
    let mut above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|dir| dir.join("scripts/kafka"));
    above.find(|path| path.is_file()).expect("scripts/kafka")
}
