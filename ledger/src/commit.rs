//! The ledger's owner: journal, fold and store under one hand.
//!
//! Owns the order of things: fold (which may refuse), journal, flush, store, and only then is a record acknowledged. Blocking;
//! [`crate::thread`] runs it beside an async node.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use souk_protocol::{NetworkId, NodeId, checkpoint::Checkpoint, encode::DecodeError};

use crate::{
    compact::{Built, Plan},
    journal::{Base, Disk, Journal, JournalError, Mark, Position, RealDisk, Sizes, Start, newest_base},
    keys,
    record::Fact,
    replay::{Condition, Folder, Of, examine},
    state::{Applied, FoldError, Refusal, decode},
    store::{Kv, KvError, MemoryKv, SledKv, SwapKv, place},
    view::{Durable, View},
};

/// A store smaller than this is not made anew for wasting space. Bytes.
const WASTE: u64 = 64 << 20;
/// Records between two such looks.
const WASTE_AFTER: u64 = 1 << 16;

/// Why a ledger can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory can't be made or read.
    #[error("can't use the ledger's directory {}", directory.display())]
    Directory {
        /// Which.
        directory: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The journal is damaged or can't be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The store is in use elsewhere, or not even an empty one works.
    #[error(transparent)]
    Store(#[from] KvError),
    /// A record has a right checksum, but is none of this version's.
    #[error("record {index} of the journal can't be read: was it written by a newer version of souk? Start that one")]
    Decode {
        /// Which, counted from 0.
        index: u64,
        /// What is wrong with it.
        #[source]
        source: DecodeError,
    },
    /// A record has a right checksum, but can't follow those before it.
    #[error(
        "record {index} of the journal can't follow those before it: is this the journal of another node or network? \
         Check the data directory and the key"
    )]
    Refused {
        /// Which, counted from 0.
        index: u64,
        /// Why not.
        #[source]
        source: Refusal,
    },
}

/// Why a record was not taken.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// It can't follow. Nothing has changed; go on.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The disk failed. Nothing that was not acknowledged may be believed; stop the node.
    #[error(transparent)]
    Failed(#[from] StoreFailure),
}

/// The disk failed: the node must stop.
#[derive(Debug, thiserror::Error)]
pub enum StoreFailure {
    /// The journal can't be written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The store can't be read or written. Nothing is lost: the next start makes it anew.
    #[error(transparent)]
    Store(#[from] KvError),
    /// The ledger's thread can't be started, or ended by a panic.
    #[error("the ledger's thread {0}; restart the node")]
    Thread(&'static str),
}

/// Where the queryable store lies.
#[derive(Debug, Clone)]
pub enum Backend {
    /// In a sled database in this directory.
    Sled(PathBuf),
    /// In memory, made from the whole journal at each opening.
    Memory,
}

/// A node's ledger, opened for writing. The caller holds the data directory's [`crate::lock::DirectoryLock`].
#[derive(Debug)]
pub struct Ledger {
    journal: Journal,
    kv: Arc<SwapKv>,
    folder: Folder,
    /// The last record that is in the journal's group, but not in the store.
    staged: Option<Mark>,
    durable: Arc<Mutex<Durable>>,
    backend: Backend,
    /// The journal's length when the store was last made.
    packed_at: u64,
    /// A store that was replaced, until nobody reads it any more.
    old: Option<(Arc<dyn Kv>, PathBuf)>,
    own: NodeId,
    network: NetworkId,
}

impl Ledger {
    /// Opens the ledger of `own` in `network` under `directory`: `journal/` and `sled/`.
    ///
    /// # Errors
    /// [`OpenError`]. A damaged store is none: it is moved aside and made anew.
    pub fn open(directory: &Path, own: NodeId, network: NetworkId) -> Result<Self, OpenError> {
        let journal = directory.join("journal");
        let disk = RealDisk::new(&journal).map_err(|source| OpenError::Directory { directory: journal, source })?;
        let backend = Backend::Sled(directory.join("sled"));
        Self::open_with(Arc::new(disk), Sizes::default(), &backend, own, network)
    }

    /// Opens a ledger in other places or sizes.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_with(
        disk: Arc<dyn Disk>,
        sizes: Sizes,
        backend: &Backend,
        own: NodeId,
        network: NetworkId,
    ) -> Result<Self, OpenError> {
        let base = newest_base(&*disk)?;
        if let Backend::Sled(directory) = backend
            && let Err(error) = place::remove_others(directory, base)
        {
            tracing::warn!(%error, "can't remove an old store");
        }
        let of = Of { own, network, base };
        let (kv, mark) = match sound_store(backend, &of)? {
            Some(found) => found,
            None => (recreate(backend, base)?, None),
        };
        let (journal, start) = Journal::open(Arc::clone(&disk), sizes, mark)?;
        let generation = journal.generation();
        let caught_up = match start {
            Start::After(position) => Folder::new(kv, &of).map_err(OpenError::Store).and_then(|mut folder| {
                folder.replay(&disk, &generation, position, journal.end())?;
                Ok(folder)
            }),
            Start::Beginning => {
                let kv = if mark.is_none() {
                    kv
                } else {
                    drop(kv);
                    recreate(backend, base)?
                };
                Folder::from_base(kv, &of, &disk, &generation, journal.end())
            }
        };
        let folder = match caught_up {
            Err(OpenError::Store(e)) => {
                tracing::warn!(error = %e, "the store failed while catching up with the journal");
                Folder::from_base(recreate(backend, base)?, &of, &disk, &generation, journal.end())?
            }
            other => other?,
        };
        Ok(Self {
            durable: Arc::new(Mutex::new(Durable { end: journal.end(), generation })),
            kv: Arc::new(SwapKv::new(folder.kv())),
            journal,
            folder,
            staged: None,
            backend: backend.clone(),
            packed_at: 0,
            old: None,
            own,
            network,
        })
    }

    /// Folds a record and adds it to the group. It is durable once [`Ledger::commit`] has returned.
    ///
    /// # Errors
    /// [`StageError::Refused`] changes nothing; after [`StageError::Failed`] the ledger must be dropped.
    pub fn stage(&mut self, fact: &Fact) -> Result<Applied, StageError> {
        let bytes = fact.to_record().to_bytes();
        let at = match self.journal.reserve(bytes.len()) {
            Err(JournalError::Size { len, .. }) => return Err(Refusal::TooLong(len).into()),
            other => other.map_err(StoreFailure::Journal)?,
        };
        let applied = self.folder.state.apply(at, fact).map_err(|e| match e {
            FoldError::Refused(why) => StageError::Refused(why),
            FoldError::Store(e) => StageError::Failed(e.into()),
        })?;
        if applied != Applied::Known {
            let mark = self.journal.append(&bytes).map_err(StoreFailure::Journal)?;
            self.staged = Some(mark);
        }
        Ok(applied)
    }

    /// Makes the group durable and its changes visible to queries.
    ///
    /// # Errors
    /// [`StoreFailure`], after which the ledger must be dropped: nothing of the group may be acknowledged.
    pub fn commit(&mut self) -> Result<(), StoreFailure> {
        self.journal.sync()?;
        if let Some(mark) = self.staged.take() {
            self.folder.commit(mark)?;
            self.durable.lock().unwrap_or_else(PoisonError::into_inner).end = self.journal.end();
        }
        Ok(())
    }

    /// Bytes of the group.
    #[must_use]
    pub const fn pending_bytes(&self) -> usize {
        self.journal.pending_bytes()
    }

    /// Hands the store's changes to the system, so that the next start has less to replay.
    ///
    /// # Errors
    /// [`StoreFailure::Store`].
    pub fn flush_store(&self) -> Result<(), StoreFailure> {
        Ok(self.kv.flush()?)
    }

    /// What is to be compacted, if it is worth it: enough full segments, or a store that wastes space. With `always`, whatever
    /// there is. Call it between groups.
    ///
    /// # Errors
    /// [`StoreFailure`], after which the ledger must be dropped.
    pub fn plan(&mut self, always: bool) -> Result<Option<Plan>, StoreFailure> {
        let since = self.journal.end().index.saturating_sub(self.packed_at);
        let waste = since >= WASTE_AFTER && wasteful(self.kv.disk_bytes(), self.folder.live());
        let segment = if always || waste {
            self.journal.roll()?;
            self.journal.full().map(|(newest, _)| newest)
        } else {
            self.journal.replaceable()
        };
        Ok(segment.map(|segment| Plan {
            waste,
            disk: self.journal.disk(),
            generation: self.journal.generation(),
            backend: self.backend.clone(),
            own: self.own,
            network: self.network,
            segment,
        }))
    }

    /// Whether there are enough full segments to be compacted.
    #[must_use]
    pub fn is_worth_compacting(&self) -> bool {
        self.journal.replaceable().is_some()
    }

    /// The checkpoint that our chain's newest one says.
    ///
    /// # Errors
    /// [`StoreFailure::Store`].
    pub fn checkpoint(&self) -> Result<Option<Checkpoint>, StoreFailure> {
        let row: Option<(u64, Checkpoint)> =
            self.kv.get(keys::CHECKPOINT)?.map(|bytes| decode(&bytes, "checkpoint")).transpose()?;
        Ok(row.map(|(_, checkpoint)| checkpoint))
    }

    /// The number of the entry that says it.
    ///
    /// # Errors
    /// [`StoreFailure::Store`].
    pub fn checkpoint_seq(&self) -> Result<Option<u64>, StoreFailure> {
        let row: Option<(u64, Checkpoint)> =
            self.kv.get(keys::CHECKPOINT)?.map(|bytes| decode(&bytes, "checkpoint")).transpose()?;
        Ok(row.map(|(seq, _)| seq))
    }

    /// Bytes on disk, replaced files that are still there included.
    ///
    /// # Errors
    /// [`StoreFailure::Journal`] if the disk can't be read.
    pub fn disk_bytes(&self) -> Result<u64, StoreFailure> {
        let old = self.old.as_ref().map_or(0, |(kv, _)| kv.disk_bytes());
        Ok(self.journal.bytes()?.saturating_add(self.kv.disk_bytes()).saturating_add(old))
    }

    /// Tells how far the journal is durable, from other threads.
    pub fn durable_end(&self) -> impl Fn() -> Position + Send + 'static {
        let durable = Arc::clone(&self.durable);
        move || durable.lock().unwrap_or_else(PoisonError::into_inner).end
    }

    /// Puts a base and its store in place. Call it between groups, once its checkpoint is durable.
    ///
    /// # Errors
    /// [`StoreFailure`], after which the ledger must be dropped: the next start finds the one base or the other.
    pub fn install(&mut self, built: Built) -> Result<(), StoreFailure> {
        let Built { base, mut folder, next } = built;
        let (disk, before) = (self.journal.disk(), self.journal.generation());
        // A record the thread has just folded once can be folded again, unless the disk fails.
        folder.replay(&disk, &before, next, self.journal.end()).map_err(|e| match e {
            OpenError::Journal(e) => StoreFailure::Journal(e),
            OpenError::Store(e) => StoreFailure::Store(e),
            OpenError::Directory { .. } | OpenError::Decode { .. } | OpenError::Refused { .. } => {
                StoreFailure::Thread("could not read its journal again")
            }
        })?;
        folder.kv().flush()?;
        self.journal.install(&base)?;
        let replaced = self.kv.replace(folder.kv());
        {
            let mut durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
            durable.generation = self.journal.generation();
        }
        self.packed_at = self.journal.end().index;
        // The fold holds the old store as well.
        self.folder = folder;
        if let Backend::Sled(directory) = &self.backend {
            let was = before.as_ref().as_ref().map_or(0, Base::segment);
            self.old = Some((replaced, place::of_base(directory, was)));
        }
        Ok(())
    }

    /// Whether replaced files are still there.
    #[must_use]
    pub fn has_replaced(&self) -> bool {
        self.old.is_some() || self.journal.has_replaced()
    }

    /// Removes a bit of what was replaced, once nobody reads it any more. Says whether there may be more.
    pub fn sweep(&mut self) -> bool {
        if let Some((kv, directory)) = self.old.take_if(|(kv, _)| Arc::strong_count(kv) == 1) {
            drop(kv);
            // What stays is removed at the next start.
            if let Err(error) = place::remove(&directory) {
                tracing::warn!(directory = %directory.display(), %error, "can't remove the replaced store");
            }
            return true;
        }
        self.journal.sweep()
    }

    /// A reader of everything committed, usable from other threads.
    #[must_use]
    pub fn view(&self) -> View {
        let kv = Arc::clone(&self.kv) as Arc<dyn Kv>;
        View::new(kv, self.journal.disk(), Arc::clone(&self.durable), self.own, self.network)
    }
}

/// A store, and up to where the journal is in it.
type Found = (Arc<dyn Kv>, Option<Mark>);

/// The store, if it opens and holds what was written to it.
fn sound_store(backend: &Backend, of: &Of) -> Result<Option<Found>, KvError> {
    let Backend::Sled(directory) = backend else {
        return Ok(Some((Arc::new(MemoryKv::default()), None)));
    };
    let directory = place::of_base(directory, of.base);
    let examined = SledKv::open(&directory).and_then(|kv| examine(&kv, of).map(|condition| (kv, condition)));
    Ok(match examined {
        Ok((kv, Condition::Sound { mark, live })) => {
            let disk = kv.disk_bytes();
            if wasteful(disk, live) {
                tracing::info!(disk, live, "the store wastes space, making it anew");
                return Ok(None);
            }
            Some((Arc::new(kv), mark))
        }
        Ok((_, Condition::Unsound)) => {
            tracing::warn!("the store does not hold what was written to it");
            None
        }
        Err(e @ KvError::InUse { .. }) => return Err(e),
        Err(e @ (KvError::Damaged { .. } | KvError::Row { .. })) => {
            tracing::warn!(error = %e, "the store can't be used");
            None
        }
    })
}

/// Sled gives no space back.
const fn wasteful(disk: u64, live: u64) -> bool {
    disk > WASTE && disk / 4 > live
}

fn recreate(backend: &Backend, base: u64) -> Result<Arc<dyn Kv>, KvError> {
    Ok(match backend {
        Backend::Sled(directory) => Arc::new(SledKv::recreate(&place::of_base(directory, base))?),
        Backend::Memory => Arc::new(MemoryKv::default()),
    })
}
