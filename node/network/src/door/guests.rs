//! The strangers that are connected: how many there may be, from where, and for how long.
//!
//! Pure policy: time is an argument, and closing connections is the door's.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    time::Instant,
};

use libp2p::{Multiaddr, PeerId, swarm::ConnectionId};

use crate::{
    limits::{
        ALL_KNOCKS_PER_MINUTE, KNOCK_SOURCES, KNOCK_TIMEOUT, KNOCKS_PER_MINUTE, STRANGER_LINGERS, STRANGERS,
        STRANGERS_PER_SOURCE,
    },
    peers,
    rate::Bucket,
};

/// Whoever is behind one address: what one person has without effort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// The first 64 bits of an IPv6 address.
    V6(u64),
}

impl Source {
    /// Where an address leads; none for one that begins with no IP address, as one through a relay.
    pub(crate) fn of(address: &Multiaddr) -> Option<Self> {
        Some(match peers::ip_of(address)?.to_canonical() {
            IpAddr::V4(ip) => Self::V4(ip),
            IpAddr::V6(ip) => Self::V6((ip.to_bits() >> 64) as u64),
        })
    }
}

/// Why a stranger is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TurnedAway {
    /// The door is closed.
    #[error("it is no member of this cluster")]
    Closed,
    /// It came through a relay.
    #[error("a stranger must come directly")]
    Relayed,
    /// There are too many strangers.
    #[error("there are too many strangers at the door")]
    Crowd,
}

#[derive(Debug)]
struct Guest {
    peer: PeerId,
    source: Source,
    remote: Multiaddr,
    until: Instant,
    /// Knocks that have no answer yet.
    knocks: usize,
    /// It goes with its last answer.
    leaving: bool,
}

/// The strangers connected to this node, by connection.
#[derive(Debug, Default)]
pub(crate) struct Guests {
    at: HashMap<ConnectionId, Guest>,
}

impl Guests {
    /// Lets a stranger in, if there is room.
    pub(crate) fn enter(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        remote: &Multiaddr,
        now: Instant,
    ) -> Result<(), TurnedAway> {
        let source = Source::of(remote).ok_or(TurnedAway::Relayed)?;
        let of_source = self.at.values().filter(|guest| guest.source == source).count();
        if self.at.len() >= STRANGERS || of_source >= STRANGERS_PER_SOURCE {
            return Err(TurnedAway::Crowd);
        }
        let until = now + KNOCK_TIMEOUT;
        self.at.insert(id, Guest { peer, source, remote: remote.clone(), until, knocks: 0, leaving: false });
        Ok(())
    }

    pub(crate) fn left(&mut self, id: ConnectionId) {
        self.at.remove(&id);
    }

    pub(crate) fn has(&self, id: ConnectionId) -> bool {
        self.at.contains_key(&id)
    }

    /// Where a stranger is seen.
    pub(crate) fn remote(&self, id: ConnectionId) -> Option<&Multiaddr> {
        self.at.get(&id).map(|guest| &guest.remote)
    }

    /// It has knocked.
    pub(crate) fn knocked(&mut self, id: ConnectionId) {
        if let Some(guest) = self.at.get_mut(&id) {
            guest.knocks += 1;
        }
    }

    /// A knock of it is over.
    pub(crate) fn answered(&mut self, id: ConnectionId, now: Instant) {
        if let Some(guest) = self.at.get_mut(&id) {
            guest.knocks = guest.knocks.saturating_sub(1);
            if guest.leaving && guest.knocks == 0 {
                guest.until = guest.until.min(now + STRANGER_LINGERS);
            }
        }
    }

    /// Some are no longer wanted as strangers: they go with their last answer.
    pub(crate) fn end(&mut self, which: impl Fn(&PeerId) -> bool, now: Instant) {
        for guest in self.at.values_mut().filter(|guest| which(&guest.peer)) {
            guest.leaving = true;
            if guest.knocks == 0 {
                guest.until = guest.until.min(now + STRANGER_LINGERS);
            }
        }
    }

    /// When the next one's time is over.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.at.values().map(|guest| guest.until).min()
    }

    /// Those whose time is over, each told once: a connection that is slow to close is not told again for a while.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<(ConnectionId, PeerId)> {
        let over = self.at.iter_mut().filter(|(_, guest)| guest.until <= now);
        over.map(|(id, guest)| {
            guest.until = now + KNOCK_TIMEOUT;
            (*id, guest.peer)
        })
        .collect()
    }
}

/// How often anybody may knock.
#[derive(Debug)]
pub(crate) struct Knocks {
    all: Bucket,
    sources: HashMap<Source, Bucket>,
}

impl Knocks {
    pub(crate) fn new(now: Instant) -> Self {
        Self { all: Bucket::per_minute(ALL_KNOCKS_PER_MINUTE, ALL_KNOCKS_PER_MINUTE, now), sources: HashMap::new() }
    }

    /// Whether a knock from there is within the rates.
    pub(crate) fn take(&mut self, source: Source, now: Instant) -> bool {
        if self.sources.len() >= KNOCK_SOURCES && !self.sources.contains_key(&source) {
            // A full bucket remembers nothing.
            self.sources.retain(|_, bucket| !bucket.is_full(now));
            if self.sources.len() >= KNOCK_SOURCES {
                return false;
            }
        }
        let fresh = || Bucket::per_minute(KNOCKS_PER_MINUTE, KNOCKS_PER_MINUTE, now);
        self.sources.entry(source).or_insert_with(fresh).take(now) && self.all.take(now)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    fn at(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    fn id(n: usize) -> ConnectionId {
        ConnectionId::new_unchecked(n)
    }

    #[test]
    fn a_source_is_an_ipv4_address_or_a_network_of_ipv6() {
        let of = |text| Source::of(&at(text));
        assert_eq!(of("/ip6/2001:db8::1/tcp/1"), of("/ip6/2001:db8:0:0:ffff::2/tcp/2"));
        assert_ne!(of("/ip6/2001:db8::1/tcp/1"), of("/ip6/2001:db8:0:1::1/tcp/1"));
        assert_eq!(of("/ip6/::ffff:8.8.8.8/tcp/1"), of("/ip4/8.8.8.8/tcp/9"));
        assert_ne!(of("/ip4/8.8.8.8/tcp/1"), of("/ip4/8.8.8.9/tcp/1"));
        assert_eq!(of(&format!("/p2p/{}", PeerId::random())), None);
    }

    #[test]
    fn strangers_are_few_and_fewer_from_one_source() {
        let (mut guests, now) = (Guests::default(), Instant::now());
        let mut enter = |n: usize, text: &str| guests.enter(id(n), PeerId::random(), &at(text), now);
        assert_eq!(enter(0, &format!("/p2p/{}", PeerId::random())), Err(TurnedAway::Relayed));
        let mut entered = 0;
        for n in 1..=3 {
            entered += usize::from(enter(n, "/ip4/8.8.8.8/tcp/1").is_ok());
        }
        assert_eq!(entered, STRANGERS_PER_SOURCE);
        for n in 10..100 {
            entered += usize::from(enter(n, &format!("/ip4/9.9.9.{n}/tcp/1")).is_ok());
        }
        assert_eq!(entered, STRANGERS);
        assert_eq!(enter(200, "/ip4/7.7.7.7/tcp/1"), Err(TurnedAway::Crowd));
        guests.left(id(1));
        assert!(guests.enter(id(201), PeerId::random(), &at("/ip4/7.7.7.7/tcp/1"), now).is_ok());
    }

    #[test]
    fn a_strangers_time_is_short_and_ends_with_its_answer_when_it_is_let_in() {
        let (mut guests, now) = (Guests::default(), Instant::now());
        let (idle, knocking) = (PeerId::random(), PeerId::random());
        guests.enter(id(1), idle, &at("/ip4/8.8.8.8/tcp/1"), now).unwrap();
        guests.enter(id(2), knocking, &at("/ip4/9.9.9.9/tcp/1"), now).unwrap();
        guests.knocked(id(2));
        assert!(guests.due(now).is_empty());
        guests.end(|_| true, now);
        let soon = now + STRANGER_LINGERS;
        assert_eq!(guests.due(soon), [(id(1), idle)]);
        guests.answered(id(2), soon);
        assert!(guests.due(soon).is_empty(), "its answer may be on its way");
        assert_eq!(guests.due(soon + STRANGER_LINGERS), [(id(2), knocking)]);

        let mut guests = Guests::default();
        guests.enter(id(3), knocking, &at("/ip4/9.9.9.9/tcp/1"), now).unwrap();
        guests.knocked(id(3));
        assert_eq!(guests.deadline(), Some(now + KNOCK_TIMEOUT));
        assert_eq!(guests.due(now + KNOCK_TIMEOUT), [(id(3), knocking)]);
    }

    #[test]
    fn knocks_have_a_rate_by_source_and_in_all() {
        let now = Instant::now();
        let mut knocks = Knocks::new(now);
        let source = |n: u32| Source::V4(Ipv4Addr::from_bits(n));
        let burst = (0..1000).filter(|_| knocks.take(source(1), now)).count();
        assert_eq!(burst, KNOCKS_PER_MINUTE as usize);
        let others = (2..5000).filter(|n| knocks.take(source(*n), now)).count();
        assert_eq!(burst + others, ALL_KNOCKS_PER_MINUTE as usize);
        assert!(knocks.sources.len() <= KNOCK_SOURCES);
        let later = now + Duration::from_secs(120);
        assert!(knocks.take(source(9999), later), "who came long ago is forgotten");
    }
}
