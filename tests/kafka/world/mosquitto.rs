//! A test's own Mosquitto, and a device that publishes to it.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rumqttc::{
    Client, Connection, Event, LastWill, MqttOptions, Packet, PublishOptions, PublishProperties, QoS,
};

use super::{PATIENCE, until};
use crate::signal::{self, Signal};

/// An MQTT broker. Ends when dropped.
pub struct Mosquitto {
    port: u16,
    folder: tempfile::TempDir,
    process: Child,
}

impl Mosquitto {
    /// Lets every client in, and keeps messages for absent sessions.
    pub fn start() -> Mosquitto {
        Mosquitto::configured(|_| "allow_anonymous true".to_owned())
    }

    /// With more lines of configuration, which may name files of its folder.
    pub fn configured(more: impl Fn(&Path) -> String) -> Mosquitto {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let path = folder.path().display();
        let lines = format!(
            "listener {port} 127.0.0.1\nuser root\npersistence true\npersistence_location {path}/\nmax_queued_messages 0\n{}\n",
            more(folder.path())
        );
        std::fs::write(folder.path().join("mosquitto.conf"), lines).unwrap();
        let process = Mosquitto::spawn(folder.path());
        let broker = Mosquitto { port, folder, process };
        broker.wait_until_up();
        broker
    }

    fn spawn(folder: &Path) -> Child {
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/usr/local/sbin";
        let mut command = Command::new("mosquitto");
        command.env("PATH", path).arg("-c").arg(folder.join("mosquitto.conf"));
        let log = std::fs::File::create(folder.join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.spawn().expect("there is a mosquitto (scripts/setup installs it)")
    }

    fn wait_until_up(&self) {
        until("mosquitto listens", || std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok());
    }

    /// `--mqtt`
    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    /// Its port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends it as a shutdown of its machine does: it saves sessions and their queued messages.
    pub fn stop(&mut self) {
        signal::send(&self.process, Signal::TERM);
        self.process.wait().unwrap();
    }

    /// As [`Mosquitto::stop`], and deletes the sessions.
    pub fn stop_and_forget(&mut self) {
        self.stop();
        std::fs::remove_file(self.folder.path().join("mosquitto.db")).expect("it had written its sessions");
    }

    /// Starts it again.
    pub fn start_again(&mut self) {
        self.process = Mosquitto::spawn(self.folder.path());
        self.wait_until_up();
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            eprintln!("--- mosquitto:\n{log}");
        }
    }
}

/// A device that publishes on request.
pub struct Device {
    client: Client,
    connection: Connection,
}

impl Device {
    /// Connects under this client id.
    pub fn connect(broker: &Mosquitto, id: &str) -> Device {
        Device::connect_as(broker, id, |_| {})
    }

    /// As [`Device::connect`], and leaves a retained `offline` in this topic as last will.
    pub fn connect_with_will(broker: &Mosquitto, id: &str, status: &str) -> Device {
        Device::connect_as(broker, id, |options| {
            options.set_last_will(LastWill::new(status, "offline", QoS::AtLeastOnce, true, None));
        })
    }

    fn connect_as(broker: &Mosquitto, id: &str, more: impl Fn(&mut MqttOptions)) -> Device {
        let mut options = MqttOptions::new(id, ("127.0.0.1", broker.port));
        options.set_max_packet_size(Some(32 << 20)).set_clean_start(true);
        more(&mut options);
        let (client, connection) = Client::builder(options).capacity(100).build();
        let mut device = Device { client, connection };
        device.wait_for("its connection", |packet| matches!(packet, Packet::ConnAck(_)));
        device
    }

    /// Publishes, and waits until the broker has it.
    pub fn say(&mut self, topic: &str, payload: &[u8]) {
        self.say_at(topic, payload, None);
    }

    /// As [`Device::say`], with the time at which the reading was taken.
    pub fn say_at(&mut self, topic: &str, payload: &[u8], at: Option<&str>) {
        self.publish(topic, payload, at, false);
    }

    /// As [`Device::say_at`], and the broker keeps it for later subscribers.
    pub fn say_retained(&mut self, topic: &str, payload: &[u8], at: Option<&str>) {
        self.publish(topic, payload, at, true);
    }

    fn publish(&mut self, topic: &str, payload: &[u8], at: Option<&str>, retained: bool) {
        let user_properties = at.map(|at| ("timestamp".to_owned(), at.to_owned())).into_iter().collect();
        let properties = PublishProperties { user_properties, ..PublishProperties::default() };
        self.client
            .publish(
                topic,
                payload.to_vec(),
                PublishOptions::at_least_once().retain(retained).properties(properties),
            )
            .unwrap();
        self.wait_for("an acknowledgement", |packet| matches!(packet, Packet::PubAck(_)));
    }

    fn wait_for(&mut self, what: &str, wanted: impl Fn(&Packet) -> bool) {
        let deadline = std::time::Instant::now() + PATIENCE;
        while std::time::Instant::now() < deadline {
            match self.connection.recv_timeout(Duration::from_secs(1)) {
                Ok(Ok(Event::Incoming(packet))) if wanted(&packet) => return,
                Ok(Err(error)) => panic!("the device's connection: {error}"),
                _ => {}
            }
        }
        panic!("the device waits in vain for {what}");
    }
}
