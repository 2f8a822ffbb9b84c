//! Which records still matter once later ones are there, and the sums that a checkpoint fixes.
//!
//! Dropped are: usages and acknowledgements that newer ones replace; anchors of pairs that are replaced; observations outside of
//! leases that no score looks at any more; attestations said anew since; and what only this node needs, which is in the rows. Everything that
//! shaped a lease, every payment, and every document of a fork stays for good.

use std::{collections::BTreeSet, ops::ControlFlow};

use souk_protocol::{
    Currency, Digest, DocumentId, Millis, NodeId, Timestamp,
    checkpoint::{Total, Totals},
    entry::{Body, Entry},
};

use super::{State, decode};
use crate::{
    chain::{ForkProof, ForkRow, Head},
    keys,
    lease::Balance,
    pair::Attested,
    record::{Held, Record},
    state::FoldError,
    store::{Kv, KvError},
};

/// Observations older than this are dropped: scores look back 30 days.
pub(crate) const OBSERVED: Millis = Millis::from_hours(24 * 90);

/// The moment up to which records are looked at.
#[derive(Debug)]
pub(crate) struct Cut {
    /// The newest entry of our own chain.
    pub(crate) head: Head,
    /// Records that proofs of forks rest on, by number.
    records: BTreeSet<u64>,
    /// Receipts that are in such proofs.
    receipts: BTreeSet<DocumentId>,
}

/// What becomes of a record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// It stays; the id if it is an entry of our own.
    Yes(Option<DocumentId>),
    /// It goes, and with it its row, if it has one of its own.
    No(Option<Vec<u8>>),
}

impl State {
    /// The moment after everything that was folded; none before our chain has begun.
    pub(crate) fn cut(&self) -> Result<Option<Cut>, FoldError> {
        let Some(head) = self.head(&self.own)? else {
            return Ok(None);
        };
        let (mut records, mut receipts, mut failed) = (BTreeSet::new(), BTreeSet::new(), None);
        self.kv.scan(keys::PROOFS, b"", &mut |_, value| {
            match decode::<ForkRow>(value, "proof") {
                Ok(ForkRow::After(at, _) | ForkRow::Before(_, at)) => {
                    records.insert(at.index);
                }
                Ok(ForkRow::Proof(proof)) => receipts.extend(self.receipts_in(&proof)),
                Err(e) => failed = Some(e),
            }
            if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        match failed {
            Some(e) => Err(e.into()),
            None => Ok(Some(Cut { head, records, receipts })),
        }
    }

    fn receipts_in(&self, proof: &ForkProof) -> Vec<DocumentId> {
        let of = &self.network;
        match proof {
            ForkProof::Entries(..) | ForkProof::Heads(..) | ForkProof::Head(..) => Vec::new(),
            ForkProof::Usages(a, b) => vec![a.id(of), b.id(of)],
            ForkProof::Acks(a, b) => {
                let answered =
                    [a, b].into_iter().filter_map(|ack| Held::read(ack.clone(), of).ok()).map(|a| a.value.usage);
                [a.id(of), b.id(of)].into_iter().chain(answered).collect()
            }
        }
    }

    /// Whether the record with the number `index`, which was folded before `cut`, still matters after it.
    pub(crate) fn keeps(&mut self, index: u64, record: Record, cut: &Cut) -> Result<Keep, FoldError> {
        self.forget();
        match record {
            Record::Private(_) => Ok(Keep::No(None)),
            Record::Fork(proof) => {
                let author = proof.accused();
                let held = author.map(|author| self.bytes(&keys::proof(&author))).transpose()?.flatten();
                Ok(yes_if(held.is_some()))
            }
            Record::Usage(usage) => {
                let usage = self.read(usage)?;
                let held = match self.lease(&usage.value.lease)? {
                    Some(lease) => {
                        let receipts = &lease.receipts;
                        let agreed = receipts.agreed.iter().map(|pair| &pair.usage);
                        receipts.recent.iter().chain(agreed).any(|held| held.id == usage.id)
                    }
                    None => false,
                };
                Ok(yes_if(held || cut.receipts.contains(&usage.id)))
            }
            Record::Ack(ack) => {
                let ack = self.read(ack)?;
                let agreed = self.lease(&ack.value.lease)?.and_then(|lease| lease.receipts.agreed.as_ref());
                let held = agreed.is_some_and(|pair| pair.ack.id == ack.id);
                Ok(yes_if(held || cut.receipts.contains(&ack.id)))
            }
            Record::Entry(entry) => {
                let entry = self.read(entry)?;
                let own = (entry.value.author == self.own).then_some(entry.id);
                if cut.records.contains(&index) || !self.is_replaced(&entry, cut)? {
                    return Ok(Keep::Yes(own));
                }
                Ok(Keep::No(Some(keys::entry(&entry.value.author, entry.value.seq))))
            }
        }
    }

    fn is_replaced(&mut self, entry: &Held<Entry>, cut: &Cut) -> Result<bool, FoldError> {
        let (author, seq) = (entry.value.author, entry.value.seq);
        // A fork's second entry has no row; the newest entry of a chain is what its next one must fit.
        let held = self.entry_row(&author, seq)?.is_some_and(|row| row.id == entry.id);
        let newest = self.head(&author)?.is_none_or(|head| head.seq == seq);
        if !held || newest {
            return Ok(false);
        }
        Ok(match (&entry.value.body, entry.value.lease, entry.value.peer) {
            (Body::Anchor { usage, .. }, Some(lease), _) => {
                let agreed = self.lease(&lease)?.and_then(|lease| lease.receipts.agreed.as_ref());
                agreed.is_some_and(|pair| pair.usage.id != *usage)
            }
            // What was seen of a lease is part of it, and stays as long as it does.
            (Body::Probe(_), None, _) => is_old(entry.value.time, cut.head.time),
            (Body::Attestation(said), _, Some(subject)) => {
                let row = keys::attestation(&author, &subject, &said.claim);
                self.row::<Attested>(&row, "attestation")?.is_some_and(|newest| newest.seq > seq)
            }
            (
                Body::Genesis { .. }
                | Body::LeaseOpen { .. }
                | Body::LeaseAccept { .. }
                | Body::Void { .. }
                | Body::Placement { .. }
                | Body::Amend { .. }
                | Body::Amended(_)
                | Body::Anchor { .. }
                | Body::Close { .. }
                | Body::CloseAck { .. }
                | Body::Settle(_)
                | Body::SettleAck(_)
                | Body::Dispute(_)
                | Body::Attestation(_)
                | Body::Probe(_)
                | Body::Checkpoint(_),
                ..,
            ) => false,
        })
    }
}

fn is_old(time: Timestamp, now: Timestamp) -> bool {
    time.0.saturating_add(OBSERVED.0) < now.0
}

const fn yes_if(held: bool) -> Keep {
    if held { Keep::Yes(None) } else { Keep::No(None) }
}

/// The digest of what is signed for between a ledger's author and everybody, as its store holds it.
///
/// # Errors
/// If the store can't be read.
pub fn totals(kv: &dyn Kv) -> Result<Digest, KvError> {
    let mut totals = Totals::default();
    let mut bad = false;
    kv.scan(keys::BALANCES, b"", &mut |key, value| {
        let peer = key.get(1..).and_then(<[u8]>::first_chunk).map(|id| NodeId(*id));
        let currency = key.get(33..).and_then(|c| String::from_utf8(c.to_vec()).ok()).map(Currency);
        match (peer, currency, decode::<Balance>(value, "balance")) {
            (Some(peer), Some(currency), Ok(balance)) => {
                let Balance { earned, spent, paid, paid_acked, received_claimed, received, .. } = balance;
                totals.add(&peer, &currency, &Total { earned, spent, paid, paid_acked, received_claimed, received });
                ControlFlow::Continue(())
            }
            _ => {
                bad = true;
                ControlFlow::Break(())
            }
        }
    })?;
    if bad { Err(KvError::Row { what: "balance" }) } else { Ok(totals.digest()) }
}
