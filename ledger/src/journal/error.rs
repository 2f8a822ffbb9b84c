//! What can be wrong with a journal, and what its keeper can do about it.

use std::{io, path::PathBuf};

/// Why the journal can't be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The system failed to read or write.
    #[error("can't {doing} the journal file {}", file.display())]
    Io {
        /// Which file.
        file: PathBuf,
        /// What was tried: `read`, `write`, `flush` …
        doing: &'static str,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Bytes that were once flushed have changed: this is not the torn end of an interrupted write.
    #[error(
        "the journal file {} is damaged at byte {offset}: {what}; it was not cut by a crash, so nothing was removed: \
         stop the node, check the disk, and restore this file from a backup",
        file.display()
    )]
    Corrupt {
        /// Which file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is there.
        what: &'static str,
    },
    /// A segment between others, or the first, is gone.
    #[error("the journal file {} is missing: restore it from a backup", file.display())]
    Missing {
        /// Which file.
        file: PathBuf,
    },
    /// The journal is shorter than what it had acknowledged.
    #[error(
        "the journal ends at byte {offset} of {}, but the store has seen later records: acknowledged records were lost; \
         restore the journal from a newer backup (going on with an old one would make this node contradict itself)",
        file.display()
    )]
    Behind {
        /// The last file.
        file: PathBuf,
        /// Its end.
        offset: u64,
    },
    /// A record is empty or over the limit.
    #[error("a journal record of {len} bytes: it must have between 1 and {max}")]
    Size {
        /// Its bytes.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// An earlier write or flush failed, after which nothing is known about the disk.
    #[error("the journal is closed because an earlier write failed; restart the node once the disk is well")]
    Poisoned,
}
