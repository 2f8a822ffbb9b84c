//! What the scripted market answers.

use souk::api::types::*;
use souk_protocol::{
    Amount, AskId, Currency, Digest, DocumentId, MachineId, Millis, NetworkId, NodeId, Timestamp,
    lease::{LeaseState, PauseReason},
    machine::{self, search::AskIndex},
    message::{Cause, EventCode},
    money::Counters,
    negotiation::RentalType,
    offer::{Accepts, Availability, Offer, Reachability, Terms},
    resources::{Cpu, DiskQuota, Egress, GpuGroup, Hardware, Resources, RuntimeKind, SlotClass},
};

/// So many seconds into 2026.
pub fn at(seconds: u64) -> Timestamp {
    Timestamp(1_767_225_600_000 + seconds * 1000)
}

fn node(n: u8) -> NodeId {
    souk_protocol::Keypair::from_seed(&[n; 32]).node_id()
}

/// The ask that is free.
pub fn ask() -> AskId {
    AskId::of(&node(2), &MachineId([3; 16]), 2)
}

pub fn host_id() -> NodeId {
    node(2)
}

fn price(text: &str) -> Amount {
    text.parse().unwrap()
}

fn resources() -> Resources {
    Resources {
        slots: 2,
        class: SlotClass::Gpu("RTX 4090".to_owned()),
        cpu_milli: 8000,
        ram_mb: 64_000,
        disk_mb: 50_000,
        shm_mb: 1000,
        pids: 4096,
    }
}

pub fn status() -> StatusView {
    StatusView {
        node: node(1),
        version: "0.1.0".to_owned(),
        pid: std::process::id(),
        started_ms: at(0),
        network: "test".to_owned(),
        network_id: NetworkId::of_name("test"),
        dir: "/tmp/x".into(),
        listen: vec!["/ip4/127.0.0.1/tcp/7".to_owned()],
        external: vec![],
        reachability: ReachabilityView::default(),
        peers: 1,
        offers: 1,
        host: HostRole::Off,
        renting: 1,
        hosting: 0,
        problems: vec![Problem {
            sentence: "the engine does not answer".to_owned(),
            fix: "systemctl start docker".to_owned(),
        }],
    }
}

pub fn peer() -> PeerView {
    PeerView {
        node: node(2),
        address: "/ip4/127.0.0.1/tcp/1".to_owned(),
        outbound: true,
        relayed: false,
        since_ms: Some(at(0)),
        rtt_us: Some(1234),
        // A peer may call itself anything.
        agent: "souk\u{1b}[2J/0.1".to_owned(),
        score: 1.25,
        received_bytes: 1_048_576,
        sent_bytes: 2_048,
        machines: 1,
        forked: false,
    }
}

/// What the real search finds in an index of two offers, one of them rented.
pub fn search(request: &SearchRequest) -> Result<SearchResults, souk::market::CommandError> {
    let (query, options) = request.parse(at(60), souk_protocol::HostId::Node(node(1)), Currency::usd())?;
    let mut index = AskIndex::new();
    for (machine, free) in [(3, 2), (4, 0)] {
        index.insert(DocumentId([machine; 32]), &offer(machine, free));
    }
    Ok(machine::search::search(&index, &query, &options).into())
}

fn offer(machine: u8, slots_free: u16) -> Offer {
    let gpus = GpuGroup {
        model: "RTX 4090".to_owned(),
        declared: false,
        uuid_hashes: vec![Digest([1; 32]), Digest([2; 32])],
        vram_mib: 24_564,
        compute_cap: 890,
        driver: "550.54".to_owned(),
        max_cuda: 1240,
        pcie_gen: 4,
        pcie_width: 16,
        mem_bw: 1008,
        power_w: 450,
    };
    Offer {
        host: node(2),
        machine: MachineId([machine; 16]),
        seq: 1,
        issued_at: at(0),
        valid_until: at(1800),
        hardware: Hardware {
            gpus: vec![gpus],
            cpu: Cpu { model: "EPYC".to_owned(), cores: 16, mhz: 3000, avx: true, arch: "x86_64".to_owned() },
            ram_mb: 128_000,
            disk_mb: 1_000_000,
            disk_mb_s: None,
            country: Some("CZ".to_owned()),
            up_mbps: Some(900),
            down_mbps: None,
        },
        terms: Terms {
            slot_hour: price("0.175"),
            min_bid_slot_hour: price("0.06"),
            storage_gb_month: price("0.10"),
            up_gb: Amount::ZERO,
            down_gb: Amount::ZERO,
            currency: Currency::usd(),
            min_slots: 2,
            latest_end: None,
            eviction_notice: Millis::from_secs(60),
            quantum: Millis::from_mins(10),
            reserved_discount: 0,
            egress: vec![Egress::Internet],
            runtimes: vec![RuntimeKind::Docker],
            disk_quota: DiskQuota::Soft,
            registries: vec!["docker.io".to_owned()],
            payment: vec![],
            accepts: Accepts::Anyone,
        },
        availability: Availability {
            volume_mb: 0,
            slots_total: 2,
            slots_free,
            reachability: Reachability::Direct,
            maintenance: None,
            ports_free: 0,
        },
        membership: None,
    }
}

pub fn quote() -> QuoteView {
    QuoteView {
        ask: ask(),
        host: node(2),
        avoided: None,
        resources: resources(),
        currency: Currency::usd(),
        price_hour: price("0.30"),
        listed_hour: price("0.35"),
        max_price_hour: price("0.35"),
        storage_hour: price("0.0069"),
        storage_month: price("5.00"),
        compute: price("8.40"),
        storage: price("0.12"),
        disk_kept: price("0.34"),
        max_spend: Some(price("8.52")),
        ceiling_after_ms: Some(Millis::from_hours(23)),
        up_gb: Amount::ZERO,
        down_gb: Amount::ZERO,
        ends_at_ms: at(86_400),
        ceiling: price("8.52"),
        traffic_extra: false,
    }
}

pub fn market() -> MarketView {
    let gpu = ModelView {
        gpu: Some("RTX\u{1b}[2J 4090".to_owned()),
        hosts: 3,
        machines: 4,
        asks: 6,
        slots_total: 8,
        slots_free: 2,
        lowest: price("0.20"),
        lower_quartile: price("0.25"),
        median: price("0.30"),
        upper_quartile: price("0.35"),
        highest: price("0.40"),
        histogram: vec![BarView { from: price("0.20"), to: price("0.40"), hosts: 3 }],
    };
    MarketView { currency: Currency::usd(), models: vec![gpu], more: 0, other_currency: 2 }
}

pub fn lease() -> LeaseView {
    LeaseView {
        number: 1,
        lease: super::lease_id(),
        role: Role::Renter,
        peer: node(2),
        label_inside: None,
        label: Some("train".to_owned()),
        state: LeaseState::Paused(PauseReason::Stopped),
        since_ms: at(60),
        image: "debian:12".to_owned(),
        command: "sleep 1h".to_owned(),
        resources: resources(),
        rental: RentalType::OnDemand,
        price_hour: price("0.35"),
        due: price("0.35"),
        acked: price("0.30"),
        currency: Currency::usd(),
        uptime_ms: Millis::from_hours(1),
        ends_at_ms: at(86_400),
        exit_code: None,
        progress: None,
        note: "bye\u{1b}[2J".to_owned(),
        reachable: true,
        relayed: false,
        public: None,
        place: None,
        eviction: None,
    }
}

pub fn receipt() -> ReceiptView {
    ReceiptView {
        number: 1,
        lease: super::lease_id(),
        role: Role::Renter,
        peer: node(2),
        n: 60,
        time_ms: at(3600),
        counters: Counters { active: Millis::from_hours(1), ..Counters::default() }.into(),
        due: price("0.35"),
        acked: price("0.30"),
        currency: Currency::usd(),
        partial: None,
        usage: DocumentId([5; 32]),
        ack: Some(DocumentId([6; 32])),
        acked_n: Some(50),
        closed: false,
    }
}

pub fn detail() -> LeaseDetail {
    let event = |n, state, by| EventView {
        n,
        at_ms: at(u64::from(n)),
        state,
        what: EventCode::State,
        by,
        exit_code: None,
        note: String::new(),
    };
    LeaseDetail {
        view: lease(),
        machine: MachineId([3; 16]),
        ask: ask(),
        offer: DocumentId([4; 32]),
        image_digest: format!("sha256:{}", "a".repeat(64)),
        egress: Egress::Internet,
        rates: RatesView {
            compute_hour: price("0.35"),
            storage_gb_month: price("0.10"),
            up_gb: Amount::ZERO,
            down_gb: Amount::ZERO,
        },
        terms: terms(),
        pending: Some(ChangeView::Bid { price_hour: price("0.40") }),
        asked: Some(extension(Millis::from_hours(24))),
        credit: price("8.40"),
        max_spend: None,
        tick_ms: Millis::from_secs(60),
        drafted_at_ms: at(0),
        slots: vec![0, 1],
        devices: vec!["GPU-1".to_owned(), "GPU-2".to_owned()],
        starts: 1,
        receipt: Some(receipt()),
        silent_ms: Some(Millis(0)),
        events: vec![
            event(1, LeaseState::Running, Cause::Host),
            event(2, LeaseState::Paused(PauseReason::Stopped), Cause::Renter),
        ],
    }
}

fn terms() -> TermsView {
    TermsView {
        n: 1,
        price_hour: price("0.35"),
        listed_hour: price("0.35"),
        ends_at_ms: at(86_400),
        max_spend: None,
        extend_until_ms: Some(at(2 * 86_400)),
        next: Some(NextPriceView { from_ms: at(86_400), price_hour: price("0.44") }),
        notice_ms: Millis::from_secs(60),
        quantum_ms: Millis::from_mins(10),
    }
}

/// A host that wants more.
pub fn extension(by: Millis) -> ExtensionView {
    ExtensionView {
        ends_at_ms: at(86_400) + by,
        price_hour: price("0.45"),
        valid_until_ms: at(86_400),
        from_ms: at(86_400),
        present_hour: price("0.35"),
    }
}

/// The lease once its terms have changed.
pub fn changed(change: ChangeView) -> LeaseDetail {
    let mut detail = detail();
    (detail.pending, detail.asked) = (None, None);
    match change {
        ChangeView::Bid { price_hour } => {
            detail.view.rental = RentalType::Interruptible;
            detail.view.state = LeaseState::Paused(PauseReason::Outbid);
            detail.view.place = Some(place());
            (detail.view.price_hour, detail.terms.price_hour) = (price_hour, price_hour);
        }
        ChangeView::Extend { ends_at_ms, price_hour } => {
            let from_ms = detail.terms.ends_at_ms;
            detail.terms.ends_at_ms = ends_at_ms;
            detail.terms.next = price_hour.map(|price_hour| NextPriceView { from_ms, price_hour });
        }
        ChangeView::MaxSpend { max_spend } => detail.terms.max_spend = max_spend,
        ChangeView::AutoExtend { until_ms } => detail.terms.extend_until_ms = until_ms,
    }
    detail
}

pub fn place() -> PlaceView {
    PlaceView { ahead: 2, to_win: Some(price("0.31")) }
}

pub fn slices() -> SlicesView {
    let slice = SliceView {
        ask: ask(),
        slots: 2,
        to_win: Some(price("0.31")),
        min_bid: price("0.12"),
        on_demand: None,
        bids: 3,
    };
    SlicesView { host: node(2), machine: MachineId([3; 16]), currency: Currency::usd(), slices: vec![slice] }
}

pub fn schedule(request: Option<ScheduleRequest>) -> ScheduleView {
    let window = WindowView { from_ms: at(3600), until_ms: at(7200) };
    match request {
        None => ScheduleView { hold: 1, maintenance: vec![window] },
        Some(ScheduleRequest::Hold { slots }) => ScheduleView { hold: slots, maintenance: vec![window] },
        Some(ScheduleRequest::AddMaintenance { from_ms, for_ms }) => {
            ScheduleView { hold: 1, maintenance: vec![WindowView { from_ms, until_ms: from_ms + for_ms }] }
        }
        Some(ScheduleRequest::RemoveMaintenance { from_ms }) => {
            assert_eq!(from_ms, window.from_ms);
            ScheduleView { hold: 1, maintenance: vec![] }
        }
    }
}

pub fn check() -> LedgerCheckView {
    LedgerCheckView { entries: 3, leases: 1, receipts: 60, faults: vec!["entry 2 does not follow entry 1".to_owned()] }
}

pub fn host(listed: bool, anyone: bool) -> HostView {
    HostView {
        role: if listed { HostRole::Listed } else { HostRole::Unlisted },
        machine: MachineId([3; 16]),
        hardware: Hardware::default(),
        slots: vec![
            SlotView {
                slot: 0,
                device: Some("GPU-1".to_owned()),
                gpu: Some("RTX 4090".to_owned()),
                listed: true,
                holder: SlotHolder::Lease { lease: super::lease_id() },
            },
            SlotView { slot: 1, device: None, gpu: None, listed: true, holder: SlotHolder::Elsewhere },
            SlotView { slot: 2, device: None, gpu: None, listed: false, holder: SlotHolder::Free },
        ],
        min_slots: 1,
        prices: None,
        pricing: PricingView::default(),
        accepts: AcceptsView { anyone, peers: vec![], cluster: None },
        conditions: ConditionsView::default(),
        egress: vec![Egress::Internet],
        public: None,
        registries: vec!["docker.io".to_owned()],
        schedule: ScheduleView::default(),
        engine: EngineView {
            version: None,
            socket: "/var/run/docker.sock".to_owned(),
            gpus: None,
            hard_disk_quota: false,
        },
        offer: listed.then(|| OfferView {
            id: DocumentId([8; 32]),
            seq: 7,
            issued_at_ms: at(0),
            valid_until_ms: at(1800),
            slots_total: 2,
            slots_free: 1,
            slices: vec![1, 2],
            volume_mb: 50_000,
            volume_free_mb: 30_000,
        }),
        leases: vec![LeaseView { role: Role::Host, ..lease() }],
        bids: vec![BidView {
            rank: 1,
            number: 1,
            lease: super::lease_id(),
            renter: node(4),
            slots: 2,
            price_hour: price("0.35"),
            slot_hour: price("0.175"),
            currency: Currency::usd(),
            bid_at_ms: at(50),
            state: LeaseState::Paused(PauseReason::Stopped),
            since_ms: at(60),
        }],
        problems: vec![],
    }
}

pub fn idle_job(request: Option<IdleJobRequest>) -> IdleJobView {
    let IdleJobRequest { image, command } = request.unwrap_or_default();
    let slots = image.iter().map(|_| IdleSlotView { slot: 3, state: IdleState::Running, note: None }).collect();
    IdleJobView { image, digest: None, command, problem: None, slots }
}

pub fn happened(request: &EventsRequest) -> Vec<HappenedView> {
    let event = |n: u32| HappenedView {
        record: 10 * u64::from(n),
        number: 1,
        lease: super::lease_id(),
        label: Some("tr\u{1b}ain".to_owned()),
        role: Role::Renter,
        event: detail().events[n as usize - 1].clone(),
    };
    let after = request.after.unwrap_or(0);
    [event(1), event(2)].into_iter().filter(|e| e.record > after).collect()
}

pub fn earnings() -> EarningsView {
    let parts = |compute: &str, storage: &str, total: &str| PartsView {
        compute: price(compute),
        storage: price(storage),
        traffic: Amount::ZERO,
        other: Amount::ZERO,
        total: price(total),
    };
    let row = |day: Option<&str>, machine: Option<MachineId>| EarnedView {
        day: day.map(str::to_owned),
        machine,
        currency: Currency::usd(),
        leases: 1,
        acknowledged: parts("0.300000001", "0.019999999", "0.32"),
        unacknowledged: price("0.03"),
        claimed: parts("0.33", "0.02", "0.35"),
        counters: Counters { active: Millis::from_hours(1), ..Counters::default() }.into(),
    };
    let machine = Some(MachineId([3; 16]));
    EarningsView {
        from: "2025-12-03".to_owned(),
        to: "2026-01-01".to_owned(),
        days: vec![row(Some("2025-12-30"), machine), row(Some("2026-01-01"), machine)],
        machines: vec![row(None, machine)],
        total: vec![row(None, None)],
    }
}

pub fn metric() -> MetricView {
    MetricView::one("souk_peers", "Peers connected.", MetricKind::Gauge, 1.0)
}

pub fn compacted() -> LedgerCompactView {
    LedgerCompactView {
        bytes_before: 9_000_000,
        bytes_after: 1_000_000,
        still_read: false,
        records: 600,
        dropped: 500,
        checkpoint: 12,
        up_to: 11,
        entries_kept: 3,
    }
}
