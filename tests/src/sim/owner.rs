//! What owners do: how hosts offer, what renters wish, and when they change their minds.

use souk_protocol::{
    Amount, Currency, MachineId, Millis, Nonce, Timestamp,
    lease::LeaseDraft,
    machine::{
        engine::Engine,
        host::owner::unanswered,
        io::Wish,
        policy::{Accept, HostSetup},
        pricing::{About, OwnerAnswer, OwnerAsked, Question},
        renter_lease::RenterLease,
    },
    negotiation::RentalType,
    offer::{Accepts, Reachability, Terms, Window},
    ports::{PortRange, PortRequest, PublicPorts},
    resources::{Cpu, DiskQuota, Egress, GpuGroup, Hardware, RuntimeKind},
    terms::Change,
    workload::{Attachment, Workload},
};

use super::dice::Dice;

/// A random machine on offer.
#[must_use]
pub fn setup(dice: &mut Dice, slots: u16) -> HostSetup {
    let gpus = dice.permille(750);
    let slot_hour = Amount(dice.range(500_000_000, 4_000_000_000));
    let floor = if dice.permille(500) { slot_hour } else { Amount(slot_hour.0 * 7 / 10) };
    let group = GpuGroup {
        model: "RTX 4090".to_owned(),
        declared: false,
        uuid_hashes: (0..slots).map(|i| souk_protocol::Digest::of(&i.to_be_bytes())).collect(),
        vram_mib: 24_564,
        compute_cap: 890,
        driver: "550.1".to_owned(),
        max_cuda: 1240,
        pcie_gen: 4,
        pcie_width: 16,
        mem_bw: 1008,
        power_w: 450,
    };
    let machine = MachineId(dice.bytes());
    HostSetup {
        listed: true,
        hold: 0,
        // Small, so that it is often all taken; by the machine's name, so that the dice fall as without.
        volume_mb: [0, 20_000, 60_000][usize::from(machine.0[3] % 3)],
        maintenance: Vec::new(),
        machine,
        hardware: Hardware {
            gpus: if gpus { vec![group] } else { Vec::new() },
            cpu: Cpu { model: "EPYC".to_owned(), cores: 64, mhz: 3000, avx: true, arch: "x86_64".to_owned() },
            ram_mb: 256_000,
            disk_mb: 1_000_000,
            ..Hardware::default()
        },
        slots: (0..slots).map(|i| gpus.then(|| format!("GPU-{i}"))).collect(),
        terms: Terms {
            slot_hour,
            min_bid_slot_hour: floor,
            storage_gb_month: Amount(dice.range(0, 200_000_000)),
            up_gb: Amount(10_000_000),
            down_gb: Amount(5_000_000),
            currency: Currency::usd(),
            min_slots: 1,
            latest_end: None,
            eviction_notice: Millis::from_secs(*dice.pick(&[0, 7, 15, 60]).unwrap_or(&0)),
            quantum: Millis::from_secs(*dice.pick(&[0, 20, 120, 600]).unwrap_or(&0)),
            reserved_discount: *dice.pick(&[0, 100, 250]).unwrap_or(&0),
            egress: vec![Egress::None, Egress::Internet],
            runtimes: vec![RuntimeKind::Docker],
            disk_quota: DiskQuota::Soft,
            registries: Vec::new(),
            payment: Vec::new(),
            accepts: Accepts::Anyone,
        },
        floor_slot_hour: floor,
        accept: Accept::Anyone,
        // Some owners are asked, by the machine's name, so that the dice fall as without.
        asked: OwnerAsked {
            price: machine.0[0].is_multiple_of(4),
            accept: machine.0[1].is_multiple_of(4),
            unanswered_is_yes: machine.0[2].is_multiple_of(2),
        },
        credit: Millis::from_secs(dice.range(20, 300)),
        tick: Millis::from_secs(dice.range(2, 10)),
        max_term: Millis::from_hours(24),
        reachability: Reachability::Direct,
        membership: None,
        ssh_host_key: souk_protocol::SshKey([7; 32]),
        // Some have public ports, too few for all.
        public: machine.0[3].is_multiple_of(2).then(|| PublicPorts {
            address: "203.0.113.7".to_owned(),
            range: PortRange::new(40_000, 40_003).unwrap_or_else(|e| panic!("{e}")),
        }),
    }
}

/// A random wish for something on this engine's market; none if there is nothing.
#[must_use]
pub fn wish(dice: &mut Dice, engine: &Engine, bids: u64) -> Option<Wish> {
    let offers: Vec<_> = engine.book().offers().filter(|o| o.host != engine.me()).collect();
    let offer = *dice.pick(&offers)?;
    let slices = offer.slices();
    let slots = *dice.pick(&slices)?.min(dice.pick(&slices)?);
    let listed = Amount(offer.terms.slot_hour.0 * u64::from(slots));
    let rental = match dice.range(0, 1000) {
        share if share < bids => RentalType::Interruptible,
        share if share >= 950 && bids > 0 => RentalType::Reserved,
        _ => RentalType::OnDemand,
    };
    let least = offer.terms.min_bid_slot_hour.0 * u64::from(slots);
    let (bid, max_price) = match dice.range(0, 10) {
        // Of few prices, so that many bids are equal.
        _ if rental == RentalType::Interruptible => (Some(Amount(least / 10 * dice.range(9, 25) + 10)), None),
        0 => (Some(Amount(listed.0 * 6 / 10)), Some(listed)),
        1 => (Some(Amount(listed.0 / 2)), None),
        2 => (None, Some(Amount(listed.0 * 2))),
        _ => (None, None),
    };
    let volume = dice.permille(120);
    let mut workload =
        Workload { command: Some(vec!["train".to_owned()]), salt: Nonce(dice.bytes()), ..Workload::default() };
    let mut on_it = engine.renter().leases().values().filter(|l| {
        let same = l.draft().host == offer.host && l.draft().machine == offer.machine;
        same && l.draft().is_volume() && !l.state().is_ended()
    });
    if let Some(held) = on_it.next_back().filter(|_| dice.permille(700)) {
        workload.volumes.push(Attachment { volume: held.id(), path: "/data".to_owned(), read_only: false });
    }
    let disk_mb = dice.range(1000, 20_000);
    let max_spend = dice.permille(200).then(|| {
        let rates = souk_protocol::Rates { storage_gb_month: offer.terms.storage_gb_month, ..Default::default() };
        let reserve = LeaseDraft::disk_reserve(&rates, disk_mb).unwrap_or_default();
        Amount(reserve.0 + dice.range(1, listed.0 / 60))
    });
    let term = match rental {
        RentalType::Reserved => Some(Millis::from_secs(dice.range(3600, 9000))),
        RentalType::OnDemand | RentalType::Interruptible => {
            dice.permille(600).then(|| Millis::from_secs(dice.range(5, 600)))
        }
    };
    let nonce = Nonce(dice.bytes());
    // By the nonce, so that the dice fall as without.
    let wanted = if offer.availability.ports_free > 0 { usize::from(nonce.0[0] % 3) } else { 0 };
    let port =
        |port: u16| PortRequest { port, udp: false, public: nonce.0[1].is_multiple_of(4).then_some(40_000 + port) };
    Some(Wish {
        ask: souk_protocol::AskId::of(&offer.host, &offer.machine, slots),
        nonce,
        rental,
        extend: (bids > 0 && dice.permille(300)).then(|| Millis::from_secs(dice.range(10, 1800))),
        bid,
        max_price,
        term,
        disk_mb,
        egress: Egress::Internet,
        ports: (1..3).take(wanted).map(port).collect(),
        image: "debian:12".to_owned(),
        image_digest: None,
        workload,
        max_spend,
        prepay: None,
        tick: dice.permille(300).then(|| Millis::from_secs(dice.range(1, 30))),
        label: dice.permille(300).then(|| "mine".to_owned()),
        volume,
    })
}

/// The image that every reference stands for.
#[must_use]
pub fn image_digest() -> String {
    format!("sha256:{}", "a".repeat(64))
}

/// What an owner answers: nine tenths of the listed price, the listed one where the bid is odd, and no to a few.
#[must_use]
pub fn answer(question: &Question) -> OwnerAnswer {
    let odd = question.proposal.price_hour.0 % 2 == 1;
    match question.about {
        About::Price if odd => OwnerAnswer::Price(None),
        About::Price => OwnerAnswer::Price(Some(Amount(question.slot_hour.0 / 10 * 9))),
        About::Accept if question.proposal.nonce.0[0] == 0 => OwnerAnswer::Accept(Err(unanswered())),
        About::Accept => OwnerAnswer::Accept(Ok(())),
    }
}

/// A change that a renter may think of: sensible ones, and all that are not.
#[must_use]
pub fn change(dice: &mut Dice, lease: &RenterLease, now: Timestamp) -> Change {
    let terms = lease.terms();
    let price = terms.compute_hour.0;
    let bids = lease.draft().rental == RentalType::Interruptible;
    let later = |dice: &mut Dice| terms.ends_at + Millis::from_secs(dice.range(1, 300));
    match dice.range(0, if bids { 24 } else { 12 }) {
        0 => Change::Bid { compute_hour: Amount(0) },
        1 => {
            Change::Bid { compute_hour: Amount(if dice.permille(300) { u64::MAX } else { price.saturating_mul(1000) }) }
        }
        2 => Change::Extend { ends_at: later(dice), compute_hour: None },
        3 => Change::Extend {
            ends_at: later(dice),
            compute_hour: Some(Amount((price / 100).saturating_mul(dice.range(50, 100)))),
        },
        4 => Change::Extend {
            ends_at: later(dice),
            compute_hour: Some(Amount((price / 100).saturating_mul(dice.range(101, 300)))),
        },
        5 => Change::Extend { ends_at: Timestamp(if dice.permille(500) { u64::MAX } else { 0 }), compute_hour: None },
        6 => Change::Ceiling { max_spend: dice.permille(300).then(|| Amount(dice.range(0, price / 10))) },
        7 => Change::Ceiling {
            max_spend: lease.usage().map(|u| Amount(u.due.0.saturating_add(dice.range(0, price / 5)))),
        },
        8 => Change::AutoExtend { until: Some(now + Millis::from_secs(dice.range(0, 1000))) },
        9 => Change::AutoExtend { until: None },
        10 | 11 => match lease.asked() {
            Some(asked) => Change::Extend { ends_at: asked.ends_at, compute_hour: Some(asked.compute_hour) },
            None => Change::Extend { ends_at: later(dice), compute_hour: None },
        },
        12 | 13 => Change::Bid { compute_hour: Amount(price.saturating_add(price / 100)) },
        14..18 => Change::Bid { compute_hour: Amount((price / 100).saturating_mul(dice.range(60, 100))) },
        _ => {
            Change::Bid { compute_hour: Amount((price / 100).saturating_mul(dice.range(105, 160)).saturating_add(100)) }
        }
    }
}

/// The owner of a machine thinks again: other prices, other slots held for itself, maintenance.
pub fn rethink(dice: &mut Dice, setup: &mut HostSetup, now: Timestamp) {
    match dice.range(0, 4) {
        0 => {
            let terms = &mut setup.terms;
            terms.slot_hour = Amount(terms.slot_hour.0 / 100 * dice.range(60, 180));
            terms.min_bid_slot_hour = Amount(terms.slot_hour.0 / 100 * dice.range(40, 101));
            setup.floor_slot_hour = terms.min_bid_slot_hour;
        }
        1 => setup.hold = u16::try_from(dice.range(0, setup.slots.len() as u64 + 2)).unwrap_or(0),
        2 => setup.hold = 0,
        _ => {
            let from = now + Millis::from_secs(dice.range(5, 120));
            setup.maintenance.retain(|w| w.until > now);
            setup.maintenance.push(Window { from, until: from + Millis::from_secs(dice.range(5, 90)) });
        }
    }
}
