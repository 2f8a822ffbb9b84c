//! Checking an export: every signature, every chain, every sum; with no network, no database and no trust in its maker.
//!
//! Streams: signatures are checked on all cores, batch by batch, and the rules of [`crate::state`] are applied in order behind
//! them. Memory is bounded by the leases open at one time, not by the file.

mod audit;
mod frames;
#[cfg(test)]
mod rules_tests;
mod signatures;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, Read},
    num::NonZero,
    thread,
};

use souk_protocol::{Amount, Currency, LeaseId, NodeId, encode};

use crate::export::{FORMAT, FRAME_BYTES, Filter, Header, VERSION};

use audit::{Audit, Bounds};
use frames::{Frame, Frames, Read as Next};
use signatures::{Batch, Checked, Checker};

/// Records checked by one thread at a time.
const BATCH: usize = 256;

/// Where an export is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Bytes from the file's beginning to the frame.
    pub offset: u64,
    /// The frame's number: 0 is the header.
    pub record: u64,
    /// What is wrong.
    pub what: String,
}

/// Whether an export holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Everything in it is signed, linked and summed as it must be, and all of it is there.
    Valid,
    /// Something in it is wrong.
    Invalid(Fault),
    /// What is there is right, but the end is missing.
    Incomplete(Fault),
}

impl Verdict {
    /// The exit code of a command that reports it: 0, 1 or 6.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Valid => 0,
            Self::Invalid(_) => 1,
            Self::Incomplete(_) => 6,
        }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Whether it holds.
    pub verdict: Verdict,
    /// What the header says, if it could be read.
    pub header: Option<Header>,
    /// Records checked.
    pub records: u64,
    /// Leases opened.
    pub leases: u64,
    /// Leases that were opened and never answered.
    pub unanswered: u64,
    /// The first hundred of them.
    pub unanswered_leases: Vec<LeaseId>,
    /// Authors of whom the export proves that they contradicted themselves.
    pub forks: Vec<NodeId>,
    /// What renters have signed for, by currency.
    pub agreed: BTreeMap<Currency, Amount>,
}

/// Checks an export.
///
/// # Errors
/// Only if it can't be read; whatever it holds makes a [`Report`].
pub fn verify(reader: impl Read) -> io::Result<Report> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    verify_on(reader, threads)
}

/// Checks an export with so many threads for signatures, at least one.
///
/// # Errors
/// Only if it can't be read.
pub fn verify_on(reader: impl Read, threads: usize) -> io::Result<Report> {
    verify_within(reader, threads, Bounds::WIDE)
}

fn verify_within(reader: impl Read, threads: usize, bounds: Bounds) -> io::Result<Report> {
    let mut frames = Frames::new(reader);
    let header = match read_header(&mut frames)? {
        Ok(header) => header,
        Err(verdict) => return Ok(empty(verdict)),
    };
    thread::scope(|scope| {
        let checkers: Vec<Checker> = (0..threads.max(1)).map(|_| Checker::spawn(scope, header.network)).collect();
        let mut audit = Audit::new(&header, bounds);
        let verdict = run(&mut frames, &checkers, &mut audit)?;
        Ok(audit.report(verdict, header.clone()))
    })
}

/// Feeds the checkers in turn and audits what they have checked in the same turn.
fn run(frames: &mut Frames<impl Read>, checkers: &[Checker], audit: &mut Audit) -> io::Result<Verdict> {
    let mut waiting = VecDeque::new();
    let mut turn = (0..checkers.len()).cycle();
    let mut end = None;
    loop {
        while end.is_none() && waiting.len() < 2 * checkers.len() {
            let (batch, last) = read_batch(frames)?;
            end = last;
            if let Some(n) = turn.next()
                && !batch.frames.is_empty()
            {
                checkers[n].send(batch);
                waiting.push_back(n);
            }
        }
        let Some(n) = waiting.pop_front() else {
            break;
        };
        for checked in checkers[n].receive() {
            if let Err(fault) = audit.take(checked) {
                return Ok(Verdict::Invalid(fault));
            }
        }
    }
    Ok(match end {
        Some(End::Fault(verdict)) => verdict,
        Some(End::Trailer(trailer)) => audit.close(&trailer, frames),
        None => Verdict::Incomplete(frames.fault("it ends without its trailer")),
    })
}

/// Why no more batches come.
enum End {
    Trailer(Frame),
    Fault(Verdict),
}

fn read_batch(frames: &mut Frames<impl Read>) -> io::Result<(Batch, Option<End>)> {
    let mut batch = Batch::default();
    while batch.frames.len() < BATCH {
        match frames.next_frame()? {
            Next::Frame(frame) if frame.is_trailer() => {
                return Ok((batch, Some(after_trailer(frames, frame)?)));
            }
            Next::Frame(frame) => batch.frames.push(frame),
            Next::End => {
                let fault = frames.fault("it ends without its trailer: the file was cut");
                return Ok((batch, Some(End::Fault(Verdict::Incomplete(fault)))));
            }
            Next::Cut => {
                let fault = frames.fault("it ends in the middle of a record: the file was cut");
                return Ok((batch, Some(End::Fault(Verdict::Incomplete(fault)))));
            }
            Next::TooLong => {
                let fault = frames.fault("a record's length is impossible");
                return Ok((batch, Some(End::Fault(Verdict::Invalid(fault)))));
            }
        }
    }
    Ok((batch, None))
}

fn after_trailer(frames: &mut Frames<impl Read>, trailer: Frame) -> io::Result<End> {
    if frames.at_end()? {
        Ok(End::Trailer(trailer))
    } else {
        let fault = frames.fault("something follows the trailer");
        Ok(End::Fault(Verdict::Invalid(fault)))
    }
}

fn read_header(frames: &mut Frames<impl Read>) -> io::Result<Result<Header, Verdict>> {
    let frame = match frames.next_frame()? {
        Next::Frame(frame) => frame,
        Next::End | Next::Cut => {
            return Ok(Err(Verdict::Incomplete(frames.fault("it ends in its header"))));
        }
        Next::TooLong => {
            return Ok(Err(Verdict::Invalid(frames.fault("it is not a souk ledger export"))));
        }
    };
    let invalid = |what: String| Ok(Err(Verdict::Invalid(Fault { offset: frame.offset, record: frame.record, what })));
    match encode::from_bytes::<Header>(&frame.body, FRAME_BYTES) {
        Err(e) => invalid(format!("it is not a souk ledger export: its header is {e}")),
        Ok(header) if header.format != FORMAT => invalid("it is not a souk ledger export".into()),
        Ok(header) if header.version != VERSION => {
            invalid(format!("its format has version {}, this souk reads version {VERSION}", header.version))
        }
        Ok(header) => Ok(Ok(header)),
    }
}

fn empty(verdict: Verdict) -> Report {
    Report {
        verdict,
        header: None,
        records: 0,
        leases: 0,
        unanswered: 0,
        unanswered_leases: Vec::new(),
        forks: Vec::new(),
        agreed: BTreeMap::new(),
    }
}

/// Whether a header's choice leaves out entries of the author's own chain.
const fn is_sparse(filter: Filter) -> bool {
    matches!(filter, Filter::Lease(_))
}
