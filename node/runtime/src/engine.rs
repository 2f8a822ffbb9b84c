//! The container engine as one thing: connection, what it can do, its networks, and what the whole node shares of it.
//!
//! Knows no single instance; see [`crate::instance`] for that.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bollard::Docker;
use bollard::models::{Network, SystemInfo};
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListImagesOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder,
};

use crate::cache::Cache;
use crate::config::{DiskQuota, Nvidia, RuntimeConfig, RuntimeInfo};
use crate::container::GpuAttachment;
use crate::error::{RuntimeError, classify};
use crate::firewall::Firewall;
use crate::helper;
use crate::incoming::Incoming;
use crate::login::Logins;
use crate::loopfs::{DISKS, LoopDisks};
use crate::name::{LABEL_FULL, LABEL_LEASE, LABEL_NODE, Names};
use crate::report::FailureCode;
use crate::spec::Egress;
use crate::volume::Volumes;

/// Seconds that a request may take until the engine begins to answer.
const REQUEST_SECONDS: u64 = 120;

/// What all workers share.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) docker: Docker,
    pub(crate) config: RuntimeConfig,
    pub(crate) firewall: Firewall,
    pub(crate) helper: PathBuf,
    pub(crate) volumes: Arc<Volumes>,
    /// Images brought here by this node.
    pub(crate) cache: Cache,
    /// Renters' registry logins.
    pub(crate) logins: Logins,
    /// Images that renters send.
    pub(crate) incoming: Incoming,
    /// Held while a subnet is chosen and its network made.
    pub(crate) subnet_lock: tokio::sync::Mutex<()>,
    /// Whether images are kept by containerd, which names them by their manifests.
    containerd: bool,
    /// The disks of instances, where they are files.
    pub(crate) disks: LoopDisks,
    loop_disks: AtomicBool,
    info: RwLock<RuntimeInfo>,
}

impl Engine {
    /// Connects to the engine, asks what it can do, loads the firewall and writes the helper.
    pub(crate) async fn connect(config: RuntimeConfig) -> Result<Self, RuntimeError> {
        config.check()?;
        let socket = config
            .socket
            .to_str()
            .ok_or_else(|| RuntimeError::Config { reason: String::from("the engine's socket path is not UTF-8") })?;
        let docker = Docker::connect_with_unix(socket, REQUEST_SECONDS, bollard::API_DEFAULT_VERSION)
            .map_err(|error| RuntimeError::Engine(classify(&error)))?
            .negotiate_version()
            .await
            .map_err(|error| RuntimeError::Engine(classify(&error)))?;
        let system = docker.info().await.map_err(|error| RuntimeError::Engine(classify(&error)))?;
        let helper = helper::install(&config.data_dir)?;
        let firewall = Firewall::new(&config);
        let filtered = match firewall.load().await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "no firewall: instances get no network");
                false
            }
        };
        let disks = LoopDisks::new(&config.data_dir.join(DISKS), &config.socket, config.preallocate_disks);
        let containerd =
            system.driver_status.iter().flatten().flatten().any(|word| word.contains("io.containerd.snapshotter"));
        let volumes = Arc::new(Volumes::new(&config.data_dir, &config.socket));
        let keeps = volumes.probe().await.inspect_err(|error| tracing::warn!(%error, "no volumes are offered")).is_ok();
        let info = RuntimeInfo { volumes: keeps, ..describe(&config, system, filtered) };
        let engine = Self {
            docker,
            cache: Cache::open(&config.data_dir),
            logins: Logins::default(),
            incoming: Incoming::default(),
            containerd,
            config,
            firewall,
            helper,
            volumes,
            subnet_lock: tokio::sync::Mutex::new(()),
            disks,
            loop_disks: AtomicBool::new(false),
            info: RwLock::new(info.clone()),
        };
        engine.learn_disks(info).await;
        if filtered {
            engine.reopen().await?;
        }
        Ok(engine)
    }

    pub(crate) fn info(&self) -> RuntimeInfo {
        self.info.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the engine loads only archives that have all layers.
    pub(crate) const fn unpacks_by_itself(&self) -> bool {
        self.containerd
    }

    pub(crate) fn disk_quota(&self) -> DiskQuota {
        self.info().disk_quota
    }

    /// Whether an instance's disk is a file system in a file.
    pub(crate) fn loop_disks(&self) -> bool {
        self.loop_disks.load(Ordering::Relaxed)
    }

    /// Whether the storage driver bounds the writable layer by itself.
    pub(crate) fn driver_quota(&self) -> bool {
        self.disk_quota() == DiskQuota::Hard && !self.loop_disks()
    }

    /// Where the storage driver has no limits of its own: tries whether a disk in a file holds on this engine.
    async fn learn_disks(&self, mut info: RuntimeInfo) {
        let wanted = self.config.loop_disks && info.disk_quota == DiskQuota::Soft && info.storage_driver == "overlay2";
        let holds = wanted
            && match crate::disk_test::try_disk(self).await {
                Ok(()) => true,
                Err(reason) => {
                    tracing::warn!(%reason, "disk limits can't be enforced; disks are watched instead");
                    false
                }
            };
        if holds {
            info.disk_quota = DiskQuota::Hard;
            info.disk_root.clone_from(&self.config.data_dir);
        }
        self.loop_disks.store(holds, Ordering::Relaxed);
        *self.info.write().unwrap_or_else(PoisonError::into_inner) = info;
    }

    pub(crate) fn gpu_attachment(&self) -> GpuAttachment {
        self.info().gpu_runtime.map_or(GpuAttachment::DeviceRequest, GpuAttachment::Runtime)
    }

    /// Asks again what the engine can do, after it came back.
    pub(crate) async fn refresh(&self) -> Result<(), FailureCode> {
        let system = self.docker.info().await.map_err(|error| classify(&error))?;
        self.check_firewall().await;
        let filtered = self.info().egress.contains(&Egress::Internet);
        let info = RuntimeInfo { volumes: self.info().volumes, ..describe(&self.config, system, filtered) };
        self.learn_disks(info).await;
        Ok(())
    }

    /// Verifies the firewall, restores it where it was flushed, and offers networks accordingly. Where it can't be restored, guests are
    /// cut off until it can.
    pub(crate) async fn check_firewall(&self) {
        let prefix = crate::name::bridge_prefix(&self.config.node_id);
        let egress = match self.firewall.ensure().await {
            Ok(()) => {
                crate::cut::set_bridges(&prefix, true).await;
                vec![Egress::None, Egress::Internet, Egress::Full]
            }
            Err(error) => {
                tracing::error!(%error, "the firewall is not in force: guests are cut off, and none gets a network");
                crate::cut::set_bridges(&prefix, false).await;
                vec![Egress::None]
            }
        };
        self.info.write().unwrap_or_else(PoisonError::into_inner).egress = egress;
    }

    /// Names the bridges of guests that may reach this host's neighbours: those that an earlier run of this node has made.
    async fn reopen(&self) -> Result<(), RuntimeError> {
        let networks = self.networks().await.map_err(|error| RuntimeError::Engine(classify(&error)))?;
        let bridge = |network: Network| {
            let labels = network.labels.filter(|labels| labels.contains_key(LABEL_FULL))?;
            let own = labels.get(LABEL_NODE) == Some(&self.config.node_id);
            labels.get(LABEL_LEASE).filter(|_| own).map(|lease| Names::new(&self.config.node_id, lease).bridge)
        };
        let bridges: Vec<String> = networks.into_iter().filter_map(bridge).collect();
        if let Err(error) = self.firewall.grant_full(|full| full.extend(bridges)).await {
            tracing::error!(%error, "guests that may reach the host's neighbours do not");
        }
        Ok(())
    }

    pub(crate) async fn networks(&self) -> Result<Vec<Network>, bollard::errors::Error> {
        self.docker.list_networks(None).await
    }

    /// The filter for what belongs to this node.
    fn own(&self) -> HashMap<&'static str, Vec<String>> {
        HashMap::from([("label", vec![format!("{LABEL_NODE}={}", self.config.node_id)])])
    }

    /// Leases of this node that have a container, a network, a volume or an image of a move in the engine.
    pub(crate) async fn leases(&self) -> Result<Vec<String>, FailureCode> {
        let options = ListContainersOptionsBuilder::new().all(true).filters(&self.own()).build();
        let containers = self.docker.list_containers(Some(options)).await.map_err(|error| classify(&error))?;
        let options = ListNetworksOptionsBuilder::new().filters(&self.own()).build();
        let networks = self.docker.list_networks(Some(options)).await.map_err(|error| classify(&error))?;
        let options = ListVolumesOptionsBuilder::new().filters(&self.own()).build();
        let volumes = self.docker.list_volumes(Some(options)).await.map_err(|error| classify(&error))?;
        let options = ListImagesOptionsBuilder::new().all(true).filters(&self.own()).build();
        let images = self.docker.list_images(Some(options)).await.map_err(|error| classify(&error))?;
        let labels = containers
            .into_iter()
            .filter_map(|container| container.labels)
            .chain(networks.into_iter().filter_map(|network| network.labels))
            .chain(volumes.volumes.unwrap_or_default().into_iter().map(|volume| volume.labels))
            .chain(images.into_iter().map(|image| image.labels));
        let mut leases: Vec<String> = labels.filter_map(|mut labels| labels.remove(LABEL_LEASE)).collect();
        leases.sort_unstable();
        leases.dedup();
        Ok(leases)
    }
}

fn describe(config: &RuntimeConfig, system: SystemInfo, filtered: bool) -> RuntimeInfo {
    let runtimes = system.runtimes.unwrap_or_default();
    let gpu_runtime = match &config.nvidia {
        Nvidia::DeviceRequest => None,
        Nvidia::Runtime(name) => Some(name.clone()),
        Nvidia::Auto => runtimes.contains_key("nvidia").then(|| String::from("nvidia")),
    };
    let driver = system.driver.unwrap_or_default();
    let status = system.driver_status.unwrap_or_default();
    let backing = status
        .iter()
        .find_map(|pair| match pair.as_slice() {
            [key, value] if key == "Backing Filesystem" => Some(value.as_str()),
            _ => None,
        })
        .unwrap_or_default();
    let data_root = PathBuf::from(system.docker_root_dir.unwrap_or_default());
    let disk_quota = if enforces_size(&driver, backing, &data_root) { DiskQuota::Hard } else { DiskQuota::Soft };
    let egress = if filtered { vec![Egress::None, Egress::Internet, Egress::Full] } else { vec![Egress::None] };
    RuntimeInfo {
        engine_version: system.server_version.unwrap_or_default(),
        disk_root: data_root.clone(),
        data_root,
        storage_driver: driver,
        disk_quota,
        egress,
        live_restore: system.live_restore_enabled.unwrap_or(false),
        volumes: false,
        gpu_runtime,
    }
}

/// Whether the storage driver enforces `size=`: btrfs and zfs do by themselves, overlay2 on XFS mounted with project quotas.
fn enforces_size(driver: &str, backing: &str, data_root: &std::path::Path) -> bool {
    match driver {
        "btrfs" | "zfs" | "devicemapper" | "windowsfilter" => true,
        "overlay2" => backing == "xfs" && mounted_with_project_quota(data_root),
        _ => false,
    }
}

fn mounted_with_project_quota(path: &std::path::Path) -> bool {
    let Ok(mounts) = std::fs::read_to_string("/proc/self/mounts") else {
        return false;
    };
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let target = fields.nth(1)?;
            let options = fields.nth(1)?;
            path.starts_with(target).then_some((target.len(), options))
        })
        .max_by_key(|(length, _)| *length)
        .is_some_and(|(_, options)| options.split(',').any(|option| option == "prjquota" || option == "pquota"))
}
