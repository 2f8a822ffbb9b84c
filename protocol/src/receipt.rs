//! Receipts: what a host says was used, and what the renter agrees to. Both are cumulative, so only the newest pair matters.

use serde::{Deserialize, Serialize};

use crate::{
    id::{DocumentId, LeaseId, NodeId},
    lease::LeaseState,
    limits,
    money::{Amount, Counters},
    signed::{Document, Invalid},
    time::Timestamp,
};

/// The host's count since the lease began. A number `n` is used once; a host that gets no answer sends the same bytes again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// The signer.
    pub host: NodeId,
    /// Which lease.
    pub lease: LeaseId,
    /// 1, 2, 3 …
    pub n: u64,
    /// The usage before this one; none for the first.
    pub prev: Option<DocumentId>,
    /// When it was counted.
    pub time: Timestamp,
    /// What was used.
    pub counters: Counters,
    /// Number of the amendment whose terms were in force; zero for the draft's.
    pub terms: u32,
    /// What that costs by these terms: recomputable, so a wrong one is invalid.
    pub due: Amount,
    /// The lease's state then.
    pub state: LeaseState,
}

impl Document for Usage {
    const CONTEXT: &'static str = "souk 2026-11 usage v1";
    const NAME: &'static str = "usage";
    const MAX_BYTES: usize = limits::RECEIPT_BYTES;

    fn author(&self) -> NodeId {
        self.host
    }

    fn check(&self) -> Result<(), Invalid> {
        Invalid::unless(self.n >= 1, "its number is zero")?;
        Invalid::unless((self.n == 1) == self.prev.is_none(), "only the first has no one before it")?;
        Invalid::unless(self.counters.waived <= self.counters.active, "more is waived than was used")
    }
}

/// Why a renter agrees to less than the host claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartialReason {
    /// More running time than has passed on the renter's clock.
    OverMetered,
    /// Time is claimed in a state that is not billed.
    NotRunning,
    /// The host claims that the renter has left a reserved term, and it has not.
    NotAsked,
    /// Nothing in the instance answered the renter's node while its host says that it ran.
    Silent,
}

/// The renter's answer to a usage: how much of it it owes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ack {
    /// The signer.
    pub renter: NodeId,
    /// Which lease.
    pub lease: LeaseId,
    /// Of the usage it answers; acks may skip numbers.
    pub n: u64,
    /// The usage it answers.
    pub usage: DocumentId,
    /// What the renter owes for the whole lease so far; never shrinks.
    pub due: Amount,
    /// Set if `due` is less than the usage's.
    pub partial: Option<PartialReason>,
}

impl Document for Ack {
    const CONTEXT: &'static str = "souk 2026-11 ack v1";
    const NAME: &'static str = "acknowledgement";
    const MAX_BYTES: usize = limits::RECEIPT_BYTES;

    fn author(&self) -> NodeId {
        self.renter
    }

    fn check(&self) -> Result<(), Invalid> {
        Invalid::unless(self.n >= 1, "its number is zero")
    }
}
