//! Reading a journal's records in order, beside its writer.

use std::sync::Arc;

use super::{
    Disk, Generation, JournalError, Mark, Position, corrupt,
    frame::{FRAME_HEADER, Found, Window},
    io_error,
    open::{window, window_at},
    segment::HEADER,
    start_of,
};

/// One record as read.
#[derive(Debug)]
pub struct Item<'a> {
    /// Its place and checksum.
    pub mark: Mark,
    /// Its bytes.
    pub record: &'a [u8],
}

/// Reads records from one place up to another that is known to be durable. What it reads stays on disk while it is there.
#[derive(Debug)]
pub struct Reader {
    disk: Arc<dyn Disk>,
    generation: Generation,
    at: Position,
    to: Position,
    window: Option<Window>,
}

impl Reader {
    /// Reads from `from` up to, not including, `to` (see [`super::Journal::end`]).
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, generation: Generation, from: Position, to: Position) -> Self {
        Self { disk, generation, at: from, to, window: None }
    }

    /// Reads everything from the first record that is kept.
    #[must_use]
    pub fn from_first(disk: Arc<dyn Disk>, generation: Generation, to: Position) -> Self {
        Self::new(disk, generation, Position::FIRST, to)
    }

    /// The number of the first record that no base stands for.
    #[must_use]
    pub fn base_end(&self) -> u64 {
        start_of(&self.generation).index
    }

    /// The next record; none at the end.
    ///
    /// # Errors
    /// [`JournalError`] if the file can't be read or a record is not as written.
    pub fn next_item(&mut self) -> Result<Option<Item<'_>>, JournalError> {
        let start = start_of(&self.generation);
        if self.at.segment < start.segment {
            // Records of a base are read from its file; their number is the one they had, their offset where they lie now.
            let window = match self.window.take() {
                Some(window) => Some(window),
                None => self.generation.as_ref().as_ref().map(|base| base.window(&*self.disk)).transpose()?,
            };
            let here = match (self.generation.as_ref(), window) {
                (Some(base), Some(window)) => {
                    let window = self.window.insert(window);
                    let kept = base.record(&*self.disk, window, self.at.offset)?;
                    kept.map(|kept| (kept.index, kept.crc, kept.next))
                }
                _ => None,
            };
            let Some((index, crc, next)) = here else {
                (self.window, self.at) = (None, start);
                return self.next_item();
            };
            let mark = Mark { at: Position { index, ..self.at }, crc };
            let offset = std::mem::replace(&mut self.at.offset, next);
            let (Some(base), Some(window)) = (self.generation.as_ref(), self.window.as_mut()) else {
                return Ok(None);
            };
            let kept = base.record(&*self.disk, window, offset)?;
            return Ok(kept.map(|kept| Item { mark, record: kept.record }));
        }
        if self.at.index >= self.to.index {
            return Ok(None);
        }
        let disk = Arc::clone(&self.disk);
        let (segment, offset) = (self.at.segment, self.at.offset);
        let fail = |e| io_error(&*disk, segment, "read", e);
        let mut opened = match self.window.take() {
            Some(window) => window,
            None if offset == HEADER as u64 => window_at(&*disk, segment, self.at.index)?,
            None => window(&*disk, segment)?,
        };
        let next = match opened.frame(offset).map_err(fail)? {
            Found::Frame { next, crc, .. } => Some((next, crc)),
            Found::End if segment < self.to.segment => None,
            Found::End | Found::Bad => {
                return Err(corrupt(&*disk, segment, offset, "a record is not as written"));
            }
        };
        let Some((next, crc)) = next else {
            self.at.segment += 1;
            self.at.offset = HEADER as u64;
            return self.next_item();
        };
        let mark = Mark { at: self.at, crc };
        self.at.offset = next;
        self.at.index += 1;
        let body = offset + FRAME_HEADER as u64;
        let len = usize::try_from(next - body).unwrap_or(0);
        let record = self.window.insert(opened).peek(body, len).map_err(fail)?;
        Ok(Some(Item { mark, record }))
    }
}

/// The record that was written at a place; none if it was dropped with its segment.
///
/// # Errors
/// [`JournalError`] if it can't be read or is not as written.
pub fn find(disk: &dyn Disk, generation: &Generation, at: Position) -> Result<Option<Vec<u8>>, JournalError> {
    if let Some(base) = generation.as_ref()
        && at.segment <= base.segment()
    {
        return base.find(disk, at.index);
    }
    let fail = |e| io_error(disk, at.segment, "read", e);
    match window(disk, at.segment)?.frame(at.offset).map_err(fail)? {
        Found::Frame { record, .. } => Ok(Some(record.to_vec())),
        Found::End | Found::Bad => Err(corrupt(disk, at.segment, at.offset, "a record is not as written")),
    }
}
