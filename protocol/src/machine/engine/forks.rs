//! The engine's part in forks: proofs that come by gossip or at meetings, and how much each key matters to this node.

use std::collections::BTreeMap;

use super::Engine;
use crate::{
    NodeId, Timestamp, encode,
    fork::ForkProof,
    limits,
    machine::{
        context::Context,
        forks::{Concern, Taken},
        heads::{Origin, forked},
        io::{Output, Token, Verdict},
        record::{Private, Record},
    },
    message::Response,
    violation::Violation,
};

/// Takes up those that were known before this start. Those that are too many go.
pub(super) fn restore(cx: &mut Context, known: Vec<(NodeId, Concern)>) {
    for (author, concern) in known {
        let gone = match cx.forked.restore(author, concern) {
            Taken::New { instead_of } => instead_of,
            Taken::No => Some(author),
            Taken::Known => None,
        };
        if let Some(gone) = gone {
            cx.persist(Record::Private(Private::ForkGone(gone)));
        }
    }
}

impl Engine {
    /// Nodes that others have shown evidence of: forks of theirs matter more than those of strangers.
    pub fn heard_of(&mut self, nodes: impl IntoIterator<Item = NodeId>) {
        nodes.into_iter().for_each(|node| self.cx.forked.raise(&node, Concern::Heard));
    }

    /// Whether somebody is known to have signed two chains.
    #[must_use]
    pub fn is_forked(&self, node: &NodeId) -> bool {
        self.cx.forked.contains(node)
    }

    /// A peer has answered a meeting, or has not.
    pub(super) fn met(
        &mut self,
        token: Token,
        response: Option<Response>,
        mut concerns: BTreeMap<NodeId, Concern>,
        now: Timestamp,
    ) {
        if !self.cx.is_meeting(token) {
            return;
        }
        let Some((peer, _)) = self.cx.answered(token) else { return };
        if let Some(Response::Met(met)) = &response {
            for node in met.forks.accused() {
                let known = concerns.entry(node).or_default();
                *known = self.concern(&node).max(*known);
            }
        }
        self.heads.set_party(peer, self.is_party(&peer));
        self.heads.met(&mut self.cx, peer, response, &concerns, now);
    }

    /// A proof that somebody passes on: kept, and passed on in turn, only about those that concern us.
    pub(super) fn proof(&mut self, token: Token, from: NodeId, data: &[u8], concern: Concern, now: Timestamp) {
        let (verdict, why) = match encode::from_bytes::<ForkProof>(data, limits::PROOF_BYTES) {
            Err(why) => (Verdict::Reject, Some(why.to_string())),
            Ok(proof) => match proof.accused() {
                None => (Verdict::Reject, Some("it accuses nobody".to_owned())),
                Some(author) => {
                    let concern = self.concern(&author).max(concern);
                    let cx = &mut self.cx;
                    cx.forked.raise(&author, concern);
                    // Who does not concern us is not even checked: keys are free, and so are forks of them.
                    let wanted = concern > Concern::Nobody && cx.forked.would_take(&author, concern);
                    if !wanted || !self.heads.may_pass_on(from, cx, now) {
                        (Verdict::Ignore, None)
                    } else {
                        match proof.verify(cx.chain.network()) {
                            Err(why) => (Verdict::Reject, Some(why.to_string())),
                            Ok(_) => {
                                forked(cx, proof, concern, Origin::Told);
                                (Verdict::Accept, None)
                            }
                        }
                    }
                }
            },
        };
        let cx = &mut self.cx;
        if let Some(why) = why {
            cx.out(Output::Violation(Violation::Malformed { peer: from, what: "a proof of a fork", why }));
        }
        cx.out(Output::Verdict { token, verdict });
    }

    /// How much a key's fork matters to this node, as far as the engine can tell: evidence that others have shown is the shell's.
    fn concern(&self, node: &NodeId) -> Concern {
        let known = self.cx.concern(node);
        if known == Concern::Dealt || self.is_party(node) {
            Concern::Dealt
        } else if self.book.offers_any_of(node) {
            known.max(Concern::Seen)
        } else {
            known
        }
    }
}
