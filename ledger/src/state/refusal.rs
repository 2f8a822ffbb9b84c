//! Why a record can't follow those before it.

use souk_protocol::{LeaseId, encode::DecodeError, money::Overflow, signed::VerifyError};

use crate::{chain::NoFork, store::KvError};

/// A record that is not taken; nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is between other nodes.
    #[error("the record is between other nodes")]
    NotOurs,
    /// It is about a lease nobody opened.
    #[error("the record is about the unknown lease {}", .0.short())]
    UnknownLease(LeaseId),
    /// Its author or peer is not a party of the lease, or not the one who may say this.
    #[error("the record is not its author's to make")]
    NotItsAuthors,
    /// It breaks the rules of the author's chain.
    #[error("the entry does not fit its chain: {0}")]
    Chain(&'static str),
    /// Writing it would make this node contradict itself.
    #[error("the record would contradict one this node has signed: {0}")]
    WouldFork(&'static str),
    /// The lease is past the point at which this could be said.
    #[error("the record does not fit the lease: {0}")]
    Lease(&'static str),
    /// A usage or acknowledgement with wrong numbers.
    #[error("the receipt is false: {0}")]
    Receipt(&'static str),
    /// A payment, or the answer to one, with wrong numbers.
    #[error("the payment does not fit those before it: {0}")]
    Payment(&'static str),
    /// The draft inside an open is not the host's.
    #[error("the draft in the open does not verify")]
    Draft(#[source] VerifyError),
    /// A document inside does not decode.
    #[error("the record does not decode")]
    Decode(#[source] DecodeError),
    /// The amount due overflows.
    #[error("the receipt is false")]
    Overflow(#[source] Overflow),
    /// A proof that proves nothing.
    #[error("the proof of a fork proves nothing")]
    NoFork(#[source] NoFork),
    /// A private row is too large.
    #[error("the private record is too large or has no key")]
    Private,
    /// The record is longer than the journal takes.
    #[error("the record has {0} bytes, more than the journal takes")]
    TooLong(usize),
}

/// Why a record was not folded.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// It can't follow.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] KvError),
}
