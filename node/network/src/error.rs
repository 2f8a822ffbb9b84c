//! What can go wrong, one enum for each operation, in words a user understands.

use std::time::Duration;

use libp2p::{Multiaddr, core::upgrade::NegotiationError};

/// The network could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting can't be used.
    #[error("the network can't be started with these settings: {0}")]
    Config(String),
    /// An address can't be listened on.
    #[error("can't listen on {address}; is the port taken by another program, or the address not of this machine?")]
    Listen {
        /// The address.
        address: Multiaddr,
        /// What the system said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is no tokio runtime to run on.
    #[error("the network must be started from within a tokio runtime")]
    NoRuntime,
}

/// A request got no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// There is no connection to the peer and no address of it is known.
    #[error("the peer is not connected and nobody we asked knows an address of it")]
    NotConnected,
    /// The peer's addresses were tried and none answered.
    #[error("the peer can't be reached: {0}")]
    Unreachable(String),
    /// No answer came in time. The peer may have acted on the request.
    #[error("the peer did not answer within {0:?}; it may have acted on the request")]
    Timeout(Duration),
    /// The peer has too much to do.
    #[error("the peer is busy; ask again in {retry_after:?}")]
    Busy {
        /// How long the peer asks to be left alone.
        retry_after: Duration,
    },
    /// The request is larger than the protocol allows. Nothing was sent, or the peer refused it unread.
    #[error("a request of {size} bytes is larger than the {limit} that the protocol allows")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The peer's answer would be larger than the protocol allows.
    #[error("the answer is larger than the protocol allows; ask for less at once")]
    AnswerTooLarge,
    /// The peer read the request and gave it up without an answer.
    #[error("the peer took the request and gave no answer to it")]
    NoAnswer,
    /// The peer speaks no protocol of this network.
    #[error("the peer is not of this network, or speaks another version of its protocol")]
    Unsupported,
    /// The connection was lost before the answer. The peer may have acted on the request.
    #[error("the connection to the peer was lost before it answered; it may have acted on the request")]
    Disconnected,
    /// What the peer sent is not an answer.
    #[error("the peer's answer breaks the protocol: {0}")]
    Malformed(String),
    /// This node's network has stopped.
    #[error("this node's network has stopped")]
    Closed,
}

/// A stream could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// There is no connection to the peer. Streams never dial by themselves.
    #[error("the peer is not connected")]
    NotConnected,
    /// The peer did not accept the stream in time.
    #[error("the peer did not accept the stream within {0:?}")]
    Timeout(Duration),
    /// The peer refused the stream: it has as many as it can take.
    #[error("the peer has as many streams as it can take; try again in a moment")]
    Busy,
    /// This node waits for too many streams to open already.
    #[error("too many streams are being opened to this peer; wait for some of them")]
    TooMany,
    /// The peer speaks no protocol of this network.
    #[error("the peer is not of this network, or speaks another version of its protocol")]
    Unsupported,
    /// The connection was lost while the stream was being opened.
    #[error("the connection to the peer was lost while the stream was being opened")]
    Disconnected,
    /// What the peer sent is not the status of a stream.
    #[error("the peer broke the protocol while the stream was being opened: {0}")]
    Malformed(String),
    /// This node's network has stopped.
    #[error("this node's network has stopped")]
    Closed,
}

/// A message could not be published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The message is larger than gossip carries.
    #[error("a message of {size} bytes is larger than the {limit} that gossip carries")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// This node's network has stopped.
    #[error("this node's network has stopped")]
    Closed,
}

/// A peer could not be dialled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// No connection came about.
    #[error("no connection to that address: {0}")]
    Failed(String),
    /// This node's network has stopped.
    #[error("this node's network has stopped")]
    Closed,
}

/// An answer was too large to send; the asker was told so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an answer of {size} bytes is larger than the {limit} that the protocol allows; the asker was told")]
pub struct AnswerTooLarge {
    /// Its size in bytes.
    pub size: usize,
    /// The limit in bytes.
    pub limit: usize,
}

/// The network task has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this node's network has stopped")]
pub struct Closed;

/// Whether an I/O error of a lazily negotiated stream says that the peer does not speak its protocol.
pub(crate) fn is_unsupported(error: &std::io::Error) -> bool {
    error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<NegotiationError>())
        .is_some_and(|e| matches!(e, NegotiationError::Failed))
}

/// A dial error in a few words: libp2p's own names every address twice.
pub(crate) fn dial_reason(error: &libp2p::swarm::DialError) -> String {
    use libp2p::swarm::DialError as E;
    match error {
        E::LocalPeerId { .. } => "that address is this node's own".to_owned(),
        E::NoAddresses => "no address is known".to_owned(),
        E::DialPeerConditionFalse(_) => "it is connected or being dialled already".to_owned(),
        E::Aborted => "the attempt was given up".to_owned(),
        E::WrongPeerId { obtained, address } => {
            format!("at {address} there is another node, {obtained}")
        }
        E::Denied { cause } => format!("refused by this node: {}", deepest(cause)),
        E::Transport(tried) => {
            let mut reasons: Vec<String> =
                tried.iter().take(3).map(|(address, e)| format!("{address}: {}", deepest(e))).collect();
            if tried.len() > 3 {
                reasons.push(format!("and {} more addresses", tried.len() - 3));
            }
            reasons.join("; ")
        }
    }
}

/// The innermost cause, which says what happened; the outer layers only say which transport it happened in.
fn deepest(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    // An error chain is as long as its layers of wrapping; 16 is beyond any.
    for _ in 0..16 {
        match error.source() {
            Some(source) => error = source,
            None => break,
        }
    }
    error.to_string()
}
