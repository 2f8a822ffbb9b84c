//! Output of an instance for one reader: streams from its host one after the other, joined without gap or repeat.
//!
//! Owns the reader's place. A reader that follows outlives lost links, restarts of the host's node and engine, and pauses of the
//! instance; it ends when the instance's command ends by itself, when the lease is over, or when the reader goes.

use std::{io, time::Duration};

use bytes::Bytes;
use souk_protocol::{
    LeaseId,
    lease::{LeaseState, PauseReason},
    limits,
    logs::{LogPiece, LogPoint, LogPosition},
    message::Frame,
};
use tokio::{sync::mpsc, time::sleep};

use super::{
    frames,
    types::{LeaseDetail, LogsRequest},
};
use crate::market::{
    Command, CommandError, ErrorCode, MarketHandle,
    command::{ByteStream, LeaseSelector},
};

/// Frames that the reader has not taken. When full, the host waits, and its log is the buffer.
const FRAMES: usize = 8;
/// Between two attempts to go on: the first, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// Between two looks at a lease that does not run.
const LOOK: Duration = Duration::from_secs(1);

/// One reader.
struct Reader {
    market: MarketHandle,
    lease: LeaseId,
    request: LogsRequest,
    position: LogPosition,
    /// Whether anything has been read: from then on the place counts, not what was asked for first.
    placed: bool,
    line_begins: [bool; 2],
    told: Option<String>,
    out: mpsc::Sender<io::Result<Bytes>>,
}

/// Why a stream from the host has ended.
enum Ended {
    /// There is no more for now.
    Over,
    /// The host says so.
    Refused(String),
    /// The stream broke.
    Lost(String),
}

/// The reader has gone.
struct Gone;

/// What a reader that follows waits for.
enum Next {
    /// Try again.
    Again,
    /// Nothing: it has been told the end.
    End,
}

/// Begins to read, and gives the bytes of the frames for the reader. What can be refused at once, is.
pub(super) async fn read(
    market: MarketHandle,
    id: LeaseSelector,
    request: LogsRequest,
) -> Result<mpsc::Receiver<io::Result<Bytes>>, CommandError> {
    let detail: LeaseDetail = market.ask(|reply| Command::Lease { id, reply }).await?;
    let lease = detail.view.lease;
    let (out, bytes) = mpsc::channel(FRAMES);
    let mut reader = Reader {
        market,
        lease,
        request,
        position: LogPosition::default(),
        placed: false,
        line_begins: [true; 2],
        told: None,
        out,
    };
    let first = match reader.open().await {
        Ok(stream) => Some(stream),
        Err(error) if request.follow && error.code == ErrorCode::Unreachable => None,
        Err(error) => return Err(error),
    };
    tokio::spawn(async move {
        let gone = reader.out.clone();
        tokio::select! {
            _ = reader.run(first) => {}
            () = gone.closed() => {}
        }
    });
    Ok(bytes)
}

impl Reader {
    async fn open(&self) -> Result<ByteStream, CommandError> {
        let (id, request) = (LeaseSelector(self.lease.to_string()), self.request);
        let from = self.placed.then_some(self.position);
        // Our side stays open while we read: that is how the host knows that somebody does.
        self.market.ask(|reply| Command::Logs { id, request, from, reply }).await
    }

    async fn run(&mut self, mut stream: Option<ByteStream>) -> Result<(), Gone> {
        let mut wait = RETRY.0;
        loop {
            let ended = match stream.take() {
                Some(stream) => {
                    let before = self.position;
                    let ended = self.pump(stream).await?;
                    if self.position != before {
                        wait = RETRY.0;
                    }
                    ended
                }
                None => match self.open().await {
                    Ok(opened) => {
                        stream = Some(opened);
                        continue;
                    }
                    Err(error) => Ended::Lost(error.message),
                },
            };
            if !self.request.follow {
                return match ended {
                    Ended::Over => self.end().await,
                    Ended::Refused(sentence) => self.send(&Frame::Error(sentence)).await,
                    Ended::Lost(why) => {
                        self.send(&Frame::Error(format!("the connection to the host was lost: {why}"))).await
                    }
                };
            }
            if matches!(self.next(ended).await?, Next::End) {
                return Ok(());
            }
            sleep(wait).await;
            wait = (wait * 2).min(RETRY.1);
        }
    }

    /// What to do after a stream's end: by how the lease stands.
    async fn next(&mut self, ended: Ended) -> Result<Next, Gone> {
        loop {
            let id = LeaseSelector(self.lease.to_string());
            let state = match self.market.ask(|reply| Command::Lease { id, reply }).await {
                Ok(detail) => detail.view.state,
                // The node stops, or is busy.
                Err(_) => return Ok(Next::Again),
            };
            match (state, &ended) {
                (LeaseState::Kept, _) => {
                    self.note("nothing runs in a volume, so it has no output".to_owned()).await?;
                    return self.end().await.map(|()| Next::End);
                }
                (LeaseState::Ended(_), _) => {
                    self.note(format!("the lease is over: {state}")).await?;
                    return self.end().await.map(|()| Next::End);
                }
                (LeaseState::Paused(PauseReason::Exited), Ended::Over) => return self.end().await.map(|()| Next::End),
                (
                    LeaseState::Paused(PauseReason::Exited) | LeaseState::Running,
                    Ended::Refused(why) | Ended::Lost(why),
                ) => {
                    self.note(format!("{why}; waiting for the host")).await?;
                    return Ok(Next::Again);
                }
                (LeaseState::Running, Ended::Over) => return Ok(Next::Again),
                (LeaseState::Preparing | LeaseState::Paused(_), _) => {
                    self.note(format!("the instance is {state}; its output goes on when it runs")).await?;
                    sleep(LOOK).await;
                }
            }
        }
    }

    /// Passes frames on until the stream ends.
    async fn pump(&mut self, mut stream: ByteStream) -> Result<Ended, Gone> {
        loop {
            match frames::read(&mut stream).await {
                Ok(Some(Frame::Log(piece))) => {
                    *self.position.of_mut(piece.stderr) = LogPoint::after(piece.at, piece.nth);
                    self.told = None;
                    for frame in self.shown(piece) {
                        self.send(&frame).await?;
                    }
                }
                Ok(Some(Frame::Place(position))) => (self.position, self.placed) = (position, true),
                Ok(Some(Frame::Note(sentence))) => self.send(&Frame::Note(sentence)).await?,
                Ok(Some(Frame::Exit(_))) => return Ok(Ended::Over),
                Ok(Some(Frame::Error(sentence))) => return Ok(Ended::Refused(sentence)),
                Ok(Some(
                    Frame::Open(_)
                    | Frame::Stdin(_)
                    | Frame::StdinEnd
                    | Frame::Stdout(_)
                    | Frame::Stderr(_)
                    | Frame::Resize(..)
                    | Frame::Ready,
                )) => return Ok(Ended::Refused("the host's answer makes no sense".to_owned())),
                Ok(None) => return Ok(Ended::Lost("the stream from the host ended".to_owned())),
                Err(error) => return Ok(Ended::Lost(format!("the stream from the host broke: {error}"))),
            }
        }
    }

    /// A piece as the reader wants it.
    fn shown(&mut self, piece: LogPiece) -> Vec<Frame> {
        let LogPiece { stderr, at, bytes, .. } = piece;
        let begins = std::mem::replace(&mut self.line_begins[usize::from(stderr)], bytes.ends_with(b"\n"));
        let mut text = Vec::with_capacity(bytes.len() + 40);
        if self.request.timestamps && begins {
            let at = std::time::UNIX_EPOCH + Duration::from_nanos(at);
            text.extend_from_slice(humantime::format_rfc3339_nanos(at).to_string().as_bytes());
            text.push(b' ');
        }
        text.extend_from_slice(&bytes);
        let frame = |part: &[u8]| if stderr { Frame::Stderr(part.to_vec()) } else { Frame::Stdout(part.to_vec()) };
        text.chunks(limits::FRAME_BYTES).map(frame).collect()
    }

    /// A word to the reader, once until something else happens.
    async fn note(&mut self, sentence: String) -> Result<(), Gone> {
        if self.told.as_ref() == Some(&sentence) {
            return Ok(());
        }
        self.told = Some(sentence.clone());
        self.send(&Frame::Note(sentence)).await
    }

    async fn end(&self) -> Result<(), Gone> {
        self.send(&Frame::Exit(0)).await
    }

    async fn send(&self, frame: &Frame) -> Result<(), Gone> {
        self.out.send(Ok(Bytes::from(frame.to_bytes()))).await.map_err(|_| Gone)
    }
}
