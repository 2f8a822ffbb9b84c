//! From votes and own experience to a score, and to the receipts that made it.

use std::collections::BTreeMap;

use souk_protocol::{Amount, Currency, LeaseId, NodeId, Timestamp, opinion::Watched};

use super::{
    evidence::{Cause, Evidence, Side},
    graph::{Graph, Index, Pair, size},
    limits::{CLAIMS_FROM, FAILURE},
    scale::{decay, lower_bound},
    votes::Poll,
    walk::{Scratch, Walk},
};

/// What is to be thought of a node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// The whole, 0 to 1: [`Score::stranger`]'s for whoever nothing counts for or against.
    pub trust: f64,
    /// Uptime times completion, 0 to 1: 1 if nothing speaks against it.
    pub reliability: f64,
    /// Share of the time in which it answered our own probes; none without probes.
    pub uptime: Option<f64>,
    /// What speaks for it, in full successes.
    pub successes: f64,
    /// What speaks against it, in full failures.
    pub failures: f64,
    /// How many others' receipts counted.
    pub raters: u32,
}

impl Score {
    /// What is thought of somebody nothing is known of: a trust of 0.13.
    #[must_use]
    pub fn stranger() -> Self {
        Self::new(0.0, 0.0, None, 0)
    }

    /// What is thought of somebody who was blocked.
    pub(super) const fn blocked() -> Self {
        Self { trust: 0.0, reliability: 0.0, uptime: None, successes: 0.0, failures: 0.0, raters: 0 }
    }

    pub(super) fn new(successes: f64, failures: f64, uptime: Option<f64>, raters: u32) -> Self {
        let up = uptime.unwrap_or(1.0);
        Self {
            trust: lower_bound(1.0 + successes, 1.0 + FAILURE * failures) * (0.5 + 0.5 * up),
            reliability: up * (1.0 + successes) / (1.0 + successes + failures),
            uptime,
            successes,
            failures,
            raters,
        }
    }
}

/// What a reason speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// What was used and acknowledged.
    Success,
    /// Something went wrong.
    Failure {
        /// What.
        cause: Cause,
        /// Whether the node itself has signed it, or anyone can check it.
        admitted: bool,
    },
    /// Our own meter watched it, and our chain says so. Part of the uptime, and of nothing else.
    Watched(Watched),
}

/// One receipt's part in a score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reason {
    /// The lease; none for what we have measured without one.
    pub lease: Option<LeaseId>,
    /// Whose word it is.
    pub rater: NodeId,
    /// For or against.
    pub kind: Kind,
    /// How much it adds to [`Score::successes`] or [`Score::failures`]. Zero for what is known and does not count.
    pub weight: f64,
}

/// Why a node has its score.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// The score.
    pub score: Score,
    /// What made it, the heaviest first.
    pub reasons: Vec<Reason>,
    /// Reasons left out, as there are more than were asked for.
    pub left_out: usize,
}

/// What a score is made of: evidence, the walk over it and the votes.
#[derive(Debug)]
pub(super) struct Ground {
    pub me: NodeId,
    pub now: Timestamp,
    pub evidence: Vec<Evidence>,
    pub units: BTreeMap<Currency, Amount>,
    pub graph: Graph,
    pub walk: Walk,
    pub polls: [Poll; 2],
    /// Share of time in which a peer answered us.
    pub uptime: BTreeMap<NodeId, f64>,
    /// Weight of promised figures that we measured and that were short, by peer.
    pub short: BTreeMap<NodeId, f64>,
    /// What we have said in our chain of leases we rented, by host, the newest first.
    pub watched: BTreeMap<NodeId, Vec<(Timestamp, LeaseId, Watched)>>,
}

/// How much of each kind of evidence about a node counts.
#[derive(Debug, Clone, Copy)]
struct Shares {
    praise: f64,
    claimed: f64,
}

impl Ground {
    pub(super) fn score(&self, node: Index, side: Side) -> Score {
        let poll = &self.polls[side as usize];
        let votes = poll.votes[node as usize];
        let shares = self.shares(node, side);
        let (mut successes, mut failures) = self.own(node, side);
        successes += shares.praise * votes.praise;
        failures += votes.admitted + shares.claimed * votes.claimed;
        let id = self.graph.nodes[node as usize];
        if side == Side::Host {
            failures += self.short.get(&id).copied().unwrap_or(0.0);
        }
        let raters = if shares.praise > 0.0 || failures > 0.0 { votes.raters } else { 0 };
        Score::new(successes, failures, self.uptime.get(&id).copied(), raters)
    }

    /// The score of somebody without receipts.
    pub(super) fn score_without_receipts(&self, node: &NodeId, side: Side) -> Score {
        let short = if side == Side::Host { self.short.get(node).copied().unwrap_or(0.0) } else { 0.0 };
        Score::new(0.0, short, self.uptime.get(node).copied(), 0)
    }

    /// The receipts behind a score, the heaviest first, at most `most` of them.
    pub(super) fn explain(&self, id: &NodeId, side: Side, most: usize) -> Explanation {
        let Some(node) = self.graph.index(id) else {
            let score = self.score_without_receipts(id, side);
            let reasons = self.measured(id, side).into_iter().chain(self.watched(id, side)).collect();
            return Explanation { score, reasons, left_out: 0 };
        };
        let shares = self.shares(node, side);
        let mut reasons: Vec<Reason> = self.measured(id, side).into_iter().collect();
        if let Some(pair) = self.own_pair(node, side) {
            self.reasons_of(pair, side, [pair.praise(), 1.0, 1.0], &mut reasons);
        }
        let mut scratch = Scratch::new(self.graph.nodes.len());
        for (pair, weight) in self.polls[side as usize].weights(&self.graph, &self.walk, node, &mut scratch) {
            let (blame, failed) = (pair.blame(side), pair.failed(side));
            let part = |counted: f64, all: f64| if all > 0.0 { counted / all } else { 0.0 };
            let praise = weight * shares.praise * pair.praise();
            let admitted = weight * part(blame.admitted, failed.admitted);
            let claimed = weight * shares.claimed * part(blame.claimed, failed.claimed);
            self.reasons_of(pair, side, [praise, admitted, claimed], &mut reasons);
        }
        let order = |r: &Reason| (r.lease, r.kind);
        reasons.sort_by(|a, b| b.weight.total_cmp(&a.weight).then_with(|| order(a).cmp(&order(b))));
        let left_out = reasons.len().saturating_sub(most);
        reasons.truncate(most);
        // Few, and of no weight in the sums: named whatever else there is.
        reasons.extend(self.watched(id, side));
        Explanation { score: self.score(node, side), reasons, left_out }
    }

    /// What we have seen ourselves counts in full.
    fn own(&self, node: Index, side: Side) -> (f64, f64) {
        self.own_pair(node, side).map_or((0.0, 0.0), |pair| {
            let failed = pair.failed(side);
            (pair.praise(), failed.admitted + failed.claimed)
        })
    }

    fn own_pair(&self, node: Index, side: Side) -> Option<&Pair> {
        let me = self.graph.index(&self.me)?;
        self.graph.pairs_of(node, side).find(|pair| pair.node(side.other()) == me)
    }

    fn shares(&self, node: Index, side: Side) -> Shares {
        let poll = &self.polls[side as usize];
        let votes = poll.votes[node as usize];
        let noise = CLAIMS_FROM * votes.praise.max(poll.usual);
        let claimed = if votes.claimed > 0.0 { (votes.claimed - noise).max(0.0) / votes.claimed } else { 0.0 };
        Shares { praise: poll.beyond_the_usual_noise(&votes), claimed }
    }

    /// Deals a pair's weights out to its leases: `[praise in all, per unit of admitted, per unit of claimed failure]`.
    fn reasons_of(&self, pair: &Pair, side: Side, [praise, admitted, claimed]: [f64; 3], reasons: &mut Vec<Reason>) {
        let rater = self.graph.nodes[pair.node(side.other()) as usize];
        for e in pair.leases.iter().filter_map(|n| self.evidence.get(*n as usize)) {
            let left = decay(e.at, self.now);
            let lease = Some(e.lease);
            let size = left * size(e, &self.units);
            if size > 0.0 {
                reasons.push(Reason { lease, rater, kind: Kind::Success, weight: praise * size / pair.size });
            }
            for failure in e.failures_at(self.now).filter(|f| f.against == side) {
                let per_unit = if failure.admitted { admitted } else { claimed };
                let kind = Kind::Failure { cause: failure.cause, admitted: failure.admitted };
                reasons.push(Reason { lease, rater, kind, weight: per_unit * left * failure.cause.weight() });
            }
        }
    }

    fn watched(&self, node: &NodeId, side: Side) -> impl Iterator<Item = Reason> {
        let of = self.watched.get(node).filter(|_| side == Side::Host).into_iter().flatten();
        of.map(|(_, lease, seen)| {
            let kind = Kind::Watched(*seen);
            Reason { lease: Some(*lease), rater: self.me, kind, weight: 0.0 }
        })
    }

    fn measured(&self, node: &NodeId, side: Side) -> Option<Reason> {
        let weight = self.short.get(node).copied().filter(|_| side == Side::Host)?;
        let kind = Kind::Failure { cause: Cause::PerformanceShort, admitted: false };
        Some(Reason { lease: None, rater: self.me, kind, weight })
    }
}
