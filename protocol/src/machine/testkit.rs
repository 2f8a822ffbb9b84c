//! What the tests of the machine share: an offer, a lease, and a context to run them in.
#![allow(clippy::unwrap_used)]

use super::{
    chain::Chain,
    context::Context,
    io::Output,
    policy::{Accept, HostSetup},
    pricing::OwnerAsked,
};
use crate::{
    Amount, AskId, Currency, Digest, DocumentId, Keypair, LeaseId, MachineId, Millis, NetworkId, Nonce, SshKey,
    Timestamp, Verified,
    entry::{Body, Entry},
    lease::LeaseDraft,
    limits,
    money::Rates,
    negotiation::{ImagePin, Proposal, RentalType},
    offer::{Accepts, Availability, Offer, Reachability, Terms},
    resources::{Cpu, DiskQuota, Egress, Hardware, Resources, RuntimeKind},
};

pub(crate) const NOW: Timestamp = Timestamp(1_790_000_000_000);

pub(crate) fn network() -> NetworkId {
    NetworkId::of_name("tests")
}

pub(crate) fn key(seed: u8) -> Keypair {
    Keypair::from_seed(&[seed; 32])
}

/// The context of the node with key 1.
pub(super) fn context() -> Context {
    let mut chain = Chain::new(key(1), network(), None);
    chain.begin(NOW).unwrap();
    Context::new(chain)
}

pub(super) fn outputs(cx: &mut Context) -> Vec<Output> {
    std::iter::from_fn(|| cx.poll()).collect()
}

/// Four CPU slots, 1.00 an hour each, at least 0.70.
pub(crate) fn setup() -> HostSetup {
    HostSetup {
        listed: true,
        hold: 0,
        volume_mb: 50_000,
        maintenance: Vec::new(),
        machine: MachineId([1; 16]),
        hardware: Hardware {
            cpu: Cpu { model: "EPYC".to_owned(), cores: 8, mhz: 3000, avx: true, arch: "x86_64".to_owned() },
            ram_mb: 64_000,
            disk_mb: 400_000,
            ..Hardware::default()
        },
        slots: vec![None; 4],
        terms: Terms {
            slot_hour: Amount(1_000_000_000),
            min_bid_slot_hour: Amount(700_000_000),
            storage_gb_month: Amount(100_000_000),
            up_gb: Amount(0),
            down_gb: Amount(0),
            currency: Currency::usd(),
            min_slots: 1,
            latest_end: None,
            eviction_notice: Millis(0),
            quantum: Millis(0),
            reserved_discount: 0,
            egress: vec![Egress::None],
            runtimes: vec![RuntimeKind::Docker],
            disk_quota: DiskQuota::Soft,
            registries: Vec::new(),
            payment: Vec::new(),
            accepts: Accepts::Anyone,
        },
        floor_slot_hour: Amount(700_000_000),
        accept: Accept::Anyone,
        asked: OwnerAsked::default(),
        credit: Millis::from_mins(5),
        tick: Millis::from_secs(10),
        max_term: Millis::from_hours(100),
        ssh_host_key: SshKey([7; 32]),
        reachability: Reachability::Direct,
        membership: None,
        public: None,
    }
}

/// The offer of [`setup`] by the host of a key.
pub(crate) fn offer(host: u8, seq: u64, issued_at: Timestamp) -> Offer {
    let setup = setup();
    Offer {
        host: key(host).node_id(),
        machine: setup.machine,
        seq,
        issued_at,
        valid_until: issued_at + limits::OFFER_LIFE,
        hardware: setup.hardware,
        terms: setup.terms,
        availability: Availability {
            slots_total: 4,
            slots_free: 4,
            volume_mb: 50_000,
            reachability: Reachability::Direct,
            maintenance: None,
            ports_free: 0,
        },
        membership: None,
    }
}

/// A bid for one slot of key 1's machine.
pub(crate) fn proposal(price_hour: Amount, round: u8) -> Proposal {
    Proposal {
        ask: AskId::of(&key(1).node_id(), &MachineId([1; 16]), 1),
        offer: DocumentId::default(),
        nonce: Nonce([2; 16]),
        round,
        rental: RentalType::OnDemand,
        price_hour,
        term: None,
        extend: None,
        disk_mb: 10_000,
        egress: Egress::None,
        ports: Vec::new(),
        image: "debian:12".to_owned(),
        image_digest: None,
        workload: Digest::default(),
        max_spend: None,
        tick: None,
    }
}

/// A lease of an hour between key 1 (host) and key 2 (renter).
pub(crate) fn draft(max_spend: Option<Amount>, credit: Amount) -> Verified<LeaseDraft> {
    let setup = setup();
    let offer = offer(1, 1, NOW);
    let draft = LeaseDraft {
        host: key(1).node_id(),
        renter: key(2).node_id(),
        machine: setup.machine,
        ask: AskId::of(&key(1).node_id(), &setup.machine, 1),
        offer: DocumentId::default(),
        nonce: Nonce([2; 16]),
        rental: RentalType::OnDemand,
        resources: Resources::share(&setup.hardware, offer.class(), 1, 4, 10_000).unwrap(),
        egress: Egress::None,
        public: None,
        currency: Currency::usd(),
        rates: Rates { compute_hour: Amount(1_000_000_000), storage_gb_month: Amount(100_000_000), ..Rates::default() },
        listed_hour: Amount(1_000_000_000),
        credit,
        payment: None,
        max_spend,
        extend_until: None,
        notice: Millis(0),
        quantum: Millis(0),
        tick: Millis::from_secs(10),
        image: ImagePin { reference: "debian:12".to_owned(), digest: format!("sha256:{}", "a".repeat(64)) },
        workload: Digest::default(),
        ssh_host_key: SshKey([7; 32]),
        drafted_at: NOW,
        ends_at: NOW + Millis::from_hours(1),
        commit_by: NOW + limits::COMMIT_WITHIN,
        confirm_by: NOW + limits::COMMIT_WITHIN + limits::CONFIRM_WITHIN,
    };
    Verified::sign(draft, &key(1), &network()).unwrap()
}

/// An entry that begins or goes on with a chain of its own.
pub(super) fn accept(cx: &mut Context, draft: &Verified<LeaseDraft>) -> Verified<Entry> {
    let lease: LeaseId = draft.id().into();
    cx.append(lease, draft.renter, Body::LeaseAccept { open: DocumentId::default() }, NOW).unwrap().0
}
