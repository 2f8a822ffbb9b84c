//! The streams of one connection: opening them one after another, and letting others' in while there is room.
//!
//! Owns the status byte on both sides and the two bounds of inbound streams.

use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt, io,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{AsyncReadExt, AsyncWriteExt, FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use libp2p::{
    Stream, StreamProtocol,
    core::upgrade::ReadyUpgrade,
    swarm::{
        ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol,
        handler::{ConnectionEvent, DialUpgradeError},
    },
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::timeout,
};

use super::stream::{Held, InUse, PeerStream};
use crate::{
    error::{StreamError, is_unsupported},
    event::NetworkEvent,
    limits::{MAX_WAITING_OPENS, OPENING, STREAM_OPEN_TIMEOUT, STREAMS_PER_CONNECTION},
    status::Counters,
};

const ACCEPTED: u8 = 1;
const BUSY: u8 = 2;

/// Streams whose status byte is being written. A peer that does not read it can hold no more than this; the rest are reset.
const MAX_ANSWERING: usize = 2 * OPENING;

/// Where room for an inbound stream comes from.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    /// Accepted streams that the consumer has not touched, over all connections.
    pub(super) queue: Arc<Semaphore>,
    /// The consumer's queue, in which a place is reserved before a stream is accepted.
    pub(super) events: mpsc::Sender<NetworkEvent>,
    pub(super) counters: Arc<Counters>,
}

/// A stream to open, and where its outcome goes.
pub(crate) struct Opening(pub(super) oneshot::Sender<Result<PeerStream, StreamError>>);

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opening")
    }
}

/// An inbound stream that was accepted, with its place in the consumer's queue.
pub(crate) struct Admitted {
    pub(crate) stream: PeerStream,
    pub(crate) place: mpsc::OwnedPermit<NetworkEvent>,
}

impl fmt::Debug for Admitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Admitted")
    }
}

/// What an inbound stream holds while it is being accepted.
struct Room {
    place: mpsc::OwnedPermit<NetworkEvent>,
    queued: OwnedSemaphorePermit,
    alive: OwnedSemaphorePermit,
}

/// See the module.
pub(crate) struct Handler {
    protocol: StreamProtocol,
    gate: Gate,
    /// Inbound streams alive on this connection.
    alive: Arc<Semaphore>,
    in_use: Arc<InUse>,
    waiting: VecDeque<Opening>,
    /// Asked of the connection and not negotiated yet.
    negotiating: usize,
    opening: FuturesUnordered<BoxFuture<'static, ()>>,
    answering: FuturesUnordered<BoxFuture<'static, Option<Admitted>>>,
}

impl Handler {
    pub(super) fn new(protocol: StreamProtocol, gate: Gate, in_use: Arc<InUse>) -> Self {
        Self {
            protocol,
            gate,
            in_use,
            alive: Arc::new(Semaphore::new(STREAMS_PER_CONNECTION)),
            waiting: VecDeque::new(),
            negotiating: 0,
            opening: FuturesUnordered::new(),
            answering: FuturesUnordered::new(),
        }
    }

    fn room(&self) -> Option<Room> {
        let alive = Arc::clone(&self.alive).try_acquire_owned().ok()?;
        let queued = Arc::clone(&self.gate.queue).try_acquire_owned().ok()?;
        let place = self.gate.events.clone().try_reserve_owned().ok()?;
        Some(Room { place, queued, alive })
    }

    fn inbound(&mut self, mut stream: Stream) {
        let counters = Arc::clone(&self.gate.counters);
        if self.answering.len() >= MAX_ANSWERING {
            counters.streams_refused.one();
            return;
        }
        let room = self.room();
        let in_use = Arc::clone(&self.in_use);
        let answer = async move {
            let Some(room) = room else {
                counters.streams_refused.one();
                say(&mut stream, BUSY).await.ok()?;
                stream.close().await.ok();
                return None;
            };
            say(&mut stream, ACCEPTED).await.ok()?;
            counters.streams_accepted.one();
            let held = Held { untouched: Some(room.queued), _alive: Some(room.alive), connection: in_use };
            Some(Admitted { stream: PeerStream::new(stream, held, counters), place: room.place })
        };
        self.answering.push(timeout(STREAM_OPEN_TIMEOUT, answer).map(|in_time| in_time.ok().flatten()).boxed());
    }

    fn outbound(&mut self, mut stream: Stream, Opening(mut reply): Opening) {
        self.negotiating = self.negotiating.saturating_sub(1);
        let counters = Arc::clone(&self.gate.counters);
        let held = Held { untouched: None, _alive: None, connection: Arc::clone(&self.in_use) };
        let open = async move {
            let mut status = [0];
            let read = tokio::select! {
                read = timeout(STREAM_OPEN_TIMEOUT, stream.read_exact(&mut status)) => read,
                () = reply.closed() => return,
            };
            let outcome = match read {
                Err(_) => Err(StreamError::Timeout(STREAM_OPEN_TIMEOUT)),
                Ok(Err(e)) => Err(stream_error(&e)),
                Ok(Ok(())) => match status[0] {
                    ACCEPTED => {
                        counters.streams_opened.one();
                        Ok(PeerStream::new(stream, held, counters))
                    }
                    BUSY => Err(StreamError::Busy),
                    other => Err(StreamError::Malformed(format!("unknown status {other}"))),
                },
            };
            reply.send(outcome).ok();
        };
        self.opening.push(open.boxed());
    }

    fn failed(
        &mut self,
        DialUpgradeError { info: Opening(reply), error }: DialUpgradeError<Opening, ReadyUpgrade<StreamProtocol>>,
    ) {
        self.negotiating = self.negotiating.saturating_sub(1);
        let error = match error {
            StreamUpgradeError::Timeout => StreamError::Timeout(STREAM_OPEN_TIMEOUT),
            StreamUpgradeError::NegotiationFailed => StreamError::Unsupported,
            StreamUpgradeError::Io(e) => stream_error(&e),
            StreamUpgradeError::Apply(never) => match never {},
        };
        reply.send(Err(error)).ok();
    }
}

async fn say(stream: &mut Stream, status: u8) -> io::Result<()> {
    stream.write_all(&[status]).await?;
    stream.flush().await
}

fn stream_error(error: &io::Error) -> StreamError {
    if is_unsupported(error) {
        StreamError::Unsupported
    } else if error.kind() == io::ErrorKind::InvalidData {
        StreamError::Malformed(error.to_string())
    } else {
        StreamError::Disconnected
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Opening;
    type ToBehaviour = Admitted;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Opening;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(self.protocol.clone()), ())
    }

    fn on_behaviour_event(&mut self, opening: Opening) {
        if self.waiting.len() >= MAX_WAITING_OPENS {
            opening.0.send(Err(StreamError::TooMany)).ok();
        } else {
            self.waiting.push_back(opening);
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Opening, Admitted>> {
        while let Poll::Ready(Some(())) = self.opening.poll_next_unpin(cx) {}
        while let Poll::Ready(Some(admitted)) = self.answering.poll_next_unpin(cx) {
            if let Some(admitted) = admitted {
                return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(admitted));
            }
        }
        while self.negotiating + self.opening.len() < OPENING {
            let Some(opening) = self.waiting.pop_front() else {
                break;
            };
            if opening.0.is_closed() {
                continue;
            }
            self.negotiating += 1;
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(ReadyUpgrade::new(self.protocol.clone()), opening)
                    .with_timeout(STREAM_OPEN_TIMEOUT),
            });
        }
        Poll::Pending
    }

    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "libp2p's events are open-ended; the rest concern addresses and protocol lists"
    )]
    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), Opening>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(e) => self.inbound(e.protocol),
            ConnectionEvent::FullyNegotiatedOutbound(e) => self.outbound(e.protocol, e.info),
            ConnectionEvent::DialUpgradeError(e) => self.failed(e),
            ConnectionEvent::ListenUpgradeError(e) => {
                let never: Infallible = e.error;
                match never {}
            }
            _ => {}
        }
    }
}
