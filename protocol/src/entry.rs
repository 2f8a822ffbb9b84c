//! The author chain: each node's one hash-linked list of signed entries, permanent and exportable.

use serde::{Deserialize, Serialize};

use crate::{
    checkpoint::Checkpoint,
    id::{DocumentId, LeaseId, NetworkId, NodeId},
    lease::{EndReason, LeaseDraft},
    limits,
    money::Amount,
    opinion::{Attestation, Dispute, Observation, Watched},
    settlement::{Settle, SettleAck},
    signed::{Document, Invalid, Signed},
    terms::{Amended, Change},
    time::Timestamp,
};

/// Why a host answered an open with no lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VoidCode {
    /// Somebody else's accept came first.
    Taken,
    /// It came after the draft's last moment.
    Late,
    /// The draft is not this host's, or was changed.
    Unknown,
    /// The host can't serve it now.
    Unavailable,
    /// The first payment did not come with it, or did not arrive.
    Unpaid,
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// The first entry of every chain.
    Genesis {
        /// The network the chain belongs to.
        network: NetworkId,
    },
    /// By the renter: takes a draft. Binds nobody until the host accepts.
    LeaseOpen {
        /// The draft with the host's signature.
        draft: Signed<LeaseDraft>,
    },
    /// By the host: the lease exists from here.
    LeaseAccept {
        /// The open it answers.
        open: DocumentId,
    },
    /// By the host: there is no lease.
    Void {
        /// The open it answers.
        open: DocumentId,
        /// Why.
        code: VoidCode,
        /// For people.
        sentence: String,
    },
    /// By the host, at each start: which devices the instance got.
    Placement {
        /// 1, 2, 3 … over the lease.
        start: u32,
        /// Numbers of the machine's slots.
        slots: Vec<u16>,
        /// GPU UUIDs or device paths, exactly those the container sees.
        devices: Vec<String>,
    },
    /// By the renter: wants the terms changed. Binds nobody until the host has signed them.
    Amend {
        /// The amendment's number: one after the last in force.
        n: u32,
        /// What is to change.
        change: Change,
        /// The last moment at which the host may take it.
        valid_until: Timestamp,
    },
    /// By the host: these are the terms from here on.
    Amended(Amended),
    /// By the host, hourly and on a pause: fixes the newest countersigned pair in the chain.
    Anchor {
        /// The usage.
        usage: DocumentId,
        /// The renter's acknowledgement.
        ack: DocumentId,
        /// What was acknowledged.
        due: Amount,
    },
    /// By either side: the lease is over.
    Close {
        /// Why.
        reason: EndReason,
        /// The last usage, if there was one.
        usage: Option<DocumentId>,
        /// What the host claims, or the renter admits, for the whole lease.
        due: Amount,
    },
    /// By the other side: agrees that it is over, and for how much.
    CloseAck {
        /// The close it answers.
        close: DocumentId,
        /// What is owed.
        due: Amount,
    },
    /// By the payer: it has paid its peer.
    Settle(Settle),
    /// By the payee: what has arrived.
    SettleAck(SettleAck),
    /// By either party of a lease: a complaint.
    Dispute(Dispute),
    /// What the author vouches for about its peer.
    Attestation(Attestation),
    /// What the author has seen of its peer.
    Probe(Observation),
    /// About the author's own chain: what stands for entries that are dropped.
    Checkpoint(Checkpoint),
}

/// What an entry's body is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// The chain itself: neither a lease nor a peer is named.
    Chain,
    /// A lease, and its other party.
    Lease,
    /// A peer, and no lease.
    Peer,
}

impl Body {
    /// The draft that a `lease_open` takes.
    #[must_use]
    pub const fn draft(&self) -> Option<&Signed<LeaseDraft>> {
        if let Self::LeaseOpen { draft } = self { Some(draft) } else { None }
    }

    /// Reason, last usage and amount of a `close`.
    #[must_use]
    pub const fn closing(&self) -> Option<(EndReason, Option<DocumentId>, Amount)> {
        if let Self::Close { reason, usage, due } = self { Some((*reason, *usage, *due)) } else { None }
    }

    /// The close that a `close_ack` answers, and what it agrees to.
    #[must_use]
    pub const fn agreement(&self) -> Option<(DocumentId, Amount)> {
        if let Self::CloseAck { close, due } = self { Some((*close, *due)) } else { None }
    }

    /// Code and sentence of a `void`.
    #[must_use]
    pub fn voided(&self) -> Option<(VoidCode, &str)> {
        if let Self::Void { code, sentence, .. } = self { Some((*code, sentence)) } else { None }
    }

    /// Number, change and last moment of an `amend`.
    #[must_use]
    pub const fn amend(&self) -> Option<(u32, Change, Timestamp)> {
        if let Self::Amend { n, change, valid_until } = self { Some((*n, *change, *valid_until)) } else { None }
    }

    /// The terms that an `amended` puts in force.
    #[must_use]
    pub const fn amended(&self) -> Option<&Amended> {
        if let Self::Amended(amended) = self { Some(amended) } else { None }
    }

    /// What a `probe` says of a lease's host.
    #[must_use]
    pub const fn rental(&self) -> Option<&Watched> {
        if let Self::Probe(observation) = self { observation.rental() } else { None }
    }

    /// What it is about.
    #[must_use]
    pub const fn about(&self) -> About {
        match self {
            Self::Genesis { .. } | Self::Checkpoint(_) => About::Chain,
            Self::LeaseOpen { .. }
            | Self::LeaseAccept { .. }
            | Self::Void { .. }
            | Self::Placement { .. }
            | Self::Amend { .. }
            | Self::Amended(_)
            | Self::Anchor { .. }
            | Self::Close { .. }
            | Self::CloseAck { .. }
            | Self::Dispute(_)
            | Self::Probe(Observation::Rental(_)) => About::Lease,
            Self::Settle(_)
            | Self::SettleAck(_)
            | Self::Attestation(_)
            | Self::Probe(Observation::Uptime { .. } | Observation::Performance { .. }) => About::Peer,
        }
    }

    /// What a `checkpoint` says.
    #[must_use]
    pub const fn checkpoint(&self) -> Option<&Checkpoint> {
        if let Self::Checkpoint(checkpoint) = self { Some(checkpoint) } else { None }
    }

    /// The kind's name, as lists show it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Genesis { .. } => "genesis",
            Self::LeaseOpen { .. } => "lease_open",
            Self::LeaseAccept { .. } => "lease_accept",
            Self::Void { .. } => "void",
            Self::Placement { .. } => "placement",
            Self::Amend { .. } => "amend",
            Self::Amended(_) => "amended",
            Self::Anchor { .. } => "anchor",
            Self::Close { .. } => "close",
            Self::CloseAck { .. } => "close_ack",
            Self::Settle(_) => "settle",
            Self::SettleAck(_) => "settle_ack",
            Self::Dispute(_) => "dispute",
            Self::Attestation(_) => "attestation",
            Self::Probe(_) => "probe",
            Self::Checkpoint(_) => "checkpoint",
        }
    }
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The signer.
    pub author: NodeId,
    /// 0, 1, 2 … without gaps.
    pub seq: u64,
    /// The entry before this one; none for the first.
    pub prev: Option<DocumentId>,
    /// When it was made; never before the one before.
    pub time: Timestamp,
    /// The lease it is about.
    pub lease: Option<LeaseId>,
    /// The other party.
    pub peer: Option<NodeId>,
    /// What it says.
    pub body: Body,
}

impl Document for Entry {
    const CONTEXT: &'static str = "souk 2026-11 entry v1";
    const NAME: &'static str = "entry";
    const MAX_BYTES: usize = limits::ENTRY_BYTES;

    fn author(&self) -> NodeId {
        self.author
    }

    fn check(&self) -> Result<(), Invalid> {
        Invalid::unless((self.seq == 0) == self.prev.is_none(), "only the first entry has none before it")?;
        let genesis = matches!(self.body, Body::Genesis { .. });
        Invalid::unless(genesis == (self.seq == 0), "a chain begins with its genesis and has no other")?;
        let about = match (self.lease, self.peer) {
            (None, None) => Some(About::Chain),
            (None, Some(_)) => Some(About::Peer),
            (Some(_), Some(_)) => Some(About::Lease),
            (Some(_), None) => None,
        };
        Invalid::unless(about == Some(self.body.about()), "it names a lease or a peer too many or too few")?;
        Invalid::unless(self.peer != Some(self.author), "its peer is its author")?;
        match &self.body {
            Body::Void { sentence, .. } => Invalid::text(sentence, limits::SENTENCE_BYTES, "the sentence"),
            Body::Placement { slots, devices, .. } => {
                let few = slots.len() <= usize::from(limits::SLOTS) && devices.len() <= usize::from(limits::SLOTS);
                Invalid::unless(few, "too many slots or devices")?;
                devices.iter().try_for_each(|d| Invalid::text(d, limits::DEVICE_BYTES, "a device"))
            }
            Body::Genesis { .. }
            | Body::LeaseOpen { .. }
            | Body::LeaseAccept { .. }
            | Body::Amend { .. }
            | Body::Amended(_)
            | Body::Anchor { .. }
            | Body::Close { .. }
            | Body::CloseAck { .. } => Ok(()),
            Body::Settle(settle) => settle.check(),
            Body::SettleAck(ack) => ack.check(),
            Body::Dispute(dispute) => dispute.check(),
            Body::Attestation(attestation) => attestation.check(),
            Body::Probe(observation) => {
                let fits = observation.rental().is_none_or(|watched| watched.fits(self.time));
                Invalid::unless(fits, "it was looked at for longer than there was time")?;
                observation.check()
            }
            Body::Checkpoint(checkpoint) => {
                Invalid::unless(checkpoint.seq < self.seq, "a checkpoint stands for entries before it")?;
                checkpoint.check()
            }
        }
    }
}
