//! Who is connected, how, and since when.
//!
//! Owns the facts of connections as the swarm reports them; it decides nothing.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use libp2p::{Multiaddr, PeerId, core::ConnectedPoint, swarm::ConnectionId};
use souk_protocol::NodeId;
use tokio::sync::Semaphore;

use crate::{
    config::Limits,
    crowd,
    discovery::Target,
    limits::{DIAL_BACKS_PER_MINUTE, MAX_AGENT, RELAYED_SPARE_AFTER, SUPERSEDED_AFTER},
    peers,
    rate::Bucket,
    status::Traffic,
    turns::{Sources, Turn},
};

/// Who opened a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The peer.
    Inbound,
    /// This node.
    Outbound,
}

/// What a connection runs over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// QUIC over UDP.
    Quic,
    /// TCP with Noise and yamux.
    Tcp,
}

/// A connected peer.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerInfo {
    /// Who it is.
    pub id: NodeId,
    /// The remote address of each of its connections, the oldest first.
    pub addresses: Vec<Multiaddr>,
    /// Who opened the oldest connection.
    pub direction: Direction,
    /// What the oldest connection runs over.
    pub transport: Transport,
    /// The latest round trip of a ping over any connection.
    pub rtt: Option<Duration>,
    /// Its name and version as it tells them: at most 64 printable characters, not to be trusted.
    pub agent: Option<String>,
    /// When its first connection was made, by this machine's clock.
    pub connected_since: SystemTime,
    /// Its gossip score: 0 for a stranger, at most 20, below -80 for one no longer listened to.
    pub score: f64,
    /// Whether the node was asked to stay in touch with it.
    pub kept: bool,
    /// Whether every connection to it goes through a relay.
    pub relayed: bool,
    /// Bytes received from it since then: streams, requests, answers and gossip, without framing and encryption.
    pub received: u64,
    /// Bytes sent to it since then: streams, requests and answers. Gossip goes out to many at once, and is not counted by peer.
    pub sent: u64,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    /// For one through a relay, the relay's address.
    pub(crate) remote: Multiaddr,
    pub(crate) relayed: bool,
    pub(crate) direction: Direction,
    pub(crate) since: Instant,
    /// What this node dialled it for.
    pub(crate) target: Option<Target>,
    /// Pings in a row without an answer.
    silent: u32,
}

/// One peer with at least one connection.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) node: NodeId,
    /// The oldest first.
    pub(crate) connections: Vec<Connection>,
    /// It showed that it is of this network.
    pub(crate) admitted: bool,
    agent: Option<String>,
    rtt: Option<Duration>,
    pub(crate) since: Instant,
    pub(crate) requests: Bucket,
    pub(crate) gossip: Bucket,
    pub(crate) dial_backs: Bucket,
    /// What it has asked, and what of our answers it has not taken.
    pub(crate) turn: Turn,
    /// The places of its address for requests.
    pub(crate) places: Arc<Semaphore>,
    /// It says that it relays.
    pub(crate) relays: bool,
    /// What was exchanged otherwise than by streams.
    pub(crate) traffic: Traffic,
}

/// All connected peers.
#[derive(Debug, Default)]
pub(crate) struct Table {
    peers: HashMap<PeerId, Peer>,
    sources: Sources,
}

impl Table {
    /// Counts what came from a peer otherwise than by a stream.
    pub(crate) fn received(&self, peer: &PeerId, bytes: usize) {
        if let Some(entry) = self.peers.get(peer) {
            entry.traffic.received.add(bytes);
        }
    }

    /// Counts what went to a peer otherwise than by a stream.
    pub(crate) fn sent(&self, peer: &PeerId, bytes: usize) {
        if let Some(entry) = self.peers.get(peer) {
            entry.traffic.sent.add(bytes);
        }
    }

    /// Notes a connection.
    pub(crate) fn established(
        &mut self,
        (peer, node): (PeerId, NodeId),
        id: ConnectionId,
        endpoint: &ConnectedPoint,
        target: Option<Target>,
        limits: &Limits,
        now: Instant,
    ) {
        let places = self.sources.places(crowd::source(endpoint.get_remote_address()));
        let entry = self.peers.entry(peer).or_insert_with(|| Peer {
            node,
            connections: Vec::new(),
            admitted: false,
            agent: None,
            rtt: None,
            since: now,
            requests: Bucket::new(limits.requests_per_second, limits.requests_per_second.saturating_mul(2), now),
            gossip: Bucket::new(limits.gossip_per_second, limits.gossip_per_second.saturating_mul(10), now),
            dial_backs: Bucket::per_minute(DIAL_BACKS_PER_MINUTE, 8, now),
            turn: Turn::default(),
            places,
            relays: false,
            traffic: Traffic::default(),
        });
        entry.connections.push(Connection {
            id,
            remote: match endpoint {
                ConnectedPoint::Listener { local_addr, .. } if endpoint.is_relayed() => local_addr.clone(),
                ConnectedPoint::Listener { .. } | ConnectedPoint::Dialer { .. } => {
                    endpoint.get_remote_address().clone()
                }
            },
            relayed: endpoint.is_relayed(),
            direction: if endpoint.is_dialer() { Direction::Outbound } else { Direction::Inbound },
            since: now,
            target,
            silent: 0,
        });
    }

    /// Forgets a connection; gives back what it was dialled for, and the peer if that was its last.
    pub(crate) fn closed(&mut self, peer: &PeerId, id: ConnectionId) -> (Option<Target>, Option<Peer>) {
        let Some(entry) = self.peers.get_mut(peer) else {
            return (None, None);
        };
        let target =
            entry.connections.iter().position(|c| c.id == id).and_then(|at| entry.connections.remove(at).target);
        if entry.connections.is_empty() { (target, self.peers.remove(peer)) } else { (target, None) }
    }

    /// Connections that the peer opened well before `newest`, which it opened, too: one that reaches us does not dial again, so it
    /// has lost them, by a crash for one. Ours to it are left alone, or two nodes that dial each other would close both.
    pub(crate) fn superseded(&self, peer: &PeerId, newest: ConnectionId, now: Instant) -> Vec<ConnectionId> {
        let Some(entry) = self.peers.get(peer) else {
            return Vec::new();
        };
        // One through a relay and a direct one have nothing to do with each other.
        let relayed = entry.connections.iter().any(|c| c.id == newest && c.relayed);
        let inbound = |c: &&Connection| c.direction == Direction::Inbound && c.relayed == relayed;
        if !entry.connections.iter().filter(inbound).any(|c| c.id == newest) {
            return Vec::new();
        }
        let older = |c: &&Connection| c.id != newest && now.saturating_duration_since(c.since) >= SUPERSEDED_AFTER;
        entry.connections.iter().filter(inbound).filter(older).map(|c| c.id).collect()
    }

    pub(crate) fn get_mut(&mut self, peer: &PeerId) -> Option<&mut Peer> {
        self.peers.get_mut(peer)
    }

    pub(crate) fn is_connected(&self, peer: &PeerId) -> bool {
        self.peers.contains_key(peer)
    }

    /// How many peers of this network are connected.
    pub(crate) fn admitted(&self) -> usize {
        self.peers.values().filter(|peer| peer.admitted).count()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&PeerId, &Peer)> {
        self.peers.iter()
    }

    /// Whether a peer is connected through relays only.
    pub(crate) fn is_relayed(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|peer| peer.connections.iter().all(|c| c.relayed))
    }

    /// Relayed connections that a direct one has stood beside for a while.
    pub(crate) fn spare(&self, now: Instant) -> Vec<ConnectionId> {
        let lasted = |c: &Connection| !c.relayed && now.saturating_duration_since(c.since) >= RELAYED_SPARE_AFTER;
        let both = self.peers.values().filter(|peer| peer.connections.iter().any(lasted));
        both.flat_map(|peer| peer.connections.iter().filter(|c| c.relayed).map(|c| c.id)).collect()
    }

    /// Notes the outcome of a ping; gives back how many in a row had no answer.
    pub(crate) fn pinged(&mut self, peer: &PeerId, id: ConnectionId, rtt: Option<Duration>) -> u32 {
        let Some(entry) = self.peers.get_mut(peer) else {
            return 0;
        };
        entry.rtt = rtt.or(entry.rtt);
        let Some(connection) = entry.connections.iter_mut().find(|c| c.id == id) else {
            return 0;
        };
        connection.silent = if rtt.is_some() { 0 } else { connection.silent + 1 };
        connection.silent
    }

    /// What is known of an admitted peer; none for another.
    pub(crate) fn info(&self, peer: &PeerId, score: f64, kept: bool, streams: (u64, u64)) -> Option<PeerInfo> {
        let entry = self.peers.get(peer).filter(|entry| entry.admitted)?;
        let (received, sent) = entry.traffic.sums();
        let first = entry.connections.first()?;
        Some(PeerInfo {
            id: entry.node,
            addresses: entry.connections.iter().map(|c| c.remote.clone()).collect(),
            direction: first.direction,
            transport: transport_of(&first.remote),
            rtt: entry.rtt,
            agent: entry.agent.clone(),
            connected_since: SystemTime::now().checked_sub(entry.since.elapsed()).unwrap_or(SystemTime::UNIX_EPOCH),
            score,
            kept,
            relayed: entry.connections.iter().all(|c| c.relayed),
            received: received.saturating_add(streams.0),
            sent: sent.saturating_add(streams.1),
        })
    }
}

impl Peer {
    /// Notes the peer's own name, cut and cleaned: it ends up in terminals and logs.
    pub(crate) fn set_agent(&mut self, agent: &str) {
        self.agent = Some(agent.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(MAX_AGENT).collect());
    }
}

fn transport_of(address: &Multiaddr) -> Transport {
    if peers::is_quic(address) { Transport::Quic } else { Transport::Tcp }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_a_peer_dials_anew_supersedes_its_older_connections_and_none_of_ours() {
        let (mut table, peer, now) = (Table::default(), PeerId::random(), Instant::now());
        let address: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
        let inbound = ConnectedPoint::Listener { local_addr: address.clone(), send_back_addr: address.clone() };
        let outbound = ConnectedPoint::Dialer {
            address,
            role_override: libp2p::core::Endpoint::Dialer,
            port_use: libp2p::core::transport::PortUse::Reuse,
        };
        let later = now + SUPERSEDED_AFTER;
        let mut note = |n, endpoint: &ConnectedPoint, at| {
            let id = ConnectionId::new_unchecked(n);
            table.established((peer, NodeId([1; 32])), id, endpoint, None, &Limits::default(), at);
            table.superseded(&peer, id, at)
        };
        assert_eq!(note(1, &inbound, now), []);
        assert_eq!(note(2, &inbound, now), [], "dialled twice at once");
        assert_eq!(note(3, &outbound, later), []);
        let relayed = ConnectedPoint::Listener {
            local_addr: format!("/ip4/8.8.8.8/tcp/1/p2p/{peer}/p2p-circuit").parse().unwrap(),
            send_back_addr: format!("/p2p/{peer}").parse().unwrap(),
        };
        assert_eq!(note(5, &relayed, later), [], "a relayed one has nothing to do with direct ones");
        assert_eq!(note(4, &inbound, later), [1, 2].map(ConnectionId::new_unchecked));
        assert_eq!(table.spare(later), [], "the direct one is too young");
        assert_eq!(table.spare(now + RELAYED_SPARE_AFTER), [ConnectionId::new_unchecked(5)]);
    }
}
