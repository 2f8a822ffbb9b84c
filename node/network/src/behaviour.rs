//! The protocols of a node, put together.

use std::{collections::HashSet, num::NonZeroU32, sync::Arc, time::Duration};

use libp2p::{
    PeerId, StreamProtocol, allow_block_list as lists, connection_limits as conns, dcutr, identify, identity, kad,
    ping, relay, swarm::NetworkBehaviour,
};
use tokio::sync::mpsc;

use crate::{
    config::{Admission, Limits, NetworkConfig},
    crowd,
    door::{self, Inside},
    error::StartError,
    event::NetworkEvent,
    exchange, fence, gossip, lan, limits,
    names::{Names, peer_id},
    status::Counters,
    streams,
};

/// Every protocol of a node. Those that may refuse a connection come first. Strangers to a private cluster get of all this what is
/// not [`Inside`]: the knocker.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    /// Before the limits on all: a place is not to be counted that a crowd does not get.
    pub(crate) crowd: crowd::Behaviour,
    pub(crate) limits: conns::Behaviour,
    pub(crate) blocked: lists::Behaviour<lists::BlockedPeers>,
    pub(crate) door: door::Behaviour,
    pub(crate) fence: fence::Behaviour,
    /// Asks to become a member, and is asked.
    pub(crate) knock: exchange::Behaviour,
    /// Finds members on the local network; it speaks over no connection.
    pub(crate) lan: lan::Behaviour,
    pub(crate) ping: Inside<ping::Behaviour>,
    pub(crate) identify: Inside<identify::Behaviour>,
    pub(crate) kad: Inside<kad::Behaviour<kad::store::MemoryStore>>,
    pub(crate) gossip: Inside<gossip::Behaviour>,
    pub(crate) exchange: Inside<exchange::Behaviour>,
    pub(crate) streams: Inside<streams::Behaviour>,
    /// Asks peers to dial back, and does it for them.
    pub(crate) reach: Inside<exchange::Behaviour>,
    /// Is relayed for.
    pub(crate) relayed: Inside<relay::client::Behaviour>,
    /// Relays for others, while they can dial this node.
    pub(crate) relay: Inside<relay::Behaviour>,
    /// Turns relayed connections into direct ones where both NATs let it.
    pub(crate) punch: Inside<dcutr::Behaviour>,
}

impl Behaviour {
    /// The protocols of a node with this configuration; accepted streams go to `events`.
    pub(crate) fn new(
        config: &NetworkConfig,
        names: &Names,
        identity: &identity::Keypair,
        relayed: relay::client::Behaviour,
        events: mpsc::Sender<NetworkEvent>,
        counters: &Arc<Counters>,
    ) -> Result<Self, StartError> {
        let limits = &config.limits;
        let local = identity.public().to_peer_id();
        let members = members(&config.admission);
        let is_cluster = members.is_some();
        let door = door::Behaviour::new(members);
        let roster = door.roster();
        Ok(Self {
            crowd: crowd::Behaviour::new(limits.connections_pending_per_source, limits.connections_per_source),
            limits: conns::Behaviour::new(connection_limits(limits)),
            blocked: lists::Behaviour::default(),
            door,
            fence: fence::Behaviour::default(),
            knock: exchange::knock(names, is_cluster, Arc::clone(counters)),
            lan: lan::Behaviour::new(config.mdns && is_cluster, local, roster.clone()),
            ping: roster.inside(ping::Behaviour::new(
                ping::Config::new().with_interval(limits.ping_interval).with_timeout(limits.ping_timeout),
            )),
            identify: roster.inside(identify::Behaviour::new(
                identify::Config::new(names.network.clone(), identity.public())
                    .with_agent_version(config.agent.clone())
                    .with_push_listen_addr_updates(true)
                    // Pushes of changes are lost over QUIC: they are asked for, too.
                    .with_interval(Duration::from_secs(60))
                    // The address book remembers addresses, after judging them.
                    .with_cache_size(0),
            )),
            kad: roster.inside(directory(names.kad.clone(), identity)),
            gossip: roster.inside(gossip::behaviour(names)?),
            exchange: roster.inside(exchange::behaviour(names, Arc::clone(counters))),
            streams: roster.inside(streams::Behaviour::new(names.stream.clone(), events, Arc::clone(counters))),
            reach: roster.inside(exchange::dial_back(names, Arc::clone(counters))),
            relayed: roster.inside(relayed),
            relay: roster.inside(relay_service(local)).direct_only(),
            punch: roster.inside(dcutr::Behaviour::new(local)),
        })
    }
}

/// Relaying, off until peers have shown that they can dial this node.
fn relay_service(local: PeerId) -> relay::Behaviour {
    let per_minute = |n: u32| (NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN), Duration::from_secs(60));
    let (circuits, interval) = per_minute(limits::RELAY_CIRCUITS_PER_MINUTE);
    let config = relay::Config {
        max_reservations: limits::RELAY_PLACES,
        max_reservations_per_peer: 2,
        reservation_duration: Duration::from_secs(3600),
        reservation_rate_limiters: Vec::new(),
        max_circuits: limits::RELAY_CIRCUITS,
        max_circuits_per_peer: limits::RELAY_CIRCUITS_PER_PEER,
        max_circuit_duration: limits::RELAY_CIRCUIT_TIME,
        max_circuit_bytes: limits::RELAY_CIRCUIT_BYTES,
        circuit_src_rate_limiters: Vec::new(),
    };
    let config = config
        .reservation_rate_per_peer(circuits, interval)
        .circuit_src_per_peer(circuits, interval)
        .circuit_src_per_ip(circuits.saturating_mul(NonZeroU32::MIN.saturating_add(3)), interval);
    let mut service = relay::Behaviour::new(local, config);
    service.set_status(Some(relay::Status::Disable));
    service
}

fn connection_limits(limits: &Limits) -> conns::ConnectionLimits {
    conns::ConnectionLimits::default()
        .with_max_pending_incoming(Some(limits.connections_pending))
        .with_max_pending_outgoing(Some(limits.connections_pending))
        .with_max_established_incoming(Some(limits.connections_inbound))
        .with_max_established(Some(limits.connections))
        .with_max_established_per_peer(Some(limits.connections_per_peer))
}

fn members(admission: &Admission) -> Option<HashSet<PeerId>> {
    match admission {
        Admission::Public => None,
        Admission::Members(nodes) => Some(nodes.iter().filter_map(peer_id).collect()),
    }
}

/// Kademlia as a peer directory, not a store: what others want us to keep is not kept.
fn directory(protocol: StreamProtocol, identity: &identity::Keypair) -> kad::Behaviour<kad::store::MemoryStore> {
    let local = identity.public().to_peer_id();
    let mut config = kad::Config::new(protocol);
    config
        .set_query_timeout(Duration::from_secs(20))
        .set_substreams_timeout(Duration::from_secs(5))
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_provider_publication_interval(None)
        .set_caching(kad::Caching::Disabled)
        // An answer names at most 20 peers with their addresses.
        .set_max_packet_size(16 * 1024);
    let store = kad::store::MemoryStore::with_config(
        local,
        kad::store::MemoryStoreConfig {
            max_records: 0,
            max_provided_keys: 0,
            ..kad::store::MemoryStoreConfig::default()
        },
    );
    let mut behaviour = kad::Behaviour::with_config(local, store, config);
    // Until it is known that others can't dial this node; a small network has nobody else to ask.
    behaviour.set_mode(Some(kad::Mode::Server));
    behaviour
}
