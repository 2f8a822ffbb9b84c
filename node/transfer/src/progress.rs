//! How far a copy is, for whoever watches it from another thread.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::wire::Progressed;

/// Problems that are remembered in words; of the rest only the number.
pub const PROBLEMS: usize = 100;

/// Counters that only grow.
#[derive(Debug, Default)]
pub struct Progress {
    /// Files looked at, folders and links included.
    pub entries: AtomicU64,
    /// Bytes of files that are in place, by whatever means.
    pub bytes: AtomicU64,
    /// Of these, bytes that went over the stream.
    pub moved: AtomicU64,
    /// Entries there are; 0 while unknown.
    pub total_entries: AtomicU64,
    /// Bytes there are; 0 while unknown.
    pub total_bytes: AtomicU64,
    unchanged: AtomicU64,
    problems: AtomicU64,
    words: Mutex<Vec<String>>,
}

/// What became of a copy, as its sink counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Files, folders and links that are in place.
    pub entries: u64,
    /// Of these, files that were there with the same content.
    pub unchanged: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Of these, bytes that went over the stream.
    pub moved: u64,
    /// Files that could not be copied.
    pub problems: u64,
}

impl Progress {
    pub(crate) fn unchanged(&self) {
        self.unchanged.fetch_add(1, Relaxed);
    }

    /// Something could not be copied, and the copy goes on.
    pub fn problem(&self, words: String) {
        self.problems.fetch_add(1, Relaxed);
        let mut known = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < PROBLEMS {
            known.push(words);
        }
    }

    /// What somebody else has counted.
    pub(crate) fn set(&self, now: Progressed) {
        let Progressed { entries, bytes, moved, total_entries, total_bytes } = now;
        let counters = [&self.entries, &self.bytes, &self.moved, &self.total_entries, &self.total_bytes];
        for (counter, now) in counters.into_iter().zip([entries, bytes, moved, total_entries, total_bytes]) {
            counter.store(now, Relaxed);
        }
    }

    /// What could not be copied, so far and not yet taken.
    #[must_use]
    pub fn take_problems(&self) -> Vec<String> {
        std::mem::take(&mut *self.words.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The counters now.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary {
            entries: self.entries.load(Relaxed),
            unchanged: self.unchanged.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            moved: self.moved.load(Relaxed),
            problems: self.problems.load(Relaxed),
        }
    }
}
