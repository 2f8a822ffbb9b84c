//! Scores: computed beside the task when something has changed, kept, and carried to searches, to who may rent, to gossip.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use souk_ledger::{
    reputation::{Evidence, Explanation, Kind, Paid, Probe, Reputation, Score, Scores, Seed, Side, settle},
    view::{QueryError, Select, View},
};
use souk_protocol::{
    HostId, Millis, NodeId, Timestamp,
    entry::Body,
    machine::{policy::Accept, search::PeerFacts},
};

use super::{Market, answer};
use crate::{
    api::types::{ReasonView, ReputationRequest, ReputationView, ScoreView},
    clock::now,
    market::{command::Reply, task::Internal},
};

/// Own leases looked at.
const OWN_LEASES: usize = 20_000;
/// At least so long between two computations; and twenty times as long as one takes.
const EVERY: Millis = Millis::from_secs(5);
/// Scores are computed anew so often whatever happens: evidence grows old.
const AT_LEAST: Millis = Millis::from_hours(1);
/// Reasons named.
const REASONS: usize = 50;
/// Nodes shown when nobody is named.
const SHOWN: usize = 1000;
/// What a stranger's trust is in gossip: nothing for or against.
const NEUTRAL: f64 = souk_protocol::machine::search::STRANGER_TRUST;
/// Bounds of what reputation adds to a peer's gossip score: less than two rejected messages take, and no more than long service
/// gives. It can't silence anybody by itself.
const GOSSIP: (f64, f64) = (-10.0, 10.0);
/// Claims that searches have fields for.
const VERIFIED: &str = "verified";
const DATACENTER: &str = "datacenter";

/// Scores, and when they are of.
#[derive(Debug)]
pub struct Computed {
    scores: Scores,
    at: Timestamp,
    took: Millis,
}

impl Market {
    pub(super) fn compute_scores(&mut self) {
        let at = now();
        let stale = self.trust.computed_at.is_none_or(|then| at.since(then) >= AT_LEAST || then > at);
        // A clock that went back must not stop us.
        self.trust.next_at = self.trust.next_at.min(at + AT_LEAST);
        if self.trust.computing || !(self.trust.dirty || stale) || at < self.trust.next_at {
            return;
        }
        self.trust.computing = true;
        self.trust.dirty = false;
        let reputation = self.known();
        let (view, internal) = (self.ledger.reader(), self.internal.clone());
        let (others, payments): (Vec<Evidence>, Vec<Paid>) =
            (self.trust.table.evidence().cloned().collect(), self.trust.table.payments().collect());
        tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            let computed = match compute(&view, reputation, others, payments, at) {
                Ok(scores) => {
                    let took = Millis(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX));
                    Some(Box::new(Computed { scores, at, took }))
                }
                Err(error) => {
                    tracing::error!("the ledger does not answer: {error}");
                    None
                }
            };
            internal.blocking_send(Internal::Scored(computed)).ok();
        });
    }

    /// What is known beside receipts.
    fn known(&self) -> Reputation {
        let me = self.engine.me();
        let at = now();
        let mut reputation = Reputation::new(me);
        let trusted = self.trust.trusted.keys().flat_map(|who| self.nodes_of(who));
        let listed = self.trust.config.listed.iter().map(|node| (*node, Seed::Listed));
        let configured = self.attesters().into_iter().map(|node| (node, Seed::Attester));
        // The last of several holds: the weightiest.
        reputation.seeds = listed.chain(configured).chain(trusted.map(|node| (node, Seed::Trusted))).collect();
        reputation.seeds.remove(&me);
        reputation.vouches = self.trust.table.vouches(at).map(|(by, about, _)| (by, about)).collect();
        reputation.blocked = self.trust.blocked.keys().flat_map(|who| self.nodes_of(who)).collect();
        let probe = |(peer, at, seen)| Probe { lease: None, peer, at, seen };
        reputation.probes = self.trust.table.uptime.observations().map(probe).collect();
        reputation
    }

    pub(in crate::market) fn scored(&mut self, computed: Option<Box<Computed>>) {
        self.trust.computing = false;
        let Some(computed) = computed else {
            self.trust.dirty = true;
            self.trust.next_at = now() + EVERY;
            return;
        };
        let Computed { scores, at, took } = *computed;
        self.trust.next_at = now() + EVERY.max(Millis(took.0.saturating_mul(20)));
        self.trust.computed_at = Some(at);
        self.trust.table.rate(scores.near());
        self.trust.scores = Some(Arc::new(scores));
        let hosts: BTreeSet<NodeId> = self.engine.book().offers().map(|o| o.host).collect();
        let claims = self.claims();
        for host in hosts {
            self.show_score(host, &claims);
        }
        self.let_renters_in();
        self.tell_gossip();
    }

    /// What accepted attesters vouch for, by node.
    fn claims(&self) -> BTreeMap<NodeId, BTreeSet<String>> {
        let (at, attesters) = (now(), self.attesters());
        let mut claims: BTreeMap<NodeId, BTreeSet<String>> = BTreeMap::new();
        let others = self.trust.table.vouches(at).filter(|(by, ..)| attesters.contains(by));
        for (_, about, claim) in others {
            claims.entry(about).or_default().insert(claim.to_owned());
        }
        for (about, said) in &self.trust.said {
            for (claim, signed) in said {
                if in_force(signed, at) {
                    claims.entry(*about).or_default().insert(claim.clone());
                }
            }
        }
        claims
    }

    /// A host has come onto the market: searches know what is thought of it.
    pub(in crate::market) fn show_host(&mut self, host: NodeId) {
        self.trust.puller.known(host, now());
        let known = self.trust.scores.is_some() && self.index.facts(&host) == PeerFacts::default();
        if known {
            let claims = self.claims();
            self.show_score(host, &claims);
        }
        self.show_blocked(host);
    }

    fn show_score(&mut self, host: NodeId, claims: &BTreeMap<NodeId, BTreeSet<String>>) {
        let Some(scores) = &self.trust.scores else { return };
        let score = scores.of(&host);
        let claimed = |claim: &str| claims.get(&host).is_some_and(|claims| claims.contains(claim));
        let stranger = PeerFacts::default();
        let unknown = score == Score::stranger();
        let before = self.index.facts(&host);
        let facts = PeerFacts {
            trust: score.trust,
            reliability: if unknown { stranger.reliability } else { score.reliability },
            verified: claimed(VERIFIED),
            datacenter: claimed(DATACENTER),
            ..before
        };
        if facts != before {
            self.index.set_facts(host, facts);
        }
    }

    /// Renters whom the host's owner lets in by trust or attestations.
    fn let_renters_in(&mut self) {
        let Some(host) = &self.host else { return };
        let Some(scores) = &self.trust.scores else { return };
        let let_in: BTreeSet<NodeId> = match host.accept_policy() {
            Accept::Anyone | Accept::Peers(_) => BTreeSet::new(),
            Accept::Attested { by, .. } => {
                let by: BTreeSet<NodeId> = by.into_iter().collect();
                let vouched = self.trust.table.vouches(now()).filter(|(author, ..)| by.contains(author));
                vouched.map(|(_, about, _)| about).collect()
            }
            Accept::Trusted { least, .. } => {
                let enough = |node: &&NodeId| scores.of_renter(node).trust * 1000.0 >= f64::from(least);
                let named = self.trust.trusted.keys().flat_map(|who| self.nodes_of(who));
                scores.nodes().filter(enough).copied().chain(named).collect()
            }
        };
        if let_in != self.trust.let_in {
            self.trust.let_in = let_in;
            self.offer_machine();
        }
    }

    /// A proposal came: of somebody who may be let in once more is known, evidence is asked for.
    pub(in crate::market) fn look_at_renter(&mut self, from: NodeId) {
        let policy = self.host.as_ref().map(crate::host::HostSide::accept_policy);
        if matches!(policy, Some(Accept::Attested { .. } | Accept::Trusted { .. })) {
            self.look_at([from]);
        }
    }

    /// Gossip prefers peers that are trusted, within bounds.
    fn tell_gossip(&mut self) {
        let Some(scores) = &self.trust.scores else { return };
        let regard = self.engine.regard();
        let mut news = Vec::new();
        let mut told = BTreeMap::new();
        for peer in self.engine.connected() {
            let score = if regard.blocks(peer, self.engine.book()) {
                GOSSIP.0
            } else {
                let trust = scores.of(peer).trust.max(scores.of_renter(peer).trust);
                gossip_score(trust)
            };
            if self.trust.told.get(peer) != Some(&score) {
                news.push((*peer, score));
            }
            told.insert(*peer, score);
        }
        self.trust.told = told;
        let network = self.network.clone();
        tokio::spawn(async move {
            for (peer, score) in news {
                if network.set_application_score(peer, score).await.is_err() {
                    return;
                }
            }
        });
    }

    /// A lease that is over says something of its parties.
    pub(in crate::market) const fn lease_tells(&mut self) {
        self.trust.dirty = true;
    }

    /// A new connection is scored anew.
    pub(in crate::market) fn score_connection(&mut self, peer: NodeId) {
        self.trust.told.remove(&peer);
        self.trust.dirty = true;
    }

    pub(super) fn reputation(
        &mut self,
        peer: Option<&str>,
        request: &ReputationRequest,
        reply: Reply<Vec<ReputationView>>,
    ) {
        let nodes: Vec<NodeId> = match peer.map(|text| self.find_peer(text)).transpose() {
            Err(error) => return answer(reply, Err(error)),
            Ok(Some(who)) => {
                let nodes = self.nodes_of(&who);
                self.look_at(nodes.iter().copied());
                nodes
            }
            Ok(None) => {
                let hosts = self.engine.book().offers().map(|o| o.host);
                let rated: Vec<NodeId> = self.trust.scores.iter().flat_map(|s| s.nodes().copied()).collect();
                let trusted = self.trust.trusted.keys().flat_map(|who| self.nodes_of(who));
                let all: BTreeSet<NodeId> = hosts.chain(rated).chain(trusted).chain([self.engine.me()]).collect();
                all.into_iter().collect()
            }
        };
        let claims = self.claims();
        let facts: Vec<ReputationView> = nodes.iter().map(|node| self.reputation_of(*node, &claims)).collect();
        let (scores, explain) = (self.trust.scores.clone(), request.explain);
        tokio::task::spawn_blocking(move || {
            let mut views = facts;
            for view in &mut views {
                if let Some(scores) = &scores {
                    view.host = score_view(scores, Side::Host, &view.peer, explain);
                    view.renter = score_view(scores, Side::Renter, &view.peer, explain);
                    view.leases_known = scores.leases() as u64;
                }
            }
            let best = |view: &ReputationView| view.host.trust.max(view.renter.trust);
            views.sort_by(|a, b| best(b).total_cmp(&best(a)).then(a.peer.cmp(&b.peer)));
            views.truncate(SHOWN);
            answer(reply, Ok(views));
        });
    }

    fn reputation_of(&self, peer: NodeId, claims: &BTreeMap<NodeId, BTreeSet<String>>) -> ReputationView {
        let stranger = plain(&Score::stranger());
        ReputationView {
            peer,
            host_id: self.engine.book().offers_of(&peer).next().map_or(HostId::Node(peer), |o| o.host_id()),
            trusted: self.is_trusted(&peer),
            blocked: self.engine.regard().blocks(&peer, self.engine.book()),
            host: stranger.clone(),
            renter: stranger,
            attested: claims.get(&peer).map(|c| c.iter().cloned().collect()).unwrap_or_default(),
            leases_known: 0,
            computed_at_ms: self.trust.computed_at,
        }
    }
}

fn in_force(signed: &souk_protocol::Signed<souk_protocol::entry::Entry>, now: Timestamp) -> bool {
    let entry = souk_protocol::encode::from_bytes::<souk_protocol::entry::Entry>(
        signed.payload(),
        souk_protocol::limits::ENTRY_BYTES,
    );
    let Ok(entry) = entry else { return false };
    matches!(&entry.body, Body::Attestation(said) if !said.withdrawn && said.until.is_none_or(|until| now < until))
}

/// From a trust to what it adds to a gossip score: nothing for a stranger.
fn gossip_score(trust: f64) -> f64 {
    let share = if trust >= NEUTRAL { (trust - NEUTRAL) / (1.0 - NEUTRAL) } else { (trust - NEUTRAL) / NEUTRAL };
    let scaled = if share >= 0.0 { share * GOSSIP.1 } else { -share * GOSSIP.0 };
    // Whole steps: a change that means nothing is not told.
    scaled.clamp(GOSSIP.0, GOSSIP.1).round()
}

fn plain(score: &Score) -> ScoreView {
    ScoreView {
        trust: score.trust,
        reliability: score.reliability,
        uptime: score.uptime,
        successes: score.successes,
        failures: score.failures,
        raters: score.raters,
        reasons: Vec::new(),
        reasons_left_out: 0,
    }
}

fn score_view(scores: &Scores, side: Side, peer: &NodeId, explain: bool) -> ScoreView {
    if !explain {
        return plain(&scores.on(side, peer));
    }
    let Explanation { score, reasons, left_out } = scores.explain(side, peer, REASONS);
    let reasons = reasons.into_iter().map(|reason| {
        let (what, admitted) = match reason.kind {
            Kind::Success => ("success".to_owned(), true),
            Kind::Failure { cause, admitted } => (cause.name().to_owned(), admitted),
            Kind::Watched(seen) => {
                let share = seen.answered.0 as f64 * 100.0 / seen.watched.0.max(1) as f64;
                (format!("ran {share:.1} % of {} watched", seen.watched), true)
            }
        };
        ReasonView { lease: reason.lease, by: reason.rater, what, admitted, weight: reason.weight }
    });
    ScoreView { reasons: reasons.collect(), reasons_left_out: left_out as u64, ..plain(&score) }
}

fn compute(
    view: &View,
    mut reputation: Reputation,
    others: Vec<Evidence>,
    mut payments: Vec<Paid>,
    at: Timestamp,
) -> Result<Scores, QueryError> {
    let me = reputation.me;
    reputation.evidence = others;
    let leases = view.leases(Select::All, OWN_LEASES)?;
    reputation.evidence.extend(leases.iter().filter_map(Evidence::from_lease));
    reputation.probes.extend(leases.iter().filter_map(|lease| Probe::from_lease(lease, &me)));
    for (peer, currency, balance) in view.balances(None)? {
        payments.push(Paid { payer: me, payee: peer, currency: currency.clone(), total: balance.paid_acked });
        payments.push(Paid { payer: peer, payee: me, currency, total: balance.received });
    }
    settle(&mut reputation.evidence, &payments);
    // What we vouch for counts for ourselves already: the walk begins here.
    for (about, _, row) in view.attestations_by(&me)? {
        if row.holds(at) {
            reputation.vouches.insert((me, about));
        }
    }
    reputation.blocked.extend(view.forked()?);
    reputation.blocked.remove(&me);
    Ok(reputation.compute(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gossip_is_moved_within_bounds_and_not_by_strangers() {
        assert_eq!(gossip_score(NEUTRAL), 0.0);
        assert_eq!(gossip_score(Score::stranger().trust), 0.0);
        assert_eq!((gossip_score(1.0), gossip_score(0.0)), (GOSSIP.1, GOSSIP.0));
        assert_eq!((gossip_score(99.0), gossip_score(-99.0)), (GOSSIP.1, GOSSIP.0));
        assert!(gossip_score(0.5) > 0.0 && gossip_score(0.05) < 0.0);
    }
}
