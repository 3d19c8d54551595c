//! The connection to the MQTT broker: up or down, subscribed or not, session resumed or lost.

use std::time::{Duration, Instant};

use rumqttc::{ConnectionError, QoS, RetainForwardRule, SubAck, SubscribeFilter, SubscribeReasonCode};
use rumqttc::{UnsubAck, UnsubAckReason};

use super::{Bridge, BridgeError};
use crate::mqtt::broker;
use crate::mqtt::topic::filters_of;

/// The time limit for the first connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that ends sooner is suspicious, and `SUSPICIOUS` of them in a row have a cause: brokers give a session
/// to the latest client, and not all notify the previous one.
const SHORT_LIVED: Duration = Duration::from_secs(2);
const SUSPICIOUS: u32 = 3;
/// How often to log that there is still no connection.
const STILL_AWAY: Duration = Duration::from_secs(30);
/// Pause after a refusal of a subscription that was granted before.
const SUBSCRIBE_AGAIN: Duration = Duration::from_secs(5);
/// Queued messages of an old subscription still arrive for a while after it ends.
const UNSUBSCRIBE_AGAIN: Duration = Duration::from_secs(10);

/// The state of the connection.
pub(super) struct Link {
    /// True from the CONNACK to the end of the connection.
    up: bool,
    ever_up: bool,
    ever_subscribed: bool,
    /// When the last connection was made, and how many in a row ended at once.
    up_since: Instant,
    short_lived: u32,
    outage: Outage,
    /// When to subscribe again.
    subscribe_at: Option<Instant>,
    /// When we last asked the broker to end foreign subscriptions, and with which filters.
    left: Option<(Instant, Vec<String>)>,
}

/// An outage: since when, why, and when it was last logged.
struct Outage {
    since: Instant,
    reason: String,
    told: Option<Instant>,
}

impl Link {
    pub(super) fn new() -> Link {
        Link {
            up: false,
            ever_up: false,
            ever_subscribed: false,
            up_since: Instant::now(),
            short_lived: 0,
            outage: Outage { since: Instant::now(), reason: "no answer".to_owned(), told: None },
            subscribe_at: None,
            left: None,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.up
    }

    /// Returns the reason if the first connection takes too long.
    pub(super) fn never_came_up(&self) -> Option<String> {
        let late = !self.ever_up && self.outage.since.elapsed() > CONNECT_TIMEOUT;
        late.then(|| self.outage.reason.clone())
    }

    pub(super) fn subscribe_is_due(&self) -> bool {
        self.up && self.subscribe_at.is_some_and(|at| Instant::now() >= at)
    }

    /// Logs which old subscriptions have ended.
    pub(super) fn unsubscribed(&mut self, answer: &UnsubAck) {
        let Some((_, filters)) = &self.left else { return };
        let ended =
            filters.iter().zip(&answer.reasons).filter(|(_, reason)| **reason == UnsubAckReason::Success);
        for (filter, _) in ended {
            tracing::info!(filter, "a subscription of an earlier start is ended");
        }
    }
}

impl Bridge {
    pub(super) fn connected(&mut self, resumed: bool) {
        let broker = self.config.broker.address().to_string();
        let client_id = &self.config.client_id;
        tracing::info!(broker, client_id, resumed, "connected to the MQTT broker");
        if self.link.ever_subscribed && !resumed {
            self.summary.sessions_lost += 1;
            tracing::warn!(
                broker,
                client_id,
                "the MQTT broker has forgotten the session: what it held for the bridge is lost"
            );
        }
        self.link.up = true;
        self.link.ever_up = true;
        self.link.up_since = Instant::now();
        self.not_ready.not_connected.set(false);
        self.unacked.connected(resumed);
        // Also in a resumed session: the topics may differ from the last start's.
        self.subscribe();
    }

    /// Subscribes to new readings, and to retained statuses if the subscription is new.
    pub(super) fn subscribe(&mut self) {
        self.link.subscribe_at = None;
        let filter = |pattern: &crate::mqtt::topic::TopicPattern, retained| {
            let mut filter = SubscribeFilter::new(pattern.filter(), QoS::AtLeastOnce);
            filter.retain_forward_rule = retained;
            filter
        };
        let tree = &self.config.tree;
        let filters = [
            filter(&tree.readings, RetainForwardRule::Never),
            filter(&tree.status, RetainForwardRule::OnNewSubscribe),
        ];
        if let Err(error) = self.client.try_subscribe_many(filters) {
            tracing::debug!(%error, "no room to subscribe");
            self.link.subscribe_at = Some(Instant::now());
        }
    }

    pub(super) fn subscribed(&mut self, answer: &SubAck) -> Result<(), BridgeError> {
        let patterns = [&self.config.tree.readings, &self.config.tree.status];
        for (code, pattern) in answer.return_codes.iter().zip(patterns) {
            if matches!(code, SubscribeReasonCode::Success(_)) {
                continue;
            }
            let reason = format!("the subscription to {} was refused: {code:?}", pattern.filter());
            if !self.link.ever_subscribed {
                return Err(self.refused(reason));
            }
            tracing::warn!(reason, "the MQTT broker refuses what it granted before; asking again");
            self.link.subscribe_at = Some(Instant::now() + SUBSCRIBE_AGAIN);
            return Ok(());
        }
        self.link.ever_subscribed = true;
        Ok(())
    }

    /// Ends the subscriptions that may have delivered messages of this topic, except ours.
    pub(super) fn leave(&mut self, topic: &str) {
        if self.link.left.as_ref().is_some_and(|(at, _)| at.elapsed() < UNSUBSCRIBE_AGAIN) {
            return;
        }
        let ours = [&self.config.tree.readings, &self.config.tree.status].map(|pattern| pattern.filter());
        let filters: Vec<String> =
            filters_of(topic).into_iter().filter(|filter| !ours.contains(filter)).collect();
        if !filters.is_empty() && self.client.try_unsubscribe_many(filters.clone()).is_ok() {
            self.link.left = Some((Instant::now(), filters));
        }
    }

    pub(super) fn disconnected(&mut self, error: &ConnectionError) -> Result<(), BridgeError> {
        let refusal = broker::refusal(error);
        // A client that was accepted once may be again: the broker's user database may be away for a moment. A
        // duplicate client id stays fatal.
        if let Some(reason) = &refusal
            && (!self.link.ever_up || broker::is_taken_over(error))
        {
            return Err(self.refused(reason.clone()));
        }
        let reason = refusal.unwrap_or_else(|| broker::describe(error));
        let (broker, link) = (self.config.broker.address().to_string(), &mut self.link);
        if std::mem::replace(&mut link.up, false) {
            self.not_ready.not_connected.set(true);
            let at_once = link.up_since.elapsed() < SHORT_LIVED;
            link.short_lived = if at_once { link.short_lived + 1 } else { 0 };
            tracing::warn!(broker, reason, "the connection to the MQTT broker is lost; trying again");
            if link.short_lived == SUSPICIOUS {
                tracing::warn!(
                    client_id = self.config.client_id,
                    "connections end as soon as they are made; does another client use this --client-id?"
                );
            }
            link.outage = Outage { since: Instant::now(), reason, told: Some(Instant::now()) };
            return Ok(());
        }
        let outage = &mut link.outage;
        let news = outage.reason != reason || outage.told.is_none_or(|told| told.elapsed() > STILL_AWAY);
        if link.ever_up && news {
            let seconds = outage.since.elapsed().as_secs();
            tracing::warn!(broker, reason, seconds, "still no connection to the MQTT broker; trying again");
            outage.told = Some(Instant::now());
        }
        outage.reason = reason;
        Ok(())
    }

    fn refused(&self, reason: String) -> BridgeError {
        BridgeError::Refused { address: self.config.broker.address().to_string(), reason }
    }
}
