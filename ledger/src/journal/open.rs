//! Opening a journal: finding its end, cutting off what a crash tore, refusing what is damaged.

use std::{collections::VecDeque, sync::Arc};

use super::{
    Base, Disk, Generation, Journal, JournalError, Mark, Position, Sizes, base, corrupt, create,
    frame::{Found, Window},
    io_error,
    segment::{self, HEADER},
    start_of,
};

/// Where a store that knew a [`Mark`] goes on reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The marked record is there; the one after it is here.
    After(Position),
    /// There was no mark, or another record lies there: the store is not of this journal and must be made anew, from the
    /// base if there is one.
    Beginning,
}

impl Journal {
    /// Opens the journal on `disk`, making it if there is none. Only what lies behind `mark` is read, or everything if there is
    /// no mark or it does not fit.
    ///
    /// # Errors
    /// [`JournalError`]; then nothing has been changed but a torn end removed.
    pub fn open(disk: Arc<dyn Disk>, sizes: Sizes, mark: Option<Mark>) -> Result<(Self, Start), JournalError> {
        let generation = clean_up(&*disk)?;
        let begin = start_of(&generation);
        let mut segments = segments(&*disk, begin.segment)?;
        if let Some(&last) = segments.last()
            && is_unborn(&*disk, last)?
        {
            disk.remove(&segment::name(last))
                .and_then(|()| disk.sync_names())
                .map_err(|e| io_error(&*disk, last, "remove", e))?;
            segments.pop();
        }
        let Some(&last) = segments.last() else {
            if mark.is_some() || generation.is_some() {
                return Err(JournalError::Missing { file: disk.path(&segment::name(begin.segment)) });
            }
            let file = create(&*disk, 1, 0)?;
            let journal = Self {
                disk,
                sizes,
                file,
                next: Position::FIRST,
                allocated: HEADER as u64,
                pending: Vec::new(),
                poisoned: false,
                generation,
                retired: VecDeque::new(),
            };
            return Ok((journal, Start::Beginning));
        };
        let start = match mark {
            Some(mark) => resolve(&*disk, &generation, mark, last)?,
            None => Start::Beginning,
        };
        let from = match start {
            Start::After(position) => position,
            Start::Beginning => begin,
        };
        let next = scan(&*disk, from, last)?;
        let file = disk.open(&segment::name(last), true).map_err(|e| io_error(&*disk, last, "open", e))?;
        let allocated = file.len().map_err(|e| io_error(&*disk, last, "read", e))?;
        let mut journal = Self {
            disk,
            sizes,
            file,
            next,
            allocated,
            pending: Vec::new(),
            poisoned: false,
            generation,
            retired: VecDeque::new(),
        };
        journal.clean_end()?;
        Ok((journal, start))
    }

    /// Overwrites whatever an interrupted group left behind the end with zeros, or its frames could come back to life when
    /// a later group happens to end where one of them begins.
    fn clean_end(&mut self) -> Result<(), JournalError> {
        let mut window = window(&*self.disk, self.next.segment)?;
        let end = window.written_end(self.next.offset).map_err(|e| self.io("read", e))?;
        let mut at = self.next.offset;
        if end <= at {
            return Ok(());
        }
        tracing::warn!(
            file = %self.disk.path(&segment::name(self.next.segment)).display(),
            offset = at,
            bytes = end - at,
            "removing an unfinished write from the end of the journal"
        );
        let zeros = [0; 4096];
        while at < end {
            let n = (end - at).min(zeros.len() as u64);
            self.file.write_at(&zeros[..usize::try_from(n).unwrap_or(0)], at).map_err(|e| self.io("write", e))?;
            at += n;
        }
        self.file.sync().map_err(|e| self.io("flush", e))
    }
}

/// Opens the newest base, and removes what it stands for and what was never finished.
fn clean_up(disk: &dyn Disk) -> Result<Generation, JournalError> {
    let names = disk.list().map_err(|e| io_error(disk, 1, "list", e))?;
    let newest = names.iter().filter_map(|name| base::number(name)).max();
    let generation = match newest {
        Some(segment) => Some(Base::open(disk, base::name(segment), segment)?),
        None => None,
    };
    let stale = |name: &String| {
        let replaced = segment::number(name).is_some_and(|segment| newest.is_some_and(|base| segment <= base));
        replaced || base::is_unfinished(name) || base::number(name).is_some_and(|base| Some(base) != newest)
    };
    let mut removed = false;
    for name in names.iter().filter(|name| stale(name)) {
        let fail = |source| JournalError::Io { file: disk.path(name), doing: "remove", source };
        disk.remove(name).map_err(fail)?;
        removed = true;
    }
    if removed {
        disk.sync_names().map_err(|e| io_error(disk, 1, "remove", e))?;
    }
    Ok(Arc::new(generation))
}

/// The numbers of all segments, which must follow each other from `first`.
fn segments(disk: &dyn Disk, first: u64) -> Result<Vec<u64>, JournalError> {
    let names = disk.list().map_err(|e| io_error(disk, 1, "list", e))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|n| segment::number(n)).collect();
    numbers.sort_unstable();
    for (expected, &number) in (first..).zip(&numbers) {
        if number != expected {
            return Err(JournalError::Missing { file: disk.path(&segment::name(expected)) });
        }
    }
    Ok(numbers)
}

/// Whether the last segment was being made when the power went: no header yet, and no record.
fn is_unborn(disk: &dyn Disk, last: u64) -> Result<bool, JournalError> {
    let mut window = window(disk, last)?;
    let fail = |e| io_error(disk, last, "read", e);
    let header = window.peek(0, HEADER).map_err(fail)?;
    if segment::read(header, last).is_some() {
        return Ok(false);
    }
    if window.group_behind(0).map_err(fail)? {
        return Err(corrupt(disk, last, 0, "its header is not one"));
    }
    Ok(true)
}

pub(super) fn window(disk: &dyn Disk, number: u64) -> Result<Window, JournalError> {
    let fail = |e| io_error(disk, number, "open", e);
    let file = disk.open(&segment::name(number), false).map_err(fail)?;
    Window::new(file, number).map_err(fail)
}

/// Opens a segment and checks that it begins with the `index`th record.
pub(super) fn window_at(disk: &dyn Disk, number: u64, index: u64) -> Result<Window, JournalError> {
    let mut window = window(disk, number)?;
    let header = window.peek(0, HEADER).map_err(|e| io_error(disk, number, "read", e))?;
    match segment::read(header, number) {
        Some(first) if first == index => Ok(window),
        Some(_) if number > 1 && disk.list().is_ok_and(|names| names.contains(&segment::name(number - 1))) => {
            let end = super::open::window(disk, number - 1)?.len();
            Err(corrupt(disk, number - 1, end, "records are missing from it"))
        }
        Some(_) | None => Err(corrupt(disk, number, 0, "its header is not one")),
    }
}

/// Where the first record of a segment lies.
///
/// # Errors
/// [`JournalError`] if it can't be read or its header is not one.
pub fn start_of_segment(disk: &dyn Disk, number: u64) -> Result<Position, JournalError> {
    let mut window = window(disk, number)?;
    let header = window.peek(0, HEADER).map_err(|e| io_error(disk, number, "read", e))?;
    let index = segment::read(header, number).ok_or_else(|| corrupt(disk, number, 0, "its header is not one"))?;
    Ok(Position { segment: number, offset: HEADER as u64, index })
}

/// The segment up to which the newest base stands; zero if there is none.
///
/// # Errors
/// [`JournalError`] if the directory can't be read.
pub fn newest_base(disk: &dyn Disk) -> Result<u64, JournalError> {
    let names = disk.list().map_err(|e| io_error(disk, 1, "list", e))?;
    Ok(names.iter().filter_map(|name| base::number(name)).max().unwrap_or(0))
}

/// Finds the record after the marked one.
fn resolve(disk: &dyn Disk, generation: &Generation, mark: Mark, last: u64) -> Result<Start, JournalError> {
    let Position { segment, offset, index } = mark.at;
    if let Some(base) = generation.as_ref()
        && segment <= base.segment()
    {
        let fits = mark == base.last();
        return Ok(if fits { Start::After(base.end()) } else { Start::Beginning });
    }
    let behind = |offset| JournalError::Behind { file: disk.path(&segment::name(last)), offset };
    if segment > last || segment == 0 {
        return Err(behind(window(disk, last)?.len()));
    }
    let mut window = window(disk, segment)?;
    let fail = |e| io_error(disk, segment, "read", e);
    match window.frame(offset).map_err(fail)? {
        Found::Frame { crc, next, .. } if crc == mark.crc => {
            Ok(Start::After(Position { segment, offset: next, index: index.saturating_add(1) }))
        }
        Found::Frame { .. } => Ok(Start::Beginning),
        Found::Bad | Found::End if segment < last => Err(corrupt(disk, segment, offset, "a record is not as written")),
        Found::Bad | Found::End => Err(behind(offset)),
    }
}

/// Reads every frame from `from` to the end of the last segment and returns where the next record goes.
fn scan(disk: &dyn Disk, from: Position, last: u64) -> Result<Position, JournalError> {
    let mut at = from;
    let mut window = if from.offset == HEADER as u64 {
        window_at(disk, from.segment, from.index)?
    } else {
        window(disk, from.segment)?
    };
    loop {
        let fail = |e| io_error(disk, at.segment, "read", e);
        let is_last = at.segment == last;
        match window.frame(at.offset).map_err(fail)? {
            Found::Frame { next, .. } => {
                at.offset = next;
                at.index += 1;
            }
            Found::Bad if !is_last => {
                return Err(corrupt(disk, at.segment, at.offset, "a record is not as written"));
            }
            Found::End if !is_last => {
                window = window_at(disk, at.segment + 1, at.index).map_err(|e| locate_gap(e, disk, at))?;
                at.segment += 1;
                at.offset = HEADER as u64;
            }
            Found::Bad | Found::End => {
                if window.group_behind(at.offset + 1).map_err(fail)? {
                    return Err(corrupt(disk, at.segment, at.offset, "a record is not as written"));
                }
                return Ok(at);
            }
        }
    }
}

/// A segment that ends before the next one begins ends where its last readable record does.
fn locate_gap(error: JournalError, disk: &dyn Disk, at: Position) -> JournalError {
    if let JournalError::Corrupt { file, what, .. } = &error
        && *file == disk.path(&segment::name(at.segment))
    {
        return JournalError::Corrupt { file: file.clone(), offset: at.offset, what };
    }
    error
}
