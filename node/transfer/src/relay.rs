//! Between two instances: what one says goes to the other as it is, and is counted on the way.

use std::{
    io::{BufReader, BufWriter, Read, Write},
    sync::atomic::Ordering::Relaxed,
};

use crate::{
    Error, PIECE, Progress, Summary,
    wire::{self, Message},
};

/// Passes on what one side says to the other until its last word; the sink's count if it was the sink.
///
/// # Errors
/// [`Error`]: the stream's, or what the side gave up for.
pub fn pass(from: impl Read, to: impl Write, progress: &Progress) -> Result<Option<Summary>, Error> {
    let mut from = BufReader::with_capacity(2 * PIECE, from);
    let mut to = BufWriter::with_capacity(2 * PIECE, to);
    loop {
        if from.buffer().is_empty() {
            to.flush().map_err(Error::Cut)?;
        }
        let message = wire::read(&mut from)?;
        wire::write(&mut to, &message)?;
        match message {
            Message::Data(bytes) => {
                progress.bytes.fetch_add(bytes.len() as u64, Relaxed);
                progress.moved.fetch_add(bytes.len() as u64, Relaxed);
            }
            Message::Hole(length) => drop(progress.bytes.fetch_add(length, Relaxed)),
            Message::Folder(..) | Message::File(..) | Message::Link(..) => drop(progress.entries.fetch_add(1, Relaxed)),
            Message::Total { entries, bytes } => {
                progress.total_entries.store(entries, Relaxed);
                progress.total_bytes.store(bytes, Relaxed);
            }
            Message::Problem(words) | Message::Gone(words) => progress.problem(words),
            Message::Finished => {
                to.flush().map_err(Error::Cut)?;
                return Ok(None);
            }
            Message::Done(summary) => {
                // The source needs it no more, and may be gone.
                to.flush().ok();
                return Ok(Some(summary));
            }
            Message::Failed { full, why } => {
                to.flush().ok();
                let words = why.strip_prefix("the disk is full").unwrap_or_default().to_owned();
                return Err(if full { Error::Full(words) } else { Error::Other(why) });
            }
            Message::Open(_)
            | Message::Leave
            | Message::Same(_)
            | Message::End { .. }
            | Message::Equal
            | Message::Want
            | Message::Have(..)
            | Message::Skip => {}
        }
    }
}
