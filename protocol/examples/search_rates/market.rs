//! A market of offers that looks like a real one, the same every time: models, slices, prices and countries in plausible
//! shares, drawn from a seed.

use souk_protocol::{
    Amount, Currency, Digest, DocumentId, MachineId, Millis, NodeId, Timestamp,
    offer::{Accepts, Availability, Offer, Reachability, Terms},
    resources::{Cpu, DiskQuota, Egress, GpuGroup, Hardware, RuntimeKind},
};

/// When all of them are issued.
pub const NOW: Timestamp = Timestamp(1_800_000_000_000);

/// Model, MiB, capability, GB/s, watts, price of an hour in thousandths.
const GPUS: &[(&str, u64, u32, u32, u32, u64)] = &[
    ("RTX 4090", 24_564, 890, 1008, 450, 350),
    ("RTX 3090", 24_576, 860, 936, 350, 180),
    ("RTX 5090", 32_607, 1200, 1792, 575, 600),
    ("RTX 3060", 12_288, 860, 360, 170, 70),
    ("A100-SXM4-80GB", 81_920, 800, 2039, 400, 1200),
    ("H100 80GB HBM3", 81_559, 900, 3350, 700, 2400),
    ("L40S", 46_068, 890, 864, 350, 800),
    ("RTX A6000", 49_140, 860, 768, 300, 450),
    ("Tesla V100-SXM2-16GB", 16_384, 700, 900, 300, 200),
    ("Home Made 1", 8_192, 0, 0, 0, 50),
];
const CPUS: &[(&str, u16, u32, &str)] = &[
    ("AMD EPYC 7763 64-Core Processor", 128, 2450, "x86_64"),
    ("AMD Ryzen 9 7950X 16-Core Processor", 32, 4500, "x86_64"),
    ("Intel(R) Xeon(R) Gold 6248R CPU @ 3.00GHz", 96, 3000, "x86_64"),
    ("Neoverse-N1", 80, 3000, "aarch64"),
];
const COUNTRIES: &[&str] = &["US", "DE", "FR", "CN", "SE", "IN", "BR", "JP", "IS", "CA"];
const DRIVERS: &[&str] = &["535.104.05", "535.86.10", "550.54.15", "570.86.16", "unknown"];

/// Numbers that look random (SplitMix64).
pub struct Dice(pub u64);

impl Dice {
    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    /// Whether something of so many in a hundred happens.
    pub fn percent(&mut self, share: u64) -> bool {
        self.below(100) < share
    }
}

fn gpus(dice: &mut Dice, count: u64) -> (GpuGroup, u64) {
    let (model, vram, capability, bandwidth, power, milli) = *dice.pick(GPUS);
    let group = GpuGroup {
        model: model.to_owned(),
        declared: capability == 0,
        uuid_hashes: (0..count).map(|_| Digest::of(&dice.roll().to_be_bytes())).collect(),
        vram_mib: vram,
        compute_cap: capability,
        driver: (*dice.pick(DRIVERS)).to_owned(),
        max_cuda: *dice.pick(&[1210, 1220, 1240, 1280, 0]),
        pcie_gen: *dice.pick(&[3, 4, 4, 5, 0]),
        pcie_width: *dice.pick(&[4, 8, 16, 16]),
        mem_bw: bandwidth,
        power_w: power,
    };
    (group, milli)
}

/// One machine's offer.
pub fn offer(dice: &mut Dice, host: NodeId) -> Offer {
    let has_gpus = !dice.percent(8);
    let slots = *dice.pick(&[1, 1, 1, 2, 2, 4, 4, 8, 8, 3]);
    let (group, milli) = gpus(dice, slots);
    let (cpu, cores, mhz, arch) = *dice.pick(CPUS);
    let milli = if has_gpus { milli } else { 20 };
    // Prices spread by half up and down, in steps of a tenth of a cent, so that some are equal.
    let price = milli * (50 + dice.below(100)) / 100 * 1_000_000;
    let mut machine = [0; 16];
    machine[..8].copy_from_slice(&dice.roll().to_be_bytes());
    let measured = |dice: &mut Dice, top: u64| (!dice.percent(10)).then_some(0).map(|_| 10 + dice.below(top) as u32);
    Offer {
        host,
        machine: MachineId(machine),
        seq: 1,
        issued_at: NOW,
        valid_until: NOW + Millis::from_mins(1 + dice.below(29)),
        hardware: Hardware {
            gpus: if has_gpus { vec![group] } else { Vec::new() },
            cpu: Cpu { model: cpu.to_owned(), cores, mhz, avx: arch == "x86_64", arch: arch.to_owned() },
            ram_mb: 16_000 * (1 + dice.below(32)),
            disk_mb: 8_000 + dice.below(2_000_000),
            disk_mb_s: measured(dice, 6000),
            country: (!dice.percent(5)).then(|| (*dice.pick(COUNTRIES)).to_owned()),
            up_mbps: measured(dice, 2000),
            down_mbps: measured(dice, 5000),
        },
        terms: Terms {
            slot_hour: Amount(if dice.percent(1) { 0 } else { price }),
            min_bid_slot_hour: Amount(price / 3),
            storage_gb_month: Amount(dice.below(30) * 10_000_000),
            up_gb: Amount(dice.below(20) * 1_000_000),
            down_gb: Amount(dice.below(20) * 1_000_000),
            currency: if dice.percent(4) { Currency("EUR".to_owned()) } else { Currency::usd() },
            min_slots: if slots > 2 && dice.percent(20) { 2 } else { 1 },
            latest_end: dice.percent(60).then_some(()).map(|()| NOW + Millis::from_hours(dice.below(24 * 90))),
            eviction_notice: Millis::from_secs(*dice.pick(&[30, 60, 120])),
            quantum: Millis::from_mins(10),
            reserved_discount: dice.below(400) as u16,
            egress: vec![Egress::None, Egress::Internet],
            runtimes: vec![RuntimeKind::Docker],
            disk_quota: DiskQuota::Soft,
            registries: vec!["docker.io".to_owned()],
            payment: vec!["manual".to_owned()],
            accepts: Accepts::Anyone,
        },
        availability: Availability {
            slots_total: slots as u16,
            slots_free: if dice.percent(45) { slots as u16 } else { dice.below(slots + 1) as u16 },
            volume_mb: 0,
            reachability: *dice.pick(&[
                Reachability::Direct,
                Reachability::Direct,
                Reachability::Relayed,
                Reachability::Unknown,
            ]),
            maintenance: None,
            ports_free: 0,
        },
        membership: None,
    }
}

/// Offers with at least so many asks together.
pub fn offers(asks: usize, seed: u64) -> Vec<(DocumentId, Offer)> {
    let mut dice = Dice(seed);
    let mut offers = Vec::new();
    let mut count = 0;
    let mut host = NodeId([0; 32]);
    while count < asks {
        if offers.is_empty() || dice.percent(60) {
            host = NodeId(Digest::of(&dice.roll().to_be_bytes()).0);
        }
        let offer = offer(&mut dice, host);
        count += offer.slices().len();
        let id = DocumentId(Digest::of(&dice.roll().to_be_bytes()).0);
        offers.push((id, offer));
    }
    offers
}
