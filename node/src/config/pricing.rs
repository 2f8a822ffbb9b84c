//! How a host's prices come about, and which images it takes: the settings and their checks.

use serde::{Deserialize, Serialize};
use souk_protocol::{Amount, Millis};

use super::values;

/// Bytes of a command line to be run by the node.
pub(super) const COMMAND_BYTES: usize = 4096;
/// Patterns in a list of images.
const PATTERNS: usize = 256;
/// Bytes of one.
const PATTERN_BYTES: usize = 512;

/// How the price of an on-demand rental comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The listed price, and no other.
    #[default]
    Fixed,
    /// The listed price, coming down to the lowest bid for free slots.
    Floor,
    /// A program says the price of each proposal, up to the listed one.
    Command,
    /// The listed price follows the median of comparable offers, within bounds.
    Market,
}

/// How a host's prices come about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pricing {
    /// The strategy.
    pub strategy: Strategy,
    /// `command`: run by `/bin/sh -c`, with the proposal as JSON on its standard input; prints the price of a slot-hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// `market`: never below, for one slot and hour.
    #[serde(with = "values::price::option", skip_serializing_if = "Option::is_none")]
    pub min: Option<Amount>,
    /// `market`: never above.
    #[serde(with = "values::price::option", skip_serializing_if = "Option::is_none")]
    pub max: Option<Amount>,
    /// `market`: offers of so many other hosts are needed.
    pub hosts: u16,
    /// `market`: time between two looks.
    #[serde(with = "values::duration")]
    pub every: Millis,
}

impl Default for Pricing {
    fn default() -> Self {
        Self { strategy: Strategy::Fixed, command: None, min: None, max: None, hosts: 3, every: Millis::from_mins(5) }
    }
}

impl Pricing {
    /// What contradicts itself: the setting, and a sentence.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        check_command("host.pricing.command", self.command.as_deref())?;
        let wrong = |key, why: &str| Err((key, why.to_owned()));
        if self.hosts == 0 {
            return wrong("host.pricing.hosts", "it must be at least 1");
        }
        if !(1000..=86_400_000).contains(&self.every.0) {
            return wrong("host.pricing.every", "it must be between 1s and 1day");
        }
        if self.min.zip(self.max).is_some_and(|(min, max)| min > max) {
            return wrong("host.pricing.min", "it must not be above host.pricing.max");
        }
        match self.strategy {
            Strategy::Command if self.command.is_none() => {
                wrong("host.pricing.command", "the strategy `command` needs a command to run")
            }
            Strategy::Market if self.min.is_none() || self.max.is_none() => {
                wrong("host.pricing.max", "the strategy `market` needs bounds: a min and a max for one slot and hour")
            }
            Strategy::Fixed | Strategy::Floor | Strategy::Command | Strategy::Market => Ok(()),
        }
    }
}

/// Checks a command line.
pub(super) fn check_command(key: &'static str, command: Option<&str>) -> Result<(), (&'static str, String)> {
    let ok = command.is_none_or(|c| !c.trim().is_empty() && c.len() <= COMMAND_BYTES && !c.contains('\0'));
    if ok { Ok(()) } else { Err((key, "it must be a command line of at most 4,096 bytes".to_owned())) }
}

/// What holds where the owner's program gives no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// The renter is refused, for now.
    #[default]
    Refuse,
    /// The renter is taken.
    Accept,
}

/// Which images renters may use, beside the registries: names with `*` for any run of characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Images {
    /// Only these; all if it is empty.
    pub allow: Vec<String>,
    /// These in no case.
    pub deny: Vec<String>,
    /// Whether renters may send images themselves. Where `allow` names some, they may not: what is sent has no name.
    pub sent: bool,
    /// Room for images that no instance needs any more, in GB.
    pub cache_gb: u64,
}

impl Default for Images {
    fn default() -> Self {
        Self { allow: Vec::new(), deny: Vec::new(), sent: true, cache_gb: 100 }
    }
}

impl Images {
    /// What is out of bounds: the setting, and a sentence.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let fits = |list: &Vec<String>| {
            list.len() <= PATTERNS && list.iter().all(|p| !p.is_empty() && p.len() <= PATTERN_BYTES)
        };
        for (key, list) in [("host.images.allow", &self.allow), ("host.images.deny", &self.deny)] {
            if !fits(list) {
                return Err((key, "it must hold at most 256 names, of at most 512 bytes each".to_owned()));
            }
        }
        Ok(())
    }
}
