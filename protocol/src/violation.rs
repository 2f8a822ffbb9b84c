//! What a peer did wrong, and what to do about it.

use crate::{id::NodeId, signed::VerifyError};

/// A breach of the protocol by a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Bytes that no honest node sends.
    #[error("{peer} sent {what}: {why}")]
    Malformed {
        /// Who.
        peer: NodeId,
        /// What kind of message.
        what: &'static str,
        /// In which way.
        why: String,
    },
    /// A document that does not verify.
    #[error("{peer} sent a document that does not verify: {why}")]
    Unverified {
        /// Who.
        peer: NodeId,
        /// In which way.
        why: VerifyError,
    },
    /// A message about a lease that is not between us.
    #[error("{peer} spoke about a lease that is not ours with it")]
    NotAParty {
        /// Who.
        peer: NodeId,
    },
    /// An answer that does not fit the question.
    #[error("{peer} gave an answer that does not fit the question: {why}")]
    WrongAnswer {
        /// Who.
        peer: NodeId,
        /// In which way.
        why: &'static str,
    },
    /// A receipt that can't be right: shrinking counters, a wrong sum, a number used twice.
    #[error("{peer} sent a false receipt: {why}")]
    FalseReceipt {
        /// Who.
        peer: NodeId,
        /// In which way.
        why: &'static str,
    },
}

impl Violation {
    /// Who did it.
    #[must_use]
    pub const fn peer(&self) -> NodeId {
        match self {
            Self::Malformed { peer, .. }
            | Self::Unverified { peer, .. }
            | Self::NotAParty { peer }
            | Self::WrongAnswer { peer, .. }
            | Self::FalseReceipt { peer, .. } => *peer,
        }
    }
}
