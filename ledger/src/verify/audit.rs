//! The rules behind the signatures: the fold itself, over a small memory.
//!
//! A node's ledger took these records one by one, so the same fold must take them again. Rows that can't matter any more are
//! dropped: leases closed long ago, and entries so old that only a fork far in the past would meet them. What stays is bounded
//! by [`OPEN_LEASES`].

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    ops::ControlFlow,
    sync::Arc,
};

use souk_protocol::{
    Amount, Currency, DocumentId, LeaseId, NodeId,
    checkpoint::{Checkpoint, Ids},
    encode,
    entry::Body,
};

use super::{
    Checked, Content, Fault, Header, Report, Verdict,
    frames::{Frame, Frames},
};
use crate::{
    export::{FRAME_BYTES, Filter, Item},
    journal::Position,
    keys,
    lease::{Balance, Lease, Status},
    record::Fact,
    state::{Applied, FoldError, State, decode, totals},
    store::{Kv, MemoryKv},
};

/// How much a check remembers. More peers, leases or balances than this make an export invalid; what is only remembered to be
/// compared with later records is forgotten, oldest first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Leases open at one time. Each takes some 6 KB.
    pub(super) open_leases: usize,
    /// Leases kept whole after their close, for records that crossed it.
    pub(super) closed_leases: usize,
    /// Leases of which the parties are remembered after that, for complaints.
    pub(super) old_leases: usize,
    /// Entries kept to find forks by.
    pub(super) entries: usize,
    /// Payments kept for the answers to them.
    pub(super) settlements: usize,
    /// Pairs and currencies.
    pub(super) balances: usize,
    /// Authors of entries.
    pub(super) authors: usize,
    /// Records folded between two writes to memory.
    pub(super) group: u64,
}

impl Bounds {
    /// For files of any size: some 300 MB at the very most of what honest ledgers hold.
    pub(super) const WIDE: Self = Self {
        open_leases: 20_000,
        closed_leases: 1024,
        old_leases: 1 << 18,
        entries: 1 << 18,
        settlements: 1 << 16,
        balances: 1 << 16,
        authors: 1 << 16,
        group: 1024,
    };
}

/// Unanswered leases listed by id.
const LISTED: usize = 100;

/// The state of a check.
pub(super) struct Audit {
    state: State,
    kv: Arc<MemoryKv>,
    author: NodeId,
    header: Header,
    bounds: Bounds,
    records: u64,
    leases: u64,
    open: BTreeMap<LeaseId, ()>,
    closed: VecDeque<LeaseId>,
    entries: VecDeque<(NodeId, u64)>,
    settlements: VecDeque<Vec<u8>>,
    old: VecDeque<LeaseId>,
    balances: usize,
    authors: usize,
    head: Option<DocumentId>,
    forks: Vec<NodeId>,
    cut: Cut,
}

/// How far a file has come from which the author has left out old records.
#[derive(Debug)]
enum Cut {
    /// Nothing is left out, or what is left out is proven.
    Whole { left_out: u64 },
    /// Before the cut: the author's entries so far, and the newest one's number.
    Before { kept: Box<Ids>, newest: Option<u64> },
    /// Behind it: what a checkpoint must say.
    Behind(Box<Checkpoint>),
}

impl Audit {
    pub(super) fn new(header: &Header, bounds: Bounds) -> Self {
        let kv = Arc::new(MemoryKv::default());
        let state = State::new(header.author, header.network, Arc::clone(&kv) as Arc<dyn Kv>);
        Self {
            state: match header.filter {
                Filter::All if header.cut => state.sparse(),
                Filter::All => state,
                Filter::Lease(_) => state.sparse(),
                Filter::Restored => state.restored(),
            },
            kv,
            author: header.author,
            header: header.clone(),
            bounds,
            records: 0,
            leases: 0,
            open: BTreeMap::new(),
            closed: VecDeque::new(),
            entries: VecDeque::new(),
            settlements: VecDeque::new(),
            old: VecDeque::new(),
            balances: 0,
            authors: 0,
            head: None,
            forks: Vec::new(),
            cut: if header.cut {
                Cut::Before { kept: Box::default(), newest: None }
            } else {
                Cut::Whole { left_out: 0 }
            },
        }
    }

    /// Applies the rules to the next record.
    pub(super) fn take(&mut self, checked: Checked) -> Result<(), Fault> {
        let fact = match &checked.content {
            Ok(Content::Fact(fact)) => fact,
            Ok(Content::Cut) => return self.end_of_cut().map_err(|what| checked.fault(what)),
            Err(what) => return Err(checked.fault(what.clone())),
        };
        let at = Position { index: checked.record, ..Position::default() };
        if let Filter::Lease(chosen) = self.header.filter
            && lease_of(fact) != Some(chosen)
        {
            return Err(checked.fault("it is not of the lease that the header names"));
        }
        match self.state.apply(at, fact) {
            Ok(Applied::New) => self.count(fact),
            Ok(Applied::Known) => return Err(checked.fault("it is there twice")),
            Ok(Applied::Fork) => {
                let author = author_of(fact);
                if author == self.author {
                    return Err(checked.fault("its author contradicts itself"));
                }
                self.forks.push(author);
            }
            Err(FoldError::Refused(why)) => {
                let mut what = why.to_string();
                if let Some(source) = std::error::Error::source(&why) {
                    what = format!("{what}: {source}");
                }
                return Err(checked.fault(what));
            }
            Err(FoldError::Store(e)) => return Err(checked.fault(e.to_string())),
        }
        self.records += 1;
        self.follow_cut(fact).map_err(|what| checked.fault(what))?;
        if self.open.len() > self.bounds.open_leases {
            return Err(checked.fault(format!("more than {} leases are open at once", self.bounds.open_leases)));
        }
        if self.records.is_multiple_of(self.bounds.group) {
            self.settle().map_err(|what| checked.fault(what))?;
        }
        Ok(())
    }

    /// Everything before is there that will be: from here on nothing may be missing.
    fn end_of_cut(&mut self) -> Result<(), String> {
        self.settle()?;
        let Cut::Before { kept, newest } = &self.cut else {
            return Err("it is cut where its header says nothing of it, or twice".to_owned());
        };
        let (Some(seq), Some(id)) = (*newest, self.head) else {
            return Err("it is cut before its author's chain begins".to_owned());
        };
        let totals = totals(&*self.kv).map_err(|e| e.to_string())?;
        let says = Checkpoint { seq, id, kept: kept.count(), entries: kept.digest(), totals };
        self.cut = Cut::Behind(Box::new(says));
        self.state.end_sparse();
        self.records += 1;
        Ok(())
    }

    /// Compares the author's entries with what its checkpoint says about those before the cut.
    fn follow_cut(&mut self, fact: &Fact) -> Result<(), String> {
        let Fact::Entry(entry) = fact else {
            return Ok(());
        };
        if entry.author != self.author {
            return Ok(());
        }
        match &mut self.cut {
            Cut::Whole { .. } => {}
            Cut::Before { kept, newest } => {
                if newest.is_some_and(|newest| entry.seq <= newest) {
                    return Err("its author's entries are not in order".to_owned());
                }
                *newest = Some(entry.seq);
                kept.add(&entry.id());
            }
            Cut::Behind(says) => {
                if let Some(said) = entry.body.checkpoint().filter(|said| said.seq == says.seq) {
                    if said != &**says {
                        return Err("what is left out before its cut is not what its checkpoint leaves out".to_owned());
                    }
                    self.cut = Cut::Whole { left_out: (said.seq + 1).saturating_sub(said.kept) };
                }
            }
        }
        Ok(())
    }

    fn count(&mut self, fact: &Fact) {
        let Fact::Entry(entry) = fact else {
            return;
        };
        self.entries.push_back((entry.author, entry.seq));
        if entry.author == self.author {
            self.head = Some(entry.id());
        }
        if let (Body::Settle(settle), Some(peer)) = (&entry.body, entry.peer) {
            let by_us = entry.author == self.author;
            let other = if by_us { peer } else { entry.author };
            self.settlements.push_back(keys::settlement(&other, &settle.currency, by_us, settle.n));
        }
        let Some(lease) = entry.lease else {
            return;
        };
        match &entry.body {
            Body::LeaseOpen { .. } => {
                self.leases += 1;
                self.open.insert(lease, ());
            }
            Body::Void { .. } | Body::CloseAck { .. } => {
                if self.open.remove(&lease).is_some() {
                    self.closed.push_back(lease);
                }
            }
            Body::Genesis { .. }
            | Body::LeaseAccept { .. }
            | Body::Placement { .. }
            | Body::Amend { .. }
            | Body::Amended(_)
            | Body::Anchor { .. }
            | Body::Close { .. }
            | Body::Settle(_)
            | Body::SettleAck(_)
            | Body::Dispute(_)
            | Body::Attestation(_)
            | Body::Probe(_)
            | Body::Checkpoint(_) => {}
        }
    }

    /// Writes what has changed and drops what can't matter any more.
    fn settle(&mut self) -> Result<(), String> {
        let mut batch = self.state.take_changes();
        // Indexes, earnings, months and attestations answer queries, and there are none here.
        let unasked = [b"i", keys::EARNED, keys::MONTHS, keys::ATTESTATIONS];
        batch.retain(|key, _| !unasked.iter().any(|tag| key.starts_with(tag)));
        // Of a proof it matters that there is one.
        batch.iter_mut().filter(|(key, _)| key.starts_with(keys::PROOFS)).for_each(|(_, row)| *row = Some(Vec::new()));
        while self.settlements.len() > self.bounds.settlements {
            if let Some(row) = self.settlements.pop_front() {
                batch.insert(row, None);
            }
        }
        while self.closed.len() > self.bounds.closed_leases {
            if let Some(lease) = self.closed.pop_front() {
                self.state.retire(&lease).map_err(|e| e.to_string())?;
                self.old.push_back(lease);
                batch.insert(keys::lease(&lease), None);
                batch.insert(keys::receipts(&lease), None);
            }
        }
        while self.old.len() > self.bounds.old_leases {
            if let Some(lease) = self.old.pop_front() {
                self.state.forget_retired(&lease);
            }
        }
        while self.entries.len() > self.bounds.entries {
            if let Some((author, seq)) = self.entries.pop_front() {
                batch.insert(keys::entry(&author, seq), None);
            }
        }
        for (tag, count, most) in [
            (keys::BALANCES, &mut self.balances, self.bounds.balances),
            (keys::HEADS, &mut self.authors, self.bounds.authors),
        ] {
            for key in batch.keys().filter(|key| key.starts_with(tag)) {
                *count += usize::from(self.kv.get(key).map_err(|e| e.to_string())?.is_none());
            }
            if *count > most {
                return Err(format!("it deals with more than {most} peers"));
            }
        }
        self.kv.write(&batch).map_err(|e| e.to_string())?;
        self.state.forget_all();
        Ok(())
    }

    /// How many rows it remembers.
    #[cfg(test)]
    pub(super) fn rows(&self) -> usize {
        let mut count = 0;
        let mut visit = |_: &[u8], _: &[u8]| {
            count += 1;
            ControlFlow::Continue(())
        };
        drop(self.kv.scan(b"", b"", &mut visit));
        count
    }

    /// Compares the trailer with what was read.
    pub(super) fn close(&mut self, trailer: &Frame, frames: &Frames<impl io::Read>) -> Verdict {
        let invalid = |what: String| Verdict::Invalid(trailer.fault(what));
        let signed = match encode::from_bytes(&trailer.body, FRAME_BYTES) {
            Ok(Item::Trailer(signed)) => signed,
            Ok(Item::Entry(_) | Item::Usage(_) | Item::Ack(_) | Item::Cut) => {
                return invalid("the trailer is none".to_owned());
            }
            Err(e) => return invalid(format!("the trailer is {e}")),
        };
        let said = match signed.verify(&self.header.network) {
            Ok(said) => said,
            Err(e) => return invalid(e.to_string()),
        };
        if said.author != self.author {
            invalid("the trailer is not the author's".to_owned())
        } else if said.count != self.records {
            invalid(format!("the trailer counts {} records, but there are {}", said.count, self.records))
        } else if said.head != self.head {
            invalid("the trailer names another newest entry".to_owned())
        } else if said.digest != frames.digest() {
            invalid("the trailer was signed over other bytes".to_owned())
        } else if !matches!(self.cut, Cut::Whole { .. }) {
            invalid("records are left out, and no checkpoint says which".to_owned())
        } else {
            match self.settle() {
                Ok(()) => Verdict::Valid,
                Err(what) => invalid(what),
            }
        }
    }

    pub(super) fn report(mut self, verdict: Verdict, header: Header) -> Report {
        // After a fault the sums are of what came before it.
        drop(self.settle());
        let mut agreed: BTreeMap<Currency, Amount> = BTreeMap::new();
        let (mut unanswered, mut listed) = (0, Vec::new());
        let rows = |prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8])| {
            // Memory does not fail.
            drop(self.kv.scan(prefix, b"", &mut |key, value| {
                visit(key, value);
                ControlFlow::Continue(())
            }));
        };
        rows(keys::BALANCES, &mut |key, value| {
            let currency = key.get(33..).and_then(|c| std::str::from_utf8(c).ok());
            if let (Some(currency), Ok(balance)) = (currency, decode::<Balance>(value, "balance")) {
                let sum = agreed.entry(Currency(currency.to_owned())).or_default();
                *sum = sum.saturating_add(balance.earned).saturating_add(balance.spent);
            }
        });
        rows(keys::LEASES, &mut |_, value| {
            if let Ok(lease) = decode::<Lease>(value, "lease")
                && lease.status() == Status::Opened
            {
                unanswered += 1;
                if listed.len() < LISTED {
                    listed.push(lease.id());
                }
            }
        });
        Report {
            verdict,
            header: Some(header),
            records: self.records,
            leases: self.leases,
            unanswered,
            unanswered_leases: listed,
            forks: self.forks,
            left_out: if let Cut::Whole { left_out } = self.cut { left_out } else { 0 },
            agreed,
        }
    }
}

fn lease_of(fact: &Fact) -> Option<LeaseId> {
    match fact {
        Fact::Entry(entry) => entry.lease,
        Fact::Usage(usage) => Some(usage.lease),
        Fact::Ack(ack) => Some(ack.lease),
        Fact::Fork(_) | Fact::Private(_) => None,
    }
}

fn author_of(fact: &Fact) -> NodeId {
    match fact {
        Fact::Entry(entry) => entry.author,
        Fact::Usage(usage) => usage.host,
        Fact::Ack(ack) => ack.renter,
        Fact::Fork(_) | Fact::Private(_) => NodeId([0; 32]),
    }
}
