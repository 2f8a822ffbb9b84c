//! What an author leaves out of its own chain, and what stands for it.
//!
//! A chain grows with time and not only with what was done: an anchor for every hour of every lease. A checkpoint lets its
//! author drop what later entries have replaced. It fixes, for good, exactly which entries stay and what all of them together
//! say about money; a chain with other gaps, or other sums, is refused. Owns the document's form and its digests; which
//! entries may go is the ledger's rule.

use serde::{Deserialize, Serialize};

use crate::{
    encode,
    id::{Digest, DocumentId, NodeId},
    money::{Amount, Currency},
    signed::Invalid,
};

/// By an author about its own chain: up to entry `seq`, these entries and sums are all that counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// The number of the newest entry it stands for. It stays, and the chain goes on from it without gaps.
    pub seq: u64,
    /// That entry's id.
    pub id: DocumentId,
    /// How many entries stay, of the `seq + 1` there were.
    pub kept: u64,
    /// Which: [`Ids`] of them, in order.
    pub entries: Digest,
    /// What the author's records say about money after them: [`Totals`].
    pub totals: Digest,
}

impl Checkpoint {
    /// Checks bounds.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn check(&self) -> Result<(), Invalid> {
        // The genesis and the newest entry always stay.
        let most = self.seq.saturating_add(1);
        Invalid::unless((1..=most).contains(&self.kept), "it keeps more entries than there were, or none")
    }
}

/// Digest of a list of entries: BLAKE3 of their ids, one after the other.
#[derive(Debug, Clone, Default)]
pub struct Ids {
    hasher: blake3::Hasher,
    count: u64,
}

impl Ids {
    /// Adds the next one.
    pub fn add(&mut self, id: &DocumentId) {
        self.hasher.update(&id.0);
        self.count += 1;
    }

    /// How many there are.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest(*self.hasher.finalize().as_bytes())
    }
}

/// What is signed for between the author and one peer in one currency. Cumulative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Total {
    /// What the peer, as renter, has signed for.
    pub earned: Amount,
    /// What the author, as renter, has signed for.
    pub spent: Amount,
    /// What the author says to have paid the peer.
    pub paid: Amount,
    /// What the peer says has arrived of it.
    pub paid_acked: Amount,
    /// What the peer says to have paid the author.
    pub received_claimed: Amount,
    /// What the author says has arrived of it.
    pub received: Amount,
}

/// Digest of all totals: BLAKE3 of the canonical CBOR of `[peer, currency, earned, spent, paid, paid_acked, received_claimed,
/// received]` for each pair and currency in which one is not zero, ordered by the bytes of the peer's id, then of the currency.
#[derive(Debug, Clone, Default)]
pub struct Totals(blake3::Hasher);

impl Totals {
    /// Adds the next one; those that are all zero count for nothing.
    pub fn add(&mut self, peer: &NodeId, currency: &Currency, of: &Total) {
        if *of != Total::default() {
            let Total { earned, spent, paid, paid_acked, received_claimed, received } = of;
            let row = (peer, currency, earned, spent, paid, paid_acked, received_claimed, received);
            self.0.update(&encode::to_bytes(&row));
        }
    }

    /// The digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn bounds() {
        let at = |seq, kept| Checkpoint {
            seq,
            id: DocumentId([1; 32]),
            kept,
            entries: Digest([2; 32]),
            totals: Digest([3; 32]),
        };
        at(0, 1).check().unwrap();
        at(9, 10).check().unwrap();
        at(9, 11).check().unwrap_err();
        at(9, 0).check().unwrap_err();
        at(u64::MAX, u64::MAX).check().unwrap();
    }

    #[test]
    fn digests_depend_on_order_and_amounts_and_not_on_empty_rows() {
        let (a, b) = (NodeId([1; 32]), NodeId([2; 32]));
        let some = Total { earned: Amount(5), ..Total::default() };
        let sum = |rows: &[(&NodeId, Total)]| {
            let mut totals = Totals::default();
            rows.iter().for_each(|(peer, total)| totals.add(peer, &Currency::usd(), total));
            totals.digest()
        };
        assert_eq!(sum(&[(&a, some), (&b, Total::default())]), sum(&[(&a, some)]));
        assert_ne!(sum(&[(&a, some)]), sum(&[(&b, some)]));
        assert_ne!(sum(&[(&a, some), (&b, some)]), sum(&[(&b, some), (&a, some)]));
        assert_ne!(sum(&[(&a, Total { spent: Amount(5), ..Total::default() })]), sum(&[(&a, some)]));
        let mut ids = Ids::default();
        ids.add(&DocumentId([1; 32]));
        assert_eq!(ids.count(), 1);
        assert_ne!(ids.digest(), Ids::default().digest());
    }
}
