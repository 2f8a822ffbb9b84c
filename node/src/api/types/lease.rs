//! Leases as lists and details show them, and what is asked of their instances.

use serde::{Deserialize, Serialize};
use souk_protocol::{
    Amount, AskId, Currency, DocumentId, LeaseId, MachineId, Millis, NodeId, Timestamp,
    lease::{EndReason, LeaseState, PauseReason},
    message::{Cause, EventCode, Progress},
    money::Counters,
    negotiation::RentalType,
    ports::PublicAccess,
    receipt::PartialReason,
    resources::{Egress, Resources},
};

use super::{ChangeView, Environment, EvictionView, ExtensionView, PlaceView, TermsView, decimal};

/// [`LeaseState`] as two fields: `"state": "paused", "reason": "stopped"`.
#[derive(Serialize, Deserialize)]
#[serde(remote = "LeaseState", tag = "state", content = "reason", rename_all = "snake_case")]
pub(super) enum StateFields {
    Preparing,
    Running,
    Paused(PauseReason),
    Ended(EndReason),
    Kept,
}

/// Which side of a lease this node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It rents.
    Renter,
    /// It hosts.
    Host,
}

/// A lease in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseView {
    /// Its row number, for life.
    pub number: u64,
    /// Its id.
    pub lease: LeaseId,
    /// This node's side.
    pub role: Role,
    /// The other side.
    pub peer: NodeId,
    /// The renter's name for it.
    pub label: Option<String>,
    /// What a program in the instance calls it. Names nothing: its host could say anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_inside: Option<String>,
    /// Where it stands.
    #[serde(flatten, with = "StateFields")]
    pub state: LeaseState,
    /// Since when it stands there.
    pub since_ms: Timestamp,
    /// The image as the renter wrote it.
    pub image: String,
    /// The command, joined for people; empty for the image's own.
    pub command: String,
    /// What it is granted.
    pub resources: Resources,
    /// How it is rented.
    pub rental: RentalType,
    /// Compute per hour.
    #[serde(with = "decimal")]
    pub price_hour: Amount,
    /// The newest claim of its host.
    #[serde(with = "decimal")]
    pub due: Amount,
    /// What the renter has agreed to.
    #[serde(with = "decimal")]
    pub acked: Amount,
    /// The currency of the amounts.
    pub currency: Currency,
    /// Time it has been running, over all starts.
    pub uptime_ms: Millis,
    /// When the contract ends.
    pub ends_at_ms: Timestamp,
    /// Of the last command that ended.
    pub exit_code: Option<i32>,
    /// How far preparing is.
    pub progress: Option<Progress>,
    /// The last event's sentence; empty if the state says it all.
    pub note: String,
    /// Whether the other side is connected now.
    pub reachable: bool,
    /// Whether it is connected through a relay only.
    #[serde(default)]
    pub relayed: bool,
    /// The ports it is reached at from outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public: Option<PublicAccess>,
    /// Where it stands among the bids, while it waits for slots.
    #[serde(default)]
    pub place: Option<PlaceView>,
    /// When and for whom it is stopped soon.
    #[serde(default)]
    pub eviction: Option<EvictionView>,
}

impl LeaseView {
    /// Whether it is a volume: disk without anything that computes.
    #[must_use]
    pub const fn is_volume(&self) -> bool {
        self.resources.slots == 0
    }
}

/// One thing that happened to a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventView {
    /// 1, 2, 3 …
    pub n: u32,
    /// When.
    pub at_ms: Timestamp,
    /// The state from then on.
    #[serde(flatten, with = "StateFields")]
    pub state: LeaseState,
    /// What happened.
    #[serde(default)]
    pub what: EventCode,
    /// Who or what caused it.
    pub by: Cause,
    /// Of a command that ended.
    pub exit_code: Option<i32>,
    /// A sentence, where the state's word is not enough.
    pub note: String,
}

impl From<&souk_protocol::message::LeaseEvent> for EventView {
    fn from(event: &souk_protocol::message::LeaseEvent) -> Self {
        Self {
            n: event.n,
            at_ms: event.at,
            state: event.state,
            what: event.what,
            by: event.by,
            exit_code: event.exit_code,
            note: event.note.clone(),
        }
    }
}

/// Which leases to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LeasesRequest {
    /// Ended ones too, a page at a time; else all that are open.
    pub all: bool,
    /// Of all: those with numbers below this; none for the newest.
    pub before: Option<u64>,
    /// Of all: at most so many; none for 100, 1000 at most.
    pub limit: Option<u32>,
}

/// Whose receipts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReceiptsRequest {
    /// Of this lease only.
    pub lease: Option<String>,
    /// Of leases with numbers below this; none for the newest.
    pub before: Option<u64>,
    /// Of so many leases; none for 100, 1000 at most.
    pub limit: Option<u32>,
}

/// All about one lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseDetail {
    /// As in the list.
    #[serde(flatten)]
    pub view: LeaseView,
    /// The machine.
    pub machine: MachineId,
    /// The ask it took.
    pub ask: AskId,
    /// The offer it came from.
    pub offer: DocumentId,
    /// The digest both signed.
    pub image_digest: String,
    /// What the guest may reach.
    pub egress: Egress,
    /// All prices.
    pub rates: RatesView,
    /// The terms in force.
    pub terms: TermsView,
    /// A change of ours that waits for the host's answer.
    pub pending: Option<ChangeView>,
    /// The longer contract that the host asks for.
    pub asked: Option<ExtensionView>,
    /// How far dues may run ahead of acknowledgements.
    #[serde(with = "decimal")]
    pub credit: Amount,
    /// What it may cost at most.
    #[serde(with = "decimal::option")]
    pub max_spend: Option<Amount>,
    /// Time between two receipts.
    pub tick_ms: Millis,
    /// When it was drafted.
    pub drafted_at_ms: Timestamp,
    /// Numbers of the machine's slots, from the newest placement.
    pub slots: Vec<u16>,
    /// Devices the container sees, from the newest placement.
    pub devices: Vec<String>,
    /// Times it was started.
    pub starts: u32,
    /// The newest receipt.
    pub receipt: Option<ReceiptView>,
    /// As a renter, while the lease is open: for how long nothing in the instance answered this node while its host said that it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent_ms: Option<Millis>,
    /// What happened, oldest first.
    pub events: Vec<EventView>,
}

/// The prices of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RatesView {
    /// Compute per hour.
    #[serde(with = "decimal")]
    pub compute_hour: Amount,
    /// Disk per GB and month of 30 days.
    #[serde(with = "decimal")]
    pub storage_gb_month: Amount,
    /// Traffic out per GB.
    #[serde(with = "decimal")]
    pub up_gb: Amount,
    /// Traffic in per GB.
    #[serde(with = "decimal")]
    pub down_gb: Amount,
}

impl From<souk_protocol::Rates> for RatesView {
    fn from(rates: souk_protocol::Rates) -> Self {
        Self {
            compute_hour: rates.compute_hour,
            storage_gb_month: rates.storage_gb_month,
            up_gb: rates.up_gb,
            down_gb: rates.down_gb,
        }
    }
}

/// The newest receipt of a lease: the host's claim, and what the renter agreed to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptView {
    /// The lease's row number.
    pub number: u64,
    /// The lease.
    pub lease: LeaseId,
    /// This node's side.
    pub role: Role,
    /// The other side.
    pub peer: NodeId,
    /// Number of the usage.
    pub n: u64,
    /// When it was counted.
    pub time_ms: Timestamp,
    /// What was used.
    pub counters: CountersView,
    /// What the host claims.
    #[serde(with = "decimal")]
    pub due: Amount,
    /// What the renter has agreed to.
    #[serde(with = "decimal")]
    pub acked: Amount,
    /// The currency of both.
    pub currency: Currency,
    /// Why the renter agreed to less.
    pub partial: Option<PartialReason>,
    /// The usage that was signed.
    pub usage: DocumentId,
    /// The newest acknowledgement; none before the first.
    pub ack: Option<DocumentId>,
    /// Number of the usage that the newest acknowledgement answers.
    pub acked_n: Option<u64>,
    /// Whether the lease is over.
    pub closed: bool,
}

/// What has been used since a lease began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountersView {
    /// Time running.
    pub active_ms: Millis,
    /// Of that, time the host waived.
    pub waived_ms: Millis,
    /// Time in a pause.
    pub paused_ms: Millis,
    /// Time the disk has existed.
    pub storage_ms: Millis,
    /// Bytes into the instance.
    pub rx_bytes: u64,
    /// Bytes out of the instance.
    pub tx_bytes: u64,
}

impl From<Counters> for CountersView {
    fn from(c: Counters) -> Self {
        Self {
            active_ms: c.active,
            waived_ms: c.waived,
            paused_ms: c.paused,
            storage_ms: c.storage,
            rx_bytes: c.rx_bytes,
            tx_bytes: c.tx_bytes,
        }
    }
}

/// Which of an instance's lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogsRequest {
    /// Go on with what comes.
    pub follow: bool,
    /// Only so many of the last lines.
    pub tail: Option<u32>,
    /// Only lines from this time on.
    pub since_ms: Option<Timestamp>,
    /// Put the time before each line.
    pub timestamps: bool,
}

/// A further command in an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecRequest {
    /// The command.
    pub command: Vec<String>,
    /// Whether it gets a terminal.
    #[serde(default)]
    pub tty: bool,
    /// Added environment.
    #[serde(default)]
    pub env: Environment,
    /// As whom; none for the instance's user.
    #[serde(default)]
    pub user: Option<String>,
    /// Where; none for the instance's directory.
    #[serde(default)]
    pub workdir: Option<String>,
    /// Columns and rows of the terminal.
    #[serde(default)]
    pub size: Option<(u16, u16)>,
}

/// A new name for a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelRequest {
    /// The name; empty for none.
    pub text: String,
}
