//! A node's disk: records wait for a flush, and a crash loses what no flush has covered.
//!
//! What is durable is folded into rows as the ledger does, and refused if it contradicts what is there: a refused record would
//! stop a real node.

mod sent;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use souk_protocol::{
    Amount, Currency, DocumentId, LeaseId, NetworkId, NodeId, Timestamp, Verified,
    entry::{Body, Entry},
    heads::{ChainHead, Meet},
    lease::LeaseState,
    limits,
    machine::{
        io::{LookedUp, Recalled, Ticket},
        record::{Head, LeaseRow, Private, Record, Restore},
    },
    message::Response,
    receipt::{Ack, Usage},
    signed::{Document, Signed},
};

use super::{accounts::Accounts, fold::Fold};

/// Amendments that the ledger keeps for receipts that may still name them.
const RECENT_AMENDMENTS: usize = 16;

/// The rows of one node.
#[derive(Debug)]
pub struct Store {
    me: NodeId,
    network: NetworkId,
    pending: VecDeque<(Ticket, Record)>,
    head: Option<Head>,
    offer_seq: u64,
    next_number: u64,
    rows: BTreeMap<LeaseId, LeaseRow>,
    workloads: BTreeMap<LeaseId, Vec<u8>>,
    folds: BTreeMap<LeaseId, Fold>,
    live: BTreeMap<LeaseId, LeaseState>,
    /// The newest usage and acknowledgement of each row, as they were verified when they came.
    usages: BTreeMap<LeaseId, Verified<Usage>>,
    acks: BTreeMap<LeaseId, Verified<Ack>>,
    known: BTreeSet<DocumentId>,
    chain: BTreeMap<u64, DocumentId>,
    records: u64,
    accounts: Accounts,
}

impl Store {
    /// An empty disk.
    #[must_use]
    pub fn new(me: NodeId, network: NetworkId) -> Self {
        Self {
            me,
            network,
            pending: VecDeque::new(),
            head: None,
            offer_seq: 0,
            next_number: 1,
            rows: BTreeMap::new(),
            workloads: BTreeMap::new(),
            folds: BTreeMap::new(),
            live: BTreeMap::new(),
            usages: BTreeMap::new(),
            acks: BTreeMap::new(),
            known: BTreeSet::new(),
            chain: BTreeMap::new(),
            records: 0,
            accounts: Accounts::default(),
        }
    }

    /// Takes a record, not yet durable.
    pub fn append(&mut self, ticket: Ticket, record: Record) {
        self.pending.push_back((ticket, record));
    }

    /// The newest ticket that waits for a flush.
    #[must_use]
    pub fn newest(&self) -> Option<Ticket> {
        self.pending.back().map(|(ticket, _)| *ticket)
    }

    /// Makes everything up to a ticket durable.
    ///
    /// # Errors
    /// What contradicts the records before.
    pub fn flush(&mut self, upto: Ticket) -> Result<(), String> {
        while let Some((_, record)) = self.pending.pop_front_if(|(ticket, _)| *ticket <= upto) {
            self.fold(record)?;
        }
        Ok(())
    }

    /// A crash: of what waits, `kept` records reach the disk all the same, though nobody was told.
    ///
    /// # Errors
    /// What contradicts the records before.
    pub fn crash(&mut self, kept: usize) -> Result<(), String> {
        for (_, record) in std::mem::take(&mut self.pending).into_iter().take(kept) {
            self.fold(record)?;
        }
        Ok(())
    }

    /// Records that wait for a flush.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.pending.len()
    }

    /// Durable records so far.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.records
    }

    /// All rows.
    #[must_use]
    pub const fn rows(&self) -> &BTreeMap<LeaseId, LeaseRow> {
        &self.rows
    }

    /// Reads a document of ours.
    #[must_use]
    pub fn read<T: Document>(&self, signed: &Signed<T>) -> Option<Verified<T>> {
        signed.verify(&self.network).ok()
    }

    fn verified<T: Document>(&self, signed: &Signed<T>) -> Result<Verified<T>, String> {
        signed.verify(&self.network).map_err(|e| format!("a record does not verify: {e}"))
    }

    fn fold(&mut self, record: Record) -> Result<(), String> {
        self.records += 1;
        match record {
            Record::Entry(signed) => {
                let entry = self.verified(&signed)?;
                self.known.insert(entry.id());
                if entry.author == self.me {
                    self.chain.insert(entry.seq, entry.id());
                }
                self.entry(&entry, signed)
            }
            Record::Usage(signed) => {
                let usage = self.verified(&signed)?;
                self.known.insert(usage.id());
                if let Some(before) = self.usages.get(&usage.lease) {
                    let follows = usage.n > before.n && (usage.host != self.me || usage.n == before.n + 1);
                    let grows = usage.counters.covers(&before.counters) && usage.time >= before.time;
                    if before.id() != usage.id() && !(follows && grows) {
                        return Err(format!("usage {} of {} after {}", usage.n, usage.lease.short(), before.n));
                    }
                }
                let row = self.row(&usage.lease)?;
                if row.answer.is_none() {
                    return Err("a usage of a lease that is not accepted".to_owned());
                }
                if row.close.is_some() && usage.host == self.me {
                    return Err("a usage of a lease that its host has closed".to_owned());
                }
                self.row(&usage.lease)?.usage = Some(signed);
                let fold = self.folds.get(&usage.lease).ok_or("a usage of no draft")?;
                if usage.terms != fold.n {
                    return Err(format!("money-conserved: a usage of terms {}, not {}", usage.terms, fold.n));
                }
                if fold.cost(&usage.counters, usage.state) != Some(u128::from(usage.due.0)) {
                    return Err(format!(
                        "money-conserved: a usage for {} costs {:?}",
                        usage.due,
                        fold.cost(&usage.counters, usage.state)
                    ));
                }
                self.usages.insert(usage.lease, usage);
                Ok(())
            }
            Record::Ack(signed) => {
                let ack = self.verified(&signed)?;
                self.known.insert(ack.id());
                let taken_back = |before: &Verified<Ack>| ack.due < before.due || ack.n < before.n;
                if self.acks.get(&ack.lease).is_some_and(taken_back) {
                    return Err("an acknowledgement that takes one back".to_owned());
                }
                let row = self.row(&ack.lease)?;
                row.acked_usage = row.usage.clone();
                row.ack = Some(signed);
                let amended = std::mem::take(&mut row.amended);
                let acked = self.usages.get(&ack.lease).map_or(0, |u| u.terms);
                let newest = amended.len().saturating_sub(1);
                let kept = amended.into_iter().enumerate().filter(|(i, e)| {
                    let n = || self.read(e).and_then(|e| e.body.amended().map(|a| a.terms.n));
                    *i == newest || n().is_some_and(|n| n >= acked)
                });
                let kept = kept.map(|(_, e)| e).collect();
                self.row(&ack.lease)?.amended = kept;
                self.acks.insert(ack.lease, ack);
                Ok(())
            }
            Record::Fork(_) => Err("an honest node's fork".to_owned()),
            Record::Private(private) => self.private(private),
        }
    }

    fn private(&mut self, private: Private) -> Result<(), String> {
        match private {
            Private::Workload { lease, bytes } => {
                if let Some(row) = self.rows.get_mut(&lease) {
                    row.workload.clone_from(&bytes);
                }
                self.workloads.insert(lease, bytes);
            }
            Private::Event { lease, event } => {
                let row = self.row(&lease)?;
                if row.events.last().is_none_or(|last| event.n > last.n) {
                    let state = event.state;
                    if row.events.len() >= limits::EVENTS_PER_LEASE {
                        row.events.remove(0);
                    }
                    row.events.push(event);
                    match self.live.get_mut(&lease) {
                        Some(_) if state.is_ended() => {
                            self.live.remove(&lease);
                        }
                        Some(known) => *known = state,
                        None => {}
                    }
                }
            }
            Private::Head(_) | Private::HeadSeen(_) | Private::ForkGone(_) => {}
            Private::Label { lease, text } => self.row(&lease)?.label = Some(text),
            Private::Leaving { lease } => self.row(&lease)?.leaving = true,
            Private::Watched { lease, seen } => self.row(&lease)?.watched = Some(seen),
            Private::Account(note) => self.accounts.note(*note),
            Private::OfferSeq(seq) => {
                if seq <= self.offer_seq {
                    return Err(format!("offer number {seq} after {}", self.offer_seq));
                }
                self.offer_seq = seq;
            }
        }
        Ok(())
    }

    fn row(&mut self, lease: &LeaseId) -> Result<&mut LeaseRow, String> {
        self.rows.get_mut(lease).ok_or_else(|| format!("a record of the unknown lease {}", lease.short()))
    }

    fn entry(&mut self, entry: &Verified<Entry>, signed: Signed<Entry>) -> Result<(), String> {
        if entry.author == self.me {
            let follows = self
                .head
                .map_or(entry.seq == 0, |h| entry.seq == h.seq + 1 && entry.prev == Some(h.id) && entry.time >= h.time);
            if !follows {
                return Err(format!("nothing-lost: entry {} of our chain does not follow its head", entry.seq));
            }
            self.head = Some(Head { author: entry.author, seq: entry.seq, id: entry.id(), time: entry.time });
        }
        let Some(lease) = entry.lease else {
            return self.accounts.entry(&self.me, entry, signed);
        };
        if let Body::LeaseOpen { .. } = &entry.body {
            return match self.rows.get(&lease) {
                Some(row) if row.open != signed => Err("a second open of one draft".to_owned()),
                Some(_) => Ok(()),
                None => {
                    let number = self.next_number;
                    self.next_number += 1;
                    let workload = self.workloads.get(&lease).cloned().unwrap_or_default();
                    self.rows.insert(lease, new_row(lease, number, signed, workload));
                    let draft = entry.body.draft().ok_or("an open of nothing")?;
                    let draft = self.verified(draft)?;
                    self.folds.insert(lease, Fold::new(draft));
                    Ok(())
                }
            };
        }
        self.read_entry(lease, entry)?;
        let row = self.row(&lease)?;
        let again = |slot: &Option<Signed<Entry>>| slot.as_ref().is_some_and(|known| *known != signed);
        match &entry.body {
            Body::LeaseAccept { .. } | Body::Void { .. } => {
                if again(&row.answer) {
                    return Err("two answers to one open".to_owned());
                }
                row.answer = Some(signed);
            }
            Body::Placement { .. } => row.placement = Some(signed),
            Body::Amend { .. } => row.amend = Some(signed),
            Body::Amended(_) => {
                if row.amended.len() >= RECENT_AMENDMENTS {
                    row.amended.remove(0);
                }
                row.amended.push(signed);
            }
            // The first close counts.
            Body::Close { .. } if row.close.is_none() => row.close = Some(signed),
            Body::CloseAck { .. } => {
                if again(&row.close_ack) {
                    return Err("two agreements to one close".to_owned());
                }
                row.close_ack = Some(signed);
            }
            Body::Probe(_) => {
                let over = row.close.is_some() && row.placement.is_some();
                if !over || std::mem::replace(&mut row.probed, true) {
                    return Err("a probe of a lease that is not over, or a second one".to_owned());
                }
            }
            Body::Close { .. }
            | Body::Genesis { .. }
            | Body::LeaseOpen { .. }
            | Body::Anchor { .. }
            | Body::Settle(_)
            | Body::SettleAck(_)
            | Body::Dispute(_)
            | Body::Attestation(_)
            | Body::Checkpoint(_) => {}
        }
        Ok(())
    }

    fn read_entry(&mut self, lease: LeaseId, entry: &Verified<Entry>) -> Result<(), String> {
        let hosted = entry.author == self.me;
        let fold = self.folds.get_mut(&lease).ok_or("an entry of no draft")?;
        match &entry.body {
            Body::LeaseAccept { .. } => {
                fold.accepted = true;
                if hosted {
                    self.live.insert(lease, LeaseState::Preparing);
                }
            }
            Body::Placement { slots, devices, .. } => fold.placed = Some((slots.clone(), devices.clone())),
            Body::Amend { n, change, valid_until } => fold.ask(entry.id(), (*n, *change, *valid_until)),
            Body::Amended(amended) => {
                fold.amend(amended, entry.time).map_err(|why| format!("{}: {why}", lease.short()))?;
            }
            Body::Close { .. } => fold.closing = true,
            Body::Genesis { .. }
            | Body::LeaseOpen { .. }
            | Body::Void { .. }
            | Body::Anchor { .. }
            | Body::CloseAck { .. }
            | Body::Settle(_)
            | Body::SettleAck(_)
            | Body::Dispute(_)
            | Body::Attestation(_)
            | Body::Probe(_)
            | Body::Checkpoint(_) => {}
        }
        Ok(())
    }

    /// What the signed documents of a lease add up to.
    #[must_use]
    pub fn fold_of(&self, lease: &LeaseId) -> Option<&Fold> {
        self.folds.get(lease)
    }

    /// The leases hosted here that have not ended, each with the state it is in.
    pub fn hosted(&self) -> impl Iterator<Item = (&LeaseId, &Fold, LeaseState)> {
        self.live.iter().filter_map(|(lease, state)| Some((lease, self.folds.get(lease)?, *state)))
    }

    /// The accounts.
    #[must_use]
    pub const fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// What peers have signed for as renters here, and this node as a renter there, by account.
    #[must_use]
    pub fn signed_for(&self) -> BTreeMap<(NodeId, Currency), (Amount, Amount)> {
        let mut sums: BTreeMap<(NodeId, Currency), (Amount, Amount)> = BTreeMap::new();
        for row in self.rows.values() {
            let Some(draft) = self.read(&row.open).and_then(|o| self.read(o.body.draft()?)) else { continue };
            let acked = row.ack.as_ref().and_then(|a| self.read(a)).map_or(Amount::ZERO, |a| a.due);
            let by_renter = |e: &Verified<Entry>| e.author == draft.renter;
            let closed = row.close_ack.as_ref().and_then(|e| self.read(e)).filter(by_renter);
            let agreed = closed.and_then(|e| e.body.agreement()).map_or(Amount::ZERO, |(_, due)| due);
            let hosted = draft.host == self.me;
            let peer = if hosted { draft.renter } else { draft.host };
            let sum = sums.entry((peer, draft.currency.clone())).or_default();
            let sum = if hosted { &mut sum.0 } else { &mut sum.1 };
            *sum = sum.saturating_add(acked.max(agreed));
        }
        sums
    }

    /// What an engine starts from.
    #[must_use]
    pub fn restore(&self, now: Timestamp) -> Restore {
        let open = |row: &&LeaseRow| {
            let draft = self.read(&row.open).and_then(|o| self.read(o.body.draft()?));
            let young = draft.is_some_and(|d| now.since(d.commit_by).0 < 600_000);
            let answer = row.answer.as_ref().and_then(|a| self.read(a));
            let live = answer.is_none_or(|a| {
                matches!(a.body, Body::LeaseAccept { .. }) && !(row.close.is_some() && row.close_ack.is_some())
            });
            live || young
        };
        Restore {
            head: self.head,
            offer_seq: self.offer_seq,
            leases: self.rows.values().filter(open).cloned().collect(),
            accounts: self.accounts.rows(&self.signed_for()),
            next_number: self.next_number,
            ..Restore::default()
        }
    }

    /// What a meeting needs to know.
    #[must_use]
    pub fn looked_up(&self, meet: &Meet) -> LookedUp {
        let own = meet.at.iter().filter_map(|seq| Some(ChainHead { seq: *seq, id: *self.chain.get(seq)? }));
        LookedUp { own: own.collect(), ..LookedUp::default() }
    }

    /// Answers from the rows.
    #[must_use]
    pub fn recall(&self, lease: &LeaseId, what: Recalled, otherwise: Response) -> Response {
        let Some(row) = self.rows.get(lease) else {
            return otherwise;
        };
        match what {
            Recalled::Answer(open) if row.open.id(&self.network) == open => {
                row.answer.clone().map_or(otherwise, Response::Answered)
            }
            Recalled::Answer(_) => otherwise,
            Recalled::CloseAck => {
                let ours = row.close_ack.clone().filter(|a| self.read(a).is_some_and(|a| a.author == self.me));
                ours.map_or(otherwise, |close_ack| Response::Seen {
                    events_seen: row.events.last().map_or(0, |e| e.n),
                    ack: row.ack.clone().filter(|a| self.read(a).is_some_and(|a| a.renter == self.me)),
                    close_ack: Some(close_ack),
                })
            }
        }
    }
}

fn new_row(lease: LeaseId, number: u64, open: Signed<Entry>, workload: Vec<u8>) -> LeaseRow {
    LeaseRow {
        lease,
        number,
        open,
        answer: None,
        placement: None,
        amend: None,
        amended: Vec::new(),
        usage: None,
        ack: None,
        acked_usage: None,
        close: None,
        close_ack: None,
        workload,
        events: Vec::new(),
        label: None,
        leaving: false,
        watched: None,
        probed: false,
    }
}
