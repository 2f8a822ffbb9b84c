//! What of this machine is worth an event: GPUs that do nothing, a disk that fills up.
//!
//! Owns the samples that are taken for it, and only while a hook waits for such events. A machine without NVIDIA's library tells
//! nothing of GPUs.

use std::{collections::BTreeMap, path::PathBuf};

use serde_json::json;
use souk_protocol::{LeaseId, MachineId, Millis, Timestamp};
use souk_runtime::{GpuMeter, GpuUse};

use super::event::{EventKind, Happening};

/// How long a GPU does nothing before that is told.
const IDLE_FOR: Millis = Millis::from_mins(30);
/// A GPU that is busy for fewer hundredths of the time does nothing.
const IDLE_BELOW: u32 = 5;
/// Hundredths of the disk that are used when it is nearly full, and below which it is not any more.
const FULL: (u64, u64) = (90, 85);

/// This machine, as the market sees it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Its id.
    pub id: MachineId,
    /// Whether the container engine answers; none before that is known.
    pub engine: Option<bool>,
    /// UUIDs of the GPUs it offers, each with the lease that runs on it.
    pub gpus: Vec<(String, Option<LeaseId>)>,
    /// Where containers are kept.
    pub data_root: Option<PathBuf>,
}

/// What was measured. Bytes used of all, for whoever is not root.
#[derive(Debug, Default)]
pub struct Sample {
    gpus: Vec<GpuUse>,
    disk: Option<(u64, u64)>,
}

/// Takes samples. It asks the driver and the file system: not for async threads.
#[derive(Debug, Default)]
pub struct Sampler {
    meter: Option<GpuMeter>,
}

impl Sampler {
    /// Measures.
    pub fn take(&mut self, machine: &Machine) -> Sample {
        if self.meter.is_none() && !machine.gpus.is_empty() {
            self.meter = GpuMeter::open();
        }
        let gpus = self.meter.as_ref().map(GpuMeter::read).unwrap_or_default();
        let disk = machine.data_root.as_ref().and_then(|root| rustix::fs::statvfs(root).ok());
        let disk = disk.map(|d| {
            let used = d.f_blocks.saturating_sub(d.f_bfree);
            let bytes = |blocks: u64| blocks.saturating_mul(d.f_frsize);
            (bytes(used), bytes(used.saturating_add(d.f_bavail)))
        });
        Sample { gpus, disk }
    }
}

/// What has been told of the machine since the node's start.
#[derive(Debug, Default)]
pub struct MachineWatch {
    idle: BTreeMap<String, (Timestamp, bool)>,
    full: bool,
}

impl MachineWatch {
    /// Takes over a sample, and says what happened.
    pub fn sample(&mut self, machine: &Machine, sample: &Sample, now: Timestamp) -> Vec<Happening> {
        let mut news = Vec::new();
        self.idle.retain(|uuid, _| sample.gpus.iter().any(|g| g.uuid == *uuid));
        for gpu in &sample.gpus {
            let Some((_, lease)) = machine.gpus.iter().find(|(uuid, _)| *uuid == gpu.uuid) else { continue };
            news.extend(self.gpu(machine.id, gpu, *lease, now));
        }
        if let Some((used, whole)) = sample.disk {
            news.extend(self.disk(machine.id, used, whole, now));
        }
        news
    }

    fn gpu(&mut self, machine: MachineId, gpu: &GpuUse, lease: Option<LeaseId>, now: Timestamp) -> Option<Happening> {
        if gpu.busy_percent >= IDLE_BELOW {
            self.idle.remove(&gpu.uuid);
            return None;
        }
        let (since, told) = self.idle.entry(gpu.uuid.clone()).or_insert((now, false));
        if *told || now.since(*since) < IDLE_FOR {
            return None;
        }
        *told = true;
        let whose = if lease.is_some() { "rented, and" } else { "not rented, and" };
        Some(Happening {
            kind: EventKind::GpuIdle,
            at: now,
            machine: Some(machine),
            lease,
            text: format!("{} is {whose} has done nothing for {}", gpu.uuid, now.since(*since)),
            data: json!({ "role": "host", "gpu": gpu.uuid, "busy_percent": gpu.busy_percent, "idle_ms": now.since(*since) }),
            subject: gpu.uuid.clone().into_bytes(),
            number: since.0,
        })
    }

    fn disk(&mut self, machine: MachineId, used: u64, whole: u64, now: Timestamp) -> Option<Happening> {
        let above = |hundredths: u64| u128::from(used) * 100 >= u128::from(whole) * u128::from(hundredths);
        if whole == 0 || self.full {
            self.full &= above(FULL.1);
            return None;
        }
        self.full = above(FULL.0);
        self.full.then(|| Happening {
            kind: EventKind::DiskNearlyFull,
            at: now,
            machine: Some(machine),
            lease: None,
            text: format!(
                "the disk of this machine's containers is nearly full: {} of {} GB are used",
                used / 1_000_000_000,
                whole / 1_000_000_000
            ),
            data: json!({ "role": "host", "used_bytes": used, "whole_bytes": whole }),
            subject: b"disk".to_vec(),
            number: now.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        let gpus = vec![("GPU-1".to_owned(), None)];
        Machine { id: MachineId::default(), engine: Some(true), gpus, data_root: Some("/".into()) }
    }

    #[test]
    fn a_gpu_is_idle_once_it_has_been_for_long() {
        let mut watch = MachineWatch::default();
        let mut at = |secs: u64, busy_percent: u32| {
            let sample = Sample { gpus: vec![GpuUse { uuid: "GPU-1".to_owned(), busy_percent }], disk: None };
            watch.sample(&machine(), &sample, Timestamp(secs * 1000)).len()
        };
        assert_eq!((at(0, 0), at(1700, 4), at(1750, 50), at(1800, 0), at(3599, 0)), (0, 0, 0, 0, 0));
        assert_eq!((at(3600, 0), at(9000, 0)), (1, 0), "told once");
        assert_eq!((at(9010, 99), at(9020, 0), at(10_819, 0), at(10_820, 0)), (0, 0, 0, 1), "and again after work");
    }

    #[test]
    fn a_disk_is_nearly_full_once() {
        let mut watch = MachineWatch::default();
        let mut at = |used: u64| {
            let sample = Sample { gpus: Vec::new(), disk: Some((used, 100)) };
            watch.sample(&machine(), &sample, Timestamp(used)).len()
        };
        assert_eq!([at(50), at(90), at(91), at(86), at(92), at(84), at(90)], [0, 1, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn this_machines_disk_is_measured() {
        let sample = Sampler::default().take(&machine());
        assert!(sample.disk.is_some_and(|(used, whole)| used > 0 && used <= whole), "{sample:?}");
    }
}
