//! `genwatch bridge`: from MQTT to Kafka.

use std::sync::Arc;

use clap::Args;

use super::mqtt::MqttOptions;
use super::{ClusterOptions, Failure};
use crate::health::{Health, Obstacle};
use crate::mqtt::bridge::{BridgeConfig, BridgeError, Observers};
use crate::mqtt::metrics::BridgeMetrics;

/// Forward what generators say by MQTT to Kafka.
///
/// Readings go to <TOPIC>, keyed by generator; online and offline, said by generators and their last wills, to <TOPIC>_status.
/// A message is acknowledged to the MQTT broker when Kafka has it; while the bridge or Kafka is away, the broker keeps them.
/// The payload is not judged here: what is no reading becomes a dead letter of the worker. For more than one bridge give each
/// a branch of the tree (--mqtt-topic) and a --client-id. SIGTERM finishes what is under way; at the end one JSON summary is
/// printed.
#[derive(Debug, Args)]
pub struct Options {
    /// Names the session that the MQTT broker keeps for the bridge: unique among its clients, the same after a restart.
    #[arg(long, value_name = "ID", default_value = "genwatch-bridge", env = "GENWATCH_CLIENT_ID", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    client_id: String,

    /// Serve /metrics, /livez and /readyz here.
    #[arg(long, value_name = "HOST:PORT", env = "GENWATCH_HTTP")]
    http: Option<crate::web::HttpAddress>,

    #[command(flatten)]
    mqtt: MqttOptions,

    #[command(flatten)]
    cluster: ClusterOptions,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let config = BridgeConfig {
        connection: options.cluster.connection()?,
        topics: options.cluster.topics(),
        broker: options.mqtt.broker().map_err(Failure::usage)?,
        client_id: options.client_id.clone(),
        tree: options.mqtt.tree(),
    };
    let observers = Observers {
        stop: super::stop_on_signals()?,
        metrics: Arc::new(BridgeMetrics::new()?),
        health: Arc::new(Health::new(Obstacle::NotConnected)),
    };
    super::serve(options.http.as_ref(), &observers.metrics, BridgeMetrics::render, &observers.health)?;
    let summary = crate::mqtt::bridge::run(config, observers).map_err(|error| match error {
        // Properties that exist and don't fit together are found when a client is made of them.
        BridgeError::Client(_) => Failure::usage(error),
        _ => Failure::from(error),
    })?;
    super::print_summary(&summary)?;
    Ok(())
}
