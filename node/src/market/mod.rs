//! The market task's face to the rest of the node.
//!
//! [`task`] owns the engine and carries out what it wants; [`command`] is what may be asked of it, and [`select`] how a person's
//! words name a lease. The local API asks through [`MarketHandle`]; it knows nothing of the engine behind it.

mod access;
mod accounts;
mod avoid;
pub mod chains;
mod cluster_commands;
pub mod clustered;
pub mod command;
mod commands;
mod containers;
pub mod early;
pub mod guard;
mod heads;
mod host_slots;
mod hosting;
mod idle;
mod inside;
pub(crate) mod jupyter;
mod listing;
pub mod logins;
mod meant;
mod metrics;
mod names;
mod orders;
mod outbox;
pub mod owned;
mod parties;
mod patience;
mod pricing;
mod pulses;
mod reach;
mod rentals;
mod search;
pub mod select;
pub mod settlement;
mod ssh_keys;
pub mod task;
mod telling;
mod template;
pub mod terms;
pub mod trust;
pub mod views;
mod volumes;

pub use command::{Command, CommandError, ErrorCode, MarketHandle};
pub use listing::page_size;
pub(crate) use pricing::check_sums;

/// What a status tells of a node, beside what the engine knows.
#[derive(Debug, Clone)]
pub struct About {
    /// Since when it runs.
    pub started: souk_protocol::Timestamp,
    /// The network's name.
    pub network_name: String,
    /// Where its data is.
    pub dir: std::path::PathBuf,
    /// What becomes of the leases of who is put out of this node's private cluster.
    pub on_removal: souk_protocol::machine::policy::OnRemoval,
    /// Addresses its owner says it is reached at.
    pub external: Vec<String>,
    /// Whether it was told of peers to begin with.
    pub has_bootstrap: bool,
    /// What the router at home does for this node.
    pub mapping: tokio::sync::watch::Receiver<souk_network::PortMapping>,
    /// The currency searched and paid in.
    pub currency: souk_protocol::Currency,
    /// Counter-offers up to this are taken unasked, unless a rental says otherwise.
    pub max_price: Option<souk_protocol::Amount>,
    /// What its SSH keys are made of.
    pub ssh: crate::access::ssh::SshSeed,
    /// What the keys of its instances are made of.
    pub api: crate::inside::ApiSeed,
    /// Public keys, as lines, that get into what is rented from now on, unless a rental names its own.
    pub ssh_keys: Vec<String>,
}
