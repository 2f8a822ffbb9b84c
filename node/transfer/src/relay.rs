//! Between two sides that are both elsewhere: what one says goes to the other as it is, and is watched on the way.
//!
//! Owns the reading along, in memory that doesn't depend on what is said. It changes nothing: each side checks the other itself.

use std::{
    io::{Read, Write},
    sync::atomic::Ordering::Relaxed,
};

use crate::{
    Error, PIECE, Progress, Summary,
    source::gave_up,
    wire::{self, DATA, HAVE, HEADER, Message, Progressed},
};

/// The last word of a side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    /// The source has sent everything.
    Finished,
    /// The sink has everything.
    Done(Summary),
}

/// Reads along, whatever pieces the bytes come in.
#[derive(Debug, Default)]
pub struct Tap {
    header: [u8; HEADER],
    read: usize,
    left: usize,
    /// The message at hand; content of files and digests are not kept.
    body: Vec<u8>,
    /// Of what is said only problems count: how far the copy is, the source says.
    answers: bool,
}

impl Tap {
    /// Reads along with a sink.
    #[must_use]
    pub fn of_sink() -> Self {
        Self { answers: true, ..Self::default() }
    }

    /// Takes the next bytes of one side and counts what they say; its last word, if that is among them.
    ///
    /// # Errors
    /// [`Error`]: no message, or that the side gave up and why.
    pub fn take(&mut self, mut bytes: &[u8], progress: &Progress) -> Result<Option<Last>, Error> {
        let mut last = None;
        while !bytes.is_empty() {
            if self.read < HEADER {
                let (head, rest) = bytes.split_at(bytes.len().min(HEADER - self.read));
                self.header[self.read..self.read + head.len()].copy_from_slice(head);
                self.read += head.len();
                bytes = rest;
                if self.read < HEADER {
                    break;
                }
                self.left = wire::body_length(self.header)?;
                if self.header[0] == DATA && !self.answers {
                    progress.bytes.fetch_add(self.left as u64, Relaxed);
                    progress.moved.fetch_add(self.left as u64, Relaxed);
                }
            }
            let (body, rest) = bytes.split_at(bytes.len().min(self.left));
            bytes = rest;
            self.left -= body.len();
            let kept = !matches!(self.header[0], DATA | HAVE);
            if kept {
                self.body.extend_from_slice(body);
            }
            if self.left > 0 {
                break;
            }
            self.read = 0;
            if kept {
                let body = std::mem::take(&mut self.body);
                let message = Message::from_parts(self.header[0], body);
                let message = message.ok_or(Error::Violation("a message makes no sense"))?;
                last = self.count(message, progress)?.or(last);
            }
        }
        Ok(last)
    }

    /// What a message means for those who watch.
    fn count(&self, message: Message, progress: &Progress) -> Result<Option<Last>, Error> {
        match message {
            Message::Problem(words) | Message::Gone(words) => progress.problem(words),
            Message::Hole(_)
            | Message::Folder(..)
            | Message::File(..)
            | Message::Link(..)
            | Message::Total { .. }
            | Message::Progress(_)
                if self.answers => {}
            Message::Hole(length) => drop(progress.bytes.fetch_add(length, Relaxed)),
            Message::Folder(..) | Message::File(..) | Message::Link(..) => drop(progress.entries.fetch_add(1, Relaxed)),
            Message::Total { entries, bytes } => {
                progress.total_entries.store(entries, Relaxed);
                progress.total_bytes.store(bytes, Relaxed);
            }
            Message::Progress(now) => progress.set(now),
            Message::Finished => return Ok(Some(Last::Finished)),
            Message::Done(summary) => return Ok(Some(Last::Done(summary))),
            Message::Failed { full, why } => {
                return Err(gave_up(full, why));
            }
            Message::Open(_)
            | Message::Leave
            | Message::Data(_)
            | Message::Same(_)
            | Message::End { .. }
            | Message::Equal
            | Message::Want
            | Message::Have(..)
            | Message::Skip => {}
        }
        Ok(None)
    }
}

/// Passes on what one side says to the other until its last word; the sink's count if it was the sink.
///
/// # Errors
/// [`Error`]: the stream's, or what the side gave up for.
pub fn pass(
    mut from: impl Read,
    mut to: impl Write,
    mut tap: Tap,
    progress: &Progress,
) -> Result<Option<Summary>, Error> {
    let mut piece = vec![0; 2 * PIECE];
    loop {
        let bytes = read(&mut from, &mut piece)?;
        // A side that gives up is heard by the other, too.
        let last = tap.take(bytes, progress);
        let written = to.write_all(bytes);
        match last? {
            // The source needs it no more, and may be gone.
            Some(Last::Done(summary)) => return Ok(Some(summary)),
            Some(Last::Finished) => return written.map(|()| None).map_err(Error::Cut),
            None => written.map_err(Error::Cut)?,
        }
    }
}

/// Listens to whoever passes a copy on elsewhere, until its end.
///
/// # Errors
/// [`Error`]: the stream's, or what the copy ended for.
pub fn follow(mut from: impl Read, progress: &Progress) -> Result<Summary, Error> {
    let mut tap = Tap::default();
    let mut piece = vec![0; PIECE];
    loop {
        if let Some(Last::Done(summary)) = tap.take(read(&mut from, &mut piece)?, progress)? {
            return Ok(summary);
        }
    }
}

fn read<'a>(from: &mut impl Read, piece: &'a mut [u8]) -> Result<&'a [u8], Error> {
    loop {
        match from.read(piece) {
            Ok(0) => return Err(Error::Cut(std::io::ErrorKind::UnexpectedEof.into())),
            Ok(length) => return Ok(&piece[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::Cut(error)),
        }
    }
}

/// What [`follow`] is to hear now.
#[must_use]
pub fn told(progress: &Progress) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        progress.take_problems().into_iter().flat_map(|words| Message::Problem(words).to_bytes()).collect();
    let now = Progressed {
        entries: progress.entries.load(Relaxed),
        bytes: progress.bytes.load(Relaxed),
        moved: progress.moved.load(Relaxed),
        total_entries: progress.total_entries.load(Relaxed),
        total_bytes: progress.total_bytes.load(Relaxed),
    };
    bytes.extend(Message::Progress(now).to_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::wire::Meta;

    fn said() -> Vec<u8> {
        [
            Message::Total { entries: 2, bytes: 300 },
            Message::Folder(Meta::default(), Vec::new()),
            Message::File(Meta::default(), 300, b"f".to_vec()),
            Message::Data(vec![7; 200]),
            Message::Hole(100),
            Message::Have(1, 1 << 20, vec![[3; 32]; 40]),
            Message::Problem("no".to_owned()),
            Message::Finished,
        ]
        .iter()
        .flat_map(Message::to_bytes)
        .collect()
    }

    #[test]
    fn the_same_is_heard_whatever_the_pieces() {
        for size in [1, 2, 5, 7, 64, 4096] {
            let (mut tap, progress, mut last) = (Tap::default(), Progress::default(), None);
            for piece in said().chunks(size) {
                last = tap.take(piece, &progress).unwrap().or(last);
            }
            assert_eq!(last, Some(Last::Finished), "{size}");
            let summary = progress.summary();
            assert_eq!((summary.entries, summary.bytes, summary.moved, summary.problems), (2, 300, 200, 1), "{size}");
            let heard = Progress::default();
            assert_eq!(Tap::default().take(&told(&progress), &heard).unwrap(), None);
            assert_eq!(heard.summary(), Summary { problems: 1, ..summary });
        }
    }

    #[test]
    fn nonsense_ends_it_and_nothing_of_it_is_kept() {
        let progress = Progress::default();
        for lie in [&[6, 0xff, 0, 0, 0][..], &[1, 0, 0, 0, 1, 0], &[99, 0, 0, 0, 0, 0]] {
            assert!(matches!(Tap::default().take(lie, &progress), Err(Error::Violation(_))), "{lie:?}");
        }
        let mut tap = Tap::default();
        tap.take(&Message::Data(vec![0; PIECE]).to_bytes(), &progress).unwrap();
        assert_eq!(tap.body.capacity(), 0);
        let full = Message::Failed { full: true, why: "the disk is full (x)".to_owned() }.to_bytes();
        assert!(matches!(tap.take(&full, &progress), Err(Error::Full(_))));
    }
}
