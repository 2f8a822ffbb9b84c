//! Meetings, proofs of forks and what they do: the engine's part in the node.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use souk_network::{GossipVerdict, Reply as PeerReply, Topic};
use souk_protocol::{
    NodeId, encode,
    fork::ForkProof,
    heads::Meet,
    limits,
    machine::{forks::Concern, io::Input},
    message::Response,
    negotiation::{Reject, RejectCode},
};

use super::task::Market;
use crate::api::types::Problem;

/// How long a rival with this node's key is spoken of after it was last heard of, in milliseconds.
const RIVAL_TOLD: u64 = 10 * 60_000;
/// Answers to nodes that restore their ledgers, at once: each reads thousands of rows.
pub const RECALLING: usize = 2;

impl Market {
    /// A peer meets us.
    pub(super) fn met(&mut self, from: NodeId, meet: Box<Meet>, reply: PeerReply) {
        if !self.meetings.take(from) {
            reply.send(Response::Busy { retry_after_ms: 5_000 }.to_bytes()).ok();
            return;
        }
        let looked_up = Box::new(self.ledger.looked_up(&from, &meet));
        let token = self.expect_reply(from, reply);
        self.input(Input::Meeting { from, token, meet, looked_up });
    }

    /// A proof came by gossip.
    pub(super) fn proof_came(&mut self, from: NodeId, data: &[u8], verdict: GossipVerdict) {
        let proof = encode::from_bytes::<ForkProof>(data, limits::PROOF_BYTES).ok();
        let concerns = self.concerns(proof.and_then(|p| p.accused()));
        let concern = concerns.into_values().max().unwrap_or_default();
        let token = self.expect_verdict(verdict);
        self.input(Input::Proof { token, from, data: data.to_vec(), concern });
    }

    /// How much forks of these nodes matter, as far as the ledger and what others have shown tell; those that don't are left out.
    pub(super) fn concerns(&self, accused: impl IntoIterator<Item = NodeId>) -> BTreeMap<NodeId, Concern> {
        let mut left: BTreeSet<NodeId> = accused.into_iter().collect();
        let mut concerns: BTreeMap<NodeId, Concern> = BTreeMap::new();
        concerns.extend(left.iter().filter(|node| self.ledger.has_dealt(node)).map(|node| (*node, Concern::Dealt)));
        left.retain(|node| !concerns.contains_key(node));
        if !left.is_empty() {
            concerns
                .extend(self.trust.heard_of().filter(|node| left.contains(node)).map(|node| (node, Concern::Heard)));
        }
        concerns
    }

    /// Tells the engine of whose forks matter by what others have shown: the ledger does not know.
    pub(super) fn tell_heard_of(&mut self) {
        self.engine.heard_of(self.trust.heard_of());
    }

    /// An entry of a peer's contradicts what is held of its chain.
    pub(super) fn contradicted(&mut self, from: NodeId, proof: Option<ForkProof>) -> Reject {
        tracing::warn!(peer = %from, "a peer contradicts what it has signed before");
        if let Some(proof) = proof {
            self.input(Input::Contradicted(Box::new(proof)));
        }
        Reject::lasting(RejectCode::Malformed, "an entry contradicts what its author has signed before")
    }

    /// Tells the engine of contradictions that the ledger has found.
    pub(super) fn tell_forks(&mut self) {
        for proof in self.ledger.new_forks() {
            self.input(Input::Contradicted(Box::new(proof)));
        }
    }

    /// An author is known to have contradicted itself: its offers are not found any more, and if it was found out here, others
    /// are told.
    pub(super) fn forked(&mut self, author: NodeId, proof: &ForkProof, found: bool) {
        tracing::warn!(node = %author, by = proof.name(), "a node has signed two contradicting chains: no new leases with it");
        let machines: Vec<_> = self.engine.book().offers().filter(|o| o.host == author).map(|o| o.machine).collect();
        for machine in machines {
            self.index.remove(&author, &machine);
        }
        if !found {
            return;
        }
        let bytes = encode::to_bytes(proof);
        let network = self.network.clone();
        tokio::spawn(async move {
            if let Err(error) = network.publish(Topic::Proofs, bytes).await {
                tracing::warn!(%error, "a proof was not passed on");
            }
        });
    }

    /// What is wrong with our own key or those we deal with.
    pub(super) fn key_problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.engine.is_forked(&self.engine.me()) {
            problems.push(Problem {
                sentence: "this node's key has signed two contradicting chains, and no node makes new leases with it"
                    .to_owned(),
                fix: "let open leases end, then make a new identity: souk init --dir ANOTHER".to_owned(),
            });
        }
        let told = self.engine.rival().filter(|at| crate::clock::now().since(*at).0 < RIVAL_TOLD);
        if told.is_some() {
            problems.push(Problem {
                sentence: "another node was started with a copy of this node's key; it was told to stop".to_owned(),
                fix: "give every machine an identity of its own: souk init there".to_owned(),
            });
        }
        let hosts = self.engine.renter().leases().values().map(|l| l.host());
        let renters = self.engine.host().leases().values().map(|l| l.draft().renter);
        let forked: BTreeSet<NodeId> = hosts.chain(renters).filter(|p| self.engine.is_forked(p)).collect();
        problems.extend(forked.into_iter().map(|node| Problem {
            sentence: format!("{node}, with whom a lease is open, has signed two contradicting chains"),
            fix: "fetch what is yours with souk copy; the lease runs out, and no new one is made".to_owned(),
        }));
        problems
    }

    /// A peer restores its ledger.
    pub(super) fn recalled(
        &mut self,
        from: NodeId,
        (length, since, page): (u64, souk_protocol::Timestamp, u32),
        reply: PeerReply,
    ) {
        if !self.ledger.has_leased(&from) {
            // Of strangers nothing is held that a ledger could lack.
            reply.send(Response::Recalled { records: Vec::new(), more: false }.to_bytes()).ok();
            return;
        }
        let asks = self.recalls.take(from);
        match Arc::clone(&self.recalling).try_acquire_owned() {
            Ok(turn) if asks => self.ledger.recalled(from, (length, since, page), reply, turn),
            Ok(_) | Err(_) => drop(reply.send(Response::Busy { retry_after_ms: 1_000 }.to_bytes())),
        }
    }
}

/// How often peers have asked for what costs some reading.
#[derive(Debug)]
pub struct Asked {
    /// How often one peer may ask within `period` milliseconds.
    each: u32,
    period: u64,
    /// Peers counted at once.
    peers: usize,
    since: souk_protocol::Timestamp,
    asked: BTreeMap<NodeId, u32>,
}

impl Asked {
    /// For meetings: the engine answers no more, and what they look up is not free either.
    pub const fn for_meetings() -> Self {
        Self::new(limits::MEETINGS_PER_MINUTE, 60_000, 4096)
    }

    /// For pages of what is held of a node: everything, twice in a quarter of an hour.
    pub const fn for_recalls() -> Self {
        Self::new(2 * limits::RECALL_PAGES, 15 * 60_000, 256)
    }

    const fn new(each: u32, period: u64, peers: usize) -> Self {
        let since = souk_protocol::Timestamp(0);
        Self { each, period, peers, since, asked: BTreeMap::new() }
    }

    fn take(&mut self, from: NodeId) -> bool {
        let now = crate::clock::now();
        if now.since(self.since).0 > self.period || now < self.since {
            (self.since, self.asked) = (now, BTreeMap::new());
        }
        if self.asked.len() >= self.peers && !self.asked.contains_key(&from) {
            return false;
        }
        let asked = self.asked.entry(from).or_default();
        *asked = asked.saturating_add(1);
        *asked <= self.each
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_too_often_waits_and_others_do_not() {
        let mut asked = Asked::new(3, u64::MAX, 2);
        let peer = |n| NodeId([n; 32]);
        assert_eq!([(); 4].map(|()| asked.take(peer(1))), [true, true, true, false]);
        assert!(asked.take(peer(2)), "another is counted by itself");
        assert!(!asked.take(peer(3)), "no more are counted than fit");
        let mut short = Asked::new(1, 0, 1);
        short.since = souk_protocol::Timestamp(1);
        assert!(short.take(peer(1)));
    }
}
