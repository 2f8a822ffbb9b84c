//! What this node says of others, signed: attestations and complaints; and what others say of it.

use souk_ledger::record::Held;
use souk_protocol::{
    DocumentId, LeaseId, NodeId, Signed, Timestamp,
    entry::{Body, Entry},
    machine::io::{Command as EngineCommand, Input, Refusal, Token},
    message::{Request, Response},
    opinion::{self, Attestation, Dispute},
};

use super::{Market, answer};
use crate::{
    api::types::{AttestRequest, AttestationView, ReportRequest, ReportView},
    clock::now,
    market::{
        command::{CommandError, ErrorCode, LeaseSelector, Reply},
        rentals::refused,
    },
};

/// How long a peer has to take an opinion.
const TAKE_WITHIN: std::time::Duration = std::time::Duration::from_secs(10);

/// Who waits for a signature.
#[derive(Debug)]
pub(super) enum Waiting {
    Attest(Box<Entry>, Reply<AttestationView>),
    Report(ReportView, Reply<ReportView>),
}

fn bad(why: &impl std::fmt::Display) -> CommandError {
    CommandError::new(ErrorCode::BadRequest, why.to_string())
}

impl Market {
    pub(super) fn attest(&mut self, request: &AttestRequest, reply: Reply<AttestationView>) {
        let found = self.find_node(&request.peer).and_then(|node| {
            opinion::claim(&request.claim).map_err(|e| bad(&e))?;
            if node == self.engine.me() {
                return Err(CommandError::new(ErrorCode::BadRequest, "a node can't vouch for itself"));
            }
            if request.until_ms.is_some_and(|until| until <= now()) {
                return Err(CommandError::new(ErrorCode::BadRequest, "that time is past"));
            }
            let known = self.trust.said.get(&node).is_some_and(|claims| claims.contains_key(&request.claim));
            if request.withdraw && !known {
                let message = format!("this node does not vouch for {node} being {}", request.claim);
                return Err(
                    CommandError::new(ErrorCode::NotFound, message).hint("souk attest lists what it vouches for")
                );
            }
            Ok(node)
        });
        let peer = match found {
            Ok(peer) => peer,
            Err(error) => return answer(reply, Err(error)),
        };
        let until = request.until_ms.filter(|_| !request.withdraw);
        let said = Attestation { claim: request.claim.clone(), until, withdrawn: request.withdraw };
        let token = self.token();
        // Completed when the engine hands the record out.
        let entry = Entry {
            author: self.engine.me(),
            seq: 0,
            prev: None,
            time: now(),
            lease: None,
            peer: Some(peer),
            body: Body::Attestation(said.clone()),
        };
        self.trust.waiting.insert(token, Waiting::Attest(Box::new(entry), reply));
        let body = Box::new(Body::Attestation(said));
        self.input(Input::Command(EngineCommand::Opine { token, peer, lease: None, body }));
    }

    pub(super) fn report(&mut self, id: &LeaseSelector, request: &ReportRequest, reply: Reply<ReportView>) {
        let made = self.find(id).and_then(|lease| {
            let row = self.ledger.held(&lease).ok_or_else(|| {
                CommandError::new(ErrorCode::NotFound, "the ledger has no such lease").hint("souk ps -a")
            })?;
            let against = row
                .peer_of(&self.engine.me())
                .ok_or_else(|| CommandError::new(ErrorCode::WrongState, "this node is no party of that lease"))?;
            let about = complained_of(&row);
            let dispute = Dispute { about, code: request.code, sentence: request.sentence.clone() };
            dispute.check().map_err(|e| bad(&e))?;
            Ok((lease, against, dispute))
        });
        let (lease, against, dispute) = match made {
            Ok(made) => made,
            Err(error) => return answer(reply, Err(error)),
        };
        let view =
            ReportView { lease, against, code: dispute.code, sentence: dispute.sentence.clone(), about: dispute.about };
        let token = self.token();
        self.trust.waiting.insert(token, Waiting::Report(view, reply));
        let body = Box::new(Body::Dispute(dispute));
        self.input(Input::Command(EngineCommand::Opine { token, peer: against, lease: Some(lease), body }));
    }

    /// Whether somebody waited for this.
    pub(in crate::market) fn opinion_done(&mut self, token: Token, result: &Result<(), Refusal>) -> bool {
        let Some(waiting) = self.trust.waiting.remove(&token) else { return false };
        self.trust.dirty = true;
        let failed = result.as_ref().err().map(refused);
        match (waiting, failed) {
            (Waiting::Attest(_, reply), Some(error)) => answer(reply, Err(error)),
            (Waiting::Report(_, reply), Some(error)) => answer(reply, Err(error)),
            (Waiting::Report(view, reply), None) => answer(reply, Ok(view)),
            (Waiting::Attest(entry, reply), None) => {
                let id = self.newest_of_ours(&entry);
                answer(reply, Ok(view_of(&entry, id, true, now())));
            }
        }
        true
    }

    /// The document that the engine has just made of an attestation.
    fn newest_of_ours(&self, said: &Entry) -> DocumentId {
        let (Some(peer), Body::Attestation(body)) = (said.peer, &said.body) else { return DocumentId([0; 32]) };
        let network = self.engine.network();
        let made = self.trust.said.get(&peer).and_then(|claims| claims.get(&body.claim));
        made.map_or(DocumentId([0; 32]), |signed| signed.id(network))
    }

    /// An entry of ours goes to the ledger: what it vouches for is remembered.
    pub(in crate::market) fn note_said(&mut self, entry: &Entry, signed: &Signed<Entry>) {
        if let (Body::Attestation(said), Some(peer)) = (&entry.body, entry.peer)
            && entry.author == self.engine.me()
        {
            self.trust.said.entry(peer).or_default().insert(said.claim.clone(), signed.clone());
            self.trust.dirty = true;
        }
    }

    /// Hands over what we vouch for about a peer that we have just met: it may have been away when it was signed.
    pub(in crate::market) fn hand_over_opinions(&self, peer: NodeId) {
        let Some(claims) = self.trust.said.get(&peer) else { return };
        let (network, entries) = (self.network.clone(), claims.values().cloned().collect::<Vec<_>>());
        let durable = self.ledger.durable();
        tokio::spawn(async move {
            durable.await;
            for entry in entries {
                let body = Request::Opinion { entry }.to_bytes();
                match network.request(peer, body, TAKE_WITHIN).await.map(|bytes| Response::from_bytes(&bytes)) {
                    Ok(Ok(Response::Noted)) => {}
                    Ok(Ok(Response::Rejected(reject))) => {
                        tracing::info!(%peer, "a peer does not keep an attestation about it: {reject}");
                    }
                    Ok(_) => tracing::debug!(%peer, "no answer to an attestation"),
                    Err(error) => return tracing::debug!(%peer, %error, "an attestation was not handed over"),
                }
            }
        });
    }

    pub(super) fn attestations(&self, reply: Reply<Vec<AttestationView>>) {
        let (me, attesters, at) = (self.engine.me(), self.attesters(), now());
        let view = self.ledger.reader();
        tokio::task::spawn_blocking(move || {
            let read = || {
                let by_us = view.attestations_by(&me)?.into_iter().map(|(about, claim, row)| (me, about, claim, row));
                let about_us = view.attestations_about(&me)?.into_iter().map(|(by, claim, row)| (by, me, claim, row));
                Ok::<_, souk_ledger::view::QueryError>(by_us.chain(about_us).collect::<Vec<_>>())
            };
            match read() {
                Ok(rows) => {
                    let views = rows.into_iter().map(|(by, about, claim, row)| AttestationView {
                        by,
                        about,
                        claim,
                        at_ms: row.time,
                        until_ms: row.until,
                        withdrawn: row.withdrawn,
                        entry: row.id,
                        counts: attesters.contains(&by) && row.holds(at),
                    });
                    answer(reply, Ok(views.collect()));
                }
                Err(error) => Self::unreadable(reply, &error),
            }
        });
    }

    /// Whether a complaint from a peer is about a lease that the ledger holds between both.
    pub(in crate::market) fn knows_lease_of(&self, entry: &Signed<Entry>, from: &NodeId) -> bool {
        let read = souk_protocol::encode::from_bytes::<Entry>(entry.payload(), souk_protocol::limits::ENTRY_BYTES);
        let Some(lease) = read.ok().and_then(|entry| entry.lease) else { return true };
        let party = |lease: &LeaseId| self.ledger.held(lease)?.peer_of(&self.engine.me());
        party(&lease) == Some(*from)
    }
}

/// The document that a complaint about a whole lease names: its close, or its newest usage, or its draft.
fn complained_of(lease: &souk_ledger::lease::Lease) -> DocumentId {
    let closed = lease.host_close.as_ref().or(lease.renter_close.as_ref()).map(|c| c.id);
    closed.or_else(|| lease.newest_usage().map(|u| u.id)).unwrap_or(lease.draft.id)
}

fn view_of(entry: &Entry, id: DocumentId, counts: bool, now: Timestamp) -> AttestationView {
    let said = if let Body::Attestation(said) = &entry.body { Some(said) } else { None };
    AttestationView {
        by: entry.author,
        about: entry.peer.unwrap_or(entry.author),
        claim: said.map(|s| s.claim.clone()).unwrap_or_default(),
        at_ms: entry.time,
        until_ms: said.and_then(|s| s.until),
        withdrawn: said.is_some_and(|s| s.withdrawn),
        entry: id,
        counts: counts && said.is_some_and(|s| !s.withdrawn && s.until.is_none_or(|until| now < until)),
    }
}

/// What an entry vouches for, if it is an attestation.
pub(super) fn vouched(entry: &Held<Entry>) -> Option<(NodeId, &Attestation)> {
    let Body::Attestation(said) = &entry.value.body else { return None };
    entry.value.peer.map(|subject| (subject, said))
}
