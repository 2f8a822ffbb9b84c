//! The engine's records in the ledger, and what the engine and people ask back.
//!
//! Owns the mapping between the two: which facts a record of the engine becomes. The ledger's thread owns the disk.

mod accounts;
mod asked;
mod compacting;
mod heads;
mod money;
mod older;
mod regard;

use std::{
    collections::{BTreeSet, VecDeque},
    io::{self, Write},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use souk_ledger::{
    commit::Ledger as Journal,
    export::{Filter, export},
    lease::{Lease, Status},
    record::{Fact, Private as PrivateRow},
    thread::{Event, LedgerHandle, LedgerThread},
    verify::{self, Verdict},
    view::{QueryError, Select, View},
};
use souk_protocol::{
    Keypair, LeaseId, NetworkId, NodeId, Nonce, Timestamp,
    checkpoint::Checkpoint,
    encode,
    entry::Entry,
    limits,
    machine::{
        io::{Recalled, Ticket},
        record::{Head, LeaseRow, Private, Record, Restore},
    },
    message::Response,
};
use tokio::sync::{mpsc, watch};

pub use asked::unreadable;

use crate::{
    api::types::LedgerCheckView,
    market::{
        CommandError,
        chains::Link,
        command::{EXPORT_PIECES, ErrorCode, Reply},
        task::Durable,
    },
    seal::Seal,
};

/// Open leases a start looks at.
const LISTED: usize = 10_000;
/// Answers to opens that are remembered after a restart: as long as an open may still be asked about.
const RECENT: souk_protocol::Millis = souk_protocol::Millis::from_mins(10);
/// Bytes of one piece of an export.
const PIECE: usize = 64 * 1024;

/// The node's ledger.
#[derive(Debug)]
pub struct Ledger {
    thread: LedgerThread,
    handle: LedgerHandle,
    key: Keypair,
    seal: Arc<Seal>,
    /// The ledger's tickets of entries of our own that are not decided.
    own: Arc<Mutex<BTreeSet<u64>>>,
    progress: watch::Receiver<Progress>,
    /// What our chain is to say so that old records can be dropped; the newest one only.
    checkpoint: Arc<Mutex<Option<Checkpoint>>>,
    /// Authors whose contradictions were found, and not told yet.
    forks: Arc<Mutex<BTreeSet<NodeId>>>,
    /// Which of the engine's tickets are decided with which of the ledger's.
    waiting: VecDeque<(u64, Ticket)>,
}

/// How far the ledger has come, as its thread tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Everything up to this ticket of the ledger is durable.
    Durable(u64),
    /// It can't go on.
    Failed(String),
}

fn put(key: Vec<u8>, value: Vec<u8>) -> Fact {
    Fact::Private(PrivateRow::Row { key, value: Some(value.into()) })
}

const OFFER_SEQ: &[u8] = b"offer-seq";

/// Bytes of what was watched of a lease, at most.
const WATCHED_BYTES: usize = 128;

fn watched(lease: &LeaseId) -> Vec<u8> {
    [b"watched/".as_slice(), &lease.0].concat()
}

fn leaving(lease: &LeaseId) -> Vec<u8> {
    [b"leaving/".as_slice(), &lease.0].concat()
}

fn number(bytes: Option<Vec<u8>>) -> Option<u64> {
    Some(u64::from_be_bytes(bytes?.try_into().ok()?))
}

impl Ledger {
    /// Opens the ledger in a data directory and starts its thread. Returns it with what the engine starts from, and where its
    /// progress shows.
    ///
    /// # Errors
    /// A journal that is damaged or of another node, or a disk that can't be used.
    pub fn open(
        dir: &Path,
        key: Keypair,
        network: NetworkId,
        now: Timestamp,
    ) -> anyhow::Result<(Self, Restore, watch::Receiver<Progress>)> {
        let journal = Journal::open(&dir.join("ledger"), key.node_id(), network)?;
        let (progress, durable) = watch::channel(Progress::Durable(0));
        let own = Arc::new(Mutex::new(BTreeSet::new()));
        let ours = Arc::clone(&own);
        let checkpoint = Arc::new(Mutex::new(None));
        let offered = Arc::clone(&checkpoint);
        let forks = Arc::new(Mutex::new(BTreeSet::new()));
        let found = Arc::clone(&forks);
        let thread = LedgerThread::spawn(journal, move |event| match event {
            Event::Durable(ticket) => {
                locked(&ours).retain(|own| *own > ticket.0);
                progress.send_if_modified(|state| {
                    let going = matches!(state, Progress::Durable(_));
                    if going {
                        *state = Progress::Durable(ticket.0);
                    }
                    going
                });
            }
            // What rests on a record of our own that is not there must not leave: it would be a fork of our chain.
            Event::Refused(ticket, why) if locked(&ours).contains(&ticket.0) => {
                progress.send_replace(Progress::Failed(format!("it refuses an entry of our own: {why}")));
            }
            Event::Refused(ticket, why) => tracing::error!(ticket = ticket.0, "the ledger refused a record: {why}"),
            Event::Checkpoint(checkpoint) => {
                *locked(&offered) = Some(*checkpoint);
                progress.send_modify(|_| {});
            }
            Event::Fork(_, author) => {
                tracing::warn!(peer = %author, "a peer has contradicted itself; the proof is kept");
                found.lock().unwrap_or_else(PoisonError::into_inner).insert(author);
            }
            Event::Failed(failure) => {
                progress.send_replace(Progress::Failed(failure.to_string()));
            }
        })?;
        let handle = thread.handle();
        older::take_over(&handle)?;
        let seal = Arc::new(Seal::of(&key));
        let restore = restore(handle.view(), &seal, now)?;
        let progress = durable.clone();
        Ok((
            Self { thread, handle, key, seal, own, progress, checkpoint, forks, waiting: VecDeque::new() },
            restore,
            durable,
        ))
    }

    const fn view(&self) -> &View {
        self.handle.view()
    }

    /// Writes a record of the engine. Waits while the disk is hopelessly behind.
    pub async fn append(&mut self, ticket: Ticket, record: Record) {
        for fact in self.facts(record) {
            let mut fact = Some(fact);
            while let Some(again) = fact.take() {
                let appended = self.hand_over(again.clone());
                match appended {
                    Ok(own) => match self.waiting.back_mut() {
                        Some(last) if last.1 == ticket => last.0 = own.0,
                        Some(_) | None => self.waiting.push_back((own.0, ticket)),
                    },
                    Err(souk_ledger::thread::AppendError::Full) => {
                        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                        fact = Some(again);
                    }
                    // The thread has ended, and says so through its progress.
                    Err(souk_ledger::thread::AppendError::Closed) => {}
                }
            }
        }
    }

    /// Queues a fact. The tickets of our own entries are known before their refusal can come.
    fn hand_over(&self, fact: Fact) -> Result<souk_ledger::thread::Ticket, souk_ledger::thread::AppendError> {
        let ours = matches!(&fact, Fact::Entry(entry) if entry.author == self.me());
        let mut own = locked(&self.own);
        let ticket = self.handle.append(fact)?;
        if ours {
            own.insert(ticket.0);
        }
        Ok(ticket)
    }

    /// What our chain is to say next, so that old records can be dropped.
    #[must_use]
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        locked(&self.checkpoint).take()
    }

    /// What the engine's ticket is, up to which everything is durable.
    pub fn decided(&mut self, progress: &Progress) -> Option<Durable> {
        match progress {
            Progress::Failed(why) => Some(Err(why.clone())),
            Progress::Durable(own) => {
                let mut newest = None;
                while self.waiting.front().is_some_and(|(needs, _)| needs <= own) {
                    newest = self.waiting.pop_front().map(|(_, ticket)| Ok(ticket));
                }
                newest
            }
        }
    }

    /// Whose ledger it is.
    #[must_use]
    pub fn me(&self) -> NodeId {
        self.view().own()
    }

    /// The network its documents are signed for.
    #[must_use]
    pub fn network(&self) -> NetworkId {
        self.view().network()
    }

    /// An entry that is held of a chain.
    #[must_use]
    pub fn link(&self, author: &NodeId, seq: u64) -> Option<Link> {
        let signed = logged(self.view().entry(author, seq)).flatten()?;
        let entry: Entry = encode::from_bytes(signed.payload(), limits::ENTRY_BYTES).ok()?;
        Some(Link { id: signed.id(&self.network()), prev: entry.prev, time: entry.time })
    }

    /// An entry that is held of a chain, whole.
    #[must_use]
    pub fn entry(&self, author: &NodeId, seq: u64) -> Option<souk_protocol::Signed<Entry>> {
        logged(self.view().entry(author, seq)).flatten()
    }

    /// When the newest entry held of a chain was made, if it comes before this number.
    #[must_use]
    pub fn head_before(&self, author: &NodeId, seq: u64) -> Option<Timestamp> {
        logged(self.view().head(author)).flatten().filter(|head| head.seq < seq).map(|head| head.time)
    }

    /// A record of the engine as the ledger's facts. The engine hands out only what it has made or verified; the ledger takes
    /// nothing else, so it is checked again here.
    fn facts(&self, record: Record) -> Vec<Fact> {
        let network = self.view().network();
        let verified = |e: souk_protocol::VerifyError| tracing::error!("a record of the engine does not verify: {e}");
        match record {
            Record::Entry(signed) => signed.verify(&network).map_err(verified).map(Fact::Entry).into_iter().collect(),
            Record::Usage(signed) => signed.verify(&network).map_err(verified).map(Fact::Usage).into_iter().collect(),
            Record::Ack(signed) => signed.verify(&network).map_err(verified).map(Fact::Ack).into_iter().collect(),
            Record::Private(Private::Workload { lease, bytes }) => {
                let sealed = self.seal.close(&lease, &bytes);
                let fact = |sealed| Fact::Private(PrivateRow::Workload { lease, sealed });
                sealed.map_err(|e| tracing::error!("{e}")).map(fact).into_iter().collect()
            }
            Record::Private(Private::Event { lease, event }) => {
                vec![Fact::Private(PrivateRow::Event { lease, event })]
            }
            Record::Private(Private::Label { lease, text }) => {
                vec![Fact::Private(PrivateRow::Label { lease, text })]
            }
            Record::Fork(proof) => vec![Fact::Fork(proof)],
            Record::Private(Private::Head(signed)) => {
                let head = signed.verify(&network).map_err(verified);
                head.map(|head| heads::signed_row(heads::HEADS, &head.author, &signed)).into_iter().collect()
            }
            Record::Private(Private::HeadSeen(signed)) => {
                let seen = signed.verify(&network).map_err(verified);
                seen.map(|seen| heads::signed_row(heads::HEADS_SEEN, &seen.witness, &signed)).into_iter().collect()
            }
            Record::Private(Private::ForkGone(author)) => vec![Fact::Private(PrivateRow::ForkGone { author })],
            Record::Private(Private::Leaving { lease }) => vec![put(leaving(&lease), vec![1])],
            Record::Private(Private::Watched { lease, seen }) => vec![put(watched(&lease), encode::to_bytes(&seen))],
            Record::Private(Private::Account(note)) => {
                vec![put(accounts::note_key(&note.peer, &note.currency), encode::to_bytes(&*note))]
            }
            Record::Private(Private::OfferSeq(seq)) => vec![put(OFFER_SEQ.to_vec(), seq.to_be_bytes().to_vec())],
        }
    }

    /// All on record about a lease.
    #[must_use]
    pub fn row(&self, lease: &LeaseId) -> Option<LeaseRow> {
        logged(self.view().lease(lease)).flatten().and_then(|l| logged(row(self.view(), &self.seal, l)))
    }

    /// The newest leases, over or not, newest first.
    #[must_use]
    pub fn newest(&self, limit: usize) -> Vec<LeaseRow> {
        let leases = logged(self.view().leases(Select::All, limit)).unwrap_or_default();
        leases.into_iter().filter_map(|l| logged(row(self.view(), &self.seal, l))).collect()
    }

    /// An answer that was given before, about a lease the engine no longer holds.
    #[must_use]
    pub fn recall(&self, asker: &NodeId, lease: &LeaseId, what: Recalled) -> Option<Response> {
        let held = logged(self.view().lease(lease)).flatten()?;
        if held.peer_of(&self.me()) != Some(*asker) {
            return None;
        }
        match what {
            Recalled::Answer(open) if held.open.id == open => held.answer.map(|a| Response::Answered(a.signed)),
            Recalled::Answer(_) => None,
            Recalled::CloseAck => {
                let hosted = held.host() == self.view().own();
                let ack = held.receipts.agreed.filter(|_| !hosted).map(|r| r.ack.signed);
                let close_ack = if hosted { held.host_close_ack } else { held.renter_close_ack }?.signed;
                Some(Response::Seen { events_seen: u32::MAX, ack, close_ack: Some(close_ack) })
            }
        }
    }

    /// Checks the whole ledger as a stranger would: exported, and verified from the file alone.
    pub fn check(&self, reply: Reply<LedgerCheckView>) {
        let (view, key) = (self.view().clone(), self.key.clone());
        tokio::task::spawn_blocking(move || {
            reply.send(check(&view, &key)).ok();
        });
    }

    /// Exports the ledger, or what concerns one lease, in pieces.
    pub fn export(&self, lease: Option<LeaseId>, reply: Reply<mpsc::Receiver<Result<Bytes, CommandError>>>) {
        let (view, key) = (self.view().clone(), self.key.clone());
        let (pieces, receiver) = mpsc::channel(EXPORT_PIECES);
        if reply.send(Ok(receiver)).is_err() {
            return;
        }
        tokio::task::spawn_blocking(move || {
            let filter = lease.map_or(Filter::All, Filter::Lease);
            let mut out = io::BufWriter::with_capacity(PIECE, Pieces(&pieces));
            let done = export(&view, filter, &key, &mut out).map_err(|e| e.to_string());
            if let Err(why) = done.and_then(|_| out.flush().map_err(|e| e.to_string())) {
                let error = CommandError::new(ErrorCode::Internal, format!("the export broke off: {why}"));
                pieces.blocking_send(Err(error)).ok();
            }
        });
    }

    /// Writes what is queued and ends the thread.
    pub fn shutdown(self) {
        if let Err(failure) = self.thread.shutdown() {
            tracing::error!("the ledger ended with a failure: {failure}");
        }
    }
}

struct Pieces<'a>(&'a mpsc::Sender<Result<Bytes, CommandError>>);

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Ok(Bytes::copy_from_slice(bytes));
        self.0
            .blocking_send(piece)
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "nobody reads the export"))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn check(view: &View, key: &Keypair) -> Result<LedgerCheckView, CommandError> {
    let internal =
        |e: &dyn std::fmt::Display| CommandError::new(ErrorCode::Internal, format!("the ledger can't be read: {e}"));
    let mut file = tempfile::tempfile().map_err(|e| internal(&e))?;
    export(view, Filter::All, key, io::BufWriter::new(&mut file)).map_err(|e| internal(&e))?;
    io::Seek::rewind(&mut file).map_err(|e| internal(&e))?;
    let report = verify::verify(io::BufReader::new(file)).map_err(|e| internal(&e))?;
    let faults = match &report.verdict {
        Verdict::Valid => Vec::new(),
        Verdict::Invalid(fault) | Verdict::Incomplete(fault) => {
            vec![format!("record {}: {}", fault.record, fault.what)]
        }
    };
    let receipts = view.receipt_count().map_err(|e| internal(&e))?;
    Ok(LedgerCheckView { entries: report.records, leases: report.leases, receipts, faults })
}

fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn logged<T>(result: Result<T, QueryError>) -> Option<T> {
    result.map_err(|e| tracing::error!("the ledger does not answer: {e}")).ok()
}

fn open_leases(view: &View) -> Result<Vec<Lease>, QueryError> {
    let mut leases = Vec::new();
    for status in [Status::Opened, Status::Active, Status::Closing] {
        leases.extend(view.leases(Select::Status(status), LISTED)?);
    }
    Ok(leases)
}

fn restore(view: &View, seal: &Seal, now: Timestamp) -> Result<Restore, QueryError> {
    let me = view.own();
    let head = view.head(&me)?.map(|h| Head { author: me, seq: h.seq, id: h.id, time: h.time });
    let mut open = open_leases(view)?;
    for status in [Status::Void, Status::Closed] {
        let recent = view.leases(Select::Status(status), 1024)?;
        open.extend(recent.into_iter().filter(|l| l.draft.value.commit_by + RECENT > now));
    }
    open.sort_by_key(Lease::opened_at);
    Ok(Restore {
        head,
        offer_seq: number(view.private(OFFER_SEQ)?).unwrap_or(0),
        leases: open.into_iter().map(|l| row(view, seal, l)).collect::<Result<_, _>>()?,
        accounts: accounts::accounts(view)?,
        next_number: view.lease_count()?.saturating_add(1),
        forked: heads::forked(view)?,
        heads: heads::heads(view)?,
        instance: Nonce::default(),
    })
}

fn row(view: &View, seal: &Seal, lease: Lease) -> Result<LeaseRow, QueryError> {
    let id = lease.id();
    let hosted = lease.host() == view.own();
    let events = view.events(&id)?;
    let usage = lease.newest_usage().map(|u| u.signed.clone());
    let (ack, acked_usage) = lease.receipts.agreed.map(|r| (r.ack.signed, r.usage.signed)).unzip();
    Ok(LeaseRow {
        lease: id,
        number: lease.number,
        open: lease.open.signed,
        answer: lease.answer.map(|a| a.signed),
        placement: lease.placement.map(|p| p.signed),
        amend: lease.amends.last().map(|a| a.signed.clone()),
        amended: lease.amended.into_iter().map(|a| a.signed).collect(),
        usage,
        ack,
        acked_usage,
        // A host that has closed may have taken its renter's close, too: that is the one it still owes an answer to.
        close: if hosted { lease.renter_close.or(lease.host_close) } else { lease.host_close.or(lease.renter_close) }
            .map(|c| c.signed),
        close_ack: lease.renter_close_ack.or(lease.host_close_ack).map(|c| c.signed),
        workload: view.workload(&id)?.and_then(|sealed| seal.open(&id, &sealed)).unwrap_or_default(),
        events,
        label: lease.label,
        leaving: view.private(&leaving(&id))?.is_some(),
        // One that can't be read is none: it is a cache of what was seen.
        watched: view.private(&watched(&id))?.and_then(|seen| encode::from_bytes(&seen, WATCHED_BYTES).ok()),
        probed: lease.renter_probe.is_some(),
    })
}
