//! What the network task tells its one consumer, and how the consumer answers.

use std::{fmt, time::Duration};

use bytes::Bytes;
use libp2p::{Multiaddr, gossipsub::MessageAcceptance};
use souk_protocol::NodeId;
use tokio::sync::oneshot;

use crate::{
    error::AnswerTooLarge,
    exchange::{Answer, IntakePermit},
    names::Topic,
    streams::PeerStream,
};

/// Something happened. When the queue is full see [`crate::config::Limits::events`].
#[derive(Debug)]
pub enum NetworkEvent {
    /// The node listens on one more address.
    Listening(Multiaddr),
    /// The first connection of a peer, shown to be of this network. Requests and streams work.
    Connected(NodeId),
    /// The last connection of a peer is gone.
    Disconnected(NodeId),
    /// A message of a topic. It is forwarded only when accepted.
    Gossip {
        /// What it is about.
        topic: Topic,
        /// Who forwarded it to us, not its author.
        from: NodeId,
        /// Its bytes: at most [`crate::limits::MAX_GOSSIP_RPC`].
        data: Bytes,
        /// What becomes of it.
        verdict: GossipVerdict,
    },
    /// A peer asks something.
    Request {
        /// Who asks.
        from: NodeId,
        /// Its question: at most [`crate::limits::MAX_REQUEST`] bytes.
        body: Bytes,
        /// Where the answer goes.
        reply: Reply,
    },
    /// Somebody knocks at this private cluster's door: a stranger, or a member. See [`crate::NetworkHandle::knock`].
    Knock {
        /// Who knocks.
        peer: NodeId,
        /// Where it is seen.
        address: Multiaddr,
        /// What it says: at most [`crate::limits::MAX_KNOCK`] bytes.
        body: Bytes,
        /// Where the answer goes: at most [`crate::limits::MAX_KNOCK_ANSWER`] bytes.
        reply: Reply,
    },
    /// A peer opened a stream.
    Stream {
        /// Who opened it.
        from: NodeId,
        /// The stream, accepted already.
        stream: PeerStream,
    },
}

/// Decides about one gossip message. Dropped, it ignores the message. Decide within a few seconds: an older message is no
/// longer forwarded.
pub struct GossipVerdict(oneshot::Sender<MessageAcceptance>);

impl GossipVerdict {
    pub(crate) fn new() -> (Self, oneshot::Receiver<MessageAcceptance>) {
        let (tx, rx) = oneshot::channel();
        (Self(tx), rx)
    }

    /// Valid: forward it.
    pub fn accept(self) {
        self.0.send(MessageAcceptance::Accept).ok();
    }

    /// Of no use, but nobody's fault (clock, order, rate, full book): don't forward it.
    pub fn ignore(self) {
        self.0.send(MessageAcceptance::Ignore).ok();
    }

    /// Invalid everywhere and always (size, encoding, signature, network): don't forward it, and lower its bringer's score.
    pub fn reject(self) {
        self.0.send(MessageAcceptance::Reject).ok();
    }
}

impl fmt::Debug for GossipVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GossipVerdict")
    }
}

/// Answers one request. Dropped, it tells the asker that no answer will come.
pub struct Reply {
    tx: oneshot::Sender<Answer>,
    /// Bytes of the longest answer.
    limit: usize,
    /// Frees the request's share of the intake budget with the reply.
    _held: Option<IntakePermit>,
}

impl Reply {
    pub(crate) fn new(held: Option<IntakePermit>, limit: usize) -> (Self, oneshot::Receiver<Answer>) {
        let (tx, rx) = oneshot::channel();
        (Self { tx, limit, _held: held }, rx)
    }

    /// Sends the answer. It is lost without a word if the asker is gone, as with any request that timed out.
    ///
    /// # Errors
    /// [`AnswerTooLarge`] beyond [`crate::limits::MAX_ANSWER`], or [`crate::limits::MAX_KNOCK_ANSWER`] to a knock; the asker is told that the answer is too large.
    pub fn send(self, body: impl Into<Vec<u8>>) -> Result<(), AnswerTooLarge> {
        let body = body.into();
        let size = body.len();
        if size > self.limit {
            let limit = self.limit;
            self.tx.send(Answer::TooLarge).ok();
            return Err(AnswerTooLarge { size, limit });
        }
        self.tx.send(Answer::Body(body)).ok();
        Ok(())
    }

    /// Tells the asker to come back later.
    pub fn busy(self, retry_after: Duration) {
        self.tx.send(Answer::Busy(retry_after)).ok();
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply")
    }
}
