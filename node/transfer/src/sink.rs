//! The side that writes: puts what the source says below its target, and nothing anywhere else.

mod file;
mod limits;
mod place;

use std::{
    collections::VecDeque,
    io::{BufReader, BufWriter, Read, Write},
    rc::Rc,
    sync::atomic::Ordering::Relaxed,
};

pub use limits::Limits;
pub use place::Target;

use self::{
    file::{Pending, Receiving},
    limits::Taken,
    place::Folder,
};
use crate::{
    DEPTH, Error, PIECE, Progress, WINDOW, shown,
    wire::{self, Message},
};

/// Puts what the source sends at the target.
///
/// # Errors
/// [`Error`]; what has arrived stays, and a second run goes on from there.
pub fn run(from: impl Read, to: impl Write, target: Target, progress: &Progress) -> Result<(), Error> {
    let to = BufWriter::with_capacity(PIECE, to);
    let mut sink = Sink {
        to,
        taken: Taken::new(target.limits),
        target: Some(target),
        stack: Vec::new(),
        pending: VecDeque::new(),
        at_hand: None,
        progress,
    };
    let mut from = BufReader::with_capacity(2 * PIECE, from);
    let done = sink.take_all(&mut from);
    if let Err(error) = &done {
        wire::fail(&mut sink.to, error);
    }
    done
}

struct Sink<'a, W: Write> {
    to: BufWriter<W>,
    taken: Taken,
    /// Until the root has come.
    target: Option<Target>,
    /// None for a folder that could not be made: what is in it is skipped.
    stack: Vec<Option<Rc<Folder>>>,
    pending: VecDeque<Pending>,
    at_hand: Option<Receiving>,
    progress: &'a Progress,
}

impl<W: Write> Sink<'_, W> {
    fn take_all(&mut self, from: &mut BufReader<impl Read>) -> Result<(), Error> {
        loop {
            if from.buffer().is_empty() {
                self.to.flush().map_err(Error::Cut)?;
            }
            if self.take(wire::read(from)?)? {
                return self.to.flush().map_err(Error::Cut);
            }
        }
    }

    /// Takes one message; true after the last.
    fn take(&mut self, message: Message) -> Result<bool, Error> {
        self.measure(&message)?;
        match message {
            Message::Total { entries, bytes } => {
                self.progress.total_entries.store(entries, Relaxed);
                self.progress.total_bytes.store(bytes, Relaxed);
            }
            Message::Folder(meta, name) => self.folder(meta, &name)?,
            Message::Leave => {
                let left = self.stack.pop().ok_or(Error::Violation("it leaves a folder that it was not in"))?;
                if let Some(folder) = left {
                    folder.leave();
                }
            }
            Message::File(meta, size, name) => self.file(meta, size, name)?,
            Message::Link(meta, name, target) => {
                if let Some(folder) = self.inside(&name)? {
                    match folder.link(meta, &name, &target) {
                        Ok(()) => drop(self.progress.entries.fetch_add(1, Relaxed)),
                        Err(error) => self.failed(&name, error)?,
                    }
                }
            }
            Message::Data(_)
            | Message::Hole(_)
            | Message::Same(_)
            | Message::End { .. }
            | Message::Equal
            | Message::Gone(_) => self.content(message)?,
            Message::Problem(words) => self.progress.problem(words),
            Message::Finished => {
                if !self.stack.is_empty() || !self.pending.is_empty() || self.at_hand.is_some() {
                    return Err(Error::Violation("it ends in the middle"));
                }
                wire::write(&mut self.to, &Message::Done(self.progress.summary()))?;
                return Ok(true);
            }
            Message::Failed { why, .. } => return Err(Error::Other(why)),
            Message::Open(_)
            | Message::Want
            | Message::Have(..)
            | Message::Skip
            | Message::Done(_)
            | Message::Progress(_) => {
                return Err(Error::Violation("a source says what only a sink may"));
            }
        }
        Ok(false)
    }

    /// Whether there is room for a message's content.
    fn measure(&mut self, message: &Message) -> Result<(), Error> {
        if let Message::Data(bytes) = message {
            self.taken.bytes(bytes.len())?;
        } else if matches!(message, Message::Folder(..) | Message::File(..) | Message::Link(..)) {
            self.taken.entry()?;
        }
        let folder = self.at_hand.as_ref().map(Receiving::folder);
        let folder = folder.or_else(|| self.stack.iter().rev().find_map(Option::as_ref));
        folder.map_or(Ok(()), |folder| self.taken.look(&folder.fd))
    }

    /// The folder at hand, for an entry with a name; none if it is skipped.
    fn inside(&self, name: &[u8]) -> Result<Option<Rc<Folder>>, Error> {
        if name.is_empty() {
            return Err(Error::Violation("something without a name is in a folder"));
        }
        self.stack.last().cloned().ok_or(Error::Violation("something is outside the root"))
    }

    /// Something here could not be done: the other side hears of it, and the copy goes on, unless the disk is full.
    fn failed(&mut self, name: &[u8], error: std::io::Error) -> Result<(), Error> {
        if is_full(&error) {
            return Err(Error::Full(format!(" (writing {})", shown(name))));
        }
        let words = format!("{}: {error}", shown(name));
        self.progress.problem(words.clone());
        wire::write(&mut self.to, &Message::Problem(words))
    }

    fn folder(&mut self, meta: wire::Meta, name: &[u8]) -> Result<(), Error> {
        if self.stack.len() >= DEPTH {
            return Err(Error::Violation("folders are nested too deep"));
        }
        let opened = if self.stack.is_empty() {
            if !name.is_empty() {
                return Err(Error::Violation("the root has a name"));
            }
            let target = self.target.take().ok_or(Error::Violation("there is a second root"))?;
            Some(target.folder(meta)?)
        } else {
            match self.inside(name)? {
                None => None,
                Some(above) => match above.folder(meta, name) {
                    Ok(folder) => Some(folder),
                    Err(error) => {
                        self.failed(name, error)?;
                        None
                    }
                },
            }
        };
        if opened.is_some() {
            self.progress.entries.fetch_add(1, Relaxed);
        }
        self.stack.push(opened.map(Rc::new));
        Ok(())
    }

    fn file(&mut self, meta: wire::Meta, size: u64, name: Vec<u8>) -> Result<(), Error> {
        if self.pending.len() >= WINDOW {
            return Err(Error::Violation("too many files are ahead of their answers"));
        }
        let (folder, name) = if self.stack.is_empty() {
            if !name.is_empty() {
                return Err(Error::Violation("the root has a name"));
            }
            let target = self.target.take().ok_or(Error::Violation("there is a second root"))?;
            let (folder, name) = target.file()?;
            (Some(Rc::new(folder)), name)
        } else {
            (self.inside(&name)?, name)
        };
        let Some(folder) = folder else { return wire::write(&mut self.to, &Message::Skip) };
        let (pending, answer) = Pending::new(folder, name, meta, size);
        self.pending.push_back(pending);
        wire::write(&mut self.to, &answer)
    }

    /// A message about the first file that was answered and is not at its end.
    fn content(&mut self, message: Message) -> Result<(), Error> {
        let mut receiving = match self.at_hand.take() {
            Some(receiving) => receiving,
            None => {
                let next = self.pending.pop_front().ok_or(Error::Violation("it sends what was not asked for"))?;
                Receiving::new(next)
            }
        };
        let before = receiving.position();
        let ended = receiving.take(&message, self.progress)?;
        let grown = receiving.position().saturating_sub(before);
        self.progress.bytes.fetch_add(grown, Relaxed);
        if !ended {
            self.at_hand = Some(receiving);
            return Ok(());
        }
        match receiving.finish() {
            Ok(true) => drop(self.progress.entries.fetch_add(1, Relaxed)),
            Ok(false) => {}
            Err((name, error)) => self.failed(&name, error)?,
        }
        Ok(())
    }
}

pub(crate) fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}
