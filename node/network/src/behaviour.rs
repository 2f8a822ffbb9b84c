//! The protocols of a node, put together.

use std::{sync::Arc, time::Duration};

use libp2p::{
    StreamProtocol, allow_block_list as lists, connection_limits as conns, identify, identity, kad, ping,
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
};
use tokio::sync::mpsc;

use crate::{
    config::{Admission, Limits, NetworkConfig},
    error::StartError,
    event::NetworkEvent,
    exchange, gossip,
    names::{Names, peer_id},
    status::Counters,
    streams,
};

/// Every protocol of a node. Those that may refuse a connection come first.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    pub(crate) limits: conns::Behaviour,
    pub(crate) blocked: lists::Behaviour<lists::BlockedPeers>,
    /// Present in a private cluster only.
    pub(crate) members: Toggle<lists::Behaviour<lists::AllowedPeers>>,
    pub(crate) ping: ping::Behaviour,
    pub(crate) identify: identify::Behaviour,
    pub(crate) kad: kad::Behaviour<kad::store::MemoryStore>,
    pub(crate) gossip: gossip::Behaviour,
    pub(crate) exchange: exchange::Behaviour,
    pub(crate) streams: streams::Behaviour,
}

impl Behaviour {
    /// The protocols of a node with this configuration; accepted streams go to `events`.
    pub(crate) fn new(
        config: &NetworkConfig,
        names: &Names,
        identity: &identity::Keypair,
        events: mpsc::Sender<NetworkEvent>,
        counters: &Arc<Counters>,
    ) -> Result<Self, StartError> {
        let limits = &config.limits;
        Ok(Self {
            limits: conns::Behaviour::new(connection_limits(limits)),
            blocked: lists::Behaviour::default(),
            members: members(&config.admission).into(),
            ping: ping::Behaviour::new(
                ping::Config::new().with_interval(limits.ping_interval).with_timeout(limits.ping_timeout),
            ),
            identify: identify::Behaviour::new(
                identify::Config::new(names.network.clone(), identity.public())
                    .with_agent_version(config.agent.clone())
                    .with_push_listen_addr_updates(true)
                    // The address book remembers addresses, after judging them.
                    .with_cache_size(0),
            ),
            kad: directory(names.kad.clone(), identity),
            gossip: gossip::behaviour(names)?,
            exchange: exchange::behaviour(names, Arc::clone(counters)),
            streams: streams::Behaviour::new(names.stream.clone(), events, Arc::clone(counters)),
        })
    }
}

fn connection_limits(limits: &Limits) -> conns::ConnectionLimits {
    conns::ConnectionLimits::default()
        .with_max_pending_incoming(Some(limits.connections_pending))
        .with_max_pending_outgoing(Some(limits.connections_pending))
        .with_max_established_incoming(Some(limits.connections_inbound))
        .with_max_established(Some(limits.connections))
        .with_max_established_per_peer(Some(limits.connections_per_peer))
}

fn members(admission: &Admission) -> Option<lists::Behaviour<lists::AllowedPeers>> {
    match admission {
        Admission::Public => None,
        Admission::Members(nodes) => {
            let mut list = lists::Behaviour::<lists::AllowedPeers>::default();
            for peer in nodes.iter().filter_map(peer_id) {
                list.allow_peer(peer);
            }
            Some(list)
        }
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
    // Without a relay every node is asked; who can't be dialled drops out of the tables of others by itself.
    behaviour.set_mode(Some(kad::Mode::Server));
    behaviour
}
