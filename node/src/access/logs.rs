//! An instance's output, as frames: each piece with its place, so that a reader who was cut off goes on where it was.
//!
//! Owns the numbering of pieces, `tail`, and noticing what rotation of the log has dropped. Remembers nothing of its readers.
//!
//! An engine that lets a log be followed skips whole files without a word when the log is rotated faster than it is read. So a
//! reader that lags behind is served from the log's history instead, where what is missing shows, until it has caught up.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::StreamExt;
use souk_protocol::{
    Timestamp,
    logs::{LogPiece, LogPoint, LogPosition},
    message::Frame,
};
use souk_runtime::{LogChunk, LogOptions, OutputStream, Runtime};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    time::Instant,
};

use super::send;

/// A reader that gets a line so long after it was written lags behind: shorter than the engine takes to fill a file.
const LAG: Duration = Duration::from_millis(200);
/// How long one that has just begun to follow may take to catch up.
const CATCH_UP: Duration = Duration::from_secs(5);
/// Lines looked for by `tail`. Who wants more gets all there is.
const TAIL: usize = 100_000;
/// Pieces first looked at for `tail`, beyond the lines wanted.
const TAIL_SLACK: u32 = 16;

/// What readers are told of missing lines.
pub const DROPPED: &str = "lines are missing here: the host's log was rotated before they were read";

/// Which lines.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Go on with what comes.
    pub follow: bool,
    /// Only so many of the last lines.
    pub tail: Option<u32>,
    /// Only lines from this time on.
    pub since: Option<Timestamp>,
    /// Only what a reader who was cut off here has not had; in place of the two before.
    pub from: Option<LogPosition>,
}

/// Pumps the output of a lease's instance until its command ends, the reader goes, or there is no more.
///
/// # Errors
/// A sentence for the reader.
pub async fn serve<S>(runtime: &dyn Runtime, lease: &str, options: Options, stream: &mut S) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let (mut read, mut write) = tokio::io::split(stream);
    let pumping = async {
        let mut position = match options.from {
            Some(from) => from,
            None => start(runtime, lease, options).await?,
        };
        send(&mut write, &Frame::Place(position)).await?;
        loop {
            pump(runtime, lease, &mut position, false, &mut write).await?;
            if !options.follow || pump(runtime, lease, &mut position, true, &mut write).await? == Ended::Over {
                break;
            }
        }
        send(&mut write, &Frame::Exit(0)).await
    };
    // A reader says nothing; one that follows has gone when its side ends.
    let mut nothing = [0; 1];
    tokio::pin!(pumping);
    tokio::select! {
        pumped = &mut pumping => pumped,
        gone = read.read(&mut nothing) => match gone {
            Ok(0) | Err(_) if options.follow => Ok(()),
            Ok(0) | Err(_) => pumping.await,
            Ok(_) => Err("nothing is to be said while logs are read".to_owned()),
        },
    }
}

/// Why one reading of the log ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// There is no more.
    Over,
    /// It lags behind.
    Lags,
}

/// Numbers pieces as they come: of each output, the time of the last one and how many of that time came before it.
#[derive(Debug, Default)]
struct Numbers([(u64, u32); 2]);

impl Numbers {
    const fn next(&mut self, stderr: bool, at: u64) -> u32 {
        let last = &mut self.0[stderr as usize];
        *last = if last.0 == at { (at, last.1.saturating_add(1)) } else { (at, 0) };
        last.1
    }
}

/// Reads once from a position on, and moves it. A time is read from its first piece on, since the engine counts in seconds.
async fn pump<W: AsyncWrite + Unpin>(
    runtime: &dyn Runtime,
    lease: &str,
    position: &mut LogPosition,
    live: bool,
    write: &mut W,
) -> Result<Ended, String> {
    let since = position.earliest().checked_sub(1);
    let wanted = LogOptions { follow: live, tail: None, since };
    let mut pieces = runtime.logs(lease, wanted).await.map_err(|e| e.to_string())?;
    let mut numbers = Numbers::default();
    let mut continuity = Continuity::of(*position);
    let (begun, mut caught_up) = (Instant::now(), false);
    while let Some(piece) = pieces.next().await {
        let LogChunk { stream, at, bytes } = piece.map_err(|e| e.to_string())?;
        let stderr = stream == OutputStream::Stderr;
        let nth = numbers.next(stderr, at);
        continuity.look(stderr, at, nth);
        if !position.of(stderr).wants(at, nth) {
            continue;
        }
        if continuity.is_broken() {
            send(write, &Frame::Note(DROPPED.to_owned())).await?;
        }
        *position.of_mut(stderr) = LogPoint::after(at, nth);
        // What an engine gives is far shorter; more could not be sent, and would not be output.
        let bytes = bytes.slice(..bytes.len().min(LogPiece::BYTES)).to_vec();
        send(write, &Frame::Log(LogPiece { stderr, at, nth, bytes })).await?;
        let lags = age(at) > LAG;
        caught_up |= !lags;
        if live && lags && (caught_up || begun.elapsed() > CATCH_UP) {
            return Ok(Ended::Lags);
        }
    }
    Ok(Ended::Over)
}

/// How long ago the engine read something.
fn age(at: u64) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_nanos(at))
}

/// Whether the log still has what was read last. If not, nobody knows how much after it is gone, too.
#[derive(Debug)]
enum Continuity {
    /// The piece read last, still to be seen.
    Looking { stderr: bool, point: LogPoint },
    /// It was seen, or there is none, or its absence was told.
    Settled,
}

impl Continuity {
    fn of(position: LogPosition) -> Self {
        let read = [false, true].into_iter().map(|stderr| (stderr, position.of(stderr))).filter(|(_, p)| p.next > 0);
        match read.max_by_key(|(_, point)| point.at) {
            Some((stderr, point)) => Self::Looking { stderr, point },
            None => Self::Settled,
        }
    }

    fn look(&mut self, of: bool, at: u64, nth: u32) {
        if let Self::Looking { stderr, point } = self
            && *stderr == of
            && point.follows(at, nth)
        {
            *self = Self::Settled;
        }
    }

    /// Asked at the first piece that is wanted; says so once.
    fn is_broken(&mut self) -> bool {
        matches!(std::mem::replace(self, Self::Settled), Self::Looking { .. })
    }
}

/// Where reading begins that was not cut off: `since`, or the last lines, whichever is later.
async fn start(runtime: &dyn Runtime, lease: &str, options: Options) -> Result<LogPosition, String> {
    let since = options.since.map_or(0, |t| t.0.saturating_mul(1_000_000));
    let since = LogPosition { stdout: LogPoint::from_time(since), stderr: LogPoint::from_time(since) };
    match options.tail {
        Some(lines) if (lines as usize) < TAIL => {
            let tail = last_lines(runtime, lease, lines).await?;
            Ok(since.later_of(tail))
        }
        Some(_) | None => Ok(since),
    }
}

/// Where the last lines begin. The engine counts pieces, of which a long line has many, so as much is looked at as it takes.
async fn last_lines(runtime: &dyn Runtime, lease: &str, lines: u32) -> Result<LogPosition, String> {
    let mut look_at = lines.saturating_add(TAIL_SLACK);
    loop {
        let options = LogOptions { follow: false, tail: Some(look_at), since: None };
        let mut pieces = runtime.logs(lease, options).await.map_err(|e| e.to_string())?;
        let mut tail = Tail::new(lines as usize);
        let mut seen = 0u32;
        while let Some(piece) = pieces.next().await {
            let chunk = piece.map_err(|e| e.to_string())?;
            tail.take(chunk.stream == OutputStream::Stderr, chunk.at, chunk.bytes.ends_with(b"\n"));
            seen = seen.saturating_add(1);
        }
        if seen < look_at || tail.is_exact() {
            return Ok(tail.position());
        }
        look_at = look_at.saturating_mul(8);
    }
}

/// Finds where the last lines begin, remembering no more than that many places.
#[derive(Debug)]
struct Tail {
    lines: usize,
    numbers: Numbers,
    /// Where each of the last lines begins, and where both outputs stood before it.
    begins: std::collections::VecDeque<LogPosition>,
    /// More lines than are wanted have begun, so that none of these was cut off at the front.
    more: bool,
    inside: [bool; 2],
    position: LogPosition,
}

impl Tail {
    fn new(lines: usize) -> Self {
        Self {
            lines,
            numbers: Numbers::default(),
            begins: std::collections::VecDeque::new(),
            more: false,
            inside: [false; 2],
            position: LogPosition::default(),
        }
    }

    fn take(&mut self, stderr: bool, at: u64, ends: bool) {
        let nth = self.numbers.next(stderr, at);
        if !std::mem::replace(&mut self.inside[usize::from(stderr)], !ends) {
            let mut begin = self.position;
            for other in [false, true] {
                settle(begin.of_mut(other), at);
            }
            *begin.of_mut(stderr) = LogPoint { at, next: nth };
            self.begins.push_back(begin);
            if self.begins.len() > self.lines {
                self.begins.pop_front();
                self.more = true;
            }
        }
        *self.position.of_mut(stderr) = LogPoint::after(at, nth);
    }

    /// Whether the oldest line wanted is surely whole: an older one was seen, too.
    const fn is_exact(&self) -> bool {
        self.more
    }

    fn position(&self) -> LogPosition {
        self.begins.front().copied().unwrap_or_else(|| {
            let mut end = self.position;
            let last = end.stdout.at.max(end.stderr.at);
            for of in [false, true] {
                settle(end.of_mut(of), last);
            }
            end
        })
    }
}

/// Where nothing of an output was seen, what is as late as this is wanted of it.
fn settle(point: &mut LogPoint, at: u64) {
    if point.next == 0 {
        *point = LogPoint::from_time(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(lines: usize, log: &[(bool, u64, bool)]) -> LogPosition {
        let mut tail = Tail::new(lines);
        for (stderr, at, ends) in log {
            tail.take(*stderr, *at, *ends);
        }
        tail.position()
    }

    fn wanted(position: LogPosition, log: &[(bool, u64, bool)]) -> Vec<usize> {
        let mut numbers = Numbers::default();
        let of = |(index, (stderr, at, _)): (usize, &(bool, u64, bool))| {
            let nth = numbers.next(*stderr, *at);
            position.of(*stderr).wants(*at, nth).then_some(index)
        };
        log.iter().enumerate().filter_map(of).collect()
    }

    #[test]
    fn the_last_lines_are_those_that_began_last() {
        // A long line of three pieces at one time, with a line of the other output between them.
        let log = [
            (false, 10, true),
            (true, 11, true),
            (false, 20, false),
            (false, 20, false),
            (true, 20, true),
            (false, 20, true),
            (false, 30, true),
        ];
        assert_eq!(wanted(tail(1, &log), &log), [6]);
        assert_eq!(wanted(tail(2, &log), &log), [4, 5, 6], "what was written from where the last lines begin");
        assert_eq!(wanted(tail(3, &log), &log), [2, 3, 4, 5, 6]);
        assert_eq!(wanted(tail(4, &log), &log), [1, 2, 3, 4, 5, 6]);
        assert_eq!(wanted(tail(9, &log), &log), [0, 1, 2, 3, 4, 5, 6]);
        assert!(wanted(tail(0, &log), &log).is_empty());
    }

    #[test]
    fn what_was_read_last_and_is_gone_is_noticed_once() {
        let mut position = LogPosition::default();
        assert!(!Continuity::of(position).is_broken(), "nothing was read before");
        position.stdout = LogPoint::after(50, 1);
        position.stderr = LogPoint::after(40, 0);
        let mut continuity = Continuity::of(position);
        continuity.look(true, 40, 0);
        continuity.look(false, 50, 0);
        assert!(continuity.is_broken(), "the newest counts");
        assert!(!continuity.is_broken(), "said once");
        let mut continuity = Continuity::of(position);
        continuity.look(false, 50, 1);
        assert!(!continuity.is_broken());
    }
}
