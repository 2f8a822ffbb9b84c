//! The ledger's owner: journal, fold and store under one hand.
//!
//! Owns the order of things: fold (which may refuse), journal, flush, store, and only then is a record acknowledged. Blocking;
//! [`crate::thread`] runs it beside an async node.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use souk_protocol::{NetworkId, NodeId, encode::DecodeError};

use crate::{
    journal::{Disk, Journal, JournalError, Mark, Position, RealDisk, Sizes, Start},
    record::Fact,
    replay::{Condition, Folder, examine},
    state::{Applied, FoldError, Refusal},
    store::{Kv, KvError, MemoryKv, SledKv},
    view::View,
};

/// A store smaller than this is not made anew for wasting space. Bytes.
const WASTE: u64 = 64 << 20;

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
    kv: Arc<dyn Kv>,
    folder: Folder,
    /// The last record that is in the journal's group, but not in the store.
    staged: Option<Mark>,
    durable: Arc<Mutex<Position>>,
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
        let (kv, mark) = match sound_store(backend, &own, &network)? {
            Some(found) => found,
            None => (recreate(backend)?, None),
        };
        let (journal, start) = Journal::open(Arc::clone(&disk), sizes, mark)?;
        let (kv, from) = match start {
            Start::After(position) => (kv, position),
            Start::Beginning if mark.is_none() => (kv, Position::FIRST),
            Start::Beginning => {
                drop(kv);
                (recreate(backend)?, Position::FIRST)
            }
        };
        let mut folder = Folder::new(Arc::clone(&kv), own, network)?;
        let (kv, folder) = match folder.replay(Arc::clone(&disk), from, journal.end()) {
            Ok(_) => (kv, folder),
            Err(OpenError::Store(e)) => {
                tracing::warn!(error = %e, "the store failed while catching up with the journal");
                drop((folder, kv));
                let kv = recreate(backend)?;
                let mut folder = Folder::new(Arc::clone(&kv), own, network)?;
                folder.replay(disk, Position::FIRST, journal.end())?;
                (kv, folder)
            }
            Err(e) => return Err(e),
        };
        Ok(Self { durable: Arc::new(Mutex::new(journal.end())), journal, kv, folder, staged: None, own, network })
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
            *self.durable.lock().unwrap_or_else(PoisonError::into_inner) = self.journal.end();
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

    /// A reader of everything committed, usable from other threads.
    #[must_use]
    pub fn view(&self) -> View {
        View::new(Arc::clone(&self.kv), self.journal.disk(), Arc::clone(&self.durable), self.own, self.network)
    }
}

/// A store, and up to where the journal is in it.
type Found = (Arc<dyn Kv>, Option<Mark>);

/// The store, if it opens and holds what was written to it.
fn sound_store(backend: &Backend, own: &NodeId, network: &NetworkId) -> Result<Option<Found>, KvError> {
    let Backend::Sled(directory) = backend else {
        return Ok(Some((Arc::new(MemoryKv::default()), None)));
    };
    let examined = SledKv::open(directory).and_then(|kv| examine(&kv, own, network).map(|condition| (kv, condition)));
    Ok(match examined {
        Ok((kv, Condition::Sound { mark, live })) => {
            let disk = kv.disk_bytes();
            if disk > WASTE && disk / 4 > live {
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

fn recreate(backend: &Backend) -> Result<Arc<dyn Kv>, KvError> {
    Ok(match backend {
        Backend::Sled(directory) => Arc::new(SledKv::recreate(directory)?),
        Backend::Memory => Arc::new(MemoryKv::default()),
    })
}
