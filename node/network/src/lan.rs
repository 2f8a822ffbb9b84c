//! Members of a private cluster that are found on the local network, by multicast DNS.
//!
//! Owns the search, and bounds what it finds; the task dials. Everybody on the local network can read what is announced (this
//! node's peer id, and where it listens, under the service name `_p2p._udp.local` of all libp2p nodes), and can announce
//! anything. So strangers' announcements are dropped, and a member's are worth a dial, which shows who is there.

use std::{
    collections::HashMap,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{
        Endpoint,
        transport::{ListenerId, PortUse},
    },
    mdns,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
        ToSwarm, behaviour::NewListenAddr, dummy,
    },
};

use crate::{door::Roster, limits::MAX_FOUND, peers};

/// Addresses of one member that are remembered.
const MAX_ADDRESSES: usize = 4;
/// Own addresses that are announced.
const MAX_OWN: usize = 64;
/// Announcements of anybody, valid at once, from which on somebody floods the network: libp2p keeps them all.
const FLOOD: usize = 1024;
/// How long nobody is looked for after that.
const REST: Duration = Duration::from_secs(600);
/// Between two queries, once somebody has answered the first.
const QUERY: Duration = Duration::from_secs(60);
/// How long others remember this node's answer.
const VALID: Duration = Duration::from_secs(150);

/// A member was found, or found elsewhere.
#[derive(Debug)]
pub(crate) struct Found(pub(crate) PeerId);

/// See the module.
pub(crate) struct Behaviour {
    local: PeerId,
    roster: Roster,
    wanted: bool,
    search: Option<mdns::tokio::Behaviour>,
    rests_until: Option<Instant>,
    own: Vec<(ListenerId, Multiaddr)>,
    found: HashMap<PeerId, Vec<Multiaddr>>,
    news: Vec<PeerId>,
}

impl Behaviour {
    /// Looks for members if that is wanted. Must be called within a tokio runtime.
    pub(crate) fn new(wanted: bool, local: PeerId, roster: Roster) -> Self {
        Self {
            local,
            roster,
            wanted,
            search: wanted.then(|| search(local)).flatten(),
            rests_until: None,
            own: Vec::new(),
            found: HashMap::new(),
            news: Vec::new(),
        }
    }

    /// The members found.
    pub(crate) fn found(&self) -> impl Iterator<Item = &PeerId> {
        self.found.keys()
    }

    pub(crate) const fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Where a member was found.
    pub(crate) fn of(&self, peer: &PeerId) -> &[Multiaddr] {
        self.found.get(peer).map_or(&[], Vec::as_slice)
    }

    /// Begins anew after a rest.
    pub(crate) fn tend(&mut self, now: Instant) {
        self.found.retain(|peer, _| self.roster.is_member(peer));
        if self.wanted && self.search.is_none() && self.rests_until.is_none_or(|until| until <= now) {
            self.rests_until = Some(now + REST);
            self.search = search(self.local);
            if let Some(search) = &mut self.search {
                for (listener_id, addr) in &self.own {
                    search.on_swarm_event(FromSwarm::NewListenAddr(NewListenAddr { listener_id: *listener_id, addr }));
                }
            }
        }
    }

    fn on_found(&mut self, all: Vec<(PeerId, Multiaddr)>) {
        for (peer, address) in all {
            if !self.roster.is_member(&peer) || peers::scope(&address).is_none() {
                continue;
            }
            let address = peers::without_peer(address);
            if self.found.len() >= MAX_FOUND && !self.found.contains_key(&peer) {
                continue;
            }
            let known = self.found.entry(peer).or_default();
            if known.contains(&address) {
                continue;
            }
            // The newest first: a member that has moved is found again whatever was said of it before.
            known.insert(0, address);
            known.truncate(MAX_ADDRESSES);
            if !self.news.contains(&peer) {
                self.news.push(peer);
            }
        }
    }

    fn on_expired(&mut self, all: Vec<(PeerId, Multiaddr)>) {
        for (peer, address) in all {
            let address = peers::without_peer(address);
            if let Some(known) = self.found.get_mut(&peer) {
                known.retain(|other| *other != address);
                if known.is_empty() {
                    self.found.remove(&peer);
                }
            }
        }
    }

    fn is_flooded(&self) -> bool {
        self.search.as_ref().is_some_and(|search| search.discovered_nodes().len() > FLOOD)
    }
}

fn search(local: PeerId) -> Option<mdns::tokio::Behaviour> {
    let config = mdns::Config { ttl: VALID, query_interval: QUERY, enable_ipv6: false };
    mdns::tokio::Behaviour::new(config, local)
        .inspect_err(|error| tracing::warn!(%error, "members on the local network can't be looked for"))
        .ok()
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Found;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
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

    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "libp2p's events are many and open-ended; only this node's addresses are announced"
    )]
    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::NewListenAddr(e) if self.own.len() < MAX_OWN => self.own.push((e.listener_id, e.addr.clone())),
            FromSwarm::ExpiredListenAddr(e) => {
                self.own.retain(|(id, address)| *id != e.listener_id || address != e.addr);
            }
            _ => {}
        }
        if let Some(search) = &mut self.search {
            search.on_swarm_event(event);
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "what else is said is for other behaviours, which would believe it of strangers"
    )]
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            if let Some(peer) = self.news.pop() {
                return Poll::Ready(ToSwarm::GenerateEvent(Found(peer)));
            }
            let Some(Poll::Ready(event)) = self.search.as_mut().map(|search| search.poll(cx)) else {
                return Poll::Pending;
            };
            match event {
                ToSwarm::GenerateEvent(mdns::Event::Discovered(all)) => self.on_found(all),
                ToSwarm::GenerateEvent(mdns::Event::Expired(all)) => self.on_expired(all),
                _ => {}
            }
            if self.is_flooded() {
                tracing::warn!(
                    "the local network is flooded with announcements; nobody is looked for there for a while"
                );
                self.search = None;
                self.rests_until = Some(Instant::now() + REST);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::HashSet;

    use super::*;
    use crate::door;

    #[test]
    fn members_only_are_found_and_few_addresses_of_each() {
        let (member, stranger) = (PeerId::random(), PeerId::random());
        let roster = door::Behaviour::new(Some(HashSet::from([member]))).roster();
        let mut lan = Behaviour::new(false, PeerId::random(), roster);
        let at = |n: usize| -> Multiaddr { format!("/ip4/192.168.1.7/tcp/{n}").parse().unwrap() };
        let here = |peer: PeerId, n: usize| (peer, at(n).with_p2p(peer).unwrap());
        lan.on_found(vec![here(stranger, 1), (member, "/ip4/192.168.1.7/udp/4".parse().unwrap())]);
        assert_eq!(lan.found().count(), 0);
        for n in 1..100 {
            lan.on_found(vec![here(member, n), here(stranger, n)]);
        }
        assert_eq!(lan.of(&member), [99, 98, 97, 96].map(at));
        assert_eq!(lan.news, [member]);
        lan.on_expired((96..100).map(|n| here(member, n)).collect());
        assert_eq!(lan.found().count(), 0);
    }
}
