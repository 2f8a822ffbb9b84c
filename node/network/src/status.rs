//! Counters of what the network did, and the snapshot of them that others see.

use std::sync::atomic::{AtomicU64, Ordering};

/// One counter. It only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: usize) {
        self.0.fetch_add(n as u64, Ordering::Relaxed);
    }

    pub(crate) fn one(&self) {
        self.add(1);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Bytes exchanged with a peer, or over a connection.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) received: Counter,
    pub(crate) sent: Counter,
}

impl Traffic {
    pub(crate) fn sums(&self) -> (u64, u64) {
        (self.received.get(), self.sent.get())
    }
}

macro_rules! counters {
    ($(#[doc = $doc:literal] $name:ident),* $(,)?) => {
        /// The counters themselves, shared by the task, its connections and its handles.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
        }

        /// What the network did since it started, and how it stands.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct NetworkStatus {
            $(#[doc = $doc] pub $name: u64,)*
            /// Peers connected now.
            pub peers: u64,
        }

        impl NetworkStatus {
            /// Every counter: its name, what it counts, and its value.
            #[must_use]
            pub fn counters(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$((stringify!($name), $doc.trim_ascii(), self.$name),)*]
            }
        }

        impl Counters {
            pub(crate) fn snapshot(&self, peers: usize) -> NetworkStatus {
                NetworkStatus {
                    $($name: self.$name.get(),)*
                    peers: peers as u64,
                }
            }
        }
    };
}

counters! {
    /// Bytes of bodies, messages and streams received; framing and encryption come on top.
    bytes_in,
    /// Bytes of bodies, messages and streams sent.
    bytes_out,
    /// Requests sent.
    requests_sent,
    /// Requests sent that ended in an answer.
    requests_answered,
    /// Requests sent that ended in an error.
    requests_failed,
    /// Requests received and handed to the consumer.
    requests_received,
    /// Requests received and answered `busy`.
    requests_busy,
    /// Gossip messages published by this node.
    gossip_published,
    /// Gossip messages that found no subscribed peer in time, or no place to wait for one.
    gossip_unpublished,
    /// Gossip messages received for the first time.
    gossip_received,
    /// Gossip messages accepted, and so forwarded.
    gossip_accepted,
    /// Gossip messages ignored by verdict.
    gossip_ignored,
    /// Gossip messages rejected by verdict.
    gossip_rejected,
    /// Gossip messages ignored because the consumer's queue was full or their bringer over its rate.
    gossip_overrun,
    /// Streams opened by this node.
    streams_opened,
    /// Streams accepted by this node.
    streams_accepted,
    /// Streams refused by this node for want of room.
    streams_refused,
    /// Connections established.
    connections_established,
    /// Connections closed because their peer is not of this network.
    connections_foreign,
    /// Connections closed after two pings without an answer.
    connections_silent,
    /// Connections that go through a relay.
    connections_relayed,
    /// Relayed connections that became direct ones by hole punching.
    punched,
    /// Attempts at that which failed.
    punched_in_vain,
    /// Times that a peer was dialled back for it to learn how it is reached.
    dialled_back,
    /// Circuits begun through this node for others.
    circuits_relayed,
    /// Knocks at the door of a private cluster, handed to the consumer.
    knocks_received,
    /// Knocks answered `busy`.
    knocks_busy,
}
