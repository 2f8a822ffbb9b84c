//! Evidence of others, as much as is kept: the least useful goes first.
//!
//! Owns the bounds and the order in which rows go. What it holds is a cache: everything in it was verified before, and can be asked
//! for again. Keys are free, so what made-up parties show of one another must not push out what can count: a row is the more useful
//! the nearer one of its parties is to this node's own dealings (see `select`: what nobody near is a party of counts nothing), then
//! the newer it is. Nobody has more than a share, neither as who shows rows nor as the near party in them.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use souk_protocol::{Amount, Currency, LeaseId, NodeId, Timestamp};

use super::{
    evidence::{Evidence, Paid},
    limits,
};

/// Leases kept.
pub const LEASES: usize = 20_000;
/// Leases kept that one node has shown, or in which one node is the near party.
pub const OF_ONE: usize = 2_000;
/// Pairs and currencies whose payments are kept.
pub const PAYMENTS: usize = 20_000;

/// A lease, and who has shown it: each party tells what the other leaves out.
type Shown = (LeaseId, NodeId);
type Pair = (NodeId, NodeId, Currency);
/// How useful a row is; the greatest is the most useful.
type Use = (Reverse<u8>, Timestamp);

/// The depth of what no walk reaches.
const FAR: u8 = u8::MAX;

#[derive(Debug)]
struct Held {
    evidence: Evidence,
    use_of: Use,
    /// The party that is nearest, if any is near.
    near: Option<NodeId>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Shelf {
    /// Steps from this node's own dealings to others, as they were last computed.
    near: BTreeMap<NodeId, u8>,
    leases: BTreeMap<Shown, Held>,
    /// The same, the least useful first: all, by who has shown them, by the near party.
    least: BTreeSet<(Use, Shown)>,
    shown_by: BTreeMap<NodeId, BTreeSet<(Use, Shown)>>,
    near_to: BTreeMap<NodeId, BTreeSet<(Use, Shown)>>,
    payments: BTreeMap<Pair, Amount>,
    least_payments: BTreeSet<(Reverse<u8>, Pair)>,
}

impl Shelf {
    /// Takes a lease that was verified; whether it tells anything new. When there is no room, the least useful goes, which may be
    /// this one.
    pub fn take_lease(&mut self, evidence: Evidence, shown_by: NodeId, now: Timestamp) -> bool {
        let id = (evidence.lease, shown_by);
        if let Some(held) = self.leases.get_mut(&id) {
            // Nobody takes back what it has shown.
            let new = (evidence.signatures, evidence.n) >= (held.evidence.signatures, held.evidence.n)
                && evidence != held.evidence;
            if !new {
                return false;
            }
            self.drop_lease(&id);
        }
        let held = self.rated(evidence, now);
        let (use_of, near) = (held.use_of, held.near);
        let full = |group: Option<&BTreeSet<(Use, Shown)>>, most: usize| {
            group.filter(|rows| rows.len() >= most).and_then(|rows| rows.first().copied())
        };
        let of_near = near.and_then(|near| full(self.near_to.get(&near), OF_ONE));
        let shares: Vec<(Use, Shown)> =
            [full(self.shown_by.get(&shown_by), OF_ONE), of_near].into_iter().flatten().collect();
        // Who goes from a share makes room in the whole.
        let all = full(Some(&self.least), LEASES).filter(|_| shares.is_empty());
        let going: Vec<(Use, Shown)> = shares.into_iter().chain(all).collect();
        if going.iter().any(|least| *least >= (use_of, id)) {
            return false;
        }
        for (_, id) in going {
            self.drop_lease(&id);
        }
        self.put(id, held);
        true
    }

    /// Takes what one has paid another in all, as both say; whether it is more than was known.
    pub fn take_payment(&mut self, paid: Paid) -> bool {
        let pair: Pair = (paid.payer, paid.payee, paid.currency);
        if let Some(total) = self.payments.get_mut(&pair) {
            let new = paid.total > *total;
            *total = (*total).max(paid.total);
            return new;
        }
        let use_of = Reverse(self.depth(&pair.0).min(self.depth(&pair.1)));
        let rated = (use_of, pair.clone());
        if self.payments.len() >= PAYMENTS {
            let Some(least) = self.least_payments.first().filter(|least| **least < rated).cloned() else {
                return false;
            };
            self.least_payments.remove(&least);
            self.payments.remove(&least.1);
        }
        self.least_payments.insert(rated);
        self.payments.insert(pair, paid.total);
        true
    }

    /// Rates everything anew by how near nodes are now: steps from this node's own dealings. Rows beyond a share go.
    pub fn rate(&mut self, near: BTreeMap<NodeId, u8>, now: Timestamp) {
        if near == self.near {
            return;
        }
        self.near = near;
        self.least.clear();
        self.shown_by.clear();
        self.near_to.clear();
        for (id, held) in std::mem::take(&mut self.leases) {
            let held = self.rated(held.evidence, now);
            self.put(id, held);
        }
        let crowded: Vec<Shown> = self
            .near_to
            .values()
            .flat_map(|rows| rows.iter().take(rows.len().saturating_sub(OF_ONE)).map(|(_, id)| *id))
            .collect();
        for id in crowded {
            self.drop_lease(&id);
        }
        let depth = |node: &NodeId| self.near.get(node).copied().unwrap_or(FAR);
        self.least_payments =
            self.payments.keys().map(|pair| (Reverse(depth(&pair.0).min(depth(&pair.1))), pair.clone())).collect();
    }

    /// The leases, and who has shown each.
    pub fn leases(&self) -> impl Iterator<Item = (&Evidence, NodeId)> {
        self.leases.iter().map(|((_, by), held)| (&held.evidence, *by))
    }

    /// The payments.
    pub fn payments(&self) -> impl Iterator<Item = Paid> + '_ {
        self.payments.iter().map(|((payer, payee, currency), total)| Paid {
            payer: *payer,
            payee: *payee,
            currency: currency.clone(),
            total: *total,
        })
    }

    fn depth(&self, node: &NodeId) -> u8 {
        self.near.get(node).copied().unwrap_or(FAR)
    }

    fn rated(&self, evidence: Evidence, now: Timestamp) -> Held {
        let parties = [evidence.host, evidence.renter].map(|node| (self.depth(&node), node));
        let (depth, nearest) = parties.into_iter().min().unwrap_or((FAR, evidence.host));
        // What claims to be of tomorrow is not newer than all else.
        let ahead = evidence.at.0 > now.0.saturating_add(limits::AHEAD_MS);
        let at = if ahead { Timestamp(0) } else { evidence.at };
        Held { use_of: (Reverse(depth), at), near: (depth != FAR).then_some(nearest), evidence }
    }

    fn put(&mut self, id: Shown, held: Held) {
        let row = (held.use_of, id);
        self.least.insert(row);
        self.shown_by.entry(id.1).or_default().insert(row);
        if let Some(near) = held.near {
            self.near_to.entry(near).or_default().insert(row);
        }
        self.leases.insert(id, held);
    }

    fn drop_lease(&mut self, id: &Shown) {
        let Some(held) = self.leases.remove(id) else { return };
        let row = (held.use_of, *id);
        self.least.remove(&row);
        let mut groups = vec![(&mut self.shown_by, id.1)];
        groups.extend(held.near.map(|near| (&mut self.near_to, near)));
        for (groups, node) in groups {
            if let Some(rows) = groups.get_mut(&node) {
                rows.remove(&row);
                if rows.is_empty() {
                    groups.remove(&node);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use souk_protocol::Millis;

    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000_000);

    fn node(n: u32) -> NodeId {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.to_be_bytes());
        NodeId(id)
    }

    fn lease(n: u32, host: u32, renter: u32, at: u64) -> Evidence {
        Evidence {
            lease: LeaseId(node(n).0),
            host: node(host),
            renter: node(renter),
            signatures: 8,
            n: 3,
            currency: Currency::usd(),
            agreed: Amount(7),
            settled: Amount::ZERO,
            used: Millis(5),
            at: Timestamp(at),
            closed: true,
            ends_at: Timestamp(at + 9),
            failures: Vec::new().into_iter().collect(),
        }
    }

    fn near(nodes: impl IntoIterator<Item = (u32, u8)>) -> BTreeMap<NodeId, u8> {
        nodes.into_iter().map(|(n, depth)| (node(n), depth)).collect()
    }

    fn paid(payer: u32, payee: u32, total: u64) -> Paid {
        Paid { payer: node(payer), payee: node(payee), currency: Currency::usd(), total: Amount(total) }
    }

    #[test]
    fn fifty_thousand_made_up_leases_push_out_none_that_can_count() {
        let mut shelf = Shelf::default();
        shelf.rate(near([(1, 1), (2, 2)]), NOW);
        for n in 0..1_000 {
            assert!(shelf.take_lease(lease(n, 1 + n % 2, 10_000 + n, 5), node(7), NOW));
        }
        for n in 0..50_000 {
            // Newer, of free keys, shown by free keys.
            shelf.take_lease(
                lease(100_000 + n, 200_000 + n, 300_000 + n, 10 + u64::from(n)),
                node(400_000 + n % 100),
                NOW,
            );
        }
        assert_eq!(shelf.leases.len(), LEASES);
        assert_eq!(shelf.leases().filter(|(_, by)| *by == node(7)).count(), 1_000);
        // And what can count finds room.
        assert!(shelf.take_lease(lease(5, 2, 9, 6), node(8), NOW));
        assert_eq!(shelf.leases.len(), LEASES);
    }

    #[test]
    fn who_bought_its_way_near_has_a_share_and_no_more() {
        let mut shelf = Shelf::default();
        shelf.rate(near([(1, 1), (66, 1)]), NOW);
        assert!(shelf.take_lease(lease(1, 1, 2, 5), node(1), NOW));
        for n in 0..30_000 {
            shelf.take_lease(lease(1_000 + n, 66, 500_000 + n, 10 + u64::from(n)), node(500_000 + n), NOW);
        }
        assert_eq!(shelf.leases.len(), OF_ONE + 1);
        assert!(shelf.leases().any(|(e, _)| e.host == node(1)));
        // The same when it turns out to be near only afterwards.
        let mut shelf = Shelf::default();
        for n in 0..10_000 {
            shelf.take_lease(lease(n, 66, 500_000 + n, 10), node(500_000 + n), NOW);
        }
        shelf.rate(near([(66, 1)]), NOW);
        assert_eq!(shelf.leases.len(), OF_ONE);
    }

    #[test]
    fn one_who_shows_much_keeps_its_newest_and_tomorrow_is_no_advantage() {
        let mut shelf = Shelf::default();
        for n in 0..OF_ONE as u32 + 50 {
            assert!(shelf.take_lease(lease(n, 1, 2, u64::from(n) + 1), node(8), NOW));
        }
        let holds = |shelf: &Shelf, n: u32| shelf.leases.contains_key(&(lease(n, 0, 0, 0).lease, node(8)));
        assert!(shelf.leases.len() == OF_ONE && !holds(&shelf, 0) && holds(&shelf, 60));
        assert!(!shelf.take_lease(lease(60, 1, 2, 61), node(8), NOW), "known");
        assert!(!shelf.take_lease(lease(9_999, 1, 2, u64::MAX - 9), node(8), NOW), "of tomorrow");
    }

    #[test]
    fn payments_of_free_keys_make_room_for_those_that_count() {
        let mut shelf = Shelf::default();
        shelf.rate(near([(1, 0)]), NOW);
        for n in 0..PAYMENTS as u32 + 100 {
            shelf.take_payment(paid(1_000_000 + n, 2_000_000 + n, 1));
        }
        assert_eq!(shelf.payments.len(), PAYMENTS);
        assert!(shelf.take_payment(paid(1, 5, 9)) && !shelf.take_payment(paid(1, 5, 9)));
        assert!(shelf.take_payment(paid(1, 5, 10)));
        for n in 0..100 {
            shelf.take_payment(paid(3_000_000 + n, 4_000_000 + n, u64::MAX));
        }
        assert!(shelf.payments.len() == PAYMENTS && shelf.payments().any(|p| p == paid(1, 5, 10)));
    }

    proptest! {
        /// What is kept of more than there is room for depends on what was shown, not on its order.
        #[test]
        fn the_order_in_which_rows_come_does_not_matter(seed in any::<u64>()) {
            let count = OF_ONE as u32 + 300;
            let mut rows: Vec<u32> = (0..count).collect();
            let kept = |rows: &[u32]| {
                let mut shelf = Shelf::default();
                shelf.rate(near([(1, 1), (2, 2)]), NOW);
                for n in rows {
                    shelf.take_lease(lease(*n, n % 5, 77, u64::from(n / 7)), node(8), NOW);
                }
                shelf.leases.keys().copied().collect::<Vec<_>>()
            };
            let first = kept(&rows);
            rows.sort_by_key(|n| (u64::from(*n) ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            prop_assert_eq!(first, kept(&rows));
        }
    }
}
