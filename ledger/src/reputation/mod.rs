//! Reputation: what to think of a node, computed by whoever wants to know from receipts that both parties signed.
//!
//! A pure function: evidence, own probes and whom we trust to begin with go in, scores come out; the same evidence in any order
//! makes the same bits on every platform. Nothing here is ever sent: a score somebody else tells is worth nothing. How it works,
//! why, and what it withstands is in `docs/reputation.md`. Verifying and fetching evidence is not done here.
//!
//! ```text
//!  evidence ─► select (one account a lease, bounded) ─► graph ─► walk (trust) ─► votes (of hosts, of renters) ─► score
//! ```

pub mod evidence;
mod graph;
pub mod limits;
mod probes;
pub mod scale;
mod score;
mod select;
pub mod shelf;
#[cfg(test)]
mod tests;
mod votes;
mod walk;

use std::collections::{BTreeMap, BTreeSet};

use souk_protocol::{Amount, Currency, NodeId, Timestamp, money::NANO};

pub use evidence::{Cause, Evidence, Failure, Paid, Probe, Side, settle};
pub use score::{Explanation, Kind, Reason, Score};
pub use shelf::Shelf;

use graph::{Graph, Index};
use score::Ground;
use votes::Poll;
use walk::Walk;

/// Why a node is where the walk begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Seed {
    /// It is on the network's default list.
    Listed,
    /// Its attestations are accepted.
    Attester,
    /// Its name was given with `souk trust`.
    Trusted,
}

impl Seed {
    /// Its part of the start beside other seeds.
    const fn weight(self) -> f64 {
        match self {
            Self::Listed => 1.0,
            Self::Attester => 2.0,
            Self::Trusted => 4.0,
        }
    }
}

/// What is known, as seen from one node.
#[derive(Debug, Clone)]
pub struct Reputation {
    /// Who wants to know.
    pub me: NodeId,
    /// Own leases and others', verified, in any order, doubles allowed.
    pub evidence: Vec<Evidence>,
    /// What this node has seen itself. Others' probes don't belong here.
    pub probes: Vec<Probe>,
    /// Where the walk begins, beside this node's own dealings.
    pub seeds: BTreeMap<NodeId, Seed>,
    /// Attestations in force: who vouches for whom. Only those of [`Seed`]s count.
    pub vouches: BTreeSet<(NodeId, NodeId)>,
    /// Blocked by the user, or proven to contradict themselves: their receipts count nothing, their score is 0.
    pub blocked: BTreeSet<NodeId>,
    /// What one unit of trade is in each currency: about an hour's price. Amounts in other currencies count by hours alone, and
    /// trust does not flow over them: anybody can invent a currency.
    pub units: BTreeMap<Currency, Amount>,
}

impl Reputation {
    /// Nothing is known yet. One dollar or euro is a unit.
    #[must_use]
    pub fn new(me: NodeId) -> Self {
        let units = ["USD", "EUR"].map(|code| (Currency(code.to_owned()), Amount(NANO)));
        Self {
            me,
            evidence: Vec::new(),
            probes: Vec::new(),
            seeds: BTreeMap::new(),
            vouches: BTreeSet::new(),
            blocked: BTreeSet::new(),
            units: units.into_iter().collect(),
        }
    }

    /// The scores of everybody at `now`. Time and memory grow with the evidence, which is bounded by [`limits`].
    #[must_use]
    pub fn compute(self, now: Timestamp) -> Scores {
        let Self { me, evidence, probes, mut seeds, vouches, blocked, units } = self;
        seeds.retain(|seed, _| *seed != me && !blocked.contains(seed));
        let vouches: Vec<(NodeId, NodeId)> = vouches
            .into_iter()
            .filter(|(from, to)| seeds.contains_key(from) && from != to && !blocked.contains(to))
            .collect();
        let starts: BTreeSet<NodeId> = seeds.keys().copied().chain([me]).collect();
        let (evidence, near) = select::select(evidence, &starts, &vouches, &blocked, &units, now);
        let named: BTreeSet<NodeId> = starts.iter().copied().chain(vouches.iter().map(|(_, to)| *to)).collect();
        let graph = Graph::new(&evidence, &named, &units, now);
        let index = |node: &NodeId| graph.index(node);
        let edges: Vec<(Index, Index, f64)> =
            vouches.iter().filter_map(|(from, to)| Some((index(from)?, index(to)?, limits::VOUCH_UNITS))).collect();
        let walk = Walk::new(&graph, start(&graph, &me, &seeds), &edges);
        let own = index(&me).unwrap_or(Index::MAX);
        let polls = [Side::Host, Side::Renter].map(|side| Poll::new(&graph, &walk, side, own));
        let uptime = probes::uptime(&probes, now);
        let short = probes::short(&probes, now);
        let watched = probes::watched(&probes, now);
        Scores {
            ground: Ground { me, now, evidence, units, graph, walk, polls, uptime, short, watched },
            blocked,
            near,
        }
    }
}

/// Where the walk begins: at ourselves the more the more partners we have had, and at the seeds.
fn start(graph: &Graph, me: &NodeId, seeds: &BTreeMap<NodeId, Seed>) -> Vec<f64> {
    let mut start = vec![0.0; graph.nodes.len()];
    let Some(own) = graph.index(me) else {
        return start;
    };
    let partners = graph.trade[own as usize].iter().filter(|(_, units)| *units >= 1.0).count() as f64;
    let share =
        if seeds.is_empty() { 1.0 } else { (partners / (partners + limits::OWN_PARTNERS)).min(limits::OWN_SHARE) };
    start[own as usize] = share;
    let all: f64 = seeds.values().map(|seed| seed.weight()).sum();
    for (node, seed) in seeds {
        if let Some(n) = graph.index(node) {
            start[n as usize] = (1.0 - share) * seed.weight() / all;
        }
    }
    start
}

/// What one node thinks of all others.
#[derive(Debug)]
pub struct Scores {
    ground: Ground,
    blocked: BTreeSet<NodeId>,
    near: BTreeMap<NodeId, u8>,
}

impl Scores {
    /// What to think of a node as a host.
    #[must_use]
    pub fn of(&self, node: &NodeId) -> Score {
        self.on(Side::Host, node)
    }

    /// What to think of a node as a renter.
    #[must_use]
    pub fn of_renter(&self, node: &NodeId) -> Score {
        self.on(Side::Renter, node)
    }

    /// What to think of a node on one side of a lease.
    #[must_use]
    pub fn on(&self, side: Side, node: &NodeId) -> Score {
        if self.blocked.contains(node) {
            return Score::blocked();
        }
        match self.ground.graph.index(node) {
            Some(index) => self.ground.score(index, side),
            None => self.ground.score_without_receipts(node, side),
        }
    }

    /// Why a node has its score on one side, with the `most` heaviest reasons.
    #[must_use]
    pub fn explain(&self, side: Side, node: &NodeId, most: usize) -> Explanation {
        if self.blocked.contains(node) {
            return Explanation { score: Score::blocked(), reasons: Vec::new(), left_out: 0 };
        }
        self.ground.explain(node, side, most)
    }

    /// Everybody of whom there are receipts that could be looked at.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeId> {
        self.ground.graph.nodes.iter()
    }

    /// Steps over settled trade and attestations from this node and its seeds to others, as far as the walk goes. What none of
    /// these is a party of counts nothing: see [`Shelf::rate`].
    #[must_use]
    pub const fn near(&self) -> &BTreeMap<NodeId, u8> {
        &self.near
    }

    /// Leases looked at.
    #[must_use]
    pub fn leases(&self) -> usize {
        self.ground.evidence.len()
    }
}
