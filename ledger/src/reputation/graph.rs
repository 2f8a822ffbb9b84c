//! Evidence as a graph: nodes in the order of their ids, pairs of renter and host with what is between them, and trade.
//!
//! Owns sums over a pair's leases, always taken in the order of lease ids, so that the order in which evidence came can't show.

use std::collections::{BTreeMap, BTreeSet};

use souk_protocol::{Amount, Currency, NodeId, Timestamp};

use super::{
    evidence::{Evidence, Side},
    limits,
    scale::{decay, log_value},
};

/// An hour of an instance counts at least as so many units: what is free is worth something to whoever used it.
const HOUR_UNITS: f64 = 0.1;
const HOUR_MS: f64 = 3_600_000.0;

/// A node's number in the graph.
pub(super) type Index = u32;

/// What is between a renter and a host.
#[derive(Debug, Clone, Default)]
pub(super) struct Pair {
    pub renter: Index,
    pub host: Index,
    /// What was paid, in units, decayed.
    pub settled: f64,
    /// What was used, in units, decayed: paid or not, by hours where it cost nothing.
    pub size: f64,
    /// Failures of the host and of the renter, decayed.
    pub failed: [Failed; 2],
    /// Numbers of its leases in the evidence.
    pub leases: Vec<u32>,
}

/// Failures by weight.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Failed {
    /// Signed by who is answerable.
    pub admitted: f64,
    /// The other side's word.
    pub claimed: f64,
}

impl Pair {
    pub(super) const fn node(&self, side: Side) -> Index {
        match side {
            Side::Host => self.host,
            Side::Renter => self.renter,
        }
    }

    pub(super) const fn failed(&self, side: Side) -> Failed {
        self.failed[side as usize]
    }

    /// The pair's value on the log scale.
    pub(super) fn praise(&self) -> f64 {
        log_value(self.size)
    }

    /// Failures of a side as far as another's word can weigh: claims no more than the trade they are about, and one.
    pub(super) fn blame(&self, side: Side) -> Failed {
        let Failed { admitted, claimed } = self.failed(side);
        Failed { admitted: admitted.min(limits::PAIR_FAILURES), claimed: claimed.min(1.0 + self.praise()) }
    }
}

/// The evidence as a graph.
#[derive(Debug, Default)]
pub(super) struct Graph {
    pub nodes: Vec<NodeId>,
    pub pairs: Vec<Pair>,
    /// Each node's pairs, by the side it is on: `by[side][node]`.
    pub by: [Vec<Vec<u32>>; 2],
    /// Whom each node has traded with, and for how much, both ways: capped, the largest only, by number.
    pub trade: Vec<Vec<(Index, f64)>>,
}

impl Graph {
    /// The graph of this evidence, which is without doubles and in the order of lease ids, and of nodes that must be in it.
    pub(super) fn new(
        evidence: &[Evidence],
        more: &BTreeSet<NodeId>,
        units: &BTreeMap<Currency, Amount>,
        now: Timestamp,
    ) -> Self {
        let mut nodes = more.clone();
        nodes.extend(evidence.iter().flat_map(|e| [e.renter, e.host]));
        let nodes: Vec<NodeId> = nodes.into_iter().collect();
        let mut pairs: BTreeMap<(Index, Index), Pair> = BTreeMap::new();
        for (number, e) in (0_u32..).zip(evidence) {
            let (Some(renter), Some(host)) = (find(&nodes, &e.renter), find(&nodes, &e.host)) else {
                continue;
            };
            let pair = pairs.entry((renter, host)).or_insert_with(|| Pair { renter, host, ..Pair::default() });
            pair.leases.push(number);
            let left = decay(e.at, now);
            pair.settled += left * in_units(e.settled, &e.currency, units);
            pair.size += left * size(e, units);
            for failure in e.failures_at(now) {
                let failed = &mut pair.failed[failure.against as usize];
                let sum = if failure.admitted { &mut failed.admitted } else { &mut failed.claimed };
                *sum += left * failure.cause.weight();
            }
        }
        let pairs: Vec<Pair> = pairs.into_values().collect();
        let mut by = [vec![Vec::new(); nodes.len()], vec![Vec::new(); nodes.len()]];
        for (number, pair) in (0_u32..).zip(&pairs) {
            by[Side::Host as usize][pair.host as usize].push(number);
            by[Side::Renter as usize][pair.renter as usize].push(number);
        }
        let trade = trade(nodes.len(), &pairs);
        Self { nodes, pairs, by, trade }
    }

    /// A node's number.
    pub(super) fn index(&self, node: &NodeId) -> Option<Index> {
        find(&self.nodes, node)
    }

    /// The pairs in which a node is on this side.
    pub(super) fn pairs_of(&self, node: Index, side: Side) -> impl Iterator<Item = &Pair> {
        self.by[side as usize][node as usize].iter().map(|n| &self.pairs[*n as usize])
    }
}

/// What a lease was worth, undecayed, in units: what was agreed, or its hours where that is more.
pub(super) fn size(e: &Evidence, units: &BTreeMap<Currency, Amount>) -> f64 {
    in_units(e.agreed, &e.currency, units).max(HOUR_UNITS * e.used.0 as f64 / HOUR_MS)
}

/// An amount in units of its currency; zero if the currency has none here.
pub(super) fn in_units(amount: Amount, currency: &Currency, units: &BTreeMap<Currency, Amount>) -> f64 {
    match units.get(currency) {
        Some(unit) if unit.0 > 0 => amount.0 as f64 / unit.0 as f64,
        Some(_) | None => 0.0,
    }
}

fn find(nodes: &[NodeId], node: &NodeId) -> Option<Index> {
    nodes.binary_search(node).ok().and_then(|n| Index::try_from(n).ok())
}

/// Trade between nodes whichever lets to whom, each pair capped; of too many partners, the largest are kept.
fn trade(nodes: usize, pairs: &[Pair]) -> Vec<Vec<(Index, f64)>> {
    let mut sums: BTreeMap<(Index, Index), f64> = BTreeMap::new();
    for pair in pairs.iter().filter(|p| p.settled > 0.0) {
        *sums.entry((pair.renter.min(pair.host), pair.renter.max(pair.host))).or_default() += pair.settled;
    }
    let mut trade = vec![Vec::new(); nodes];
    for ((a, b), value) in sums {
        let value = value.min(limits::PAIR_UNITS);
        trade[a as usize].push((b, value));
        trade[b as usize].push((a, value));
    }
    for partners in &mut trade {
        if partners.len() > limits::PARTNERS {
            partners.sort_by(|x, y| y.1.total_cmp(&x.1).then(x.0.cmp(&y.0)));
            partners.truncate(limits::PARTNERS);
        }
        partners.sort_by_key(|(partner, _)| *partner);
    }
    trade
}
