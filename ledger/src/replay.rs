//! Keeps the store in step with the journal: what was applied, the checksum over all rows, and the replay of what is missing.

use std::{mem, ops::ControlFlow, sync::Arc};

use serde::{Deserialize, Serialize};
use souk_protocol::{NetworkId, NodeId, encode};

use crate::{
    commit::OpenError,
    journal::{Base, Disk, Generation, Mark, Position, Reader},
    keys,
    record::Record,
    state::{FoldError, State, decode},
    store::{Batch, Kv, KvError},
};

/// Changes whenever rows change their form: a store of another version is made anew.
const ROWS_VERSION: u32 = 11;
/// Records folded between two writes to the store while replaying.
const REPLAY_GROUP: u64 = 4096;
/// Bytes of rows written at once while they are loaded.
const LOAD_BYTES: u64 = 4 << 20;

/// Whose records a store was made from.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    own: NodeId,
    network: NetworkId,
    version: u32,
    /// The journal's base: rows of entries that are dropped with it are only in the store of another.
    base: u64,
}

/// Up to where the journal is in the store, and what the store then holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Applied {
    mark: Option<Mark>,
    rows: u64,
    /// Sum of the rows' hashes: rows that sled loses or brings back change it.
    sum: u64,
    /// Bytes of the rows and their keys.
    bytes: u64,
}

fn row_hash(key: &[u8], value: &[u8]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes()).update(key).update(value);
    let mut hash = [0; 8];
    hash.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(hash)
}

/// The fold together with the store it is written to.
#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) state: State,
    kv: Arc<dyn Kv>,
    applied: Applied,
}

/// What a store says of itself.
pub(crate) enum Condition {
    /// Made from the journal up to this record; `live` bytes of rows.
    Sound { mark: Option<Mark>, live: u64 },
    /// Of another node or version, or not what was written.
    Unsound,
}

/// Reads every row and compares with the checksum.
pub(crate) fn examine(kv: &dyn Kv, of: &Of) -> Result<Condition, KvError> {
    let identity = kv.get(keys::IDENTITY)?;
    let applied = kv.get(keys::APPLIED)?;
    let mut found = Applied::default();
    kv.scan(b"", b"", &mut |key, value| {
        if key != keys::APPLIED && key != keys::IDENTITY {
            found.rows += 1;
            found.sum = found.sum.wrapping_add(row_hash(key, value));
            found.bytes += size(key, value);
        }
        ControlFlow::Continue(())
    })?;
    let (Some(identity), Some(applied)) = (identity, applied) else {
        let empty = found.rows == 0;
        return Ok(if empty { Condition::Sound { mark: None, live: 0 } } else { Condition::Unsound });
    };
    let identity: Identity = decode(&identity, "identity")?;
    let applied: Applied = decode(&applied, "applied")?;
    found.mark = applied.mark;
    let sound = identity == of.identity() && found == applied;
    Ok(if sound { Condition::Sound { mark: applied.mark, live: found.bytes } } else { Condition::Unsound })
}

fn size(key: &[u8], value: &[u8]) -> u64 {
    (key.len() + value.len()) as u64
}

/// What a store is made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Of {
    pub(crate) own: NodeId,
    pub(crate) network: NetworkId,
    /// The newest segment of the journal's base; zero if there is none.
    pub(crate) base: u64,
}

impl Of {
    const fn identity(&self) -> Identity {
        Identity { own: self.own, network: self.network, version: ROWS_VERSION, base: self.base }
    }
}

impl Folder {
    /// Goes on with a store that was found sound.
    pub(crate) fn new(kv: Arc<dyn Kv>, of: &Of) -> Result<Self, KvError> {
        let applied = match kv.get(keys::APPLIED)? {
            Some(bytes) => decode(&bytes, "applied")?,
            None => {
                let identity = encode::to_bytes(&of.identity());
                kv.write(&Batch::from([(keys::IDENTITY.to_vec(), Some(identity))]))?;
                Applied::default()
            }
        };
        Ok(Self { state: State::new(of.own, of.network, Arc::clone(&kv)), kv, applied })
    }

    /// Writes what has changed, with the mark of the last record folded, which must be durable.
    pub(crate) fn commit(&mut self, mark: Mark) -> Result<(), KvError> {
        let changes = self.state.take_changes();
        self.write(changes, Some(mark))?;
        self.state.forget();
        Ok(())
    }

    /// Writes rows, and up to where the journal is in them.
    fn write(&mut self, mut changes: Batch, mark: Option<Mark>) -> Result<(), KvError> {
        let mut applied = self.applied;
        for (key, value) in &changes {
            if let Some(old) = self.kv.get(key)? {
                applied.rows -= 1;
                applied.sum = applied.sum.wrapping_sub(row_hash(key, &old));
                applied.bytes = applied.bytes.saturating_sub(size(key, &old));
            }
            if let Some(new) = value {
                applied.rows += 1;
                applied.sum = applied.sum.wrapping_add(row_hash(key, new));
                applied.bytes += size(key, new);
            }
        }
        applied.mark = mark;
        changes.insert(keys::APPLIED.to_vec(), Some(encode::to_bytes(&applied)));
        self.kv.write(&changes)?;
        self.applied = applied;
        Ok(())
    }

    /// The last record that is in the store.
    pub(crate) const fn mark(&self) -> Option<Mark> {
        self.applied.mark
    }

    /// Bytes of the rows and their keys.
    pub(crate) const fn live(&self) -> u64 {
        self.applied.bytes
    }

    /// The store.
    pub(crate) fn kv(&self) -> Arc<dyn Kv> {
        Arc::clone(&self.kv)
    }

    /// Fills an empty store with a base's rows.
    pub(crate) fn load(&mut self, disk: &dyn Disk, base: &Base) -> Result<(), OpenError> {
        let (mut batch, mut bytes) = (Batch::new(), 0);
        base.rows(disk, |key, value| {
            bytes += size(key, value);
            batch.insert(key.to_vec(), Some(value.to_vec()));
            if bytes > LOAD_BYTES {
                bytes = 0;
                // Without a mark: a store that is half full is made anew.
                self.write(mem::take(&mut batch), None)?;
            }
            Ok::<(), OpenError>(())
        })?;
        self.write(batch, Some(base.last()))?;
        Ok(())
    }

    /// Drops rows that the records up to the mark have made.
    pub(crate) fn drop_rows(&mut self, keys: impl IntoIterator<Item = Vec<u8>>) -> Result<(), KvError> {
        let mark = self.applied.mark;
        self.write(keys.into_iter().map(|key| (key, None)).collect(), mark)
    }

    /// Visits every row that records have made, in order.
    pub(crate) fn rows<E: From<KvError>>(&self, mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut failed = None;
        self.kv.scan(b"", b"", &mut |key, value| {
            if key == keys::APPLIED || key == keys::IDENTITY {
                return ControlFlow::Continue(());
            }
            match visit(key, value) {
                Ok(()) => ControlFlow::Continue(()),
                Err(e) => {
                    failed = Some(e);
                    ControlFlow::Break(())
                }
            }
        })?;
        failed.map_or(Ok(()), Err)
    }

    /// The fold of the journal up to `to`, made from its base and the records after it.
    pub(crate) fn from_base(
        kv: Arc<dyn Kv>,
        of: &Of,
        disk: &Arc<dyn Disk>,
        generation: &Generation,
        to: Position,
    ) -> Result<Self, OpenError> {
        let mut folder = Self::new(kv, of)?;
        let from = match generation.as_ref() {
            Some(base) => {
                folder.load(&**disk, base)?;
                base.end()
            }
            None => Position::FIRST,
        };
        folder.replay(disk, generation, from, to)?;
        Ok(folder)
    }

    /// Folds the journal's records between two places.
    pub(crate) fn replay(
        &mut self,
        disk: &Arc<dyn Disk>,
        generation: &Generation,
        from: Position,
        to: Position,
    ) -> Result<u64, OpenError> {
        let mut reader = Reader::new(Arc::clone(disk), Arc::clone(generation), from, to);
        let (mut last, mut folded) = (None, 0);
        while let Some(item) = reader.next_item()? {
            let (mark, index) = (item.mark, item.mark.at.index);
            let record = Record::from_bytes(item.record).map_err(|source| OpenError::Decode { index, source })?;
            self.state.replay(mark.at, record).map_err(|e| match e {
                FoldError::Refused(source) => OpenError::Refused { index, source },
                FoldError::Store(e) => OpenError::Store(e),
            })?;
            last = Some(mark);
            folded += 1;
            if folded % REPLAY_GROUP == 0 {
                self.commit(mark)?;
            }
        }
        if let Some(mark) = last {
            self.commit(mark)?;
            self.kv.flush()?;
        }
        Ok(folded)
    }
}
