//! What comes of a compaction that somebody has asked for.
//!
//! Owns the words only: [`crate::thread::LedgerHandle::compact`] takes the question, and the ledger's housekeeping answers it.

use std::fmt;

/// What a compaction has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compacted {
    /// Bytes of the journal and the store when it was asked for.
    pub bytes_before: u64,
    /// The same afterwards. A small ledger may have grown: a segment and a store are never smaller than some 100 KB.
    pub bytes_after: u64,
    /// Whether files that are replaced are still being read, and counted above; they go when that is over.
    pub still_read: bool,
    /// Records that were looked at.
    pub records: u64,
    /// How many of these were dropped.
    pub dropped: u64,
    /// The number of the checkpoint in this node's chain.
    pub checkpoint: u64,
    /// The number of the newest entry of this node's chain that the checkpoint stands for.
    pub up_to: u64,
    /// How many entries of this node's chain are left up to that one.
    pub entries_kept: u64,
}

/// Why nothing was compacted. The ledger is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotCompacted {
    /// Nothing would go.
    #[error(
        "there is nothing to drop: no record of the ledger has been replaced by a later one since it was last compacted"
    )]
    Nothing,
    /// One at a time.
    #[error("the ledger is being compacted for somebody else already; ask again when that is done")]
    Asked,
    /// The entry that stands for what is dropped was not written in time.
    #[error(
        "this node has not signed the checkpoint that has to come first; it goes on by itself once it does: ask again later"
    )]
    Unsigned,
    /// Something went wrong.
    #[error("the ledger was not compacted: {0}; nothing is lost, ask again when that is mended")]
    Failed(String),
}

/// Where the answer goes. Called once, on the ledger's thread, so it must not block; dropped uncalled if the ledger is closed
/// before.
pub struct Asker(Box<dyn FnOnce(Result<Compacted, NotCompacted>) + Send>);

impl Asker {
    /// Answers by this.
    pub fn new(answer: impl FnOnce(Result<Compacted, NotCompacted>) + Send + 'static) -> Self {
        Self(Box::new(answer))
    }

    pub(crate) fn answer(self, what: Result<Compacted, NotCompacted>) {
        (self.0)(what);
    }
}

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Asker")
    }
}
