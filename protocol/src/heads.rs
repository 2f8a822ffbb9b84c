//! Chain heads as peers tell them to each other: what an author says its newest entry is, and what another has seen.
//!
//! A head is two numbers and no contents, so it can be shown to anybody. Two reports of one author that name different entries
//! with one number prove a fork ([`crate::fork::ForkProof::Heads`]), although the entries themselves are for their parties alone.
//! A report is signed only once the entry it names is durable, or an honest node that crashes would convict itself.

use serde::{Deserialize, Serialize};

use crate::{
    entry::Entry,
    fork::{ForksAsked, ForksTold},
    id::{DocumentId, LeaseId, NodeId, Nonce},
    limits,
    receipt::{Ack, Usage},
    signed::{Document, Invalid, Signed},
    time::Timestamp,
};

/// The place of an entry in its author's chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainHead {
    /// Its number.
    pub seq: u64,
    /// Its id.
    pub id: DocumentId,
}

/// By a node: this is my chain's newest entry, or the one of a number asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadReport {
    /// The signer.
    pub author: NodeId,
    /// Drawn at random at each start of the author's node: two of them heard of at once are two nodes with one key.
    pub instance: Nonce,
    /// When that start was, by the author's clock. It only decides which of two nodes with one key gives way.
    pub started: Timestamp,
    /// Whether entries may have been signed since that start.
    pub signing: bool,
    /// The entry; none before the chain's first.
    pub head: Option<ChainHead>,
    /// When this was signed, by the author's clock. Nothing is decided by it.
    pub time: Timestamp,
    /// Instances of the author that the one who asked has told of, at most [`limits::INSTANCES`]: whoever signs the nonce of
    /// another start was alive after it.
    pub heard: Vec<Nonce>,
}

impl HeadReport {
    /// Whether this report and `other`, of one author, name two entries with one number.
    #[must_use]
    pub fn contradicts(&self, other: &Self) -> bool {
        self.author == other.author
            && matches!((self.head, other.head), (Some(a), Some(b)) if a.seq == b.seq && a.id != b.id)
    }

    /// The number of the entry, for comparisons: 0 for no entry, else one more than its own.
    #[must_use]
    pub const fn length(&self) -> u64 {
        match self.head {
            Some(head) => head.seq.saturating_add(1),
            None => 0,
        }
    }
}

impl Document for HeadReport {
    const CONTEXT: &'static str = "souk 2026-11 head v1";
    const NAME: &'static str = "head report";
    const MAX_BYTES: usize = limits::HEAD_BYTES;

    fn author(&self) -> NodeId {
        self.author
    }

    fn check(&self) -> Result<(), Invalid> {
        Invalid::unless(self.heard.len() <= limits::INSTANCES, "it has heard of too many instances")
    }
}

/// By another node, the countersignature: I have seen this report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadSeen {
    /// The signer.
    pub witness: NodeId,
    /// Whose head it is; never the witness.
    pub author: NodeId,
    /// The report.
    pub report: DocumentId,
    /// The head it names.
    pub head: Option<ChainHead>,
    /// When, by the witness's clock.
    pub time: Timestamp,
}

impl Document for HeadSeen {
    const CONTEXT: &'static str = "souk 2026-11 head seen v1";
    const NAME: &'static str = "head countersignature";
    const MAX_BYTES: usize = limits::HEAD_BYTES;

    #[allow(clippy::misnamed_getters, reason = "its author is who signs it, and the field is whose head was seen")]
    fn author(&self) -> NodeId {
        self.witness
    }

    fn check(&self) -> Result<(), Invalid> {
        Invalid::unless(self.witness != self.author, "its witness is its author")
    }
}

/// One side of a meeting: our head, and what we want to know of yours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meet {
    /// The asker's own head.
    pub report: Signed<HeadReport>,
    /// Instances that the asker knows of the one it asks, to be repeated in [`HeadReport::heard`].
    pub known: Vec<Nonce>,
    /// Numbers of entries that the one who is asked shall report on beside its newest.
    pub at: Vec<u64>,
    /// Reports of the one who is asked, by another instance of it, or that go further than what it told last.
    pub yours: Vec<Signed<HeadReport>>,
    /// What the asker lacks of the forks that are known.
    pub forks: ForksAsked,
}

/// The other side: the answer to a [`Meet`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Met {
    /// The answerer's own head; it has heard of the asker's instances that the asker told of.
    pub report: Signed<HeadReport>,
    /// The entries asked about, as far as they are in its chain.
    pub at: Vec<Signed<HeadReport>>,
    /// The countersignature of the asker's report.
    pub seen: Signed<HeadSeen>,
    /// Reports of the asker, by another instance of it, or that go further than what it has told.
    pub yours: Vec<Signed<HeadReport>>,
    /// The newest entry held of the asker's chain, if it comes after the head it has told.
    pub newest: Option<Signed<Entry>>,
    /// Another instance of the asker was there a moment ago, and whether it is gone is being found out: ask again shortly.
    pub doubt: bool,
    /// Whom the answerer knows to have contradicted itself, and proofs.
    pub forks: ForksTold,
}

impl Meet {
    /// Whether all lists are within their limits.
    #[must_use]
    pub fn fits(&self) -> bool {
        let most = limits::INSTANCES;
        self.known.len() <= most && self.at.len() <= most && self.yours.len() <= most && self.forks.fits()
    }
}

impl Met {
    /// Whether all lists are within their limits.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.at.len() <= limits::INSTANCES && self.yours.len() <= limits::INSTANCES && self.forks.fits()
    }
}

/// What a peer holds of what was signed between us, for a node that restores its ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldRecord {
    /// An entry by one of the two, with the other as its peer.
    Entry(Signed<Entry>),
    /// The newest usages of a lease between us.
    Usage(Signed<Usage>),
    /// Its newest acknowledgement.
    Ack(Signed<Ack>),
    /// What a lease runs, of its renter to its host alone.
    Workload {
        /// The lease.
        lease: LeaseId,
        /// The workload's bytes, whose digest the draft names.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
}
