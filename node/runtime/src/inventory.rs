//! What the machine has: GPUs by NVML, processor, memory, disk.
//!
//! Measured facts only, asked anew at each call; what of them is offered, and what the owner declares beside them, is decided
//! elsewhere. A machine without NVIDIA's library simply has no such GPUs.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::loopfs::DISKS;

use nvml_wrapper::enum_wrappers::device::Clock;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};
use serde::{Deserialize, Serialize};

/// The library as drivers install it; the name without a version belongs to development packages.
const NVML_LIBRARIES: [&str; 2] = ["libnvidia-ml.so.1", "libnvidia-ml.so"];
/// More GPUs than any machine has.
pub(crate) const MAX_GPUS: u32 = 64;

/// The machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostInventory {
    /// Its NVIDIA GPUs, by PCI order.
    pub gpus: Vec<GpuInfo>,
    /// Why GPUs are missing from the list, where the driver answered with an error.
    pub gpu_problem: Option<String>,
    /// The processor.
    pub cpu: CpuInfo,
    /// Memory, in MiB.
    pub memory_mb: u64,
    /// Disk that guests have or can have, in MiB.
    pub disk_free_mb: u64,
}

/// One GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuInfo {
    /// As the driver names it.
    pub model: String,
    /// `GPU-…`, the same across reboots.
    pub uuid: String,
    /// Memory, in MiB.
    pub memory_mb: u64,
    /// Compute capability times ten: 89 is 8.9.
    pub compute_capability: u32,
    /// The driver's version.
    pub driver: String,
    /// The newest CUDA that the driver runs, times a thousand and minor times ten: 12040 is 12.4.
    pub max_cuda: u32,
    /// PCI Express generation, where known.
    pub pcie_generation: Option<u32>,
    /// PCI Express lanes, where known.
    pub pcie_width: Option<u32>,
    /// Memory bandwidth in GB/s (10⁹ bytes): bus width times twice the memory clock, where both are known.
    pub memory_bandwidth_gbs: Option<u32>,
    /// Enforced power limit, in watts, where known.
    pub power_limit_w: Option<u32>,
    /// Cut into MIG pieces: it can't be rented as a whole.
    pub mig: bool,
}

/// The processor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuInfo {
    /// As it names itself.
    pub model: String,
    /// Cores, without hyper-threads.
    pub physical_cores: u32,
    /// Cores as the system counts them.
    pub logical_cores: u32,
    /// Highest clock known, in MHz.
    pub mhz: u32,
    /// Whether it has AVX.
    pub has_avx: bool,
    /// `x86_64`, `aarch64`, …
    pub arch: String,
}

/// Takes stock. `disk_root` is where what guests write is kept; disks in files there count as free. It reads files and asks the driver: call it off the async threads.
#[must_use]
pub fn take(disk_root: &Path) -> HostInventory {
    let (gpus, gpu_problem) = match gpus() {
        Ok(gpus) => (gpus, None),
        Err(problem) => (Vec::new(), problem),
    };
    HostInventory { gpus, gpu_problem, cpu: cpu(), memory_mb: memory_mb(), disk_free_mb: disk_free_mb(disk_root) }
}

/// The GPUs; an error without words means a machine without the library.
fn gpus() -> Result<Vec<GpuInfo>, Option<String>> {
    let nvml = nvml()?;
    read_gpus(&nvml).map_err(|error| {
        tracing::warn!(%error, "NVML");
        Some(String::from("the NVIDIA driver doesn't describe its GPUs; check it with nvidia-smi"))
    })
}

/// The driver's library; an error without words means a machine without it.
pub(crate) fn nvml() -> Result<Nvml, Option<String>> {
    for library in NVML_LIBRARIES {
        match Nvml::builder().lib_path(library.as_ref()).init() {
            Ok(found) => return Ok(found),
            Err(NvmlError::LibloadingError(_)) => {}
            Err(error) => {
                tracing::warn!(%error, "NVML doesn't start");
                return Err(Some(String::from(
                    "the NVIDIA library is installed but doesn't start; check the driver with nvidia-smi",
                )));
            }
        }
    }
    Err(None)
}

fn read_gpus(nvml: &Nvml) -> Result<Vec<GpuInfo>, NvmlError> {
    let driver = nvml.sys_driver_version()?;
    let max_cuda = u32::try_from(nvml.sys_cuda_driver_version()?).unwrap_or(0);
    let count = nvml.device_count()?.min(MAX_GPUS);
    (0..count).map(|index| read_gpu(&nvml.device_by_index(index)?, &driver, max_cuda)).collect()
}

fn read_gpu(device: &Device<'_>, driver: &str, max_cuda: u32) -> Result<GpuInfo, NvmlError> {
    let capability = device.cuda_compute_capability()?;
    let bandwidth = match (device.memory_bus_width(), device.max_clock_info(Clock::Memory)) {
        // Bits, MHz, two transfers a clock: bits / 8 × 2 × MHz is MB/s.
        (Ok(bits), Ok(mhz)) => u32::try_from(u64::from(bits) * u64::from(mhz) / 4 / 1000).ok(),
        _ => None,
    };
    Ok(GpuInfo {
        model: device.name()?,
        uuid: device.uuid()?,
        memory_mb: device.memory_info()?.total >> 20,
        compute_capability: u32::try_from(capability.major * 10 + capability.minor).unwrap_or(0),
        driver: driver.to_owned(),
        max_cuda,
        pcie_generation: device.max_pcie_link_gen().ok(),
        pcie_width: device.max_pcie_link_width().ok(),
        memory_bandwidth_gbs: bandwidth,
        power_limit_w: device.enforced_power_limit().ok().map(|milliwatts| milliwatts / 1000),
        mig: device.mig_mode().is_ok_and(|mode| mode.current != 0),
    })
}

fn cpu() -> CpuInfo {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mut cpu = read_cpu(&text);
    cpu.arch = std::env::consts::ARCH.to_owned();
    let highest = "/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq";
    let khz = fs::read_to_string(highest).ok().and_then(|text| text.trim().parse::<u32>().ok());
    cpu.mhz = khz.map_or(cpu.mhz, |khz| khz / 1000);
    cpu
}

/// Reads `/proc/cpuinfo`: one block a logical core.
fn read_cpu(text: &str) -> CpuInfo {
    let mut cpu = CpuInfo::default();
    let mut cores = BTreeSet::new();
    let mut package = "";
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else {
            continue;
        };
        let value = value.trim();
        match key.trim() {
            "processor" => cpu.logical_cores += 1,
            "model name" if cpu.model.is_empty() => value.clone_into(&mut cpu.model),
            "physical id" => package = value,
            "core id" => {
                cores.insert((package.to_owned(), value.to_owned()));
            }
            "cpu MHz" => {
                let mhz = value.split('.').next().and_then(|mhz| mhz.parse().ok()).unwrap_or(0);
                cpu.mhz = cpu.mhz.max(mhz);
            }
            "flags" => cpu.has_avx |= value.split(' ').any(|flag| flag == "avx"),
            _ => {}
        }
    }
    let physical = u32::try_from(cores.len()).unwrap_or(0);
    cpu.physical_cores = if physical == 0 { cpu.logical_cores } else { physical };
    cpu
}

fn memory_mb() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .map_or(0, |kibibytes| kibibytes / 1024)
}

fn disk_free_mb(path: &Path) -> u64 {
    let free = rustix::fs::statvfs(path).map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    // What running leases hold is theirs of what is offered, not gone from it.
    free.saturating_add(crate::loopfs::allocated_bytes(&path.join(DISKS))) >> 20
}

#[cfg(test)]
mod tests {
    use super::{read_cpu, take};

    #[test]
    fn cores_are_counted_once() {
        let text = "processor\t: 0\nmodel name\t: A CPU\nphysical id\t: 0\ncore id\t: 0\ncpu MHz\t: 2400.5\nflags\t: fpu avx\n\n\
                    processor\t: 1\nmodel name\t: A CPU\nphysical id\t: 0\ncore id\t: 0\ncpu MHz\t: 2500.0\nflags\t: fpu avx\n\n\
                    processor\t: 2\nmodel name\t: A CPU\nphysical id\t: 1\ncore id\t: 0\ncpu MHz\t: 100.0\nflags\t: fpu avx2\n";
        let cpu = read_cpu(text);
        assert_eq!((cpu.logical_cores, cpu.physical_cores, cpu.mhz, cpu.has_avx), (3, 2, 2500, true));
        assert_eq!(cpu.model, "A CPU");
    }

    #[test]
    fn this_machine_has_something() {
        let machine = take("/".as_ref());
        assert!(machine.cpu.logical_cores >= 1 && machine.memory_mb > 0 && machine.disk_free_mb > 0, "{machine:?}");
        if !std::path::Path::new("/proc/driver/nvidia").exists() {
            assert!(machine.gpus.is_empty());
        }
    }
}
