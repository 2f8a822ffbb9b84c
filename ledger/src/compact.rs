//! Making a base: the journal's full segments are folded anew, apart from the store in use, and what still matters of them is
//! written into one file.
//!
//! In three steps, the first and the last of which may take minutes and run beside the ledger: [`Plan::prepare`] writes the base
//! and says what a checkpoint must fix; once that entry is durable, [`Prepared::build`] makes the store that goes with the base;
//! [`crate::commit::Ledger::install`] then puts both in place at once. Whatever comes between, the journal holds everything:
//! an unfinished base is removed at the next start. Nothing is ever taken from the store in use, so damage there can't get in.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use souk_protocol::{
    NetworkId, NodeId,
    checkpoint::{Checkpoint, Ids},
};

use crate::{
    commit::{Backend, OpenError},
    journal::{Base, BaseWriter, Disk, Generation, JournalError, Position, Reader, start_of_segment},
    record::Record,
    replay::{Folder, Of},
    state::{FoldError, Keep, totals},
    store::{Kv, KvError, MemoryKv, SledKv, place},
};

/// Rows dropped at once.
const DROPPED_AT_ONCE: usize = 4096;
/// A store so many records behind is left to the ledger's thread to complete: some milliseconds.
pub(crate) const BEHIND: u64 = 1024;

/// Why no base was made. The journal is as it was.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// The journal can't be read, or no base written beside it.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The journal can't be folded.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The rows can't be made.
    #[error(transparent)]
    Store(#[from] KvError),
    /// A record can't be read again.
    #[error("a record of the journal can't be folded a second time")]
    Fold(#[source] FoldError),
    /// What an earlier attempt left can't be removed.
    #[error("can't remove {}", path.display())]
    Remove {
        /// What.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The ledger is closing.
    #[error("the ledger was closed meanwhile")]
    Stopped,
}

impl From<FoldError> for CompactError {
    fn from(e: FoldError) -> Self {
        match e {
            FoldError::Store(e) => Self::Store(e),
            FoldError::Refused(_) => Self::Fold(e),
        }
    }
}

/// Ends work that runs beside the ledger.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Ends it soon.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn check(&self) -> Result<(), CompactError> {
        if self.0.load(Ordering::Relaxed) { Err(CompactError::Stopped) } else { Ok(()) }
    }
}

/// What is to be replaced.
#[derive(Debug)]
pub struct Plan {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) generation: Generation,
    pub(crate) backend: Backend,
    pub(crate) own: NodeId,
    pub(crate) network: NetworkId,
    /// The newest segment that is to go.
    pub(crate) segment: u64,
    /// Whether the store wastes space, which making it anew gives back.
    pub(crate) waste: bool,
}

/// A base that is written, but not in place.
#[derive(Debug)]
pub struct Prepared {
    plan: Plan,
    pub(crate) base: Base,
    checkpoint: Checkpoint,
    /// Records that were there.
    records: u64,
}

/// A base and its store.
#[derive(Debug)]
pub struct Built {
    pub(crate) base: Base,
    pub(crate) folder: Folder,
    /// The next record that is not in the store.
    pub(crate) next: Position,
}

impl Plan {
    /// Folds the segments, and writes what is kept of them with the rows they made. None if there is no chain to put a
    /// checkpoint into.
    ///
    /// # Errors
    /// [`CompactError`].
    pub fn prepare(self, stop: &Stop) -> Result<Option<Prepared>, CompactError> {
        let end = start_of_segment(&*self.disk, self.segment + 1)?;
        let of = self.of(self.base());
        let work = Work::new(&self.backend, self.segment)?;
        let mut folder = Folder::from_base(work.kv()?, &of, &self.disk, &self.generation, end)?;
        stop.check()?;
        let (Some(mark), Some(cut)) = (folder.mark(), folder.state.cut()?) else {
            return Ok(None);
        };
        let mut writer = BaseWriter::create(Arc::clone(&self.disk), self.segment)?;
        let mut reader = Reader::from_first(Arc::clone(&self.disk), Arc::clone(&self.generation), end);
        let (mut ids, mut dropped, mut records) = (Ids::default(), Vec::new(), 0);
        while let Some(item) = reader.next_item()? {
            let index = item.mark.at.index;
            let decode = |source| OpenError::Decode { index, source };
            let record = Record::from_bytes(item.record).map_err(decode)?;
            match folder.state.keeps(index, record, &cut)? {
                Keep::Yes(own) => {
                    own.iter().for_each(|id| ids.add(id));
                    writer.keep(index, item.record)?;
                }
                Keep::No(row) => dropped.extend(row),
            }
            records += 1;
            if dropped.len() >= DROPPED_AT_ONCE {
                folder.drop_rows(dropped.drain(..))?;
                stop.check()?;
            }
        }
        folder.drop_rows(dropped)?;
        stop.check()?;
        folder.rows::<CompactError>(|key, value| Ok(writer.row(key, value)?))?;
        let checkpoint = Checkpoint {
            seq: cut.head.seq,
            id: cut.head.id,
            kept: ids.count(),
            entries: ids.digest(),
            totals: totals(&*folder.kv())?,
        };
        let base = writer.finish(mark)?;
        Ok(Some(Prepared { plan: self, base, checkpoint, records }))
    }

    fn base(&self) -> u64 {
        self.generation.as_ref().as_ref().map_or(0, Base::segment)
    }

    const fn of(&self, base: u64) -> Of {
        Of { own: self.own, network: self.network, base }
    }
}

impl Prepared {
    /// What must be in our chain, durable, before the base may take its place.
    #[must_use]
    pub const fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Records that were there, and of these the ones that are kept.
    #[must_use]
    pub const fn records(&self) -> (u64, u64) {
        (self.records, self.base.records())
    }

    /// Whether any record goes, or space that the store wastes.
    #[must_use]
    pub const fn gains(&self) -> bool {
        self.plan.waste || self.records > self.base.records()
    }

    /// Removes the base that was made.
    pub(crate) fn discard(self) {
        // What stays is removed at the next start.
        if let Err(error) = self.base.discard(&*self.plan.disk) {
            tracing::warn!(%error, "can't remove a base that is not wanted");
        }
    }

    /// Makes the store of the base, and brings it nearly up to the journal's end, which `durable` tells.
    ///
    /// # Errors
    /// [`CompactError`].
    pub fn build(self, stop: &Stop, durable: impl Fn() -> Position) -> Result<Built, CompactError> {
        let Self { plan, base, .. } = self;
        let kv: Arc<dyn Kv> = match &plan.backend {
            Backend::Memory => Arc::new(MemoryKv::default()),
            Backend::Sled(directory) => {
                let directory = place::of_base(directory, base.segment());
                remove(&directory)?;
                Arc::new(SledKv::open(&directory)?)
            }
        };
        let mut folder = Folder::new(kv, &plan.of(base.segment()))?;
        folder.load(&*plan.disk, &base)?;
        let mut next = base.end();
        loop {
            stop.check()?;
            let end = durable();
            folder.replay(&plan.disk, &plan.generation, next, end)?;
            next = end;
            if durable().index.saturating_sub(next.index) < BEHIND {
                return Ok(Built { base, folder, next });
            }
        }
    }
}

/// The store that the segments are folded into, gone when dropped.
#[derive(Debug)]
struct Work(Option<PathBuf>);

impl Work {
    fn new(backend: &Backend, segment: u64) -> Result<Self, CompactError> {
        let Backend::Sled(directory) = backend else {
            return Ok(Self(None));
        };
        let directory = place::of_work(directory, segment);
        remove(&directory)?;
        Ok(Self(Some(directory)))
    }

    fn kv(&self) -> Result<Arc<dyn Kv>, CompactError> {
        Ok(match &self.0 {
            Some(directory) => Arc::new(SledKv::open(directory)?),
            None => Arc::new(MemoryKv::default()),
        })
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Some(directory) = &self.0 {
            // What stays is removed at the next start.
            drop(place::remove(directory));
        }
    }
}

fn remove(path: &Path) -> Result<(), CompactError> {
    place::remove(path).map_err(|source| CompactError::Remove { path: path.to_owned(), source })
}
