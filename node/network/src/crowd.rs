//! Keeps one address from taking the places of all others.
//!
//! Keys are free, addresses are not: whoever comes from one IPv4 address, or one /64 of IPv6, shares a part of the places for
//! connections that others open, and of those that are being set up. This machine itself is nobody's crowd. Connections through
//! relays are bounded by the relays, and those that this node opens by its own limits.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, Ipv6Addr},
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    multiaddr::Protocol,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
        ToSwarm, dummy,
    },
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Behaviour {
    pending: Places,
    established: Places,
}

/// Who has which places of one kind.
#[derive(Debug)]
struct Places {
    most: usize,
    of: HashMap<ConnectionId, IpAddr>,
    taken: HashMap<IpAddr, usize>,
}

/// Why a connection was refused.
#[derive(Debug)]
struct Crowded(IpAddr);

impl fmt::Display for Crowded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has as many connections as one address may have", self.0)
    }
}

impl std::error::Error for Crowded {}

impl Places {
    fn new(most: u32) -> Self {
        Self { most: usize::try_from(most).unwrap_or(usize::MAX), of: HashMap::new(), taken: HashMap::new() }
    }

    fn take(&mut self, id: ConnectionId, source: Option<IpAddr>) -> Result<(), ConnectionDenied> {
        let Some(source) = source else { return Ok(()) };
        let taken = self.taken.entry(source).or_default();
        if *taken >= self.most {
            return Err(ConnectionDenied::new(Crowded(source)));
        }
        *taken += 1;
        self.of.insert(id, source);
        Ok(())
    }

    fn give_back(&mut self, id: ConnectionId) {
        let Some(source) = self.of.remove(&id) else { return };
        if let Some(taken) = self.taken.get_mut(&source) {
            *taken -= 1;
            if *taken == 0 {
                self.taken.remove(&source);
            }
        }
    }
}

/// Whom a connection from there is counted with; nobody for this machine and for relays' circuits.
pub(crate) fn source(remote: &Multiaddr) -> Option<IpAddr> {
    let ip = match remote.iter().next() {
        Some(Protocol::Ip4(ip)) => IpAddr::V4(ip),
        Some(Protocol::Ip6(ip)) => match ip.to_ipv4_mapped() {
            Some(ip) => IpAddr::V4(ip),
            // One line gets a whole /64.
            None if !ip.is_loopback() => {
                let [a, b, c, d, ..] = ip.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            None => return None,
        },
        Some(_) | None => return None,
    };
    let circuit = remote.iter().any(|part| matches!(part, Protocol::P2pCircuit));
    (!ip.is_loopback() && !circuit).then_some(ip)
}

impl Behaviour {
    /// So many connections of one address being set up, and so many that stand.
    pub(crate) fn new(pending: u32, established: u32) -> Self {
        Self { pending: Places::new(pending), established: Places::new(established) }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = std::convert::Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.pending.take(id, source(remote))
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.pending.give_back(id);
        self.established.take(id, source(remote))?;
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "of the swarm's many events only ends of connections concern us")]
    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        let id = match event {
            FromSwarm::ConnectionClosed(closed) => closed.connection_id,
            // It was refused here or by another, or never came about.
            FromSwarm::ListenFailure(failure) => failure.connection_id,
            _ => return,
        };
        self.pending.give_back(id);
        self.established.give_back(id);
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use libp2p::swarm::{ListenError, behaviour::ListenFailure};

    use super::*;

    fn at(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_fills_its_own_share_and_gets_it_back() {
        let (mut crowd, here) = (Behaviour::new(2, 3), at("/ip4/1.1.1.1/tcp/1"));
        let (near, far) = (at("/ip4/8.8.8.8/tcp/1"), at("/ip4/8.8.4.4/udp/9/quic-v1"));
        let id = ConnectionId::new_unchecked;
        let mut knocks = |n, remote: &Multiaddr| crowd.handle_pending_inbound_connection(id(n), &here, remote).is_ok();
        assert!(knocks(1, &near) && knocks(2, &near) && !knocks(3, &near));
        assert!(knocks(4, &far));
        let ended = |n| ListenFailure {
            local_addr: &here,
            send_back_addr: &near,
            error: &ListenError::Aborted,
            connection_id: id(n),
            peer_id: None,
        };
        crowd.on_swarm_event(FromSwarm::ListenFailure(ended(3)));
        assert!(crowd.handle_pending_inbound_connection(id(5), &here, &near).is_err(), "it had no place to give back");
        crowd.on_swarm_event(FromSwarm::ListenFailure(ended(2)));
        assert!(crowd.handle_pending_inbound_connection(id(6), &here, &near).is_ok());
        let mut comes = |n| crowd.handle_established_inbound_connection(id(n), PeerId::random(), &here, &near).is_ok();
        assert!(comes(1) && comes(6) && comes(7) && !comes(8));
        crowd.on_swarm_event(FromSwarm::ListenFailure(ended(8)));
        assert_eq!(crowd.established.taken.get(&"8.8.8.8".parse::<IpAddr>().unwrap()), Some(&3));
        crowd.on_swarm_event(FromSwarm::ListenFailure(ended(7)));
        assert!(crowd.handle_established_inbound_connection(id(9), PeerId::random(), &here, &near).is_ok());
        assert_eq!((crowd.pending.of.len(), crowd.established.of.len()), (1, 3));
    }

    #[test]
    fn a_line_of_ipv6_is_one_source_and_this_machine_is_none() {
        let one = source(&at("/ip6/2001:db8:1:2::1/tcp/1"));
        assert_eq!(one, source(&at("/ip6/2001:db8:1:2:ffff::9/udp/1/quic-v1")));
        assert_ne!(one, source(&at("/ip6/2001:db8:1:3::1/tcp/1")));
        assert_eq!(source(&at("/ip6/::ffff:8.8.8.8/tcp/1")), source(&at("/ip4/8.8.8.8/tcp/1")));
        let relay = PeerId::random();
        let circuit = format!("/ip4/8.8.8.8/tcp/1/p2p/{relay}/p2p-circuit");
        for nobody in ["/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1", &format!("/p2p/{relay}"), &circuit] {
            assert_eq!(source(&at(nobody)), None, "{nobody}");
        }
    }
}
