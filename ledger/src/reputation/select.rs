//! Which evidence is looked at: one account of each lease, nothing that can't count, and of too much the least useful left out.
//!
//! Owns that choice. It depends on what the evidence says, never on the order in which it came.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use souk_protocol::{Amount, Currency, LeaseId, NodeId, Timestamp};

use super::{
    evidence::Evidence,
    graph::{in_units, size},
    limits,
    scale::decay,
};

/// What is chosen, in the order of lease ids, and how many steps everybody near is away.
///
/// `starts` are where the walk may begin; what neither of whose parties a walk can reach is left out: it can't count.
pub(super) fn select(
    evidence: Vec<Evidence>,
    starts: &BTreeSet<NodeId>,
    vouched: &[(NodeId, NodeId)],
    blocked: &BTreeSet<NodeId>,
    units: &BTreeMap<Currency, Amount>,
    now: Timestamp,
) -> (Vec<Evidence>, BTreeMap<NodeId, u8>) {
    let evidence = one_of_each(evidence, blocked, now);
    let near = near(&evidence, starts, vouched, units);
    let depth_of = |e: &Evidence| near.get(&e.renter).into_iter().chain(near.get(&e.host)).min().copied();
    let mut ranked: Vec<Ranked> = evidence
        .into_iter()
        .filter_map(|e| {
            let depth = depth_of(&e)?;
            let failed: f64 = e.failures_at(now).map(|f| f.cause.weight()).sum();
            let use_of = decay(e.at, now) * (size(&e, units) + FAILURE_UNITS * failed);
            Some(Ranked { depth, place: 0, use_of, e })
        })
        .collect();
    keep_best(&mut ranked, limits::EVIDENCE_OF_PAIR, |e| (e.renter, e.host));
    keep_best(&mut ranked, limits::EVIDENCE_OF_RENTER, |e| (e.renter, e.renter));
    if ranked.len() > limits::EVIDENCE {
        // Every rater's best before any rater's second best: nobody crowds the others out.
        ranked.sort_by_key(|r| (r.depth, r.place, r.e.lease));
        ranked.truncate(limits::EVIDENCE);
    }
    ranked.sort_by_key(|r| r.e.lease);
    let near = near.into_iter().map(|(node, depth)| (node, u8::try_from(depth).unwrap_or(u8::MAX))).collect();
    (ranked.into_iter().map(|r| r.e).collect(), near)
}

/// What went wrong is as useful to know as so many units of what went well.
const FAILURE_UNITS: f64 = 10.0;

struct Ranked {
    depth: usize,
    /// Its place among its renter's, the most useful first.
    place: usize,
    use_of: f64,
    e: Evidence,
}

/// Keeps the `most` most useful of each group, and numbers them.
fn keep_best(ranked: &mut Vec<Ranked>, most: usize, group: impl Fn(&Evidence) -> (NodeId, NodeId)) {
    ranked.sort_by(|a, b| {
        let by_use = b.use_of.total_cmp(&a.use_of);
        group(&a.e).cmp(&group(&b.e)).then(by_use).then(a.e.lease.cmp(&b.e.lease))
    });
    let mut last = None;
    let mut place = 0;
    ranked.retain_mut(|r| {
        let group = group(&r.e);
        place = if last == Some(group) { place + 1 } else { 0 };
        last = Some(group);
        r.place = place;
        place < most
    });
}

/// One account of each lease: see [`Evidence::compare`] and [`Evidence::absorb`]. Accounts that can't count don't take part.
fn one_of_each(mut evidence: Vec<Evidence>, blocked: &BTreeSet<NodeId>, now: Timestamp) -> Vec<Evidence> {
    evidence.retain(|e| {
        let ahead = e.at.0 > now.0.saturating_add(limits::AHEAD_MS);
        let parties = e.host != e.renter && !blocked.contains(&e.host) && !blocked.contains(&e.renter);
        parties && !ahead && decay(e.at, now) > 0.0
    });
    evidence.sort_unstable_by(|a, b| a.lease.cmp(&b.lease).then_with(|| b.compare(a)));
    let mut kept: Vec<Evidence> = Vec::with_capacity(evidence.len());
    let mut lease: Option<LeaseId> = None;
    for mut e in evidence {
        if lease == Some(e.lease)
            && let Some(best) = kept.last_mut()
        {
            best.absorb(e);
            continue;
        }
        lease = Some(e.lease);
        e.settled = e.settled.min(e.agreed);
        kept.push(e);
    }
    kept
}

/// Steps over settled trade from the starts to each node within the walk's reach.
fn near(
    evidence: &[Evidence],
    starts: &BTreeSet<NodeId>,
    vouched: &[(NodeId, NodeId)],
    units: &BTreeMap<Currency, Amount>,
) -> BTreeMap<NodeId, usize> {
    let mut partners: BTreeMap<NodeId, BTreeSet<NodeId>> = BTreeMap::new();
    for e in evidence.iter().filter(|e| in_units(e.settled, &e.currency, units) > 0.0) {
        partners.entry(e.renter).or_default().insert(e.host);
        partners.entry(e.host).or_default().insert(e.renter);
    }
    for (from, to) in vouched {
        partners.entry(*from).or_default().insert(*to);
    }
    let mut near: BTreeMap<NodeId, usize> = starts.iter().map(|node| (*node, 0)).collect();
    let mut queue: VecDeque<NodeId> = starts.iter().copied().collect();
    while let Some(node) = queue.pop_front() {
        let depth = near.get(&node).copied().unwrap_or(limits::DEPTH);
        if depth >= limits::DEPTH {
            continue;
        }
        for partner in partners.get(&node).into_iter().flatten() {
            if !near.contains_key(partner) {
                near.insert(*partner, depth + 1);
                queue.push_back(*partner);
            }
        }
    }
    near
}
