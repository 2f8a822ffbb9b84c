//! What an instance is to be: the description a worker makes a container from, and its bounds.
//!
//! Owns the checks of everything that a renter can write into a spec. It doesn't decide what a lease grants.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::image::{ImagePin, ImageSource};
use crate::volume::VolumeMount;

/// Longest lease id, in bytes. It becomes a label and part of file names.
pub const MAX_LEASE_ID: usize = 128;
/// Most words of a command or an entrypoint.
pub const MAX_COMMAND_WORDS: usize = 1_024;
/// Most bytes of a command, an entrypoint, or the whole environment; the kernel refuses more than 128 KiB for one word.
pub const MAX_TEXT_BYTES: usize = 128 * 1024;
/// Most bytes of an onstart script.
pub const MAX_ONSTART_BYTES: usize = 32 * 1024;
/// Most environment variables.
pub const MAX_ENV: usize = 512;
/// Most GPUs or devices of one instance.
pub const MAX_DEVICES: usize = 64;
/// Least memory of an instance; the engine itself refuses less than 6 MiB.
pub const MIN_MEMORY_MB: u64 = 16;
/// Least number of processes: the helper, a command, and room for an exec.
pub const MIN_PIDS: u32 = 8;

/// What an instance may reach by network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Egress {
    /// Public addresses only: not the host, its LAN, other guests, private or reserved ranges, nor TCP port 25.
    Internet,
    /// Whatever the host's routes lead to; not the host itself, nor other guests.
    Full,
    /// Nothing: only its own loopback.
    None,
}

/// What a machine does first where two want the same: processor time, and memory when there is none left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// As rented.
    #[default]
    Rental,
    /// After everything else, and the first to be killed when memory runs out.
    Idle,
}

/// Devices of this machine that an instance gets; no others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Devices {
    /// NVIDIA GPUs, by UUID.
    pub gpus: Vec<String>,
    /// Declared accelerators, by device node of the host.
    pub nodes: Vec<PathBuf>,
}

impl Devices {
    /// Whether both name the same devices, in whatever order.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        fn sorted<T: Clone + Ord>(list: &[T]) -> Vec<T> {
            let mut list = list.to_vec();
            list.sort_unstable();
            list.dedup();
            list
        }
        sorted(&self.gpus) == sorted(&other.gpus) && sorted(&self.nodes) == sorted(&other.nodes)
    }

    /// Checks that each is named as devices are, and once.
    ///
    /// # Errors
    /// [`SpecError::Device`].
    pub fn check(&self) -> Result<(), SpecError> {
        let uuid = |gpu: &String| {
            gpu.len() <= 96
                && (gpu.starts_with("GPU-") || gpu.starts_with("MIG-"))
                && gpu.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        let node = |path: &PathBuf| {
            path.starts_with("/dev/")
                && path.to_str().is_some_and(|text| text.len() <= 256 && !text.contains(':'))
                && !path.components().any(|part| part == Component::ParentDir)
        };
        let mut gpus = self.gpus.clone();
        gpus.sort_unstable();
        gpus.dedup();
        let fits = self.gpus.len() <= MAX_DEVICES && self.nodes.len() <= MAX_DEVICES;
        if fits && gpus.len() == self.gpus.len() && self.gpus.iter().all(uuid) && self.nodes.iter().all(node) {
            Ok(())
        } else {
            Err(SpecError::Device)
        }
    }
}

/// The description of one instance. Sizes are in MiB of 2²⁰ bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceSpec {
    /// The lease, opaque to the runtime: 1 to 128 of `A-Z a-z 0-9 . _ : -`.
    pub lease: String,
    /// The image, pinned.
    pub image: ImagePin,
    /// How it comes to the engine.
    #[serde(default, skip_serializing_if = "ImageSource::is_open")]
    pub source: ImageSource,
    /// Arguments in place of the image's; `None` takes the image's own.
    pub command: Option<Vec<String>>,
    /// Entrypoint in place of the image's; `None` takes the image's own, `Some` (empty too) drops the image's command as
    /// well. Where nothing is left to run, the instance is kept alive for exec.
    pub entrypoint: Option<Vec<String>>,
    /// `user`, `uid` or `uid:gid` in place of the image's.
    pub user: Option<String>,
    /// Environment, over the image's.
    pub env: Vec<(String, String)>,
    /// Working directory in place of the image's; absolute.
    pub workdir: Option<String>,
    /// A script that PID 1 runs at each start, before the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub onstart: Option<String>,
    /// CPU time, in thousandths of a core.
    pub cpu_milli: u32,
    /// The cores to run on; `None` for any.
    pub cpuset: Option<Vec<u16>>,
    /// Memory in MiB; there is no swap beside it.
    pub memory_mb: u64,
    /// Most processes and threads.
    pub pids: u32,
    /// `/dev/shm` in MiB, part of the memory.
    pub shm_mb: u64,
    /// Writable disk in MiB.
    pub disk_mb: u64,
    /// What the network lets through.
    pub egress: Egress,
    /// The devices it is made with. A start may give it others.
    pub devices: Devices,
    /// Volumes of this node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeMount>,
    /// What it may take from others on this machine.
    #[serde(default)]
    pub priority: Priority,
    /// Milliseconds between SIGTERM and SIGKILL where a stop doesn't say otherwise (and when the engine itself stops).
    pub stop_grace_ms: u64,
}

/// Why a spec is refused.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum SpecError {
    /// The lease id can't be a label.
    #[error("a lease id is 1 to 128 letters, digits, dots, colons, dashes or underscores")]
    LeaseId,
    /// A text field is too large or has a character that no program can be given.
    #[error(
        "{field} is too long or holds a character that can't be passed to a program; shorten it to {MAX_TEXT_BYTES} bytes and leave out NUL"
    )]
    Text {
        /// Which field.
        field: &'static str,
    },
    /// An environment variable has no usable name.
    #[error("an environment variable's name is empty or holds '=' or NUL")]
    EnvName,
    /// A number is out of bounds.
    #[error("{field} must be at least {least}")]
    TooSmall {
        /// Which field.
        field: &'static str,
        /// The least that works.
        least: u64,
    },
    /// The list of GPUs or devices is too long, doubled or malformed.
    #[error("a GPU is named by its UUID (GPU-…), a device by its path under /dev, each once")]
    Device,
    /// A volume can't be seen there.
    #[error("a volume's path must be absolute and plain, and none of the system's")]
    VolumePath,
    /// The working directory isn't absolute.
    #[error("the working directory must be an absolute path")]
    Workdir,
}

impl InstanceSpec {
    /// Checks every field that came from outside.
    ///
    /// # Errors
    /// The first field that is out of bounds.
    pub fn check(&self) -> Result<(), SpecError> {
        check_lease_id(&self.lease)?;
        check_words("the command", self.command.as_deref())?;
        check_words("the entrypoint", self.entrypoint.as_deref())?;
        check_text("the user", self.user.as_deref(), 256)?;
        check_text("the working directory", self.workdir.as_deref(), 4096)?;
        if self.workdir.as_ref().is_some_and(|path| !path.starts_with('/')) {
            return Err(SpecError::Workdir);
        }
        check_env(&self.env)?;
        if self.onstart.as_ref().is_some_and(|script| script.len() > MAX_ONSTART_BYTES || script.contains('\0')) {
            return Err(SpecError::Text { field: "the onstart script" });
        }
        at_least("cpu_milli", u64::from(self.cpu_milli), 10)?;
        at_least("memory_mb", self.memory_mb, MIN_MEMORY_MB)?;
        at_least("pids", u64::from(self.pids), u64::from(MIN_PIDS))?;
        at_least("shm_mb", self.shm_mb, 1)?;
        at_least("disk_mb", self.disk_mb, 1)?;
        if self.cpuset.as_ref().is_some_and(|cores| cores.is_empty() || cores.len() > 4096) {
            return Err(SpecError::TooSmall { field: "cpuset", least: 1 });
        }
        self.volumes.iter().try_for_each(check_volume)?;
        self.devices.check()
    }

    /// The digest of the spec without its devices, hex: a container made from another spec under the same lease is told by it,
    /// while one that has moved to other devices is the same.
    #[must_use]
    pub fn digest(&self) -> String {
        let fixed = Self { devices: Devices::default(), ..self.clone() };
        // Serialising plain structs to memory can't fail; an empty text would only force the container to be made anew.
        let text = serde_json::to_vec(&fixed).unwrap_or_default();
        blake3::hash(&text).to_hex().to_string()
    }
}

/// Most bytes of the path at which a volume is seen.
const MAX_VOLUME_PATH: usize = 1024;

fn check_volume(mount: &VolumeMount) -> Result<(), SpecError> {
    check_lease_id(&mount.volume)?;
    let part = |part: &str| !part.is_empty() && part != "." && part != "..";
    let path = &mount.path;
    let plain = path.len() > 1
        && path.len() <= MAX_VOLUME_PATH
        && path.starts_with('/')
        && path.split('/').skip(1).all(part)
        && !path.chars().any(char::is_control);
    let helper = Path::new(crate::helper::HELPER_IN_INSTANCE);
    let hides = helper.starts_with(path) || Path::new(path).starts_with("/.souk");
    if plain && !hides { Ok(()) } else { Err(SpecError::VolumePath) }
}

/// Checks a lease id.
///
/// # Errors
/// [`SpecError::LeaseId`].
pub fn check_lease_id(lease: &str) -> Result<(), SpecError> {
    let fits = !lease.is_empty()
        && lease.len() <= MAX_LEASE_ID
        && lease.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte));
    if fits { Ok(()) } else { Err(SpecError::LeaseId) }
}

pub(crate) fn check_words(field: &'static str, words: Option<&[String]>) -> Result<(), SpecError> {
    let Some(words) = words else { return Ok(()) };
    let bytes: usize = words.iter().map(String::len).sum();
    if words.len() > MAX_COMMAND_WORDS || bytes > MAX_TEXT_BYTES || words.iter().any(|word| word.contains('\0')) {
        return Err(SpecError::Text { field });
    }
    Ok(())
}

pub(crate) fn check_text(field: &'static str, text: Option<&str>, limit: usize) -> Result<(), SpecError> {
    match text {
        Some(text) if text.len() > limit || text.contains(['\0', '\n']) => Err(SpecError::Text { field }),
        Some(_) | None => Ok(()),
    }
}

pub(crate) fn check_env(env: &[(String, String)]) -> Result<(), SpecError> {
    let bytes: usize = env.iter().map(|(name, value)| name.len() + value.len()).sum();
    if env.len() > MAX_ENV || bytes > MAX_TEXT_BYTES {
        return Err(SpecError::Text { field: "the environment" });
    }
    for (name, value) in env {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(SpecError::EnvName);
        }
        if value.contains('\0') {
            return Err(SpecError::Text { field: "the environment" });
        }
    }
    Ok(())
}

fn at_least(field: &'static str, value: u64, least: u64) -> Result<(), SpecError> {
    if value < least {
        return Err(SpecError::TooSmall { field, least });
    }
    Ok(())
}
