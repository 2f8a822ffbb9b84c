//! The proof that an author has contradicted itself: two documents of which an honest node would have signed one only.
//!
//! Self-contained: whoever has it needs nothing else to check it, so it can be passed on, and it holds for ever.

use serde::{Deserialize, Serialize};

use crate::{
    encode,
    entry::Entry,
    heads::HeadReport,
    id::{NetworkId, NodeId, Nonce},
    receipt::{Ack, Usage},
    signed::{Document, Signed, Verified, VerifyError},
};

/// Two documents of one author of which an honest node would have signed one only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ForkProof {
    /// Two entries with one number, or two neighbours of which the later names another one before it.
    Entries(Signed<Entry>, Signed<Entry>),
    /// Two head reports that name two entries with one number.
    Heads(Signed<HeadReport>, Signed<HeadReport>),
    /// A head report, and an entry of that number that is another.
    Head(Signed<HeadReport>, Signed<Entry>),
    /// Two usages of one lease with one number.
    Usages(Signed<Usage>, Signed<Usage>),
    /// Two acknowledgements of one lease, the later of which agrees to less.
    Acks(Signed<Ack>, Signed<Ack>),
}

/// Names of forked keys in one answer to a meeting: 8 KiB.
pub const FORKS_PAGE: usize = 256;
/// Proofs asked for at one meeting. Those of two heads all fit into [`crate::limits::FORKS_BYTES`].
pub const FORKS_ASKED: usize = 64;

/// At a meeting, by the asker: what it has been told of forks already, and which proofs it wants. Everybody fetches what it
/// lacks; nobody sends what was not asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForksAsked {
    /// The start of the other's node whose list of forks was read; none if none was.
    pub of: Option<Nonce>,
    /// How far: the newest [`ForksTold::upto`], 0 for nothing yet; none to be told no names now.
    pub after: Option<u64>,
    /// Whose proofs it wants, at most [`FORKS_ASKED`].
    pub proofs: Vec<NodeId>,
}

/// At a meeting, by the one who is asked: whom else it knows to have contradicted itself, and the proofs asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForksTold {
    /// Those it has learned of after [`ForksAsked::after`], in that order, at most [`FORKS_PAGE`]; from the beginning, if
    /// [`ForksAsked::of`] is another start than this.
    pub names: Vec<NodeId>,
    /// The number to ask on from; none if no names were asked for.
    pub upto: Option<u64>,
    /// Whether there are more.
    pub more: bool,
    /// The proofs asked for, as far as they are held: at most [`FORKS_ASKED`], and [`crate::limits::FORKS_BYTES`] together. Ones that are
    /// left out for their size may be asked for again.
    pub proofs: Vec<ForkProof>,
}

impl ForksAsked {
    /// Whether its list is within its limit.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.proofs.len() <= FORKS_ASKED
    }
}

impl ForksTold {
    /// Whether its lists are within their limits. The bytes are the receiver's to count.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.names.len() <= FORKS_PAGE && self.proofs.len() <= FORKS_ASKED
    }

    /// Everybody it speaks of; nothing of it is believed.
    pub fn accused(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.names.iter().copied().chain(self.proofs.iter().filter_map(ForkProof::accused))
    }
}

/// Why a proof proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoFork {
    /// One of the documents is not the author's.
    #[error("a document in the proof does not verify: {0}")]
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
                let (a, b) = (check(a, network)?, check(b, network)?);
                let same = a.seq == b.seq && a.id() != b.id();
                let broken = b.seq == a.seq.wrapping_add(1) && b.prev != Some(a.id());
                consistent(a.author == b.author && (same || broken), a.author)
            }
            Self::Heads(a, b) => {
                let (a, b) = (check(a, network)?, check(b, network)?);
                consistent(a.contradicts(&b), a.author)
            }
            Self::Head(report, entry) => {
                let (report, entry) = (check(report, network)?, check(entry, network)?);
                let other = report.head.is_some_and(|head| head.seq == entry.seq && head.id != entry.id());
                consistent(report.author == entry.author && other, entry.author)
            }
            Self::Usages(a, b) => {
                let (a, b) = (check(a, network)?, check(b, network)?);
                let same = a.lease == b.lease && a.n == b.n && a.id() != b.id();
                consistent(a.host == b.host && same, a.host)
            }
            Self::Acks(a, b) => {
                let (a, b) = (check(a, network)?, check(b, network)?);
                let shrinks = a.lease == b.lease && a.n < b.n && a.due > b.due;
                consistent(a.renter == b.renter && shrinks, a.renter)
            }
        }
    }

    /// Whose fork it says it proves, unchecked; none if its first document does not even decode.
    #[must_use]
    pub fn accused(&self) -> Option<NodeId> {
        fn of<T: Document>(signed: &Signed<T>) -> Option<NodeId> {
            encode::from_bytes::<T>(signed.payload(), T::MAX_BYTES).ok().map(|value| value.author())
        }
        match self {
            Self::Entries(a, _) => of(a),
            Self::Heads(a, _) | Self::Head(a, _) => of(a),
            Self::Usages(a, _) => of(a),
            Self::Acks(a, _) => of(a),
        }
    }

    /// What contradicts what, as lists show it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Entries(..) => "entries",
            Self::Heads(..) | Self::Head(..) => "heads",
            Self::Usages(..) => "usages",
            Self::Acks(..) => "acks",
        }
    }
}

fn check<T: Document>(signed: &Signed<T>, network: &NetworkId) -> Result<Verified<T>, NoFork> {
    signed.verify(network).map_err(NoFork::Unverified)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        Keypair, LeaseId, Timestamp,
        entry::Body,
        heads::{ChainHead, HeadReport},
        id::DocumentId,
        limits,
        machine::testkit::{key, network},
    };

    /// An entry that takes as many bytes as one may, for a key.
    fn largest(author: &Keypair, start: u32) -> Verified<Entry> {
        let entry = |fill: usize| {
            let (count, rest) = (fill / limits::DEVICE_BYTES, fill % limits::DEVICE_BYTES);
            let mut devices = vec!["x".repeat(limits::DEVICE_BYTES); count];
            devices.push("x".repeat(rest));
            Entry {
                author: author.node_id(),
                seq: u64::MAX - 1,
                prev: Some(DocumentId([255; 32])),
                time: Timestamp(u64::MAX),
                lease: Some(LeaseId([255; 32])),
                peer: Some(key(200).node_id()),
                body: Body::Placement { start, slots: Vec::new(), devices },
            }
        };
        let most = (0..limits::ENTRY_BYTES).rev().find(|n| encode::to_bytes(&entry(*n)).len() <= limits::ENTRY_BYTES);
        Verified::sign(entry(most.unwrap()), author, &network()).unwrap()
    }

    #[test]
    fn the_largest_possible_proof_fits_where_proofs_must() {
        let (a, b) = (largest(&key(7), u32::MAX - 1), largest(&key(7), u32::MAX));
        assert_eq!([a.payload().len(), b.payload().len()], [limits::ENTRY_BYTES; 2], "no entry is larger");
        let proof = ForkProof::Entries(a.to_signed(), b.to_signed());
        let bytes = encode::to_bytes(&proof);
        assert!(bytes.len() <= limits::PROOF_BYTES, "{}", bytes.len());
        let read: ForkProof = encode::from_bytes(&bytes, limits::PROOF_BYTES).unwrap();
        assert_eq!(read.verify(&network()), Ok(key(7).node_id()));
        // No other kind is of larger documents.
        let others = [HeadReport::MAX_BYTES, Usage::MAX_BYTES, Ack::MAX_BYTES];
        assert!(others.iter().all(|bytes| *bytes <= Entry::MAX_BYTES));
        let head = Some(ChainHead { seq: a.seq, id: DocumentId([1; 32]) });
        let report = HeadReport {
            author: key(7).node_id(),
            instance: Nonce([255; 16]),
            started: Timestamp(u64::MAX),
            signing: false,
            head,
            time: Timestamp(u64::MAX),
            heard: vec![Nonce([255; 16]); limits::INSTANCES],
        };
        let report = Verified::sign(report, &key(7), &network()).unwrap();
        let proof = ForkProof::Head(report.to_signed(), a.to_signed());
        assert_eq!(proof.verify(&network()), Ok(key(7).node_id()));
        assert!(encode::to_bytes(&proof).len() <= limits::PROOF_BYTES);
    }
}
