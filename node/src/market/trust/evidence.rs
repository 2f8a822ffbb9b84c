//! Evidence from peers and for them: asking, verifying beside the task, keeping; and answering who asks.

use std::collections::BTreeSet;

use souk_ledger::{
    foreign::{self, Read, Unproven},
    reputation::Evidence,
};
use souk_network::Reply as PeerReply;
use souk_protocol::{
    DocumentId, NodeId,
    evidence::{EvidencePage, PAGE_BYTES},
    message::{Request, Response},
    negotiation::{Reject, RejectCode},
};

use super::{Market, opinions::vouched, table::Vouch};
use crate::{clock::now, market::task::Internal};

/// How long a peer has for a page.
const ANSWER_WITHIN: std::time::Duration = std::time::Duration::from_secs(10);
/// Questions begun in one look.
const AT_ONCE: usize = 4;

/// What came of asking a peer.
#[derive(Debug)]
pub enum Pulled {
    /// A page, not verified: its bytes, and whether it is the first.
    Page(Box<EvidencePage>, u64, bool),
    /// A page, verified: what it says, where it ends, and whether it is the first.
    Verified(Box<Read>, Option<u64>, bool),
    /// A page in which something is wrong.
    Wrong(Unproven),
    /// It does not answer, or does not show anything.
    Nothing(String),
}

impl Market {
    /// A person looks at these hosts: their evidence is asked for soon.
    pub(in crate::market) fn look_at(&mut self, hosts: impl IntoIterator<Item = NodeId>) {
        let (me, at) = (self.engine.me(), now());
        for host in hosts.into_iter().filter(|host| *host != me) {
            self.trust.puller.want(host, at);
        }
        self.pull_evidence();
    }

    pub(super) fn look_for_hosts(&mut self) {
        let at = now();
        let me = self.engine.me();
        let online = self.engine.connected().next().is_some();
        let there = self.engine.book().offers().map(|o| o.host).filter(|host| *host != me);
        self.trust.table.uptime.look(there, online, at);
        self.trust.table.note_looked();
        for peer in self.engine.connected() {
            self.trust.puller.known(*peer, at);
        }
    }

    pub(super) fn pull_evidence(&mut self) {
        for _ in 0..AT_ONCE {
            let engine = &self.engine;
            let connected: BTreeSet<&NodeId> = engine.connected().collect();
            let reachable = |peer: &NodeId| {
                (connected.contains(peer) || engine.book().offers_any_of(peer))
                    && !engine.regard().blocks(peer, engine.book())
            };
            let Some(ask) = self.trust.puller.poll(now(), reachable) else { return };
            let (network, internal) = (self.network.clone(), self.internal.clone());
            let body = Request::Evidence { with: None, before: ask.before }.to_bytes();
            tokio::spawn(async move {
                let pulled = match network.request(ask.peer, body, ANSWER_WITHIN).await {
                    Ok(bytes) if bytes.len() > PAGE_BYTES + 1024 => Pulled::Nothing("its page is too large".to_owned()),
                    Ok(bytes) => match Response::from_bytes(&bytes) {
                        Ok(Response::Evidence(page)) => Pulled::Page(page, bytes.len() as u64, ask.before.is_none()),
                        Ok(Response::Rejected(reject)) => Pulled::Nothing(reject.sentence),
                        Ok(_) => Pulled::Nothing("it answers something else".to_owned()),
                        Err(error) => Pulled::Nothing(format!("its answer is {error}")),
                    },
                    Err(error) => Pulled::Nothing(error.to_string()),
                };
                internal.send(Internal::Pulled(ask.peer, pulled)).await.ok();
            });
        }
    }

    pub(in crate::market) fn pulled(&mut self, peer: NodeId, pulled: Pulled) {
        let at = now();
        match pulled {
            Pulled::Page(page, bytes, first) => {
                if let Err(why) = self.trust.puller.came(&peer, bytes, u64::from(page.signatures()), at) {
                    return tracing::warn!(%peer, "a peer's evidence is not looked at: {why}");
                }
                let (network, internal) = (*self.engine.network(), self.internal.clone());
                tokio::task::spawn_blocking(move || {
                    let pulled = match foreign::read(&page, &peer, &network, at) {
                        Ok(read) => Pulled::Verified(Box::new(read), page.next, first),
                        Err(why) => Pulled::Wrong(why),
                    };
                    internal.blocking_send(Internal::Pulled(peer, pulled)).ok();
                });
            }
            Pulled::Verified(read, next, first) => {
                self.trust.puller.taken(&peer, next, at);
                self.take_evidence(peer, *read, first);
                self.pull_evidence();
            }
            Pulled::Wrong(why) => {
                self.trust.puller.lied(&peer, at);
                tracing::warn!(%peer, "a peer's evidence is false: {why}; it is not asked again for a day");
            }
            Pulled::Nothing(why) => {
                self.trust.puller.failed(&peer, at);
                tracing::debug!(%peer, why, "a peer shows no evidence");
            }
        }
    }

    fn take_evidence(&mut self, peer: NodeId, read: Read, first: bool) {
        let me = self.engine.me();
        let attesters = self.attesters();
        let trust = &mut self.trust;
        let mut new = false;
        // What we are a party of is in our own ledger.
        for lease in read.leases.iter().filter(|lease| lease.peer_of(&me).is_none()) {
            if let Some(evidence) = Evidence::from_lease(lease) {
                new |= trust.table.take_lease(evidence, peer);
            }
        }
        for paid in read.payments.into_iter().filter(|paid| paid.payer != me && paid.payee != me) {
            new |= trust.table.take_payment(paid);
        }
        if first {
            // What a node does not show any more was withdrawn, or has ended.
            let shown: BTreeSet<DocumentId> = read.attestations.iter().map(|entry| entry.id).collect();
            new |= trust
                .table
                .keep_vouches(|author, about, entry| about != peer || author == peer || shown.contains(&entry));
        }
        for entry in read.attestations.iter().filter(|entry| attesters.contains(&entry.value.author)) {
            if let Some((subject, said)) = vouched(entry) {
                let vouch =
                    Vouch { seq: entry.value.seq, until: said.until, withdrawn: said.withdrawn, entry: entry.id };
                new |= trust.table.take_vouch(entry.value.author, subject, said.claim.clone(), vouch);
            }
        }
        trust.dirty |= new;
    }

    /// A peer asks what we show of ourselves.
    pub(in crate::market) fn show_evidence(
        &mut self,
        from: NodeId,
        with: Option<NodeId>,
        before: Option<u64>,
        reply: PeerReply,
    ) {
        let refuse = |response: Response, reply: PeerReply| {
            reply.send(response.to_bytes()).ok();
        };
        if self.blocks_peer(&from, None) {
            let reject = Reject::lasting(RejectCode::Blocked, "the owner of this node has blocked you");
            return refuse(Response::Rejected(reject), reply);
        }
        if let Err(wait) = self.trust.giver.admit(from, now()) {
            return refuse(Response::Busy { retry_after_ms: wait.0 }, reply);
        }
        let shows = self.trust.config.show_leases;
        let (view, at) = (self.ledger.reader(), now());
        tokio::task::spawn_blocking(move || {
            let response = match view.show(with.as_ref(), before, at) {
                Ok(mut page) => {
                    if !shows {
                        // What others vouch for was said to be shown.
                        page = EvidencePage { attestations: page.attestations, ..EvidencePage::default() };
                    }
                    let size = |page: &EvidencePage| souk_protocol::encode::to_bytes(page).len();
                    while size(&page) > PAGE_BYTES && page.leases.pop().is_some() {}
                    Response::Evidence(Box::new(page))
                }
                Err(error) => {
                    tracing::error!("the ledger does not answer: {error}");
                    Response::Rejected(Reject::passing(RejectCode::Unavailable, "the ledger does not answer"))
                }
            };
            reply.send(response.to_bytes()).ok();
        });
    }
}
