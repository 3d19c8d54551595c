//! `genwatch bridge`: from MQTT to Kafka.

use clap::Args;

use super::mqtt::MqttOptions;
use super::{ClusterOptions, Failure};
use crate::mqtt::bridge::{BridgeConfig, BridgeError};
use crate::mqtt::share::Share;

/// Forward what generators say by MQTT to Kafka.
///
/// Readings go to <TOPIC>, keyed by generator; online and offline, said by generators and their last wills, to <TOPIC>_status.
/// A message is acknowledged to the MQTT broker when Kafka has it; while the bridge or Kafka is away, the broker keeps them.
/// The payload is not judged here: what is no reading becomes a dead letter of the worker. For more than one bridge give each
/// a --share. SIGTERM finishes what is under way; at the end one JSON summary is printed.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Names the session that the MQTT broker keeps for the bridge: unique among its clients, the same after a restart
    /// [default: genwatch-bridge, with --share 2/4 genwatch-bridge-2-of-4].
    #[arg(long, value_name = "ID", env = "GENWATCH_CLIENT_ID", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    client_id: Option<String>,

    /// Forward the generators of one of N shares only, where N bridges run, 1/N to N/N. Each of them subscribes to all.
    #[arg(long, value_name = "I/N", default_value = "1/1", env = "GENWATCH_SHARE")]
    share: Share,

    /// Serve /metrics, /livez and /readyz here.
    #[arg(long, value_name = "HOST:PORT", env = "GENWATCH_HTTP")]
    http: Option<crate::service::http::HttpAddress>,

    #[command(flatten)]
    mqtt: MqttOptions,

    #[command(flatten)]
    cluster: ClusterOptions,
}

impl Options {
    fn client_id(&self) -> String {
        self.client_id.clone().unwrap_or_else(|| match self.share.is_partial() {
            true => format!("genwatch-bridge-{}", self.share.to_string().replace('/', "-of-")),
            false => "genwatch-bridge".to_owned(),
        })
    }
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    if !options.mqtt.tree().status.names_the_generator() {
        let reason =
            "--mqtt-status-topic must contain the level {generatorID}: a status doesn't say whose it is";
        return Err(Failure::usage(anyhow::anyhow!(reason)));
    }
    let config = BridgeConfig {
        connection: options.cluster.connection()?,
        topics: options.cluster.topics(),
        broker: options.mqtt.broker().map_err(Failure::usage)?,
        client_id: options.client_id(),
        tree: options.mqtt.tree(),
        share: options.share,
    };
    super::run_service(options.http.as_ref(), |context| {
        crate::mqtt::bridge::run(config, context).map_err(|error| match error {
            // Properties that exist and don't fit together are found when a client is made of them.
            BridgeError::Client(_) => Failure::usage(error),
            _ => Failure::from(error),
        })
    })
}
