//! Whom the owner of this node wants nothing to do with.
//!
//! A blocked peer gets one answer to everything, [`RejectCode::Blocked`], but for what concerns a lease that is open already:
//! its receipts go on, or both sides would lose what they are owed. Owns the rule; who is blocked is in the ledger.

use std::collections::BTreeSet;

use crate::{
    NodeId,
    id::MachineId,
    message::Request,
    negotiation::{Reject, RejectCode},
    offer::Offer,
    owner::HostId,
};

use super::book::Book;

/// The nodes and owners that are blocked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Regard {
    blocked: BTreeSet<HostId>,
}

impl Regard {
    /// These are blocked, and nobody else.
    #[must_use]
    pub fn new(blocked: impl IntoIterator<Item = HostId>) -> Self {
        Self { blocked: blocked.into_iter().collect() }
    }

    /// Whether anybody is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blocked.is_empty()
    }

    /// Whether this offer is of somebody blocked: its node, or the owner it names.
    #[must_use]
    pub fn blocks_offer(&self, offer: &Offer) -> bool {
        self.blocked.contains(&HostId::Node(offer.host)) || self.blocked.contains(&offer.host_id())
    }

    /// Whether a node is blocked, itself or because one of its machines on the market belongs to a blocked owner.
    #[must_use]
    pub fn blocks(&self, node: &NodeId, book: &Book) -> bool {
        !self.is_empty()
            && (self.blocked.contains(&HostId::Node(*node)) || book.offers_of(node).any(|o| self.blocks_offer(o)))
    }

    /// The answer to a blocked peer; none where its question is answered like anybody's.
    #[must_use]
    pub fn refusal(&self, from: &NodeId, request: &Request, book: &Book) -> Option<Reject> {
        let new_business = match request {
            Request::BookSummary
            | Request::BookPage { .. }
            | Request::BookFetch { .. }
            | Request::Propose(_)
            | Request::Amend { .. }
            | Request::Quote { .. }
            | Request::AskExtension { .. }
            | Request::Order(_)
            | Request::Login(_)
            | Request::Evidence { .. } => true,
            // A draft that was signed before the block is honoured for the minute that it holds.
            Request::Commit { .. }
            | Request::Meet(_)
            | Request::Recall { .. }
            | Request::Control { .. }
            | Request::Update(_)
            | Request::Sync { .. }
            | Request::Deliver { .. }
            | Request::Opinion { .. } => false,
        };
        (new_business && self.blocks(from, book))
            .then(|| Reject::lasting(RejectCode::Blocked, "the owner of this node has blocked you"))
    }
}

/// The first and the last machine that a node could have.
pub(super) const fn machines_of(node: NodeId) -> std::ops::RangeInclusive<(NodeId, MachineId)> {
    (node, MachineId([0; 16]))..=(node, MachineId([u8::MAX; 16]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        LeaseId, Timestamp,
        id::Nonce,
        machine::testkit::{NOW, key},
        message::Action,
    };

    fn book() -> Book {
        Book::new(crate::NetworkId::of_name("tests"), 8)
    }

    #[test]
    fn nobody_is_blocked_unless_named() {
        let (friend, foe) = (key(1).node_id(), key(2).node_id());
        let regard = Regard::new([HostId::Node(foe)]);
        assert_eq!(Regard::default().refusal(&foe, &Request::BookSummary, &book()), None);
        assert_eq!(regard.refusal(&friend, &Request::BookSummary, &book()), None);
        let told = regard.refusal(&foe, &Request::BookSummary, &book()).unwrap();
        assert_eq!((told.code, told.is_final), (RejectCode::Blocked, true));
    }

    #[test]
    fn open_leases_go_on_and_get_no_longer() {
        let foe = key(2).node_id();
        let regard = Regard::new([HostId::Node(foe)]);
        let lease = LeaseId([7; 32]);
        let told = |request: &Request| regard.refusal(&foe, request, &book()).is_some();
        assert!(!told(&Request::Sync { lease, events_seen: 0 }));
        assert!(!told(&Request::Control { lease, action: Action::Destroy, nonce: Nonce([1; 16]) }));
        let ends_at: Timestamp = NOW;
        assert!(told(&Request::AskExtension { lease, ends_at }));
    }
}
