//! One file: what is there already, what comes, and the moment it takes its name.
//!
//! A file grows as a part beside its name, so a reader of the name finds the old state or the new one. The part of a run that was cut
//! is the beginning of the next: its chunks are offered before those of the old file.

use std::{fs::File, io, os::unix::fs::FileExt as _, rc::Rc};

use rustix::fs::{
    AtFlags, FallocateFlags, FileType, Mode, OFlags, fallocate, fchmod, fstat, ftruncate, futimens, openat, unlinkat,
};

use super::{
    is_full,
    place::{Folder, times},
};
use crate::{
    Error, PIECE, Progress, chunk_of, part_name, shown,
    wire::{Digest, Message, Meta},
};

const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// A file that was answered and whose turn has not come.
pub(super) struct Pending {
    folder: Rc<Folder>,
    name: Vec<u8>,
    meta: Meta,
    size: u64,
    /// Chunks of the part that count.
    of_part: u64,
    /// There is one, whether it counts or not.
    begun: bool,
    /// Of all that was offered.
    digests: Vec<Digest>,
}

impl Pending {
    /// Looks at what is there, and gives the answer to the source.
    pub(super) fn new(folder: Rc<Folder>, name: Vec<u8>, meta: Meta, size: u64) -> (Self, Message) {
        if folder.fresh {
            return (Self { folder, name, meta, size, of_part: 0, begun: false, digests: Vec::new() }, Message::Want);
        }
        let chunk = chunk_of(size);
        let old = existing(&folder, &name).map(|(file, length, _)| (file, length));
        let part = existing(&folder, &part_name(&name)).filter(|(.., own)| *own);
        let nothing = old.is_none() && part.is_none();
        let begun = part.is_some();
        let mut pending = Self { folder, name, meta, size, of_part: 0, begun, digests: Vec::new() };
        if nothing {
            return (pending, Message::Want);
        }
        let old_length = old.as_ref().map_or(0, |(_, length)| *length);
        let part_length = part.as_ref().map_or(0, |(_, length, _)| *length);
        pending.of_part = part_length.min(size) / chunk;
        let last = size.div_ceil(chunk);
        let mut buffer = vec![0; PIECE];
        for index in 0..last {
            let begin = index * chunk;
            let file = if index < pending.of_part {
                part.as_ref().map(|(file, ..)| file)
            } else {
                old.as_ref().map(|(file, _)| file)
            };
            let length = if index < pending.of_part { chunk } else { old_length.saturating_sub(begin).min(chunk) };
            let Some(file) = file.filter(|_| length > 0) else { break };
            let Ok(digest) = digest(file, begin, length, &mut buffer) else { break };
            pending.digests.push(digest);
        }
        // Never the length of the source's file where a part is in it: then the name is still to be given.
        let length = if pending.of_part > 0 || old.is_none() { u64::MAX } else { old_length };
        let chunk = u32::try_from(chunk).unwrap_or(u32::MAX);
        let have = Message::Have(length, chunk, pending.digests.clone());
        (pending, have)
    }
}

/// A file that is there, its length, and whether it is nobody else's: with one name, and this user's.
fn existing(folder: &Folder, name: &[u8]) -> Option<(File, u64, bool)> {
    let opened = openat(&folder.fd, name, READ, Mode::empty()).ok()?;
    let stat = fstat(&opened).ok()?;
    let own = stat.st_nlink == 1 && stat.st_uid == rustix::process::geteuid().as_raw();
    let length = u64::try_from(stat.st_size).unwrap_or(0);
    (FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile).then(|| (File::from(opened), length, own))
}

fn digest(file: &File, begin: u64, length: u64, buffer: &mut [u8]) -> io::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    let mut done = 0;
    while done < length {
        let want = usize::try_from(length - done).unwrap_or(PIECE).min(buffer.len());
        file.read_exact_at(&mut buffer[..want], begin + done)?;
        hasher.update(&buffer[..want]);
        done += want as u64;
    }
    Ok(*hasher.finalize().as_bytes())
}

/// A file whose content comes.
pub(super) struct Receiving {
    file: Pending,
    position: u64,
    part: Option<(File, u64)>,
    old: Option<File>,
    /// Why it can't be written; what still comes of it is thrown away.
    broken: Option<io::Error>,
    end: End,
}

/// What is to be done at the end.
#[derive(PartialEq, Eq)]
enum End {
    /// Nothing has ended it.
    No,
    Name,
    Equal,
    /// The source could not give all of it, and has said so.
    Incomplete,
}

impl Receiving {
    pub(super) fn new(file: Pending) -> Self {
        Self { file, position: 0, part: None, old: None, broken: None, end: End::No }
    }

    /// Where it is.
    pub(super) fn folder(&self) -> &Rc<Folder> {
        &self.file.folder
    }

    /// Bytes that are dealt with.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Takes a message about this file; true if it was the last.
    pub(super) fn take(&mut self, message: &Message, progress: &Progress) -> Result<bool, Error> {
        let done = match message {
            Message::Data(bytes) => {
                let at = self.forward(bytes.len() as u64)?;
                progress.moved.fetch_add(bytes.len() as u64, std::sync::atomic::Ordering::Relaxed);
                self.attempt(|this| this.part()?.0.write_all_at(bytes, at))
            }
            Message::Hole(length) => {
                let at = self.forward(*length)?;
                self.attempt(|this| this.hole(at, *length))
            }
            Message::Same(count) => self.same(*count)?,
            Message::Equal => {
                if self.position > 0 || self.file.of_part > 0 {
                    return Err(Error::Violation("a file is equal and different at once"));
                }
                self.position = self.file.size;
                self.end = End::Equal;
                progress.unchanged();
                Ok(())
            }
            Message::End { changed } => {
                let whole = self.position == self.file.size;
                if !whole && !changed {
                    return Err(Error::Violation("a file ends before its size"));
                }
                if *changed {
                    progress.problem(format!("{}: it was changed while it was copied", shown(&self.file.name)));
                }
                self.end = if whole { End::Name } else { End::Incomplete };
                Ok(())
            }
            Message::Gone(words) => {
                progress.problem(words.clone());
                self.end = End::Incomplete;
                Ok(())
            }
            Message::Open(_)
            | Message::Total { .. }
            | Message::Folder(..)
            | Message::Leave
            | Message::File(..)
            | Message::Link(..)
            | Message::Problem(_)
            | Message::Finished
            | Message::Want
            | Message::Have(..)
            | Message::Skip
            | Message::Done(_)
            | Message::Progress(_)
            | Message::Failed { .. } => return Err(Error::Violation("this is no content of a file")),
        };
        match done {
            Err(error) if is_full(&error) => return Err(Error::Full(format!(" (writing {})", shown(&self.file.name)))),
            Err(error) if self.broken.is_none() => self.broken = Some(error),
            Err(_) | Ok(()) => {}
        }
        Ok(self.end != End::No)
    }

    fn attempt(&mut self, work: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        if self.broken.is_some() { Ok(()) } else { work(self) }
    }

    /// Where the next so many bytes go.
    fn forward(&mut self, length: u64) -> Result<u64, Error> {
        let at = self.position;
        let end = at.checked_add(length).filter(|end| *end <= self.file.size);
        self.position = end.ok_or(Error::Violation("a file is longer than was said"))?;
        Ok(at)
    }

    /// The part, opened for writing, and how long it was.
    fn part(&mut self) -> io::Result<&(File, u64)> {
        if self.part.is_none() {
            let name = part_name(&self.file.name);
            let folder = &self.file.folder.fd;
            let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let own = |file: &std::os::fd::OwnedFd| {
                let stat = fstat(file).ok()?;
                let own = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
                    && stat.st_nlink == 1
                    && stat.st_uid == rustix::process::geteuid().as_raw();
                own.then(|| u64::try_from(stat.st_size).unwrap_or(0))
            };
            let opened = if self.file.of_part > 0 {
                let opened = openat(folder, name.as_slice(), flags, Mode::empty())?;
                let length = own(&opened).ok_or_else(|| io::Error::other("what was begun of it was replaced"))?;
                (File::from(opened), length)
            } else {
                let make =
                    || openat(folder, name.as_slice(), flags | OFlags::CREATE | OFlags::EXCL, Mode::RUSR | Mode::WUSR);
                let made = match make() {
                    Err(rustix::io::Errno::EXIST) => {
                        // The beginning of something else, or a trap: in either case not to be written to.
                        unlinkat(folder, name.as_slice(), AtFlags::empty())?;
                        make()
                    }
                    made => made,
                };
                (File::from(made?), 0)
            };
            self.part = Some(opened);
        }
        self.part.as_ref().ok_or_else(|| io::Error::other("the part is not open"))
    }

    /// Zeros, without space on the disk where that can be.
    fn hole(&mut self, at: u64, length: u64) -> io::Result<()> {
        let (part, long) = self.part()?;
        let within = long.saturating_sub(at).min(length);
        if within == 0 {
            return Ok(());
        }
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if fallocate(part, punch, at, within).is_ok() {
            return Ok(());
        }
        let zeros = vec![0; PIECE];
        let mut done = 0;
        while done < within {
            let piece = usize::try_from(within - done).unwrap_or(PIECE).min(PIECE);
            part.write_all_at(&zeros[..piece], at + done)?;
            done += piece as u64;
        }
        Ok(())
    }

    /// Chunks that the source found equal: those of the part are in place, those of the old file are copied.
    fn same(&mut self, count: u64) -> Result<io::Result<()>, Error> {
        let chunk = chunk_of(self.file.size);
        if !self.position.is_multiple_of(chunk) {
            return Err(Error::Violation("a chunk begins where none does"));
        }
        let first = self.position / chunk;
        let last = first.checked_add(count).filter(|last| *last <= self.file.digests.len() as u64);
        let last = last.ok_or(Error::Violation("more chunks are the same than were offered"))?;
        let mut done = Ok(());
        for index in first..last {
            let length = chunk.min(self.file.size - index * chunk);
            let at = self.forward(length)?;
            if index >= self.file.of_part && done.is_ok() {
                done = self.attempt(|this| this.copy_chunk(index, at, length));
            } else if done.is_ok() {
                done = self.attempt(|this| this.part().map(drop));
            }
        }
        Ok(done)
    }

    fn copy_chunk(&mut self, index: u64, at: u64, length: u64) -> io::Result<()> {
        if self.old.is_none() {
            let found = existing(&self.file.folder, &self.file.name);
            self.old = found.map(|(file, ..)| file);
        }
        let old = self.old.as_ref().ok_or_else(|| io::Error::other("it was removed while it was copied"))?;
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        old.read_exact_at(&mut bytes, at)?;
        let digest = usize::try_from(index).ok().and_then(|index| self.file.digests.get(index));
        if digest != Some(blake3::hash(&bytes).as_bytes()) {
            return Err(io::Error::other("it was changed here while it was copied"));
        }
        if bytes.iter().all(|byte| *byte == 0) {
            return self.hole(at, length);
        }
        self.part()?.0.write_all_at(&bytes, at)
    }

    /// Gives it its name, mode and time, and says whether it is in place; else which file failed and why.
    pub(super) fn finish(mut self) -> Result<bool, (Vec<u8>, io::Error)> {
        let done = match self.broken.take() {
            Some(error) => Err(error),
            None => match self.end {
                End::Name => self.name().map(|()| true),
                End::Equal => self.touch().map(|()| true),
                End::No | End::Incomplete => Ok(false),
            },
        };
        done.map_err(|error| (self.file.name, error))
    }

    fn name(&mut self) -> io::Result<()> {
        let (size, meta) = (self.file.size, self.file.meta);
        let (part, _) = self.part()?;
        if fstat(part)?.st_size != i64::try_from(size).unwrap_or(i64::MAX) {
            ftruncate(part, size)?;
        }
        dress(part, meta)?;
        self.file.folder.rename(&part_name(&self.file.name), &self.file.name)
    }

    /// The content is the same; mode and time may not be.
    fn touch(&self) -> io::Result<()> {
        if self.file.begun {
            // Too short to be of use, and of none now.
            unlinkat(&self.file.folder.fd, part_name(&self.file.name).as_slice(), AtFlags::empty()).ok();
        }
        let Some((file, ..)) = existing(&self.file.folder, &self.file.name) else { return Ok(()) };
        let now = fstat(&file)?;
        if crate::walk::meta(&now) == self.file.meta {
            return Ok(());
        }
        dress(&file, self.file.meta)
    }
}

fn dress(file: &File, meta: Meta) -> io::Result<()> {
    fchmod(file, Mode::from_raw_mode(meta.mode.into()))?;
    Ok(futimens(file, &times(meta))?)
}
