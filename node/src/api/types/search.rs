//! Looking for offers.

use serde::{Deserialize, Serialize};
use souk_protocol::{
    Amount, AskId, Currency, DocumentId, MachineId, NodeId, Timestamp, offer::Reachability, resources::Egress,
};

use super::decimal;

/// What is looked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SearchRequest {
    /// Conditions, `gpu_name=RTX_4090 num_gpus>=2`; empty for all.
    pub query: String,
    /// Field to sort by, with `-` at its end for the largest first.
    pub order: Option<String>,
    /// How it is to be rented.
    pub rental: Option<RentalKind>,
    /// Disk in GB that `dph` includes.
    pub storage_gb: Option<u64>,
    /// At most so many rows.
    pub limit: Option<u32>,
    /// Say what each condition excludes.
    pub explain: bool,
    /// Also what can't be rented now.
    pub all: bool,
}

/// How slots are rented, as search says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RentalKind {
    /// At the host's price, until the contract's end.
    OnDemand,
    /// By a bid.
    Bid,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchResults {
    /// The asks, in order.
    pub rows: Vec<AskRow>,
    /// Asks that match, shown or not.
    pub matched: u64,
    /// Asks in the book.
    pub total: u64,
    /// What default filters hide, a sentence each: "12 are rented now (--all shows them)".
    pub hidden: Vec<String>,
    /// What each condition excludes, if asked.
    pub explain: Option<Explanation>,
}

/// Why there are so few.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Each condition, with how many asks it alone excludes.
    pub conditions: Vec<ConditionCount>,
    /// The nearest misses, a sentence each.
    pub nearest: Vec<String>,
}

/// A condition, and what it costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConditionCount {
    /// As it was written.
    pub condition: String,
    /// Asks that only it excludes.
    pub excludes: u64,
}

/// One ask: so many slots of one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskRow {
    /// Row number of this search, from 1; `souk rent` takes it.
    pub row: u32,
    /// The ask.
    pub id: AskId,
    /// Whose machine.
    pub host: NodeId,
    /// Which machine.
    pub machine: MachineId,
    /// The offer it comes from.
    pub offer: DocumentId,
    /// Slots it has.
    pub slots: u16,
    /// GPU model, if it has any.
    pub gpu_name: Option<String>,
    /// GPUs.
    pub gpus: u16,
    /// Memory of each GPU in MiB.
    pub vram_mib: u64,
    /// Whether the GPUs are only declared, not measured.
    pub declared: bool,
    /// The newest CUDA the driver supports, times 100; 0 if none.
    pub cuda: u32,
    /// CPU model.
    pub cpu_name: String,
    /// Thousandths of a hardware thread.
    pub cpu_milli: u32,
    /// Memory in MB.
    pub ram_mb: u64,
    /// Disk to be had, in MB.
    pub disk_mb: u64,
    /// What it costs per hour, with the disk asked for.
    #[serde(with = "decimal")]
    pub dph: Amount,
    /// The lowest bid per hour, for all slots together.
    #[serde(with = "decimal")]
    pub min_bid: Amount,
    /// Disk per GB and month.
    #[serde(with = "decimal")]
    pub storage_gb_month: Amount,
    /// Traffic out per GB.
    #[serde(with = "decimal")]
    pub up_gb: Amount,
    /// Traffic in per GB.
    #[serde(with = "decimal")]
    pub down_gb: Amount,
    /// The currency of the prices.
    pub currency: Currency,
    /// Measured upload in Mbit/s.
    pub up_mbps: Option<u32>,
    /// Measured download in Mbit/s.
    pub down_mbps: Option<u32>,
    /// Share of uptime and of leases completed, in thousandths; none if nothing is known.
    pub reliability_permille: Option<u16>,
    /// Country, as declared.
    pub country: Option<String>,
    /// How the host is reached.
    pub reachability: Reachability,
    /// What guests may be granted to reach.
    pub egress: Vec<Egress>,
    /// Whether it can be rented now.
    pub rentable: bool,
    /// No contract runs past this.
    pub latest_end_ms: Option<Timestamp>,
}
