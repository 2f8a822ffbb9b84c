//! The node's configuration: one typed structure from a file, then `SOUK_…` variables, then flags.
//!
//! Owns names, defaults and checks ([`Config`]), reading ([`mod@load`]) and the commented file that `souk init` writes
//! ([`template`]). What an owner says later with `souk host list` is kept apart, in [`listing`].

mod cluster;
mod env;
pub mod listing;
pub mod load;
mod payment;
mod pricing;
mod public;
pub mod template;
mod trust;
mod values;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use souk_protocol::{
    Amount, Currency, Millis, NetworkId, NodeId, Timestamp, cluster::Founding, limits, resources::Egress,
};
use souk_runtime::reference::Reference;

/// Words of an idle job's command, and their bytes together.
const MAX_IDLE_WORDS: usize = 256;
const MAX_IDLE_BYTES: usize = 16 * 1024;

pub use cluster::{Cluster, OnRemoval};
pub use load::{ConfigError, load};
pub use payment::{Disputed, HostPayment, MANUAL, PayWhen, Payment, PaymentProgram, RenterPayment};
pub use pricing::{Images, OnFailure, Pricing, Strategy};
pub use public::Public;
pub use trust::Trust;

/// The configuration's file in a data directory.
pub const FILE: &str = "config.toml";

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Which network, and how this node is on it.
    pub network: Network,
    /// Renting this machine out.
    pub host: Host,
    /// How containers are run.
    pub runtime: Runtime,
    /// Renting from others.
    pub renter: Renter,
    /// How money is paid and found.
    pub payment: Payment,
    /// Other machines of the same owner.
    pub owner: Owner,
    /// Whose word counts, and what this node shows of itself.
    pub trust: Trust,
    /// How this node is in its private cluster, if it is in one.
    pub cluster: Cluster,
    /// The local API.
    pub api: Api,
    /// What is logged.
    pub log: Log,
}

/// Which network, and how this node is on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// The network's name; part of every signature, so networks can't mix.
    pub name: String,
    /// Multiaddresses to listen on.
    pub listen: Vec<String>,
    /// Multiaddresses of peers to begin with.
    pub bootstrap: Vec<String>,
    /// Multiaddresses at which others reach this node, where it can't find out itself.
    pub external: Vec<String>,
    /// Whether to relay, within limits, for peers that nobody can dial.
    pub relay: bool,
    /// Whether a router at home is asked (UPnP) to let others through to this node.
    pub port_mapping: bool,
    /// The private cluster that the data directory is of: then this is the network, whatever `name` says.
    #[serde(skip)]
    pub founding: Option<Founding>,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            name: "main".to_owned(),
            listen: vec!["/ip4/0.0.0.0/udp/7843/quic-v1".to_owned(), "/ip4/0.0.0.0/tcp/7843".to_owned()],
            bootstrap: Vec::new(),
            external: Vec::new(),
            relay: true,
            port_mapping: true,
            founding: None,
        }
    }
}

impl Network {
    /// The network's id.
    #[must_use]
    pub fn id(&self) -> NetworkId {
        self.founding.as_ref().map_or_else(|| NetworkId::of_name(&self.name), Founding::network)
    }
}

/// Renting this machine out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Host {
    /// Whether `souk up` hosts without `--host`.
    pub enabled: bool,
    /// What is asked for.
    pub prices: Prices,
    /// How the price of a rental comes about.
    pub pricing: Pricing,
    /// Slots of a machine without GPUs; none for one a core. With GPUs each is a slot.
    pub slots: Option<u16>,
    /// The smallest slice rented, in slots.
    pub min_slots: u16,
    /// Who may rent.
    pub accept: Accept,
    /// How it is paid.
    pub payment: HostPayment,
    /// Whether anybody may rent (where anybody is accepted) though disk limits can't be enforced on this machine.
    pub allow_soft_disk: bool,
    /// What guests may be granted to reach.
    pub egress: Vec<Egress>,
    /// Registries images may come from.
    pub registries: Vec<String>,
    /// Images of this machine's engine that renters may use without a registry: names, with `*` for any run of characters.
    pub local_images: Vec<String>,
    /// Which images renters may use.
    pub images: Images,
    /// The longest contract.
    #[serde(with = "values::duration")]
    pub max_term: Millis,
    /// Disk kept for volumes, in GB; none for a tenth of what is free, 0 for no volumes.
    pub volumes: Option<u64>,
    /// No contract runs past this; none for no such end.
    #[serde(with = "values::moment", skip_serializing_if = "Option::is_none")]
    pub latest_end: Option<Timestamp>,
    /// Warning before an interruptible instance is stopped for others.
    #[serde(with = "values::duration")]
    pub eviction_notice: Millis,
    /// A run of an interruptible instance that others cut shorter than this is free.
    #[serde(with = "values::duration")]
    pub quantum: Millis,
    /// Slots kept for the owner's own work.
    pub hold: u16,
    /// How far what is due may run ahead of what a renter has acknowledged, in hours of the lease's price.
    pub credit_hours: u16,
    /// Time between two receipts, unless the renter asks for another.
    #[serde(with = "values::duration")]
    pub tick: Millis,
    /// What is kept for the owner.
    pub reserve: Reserve,
    /// What runs on slots that nobody rents.
    pub idle_job: IdleJob,
    /// Ports that instances are reached at from outside.
    pub public: Public,
    /// GPUs that the owner declares by device path, where nothing measures them.
    pub declared_gpus: Vec<DeclaredGpus>,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            enabled: false,
            prices: Prices::default(),
            pricing: Pricing::default(),
            slots: None,
            min_slots: 1,
            accept: Accept::default(),
            payment: HostPayment::default(),
            allow_soft_disk: false,
            egress: vec![Egress::None, Egress::Internet],
            registries: vec!["docker.io".to_owned(), "ghcr.io".to_owned(), "quay.io".to_owned(), "nvcr.io".to_owned()],
            local_images: Vec::new(),
            images: Images::default(),
            max_term: Millis::from_hours(30 * 24),
            volumes: None,
            latest_end: None,
            eviction_notice: Millis::from_secs(60),
            quantum: Millis::from_mins(10),
            hold: 0,
            credit_hours: 24,
            tick: limits::TICK_DEFAULT,
            reserve: Reserve::default(),
            idle_job: IdleJob::default(),
            public: Public::default(),
            declared_gpus: Vec::new(),
        }
    }
}

/// What a host asks for. Amounts are written as text: `"0.35"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Prices {
    /// One slot for one hour; none until the owner names it, and then nothing is offered.
    #[serde(with = "values::price::option", skip_serializing_if = "Option::is_none")]
    pub slot_hour: Option<Amount>,
    /// The lowest bid for one slot for one hour; none for the full price.
    #[serde(with = "values::price::option", skip_serializing_if = "Option::is_none")]
    pub min_bid: Option<Amount>,
    /// Disk per GB and month of 30 days.
    #[serde(with = "values::price")]
    pub storage_gb_month: Amount,
    /// Traffic out of an instance, per GB.
    #[serde(with = "values::price")]
    pub up_gb: Amount,
    /// Traffic into an instance, per GB.
    #[serde(with = "values::price")]
    pub down_gb: Amount,
    /// What a reserved term is cheaper by, in thousandths of the price.
    pub reserved_discount: u16,
    /// The currency of all of them.
    pub currency: Currency,
}

impl Default for Prices {
    fn default() -> Self {
        Self {
            slot_hour: None,
            min_bid: None,
            storage_gb_month: Amount(100_000_000),
            up_gb: Amount::ZERO,
            down_gb: Amount::ZERO,
            reserved_discount: 0,
            currency: Currency::usd(),
        }
    }
}

/// Who may rent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Accept {
    /// Anybody. Off until the owner says so.
    pub anyone: bool,
    /// These peers in any case.
    pub peers: Vec<NodeId>,
    /// Renters for whom one of these nodes attests.
    pub attested_by: Vec<NodeId>,
    /// Renters trusted at least so much, in thousandths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_trust: Option<u16>,
    /// A program that is asked about each proposal that fits everything else: run by `/bin/sh -c`, with the proposal as JSON on its
    /// standard input. Exit code 0 takes it; any other refuses it, with the first line it printed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// What holds where that program gives no answer in two seconds.
    pub command_fails: OnFailure,
}

/// What is kept for the owner and never given to guests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reserve {
    /// Hardware threads.
    pub cpu: u16,
    /// Memory in MB.
    pub ram_mb: u64,
    /// Disk in MB.
    pub disk_mb: u64,
}

impl Default for Reserve {
    fn default() -> Self {
        Self { cpu: 0, ram_mb: 1024, disk_mb: 10_000 }
    }
}

/// The owner's own work on slots that nobody rents: a container a slot, gone at once when a rental comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IdleJob {
    /// Its image; none for no such work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Arguments in place of the image's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Disk for each slot's container in MB.
    pub disk_mb: u64,
}

impl Default for IdleJob {
    fn default() -> Self {
        Self { image: None, command: None, disk_mb: 10_000 }
    }
}

/// GPUs of one model that the owner declares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredGpus {
    /// The model, without the vendor: `RTX 4090`.
    pub model: String,
    /// Device paths, one list for each GPU.
    pub devices: Vec<Vec<PathBuf>>,
    /// A UUID for each GPU; none for one made from its paths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<Vec<String>>,
    /// Memory of each in MiB.
    pub vram_mib: u64,
}

/// How containers are run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Runtime {
    /// The engine's socket.
    pub docker_socket: PathBuf,
    /// Where guests' networks come from, in CIDR form; avoid the LAN's range.
    pub subnet_pool: souk_runtime::Cidr,
    /// How GPUs are handed to containers: `auto`, `device_request`, or the name of an OCI runtime.
    pub nvidia: String,
    /// Where slots are locked against other nodes of this machine. The same for all of them.
    pub lock_dir: PathBuf,
    /// Whether instances get file systems in files for disks, where the engine's storage driver has no limits of its own.
    pub loop_disks: bool,
    /// Whether the space of these is set aside when they are made.
    pub preallocate_disks: bool,
}

impl Default for Runtime {
    fn default() -> Self {
        Self {
            docker_socket: PathBuf::from("/var/run/docker.sock"),
            subnet_pool: souk_runtime::Cidr::new(std::net::Ipv4Addr::new(10, 213, 0, 0), 16),
            nvidia: "auto".to_owned(),
            lock_dir: PathBuf::from("/run/lock/souk"),
            loop_disks: true,
            preallocate_disks: true,
        }
    }
}

/// Renting from others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Renter {
    /// Counter-offers up to this are taken unasked, per hour for all slots; none for the listed price.
    #[serde(with = "values::price::option", skip_serializing_if = "Option::is_none")]
    pub max_price: Option<Amount>,
    /// The currency searched and paid in.
    pub currency: Currency,
    /// Public SSH keys that get into what is rented from now on, unless a rental names its own: lines of OpenSSH, or files of them.
    pub ssh_keys: Vec<String>,
    /// What is paid without asking.
    pub payment: RenterPayment,
}

impl Default for Renter {
    fn default() -> Self {
        Self { max_price: None, currency: Currency::usd(), ssh_keys: Vec::new(), payment: RenterPayment::default() }
    }
}

/// Other machines of the same owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Owner {
    /// A machine of the owner's whose connection has been gone for so long, without a word, is offline.
    #[serde(with = "values::duration")]
    pub offline_after: Millis,
}

impl Default for Owner {
    fn default() -> Self {
        Self { offline_after: Millis::from_secs(90) }
    }
}

/// The local API.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    /// Its Unix socket; none for `api.sock` in the data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
    /// A loopback address to serve it at too, with the bearer token in `api.token`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<std::net::SocketAddr>,
}

impl Api {
    /// Where the socket is, given the data directory.
    #[must_use]
    pub fn socket_in(&self, dir: &Path) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| dir.join("api.sock"))
    }
}

/// What is logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,souk=debug`.
    pub level: String,
    /// How a line looks.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Config {
    /// Checks what types alone can't.
    ///
    /// # Errors
    /// The name of the setting, and a sentence on what is wrong with its value.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let unless = |ok: bool, key, why: &str| {
            if ok { Ok(()) } else { Err((key, why.to_owned())) }
        };
        let name = &self.network.name;
        unless(
            !name.is_empty()
                && name.len() <= 32
                && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
            "network.name",
            "it must be 1 to 32 lower-case letters, digits and hyphens",
        )?;
        for (key, currency) in
            [("host.prices.currency", &self.host.prices.currency), ("renter.currency", &self.renter.currency)]
        {
            currency.check().map_err(|e| (key, e.0))?;
        }
        let prices = &self.host.prices;
        unless(
            prices.min_bid.is_none() || prices.min_bid <= prices.slot_hour,
            "host.prices.min_bid",
            "it must not be above slot_hour",
        )?;
        unless(
            prices.reserved_discount <= 1000,
            "host.prices.reserved_discount",
            "it must be at most 1000 thousandths",
        )?;
        self.host.pricing.check()?;
        self.host.images.check()?;
        self.host.public.check()?;
        unless(self.trust.attesters.len() <= trust::ATTESTERS, "trust.attesters", "it must name at most 256 nodes")?;
        unless(self.trust.listed.len() <= trust::ATTESTERS, "trust.listed", "it must name at most 256 nodes")?;
        self.payment.check()?;
        self.host.payment.check(&self.payment.programs)?;
        let accept = &self.host.accept;
        pricing::check_command("host.accept.command", accept.command.as_deref())?;
        unless(
            accept.attested_by.len() <= limits::ATTESTERS,
            "host.accept.attested_by",
            "it must name at most 8 nodes, so that an offer can",
        )?;
        unless(
            accept.min_trust.is_none_or(|t| (1..=1000).contains(&t)),
            "host.accept.min_trust",
            "it must be between 1 and 1000 thousandths",
        )?;
        unless(
            accept.attested_by.is_empty() || accept.min_trust.is_none(),
            "host.accept.min_trust",
            "attested_by and min_trust can't be set both",
        )?;
        unless(
            self.host.slots.is_none_or(|n| (1..=limits::SLOTS).contains(&n)),
            "host.slots",
            "it must be between 1 and 256",
        )?;
        let job = &self.host.idle_job;
        unless(
            job.image.as_ref().is_none_or(|image| Reference::parse(image).is_ok()),
            "host.idle_job.image",
            "it must be an image name, like debian:12 or ghcr.io/owner/image:tag",
        )?;
        unless(
            job.command.as_ref().is_none_or(|words| {
                words.len() <= MAX_IDLE_WORDS
                    && words.iter().map(String::len).sum::<usize>() <= MAX_IDLE_BYTES
                    && !words.iter().any(|word| word.contains('\0'))
            }),
            "host.idle_job.command",
            "it must be at most 256 words of 16 KiB together, without NUL",
        )?;
        unless((1..=limits::SLOTS).contains(&self.host.min_slots), "host.min_slots", "it must be between 1 and 256")?;
        unless(
            (limits::TICK.0..=limits::TICK.1).contains(&self.host.tick),
            "host.tick",
            "it must be between 1s and 1h",
        )?;
        unless(
            self.host.max_term.0 >= 60_000 && self.host.max_term <= limits::TERM,
            "host.max_term",
            "it must be between 1min and 366days",
        )?;
        unless(self.host.eviction_notice <= limits::NOTICE, "host.eviction_notice", "it must be at most a day")?;
        unless(self.host.quantum <= limits::QUANTUM, "host.quantum", "it must be at most a day")?;
        unless(self.host.hold <= limits::SLOTS, "host.hold", "it must be at most 256")?;
        unless(self.host.credit_hours >= 1, "host.credit_hours", "it must be at least 1")?;
        unless(
            !self.host.egress.is_empty(),
            "host.egress",
            "it must hold \"none\", \"internet\" or \"full\", or several of them",
        )?;
        unless(
            self.host
                .declared_gpus
                .iter()
                .all(|g| !g.devices.is_empty() && g.uuid.as_ref().is_none_or(|u| u.len() == g.devices.len())),
            "host.declared_gpus",
            "each needs a list of device paths for each GPU, and as many UUIDs if any",
        )?;
        unless(
            (Millis::from_secs(1)..=Millis::from_hours(24)).contains(&self.owner.offline_after),
            "owner.offline_after",
            "it must be between 1s and 24h",
        )?;
        unless(
            self.api.tcp.is_none_or(|a| a.ip().is_loopback()),
            "api.tcp",
            "it must be a loopback address, like 127.0.0.1:7844",
        )
    }
}
