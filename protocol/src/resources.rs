//! What machines are made of, and what part of one a lease grants.

use serde::{Deserialize, Serialize};

use crate::{id::Digest, limits, signed::Invalid};

/// What a guest may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Egress {
    /// Nothing.
    None,
    /// Public addresses only: not the host, its LAN, link-local or metadata addresses, nor another guest.
    Internet,
    /// Whatever the host's routes lead to, its LAN included; not the host itself, nor another guest.
    Full,
}

/// What runs the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuntimeKind {
    /// A Docker engine.
    Docker,
}

/// Whether a guest that fills its disk is held back by the file system, or stopped when the host sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskQuota {
    /// The file system enforces it.
    Hard,
    /// The host measures, and stops the instance.
    Soft,
}

/// GPUs of one model in one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpuGroup {
    /// As NVML names it, without the vendor: `RTX 4090`.
    pub model: String,
    /// Set if the owner declared them by device path, and nothing measured them.
    pub declared: bool,
    /// Hashes of the UUIDs, so that a changed card shows and a card is not tracked by strangers.
    pub uuid_hashes: Vec<Digest>,
    /// Memory of each, in MiB.
    pub vram_mib: u64,
    /// Compute capability times 100: 890 for 8.9.
    pub compute_cap: u32,
    /// The driver's version.
    pub driver: String,
    /// The newest CUDA the driver supports, times 100: 1240 for 12.4.
    pub max_cuda: u32,
    /// PCIe generation of the link.
    pub pcie_gen: u8,
    /// PCIe lanes of the link.
    pub pcie_width: u8,
    /// Memory bandwidth in GB/s.
    pub mem_bw: u32,
    /// Power limit in watts.
    pub power_w: u32,
}

impl GpuGroup {
    fn check(&self) -> Result<(), Invalid> {
        Invalid::text(&self.model, limits::NAME_BYTES, "the GPU model")?;
        Invalid::text(&self.driver, limits::NAME_BYTES, "the driver version")?;
        Invalid::unless(!self.uuid_hashes.is_empty(), "a GPU group is empty")
    }
}

/// A machine's processor.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cpu {
    /// As the kernel names it.
    pub model: String,
    /// Hardware threads.
    pub cores: u16,
    /// Base clock in MHz.
    pub mhz: u32,
    /// Whether it has AVX.
    pub avx: bool,
    /// `x86_64`, `aarch64`.
    pub arch: String,
}

/// A machine, as its host declares it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hardware {
    /// GPUs, one group a model.
    pub gpus: Vec<GpuGroup>,
    /// The processor.
    pub cpu: Cpu,
    /// Memory for guests, in MB.
    pub ram_mb: u64,
    /// Disk for guests, in MB.
    pub disk_mb: u64,
    /// Measured disk rate in MB/s, if it was.
    pub disk_mb_s: Option<u32>,
    /// ISO 3166 code of the country, as the owner declares it.
    pub country: Option<String>,
    /// Measured upload in Mbit/s, if it was.
    pub up_mbps: Option<u32>,
    /// Measured download in Mbit/s, if it was.
    pub down_mbps: Option<u32>,
}

impl Hardware {
    /// GPUs in all groups.
    #[must_use]
    pub fn gpu_count(&self) -> usize {
        self.gpus.iter().map(|g| g.uuid_hashes.len()).sum()
    }

    /// Checks every text and list.
    ///
    /// # Errors
    /// Names the field that is out of bounds.
    pub fn check(&self) -> Result<(), Invalid> {
        Invalid::unless(self.gpus.len() <= limits::GPU_GROUPS, "too many GPU groups")?;
        Invalid::unless(self.gpu_count() <= usize::from(limits::SLOTS), "too many GPUs")?;
        self.gpus.iter().try_for_each(GpuGroup::check)?;
        Invalid::text(&self.cpu.model, limits::NAME_BYTES, "the CPU model")?;
        Invalid::text(&self.cpu.arch, 16, "the CPU architecture")?;
        self.country.as_deref().map_or(Ok(()), |c| Invalid::text(c, 8, "the country"))
    }
}

/// What kind of slots a machine is cut into.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotClass {
    /// One GPU of this model each, with its share of the rest.
    Gpu(String),
    /// An equal share of a machine without GPUs.
    Cpu,
}

/// What a lease grants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// Slots, all of one class.
    pub slots: u16,
    /// Their class.
    pub class: SlotClass,
    /// Thousandths of a hardware thread.
    pub cpu_milli: u32,
    /// Memory in MB.
    pub ram_mb: u64,
    /// Disk in MB, billed from creation to destruction.
    pub disk_mb: u64,
    /// Shared memory (`/dev/shm`) in MB, part of the memory.
    pub shm_mb: u64,
    /// Processes and threads at once.
    pub pids: u32,
}

impl Resources {
    /// A volume of so much disk, and nothing else.
    #[must_use]
    pub const fn volume(disk_mb: u64) -> Self {
        Self { slots: 0, class: SlotClass::Cpu, cpu_milli: 0, ram_mb: 0, disk_mb, shm_mb: 0, pids: 0 }
    }

    /// GPUs granted.
    #[must_use]
    pub const fn gpus(&self) -> u16 {
        match self.class {
            SlotClass::Gpu(_) => self.slots,
            SlotClass::Cpu => 0,
        }
    }

    /// The part of a machine that `slots` of its `total` slots carry, with `disk_mb` of disk; none if they do not fit.
    #[must_use]
    pub fn share(hardware: &Hardware, class: SlotClass, slots: u16, total: u16, disk_mb: u64) -> Option<Self> {
        if slots == 0 || slots > total {
            return None;
        }
        let part = |whole: u64| whole.checked_mul(u64::from(slots)).map(|x| x / u64::from(total));
        let ram_mb = part(hardware.ram_mb)?;
        if disk_mb > part(hardware.disk_mb)? {
            return None;
        }
        Some(Self {
            slots,
            class,
            cpu_milli: u32::try_from(part(u64::from(hardware.cpu.cores) * 1000)?).ok()?,
            ram_mb,
            disk_mb,
            shm_mb: (ram_mb / 2).clamp(64.min(ram_mb), 64 * 1024),
            pids: 4096,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn slots_share_a_machine_evenly_and_never_more_than_it_has() {
        let hardware =
            Hardware { cpu: Cpu { cores: 8, ..Cpu::default() }, ram_mb: 1000, disk_mb: 100, ..Hardware::default() };
        let share = Resources::share(&hardware, SlotClass::Cpu, 1, 3, 33).unwrap();
        assert_eq!((share.cpu_milli, share.ram_mb), (2666, 333));
        assert!(Resources::share(&hardware, SlotClass::Cpu, 1, 3, 34).is_none(), "disk over the share");
        assert!(Resources::share(&hardware, SlotClass::Cpu, 4, 3, 1).is_none());
        assert!(Resources::share(&hardware, SlotClass::Cpu, 0, 3, 1).is_none());
    }
}
