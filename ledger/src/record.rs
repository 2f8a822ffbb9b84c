//! What one record of the journal says.
//!
//! Owns the records' encoding. A [`Fact`] is a record that may be written: its documents have been verified. A [`Record`] is
//! one as read back, whose bytes the journal's checksum vouches for and whose signatures [`crate::verify`] checks.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use souk_protocol::{
    DocumentId, LeaseId, NetworkId, NodeId, Timestamp,
    encode::{self, DecodeError},
    entry::Entry,
    fork::ForkProof,
    lease::LeaseState,
    message::LeaseEvent,
    receipt::{Ack, Usage},
    signed::{Document, Signed, Verified},
};

use crate::journal::RECORD_BYTES;

/// Bytes of a private row's key.
pub const PRIVATE_KEY_BYTES: usize = 128;

/// What a node remembers for itself. Never exported. Secrets in it are sealed by the caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Private {
    /// A lease's workload: command, environment, keys, sealed by the caller.
    Workload {
        /// Which lease.
        lease: LeaseId,
        /// The sealed bytes.
        #[serde(with = "serde_bytes")]
        sealed: Vec<u8>,
    },
    /// A lease went into a state.
    State {
        /// Which lease.
        lease: LeaseId,
        /// When.
        time: Timestamp,
        /// Which state.
        state: LeaseState,
    },
    /// A step of a lease. The last [`souk_protocol::limits::EVENTS_PER_LEASE`] are kept; a number already there is ignored.
    Event {
        /// Which lease.
        lease: LeaseId,
        /// The step.
        event: LeaseEvent,
    },
    /// A lease's name for people.
    Label {
        /// Which lease.
        lease: LeaseId,
        /// The name, without control characters; empty for none.
        text: String,
    },
    /// A row of the caller's own, or its end.
    Row {
        /// The row's key, at most [`PRIVATE_KEY_BYTES`] bytes.
        #[serde(with = "serde_bytes")]
        key: Vec<u8>,
        /// Its value; none removes it.
        value: Option<serde_bytes::ByteBuf>,
    },
    /// Our chain goes on after this entry of it, which others have seen, and which may never be here again: the ledger was
    /// restored from an older copy. A chain that is as long already goes on where it is. From here on numbers of our own entries and
    /// usages may be missing.
    Resume {
        /// The entry's number.
        seq: u64,
        /// The entry.
        id: DocumentId,
        /// No later entry is dated before this.
        time: Timestamp,
    },
    /// The proof that this author has contradicted itself is not kept any more: those about others matter more.
    ForkGone {
        /// The author.
        author: NodeId,
    },
}

/// A record as it lies in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// An entry of an author chain: our own, or a counterparty's.
    Entry(Signed<Entry>),
    /// A host's usage.
    Usage(Signed<Usage>),
    /// A renter's acknowledgement.
    Ack(Signed<Ack>),
    /// The proof that an author has contradicted itself, as others have found it.
    Fork(Box<ForkProof>),
    /// The node's own memory.
    Private(Private),
}

impl Record {
    /// The record's canonical bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encode::to_bytes(self)
    }

    /// Reads a record.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not exactly one record in canonical form.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        encode::from_bytes(bytes, RECORD_BYTES)
    }

    /// Whether others may see it.
    #[must_use]
    pub const fn is_public(&self) -> bool {
        !matches!(self, Self::Private(_) | Self::Fork(_))
    }
}

/// A record that may be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// An entry of an author chain: our own, or a counterparty's.
    Entry(Verified<Entry>),
    /// A host's usage.
    Usage(Verified<Usage>),
    /// A renter's acknowledgement.
    Ack(Verified<Ack>),
    /// The proof that an author has contradicted itself; it is verified when it is folded.
    Fork(Box<ForkProof>),
    /// The node's own memory.
    Private(Private),
}

impl Fact {
    /// Who has signed it; none for what nobody signs.
    #[must_use]
    pub fn author(&self) -> Option<NodeId> {
        match self {
            Self::Entry(entry) => Some(entry.author),
            Self::Usage(usage) => Some(usage.host),
            Self::Ack(ack) => Some(ack.renter),
            Self::Fork(_) | Self::Private(_) => None,
        }
    }

    /// The record to write.
    #[must_use]
    pub fn to_record(&self) -> Record {
        match self {
            Self::Entry(entry) => Record::Entry(entry.to_signed()),
            Self::Usage(usage) => Record::Usage(usage.to_signed()),
            Self::Ack(ack) => Record::Ack(ack.to_signed()),
            Self::Fork(proof) => Record::Fork(proof.clone()),
            Self::Private(private) => Record::Private(private.clone()),
        }
    }
}

/// A document with its id, read but not verified here: it was when it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held<T> {
    /// Its id.
    pub id: DocumentId,
    /// Its bytes and signature.
    pub signed: Signed<T>,
    /// What it says.
    pub value: T,
}

impl<T: Document> Held<T> {
    /// Reads a document's payload.
    ///
    /// # Errors
    /// [`DecodeError`] if it does not decode.
    pub fn read(signed: Signed<T>, network: &NetworkId) -> Result<Self, DecodeError> {
        let id = signed.id(network);
        let value = encode::from_bytes(signed.payload(), T::MAX_BYTES)?;
        Ok(Self { id, signed, value })
    }
}

impl<T: Document + Clone> From<&Verified<T>> for Held<T> {
    fn from(verified: &Verified<T>) -> Self {
        Self { id: verified.id(), signed: verified.to_signed(), value: (**verified).clone() }
    }
}

impl<T: Document> Serialize for Held<T> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        (&self.id, &self.signed).serialize(s)
    }
}

impl<'de, T: Document> Deserialize<'de> for Held<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let (id, signed) = <(DocumentId, Signed<T>)>::deserialize(d)?;
        let value = encode::from_bytes(signed.payload(), T::MAX_BYTES).map_err(serde::de::Error::custom)?;
        Ok(Self { id, signed, value })
    }
}
