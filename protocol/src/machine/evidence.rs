//! Whom to ask for evidence and when, how much of it to take, and how much to give.
//!
//! A peer is asked about itself only: each node shows the leases it is a party of, so second-hand evidence is never taken. Peers
//! that a person looks at come first; the others in turn, at a low rate. Bytes and signatures are budgeted by the minute, for
//! each peer and in all: what is over the budget waits, and a peer whose evidence does not verify is left alone for a day.
//!
//! Owns the plan and the budgets; asking, verifying and keeping are the shell's.

use std::collections::BTreeMap;

use crate::{Millis, NodeId, Timestamp};

/// Peers whose evidence is planned for. Beyond it the one asked longest ago goes.
pub const PEERS: usize = 4096;
/// Questions under way at once.
pub const UNDER_WAY: usize = 4;
/// Pages taken from one peer in one go: the newest [`crate::evidence::PAGE_LEASES`] leases each.
pub const PAGES: u32 = 8;
/// After a whole answer a peer is asked again so much later …
pub const AGAIN: Millis = Millis::from_hours(6);
/// … and if somebody looks at it, so much later.
pub const AGAIN_WANTED: Millis = Millis::from_mins(2);
/// After no answer, or a refusal.
pub const RETRY: Millis = Millis::from_mins(10);
/// After evidence that does not verify.
pub const BANNED: Millis = Millis::from_hours(24);
/// Between two questions to peers that nobody looks at.
pub const BACKGROUND: Millis = Millis::from_secs(30);
/// Bytes taken in a minute, from all peers.
pub const BYTES: u64 = 8 * 1024 * 1024;
/// Signatures checked in a minute, of all peers: some tenths of a second of one core.
pub const SIGNATURES: u64 = 6_000;
/// Bytes taken in a minute, from one peer.
pub const PEER_BYTES: u64 = 2 * 1024 * 1024;
/// Signatures checked in a minute, of one peer.
pub const PEER_SIGNATURES: u64 = 1_500;
/// Pages given to one peer in a minute …
pub const GIVEN: u32 = 12;
/// … and to all.
pub const GIVEN_ALL: u32 = 240;

const MINUTE: Millis = Millis::from_mins(1);

/// What may be taken in the present minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Spent {
    minute: u64,
    bytes: u64,
    signatures: u64,
}

impl Spent {
    const fn at(self, now: Timestamp) -> Self {
        let minute = now.0 / MINUTE.0;
        if self.minute == minute { self } else { Self { minute, bytes: 0, signatures: 0 } }
    }

    const fn plus(self, bytes: u64, signatures: u64) -> Self {
        Self {
            minute: self.minute,
            bytes: self.bytes.saturating_add(bytes),
            signatures: self.signatures.saturating_add(signatures),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Peer {
    /// Somebody looks at it.
    wanted: bool,
    /// Not before.
    due: Timestamp,
    asked_at: Timestamp,
    spent: Spent,
}

/// A question under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pull {
    pages: u32,
    next: Option<u64>,
    waiting: bool,
}

/// Why evidence was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// Nobody asked for it.
    #[error("it was not asked for")]
    Unasked,
    /// Too much in a minute.
    #[error("it is over what is looked at in a minute")]
    Budget,
}

/// A question to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// Whom.
    pub peer: NodeId,
    /// Where the page before ended.
    pub before: Option<u64>,
}

/// Whom we ask.
#[derive(Debug, Default)]
pub struct Puller {
    peers: BTreeMap<NodeId, Peer>,
    pulls: BTreeMap<NodeId, Pull>,
    spent: Spent,
    background_at: Timestamp,
}

impl Puller {
    /// A peer that could be asked some time.
    pub fn known(&mut self, peer: NodeId, now: Timestamp) {
        self.peer(peer, now);
    }

    /// Somebody looks at this peer: it is asked soon, unless it was lately.
    pub fn want(&mut self, peer: NodeId, now: Timestamp) {
        let known = self.peer(peer, now);
        let banned = known.due.since(now) > AGAIN;
        known.wanted = true;
        if !banned {
            let earliest = if known.asked_at == Timestamp(0) { now } else { known.asked_at + AGAIN_WANTED };
            known.due = known.due.min(earliest);
        }
    }

    fn peer(&mut self, peer: NodeId, now: Timestamp) -> &mut Peer {
        if self.peers.len() >= PEERS && !self.peers.contains_key(&peer) {
            let idle = self.peers.iter().filter(|(id, _)| !self.pulls.contains_key(id));
            // One that is banned stays, or it would be a stranger again.
            let oldest = idle.min_by_key(|(_, p)| (p.due.since(now) > AGAIN, p.wanted, p.asked_at)).map(|(id, _)| *id);
            if let Some(oldest) = oldest {
                self.peers.remove(&oldest);
            }
        }
        let new = Peer { wanted: false, due: now, asked_at: Timestamp(0), spent: Spent::default() };
        self.peers.entry(peer).or_insert(new)
    }

    /// The next question to send, if there is one. `reachable` says whom asking makes sense.
    pub fn poll(&mut self, now: Timestamp, reachable: impl Fn(&NodeId) -> bool) -> Option<Ask> {
        let all = self.spent.at(now);
        if all.bytes >= BYTES || all.signatures >= SIGNATURES {
            return None;
        }
        let within = |peer: &Peer| {
            let spent = peer.spent.at(now);
            spent.bytes < PEER_BYTES && spent.signatures < PEER_SIGNATURES
        };
        let going = self.pulls.iter().find(|(id, pull)| !pull.waiting && self.peers.get(id).is_some_and(within));
        if let Some(peer) = going.map(|(id, _)| *id) {
            let pull = self.pulls.get_mut(&peer)?;
            pull.waiting = true;
            return Some(Ask { peer, before: pull.next });
        }
        if self.pulls.len() >= UNDER_WAY {
            return None;
        }
        // A clock that went back must not silence us for as long.
        self.background_at = self.background_at.min(now + BACKGROUND);
        let background = now >= self.background_at;
        let ready = self.peers.iter().filter(|(id, p)| {
            p.due <= now && (p.wanted || background) && within(p) && !self.pulls.contains_key(id) && reachable(id)
        });
        let (peer, wanted) = ready.min_by_key(|(_, p)| (!p.wanted, p.asked_at)).map(|(id, p)| (*id, p.wanted))?;
        if !wanted {
            self.background_at = now + BACKGROUND;
        }
        if let Some(known) = self.peers.get_mut(&peer) {
            known.asked_at = now;
            known.due = now + RETRY;
        }
        self.pulls.insert(peer, Pull { pages: 0, next: None, waiting: true });
        Some(Ask { peer, before: None })
    }

    /// A page came: may it be looked at?
    ///
    /// # Errors
    /// [`NotTaken`]; the rest of the peer's evidence waits for the next time.
    pub fn came(&mut self, peer: &NodeId, bytes: u64, signatures: u64, now: Timestamp) -> Result<(), NotTaken> {
        if !self.pulls.get(peer).is_some_and(|pull| pull.waiting) {
            return Err(NotTaken::Unasked);
        }
        let all = self.spent.at(now).plus(bytes, signatures);
        let Some(known) = self.peers.get_mut(peer) else { return Err(NotTaken::Unasked) };
        let own = known.spent.at(now).plus(bytes, signatures);
        // Bytes have come in any case; signatures are only checked within the budget.
        self.spent = Spent { signatures: self.spent.at(now).signatures, ..all };
        known.spent = Spent { signatures: known.spent.at(now).signatures, ..own };
        if own.signatures > PEER_SIGNATURES || all.signatures > SIGNATURES {
            self.pulls.remove(peer);
            return Err(NotTaken::Budget);
        }
        (self.spent, known.spent) = (all, own);
        Ok(())
    }

    /// A page was verified, `next` is where it ends.
    pub fn taken(&mut self, peer: &NodeId, next: Option<u64>, now: Timestamp) {
        let Some(pull) = self.pulls.get_mut(peer) else { return };
        pull.pages += 1;
        pull.waiting = false;
        // Pages must go back in time, or they would never end.
        let goes_on = next.is_some_and(|n| pull.next.is_none_or(|last| n < last)) && pull.pages < PAGES;
        pull.next = next;
        if !goes_on {
            self.pulls.remove(peer);
            if let Some(known) = self.peers.get_mut(peer) {
                (known.due, known.wanted) = (now + AGAIN, false);
            }
        }
    }

    /// It did not answer, or does not show its evidence.
    pub fn failed(&mut self, peer: &NodeId, now: Timestamp) {
        self.pulls.remove(peer);
        if let Some(known) = self.peers.get_mut(peer) {
            (known.due, known.wanted) = (now + RETRY, false);
        }
    }

    /// What it showed does not verify.
    pub fn lied(&mut self, peer: &NodeId, now: Timestamp) {
        self.pulls.remove(peer);
        if let Some(known) = self.peers.get_mut(peer) {
            (known.due, known.wanted) = (now + BANNED, false);
        }
    }
}

/// How much is given.
#[derive(Debug, Default)]
pub struct Giver {
    minute: u64,
    given: BTreeMap<NodeId, u32>,
    all: u32,
}

impl Giver {
    /// Whether a peer gets a page now; if not, the milliseconds to wait.
    ///
    /// # Errors
    /// How long it is to wait.
    pub fn admit(&mut self, peer: NodeId, now: Timestamp) -> Result<(), Millis> {
        let minute = now.0 / MINUTE.0;
        if minute != self.minute {
            *self = Self { minute, ..Self::default() };
        }
        let wait = Millis(MINUTE.0 - now.0 % MINUTE.0);
        // What is counted is bounded by what is given.
        if self.all >= GIVEN_ALL || self.given.get(&peer).is_some_and(|n| *n >= GIVEN) {
            return Err(wait);
        }
        self.all += 1;
        *self.given.entry(peer).or_insert(0) += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NOW: Timestamp = Timestamp(1_000 * 60_000);

    fn node(n: u8) -> NodeId {
        NodeId([n; 32])
    }

    fn all(_: &NodeId) -> bool {
        true
    }

    #[test]
    fn who_is_looked_at_comes_first_and_the_others_slowly() {
        let mut puller = Puller::default();
        for n in 1..=3 {
            puller.known(node(n), NOW);
        }
        puller.want(node(3), NOW);
        assert_eq!(puller.poll(NOW, all), Some(Ask { peer: node(3), before: None }));
        let background = puller.poll(NOW, all).unwrap();
        assert_ne!(background.peer, node(3));
        assert_eq!(puller.poll(NOW, all), None, "one stranger every half minute");
        assert!(puller.poll(NOW + BACKGROUND, all).is_some());
        assert_eq!(puller.poll(NOW + BACKGROUND + BACKGROUND, all), None, "everybody is asked");
    }

    #[test]
    fn pages_go_back_in_time_and_end() {
        let mut puller = Puller::default();
        puller.want(node(1), NOW);
        let mut next = None;
        let mut pages = 0;
        while let Some(ask) = puller.poll(NOW, all) {
            assert_eq!(ask.before, next);
            puller.came(&node(1), 1000, 10, NOW).unwrap();
            next = Some(1000 - pages);
            puller.taken(&node(1), next, NOW);
            pages += 1;
        }
        assert_eq!(pages, u64::from(PAGES), "an endless ledger is left alone");
        puller.want(node(2), NOW);
        assert!(puller.poll(NOW, all).is_some());
        puller.came(&node(2), 1, 1, NOW).unwrap();
        puller.taken(&node(2), Some(5), NOW);
        assert_eq!(puller.poll(NOW, all).unwrap().before, Some(5));
        puller.came(&node(2), 1, 1, NOW).unwrap();
        puller.taken(&node(2), Some(5), NOW);
        assert_eq!(puller.poll(NOW, all), None, "a page that does not go back is the last");
    }

    #[test]
    fn a_flood_is_not_looked_at() {
        let mut puller = Puller::default();
        assert_eq!(puller.came(&node(1), 1, 1, NOW), Err(NotTaken::Unasked));
        puller.want(node(1), NOW);
        puller.poll(NOW, all).unwrap();
        assert_eq!(puller.came(&node(1), 10, PEER_SIGNATURES + 1, NOW), Err(NotTaken::Budget));
        assert_eq!(puller.came(&node(1), 10, 1, NOW), Err(NotTaken::Unasked), "the question is over");
        // Bytes that came count, whoever sent them: then nobody is asked for the rest of the minute.
        for n in 2..=5 {
            puller.want(node(n), NOW);
            puller.poll(NOW, all).unwrap();
        }
        for n in 2..=5 {
            puller.came(&node(n), PEER_BYTES, 1, NOW).unwrap();
            puller.taken(&node(n), Some(9), NOW);
        }
        assert_eq!(puller.poll(NOW, all), None);
        assert!(puller.poll(NOW + MINUTE, all).is_some(), "it goes on where it was");
    }

    #[test]
    fn a_liar_is_left_alone_for_a_day_and_cannot_be_made_a_stranger_by_others() {
        let mut puller = Puller::default();
        puller.want(node(1), NOW);
        puller.poll(NOW, all).unwrap();
        puller.lied(&node(1), NOW);
        puller.want(node(1), NOW);
        assert_eq!(puller.poll(NOW + AGAIN, all), None);
        for n in 0..2 * PEERS as u64 {
            let mut id = [9; 32];
            id[..8].copy_from_slice(&n.to_be_bytes());
            puller.known(NodeId(id), NOW);
        }
        assert!(puller.peers.len() <= PEERS);
        assert_eq!(puller.peers[&node(1)].due, NOW + BANNED);
        let only_it = |peer: &NodeId| *peer == node(1);
        assert_eq!(puller.poll(NOW + BANNED, only_it).unwrap().peer, node(1));
    }

    #[test]
    fn nobody_takes_all_that_is_given() {
        let mut giver = Giver::default();
        let given = (0..100).filter(|_| giver.admit(node(1), NOW).is_ok()).count();
        assert_eq!(given, GIVEN as usize);
        assert!(giver.admit(node(2), NOW).is_ok());
        let others = (0..=255).flat_map(|n| std::iter::repeat_n(n, 20)).filter(|n| giver.admit(node(*n), NOW).is_ok());
        assert_eq!(others.count(), GIVEN_ALL as usize - given - 1);
        assert_eq!(giver.admit(node(1), NOW), Err(MINUTE));
        assert!(giver.admit(node(1), NOW + MINUTE).is_ok());
    }
}
