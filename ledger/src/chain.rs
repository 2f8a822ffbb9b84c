//! Author chains as the ledger holds them, and the proof that an author has contradicted itself.
//!
//! Our own chain is held whole. Of a counterparty's, only the entries it sent us: with gaps, but still enough to catch a fork
//! whenever two entries of one number, or two neighbours that don't fit, come our way.

use serde::{Deserialize, Serialize};
use souk_protocol::{DocumentId, Timestamp, entry::Entry, limits, signed::Signed};

pub use souk_protocol::fork::{ForkProof, NoFork};

use crate::journal::Position;

/// Proofs of forks kept, one for each author, so that cheap keys can't fill the store. Which of too many are kept is decided by
/// the engine, which knows more of whom they concern, and says which go ([`crate::record::Private::ForkGone`]); there is room
/// for those that come of entries and receipts before it has.
pub const PROOFS: u64 = limits::PROOFS as u64 + 1024;

/// The newest entry of a chain that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Its number.
    pub seq: u64,
    /// Its id.
    pub id: DocumentId,
    /// When it was made.
    pub time: Timestamp,
}

/// Where an entry lies in the journal, and what it must fit to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryRow {
    /// Its id.
    pub id: DocumentId,
    /// The id of the one before it.
    pub prev: Option<DocumentId>,
    /// Its place.
    pub at: Position,
}

/// A fork as the store keeps it: entries seen before are found in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ForkRow {
    /// The new entry came second, after the one at a place.
    After(Position, Signed<Entry>),
    /// The new entry came before, in the chain, the one at a place.
    Before(Signed<Entry>, Position),
    /// Whole as it is.
    Proof(ForkProof),
}
