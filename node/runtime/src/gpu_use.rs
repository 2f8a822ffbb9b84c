//! How busy the machine's GPUs are, by NVML. Measured facts only; what they mean is decided elsewhere.

use nvml_wrapper::Nvml;

use crate::inventory;

/// How busy one GPU was over the driver's last sample period, a sixth of a second to a second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuUse {
    /// `GPU-…`
    pub uuid: String,
    /// Hundredths of the time in which at least one kernel ran.
    pub busy_percent: u32,
}

/// Asks the driver. It may take its time: call it off the async threads.
#[derive(Debug)]
pub struct GpuMeter(Nvml);

impl GpuMeter {
    /// Opens the driver's library; none where there is none, or it does not start.
    #[must_use]
    pub fn open() -> Option<Self> {
        inventory::nvml().ok().map(Self)
    }

    /// Every GPU that answers.
    #[must_use]
    pub fn read(&self) -> Vec<GpuUse> {
        let count = self.0.device_count().unwrap_or(0).min(inventory::MAX_GPUS);
        let read = |index| {
            let device = self.0.device_by_index(index).ok()?;
            Some(GpuUse { uuid: device.uuid().ok()?, busy_percent: device.utilization_rates().ok()?.gpu })
        };
        (0..count).filter_map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::GpuMeter;

    #[test]
    fn every_gpu_of_the_inventory_is_measured() {
        let known = crate::inventory::take("/".as_ref()).gpus;
        let measured = GpuMeter::open().map(|meter| meter.read()).unwrap_or_default();
        for gpu in known.iter().filter(|g| !g.mig) {
            let found = measured.iter().find(|m| m.uuid == gpu.uuid);
            assert!(found.is_some_and(|m| m.busy_percent <= 100), "{} in {measured:?}", gpu.uuid);
        }
    }
}
