//! Ledgers made at random: what a node and its peers could say to each other, and much that they may not.
//!
//! Nothing here knows the rules. Something plausible is signed, the ledger's fold takes it or not, and what it refuses is kept
//! beside, with the place where it was said: a lie that its author has signed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proptest::{prelude::Rng, test_runner::TestRng};
use souk_ledger::{
    journal::Position,
    record::Fact,
    state::{Applied, State, totals},
    store::{Kv, MemoryKv},
};
use souk_protocol::{
    Amount, AskId, Currency, Digest, Document, DocumentId, Keypair, LeaseId, MachineId, Millis, NetworkId, NodeId,
    Nonce, Rates, SshKey, Timestamp, Verified,
    checkpoint::{Checkpoint, Ids},
    encode,
    entry::{Body, Entry},
    lease::LeaseDraft,
    money::Counters,
    negotiation::{ImagePin, RentalType},
    payment::{PayWhen, PaymentTerms},
    ports::{PublicAccess, PublicPort},
    receipt::{Ack, Usage},
    resources::{Egress, Resources, SlotClass},
    settlement::Settle,
    signed,
    terms::{Change, LeaseTerms},
};

use super::dice::Dice;

/// A record: what it is, what was signed, and the signature.
#[derive(Debug, Clone)]
pub struct Record {
    pub kind: &'static str,
    pub payload: Vec<u8>,
    pub signature: [u8; 64],
    pub author: NodeId,
    pub lease: Option<LeaseId>,
}

impl Record {
    pub fn of(fact: &Fact) -> Self {
        fn parts<T: Document>(kind: &'static str, document: &Verified<T>, lease: Option<LeaseId>) -> Record {
            let bytes = encode::to_bytes(&document.to_signed());
            Record {
                kind,
                payload: document.payload().to_vec(),
                signature: *bytes.last_chunk().unwrap(),
                author: document.author(),
                lease,
            }
        }
        match fact {
            Fact::Entry(entry) => parts("entry", entry, entry.lease),
            Fact::Usage(usage) => parts("usage", usage, Some(usage.lease)),
            Fact::Ack(ack) => parts("ack", ack, Some(ack.lease)),
            Fact::Fork(_) | Fact::Private(_) => unreachable!("nothing private is made here"),
        }
    }

    /// What it says, in a few words: its kind, or something rarer.
    pub fn what(&self) -> String {
        let word = match self.kind {
            "entry" => {
                let entry: Entry = encode::from_bytes(&self.payload, Entry::MAX_BYTES).unwrap();
                if entry.body.rental().is_some() { "probe of a rental" } else { entry.body.name() }
            }
            "usage" => {
                let usage: Usage = encode::from_bytes(&self.payload, Usage::MAX_BYTES).unwrap();
                match (usage.terms, usage.counters.waived.0) {
                    (0, 0) => "usage",
                    (0, _) => "usage waived",
                    _ => "usage by terms",
                }
            }
            _ => {
                let ack: Ack = encode::from_bytes(&self.payload, Ack::MAX_BYTES).unwrap();
                if ack.partial.is_some() { "ack partial" } else { "ack" }
            }
        };
        word.to_owned()
    }

    pub fn context(kind: &str) -> &'static str {
        match kind {
            "entry" => Entry::CONTEXT,
            "usage" => Usage::CONTEXT,
            "ack" => Ack::CONTEXT,
            "draft" => LeaseDraft::CONTEXT,
            _ => souk_ledger::export::Trailer::CONTEXT,
        }
    }
}

/// A node and its chain so far.
pub struct Party {
    pub key: Keypair,
    pub node: NodeId,
    pub seq: u64,
    pub prev: Option<DocumentId>,
}

/// A lease, as its parties know it.
pub struct Deal {
    pub id: LeaseId,
    pub draft: LeaseDraft,
    pub host: usize,
    pub renter: usize,
    pub open: DocumentId,
    pub start: u32,
    /// Terms 0, 1, 2 …
    pub terms: Vec<LeaseTerms>,
    pub amends: Vec<(DocumentId, Change)>,
    pub usages: Vec<Verified<Usage>>,
    pub signed: Amount,
    /// By host and renter.
    pub closes: [Option<DocumentId>; 2],
}

/// A ledger in the making. Party 0 is its owner.
pub struct World {
    pub rng: TestRng,
    pub network: NetworkId,
    pub parties: Vec<Party>,
    pub deals: Vec<Deal>,
    pub now: u64,
    pub records: Vec<Record>,
    /// What was refused, with the number of records before it.
    pub lies: Vec<(usize, Record)>,
    pub settles: Vec<(usize, usize, DocumentId, Settle)>,
    /// What happened that no record shows by itself.
    pub done: Vec<&'static str>,
    /// What a checkpoint lets its author leave out.
    pub cut: Option<Cut>,
    pub(super) checkpoint: Option<(Cut, Checkpoint)>,
    said: Vec<Fact>,
    state: State,
    kv: Arc<MemoryKv>,
}

/// Records that are left out of the first so many.
#[derive(Debug, Clone)]
pub struct Cut {
    pub before: usize,
    pub dropped: BTreeSet<usize>,
}

impl World {
    /// A ledger of about so many records.
    pub fn new(mut rng: TestRng, steps: usize) -> Self {
        let network = NetworkId::of_name(["main", "test"][rng.below(2)]);
        let parties: Vec<Party> = (1..=4)
            .map(|seed| {
                let key = Keypair::from_seed(&[seed; 32]);
                Party { node: key.node_id(), key, seq: 0, prev: None }
            })
            .collect();
        let kv = Arc::new(MemoryKv::default());
        let state = State::new(parties[0].node, network, Arc::clone(&kv) as Arc<dyn Kv>);
        let mut world = Self {
            rng,
            network,
            parties,
            deals: Vec::new(),
            now: 1_800_000_000_000,
            records: Vec::new(),
            lies: Vec::new(),
            settles: Vec::new(),
            done: Vec::new(),
            cut: None,
            checkpoint: None,
            said: Vec::new(),
            state,
            kv,
        };
        for party in 0..4 {
            // Again, if that one was spoilt.
            for _ in 0..20 {
                if world.parties[party].seq == 0 {
                    world.say(party, None, None, Body::Genesis { network });
                }
            }
        }
        for _ in 0..steps {
            let hour = world.rng.below(3_600_000) as u64;
            world.now += hour;
            world.step();
        }
        world
    }

    /// Tells the fold, and keeps it as a record or as a lie.
    pub fn tell(&mut self, fact: Fact) -> bool {
        let record = Record::of(&fact);
        match self.state.apply(Position::default(), &fact) {
            Ok(Applied::New) => {
                self.records.push(record);
                self.said.push(fact);
                true
            }
            Ok(Applied::Fork) => {
                self.records.push(record);
                self.said.push(fact);
                false
            }
            Ok(Applied::Known) | Err(_) => {
                self.lies.push((self.records.len(), record));
                false
            }
        }
    }

    /// What the owner would leave out of all that is there, and what stands for it.
    pub fn checkpoint_here(&mut self) -> Option<(Cut, Checkpoint)> {
        let newest = self.parties[0].seq.checked_sub(1)?;
        let changes = self.state.take_changes();
        self.kv.write(&changes).unwrap();
        let acks: Vec<&Verified<Ack>> =
            self.said.iter().filter_map(|fact| if let Fact::Ack(ack) = fact { Some(ack) } else { None }).collect();
        let agreed: BTreeMap<LeaseId, DocumentId> = acks.iter().map(|ack| (ack.lease, ack.id())).collect();
        let named: BTreeSet<DocumentId> =
            acks.iter().filter(|ack| agreed[&ack.lease] == ack.id()).map(|ack| ack.usage).collect();
        let (mut dropped, mut kept) = (BTreeSet::new(), Ids::default());
        for (index, fact) in self.said.iter().enumerate() {
            let replaced = match fact {
                Fact::Entry(entry) => {
                    let rental = entry.body.rental().is_some();
                    let passes =
                        matches!(entry.body, Body::Anchor { .. } | Body::Probe(_) | Body::Attestation(_)) && !rental;
                    passes && (entry.author != self.parties[0].node || entry.seq < newest)
                }
                Fact::Usage(usage) => !named.contains(&usage.id()),
                Fact::Ack(ack) => agreed[&ack.lease] != ack.id(),
                Fact::Fork(_) | Fact::Private(_) => false,
            };
            if replaced && !self.rng.one_in(3) {
                dropped.insert(index);
            } else if let Fact::Entry(entry) = fact
                && entry.author == self.parties[0].node
            {
                kept.add(&entry.id());
            }
        }
        let totals = totals(&*self.kv).unwrap();
        let id = self.parties[0].prev?;
        let checkpoint = Checkpoint { seq: newest, id, kept: kept.count(), entries: kept.digest(), totals };
        Some((Cut { before: self.said.len(), dropped }, checkpoint))
    }

    /// Says something again that was said before.
    pub fn repeat(&mut self) {
        let at = self.rng.below(self.said.len());
        let fact = self.said[at].clone();
        self.tell(fact);
    }

    /// An entry of a party's chain, as it should be or not quite.
    pub fn say(&mut self, by: usize, to: Option<usize>, lease: Option<LeaseId>, body: Body) -> Option<DocumentId> {
        let mut entry = Entry {
            author: self.parties[by].node,
            seq: self.parties[by].seq,
            prev: self.parties[by].prev,
            time: Timestamp(self.now),
            lease,
            peer: to.map(|to| self.parties[to].node),
            body,
        };
        let twist = if self.rng.one_in(12) { self.rng.below(8) } else { 9 };
        match twist {
            0 => entry.seq += 1,
            1 => entry.seq = entry.seq.saturating_sub(1),
            2 => entry.prev = Some(DocumentId(self.noise())),
            3 => entry.time = Timestamp(self.now - 40_000_000),
            4 => entry.peer = Some(self.parties[self.rng.below(4)].node),
            5 => entry.lease = self.deals.first().map(|deal| deal.id),
            6 => entry.seq = u64::MAX,
            _ => {}
        }
        let signed = Verified::sign(entry, &self.parties[by].key, &self.network).ok()?;
        let id = signed.id();
        // What a peer says to others is not heard here, and what it says to us may be lost.
        let heard = by == 0 || !self.rng.one_in(10);
        let taken = heard && self.tell(Fact::Entry(signed));
        // A peer that goes on from before what it has said contradicts itself.
        let goes_on = if by == 0 { taken } else { twist > 2 && !self.rng.one_in(40) };
        if goes_on {
            let party = &mut self.parties[by];
            party.seq += 1;
            party.prev = Some(id);
        }
        taken.then_some(id)
    }

    pub fn noise(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }

    /// Two of the parties, the owner among them, in any order.
    pub fn pair(&mut self) -> (usize, usize) {
        let peer = 1 + self.rng.below(3);
        if self.rng.one_in(2) { (0, peer) } else { (peer, 0) }
    }

    /// One in so many: an amount that is not `right`.
    pub fn or_else(&mut self, right: u64, one_in: usize) -> u64 {
        match self.rng.one_in(one_in).then(|| self.rng.below(4)) {
            Some(0) => right.wrapping_add(1),
            Some(1) => right.wrapping_sub(1),
            Some(2) => self.rng.magnitude(),
            Some(_) => right / 2,
            None => right,
        }
    }

    pub fn amount(&mut self) -> Amount {
        Amount(if self.rng.one_in(12) { self.rng.magnitude() } else { self.rng.between(0, 2_000_000_000) })
    }

    fn price(&mut self) -> Amount {
        let wild = self.rng.one_in(6);
        Amount(if wild { self.rng.between(0, 1_000_000_000_000_000) } else { self.rng.between(0, 2_000_000_000) })
    }

    fn maybe<T>(&mut self, some: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.rng.one_in(3).then(|| some(self))
    }

    fn payment(&mut self) -> PaymentTerms {
        let when = [PayWhen::After, PayWhen::Before][self.rng.below(2)];
        let first = if when == PayWhen::Before { self.amount() } else { Amount::ZERO };
        let methods = ["manual", "bank", "x-9"][..=self.rng.below(3)].iter().map(|name| (*name).to_owned()).collect();
        PaymentTerms { when, methods, slice: self.amount(), first }
    }

    /// A draft that may be signed, of any shape.
    pub fn draft(&mut self, host: usize, renter: usize) -> Option<LeaseDraft> {
        let rental = [RentalType::OnDemand, RentalType::Interruptible, RentalType::Reserved][self.rng.below(3)];
        let machine = MachineId([1; 16]);
        let rates = Rates {
            compute_hour: self.price(),
            storage_gb_month: self.amount(),
            up_gb: self.amount(),
            down_gb: self.amount(),
        };
        let most = if self.rng.one_in(2) { 40 } else { 24 * 300 };
        let hours = self.rng.between(1, most);
        let ends_at = self.now + hours * 3_600_000;
        let public = self.maybe(|world| PublicAccess {
            address: ["203.0.113.7", "2001:db8::1", "::ffff:1.2.3.4", "box.example.net", "x"][world.rng.below(5)]
                .to_owned(),
            ports: (0..=world.rng.below(3))
                .map(|n| PublicPort { public: 40_000 + n as u16, port: 80, udp: world.rng.one_in(2) })
                .collect(),
        });
        let slots = self.rng.between(1, 8) as u16;
        let class = if self.rng.one_in(2) { SlotClass::Cpu } else { SlotClass::Gpu("RTX 4090".to_owned()) };
        let disk_mb = if self.rng.one_in(8) { self.rng.magnitude() } else { self.rng.between(1, 1_000_000) };
        let mut draft = LeaseDraft {
            host: self.parties[host].node,
            renter: self.parties[renter].node,
            machine,
            ask: AskId::of(&self.parties[host].node, &machine, slots),
            offer: DocumentId(self.noise()),
            nonce: Nonce(*self.noise().first_chunk()?),
            rental,
            resources: Resources { slots, class, cpu_milli: 1000, ram_mb: 1024, disk_mb, shm_mb: 64, pids: 100 },
            egress: [Egress::None, Egress::Internet, Egress::Full][self.rng.below(3)],
            public,
            currency: Currency(["USD", "EUR", "SATOSHIS"][self.rng.below(3)].to_owned()),
            rates,
            listed_hour: Amount(rates.compute_hour.0 + self.rng.between(0, 1_000_000_000)),
            credit: self.amount(),
            payment: self.maybe(Self::payment),
            max_spend: self.maybe(Self::amount),
            extend_until: self.maybe(|world| Timestamp(ends_at + world.rng.between(0, 86_400_000))),
            notice: Millis(self.rng.between(0, 3_600_000)),
            quantum: Millis(self.rng.between(0, 3_600_000)),
            tick: Millis(self.rng.between(1000, 3_600_000)),
            image: ImagePin {
                reference: "docker.io/library/debian:12".to_owned(),
                digest: format!("sha256:{}", "ab".repeat(32)),
            },
            workload: Digest(self.noise()),
            ssh_host_key: SshKey([7; 32]),
            drafted_at: Timestamp(self.now),
            ends_at: Timestamp(ends_at),
            commit_by: Timestamp(self.now + 60_000),
            confirm_by: Timestamp(self.now + 90_000),
        };
        if self.rng.one_in(6) {
            draft.resources = Resources::volume(disk_mb);
            draft.rental = RentalType::OnDemand;
            draft.rates.compute_hour = Amount::ZERO;
            draft.listed_hour = Amount::ZERO;
            draft.egress = Egress::None;
            draft.public = None;
            draft.image = ImagePin::none();
        }
        draft.check().ok().map(|()| draft)
    }

    /// What has been used a while later.
    pub fn counters(&mut self, last: &Counters) -> Counters {
        let active = if self.rng.one_in(60) { self.rng.magnitude() >> 1 } else { self.rng.below(4_000_000) as u64 };
        let waived = if self.rng.one_in(4) { active / 2 } else { 0 };
        Counters {
            active: Millis(last.active.0.saturating_add(active)),
            waived: Millis(last.waived.0.saturating_add(waived)),
            paused: Millis(last.paused.0 + self.rng.below(1000) as u64),
            storage: Millis(last.storage.0.saturating_add(active)),
            rx_bytes: last.rx_bytes.saturating_add(self.rng.below(10_000_000) as u64),
            tx_bytes: last.tx_bytes.saturating_add(self.rng.magnitude() >> 20),
        }
    }

    /// Signs whatever these bytes are, with the key of a party.
    pub fn sign(&self, kind: &str, payload: &[u8], author: &NodeId) -> [u8; 64] {
        let digest = signed::digest(Record::context(kind), &self.network, payload);
        let party = self.parties.iter().find(|party| party.node == *author).unwrap_or(&self.parties[0]);
        party.key.sign(&digest.0)
    }
}
