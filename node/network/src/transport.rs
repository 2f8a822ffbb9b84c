//! How bytes travel: QUIC first, TCP with Noise and yamux beside it, names resolved by DNS. In a private cluster with a key: TCP
//! within that key's encryption, and nothing else.
//!
//! Owns the choice and settings of transports and the assembly of the swarm.

use std::{
    io,
    net::{IpAddr, TcpListener},
    num::NonZeroUsize,
    time::Duration,
};

use futures::future::Either;
use libp2p::{
    Multiaddr, PeerId, Swarm, SwarmBuilder, Transport as _,
    core::{
        muxing::StreamMuxerBox,
        transport::{Boxed, OrTransport},
        upgrade::Version,
    },
    dns, identity,
    multiaddr::Protocol,
    noise,
    pnet::{PnetConfig, PreSharedKey},
    quic, relay, swarm, tcp, yamux,
};

use crate::{
    behaviour::Behaviour,
    config::FenceKey,
    error::StartError,
    limits::{NEGOTIATING, STREAMS},
};

/// Connections are parted with by policy, not for being idle: see [`crate::config::Limits::max_peers`].
const NEVER_IDLE: Duration = Duration::from_secs(365 * 24 * 3600);

fn quic_config(mut config: quic::Config) -> quic::Config {
    config.max_concurrent_stream_limit = u32::try_from(STREAMS).unwrap_or(u32::MAX);
    // What a peer may send ahead of our reading: 2 MiB keep one stream of a 50 ms path at 300 Mbit/s, and it takes sixteen
    // stalled ones to stall the connection.
    config.max_stream_data = 2 << 20;
    config.max_connection_data = 32 << 20;
    config.handshake_timeout = Duration::from_secs(5);
    // A peer that vanished is noticed within 10 s; a live one is heard from twice in that time.
    config.max_idle_timeout = 10_000;
    config.keep_alive_interval = Duration::from_secs(4);
    config
}

fn yamux_config() -> yamux::Config {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(STREAMS);
    config
}

fn swarm_config(config: swarm::Config) -> swarm::Config {
    config
        .with_idle_connection_timeout(NEVER_IDLE)
        // Each of our protocols has one version, so the dialler need not wait for its confirmation: half the opening time.
        .with_substream_upgrade_protocol_override(Version::V1Lazy)
        .with_max_negotiating_inbound_streams(NEGOTIATING)
        // QUIC addresses get a head start over TCP, IPv6 over IPv4.
        .with_smart_dial()
        .with_notify_handler_buffer_size(NonZeroUsize::MIN.saturating_add(63))
        .with_per_connection_event_buffer_size(64)
}

/// Whether a TCP port is nobody else's. The swarm's own listening shares its port, to dial from it too, and would share it with
/// another program of ours unnoticed: each would get some of the other's connections.
///
/// # Errors
/// What the system says to listening alone.
pub(crate) fn check_free(address: &Multiaddr) -> io::Result<()> {
    let mut parts = address.iter();
    let ip: IpAddr = match parts.next() {
        Some(Protocol::Ip4(ip)) => ip.into(),
        Some(Protocol::Ip6(ip)) => ip.into(),
        Some(_) | None => return Ok(()),
    };
    match parts.next() {
        Some(Protocol::Tcp(port)) if port != 0 => TcpListener::bind((ip, port)).map(drop),
        Some(_) | None => Ok(()),
    }
}

/// Connections of this node, encrypted and shared by streams, to addresses without names.
fn connections(
    identity: &identity::Keypair,
    fence: Option<&FenceKey>,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, StartError> {
    let noise = noise::Config::new(identity).map_err(|e| StartError::Config(e.to_string()))?;
    let tcp = tcp::tokio::Transport::new(tcp::Config::new().nodelay(true));
    let Some(key) = fence.map(|key| PreSharedKey::new(key.bytes())) else {
        let quic = quic::tokio::Transport::new(quic_config(quic::Config::new(identity)));
        let tcp = tcp.upgrade(Version::V1Lazy).authenticate(noise).multiplex(yamux_config());
        return Ok(OrTransport::new(quic, tcp)
            .map(|either, _| match either {
                Either::Left((peer, connection)) => (peer, StreamMuxerBox::new(connection)),
                Either::Right((peer, connection)) => (peer, StreamMuxerBox::new(connection)),
            })
            .boxed());
    };
    // Without the key each side reads noise where the other's handshake should be.
    let tcp = tcp.and_then(move |socket, _| PnetConfig::new(key).handshake(socket));
    let tcp = tcp.upgrade(Version::V1Lazy).authenticate(noise).multiplex(yamux_config());
    Ok(tcp.map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection))).boxed())
}

/// A swarm of these behaviours. Without a readable system resolver, names are not resolved and addresses still work.
pub(crate) fn swarm(
    identity: identity::Keypair,
    fence: Option<&FenceKey>,
    behaviour: impl FnOnce(&identity::Keypair, relay::client::Behaviour) -> Result<Behaviour, StartError>,
) -> Result<Swarm<Behaviour>, StartError> {
    let config = |e: &dyn std::fmt::Display| StartError::Config(e.to_string());
    let transports = |identity: identity::Keypair| {
        let connections = connections(&identity, fence)?;
        SwarmBuilder::with_existing_identity(identity)
            .with_tokio()
            .with_other_transport(|_| connections)
            .map_err(|e| config(&e))
    };
    let mut failed = None;
    let all = |identity: &identity::Keypair, relayed| {
        behaviour(identity, relayed).map_err(|e| {
            let text = e.to_string();
            failed = Some(e);
            text.into()
        })
    };
    let swarm = match transports(identity.clone())?.with_dns() {
        Ok(builder) => builder
            .with_relay_client(noise::Config::new, yamux_config)
            .map_err(|e| config(&e))?
            .with_behaviour(all)
            .map(|builder| builder.with_swarm_config(swarm_config).build()),
        Err(error) => {
            tracing::warn!(%error, "the system's name resolver can't be used; addresses by name will fail");
            transports(identity)?
                .with_dns_config(dns::ResolverConfig::default(), dns::ResolverOpts::default())
                .with_relay_client(noise::Config::new, yamux_config)
                .map_err(|e| config(&e))?
                .with_behaviour(all)
                .map(|builder| builder.with_swarm_config(swarm_config).build())
        }
    };
    let swarm = swarm.map_err(|e| failed.take().unwrap_or_else(|| config(&e)))?;
    Ok(swarm)
}
