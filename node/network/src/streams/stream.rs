//! One open stream.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::OwnedSemaphorePermit,
};
use tokio_util::{
    compat::{Compat, FuturesAsyncReadCompatExt},
    sync::{CancellationToken, WaitForCancellationFutureOwned},
};

use crate::status::{Counters, Traffic};

/// Held by each stream of a connection, and by each that is being opened: what goes over them together.
#[derive(Debug, Default)]
pub(super) struct InUse {
    pub(super) traffic: Traffic,
    /// The connection is closed.
    pub(super) gone: CancellationToken,
}

/// What a stream holds of the bounds on inbound streams, and of its connection.
#[derive(Debug)]
pub(super) struct Held {
    /// Until the consumer first reads or writes.
    pub(super) untouched: Option<OwnedSemaphorePermit>,
    /// For as long as the stream lives.
    pub(super) _alive: Option<OwnedSemaphorePermit>,
    /// Shows that its connection is in use.
    pub(super) connection: Arc<InUse>,
}

/// A stream of bytes to or from a peer, encrypted and authenticated by its connection. `shutdown` closes this side only: the
/// other may go on sending. Dropped before that, it is given up: what was not flushed is lost, and the peer may read an error or
/// a clean end, depending on the transport. Who must tell a loss from an end sends an end mark of its own.
pub struct PeerStream {
    io: Compat<libp2p::Stream>,
    held: Held,
    counters: Arc<Counters>,
    /// yamux wakes nobody when this side closes the connection: whoever waits would wait for ever.
    /// None once it is closed.
    gone: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl PeerStream {
    pub(super) fn new(stream: libp2p::Stream, held: Held, counters: Arc<Counters>) -> Self {
        let gone = Some(Box::pin(held.connection.gone.clone().cancelled_owned()));
        Self { io: stream.compat(), held, counters, gone }
    }

    /// What came of an attempt, or that nothing will come of it any more.
    fn unless_gone<T>(&mut self, cx: &mut Context<'_>, attempt: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if attempt.is_ready() {
            return attempt;
        }
        let Some(gone) = self.gone.as_mut() else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        ready!(gone.as_mut().poll(cx));
        self.gone = None;
        Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
    }
}

impl fmt::Debug for PeerStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeerStream")
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.held.untouched = None;
        let before = buf.filled().len();
        let attempt = Pin::new(&mut self.io).poll_read(cx, buf);
        ready!(self.unless_gone(cx, attempt))?;
        let length = buf.filled().len() - before;
        self.counters.bytes_in.add(length);
        self.held.connection.traffic.received.add(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.held.untouched = None;
        let attempt = Pin::new(&mut self.io).poll_write(cx, buf);
        let written = ready!(self.unless_gone(cx, attempt))?;
        self.counters.bytes_out.add(written);
        self.held.connection.traffic.sent.add(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let attempt = Pin::new(&mut self.io).poll_flush(cx);
        self.unless_gone(cx, attempt)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.held.untouched = None;
        let attempt = Pin::new(&mut self.io).poll_shutdown(cx);
        self.unless_gone(cx, attempt)
    }
}
