//! How a record lies in a segment, and how frames are found again.
//!
//! A frame is `word: u32 LE | crc32c: u32 LE | record`. The word's low 31 bits are the record's length; its highest bit is set
//! in the first frame of each group, the frames made durable by one flush. The checksum covers the frame's place as well, so a
//! frame copied or left over elsewhere is not one. A zero word ends the segment.
//!
//! Groups are what tells a torn write from damage: a group is written only after the one before it is flushed, so if anything
//! that begins a group lies behind a bad frame, the bad frame had been durable.

use std::io;

use super::disk::DiskFile;

/// The longest record: a workload with its seal and frame fits.
pub const RECORD_BYTES: usize = 96 * 1024;
/// Bytes before each record.
pub(super) const FRAME_HEADER: usize = 8;
const FIRST_OF_GROUP: u32 = 1 << 31;
const WINDOW: usize = 256 * 1024;

fn checksum(segment: u64, offset: u64, word: u32, record: &[u8]) -> u32 {
    let mut place = [0; 20];
    place[..8].copy_from_slice(&segment.to_le_bytes());
    place[8..16].copy_from_slice(&offset.to_le_bytes());
    place[16..].copy_from_slice(&word.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&place), record)
}

/// Appends the frame of `record`, which will lie at `offset` of `segment`, to `out`. The caller has checked its length.
pub(super) fn write(out: &mut Vec<u8>, segment: u64, offset: u64, first: bool, record: &[u8]) {
    let word = record.len() as u32 | if first { FIRST_OF_GROUP } else { 0 };
    out.extend_from_slice(&word.to_le_bytes());
    out.extend_from_slice(&checksum(segment, offset, word, record).to_le_bytes());
    out.extend_from_slice(record);
}

/// What lies at an offset.
pub(super) enum Found<'a> {
    /// A whole frame with its record, its checksum and where the next one begins.
    Frame { record: &'a [u8], crc: u32, next: u64 },
    /// Zeros, or the end of the file: no more frames were written here.
    End,
    /// Neither.
    Bad,
}

/// Reads a segment's file through a window, so that no segment is ever held in memory.
#[derive(Debug)]
pub(super) struct Window {
    file: Box<dyn DiskFile>,
    segment: u64,
    longest: usize,
    len: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    pub(super) fn new(file: Box<dyn DiskFile>, segment: u64) -> io::Result<Self> {
        let len = file.len()?;
        Ok(Self { file, segment, longest: RECORD_BYTES, len, start: 0, bytes: Vec::new() })
    }

    /// The same, with records of up to `longest` bytes.
    pub(super) const fn of_records(mut self, longest: usize) -> Self {
        self.longest = longest;
        self
    }

    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// The `n` bytes at `offset`; fewer at the end of the file.
    pub(super) fn peek(&mut self, offset: u64, n: usize) -> io::Result<&[u8]> {
        let end = offset.saturating_add(n as u64).min(self.len);
        let have = self.start + self.bytes.len() as u64;
        if offset < self.start || end > have {
            let want = WINDOW.max(n).min(usize::try_from(self.len.saturating_sub(offset)).unwrap_or(WINDOW));
            self.bytes.resize(want, 0);
            let read = self.file.read_at(&mut self.bytes, offset)?;
            self.bytes.truncate(read);
            self.start = offset;
        }
        let from = usize::try_from(offset - self.start).unwrap_or(usize::MAX).min(self.bytes.len());
        let to = from.saturating_add(n).min(self.bytes.len());
        Ok(&self.bytes[from..to])
    }

    fn header(&mut self, offset: u64) -> io::Result<Option<(u32, u32)>> {
        let bytes = self.peek(offset, FRAME_HEADER)?;
        let (Some(word), Some(crc)) = (bytes.first_chunk(), bytes.last_chunk()) else {
            return Ok(None);
        };
        if bytes.len() < FRAME_HEADER {
            return Ok(None);
        }
        Ok(Some((u32::from_le_bytes(*word), u32::from_le_bytes(*crc))))
    }

    /// What lies at `offset`.
    pub(super) fn frame(&mut self, offset: u64) -> io::Result<Found<'_>> {
        let Some((word, crc)) = self.header(offset)? else {
            return Ok(Found::End);
        };
        if word == 0 && crc == 0 {
            return Ok(Found::End);
        }
        let len = (word & !FIRST_OF_GROUP) as usize;
        let segment = self.segment;
        if len == 0 || len > self.longest {
            return Ok(Found::Bad);
        }
        let record = self.peek(offset + FRAME_HEADER as u64, len)?;
        if record.len() < len || checksum(segment, offset, word, record) != crc {
            return Ok(Found::Bad);
        }
        Ok(Found::Frame { record, crc, next: offset + (FRAME_HEADER + len) as u64 })
    }

    /// Whether a whole frame that begins a group lies anywhere at or behind `offset`.
    pub(super) fn group_behind(&mut self, offset: u64) -> io::Result<bool> {
        let mut at = offset;
        while at + (FRAME_HEADER as u64) < self.len {
            // The word's highest bit is in its fourth byte: most bytes, zeros above all, are passed over quickly.
            let chunk = self.peek(at, WINDOW / 2)?;
            let Some(skip) = chunk.get(3..).and_then(|c| c.iter().position(|b| b & 0x80 != 0)) else {
                at += (chunk.len().saturating_sub(3).max(1)) as u64;
                continue;
            };
            at += skip as u64;
            if matches!(self.header(at)?, Some((word, _)) if word & FIRST_OF_GROUP != 0)
                && matches!(self.frame(at)?, Found::Frame { .. })
            {
                return Ok(true);
            }
            at += 1;
        }
        Ok(false)
    }

    /// The end of the last byte that is not zero, at or behind `offset`.
    pub(super) fn written_end(&mut self, offset: u64) -> io::Result<u64> {
        let (mut at, mut end) = (offset, offset);
        while at < self.len {
            let chunk = self.peek(at, WINDOW / 2)?;
            if chunk.is_empty() {
                break;
            }
            let len = chunk.len() as u64;
            if let Some(last) = chunk.iter().rposition(|b| *b != 0) {
                end = at + last as u64 + 1;
            }
            at += len;
        }
        Ok(end)
    }
}
