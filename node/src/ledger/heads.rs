//! What the ledger has on chain heads: for meetings, for nodes that restore theirs, and for restoring our own.

use std::sync::Arc;

use souk_ledger::{
    chain::ForkProof,
    lease::{Lease, Status},
    record::{Fact, Held, Private as PrivateRow},
    thread::{AppendError, LedgerHandle, Ticket},
    view::{QueryError, Select, View},
};
use souk_protocol::{
    Digest, LeaseId, NodeId, Timestamp,
    entry::Entry,
    fork::FORKS_ASKED,
    heads::{ChainHead, HeadReport, HeldRecord, Meet},
    limits,
    machine::{forks::Concern, io::LookedUp, record::Head, record::Restore},
    message::Response,
    signed::{Document, Signed},
};

use super::{Ledger, logged, restore};
use crate::seal::Seal;

/// Rows of the furthest heads that other sides of leases have told.
pub(super) const HEADS: &[u8] = b"head/";
/// Rows of the newest countersignatures of our own head.
pub(super) const HEADS_SEEN: &[u8] = b"head-seen/";
/// The most records looked for at the asking of a node that restores its ledger.
const RECALLED: usize = limits::RECALL_PAGES as usize * limits::RECALL_RECORDS;
/// Bytes of one page of them: with one workload more, still less than an answer may have.
const PAGE_BYTES: usize = limits::RESPONSE_BYTES / 2;
/// Records written before any of them is waited for.
const BATCH: usize = 512;
/// Passes over what came back: a record may rest on one that comes after it.
const PASSES: usize = 8;

pub(super) fn row_of(kind: &[u8], node: &NodeId) -> Vec<u8> {
    [kind, &node.0].concat()
}

impl Ledger {
    /// What a meeting needs to know.
    #[must_use]
    pub fn looked_up(&self, from: &NodeId, meet: &Meet) -> LookedUp {
        let told: Option<HeadReport> =
            souk_protocol::encode::from_bytes(meet.report.payload(), limits::HEAD_BYTES).ok();
        let told = told.filter(|report| report.author == *from);
        let length = told.as_ref().map_or(u64::MAX, HeadReport::length);
        let head = logged(self.view().head(from)).flatten();
        let newest = head.filter(|head| head.seq >= length);
        let clash = told.and_then(|report| report.head).and_then(|head| {
            let entry = logged(self.view().entry(from, head.seq)).flatten()?;
            (entry.id(&self.network()) != head.id).then_some(entry)
        });
        LookedUp {
            own: self.own_at(&meet.at),
            newest: newest.and_then(|head| logged(self.view().entry(from, head.seq)).flatten()),
            clash,
            proofs: self.proofs(&meet.forks.proofs),
        }
    }

    /// Our own entries of these numbers, as far as they are durable.
    #[must_use]
    pub fn own_at(&self, at: &[u64]) -> Vec<ChainHead> {
        let at = at.iter().take(limits::INSTANCES);
        at.filter_map(|seq| Some(ChainHead { seq: *seq, id: self.link(&self.me(), *seq)?.id })).collect()
    }

    /// Whether there is anything between us and a node.
    #[must_use]
    pub fn has_dealt(&self, node: &NodeId) -> bool {
        logged(dealt(self.view(), node)).unwrap_or(false)
    }

    /// The proofs that a peer wants, as far as they are held and fit into one answer.
    fn proofs(&self, wanted: &[NodeId]) -> Vec<ForkProof> {
        let mut bytes = 0;
        let held = wanted.iter().take(FORKS_ASKED).filter_map(|author| logged(self.view().fork(author)).flatten());
        held.take_while(|proof| {
            bytes += souk_protocol::encode::to_bytes(proof).len();
            bytes <= limits::FORKS_BYTES
        })
        .collect()
    }

    /// Whether there was a lease between us and a node.
    #[must_use]
    pub fn has_leased(&self, node: &NodeId) -> bool {
        let any = |select| logged(self.view().leases(select, 1)).is_some_and(|leases| !leases.is_empty());
        any(Select::Host(*node)) || any(Select::Renter(*node))
    }

    /// Proofs that the ledger has come to hold since this was last asked.
    #[must_use]
    pub fn new_forks(&self) -> Vec<ForkProof> {
        let authors = std::mem::take(&mut *self.forks.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        authors.iter().filter_map(|author| logged(self.view().fork(author)).flatten()).collect()
    }

    /// Answers a node that restores its ledger, beside the market task: it may read many rows.
    pub fn recalled(
        &self,
        peer: NodeId,
        (length, since, page): (u64, Timestamp, u32),
        answer: souk_network::Reply,
        turn: tokio::sync::OwnedSemaphorePermit,
    ) {
        let (view, seal) = (self.view().clone(), Arc::clone(&self.seal));
        tokio::task::spawn_blocking(move || {
            let all = logged(held_of(&view, &seal, &peer, length, since)).unwrap_or_default();
            let (records, more) = paged(all, page);
            drop(turn);
            answer.send(Response::Recalled { records, more }.to_bytes()).ok();
        });
    }

    /// Goes on after `head`, and takes back what fits of what others hold of us; then, what an engine starts from. Blocks.
    ///
    /// # Errors
    /// If the ledger can't be written or read.
    pub fn catch_up(
        &self,
        head: Head,
        records: Vec<(NodeId, HeldRecord)>,
        now: Timestamp,
    ) -> anyhow::Result<(usize, Restore)> {
        let resume = PrivateRow::Resume { seq: head.seq, id: head.id, time: head.time };
        let ticket = self.handle.append_blocking(Fact::Private(resume))?;
        self.handle.wait(ticket)?;
        let (mut left, mut taken) = (records, 0);
        for _ in 0..PASSES {
            let before = left.len();
            left = self.take_back(left)?;
            taken += before - left.len();
            if left.is_empty() || left.len() == before {
                break;
            }
        }
        if !left.is_empty() {
            tracing::warn!(records = left.len(), "some of what others hold of us does not fit this ledger");
        }
        Ok((taken, restore(self.view(), &self.seal, now)?))
    }

    /// Whether there is a receipt of ours among these that comes after the newest one here.
    #[must_use]
    pub fn lacks(&self, records: &[(NodeId, HeldRecord)]) -> bool {
        let (me, network) = (self.me(), self.network());
        let newest = |lease: &LeaseId| {
            let held = logged(self.view().lease(lease)).flatten()?;
            let acked = held.receipts.agreed.as_ref().map_or(0, |r| r.ack.value.n);
            Some((held.newest_usage().map_or(0, |u| u.value.n), acked))
        };
        records.iter().any(|(_, record)| match record {
            HeldRecord::Usage(signed) => {
                let usage = signed.verify(&network).ok().filter(|u| u.host == me);
                usage.is_some_and(|u| newest(&u.lease).is_some_and(|(n, _)| n < u.n))
            }
            HeldRecord::Ack(signed) => {
                let ack = signed.verify(&network).ok().filter(|a| a.renter == me);
                ack.is_some_and(|a| newest(&a.lease).is_some_and(|(_, n)| n < a.n))
            }
            HeldRecord::Entry(_) | HeldRecord::Workload { .. } => false,
        })
    }

    fn take_back(&self, records: Vec<(NodeId, HeldRecord)>) -> Result<Vec<(NodeId, HeldRecord)>, AppendError> {
        let mut left = Vec::new();
        for batch in records.chunks(BATCH) {
            let mut waiting: Vec<(Ticket, &(NodeId, HeldRecord))> = Vec::new();
            for record in batch {
                match self.fact_of(record) {
                    Some(fact) => waiting.push((self.handle.append_blocking(fact)?, record)),
                    None => left.push(record.clone()),
                }
            }
            left.extend(waiting.into_iter().filter(|(t, _)| !is_taken(&self.handle, *t)).map(|(_, r)| r.clone()));
        }
        Ok(left)
    }

    fn fact_of(&self, (from, record): &(NodeId, HeldRecord)) -> Option<Fact> {
        let network = self.network();
        match record {
            HeldRecord::Entry(signed) => signed.verify(&network).ok().map(Fact::Entry),
            HeldRecord::Usage(signed) => signed.verify(&network).ok().map(Fact::Usage),
            HeldRecord::Ack(signed) => signed.verify(&network).ok().map(Fact::Ack),
            HeldRecord::Workload { lease, bytes } => {
                let held = logged(self.view().lease(lease)).flatten()?;
                let fits = held.renter() == *from && held.draft.value.workload == Digest::of(bytes);
                let sealed = fits.then(|| self.seal.close(lease, bytes).ok()).flatten()?;
                Some(Fact::Private(PrivateRow::Workload { lease: *lease, sealed }))
            }
        }
    }
}

fn is_taken(handle: &LedgerHandle, ticket: Ticket) -> bool {
    handle.wait(ticket).is_ok()
}

/// One page of records, and whether there are more.
fn paged(all: Vec<HeldRecord>, wanted: u32) -> (Vec<HeldRecord>, bool) {
    let (mut page, mut bytes, mut records, mut more) = (0, 0, Vec::new(), false);
    let mut count = 0;
    for record in all {
        let size = souk_protocol::encode::to_bytes(&record).len();
        if count >= limits::RECALL_RECORDS || (count > 0 && bytes + size > PAGE_BYTES) {
            (page, count, bytes) = (page + 1, 0, 0);
        }
        (count, bytes) = (count + 1, bytes + size);
        if page == wanted {
            records.push(record);
        } else if page > wanted {
            more = true;
            break;
        }
    }
    (records, more)
}

/// Whether there is anything between the ledger's owner and a node.
fn dealt(view: &View, node: &NodeId) -> Result<bool, QueryError> {
    Ok(view.head(node)?.is_some() || !view.balances(Some(node))?.is_empty())
}

/// Everybody known to have contradicted itself, and whether that matters as far as the ledger knows.
pub(super) fn forked(view: &View) -> Result<Vec<(NodeId, Concern)>, QueryError> {
    let mut forked = Vec::new();
    for node in view.forked()? {
        let concern = if dealt(view, &node)? { Concern::Dealt } else { Concern::Nobody };
        forked.push((node, concern));
    }
    Ok(forked)
}

/// Heads that others have told, as far as they are kept.
pub(super) fn heads(view: &View) -> Result<Vec<Signed<HeadReport>>, QueryError> {
    let rows = view.private_rows(HEADS)?;
    let read = |(_, value): (Vec<u8>, Vec<u8>)| souk_protocol::encode::from_bytes(&value, 2 * limits::HEAD_BYTES).ok();
    Ok(rows.into_iter().filter_map(read).collect())
}

/// All that was signed between us and a peer and that it may lack, with what it rests on before it as far as clocks tell.
fn held_of(
    view: &View,
    seal: &Seal,
    peer: &NodeId,
    length: u64,
    since: Timestamp,
) -> Result<Vec<HeldRecord>, QueryError> {
    if view.head(peer)?.is_none() {
        return Ok(Vec::new());
    }
    let mut entries: Vec<(Timestamp, Signed<Entry>)> = Vec::new();
    let mut others = Vec::new();
    for select in [Select::Host(*peer), Select::Renter(*peer)] {
        for lease in view.leases(select, RECALLED)? {
            let held = entries_of(&lease);
            let newest = held.iter().map(|e| e.value.time).max();
            let over = matches!(lease.status(), Status::Closed | Status::Void);
            if over && newest.is_none_or(|at| at < since) {
                continue;
            }
            entries.extend(held.into_iter().map(|e| (e.value.time, e.signed.clone())));
            others.extend(receipts_of(view, seal, &lease)?);
        }
    }
    let own = view.own();
    let dated = |signed: Signed<Entry>| {
        let held = Held::read(signed, &view.network()).ok()?;
        Some((held.value, held.signed))
    };
    let theirs = view.entries_from(peer, length, RECALLED)?;
    entries.extend(theirs.into_iter().filter_map(dated).map(|(entry, signed)| (entry.time, signed)));
    let from = view.head(&own)?.map_or(0, |head| head.seq.saturating_sub(RECALLED as u64));
    let ours = view.entries_from(&own, from, RECALLED)?.into_iter().filter_map(dated);
    let ours = ours.filter(|(entry, _)| entry.peer == Some(*peer) && entry.time >= since);
    entries.extend(ours.map(|(entry, signed)| (entry.time, signed)));
    entries.sort_by_key(|(time, _)| *time);
    let mut seen = std::collections::BTreeSet::new();
    entries.retain(|(_, signed)| seen.insert(signed.id(&view.network())));
    let entries = entries.into_iter().map(|(_, signed)| HeldRecord::Entry(signed));
    Ok(entries.chain(others).take(RECALLED).collect())
}

fn entries_of(lease: &Lease) -> Vec<&Held<Entry>> {
    let single = [
        Some(&lease.open),
        lease.answer.as_ref(),
        lease.placement.as_ref(),
        lease.host_close.as_ref(),
        lease.renter_close.as_ref(),
        lease.host_close_ack.as_ref(),
        lease.renter_close_ack.as_ref(),
    ];
    single.into_iter().flatten().chain(&lease.amends).chain(&lease.amended).collect()
}

fn receipts_of(view: &View, seal: &Seal, lease: &Lease) -> Result<Vec<HeldRecord>, QueryError> {
    let id: LeaseId = lease.id();
    let mut records = Vec::new();
    if lease.renter() == view.own()
        && let Some(bytes) = view.workload(&id)?.and_then(|sealed| seal.open(&id, &sealed))
    {
        records.push(HeldRecord::Workload { lease: id, bytes });
    }
    let agreed = lease.receipts.agreed.as_ref();
    records.extend(agreed.map(|r| HeldRecord::Usage(r.usage.signed.clone())));
    records.extend(agreed.map(|r| HeldRecord::Ack(r.ack.signed.clone())));
    records.extend(lease.receipts.recent.iter().map(|u| HeldRecord::Usage(u.signed.clone())));
    Ok(records)
}

/// A row of a signed document.
pub(super) fn signed_row<T: Document>(kind: &[u8], node: &NodeId, signed: &Signed<T>) -> Fact {
    super::put(row_of(kind, node), souk_protocol::encode::to_bytes(signed))
}
