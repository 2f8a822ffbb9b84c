//! What the owner has said with `souk host …`: kept in a file of its own, so that the commented configuration stays as written.
//!
//! It goes before the configuration's `[host]` section.

use std::{
    io::{self, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};
use souk_protocol::{Amount, Currency, Millis, NodeId, Timestamp, offer::Window};

use super::{Config, IdleJob, Strategy, values};
use crate::api::types::{AcceptRequest, ListRequest, PriceRequest, Until, Who, moment};

/// The file in a data directory.
pub const FILE: &str = "listing.toml";

/// Peers an owner may name.
pub const MAX_PEERS: usize = 10_000;

/// What the owner has said. Unset is as configured.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listing {
    /// Whether the machine is to be offered; unset is: if it has a price.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listed: Option<bool>,
    /// One slot for one hour.
    #[serde(with = "values::price::option", skip_serializing_if = "Option::is_none")]
    pub slot_hour: Option<Amount>,
    /// The lowest bid for one slot for one hour.
    #[serde(with = "values::price::option", skip_serializing_if = "Option::is_none")]
    pub min_bid: Option<Amount>,
    /// Disk per GB and month.
    #[serde(with = "values::price::option", skip_serializing_if = "Option::is_none")]
    pub storage_gb_month: Option<Amount>,
    /// Traffic out per GB.
    #[serde(with = "values::price::option", skip_serializing_if = "Option::is_none")]
    pub up_gb: Option<Amount>,
    /// Traffic in per GB.
    #[serde(with = "values::price::option", skip_serializing_if = "Option::is_none")]
    pub down_gb: Option<Amount>,
    /// The currency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency: Option<Currency>,
    /// What a reserved term is cheaper by, in thousandths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserved_discount: Option<u16>,
    /// How prices come about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// The program that says prices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// The bounds of a price that follows the market.
    #[serde(with = "values::price::option", skip_serializing_if = "Option::is_none")]
    pub min: Option<Amount>,
    /// The upper one.
    #[serde(with = "values::price::option", skip_serializing_if = "Option::is_none")]
    pub max: Option<Amount>,
    /// Of how many other hosts offers are needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hosts: Option<u16>,
    /// Where following the market has brought the price of one slot for one hour.
    #[serde(with = "values::price::option", skip_serializing_if = "Option::is_none")]
    pub followed: Option<Amount>,
    /// Slots of a machine without GPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slots: Option<u16>,
    /// The smallest slice, in slots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_slots: Option<u16>,
    /// No contract runs past this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latest_end: Option<Until>,
    /// The longest contract.
    #[serde(with = "values::duration_option", skip_serializing_if = "Option::is_none")]
    pub max_term: Option<Millis>,
    /// Warning before an interruptible instance is stopped for others.
    #[serde(with = "values::duration_option", skip_serializing_if = "Option::is_none")]
    pub eviction_notice: Option<Millis>,
    /// A run that others cut shorter than this is free.
    #[serde(with = "values::duration_option", skip_serializing_if = "Option::is_none")]
    pub quantum: Option<Millis>,
    /// Slots kept for the owner's own work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<u16>,
    /// When the machine is maintained.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub maintenance: Vec<MaintenanceWindow>,
    /// Whether anybody may rent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anyone: Option<bool>,
    /// Who may rent in any case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peers: Option<Vec<NodeId>>,
    /// What runs on slots that nobody rents; without an image, nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_job: Option<IdleJob>,
}

/// A window of maintenance, as it is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaintenanceWindow {
    /// Its first moment.
    #[serde(with = "moment")]
    pub from: Timestamp,
    /// The first moment after it.
    #[serde(with = "moment")]
    pub until: Timestamp,
}

impl From<Window> for MaintenanceWindow {
    fn from(window: Window) -> Self {
        Self { from: window.from, until: window.until }
    }
}

impl From<MaintenanceWindow> for Window {
    fn from(window: MaintenanceWindow) -> Self {
        Self { from: window.from, until: window.until }
    }
}

impl Listing {
    /// Reads it; empty if there is none.
    ///
    /// # Errors
    /// If the file can't be read or is malformed.
    pub fn load(dir: &Path) -> io::Result<Self> {
        let path = dir.join(FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(e),
        };
        toml::from_str(&text).map_err(|e| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{} is malformed: {}", path.display(), e.message()))
        })
    }

    /// Writes it, whole or not at all, and durably.
    ///
    /// # Errors
    /// The file system's.
    pub fn save(&self, dir: &Path) -> io::Result<()> {
        let text = toml::to_string(self).map_err(io::Error::other)?;
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(dir.join(FILE)).map_err(|e| e.error)?;
        std::fs::File::open(dir)?.sync_all()
    }

    /// Takes over what a `souk host list` says, and lists.
    pub fn list(&mut self, request: &ListRequest) {
        fn set<T: Clone>(to: &mut Option<T>, from: &Option<T>) {
            if from.is_some() {
                to.clone_from(from);
            }
        }
        self.listed = Some(true);
        if request.slot_hour.is_some() || request.currency.is_some() {
            self.followed = None;
        }
        set(&mut self.slot_hour, &request.slot_hour);
        set(&mut self.min_bid, &request.min_bid);
        set(&mut self.storage_gb_month, &request.storage_gb_month);
        set(&mut self.up_gb, &request.up_gb);
        set(&mut self.down_gb, &request.down_gb);
        set(&mut self.currency, &request.currency);
        set(&mut self.slots, &request.slots);
        set(&mut self.min_slots, &request.min_slots);
        set(&mut self.latest_end, &request.latest_end);
        set(&mut self.max_term, &request.max_term_ms);
        set(&mut self.eviction_notice, &request.eviction_notice_ms);
        set(&mut self.quantum, &request.quantum_ms);
    }

    /// Takes over what a `souk host price` says. Whether the machine is listed stays as it is.
    pub fn price(&mut self, request: &PriceRequest) {
        fn set<T: Clone>(to: &mut Option<T>, from: &Option<T>) {
            if from.is_some() {
                to.clone_from(from);
            }
        }
        if request.slot_hour.is_some() || request.strategy.is_some() {
            self.followed = None;
        }
        set(&mut self.slot_hour, &request.slot_hour);
        set(&mut self.min_bid, &request.min_bid);
        set(&mut self.storage_gb_month, &request.storage_gb_month);
        set(&mut self.up_gb, &request.up_gb);
        set(&mut self.down_gb, &request.down_gb);
        set(&mut self.reserved_discount, &request.reserved_discount);
        set(&mut self.strategy, &request.strategy);
        set(&mut self.command, &request.command);
        set(&mut self.min, &request.min);
        set(&mut self.max, &request.max);
        set(&mut self.hosts, &request.hosts);
    }

    /// Takes over what a `souk host accept` or `refuse` says. `config` holds the peers named so far if none are here yet.
    ///
    /// # Errors
    /// If too many peers are named.
    pub fn accept(&mut self, request: &AcceptRequest, config: &Config) -> Result<(), &'static str> {
        match request.who {
            Who::Anyone => self.anyone = Some(request.accept),
            Who::Peer(peer) => {
                let peers = self.peers.get_or_insert_with(|| config.host.accept.peers.clone());
                peers.retain(|p| *p != peer);
                if request.accept {
                    if peers.len() >= MAX_PEERS {
                        return Err("10,000 peers are named already");
                    }
                    peers.push(peer);
                }
            }
        }
        Ok(())
    }

    /// Puts it over the configuration.
    pub fn apply(&self, config: &mut Config) {
        fn set<T: Clone>(to: &mut T, from: &Option<T>) {
            if let Some(from) = from {
                to.clone_from(from);
            }
        }
        let host = &mut config.host;
        host.prices.slot_hour = self.slot_hour.or(host.prices.slot_hour);
        host.prices.min_bid = self.min_bid.or(host.prices.min_bid);
        set(&mut host.prices.storage_gb_month, &self.storage_gb_month);
        set(&mut host.prices.up_gb, &self.up_gb);
        set(&mut host.prices.down_gb, &self.down_gb);
        set(&mut host.prices.currency, &self.currency);
        set(&mut host.prices.reserved_discount, &self.reserved_discount);
        set(&mut host.pricing.strategy, &self.strategy);
        host.pricing.command = self.command.clone().or_else(|| host.pricing.command.take());
        host.pricing.min = self.min.or(host.pricing.min);
        host.pricing.max = self.max.or(host.pricing.max);
        set(&mut host.pricing.hosts, &self.hosts);
        host.slots = self.slots.or(host.slots);
        set(&mut host.min_slots, &self.min_slots);
        host.latest_end = self.latest_end.map_or(host.latest_end, |until| until.0);
        set(&mut host.max_term, &self.max_term);
        set(&mut host.eviction_notice, &self.eviction_notice);
        set(&mut host.quantum, &self.quantum);
        set(&mut host.hold, &self.hold);
        set(&mut host.accept.anyone, &self.anyone);
        set(&mut host.accept.peers, &self.peers);
        set(&mut host.idle_job, &self.idle_job);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use souk_protocol::Keypair;

    #[test]
    fn it_comes_back_and_goes_before_the_configuration() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Listing::load(dir.path()).unwrap(), Listing::default());
        let peer = Keypair::from_seed(&[1; 32]).node_id();
        let mut config = Config::default();
        let mut listing = Listing::default();
        let latest_end = Some(Until(Some(Timestamp(1_800_000_000_000))));
        let quantum_ms = Some(Millis::from_mins(3));
        let request = ListRequest { slot_hour: Some(Amount(7)), latest_end, quantum_ms, ..ListRequest::default() };
        listing.list(&request);
        let window = MaintenanceWindow { from: Timestamp(1_790_000_000_000), until: Timestamp(1_790_000_000_500) };
        listing.maintenance.push(window);
        listing.hold = Some(2);
        let accept = AcceptRequest { who: Who::Peer(peer), accept: true };
        listing.accept(&accept, &config).unwrap();
        listing.save(dir.path()).unwrap();
        let mut listing = Listing::load(dir.path()).unwrap();
        listing.apply(&mut config);
        assert_eq!(config.host.prices.slot_hour, Some(Amount(7)));
        assert_eq!(config.host.accept.peers, vec![peer]);
        assert!(!config.host.accept.anyone);
        assert_eq!(listing.listed, Some(true));
        assert_eq!((listing.maintenance.as_slice(), config.host.hold), (&[window][..], 2));
        assert_eq!(
            (config.host.latest_end, config.host.quantum),
            (Some(Timestamp(1_800_000_000_000)), Millis::from_mins(3))
        );
        listing.list(&ListRequest { latest_end: Some(Until(None)), ..ListRequest::default() });
        listing.save(dir.path()).unwrap();
        Listing::load(dir.path()).unwrap().apply(&mut config);
        assert_eq!(config.host.latest_end, None);
    }

    #[test]
    fn a_malformed_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "listed = 7").unwrap();
        let error = Listing::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains(FILE), "{error}");
    }
}
