//! What a node writes down, and what it needs back after a restart.
//!
//! Owns the shape of journal records and of the row that the ledger folds them into for each lease. Storing them is the
//! ledger's work.

use serde::{Deserialize, Serialize};

use super::{
    account::{AccountRow, Note},
    forks::Concern,
};
use crate::{
    entry::Entry,
    fork::ForkProof,
    heads::{HeadReport, HeadSeen},
    id::{DocumentId, LeaseId, NodeId, Nonce},
    message::LeaseEvent,
    opinion::Watched,
    receipt::{Ack, Usage},
    signed::{Signed, Verified},
};

/// One record of the journal. Everything signed in it has been verified before it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// An entry of our own chain, or of another's that concerns a lease of ours.
    Entry(Signed<Entry>),
    /// A usage of a lease of ours, made by us or by its host. Replaces the one before.
    Usage(Signed<Usage>),
    /// An acknowledgement, made by us or by the renter. Replaces the one before.
    Ack(Signed<Ack>),
    /// The proof that an author has contradicted itself. Verified before it is written.
    Fork(Box<ForkProof>),
    /// Ours alone, never exported.
    Private(Private),
}

/// What only this node knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Private {
    /// What a lease runs.
    Workload {
        /// The lease.
        lease: LeaseId,
        /// Its bytes.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    /// A step of a lease. Events with a number already there are ignored.
    Event {
        /// The lease.
        lease: LeaseId,
        /// The step.
        event: LeaseEvent,
    },
    /// The renter's name for a lease.
    Label {
        /// The lease.
        lease: LeaseId,
        /// The name.
        text: String,
    },
    /// The highest `seq` our offers have used.
    OfferSeq(u64),
    /// The furthest head that another party of a lease has told.
    Head(Signed<HeadReport>),
    /// The newest countersignature of our own head by another party of a lease.
    HeadSeen(Signed<HeadSeen>),
    /// What of an account does not follow from what was signed. Replaces the one before of that peer and currency.
    Account(Box<Note>),
    /// We have asked for the end of a lease we rent: its host may claim what leaving early costs.
    Leaving {
        /// The lease.
        lease: LeaseId,
    },
    /// What our meter has seen of a lease we rent so far. Replaces the one before.
    Watched {
        /// The lease.
        lease: LeaseId,
        /// What was seen.
        seen: Watched,
    },
    /// The proof that somebody contradicted itself is not kept any more: others matter more ([`super::forks`]).
    ForkGone(NodeId),
}

impl From<&Verified<Entry>> for Record {
    fn from(entry: &Verified<Entry>) -> Self {
        Self::Entry(entry.to_signed())
    }
}

impl From<&Verified<Usage>> for Record {
    fn from(usage: &Verified<Usage>) -> Self {
        Self::Usage(usage.to_signed())
    }
}

impl From<&Verified<Ack>> for Record {
    fn from(ack: &Verified<Ack>) -> Self {
        Self::Ack(ack.to_signed())
    }
}

/// All that is on record about one lease, or about an open that never became one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseRow {
    /// The lease: the id of the draft.
    pub lease: LeaseId,
    /// Counts this node's leases from 1, in the order of their opens: what people type.
    pub number: u64,
    /// The renter's open, which holds the draft.
    pub open: Signed<Entry>,
    /// The host's accept or void.
    pub answer: Option<Signed<Entry>>,
    /// The newest placement.
    pub placement: Option<Signed<Entry>>,
    /// The renter's newest `amend`.
    pub amend: Option<Signed<Entry>>,
    /// The host's `amended`, oldest first: the last one is in force, those before it are newer than the newest countersigned receipt.
    pub amended: Vec<Signed<Entry>>,
    /// The newest usage.
    pub usage: Option<Signed<Usage>>,
    /// The newest acknowledgement.
    pub ack: Option<Signed<Ack>>,
    /// The usage that the newest acknowledgement answers: with it, the newest countersigned receipt.
    pub acked_usage: Option<Signed<Usage>>,
    /// The close by either side; the first one counts.
    pub close: Option<Signed<Entry>>,
    /// The other side's agreement to the close.
    pub close_ack: Option<Signed<Entry>>,
    /// The workload's bytes.
    #[serde(with = "serde_bytes")]
    pub workload: Vec<u8>,
    /// Its steps, oldest first.
    pub events: Vec<LeaseEvent>,
    /// The renter's name for it.
    pub label: Option<String>,
    /// Whether we, its renter, have asked for its end.
    pub leaving: bool,
    /// What we, its renter, had seen of its host when that was last written down.
    pub watched: Option<Watched>,
    /// Whether we, its renter, have said in our chain what we saw.
    pub probed: bool,
}

/// The newest entry of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Whose chain.
    pub author: NodeId,
    /// The entry's number.
    pub seq: u64,
    /// The entry.
    pub id: DocumentId,
    /// When it was made.
    pub time: crate::time::Timestamp,
}

/// What the engine starts from: the ledger's view of what is not over.
#[derive(Debug, Clone, Default)]
pub struct Restore {
    /// Our chain's newest entry; none before the genesis.
    pub head: Option<Head>,
    /// The highest `seq` our offers have used.
    pub offer_seq: u64,
    /// Rows whose lease is not over, or whose open is not answered.
    pub leases: Vec<LeaseRow>,
    /// All accounts. Their sums count what is in `leases`, too.
    pub accounts: Vec<AccountRow>,
    /// The number the next lease gets.
    pub next_number: u64,
    /// Authors that are known to have contradicted themselves, and how much the ledger says that they matter.
    pub forked: Vec<(NodeId, Concern)>,
    /// Heads that others have told, one of each.
    pub heads: Vec<Signed<HeadReport>>,
    /// Of this start, drawn at random.
    pub instance: Nonce,
}
