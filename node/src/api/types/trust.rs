//! Trust, blocks, attestations, complaints and reputation.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use souk_protocol::{Amount, Currency, DocumentId, HostId, LeaseId, NodeId, Timestamp, opinion::DisputeCode};

/// Somebody who is trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustView {
    /// The node, or the owner of many.
    pub peer: HostId,
    /// Who says so: `you`, or the setting that names it, `trust.attesters` or `trust.listed`.
    #[serde(default)]
    pub named_by: String,
    /// Since when, if you have said so.
    pub trusted_at_ms: Option<Timestamp>,
    /// How much may be owed to us, by currency, as decimal text.
    pub credit: BTreeMap<Currency, String>,
}

/// Trusts somebody, or no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustRequest {
    /// A node's or owner's id, or the last characters of one on the market.
    pub peer: String,
    /// How much may be owed to us; none leaves it as it is.
    #[serde(default)]
    pub credit: Option<Amount>,
    /// The currency of that; none for the renter's.
    #[serde(default)]
    pub currency: Option<Currency>,
    /// Takes it back.
    #[serde(default)]
    pub remove: bool,
}

/// Somebody who is blocked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockView {
    /// The node, or the owner of many.
    pub peer: HostId,
    /// Since when.
    pub blocked_at_ms: Timestamp,
}

/// Blocks somebody, or no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockRequest {
    /// A node's or owner's id, or the last characters of one on the market.
    pub peer: String,
    /// Takes it back.
    #[serde(default)]
    pub remove: bool,
}

/// An attestation: by this node about others, or by others about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttestationView {
    /// Who vouches.
    pub by: NodeId,
    /// About whom.
    pub about: NodeId,
    /// What is so.
    pub claim: String,
    /// When it was signed.
    pub at_ms: Timestamp,
    /// Until when it holds; none for as long as it is not withdrawn.
    pub until_ms: Option<Timestamp>,
    /// Its author does not stand by it any more.
    pub withdrawn: bool,
    /// The entry.
    pub entry: DocumentId,
    /// Whether it counts here: its author is accepted, and it is in force.
    pub counts: bool,
}

/// Vouches for somebody, or no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttestRequest {
    /// A node's id, or its last characters.
    pub peer: String,
    /// What is so: up to 32 of a-z, 0-9, _ and -.
    pub claim: String,
    /// Until when.
    #[serde(default)]
    pub until_ms: Option<Timestamp>,
    /// Takes it back.
    #[serde(default)]
    pub withdraw: bool,
}

/// Complains of the other party of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportRequest {
    /// What of.
    pub code: DisputeCode,
    /// In words.
    #[serde(default)]
    pub sentence: String,
}

/// A complaint that was signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportView {
    /// The lease.
    pub lease: LeaseId,
    /// Of whom.
    pub against: NodeId,
    /// What of.
    pub code: DisputeCode,
    /// In words.
    pub sentence: String,
    /// The document complained of.
    pub about: DocumentId,
}

/// What to show of a reputation.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReputationRequest {
    /// Names the receipts.
    pub explain: bool,
}

/// What is thought of one node on one side of leases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoreView {
    /// The whole, 0 to 1; 0.13 for a stranger.
    pub trust: f64,
    /// Uptime and completion, 0 to 1.
    pub reliability: f64,
    /// Share of the time in which it was there when we looked; none if we did not.
    pub uptime: Option<f64>,
    /// What speaks for it, in full successes.
    pub successes: f64,
    /// What speaks against it, in full failures.
    pub failures: f64,
    /// How many others' receipts counted.
    pub raters: u32,
    /// The receipts, heaviest first; where they were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<ReasonView>,
    /// Reasons left out, as there are too many.
    #[serde(default)]
    pub reasons_left_out: u64,
}

/// One receipt's part in a score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReasonView {
    /// The lease; none for what this node has seen without one.
    pub lease: Option<LeaseId>,
    /// Whose word it is.
    pub by: NodeId,
    /// `success`, or what went wrong.
    pub what: String,
    /// Whether the node itself has signed it, or anyone can check it.
    pub admitted: bool,
    /// How much it adds.
    pub weight: f64,
}

/// What is thought of one node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReputationView {
    /// Which.
    pub peer: NodeId,
    /// Its owner, by its offers.
    pub host_id: HostId,
    /// Whether `souk trust` names it, or its owner.
    pub trusted: bool,
    /// Whether it is blocked, or its owner.
    pub blocked: bool,
    /// As a host.
    pub host: ScoreView,
    /// As a renter.
    pub renter: ScoreView,
    /// What accepted attesters vouch for.
    pub attested: Vec<String>,
    /// Leases that were looked at, of everybody.
    pub leases_known: u64,
    /// When this was computed; none if not yet.
    pub computed_at_ms: Option<Timestamp>,
}
