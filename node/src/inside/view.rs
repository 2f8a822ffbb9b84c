//! What an instance is told of its own lease.

use serde::Serialize;
use souk_protocol::{
    Amount, Currency, LeaseId, Timestamp,
    lease::LeaseState,
    machine::host_lease::HostLease,
    message::{EventCode, Eviction},
};

use crate::api::types::decimal;

/// How the lease stands. Nothing of other leases is in it, and nothing that its renter doesn't know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SelfView {
    /// The lease.
    pub lease: LeaseId,
    /// What the instance calls itself; the renter may call it something else.
    pub label: Option<String>,
    /// `preparing`, `running`, `paused(reason)` or `ended(reason)`.
    pub state: String,
    /// Since when.
    pub since_ms: Timestamp,
    /// When the contract ends.
    pub ends_at_ms: Timestamp,
    /// Compute per hour.
    #[serde(with = "decimal")]
    pub price_hour: Amount,
    /// Of the price.
    pub currency: Currency,
    /// When and why the instance is stopped soon; none if nothing is planned.
    pub notice: Option<NoticeView>,
}

/// An announced end of this run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NoticeView {
    /// `eviction`: others get the slots.
    pub event: &'static str,
    /// When the processes get SIGTERM.
    pub at_ms: Timestamp,
    /// Why, in a sentence.
    pub why: String,
}

impl SelfView {
    /// Of a hosted lease.
    #[must_use]
    pub fn of(held: &HostLease) -> Self {
        let draft = held.draft();
        Self {
            lease: held.id(),
            label: held.label_from_inside().map(str::to_owned),
            state: held.state().to_string(),
            since_ms: held.since(),
            ends_at_ms: held.terms().ends_at,
            price_hour: held.terms().compute_hour,
            currency: draft.currency.clone(),
            notice: held.eviction().filter(|_| held.state() == LeaseState::Running).map(|e| notice(held, e)),
        }
    }
}

fn notice(held: &HostLease, eviction: Eviction) -> NoticeView {
    let told = held.events().iter().rev().find(|e| e.what == EventCode::EvictionNotice);
    let why = told.map_or_else(String::new, |e| e.note.clone());
    NoticeView { event: "eviction", at_ms: eviction.at, why }
}
