//! The host's side: what this machine offers, to whom, and who is on it.

use serde::{Deserialize, Serialize};
use souk_protocol::{
    Amount, Currency, DocumentId, LeaseId, MachineId, Millis, NodeId, Timestamp,
    lease::LeaseState,
    ports::PortRange,
    resources::{Egress, Hardware},
};

use super::{
    ConditionsView, HostRole, LeaseView, PricingView, Problem, ScheduleView, Until, decimal, lease::StateFields,
};

/// What a host offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostView {
    /// Whether it is offered.
    pub role: HostRole,
    /// The machine.
    pub machine: MachineId,
    /// What it is made of.
    pub hardware: Hardware,
    /// Its slots.
    pub slots: Vec<SlotView>,
    /// The smallest slice rented, in slots.
    pub min_slots: u16,
    /// The prices; none before the owner has named one.
    pub prices: Option<PricesView>,
    /// How they come about.
    #[serde(default)]
    pub pricing: PricingView,
    /// Who may rent.
    pub accepts: AcceptsView,
    /// On what other conditions.
    #[serde(default)]
    pub conditions: ConditionsView,
    /// What guests may be granted to reach.
    pub egress: Vec<Egress>,
    /// Registries images may come from.
    pub registries: Vec<String>,
    /// Ports that instances are reached at from outside; none where the host has none.
    #[serde(default)]
    pub public: Option<PublicView>,
    /// What the owner keeps from renters.
    #[serde(default)]
    pub schedule: ScheduleView,
    /// The container engine.
    pub engine: EngineView,
    /// The offer that is out; none while it is not offered.
    pub offer: Option<OfferView>,
    /// Leases on this machine that are not over.
    pub leases: Vec<LeaseView>,
    /// Those of them that were bid for, by rank.
    pub bids: Vec<BidView>,
    /// What is not as it should be.
    pub problems: Vec<Problem>,
}

/// Ports of a host's public address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicView {
    /// The address.
    pub address: String,
    /// The ports.
    pub ports: PortRange,
    /// How many of them no lease has.
    pub free: u16,
}

/// One slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotView {
    /// Its number.
    pub slot: u16,
    /// The GPU's UUID or device path; none for a CPU slot.
    pub device: Option<String>,
    /// The GPU's model.
    pub gpu: Option<String>,
    /// Whether the machine is cut so that it has this slot; one that is beyond the cut is kept while a lease holds it.
    pub listed: bool,
    /// Who holds it.
    #[serde(flatten)]
    pub holder: SlotHolder,
}

/// Who holds a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "held", rename_all = "snake_case")]
pub enum SlotHolder {
    /// Nobody.
    Free,
    /// A lease of this node.
    Lease {
        /// Which.
        lease: LeaseId,
    },
    /// Another node of this machine.
    Elsewhere,
}

/// An offer as it is out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferView {
    /// Its id.
    pub id: DocumentId,
    /// Its number: each new offer has a higher one.
    pub seq: u64,
    /// When it was made.
    pub issued_at_ms: Timestamp,
    /// When it ends, if it is not made anew.
    pub valid_until_ms: Timestamp,
    /// Slots it has.
    pub slots_total: u16,
    /// Slots it has free.
    pub slots_free: u16,
    /// The sizes it is sold in, in slots.
    pub slices: Vec<u16>,
    /// Disk for volumes, rented out or not, in MB.
    pub volume_mb: u64,
    /// What of it is left, in MB.
    pub volume_free_mb: u64,
}

/// A lease that was bid for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BidView {
    /// 1 for the highest price of a slot.
    pub rank: u32,
    /// The lease's row number.
    pub number: u64,
    /// The lease.
    pub lease: LeaseId,
    /// Who bids.
    pub renter: NodeId,
    /// For how many slots.
    pub slots: u16,
    /// For all of them and an hour.
    #[serde(with = "decimal")]
    pub price_hour: Amount,
    /// For one slot and hour, rounded down.
    #[serde(with = "decimal")]
    pub slot_hour: Amount,
    /// Its currency.
    pub currency: Currency,
    /// When that price was bid: of equal ones the older goes first.
    pub bid_at_ms: Timestamp,
    /// Whether it runs or waits.
    #[serde(flatten, with = "StateFields")]
    pub state: LeaseState,
    /// Since when it does.
    pub since_ms: Timestamp,
}

/// What a host asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PricesView {
    /// One slot for one hour.
    #[serde(with = "decimal")]
    pub slot_hour: Amount,
    /// The lowest bid for one slot for one hour.
    #[serde(with = "decimal")]
    pub min_bid: Amount,
    /// Disk per GB and month of 30 days.
    #[serde(with = "decimal")]
    pub storage_gb_month: Amount,
    /// Traffic out per GB.
    #[serde(with = "decimal")]
    pub up_gb: Amount,
    /// Traffic in per GB.
    #[serde(with = "decimal")]
    pub down_gb: Amount,
    /// What a reserved term is cheaper by, in thousandths.
    pub reserved_discount: u16,
    /// The currency of all.
    pub currency: Currency,
}

/// Who may rent here.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AcceptsView {
    /// Anybody; in a private cluster every member.
    pub anyone: bool,
    /// Those named by the owner.
    pub peers: Vec<NodeId>,
    /// The private cluster that the node is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
}

/// The container engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineView {
    /// Its version; none if it does not answer.
    pub version: Option<String>,
    /// Where it is.
    pub socket: String,
    /// How GPUs are handed to containers; none if they can't be.
    pub gpus: Option<String>,
    /// Whether a guest's disk limit is enforced by the file system.
    pub hard_disk_quota: bool,
}

/// What changes about the listing; none leaves it as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListRequest {
    /// One slot for one hour.
    #[serde(with = "decimal::option")]
    pub slot_hour: Option<Amount>,
    /// The lowest bid for one slot for one hour.
    #[serde(with = "decimal::option")]
    pub min_bid: Option<Amount>,
    /// Disk per GB and month.
    #[serde(with = "decimal::option")]
    pub storage_gb_month: Option<Amount>,
    /// Traffic out per GB.
    #[serde(with = "decimal::option")]
    pub up_gb: Option<Amount>,
    /// Traffic in per GB.
    #[serde(with = "decimal::option")]
    pub down_gb: Option<Amount>,
    /// The currency.
    pub currency: Option<Currency>,
    /// Slots of a machine without GPUs.
    pub slots: Option<u16>,
    /// The smallest slice, in slots.
    pub min_slots: Option<u16>,
    /// No contract runs past this.
    pub latest_end: Option<Until>,
    /// The longest contract.
    pub max_term_ms: Option<Millis>,
    /// Warning before an interruptible instance is stopped for others.
    pub eviction_notice_ms: Option<Millis>,
    /// A run that others cut shorter than this is free.
    pub quantum_ms: Option<Millis>,
}

/// What runs on slots that nobody rents.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IdleJobRequest {
    /// Its image; none for nothing.
    pub image: Option<String>,
    /// Arguments in place of the image's.
    pub command: Option<Vec<String>>,
}

/// The idle job, and what it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdleJobView {
    /// Its image; none if nothing is to run.
    pub image: Option<String>,
    /// The digest that name stands for; none until the image is found.
    pub digest: Option<String>,
    /// Arguments in place of the image's.
    pub command: Option<Vec<String>>,
    /// Why it can't run; none if it can.
    pub problem: Option<String>,
    /// Its containers, by slot. Slots it has never been on are not here.
    pub slots: Vec<IdleSlotView>,
}

/// The idle job on one slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdleSlotView {
    /// The slot.
    pub slot: u16,
    /// What it does there.
    pub state: IdleState,
    /// Why it last ended by itself or failed.
    pub note: Option<String>,
}

/// What an idle container does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdleState {
    /// Its image is fetched, or it is being made.
    Preparing,
    /// It runs.
    Running,
    /// It was killed, and its end is not known yet.
    Ending,
    /// It ended or failed, and is run again in a while.
    Waiting,
    /// A rental or the owner has the slot.
    Away,
}

/// Whom an owner lets rent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// Anybody.
    Anyone,
    /// One node.
    Peer(NodeId),
}

/// A change of who may rent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcceptRequest {
    /// Who.
    pub who: Who,
    /// Whether.
    pub accept: bool,
}
