//! Two parties and the documents they sign. Shared by unit tests, integration tests and the example through `#[path]`.
#![allow(clippy::unwrap_used, dead_code, missing_docs)]

use souk_protocol::{
    Amount, AskId, Currency, Digest, DocumentId, Keypair, LeaseId, MachineId, Millis, NetworkId, NodeId, Nonce, Rates,
    SshKey, Timestamp, Verified,
    entry::{Body, Entry},
    lease::{EndReason, LeaseDraft, LeaseState},
    money::Counters,
    negotiation::{ImagePin, RentalType},
    receipt::{Ack, PartialReason, Usage},
    resources::{Egress, Resources, SlotClass},
    terms::LeaseTerms,
};

pub const START: u64 = 1_800_000_000_000;

/// A node that signs: its key and its chain so far.
#[derive(Clone)]
pub struct Party {
    pub key: Keypair,
    pub network: NetworkId,
    pub seq: u64,
    pub prev: Option<DocumentId>,
}

impl Party {
    pub fn new(seed: u8) -> Self {
        Self { key: Keypair::from_seed(&[seed; 32]), network: NetworkId::of_name("test"), seq: 0, prev: None }
    }

    /// The next entry of the chain, about the chain itself.
    pub fn say_of_itself(&mut self, body: Body) -> Verified<Entry> {
        self.next(START, None, None, body)
    }

    /// The next entry of the chain.
    pub fn say(&mut self, lease: Option<LeaseId>, peer: &Self, body: Body) -> Verified<Entry> {
        self.say_at(START, lease, peer, body)
    }

    /// The same, later.
    pub fn say_at(&mut self, at: u64, lease: Option<LeaseId>, peer: &Self, body: Body) -> Verified<Entry> {
        let genesis = matches!(body, Body::Genesis { .. });
        self.next(at, lease, (!genesis).then(|| peer.key.node_id()), body)
    }

    fn next(&mut self, at: u64, lease: Option<LeaseId>, peer: Option<NodeId>, body: Body) -> Verified<Entry> {
        let entry = Entry {
            author: self.key.node_id(),
            seq: self.seq,
            prev: self.prev,
            time: Timestamp(at + self.seq),
            lease,
            peer,
            body,
        };
        let entry = Verified::sign(entry, &self.key, &self.network).unwrap();
        self.seq += 1;
        self.prev = Some(entry.id());
        entry
    }

    pub fn genesis(&mut self) -> Verified<Entry> {
        let network = self.network;
        let me = self.clone();
        self.say(None, &me, Body::Genesis { network })
    }
}

/// A lease between two parties, and its last receipts.
pub struct Deal {
    pub draft: Verified<LeaseDraft>,
    pub id: LeaseId,
    pub open: Option<DocumentId>,
    pub n: u64,
    pub usage: Option<Verified<Usage>>,
}

impl Deal {
    pub fn new(host: &Party, renter: &Party, number: u64) -> Self {
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&number.to_le_bytes());
        let machine = MachineId([1; 16]);
        let draft = LeaseDraft {
            host: host.key.node_id(),
            renter: renter.key.node_id(),
            machine,
            ask: AskId::of(&host.key.node_id(), &machine, 1),
            offer: DocumentId([2; 32]),
            nonce: Nonce(nonce),
            rental: RentalType::OnDemand,
            resources: Resources {
                slots: 1,
                class: SlotClass::Cpu,
                cpu_milli: 1000,
                ram_mb: 1024,
                disk_mb: 10_000,
                shm_mb: 64,
                pids: 100,
            },
            egress: Egress::Internet,
            public: None,
            currency: Currency::usd(),
            rates: Rates {
                compute_hour: Amount(350_000_000),
                storage_gb_month: Amount(100_000_000),
                up_gb: Amount(10_000_000),
                down_gb: Amount(0),
            },
            listed_hour: Amount(350_000_000),
            credit: Amount(1_000_000_000),
            payment: None,
            max_spend: None,
            extend_until: None,
            notice: Millis(0),
            quantum: Millis(0),
            tick: Millis::from_secs(60),
            image: ImagePin { reference: "debian:12".to_owned(), digest: format!("sha256:{}", "ab".repeat(32)) },
            workload: Digest([3; 32]),
            ssh_host_key: SshKey([7; 32]),
            drafted_at: Timestamp(START),
            ends_at: Timestamp(START + 86_400_000),
            commit_by: Timestamp(START + 60_000),
            confirm_by: Timestamp(START + 90_000),
        };
        let draft = Verified::sign(draft, &host.key, &host.network).unwrap();
        Self { id: draft.id().into(), draft, open: None, n: 0, usage: None }
    }

    pub fn open(&mut self, renter: &mut Party, host: &Party) -> Verified<Entry> {
        let body = Body::LeaseOpen { draft: self.draft.to_signed() };
        let open = renter.say(Some(self.id), host, body);
        self.open = Some(open.id());
        open
    }

    pub fn accept(&self, host: &mut Party, renter: &Party) -> Verified<Entry> {
        let open = self.open.unwrap();
        host.say(Some(self.id), renter, Body::LeaseAccept { open })
    }

    pub fn usage_value(&self, n: u64, host: &Party) -> Usage {
        let counters = Counters {
            active: Millis(n * 60_000),
            storage: Millis(n * 60_000),
            tx_bytes: n * 1_000_000,
            rx_bytes: n * 5_000,
            ..Counters::default()
        };
        Usage {
            host: host.key.node_id(),
            lease: self.id,
            n,
            prev: self.usage.as_ref().map(Verified::id),
            time: Timestamp(START + n * 60_000),
            counters,
            terms: 0,
            due: LeaseTerms::drafted(&self.draft).due(&self.draft, &counters).unwrap(),
            state: LeaseState::Running,
        }
    }

    pub fn usage(&mut self, host: &Party) -> Verified<Usage> {
        self.n += 1;
        let usage = self.usage_value(self.n, host);
        let usage = Verified::sign(usage, &host.key, &host.network).unwrap();
        self.usage = Some(usage.clone());
        usage
    }

    /// The renter's answer to the last usage, less some nanos.
    pub fn ack(&self, renter: &Party, less: u64) -> Verified<Ack> {
        let usage = self.usage.as_ref().unwrap();
        let ack = Ack {
            renter: renter.key.node_id(),
            lease: self.id,
            n: usage.n,
            usage: usage.id(),
            due: Amount(usage.due.0 - less),
            partial: (less > 0).then_some(PartialReason::OverMetered),
        };
        Verified::sign(ack, &renter.key, &renter.network).unwrap()
    }

    pub fn close(&self, by: &mut Party, other: &Party) -> Verified<Entry> {
        let body = Body::Close {
            reason: EndReason::Destroyed,
            usage: self.usage.as_ref().map(Verified::id),
            due: self.usage.as_ref().map_or(Amount::ZERO, |u| u.due),
        };
        by.say(Some(self.id), other, body)
    }

    pub fn close_ack(&self, close: &Verified<Entry>, by: &mut Party, other: &Party) -> Verified<Entry> {
        let body = Body::CloseAck { close: close.id(), due: self.usage.as_ref().map_or(Amount::ZERO, |u| u.due) };
        by.say(Some(self.id), other, body)
    }
}
