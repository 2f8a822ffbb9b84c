//! Renting: what is asked, what it can cost, and the steps on the way.

use std::fmt;

use serde::{Deserialize, Serialize};
use souk_protocol::{
    Amount, AskId, Currency, LeaseId, Millis, NodeId, Timestamp,
    login::RegistryLogin,
    message::Progress,
    ports::PortRequest,
    resources::{Egress, Resources},
};

use super::{AvoidedHost, LeaseView, RentalKind, decimal};
use crate::market::{CommandError, command::AskSelector};

/// Environment variables. Their values are secrets: `Debug` shows names only.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Environment(pub Vec<(String, String)>);

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(k, _)| k)).finish()
    }
}

/// What is to be rented, and what shall run there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RentRequest {
    /// The ask: its id, or the first digits of it. Over the API also a row number of the last search.
    pub ask: AskSelector,
    /// The image.
    pub image: String,
    /// How it is rented; none for on demand.
    #[serde(default)]
    pub rental: Option<RentalKind>,
    /// By how much the host may extend the contract by itself, at the same price or a lower one.
    #[serde(default)]
    pub extend_ms: Option<Millis>,
    /// First price to propose, or the bid, per hour for all slots; none for the host's, or its lowest bid.
    #[serde(default, with = "decimal::option")]
    pub price_hour: Option<Amount>,
    /// Agree to counter-offers up to this, per hour for all slots; none for the configured one, or the listed price.
    #[serde(default, with = "decimal::option")]
    pub max_price_hour: Option<Amount>,
    /// Disk in MB; none for the least the image needs.
    #[serde(default)]
    pub disk_mb: Option<u64>,
    /// Added to the image's environment.
    #[serde(default)]
    pub env: Environment,
    /// As whom it runs; none for the image's user.
    #[serde(default)]
    pub user: Option<String>,
    /// Replaces the image's entrypoint.
    #[serde(default)]
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's directory.
    #[serde(default)]
    pub workdir: Option<String>,
    /// What it may reach; none for the most the host grants.
    #[serde(default)]
    pub egress: Option<Egress>,
    /// Ports that shall be reached from outside.
    #[serde(default)]
    pub ports: Vec<PortRequest>,
    /// How long the contract shall run; none for as long as the host grants.
    #[serde(default)]
    pub term_ms: Option<Millis>,
    /// What the lease may cost at most, all in all.
    #[serde(default, with = "decimal::option")]
    pub max_spend: Option<Amount>,
    /// Use of so long is paid with the open, though this node would pay less ahead to that host.
    #[serde(default)]
    pub prepay_ms: Option<Millis>,
    /// A name for it.
    #[serde(default)]
    pub label: Option<String>,
    /// Public keys that get in over SSH, each as one line of OpenSSH; none for the configured ones. The rental's own gets in besides.
    #[serde(default)]
    pub ssh_keys: Vec<String>,
    /// Time between two receipts; none for the host's.
    #[serde(default)]
    pub tick_ms: Option<Millis>,
    /// Replaces the image's command.
    #[serde(default)]
    pub command: Option<Vec<String>>,
    /// Run what this lease runs, with as much disk, where nothing else is said: its number, its label, or digits of its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub like: Option<String>,
    /// A script that the instance runs at each start, before the command; at most 32 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub onstart: Option<String>,
    /// The renter's own login at the image's registry. The host is told it, and keeps it until it has the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<RegistryLogin>,
    /// Runs the image's Jupyter in place of its command, with a token of its own.
    #[serde(default)]
    pub jupyter: bool,
    /// End the stream of steps once the lease exists.
    #[serde(default)]
    pub detach: bool,
    /// A volume on that ask's machine, of `disk_mb`, named by `label`; nothing runs in it, and no slots are rented.
    #[serde(default)]
    pub volume: bool,
    /// Volumes to attach, all on that ask's machine.
    #[serde(default)]
    pub volumes: Vec<AttachRequest>,
}

/// A volume to attach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttachRequest {
    /// Its name, number, or the first digits of its lease's id.
    pub name: String,
    /// Where the instance sees it: an absolute path.
    pub path: String,
    /// Whether the instance can only read it.
    #[serde(default)]
    pub read_only: bool,
}

impl AttachRequest {
    /// Reads `NAME:/path` or `NAME:/path:ro`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, rest) = text.split_once(':').ok_or_else(|| "write it as NAME:/path or NAME:/path:ro".to_owned())?;
        let (path, read_only) = match rest.rsplit_once(':') {
            Some((path, "ro")) => (path, true),
            Some((path, "rw")) => (path, false),
            Some(_) => return Err("only :ro or :rw follows the path".to_owned()),
            None => (rest, false),
        };
        if name.is_empty() || !path.starts_with('/') {
            return Err("write it as NAME:/path or NAME:/path:ro".to_owned());
        }
        Ok(Self { name: name.to_owned(), path: path.to_owned(), read_only })
    }
}

/// What a rental would cost, by the offer at hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuoteView {
    /// The ask.
    pub ask: AskId,
    /// Whose machine.
    pub host: NodeId,
    /// Given if the host has failed this node lately.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avoided: Option<AvoidedHost>,
    /// What would be granted.
    pub resources: Resources,
    /// The currency of every amount here.
    pub currency: Currency,
    /// The first price proposed, per hour.
    #[serde(with = "decimal")]
    pub price_hour: Amount,
    /// The host's price, per hour.
    #[serde(with = "decimal")]
    pub listed_hour: Amount,
    /// The highest price that would be agreed to, per hour.
    #[serde(with = "decimal")]
    pub max_price_hour: Amount,
    /// The disk, per hour.
    #[serde(with = "decimal")]
    pub storage_hour: Amount,
    /// The disk, per month of 30 days.
    #[serde(with = "decimal")]
    pub storage_month: Amount,
    /// Running until the end, at the highest price that would be agreed to.
    #[serde(with = "decimal")]
    pub compute: Amount,
    /// The disk until the end.
    #[serde(with = "decimal")]
    pub storage: Amount,
    /// The disk for the 48 hours that it is kept after the end.
    #[serde(with = "decimal")]
    pub disk_kept: Amount,
    /// The ceiling that the lease would have.
    #[serde(with = "decimal::option")]
    pub max_spend: Option<Amount>,
    /// How long it runs before the ceiling stops it, without traffic; none if it does not.
    pub ceiling_after_ms: Option<Millis>,
    /// Traffic out, per GB.
    #[serde(with = "decimal")]
    pub up_gb: Amount,
    /// Traffic in, per GB.
    #[serde(with = "decimal")]
    pub down_gb: Amount,
    /// When the contract would end.
    pub ends_at_ms: Timestamp,
    /// The most it can cost: compute and disk to the end and the days the disk is kept, or `max_spend` where that is less.
    /// Traffic is in it only with `max_spend`.
    #[serde(with = "decimal")]
    pub ceiling: Amount,
    /// Whether traffic can add to the ceiling.
    pub traffic_extra: bool,
}

/// One step of a rental, in the order they come. Preparing and waiting repeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum RentStep {
    /// The ask is found; its host is being reached.
    Resolving {
        /// The ask.
        ask: AskId,
        /// Its host.
        host: NodeId,
        /// The image.
        image: String,
    },
    /// A price was proposed.
    Proposed {
        /// From 1.
        round: u32,
        /// Per hour for all slots.
        #[serde(with = "decimal")]
        price_hour: Amount,
        /// Its currency.
        currency: Currency,
    },
    /// The host asks for another price.
    Countered {
        /// Of the proposal it answers.
        round: u32,
        /// Per hour for all slots.
        #[serde(with = "decimal")]
        price_hour: Amount,
        /// Its currency.
        currency: Currency,
    },
    /// The host has drafted the lease.
    Drafted {
        /// The lease it would be.
        lease: LeaseId,
        /// Per hour for all slots.
        #[serde(with = "decimal")]
        price_hour: Amount,
        /// Its currency.
        currency: Currency,
        /// When the contract ends.
        ends_at_ms: Timestamp,
        /// The image's digest.
        image_digest: String,
    },
    /// This node has signed and stored its open, and sent it.
    Committed {
        /// The lease it would be.
        lease: LeaseId,
    },
    /// The host has accepted: the lease exists.
    Accepted {
        /// The lease.
        lease: LeaseId,
        /// Its row number.
        number: u64,
    },
    /// The host pulls the image and makes the container.
    Preparing {
        /// How far it is, as far as known.
        progress: Option<Progress>,
    },
    /// Others have its slots: it runs by itself once its turn comes. Comes again when its place changes.
    Waiting {
        /// The lease, with its place.
        lease: Box<LeaseView>,
    },
    /// It runs. The last step.
    Running {
        /// The lease.
        lease: Box<LeaseView>,
    },
    /// Its command has ended already. The last step.
    Exited {
        /// The lease.
        lease: Box<LeaseView>,
    },
    /// The lease is over. The last step.
    Ended {
        /// The lease.
        lease: Box<LeaseView>,
    },
    /// It did not come to a lease, or nothing more can be told. The last step.
    Failed {
        /// Why.
        error: CommandError,
    },
}
