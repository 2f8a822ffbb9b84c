//! The side that reads: walks a tree, says what there is, and sends what the sink lacks.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    os::unix::fs::FileExt as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    time::{Duration, Instant},
};

use rustix::fs::{FileType, Mode, OFlags, SeekFrom, fstat, openat, seek};

use crate::{
    DIGESTS, Error, PIECE, Progress, Summary, WINDOW, chunk_of, shown,
    walk::{Place, Step, Walk, meta, size},
    wire::{self, Digest, Message, Meta},
};

/// Bytes of a file that weigh as much as one more file in the [`WINDOW`].
const WEIGHT: u64 = 16 << 20;

/// Digests of everything that may be announced at once: of a window of files, and of the largest as the last of them.
const QUEUED: usize = WINDOW * 17 + 2 * DIGESTS as usize;

/// How long a sink's last word may take after its stream broke.
const LAST_WITHIN: Duration = Duration::from_secs(2);

/// A file announced and not yet answered.
struct Announced {
    meta: Meta,
    size: u64,
    at: Place,
}

impl Announced {
    fn weight(&self) -> usize {
        usize::try_from(self.size / WEIGHT).unwrap_or(usize::MAX).saturating_add(1).min(WINDOW)
    }
}

/// Sends a file or a tree, and gives what the sink counted.
///
/// # Errors
/// [`Error`]; what the sink has got so far it keeps.
pub fn run(
    from: impl Read + Send + 'static,
    to: impl Write,
    path: &[u8],
    excludes: &[Vec<u8>],
    progress: &Arc<Progress>,
) -> Result<Summary, Error> {
    let mut to = BufWriter::with_capacity(2 * PIECE, to);
    let done = send(from, &mut to, path, excludes, progress);
    if let Err(error) = &done {
        wire::fail(&mut to, error);
    }
    done
}

fn send(
    from: impl Read + Send + 'static,
    to: &mut impl Write,
    path: &[u8],
    excludes: &[Vec<u8>],
    progress: &Arc<Progress>,
) -> Result<Summary, Error> {
    let walk = Walk::new(path, excludes)?;
    let counted = Arc::new(AtomicBool::new(false));
    count(Walk::new(path, excludes)?, Arc::clone(progress), Arc::clone(&counted));
    let answers = listen(from);
    let done = exchange(to, walk, &answers, progress, &counted);
    match done {
        // A sink that gives up says why and closes, which may be noticed before it is heard.
        Err(Error::Cut(error)) => Err(answers.last_word().unwrap_or(Error::Cut(error))),
        done => done,
    }
}

fn exchange(
    to: &mut impl Write,
    walk: Walk,
    answers: &Answers,
    progress: &Progress,
    counted: &AtomicBool,
) -> Result<Summary, Error> {
    let mut source =
        Source { to, walk: Some(walk), announced: VecDeque::new(), weight: 0, progress, buffer: Vec::new() };
    let mut total_told = false;
    loop {
        if !total_told && counted.load(Relaxed) {
            total_told = true;
            let (entries, bytes) = (progress.total_entries.load(Relaxed), progress.total_bytes.load(Relaxed));
            wire::write(source.to, &Message::Total { entries, bytes })?;
        }
        let answer = match answers.look() {
            Ok(answer) => answer?,
            Err(mpsc::TryRecvError::Empty) if source.walk.is_some() && source.weight < WINDOW => {
                source.announce()?;
                continue;
            }
            Err(mpsc::TryRecvError::Empty) if source.walk.is_none() && source.announced.is_empty() => break,
            Err(mpsc::TryRecvError::Empty | mpsc::TryRecvError::Disconnected) => {
                source.to.flush().map_err(Error::Cut)?;
                answers.next()?
            }
        };
        if source.answered(answer)?.is_some() {
            return Err(Error::Violation("it was done before everything was sent"));
        }
    }
    wire::write(source.to, &Message::Finished)?;
    source.to.flush().map_err(Error::Cut)?;
    loop {
        if let Some(summary) = source.answered(answers.next()?)? {
            return Ok(summary);
        }
    }
}

/// Answers read and not yet dealt with: at most [`WINDOW`], with at most [`QUEUED`] digests.
struct Answers {
    read: mpsc::Receiver<Result<Message, Error>>,
    digests: Arc<AtomicUsize>,
}

impl Answers {
    fn next(&self) -> Result<Message, Error> {
        let ended = || Error::Cut(io::Error::from(io::ErrorKind::UnexpectedEof));
        self.took(self.read.recv().map_err(|_| ended())?)
    }

    fn look(&self) -> Result<Result<Message, Error>, mpsc::TryRecvError> {
        self.read.try_recv().map(|answer| self.took(answer))
    }

    /// Why the sink gave up, if it said so.
    fn last_word(&self) -> Option<Error> {
        let until = Instant::now() + LAST_WITHIN;
        while let Ok(Ok(answer)) = self.read.recv_timeout(until.saturating_duration_since(Instant::now())) {
            if let Message::Failed { full, why } = self.took(Ok(answer)).ok()? {
                return Some(gave_up(full, why));
            }
        }
        None
    }

    fn took(&self, answer: Result<Message, Error>) -> Result<Message, Error> {
        if let Ok(message) = &answer {
            self.digests.fetch_sub(digests_of(message), Relaxed);
        }
        answer
    }
}

/// What a side ended the copy for.
pub(crate) fn gave_up(full: bool, why: String) -> Error {
    if full {
        Error::Full(why.strip_prefix("the disk is full").unwrap_or_default().to_owned())
    } else {
        Error::Other(why)
    }
}

const fn digests_of(message: &Message) -> usize {
    if let Message::Have(_, _, digests) = message { digests.len() } else { 0 }
}

/// Counts what there is, beside the copy.
fn count(mut walk: Walk, progress: Arc<Progress>, counted: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        let (mut entries, mut bytes) = (0_u64, 0_u64);
        while let Some(step) = walk.next() {
            match step {
                Step::File { size, .. } => {
                    entries += 1;
                    bytes = bytes.saturating_add(size);
                }
                Step::Folder(..) | Step::Link(..) => entries += 1,
                Step::Leave | Step::Problem(_) => {}
            }
        }
        progress.total_entries.store(entries, Relaxed);
        progress.total_bytes.store(bytes, Relaxed);
        counted.store(true, Relaxed);
    });
}

/// Reads answers while files are sent, so that neither side waits for the other. What is announced has no more digests than
/// [`QUEUED`], so a sink that answers with more lies, and is heard no longer.
fn listen(from: impl Read + Send + 'static) -> Answers {
    let (sender, read) = mpsc::sync_channel(WINDOW);
    let digests = Arc::new(AtomicUsize::new(0));
    let queued = Arc::clone(&digests);
    std::thread::spawn(move || {
        let mut from = BufReader::with_capacity(PIECE, from);
        loop {
            let message = wire::read(&mut from).and_then(|message| {
                let more = digests_of(&message);
                let all = queued.fetch_add(more, Relaxed).saturating_add(more);
                if all > QUEUED { Err(Error::Violation("it has more of the files than there is")) } else { Ok(message) }
            });
            let last = matches!(message, Err(_) | Ok(Message::Done(_) | Message::Failed { .. }));
            if sender.send(message).is_err() || last {
                return;
            }
        }
    });
    Answers { read, digests }
}

struct Source<'a, W> {
    to: &'a mut W,
    walk: Option<Walk>,
    announced: VecDeque<Announced>,
    weight: usize,
    progress: &'a Progress,
    buffer: Vec<u8>,
}

impl<W: Write> Source<'_, W> {
    fn announce(&mut self) -> Result<(), Error> {
        let Some(step) = self.walk.as_mut().and_then(Walk::next) else {
            self.walk = None;
            return Ok(());
        };
        let message = match step {
            Step::Folder(meta, name) => {
                self.progress.entries.fetch_add(1, Relaxed);
                Message::Folder(meta, name)
            }
            Step::Leave => Message::Leave,
            Step::Link(meta, name, target) => {
                self.progress.entries.fetch_add(1, Relaxed);
                Message::Link(meta, name, target)
            }
            Step::Problem(words) => {
                self.progress.problem(words.clone());
                Message::Problem(words)
            }
            Step::File { meta, size, name, at } => {
                let file = Announced { meta, size, at };
                self.weight += file.weight();
                self.announced.push_back(file);
                Message::File(meta, size, name)
            }
        };
        wire::write(self.to, &message)
    }

    /// What the sink says; its count if it was the last word.
    fn answered(&mut self, answer: Message) -> Result<Option<Summary>, Error> {
        let have = match answer {
            Message::Done(summary) => return Ok(Some(summary)),
            Message::Failed { full, why } => return Err(gave_up(full, why)),
            Message::Problem(words) => {
                self.progress.problem(words);
                return Ok(None);
            }
            Message::Want | Message::Skip => None,
            Message::Have(length, chunk, ref digests) => Some((length, chunk, digests.clone())),
            Message::Open(_)
            | Message::Total { .. }
            | Message::Folder(..)
            | Message::Leave
            | Message::File(..)
            | Message::Link(..)
            | Message::Data(_)
            | Message::Hole(_)
            | Message::Same(_)
            | Message::End { .. }
            | Message::Equal
            | Message::Gone(_)
            | Message::Progress(_)
            | Message::Finished => return Err(Error::Violation("a sink says what only a source may")),
        };
        let file = self.announced.pop_front().ok_or(Error::Violation("it answers what was not asked"))?;
        self.weight -= file.weight();
        if matches!(answer, Message::Skip) {
            return Ok(None);
        }
        self.progress.entries.fetch_add(1, Relaxed);
        let sent = self.progress.bytes.load(Relaxed);
        self.file(&file, have)?;
        // Whatever way it went, the file is dealt with.
        self.progress.bytes.store(sent.saturating_add(file.size), Relaxed);
        Ok(None)
    }

    fn file(&mut self, file: &Announced, have: Option<(u64, u32, Vec<Digest>)>) -> Result<(), Error> {
        let (opened, sparse) = match open(&file.at) {
            Ok(opened) => opened,
            Err(error) => {
                let words = format!("{}: {error}", shown(&file.at.path));
                self.progress.problem(words.clone());
                return wire::write(self.to, &Message::Gone(words));
            }
        };
        let mut reading = Reading { sparse, file: opened, short: false };
        let mut position = 0;
        if let Some((length, chunk, digests)) = have {
            let fits =
                u64::from(chunk) == chunk_of(file.size) && digests.len() as u64 <= file.size.div_ceil(u64::from(chunk));
            if !fits {
                return Err(Error::Violation("it has more of a file than there is"));
            }
            position = self.compare(&mut reading, file.size, u64::from(chunk), &digests)?;
            if position == u64::MAX {
                let same = length == file.size && !self.changed(&reading, file);
                let last = if same { Message::Equal } else { Message::Same(digests.len() as u64) };
                wire::write(self.to, &last)?;
                if same {
                    return Ok(());
                }
                position = file.size;
            }
        }
        self.range(&mut reading, position, file.size)?;
        let changed = self.changed(&reading, file);
        if changed {
            self.progress.problem(format!("{}: it was changed while it was copied", shown(&file.at.path)));
        }
        wire::write(self.to, &Message::End { changed })
    }

    fn changed(&self, reading: &Reading, file: &Announced) -> bool {
        reading.short || fstat(&reading.file).map_or(true, |now| size(&now) != file.size || meta(&now) != file.meta)
    }

    /// Sends what differs of the chunks that the sink has, and gives where they end; `u64::MAX` if nothing differs and there is no
    /// more, with nothing sent.
    fn compare(&mut self, reading: &mut Reading, size: u64, chunk: u64, digests: &[Digest]) -> Result<u64, Error> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let (mut run, mut any, mut position) = (0, false, 0);
        for digest in digests {
            let end = (position + chunk).min(size);
            buffer.resize(usize::try_from(end - position).unwrap_or(usize::MAX), 0);
            reading.fill(&mut buffer, position);
            if !reading.short && blake3::hash(&buffer).as_bytes() == digest {
                run += 1;
                self.progress.bytes.fetch_add(end - position, Relaxed);
            } else {
                if run > 0 {
                    wire::write(self.to, &Message::Same(run))?;
                    run = 0;
                }
                any = true;
                self.range(reading, position, end)?;
            }
            position = end;
        }
        self.buffer = buffer;
        if !any && position == size {
            return Ok(u64::MAX);
        }
        if run > 0 {
            wire::write(self.to, &Message::Same(run))?;
        }
        Ok(position)
    }

    /// Sends the bytes from `position` to `end`, holes as such.
    fn range(&mut self, reading: &mut Reading, mut position: u64, end: u64) -> Result<(), Error> {
        let mut piece = [0; PIECE];
        while position < end && !reading.short {
            let (data, until) = reading.extent(position, end);
            if data > position {
                wire::write(self.to, &Message::Hole(data - position))?;
                self.progress.bytes.fetch_add(data - position, Relaxed);
                position = data;
            }
            while position < until {
                let want = usize::try_from(until - position).unwrap_or(PIECE).min(PIECE);
                let got = reading.fill(&mut piece[..want], position);
                if got == 0 {
                    return Ok(());
                }
                wire::data(self.to, &piece[..got])?;
                self.progress.bytes.fetch_add(got as u64, Relaxed);
                self.progress.moved.fetch_add(got as u64, Relaxed);
                position += got as u64;
            }
        }
        Ok(())
    }
}

/// A file being read.
struct Reading {
    file: File,
    sparse: bool,
    /// It ended before it should have.
    short: bool,
}

impl Reading {
    /// Fills the buffer as far as there are bytes.
    fn fill(&mut self, buffer: &mut [u8], position: u64) -> usize {
        let mut got = 0;
        while got < buffer.len() {
            match self.file.read_at(&mut buffer[got..], position + got as u64) {
                Ok(0) => break,
                Ok(n) => got += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.short |= got < buffer.len();
        got
    }

    /// Where the next bytes begin and end, both at most `end`.
    fn extent(&self, position: u64, end: u64) -> (u64, u64) {
        if !self.sparse {
            return (position, end);
        }
        let data = match seek(&self.file, SeekFrom::Data(position)) {
            Ok(data) => data.clamp(position, end),
            Err(rustix::io::Errno::NXIO) => return (end, end),
            Err(_) => return (position, end),
        };
        let hole = seek(&self.file, SeekFrom::Hole(data)).unwrap_or(end);
        (data, hole.clamp(data, end))
    }
}

/// The file, and whether it has holes.
fn open(at: &Place) -> io::Result<(File, bool)> {
    // Not blocked by a pipe that has taken the file's place.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = openat(&*at.folder, &at.name, flags, Mode::empty())?;
    let stat = fstat(&opened)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("it is no file any more"));
    }
    let sparse = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512) < size(&stat);
    Ok((File::from(opened), sparse))
}
