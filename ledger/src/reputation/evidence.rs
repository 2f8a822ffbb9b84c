//! What is known of one lease, as far as reputation is concerned, and where it is read from.
//!
//! Owns the weights of failures and who is answerable for them, and how two accounts of one lease become one. Verifies nothing:
//! it is given what the fold or the verifier has accepted.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use souk_protocol::{
    Amount, Currency, LeaseId, Millis, NodeId, Timestamp,
    entry::Body,
    lease::EndReason,
    opinion::{DisputeCode, Observation},
};

use crate::lease::{Lease, Status};

/// A side of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Who lets.
    Host,
    /// Who rents.
    Renter,
}

impl Side {
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Host => Self::Renter,
            Self::Renter => Self::Host,
        }
    }
}

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// The host took the machine back, or lost what it kept for the renter.
    HostAbort,
    /// The offer said what was not so.
    Bait,
    /// The host accepted and the instance never ran.
    NoShow,
    /// It was slower than the offer said.
    PerformanceShort,
    /// A challenge was answered with a false proof.
    ProofFailed,
    /// Accepted, and nobody closed it within [`CLOSED_WITHIN`] of its end.
    NeverClosed,
    /// What is claimed and what is acknowledged never came together, in usage or in payment.
    DisputedAck,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::HostAbort,
        Self::Bait,
        Self::NoShow,
        Self::PerformanceShort,
        Self::ProofFailed,
        Self::NeverClosed,
        Self::DisputedAck,
    ];

    /// How much it weighs beside a success of weight 1.
    #[must_use]
    pub const fn weight(self) -> f64 {
        match self {
            Self::HostAbort | Self::Bait | Self::PerformanceShort => 1.0,
            Self::NoShow | Self::NeverClosed => 0.5,
            Self::ProofFailed => 10.0,
            Self::DisputedAck => 0.25,
        }
    }

    /// The word lists show.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::HostAbort => "host_abort",
            Self::Bait => "bait",
            Self::NoShow => "no_show",
            Self::PerformanceShort => "performance_short",
            Self::ProofFailed => "proof_failed",
            Self::NeverClosed => "never_closed",
            Self::DisputedAck => "disputed_ack",
        }
    }
}

/// Something that went wrong in a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Failure {
    /// What.
    pub cause: Cause,
    /// Who is answerable for it.
    pub against: Side,
    /// Whether the one answerable has signed it, or anyone can check it. Otherwise it is the other side's word.
    pub admitted: bool,
}

/// After the end of its contract, a lease that nobody has closed counts against both after this long.
pub const CLOSED_WITHIN: Millis = Millis::from_hours(72);

/// What is known of one lease.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Evidence {
    /// Which lease.
    pub lease: LeaseId,
    /// Who let.
    pub host: NodeId,
    /// Who rented.
    pub renter: NodeId,
    /// Signatures of the parties behind it: open, accept, usage, acknowledgement, closes and their answers.
    pub signatures: u8,
    /// Number of the newest usage that both signed; zero for none.
    pub n: u64,
    /// What the amounts are in.
    pub currency: Currency,
    /// What the renter has signed for.
    pub agreed: Amount,
    /// What of that has been paid, as the host has signed: see [`settle`]. Never more than `agreed`.
    pub settled: Amount,
    /// How long the instance ran, as the renter has signed.
    pub used: Millis,
    /// The newest signed time in it.
    pub at: Timestamp,
    /// Whether either side has closed it.
    pub closed: bool,
    /// When the contract ends.
    pub ends_at: Timestamp,
    /// What went wrong.
    pub failures: BTreeSet<Failure>,
}

impl Evidence {
    /// What a lease's documents say; none if the host never accepted it. Nothing in it counts as settled yet.
    #[must_use]
    pub fn from_lease(lease: &Lease) -> Option<Self> {
        let accepted = lease.answer.as_ref().filter(|_| !matches!(lease.status(), Status::Opened | Status::Void))?;
        let entries = [
            Some(&lease.open),
            Some(accepted),
            lease.host_close.as_ref(),
            lease.renter_close.as_ref(),
            lease.host_close_ack.as_ref(),
            lease.renter_close_ack.as_ref(),
        ];
        let agreed = lease.receipts.agreed.as_ref();
        let receipt_at = agreed.map(|r| r.usage.value.time);
        let newest = entries.iter().flatten().map(|e| e.value.time).chain(receipt_at).max();
        let signatures = entries.iter().flatten().count() + if agreed.is_some() { 2 } else { 0 };
        Some(Self {
            lease: lease.id(),
            host: lease.host(),
            renter: lease.renter(),
            signatures: u8::try_from(signatures).unwrap_or(u8::MAX),
            n: agreed.map_or(0, |r| r.usage.value.n),
            currency: lease.currency().clone(),
            agreed: lease.agreed(),
            settled: Amount::ZERO,
            used: agreed.map_or(Millis(0), |r| {
                let counters = r.usage.value.counters;
                Millis(counters.active.0.saturating_sub(counters.waived.0))
            }),
            at: newest.unwrap_or(accepted.value.time),
            closed: lease.host_close.is_some() || lease.renter_close.is_some(),
            ends_at: lease.terms().ends_at,
            failures: failures_of(lease),
        })
    }

    /// The node on one side.
    #[must_use]
    pub const fn node(&self, side: Side) -> NodeId {
        match side {
            Side::Host => self.host,
            Side::Renter => self.renter,
        }
    }

    /// All failures at `now`: those told, and that nobody has closed it.
    pub fn failures_at(&self, now: Timestamp) -> impl Iterator<Item = Failure> + '_ {
        let last = self.ends_at.max(self.at) + CLOSED_WITHIN;
        let open = !self.closed && now > last;
        let never = [Side::Host, Side::Renter].into_iter().filter(move |_| open);
        let never = never.map(|against| Failure { cause: Cause::NeverClosed, against, admitted: false });
        self.failures.iter().copied().chain(never)
    }

    /// Which of two accounts of one lease is the better one: more signatures, then a later receipt, then any fixed order.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Ordering {
        (self.signatures, self.n).cmp(&(other.signatures, other.n)).then_with(|| self.cmp(other))
    }

    /// Takes from a worse account of the same lease what the better may be silent about: failures, a close, a payment. Neither
    /// side shows what speaks against it. The order in which several are taken does not matter.
    pub fn absorb(&mut self, worse: Self) {
        self.closed |= worse.closed;
        self.settled = self.settled.max(worse.settled.min(self.agreed));
        self.at = self.at.max(worse.at);
        self.failures.extend(worse.failures);
    }
}

fn failures_of(lease: &Lease) -> BTreeSet<Failure> {
    let mut failures = BTreeSet::new();
    let reason_of = |close: Option<&crate::record::Held<souk_protocol::entry::Entry>>| {
        close.and_then(|c| c.value.body.closing()).map(|(reason, ..)| reason)
    };
    let ran = lease.receipts.agreed.as_ref().is_some_and(|r| r.usage.value.counters.active.0 > 0);
    let mut hosts_doing = |reason: Option<EndReason>, admitted: bool| {
        if let Some(reason) = reason.filter(|r| r.is_hosts_doing()) {
            let cause = match reason {
                EndReason::PrepareTimeout | EndReason::CreateFailed if !ran => Cause::NoShow,
                EndReason::Destroyed
                | EndReason::LeftEarly
                | EndReason::Expired
                | EndReason::AskedFromInside
                | EndReason::HostAborted
                | EndReason::ImageFailed
                | EndReason::CreateFailed
                | EndReason::PrepareTimeout
                | EndReason::ContainerLost
                | EndReason::EngineLost
                | EndReason::Unconfirmed
                | EndReason::VolumeLost
                | EndReason::Unpaid
                | EndReason::Disputed
                | EndReason::MemberRemoved
                | EndReason::HostVanished => Cause::HostAbort,
            };
            failures.insert(Failure { cause, against: Side::Host, admitted });
        }
    };
    hosts_doing(reason_of(lease.host_close.as_ref()), true);
    if lease.host_close.is_none() {
        hosts_doing(reason_of(lease.renter_close.as_ref()), lease.host_close_ack.is_some());
    }
    for (complaint, against) in [(&lease.renter_dispute, Side::Host), (&lease.host_dispute, Side::Renter)] {
        if let Some(Body::Dispute(dispute)) = complaint.as_ref().map(|c| &c.value.body)
            && let Some(cause) = cause_of(dispute.code, against)
        {
            failures.insert(Failure { cause, against, admitted: false });
        }
    }
    failures
}

/// What a complaint against a side counts as; none for what can't be weighed.
const fn cause_of(code: DisputeCode, against: Side) -> Option<Cause> {
    match (code, against) {
        (DisputeCode::NotDelivered, Side::Host) => Some(Cause::NoShow),
        (DisputeCode::Performance, Side::Host) => Some(Cause::PerformanceShort),
        (DisputeCode::Bait, Side::Host) => Some(Cause::Bait),
        (DisputeCode::OverMetered | DisputeCode::PaymentIgnored, Side::Host)
        | (DisputeCode::NotAcknowledged | DisputeCode::Unpaid, Side::Renter) => Some(Cause::DisputedAck),
        (
            DisputeCode::OverMetered
            | DisputeCode::NotAcknowledged
            | DisputeCode::NotDelivered
            | DisputeCode::Performance
            | DisputeCode::Bait
            | DisputeCode::Unpaid
            | DisputeCode::PaymentIgnored
            | DisputeCode::Abuse
            | DisputeCode::Other,
            Side::Host | Side::Renter,
        ) => None,
    }
}

/// What one node has paid another in all, as the payee has acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Paid {
    /// Who paid.
    pub payer: NodeId,
    /// Who acknowledged it.
    pub payee: NodeId,
    /// In what.
    pub currency: Currency,
    /// Over all time.
    pub total: Amount,
}

/// Marks what is paid: each pair's payments pay its leases in the order in which they were last signed for. Payments are
/// cumulative, so of several for one pair and currency the largest counts.
pub fn settle(evidence: &mut [Evidence], payments: &[Paid]) {
    let mut left: BTreeMap<(NodeId, NodeId, &Currency), u64> = BTreeMap::new();
    for paid in payments {
        let sum = left.entry((paid.payer, paid.payee, &paid.currency)).or_default();
        *sum = (*sum).max(paid.total.0);
    }
    let mut order: Vec<&mut Evidence> = evidence.iter_mut().collect();
    order.sort_by_key(|e| (e.at, e.lease));
    for e in order {
        if let Some(left) = left.get_mut(&(e.renter, e.host, &e.currency)) {
            let paid = e.agreed.0.min(*left);
            e.settled = e.settled.max(Amount(paid));
            *left -= paid;
        }
    }
}

/// What this node has seen of a peer itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// In which lease; none for what was seen outside of any.
    pub lease: Option<LeaseId>,
    /// Of whom.
    pub peer: NodeId,
    /// When.
    pub at: Timestamp,
    /// What.
    pub seen: Observation,
}

impl Probe {
    /// What `me` has said in its chain that it saw of a lease's host. Others' are their word alone, and none here.
    #[must_use]
    pub fn from_lease(lease: &Lease, me: &NodeId) -> Option<Self> {
        let said = &lease.renter_probe.as_ref().filter(|said| said.value.author == *me)?.value;
        let seen = Observation::Rental(*said.body.rental()?);
        Some(Self { lease: Some(lease.id()), peer: lease.host(), at: said.time, seen })
    }
}
