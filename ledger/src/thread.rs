//! A thread that owns the ledger, and handles for everybody else.
//!
//! An append returns a ticket at once and is acknowledged after the flush. While one group is flushed the next collects, so
//! the window adapts itself: alone, a record is flushed at once; under load, many share a flush. The queue holds
//! [`QUEUE`] records; when it is full an append is refused, for the disk is then hopelessly behind.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use souk_protocol::{NodeId, checkpoint::Checkpoint};

use crate::{
    commit::{Ledger, StageError, StoreFailure},
    compacted::{Asker, NotCompacted},
    housekeeping::Housekeeping,
    record::Fact,
    state::{Applied, Refusal},
    view::View,
};

/// Records that may wait for the thread.
pub const QUEUE: usize = 8192;
/// Bytes of one group: a longer one would keep its first record waiting for more than some 10 ms.
const GROUP_BYTES: usize = 2 << 20;
/// Refusals kept for those who wait for their ticket.
const REFUSALS: usize = 1024;
/// Quiet time after which the store's changes are handed to the system.
const QUIET: Duration = Duration::from_secs(1);
/// Time between two looks at a compaction that is under way.
const WORKING: Duration = Duration::from_millis(50);
/// Records after which they are anyway.
const FLUSH_AFTER: usize = 16_384;

/// The number of an append, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What became of appends.
#[derive(Debug, Clone)]
pub enum Event {
    /// All tickets up to this one are decided: durable and visible, unless a refusal of theirs was reported before.
    Durable(Ticket),
    /// This one was refused and changed nothing.
    Refused(Ticket, Refusal),
    /// This one proves that its author, named here, contradicted itself; it is kept as evidence (see [`View::fork`]).
    Fork(Ticket, NodeId),
    /// So much can be dropped once our chain says this. Whoever signs our entries appends it, or nothing is dropped.
    Checkpoint(Box<Checkpoint>),
    /// The disk failed. Nothing after the last [`Event::Durable`] may be believed, and nothing more comes.
    Failed(Arc<StoreFailure>),
}

/// Why an append was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// [`QUEUE`] records wait already.
    #[error("the ledger's disk is too slow: {QUEUE} records wait to be written; try again later")]
    Full,
    /// The ledger was closed, or its disk failed.
    #[error("the ledger is closed; restart the node")]
    Closed,
}

/// Why a ticket was not made durable.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WaitError {
    /// The record can't follow those before it.
    #[error(transparent)]
    Refused(Refusal),
    /// The disk failed.
    #[error(transparent)]
    Failed(Arc<StoreFailure>),
    /// The ledger was closed before.
    #[error("the ledger was closed before the record was written")]
    Closed,
}

#[derive(Debug, Default)]
struct Inner {
    queue: VecDeque<Fact>,
    /// Tickets given.
    given: u64,
    /// Tickets decided.
    durable: u64,
    refused: BTreeMap<u64, Refusal>,
    failed: Option<Arc<StoreFailure>>,
    /// Who wants the journal compacted now, until the thread has seen it.
    asker: Option<Asker>,
    closing: bool,
    ended: bool,
}

#[derive(Debug, Default)]
struct Shared {
    inner: Mutex<Inner>,
    work: Condvar,
    progress: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A cheap handle to the ledger's thread.
#[derive(Debug, Clone)]
pub struct LedgerHandle {
    shared: Arc<Shared>,
    view: View,
}

impl LedgerHandle {
    /// Queues a record. It is acknowledged by [`Event::Durable`] for the ticket or a later one.
    ///
    /// # Errors
    /// [`AppendError`]; the record is not queued then.
    pub fn append(&self, fact: Fact) -> Result<Ticket, AppendError> {
        self.enqueue(self.shared.lock(), fact)
    }

    /// As [`LedgerHandle::append`], but waits while the queue is full. Blocks: not for async tasks.
    ///
    /// # Errors
    /// [`AppendError::Closed`].
    pub fn append_blocking(&self, fact: Fact) -> Result<Ticket, AppendError> {
        let mut inner = self.shared.lock();
        while inner.queue.len() >= QUEUE && !inner.closing && !inner.ended {
            inner = wait(&self.shared.progress, inner);
        }
        self.enqueue(inner, fact)
    }

    fn enqueue(&self, mut inner: MutexGuard<'_, Inner>, fact: Fact) -> Result<Ticket, AppendError> {
        if inner.closing || inner.ended {
            return Err(AppendError::Closed);
        }
        if inner.queue.len() >= QUEUE {
            return Err(AppendError::Full);
        }
        inner.queue.push_back(fact);
        inner.given += 1;
        let ticket = Ticket(inner.given);
        drop(inner);
        self.shared.work.notify_one();
        Ok(ticket)
    }

    /// Waits until a ticket is decided. Blocks: not for async tasks. The newest 1024 refusals are remembered; an older
    /// refused ticket reads as durable.
    ///
    /// # Errors
    /// [`WaitError`] if it was refused or can't be made durable any more.
    pub fn wait(&self, ticket: Ticket) -> Result<(), WaitError> {
        let mut inner = self.shared.lock();
        loop {
            if inner.durable >= ticket.0 {
                return match inner.refused.get(&ticket.0) {
                    Some(why) => Err(WaitError::Refused(why.clone())),
                    None => Ok(()),
                };
            }
            if let Some(failure) = &inner.failed {
                return Err(WaitError::Failed(Arc::clone(failure)));
            }
            if inner.ended {
                return Err(WaitError::Closed);
            }
            inner = wait(&self.shared.progress, inner);
        }
    }

    /// Has the journal compacted soon, whether or not it is worth it. [`Event::Checkpoint`] comes if there is anything to drop.
    /// If that is under way already, its end is the answer. One asker at a time.
    pub fn compact(&self, asker: Asker) {
        let mut inner = self.shared.lock();
        if inner.closing || inner.ended {
            return;
        }
        if inner.asker.is_some() {
            drop(inner);
            return asker.answer(Err(NotCompacted::Asked));
        }
        inner.asker = Some(asker);
        drop(inner);
        self.shared.work.notify_one();
    }

    /// Answers questions without waiting for the thread.
    #[must_use]
    pub const fn view(&self) -> &View {
        &self.view
    }
}

fn wait<'a>(condition: &Condvar, guard: MutexGuard<'a, Inner>) -> MutexGuard<'a, Inner> {
    condition.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

/// The running thread. Dropping it closes the ledger and waits for the end.
#[derive(Debug)]
pub struct LedgerThread {
    handle: LedgerHandle,
    thread: Option<JoinHandle<()>>,
}

impl LedgerThread {
    /// Gives `ledger` a thread. `report` is called on it, in ticket order; it must return quickly and not block.
    ///
    /// # Errors
    /// [`StoreFailure::Thread`] if the system has no thread left.
    pub fn spawn(ledger: Ledger, report: impl Fn(Event) + Send + 'static) -> Result<Self, StoreFailure> {
        let shared = Arc::new(Shared::default());
        let handle = LedgerHandle { shared: Arc::clone(&shared), view: ledger.view() };
        let thread = thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || {
                let end = End(&shared, &report);
                if let Err(failure) = run(&shared, ledger, &report) {
                    end.fail(failure);
                }
            })
            .map_err(|_| StoreFailure::Thread("could not be started"))?;
        Ok(Self { handle, thread: Some(thread) })
    }

    /// A handle for somebody else.
    #[must_use]
    pub fn handle(&self) -> LedgerHandle {
        self.handle.clone()
    }

    /// Writes what is queued, then ends the thread.
    ///
    /// # Errors
    /// The failure, if the disk failed now or before.
    pub fn shutdown(mut self) -> Result<(), Arc<StoreFailure>> {
        self.close();
        match &self.handle.shared.lock().failed {
            Some(failure) => Err(Arc::clone(failure)),
            None => Ok(()),
        }
    }

    fn close(&mut self) {
        self.handle.shared.lock().closing = true;
        self.handle.shared.work.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic is in `failed` already.
            drop(thread.join());
        }
    }
}

impl Drop for LedgerThread {
    fn drop(&mut self) {
        self.close();
    }
}

/// Marks the end of the thread however it comes, so that nobody waits for ever.
struct End<'a>(&'a Shared, &'a dyn Fn(Event));

impl End<'_> {
    fn fail(&self, failure: StoreFailure) {
        let failure = Arc::new(failure);
        self.0.lock().failed = Some(Arc::clone(&failure));
        tracing::error!(error = %failure, "the ledger can't go on");
        (self.1)(Event::Failed(failure));
    }
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.fail(StoreFailure::Thread("ended by a panic"));
        }
        let mut inner = self.0.lock();
        inner.ended = true;
        inner.queue.clear();
        let asker = inner.asker.take();
        drop(inner);
        // Unanswered: the ledger is closed.
        drop(asker);
        self.0.progress.notify_all();
    }
}

fn run(shared: &Shared, mut ledger: Ledger, report: &dyn Fn(Event)) -> Result<(), StoreFailure> {
    let mut unflushed = 0;
    let mut backlog = VecDeque::new();
    let mut ticket = 0;
    let mut housekeeping = Housekeeping::default();
    housekeeping.go_on(&mut ledger, report)?;
    loop {
        if backlog.is_empty() {
            let wake = if housekeeping.is_working() {
                Some(WORKING)
            } else {
                (unflushed > 0 || !housekeeping.is_idle() || ledger.has_replaced()).then_some(QUIET)
            };
            match next_work(shared, wake) {
                Work::Facts(facts) => backlog = facts,
                Work::Quiet => {
                    if unflushed > 0 {
                        ledger.flush_store()?;
                        unflushed = 0;
                    }
                    housekeeping.ask(shared.lock().asker.take(), &ledger);
                    housekeeping.go_on(&mut ledger, report)?;
                    continue;
                }
                Work::End => break,
            }
        }
        let mut refused = Vec::new();
        while let Some(fact) = backlog.pop_front() {
            ticket += 1;
            match ledger.stage(&fact) {
                Ok(Applied::New | Applied::Known) => {}
                Ok(Applied::Fork) => {
                    if let Some(author) = fact.author() {
                        report(Event::Fork(Ticket(ticket), author));
                    }
                }
                Err(StageError::Refused(why)) => refused.push((ticket, why)),
                Err(StageError::Failed(failure)) => return Err(failure),
            }
            unflushed += 1;
            if ledger.pending_bytes() >= GROUP_BYTES {
                break;
            }
        }
        ledger.commit()?;
        settle(shared, ticket, &refused);
        for (ticket, why) in refused {
            report(Event::Refused(Ticket(ticket), why));
        }
        report(Event::Durable(Ticket(ticket)));
        let flush = unflushed >= FLUSH_AFTER;
        if flush {
            ledger.flush_store()?;
            unflushed = 0;
        }
        housekeeping.ask(shared.lock().asker.take(), &ledger);
        if flush || !housekeeping.is_idle() || ledger.is_worth_compacting() {
            housekeeping.go_on(&mut ledger, report)?;
        }
    }
    drop(housekeeping);
    ledger.flush_store()
}

enum Work {
    Facts(VecDeque<Fact>),
    Quiet,
    End,
}

fn next_work(shared: &Shared, wake: Option<Duration>) -> Work {
    let mut inner = shared.lock();
    loop {
        if !inner.queue.is_empty() {
            let facts = mem::take(&mut inner.queue);
            drop(inner);
            shared.progress.notify_all();
            return Work::Facts(facts);
        }
        if inner.closing {
            return Work::End;
        }
        if inner.asker.is_some() {
            return Work::Quiet;
        }
        if let Some(wake) = wake {
            let (guard, timeout) = shared.work.wait_timeout(inner, wake).unwrap_or_else(PoisonError::into_inner);
            inner = guard;
            if timeout.timed_out() && inner.queue.is_empty() && !inner.closing {
                return Work::Quiet;
            }
        } else {
            inner = wait(&shared.work, inner);
        }
    }
}

fn settle(shared: &Shared, ticket: u64, refused: &[(u64, Refusal)]) {
    let mut inner = shared.lock();
    inner.durable = ticket;
    inner.refused.extend(refused.iter().cloned());
    while inner.refused.len() > REFUSALS {
        inner.refused.pop_first();
    }
    drop(inner);
    shared.progress.notify_all();
}
