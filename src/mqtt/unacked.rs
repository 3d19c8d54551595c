//! QoS 1 messages received from the MQTT broker and not yet acknowledged.
//!
//! Messages become durable in Kafka in any order, but must be acknowledged in order of arrival (MQTT 5.0, 4.6). After a
//! reconnect the broker resends every unacknowledged message with the same packet identifier and the DUP flag (4.4);
//! those already durable or in flight need no second forwarding.
//!
//! Acknowledged messages may come again too, if the acknowledgement was lost. But if it arrived, the broker may reuse
//! the identifier for another message, even one with the same payload. So a repeat of an acknowledged message counts as
//! one only if the message has a timestamp; in doubt it is forwarded.
//!
//! Must not know: clients, clocks.

use std::collections::{HashMap, VecDeque};

/// The number of packet identifiers, and so of messages in flight from a broker. (Mosquitto 2.0.11 sent tens of
/// thousands, whatever the receive maximum.)
const RECALLED: usize = u16::MAX as usize;

/// Messages in flight, of one session.
#[derive(Debug, Default)]
pub struct Unacked {
    /// Of this connection, oldest first.
    waiting: VecDeque<Message>,
    /// Of earlier connections of the session: the broker may resend these.
    earlier: HashMap<u16, Message>,
    /// Acknowledged on this connection, but perhaps not yet received by the broker. The last [`RECALLED`] of them.
    acknowledged: VecDeque<Message>,
    next: u64,
}

#[derive(Clone, Copy, Debug)]
struct Message {
    number: u64,
    packet: u16,
    fingerprint: Fingerprint,
    durable: bool,
    acknowledged: bool,
}

/// Distinguishes messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Hash of all content.
    pub hash: u64,
    /// Whether it has a timestamp, so that the next message can't be equal.
    pub dated: bool,
}

/// What to do with a received message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// Forward it; report [`Unacked::durable`] with this number.
    Forward(u64),
    /// A repeat of a forwarded message.
    Repeat,
}

impl Unacked {
    /// Registers a new connection; `resumed`: the broker remembers the session.
    pub fn connected(&mut self, resumed: bool) {
        if !resumed {
            self.earlier.clear();
            self.acknowledged.clear();
            self.waiting.clear();
        }
        // Later messages win: they now own the identifier.
        for message in self.acknowledged.drain(..).chain(self.waiting.drain(..)) {
            self.earlier.insert(message.packet, message);
        }
    }

    /// Registers a QoS 1 message. `repeat` is MQTT's DUP flag; the fingerprint tells whether it is the same message.
    pub fn received(&mut self, packet: u16, repeat: bool, fingerprint: Fingerprint) -> Receipt {
        let known = self.earlier.remove(&packet).filter(|known| repeat && known.fingerprint == fingerprint);
        if let Some(known) = known.filter(|known| !known.acknowledged || fingerprint.dated) {
            self.waiting.push_back(known);
            return Receipt::Repeat;
        }
        let number = self.next;
        self.next += 1;
        self.waiting.push_back(Message { number, packet, fingerprint, durable: false, acknowledged: false });
        Receipt::Forward(number)
    }

    /// Marks this message as durable in Kafka.
    pub fn durable(&mut self, number: u64) {
        let all = self.waiting.iter_mut().chain(self.earlier.values_mut());
        if let Some(message) = all.into_iter().find(|message| message.number == number) {
            message.durable = true;
        }
    }

    /// Returns the packet identifier to acknowledge next, if its message is durable.
    #[must_use]
    pub fn due(&self) -> Option<u16> {
        self.waiting.front().filter(|message| message.durable).map(|message| message.packet)
    }

    /// Records that the due acknowledgement was sent.
    pub fn acknowledged(&mut self) {
        if self.acknowledged.len() >= RECALLED {
            self.acknowledged.pop_front();
        }
        let message = self.waiting.pop_front();
        self.acknowledged.extend(message.map(|message| Message { acknowledged: true, ..message }));
    }

    /// Whether no message waits for its acknowledgement.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Number of messages that wait for their acknowledgement.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATED: bool = true;

    fn fingerprint(hash: u64) -> Fingerprint {
        Fingerprint { hash, dated: DATED }
    }

    fn acknowledged(unacked: &mut Unacked) -> Vec<u16> {
        let next = || unacked.due().inspect(|_| unacked.acknowledged());
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn acknowledged_in_the_order_they_came_in() {
        let mut unacked = Unacked::default();
        for packet in 1..=3 {
            assert_eq!(
                unacked.received(packet, false, fingerprint(7)),
                Receipt::Forward(u64::from(packet) - 1)
            );
        }
        unacked.durable(1);
        unacked.durable(2);
        assert_eq!(unacked.due(), None);
        unacked.durable(0);
        assert_eq!(acknowledged(&mut unacked), [1, 2, 3]);
        assert!(unacked.is_empty());
    }

    #[test]
    fn what_is_under_way_is_not_forwarded_again_after_a_reconnect() {
        let mut unacked = Unacked::default();
        unacked.received(1, false, fingerprint(71));
        unacked.received(2, false, fingerprint(72));
        unacked.received(3, false, fingerprint(73));
        unacked.durable(0);
        assert_eq!(acknowledged(&mut unacked), [1], "which the broker never hears");
        unacked.connected(true);
        unacked.durable(1);
        assert_eq!(unacked.due(), None, "not before it is given again");
        assert_eq!(unacked.received(1, true, fingerprint(71)), Receipt::Repeat);
        assert_eq!(unacked.received(2, true, fingerprint(72)), Receipt::Repeat);
        assert_eq!(unacked.received(3, true, fingerprint(73)), Receipt::Repeat);
        assert_eq!(acknowledged(&mut unacked), [1, 2]);
        unacked.durable(2);
        assert_eq!(acknowledged(&mut unacked), [3]);
    }

    #[test]
    fn twice_disconnected_is_still_known() {
        let mut unacked = Unacked::default();
        unacked.received(1, false, fingerprint(71));
        unacked.connected(true);
        unacked.connected(true);
        assert_eq!(unacked.received(1, true, fingerprint(71)), Receipt::Repeat);
    }

    #[test]
    fn another_message_under_a_known_identifier_is_forwarded() {
        let mut unacked = Unacked::default();
        unacked.received(1, false, fingerprint(71));
        unacked.connected(true);
        assert_eq!(unacked.received(1, true, fingerprint(99)), Receipt::Forward(1));
        unacked.connected(true);
        assert_eq!(
            unacked.received(1, false, fingerprint(99)),
            Receipt::Forward(2),
            "not marked as a repeat"
        );
    }

    #[test]
    fn in_doubt_a_message_is_forwarded() {
        let undated = Fingerprint { hash: 71, dated: !DATED };
        let mut unacked = Unacked::default();
        unacked.received(1, false, undated);
        unacked.received(2, false, undated);
        unacked.durable(0);
        assert_eq!(acknowledged(&mut unacked), [1]);
        unacked.connected(true);
        assert_eq!(
            unacked.received(1, true, undated),
            Receipt::Forward(2),
            "the broker may have had the acknowledgement, and another message in the same words since"
        );
        assert_eq!(unacked.received(2, true, undated), Receipt::Repeat, "its identifier wasn't free");
    }

    #[test]
    fn a_new_session_knows_nothing() {
        let mut unacked = Unacked::default();
        unacked.received(1, false, fingerprint(71));
        unacked.connected(false);
        assert!(unacked.is_empty());
        unacked.durable(0);
        assert_eq!(unacked.received(1, true, fingerprint(71)), Receipt::Forward(1));
    }

    #[test]
    fn what_was_acknowledged_long_ago_is_forgotten() {
        let mut unacked = Unacked::default();
        for number in 0..=RECALLED as u64 {
            let packet = u16::try_from(number % RECALLED as u64).expect("16 bits") + 1;
            unacked.received(packet, false, fingerprint(number));
            unacked.durable(number);
            assert_eq!(acknowledged(&mut unacked), [packet]);
        }
        unacked.connected(true);
        let next = RECALLED as u64 + 1;
        assert_eq!(
            unacked.received(1, true, fingerprint(0)),
            Receipt::Forward(next),
            "the identifier stands for another one"
        );
        assert_eq!(unacked.received(2, true, fingerprint(1)), Receipt::Repeat);
    }
}
