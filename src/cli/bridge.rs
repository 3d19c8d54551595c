//! `genwatch bridge`: from MQTT to Kafka.

use clap::Args;

use genwatch_core::transform::record::Command as TransformCommand;

use super::mqtt::MqttOptions;
use super::transform::TransformOptions;
use super::{ClusterOptions, Failure};
use crate::mqtt::bridge::{BridgeConfig, BridgeError};
use crate::mqtt::share::Share;

/// Forward the generators' MQTT messages to Kafka.
///
/// Readings go to <TOPIC>, keyed by generator; online and offline, from generators and their last wills, go to
/// <TOPIC>_status. A message is acknowledged to the MQTT broker once Kafka has it; while the bridge or Kafka is away,
/// the broker keeps messages. The bridge doesn't judge payloads: the worker makes invalid readings dead letters. --transform
/// changes readings on the way. With more than one bridge, give each a --share. SIGTERM finishes the messages in flight; at the end one JSON summary is
/// printed.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Name of the session that the MQTT broker keeps for the bridge: unique among its clients, the same after a
    /// restart [default: genwatch-bridge, with --share 2/4 genwatch-bridge-2-of-4].
    #[arg(long, value_name = "ID", env = "GENWATCH_CLIENT_ID", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    client_id: Option<String>,

    /// Forward only share I of N of the generators, where N bridges run, 1/N to N/N. Each subscribes to all topics.
    #[arg(long, value_name = "I/N", default_value = "1/1", env = "GENWATCH_SHARE")]
    share: Share,

    #[command(flatten)]
    transform: TransformOptions,

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
    let topics = options.cluster.topics();
    let config = BridgeConfig {
        connection: options.cluster.connection()?,
        transform: options.transform.load_routes(TransformCommand::BRIDGE, &topics)?,
        topics,
        broker: options.mqtt.broker().map_err(Failure::usage)?,
        client_id: options.client_id(),
        tree: options.mqtt.tree(),
        share: options.share,
    };
    super::run_service(options.http.as_ref(), |context| {
        crate::mqtt::bridge::run(config, context).map_err(|error| match error {
            // Conflicting properties are found when a client is made of them.
            BridgeError::Client(_) => Failure::usage(error),
            _ => Failure::from(error),
        })
    })
}
