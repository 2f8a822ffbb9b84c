//! This machine as a host: what it has, what its owner wants for it, and the offer that follows from both.
//!
//! Owns the owner's settings (configuration and listing) and the inventory. Leases and slots are the engine's, containers the
//! runtime's.

pub mod idle;
pub mod images;
pub mod instances;
pub mod locks;
pub mod program;
pub mod question;
mod schedule;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use souk_protocol::{
    Amount, MachineId, Millis, Rates,
    id::Digest,
    limits,
    machine::{
        policy::{Accept, HostSetup},
        pricing::OwnerAsked,
        search::STORAGE_GB,
    },
    offer::{Accepts, Reachability, Terms},
    resources::{Cpu, DiskQuota, Egress, GpuGroup, Hardware, RuntimeKind},
};
use souk_runtime::{HostInventory, ImagePin, Nvidia, RuntimeConfig, RuntimeInfo, inventory};

use crate::{
    api::types::{AcceptRequest, IdleJobRequest, ListRequest, PriceRequest, Problem},
    clock::now,
    config::{Config, IdleJob, OnFailure, Strategy, listing::Listing},
    market::{CommandError, ErrorCode, check_sums},
};

/// Bytes of one MiB, in MB of 10⁶.
const fn mb(mib: u64) -> u64 {
    mib.saturating_mul(1 << 20) / 1_000_000
}

/// A machine and its owner's wishes.
#[derive(Debug)]
pub struct HostSide {
    machine: MachineId,
    dir: PathBuf,
    node: String,
    base: Config,
    config: Config,
    listing: Listing,
    inventory: HostInventory,
    /// What volumes had of the disk when stock was taken; none where there can't be any.
    volumes_mb: Option<u64>,
}

/// The share of the free disk that is kept for volumes where the owner does not say.
const VOLUME_SHARE: u64 = 10;
/// What a volume's file takes beside what can be written on it: one part in so many.
const VOLUME_OVERHEAD: u64 = 15;

impl HostSide {
    /// Takes stock of the machine. Reads files and asks the GPU driver: not for async threads.
    ///
    /// # Errors
    /// If the owner's listing can't be read.
    pub fn new(dir: &Path, node: String, machine: MachineId, config: Config) -> anyhow::Result<Self> {
        let listing = Listing::load(dir)?;
        let mut applied = config.clone();
        listing.apply(&mut applied);
        let inventory = inventory::take(dir);
        Ok(Self {
            machine,
            dir: dir.to_owned(),
            node,
            base: config,
            config: applied,
            listing,
            inventory,
            volumes_mb: None,
        })
    }

    /// The machine's id.
    #[must_use]
    pub const fn machine(&self) -> MachineId {
        self.machine
    }

    /// Takes over what was found where the engine keeps its containers; if their disk can't be looked at, the node's own counts.
    /// `volumes_mb` is what volumes have of the disk already, and none where there can't be any.
    pub fn take_stock(&mut self, mut inventory: HostInventory, volumes_mb: Option<u64>) {
        self.volumes_mb = volumes_mb;
        if inventory.disk_free_mb == 0 {
            inventory.disk_free_mb = self.inventory.disk_free_mb;
        }
        self.inventory = inventory;
    }

    /// The configuration in force.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// How the container runtime is to be used.
    #[must_use]
    pub fn runtime_config(&self) -> RuntimeConfig {
        let (host, runtime) = (&self.config.host, &self.config.runtime);
        RuntimeConfig {
            socket: runtime.docker_socket.clone(),
            data_dir: self.dir.join("runtime"),
            node_id: self.node.clone(),
            subnet_pool: runtime.subnet_pool,
            registries: host.registries.clone(),
            local_images: host.local_images.clone(),
            image_cache_mb: host.images.cache_gb.saturating_mul(1000),
            loop_disks: runtime.loop_disks,
            preallocate_disks: runtime.preallocate_disks,
            nvidia: match runtime.nvidia.as_str() {
                "auto" => Nvidia::Auto,
                "device_request" => Nvidia::DeviceRequest,
                name => Nvidia::Runtime(name.to_owned()),
            },
            ..RuntimeConfig::default()
        }
    }

    /// Takes over what a `souk host list` says.
    ///
    /// # Errors
    /// If the settings contradict themselves, or can't be saved.
    pub fn list(&mut self, request: &ListRequest) -> Result<(), CommandError> {
        let mut listing = self.listing.clone();
        listing.list(request);
        self.change(listing)?;
        if self.slot_hour().is_none() {
            let message = "no price was named yet, so nothing is offered";
            return Err(CommandError::new(ErrorCode::BadRequest, message).hint("souk host list --price 0.10"));
        }
        Ok(())
    }

    /// Takes over what a `souk host price` says.
    ///
    /// # Errors
    /// If the settings contradict themselves, or can't be saved.
    pub fn price(&mut self, request: &PriceRequest) -> Result<(), CommandError> {
        let mut listing = self.listing.clone();
        listing.price(request);
        self.change(listing)
    }

    /// The listed price has followed the market to this.
    ///
    /// # Errors
    /// If it does not fit, or can't be saved.
    pub fn follow(&mut self, price: Amount) -> Result<(), CommandError> {
        let listing = Listing { followed: Some(price), ..self.listing.clone() };
        self.change(listing)
    }

    /// The listed price of one slot for one hour: the owner's, or where following the market has brought it, within its bounds.
    #[must_use]
    pub fn slot_hour(&self) -> Option<Amount> {
        listed_price(&self.config, &self.listing)
    }

    /// The lowest bid for one slot for one hour.
    #[must_use]
    pub fn min_bid(&self) -> Option<Amount> {
        let price = self.slot_hour()?;
        Some(self.config.host.prices.min_bid.map_or(price, |bid| bid.min(price)))
    }

    /// Takes the offer back.
    ///
    /// # Errors
    /// If that can't be saved.
    pub fn unlist(&mut self) -> Result<(), CommandError> {
        let mut listing = self.listing.clone();
        listing.listed = Some(false);
        self.change(listing)
    }

    /// Takes over whom the owner lets rent.
    ///
    /// # Errors
    /// If too many peers are named, or it can't be saved.
    pub fn accept(&mut self, request: &AcceptRequest) -> Result<(), CommandError> {
        let mut listing = self.listing.clone();
        listing.accept(request, &self.base).map_err(|e| CommandError::new(ErrorCode::BadRequest, e))?;
        self.change(listing)
    }

    fn change(&mut self, listing: Listing) -> Result<(), CommandError> {
        let mut config = self.base.clone();
        listing.apply(&mut config);
        config.check().map_err(|(key, why)| {
            let error = CommandError::new(ErrorCode::BadRequest, format!("{key}: {why}"));
            match key {
                "host.prices.min_bid" => error.hint("name both: souk host price --price 0.35 --min-bid 0.12"),
                "host.pricing.max" => error.hint("souk host price --strategy market --min 0.20 --max 0.60"),
                "host.pricing.command" => {
                    error.hint("souk host price --strategy command --command /usr/local/bin/my-price")
                }
                _ => error,
            }
        })?;
        let prices = &config.host.prices;
        let rates = Rates {
            compute_hour: listed_price(&config, &listing).unwrap_or_default(),
            storage_gb_month: prices.storage_gb_month,
            up_gb: prices.up_gb,
            down_gb: prices.down_gb,
        };
        check_sums(&rates, self.devices().len(), self.hardware().disk_mb, config.host.max_term)?;
        listing.save(&self.dir).map_err(|e| {
            CommandError::new(ErrorCode::Internal, format!("the change can't be saved in {}: {e}", self.dir.display()))
        })?;
        self.listing = listing;
        self.config = config;
        Ok(())
    }

    /// Each slot's device, and its model.
    #[must_use]
    pub fn devices(&self) -> Vec<(Option<String>, Option<String>)> {
        let declared: Vec<_> = self
            .config
            .host
            .declared_gpus
            .iter()
            .flat_map(|g| {
                (0..g.devices.len()).map(|i| (Some(declared_name(g, i)), Some(g.model.clone()))).collect::<Vec<_>>()
            })
            .collect();
        let nvml =
            self.inventory.gpus.iter().filter(|g| !g.mig).map(|g| (Some(g.uuid.clone()), Some(short_model(&g.model))));
        // A lease's slots are of one class: the machine is sold by its most frequent model.
        let mut devices: Vec<(Option<String>, Option<String>)> =
            if declared.is_empty() { nvml.collect() } else { declared };
        let mut models: BTreeMap<Option<String>, usize> = BTreeMap::new();
        for (_, model) in &devices {
            *models.entry(model.clone()).or_insert(0) += 1;
        }
        let best = models.into_iter().max_by_key(|(_, count)| *count).map(|(model, _)| model);
        devices.retain(|(_, model)| Some(model) == best.as_ref());
        if devices.is_empty() {
            let cores = u16::try_from(self.inventory.cpu.logical_cores).unwrap_or(u16::MAX);
            let slots =
                self.config.host.slots.unwrap_or_else(|| cores.saturating_sub(self.config.host.reserve.cpu).max(1));
            return (0..slots.min(limits::SLOTS)).map(|_| (None, None)).collect();
        }
        devices.truncate(usize::from(limits::SLOTS));
        devices
    }

    /// What guests get of the machine.
    #[must_use]
    pub fn hardware(&self) -> Hardware {
        let (inventory, reserve) = (&self.inventory, &self.config.host.reserve);
        let devices = self.devices();
        let cpu = &inventory.cpu;
        let cut =
            |text: &str| text.chars().filter(|c| !c.is_control()).take(limits::NAME_BYTES / 4).collect::<String>();
        Hardware {
            gpus: self.gpu_group(&devices).into_iter().collect(),
            cpu: Cpu {
                model: cut(&cpu.model),
                cores: u16::try_from(cpu.logical_cores).unwrap_or(u16::MAX).saturating_sub(reserve.cpu).max(1),
                mhz: cpu.mhz,
                avx: cpu.has_avx,
                arch: cut(&cpu.arch),
            },
            ram_mb: mb(inventory.memory_mb).saturating_sub(reserve.ram_mb),
            disk_mb: self.disk_mb().saturating_sub(self.volumes_to_come_mb()),
            disk_mb_s: None,
            country: None,
            up_mbps: None,
            down_mbps: None,
        }
    }

    /// Disk that is free for guests, but for what is reserved.
    fn disk_mb(&self) -> u64 {
        mb(self.inventory.disk_free_mb).saturating_sub(self.config.host.reserve.disk_mb)
    }

    /// Disk for volumes, taken or not, in MB.
    #[must_use]
    pub fn volume_mb(&self) -> u64 {
        let Some(taken) = self.volumes_mb else { return 0 };
        let room = self.disk_mb() / (VOLUME_OVERHEAD + 1) * VOLUME_OVERHEAD;
        let share = self.config.host.volumes.map(|gb| gb.saturating_mul(1000));
        let most = room.saturating_add(taken);
        let all = share.unwrap_or(most / VOLUME_SHARE).min(most);
        if all < limits::VOLUME_LEAST_MB { 0 } else { all }
    }

    /// What of the disk that is free now is kept for volumes.
    fn volumes_to_come_mb(&self) -> u64 {
        let to_come = self.volume_mb().saturating_sub(self.volumes_mb.unwrap_or(0));
        to_come.saturating_add(to_come / VOLUME_OVERHEAD)
    }

    fn gpu_group(&self, devices: &[(Option<String>, Option<String>)]) -> Option<GpuGroup> {
        let model = devices.first()?.1.clone()?;
        let names: Vec<&String> = devices.iter().filter_map(|(device, _)| device.as_ref()).collect();
        let uuid_hashes = names.iter().map(|n| Digest::of(n.as_bytes())).collect();
        let measured = self.inventory.gpus.iter().find(|g| names.contains(&&g.uuid));
        let declared = self.config.host.declared_gpus.iter().find(|g| g.model == model);
        Some(GpuGroup {
            model,
            declared: measured.is_none(),
            uuid_hashes,
            vram_mib: measured.map(|g| g.memory_mb).or(declared.map(|g| g.vram_mib)).unwrap_or(0),
            compute_cap: measured.map_or(0, |g| g.compute_capability * 10),
            driver: measured.map_or_else(String::new, |g| g.driver.clone()),
            max_cuda: measured.map_or(0, |g| g.max_cuda / 1000 * 100 + g.max_cuda % 1000 / 10 * 10),
            pcie_gen: measured.and_then(|g| g.pcie_generation).and_then(|n| u8::try_from(n).ok()).unwrap_or(0),
            pcie_width: measured.and_then(|g| g.pcie_width).and_then(|n| u8::try_from(n).ok()).unwrap_or(0),
            mem_bw: measured.and_then(|g| g.memory_bandwidth_gbs).unwrap_or(0),
            power_w: measured.and_then(|g| g.power_limit_w).unwrap_or(0),
        })
    }

    /// Takes over what is to run on slots that nobody rents.
    ///
    /// # Errors
    /// If it is out of bounds, or can't be saved.
    pub fn set_idle_job(&mut self, request: IdleJobRequest) -> Result<(), CommandError> {
        let mut listing = self.listing.clone();
        let disk_mb = self.config.host.idle_job.disk_mb;
        listing.idle_job = Some(IdleJob { image: request.image, command: request.command, disk_mb });
        self.change(listing)
    }

    /// The idle job for one slot, once its image is found.
    #[must_use]
    pub fn idle_job(&self, image: ImagePin, info: &RuntimeInfo) -> idle::Job {
        let (settings, hardware) = (&self.config.host.idle_job, self.hardware());
        let slots = u64::try_from(self.devices().len()).unwrap_or(u64::MAX).max(1);
        let internet = self.config.host.egress.contains(&Egress::Internet);
        let egress = if internet && info.egress.contains(&souk_runtime::Egress::Internet) {
            souk_runtime::Egress::Internet
        } else {
            souk_runtime::Egress::None
        };
        idle::Job {
            image,
            command: settings.command.clone(),
            egress,
            cpu_milli: u32::try_from(u64::from(hardware.cpu.cores) * 1000 / slots).unwrap_or(u32::MAX),
            memory_mb: instances::mib(hardware.ram_mb / slots),
            disk_mb: instances::mib(settings.disk_mb),
        }
    }

    /// Who may rent.
    #[must_use]
    pub fn accept_policy(&self) -> Accept {
        let accept = &self.config.host.accept;
        if accept.anyone {
            return Accept::Anyone;
        }
        let peers = accept.peers.iter().copied().collect();
        match accept.min_trust {
            _ if !accept.attested_by.is_empty() => Accept::Attested { peers, by: accept.attested_by.clone() },
            Some(least) => Accept::Trusted { peers, least },
            None => Accept::Peers(peers),
        }
    }

    /// Who may rent where disk limits hold like this.
    fn accept_on(&self, quota: DiskQuota) -> Accept {
        let (host, named) = (&self.config.host, self.config.host.accept.peers.iter().copied().collect());
        self.accept_policy().with_disks(quota, host.allow_soft_disk, named)
    }

    /// What is wrong with disk limits that hold like this.
    #[must_use]
    pub fn disk_problem(&self, info: &RuntimeInfo) -> Option<Problem> {
        // In a cluster nobody is a stranger.
        if quota(info) == DiskQuota::Hard || self.config.network.founding.is_some() {
            return None;
        }
        let host = &self.config.host;
        let (sentence, fix) = match (host.accept.anyone, host.allow_soft_disk) {
            (true, false) => (
                "disk limits can't be enforced here, so strangers may not rent, though anyone is accepted",
                "run as root with loop devices and mkfs.ext4, or keep the engine on XFS with pquota; see docs/operations.md",
            ),
            (true, true) => (
                "strangers may rent though disk limits can't be enforced here: a guest could fill this machine's disk",
                "run as root with loop devices and mkfs.ext4, and take allow_soft_disk out of the configuration",
            ),
            (false, _) => return None,
        };
        Some(Problem { sentence: sentence.to_owned(), fix: fix.to_owned() })
    }

    /// The machine as it is to be offered, by what the container engine can do.
    #[must_use]
    pub fn setup(&self, info: &RuntimeInfo) -> HostSetup {
        let host = &self.config.host;
        let slot_hour = self.slot_hour().unwrap_or_default();
        let min_bid = self.min_bid().unwrap_or_default();
        let can = |egress: &Egress| match egress {
            Egress::None => info.egress.contains(&souk_runtime::Egress::None),
            Egress::Internet => info.egress.contains(&souk_runtime::Egress::Internet),
            Egress::Full => info.egress.contains(&souk_runtime::Egress::Full),
        };
        let slots: Vec<Option<String>> = self.devices().into_iter().map(|(device, _)| device).collect();
        let total = u16::try_from(slots.len()).unwrap_or(u16::MAX);
        HostSetup {
            hold: host.hold.min(total),
            volume_mb: self.volume_mb(),
            maintenance: self.windows(now()),
            listed: host.enabled && self.slot_hour().is_some() && self.listing.listed != Some(false),
            machine: self.machine,
            hardware: self.hardware(),
            slots,
            terms: Terms {
                slot_hour,
                min_bid_slot_hour: min_bid,
                storage_gb_month: host.prices.storage_gb_month,
                up_gb: host.prices.up_gb,
                down_gb: host.prices.down_gb,
                currency: host.prices.currency.clone(),
                min_slots: host.min_slots.min(total),
                latest_end: host.latest_end,
                eviction_notice: host.eviction_notice,
                quantum: host.quantum,
                reserved_discount: host.prices.reserved_discount,
                egress: host.egress.iter().copied().filter(can).collect(),
                runtimes: vec![RuntimeKind::Docker],
                disk_quota: quota(info),
                registries: host.registries.iter().take(limits::REGISTRIES).cloned().collect(),
                payment: vec!["manual".to_owned()],
                accepts: Accepts::Named,
            },
            floor_slot_hour: match host.pricing.strategy {
                Strategy::Fixed | Strategy::Market => slot_hour,
                Strategy::Floor => min_bid,
                // The program says; whatever it says is at least this.
                Strategy::Command => Amount::ZERO,
            },
            accept: self.accept_on(quota(info)),
            asked: OwnerAsked {
                price: host.pricing.strategy == Strategy::Command,
                accept: host.accept.command.is_some(),
                unanswered_is_yes: host.accept.command_fails == OnFailure::Accept,
            },
            credit: Millis::from_hours(u64::from(host.credit_hours)),
            tick: host.tick,
            max_term: host.max_term,
            reachability: Reachability::Unknown,
            membership: None,
            // The node knows its own key, the machine does not.
            ssh_host_key: souk_protocol::SshKey::default(),
            public: host.public.offered(),
        }
    }

    /// What keeps this machine from being rented, and what helps.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut add =
            |sentence: &str, fix: &str| problems.push(Problem { sentence: sentence.to_owned(), fix: fix.to_owned() });
        if self.slot_hour().is_none() {
            add("this machine has no price, so it is not offered", "souk host list --price 0.10");
        }
        let accept = &self.config.host.accept;
        if !accept.anyone && accept.peers.is_empty() {
            add("nobody may rent yet", "souk host accept PEER, or: souk host accept anyone");
        }
        if usize::from(self.config.host.hold) >= self.devices().len() {
            add("all slots are held for your own work, so none is rented out", "souk host hold 0");
        }
        if self.config.host.latest_end.is_some_and(|end| end <= now()) {
            add("the last end of contracts is past, so nothing is rented out", "souk host list --until none");
        }
        if let Some(problem) = &self.inventory.gpu_problem {
            add(problem, "nvidia-smi");
        }
        let (disk_gb, slots) = (self.hardware().disk_mb as f64 / 1000.0, self.devices().len().max(1));
        if disk_gb / (slots as f64) < STORAGE_GB {
            let sentence = format!(
                "a slot has {:.1} GB of disk, and searches that do not say --storage leave out what has less than {STORAGE_GB} GB",
                disk_gb / (slots as f64)
            );
            add(&sentence, "free some disk, keep less for yourself (host.reserve.disk_mb), or rent out fewer slots");
        }
        problems
    }
}

/// How disk limits hold, as offers say it.
const fn quota(info: &RuntimeInfo) -> DiskQuota {
    match info.disk_quota {
        souk_runtime::DiskQuota::Hard => DiskQuota::Hard,
        souk_runtime::DiskQuota::Soft => DiskQuota::Soft,
    }
}

fn listed_price(config: &Config, listing: &Listing) -> Option<Amount> {
    let (pricing, named) = (&config.host.pricing, config.host.prices.slot_hour);
    match (pricing.strategy, pricing.min.zip(pricing.max)) {
        (Strategy::Market, Some((min, max))) => Some(listing.followed.or(named).unwrap_or(max).max(min).min(max)),
        (Strategy::Market | Strategy::Fixed | Strategy::Floor | Strategy::Command, _) => named,
    }
}

/// `NVIDIA GeForce RTX 4090` as the market calls it: `RTX 4090`.
fn short_model(model: &str) -> String {
    let words = model.trim().trim_start_matches("NVIDIA ").trim_start_matches("GeForce ");
    words.chars().filter(|c| !c.is_control()).take(limits::NAME_BYTES / 4).collect()
}

/// What names a declared GPU in placements and locks: its UUID if it has one, else its device paths.
fn declared_name(gpus: &crate::config::DeclaredGpus, index: usize) -> String {
    let uuid = gpus.uuid.as_ref().and_then(|u| u.get(index)).cloned();
    uuid.unwrap_or_else(|| {
        let paths = gpus.devices[index].iter().map(|p| p.display().to_string());
        paths.collect::<Vec<_>>().join(",")
    })
}
