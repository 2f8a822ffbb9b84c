//! Author chains as the ledger holds them, and the proof that an author has contradicted itself.
//!
//! Our own chain is held whole. Of a counterparty's, only the entries it sent us: with gaps, but still enough to catch a fork
//! whenever two entries of one number, or two neighbours that don't fit, come our way.

use serde::{Deserialize, Serialize};
use souk_protocol::{
    DocumentId, NetworkId, NodeId, Timestamp,
    entry::Entry,
    receipt::{Ack, Usage},
    signed::{Signed, VerifyError},
};

use crate::journal::Position;

/// Proofs of forks kept, one for each author, so that cheap keys can't fill the store.
pub const PROOFS: u64 = 10_000;

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

/// Two documents of one author of which an honest node would have signed one only. Needs nothing else to be checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ForkProof {
    /// Two entries with one number, or two neighbours of which the later names another one before it.
    Entries(Signed<Entry>, Signed<Entry>),
    /// Two usages of one lease with one number.
    Usages(Signed<Usage>, Signed<Usage>),
    /// Two acknowledgements of one lease, the later of which agrees to less.
    Acks(Signed<Ack>, Signed<Ack>),
}

/// Why a proof proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoFork {
    /// One of the documents is not the author's.
    #[error("a document in the proof does not verify")]
    Unverified(#[source] VerifyError),
    /// An honest author could have signed both.
    #[error("the two documents do not contradict each other")]
    Consistent,
}

impl ForkProof {
    /// Checks both signatures and the contradiction, and returns whose fork it is.
    ///
    /// # Errors
    /// [`NoFork`].
    pub fn verify(&self, network: &NetworkId) -> Result<NodeId, NoFork> {
        let consistent = |contradicts: bool, author: NodeId| {
            if contradicts { Ok(author) } else { Err(NoFork::Consistent) }
        };
        match self {
            Self::Entries(a, b) => {
                let (a, b) = (check(a.verify(network))?, check(b.verify(network))?);
                let same = a.seq == b.seq && a.id() != b.id();
                let broken = b.seq == a.seq.wrapping_add(1) && b.prev != Some(a.id());
                consistent(a.author == b.author && (same || broken), a.author)
            }
            Self::Usages(a, b) => {
                let (a, b) = (check(a.verify(network))?, check(b.verify(network))?);
                let same = a.lease == b.lease && a.n == b.n && a.id() != b.id();
                consistent(a.host == b.host && same, a.host)
            }
            Self::Acks(a, b) => {
                let (a, b) = (check(a.verify(network))?, check(b.verify(network))?);
                let shrinks = a.lease == b.lease && a.n < b.n && a.due > b.due;
                consistent(a.renter == b.renter && shrinks, a.renter)
            }
        }
    }
}

fn check<T>(result: Result<T, VerifyError>) -> Result<T, NoFork> {
    result.map_err(NoFork::Unverified)
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
