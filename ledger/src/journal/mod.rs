//! The journal: numbered segments of checksummed records, the node's commit point.
//!
//! Owns which bytes are durable and what a crash may leave behind: a torn end is cut off at opening, damage anywhere else is an
//! error that names file and offset and removes nothing. Its oldest segments can be replaced by a [`Base`], which keeps some of
//! their records. It does not know what a record says. Whoever owns the data directory
//! holds its lock (see [`crate::lock`]); there is one [`Journal`] and any number of [`Reader`]s.

mod base;
mod disk;
mod error;
mod frame;
mod open;
mod reader;
mod segment;
#[cfg(test)]
pub(crate) mod simulated;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, io, sync::Arc};

use serde::{Deserialize, Serialize};

pub use base::{Base, BaseWriter};
pub use disk::{Disk, DiskFile, RealDisk};
pub use error::JournalError;
pub use frame::RECORD_BYTES;
pub use open::{Start, newest_base, start_of_segment};
pub use reader::{Item, Reader, find};

use frame::FRAME_HEADER;
use segment::HEADER;

/// The place of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Position {
    /// The segment's number, from 1.
    pub segment: u64,
    /// Bytes from the segment's beginning to the record's frame.
    pub offset: u64,
    /// Records before it in the whole journal.
    pub index: u64,
}

impl Position {
    /// Where the first record of every journal lies.
    pub const FIRST: Self = Self { segment: 1, offset: HEADER as u64, index: 0 };
}

/// A record by place and checksum: proves at the next start that a store was made from this very journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The record's place.
    pub at: Position,
    /// Its frame's checksum.
    pub crc: u32,
}

/// Sizes of a journal's files.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// A segment that would grow beyond this is followed by a new one. Bytes.
    pub segment: u64,
    /// Zeros written ahead when a segment begins; each later step is as large as the segment is, up to [`Sizes::step`]. Bytes.
    pub first: u64,
    /// The largest such step. Bytes.
    pub step: u64,
    /// Full segments of so many bytes, and not less than the base has, are worth to be replaced by a base. Bytes.
    pub replace: u64,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { segment: 64 << 20, first: 1 << 20, step: 8 << 20, replace: 128 << 20 }
    }
}

/// What stands for the segments that are gone; whoever holds it can still read what it is replaced by.
pub type Generation = Arc<Option<Base>>;

/// The writing end of a journal.
#[derive(Debug)]
pub struct Journal {
    disk: Arc<dyn Disk>,
    sizes: Sizes,
    file: Box<dyn DiskFile>,
    /// Where the next record goes, [`Journal::pending`] included.
    next: Position,
    /// Bytes of the segment that are on disk already, as records or as zeros.
    allocated: u64,
    /// Frames not written yet: the group.
    pending: Vec<u8>,
    poisoned: bool,
    /// What stands for the segments before the oldest.
    generation: Generation,
    /// Files that are replaced, each with the generation whose readers may still need it.
    retired: VecDeque<(Generation, Vec<String>)>,
}

impl Journal {
    /// What stands for the oldest segments.
    #[must_use]
    pub fn generation(&self) -> Generation {
        Arc::clone(&self.generation)
    }

    /// The newest segment that is full, if there is one behind the base, and about how many bytes all those have.
    #[must_use]
    pub fn full(&self) -> Option<(u64, u64)> {
        let first = start_of(&self.generation).segment;
        let newest = self.next.segment.checked_sub(1)?;
        let count = newest.checked_sub(first)?.saturating_add(1);
        Some((newest, count.saturating_mul(self.sizes.segment)))
    }

    /// The newest full segment, if all of them are worth to be replaced.
    #[must_use]
    pub fn replaceable(&self) -> Option<u64> {
        let base = self.generation.as_ref().as_ref().map_or(0, Base::bytes);
        let (newest, bytes) = self.full()?;
        (bytes >= self.sizes.replace.max(base)).then_some(newest)
    }

    /// Begins a new segment, unless nothing is in this one. The group so far is made durable.
    ///
    /// # Errors
    /// As [`Journal::sync`].
    pub fn roll(&mut self) -> Result<(), JournalError> {
        self.sync()?;
        if self.next.offset > HEADER as u64 {
            self.poisoned = true;
            self.begin_segment()?;
            self.poisoned = false;
        }
        Ok(())
    }

    /// Puts a finished base in the place of the segments it stands for. Those go once nobody reads them any more: see
    /// [`Journal::sweep`].
    ///
    /// # Errors
    /// [`JournalError`]; any poisons the journal.
    pub fn install(&mut self, base: &Base) -> Result<(), JournalError> {
        if self.poisoned {
            return Err(JournalError::Poisoned);
        }
        let old = start_of(&self.generation).segment;
        if base.segment() < old || base.segment() >= self.next.segment {
            return Err(JournalError::Corrupt {
                file: self.disk.path(base.file()),
                offset: 0,
                what: "it stands for other segments",
            });
        }
        let named = base.renamed();
        let fail = |e| JournalError::Io { file: self.disk.path(named.file()), doing: "rename", source: e };
        self.poisoned = true;
        self.disk.rename(base.file(), named.file()).and_then(|()| self.disk.sync_names()).map_err(fail)?;
        self.poisoned = false;
        let mut files: Vec<String> = (old..=named.segment()).map(segment::name).collect();
        files.extend(self.generation.as_ref().as_ref().map(|base| base.file().to_owned()));
        let replaced = std::mem::replace(&mut self.generation, Arc::new(Some(named)));
        self.retired.push_back((replaced, files));
        Ok(())
    }

    /// Whether replaced files are still there.
    #[must_use]
    pub fn has_replaced(&self) -> bool {
        !self.retired.is_empty()
    }

    /// Removes one replaced file that nobody reads any more. Says whether there may be another.
    pub fn sweep(&mut self) -> bool {
        let Some((generation, files)) = self.retired.front_mut() else {
            return false;
        };
        if Arc::strong_count(generation) > 1 {
            return false;
        }
        if let Some(file) = files.pop() {
            // One that stays is removed at the next start.
            if let Err(error) = self.disk.remove(&file) {
                tracing::warn!(file, %error, "can't remove a replaced file of the journal");
            }
        } else {
            self.retired.pop_front();
        }
        true
    }

    /// Makes room for a record of `len` bytes and returns where the next [`Journal::append`] of that many will put it. Begins
    /// a new segment if this one is full, for which the group so far is made durable.
    ///
    /// # Errors
    /// [`JournalError::Size`], which changes nothing; any other poisons the journal.
    pub fn reserve(&mut self, len: usize) -> Result<Position, JournalError> {
        if self.poisoned {
            return Err(JournalError::Poisoned);
        }
        if len == 0 || len > RECORD_BYTES {
            return Err(JournalError::Size { len, max: RECORD_BYTES });
        }
        let frame = (FRAME_HEADER + len) as u64;
        if self.next.offset + frame > self.sizes.segment && self.next.offset > HEADER as u64 {
            self.sync()?;
            self.poisoned = true;
            self.begin_segment()?;
            self.poisoned = false;
        }
        Ok(self.next)
    }

    /// Adds a record to the group; it is durable when [`Journal::sync`] has returned. Returns its place and checksum.
    ///
    /// # Errors
    /// As [`Journal::reserve`].
    pub fn append(&mut self, record: &[u8]) -> Result<Mark, JournalError> {
        self.reserve(record.len())?;
        let frame = (FRAME_HEADER + record.len()) as u64;
        let at = self.next;
        let begin = self.pending.len();
        frame::write(&mut self.pending, at.segment, at.offset, begin == 0, record);
        let mut crc = [0; 4];
        crc.copy_from_slice(&self.pending[begin + 4..begin + 8]);
        self.next.offset += frame;
        self.next.index += 1;
        Ok(Mark { at, crc: u32::from_le_bytes(crc) })
    }

    /// Writes the group and makes it durable. With nothing pending it does nothing.
    ///
    /// # Errors
    /// Whatever the system says. The journal is poisoned then: after a failed flush nothing is known about the disk, so
    /// trying again could report lost bytes as safe.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        if self.poisoned {
            return Err(JournalError::Poisoned);
        }
        if self.pending.is_empty() {
            return Ok(());
        }
        self.poisoned = true;
        self.allocate()?;
        let start = self.next.offset - self.pending.len() as u64;
        self.file.write_at(&self.pending, start).map_err(|e| self.io("write", e))?;
        self.file.sync().map_err(|e| self.io("flush", e))?;
        self.pending.clear();
        self.pending.shrink_to(1 << 20);
        self.poisoned = false;
        Ok(())
    }

    /// Bytes of its files, replaced ones included; those of an unfinished base are not.
    ///
    /// # Errors
    /// [`JournalError::Io`] if the disk can't be read.
    pub fn bytes(&self) -> Result<u64, JournalError> {
        let fail = |name: &str, e| JournalError::Io { file: self.disk.path(name), doing: "read", source: e };
        let mut bytes: u64 = 0;
        for name in self.disk.list().map_err(|e| fail("", e))? {
            if !base::is_unfinished(&name) {
                let file = self.disk.open(&name, false).map_err(|e| fail(&name, e))?;
                bytes = bytes.saturating_add(file.len().map_err(|e| fail(&name, e))?);
            }
        }
        Ok(bytes)
    }

    /// Bytes waiting for [`Journal::sync`].
    #[must_use]
    pub const fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    /// Where the next record goes. All before it is durable once [`Journal::sync`] has returned.
    #[must_use]
    pub const fn end(&self) -> Position {
        self.next
    }

    /// The files it lies in.
    #[must_use]
    pub fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.disk)
    }

    /// Zero-fills ahead, so that flushing a group later changes no file length.
    fn allocate(&mut self) -> Result<(), JournalError> {
        let target = self.next.offset;
        if target <= self.allocated {
            return Ok(());
        }
        let step = self.allocated.clamp(self.sizes.first.min(self.sizes.step), self.sizes.step);
        let end = (self.allocated + step).min(self.sizes.segment).max(target);
        let zeros = vec![0; usize::try_from((end - self.allocated).min(1 << 20)).unwrap_or(1 << 20)];
        while self.allocated < end {
            let n = (end - self.allocated).min(zeros.len() as u64);
            self.file
                .write_at(&zeros[..usize::try_from(n).unwrap_or(zeros.len())], self.allocated)
                .map_err(|e| self.io("extend", e))?;
            self.allocated += n;
        }
        self.file.sync().map_err(|e| self.io("flush", e))
    }

    fn begin_segment(&mut self) -> Result<(), JournalError> {
        let segment = self.next.segment + 1;
        self.file = create(&*self.disk, segment, self.next.index)?;
        self.allocated = HEADER as u64;
        self.next.segment = segment;
        self.next.offset = HEADER as u64;
        Ok(())
    }

    fn io(&self, doing: &'static str, source: io::Error) -> JournalError {
        io_error(&*self.disk, self.next.segment, doing, source)
    }
}

/// Where the oldest segment's first record lies.
fn start_of(generation: &Generation) -> Position {
    generation.as_ref().as_ref().map_or(Position::FIRST, Base::end)
}

/// Makes a segment with its header, durable under its name.
fn create(disk: &dyn Disk, segment: u64, index: u64) -> Result<Box<dyn DiskFile>, JournalError> {
    let fail = |doing, e| io_error(disk, segment, doing, e);
    let file = disk.create(&segment::name(segment)).map_err(|e| fail("create", e))?;
    file.write_at(&segment::header(segment, index), 0).map_err(|e| fail("write", e))?;
    file.sync().map_err(|e| fail("flush", e))?;
    disk.sync_names().map_err(|e| fail("create", e))?;
    Ok(file)
}

fn io_error(disk: &dyn Disk, segment: u64, doing: &'static str, source: io::Error) -> JournalError {
    JournalError::Io { file: disk.path(&segment::name(segment)), doing, source }
}

fn corrupt(disk: &dyn Disk, segment: u64, offset: u64, what: &'static str) -> JournalError {
    JournalError::Corrupt { file: disk.path(&segment::name(segment)), offset, what }
}
