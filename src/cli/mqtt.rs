//! The options of all commands that speak MQTT.

use std::path::PathBuf;

use clap::Args;

use crate::mqtt::broker::{Address, Broker, BrokerAccess, BrokerError};
use crate::mqtt::message::TopicPatterns;
use crate::mqtt::topic::TopicPattern;

/// The MQTT broker, and where in its topic tree generators report.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "MQTT")]
pub(super) struct MqttOptions {
    /// Address of the MQTT broker (MQTT 5): mqtt://HOST:PORT, or mqtts://HOST:PORT for TLS.
    #[arg(
        long,
        value_name = "URL",
        default_value = "mqtt://localhost:1883",
        env = "GENWATCH_MQTT",
        hide_env_values = true
    )]
    mqtt: Address,

    /// Topic filter of the readings. The level {generatorID} names the generator; without it, the payload does.
    #[arg(
        long,
        value_name = "FILTER",
        default_value = "generators/{generatorID}/telemetry",
        env = "GENWATCH_MQTT_TOPIC"
    )]
    mqtt_topic: TopicPattern,

    /// Topic filter of the statuses: online from generators, offline from their last wills.
    #[arg(
        long,
        value_name = "FILTER",
        default_value = "generators/{generatorID}/status",
        env = "GENWATCH_MQTT_STATUS_TOPIC"
    )]
    mqtt_status_topic: TopicPattern,

    /// User name at the MQTT broker.
    #[arg(long, value_name = "NAME", env = "GENWATCH_MQTT_USER")]
    mqtt_user: Option<String>,

    /// A file with the password.
    #[arg(long, value_name = "FILE", requires = "mqtt_user", env = "GENWATCH_MQTT_PASSWORD_FILE")]
    mqtt_password_file: Option<PathBuf>,

    /// Trusted certificates, in PEM. Default: those that this system trusts.
    #[arg(long, value_name = "FILE", env = "GENWATCH_MQTT_CA_FILE")]
    mqtt_ca_file: Option<PathBuf>,

    /// Our certificate, with those between it and its CA, in PEM: for brokers that require one.
    #[arg(long, value_name = "FILE", requires = "mqtt_key_file", env = "GENWATCH_MQTT_CERT_FILE")]
    mqtt_cert_file: Option<PathBuf>,

    /// Its private key, in PEM, not encrypted. May be the same file.
    #[arg(long, value_name = "FILE", requires = "mqtt_cert_file", env = "GENWATCH_MQTT_KEY_FILE")]
    mqtt_key_file: Option<PathBuf>,
}

impl MqttOptions {
    pub(super) fn broker(&self) -> Result<Broker, BrokerError> {
        let access = BrokerAccess {
            user: self.mqtt_user.as_deref(),
            password_file: self.mqtt_password_file.as_deref(),
            ca_file: self.mqtt_ca_file.as_deref(),
            cert_file: self.mqtt_cert_file.as_deref(),
            key_file: self.mqtt_key_file.as_deref(),
        };
        Broker::new(self.mqtt.clone(), access)
    }

    pub(super) fn tree(&self) -> TopicPatterns {
        TopicPatterns { readings: self.mqtt_topic.clone(), status: self.mqtt_status_topic.clone() }
    }
}
