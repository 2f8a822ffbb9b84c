//! What others say of nodes on one side of their leases, in votes.
//!
//! Owns how much a rater's word counts: by the trust that reaches it without passing through whom it rates, within what its own
//! trade with trusted nodes is worth, and not at all below the mass that an attacker can buy cheaply.

use super::{
    evidence::Side,
    graph::{Graph, Index, Pair},
    limits::{
        DUST_FROM, DUST_TO, PARTNER_FROM, PARTNER_FULL, PRAISE_FROM, RATER_FROM, RATER_FULL, REFERENCE_SHARE, VOUCHED,
    },
    scale::{log_value, ramp},
    walk::{Scratch, Walk},
};

/// What others' receipts say of one node.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Votes {
    /// For it.
    pub praise: f64,
    /// Against it, signed by itself.
    pub admitted: f64,
    /// Against it, by its raters' word.
    pub claimed: f64,
    /// How many raters counted.
    pub raters: u32,
}

/// Everything needed to count votes about nodes on one side.
#[derive(Debug)]
pub(super) struct Poll {
    /// The side of whom the votes are about.
    side: Side,
    /// Ourselves: our own word is counted elsewhere, in full.
    me: Index,
    /// The trust that makes a full rater.
    reference: f64,
    /// What each rater's votes are multiplied by, so that all of them are within its honest trade.
    scale: Vec<f64>,
    /// The votes of each node on that side.
    pub votes: Vec<Votes>,
    /// Praise that is usual for whoever is praised.
    pub usual: f64,
}

impl Poll {
    /// Counts the votes about all nodes on `side`.
    pub(super) fn new(graph: &Graph, walk: &Walk, side: Side, me: Index) -> Self {
        let scale = scales(graph, walk, side);
        let reference = reference(graph, walk, side.other());
        let mut poll = Self { side, me, reference, scale, votes: Vec::new(), usual: 0.0 };
        let mut scratch = Scratch::new(graph.nodes.len());
        poll.votes = (0_u32..).zip(&graph.nodes).map(|(node, _)| poll.count(graph, walk, node, &mut scratch)).collect();
        let (sum, squares) =
            poll.votes.iter().fold((0.0, 0.0), |(sum, squares), v| (sum + v.praise, squares + v.praise * v.praise));
        poll.usual = if sum > 0.0 { squares / sum } else { 0.0 };
        poll
    }

    /// What is left of each vote of praise for a node once the mass that can be bought is taken off.
    pub(super) fn beyond_the_usual_noise(&self, votes: &Votes) -> f64 {
        if votes.praise > 0.0 { (votes.praise - PRAISE_FROM * self.usual).max(0.0) / votes.praise } else { 0.0 }
    }

    fn count(&self, graph: &Graph, walk: &Walk, node: Index, scratch: &mut Scratch) -> Votes {
        let mut votes = Votes::default();
        for (pair, weight) in self.weights(graph, walk, node, scratch) {
            let blame = pair.blame(self.side);
            votes.praise += weight * pair.praise();
            votes.admitted += weight * blame.admitted;
            votes.claimed += weight * blame.claimed;
            votes.raters += u32::from(weight > 0.0);
        }
        votes
    }

    /// The pairs others have with a node, and how much their words in each count.
    pub(super) fn weights<'a>(
        &self,
        graph: &'a Graph,
        walk: &Walk,
        node: Index,
        scratch: &mut Scratch,
    ) -> Vec<(&'a Pair, f64)> {
        let rater_of = |pair: &Pair| pair.node(self.side.other());
        let pairs: Vec<&Pair> = graph.pairs_of(node, self.side).filter(|pair| rater_of(pair) != self.me).collect();
        // Whom the walk does not reach at all can't be reached without the node either.
        let reached = pairs.iter().any(|pair| self.may_count(walk, rater_of(pair)));
        if !reached {
            return pairs.into_iter().map(|pair| (pair, 0.0)).collect();
        }
        let trust = walk.without(node, pairs.iter().map(|pair| rater_of(pair)), scratch);
        let weigh = |(pair, trust): (&'a Pair, f64)| {
            let rater = rater_of(pair);
            let named = walk.is_start(rater);
            let counts = if named { 1.0 } else { share(trust, self.reference) };
            (pair, counts * self.scale[rater as usize])
        };
        pairs.into_iter().zip(trust).map(weigh).collect()
    }

    fn may_count(&self, walk: &Walk, rater: Index) -> bool {
        walk.is_start(rater) || share(walk.mass[rater as usize], self.reference) > 0.0
    }
}

/// How much of full trust this is.
fn share(trust: f64, reference: f64) -> f64 {
    if reference > 0.0 { ramp(trust / reference, RATER_FROM, RATER_FULL) } else { 0.0 }
}

/// The trust that makes a full rater, or partner, on a side.
fn reference(graph: &Graph, walk: &Walk, side: Side) -> f64 {
    let dealt = |node: &usize| !graph.by[side as usize][*node].is_empty() && walk.start[*node] == 0.0;
    usual((0..graph.nodes.len()).filter(dealt).map(|n| walk.mass[n]))
}

/// The least of the largest values that together make [`REFERENCE_SHARE`] of the sum; 0 of nothing.
fn usual(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.filter(|v| *v > 0.0).collect();
    values.sort_by(|a, b| b.total_cmp(a));
    let all: f64 = values.iter().sum();
    let mut sum = 0.0;
    for value in values {
        sum += value;
        if sum >= REFERENCE_SHARE * all {
            return value;
        }
    }
    0.0
}

/// What each rater's votes are multiplied by: they add up to no more than the logarithm of its honest trade; of a rater that
/// praises more than it has honestly paid for, only that share counts; and whose honest trade is dust has no vote.
fn scales(graph: &Graph, walk: &Walk, side: Side) -> Vec<f64> {
    let trusted = reference(graph, walk, side);
    let raters = || (0_u32..).zip(&graph.nodes).map(|(rater, _)| rater);
    let vouched: Vec<f64> = raters().map(|partner| vouched(graph, walk, side, partner)).collect();
    let trust = |partner: Index| share_of(walk.mass[partner as usize], trusted) * vouched[partner as usize];
    let honest: Vec<f64> = raters().map(|rater| honest(graph, walk, side, rater, trust)).collect();
    let usual = usual(raters().zip(&honest).filter(|(rater, _)| !walk.is_start(*rater)).map(|(_, honest)| *honest));
    let scale = |(rater, honest): (Index, f64)| {
        if walk.is_start(rater) {
            return 1.0;
        }
        let (mut all, mut votes) = (0.0, 0.0);
        for pair in graph.pairs_of(rater, side.other()) {
            let blame = pair.blame(side);
            all += pair.size;
            votes += pair.praise() + blame.admitted + blame.claimed;
        }
        if honest <= 0.0 || votes <= 0.0 {
            return 0.0;
        }
        let paid = if honest < all { honest / all } else { 1.0 };
        ramp(honest / usual, DUST_FROM, DUST_TO) * paid * (log_value(honest) / votes).min(1.0)
    };
    raters().zip(honest.iter().copied()).map(scale).collect()
}

/// A rater's trade with trusted nodes that are nearer to the start than itself, in units.
///
/// So a ring can't vouch for itself: however much its members pay each other, all of it lies behind the purchases that let
/// them in.
fn honest(graph: &Graph, walk: &Walk, side: Side, rater: Index, trust: impl Fn(Index) -> f64) -> f64 {
    let trust = |partner: Index| {
        if walk.is_start(partner) {
            1.0
        } else if walk.depth[partner as usize] < walk.depth[rater as usize] {
            trust(partner)
        } else {
            0.0
        }
    };
    graph.pairs_of(rater, side.other()).map(|pair| pair.settled * trust(pair.node(side))).sum()
}

/// How much of a partner's trade with those behind it counts as theirs: in all no more than [`VOUCHED`] times its trade with
/// those before it. Whoever has been let in can't let in any number of others.
fn vouched(graph: &Graph, walk: &Walk, side: Side, partner: Index) -> f64 {
    let depth = walk.depth[partner as usize];
    let (mut before, mut behind) = (0.0, 0.0);
    for pair in graph.pairs_of(partner, side) {
        let other = walk.depth[pair.node(side.other()) as usize];
        if other < depth {
            before += pair.settled;
        } else if other > depth {
            behind += pair.settled;
        }
    }
    if behind > VOUCHED * before { VOUCHED * before / behind } else { 1.0 }
}

/// How much a partner of this trust makes trade with it honest.
fn share_of(trust: f64, reference: f64) -> f64 {
    if reference > 0.0 { ramp(trust / reference, PARTNER_FROM, PARTNER_FULL) } else { 0.0 }
}
