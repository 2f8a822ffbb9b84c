//! A copy from one instance to another of the same renter, on this host: the bytes never leave it.
//!
//! The helpers in the two instances talk to each other as they would through the renter's machine. This node passes their words on
//! and reads along for the renter to see how it goes; it opens no path, and takes neither at its word.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::StreamExt as _;
use souk_protocol::{LeaseId, limits, message::Frame};
use souk_runtime::{ExecInput, ExecSession, OutputStream, Runtime};
use souk_transfer::{
    Progress, Summary,
    relay::{self, Last, Tap},
    wire::Message,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    time::{MissedTickBehavior, interval},
};

use super::{read_frame, send};

/// How often the renter hears how far it is.
const TELL_EVERY: Duration = Duration::from_millis(200);
/// Bytes of a helper's own words that are kept.
const WORDS: usize = 2048;
/// How long a helper that has heard the last word may take to end.
const LAST_WITHIN: Duration = Duration::from_secs(5);

/// Copies from the first lease's instance to the second's. The renter's first two frames are for the source and the sink.
///
/// # Errors
/// A sentence for the renter.
pub(super) async fn between<S>(
    runtime: &dyn Runtime,
    (from, to): (LeaseId, LeaseId),
    user: Option<String>,
    stream: &mut S,
) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    if from == to {
        return Err("both sides of the copy are the same instance; use cp in it (souk exec)".to_owned());
    }
    let mut first = Vec::with_capacity(2);
    for _ in 0..2 {
        match tokio::time::timeout(super::OPEN_WITHIN, read_frame(stream)).await {
            Ok(Ok(Some(Frame::Stdin(bytes)))) => first.push(bytes),
            Ok(_) => return Err("a copy begins with what is wanted of both sides".to_owned()),
            Err(_) => return Err("nothing was asked for in time".to_owned()),
        }
    }
    let (from, to) = (from.to_string(), to.to_string());
    let (source, sink) =
        tokio::try_join!(runtime.files(&from, user.clone()), runtime.files(&to, user)).map_err(|e| e.to_string())?;
    let progress = Arc::new(Progress::default());
    let (mut read, mut write) = tokio::io::split(stream);
    let mut copy = pin!(connect(source, sink, &first, &progress));
    let mut gone = pin!(async move { while let Ok(1..) = read.read(&mut [0; 64]).await {} });
    let mut tell = interval(TELL_EVERY);
    tell.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let ended = loop {
        tokio::select! {
            ended = &mut copy => break ended,
            () = &mut gone => return Ok(()),
            _ = tell.tick() => send(&mut write, &Frame::Stdout(relay::told(&progress))).await?,
        }
    };
    let mut last = relay::told(&progress);
    match ended {
        Ok(summary) => last.extend(Message::Done(summary).to_bytes()),
        Err(Ended::Given { full, why }) => last.extend(Message::Failed { full, why }.to_bytes()),
        Err(Ended::Cut(why)) => return Err(why),
    }
    for piece in last.chunks(limits::FRAME_BYTES) {
        send(&mut write, &Frame::Stdout(piece.to_vec())).await?;
    }
    // The renter closes when it has heard that.
    tokio::time::timeout(LAST_WITHIN, gone).await.ok();
    Ok(())
}

/// Why a copy ended early.
enum Ended {
    /// A side gave up, or broke the rules.
    Given { full: bool, why: String },
    /// A side is gone.
    Cut(String),
}

impl From<souk_transfer::Error> for Ended {
    fn from(error: souk_transfer::Error) -> Self {
        let full = matches!(error, souk_transfer::Error::Full(_));
        Self::Given { full, why: error.to_string() }
    }
}

async fn connect(
    source: ExecSession,
    sink: ExecSession,
    first: &[Vec<u8>],
    progress: &Progress,
) -> Result<Summary, Ended> {
    let ExecSession { output: mut from_source, input: mut to_source, control: _source } = source;
    let ExecSession { output: mut from_sink, input: mut to_sink, control: _sink } = sink;
    for (input, open) in [&mut to_source, &mut to_sink].into_iter().zip(first) {
        input.write(open).await.map_err(|_| Ended::Cut("a side of the copy ended before it began".to_owned()))?;
    }
    let (finished, ignored) = (AtomicBool::new(false), AtomicBool::new(false));
    let forward = async {
        one_way(&mut from_source, &mut to_sink, Tap::default(), progress, &finished).await?;
        std::future::pending::<Result<Summary, Ended>>().await
    };
    let back = async {
        let summary = one_way(&mut from_sink, &mut to_source, Tap::of_sink(), progress, &ignored).await?;
        summary.ok_or(Ended::Given { full: false, why: "the sink ended like a source".to_owned() })
    };
    let summary = tokio::select! {
        ended = forward => ended?,
        ended = back => ended?,
    };
    if !finished.load(Relaxed) {
        return Err(Ended::Given { full: false, why: "it was done before everything was sent".to_owned() });
    }
    Ok(summary)
}

/// Passes on what one side says until its last word.
async fn one_way(
    from: &mut souk_runtime::exec::ExecOutput,
    to: &mut ExecInput,
    mut tap: Tap,
    progress: &Progress,
    finished: &AtomicBool,
) -> Result<Option<Summary>, Ended> {
    let mut words = Vec::new();
    while let Some(piece) = from.next().await {
        let (stream, bytes) = piece.map_err(|e| Ended::Cut(format!("a side of the copy was lost: {e}")))?;
        if stream == OutputStream::Stderr {
            words.extend(bytes.iter().take(WORDS.saturating_sub(words.len())));
            continue;
        }
        let last = tap.take(&bytes, progress);
        // Known before the other side can answer it.
        finished.fetch_or(matches!(last, Ok(Some(Last::Finished))), Relaxed);
        // A side that gives up is heard by the other, too.
        let written = to.write(&bytes).await;
        match last? {
            Some(Last::Finished) => return Ok(None),
            Some(Last::Done(summary)) => return Ok(Some(summary)),
            None if written.is_err() => {
                // What the other side said last comes the other way.
                return std::future::pending().await;
            }
            None => {}
        }
    }
    let words = souk_transfer::shown(words.trim_ascii());
    Err(Ended::Cut(if words.is_empty() { "a side of the copy ended early".to_owned() } else { words }))
}
