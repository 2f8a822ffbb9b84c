//! Which orders of its owner a node carries out, and that it carries out none twice.
//!
//! Owns the newest orders by time and id, and the time up to which all others are refused. The shell keeps that time across
//! restarts, so that an order that was carried out before one is not carried out again after it, whatever the clock says.

use std::collections::BTreeSet;

use crate::{
    DocumentId, NetworkId, NodeId, Timestamp, Verified, limits,
    negotiation::{Reject, RejectCode},
    owner::{Membership, OwnerOrder},
    signed::Signed,
};

/// The orders of one node.
#[derive(Debug)]
pub struct Orders {
    network: NetworkId,
    me: NodeId,
    membership: Option<Verified<Membership>>,
    /// What was given at this time or before is refused, unless it is younger than all that we have forgotten.
    forgotten: Timestamp,
    carried_out: BTreeSet<(Timestamp, DocumentId)>,
}

impl Orders {
    /// A node that has carried out orders given up to `newest`, in runs before this one.
    #[must_use]
    pub const fn new(network: NetworkId, me: NodeId, newest: Timestamp) -> Self {
        Self { network, me, membership: None, forgotten: newest, carried_out: BTreeSet::new() }
    }

    /// Who may give orders from now on.
    pub fn obey(&mut self, membership: Option<Verified<Membership>>) {
        self.membership = membership;
    }

    /// When the newest order so far was given. To be kept before the order is carried out.
    #[must_use]
    pub fn newest(&self) -> Timestamp {
        self.carried_out.last().map_or(self.forgotten, |(at, _)| *at)
    }

    /// Takes an order to carry out, now and once, whoever brought it.
    ///
    /// # Errors
    /// The refusal, for whoever brought it. Nothing was changed.
    pub fn admit(&mut self, order: &Signed<OwnerOrder>, now: Timestamp) -> Result<Verified<OwnerOrder>, Reject> {
        let refuse = |code, sentence: &str| Err(Reject::lasting(code, sentence));
        let Some(membership) = self.membership.as_ref().filter(|m| m.holds_at(now)) else {
            return refuse(RejectCode::NotAccepted, "this node belongs to no owner, or no longer");
        };
        let order = match order.verify(&self.network) {
            Ok(order) => order,
            Err(why) => return Err(Reject::lasting(RejectCode::Malformed, why.to_string())),
        };
        if order.owner != membership.owner {
            return refuse(RejectCode::NotAccepted, "this node belongs to another owner");
        }
        if order.to != self.me {
            return refuse(RejectCode::NotAccepted, "the order is for another node");
        }
        if order.issued_at > now + limits::CLOCK_SKEW {
            return refuse(RejectCode::Stale, "the order is from the future: the clocks of both machines differ");
        }
        if order.valid_until <= now {
            return refuse(RejectCode::Stale, "the order came too late, or the clocks of both machines differ");
        }
        let key = (order.issued_at, order.id());
        if order.issued_at <= self.forgotten || self.carried_out.contains(&key) {
            return refuse(RejectCode::Stale, "the order was carried out before, or a younger one was; give it again");
        }
        self.carried_out.insert(key);
        if self.carried_out.len() > limits::ORDERS_REMEMBERED
            && let Some((oldest, _)) = self.carried_out.pop_first()
        {
            self.forgotten = self.forgotten.max(oldest);
        }
        Ok(order)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::{
        Keypair, Millis, Nonce, OwnerId,
        machine::testkit::{NOW, key, network},
    };

    fn owner(seed: u8) -> OwnerId {
        OwnerId(key(seed).node_id().0)
    }

    fn membership(by: u8, node: u8) -> Verified<Membership> {
        let membership = Membership {
            owner: owner(by),
            node: key(node).node_id(),
            machine: None,
            issued_at: NOW,
            valid_until: NOW + Millis::from_hours(1),
        };
        Verified::sign(membership, &key(by), &network()).unwrap()
    }

    fn order(by: &Keypair, to: u8, n: u8, at: Timestamp) -> Signed<OwnerOrder> {
        signed_in(&network(), by, to, n, at)
    }

    fn signed_in(network: &NetworkId, by: &Keypair, to: u8, n: u8, at: Timestamp) -> Signed<OwnerOrder> {
        let order = OwnerOrder {
            owner: OwnerId(by.node_id().0),
            to: key(to).node_id(),
            order: b"{}".to_vec(),
            nonce: Nonce([n; 16]),
            issued_at: at,
            valid_until: at + Millis::from_mins(1),
        };
        Verified::sign(order, by, network).unwrap().to_signed()
    }

    /// Node 1 of owner 9.
    fn member() -> Orders {
        let mut orders = Orders::new(network(), key(1).node_id(), Timestamp(0));
        orders.obey(Some(membership(9, 1)));
        orders
    }

    fn code(result: Result<Verified<OwnerOrder>, Reject>) -> RejectCode {
        result.unwrap_err().code
    }

    #[test]
    fn only_the_owners_orders_to_this_node_in_this_network_in_time() {
        let mut orders = member();
        assert_eq!(code(orders.admit(&order(&key(8), 1, 0, NOW), NOW)), RejectCode::NotAccepted, "another owner");
        assert_eq!(code(orders.admit(&order(&key(9), 2, 0, NOW), NOW)), RejectCode::NotAccepted, "another node");
        let elsewhere = signed_in(&NetworkId::of_name("main"), &key(9), 1, 0, NOW);
        assert_eq!(code(orders.admit(&elsewhere, NOW)), RejectCode::Malformed, "another network");
        let good = order(&key(9), 1, 0, NOW);
        assert_eq!(code(orders.admit(&good, NOW + Millis::from_mins(1))), RejectCode::Stale, "too late");
        let early = order(&key(9), 1, 0, NOW + limits::CLOCK_SKEW + Millis(1));
        assert_eq!(code(orders.admit(&early, NOW)), RejectCode::Stale, "too early");
        assert!(orders.admit(&good, NOW).is_ok());
        assert_eq!(code(orders.admit(&good, NOW)), RejectCode::Stale, "a second time");
        orders.obey(None);
        assert_eq!(code(orders.admit(&order(&key(9), 1, 1, NOW), NOW)), RejectCode::NotAccepted, "left");
    }

    #[test]
    fn a_forged_signature_and_an_expired_membership_order_nothing() {
        let mut orders = member();
        // Signed by another key, in the owner's name.
        let bytes = crate::encode::to_bytes(&order(&key(9), 1, 0, NOW));
        let mut forged = bytes;
        let last = forged.len() - 1;
        forged[last] ^= 1;
        let forged: Signed<OwnerOrder> = crate::encode::from_bytes(&forged, 4096).unwrap();
        assert_eq!(code(orders.admit(&forged, NOW)), RejectCode::Malformed);
        let later = NOW + Millis::from_hours(1);
        assert_eq!(code(orders.admit(&order(&key(9), 1, 0, later), later)), RejectCode::NotAccepted);
    }

    #[test]
    fn nothing_from_before_a_restart_is_carried_out_again() {
        let mut orders = member();
        let first = order(&key(9), 1, 0, NOW);
        orders.admit(&first, NOW).unwrap();
        let mut restarted = Orders::new(network(), key(1).node_id(), orders.newest());
        restarted.obey(Some(membership(9, 1)));
        assert_eq!(code(restarted.admit(&first, NOW)), RejectCode::Stale);
        assert!(restarted.admit(&order(&key(9), 1, 0, NOW + Millis(1)), NOW).is_ok());
    }

    proptest! {
        /// Whatever is brought in whatever order, however often, no order is carried out twice, and memory is bounded.
        #[test]
        fn no_order_twice(brought in proptest::collection::vec((0u8..12, 0u64..40, any::<bool>()), 1..60)) {
            let mut orders = member();
            let mut done = BTreeSet::new();
            for (n, ms, restart) in brought {
                let order = order(&key(9), 1, n, Timestamp(NOW.0 + ms));
                if let Ok(taken) = orders.admit(&order, NOW) {
                    prop_assert!(done.insert(taken.id()));
                }
                if restart {
                    orders = Orders::new(network(), key(1).node_id(), orders.newest());
                    orders.obey(Some(membership(9, 1)));
                }
                prop_assert!(orders.carried_out.len() <= limits::ORDERS_REMEMBERED);
            }
        }
    }
}
