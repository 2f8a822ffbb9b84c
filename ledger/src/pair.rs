//! What the ledger holds of two nodes apart from their leases: payments, and claims vouched for. No rules here.

use serde::{Deserialize, Serialize};
use souk_protocol::{Amount, Currency, DocumentId, NodeId, Timestamp};

/// A payment, as its payer's entry says it, with the payee's newest answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    /// The payer's entry.
    pub id: DocumentId,
    /// Its number in the payer's chain.
    pub seq: u64,
    /// 1, 2, 3 … over the payments of this direction and currency.
    pub n: u32,
    /// When it was signed.
    pub time: Timestamp,
    /// This payment.
    pub amount: Amount,
    /// All payments of this direction and currency up to this one.
    pub total: Amount,
    /// How it was paid.
    pub method: String,
    /// What the payee finds it by.
    pub reference: String,
    /// The payee's newest answer to it.
    pub ack: Option<Arrived>,
}

/// A payee's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrived {
    /// The payee's entry.
    pub id: DocumentId,
    /// Its number in the payee's chain.
    pub seq: u64,
    /// When it was signed.
    pub time: Timestamp,
    /// All that has arrived of this direction and currency.
    pub total: Amount,
}

/// Whose payments to whom, in what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SettlementKey {
    /// The other node.
    pub peer: NodeId,
    /// The currency.
    pub currency: Currency,
    /// Whether this node paid.
    pub by_us: bool,
}

/// A claim somebody vouches for, as the newest entry about it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attested {
    /// The entry.
    pub id: DocumentId,
    /// Its number in its author's chain.
    pub seq: u64,
    /// When it was signed.
    pub time: Timestamp,
    /// Until when it holds; none for as long as it is not withdrawn.
    pub until: Option<Timestamp>,
    /// Its author does not stand by it any more.
    pub withdrawn: bool,
}

impl Attested {
    /// Whether its author stands by it at `now`.
    #[must_use]
    pub fn holds(&self, now: Timestamp) -> bool {
        !self.withdrawn && self.until.is_none_or(|until| now < until)
    }
}
