//! Prices: how a host's come about, and what the market's are.

use serde::{Deserialize, Serialize};
use souk_protocol::{
    Amount, Currency, NodeId, Timestamp,
    machine::statistics::{MarketStatistics, ModelStatistics},
    resources::SlotClass,
};

use super::decimal;
use crate::config::{OnFailure, Strategy};

/// What changes about a host's prices; none leaves it as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PriceRequest {
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
    /// What a reserved term is cheaper by, in thousandths.
    pub reserved_discount: Option<u16>,
    /// How prices come about.
    pub strategy: Option<Strategy>,
    /// The program of the strategy `command`.
    pub command: Option<String>,
    /// The bounds of the strategy `market`: the lower one.
    #[serde(with = "decimal::option")]
    pub min: Option<Amount>,
    /// The upper one.
    #[serde(with = "decimal::option")]
    pub max: Option<Amount>,
    /// Of how many other hosts offers are needed.
    pub hosts: Option<u16>,
}

/// How a host's prices come about.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PricingView {
    /// The strategy.
    pub strategy: Strategy,
    /// The program of the strategy `command`.
    pub command: Option<String>,
    /// The bounds of the strategy `market`.
    #[serde(with = "decimal::option")]
    pub min: Option<Amount>,
    /// The upper one.
    #[serde(with = "decimal::option")]
    pub max: Option<Amount>,
    /// Of how many other hosts offers are needed.
    pub hosts: u16,
    /// What was seen of the market when it was last looked at: the strategy `market` only.
    pub seen: Option<SeenView>,
    /// The last time the owner's price program gave no answer, so that the listed price held.
    pub failure: Option<FailureView>,
}

/// What a look at the market found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenView {
    /// When.
    pub at_ms: Timestamp,
    /// Other hosts with comparable offers.
    pub hosts: u64,
    /// Their median for one slot of this machine and an hour; none without any.
    #[serde(with = "decimal::option")]
    pub median: Option<Amount>,
}

/// A program of the owner that gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureView {
    /// When.
    pub at_ms: Timestamp,
    /// What went wrong: a sentence, lower case, no full stop.
    pub sentence: String,
    /// How often it has since the node started.
    pub times: u64,
}

/// A host's conditions beside prices.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ConditionsView {
    /// Renters for whom one of these attests are taken.
    pub attested_by: Vec<NodeId>,
    /// Renters trusted so many thousandths are taken.
    pub min_trust: Option<u16>,
    /// Only these images; all of the registries if it is empty.
    pub images_allowed: Vec<String>,
    /// These images in no case.
    pub images_denied: Vec<String>,
    /// The program asked about each proposal.
    pub command: Option<String>,
    /// What holds where it gives no answer.
    pub command_fails: OnFailure,
    /// The last time it gave none.
    pub failure: Option<FailureView>,
}

/// Prices of what is asked about.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MarketRequest {
    /// A GPU's model, or a part of its name; none for all, and `cpu` for machines without.
    pub gpu: Option<String>,
}

/// What is on offer, by model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarketView {
    /// The currency of every amount here.
    pub currency: Currency,
    /// The models, most slots first.
    pub models: Vec<ModelView>,
    /// Models beyond those that are told.
    pub more: u64,
    /// Machines left out, since their prices are in another currency.
    pub other_currency: u64,
}

/// What is on offer of one model. Prices are per hour of a GPU, or of a hardware thread where there is none; each host counts
/// once, with the median of its machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelView {
    /// The GPU's model; none for machines without.
    pub gpu: Option<String>,
    /// Hosts.
    pub hosts: u64,
    /// Machines.
    pub machines: u64,
    /// Asks.
    pub asks: u64,
    /// Slots, rented or not.
    pub slots_total: u64,
    /// Slots that nobody rents on demand.
    pub slots_free: u64,
    /// The cheapest.
    #[serde(with = "decimal")]
    pub lowest: Amount,
    /// A quarter is below.
    #[serde(with = "decimal")]
    pub lower_quartile: Amount,
    /// Half is below.
    #[serde(with = "decimal")]
    pub median: Amount,
    /// Three quarters are below.
    #[serde(with = "decimal")]
    pub upper_quartile: Amount,
    /// The dearest.
    #[serde(with = "decimal")]
    pub highest: Amount,
    /// Hosts by price, in rising order; the first and the last hold what is beyond them.
    pub histogram: Vec<BarView>,
}

/// Hosts of a range of prices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BarView {
    /// From this on.
    #[serde(with = "decimal")]
    pub from: Amount,
    /// Up to this.
    #[serde(with = "decimal")]
    pub to: Amount,
    /// How many.
    pub hosts: u64,
}

/// Models told at once: what names there are is up to those who offer.
const MODELS: usize = 200;

impl MarketView {
    /// The models that `wanted` picks.
    #[must_use]
    pub fn of(found: MarketStatistics, currency: Currency, wanted: impl Fn(&SlotClass) -> bool) -> Self {
        let mut models: Vec<ModelStatistics> = found.models.into_iter().filter(|m| wanted(&m.class)).collect();
        let more = models.len().saturating_sub(MODELS) as u64;
        models.truncate(MODELS);
        let models = models.into_iter().map(Into::into).collect();
        Self { currency, models, more, other_currency: found.other_currency as u64 }
    }
}

impl From<ModelStatistics> for ModelView {
    fn from(m: ModelStatistics) -> Self {
        Self {
            gpu: match m.class {
                SlotClass::Gpu(model) => Some(model),
                SlotClass::Cpu => None,
            },
            hosts: m.hosts as u64,
            machines: m.machines as u64,
            asks: m.asks as u64,
            slots_total: m.slots_total,
            slots_free: m.slots_free,
            lowest: m.prices.lowest,
            lower_quartile: m.prices.lower_quartile,
            median: m.prices.median,
            upper_quartile: m.prices.upper_quartile,
            highest: m.prices.highest,
            histogram: m
                .histogram
                .into_iter()
                .map(|b| BarView { from: b.from, to: b.to, hosts: b.hosts as u64 })
                .collect(),
        }
    }
}
