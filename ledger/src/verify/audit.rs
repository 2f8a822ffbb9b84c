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
    is_sparse,
};
use crate::{
    export::{FRAME_BYTES, Item},
    journal::Position,
    keys,
    lease::{Balance, Lease, Status},
    record::Fact,
    state::{Applied, FoldError, State, decode, totals},
    store::{Kv, MemoryKv},
};

/// Leases open at one time. Each takes some 6 KB.
const OPEN_LEASES: usize = 20_000;
/// Leases kept after their close, for records that crossed it.
const CLOSED_LEASES: usize = 1024;
/// Entries kept to find forks by.
const ENTRIES: usize = 1 << 18;
/// Payments kept for the answers to them.
const SETTLEMENTS: usize = 1 << 16;
/// Pairs and currencies.
const BALANCES: usize = 1 << 16;
/// Records folded between two writes to memory.
const GROUP: u64 = 1024;
/// Unanswered leases listed by id.
const LISTED: usize = 100;

/// The state of a check.
pub(super) struct Audit {
    state: State,
    kv: Arc<MemoryKv>,
    author: NodeId,
    header: Header,
    records: u64,
    leases: u64,
    open: BTreeMap<LeaseId, ()>,
    closed: VecDeque<LeaseId>,
    entries: VecDeque<(NodeId, u64)>,
    settlements: VecDeque<Vec<u8>>,
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
    pub(super) fn new(header: &Header) -> Self {
        let kv = Arc::new(MemoryKv::default());
        let state = State::new(header.author, header.network, Arc::clone(&kv) as Arc<dyn Kv>);
        Self {
            state: if header.cut || is_sparse(header.filter) { state.sparse() } else { state },
            kv,
            author: header.author,
            header: header.clone(),
            records: 0,
            leases: 0,
            open: BTreeMap::new(),
            closed: VecDeque::new(),
            entries: VecDeque::new(),
            settlements: VecDeque::new(),
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
        match self.state.apply(at, fact) {
            Ok(Applied::New) => {}
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
        self.count(fact);
        self.follow_cut(fact).map_err(|what| checked.fault(what))?;
        if self.open.len() > OPEN_LEASES {
            return Err(checked.fault(format!("more than {OPEN_LEASES} leases are open at once")));
        }
        if self.records.is_multiple_of(GROUP) {
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
        self.records += 1;
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
        // Indexes and attestations answer queries, and there are none here.
        batch.retain(|key, _| !key.starts_with(b"i") && !key.starts_with(keys::ATTESTATIONS));
        while self.settlements.len() > SETTLEMENTS {
            if let Some(row) = self.settlements.pop_front() {
                batch.insert(row, None);
            }
        }
        while self.closed.len() > CLOSED_LEASES {
            if let Some(lease) = self.closed.pop_front() {
                batch.insert(keys::lease(&lease), None);
                batch.insert(keys::receipts(&lease), None);
            }
        }
        while self.entries.len() > ENTRIES {
            if let Some((author, seq)) = self.entries.pop_front() {
                batch.insert(keys::entry(&author, seq), None);
            }
        }
        self.kv.write(&batch).map_err(|e| e.to_string())?;
        self.state.forget_all();
        let mut balances = 0;
        self.kv
            .scan(keys::BALANCES, b"", &mut |_, _| {
                balances += 1;
                ControlFlow::Continue(())
            })
            .map_err(|e| e.to_string())?;
        if balances > BALANCES {
            return Err(format!("it deals with more than {BALANCES} peers"));
        }
        Ok(())
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

fn author_of(fact: &Fact) -> NodeId {
    match fact {
        Fact::Entry(entry) => entry.author,
        Fact::Usage(usage) => usage.host,
        Fact::Ack(ack) => ack.renter,
        Fact::Private(_) => NodeId([0; 32]),
    }
}
