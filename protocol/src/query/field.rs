//! The fields of the search language: names, kinds, units, and a line on each.

use std::fmt;

use serde::{Serialize, Serializer};

/// What sort of value a field has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A number in the field's unit.
    Number,
    /// A version, compared number by number.
    Version,
    /// `true` or `false`.
    Bool,
    /// A text; upper and lower case, and space, `_` and `-`, are the same.
    Text,
    /// An id, whole or shortened as lists print it.
    Id,
}

impl Kind {
    /// Whether `<` and `>` mean something.
    #[must_use]
    pub const fn is_ordered(self) -> bool {
        matches!(self, Self::Number | Self::Version)
    }
}

/// What help and documentation say of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct FieldInfo {
    /// The field.
    #[serde(skip)]
    pub field: Field,
    /// As it is written in a query.
    pub name: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// The unit of a number; empty where there is none.
    pub unit: &'static str,
    /// One line on what it is.
    pub doc: &'static str,
}

impl FieldInfo {
    /// The values it takes, as a phrase: `a number (GB)`.
    #[must_use]
    pub fn expects(&self) -> String {
        match self.kind {
            Kind::Number if self.unit.is_empty() => "a number".to_owned(),
            Kind::Number => format!("a number ({})", self.unit),
            Kind::Version => "a version like 535.104".to_owned(),
            Kind::Bool => "true or false".to_owned(),
            Kind::Text => "a text".to_owned(),
            Kind::Id => "an id".to_owned(),
        }
    }
}

macro_rules! fields {
    ($($variant:ident $name:literal $kind:ident $unit:literal $doc:literal;)*) => {
        /// A field of the search language.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Field {
            $(#[doc = $doc] $variant,)*
        }

        const FIELDS: &[FieldInfo] = &[
            $(FieldInfo { field: Field::$variant, name: $name, kind: Kind::$kind, unit: $unit, doc: $doc },)*
        ];
    };
}

fields! {
    GpuName "gpu_name" Text "" "GPU model, as in RTX_4090.";
    NumGpus "num_gpus" Number "" "GPUs in the ask; 0 for one of CPUs only.";
    GpuRam "gpu_ram" Number "GB" "Memory of each GPU (MiB / 1000, so a 24 GB card passes >=24).";
    GpuTotalRam "gpu_total_ram" Number "GB" "Memory of all GPUs in the ask.";
    GpuFrac "gpu_frac" Number "" "GPUs in the ask over GPUs in the machine.";
    GpuMemBw "gpu_mem_bw" Number "GB/s" "Memory bandwidth of each GPU.";
    GpuMaxPower "gpu_max_power" Number "W" "Power limit of each GPU.";
    ComputeCap "compute_cap" Number "" "CUDA compute capability times 100: 890 for 8.9.";
    CudaVers "cuda_vers" Number "" "Newest CUDA version the driver supports.";
    DriverVersion "driver_version" Version "" "Version of the GPU driver.";
    TotalFlops "total_flops" Number "TFLOPS" "32-bit performance of all GPUs in the ask, by the reference table.";
    Dlperf "dlperf" Number "" "Deep-learning performance of the ask (a V100 is 21): by the reference table until challenges prove it.";
    DlperfUsd "dlperf_usd" Number "1/$/h" "dlperf over dph.";
    FlopsUsd "flops_usd" Number "TFLOPS/$/h" "total_flops over dph.";
    Dph "dph" Number "$/h" "Price of the whole ask with the disk asked for.";
    MinBid "min_bid" Number "$/h" "Lowest bid for the whole ask, disk not included.";
    ReservedDiscount "reserved_discount" Number "0 to 1" "What a reserved term takes off the price; 0 where there is none.";
    StorageCost "storage_cost" Number "$/GB/month" "Price of disk, for a month of 30 days.";
    InetUp "inet_up" Number "Mbit/s" "Measured upload of the machine.";
    InetDown "inet_down" Number "Mbit/s" "Measured download of the machine.";
    InetUpCost "inet_up_cost" Number "$/GB" "Price of traffic out of the instance.";
    InetDownCost "inet_down_cost" Number "$/GB" "Price of traffic into the instance.";
    CpuName "cpu_name" Text "" "Processor model.";
    CpuCores "cpu_cores" Number "" "Hardware threads of the machine.";
    CpuCoresEffective "cpu_cores_effective" Number "" "Hardware threads the ask gets.";
    CpuGhz "cpu_ghz" Number "GHz" "Base clock of the processor.";
    CpuRam "cpu_ram" Number "GB" "Memory the ask gets.";
    CpuArch "cpu_arch" Text "" "Processor architecture: x86_64, aarch64.";
    HasAvx "has_avx" Bool "" "Whether the processor has AVX.";
    DiskSpace "disk_space" Number "GB" "Disk the ask can be given.";
    DiskBw "disk_bw" Number "MB/s" "Measured rate of the disk.";
    PcieBw "pcie_bw" Number "GB/s" "Bandwidth between processor and each GPU.";
    PciGen "pci_gen" Number "" "PCIe generation.";
    Duration "duration" Number "days" "Longest contract from now.";
    Geolocation "geolocation" Text "" "Two-letter country code, as the host declares it.";
    Reliability "reliability" Number "0 to 1" "Uptime and completion, from receipts and own probes.";
    Verified "verified" Bool "" "Attested as verified by somebody whose word you accept.";
    Datacenter "datacenter" Bool "" "Attested to stand in a datacentre, by somebody whose word you accept.";
    Rentable "rentable" Bool "" "Whether as many slots are free; searched for unless the query says otherwise.";
    Rented "rented" Bool "" "Whether too few slots are free.";
    StaticIp "static_ip" Bool "" "Whether the host keeps its public address.";
    DirectPortCount "direct_port_count" Number "" "Public ports left for instances.";
    VolumeSpace "volume_space" Number "GB" "Disk left for volumes on the machine; 0 where it keeps none.";
    HostId "host_id" Id "" "Id of the owner, or the peer id of a host that has none; or its last characters.";
    MachineId "machine_id" Id "" "Id of the machine, or its first digits.";
    Id "id" Id "" "Id of the ask, or its first digits.";
    Score "score" Number "" "Value for money x reliability x reachability x trust: the default order.";
    Trust "trust" Number "0 to 1" "Reputation of the host as seen from here; 0.13 for a stranger.";
    Reachability "reachability" Text "" "How the host is reached: direct, relayed, unknown.";
    Runtime "runtime" Text "" "What runs workloads there: docker.";
    EvictionNotice "eviction_notice" Number "s" "Warning before an interruptible instance is stopped for a higher bid.";
    Owed "owed" Number "$" "What you owe the host; negative where it owes you.";
    Avoided "avoided" Bool "" "Whether the host failed you lately; left out unless the query says otherwise.";
    Blocked "blocked" Bool "" "Whether you have blocked the host or its owner; left out unless the query says otherwise.";
}

/// Vast.ai's other names for some fields, as its API and older scripts have them.
const ALIASES: &[(&str, Field)] = &[
    ("cuda_max_good", Field::CudaVers),
    ("disk", Field::DiskSpace),
    ("dlperf_per_dphtotal", Field::DlperfUsd),
    ("dph_total", Field::Dph),
    ("flops_per_dphtotal", Field::FlopsUsd),
    ("gpu_totalram", Field::GpuTotalRam),
    ("reliability2", Field::Reliability),
];

/// Every field, in the order help lists them.
#[must_use]
pub fn fields() -> &'static [FieldInfo] {
    FIELDS
}

impl Field {
    /// What help says of it.
    #[must_use]
    pub const fn info(self) -> &'static FieldInfo {
        // The table is written by the same macro, in the order of the variants.
        &FIELDS[self as usize]
    }

    /// Its name in a query.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.info().name
    }

    /// The field of that name, in upper or lower case, or under one of Vast.ai's other names.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        let exact = FIELDS.iter().find(|info| info.name.eq_ignore_ascii_case(name));
        exact.map(|info| info.field).or_else(|| {
            let alias = ALIASES.iter().find(|(text, _)| text.eq_ignore_ascii_case(name));
            alias.map(|(_, field)| *field)
        })
    }

    /// The field whose name is the fewest edits from `name`, if any is near enough to be meant.
    #[must_use]
    pub fn nearest(name: &str) -> Option<Self> {
        const LONGEST: usize = 32;
        let name: Vec<char> = name.chars().take(LONGEST + 1).map(|c| c.to_ascii_lowercase()).collect();
        if name.len() > LONGEST {
            return None;
        }
        let best = FIELDS.iter().map(|info| (edits(&name, info.name), info)).min_by_key(|(distance, _)| *distance)?;
        let allowed = (name.len() / 2).clamp(1, 4);
        (best.0 <= allowed).then_some(best.1.field)
    }
}

/// Insertions, deletions, replacements and swaps of neighbours that make `left` into `right`.
fn edits(left: &[char], right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let width = right.len() + 1;
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..width).collect();
    for (i, l) in left.iter().enumerate() {
        let mut row = vec![i + 1; width];
        for (j, r) in right.iter().enumerate() {
            let replaced = above[j] + usize::from(l != r);
            row[j + 1] = replaced.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *l == right[j - 1] && left[i - 1] == *r {
                row[j + 1] = row[j + 1].min(before[j - 1] + 1);
            }
        }
        before = std::mem::replace(&mut above, row);
    }
    above.last().copied().unwrap_or_default()
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Field {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
