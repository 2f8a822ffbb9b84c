//! Keeps the store in step with the journal: what was applied, the checksum over all rows, and the replay of what is missing.

use std::{ops::ControlFlow, sync::Arc};

use serde::{Deserialize, Serialize};
use souk_protocol::{NetworkId, NodeId, encode};

use crate::{
    commit::OpenError,
    journal::{Disk, Mark, Position, Reader},
    keys,
    record::Record,
    state::{FoldError, State, decode},
    store::{Batch, Kv, KvError},
};

/// Changes whenever rows change their form: a store of another version is made anew.
const ROWS_VERSION: u32 = 3;
/// Records folded between two writes to the store while replaying.
const REPLAY_GROUP: u64 = 4096;

/// Whose records a store was made from.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    own: NodeId,
    network: NetworkId,
    version: u32,
}

/// Up to where the journal is in the store, and what the store then holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Applied {
    mark: Option<Mark>,
    rows: u64,
    /// Sum of the rows' hashes: rows that sled loses or brings back change it.
    sum: u64,
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
pub(crate) fn examine(kv: &dyn Kv, own: &NodeId, network: &NetworkId) -> Result<Condition, KvError> {
    let identity = kv.get(keys::IDENTITY)?;
    let applied = kv.get(keys::APPLIED)?;
    let (mut found, mut live) = (Applied::default(), 0);
    kv.scan(b"", b"", &mut |key, value| {
        if key != keys::APPLIED && key != keys::IDENTITY {
            found.rows += 1;
            found.sum = found.sum.wrapping_add(row_hash(key, value));
            live += (key.len() + value.len()) as u64;
        }
        ControlFlow::Continue(())
    })?;
    let (Some(identity), Some(applied)) = (identity, applied) else {
        let empty = found.rows == 0;
        return Ok(if empty { Condition::Sound { mark: None, live } } else { Condition::Unsound });
    };
    let identity: Identity = decode(&identity, "identity")?;
    let applied: Applied = decode(&applied, "applied")?;
    found.mark = applied.mark;
    let sound = identity == current(own, network) && found == applied;
    Ok(if sound { Condition::Sound { mark: applied.mark, live } } else { Condition::Unsound })
}

fn current(own: &NodeId, network: &NetworkId) -> Identity {
    Identity { own: *own, network: *network, version: ROWS_VERSION }
}

impl Folder {
    /// Goes on with a store that was found sound.
    pub(crate) fn new(kv: Arc<dyn Kv>, own: NodeId, network: NetworkId) -> Result<Self, KvError> {
        let applied = match kv.get(keys::APPLIED)? {
            Some(bytes) => decode(&bytes, "applied")?,
            None => {
                let identity = encode::to_bytes(&current(&own, &network));
                kv.write(&Batch::from([(keys::IDENTITY.to_vec(), Some(identity))]))?;
                Applied::default()
            }
        };
        Ok(Self { state: State::new(own, network, Arc::clone(&kv)), kv, applied })
    }

    /// Writes what has changed, with the mark of the last record folded, which must be durable.
    pub(crate) fn commit(&mut self, mark: Mark) -> Result<(), KvError> {
        let mut changes = self.state.take_changes();
        let mut applied = self.applied;
        for (key, value) in &changes {
            if let Some(old) = self.kv.get(key)? {
                applied.rows -= 1;
                applied.sum = applied.sum.wrapping_sub(row_hash(key, &old));
            }
            if let Some(new) = value {
                applied.rows += 1;
                applied.sum = applied.sum.wrapping_add(row_hash(key, new));
            }
        }
        applied.mark = Some(mark);
        changes.insert(keys::APPLIED.to_vec(), Some(encode::to_bytes(&applied)));
        self.kv.write(&changes)?;
        self.applied = applied;
        self.state.forget();
        Ok(())
    }

    /// Folds the journal's records between two places.
    pub(crate) fn replay(&mut self, disk: Arc<dyn Disk>, from: Position, to: Position) -> Result<u64, OpenError> {
        let mut reader = Reader::new(disk, from, to);
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
