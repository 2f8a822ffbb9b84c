//! Evidence of leases that one node shows another: what both parties have signed, as few documents as verify the outcome.
//!
//! Owns the shapes and their bounds. Who is asked, how often and how much of it is taken is
//! [`crate::machine::evidence`]'s; reading it, with every signature, is the ledger's.

use serde::{Deserialize, Serialize};

use crate::{
    entry::Entry,
    receipt::{Ack, Usage},
    signed::Signed,
};

/// Leases in one page.
pub const PAGE_LEASES: usize = 16;
/// Closes, their answers and complaints of one lease.
pub const LEASE_ENDS: usize = 6;
/// Amendments of one lease: those that the receipt and the end of the contract rest on.
pub const LEASE_AMENDED: usize = 2;
/// Attestations and acknowledged payments in one page.
pub const PAGE_ENTRIES: usize = 64;
/// Bytes of one page.
pub const PAGE_BYTES: usize = 256 * 1024;

/// What verifies one lease's outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseEvidence {
    /// The renter's `lease_open`, with the host's draft in it.
    pub open: Signed<Entry>,
    /// The host's `lease_accept`.
    pub accept: Signed<Entry>,
    /// The `amended` whose terms the receipt names, and the one in force; none where those are the draft's.
    pub amended: Vec<Signed<Entry>>,
    /// The newest receipt that both have signed.
    pub receipt: Option<(Signed<Usage>, Signed<Ack>)>,
    /// Closes first, then their answers, then complaints.
    pub ends: Vec<Signed<Entry>>,
}

/// One page of what a node shows of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvidencePage {
    /// Leases that the answering node is a party of, newest first.
    pub leases: Vec<LeaseEvidence>,
    /// What the other parties of these leases have acknowledged as paid, or it has: the newest `settle_ack` of a pair and currency.
    pub payments: Vec<Signed<Entry>>,
    /// What others vouch for about the answering node, and what it vouches for itself. In the first page only.
    pub attestations: Vec<Signed<Entry>>,
    /// What to ask for the next page with; none if this is the last.
    pub next: Option<u64>,
}

impl LeaseEvidence {
    /// Signatures to check, the draft's included.
    #[must_use]
    pub fn signatures(&self) -> u32 {
        let receipt = if self.receipt.is_some() { 2 } else { 0 };
        u32::try_from(3 + self.amended.len() + self.ends.len() + receipt).unwrap_or(u32::MAX)
    }
}

impl EvidencePage {
    /// Whether all its lists are within their bounds.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.leases.len() <= PAGE_LEASES
            && self.payments.len() <= PAGE_ENTRIES
            && self.attestations.len() <= PAGE_ENTRIES
            && self.leases.iter().all(|l| l.ends.len() <= LEASE_ENDS && l.amended.len() <= LEASE_AMENDED)
    }

    /// Signatures to check.
    #[must_use]
    pub fn signatures(&self) -> u32 {
        let entries = self.payments.len() + self.attestations.len();
        self.leases.iter().fold(u32::try_from(entries).unwrap_or(u32::MAX), |sum, l| sum.saturating_add(l.signatures()))
    }
}
