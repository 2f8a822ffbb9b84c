//! Reading a journal's records in order, beside its writer.

use std::sync::Arc;

use super::{
    Disk, JournalError, Mark, Position, corrupt,
    frame::{FRAME_HEADER, Found, Window},
    io_error,
    open::{window, window_at},
    segment::HEADER,
};

/// One record as read.
#[derive(Debug)]
pub struct Item<'a> {
    /// Its place and checksum.
    pub mark: Mark,
    /// Its bytes.
    pub record: &'a [u8],
}

/// Reads records from one place up to another that is known to be durable.
#[derive(Debug)]
pub struct Reader {
    disk: Arc<dyn Disk>,
    at: Position,
    to: Position,
    window: Option<Window>,
}

impl Reader {
    /// Reads from `from` up to, not including, `to` (see [`super::Journal::end`]).
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, from: Position, to: Position) -> Self {
        Self { disk, at: from, to, window: None }
    }

    /// The next record; none at the end.
    ///
    /// # Errors
    /// [`JournalError`] if the file can't be read or a record is not as written.
    pub fn next_item(&mut self) -> Result<Option<Item<'_>>, JournalError> {
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

/// The record at one place.
///
/// # Errors
/// [`JournalError`] if it can't be read or is not as written.
pub fn read_one(disk: &dyn Disk, at: Position) -> Result<Vec<u8>, JournalError> {
    let fail = |e| io_error(disk, at.segment, "read", e);
    match window(disk, at.segment)?.frame(at.offset).map_err(fail)? {
        Found::Frame { record, .. } => Ok(record.to_vec()),
        Found::End | Found::Bad => Err(corrupt(disk, at.segment, at.offset, "a record is not as written")),
    }
}
