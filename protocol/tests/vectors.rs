//! The published test vectors, `docs/vectors.json`: made here, and checked here as a stranger would.
//!
//! Anything that changes bytes on the wire changes that file, so the change shows in review. After a change that is meant, write
//! it anew with `SOUK_WRITE_VECTORS=1 cargo test -p souk-protocol --test vectors`.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use souk_protocol::{
    Amount, AskId, Currency, Digest, Document, DocumentId, Keypair, LeaseId, MachineId, Millis, NetworkId, NodeId,
    Nonce, Rates, Signed, Timestamp, Verified,
    checkpoint::{Checkpoint, Ids, Totals},
    cluster::{Founding, Member, MemberList, PreSharedKey, Proof, Quota, Ticket, Token, knock},
    encode,
    entry::{About, Body, Entry, VoidCode},
    fork::{ForkProof, ForksAsked, ForksTold},
    heads::{ChainHead, HeadReport, HeadSeen, HeldRecord, Meet, Met},
    lease::{EndReason, LeaseDraft, LeaseState},
    limits,
    message::{Action, Frame, Request, Response, StreamOpen},
    money::{self, Counters},
    negotiation::{Counter, ImagePin, Proposal, RentalType},
    offer::{Accepts, Availability, Notice, Offer, Reachability, Terms, Withdrawal},
    opinion::{Attestation, Dispute, DisputeCode, Observation, UPTIME_WINDOW, Watched},
    owner::{Membership, OwnerId, OwnerOrder},
    payment::{PayWhen, PaymentTerms},
    ports::{PublicAccess, PublicPort},
    receipt::{Ack, PartialReason, Usage},
    resources::{Cpu, DiskQuota, Egress, GpuGroup, Hardware, Resources, RuntimeKind, SlotClass},
    settlement::{Settle, SettleAck},
    ssh::SshKeyList,
    terms::{Amended, Change, LeaseTerms},
    workload::Workload,
};

const WRITE: &str = "SOUK_WRITE_VECTORS";
const NETWORK: &str = "test";
/// 2026-11-22T12:00:00Z.
const NOON: Timestamp = Timestamp(1_795_348_800_000);

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/vectors.json")
}

fn network() -> NetworkId {
    NetworkId::of_name(NETWORK)
}

fn host() -> Keypair {
    Keypair::from_seed(&[1; 32])
}

fn renter() -> Keypair {
    Keypair::from_seed(&[2; 32])
}

const MACHINE: MachineId = MachineId([3; 16]);

fn offer() -> Verified<Offer> {
    let gpus = GpuGroup {
        model: "RTX 4090".to_owned(),
        declared: false,
        uuid_hashes: vec![Digest::of(b"GPU-0"), Digest::of(b"GPU-1")],
        vram_mib: 24_564,
        compute_cap: 890,
        driver: "560.35.03".to_owned(),
        max_cuda: 1260,
        pcie_gen: 4,
        pcie_width: 16,
        mem_bw: 1008,
        power_w: 450,
    };
    let cpu = Cpu { model: "EPYC 7543".to_owned(), cores: 32, mhz: 2800, avx: true, arch: "x86_64".to_owned() };
    let offer = Offer {
        host: host().node_id(),
        machine: MACHINE,
        seq: 7,
        issued_at: NOON,
        valid_until: NOON + Millis::from_mins(30),
        hardware: Hardware {
            gpus: vec![gpus],
            cpu,
            ram_mb: 128_000,
            disk_mb: 1_000_000,
            disk_mb_s: Some(1800),
            country: Some("CH".to_owned()),
            up_mbps: None,
            down_mbps: None,
        },
        terms: Terms {
            slot_hour: Amount(350_000_000),
            min_bid_slot_hour: Amount(120_000_000),
            storage_gb_month: Amount(100_000_000),
            up_gb: Amount(10_000_000),
            down_gb: Amount::ZERO,
            currency: Currency::usd(),
            min_slots: 1,
            latest_end: None,
            eviction_notice: Millis::from_secs(30),
            quantum: Millis::from_mins(10),
            reserved_discount: 0,
            egress: vec![Egress::None, Egress::Internet],
            runtimes: vec![RuntimeKind::Docker],
            disk_quota: DiskQuota::Soft,
            registries: vec!["docker.io".to_owned()],
            payment: vec!["manual".to_owned()],
            accepts: Accepts::Anyone,
        },
        availability: Availability {
            slots_total: 2,
            slots_free: 2,
            volume_mb: 200_000,
            reachability: Reachability::Unknown,
            maintenance: None,
            ports_free: 100,
        },
        membership: None,
    };
    Verified::sign(offer, &host(), &network()).unwrap()
}

fn owner() -> Keypair {
    Keypair::from_seed(&[6; 32])
}

fn membership() -> Verified<Membership> {
    let membership = Membership {
        owner: OwnerId(owner().node_id().0),
        node: host().node_id(),
        machine: Some(MACHINE),
        issued_at: NOON,
        valid_until: NOON + Millis::from_hours(365 * 24),
    };
    Verified::sign(membership, &owner(), &network()).unwrap()
}

fn owned_offer() -> Verified<Offer> {
    let offer = Offer { membership: Some(membership().to_signed()), ..Offer::clone(&offer()) };
    Verified::sign(offer, &host(), &network()).unwrap()
}

fn order() -> Verified<OwnerOrder> {
    let order = OwnerOrder {
        owner: OwnerId(owner().node_id().0),
        to: host().node_id(),
        order: br#"{"order":"unlist"}"#.to_vec(),
        nonce: Nonce([7; 16]),
        issued_at: NOON,
        valid_until: NOON + Millis::from_mins(2),
    };
    Verified::sign(order, &owner(), &network()).unwrap()
}

fn ssh_keys() -> Verified<SshKeyList> {
    let keys =
        vec!["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH laptop".to_owned()];
    let list = SshKeyList { renter: renter().node_id(), lease: draft().id().into(), revision: 1, keys };
    Verified::sign(list, &renter(), &network()).unwrap()
}

fn withdrawal() -> Verified<Withdrawal> {
    let withdrawal = Withdrawal { host: host().node_id(), machine: MACHINE, seq: 8, issued_at: NOON };
    Verified::sign(withdrawal, &host(), &network()).unwrap()
}

fn workload() -> Workload {
    Workload {
        command: Some(vec!["python".to_owned(), "train.py".to_owned()]),
        env: vec![("EPOCHS".to_owned(), "3".to_owned())],
        onstart: Some("#!/bin/sh\necho ready\n".to_owned()),
        salt: Nonce([5; 16]),
        ..Workload::default()
    }
}

fn ask() -> AskId {
    AskId::of(&host().node_id(), &MACHINE, 1)
}

fn proposal() -> Proposal {
    Proposal {
        ask: ask(),
        offer: offer().id(),
        nonce: Nonce([4; 16]),
        round: 0,
        rental: RentalType::OnDemand,
        price_hour: Amount(300_000_000),
        term: Some(Millis::from_hours(3)),
        extend: Some(Millis::from_hours(6)),
        disk_mb: 50_000,
        egress: Egress::Internet,
        ports: vec!["8080".parse().unwrap(), "40001:53/udp".parse().unwrap()],
        image: "debian:12".to_owned(),
        image_digest: None,
        workload: workload().to_bytes().1,
        max_spend: Some(Amount(2_000_000_000)),
        tick: None,
    }
}

fn counter() -> Verified<Counter> {
    let counter = Counter {
        host: host().node_id(),
        renter: renter().node_id(),
        machine: MACHINE,
        ask: ask(),
        offer: offer().id(),
        nonce: Nonce([4; 16]),
        round: 0,
        price_hour: Amount(350_000_000),
        listed_hour: Amount(350_000_000),
        currency: Currency::usd(),
        valid_until: NOON + Millis::from_secs(30),
    };
    Verified::sign(counter, &host(), &network()).unwrap()
}

fn draft() -> Verified<LeaseDraft> {
    let draft = LeaseDraft {
        host: host().node_id(),
        renter: renter().node_id(),
        machine: MACHINE,
        ask: ask(),
        offer: offer().id(),
        nonce: Nonce([4; 16]),
        rental: RentalType::OnDemand,
        resources: Resources {
            slots: 1,
            class: SlotClass::Gpu("RTX 4090".to_owned()),
            cpu_milli: 16_000,
            ram_mb: 64_000,
            disk_mb: 50_000,
            shm_mb: 32_000,
            pids: 4096,
        },
        egress: Egress::Internet,
        public: Some(PublicAccess {
            address: "203.0.113.7".to_owned(),
            ports: vec![
                PublicPort { public: 40_000, port: 8080, udp: false },
                PublicPort { public: 40_001, port: 53, udp: true },
            ],
        }),
        currency: Currency::usd(),
        rates: Rates {
            compute_hour: Amount(350_000_000),
            storage_gb_month: Amount(100_000_000),
            up_gb: Amount(10_000_000),
            down_gb: Amount::ZERO,
        },
        listed_hour: Amount(350_000_000),
        credit: Amount(8_400_000_000),
        payment: Some(PaymentTerms {
            when: PayWhen::Before,
            methods: vec!["lightning".to_owned(), "manual".to_owned()],
            slice: Amount(30_000_000),
            first: Amount(30_000_000),
        }),
        max_spend: Some(Amount(2_000_000_000)),
        extend_until: Some(NOON + Millis::from_hours(9)),
        notice: Millis::from_secs(60),
        quantum: Millis::from_mins(10),
        tick: Millis::from_secs(60),
        image: ImagePin { reference: "debian:12".to_owned(), digest: format!("sha256:{}", "ab".repeat(32)) },
        workload: workload().to_bytes().1,
        ssh_host_key: souk_protocol::SshKey([7; 32]),
        drafted_at: NOON,
        ends_at: NOON + Millis::from_hours(3),
        commit_by: NOON + Millis::from_secs(60),
        confirm_by: NOON + Millis::from_secs(90),
    };
    Verified::sign(draft, &host(), &network()).unwrap()
}

/// A chain of one author: each entry names the one before.
struct Author {
    key: Keypair,
    peer: NodeId,
    last: Option<(u64, DocumentId)>,
}

impl Author {
    fn genesis(key: Keypair, peer: NodeId) -> (Self, Verified<Entry>) {
        let entry = Entry {
            author: key.node_id(),
            seq: 0,
            prev: None,
            time: NOON,
            lease: None,
            peer: None,
            body: Body::Genesis { network: network() },
        };
        let entry = Verified::sign(entry, &key, &network()).unwrap();
        (Self { key, peer, last: Some((0, entry.id())) }, entry)
    }

    fn says(&mut self, after: Millis, body: Body) -> Verified<Entry> {
        let (seq, prev) = self.last.unwrap();
        let entry = Entry {
            author: self.key.node_id(),
            seq: seq + 1,
            prev: Some(prev),
            time: NOON + after,
            lease: (body.about() == About::Lease).then(|| draft().id().into()),
            peer: (body.about() != About::Chain).then_some(self.peer),
            body,
        };
        let entry = Verified::sign(entry, &self.key, &network()).unwrap();
        self.last = Some((seq + 1, entry.id()));
        entry
    }
}

fn counters() -> Counters {
    Counters {
        active: Millis::from_mins(30),
        waived: Millis(0),
        paused: Millis::from_secs(5),
        storage: Millis::from_mins(31),
        rx_bytes: 123_456_789,
        tx_bytes: 1_500_000_000,
    }
}

fn usage() -> Verified<Usage> {
    let usage = Usage {
        host: host().node_id(),
        lease: draft().id().into(),
        n: 1,
        prev: None,
        time: NOON + Millis::from_mins(32),
        counters: counters(),
        terms: 0,
        due: LeaseTerms::drafted(&draft()).due(&draft(), &counters()).unwrap(),
        state: LeaseState::Running,
    };
    Verified::sign(usage, &host(), &network()).unwrap()
}

fn ack(due: Amount, partial: Option<PartialReason>) -> Verified<Ack> {
    let lease: LeaseId = draft().id().into();
    let ack = Ack { renter: renter().node_id(), lease, n: 1, usage: usage().id(), due, partial };
    Verified::sign(ack, &renter(), &network()).unwrap()
}

/// What the host says of its head at one of its starts.
fn report(instance: u8, head: ChainHead) -> Verified<HeadReport> {
    let report = HeadReport {
        author: host().node_id(),
        instance: Nonce([instance; 16]),
        started: NOON,
        signing: true,
        head: Some(head),
        time: NOON + Millis::from_secs(4000),
        heard: vec![Nonce([9; 16])],
    };
    Verified::sign(report, &host(), &network()).unwrap()
}

fn head() -> ChainHead {
    let close = entries().into_iter().find(|(what, _)| *what == "close").unwrap().1;
    ChainHead { seq: close.seq, id: close.id() }
}

fn seen() -> Verified<HeadSeen> {
    let report = report(7, head());
    let time = NOON + Millis::from_secs(4001);
    let seen =
        HeadSeen { witness: renter().node_id(), author: report.author, report: report.id(), head: report.head, time };
    Verified::sign(seen, &renter(), &network()).unwrap()
}

/// Two starts of the host's node that name two entries with one number.
fn fork() -> ForkProof {
    let other = ChainHead { id: DocumentId([0xee; 32]), ..head() };
    ForkProof::Heads(report(7, head()).to_signed(), report(8, other).to_signed())
}

/// Everything both chains say over one lease, in the order in which it happens; last an open that came to nothing.
fn entries() -> Vec<(&'static str, Verified<Entry>)> {
    let secs = Millis::from_secs;
    let (mut rent, first) = Author::genesis(renter(), host().node_id());
    let (mut hosts, second) = Author::genesis(host(), renter().node_id());
    let open = rent.says(secs(1), Body::LeaseOpen { draft: draft().to_signed() });
    let accept = hosts.says(secs(2), Body::LeaseAccept { open: open.id() });
    let devices = vec!["GPU-0".to_owned()];
    let placement = hosts.says(secs(2), Body::Placement { start: 1, slots: vec![0], devices });
    let change = Change::Extend { ends_at: NOON + Millis::from_hours(5), compute_hour: Some(Amount(400_000_000)) };
    let valid_until = NOON + secs(3600) + limits::AMEND_WITHIN;
    let amend = rent.says(secs(3600), Body::Amend { n: 1, change, valid_until });
    let terms = LeaseTerms::drafted(&draft()).changed(&draft(), &change, &counters(), NOON + secs(3600)).unwrap();
    let amended = hosts.says(secs(3600), Body::Amended(Amended { amend: Some(amend.id()), terms }));
    let due = usage().due;
    let anchor = hosts.says(secs(3700), Body::Anchor { usage: usage().id(), ack: ack(due, None).id(), due });
    let close = Body::Close { reason: EndReason::Destroyed, usage: Some(usage().id()), due };
    let close = hosts.says(secs(3800), close);
    let close_ack = rent.says(secs(3801), Body::CloseAck { close: close.id(), due });
    let (n, currency) = (1, Currency::usd());
    let (method, reference) = ("manual".to_owned(), "INV-2026-11-0001".to_owned());
    let settle = Settle { n, currency: currency.clone(), amount: due, total: due, method, reference };
    let settle = rent.says(secs(3802), Body::Settle(settle));
    let settle_ack = SettleAck { settle: settle.id(), n, currency, total: due };
    let settle_ack = hosts.says(secs(3803), Body::SettleAck(settle_ack));
    let sentence = "the disk was a tenth as fast as offered".to_owned();
    let dispute = Dispute { about: draft().id(), code: DisputeCode::Performance, sentence };
    let dispute = rent.says(secs(3804), Body::Dispute(dispute));
    let attestation =
        Attestation { claim: "datacenter".to_owned(), until: Some(NOON + Millis::from_hours(24)), withdrawn: false };
    let attestation = rent.says(secs(3805), Body::Attestation(attestation));
    let window = Observation::Uptime { from: Timestamp(NOON.0 - NOON.0 % UPTIME_WINDOW.0), up_permille: 997 };
    let uptime = rent.says(secs(3806), Body::Probe(window));
    let figure = Observation::Performance { what: "disk_mb_s".to_owned(), promised: 1800, measured: 180 };
    let performance = rent.says(secs(3807), Body::Probe(figure));
    let watched = Watched { from: NOON + secs(100), watched: Millis::from_mins(55), answered: Millis::from_mins(54) };
    let rental = rent.says(secs(3808), Body::Probe(Observation::Rental(watched)));
    let mut ids = Ids::default();
    [&second, &accept].iter().for_each(|entry| ids.add(&entry.id()));
    let checkpoint = Checkpoint {
        seq: accept.seq,
        id: accept.id(),
        kept: ids.count(),
        entries: ids.digest(),
        totals: Totals::default().digest(),
    };
    let checkpoint = hosts.says(secs(3808), Body::Checkpoint(checkpoint));
    let sentence = "the slots were rented to another in the meantime".to_owned();
    let void = hosts.says(secs(3900), Body::Void { open: open.id(), code: VoidCode::Taken, sentence });
    vec![
        ("genesis of the renter", first),
        ("genesis of the host", second),
        ("lease_open", open),
        ("lease_accept", accept),
        ("placement", placement),
        ("amend", amend),
        ("amended", amended),
        ("anchor", anchor),
        ("close", close),
        ("close_ack", close_ack),
        ("settle", settle),
        ("settle_ack", settle_ack),
        ("dispute", dispute),
        ("attestation", attestation),
        ("probe of uptime", uptime),
        ("probe of performance", performance),
        ("probe of a rental", rental),
        ("checkpoint", checkpoint),
        ("void (another answer that this open could have had)", void),
    ]
}

fn document<T: Document>(what: &str, verified: &Verified<T>) -> Value {
    let signed = encode::to_bytes(&verified.to_signed());
    // An envelope is a list of two byte strings, and the signature is the last 64 bytes of it.
    let signature = &signed[signed.len() - 64..];
    json!({
        "what": what,
        "kind": T::NAME,
        "context": T::CONTEXT,
        "value": serde_json::to_value(&**verified).unwrap(),
        "payload": hex::encode(verified.payload()),
        "id": verified.id(),
        "signature": hex::encode(signature),
        "signed": hex::encode(&signed),
    })
}

fn documents() -> Vec<Value> {
    let due = usage().due;
    let mut all = vec![
        document("offer", &offer()),
        document("withdrawal", &withdrawal()),
        document("membership: the owner's word for a node", &membership()),
        document("offer of a machine that belongs to an owner", &owned_offer()),
        document("owner's order", &order()),
        document("SSH keys", &ssh_keys()),
        document("counter-offer", &counter()),
        document("lease draft: its id is the lease's", &draft()),
        document("usage", &usage()),
        document("ack in full", &ack(due, None)),
        document("head report", &report(7, head())),
        document("head countersignature", &seen()),
        document("ack in part", &ack(Amount(due.0 / 2), Some(PartialReason::OverMetered))),
    ];
    all.extend(entries().iter().map(|(what, entry)| document(what, entry)));
    all
}

fn message(what: &str, value: &impl Serialize) -> Value {
    json!({ "what": what, "value": serde_json::to_value(value).unwrap(), "cbor": hex::encode(encode::to_bytes(value)) })
}

fn messages() -> Value {
    let lease: LeaseId = draft().id().into();
    let open = &entries()[2].1;
    let (bytes, _) = workload().to_bytes();
    let control = Request::Control { lease, action: Action::Stop, nonce: Nonce([6; 16]) };
    let stream = StreamOpen::Logs { lease, follow: true, tail: Some(10), since: None, from: None };
    let frames = [Frame::Stdout(b"hello\n".to_vec()), Frame::StdinEnd, Frame::Resize(80, 24), Frame::Exit(-1)];
    json!({
        "gossip": [
            message("notice of an offer", &Notice::Offer(offer().to_signed())),
            message("notice of a withdrawal", &Notice::Withdrawal(withdrawal().to_signed())),
        ],
        "proofs": [
            message("fork proof of two heads", &fork()),
        ],
        "requests": [
            message("book_summary", &Request::BookSummary),
            message("book_page", &Request::BookPage { after: Some((host().node_id(), MACHINE)) }),
            message("book_fetch", &Request::BookFetch { ids: vec![offer().id()] }),
            message("propose", &Request::Propose(Box::new(proposal()))),
            message("commit", &Request::Commit { open: open.to_signed(), workload: bytes, settle: None }),
            message("control", &control),
            message("sync", &Request::Sync { lease, events_seen: 3 }),
            message("order", &Request::Order(order().to_signed())),
            message("meet", &Request::Meet(Box::new(Meet {
                report: report(7, head()).to_signed(),
                known: vec![Nonce([9; 16])],
                at: vec![1],
                yours: Vec::new(),
                forks: ForksAsked { of: Some(Nonce([8; 16])), after: Some(3), proofs: vec![host().node_id()] },
            }))),
            message("recall", &Request::Recall { length: 4, since: NOON, page: 0 }),
            message("deliver", &Request::Deliver { entry: entries()[7].1.to_signed() }),
        ],
        "answers": [
            message("drafted", &Response::Drafted(draft().to_signed())),
            message("controlled", &Response::Controlled { state: LeaseState::Ended(EndReason::Destroyed) }),
            message("seen", &Response::Seen {
                events_seen: 3,
                ack: Some(ack(usage().due, None).to_signed()),
                close_ack: None,
            }),
            message("ordered", &Response::Ordered { answer: br#"{"done":null}"#.to_vec() }),
            message("met", &Response::Met(Box::new(Met {
                report: report(7, head()).to_signed(),
                at: Vec::new(),
                seen: seen().to_signed(),
                yours: Vec::new(),
                newest: Some(entries()[3].1.to_signed()),
                doubt: false,
                forks: ForksTold {
                    names: vec![renter().node_id()],
                    upto: Some(4),
                    more: false,
                    proofs: vec![fork()],
                },
            }))),
            message("recalled", &Response::Recalled {
                records: vec![HeldRecord::Entry(entries()[3].1.to_signed()), HeldRecord::Usage(usage().to_signed())],
                more: false,
            }),
            message("busy", &Response::Busy { retry_after_ms: 200 }),
        ],
        "streams": [
            message("logs", &stream),
            message("ssh keys", &StreamOpen::SshKeys { lease, replace: Some(ssh_keys().to_signed()) }),
        ],
        "frames": frames.map(|f| json!({ "what": format!("{f:?}"), "bytes": hex::encode(f.to_bytes()) })),
    })
}

fn dues() -> Vec<Value> {
    let rates = draft().rates;
    let counts = |active: u64, waived: u64, storage: u64, rx_bytes: u64, tx_bytes: u64| Counters {
        active: Millis(active),
        waived: Millis(waived),
        paused: Millis(0),
        storage: Millis(storage),
        rx_bytes,
        tx_bytes,
    };
    let cases = [
        ("nothing", 50_000, counts(0, 0, 0, 0, 0)),
        ("an hour of compute", 0, counts(3_600_000, 0, 0, 0, 0)),
        ("a month of 50 GB", 50_000, counts(0, 0, 2_592_000_000, 0, 0)),
        ("a millisecond: rounded down", 50_000, counts(1, 0, 1, 0, 0)),
        ("traffic out, and in for nothing", 0, counts(0, 0, 0, 5_000_000_000, 1_500_000_000)),
        ("waived time", 0, counts(3_600_000, 1_800_000, 0, 0, 0)),
        (
            "all terms are added before the one rounding",
            50_000,
            counts(1_800_000, 0, 1_860_000, 123_456_789, 1_500_000_000),
        ),
    ];
    let case = |(what, disk_mb, counters): (&str, u64, Counters)| {
        let due = money::due(&rates, disk_mb, &counters, Amount::ZERO).unwrap();
        json!({ "what": what, "rates": rates, "disk_mb": disk_mb, "counters": counters, "due": due })
    };
    let mut all: Vec<Value> = cases.into_iter().map(case).collect();
    let too_much = counts(u64::MAX, 0, 0, 0, u64::MAX);
    let dear = Rates { compute_hour: Amount(u64::MAX), ..rates };
    assert!(money::due(&dear, 0, &too_much, Amount::ZERO).is_err());
    all.push(
        json!({ "what": "an overflow is invalid", "rates": dear, "disk_mb": 0, "counters": too_much, "due": null }),
    );
    all
}

/// Second encodings of the withdrawal, and signatures that are none. All are refused.
fn refused() -> Vec<Value> {
    let good = withdrawal();
    let payload = good.payload().to_vec();
    let case = |what: &str, network: &NetworkId, payload: &[u8], signature: &[u8]| {
        let envelope = (serde_bytes::Bytes::new(payload), serde_bytes::Bytes::new(signature));
        json!({ "what": what, "network": network, "signed": hex::encode(encode::to_bytes(&envelope)) })
    };
    // Signed as they stand, so that the encoding is all that is wrong with them.
    let signed = |what: &str, payload: &[u8]| {
        let id = souk_protocol::signed::digest(Withdrawal::CONTEXT, &network(), payload);
        case(what, &network(), payload, &host().sign(&id.0))
    };
    // `seq` is the field whose value is the one byte 08.
    let seq = payload.windows(4).position(|w| w == b"cseq").unwrap() + 4;
    let replace = |with: &[u8]| [&payload[..seq], with, &payload[seq + 1..]].concat();
    let signature = host().sign(&good.id().0);
    let mut flipped = signature;
    flipped[0] ^= 1;
    let mut malleable = signature;
    add_group_order(&mut malleable);
    let (head, tail) = payload.split_at(1);
    let (before, after) = (&payload[1..seq - 4], &payload[seq + 1..]);
    let field = |name: &[u8], value: &[u8]| [&[0x60 + name.len() as u8], name, value].concat();
    vec![
        signed("a number longer than it need be", &replace(&[0x18, 0x08])),
        signed("a float", &replace(&[0xfb, 0x40, 0x20, 0, 0, 0, 0, 0, 0])),
        signed("a byte after the end", &[&payload[..], &[0]].concat()),
        signed("a map of indefinite length", &[&[0xbf], tail, &[0xff]].concat()),
        signed("a field that is not known", &[&[head[0] + 1], &field(b"a", &[0])[..], tail].concat()),
        signed("a field that is missing", &[&[head[0] - 1], before, after].concat()),
        signed("a field twice", &[&[head[0] + 1], &field(b"seq", &[8])[..], tail].concat()),
        signed("fields in another order", &[head, before, after, &payload[seq - 4..=seq]].concat()),
        case("a signature with one bit changed", &network(), &payload, &flipped),
        case("a signature with the group's order added to s", &network(), &payload, &malleable),
        case("a signature for another network", &NetworkId::of_name("main"), &payload, &signature),
    ]
}

/// Adds the order of Ed25519's group to a signature's second half: a second form of the same number, which strict verifiers refuse.
fn add_group_order(signature: &mut [u8; 64]) {
    let mut order = hex::decode("1000000000000000000000000000000014def9dea2f79cd65812631a5cf5d3ed").unwrap();
    order.reverse();
    let mut carry = 0;
    for (byte, add) in signature[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = (sum & 0xff) as u8;
        carry = sum >> 8;
    }
    assert_eq!(carry, 0, "the sum fits in 32 bytes");
}

fn vectors() -> Value {
    let key = |who: &str, seed: [u8; 32]| {
        let node = Keypair::from_seed(&seed).node_id();
        json!({
            "who": who,
            "seed": hex::encode(seed),
            "public_key": hex::encode(node.0),
            "peer_id_bytes": hex::encode(node.to_peer_id_bytes()),
            "peer_id": node,
        })
    };
    let name = |name: &str| json!({ "name": name, "id": NetworkId::of_name(name) });
    let asks = [1u16, 2].map(|n| {
        json!({ "host": host().node_id(), "machine": MACHINE, "slots": n, "ask": AskId::of(&host().node_id(), &MACHINE, n) })
    });
    let (bytes, digest) = workload().to_bytes();
    json!({
        "about": "souk test vectors; see docs/protocol.md. Byte strings are hexadecimal.",
        "keys": [key("the host", [1; 32]), key("the renter", [2; 32]), key("the owner", [6; 32])],
        "networks": [name("main"), name(NETWORK)],
        "asks": asks,
        "workload": {
            "value": serde_json::to_value(workload()).unwrap(), "cbor": hex::encode(bytes), "digest": digest,
        },
        "documents": { "network": network(), "all": documents() },
        "messages": messages(),
        "cluster": cluster(),
        "due": dues(),
        "refused": { "kind": Withdrawal::NAME, "all": refused() },
    })
}

fn founding() -> Founding {
    Founding { name: "lab".to_owned(), keeper: host().node_id(), salt: [9; 16] }
}

fn shared_key() -> PreSharedKey {
    PreSharedKey::new([0x5a; 32])
}

fn token() -> Token {
    Token::new([0x5b; 16])
}

fn member_list() -> Verified<MemberList> {
    let mut list = MemberList::first(founding(), "desk".to_owned(), Some(shared_key().fence()), NOON);
    let quota = Quota { slots_at_once: Some(2), slot_hours: None };
    list.members.push(Member { node: renter().node_id(), name: "laptop-2".to_owned(), quota });
    list.members.sort_by_key(|m| m.node);
    list.seq = 2;
    Verified::sign(list, &host(), &founding().network()).unwrap()
}

fn ticket() -> Ticket {
    Ticket {
        founding: founding(),
        key: Some(shared_key()),
        token: token(),
        expires: NOON + Millis::from_hours(24),
        addresses: vec!["/ip4/192.0.2.7/tcp/4100".to_owned()],
    }
}

const KNOCKED: knock::Nonce = knock::Nonce([0x77; 32]);

fn cluster() -> Value {
    let keeper = host().node_id();
    let name = Some("laptop-2".to_owned());
    let proof = Proof::of(&token(), &KNOCKED, &keeper, &renter().node_id(), name);
    json!({
        "founding": message("founding: its digest is the network's id", &founding()),
        "network": founding().network(),
        "key": hex::encode(shared_key().as_bytes()),
        "fence": shared_key().fence(),
        "list": document("member list", &member_list()),
        "ticket": {
            "line": *ticket().to_line().unwrap(),
            "token": "5b".repeat(16),
            "expires": ticket().expires,
            "addresses": ticket().addresses,
        },
        "knock": [
            message("knock", &knock::Knock { token_id: token().id() }),
            message("nonce", &KNOCKED),
            message("proof, by the renter", &proof),
            message("admitted", &knock::Answer::Admitted { list: member_list().to_signed() }),
            message("refused", &knock::Answer::Refused(knock::Refusal::Used)),
        ],
    })
}

fn writes() -> bool {
    std::env::var_os(WRITE).is_some()
}

/// What is published; where it is being written, what will be.
fn published() -> Value {
    if writes() { vectors() } else { serde_json::from_str(&std::fs::read_to_string(file()).unwrap()).unwrap() }
}

#[test]
fn the_published_vectors_are_what_this_code_makes() {
    let (made, published) = (vectors(), published());
    if writes() {
        std::fs::write(file(), serde_json::to_string_pretty(&made).unwrap() + "\n").unwrap();
    }
    // Part by part: a hundred kilobytes of difference help nobody.
    for (part, value) in made.as_object().unwrap() {
        assert!(
            published[part] == *value,
            "`{part}` of docs/vectors.json is not what this code makes; if that is meant, set {WRITE}=1 and run this test again"
        );
    }
    assert_eq!(published.as_object().unwrap().len(), made.as_object().unwrap().len());
}

fn bytes_at(value: &Value, field: &str) -> Vec<u8> {
    hex::decode(value[field].as_str().unwrap()).unwrap()
}

fn verify<T: Document + PartialEq + std::fmt::Debug>(vector: &Value) {
    let what = vector["what"].as_str().unwrap();
    let signed: Signed<T> = encode::from_bytes(&bytes_at(vector, "signed"), 8192).unwrap();
    let verified = signed.verify(&network()).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(verified.id().to_string(), vector["id"], "{what}");
    assert_eq!(hex::encode(verified.payload()), vector["payload"], "{what}");
    assert_eq!(vector["context"], T::CONTEXT, "{what}");
    // The id by the rule of the docs, not by this crate's function.
    let mut hasher = blake3::Hasher::new_derive_key(vector["context"].as_str().unwrap());
    hasher.update(&network().0).update(&bytes_at(vector, "payload"));
    assert_eq!(hasher.finalize().to_hex().as_str(), vector["id"], "{what}");
    let value: T = serde_json::from_value(vector["value"].clone()).unwrap();
    assert_eq!(value, *verified, "{what}: the readable form says the same");
}

#[test]
fn every_published_document_verifies() {
    let published = published();
    let all = published["documents"]["all"].as_array().unwrap();
    assert!(all.len() >= 16);
    for vector in all {
        match vector["kind"].as_str().unwrap() {
            Offer::NAME => verify::<Offer>(vector),
            Withdrawal::NAME => verify::<Withdrawal>(vector),
            Counter::NAME => verify::<Counter>(vector),
            LeaseDraft::NAME => verify::<LeaseDraft>(vector),
            Entry::NAME => verify::<Entry>(vector),
            Usage::NAME => verify::<Usage>(vector),
            Ack::NAME => verify::<Ack>(vector),
            Membership::NAME => verify::<Membership>(vector),
            OwnerOrder::NAME => verify::<OwnerOrder>(vector),
            HeadReport::NAME => verify::<HeadReport>(vector),
            HeadSeen::NAME => verify::<HeadSeen>(vector),
            SshKeyList::NAME => verify::<SshKeyList>(vector),
            other => panic!("{other} is not a kind of document"),
        }
    }
}

fn reads<T: Serialize + DeserializeOwned>(list: &Value) {
    for vector in list.as_array().unwrap() {
        let bytes = bytes_at(vector, "cbor");
        let value: T = encode::from_bytes(&bytes, bytes.len()).unwrap_or_else(|e| panic!("{}: {e}", vector["what"]));
        assert_eq!(serde_json::to_value(&value).unwrap(), vector["value"], "{}", vector["what"]);
    }
}

#[test]
fn every_published_message_reads() {
    let messages = &published()["messages"];
    reads::<Notice>(&messages["gossip"]);
    reads::<ForkProof>(&messages["proofs"]);
    reads::<Request>(&messages["requests"]);
    reads::<Response>(&messages["answers"]);
    reads::<StreamOpen>(&messages["streams"]);
}

#[test]
fn the_published_cluster_holds_by_the_rules_of_the_documentation() {
    let cluster = &published()["cluster"];
    let derived = |context: &str, bytes: &[u8]| hex::encode(blake3::derive_key(context, bytes));
    let id = derived("souk 2026-11 cluster v1", &bytes_at(&cluster["founding"], "cbor"));
    assert_eq!(cluster["network"], id);
    let key = bytes_at(cluster, "key");
    assert_eq!(cluster["fence"], derived("souk 2026-11 cluster fence v1", &key)[..16]);

    let network: NetworkId = serde_json::from_value(cluster["network"].clone()).unwrap();
    let signed: Signed<MemberList> = encode::from_bytes(&bytes_at(&cluster["list"], "signed"), 8192).unwrap();
    let list = signed.verify(&network).unwrap();
    assert_eq!(serde_json::from_value::<MemberList>(cluster["list"]["value"].clone()).unwrap(), *list);
    assert!(signed.verify(&self::network()).is_err());

    // The ticket, taken apart.
    let line = cluster["ticket"]["line"].as_str().unwrap();
    let bytes = bs58::decode(line.strip_prefix("soukcluster").unwrap()).into_vec().unwrap();
    let (said, check) = bytes.split_last_chunk::<4>().unwrap();
    assert_eq!((said[0], &blake3::hash(said).as_bytes()[..4]), (1, &check[..]));
    let ticket: Ticket = line.parse().unwrap();
    assert_eq!((ticket.founding.network(), ticket.key.map(|k| k.as_bytes().to_vec())), (network, Some(key)));

    let knock = cluster["knock"].as_array().unwrap();
    let token = bytes_at(&cluster["ticket"], "token");
    assert_eq!(knock[0]["value"]["token_id"], derived("souk 2026-11 cluster token v1", &token)[..16]);
    let said = [&KNOCKED.0[..], &host().node_id().0, &renter().node_id().0].concat();
    let mac = blake3::keyed_hash(&blake3::derive_key("souk 2026-11 cluster admission v1", &token), &said);
    assert_eq!(knock[2]["value"]["mac"], mac.to_hex().as_str());
    reads::<knock::Knock>(&json!([knock[0]]));
    reads::<knock::Nonce>(&json!([knock[1]]));
    reads::<Proof>(&json!([knock[2]]));
    reads::<knock::Answer>(&json!(knock[3..]));
}

#[test]
fn every_published_due_is_recomputed() {
    for vector in published()["due"].as_array().unwrap() {
        let field = |name: &str| vector[name].clone();
        let rates: Rates = serde_json::from_value(field("rates")).unwrap();
        let counters: Counters = serde_json::from_value(field("counters")).unwrap();
        let wanted: Option<Amount> = serde_json::from_value(field("due")).unwrap();
        let disk_mb = vector["disk_mb"].as_u64().unwrap();
        assert_eq!(money::due(&rates, disk_mb, &counters, Amount::ZERO).ok(), wanted, "{}", vector["what"]);
    }
}

#[test]
fn everything_published_as_refused_is_refused() {
    let published = published();
    let all = published["refused"]["all"].as_array().unwrap();
    assert!(all.len() >= 10);
    for vector in all {
        let signed: Signed<Withdrawal> = encode::from_bytes(&bytes_at(vector, "signed"), 8192).unwrap();
        let network: NetworkId = serde_json::from_value(vector["network"].clone()).unwrap();
        assert!(signed.verify(&network).is_err(), "{} was taken", vector["what"]);
    }
    // And what they were made from is not.
    withdrawal().to_signed().verify(&network()).unwrap();
}
