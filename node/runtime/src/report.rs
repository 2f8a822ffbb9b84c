//! What the runtime tells the market: facts about instances and the engine, each once, in order per lease.
//!
//! Reports carry typed codes and sentences of our own; the engine's words stay in the local log.

use serde::{Deserialize, Serialize};

use crate::usage::{UnixNanos, Usage};

/// One report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub enum RuntimeReport {
    /// Something happened to an instance.
    Instance {
        /// The lease, as the spec named it.
        lease: String,
        /// What happened.
        event: InstanceEvent,
    },
    /// Something happened to a volume.
    Volume {
        /// The volume's lease.
        lease: String,
        /// What happened.
        event: crate::volume::VolumeEvent,
    },
    /// The engine can't be reached. What runs may still run: nothing is known of it until [`RuntimeReport::EngineUp`].
    EngineDown,
    /// The engine is reached again; a report for each instance that changed meanwhile follows by itself.
    EngineUp,
}

/// What happened to an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum InstanceEvent {
    /// How far the pull of the image is. Dropped rather than queued when the reader is slow.
    PullProgress(PullProgress),
    /// The container exists and can be started.
    Prepared {
        /// Size of the image on disk, in bytes.
        image_bytes: u64,
    },
    /// Its processes run.
    Started {
        /// Since when, by the engine's clock.
        at: UnixNanos,
    },
    /// Its processes ended.
    Exited(Exit),
    /// It was asked to stop and does not run (any more): nothing changed.
    NotRunning,
    /// A step could not be done; the instance is as it was before.
    Failed(Failure),
    /// More disk is used than granted, and no quota stops it: the instance was told to stop.
    DiskFull {
        /// Bytes written.
        used_bytes: u64,
        /// Bytes granted.
        limit_bytes: u64,
    },
    /// Bytes over its network so far: told before the end of a run, and before it is gone. In between, ask.
    Traffic(Usage),
    /// The disk is nearly full, or not any more; told at each change, where no quota holds the disk and use is looked at.
    DiskUse {
        /// Bytes written.
        used_bytes: u64,
        /// Bytes granted.
        limit_bytes: u64,
    },
    /// The container is gone without our doing (removed by hand, say); its disk is lost.
    Gone,
    /// Container, network and files of the instance are removed.
    Destroyed,
}

/// How far a pull is. The totals grow while layers are discovered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullProgress {
    /// Layers downloaded and unpacked, or already there.
    pub layers_done: u32,
    /// Layers known.
    pub layers: u32,
    /// Compressed bytes downloaded.
    pub bytes_done: u64,
    /// Compressed bytes known.
    pub bytes: u64,
}

/// The end of an instance's processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The command's own code; 128 + n when signal n ended it.
    pub code: i64,
    /// The kernel ended it for using more memory than granted.
    pub oom: bool,
    /// When, by the engine's clock.
    pub at: UnixNanos,
    /// Who caused it.
    pub by: ExitCause,
}

/// Who caused an exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitCause {
    /// The command ended by itself (or by its own processes).
    Guest,
    /// A stop or kill that this node was asked for.
    Stop,
    /// The engine stopped underneath (`engine_restart`).
    EngineRestart,
    /// It was killed from outside while this node wasn't watching: a reboot, an operator.
    Unknown,
}

/// A step that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Which step.
    pub step: Step,
    /// What kind of failure, for programs.
    pub code: FailureCode,
    /// What happened and what to do, for people.
    pub sentence: String,
}

/// A step of an instance's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Checking the spec.
    Check,
    /// Getting the image.
    Pull,
    /// Making network and container.
    Create,
    /// Starting it.
    Start,
    /// Stopping it.
    Stop,
    /// Removing it.
    Destroy,
}

/// The kinds of failure. `Display` (in [`crate::error`]) is the sentence for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// The spec is out of bounds.
    SpecInvalid,
    /// The registry has no such image.
    ImageNotFound,
    /// The host's policy refuses the image or its registry.
    ImageRefused,
    /// The registry wants a login, or forbids this image.
    ImageDenied,
    /// The registry doesn't take the renter's login, or it is no login for this image.
    LoginRefused,
    /// The renter's login was not given in time.
    LoginMissing,
    /// The instance doesn't wait for an image (any more, or yet).
    ImageNotWanted,
    /// The image is being sent by another command of its renter.
    ImageBusy,
    /// The image that the renter was to send didn't come in time.
    ImageNotSent,
    /// What the renter sent is not the image that the lease names, or nothing that an image may be.
    ImageCorrupt,
    /// The image is not made for this machine.
    ImageIncompatible,
    /// The image is larger than the host accepts.
    ImageTooLarge,
    /// The registry can't be reached.
    RegistryUnreachable,
    /// The registry asks to slow down.
    RegistryBusy,
    /// The host's disk is full.
    HostDiskFull,
    /// The instance's own disk can't be mounted.
    DiskUnavailable,
    /// The image has no such user.
    UserUnknown,
    /// The working directory can't be used.
    WorkdirInvalid,
    /// A GPU or device can't be handed to the container.
    DeviceUnavailable,
    /// The firewall isn't in force, so no network is given out.
    FirewallUnavailable,
    /// No free subnet is left in the pool.
    NetworkExhausted,
    /// There is no such instance.
    InstanceGone,
    /// The engine can't be reached.
    EngineDown,
    /// The engine did not answer in time.
    EngineTimeout,
    /// The engine refused for a reason of its own, which the host's log has.
    EngineRefused,
    /// A later command overtook this one.
    Cancelled,
}
