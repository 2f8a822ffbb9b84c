//! The lease: its terms, which the host drafts and signs and the renter opens, and the words for its states.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    id::{AskId, Digest, DocumentId, MachineId, NodeId, Nonce, SshKey},
    limits,
    money::{self, Amount, Counters, Currency, Rates},
    negotiation::{ImagePin, RentalType},
    payment::PaymentTerms,
    ports::PublicAccess,
    resources::{Egress, Resources, SlotClass},
    signed::{Document, Invalid},
    time::{Millis, Timestamp},
};

/// The whole lease, signed by the host. Binds nobody by itself: the renter's `lease_open` carries it, and the lease exists by
/// the host's durable `lease_accept` of that open. Its id is the lease's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseDraft {
    /// The signer.
    pub host: NodeId,
    /// The other party.
    pub renter: NodeId,
    /// The machine.
    pub machine: MachineId,
    /// The ask.
    pub ask: AskId,
    /// The offer it came from.
    pub offer: DocumentId,
    /// The renter's, from the proposal.
    pub nonce: Nonce,
    /// How the slots are rented.
    pub rental: RentalType,
    /// What is granted.
    pub resources: Resources,
    /// What the guest may reach.
    pub egress: Egress,
    /// The ports it is reached at from outside; none without any.
    pub public: Option<PublicAccess>,
    /// The currency of every amount here.
    pub currency: Currency,
    /// The prices, for all slots together.
    pub rates: Rates,
    /// The undiscounted price of the same slots for an hour. Of a reserved lease it is above the rate, else equal or below.
    pub listed_hour: Amount,
    /// How far what is due may run ahead of what the renter has acknowledged.
    pub credit: Amount,
    /// How it is paid; none if payment is not asked for.
    pub payment: Option<PaymentTerms>,
    /// What the lease may cost at most.
    pub max_spend: Option<Amount>,
    /// Until when the host may extend the contract by itself, at the same price or a lower one.
    pub extend_until: Option<Timestamp>,
    /// Warning before an interruptible instance is stopped for others.
    pub notice: Millis,
    /// A run of an interruptible instance that others cut shorter than this is free.
    pub quantum: Millis,
    /// Time between two receipts.
    pub tick: Millis,
    /// The image.
    pub image: ImagePin,
    /// Digest of the workload.
    pub workload: Digest,
    /// What the host's SSH server proves to be: a key of its own, pinned by the renter.
    pub ssh_host_key: SshKey,
    /// When it was drafted.
    pub drafted_at: Timestamp,
    /// Compute stops here.
    pub ends_at: Timestamp,
    /// The last moment at which an open is taken.
    pub commit_by: Timestamp,
    /// Past this, without the host's answer, the renter may rent elsewhere.
    pub confirm_by: Timestamp,
}

impl LeaseDraft {
    /// What keeping the disk for [`limits::DISK_KEPT`] after compute has stopped costs.
    ///
    /// # Errors
    /// [`money::Overflow`] if the amount does not fit.
    pub fn disk_reserve(rates: &Rates, disk_mb: u64) -> Result<Amount, money::Overflow> {
        let kept = Counters { storage: limits::DISK_KEPT, ..Counters::default() };
        money::due(rates, disk_mb, &kept, Amount::ZERO)
    }

    /// The prices, at the highest that slices are measured by: a bid may be raised up to the listed price before they are too small.
    #[must_use]
    pub fn dearest(&self) -> Rates {
        let compute_hour = match self.rental {
            RentalType::Interruptible => self.rates.compute_hour.max(self.listed_hour),
            RentalType::OnDemand | RentalType::Reserved => self.rates.compute_hour,
        };
        Rates { compute_hour, ..self.rates }
    }

    /// Whether this is the lease of a volume: a disk by itself, without slots to run anything on.
    #[must_use]
    pub const fn is_volume(&self) -> bool {
        self.resources.slots == 0
    }

    /// A volume is disk and nothing else, at a fixed price.
    fn check_volume(&self) -> Result<(), Invalid> {
        let resources = self.resources == Resources::volume(self.resources.disk_mb);
        Invalid::unless(resources, "it has no slots, and yet more than a disk")?;
        Invalid::unless(self.resources.disk_mb >= limits::VOLUME_LEAST_MB, "its volume is too small")?;
        Invalid::unless(self.rental == RentalType::OnDemand, "a volume is only rented at a fixed price")?;
        let free = self.rates.compute_hour == Amount::ZERO && self.listed_hour == Amount::ZERO;
        Invalid::unless(free, "a volume's price is for its disk alone")?;
        let nothing_runs = self.egress == Egress::None && self.public.is_none() && self.image == ImagePin::none();
        Invalid::unless(nothing_runs, "nothing runs in a volume")
    }
}

impl Document for LeaseDraft {
    const CONTEXT: &'static str = "souk 2026-11 lease v1";
    const NAME: &'static str = "lease draft";
    const MAX_BYTES: usize = limits::DRAFT_BYTES;

    fn author(&self) -> NodeId {
        self.host
    }

    fn check(&self) -> Result<(), Invalid> {
        self.currency.check()?;
        self.image.check()?;
        self.public.as_ref().map_or(Ok(()), PublicAccess::check)?;
        self.payment.as_ref().map_or(Ok(()), PaymentTerms::check)?;
        Invalid::unless(self.host != self.renter, "host and renter are the same node")?;
        if self.is_volume() {
            self.check_volume()?;
        }
        Invalid::unless(self.resources.slots <= limits::SLOTS, "its slots make no sense")?;
        if let SlotClass::Gpu(model) = &self.resources.class {
            Invalid::text(model, limits::NAME_BYTES, "the GPU model")?;
        }
        Invalid::unless((limits::TICK.0..=limits::TICK.1).contains(&self.tick), "the tick is not between 1 s and 1 h")?;
        let ordered =
            self.drafted_at < self.commit_by && self.commit_by <= self.confirm_by && self.commit_by < self.ends_at;
        Invalid::unless(ordered, "its times are out of order")?;
        let allowed = self.extend_until.map_or(self.ends_at, |until| until.max(self.ends_at));
        Invalid::unless(allowed.since(self.drafted_at) <= limits::TERM, "it runs for more than a year")?;
        let discounted = self.rental != RentalType::Reserved || self.rates.compute_hour <= self.listed_hour;
        Invalid::unless(discounted, "a reserved price above the listed one")?;
        Invalid::unless(self.rates.compute_hour <= limits::PRICE_HOUR, "it costs more than a million for an hour")?;
        Invalid::unless(
            self.notice <= limits::NOTICE && self.quantum <= limits::QUANTUM,
            "its notice or quantum is over the limit",
        )
    }
}

/// Why an instance is not running, though its lease goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PauseReason {
    /// The renter stopped it.
    Stopped,
    /// Its command ended by itself.
    Exited,
    /// What is due has run ahead of what is acknowledged by the whole credit, or what is owed of what may be unpaid.
    NoCredit,
    /// The ceiling is reached, but for keeping the disk.
    MaxSpend,
    /// The contract's end is past; the disk is kept for a while.
    Expired,
    /// The host's machine or node restarts.
    HostRestart,
    /// The container engine restarts.
    EngineRestart,
    /// The instance wrote more than its disk.
    DiskFull,
    /// Other rentals have its slots: higher bids, fixed prices, or the host's own work. Runs again by itself.
    Outbid,
    /// The machine is being maintained, as announced. Runs again by itself.
    Maintenance,
    /// A volume that it has attached is not to be had any more: over, or used up by its limit.
    VolumeEnded,
    /// The renter has used up the slot hours that its private cluster gives it on this host.
    QuotaUsed,
}

/// Why a lease has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The renter destroyed the instance.
    Destroyed,
    /// The renter left a reserved term before its end, and owes the discount it had.
    LeftEarly,
    /// The contract ended and the disk was kept long enough.
    Expired,
    /// A program in the instance asked for it, by the instance's own endpoint.
    AskedFromInside,
    /// The host took the machine back.
    HostAborted,
    /// The image could not be had or is too large.
    ImageFailed,
    /// The container could not be made or started.
    CreateFailed,
    /// Preparing took too long.
    PrepareTimeout,
    /// The container was gone when the host looked for it.
    ContainerLost,
    /// The engine did not come back.
    EngineLost,
    /// The host's accept came after the renter had given up.
    Unconfirmed,
    /// The volume was gone when the host looked for it.
    VolumeLost,
    /// What was owed stayed unpaid for as long as the host keeps what is stopped for it.
    Unpaid,
    /// Renter and host did not agree on what was used.
    Disputed,
    /// The host was not heard of any more.
    HostVanished,
    /// The renter was removed from the private cluster that both were in.
    MemberRemoved,
}

impl EndReason {
    /// Whether the host caused it. Ending the leases of removed members is its own policy; and in a public network, where nobody is a
    /// member of anything, these words excuse nothing.
    #[must_use]
    pub const fn is_hosts_doing(self) -> bool {
        matches!(
            self,
            Self::HostAborted
                | Self::CreateFailed
                | Self::PrepareTimeout
                | Self::ContainerLost
                | Self::EngineLost
                | Self::VolumeLost
                | Self::HostVanished
                | Self::MemberRemoved
        )
    }
}

/// Where a lease stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseState {
    /// The image is pulled, the container created. Holds slots, costs only disk once created.
    Preparing,
    /// The command runs, and is billed.
    Running,
    /// Not running, disk kept.
    Paused(PauseReason),
    /// Over; the disk is destroyed.
    Ended(EndReason),
    /// A volume is there to be attached, and is billed for its disk.
    Kept,
}

impl LeaseState {
    /// Whether it is over.
    #[must_use]
    pub const fn is_ended(self) -> bool {
        matches!(self, Self::Ended(_))
    }
}

impl fmt::Display for PauseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopped => "stopped",
            Self::Exited => "exited",
            Self::NoCredit => "no_credit",
            Self::MaxSpend => "max_spend",
            Self::Expired => "expired",
            Self::HostRestart => "host_restart",
            Self::EngineRestart => "engine_restart",
            Self::DiskFull => "disk_full",
            Self::Outbid => "outbid",
            Self::Maintenance => "maintenance",
            Self::VolumeEnded => "volume_ended",
            Self::QuotaUsed => "quota_used",
        })
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Destroyed => "destroyed",
            Self::LeftEarly => "left_early",
            Self::Expired => "expired",
            Self::AskedFromInside => "asked_from_inside",
            Self::HostAborted => "host_aborted",
            Self::ImageFailed => "image_failed",
            Self::CreateFailed => "create_failed",
            Self::PrepareTimeout => "prepare_timeout",
            Self::ContainerLost => "container_lost",
            Self::EngineLost => "engine_lost",
            Self::Unconfirmed => "unconfirmed",
            Self::VolumeLost => "volume_lost",
            Self::Unpaid => "unpaid",
            Self::Disputed => "disputed",
            Self::HostVanished => "host_vanished",
            Self::MemberRemoved => "member_removed",
        })
    }
}

impl fmt::Display for LeaseState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Preparing => f.write_str("preparing"),
            Self::Running => f.write_str("running"),
            Self::Kept => f.write_str("kept"),
            Self::Paused(reason) => write!(f, "paused({reason})"),
            Self::Ended(reason) => write!(f, "ended({reason})"),
        }
    }
}
