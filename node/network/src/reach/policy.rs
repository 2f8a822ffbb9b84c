//! Which of its own addresses a node believes in.
//!
//! An address is a candidate when a peer has seen the node under it, or the node listens on it. A candidate is confirmed by a
//! peer that dialled back to it, asked again every quarter of an hour, and lost after two failures in a row. What peers say they
//! see is hearsay: a liar can add candidates, which cost a test each, and are bounded.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId};

use crate::peers::{self, Scope};

/// Candidates kept; the one that was seen least goes first, confirmed ones stay.
const MAX_CANDIDATES: usize = 8;
/// Tests under way at once.
const MAX_TESTS: usize = 3;
/// Between two tests of an address that is settled, either way.
const AGAIN: Duration = Duration::from_secs(15 * 60);
/// Before the second opinion on a failure.
const SOON: Duration = Duration::from_secs(2);
/// A peer that could not or would not test is left alone for so long.
const REST: Duration = Duration::from_secs(30);
/// Failures in a row that settle a matter.
const FAILURES: u32 = 2;
/// A candidate that nobody has seen for so long is forgotten, unless it is confirmed.
const FORGET: Duration = Duration::from_secs(3600);

/// What came of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DialBack {
    /// The peer reached the address, and found this node there.
    Reached,
    /// It did not.
    Unreached,
    /// It did not try: it is busy, sees this node under another address, or is gone.
    Refused,
}

/// A test to make now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Test {
    pub(crate) address: Multiaddr,
    pub(crate) by: PeerId,
}

/// What a test changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// Others reach the node here.
    Confirmed(Multiaddr),
    /// They no longer do.
    Lost(Multiaddr),
}

#[derive(Debug)]
struct Candidate {
    seen: Instant,
    sightings: u32,
    confirmed: bool,
    /// Failures since the last success.
    failures: u32,
    due: Instant,
    testing: bool,
}

/// What is known of this node's own addresses.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    candidates: BTreeMap<Multiaddr, Candidate>,
    /// Addresses of this machine's interfaces.
    own: BTreeSet<IpAddr>,
    /// The operator says that these lead here.
    given: BTreeSet<Multiaddr>,
    resting: BTreeMap<PeerId, Instant>,
}

impl Addresses {
    /// Addresses under which the operator says that others reach this node.
    pub(crate) fn new(given: impl IntoIterator<Item = Multiaddr>) -> Self {
        Self { given: given.into_iter().map(peers::without_peer).collect(), ..Self::default() }
    }

    /// The node listens here.
    pub(crate) fn listening(&mut self, address: &Multiaddr, now: Instant) {
        if let Some(ip) = peers::ip_of(address) {
            self.own.insert(ip);
        }
        self.seen(address, now);
    }

    /// A peer has seen the node under this address.
    pub(crate) fn seen(&mut self, address: &Multiaddr, now: Instant) {
        let address = peers::without_peer(address.clone());
        // Only what all the world can dial is worth a test; relayed addresses have no scope of their own.
        if peers::is_relayed(&address) || peers::scope(&address) != Some(Scope::Global) {
            return;
        }
        if let Some(known) = self.candidates.get_mut(&address) {
            known.seen = now;
            known.sightings = known.sightings.saturating_add(1);
            return;
        }
        self.candidates.retain(|_, c| c.confirmed || c.testing || now.saturating_duration_since(c.seen) < FORGET);
        if self.candidates.len() >= MAX_CANDIDATES {
            let least = self.candidates.iter().filter(|(_, c)| !c.confirmed && !c.testing);
            let Some(least) = least.min_by_key(|(_, c)| (c.sightings, c.seen)).map(|(a, _)| a.clone()) else {
                return;
            };
            self.candidates.remove(&least);
        }
        let candidate = Candidate { seen: now, sightings: 1, confirmed: false, failures: 0, due: now, testing: false };
        self.candidates.insert(address, candidate);
    }

    /// The tests to make now, by `servers`: peers that are connected directly, over the internet.
    pub(crate) fn due(&mut self, servers: &[PeerId], now: Instant) -> Vec<Test> {
        self.resting.retain(|_, until| *until > now);
        let mut free: Vec<PeerId> = servers.iter().filter(|p| !self.resting.contains_key(p)).copied().collect();
        let mut running = self.candidates.values().filter(|c| c.testing).count();
        let mut tests = Vec::new();
        for (address, candidate) in &mut self.candidates {
            if candidate.testing || candidate.due > now {
                continue;
            }
            let Some(by) = free.pop().filter(|_| running < MAX_TESTS) else { break };
            candidate.testing = true;
            running += 1;
            // Another asks next time: a second opinion is one.
            self.resting.insert(by, now + SOON);
            tests.push(Test { address: address.clone(), by });
        }
        tests
    }

    /// Whether to let a peer see this node over QUIC: behind a NAT that is the best way through, and who only ever dialled by TCP
    /// is not known to anybody by a UDP port.
    pub(crate) fn lacks_udp(&self) -> bool {
        self.public() == Some(false) && !self.candidates.keys().any(peers::is_quic)
    }

    /// When a test is due next, if a server can be had.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.candidates.values().filter(|c| !c.testing).map(|c| c.due).min()
    }

    /// What came of a test.
    pub(crate) fn tested(&mut self, Test { address, by }: &Test, outcome: DialBack, now: Instant) -> Option<Change> {
        let candidate = self.candidates.get_mut(address)?;
        candidate.testing = false;
        match outcome {
            DialBack::Reached => {
                candidate.failures = 0;
                candidate.due = now + AGAIN;
                let news = !std::mem::replace(&mut candidate.confirmed, true);
                news.then(|| Change::Confirmed(address.clone()))
            }
            DialBack::Unreached => {
                candidate.failures = candidate.failures.saturating_add(1);
                let settled = candidate.failures >= FAILURES;
                candidate.due = now + if settled { AGAIN } else { SOON };
                let lost = settled && std::mem::replace(&mut candidate.confirmed, false);
                lost.then(|| Change::Lost(address.clone()))
            }
            DialBack::Refused => {
                candidate.due = now + SOON;
                self.resting.insert(*by, now + REST);
                None
            }
        }
    }

    /// Whether others can dial this node; none while nobody knows.
    ///
    /// Peers that see an address which no interface here has look through a NAT. It counts as closed until a test shows that it
    /// is not: a relay is had in a moment, and a failing test takes seconds.
    pub(crate) fn public(&self) -> Option<bool> {
        if !self.given.is_empty() || self.candidates.values().any(|c| c.confirmed) {
            return Some(true);
        }
        let translated = |address: &Multiaddr| peers::ip_of(address).is_some_and(|ip| !self.own.contains(&ip));
        let closed = self.candidates.iter().any(|(address, c)| translated(address) || c.failures >= FAILURES);
        closed.then_some(false)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    /// Runs the tests that are due, and answers each.
    fn answer(addresses: &mut Addresses, servers: &[PeerId], now: Instant, outcome: DialBack) -> Vec<Change> {
        let due = addresses.due(servers, now);
        due.iter().filter_map(|test| addresses.tested(test, outcome, now)).collect()
    }

    #[test]
    fn on_a_machine_or_a_network_of_its_own_nothing_is_asked() {
        let now = Instant::now();
        let mut addresses = Addresses::default();
        addresses.listening(&at("/ip4/127.0.0.1/tcp/1"), now);
        addresses.seen(&at("/ip4/192.168.1.5/udp/9/quic-v1"), now);
        assert_eq!((addresses.public(), addresses.deadline()), (None, None));
    }

    #[test]
    fn behind_a_nat_a_udp_port_is_wanted() {
        let now = Instant::now();
        let mut addresses = Addresses::default();
        addresses.listening(&at("/ip4/192.168.1.2/udp/9/quic-v1"), now);
        assert!(!addresses.lacks_udp(), "nothing is known of a NAT");
        addresses.seen(&at("/ip4/8.8.4.4/tcp/9"), now);
        assert!(addresses.lacks_udp());
        addresses.seen(&at("/ip4/8.8.4.4/udp/9/quic-v1"), now);
        assert!(!addresses.lacks_udp());
    }

    #[test]
    fn a_public_address_is_asked_for_and_asked_again() {
        let (now, servers) = (Instant::now(), [PeerId::random(), PeerId::random()]);
        let mut addresses = Addresses::default();
        let mine = at("/ip4/8.8.4.4/udp/9/quic-v1");
        addresses.listening(&mine, now);
        assert_eq!(addresses.public(), None, "it may be behind a firewall");
        assert_eq!(answer(&mut addresses, &servers, now, DialBack::Reached), [Change::Confirmed(mine.clone())]);
        assert_eq!(addresses.public(), Some(true));
        assert!(addresses.due(&servers, now + SOON).is_empty());
        // The first failure asks for a second opinion, by somebody else.
        let later = now + AGAIN;
        let first = addresses.due(&servers, later).pop().unwrap();
        assert_eq!(addresses.tested(&first, DialBack::Unreached, later), None);
        assert_eq!(addresses.public(), Some(true));
        let second = addresses.due(&servers, later + SOON).pop().unwrap();
        let change = addresses.tested(&second, DialBack::Unreached, later + SOON);
        assert_eq!((change, addresses.public()), (Some(Change::Lost(mine.clone())), Some(false)));
        // And it comes back.
        let back = later + SOON + AGAIN;
        assert_eq!(answer(&mut addresses, &servers, back, DialBack::Reached), [Change::Confirmed(mine)]);
    }

    #[test]
    fn a_translated_address_counts_as_closed_until_it_is_shown_to_be_open() {
        let (now, server) = (Instant::now(), PeerId::random());
        let mut addresses = Addresses::default();
        addresses.listening(&at("/ip4/192.168.1.5/udp/9/quic-v1"), now);
        addresses.seen(&at("/ip4/8.8.4.4/udp/9/quic-v1"), now);
        assert_eq!(addresses.public(), Some(false));
        assert!(answer(&mut addresses, &[], now, DialBack::Reached).is_empty(), "nobody to ask");
        assert_eq!(answer(&mut addresses, &[server], now, DialBack::Reached).len(), 1);
        assert_eq!(addresses.public(), Some(true));
    }

    #[test]
    fn who_refuses_is_left_alone_and_proves_nothing() {
        let (now, server) = (Instant::now(), PeerId::random());
        let mut addresses = Addresses::default();
        addresses.listening(&at("/ip4/8.8.4.4/tcp/9"), now);
        for n in 0..20 {
            assert!(answer(&mut addresses, &[server], now + REST * n, DialBack::Refused).is_empty());
            assert!(addresses.due(&[server], now + REST * n + SOON).is_empty());
        }
        assert_eq!(addresses.public(), None);
    }

    #[test]
    fn liars_add_no_more_than_a_few_candidates_and_displace_no_confirmed_one() {
        let (now, server) = (Instant::now(), PeerId::random());
        let mut addresses = Addresses::default();
        let mine = at("/ip4/8.8.4.4/tcp/9");
        addresses.listening(&mine, now);
        assert_eq!(answer(&mut addresses, &[server], now, DialBack::Reached).len(), 1);
        for port in 1..2_000 {
            addresses.seen(&at(&format!("/ip4/9.9.9.9/tcp/{port}")), now);
            addresses.seen(&at(&format!("/ip4/8.8.8.8/tcp/1/p2p/{server}/p2p-circuit")), now);
        }
        assert!(addresses.candidates.len() <= MAX_CANDIDATES && addresses.candidates.contains_key(&mine));
        let servers: Vec<PeerId> = (0..50).map(|_| PeerId::random()).collect();
        assert_eq!(addresses.due(&servers, now + AGAIN).len(), MAX_TESTS);
    }

    #[test]
    fn what_the_operator_says_is_taken() {
        let given = at("/dns4/example.org/tcp/9");
        assert_eq!(Addresses::new([given]).public(), Some(true));
    }
}
