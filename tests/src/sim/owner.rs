//! What owners do: how hosts offer, what renters wish, and when they change their minds.

use souk_protocol::{
    Amount, Currency, MachineId, Millis, Nonce,
    lease::LeaseDraft,
    machine::{
        engine::Engine,
        host::owner::unanswered,
        io::Wish,
        policy::{Accept, HostSetup},
        pricing::{About, OwnerAnswer, OwnerAsked, Question},
    },
    offer::{Accepts, Reachability, Terms},
    resources::{Cpu, DiskQuota, Egress, GpuGroup, Hardware, RuntimeKind},
    workload::Workload,
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
            eviction_notice: Millis::from_secs(60),
            quantum: Millis::from_mins(10),
            reserved_discount: 0,
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
        ssh_host_key: souk_protocol::SshKey([7; 32]),
    }
}

/// A random wish for something on this engine's market; none if there is nothing.
#[must_use]
pub fn wish(dice: &mut Dice, engine: &Engine) -> Option<Wish> {
    let offers: Vec<_> = engine.book().offers().filter(|o| o.host != engine.me()).collect();
    let offer = *dice.pick(&offers)?;
    let slices = offer.slices();
    let slots = *dice.pick(&slices)?.min(dice.pick(&slices)?);
    let listed = Amount(offer.terms.slot_hour.0 * u64::from(slots));
    let (bid, max_price) = match dice.range(0, 10) {
        0 => (Some(Amount(listed.0 * 6 / 10)), Some(listed)),
        1 => (Some(Amount(listed.0 / 2)), None),
        2 => (None, Some(Amount(listed.0 * 2))),
        _ => (None, None),
    };
    let workload =
        Workload { command: Some(vec!["train".to_owned()]), salt: Nonce(dice.bytes()), ..Workload::default() };
    let disk_mb = dice.range(1000, 20_000);
    let max_spend = dice.permille(200).then(|| {
        let rates = souk_protocol::Rates { storage_gb_month: offer.terms.storage_gb_month, ..Default::default() };
        let reserve = LeaseDraft::disk_reserve(&rates, disk_mb).unwrap_or_default();
        Amount(reserve.0 + dice.range(1, listed.0 / 60))
    });
    Some(Wish {
        ask: souk_protocol::AskId::of(&offer.host, &offer.machine, slots),
        nonce: Nonce(dice.bytes()),
        rental: souk_protocol::negotiation::RentalType::OnDemand,
        extend: None,
        bid,
        max_price,
        term: dice.permille(600).then(|| Millis::from_secs(dice.range(5, 600))),
        disk_mb,
        egress: Egress::Internet,
        image: "debian:12".to_owned(),
        image_digest: None,
        workload,
        max_spend,
        tick: dice.permille(300).then(|| Millis::from_secs(dice.range(1, 30))),
        label: dice.permille(300).then(|| "mine".to_owned()),
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
