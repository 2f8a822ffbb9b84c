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
    negotiation::is_sent,
    ports::PublicAccess,
    resources::Egress,
    workload::{Attachment, Workload},
};
use souk_runtime::inside::{FOLDER_IN_INSTANCE, SOCKET};
use souk_runtime::{
    Adopted, Devices, Exit, ExitCause, Failure, FailureCode, ImagePin, ImageSource, InstanceEvent, InstanceSpec,
    InstanceState, Priority, Step, VolumeEvent, VolumeMount,
};

use crate::inside::ApiKey;

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

/// Variables that say who an instance is. What a renter sets under these names is not taken; everything else that is set for an
/// instance gives way to the renter's own.
pub const IDENTITY: [&str; 3] = ["SOUK_INSTANCE_ID", "CONTAINER_API_KEY", "SOUK_API_SOCKET"];
/// Where an instance is reached from outside, in our words and Vast.ai's.
fn public_environment(access: &PublicAccess) -> Vec<(String, String)> {
    let mut env = vec![("PUBLIC_IPADDR".to_owned(), access.address.clone())];
    for port in &access.ports {
        let protocol = if port.udp { "UDP" } else { "TCP" };
        for ours in ["SOUK", "VAST"] {
            env.push((format!("{ours}_{protocol}_PORT_{}", port.port), port.public.to_string()));
        }
    }
    env
}

/// The description of a lease's instance, with exactly these devices.
#[must_use]
pub fn spec(
    node: &str,
    draft: &LeaseDraft,
    lease: LeaseId,
    workload: &Workload,
    devices: &[String],
    key: &ApiKey,
) -> InstanceSpec {
    let resources = &draft.resources;
    let mut env = workload.env.clone();
    let ours = [
        ("CONTAINER_ID", lease.short()),
        ("VAST_CONTAINERLABEL", format!("C.{}", lease.short())),
        ("DATA_DIRECTORY", "/workspace".to_owned()),
        ("GPU_COUNT", resources.gpus().to_string()),
        ("SOUK_HOST", node.to_owned()),
    ];
    let ours = ours.map(|(name, value)| (name.to_owned(), value));
    for (name, value) in ours.into_iter().chain(draft.public.iter().flat_map(public_environment)) {
        if !env.iter().any(|(known, _)| *known == name) {
            env.push((name, value));
        }
    }
    // Who the instance is, nobody else says: programs prove it with these.
    env.retain(|(name, _)| !IDENTITY.contains(&name.as_str()));
    let socket = format!("{FOLDER_IN_INSTANCE}/{SOCKET}");
    let identity = [lease.to_string(), key.text(), socket];
    env.extend(IDENTITY.iter().map(|name| (*name).to_owned()).zip(identity));
    InstanceSpec {
        lease: lease.to_string(),
        image: ImagePin { reference: draft.image.reference.clone(), digest: draft.image.digest.clone() },
        source: match is_sent(&draft.image.reference) {
            true => ImageSource::Sent { owner: draft.renter.to_string() },
            false if workload.login => ImageSource::Login,
            false => ImageSource::Registry,
        },
        command: workload.command.clone(),
        entrypoint: workload.entrypoint.clone(),
        user: workload.user.clone(),
        env,
        workdir: workload.workdir.clone(),
        onstart: workload.onstart.clone(),
        cpu_milli: resources.cpu_milli.max(10),
        cpuset: None,
        memory_mb: mib(resources.ram_mb).max(16),
        pids: resources.pids,
        shm_mb: mib(resources.shm_mb).max(1),
        disk_mb: mib(resources.disk_mb).max(1),
        egress: match draft.egress {
            Egress::None => souk_runtime::Egress::None,
            Egress::Internet => souk_runtime::Egress::Internet,
            Egress::Full => souk_runtime::Egress::Full,
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
        VolumeEvent::NotMade { sentence } => Some(Report::Failed { reason: EndReason::CreateFailed, note: sentence }),
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
    let note = match exit.code {
        _ if exit.oom => "killed for using more memory than granted",
        126 if exit.by == ExitCause::Guest => "a command of the image can't be executed; its logs say which",
        127 if exit.by == ExitCause::Guest => "a command was not found in the image; its logs say which",
        _ => "",
    };
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
