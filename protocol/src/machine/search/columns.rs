//! What the columns are, and how an offer is written into them.

use super::{
    facts::PeerFacts,
    index::AskIndex,
    performance::{self, CPU_REFERENCE_GHZ},
    score,
};
use crate::{
    Amount,
    money::NANO,
    offer::{Offer, Reachability},
    query::Version,
    resources::{GpuGroup, RuntimeKind},
};

/// Numbers kept once a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    /// 1 where a slot is a GPU, 0 where it is not.
    Gpus,
    GpuRamMib,
    GpuMemBw,
    GpuMaxPower,
    ComputeCap,
    CudaVers,
    DriverVersion,
    /// Of one slot.
    Tflops,
    /// Of one slot.
    Dlperf,
    /// Of one slot, for the score: as much as is proven or believed.
    Performance,
    SlotHourNanos,
    MinBidNanos,
    /// What a reserved term leaves of the price, in thousandths.
    ReservedPermille,
    StorageCost,
    InetUp,
    InetDown,
    InetUpCost,
    InetDownCost,
    CpuCores,
    CpuGhz,
    RamMb,
    HasAvx,
    DiskMb,
    DiskBw,
    PcieBw,
    PciGen,
    /// Milliseconds since the epoch; infinite where there is none.
    LatestEnd,
    ValidUntil,
    EvictionNotice,
    /// What [`super::score`] makes of the way the host is reached.
    ReachabilityFactor,
    SlotsTotal,
    SlotsFree,
    Reliability,
    Trust,
    Verified,
    Datacenter,
    StaticIp,
    DirectPortCount,
    VolumeMb,
    Owed,
    /// Milliseconds since the epoch; 0 for not avoided.
    AvoidedUntil,
    Blocked,
    /// Kept last: the number of columns.
    Count,
}

/// Texts kept once a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextColumn {
    GpuName,
    CpuName,
    CpuArch,
    Driver,
    Geolocation,
    Reachability,
    Runtime,
    Host,
    Currency,
    /// GPU model as compared, and currency: whose prices are compared with each other.
    Class,
    /// Kept last: the number of columns.
    Count,
}

impl AskIndex {
    pub(super) fn write_hardware(&mut self, machine: u32, offer: &Offer) {
        let hardware = &offer.hardware;
        let gpu = hardware.gpus.first();
        let of_gpu = |read: fn(&GpuGroup) -> f64| gpu.map_or(f64::NAN, read);
        let rows = [
            (Column::Gpus, f64::from(u8::from(gpu.is_some()))),
            (Column::GpuRamMib, of_gpu(|g| known(g.vram_mib as f64))),
            (Column::GpuMemBw, of_gpu(|g| known(f64::from(g.mem_bw)))),
            (Column::GpuMaxPower, of_gpu(|g| known(f64::from(g.power_w)))),
            (Column::ComputeCap, of_gpu(|g| known(f64::from(g.compute_cap)))),
            (Column::CudaVers, of_gpu(|g| known(f64::from(g.max_cuda) / 100.0))),
            (Column::DriverVersion, of_gpu(|g| Version::parse(&g.driver).map_or(f64::NAN, Version::order))),
            (Column::PcieBw, of_gpu(|g| known(lane_rate(g.pcie_gen) * f64::from(g.pcie_width)))),
            (Column::PciGen, of_gpu(|g| known(f64::from(g.pcie_gen)))),
            (Column::CpuCores, known(f64::from(hardware.cpu.cores))),
            (Column::CpuGhz, known(f64::from(hardware.cpu.mhz) / 1000.0)),
            (Column::HasAvx, f64::from(u8::from(hardware.cpu.avx))),
            (Column::RamMb, hardware.ram_mb as f64),
            (Column::DiskMb, hardware.disk_mb as f64),
            (Column::DiskBw, measured(hardware.disk_mb_s)),
            (Column::InetUp, measured(hardware.up_mbps)),
            (Column::InetDown, measured(hardware.down_mbps)),
        ];
        for (column, value) in rows {
            self.set(machine, column, value);
        }
    }

    pub(super) fn write_terms(&mut self, machine: u32, offer: &Offer) {
        let terms = &offer.terms;
        let state = &offer.availability;
        let money = |amount: Amount| amount.0 as f64 / NANO as f64;
        let rows = [
            (Column::SlotHourNanos, terms.slot_hour.0 as f64),
            (Column::MinBidNanos, terms.min_bid_slot_hour.0 as f64),
            (Column::ReservedPermille, f64::from(1000_u16.saturating_sub(terms.reserved_discount))),
            (Column::StorageCost, money(terms.storage_gb_month)),
            (Column::InetUpCost, money(terms.up_gb)),
            (Column::InetDownCost, money(terms.down_gb)),
            (Column::LatestEnd, terms.latest_end.map_or(f64::INFINITY, |t| t.0 as f64)),
            (Column::ValidUntil, offer.valid_until.0 as f64),
            (Column::EvictionNotice, terms.eviction_notice.0 as f64 / 1000.0),
            (Column::ReachabilityFactor, score::reachability_factor(state.reachability)),
            (Column::SlotsTotal, f64::from(state.slots_total)),
            (Column::SlotsFree, f64::from(state.slots_free)),
            (Column::DirectPortCount, f64::from(state.ports_free)),
            (Column::VolumeMb, state.volume_mb as f64),
        ];
        for (column, value) in rows {
            self.set(machine, column, value);
        }
    }

    pub(super) fn write_texts(&mut self, machine: u32, offer: &Offer) {
        let hardware = &offer.hardware;
        let gpu = hardware.gpus.first();
        let mut runtimes: Vec<&str> = offer.terms.runtimes.iter().map(runtime_name).collect();
        runtimes.sort_unstable();
        runtimes.dedup();
        let runtimes = runtimes.join(",");
        let model = gpu.map_or_else(String::new, |g| performance::normal(&g.model));
        let class = format!("{model}/{}", offer.terms.currency);
        let rows = [
            (TextColumn::GpuName, gpu.map(|g| g.model.as_str())),
            (TextColumn::CpuName, Some(hardware.cpu.model.as_str())),
            (TextColumn::CpuArch, Some(hardware.cpu.arch.as_str())),
            (TextColumn::Driver, gpu.map(|g| g.driver.as_str())),
            (TextColumn::Geolocation, hardware.country.as_deref()),
            (TextColumn::Reachability, Some(reachability_name(offer.availability.reachability))),
            (TextColumn::Runtime, Some(runtimes.as_str())),
            (TextColumn::Currency, Some(offer.terms.currency.0.as_str())),
            (TextColumn::Class, Some(class.as_str())),
        ];
        for (column, text) in rows {
            self.set_text(machine, column, text);
        }
        self.set_host(machine, offer);
    }

    pub(super) fn write_facts(&mut self, machine: u32, facts: PeerFacts) {
        let truth = |b: bool| f64::from(u8::from(b));
        let rows = [
            (Column::Reliability, facts.reliability),
            (Column::Trust, facts.trust),
            (Column::Verified, truth(facts.verified)),
            (Column::Datacenter, truth(facts.datacenter)),
            (Column::StaticIp, truth(facts.static_ip)),
            (Column::Owed, facts.owed),
            (Column::AvoidedUntil, facts.avoided_until.0 as f64),
            (Column::Blocked, truth(facts.blocked)),
        ];
        for (column, value) in rows {
            self.set(machine, column, value);
        }
    }

    pub(super) fn write_performance(&mut self, machine: u32, proven: Option<f64>, offer: &Offer) {
        let gpu = offer.hardware.gpus.first();
        let reference = gpu.and_then(|g| performance::reference(&g.model));
        let dlperf = proven.or(reference.map(|r| r.dlperf)).filter(|_| gpu.is_some()).unwrap_or(f64::NAN);
        let cpu = &offer.hardware.cpu;
        let performance = if gpu.is_some() {
            dlperf
        } else {
            let ghz = (f64::from(cpu.mhz) / 1000.0).min(CPU_REFERENCE_GHZ);
            let share = f64::from(cpu.cores) / f64::from(offer.availability.slots_total.max(1));
            known(proven.unwrap_or(share * ghz))
        };
        let tflops = reference.map_or(f64::NAN, |r| r.tflops);
        self.set(machine, Column::Tflops, tflops);
        self.set(machine, Column::Dlperf, dlperf);
        self.set(machine, Column::Performance, performance);
    }
}

/// Zero is what a host writes that could not find a figure out.
fn known(value: f64) -> f64 {
    if value == 0.0 { f64::NAN } else { value }
}

fn measured(value: Option<u32>) -> f64 {
    value.map_or(f64::NAN, f64::from)
}

/// GB/s of one PCIe lane, after line coding; 0 for a generation not known.
const fn lane_rate(generation: u8) -> f64 {
    match generation {
        1 => 0.25,
        2 => 0.5,
        3 => 0.985,
        4 => 1.969,
        5 => 3.938,
        6 => 7.563,
        _ => 0.0,
    }
}

const fn runtime_name(kind: &RuntimeKind) -> &'static str {
    match kind {
        RuntimeKind::Docker => "docker",
    }
}

const fn reachability_name(reachability: Reachability) -> &'static str {
    match reachability {
        Reachability::Direct => "direct",
        Reachability::Relayed => "relayed",
        Reachability::Unknown => "unknown",
    }
}
