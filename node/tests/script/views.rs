//! What the scripted market answers.

use souk::api::types::*;
use souk_protocol::{
    Amount, AskId, Currency, DocumentId, MachineId, Millis, NetworkId, NodeId, Timestamp,
    lease::{LeaseState, PauseReason},
    message::Cause,
    money::Counters,
    offer::Reachability,
    resources::{Egress, Hardware, Resources, SlotClass},
};

/// So many seconds into 2026.
pub fn at(seconds: u64) -> Timestamp {
    Timestamp(1_767_225_600_000 + seconds * 1000)
}

fn node(n: u8) -> NodeId {
    souk_protocol::Keypair::from_seed(&[n; 32]).node_id()
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
        machines: 1,
    }
}

pub fn search() -> SearchResults {
    SearchResults {
        rows: vec![AskRow {
            row: 1,
            id: AskId([0xcd; 8]),
            host: node(2),
            machine: MachineId([3; 16]),
            offer: DocumentId([4; 32]),
            slots: 2,
            gpu_name: Some("RTX 4090".to_owned()),
            gpus: 2,
            vram_mib: 24_564,
            declared: false,
            cuda: 1240,
            cpu_name: "EPYC".to_owned(),
            cpu_milli: 8000,
            ram_mb: 64_000,
            disk_mb: 500_000,
            dph: price("0.35"),
            min_bid: price("0.12"),
            storage_gb_month: price("0.10"),
            up_gb: Amount::ZERO,
            down_gb: Amount::ZERO,
            currency: Currency::usd(),
            up_mbps: Some(900),
            down_mbps: None,
            reliability_permille: Some(994),
            country: Some("CZ".to_owned()),
            reachability: Reachability::Direct,
            egress: vec![Egress::Internet],
            rentable: true,
            latest_end_ms: None,
        }],
        matched: 1,
        total: 3,
        hidden: vec!["2 are rented now (--all shows them)".to_owned()],
        explain: Some(Explanation {
            conditions: vec![ConditionCount { condition: "num_gpus>=1".to_owned(), excludes: 0 }],
            nearest: vec![],
        }),
    }
}

pub fn quote() -> QuoteView {
    QuoteView {
        ask: AskId([0xcd; 8]),
        host: node(2),
        resources: resources(),
        currency: Currency::usd(),
        price_hour: price("0.30"),
        listed_hour: price("0.35"),
        max_price_hour: price("0.35"),
        storage_hour: price("0.0069"),
        up_gb: Amount::ZERO,
        down_gb: Amount::ZERO,
        ends_at_ms: at(86_400),
        ceiling: price("8.52"),
        traffic_extra: false,
    }
}

pub fn lease() -> LeaseView {
    LeaseView {
        number: 1,
        lease: super::lease_id(),
        role: Role::Renter,
        peer: node(2),
        label: Some("train".to_owned()),
        state: LeaseState::Paused(PauseReason::Stopped),
        since_ms: at(60),
        image: "debian:12".to_owned(),
        command: "sleep 1h".to_owned(),
        resources: resources(),
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
    let event =
        |n, state, by| EventView { n, at_ms: at(u64::from(n)), state, by, exit_code: None, note: String::new() };
    LeaseDetail {
        view: lease(),
        machine: MachineId([3; 16]),
        ask: AskId([0xcd; 8]),
        offer: DocumentId([4; 32]),
        image_digest: format!("sha256:{}", "a".repeat(64)),
        egress: Egress::Internet,
        rates: RatesView {
            compute_hour: price("0.35"),
            storage_gb_month: price("0.10"),
            up_gb: Amount::ZERO,
            down_gb: Amount::ZERO,
        },
        credit: price("8.40"),
        max_spend: None,
        tick_ms: Millis::from_secs(60),
        drafted_at_ms: at(0),
        slots: vec![0, 1],
        devices: vec!["GPU-1".to_owned(), "GPU-2".to_owned()],
        starts: 1,
        receipt: Some(receipt()),
        events: vec![
            event(1, LeaseState::Running, Cause::Host),
            event(2, LeaseState::Paused(PauseReason::Stopped), Cause::Renter),
        ],
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
                holder: SlotHolder::Lease { lease: super::lease_id() },
            },
            SlotView { slot: 1, device: None, gpu: None, holder: SlotHolder::Free },
        ],
        min_slots: 1,
        prices: None,
        accepts: AcceptsView { anyone, peers: vec![] },
        egress: vec![Egress::Internet],
        registries: vec!["docker.io".to_owned()],
        engine: EngineView {
            version: None,
            socket: "/var/run/docker.sock".to_owned(),
            gpus: None,
            hard_disk_quota: false,
        },
        leases: vec![],
        problems: vec![],
    }
}
