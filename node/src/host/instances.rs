//! Between the engine's orders and the container runtime: what a lease grants as a description of an instance, and what the
//! runtime reports as what the engine understands.
//!
//! Owns no state and decides nothing.

use std::path::PathBuf;

use souk_protocol::{
    LeaseId,
    lease::{EndReason, LeaseDraft},
    limits,
    machine::io::RuntimeReport as Report,
    message::{Cause, Progress},
    resources::Egress,
    workload::{Attachment, Workload},
};
use souk_runtime::{
    Adopted, Devices, Exit, ExitCause, Failure, FailureCode, ImagePin, InstanceEvent, InstanceSpec, InstanceState,
    Priority, Step, VolumeEvent, VolumeMount,
};

/// MB of 10⁶ bytes, as offers count, in MiB of 2²⁰, as the engine does; never more than granted.
pub(super) const fn mib(mb: u64) -> u64 {
    mb.saturating_mul(1_000_000) / (1 << 20)
}

/// The devices of slots: GPUs by UUID, declared ones by their nodes, which are one text a slot with commas between.
#[must_use]
pub fn devices(names: &[String]) -> Devices {
    let (paths, gpus): (Vec<&String>, Vec<&String>) = names.iter().partition(|d| d.starts_with('/'));
    Devices {
        gpus: gpus.into_iter().cloned().collect(),
        nodes: paths.into_iter().flat_map(|p| p.split(',')).map(PathBuf::from).collect(),
    }
}

/// The description of a lease's instance, with exactly these devices.
#[must_use]
pub fn spec(node: &str, draft: &LeaseDraft, lease: LeaseId, workload: &Workload, devices: &[String]) -> InstanceSpec {
    let resources = &draft.resources;
    let mut env = workload.env.clone();
    let ours = [
        ("SOUK_INSTANCE_ID", lease.to_string()),
        ("CONTAINER_ID", lease.short()),
        ("VAST_CONTAINERLABEL", format!("C.{}", lease.short())),
        ("DATA_DIRECTORY", "/workspace".to_owned()),
        ("GPU_COUNT", resources.gpus().to_string()),
        ("SOUK_HOST", node.to_owned()),
    ];
    for (name, value) in ours {
        if !env.iter().any(|(known, _)| known == name) {
            env.push((name.to_owned(), value));
        }
    }
    InstanceSpec {
        lease: lease.to_string(),
        image: ImagePin { reference: draft.image.reference.clone(), digest: draft.image.digest.clone() },
        command: workload.command.clone(),
        entrypoint: workload.entrypoint.clone(),
        user: workload.user.clone(),
        env,
        workdir: workload.workdir.clone(),
        cpu_milli: resources.cpu_milli.max(10),
        cpuset: None,
        memory_mb: mib(resources.ram_mb).max(16),
        pids: resources.pids,
        shm_mb: mib(resources.shm_mb).max(1),
        disk_mb: mib(resources.disk_mb).max(1),
        egress: match draft.egress {
            Egress::None => souk_runtime::Egress::None,
            Egress::Internet => souk_runtime::Egress::Internet,
        },
        devices: self::devices(devices),
        volumes: workload.volumes.iter().map(attached).collect(),
        priority: Priority::Rental,
        stop_grace_ms: limits::STOP_GRACE.0,
    }
}

fn attached(volume: &Attachment) -> VolumeMount {
    VolumeMount { volume: volume.volume.to_string(), path: volume.path.clone(), read_only: volume.read_only }
}

/// What is told of a volume, in the engine's words; none where it is to be looked at again.
#[must_use]
pub fn volume(event: VolumeEvent) -> Option<Report> {
    match event {
        VolumeEvent::Ready => Some(Report::Prepared),
        VolumeEvent::Missing => Some(Report::Missing),
        VolumeEvent::NotMade { sentence } => {
            Some(Report::Failed { reason: EndReason::CreateFailed, note: sentence })
        }
        VolumeEvent::NotMounted => None,
        VolumeEvent::Destroyed => Some(Report::Destroyed),
    }
}

/// A report in the engine's words; none for what it need not know.
#[must_use]
pub fn report(event: InstanceEvent) -> Option<Report> {
    Some(match event {
        InstanceEvent::PullProgress(p) => {
            let progress =
                Progress { layers_done: p.layers_done, layers: p.layers, bytes_done: p.bytes_done, bytes: p.bytes };
            Report::Progress(progress)
        }
        InstanceEvent::Prepared { .. } => Report::Prepared,
        InstanceEvent::Started { .. } => Report::Started,
        InstanceEvent::Exited(exit) => exited(exit),
        InstanceEvent::NotRunning => Report::NotRunning,
        InstanceEvent::Failed(failure) => failed(failure)?,
        InstanceEvent::DiskFull { .. } => Report::DiskFull,
        InstanceEvent::Traffic(usage) => Report::Traffic { rx_bytes: usage.rx_bytes, tx_bytes: usage.tx_bytes },
        // For the owner's hooks, not for the market.
        InstanceEvent::DiskUse { .. } => return None,
        InstanceEvent::Gone => Report::Missing,
        InstanceEvent::Destroyed => Report::Destroyed,
    })
}

/// Whether a failure is the engine's of the moment: what was ordered is ordered again.
#[must_use]
pub const fn passes(code: FailureCode) -> bool {
    matches!(code, FailureCode::EngineDown | FailureCode::EngineTimeout)
}

fn exited(exit: Exit) -> Report {
    let by = match exit.by {
        ExitCause::Guest => Cause::Guest,
        ExitCause::Stop => Cause::Renter,
        ExitCause::EngineRestart => Cause::Engine,
        ExitCause::Unknown => Cause::Host,
    };
    let note = if exit.oom { "killed for using more memory than granted" } else { "" };
    Report::Exited { code: i32::try_from(exit.code).unwrap_or(i32::MAX), by, note: note.to_owned() }
}

fn failed(failure: Failure) -> Option<Report> {
    if passes(failure.code) || failure.code == FailureCode::Cancelled {
        return None;
    }
    let reason = match failure.step {
        Step::Check | Step::Pull => EndReason::ImageFailed,
        Step::Create | Step::Start => EndReason::CreateFailed,
        Step::Stop | Step::Destroy => return None,
    };
    Some(Report::Failed { reason, note: failure.sentence })
}

/// What was found of an instance.
#[must_use]
pub fn found(adopted: &Adopted) -> Report {
    match adopted.state {
        InstanceState::Gone => Report::Missing,
        InstanceState::Created => Report::Prepared,
        InstanceState::Running { .. } => Report::Started,
        InstanceState::Exited(exit) => exited(exit),
    }
}
