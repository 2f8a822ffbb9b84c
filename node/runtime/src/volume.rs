//! Volumes: disks in files that outlive instances, attached to instances of this node.
//!
//! Owns the folder of the volumes and the order in which each is made, mounted, looked for and removed: one task does one thing
//! after the other. A container sees a folder *inside* the mounted disk, so that one that is not mounted can't be attached: the
//! engine refuses to start it, and nothing is ever written beside the disk. Whose a volume is, and whether it may go, is decided
//! elsewhere.

use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use crate::loopfs::{LoopDiskError, LoopDisks};
use crate::report::RuntimeReport;

/// Commands that wait for the task. When full the sender is told `Busy`.
pub(crate) const COMMANDS: usize = 256;
/// Under the node's data directory.
const FOLDER: &str = "volumes";
/// What of a disk containers see.
const INSIDE: &str = "data";
/// The disk that is made and removed to see whether there can be any.
const PROBE: &str = "probe";

/// A volume in an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeMount {
    /// The volume's name: its lease.
    pub volume: String,
    /// Where the instance sees it.
    pub path: String,
    /// Whether it can only be read there.
    pub read_only: bool,
}

/// What happened to a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "volume", rename_all = "snake_case")]
pub enum VolumeEvent {
    /// It is there, and can be attached.
    Ready,
    /// There is none.
    Missing,
    /// It can't be made.
    NotMade {
        /// Why, for the renter: no path or message of this machine.
        sentence: String,
    },
    /// It is there, and can't be mounted now.
    NotMounted,
    /// It is gone.
    Destroyed,
}

#[derive(Debug)]
pub(crate) enum Command {
    Create {
        name: String,
        bytes: u64,
    },
    Adopt(String),
    Destroy(String),
    /// Nobody accounts for it.
    Remove(String),
}

/// The volumes of a node.
#[derive(Debug)]
pub(crate) struct Volumes {
    disks: LoopDisks,
    folder: PathBuf,
    /// Mounting is looking and then doing: one at a time.
    one_at_a_time: Mutex<()>,
}

impl Volumes {
    pub(crate) fn new(data_dir: &Path, socket: &Path) -> Self {
        let folder = data_dir.join(FOLDER);
        Self { disks: LoopDisks::new(&folder, socket, true), folder, one_at_a_time: Mutex::new(()) }
    }

    /// Where a container's bind of a volume begins.
    pub(crate) fn source(&self, name: &str) -> PathBuf {
        self.disks.mount_point(name).join(INSIDE)
    }

    /// Whether there is one of this name.
    pub(crate) fn exists(&self, name: &str) -> bool {
        self.disks.exists(name)
    }

    /// The volume behind a bind, if it is one.
    pub(crate) fn of_source(&self, source: &str) -> Option<String> {
        let inside = Path::new(source).strip_prefix(&self.folder).ok()?;
        let name = inside.parent()?.to_str()?;
        (inside.ends_with(INSIDE) && self.disks.exists(name)).then(|| name.to_owned())
    }

    /// Whether this machine can keep volumes: makes one, mounts it and removes it.
    ///
    /// # Errors
    /// What is missing.
    pub(crate) async fn probe(&self) -> Result<(), LoopDiskError> {
        let _one = self.one_at_a_time.lock().await;
        self.disks.destroy(PROBE).await?;
        self.disks.create(PROBE, 1).await?;
        let mounted = self.disks.mount(PROBE).await;
        self.disks.destroy(PROBE).await?;
        mounted.map(|_| ())
    }

    /// The volumes there are.
    pub(crate) fn list(&self) -> Vec<String> {
        self.disks.list()
    }

    /// Mounts a volume that was made.
    pub(crate) async fn mount(&self, name: &str) -> Result<(), LoopDiskError> {
        let _one = self.one_at_a_time.lock().await;
        let at = self.disks.seen(&self.disks.mount(name).await?).await?;
        let inside = at.join(INSIDE);
        let made = std::fs::DirBuilder::new().mode(0o777).create(&inside);
        let files = |source| LoopDiskError::Files { path: inside.display().to_string(), source };
        match made {
            // Whatever user the image has may write: all its instances are one renter's.
            Ok(()) => std::fs::set_permissions(&inside, std::fs::Permissions::from_mode(0o777)).map_err(files),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(files(error)),
        }
    }

    async fn create(&self, name: &str, bytes: u64) -> Result<(), LoopDiskError> {
        {
            let _one = self.one_at_a_time.lock().await;
            self.disks.create(name, bytes).await?;
        }
        self.mount(name).await
    }

    async fn destroy(&self, name: &str) -> Result<(), LoopDiskError> {
        let _one = self.one_at_a_time.lock().await;
        self.disks.destroy(name).await
    }

    async fn carry_out(&self, command: Command) -> Option<(String, VolumeEvent)> {
        match command {
            Command::Create { name, bytes } => {
                let event = match self.create(&name, bytes).await {
                    Ok(()) => VolumeEvent::Ready,
                    Err(error) => {
                        tracing::error!(%error, volume = %name, "the volume can't be made");
                        let full = matches!(error, LoopDiskError::NoRoom { .. });
                        let why = if full { "the host's disk is full" } else { "the host could not make the volume" };
                        VolumeEvent::NotMade { sentence: why.to_owned() }
                    }
                };
                Some((name, event))
            }
            Command::Adopt(name) if !self.disks.exists(&name) => Some((name, VolumeEvent::Missing)),
            Command::Adopt(name) => {
                let event = match self.mount(&name).await {
                    Ok(()) => VolumeEvent::Ready,
                    Err(error) => {
                        tracing::error!(%error, volume = %name, "the volume can't be mounted");
                        VolumeEvent::NotMounted
                    }
                };
                Some((name, event))
            }
            Command::Destroy(name) => match self.destroy(&name).await {
                Ok(()) => Some((name, VolumeEvent::Destroyed)),
                Err(error) => {
                    tracing::warn!(%error, volume = %name, "the volume can't be removed yet");
                    None
                }
            },
            Command::Remove(name) => {
                tracing::info!(volume = %name, "removing a volume that no lease accounts for");
                if let Err(error) = self.destroy(&name).await {
                    tracing::warn!(%error, volume = %name, "the volume is left");
                }
                None
            }
        }
    }

    /// Does what it is told, in order, until the node stops.
    pub(crate) async fn run(
        self: Arc<Self>,
        mut commands: mpsc::Receiver<Command>,
        reports: mpsc::Sender<RuntimeReport>,
        stop: CancellationToken,
    ) {
        loop {
            let command = tokio::select! {
                () = stop.cancelled() => return,
                command = commands.recv() => match command {
                    Some(command) => command,
                    None => return,
                },
            };
            if let Some((lease, event)) = self.carry_out(command).await {
                let _ = reports.send(RuntimeReport::Volume { lease, event }).await;
            }
        }
    }
}
