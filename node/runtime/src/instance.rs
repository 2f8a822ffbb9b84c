//! One instance in the engine: each engine call that an instance needs, idempotent, with typed failures.
//!
//! Knows names, labels and the order in which network and container are made and removed. When to do what is the worker's.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, KillContainerOptionsBuilder, ListVolumesOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveVolumeOptions, StopContainerOptionsBuilder,
};

use crate::container::{Surroundings, describe, describe_network, volume_paths};
use crate::disk::has_disk;
use crate::engine::Engine;
use crate::error::{classify, is_missing, status};
use crate::firewall::FirewallError;
use crate::image::StoredImage;
use crate::inside;
use crate::name::{LABEL_CARRIED, LABEL_DISK, LABEL_LEASE, LABEL_NODE, LABEL_SPEC, Names};
use crate::report::FailureCode;
use crate::spec::{Egress, InstanceSpec, Priority};
use crate::subnet::{Cidr, choose, routes};
use crate::usage::{UnixNanos, parse_time};

/// Subnets tried before giving up: another program may take one between looking and making.
const SUBNET_TRIES: u64 = 16;

/// What the engine says of an instance's container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) id: String,
    pub(crate) image: String,
    pub(crate) spec_digest: String,
    pub(crate) disk_mb: Option<u64>,
    pub(crate) state: ObservedState,
    /// Bytes in the writable layer, when asked for.
    pub(crate) written: Option<u64>,
    /// Bytes written before the last move to other devices: they lie below the writable layer.
    pub(crate) carried: u64,
    /// Whether it has a disk of its own, which bounds all that it writes.
    pub(crate) own_disk: bool,
    /// Folders of the volumes that the image brought.
    pub(crate) volumes: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum ObservedState {
    #[default]
    Created,
    Running {
        since: UnixNanos,
    },
    Exited {
        code: i64,
        oom: bool,
        started: UnixNanos,
        at: UnixNanos,
    },
}

/// One lease's place in the engine.
#[derive(Debug, Clone)]
pub(crate) struct Instance {
    pub(crate) engine: Arc<Engine>,
    pub(crate) lease: String,
    pub(crate) names: Names,
}

impl Instance {
    pub(crate) fn new(engine: Arc<Engine>, lease: &str) -> Self {
        let names = Names::new(&engine.config.node_id, lease);
        Self { engine, lease: lease.to_owned(), names }
    }

    /// Looks at the container; `None` where there is none (or one that isn't ours). A move that was cut between its two renames is
    /// completed first.
    pub(crate) async fn observe(&self, size: bool) -> Result<Option<Observed>, FailureCode> {
        let mut found = self.inspect(&self.names.container, size).await?;
        if found.is_none() && self.succeed().await? {
            found = self.inspect(&self.names.container, size).await?;
        }
        Ok(found.and_then(|found| self.read(found)))
    }

    /// What the engine says of a container; `None` where there is none of this name.
    pub(crate) async fn inspect(
        &self,
        name: &str,
        size: bool,
    ) -> Result<Option<ContainerInspectResponse>, FailureCode> {
        let options = InspectContainerOptions { size };
        match self.engine.docker.inspect_container(name, Some(options)).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(classify(&error)),
        }
    }

    pub(crate) fn read(&self, found: ContainerInspectResponse) -> Option<Observed> {
        let own_disk = has_disk(&found);
        let labels = found.config.and_then(|config| config.labels).unwrap_or_default();
        let ours =
            labels.get(LABEL_LEASE) == Some(&self.lease) && labels.get(LABEL_NODE) == Some(&self.engine.config.node_id);
        if !ours {
            tracing::warn!(container = %self.names.container, "a container has this instance's name but not its labels");
            return None;
        }
        let state = found.state.unwrap_or_default();
        let started = state.started_at.as_deref().and_then(parse_time);
        let finished = state.finished_at.as_deref().and_then(parse_time);
        let running = state.running.unwrap_or(false);
        let created = matches!(state.status, Some(ContainerStateStatusEnum::CREATED));
        let state = match (running, started) {
            (true, Some(since)) => ObservedState::Running { since },
            (false, Some(started)) if !created => ObservedState::Exited {
                code: state.exit_code.unwrap_or(-1),
                oom: state.oom_killed.unwrap_or(false),
                started,
                at: finished.unwrap_or(started),
            },
            _ => ObservedState::Created,
        };
        Some(Observed {
            id: found.id.unwrap_or_default(),
            image: found.image.unwrap_or_default(),
            spec_digest: labels.get(LABEL_SPEC).cloned().unwrap_or_default(),
            disk_mb: labels.get(LABEL_DISK).and_then(|text| text.parse().ok()),
            state,
            written: found.size_rw.and_then(|size| u64::try_from(size).ok()),
            carried: labels.get(LABEL_CARRIED).and_then(|text| text.parse().ok()).unwrap_or(0),
            own_disk,
            volumes: found
                .mounts
                .unwrap_or_default()
                .into_iter()
                .filter(|mount| mount.typ.as_deref() == Some("volume"))
                .filter_map(|mount| mount.source.map(PathBuf::from))
                .collect(),
        })
    }

    /// The size of its image in bytes, where its container is there already and from the same spec.
    pub(crate) async fn made_from(&self, spec: &InstanceSpec) -> Option<u64> {
        let found = self.observe(false).await.ok()??;
        if found.spec_digest != spec.digest() {
            return None;
        }
        let image = self.engine.docker.inspect_image(&found.image).await.ok()?;
        Some(image.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0))
    }

    /// Makes the network (where one is granted) and the container, unless they are there from the same spec.
    pub(crate) async fn create(&self, spec: &InstanceSpec, image: &StoredImage) -> Result<(), FailureCode> {
        if let Some(found) = self.observe(false).await? {
            if found.spec_digest == spec.digest() {
                return Ok(());
            }
            if matches!(found.state, ObservedState::Running { .. }) {
                return Err(FailureCode::EngineRefused);
            }
            self.remove().await?;
        }
        for volume in &spec.volumes {
            self.mount_volume(&volume.volume).await?;
        }
        let address = match spec.egress {
            Egress::Internet | Egress::Full => Some(self.create_network(spec.egress).await?.guest()),
            Egress::None => None,
        };
        // The idle job is nobody's rental: there is nothing for it to ask.
        let folder = (spec.priority == Priority::Rental).then(|| inside::of(&self.engine.config.data_dir, &self.names));
        if let Some(folder) = &folder
            && let Err(error) = inside::make(folder, spec.onstart.as_deref())
        {
            tracing::error!(%error, folder = %folder.display(), "an instance's folder can't be made");
            return Err(FailureCode::EngineRefused);
        }
        let (loop_disk, driver_quota) = (self.engine.loop_disks(), self.engine.driver_quota());
        let bytes = spec.disk_mb.saturating_mul(1 << 20);
        let disk = match loop_disk {
            true => {
                Some(self.make_disk(bytes, spec.priority != Priority::Idle, volume_paths(image).len(), address).await?)
            }
            false => None,
        };
        let network_files = match &disk {
            Some(disk) => Some(crate::disk::network_folder_on(disk)),
            // The storage driver's limit doesn't hold for the engine's own files of these names.
            None if driver_quota => Some(self.make_network_files(address)?),
            None => None,
        };
        let gpu = self.engine.gpu_attachment();
        let orders = self.orders().map_err(|error| {
            tracing::error!(%error, lease = %self.lease, "the folder of its orders can't be made");
            FailureCode::HostDiskFull
        })?;
        let body = describe(
            spec,
            &Surroundings {
                config: &self.engine.config,
                names: &self.names,
                helper: &self.engine.helper,
                orders: &orders,
                image,
                gpu: &gpu,
                driver_quota,
                disk: disk.as_deref(),
                network_files: network_files.as_deref().map(|folder| (folder, !loop_disk)),
                volumes: &self.engine.volumes,
                address,
                folder: folder.as_deref(),
            },
        );
        let options = CreateContainerOptionsBuilder::new().name(&self.names.container).build();
        match self.engine.docker.create_container(Some(options), body).await {
            Ok(_) => self.ready_disk().await,
            Err(error) => {
                let code = classify(&error);
                if let Err(error) = self.remove().await {
                    tracing::warn!(?error, lease = %self.lease, "what was made for a failed container is left");
                }
                Err(code)
            }
        }
    }

    /// Mounts the container's disk, where it has one and it isn't mounted.
    pub(crate) async fn ready_disk(&self) -> Result<(), FailureCode> {
        match self.inspect(&self.names.container, false).await? {
            Some(found) => self.attach_disk(&found).await,
            None => Ok(()),
        }
    }

    /// Makes the network, or finds it, and gives its range.
    async fn create_network(&self, egress: Egress) -> Result<Cidr, FailureCode> {
        let unavailable = |error: FirewallError| {
            tracing::error!(%error, "no network is given out");
            FailureCode::FirewallUnavailable
        };
        let firewall = &self.engine.firewall;
        firewall.ensure().await.map_err(unavailable)?;
        let bridge = self.names.bridge.clone();
        let grant = |full: &mut BTreeSet<String>| match egress {
            Egress::Full => {
                full.insert(bridge);
            }
            Egress::Internet | Egress::None => {
                full.remove(&bridge);
            }
        };
        firewall.grant_full(grant).await.map_err(unavailable)?;
        let _one_at_a_time = self.engine.subnet_lock.lock().await;
        let mut used: Vec<_> = routes().into_iter().map(|route| route.to).collect();
        for network in self.engine.networks().await.map_err(|error| classify(&error))? {
            let own = network.name.as_deref() == Some(&self.names.container);
            let ranges = network.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
            let mut ranges = ranges.into_iter().filter_map(|range| range.subnet?.parse::<Cidr>().ok());
            if own {
                return ranges.next().ok_or(FailureCode::EngineRefused);
            }
            used.extend(ranges);
        }
        let seed = self.names.short.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
        for attempt in 0..SUBNET_TRIES {
            let pool = self.engine.config.subnet_pool;
            let subnet = choose(pool, seed.wrapping_add(attempt), &used).ok_or(FailureCode::NetworkExhausted)?;
            let request = describe_network(&self.engine.config.node_id, &self.lease, &self.names, subnet, egress);
            match self.engine.docker.create_network(request).await {
                Ok(_) => return Ok(subnet),
                Err(error) if matches!(status(&error), Some(403 | 409 | 500)) => {
                    tracing::debug!(%error, %subnet, "trying another subnet");
                    used.push(subnet);
                }
                Err(error) => return Err(classify(&error)),
            }
        }
        Err(FailureCode::NetworkExhausted)
    }

    /// Starts the container; fine where it runs already.
    pub(crate) async fn start(&self) -> Result<(), FailureCode> {
        let networked = tokio::fs::try_exists(format!("/sys/class/net/{}", self.names.bridge)).await.unwrap_or(true);
        if networked && let Err(error) = self.engine.firewall.ensure().await {
            tracing::error!(%error, lease = %self.lease, "not started without its firewall");
            return Err(FailureCode::FirewallUnavailable);
        }
        self.ready_disk().await?;
        self.mount_volumes().await?;
        match self.engine.docker.start_container(&self.names.container, None).await {
            Ok(()) => Ok(()),
            Err(error) => Err(classify(&error)),
        }
    }

    /// Mounts the volumes that the container was made with: after a restart of the machine they may not be yet.
    async fn mount_volumes(&self) -> Result<(), FailureCode> {
        if self.engine.volumes.list().is_empty() {
            return Ok(());
        }
        let Some(found) = self.inspect(&self.names.container, false).await? else {
            return Ok(());
        };
        let mounts = found.host_config.and_then(|host| host.mounts).unwrap_or_default();
        let volumes = mounts.iter().filter_map(|mount| self.engine.volumes.of_source(mount.source.as_deref()?));
        for volume in volumes {
            self.mount_volume(&volume).await?;
        }
        Ok(())
    }

    async fn mount_volume(&self, volume: &str) -> Result<(), FailureCode> {
        self.engine.volumes.mount(volume).await.map_err(|error| {
            tracing::error!(%error, %volume, lease = %self.lease, "a volume can't be attached");
            FailureCode::EngineRefused
        })
    }

    /// SIGTERM to every process, SIGKILL after the grace; returns when it has ended.
    pub(crate) async fn stop(&self, grace_ms: u64) -> Result<(), FailureCode> {
        let seconds = crate::container::seconds(grace_ms);
        let options = StopContainerOptionsBuilder::new().t(i32::try_from(seconds).unwrap_or(i32::MAX)).build();
        // The answer comes when the container has ended, so the grace adds to the ordinary limit.
        let limit = self.engine.docker.timeout() + Duration::from_millis(grace_ms);
        let docker = self.engine.docker.clone().with_timeout(limit);
        match docker.stop_container(&self.names.container, Some(options)).await {
            Ok(()) => Ok(()),
            Err(error) if is_missing(&error) => Err(FailureCode::InstanceGone),
            Err(error) => Err(classify(&error)),
        }
    }

    /// SIGKILL, now.
    pub(crate) async fn kill(&self) -> Result<(), FailureCode> {
        let options = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
        match self.engine.docker.kill_container(&self.names.container, Some(options)).await {
            Ok(()) => Ok(()),
            // 409: it isn't running, which is what was wanted.
            Err(error) if status(&error) == Some(409) => Ok(()),
            Err(error) if is_missing(&error) => Err(FailureCode::InstanceGone),
            Err(error) => Err(classify(&error)),
        }
    }

    /// Removes the container with all that a move may have left, its volumes, its images and its network; fine where nothing is
    /// left.
    pub(crate) async fn remove(&self) -> Result<(), FailureCode> {
        // The container last: without it a successor would take its place.
        let names = [self.names.successor(), self.names.predecessor(), self.names.container.clone()];
        for name in &names {
            self.remove_container(name, true).await?;
        }
        for name in &names {
            self.await_removal(name).await?;
        }
        self.remove_volumes().await?;
        self.remove_images(None).await?;
        self.destroy_disk().await?;
        self.remove_network().await?;
        inside::remove(&inside::of(&self.engine.config.data_dir, &self.names));
        self.remove_orders();
        Ok(())
    }

    /// Asks for a container's removal; fine where it is gone or going. What runs in it is killed.
    pub(crate) async fn remove_container(&self, name: &str, volumes: bool) -> Result<(), FailureCode> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(volumes).build();
        match self.engine.docker.remove_container(name, Some(options)).await {
            Ok(()) => Ok(()),
            Err(error) if is_missing(&error) => Ok(()),
            // 409: a removal is in progress.
            Err(error) if status(&error) == Some(409) => Ok(()),
            Err(error) => Err(classify(&error)),
        }
    }

    async fn await_removal(&self, name: &str) -> Result<(), FailureCode> {
        for _ in 0..100 {
            if self.inspect(name, false).await?.is_none() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(FailureCode::EngineTimeout)
    }

    /// The filter for what belongs to this lease.
    pub(crate) fn own(&self) -> HashMap<&'static str, Vec<String>> {
        let labels =
            vec![format!("{LABEL_NODE}={}", self.engine.config.node_id), format!("{LABEL_LEASE}={}", self.lease)];
        HashMap::from([("label", labels)])
    }

    async fn remove_volumes(&self) -> Result<(), FailureCode> {
        let options = ListVolumesOptionsBuilder::new().filters(&self.own()).build();
        let found = self.engine.docker.list_volumes(Some(options)).await.map_err(|error| classify(&error))?;
        for volume in found.volumes.unwrap_or_default() {
            match self.engine.docker.remove_volume(&volume.name, None::<RemoveVolumeOptions>).await {
                Ok(()) => {}
                Err(error) if is_missing(&error) => {}
                Err(error) => return Err(classify(&error)),
            }
        }
        Ok(())
    }

    async fn remove_network(&self) -> Result<(), FailureCode> {
        match self.engine.docker.remove_network(&self.names.container).await {
            Ok(()) => {}
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(classify(&error)),
        }
        let bridge = &self.names.bridge;
        if let Err(error) = self.engine.firewall.grant_full(|full| drop(full.take(bridge))).await {
            tracing::warn!(%error, lease = %self.lease, "a bridge that is gone stays named in the firewall");
        }
        Ok(())
    }

    /// Bytes written, as far as they can be known: those on a disk of its own, or those that nothing bounds (the image's volumes are
    /// outside of a storage driver's quota).
    pub(crate) async fn written_bytes(&self) -> Result<Written, FailureCode> {
        let layer = !self.engine.driver_quota();
        if let Some(bytes) = self.disk_bytes().await {
            return Ok(Written { bytes, bounded: true });
        }
        let Some(found) = self.observe(layer).await? else {
            return Ok(Written { bytes: 0, bounded: true });
        };
        let mut bytes = if layer { found.written.unwrap_or(0).saturating_add(found.carried) } else { 0 };
        if !found.volumes.is_empty() {
            bytes = bytes.saturating_add(folder_bytes(&found.volumes).await);
        }
        Ok(Written { bytes, bounded: found.own_disk })
    }
}

/// What an instance has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) bytes: u64,
    /// Whether it can't write more than it was granted.
    pub(crate) bounded: bool,
}

/// How long counting the files of a guest's volumes may take; what isn't counted by then is looked at the next time.
const COUNT_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes in folders that a guest writes to. `du` walks them without following links, whatever the guest does meanwhile.
async fn folder_bytes(folders: &[PathBuf]) -> u64 {
    let child = tokio::process::Command::new("du")
        .args(["-scxB1", "--"])
        .args(folders)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(COUNT_TIMEOUT, child).await {
        Ok(Ok(output)) => String::from_utf8_lossy(&output.stdout)
            .lines()
            .last()
            .and_then(|total| total.split_whitespace().next()?.parse().ok())
            .unwrap_or(0),
        Ok(Err(error)) => {
            tracing::warn!(%error, "du can't be run: volumes of instances are not counted");
            0
        }
        Err(_) => 0,
    }
}
