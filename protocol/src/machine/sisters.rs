//! The other machines of this node's owner: which there are, and which have gone without a word.
//!
//! A machine is online while its offer holds and its node is not lost. A node is lost when a connection we had to it has been gone
//! for a while and no younger offer says that it lives. A withdrawn machine is unlisted, and nothing is said of its going.
//! Owns what is remembered of each machine; what is offered is the book's.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::book::MachineKey;
use crate::{HostId, MachineId, Millis, NodeId, OwnerId, Timestamp, Verified, limits, offer::Offer};

/// How a machine is, as seen from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SisterState {
    /// It is offered, and its node lives as far as we know.
    Online,
    /// Its host has taken it off the market.
    Unlisted,
    /// It went without a word.
    Offline,
    /// It has not been seen since this node started.
    Unseen,
}

/// One machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sister {
    /// How it is.
    pub state: SisterState,
    /// When its last offer was made, or its node last connected; none if never.
    pub seen_at: Option<Timestamp>,
}

/// Something that happened to a machine of the same owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SisterEvent {
    /// Its node.
    pub node: NodeId,
    /// The machine.
    pub machine: MachineId,
    /// Whether it is back; else it has gone.
    pub online: bool,
    /// When it was last seen.
    pub seen_at: Option<Timestamp>,
}

/// All of them.
#[derive(Debug)]
pub struct Sisters {
    me: NodeId,
    owner: Option<OwnerId>,
    offline_after: Millis,
    machines: BTreeMap<MachineKey, Sister>,
    connected: BTreeSet<NodeId>,
    /// Nodes that we were connected to, and since when we are not.
    lost: BTreeMap<NodeId, Timestamp>,
    /// Nodes known by a membership only, their machines not yet.
    members: BTreeSet<NodeId>,
}

impl Sisters {
    /// Of a node that belongs to nobody yet. A lost node's machines are offline after this long.
    #[must_use]
    pub const fn new(me: NodeId, offline_after: Millis) -> Self {
        Self {
            me,
            owner: None,
            offline_after,
            machines: BTreeMap::new(),
            connected: BTreeSet::new(),
            lost: BTreeMap::new(),
            members: BTreeSet::new(),
        }
    }

    /// Whose machines these are.
    #[must_use]
    pub const fn owner(&self) -> Option<OwnerId> {
        self.owner
    }

    /// From now on machines of this owner are looked after. Another one's are forgotten.
    pub fn look_after(&mut self, owner: Option<OwnerId>) {
        if self.owner != owner {
            self.owner = owner;
            self.machines.clear();
            self.lost.clear();
            self.members.clear();
        }
    }

    /// A machine known from an earlier run, last seen then. Whether there was room for it.
    pub fn remember(&mut self, key: MachineKey, seen_at: Option<Timestamp>) -> bool {
        if self.owner.is_none() || key.0 == self.me {
            return false;
        }
        if !self.machines.contains_key(&key) && !self.has_room() {
            return false;
        }
        self.machines.entry(key).or_insert(Sister { state: SisterState::Unseen, seen_at });
        true
    }

    /// A node that was made a member, with a machine that we may not know yet. Whether there was room for it.
    pub fn expect(&mut self, node: NodeId) -> bool {
        let takes = self.owner.is_some() && node != self.me && (self.members.contains(&node) || self.has_room());
        if takes {
            self.members.insert(node);
        }
        takes
    }

    /// A machine, or a node, is none of the owner's any more.
    pub fn forget(&mut self, node: &NodeId, machine: Option<&MachineId>) {
        self.machines.retain(|(n, m), _| n != node || machine.is_some_and(|wanted| wanted != m));
        if machine.is_none() {
            self.members.remove(node);
        }
        if self.nodes().all(|n| n != *node) {
            self.lost.remove(node);
        }
    }

    fn has_room(&self) -> bool {
        self.machines.len() + self.members.len() < limits::SISTERS
    }

    /// All machines, in the order of node and machine.
    pub fn machines(&self) -> impl Iterator<Item = (&MachineKey, &Sister)> {
        self.machines.iter()
    }

    /// All nodes, also those whose machines are not known. A node comes once for each machine.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.machines.keys().map(|(node, _)| *node).chain(self.members.iter().copied())
    }

    /// Nodes whose machines are not known.
    pub fn machineless(&self) -> impl Iterator<Item = NodeId> {
        self.members.iter().copied().filter(|node| !self.machines.keys().any(|(n, _)| n == node))
    }

    /// A machine's newest offer. Says whether a machine came or went with it, and what happened.
    pub fn offered(&mut self, offer: &Verified<Offer>) -> (bool, Option<SisterEvent>) {
        let key = (offer.host, offer.machine);
        if key.0 == self.me || self.owner.is_none_or(|owner| offer.host_id() != HostId::Owner(owner)) {
            // Its host carries our owner's membership no more, or never did: what the owner signed stays expected.
            return (self.machines.remove(&key).is_some(), None);
        }
        let new = !self.machines.contains_key(&key);
        if new && !self.has_room() {
            return (false, None);
        }
        if self.lost.get(&key.0).is_some_and(|since| offer.issued_at > *since) {
            self.lost.remove(&key.0);
        }
        let lost = self.lost.contains_key(&key.0);
        let sister = self.machines.entry(key).or_insert(Sister { state: SisterState::Unseen, seen_at: None });
        let before = sister.state;
        sister.seen_at = sister.seen_at.max(Some(offer.issued_at));
        // An offer from before the loss, which another peer had kept, says nothing of today.
        if !(lost && before == SisterState::Offline) {
            sister.state = SisterState::Online;
        }
        let back = before == SisterState::Offline && sister.state == SisterState::Online;
        (new, back.then(|| event(&key, sister)))
    }

    /// A machine is in the book no more, or withdrawn there.
    pub fn gone(&mut self, key: &MachineKey, withdrawn: bool) -> Option<SisterEvent> {
        let sister = self.machines.get_mut(key)?;
        let before = sister.state;
        sister.state = match (withdrawn, before) {
            (true, _) | (false, SisterState::Unlisted) => SisterState::Unlisted,
            (false, SisterState::Unseen) => SisterState::Unseen,
            (false, SisterState::Online | SisterState::Offline) => SisterState::Offline,
        };
        (before == SisterState::Online && sister.state == SisterState::Offline).then(|| event(key, sister))
    }

    /// A node is connected. `offered` says which of its machines have an offer in the book.
    pub fn connected(
        &mut self,
        node: NodeId,
        offered: impl Fn(&MachineKey) -> bool,
        now: Timestamp,
    ) -> Vec<SisterEvent> {
        self.connected.insert(node);
        self.lost.remove(&node);
        let mut events = Vec::new();
        for (key, sister) in self.machines.iter_mut().filter(|((n, _), _)| *n == node) {
            sister.seen_at = sister.seen_at.max(Some(now));
            if sister.state == SisterState::Offline && offered(key) {
                sister.state = SisterState::Online;
                events.push(event(key, sister));
            }
        }
        events
    }

    /// A node's last connection is gone.
    pub fn disconnected(&mut self, node: NodeId, now: Timestamp) {
        if self.connected.remove(&node) && self.nodes().any(|n| n == node) {
            self.lost.insert(node, now);
            for (_, sister) in self.machines.iter_mut().filter(|((n, _), _)| *n == node) {
                sister.seen_at = sister.seen_at.max(Some(now));
            }
        }
    }

    /// Machines that are offline from now on: their nodes have been lost for too long.
    pub fn tick(&mut self, now: Timestamp) -> Vec<SisterEvent> {
        let mut events = Vec::new();
        for since in self.lost.values_mut() {
            // The clock went back: it is counted again from now.
            *since = (*since).min(now);
        }
        let (lost, after) = (&self.lost, self.offline_after);
        for (key, sister) in &mut self.machines {
            let overdue = lost.get(&key.0).is_some_and(|since| now.since(*since) >= after);
            if overdue && sister.state == SisterState::Online {
                sister.state = SisterState::Offline;
                events.push(event(key, sister));
            }
        }
        events
    }
}

const fn event(key: &MachineKey, sister: &Sister) -> SisterEvent {
    let online = matches!(sister.state, SisterState::Online);
    SisterEvent { node: key.0, machine: key.1, online, seen_at: sister.seen_at }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        machine::testkit::{NOW, key, network, offer},
        owner::Membership,
    };

    const AFTER: Millis = Millis::from_secs(90);

    fn of(host: u8, owner: u8, seq: u64, issued_at: Timestamp) -> Verified<Offer> {
        let membership = Membership {
            owner: OwnerId(key(owner).node_id().0),
            node: key(host).node_id(),
            machine: None,
            issued_at: NOW,
            valid_until: NOW + Millis::from_hours(10),
        };
        let membership = Verified::sign(membership, &key(owner), &network()).unwrap().to_signed();
        let offer = Offer { membership: Some(membership), ..offer(host, seq, issued_at) };
        Verified::sign(offer, &key(host), &network()).unwrap()
    }

    fn watcher() -> Sisters {
        let mut sisters = Sisters::new(key(1).node_id(), AFTER);
        sisters.look_after(Some(OwnerId(key(9).node_id().0)));
        sisters
    }

    fn state(sisters: &Sisters) -> SisterState {
        sisters.machines().next().unwrap().1.state
    }

    #[test]
    fn only_machines_of_the_same_owner_count_and_not_our_own() {
        let mut sisters = watcher();
        for offer in [of(1, 9, 1, NOW), of(2, 8, 1, NOW)] {
            assert_eq!(sisters.offered(&offer), (false, None));
        }
        let alone = Verified::sign(offer(3, 1, NOW), &key(3), &network()).unwrap();
        assert_eq!(sisters.offered(&alone), (false, None));
        assert_eq!(sisters.machines().count(), 0);
        assert_eq!(sisters.offered(&of(2, 9, 1, NOW)), (true, None));
        assert_eq!(sisters.offered(&of(2, 9, 2, NOW)), (false, None), "known by now");
        // It belongs to nobody any more.
        let left = Verified::sign(offer(2, 3, NOW), &key(2), &network()).unwrap();
        assert_eq!(sisters.offered(&left), (true, None));
        assert_eq!(sisters.machines().count(), 0);
    }

    #[test]
    fn a_lost_connection_is_news_after_a_while_and_its_return_at_once() {
        let mut sisters = watcher();
        let node = key(2).node_id();
        sisters.offered(&of(2, 9, 1, NOW));
        assert!(sisters.connected(node, |_| true, NOW).is_empty());
        sisters.disconnected(node, NOW);
        assert!(sisters.tick(NOW + Millis(AFTER.0 - 1)).is_empty());
        let gone = sisters.tick(NOW + AFTER);
        assert!(matches!(gone[..], [SisterEvent { online: false, .. }]));
        assert!(sisters.tick(NOW + AFTER + AFTER).is_empty(), "said once");
        // What another peer still had of it is no sign of life; an offer from after the loss is.
        assert_eq!(sisters.offered(&of(2, 9, 2, NOW)), (false, None));
        let (_, back) = sisters.offered(&of(2, 9, 3, NOW + Millis(1)));
        assert!(back.unwrap().online);
        assert!(sisters.tick(NOW + AFTER + AFTER).is_empty());
    }

    #[test]
    fn a_short_loss_and_a_withdrawn_machine_are_no_news() {
        let mut sisters = watcher();
        let node = key(2).node_id();
        let machine = (node, crate::MachineId([1; 16]));
        sisters.offered(&of(2, 9, 1, NOW));
        sisters.connected(node, |_| true, NOW);
        sisters.disconnected(node, NOW);
        sisters.connected(node, |_| true, NOW + Millis(1));
        assert!(sisters.tick(NOW + AFTER + AFTER).is_empty());
        assert_eq!(sisters.gone(&machine, true), None);
        assert_eq!(state(&sisters), SisterState::Unlisted);
        sisters.disconnected(node, NOW);
        assert!(sisters.tick(NOW + AFTER).is_empty());
        assert_eq!(sisters.gone(&machine, false), None, "the tombstone has gone from the book");
        assert_eq!(state(&sisters), SisterState::Unlisted);
    }

    #[test]
    fn an_offer_that_ends_is_news_and_a_clock_that_goes_back_is_not() {
        let mut sisters = watcher();
        let node = key(2).node_id();
        let machine = (node, crate::MachineId([1; 16]));
        sisters.offered(&of(2, 9, 1, NOW));
        assert!(!sisters.gone(&machine, false).unwrap().online);
        assert!(sisters.gone(&machine, false).is_none());
        assert!(sisters.offered(&of(2, 9, 2, NOW)).1.unwrap().online);
        sisters.connected(node, |_| true, NOW);
        sisters.disconnected(node, NOW);
        let earlier = Timestamp(NOW.0 - Millis::from_hours(1).0);
        assert!(sisters.tick(earlier).is_empty());
        assert_eq!(sisters.tick(earlier + AFTER).len(), 1);
    }

    #[test]
    fn memory_is_bounded() {
        let mut sisters = watcher();
        for n in 0..2 * limits::SISTERS as u32 {
            let mut machine = [0; 16];
            machine[..4].copy_from_slice(&n.to_be_bytes());
            sisters.remember((key(2).node_id(), MachineId(machine)), None);
        }
        assert_eq!(sisters.machines().count(), limits::SISTERS);
        assert!(!sisters.expect(key(3).node_id()));
        sisters.forget(&key(2).node_id(), None);
        assert!(sisters.expect(key(3).node_id()));
        assert_eq!(sisters.machineless().count(), 1);
    }
}
