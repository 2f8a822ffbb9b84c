//! The way to the consumer: a bounded queue, and what waits outside it when it is full.
//!
//! Requests, gossip and streams are turned away when the queue is full; changes of connections and listening addresses are
//! kept, at most one a peer and [`MAX_LISTENING`] addresses, and told as soon as there is room. A peer that went and came back
//! meanwhile is not told at all.

use std::collections::{HashSet, VecDeque};

use libp2p::Multiaddr;
use souk_protocol::NodeId;
use tokio::sync::mpsc;

use crate::event::NetworkEvent;

/// Listening addresses waiting to be told.
const MAX_LISTENING: usize = 64;

/// See the module.
#[derive(Debug)]
pub(crate) struct Outbox {
    queue: mpsc::Sender<NetworkEvent>,
    /// Peers connected, as it is and as the consumer was told.
    connected: HashSet<NodeId>,
    told: HashSet<NodeId>,
    /// Peers whose state may differ from what was told, each once, in order of change.
    changed: VecDeque<NodeId>,
    waiting: HashSet<NodeId>,
    listening: VecDeque<Multiaddr>,
}

impl Outbox {
    /// An outbox before `queue`.
    pub(crate) fn new(queue: mpsc::Sender<NetworkEvent>) -> Self {
        Self {
            queue,
            connected: HashSet::new(),
            told: HashSet::new(),
            changed: VecDeque::new(),
            waiting: HashSet::new(),
            listening: VecDeque::new(),
        }
    }

    /// A sender to wait for room with.
    pub(crate) fn queue(&self) -> mpsc::Sender<NetworkEvent> {
        self.queue.clone()
    }

    /// Tells that a peer is connected, or no longer.
    pub(crate) fn connection(&mut self, node: NodeId, connected: bool) {
        if connected {
            self.connected.insert(node);
        } else {
            self.connected.remove(&node);
        }
        if self.waiting.insert(node) {
            self.changed.push_back(node);
        }
        self.flush();
    }

    /// Tells a listening address.
    pub(crate) fn listening(&mut self, address: Multiaddr) {
        if self.listening.len() < MAX_LISTENING {
            self.listening.push_back(address);
        }
        self.flush();
    }

    /// Sends an event if there is room; gives it back if not.
    pub(crate) fn send(&mut self, event: NetworkEvent) -> Result<(), Box<NetworkEvent>> {
        self.flush();
        if self.is_waiting() {
            return Err(Box::new(event));
        }
        self.queue.try_send(event).map_err(|e| match e {
            mpsc::error::TrySendError::Full(event) | mpsc::error::TrySendError::Closed(event) => Box::new(event),
        })
    }

    /// Whether something waits for room.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.changed.is_empty() || !self.listening.is_empty()
    }

    /// Tells what waits, as far as there is room.
    pub(crate) fn flush(&mut self) {
        while let Some(address) = self.listening.front() {
            let event = NetworkEvent::Listening(address.clone());
            if self.queue.try_send(event).is_err() {
                return;
            }
            self.listening.pop_front();
        }
        while let Some(node) = self.changed.front().copied() {
            let connected = self.connected.contains(&node);
            if connected != self.told.contains(&node) {
                let event = if connected { NetworkEvent::Connected(node) } else { NetworkEvent::Disconnected(node) };
                if self.queue.try_send(event).is_err() {
                    return;
                }
                if connected {
                    self.told.insert(node);
                } else {
                    self.told.remove(&node);
                }
            }
            self.changed.pop_front();
            self.waiting.remove(&node);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn changes_are_kept_while_the_queue_is_full_and_flapping_collapses() {
        let (tx, mut rx) = mpsc::channel(1);
        let mut outbox = Outbox::new(tx);
        let node = |n| NodeId([n; 32]);
        outbox.connection(node(1), true);
        for n in 2..10 {
            outbox.connection(node(n), true);
        }
        outbox.connection(node(5), false);
        outbox.connection(node(1), false);
        outbox.connection(node(1), true);
        let extra = NetworkEvent::Connected(node(99));
        assert!(outbox.send(extra).is_err(), "behind what waits");
        let mut told = Vec::new();
        while let Ok(event) = rx.try_recv() {
            if let NetworkEvent::Connected(node) = event {
                told.push(node.0[0]);
            }
            outbox.flush();
        }
        assert_eq!(told, [1, 2, 3, 4, 6, 7, 8, 9]);
        assert!(!outbox.is_waiting());
        outbox.connection(node(1), false);
        assert!(matches!(rx.try_recv().unwrap(), NetworkEvent::Disconnected(n) if n == node(1)));
    }
}
