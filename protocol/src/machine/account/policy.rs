//! What the owner of a node has said about money: whom it lets be unpaid and how far, and how far it pays ahead itself.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    id::NodeId,
    money::{Amount, Currency},
    payment::PayWhen,
    time::Millis,
};

/// Both sides of a node's rules about money. The default asks for nothing and pays one slice ahead at most.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AccountPolicy {
    /// As a host.
    pub lending: Lending,
    /// As a renter.
    pub paying: Paying,
}

/// How a host is paid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lending {
    /// The methods it takes, the one it prefers first, at most [`crate::payment::METHODS`]. Empty: nobody is asked for payment;
    /// balances are kept all the same.
    pub methods: Vec<String>,
    /// Currencies in which payments are taken though nothing is offered in them now: the node's own.
    pub currencies: BTreeSet<Currency>,
    /// When strangers pay; none for never.
    pub strangers: Option<PayWhen>,
    /// When peers that are known pay; none for never.
    pub known: Option<PayWhen>,
    /// Peers that are no strangers.
    pub peers: BTreeSet<NodeId>,
    /// How far a peer may be unpaid, whatever its slice. A peer with a line pays after use.
    pub lines: BTreeMap<(NodeId, Currency), Amount>,
    /// Peers that never pay: the owner's own machines, friends.
    pub free: BTreeSet<NodeId>,
    /// How much use, at a lease's price, its first slice is worth.
    pub slice: Millis,
    /// The most that a first slice is; none for no cap.
    pub slice_most: Option<Amount>,
    /// Slots times milliseconds of unpaid use that all strangers together get in a day of 24 h.
    pub pot: u64,
    /// How long what is stopped for money is kept before its disk is destroyed.
    pub keep: Millis,
    /// What becomes of a difference that a renter does not acknowledge for [`crate::limits::DISPUTED`].
    pub disputed: Disputed,
}

impl Default for Lending {
    fn default() -> Self {
        Self {
            methods: Vec::new(),
            currencies: BTreeSet::new(),
            strangers: Some(PayWhen::Before),
            known: Some(PayWhen::After),
            peers: BTreeSet::new(),
            lines: BTreeMap::new(),
            free: BTreeSet::new(),
            slice: crate::limits::FIRST_SLICE,
            slice_most: None,
            pot: 30 * Millis::from_mins(1).0,
            keep: crate::limits::DISK_KEPT,
            disputed: Disputed::default(),
        }
    }
}

impl Lending {
    /// When a peer pays; none for never.
    #[must_use]
    pub fn when(&self, peer: &NodeId, currency: &Currency) -> Option<PayWhen> {
        if self.methods.is_empty() || self.free.contains(peer) {
            return None;
        }
        if self.line(peer, currency).is_some() {
            return Some(PayWhen::After);
        }
        if self.peers.contains(peer) { self.known } else { self.strangers }
    }

    /// How far a peer may be unpaid whatever its slice.
    #[must_use]
    pub fn line(&self, peer: &NodeId, currency: &Currency) -> Option<Amount> {
        self.lines.get(&(*peer, currency.clone())).copied()
    }

    /// Whether what this peer leaves unpaid comes out of the strangers' pot, if it has never paid anything.
    #[must_use]
    pub fn is_stranger(&self, peer: &NodeId, currency: &Currency) -> bool {
        !self.peers.contains(peer) && self.line(peer, currency).is_none()
    }
}

/// What a host does about a difference that its renter does not acknowledge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Disputed {
    /// Waives what is not acknowledged, and goes on.
    #[default]
    Waive,
    /// Ends the lease.
    Close,
}

/// How a renter pays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Paying {
    /// The most that is paid ahead to one host beyond what it has delivered; none for the account's own slice.
    pub ahead_most: BTreeMap<Currency, Amount>,
}
