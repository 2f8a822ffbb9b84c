//! Where the value of a field comes from, and how it is read for one ask or for many in a row.

use std::{ops::Range, sync::Arc};

use super::{
    Pricing,
    columns::{Column, TextColumn},
    index::AskIndex,
    score::{self, Medians},
};
use crate::{
    limits,
    money::{MONTH_MS, NANO},
    query::Field,
    time::Timestamp,
};

/// Hours in the month of a storage price.
const MONTH_HOURS: f64 = (MONTH_MS / 3_600_000) as f64;
/// Milliseconds in a day.
const DAY_MS: f64 = 86_400_000.0;
const NANOS: f64 = NANO as f64;

/// A number computed from several columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Derived {
    Dph,
    DlperfUsd,
    FlopsUsd,
    Duration,
    Rentable,
    Rented,
    ReservedDiscount,
    Avoided,
    Score,
}

/// Where a field's value comes from. Numbers are divided by the last part.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Source {
    /// The same for every slice of a machine.
    Machine(Column, f64),
    /// So much for each slot.
    PerSlot(Column, f64),
    /// The ask's share of what the machine has.
    Share(Column, f64),
    /// Computed.
    Derived(Derived),
    /// A text.
    Text(TextColumn),
    /// The machine's id.
    MachineId,
    /// The ask's id.
    AskId,
}

impl Source {
    /// The source of a field.
    pub const fn of(field: Field) -> Self {
        match field {
            Field::GpuName => Self::Text(TextColumn::GpuName),
            Field::NumGpus => Self::PerSlot(Column::Gpus, 1.0),
            Field::GpuRam => Self::Machine(Column::GpuRamMib, 1000.0),
            Field::GpuTotalRam => Self::PerSlot(Column::GpuRamMib, 1000.0),
            Field::GpuFrac => Self::Share(Column::Gpus, 1.0),
            Field::GpuMemBw => Self::Machine(Column::GpuMemBw, 1.0),
            Field::GpuMaxPower => Self::Machine(Column::GpuMaxPower, 1.0),
            Field::ComputeCap => Self::Machine(Column::ComputeCap, 1.0),
            Field::CudaVers => Self::Machine(Column::CudaVers, 1.0),
            Field::DriverVersion => Self::Machine(Column::DriverVersion, 1.0),
            Field::TotalFlops => Self::PerSlot(Column::Tflops, 1.0),
            Field::Dlperf => Self::PerSlot(Column::Dlperf, 1.0),
            Field::DlperfUsd => Self::Derived(Derived::DlperfUsd),
            Field::FlopsUsd => Self::Derived(Derived::FlopsUsd),
            Field::Dph => Self::Derived(Derived::Dph),
            Field::MinBid => Self::PerSlot(Column::MinBidNanos, NANOS),
            Field::ReservedDiscount => Self::Derived(Derived::ReservedDiscount),
            Field::StorageCost => Self::Machine(Column::StorageCost, 1.0),
            Field::InetUp => Self::Machine(Column::InetUp, 1.0),
            Field::InetDown => Self::Machine(Column::InetDown, 1.0),
            Field::InetUpCost => Self::Machine(Column::InetUpCost, 1.0),
            Field::InetDownCost => Self::Machine(Column::InetDownCost, 1.0),
            Field::CpuName => Self::Text(TextColumn::CpuName),
            Field::CpuCores => Self::Machine(Column::CpuCores, 1.0),
            Field::CpuCoresEffective => Self::Share(Column::CpuCores, 1.0),
            Field::CpuGhz => Self::Machine(Column::CpuGhz, 1.0),
            Field::CpuRam => Self::Share(Column::RamMb, 1000.0),
            Field::CpuArch => Self::Text(TextColumn::CpuArch),
            Field::HasAvx => Self::Machine(Column::HasAvx, 1.0),
            Field::DiskSpace => Self::Share(Column::DiskMb, 1000.0),
            Field::DiskBw => Self::Machine(Column::DiskBw, 1.0),
            Field::PcieBw => Self::Machine(Column::PcieBw, 1.0),
            Field::PciGen => Self::Machine(Column::PciGen, 1.0),
            Field::Duration => Self::Derived(Derived::Duration),
            Field::Geolocation => Self::Text(TextColumn::Geolocation),
            Field::Reliability => Self::Machine(Column::Reliability, 1.0),
            Field::Verified => Self::Machine(Column::Verified, 1.0),
            Field::Datacenter => Self::Machine(Column::Datacenter, 1.0),
            Field::Rentable => Self::Derived(Derived::Rentable),
            Field::Rented => Self::Derived(Derived::Rented),
            Field::StaticIp => Self::Machine(Column::StaticIp, 1.0),
            Field::DirectPortCount => Self::Machine(Column::DirectPortCount, 1.0),
            Field::VolumeSpace => Self::Machine(Column::VolumeMb, 1000.0),
            Field::HostId => Self::Text(TextColumn::Host),
            Field::MachineId => Self::MachineId,
            Field::Id => Self::AskId,
            Field::Score => Self::Derived(Derived::Score),
            Field::Trust => Self::Machine(Column::Trust, 1.0),
            Field::Reachability => Self::Text(TextColumn::Reachability),
            Field::Runtime => Self::Text(TextColumn::Runtime),
            Field::EvictionNotice => Self::Machine(Column::EvictionNotice, 1.0),
            Field::Owed => Self::Machine(Column::Owed, 1.0),
            Field::Avoided => Self::Derived(Derived::Avoided),
            Field::Blocked => Self::Machine(Column::Blocked, 1.0),
        }
    }
}

/// The index as one search sees it: with its disk size, rental type and time.
pub(super) struct Pass<'a> {
    pub index: &'a AskIndex,
    pub pricing: Pricing,
    pub storage_gb: f64,
    pub now: Timestamp,
    medians: Arc<Medians>,
}

impl<'a> Pass<'a> {
    pub fn new(index: &'a AskIndex, pricing: Pricing, storage_gb: f64, now: Timestamp) -> Self {
        Self { index, pricing, storage_gb, now, medians: index.medians(pricing, storage_gb) }
    }

    /// Price of an ask for an hour, with its disk.
    #[inline]
    pub fn price(index: &AskIndex, pricing: Pricing, storage_gb: f64, row: usize) -> f64 {
        let machine = index.machine_of()[row] as usize;
        let slots = f64::from(index.slots()[row]);
        let compute = match pricing {
            Pricing::OnDemand => index.numbers(Column::SlotHourNanos)[machine] * slots / NANOS,
            Pricing::Bid => index.numbers(Column::MinBidNanos)[machine] * slots / NANOS,
            Pricing::Reserved => {
                let kept = index.numbers(Column::ReservedPermille)[machine];
                index.numbers(Column::SlotHourNanos)[machine] * slots * kept / (NANOS * 1000.0)
            }
        };
        compute + storage_gb * index.numbers(Column::StorageCost)[machine] / MONTH_HOURS
    }

    /// The number of an ask; NaN if it has none, or is no number.
    pub fn number(&self, source: Source, row: usize) -> f64 {
        let mut out = [f64::NAN];
        self.fill(source, row..row + 1, &mut out);
        out[0]
    }

    /// Writes the numbers of the asks in `rows` to `out`. Those of empty places mean nothing.
    pub fn fill(&self, source: Source, rows: Range<usize>, out: &mut [f64]) {
        let index = self.index;
        let machines = &index.machine_of()[rows.clone()];
        let slots = &index.slots()[rows.clone()];
        let each = out.iter_mut().zip(machines).zip(slots);
        match source {
            Source::Machine(column, per) => {
                let column = index.numbers(column);
                for ((out, machine), _) in each {
                    *out = column[*machine as usize] / per;
                }
            }
            Source::PerSlot(column, per) => {
                let column = index.numbers(column);
                for ((out, machine), slots) in each {
                    *out = column[*machine as usize] * f64::from(*slots) / per;
                }
            }
            Source::Share(column, per) => {
                let column = index.numbers(column);
                let total = index.numbers(Column::SlotsTotal);
                for ((out, machine), slots) in each {
                    let machine = *machine as usize;
                    *out = column[machine] * f64::from(*slots) / (total[machine] * per);
                }
            }
            Source::Derived(derived) => {
                for (out, row) in out.iter_mut().zip(rows) {
                    *out = self.derived(derived, row);
                }
            }
            Source::Text(_) | Source::MachineId | Source::AskId => out.fill(f64::NAN),
        }
    }

    fn dph(&self, row: usize) -> f64 {
        Self::price(self.index, self.pricing, self.storage_gb, row)
    }

    fn derived(&self, derived: Derived, row: usize) -> f64 {
        let index = self.index;
        let machine = index.machine_of()[row] as usize;
        let slots = f64::from(index.slots()[row]);
        let of = |column: Column| index.numbers(column)[machine];
        match derived {
            Derived::Dph => self.dph(row),
            Derived::DlperfUsd => score::per_price(of(Column::Dlperf) * slots, self.dph(row)),
            Derived::FlopsUsd => score::per_price(of(Column::Tflops) * slots, self.dph(row)),
            Derived::Duration => {
                let left = of(Column::LatestEnd) - self.now.0 as f64;
                left.clamp(0.0, limits::TERM.0 as f64) / DAY_MS
            }
            Derived::Rentable => f64::from(u8::from(of(Column::SlotsFree) >= slots)),
            Derived::Rented => f64::from(u8::from(of(Column::SlotsFree) < slots)),
            Derived::ReservedDiscount => (1000.0 - of(Column::ReservedPermille)) / 1000.0,
            Derived::Avoided => f64::from(u8::from(of(Column::AvoidedUntil) > self.now.0 as f64)),
            Derived::Score => {
                let ratio = score::per_price(of(Column::Performance) * slots, self.dph(row));
                let class = index.texts(TextColumn::Class)[machine] as usize;
                let median = self.medians.of_class.get(class).copied();
                score::value(ratio, median.unwrap_or(f64::NAN))
                    * of(Column::Reliability)
                    * of(Column::ReachabilityFactor)
                    * of(Column::Trust)
            }
        }
    }
}
