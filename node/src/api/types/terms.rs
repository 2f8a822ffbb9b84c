//! The terms of leases as they stand, what changes them, and what hosts take: bids, extensions, ceilings.

use serde::{Deserialize, Serialize};
use souk_protocol::{
    Amount, AskId, Currency, LeaseId, MachineId, Millis, NodeId, Timestamp,
    lease::LeaseDraft,
    message::{Eviction, Extension, Rank},
    terms::{Change, LeaseTerms},
};

use super::decimal;

/// The terms in force, which amendments may have changed since the lease was drafted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TermsView {
    /// Amendments so far.
    pub n: u32,
    /// Compute per hour, for all slots.
    #[serde(with = "decimal")]
    pub price_hour: Amount,
    /// The undiscounted price of the same slots when the lease was drafted.
    #[serde(with = "decimal")]
    pub listed_hour: Amount,
    /// Compute stops here.
    pub ends_at_ms: Timestamp,
    /// What the lease may cost at most.
    #[serde(with = "decimal::option")]
    pub max_spend: Option<Amount>,
    /// Until when the host may extend by itself, at the same price or a lower one.
    pub extend_until_ms: Option<Timestamp>,
    /// A price that is agreed on and holds later.
    pub next: Option<NextPriceView>,
    /// Warning before an interruptible instance is stopped for others.
    pub notice_ms: Millis,
    /// A run that others cut shorter than this is free.
    pub quantum_ms: Millis,
}

impl TermsView {
    /// The terms of a lease.
    #[must_use]
    pub fn of(draft: &LeaseDraft, terms: &LeaseTerms) -> Self {
        Self {
            n: terms.n,
            price_hour: terms.compute_hour,
            listed_hour: draft.listed_hour,
            ends_at_ms: terms.ends_at,
            max_spend: terms.max_spend,
            extend_until_ms: terms.extend_until,
            next: terms.next.map(|next| NextPriceView { from_ms: next.from, price_hour: next.compute_hour }),
            notice_ms: draft.notice,
            quantum_ms: draft.quantum,
        }
    }
}

/// A price that holds later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextPriceView {
    /// From when.
    pub from_ms: Timestamp,
    /// Per hour, for all slots.
    #[serde(with = "decimal")]
    pub price_hour: Amount,
}

/// A change of a lease's terms, by its renter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case", deny_unknown_fields)]
pub enum ChangeView {
    /// Another bid.
    Bid {
        /// Per hour, for all slots.
        #[serde(with = "decimal")]
        price_hour: Amount,
    },
    /// A later end.
    Extend {
        /// The end.
        ends_at_ms: Timestamp,
        /// Per hour, for all slots, from the present end on; none for the present price.
        #[serde(default, with = "decimal::option")]
        price_hour: Option<Amount>,
    },
    /// Another ceiling; none for no ceiling.
    MaxSpend {
        /// What the lease may cost at most.
        #[serde(default, with = "decimal::option")]
        max_spend: Option<Amount>,
    },
    /// Until when the host may extend by itself; none for not at all.
    AutoExtend {
        /// The latest end.
        #[serde(default)]
        until_ms: Option<Timestamp>,
    },
}

impl From<ChangeView> for Change {
    fn from(change: ChangeView) -> Self {
        match change {
            ChangeView::Bid { price_hour } => Self::Bid { compute_hour: price_hour },
            ChangeView::Extend { ends_at_ms, price_hour } => {
                Self::Extend { ends_at: ends_at_ms, compute_hour: price_hour }
            }
            ChangeView::MaxSpend { max_spend } => Self::Ceiling { max_spend },
            ChangeView::AutoExtend { until_ms } => Self::AutoExtend { until: until_ms },
        }
    }
}

impl From<Change> for ChangeView {
    fn from(change: Change) -> Self {
        match change {
            Change::Bid { compute_hour } => Self::Bid { price_hour: compute_hour },
            Change::Extend { ends_at, compute_hour } => Self::Extend { ends_at_ms: ends_at, price_hour: compute_hour },
            Change::Ceiling { max_spend } => Self::MaxSpend { max_spend },
            Change::AutoExtend { until } => Self::AutoExtend { until_ms: until },
        }
    }
}

/// Where an interruptible lease stands among the bids while it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceView {
    /// Bids before it.
    pub ahead: u16,
    /// The bid with which it would run now, per hour for all its slots; none if no bid would.
    #[serde(with = "decimal::option")]
    pub to_win: Option<Amount>,
}

impl From<Rank> for PlaceView {
    fn from(rank: Rank) -> Self {
        Self { ahead: rank.ahead, to_win: rank.to_win }
    }
}

/// When and why an interruptible instance is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvictionView {
    /// When.
    pub at_ms: Timestamp,
    /// The lease that gets the slots; none for the host's own work.
    pub winner: Option<LeaseId>,
    /// What that one pays for a slot and an hour.
    #[serde(with = "decimal")]
    pub slot_hour: Amount,
}

impl From<Eviction> for EvictionView {
    fn from(eviction: Eviction) -> Self {
        Self { at_ms: eviction.at, winner: eviction.winner, slot_hour: eviction.slot_hour }
    }
}

/// What a host takes for a later end of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtensionView {
    /// The later end.
    pub ends_at_ms: Timestamp,
    /// Per hour, for all slots, from the present end on.
    #[serde(with = "decimal")]
    pub price_hour: Amount,
    /// Until when the host stands by it.
    pub valid_until_ms: Timestamp,
    /// The present end: the price holds from there on.
    pub from_ms: Timestamp,
    /// The price that holds until then.
    #[serde(with = "decimal")]
    pub present_hour: Amount,
}

impl ExtensionView {
    /// What a host takes for a later end of a lease with these terms.
    #[must_use]
    pub fn of(extension: Extension, terms: &LeaseTerms) -> Self {
        Self {
            ends_at_ms: extension.ends_at,
            price_hour: extension.compute_hour,
            valid_until_ms: extension.valid_until,
            from_ms: terms.ends_at,
            present_hour: terms.next.map_or(terms.compute_hour, |next| next.compute_hour),
        }
    }
}

/// By how much a lease is to be extended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtensionRequest {
    /// Beyond its present end.
    pub by_ms: Millis,
}

/// A longer contract that a host asks a renter for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfferExtensionRequest {
    /// Beyond the present end.
    pub by_ms: Millis,
    /// Per hour, for all slots, from the present end on; none for the present price.
    #[serde(default, with = "decimal::option")]
    pub price_hour: Option<Amount>,
}

/// Whose prices are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlicesRequest {
    /// An ask or a machine: its id, or the first digits of it. Over the API also a row number of the last search.
    pub of: String,
}

/// What it takes to win slots of a machine now, by its host's word. Binds nobody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlicesView {
    /// Whose machine.
    pub host: NodeId,
    /// Which machine.
    pub machine: MachineId,
    /// The currency of every amount here.
    pub currency: Currency,
    /// One for each size the machine is sold in.
    pub slices: Vec<SliceView>,
}

/// What it takes to win so many slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SliceView {
    /// The ask of that size.
    pub ask: AskId,
    /// How many slots.
    pub slots: u16,
    /// The lowest bid that would run now, for all of them and an hour; none if no bid would.
    #[serde(with = "decimal::option")]
    pub to_win: Option<Amount>,
    /// The lowest bid that is taken at all.
    #[serde(with = "decimal")]
    pub min_bid: Amount,
    /// The fixed price, if they are to be had for it now.
    #[serde(with = "decimal::option")]
    pub on_demand: Option<Amount>,
    /// Interruptible leases of that size that run now, or wait.
    pub bids: u16,
}
