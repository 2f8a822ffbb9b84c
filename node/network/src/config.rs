//! What a node's network is started with.
//!
//! Owns the settings and their defaults; it reads no file and opens no socket.

use std::{fmt, time::Duration};

use libp2p::{Multiaddr, multiaddr::Protocol};
use souk_protocol::{Keypair, NetworkId, NodeId};
use zeroize::Zeroize;

use crate::peers;

/// Everything [`crate::spawn`] needs.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// The node's key: its peer id on the wire is this key's [`NodeId`].
    pub keypair: Keypair,
    /// The network to be in. Its first 16 hexadecimal digits are in every protocol id and topic, so networks can't mix.
    pub network: NetworkId,
    /// The network's name, for logs only.
    pub name: String,
    /// Where to listen. Default: every IPv4 address, QUIC and TCP, at ports the system chooses.
    pub listen: Vec<Multiaddr>,
    /// Addresses of nodes to join by, with or without `/p2p/…`; `/dnsaddr/…` is resolved. They are tried for ever while the
    /// node has fewer than [`Limits::min_peers`] peers.
    pub bootstrap: Vec<Multiaddr>,
    /// Peers of earlier days, the best first, with their addresses: tried beside the bootstrap addresses while peers are few.
    pub known: Vec<(NodeId, Vec<Multiaddr>)>,
    /// Addresses under which others reach this node, when the operator knows them (a forwarded port, a public name).
    pub external: Vec<Multiaddr>,
    /// The node's name and version as told to peers.
    pub agent: String,
    /// Whether to relay for peers that nobody can dial, while this node can be dialled. What it costs is bounded by
    /// [`crate::limits::RELAY_CIRCUITS`] and their neighbours.
    pub relay: bool,
    /// Who may connect.
    pub admission: Admission,
    /// The key of a private cluster: who lacks it can't even begin a handshake. With it everything runs over TCP, for libp2p has
    /// no such fence for QUIC; QUIC addresses of this configuration are dropped.
    pub fence: Option<FenceKey>,
    /// Whether to look for members on the local network by multicast DNS, and to be found by it; with [`Admission::Members`] only.
    /// What that tells everybody on the local network: a peer id, and the addresses and ports on which it listens. Not the cluster.
    pub mdns: bool,
    /// Bounds on peers, connections, queues and rates.
    pub limits: Limits,
}

impl NetworkConfig {
    /// A configuration with every default.
    #[must_use]
    pub fn new(keypair: Keypair, network: NetworkId) -> Self {
        Self {
            keypair,
            network,
            name: "unnamed".to_owned(),
            listen: any_address(),
            bootstrap: Vec::new(),
            known: Vec::new(),
            external: Vec::new(),
            agent: concat!("souk/", env!("CARGO_PKG_VERSION")).to_owned(),
            relay: true,
            admission: Admission::Public,
            fence: None,
            mdns: false,
            limits: Limits::default(),
        }
    }

    /// Without the addresses that can't be used behind a fence, if there is one.
    pub(crate) fn within_its_fence(mut self) -> Self {
        if self.fence.is_some() {
            for (what, addresses) in
                [("listen", &mut self.listen), ("bootstrap", &mut self.bootstrap), ("external", &mut self.external)]
            {
                addresses.retain(|address| {
                    let usable = !peers::is_quic(address);
                    if !usable {
                        tracing::info!(%address, what, "a cluster with a key runs over TCP: this address is left out");
                    }
                    usable
                });
            }
        }
        self
    }
}

/// Every IPv4 address, QUIC and TCP, at ports the system chooses.
fn any_address() -> Vec<Multiaddr> {
    let any = Multiaddr::from(std::net::Ipv4Addr::UNSPECIFIED);
    vec![any.clone().with(Protocol::Udp(0)).with(Protocol::QuicV1), any.with(Protocol::Tcp(0))]
}

/// The pre-shared key of a private cluster. Wiped from memory when dropped; never shown. libp2p's own copy of it lives as long as
/// the network.
#[derive(Clone, PartialEq, Eq)]
pub struct FenceKey([u8; 32]);

impl FenceKey {
    /// A key of these bytes, which are best random.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn bytes(&self) -> [u8; 32] {
        self.0
    }
}

impl Drop for FenceKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for FenceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FenceKey(…)")
    }
}

/// Who may connect. Blocked peers never may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// Everybody of the network.
    Public,
    /// Only these nodes (a private cluster); changed at run time by [`crate::NetworkHandle::allow`] and
    /// [`crate::NetworkHandle::disallow`] and [`crate::NetworkHandle::members`]. Others may knock while the door is open: see
    /// [`crate::NetworkHandle::open_door`].
    Members(Vec<NodeId>),
}

/// What an operator may bound. The defaults suit a node of the public network on a small machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Below this many peers the node keeps trying its bootstrap addresses and looking for more. Default 8: enough for a
    /// gossip mesh of six with two to spare.
    pub min_peers: usize,
    /// Above this many peers the node parts with those it has no use for. Default 128.
    pub max_peers: usize,
    /// Established connections, both directions. Default 384: two to three a peer are normal.
    pub connections: u32,
    /// Established connections that others opened. Default 256, so that strangers can't take every place.
    pub connections_inbound: u32,
    /// Connections of one peer. Default 12: both sides dial each other over QUIC and TCP at once, or through a relay by both, and
    /// each of those may bring a direct one, which must find room.
    pub connections_per_peer: u32,
    /// Connections being set up, in each direction. Default 64: a handshake costs CPU before anything is known of the peer.
    pub connections_pending: u32,
    /// Established connections that others opened from one IPv4 address or one /64 of IPv6. Default 48: sixteen nodes behind one
    /// address, which gossip takes for normal, with three each. Less than a fifth of all, and this machine itself is not counted.
    pub connections_per_source: u32,
    /// Connections from one such source being set up. Default 16: a quarter of all, and each ends within 10 s.
    pub connections_pending_per_source: u32,
    /// Events waiting for the consumer. Default 2,048. When full: requests are answered `busy`, gossip is ignored, streams are
    /// refused `busy`, and connection changes are kept, one a peer, until there is room.
    pub events: usize,
    /// Requests a second that one peer may make, on average. Default 4,000; twice as many in a burst. More are answered `busy`.
    pub requests_per_second: u32,
    /// Gossip messages a second that one peer may bring us first, on average. Default 400; ten times as many in a burst. More
    /// are ignored. Bounds what the duplicate cache can grow by.
    pub gossip_per_second: u32,
    /// Between two pings of a connection. Default 10 s. Two pings in a row without an answer close it: over TCP nothing else
    /// tells that a peer has another address now, or is cut off.
    pub ping_interval: Duration,
    /// How long a ping may take. Default 8 s: a queue in front of a slow uplink holds some.
    pub ping_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            min_peers: 8,
            max_peers: 128,
            connections: 384,
            connections_inbound: 256,
            connections_per_peer: 12,
            connections_pending: 64,
            connections_per_source: 48,
            connections_pending_per_source: 16,
            events: 2048,
            requests_per_second: 4_000,
            gossip_per_second: 400,
            ping_interval: Duration::from_secs(10),
            ping_timeout: Duration::from_secs(8),
        }
    }
}
