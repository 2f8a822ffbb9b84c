//! Whom to dial, and when: bootstrap addresses, kept peers, and looking around for more.
//!
//! Pure policy: time, jitter and the state of connections are arguments; the task does the dialling and reports how it went.

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};

use crate::schedule::{FIRST, LAST, Schedule};

/// The first look around after meeting a peer: long enough for the peers that a bootstrap node just met to be identified.
const SETTLE: Duration = Duration::from_millis(60);
/// Between looks around while there are enough peers.
const CALM: Duration = Duration::from_secs(300);
/// The longest wait between two dials while no peer is connected at all: then it is this node's own line that is down, more
/// likely than not, and its tries cost nobody anything.
const ALONE: Duration = Duration::from_secs(8);
/// The first wait between looks around while there are too few.
const EAGER: Duration = Duration::from_millis(150);

/// Something to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Target {
    /// A bootstrap address, by its index.
    Bootstrap(usize),
    /// A kept peer.
    Kept(PeerId),
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// Dial this bootstrap address.
    Bootstrap(usize, Multiaddr),
    /// Dial this kept peer.
    Kept(PeerId),
    /// Dial this peer of earlier days.
    Known(PeerId),
    /// Ask the directory who is near us.
    LookAround,
}

#[derive(Debug)]
struct Bootstrap {
    address: Multiaddr,
    /// Who answered there, or who is said to.
    peer: Option<PeerId>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Discovery {
    bootstrap: Vec<Bootstrap>,
    kept: HashSet<PeerId>,
    dials: Schedule<Target>,
    looks: Schedule<()>,
    last_look: Option<Instant>,
    min_peers: usize,
    /// Peers of earlier days, in the order in which they are tried, again and again.
    known: VecDeque<PeerId>,
    /// Nobody was connected when it was last looked.
    alone: bool,
}

/// Peers of earlier days tried at once.
const KNOWN_AT_ONCE: usize = 4;

impl Discovery {
    /// Tries each bootstrap address at once.
    pub(crate) fn new(bootstrap: Vec<Multiaddr>, min_peers: usize, now: Instant) -> Self {
        let mut dials = Schedule::new(FIRST, LAST);
        let distinct: BTreeSet<Vec<u8>> = bootstrap.iter().map(Multiaddr::to_vec).collect();
        let bootstrap: Vec<Bootstrap> = distinct
            .into_iter()
            .filter_map(|bytes| Multiaddr::try_from(bytes).ok())
            .map(|address| Bootstrap { peer: peer_of(&address), address })
            .collect();
        for index in 0..bootstrap.len() {
            dials.want(Target::Bootstrap(index), now);
        }
        Self {
            bootstrap,
            kept: HashSet::new(),
            dials,
            looks: Schedule::new(EAGER, LAST),
            last_look: None,
            min_peers,
            known: VecDeque::new(),
            alone: true,
        }
    }

    /// Begins with peers of earlier days, too.
    pub(crate) fn knows(&mut self, peers: impl IntoIterator<Item = PeerId>, now: Instant) {
        self.known.extend(peers);
        if !self.known.is_empty() {
            self.looks.want((), now);
        }
    }

    /// What is due, given who is connected.
    pub(crate) fn due(
        &mut self,
        now: Instant,
        jitter: f64,
        peers: usize,
        is_connected: impl Fn(&PeerId) -> bool,
    ) -> Vec<Attempt> {
        self.alone = peers == 0;
        let mut attempts = Vec::new();
        for target in self.dials.due(now) {
            match target {
                Target::Kept(peer) => {
                    if is_connected(&peer) {
                        self.dials.succeeded(&target);
                    } else {
                        attempts.push(Attempt::Kept(peer));
                    }
                }
                Target::Bootstrap(index) => {
                    let Some(entry) = self.bootstrap.get(index) else {
                        continue;
                    };
                    if entry.peer.as_ref().is_some_and(&is_connected) {
                        self.dials.succeeded(&target);
                    } else if peers >= self.min_peers {
                        self.dials.want(target, now + LAST);
                    } else {
                        attempts.push(Attempt::Bootstrap(index, entry.address.clone()));
                    }
                }
            }
        }
        if !self.looks.due(now).is_empty() {
            self.look(now, jitter, peers, &mut attempts);
            if peers < self.min_peers {
                self.try_known(&mut attempts, &is_connected);
            }
        }
        attempts
    }

    fn try_known(&mut self, attempts: &mut Vec<Attempt>, is_connected: impl Fn(&PeerId) -> bool) {
        let mut tried = 0;
        for _ in 0..self.known.len() {
            if tried == KNOWN_AT_ONCE {
                break;
            }
            let Some(peer) = self.known.pop_front() else { break };
            self.known.push_back(peer);
            if !is_connected(&peer) {
                tried += 1;
                attempts.push(Attempt::Known(peer));
            }
        }
    }

    /// Looks around, unless there are peers enough and it was done a short while ago: peers come and go all the time.
    fn look(&mut self, now: Instant, jitter: f64, peers: usize, attempts: &mut Vec<Attempt>) {
        let enough = peers >= self.min_peers;
        let calm_until = self.last_look.map(|at| at + CALM).filter(|at| *at > now);
        if let Some(until) = calm_until
            && enough
        {
            self.looks.want((), until);
            return;
        }
        attempts.push(Attempt::LookAround);
        self.last_look = Some(now);
        if enough {
            self.looks.want((), now + CALM);
        } else {
            self.looks.failed((), now, jitter);
        }
    }

    /// A dial ended without a peer of this network.
    pub(crate) fn failed(&mut self, target: Target, now: Instant, jitter: f64) {
        if self.dials.contains(&target) {
            self.dials.failed(target, now, jitter);
            if self.alone {
                self.dials.want(target, now + ALONE.mul_f64(0.75 + 0.5 * jitter));
            }
        }
    }

    /// A bootstrap address turned out to be this node's own: it is never tried again.
    pub(crate) fn own_address(&mut self, target: Target) {
        self.dials.remove(&target);
    }

    /// A peer of this network is connected, perhaps by dialling `target`.
    pub(crate) fn connected(&mut self, peer: PeerId, target: Option<Target>, now: Instant) {
        self.dials.succeeded(&Target::Kept(peer));
        if let Some(target) = target {
            self.dials.succeeded(&target);
            if let Target::Bootstrap(index) = target
                && let Some(entry) = self.bootstrap.get_mut(index)
            {
                entry.peer = Some(peer);
            }
        }
        self.looks.succeeded(&());
        self.looks.want((), now + SETTLE);
    }

    /// The last connection of a peer is gone.
    pub(crate) fn disconnected(&mut self, peer: PeerId, now: Instant, jitter: f64) {
        // A quarter of a second, spread: a peer that restarts is not met by all its peers at once.
        let soon = now + Duration::from_millis(250).mul_f64(jitter);
        if self.kept.contains(&peer) {
            self.dials.want(Target::Kept(peer), soon);
        }
        for (index, entry) in self.bootstrap.iter().enumerate() {
            if entry.peer == Some(peer) {
                self.dials.want(Target::Bootstrap(index), soon + FIRST);
            }
        }
    }

    /// Stays in touch with `peer`: dials it now if it is not connected, and whenever its last connection goes.
    pub(crate) fn keep(&mut self, peer: PeerId, connected: bool, now: Instant) {
        self.kept.insert(peer);
        if !connected {
            self.dials.want(Target::Kept(peer), now);
        }
    }

    /// An address of `peer` was learned: a kept peer is tried at once instead of when its backoff ends.
    pub(crate) fn learned(&mut self, peer: PeerId, now: Instant) {
        if self.kept.contains(&peer) {
            self.dials.want(Target::Kept(peer), now);
        }
    }

    /// No longer stays in touch with `peer`.
    pub(crate) fn unkeep(&mut self, peer: &PeerId) {
        self.kept.remove(peer);
        self.dials.remove(&Target::Kept(*peer));
    }

    /// Whether `peer` is kept.
    pub(crate) fn is_kept(&self, peer: &PeerId) -> bool {
        self.kept.contains(peer)
    }

    /// When something is due next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        [self.dials.deadline(), self.looks.deadline()].into_iter().flatten().min()
    }
}

/// The peer that an address names at its end.
pub(crate) fn peer_of(address: &Multiaddr) -> Option<PeerId> {
    match address.iter().last() {
        Some(Protocol::P2p(peer)) => Some(peer),
        Some(_) | None => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn discovery(min_peers: usize, now: Instant) -> Discovery {
        let address: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().unwrap();
        Discovery::new(vec![address.clone(), address], min_peers, now)
    }

    #[test]
    fn a_bootstrap_address_is_tried_for_ever_while_peers_are_few() {
        let mut now = Instant::now();
        let mut discovery = discovery(2, now);
        for _ in 0..50 {
            let attempts = discovery.due(now, 0.5, 0, |_| false);
            assert_eq!(attempts.len(), 1, "one, though given twice: {attempts:?}");
            discovery.failed(Target::Bootstrap(0), now, 0.5);
            let next = discovery.deadline().unwrap();
            assert!(next - now <= LAST);
            now = next;
        }
        assert!(discovery.due(now, 0.5, 2, |_| false).is_empty());
        assert!(discovery.deadline().is_some(), "it is looked at again later");
    }

    #[test]
    fn who_is_cut_off_is_back_soon_after_the_line_is() {
        let mut now = Instant::now();
        let mut discovery = discovery(2, now);
        for peers in [0, 1] {
            for _ in 0..20 {
                discovery.due(now, 0.5, peers, |_| false);
                discovery.failed(Target::Bootstrap(0), now, 0.5);
                now = discovery.dials.deadline().unwrap();
            }
            let (before, most) = (now, if peers == 0 { ALONE } else { LAST });
            discovery.due(now, 0.5, peers, |_| false);
            discovery.failed(Target::Bootstrap(0), now, 0.5);
            assert_eq!(discovery.dials.deadline(), Some(before + most));
        }
    }

    #[test]
    fn a_bootstrap_peer_that_goes_is_dialled_again_and_ourselves_never() {
        let now = Instant::now();
        let mut discovery = discovery(2, now);
        let peer = PeerId::random();
        assert_eq!(discovery.due(now, 0.5, 0, |_| false).len(), 1);
        discovery.connected(peer, Some(Target::Bootstrap(0)), now);
        let looks = discovery.due(now + SETTLE, 0.5, 1, |p| *p == peer);
        assert_eq!(looks, [Attempt::LookAround]);
        discovery.disconnected(peer, now, 0.0);
        let later = discovery.due(now + FIRST, 0.5, 0, |_| false);
        assert!(later.iter().any(|a| matches!(a, Attempt::Bootstrap(0, _))));
        discovery.own_address(Target::Bootstrap(0));
        discovery.failed(Target::Bootstrap(0), now, 0.5);
        let never = discovery.due(now + LAST * 9, 0.5, 0, |_| false);
        assert!(!never.iter().any(|a| matches!(a, Attempt::Bootstrap(..))));
    }

    #[test]
    fn with_peers_enough_it_looks_around_once_in_a_while() {
        let mut now = Instant::now();
        let start = now;
        let mut discovery = Discovery::new(Vec::new(), 1, now);
        let mut looks = 0;
        while now < start + CALM * 3 {
            discovery.connected(PeerId::random(), None, now);
            now += SETTLE;
            looks += discovery.due(now, 0.5, 5, |_| true).len();
        }
        assert_eq!(looks, 3);
    }

    #[test]
    fn peers_of_earlier_days_are_tried_in_turn_while_peers_are_few() {
        let mut now = Instant::now();
        let mut discovery = Discovery::new(Vec::new(), 2, now);
        let peers: Vec<PeerId> = (0..10).map(|_| PeerId::random()).collect();
        discovery.knows(peers.clone(), now);
        let mut tried = Vec::new();
        for _ in 0..3 {
            let attempts = discovery.due(now, 0.5, 0, |p| *p == peers[0]);
            tried.extend(attempts.into_iter().filter_map(|a| match a {
                Attempt::Known(peer) => Some(peer),
                Attempt::Bootstrap(..) | Attempt::Kept(_) | Attempt::LookAround => None,
            }));
            now = discovery.deadline().unwrap();
        }
        assert_eq!(tried[..9], peers[1..], "each once, and nobody who is connected");
        let enough = discovery.due(now, 0.5, 2, |_| false);
        assert!(!enough.iter().any(|a| matches!(a, Attempt::Known(_))));
    }

    #[test]
    fn a_kept_peer_is_dialled_until_it_is_let_go() {
        let now = Instant::now();
        let mut discovery = Discovery::new(Vec::new(), 0, now);
        let peer = PeerId::random();
        discovery.keep(peer, true, now);
        assert_eq!(discovery.deadline(), None);
        discovery.disconnected(peer, now, 1.0);
        let soon = now + Duration::from_millis(250);
        assert_eq!(discovery.due(soon, 0.5, 0, |_| false), [Attempt::Kept(peer)]);
        discovery.failed(Target::Kept(peer), soon, 0.5);
        assert_eq!(discovery.deadline(), Some(soon + FIRST));
        discovery.learned(peer, soon);
        assert_eq!(discovery.deadline(), Some(soon));
        discovery.unkeep(&peer);
        assert_eq!(discovery.deadline(), None);
        discovery.disconnected(peer, now, 1.0);
        assert_eq!(discovery.deadline(), None);
    }
}
