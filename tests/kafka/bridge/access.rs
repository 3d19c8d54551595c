//! Which clients an MQTT broker lets in, and how a bridge behaves that is refused for a while.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use super::{bridge, reading};
use crate::world::certificates::Authority;
use crate::world::mosquitto::{Device, Mosquitto};
use crate::world::{World, http, until};

#[test]
fn a_broker_with_tls_and_passwords_lets_in_who_may() {
    let authority = Authority::new();
    let secrets = tempfile::tempdir().unwrap();
    let file = |name: &str| secrets.path().join(name).display().to_string();
    users(&secrets.path().join("users"), "hunter2");
    std::fs::write(file("acl"), "user bridge\ntopic read generators/#\n").unwrap();
    std::fs::write(file("password"), "hunter2\n").unwrap();
    std::fs::write(file("wrong"), "hunter4").unwrap();
    let broker = authority.issue("broker", "DNS:localhost");
    let mqtt = Mosquitto::configured(|_| {
        format!(
            "allow_anonymous false\npassword_file {}\nacl_file {}\ncertfile {broker}\nkeyfile {broker}",
            file("users"),
            file("acl"),
        )
    });
    let world = World::new(1);
    let url = format!("mqtts://localhost:{}", mqtt.port());
    let ca = authority.certificate();
    let start = |more: &[&str]| {
        let all = [&["--mqtt", &url[..], "--mqtt-ca-file", &ca], more].concat();
        world.start("bridge", &all)
    };
    let let_in = start(&["--mqtt-user", "bridge", "--mqtt-password-file", &file("password")]);
    let_in.wait_until_it_says("connected to the MQTT broker");
    let arguments = std::fs::read_to_string(format!("/proc/{}/cmdline", let_in.id())).unwrap();
    let ended = let_in.stop();
    assert!(!format!("{arguments}{}", ended.stderr).contains("hunter2"));

    for login in [
        &["--mqtt-user", "bridge", "--mqtt-password-file", &file("wrong")][..],
        &["--mqtt-user", "nobody", "--mqtt-password-file", &file("password")],
        &[],
    ] {
        start(login).wait().refused(1, &["authentication failed", "--mqtt-password-file"]);
    }
    // Another CA, another host name, and no TLS.
    let stranger = Authority::new();
    let other = stranger.certificate();
    let another_name = format!("mqtts://127.0.0.1:{}", mqtt.port());
    for (url, ca) in [(&url, &other), (&another_name, &ca)] {
        world.run("bridge", &["--mqtt", url, "--mqtt-ca-file", ca]).refused(1, &["--mqtt-ca-file"]);
    }
    world
        .run("bridge", &["--mqtt", &format!("mqtt://localhost:{}", mqtt.port())])
        .refused(1, &["MQTT broker"]);
}

#[test]
fn a_broker_that_asks_for_certificates_lets_in_who_has_one() {
    let authority = Authority::new();
    let (ca, broker) = (authority.certificate(), authority.issue("broker", "IP:127.0.0.1,IP:::1"));
    // A listener by IPv6 beside the usual one.
    let port = TcpListener::bind("[::1]:0").unwrap().local_addr().unwrap().port();
    let secured = format!("cafile {ca}\ncertfile {broker}\nkeyfile {broker}\nrequire_certificate true");
    let mqtt =
        Mosquitto::configured(|_| format!("allow_anonymous true\n{secured}\nlistener {port} ::1\n{secured}"));
    let world = World::new(1);
    let client = authority.issue("client", "DNS:client");
    let ours = ["--mqtt-ca-file", &ca, "--mqtt-cert-file", &client, "--mqtt-key-file", &client];
    let url = format!("mqtts://127.0.0.1:{}", mqtt.port());
    let bridge = world.start("bridge", &[&["--mqtt", &format!("mqtts://[::1]:{port}")], &ours[..]].concat());
    bridge.wait_until_it_says("connected to the MQTT broker");
    let fleet = ["--to", "mqtt", "--mqtt", &url, "--generators", "2", "--count", "20", "--rate", "0"];
    let simulated = world.run("simulate", &[&fleet[..], &ours].concat()).success();
    assert_eq!(simulated.number("delivered"), 20);
    until("all are in Kafka", || world.readings().len() == 20);
    bridge.stop();

    let trusted = ["--mqtt", &url, "--mqtt-ca-file", &ca];
    let stranger = Authority::new();
    let strange = stranger.issue("client", "DNS:client");
    for identity in [&[][..], &["--mqtt-cert-file", &strange, "--mqtt-key-file", &strange]] {
        world.run("bridge", &[&trusted[..], identity].concat()).refused(1, &["--mqtt-cert-file"]);
    }
    // The key of another certificate, a file without a key, one without the other.
    let other = authority.issue("other", "DNS:other");
    for (key, words) in [(&other, "--mqtt-key-file"), (&ca, "no private key")] {
        let identity = ["--mqtt-cert-file", &client, "--mqtt-key-file", key];
        world.run("bridge", &[&trusted[..], &identity].concat()).refused(2, &[words]);
    }
    world.run("bridge", &[&trusted[..], &["--mqtt-cert-file", &client]].concat()).exited(2);
    let without_tls =
        ["--mqtt", "mqtt://127.0.0.1:1", "--mqtt-cert-file", &client, "--mqtt-key-file", &client];
    world.run("bridge", &without_tls).refused(2, &["--mqtt-cert-file", "mqtts://"]);
}

#[test]
fn a_broker_that_refuses_the_bridge_for_a_while_is_waited_for() {
    let secrets = tempfile::tempdir().unwrap();
    let file = |name: &str| secrets.path().join(name).display().to_string();
    let registered = |password: &str| users(&secrets.path().join("users"), password);
    std::fs::write(file("password"), "hunter2\n").unwrap();
    registered("hunter2");
    let mut mqtt =
        Mosquitto::configured(|_| format!("allow_anonymous true\npassword_file {}", file("users")));
    let world = World::new(1);
    let login = ["--mqtt-user", "bridge", "--mqtt-password-file", &file("password"), "--http", "127.0.0.1:0"];
    let mut bridge = bridge(&world, &mqtt, &login);
    let address = bridge.http();
    mqtt.stop();
    registered("another");
    mqtt.start_again();
    bridge.wait_until_it_says("authentication failed");
    assert_eq!(http::get(&address, "/readyz").0, 503);
    assert!(bridge.is_running(), "who was let in before may be let in again");
    mqtt.stop();
    registered("hunter2");
    mqtt.start_again();
    until("it's let in again", || http::get(&address, "/readyz").0 == 200);
    Device::connect(&mqtt, "device").say("generators/g1/telemetry", &reading("g1", 1));
    until("it forwards", || world.readings().len() == 1);
    bridge.stop();
}

#[test]
fn a_session_that_the_broker_forgot_is_told_and_begun_again() {
    let (mut mqtt, world) = (Mosquitto::start(), World::new(1));
    let bridge = bridge(&world, &mqtt, &["--http", "127.0.0.1:0"]);
    let address = bridge.http();
    mqtt.stop_and_forget();
    mqtt.start_again();
    until("the metrics show it", || {
        http::get(&address, "/metrics").1.contains("genwatch_bridge_sessions_lost_total 1")
    });
    let mut device = Device::connect(&mqtt, "device");
    // Subscribing takes a moment.
    until("it forwards again", || {
        device.say("generators/g1/telemetry", &reading("g1", 1));
        world.readings().len() > 0
    });
    assert_eq!(bridge.stop().number("sessions_lost"), 1);
}

fn users(path: &Path, password: &str) {
    std::fs::write(path, format!("bridge:{password}\n")).unwrap();
    let hashed = Command::new("mosquitto_passwd").arg("-U").arg(path).output().unwrap();
    assert!(hashed.status.success(), "{}", String::from_utf8_lossy(&hashed.stderr));
}
