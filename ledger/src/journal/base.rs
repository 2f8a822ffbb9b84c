//! The base: one file that stands for the journal's oldest segments.
//!
//! It holds the records of theirs that are kept, each under its old number, and the rows that all of them made. A base is
//! written beside the journal, flushed, and takes its place by a change of name; only then do the segments go. It does not know
//! what records and rows mean. Layout: `magic | frames of records | frames of rows | index | footer`; frames are a segment's,
//! the index has every [`STRIDE`]th record's number and offset, and the footer says where each part begins.

use std::sync::Arc;

use super::{
    Disk, DiskFile, JournalError, Mark, Position,
    frame::{self, FRAME_HEADER, Found, Window},
    segment::HEADER,
};

const MAGIC: [u8; 8] = *b"soukbase";
const VERSION: u64 = 1;
const SUFFIX: &str = ".base";
const UNFINISHED: &str = ".base.new";
/// Words of the footer; the last is their checksum.
const FOOTER_WORDS: usize = 12;
const FOOTER: usize = FOOTER_WORDS * 8;
/// Records between two that the index names.
const STRIDE: u64 = 64;
/// The longest row with its key.
const ROW_BYTES: usize = 1 << 20;
/// Bytes written at once.
const CHUNK: usize = 1 << 20;
/// Set in the segment's number that frames are checked by, so that none of a segment's passes for one of a base.
const BASE_BIT: u64 = 1 << 63;

/// The file of a finished base that stands for all segments up to `segment`.
pub(super) fn name(segment: u64) -> String {
    format!("{segment:012}{SUFFIX}")
}

pub(super) fn unfinished_name(segment: u64) -> String {
    format!("{segment:012}{UNFINISHED}")
}

/// The segment up to which a base of this name stands.
pub(super) fn number(file: &str) -> Option<u64> {
    let digits = file.strip_suffix(SUFFIX)?;
    (digits.len() == 12 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
}

/// Whether a file is a base that was never finished.
pub(super) fn is_unfinished(file: &str) -> bool {
    file.ends_with(UNFINISHED)
}

/// A base, open for reading.
#[derive(Debug)]
pub struct Base {
    file: String,
    segment: u64,
    last: Mark,
    rows_at: u64,
    index_at: u64,
    records: u64,
}

impl Base {
    /// Opens a base by its file's name.
    ///
    /// # Errors
    /// [`JournalError::Corrupt`] if it is not a whole one.
    pub(super) fn open(disk: &dyn Disk, file: String, segment: u64) -> Result<Self, JournalError> {
        let fail = |e| io(disk, &file, "read", e);
        let handle = disk.open(&file, false).map_err(fail)?;
        let len = handle.len().map_err(fail)?;
        let corrupt = |what| JournalError::Corrupt { file: disk.path(&file), offset: len, what };
        let mut bytes = [0; FOOTER];
        let at = len.checked_sub(FOOTER as u64).ok_or_else(|| corrupt("it is cut off"))?;
        if handle.read_at(&mut bytes, at).map_err(fail)? < FOOTER {
            return Err(corrupt("it is cut off"));
        }
        let footer = read_footer(&bytes).ok_or_else(|| corrupt("its end is not as written"))?;
        let [_, _, number, last_segment, offset, index, crc, rows_at, index_at, records, _, _] = footer;
        let ordered = HEADER as u64 <= rows_at && rows_at <= index_at && index_at <= at;
        let (Ok(crc), true) = (u32::try_from(crc), number == segment && ordered) else {
            return Err(corrupt("its end is of another file"));
        };
        let last = Mark { at: Position { segment: last_segment, offset, index }, crc };
        Ok(Self { file, segment, last, rows_at, index_at, records })
    }

    /// The newest segment it stands for.
    #[must_use]
    pub const fn segment(&self) -> u64 {
        self.segment
    }

    /// The last record it stands for: what its rows were made up to.
    #[must_use]
    pub const fn last(&self) -> Mark {
        self.last
    }

    /// Where the journal goes on.
    #[must_use]
    pub const fn end(&self) -> Position {
        Position { segment: self.segment + 1, offset: HEADER as u64, index: self.last.at.index + 1 }
    }

    /// Bytes of its file.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.index_at
    }

    /// Records it keeps.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.records
    }

    /// Removes its file, which nobody reads.
    pub(crate) fn discard(&self, disk: &dyn Disk) -> Result<(), JournalError> {
        disk.remove(&self.file).map_err(|e| io(disk, &self.file, "remove", e))
    }

    pub(super) fn file(&self) -> &str {
        &self.file
    }

    pub(super) fn window(&self, disk: &dyn Disk) -> Result<Window, JournalError> {
        let fail = |e| io(disk, &self.file, "open", e);
        let file = disk.open(&self.file, false).map_err(fail)?;
        Ok(Window::new(file, self.segment | BASE_BIT).map_err(fail)?.of_records(ROW_BYTES))
    }

    /// The record at an offset, with its number, its frame's checksum, and where the next one is; none behind the last.
    pub(super) fn record<'a>(
        &self,
        disk: &dyn Disk,
        window: &'a mut Window,
        offset: u64,
    ) -> Result<Option<Kept<'a>>, JournalError> {
        if offset >= self.rows_at {
            return Ok(None);
        }
        let (content, crc, next) = self.frame(disk, window, offset)?;
        let (index, record) = content.split_first_chunk().ok_or_else(|| self.corrupt(disk, offset))?;
        Ok(Some(Kept { index: u64::from_le_bytes(*index), record, crc, next }))
    }

    /// The record with a number, if it is kept.
    ///
    /// # Errors
    /// [`JournalError`] if the file can't be read or is not as written.
    pub fn find(&self, disk: &dyn Disk, wanted: u64) -> Result<Option<Vec<u8>>, JournalError> {
        let mut window = self.window(disk)?;
        let (mut low, mut high) = (0, self.records.div_ceil(STRIDE));
        let mut offset = HEADER as u64;
        while low < high {
            let middle = low.midpoint(high);
            let at = self.index_at + middle * 16;
            let bytes = window.peek(at, 16).map_err(|e| io(disk, &self.file, "read", e))?;
            let (Some(index), Some(there)) = (bytes.first_chunk(), bytes.last_chunk()) else {
                return Err(self.corrupt(disk, at));
            };
            if u64::from_le_bytes(*index) <= wanted {
                offset = u64::from_le_bytes(*there);
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        for _ in 0..STRIDE {
            match self.record(disk, &mut window, offset)? {
                Some(kept) if kept.index < wanted => offset = kept.next,
                Some(kept) if kept.index == wanted => return Ok(Some(kept.record.to_vec())),
                Some(_) | None => break,
            }
        }
        Ok(None)
    }

    /// Visits all rows in the order of their keys.
    ///
    /// # Errors
    /// [`JournalError`] if the file can't be read or is not as written; whatever `visit` returns.
    pub fn rows<E: From<JournalError>>(
        &self,
        disk: &dyn Disk,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut window = self.window(disk)?;
        let mut offset = self.rows_at;
        while offset < self.index_at {
            let (content, _, next) = self.frame(disk, &mut window, offset)?;
            let (len, rest) = content.split_first_chunk().ok_or_else(|| self.corrupt(disk, offset))?;
            let (key, value) =
                rest.split_at_checked(u16::from_le_bytes(*len).into()).ok_or_else(|| self.corrupt(disk, offset))?;
            visit(key, value)?;
            offset = next;
        }
        Ok(())
    }

    fn frame<'a>(
        &self,
        disk: &dyn Disk,
        window: &'a mut Window,
        offset: u64,
    ) -> Result<(&'a [u8], u32, u64), JournalError> {
        match window.frame(offset).map_err(|e| io(disk, &self.file, "read", e))? {
            Found::Frame { record, crc, next } if next <= self.index_at => Ok((record, crc, next)),
            Found::Frame { .. } | Found::End | Found::Bad => Err(self.corrupt(disk, offset)),
        }
    }

    fn corrupt(&self, disk: &dyn Disk, offset: u64) -> JournalError {
        JournalError::Corrupt { file: disk.path(&self.file), offset, what: "a record is not as written" }
    }
}

/// A kept record.
pub(super) struct Kept<'a> {
    pub(super) index: u64,
    pub(super) record: &'a [u8],
    pub(super) crc: u32,
    pub(super) next: u64,
}

fn io(disk: &dyn Disk, file: &str, doing: &'static str, source: std::io::Error) -> JournalError {
    JournalError::Io { file: disk.path(file), doing, source }
}

fn read_footer(bytes: &[u8; FOOTER]) -> Option<[u64; FOOTER_WORDS]> {
    let mut words = [0; FOOTER_WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    let whole = words[FOOTER_WORDS - 1] == u64::from(crc32c::crc32c(&bytes[..FOOTER - 8]));
    (whole && words[0] == u64::from_le_bytes(MAGIC) && words[1] == VERSION).then_some(words)
}

/// Writes a base under the name of an unfinished one. First all records, then all rows, then [`BaseWriter::finish`].
#[derive(Debug)]
pub struct BaseWriter {
    disk: Arc<dyn Disk>,
    name: String,
    segment: u64,
    file: Box<dyn DiskFile>,
    pending: Vec<u8>,
    /// Bytes written before what is pending.
    written: u64,
    index: Vec<(u64, u64)>,
    records: u64,
    rows_at: Option<u64>,
    rows: u64,
}

impl BaseWriter {
    /// Begins the base that is to stand for all segments up to `segment`.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn create(disk: Arc<dyn Disk>, segment: u64) -> Result<Self, JournalError> {
        let name = unfinished_name(segment);
        let fail = |e| io(&*disk, &name, "create", e);
        if disk.list().map_err(fail)?.contains(&name) {
            disk.remove(&name).map_err(fail)?;
        }
        let file = disk.create(&name).map_err(fail)?;
        let mut pending = MAGIC.to_vec();
        pending.resize(HEADER, 0);
        Ok(Self {
            name,
            segment,
            file,
            pending,
            written: 0,
            index: Vec::new(),
            records: 0,
            rows_at: None,
            rows: 0,
            disk,
        })
    }

    /// Keeps a record under its number; they come in order.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn keep(&mut self, index: u64, record: &[u8]) -> Result<(), JournalError> {
        if self.records.is_multiple_of(STRIDE) {
            self.index.push((index, self.at()));
        }
        self.records += 1;
        self.frame(&[&index.to_le_bytes(), record].concat())
    }

    /// Adds a row; they come in the order of their keys.
    ///
    /// # Errors
    /// [`JournalError`]; among others if it is longer than 1 MB.
    pub fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), JournalError> {
        let at = self.at();
        self.rows_at.get_or_insert(at);
        self.rows += 1;
        let size = || JournalError::Size { len: key.len() + value.len(), max: ROW_BYTES };
        let len = u16::try_from(key.len()).map_err(|_| size())?;
        if 2 + key.len() + value.len() > ROW_BYTES {
            return Err(size());
        }
        self.frame(&[&len.to_le_bytes(), key, value].concat())
    }

    /// Ends the file after the record `last` and makes it durable. It has no effect until [`super::Journal::install`].
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn finish(mut self, last: Mark) -> Result<Base, JournalError> {
        let index_at = self.at();
        let rows_at = self.rows_at.unwrap_or(index_at);
        for (index, offset) in std::mem::take(&mut self.index) {
            self.pending.extend_from_slice(&index.to_le_bytes());
            self.pending.extend_from_slice(&offset.to_le_bytes());
        }
        let begin = self.pending.len();
        let words = [
            u64::from_le_bytes(MAGIC),
            VERSION,
            self.segment,
            last.at.segment,
            last.at.offset,
            last.at.index,
            last.crc.into(),
            rows_at,
            index_at,
            self.records,
            self.rows,
        ];
        for word in words {
            self.pending.extend_from_slice(&word.to_le_bytes());
        }
        let crc = u64::from(crc32c::crc32c(&self.pending[begin..]));
        self.pending.extend_from_slice(&crc.to_le_bytes());
        self.write_out()?;
        self.file.sync().map_err(|e| io(&*self.disk, &self.name, "flush", e))?;
        Base::open(&*self.disk, self.name, self.segment)
    }

    fn at(&self) -> u64 {
        self.written + self.pending.len() as u64
    }

    fn frame(&mut self, content: &[u8]) -> Result<(), JournalError> {
        debug_assert!(content.len() + FRAME_HEADER < ROW_BYTES + CHUNK);
        let at = self.at();
        frame::write(&mut self.pending, self.segment | BASE_BIT, at, false, content);
        if self.pending.len() >= CHUNK { self.write_out() } else { Ok(()) }
    }

    fn write_out(&mut self) -> Result<(), JournalError> {
        self.file.write_at(&self.pending, self.written).map_err(|e| io(&*self.disk, &self.name, "write", e))?;
        self.written += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}

impl Base {
    /// The same file under its final name.
    pub(super) fn renamed(&self) -> Self {
        Self {
            file: name(self.segment),
            segment: self.segment,
            last: self.last,
            rows_at: self.rows_at,
            index_at: self.index_at,
            records: self.records,
        }
    }
}
