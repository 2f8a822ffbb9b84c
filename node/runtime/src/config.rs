//! What the host's owner decides about the runtime, and what the runtime found out about the engine.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::RuntimeError;
use crate::firewall::is_public;
use crate::spec::{Egress, check_lease_id};
use crate::subnet::Cidr;

/// How GPUs are handed to containers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Nvidia {
    /// The OCI runtime `nvidia` where the engine lists it, a device request otherwise.
    #[default]
    Auto,
    /// Always a device request.
    DeviceRequest,
    /// The OCI runtime of this name.
    Runtime(String),
}

/// The runtime's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuntimeConfig {
    /// The engine's Unix socket.
    pub socket: PathBuf,
    /// Where the helper and the meters' files live; made when absent. The engine must see the same path.
    pub data_dir: PathBuf,
    /// This node, in the labels of its containers and the name of its firewall table.
    pub node_id: String,
    /// Instance networks are /29 pieces of this range; it must not be used elsewhere.
    pub subnet_pool: Cidr,
    /// Registries to fetch from, by host name and port; `docker.io` is Docker's own.
    pub registries: Vec<String>,
    /// Images of the engine usable without a registry: names, with `*` for any run of characters.
    pub local_images: Vec<String>,
    /// Largest image, in MiB on disk.
    pub max_image_mb: u64,
    /// Room for images that no instance needs any more, in MiB; those used longest ago go first.
    pub image_cache_mb: u64,
    /// How GPUs are attached.
    pub nvidia: Nvidia,
    /// Resolvers given to guests; public addresses, since guests reach no others.
    pub resolvers: Vec<Ipv4Addr>,
    /// New connections a second of one guest, and how many at once before that counts.
    pub new_connections: NewConnections,
    /// Ranges closed to guests beside the built-in ones and the networks this host is attached to.
    pub denied: Vec<Cidr>,
    /// The `nft` program.
    pub nft: PathBuf,
    /// Log kept of an instance: bytes a file, and files.
    pub log: LogLimit,
    /// An OCI runtime for all containers without GPUs (`runsc`, `kata`); `None` for the engine's default.
    pub oci_runtime: Option<String>,
    /// Whether each instance gets a file system in a file for its disk, where the storage driver has no limits of its own.
    pub loop_disks: bool,
    /// Whether the space of such files is set aside when they are made, so that what was granted is there.
    pub preallocate_disks: bool,
    /// Seconds between checks of disk use (where no quota is enforced) and of the firewall.
    pub check_seconds: u64,
}

/// The cap on a guest's new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewConnections {
    /// A second, in the long run.
    pub per_second: u32,
    /// At once.
    pub burst: u32,
}

/// How much of an instance's output is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLimit {
    /// MiB of one file.
    pub file_mb: u32,
    /// Files, the oldest dropped first.
    pub files: u32,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self {
            socket: PathBuf::from("/var/run/docker.sock"),
            data_dir: PathBuf::from("/var/lib/souk/runtime"),
            node_id: String::from("node"),
            subnet_pool: Cidr::new(Ipv4Addr::new(10, 231, 0, 0), 16),
            registries: vec![
                String::from("docker.io"),
                String::from("ghcr.io"),
                String::from("quay.io"),
                String::from("nvcr.io"),
            ],
            local_images: Vec::new(),
            max_image_mb: 60 * 1024,
            image_cache_mb: 100 * 1024,
            nvidia: Nvidia::Auto,
            resolvers: vec![Ipv4Addr::new(1, 1, 1, 1), Ipv4Addr::new(8, 8, 8, 8)],
            new_connections: NewConnections { per_second: 200, burst: 600 },
            denied: Vec::new(),
            nft: PathBuf::from("nft"),
            log: LogLimit { file_mb: 10, files: 3 },
            oci_runtime: None,
            loop_disks: true,
            preallocate_disks: true,
            check_seconds: 20,
        }
    }
}

impl RuntimeConfig {
    /// Checks what must hold before anything is done.
    ///
    /// # Errors
    /// [`RuntimeError::Config`], with the first contradiction.
    pub fn check(&self) -> Result<(), RuntimeError> {
        let wrong = |reason: &str| Err(RuntimeError::Config { reason: reason.to_owned() });
        if check_lease_id(&self.node_id).is_err() {
            return wrong("node_id must be 1 to 128 letters, digits, dots, colons, dashes or underscores");
        }
        if !self.data_dir.is_absolute() || self.data_dir.to_str().is_none_or(|path| path.contains(':')) {
            return wrong("data_dir must be an absolute path without a colon");
        }
        if self.subnet_pool.prefix() > 29 || is_public(self.subnet_pool.first()) {
            return wrong("subnet_pool must be a private range of /29 or larger");
        }
        if self.resolvers.is_empty() || !self.resolvers.iter().all(|address| is_public(*address)) {
            return wrong("resolvers must be public addresses, as guests reach no others");
        }
        if self.new_connections.per_second == 0 || self.new_connections.burst == 0 {
            return wrong("new_connections must allow at least one a second");
        }
        if self.check_seconds == 0 || self.log.file_mb == 0 || self.log.files == 0 {
            return wrong("check_seconds and the log limits must be at least 1");
        }
        Ok(())
    }
}

/// Whether a container's disk limit is enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskQuota {
    /// By the storage driver, or by a file system of its own for each instance: writing beyond it fails.
    Hard,
    /// By looking from time to time: an instance beyond it is stopped.
    Soft,
}

/// What this engine can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeInfo {
    /// The engine's version.
    pub engine_version: String,
    /// Where the engine keeps images and containers.
    pub data_root: PathBuf,
    /// Where what guests write is kept: the engine's place, or that of disks in files.
    pub disk_root: PathBuf,
    /// The storage driver.
    pub storage_driver: String,
    /// How disk limits hold.
    pub disk_quota: DiskQuota,
    /// What networks can be offered: without a verified firewall only [`Egress::None`].
    pub egress: Vec<Egress>,
    /// Whether containers outlive an engine restart.
    pub live_restore: bool,
    /// Whether volumes can be made and mounted.
    pub volumes: bool,
    /// The OCI runtime that attaches GPUs, `None` where device requests do.
    pub gpu_runtime: Option<String>,
}
