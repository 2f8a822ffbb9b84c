//! All nodes of one topic, and what happens to them next.
//!
//! Owns the agenda and the clock. Engines are in `engines`, comparisons of modelled books in `compare`, nodes that come and go in
//! `away`.

mod away;
mod compare;
mod engines;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap},
};

use souk_protocol::{
    DocumentId, Keypair, NetworkId, NodeId, Timestamp, encode,
    machine::{
        engine::Engine,
        io::{Command, Input, Token},
        policy::HostSetup,
        record::Restore,
    },
    message::{Request, Response},
    offer::Notice,
    resources::SlotClass,
};

use crate::{
    books::{Books, Doc, Published},
    costs,
    figures::Figures,
    flood::{self, Flood, NEVER, Spread},
    geography, hosts,
    market::{self, Dice},
    mesh::Mesh,
    run::{Found, Plan},
};

/// When measuring begins.
const BASE: u64 = market::NOW.0;
/// Hosts start in the first ten minutes of this, so that renewals are as far apart as they come to be.
const WARM_UP: u64 = 25 * 60_000;
/// Between two comparisons of a node's book with a peer's, as `machine::sync` has it.
const COMPARE_EVERY: u64 = 60_000;
/// Books have so long to become equal after the last offer: less than the shortest rest of an offer's life.
const QUIET: u64 = 15 * 60_000;

/// A node that listens to this topic, by its number among all, and the class of its machine if that is offered here.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) node: u32,
    pub(crate) offers: Option<SlotClass>,
}

/// What a node sent and received.
#[derive(Debug, Clone, Default)]
pub(crate) struct Traffic {
    /// Offers by gossip, what gossip says of them, reconciliation: bytes.
    pub(crate) received: [u64; 3],
    /// Bytes.
    pub(crate) sent: u64,
    /// Both ways.
    pub(crate) messages: u64,
    /// Processor time, without what each message takes.
    pub(crate) ns: u64,
}

impl Traffic {
    pub(crate) fn add(&mut self, other: &Self) {
        self.received.iter_mut().zip(other.received).for_each(|(a, b)| *a += b);
        self.sent += other.sent;
        self.messages += other.messages;
        self.ns += other.ns;
    }
}

enum Event {
    Start(u32),
    Tick(u32),
    Change(u32),
    Compare(u32),
    Gossip { to: u32, doc: Doc },
    Asked { to: u32, from: u32, token: Token, request: Box<Request> },
    Answered { to: u32, token: Token, response: Option<Box<Response>> },
    Comes(u32),
    Goes(u32),
}

struct Entry {
    at: Reverse<(u64, u64)>,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

/// A topic's nodes: its members, the observers, one that comes late, one that is cut off.
pub(crate) struct World<'a> {
    plan: &'a Plan,
    dice: Dice,
    now: u64,
    agenda: BinaryHeap<Entry>,
    serial: u64,
    network: NetworkId,
    members: Vec<Member>,
    ids: Vec<NodeId>,
    index: HashMap<NodeId, u32>,
    net: Mesh,
    online: Vec<bool>,
    /// Of hosts, and of those that observe.
    engines: Vec<Option<Box<Engine>>>,
    tick_at: Vec<u64>,
    /// The first that observes; the last two are the cut off and the late one.
    watched: u32,
    setups: BTreeMap<u32, HostSetup>,
    machine_of: BTreeMap<u32, u32>,
    books: Books,
    flood: Flood,
    traffic: Vec<Traffic>,
    turn: Vec<u32>,
    waiting: HashMap<(u32, Token), (u32, Token)>,
    /// Until when a node's lines are busy with answers: its own, and those to it.
    busy: Vec<(u64, u64)>,
    tokens: u64,
    away: BTreeMap<u32, away::Return>,
    verdicts: [u64; 3],
    figures: Figures,
    offers: u64,
    offer_bytes: u64,
    copies: u64,
    expected: u64,
    page_bytes: (u64, u64),
}

impl<'a> World<'a> {
    /// A world at the beginning of its warm-up.
    pub(crate) fn new(plan: &'a Plan, members: Vec<Member>, observers: usize, mut dice: Dice) -> anyhow::Result<Self> {
        let network = NetworkId::of_name("scale");
        let nodes = members.len() + observers + 2;
        let regions: Vec<u8> = (0..nodes).map(|_| geography::region(&mut dice)).collect();
        let key = |n: usize| {
            let mut seed = [9; 32];
            let number = members.get(n).map_or(1 << 32 | n as u64, |m| u64::from(m.node));
            seed[..8].copy_from_slice(&number.to_be_bytes());
            Keypair::from_seed(&seed)
        };
        let ids: Vec<NodeId> = (0..nodes).map(|n| key(n).node_id()).collect();
        let began = BASE - WARM_UP;
        let (mut engines, mut setups, mut machine_of) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        let mut keys = Vec::new();
        for (n, id) in ids.iter().enumerate() {
            let class = members.get(n).and_then(|m| m.offers.as_ref());
            if let Some(class) = class {
                let setup = hosts::setup(*id, class, &mut dice);
                machine_of.insert(n as u32, keys.len() as u32);
                keys.push((*id, setup.machine));
                setups.insert(n as u32, setup);
            }
            let engine = (class.is_some() || n >= members.len())
                .then(|| Engine::new(key(n), network, Restore::default(), Timestamp(began)))
                .transpose()?;
            engines.push(engine.map(Box::new));
        }
        let mut online = vec![true; nodes];
        online[nodes - 1] = false;
        let mut world = Self {
            plan,
            now: began,
            agenda: BinaryHeap::new(),
            serial: 0,
            network,
            watched: members.len() as u32,
            index: ids.iter().enumerate().map(|(n, id)| (*id, n as u32)).collect(),
            ids,
            net: Mesh::new(&regions, &mut dice),
            online,
            engines,
            tick_at: vec![u64::MAX; nodes],
            setups,
            machine_of,
            books: Books::new(nodes, keys),
            flood: Flood::default(),
            traffic: vec![Traffic::default(); nodes],
            turn: (0..nodes).map(|_| dice.below(64) as u32).collect(),
            waiting: HashMap::new(),
            busy: vec![(0, 0); nodes],
            tokens: 0,
            away: BTreeMap::new(),
            verdicts: [0; 3],
            figures: Figures::default(),
            offers: 0,
            offer_bytes: 0,
            copies: 0,
            expected: 0,
            page_bytes: costs::page_bytes(),
            members,
            dice,
        };
        let hosts: Vec<u32> = world.setups.keys().copied().collect();
        for host in hosts {
            let at = began + world.dice.below(10 * 60_000);
            world.plan_at(at, Event::Start(host));
        }
        Ok(world)
    }

    /// Runs it to its end.
    pub(crate) fn run(mut self) -> Found {
        self.run_until(BASE);
        self.observe();
        let seconds = self.plan.seconds * 1000;
        let (late, cut) = (self.ids.len() as u32 - 1, self.ids.len() as u32 - 2);
        self.plan_at(BASE + seconds / 3, Event::Comes(late));
        self.plan_at(BASE + seconds / 6, Event::Goes(cut));
        self.plan_at(BASE + seconds / 6 + (seconds * 2 / 3).min(600_000), Event::Comes(cut));
        for node in 0..self.watched {
            let at = BASE + self.dice.below(COMPARE_EVERY);
            self.plan_at(at, Event::Compare(node));
        }
        self.run_until(BASE + seconds);
        let traffic = self.traffic.clone();
        let (offers, expected) = (self.offers, self.expected);
        let equal_after = self.quiet();
        self.found(traffic, offers, expected, equal_after)
    }

    fn found(mut self, mut traffic: Vec<Traffic>, offers: u64, expected: u64, equal_after: Option<u64>) -> Found {
        // What was told of in heartbeats: each node tells of each offer, and is told as often.
        let told = u64::from(flood::TOLD) * flood::LAZY as u64;
        let rate = offers as f64 / self.plan.seconds as f64;
        let busy = 1.0 - (-rate * f64::from(flood::HEARTBEAT * flood::TOLD) / 1000.0).exp();
        let beats = (self.plan.seconds * 1000 / u64::from(flood::HEARTBEAT)) as f64 * busy * flood::LAZY as f64;
        for traffic in &mut traffic {
            let bytes = offers * told * costs::ID_BYTES + beats as u64 * costs::NOTE_BYTES;
            traffic.received[1] += bytes;
            traffic.sent += bytes;
            traffic.messages += 2 * beats as u64;
        }
        let (late, cut) = (self.ids.len() as u32 - 1, self.ids.len() as u32 - 2);
        let caught = |world: &Self, node: u32| world.away.get(&node).map(|r| r.found).unwrap_or_default();
        self.figures = Figures {
            observers: self.ids.len() as u32 - self.watched,
            largest_topic: (self.members.len() as u32, self.setups.len() as u32),
            joiner: caught(&self, late),
            cut_off: caught(&self, cut),
            equal_after: equal_after.map(|ms| ms as f64 / 1000.0),
            verdicts: self.verdicts,
            ..Figures::default()
        };
        Found {
            members: self.members,
            traffic,
            figures: self.figures,
            offers,
            offer_bytes: self.offer_bytes,
            copies: self.copies,
            expected,
            missed: self.books.missed,
            to_node: self.books.to_node,
            to_all: self.books.to_all,
        }
    }

    fn plan_at(&mut self, at: u64, event: Event) {
        self.serial += 1;
        self.agenda.push(Entry { at: Reverse((at, self.serial)), event });
    }

    fn run_until(&mut self, end: u64) {
        while self.agenda.peek().is_some_and(|e| e.at.0.0 <= end)
            && let Some(Entry { at: Reverse((at, _)), event }) = self.agenda.pop()
        {
            self.now = at;
            self.books.settle(&self.online, at);
            self.happen(event);
        }
        self.now = end;
        self.books.settle(&self.online, end);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Start(host) => {
                self.configure(host);
                self.handle(host, Input::RuntimeUp(true));
                let at = self.now + hosts::until_next_change(&mut self.dice);
                self.plan_at(at, Event::Change(host));
            }
            Event::Change(host) => {
                if let Some(setup) = self.setups.get_mut(&host) {
                    hosts::change(setup, &mut self.dice);
                }
                self.configure(host);
                let at = self.now + hosts::until_next_change(&mut self.dice);
                self.plan_at(at, Event::Change(host));
            }
            Event::Tick(node) => {
                if self.tick_at[node as usize] == self.now {
                    self.tick_at[node as usize] = u64::MAX;
                    self.handle(node, Input::Tick);
                }
            }
            Event::Compare(node) => {
                self.compare_next(node);
                self.plan_at(self.now + COMPARE_EVERY, Event::Compare(node));
            }
            Event::Gossip { to, doc } => self.gossiped(to, doc),
            Event::Asked { to, from, token, request } => self.asked(to, from, token, *request),
            Event::Answered { to, token, response } => self.answered(to, token, response.map(|r| *r)),
            Event::Comes(node) => self.comes(node),
            Event::Goes(node) => self.goes(node),
        }
    }

    fn configure(&mut self, host: u32) {
        if let Some(setup) = self.setups.get(&host) {
            let setup = Box::new(setup.clone());
            self.handle(host, Input::Command(Command::Host(Some(setup))));
        }
    }

    /// An engine's notice goes out.
    fn publish(&mut self, host: u32, notice: &Notice) {
        let Some(machine) = self.machine_of.get(&host).copied() else { return };
        let Notice::Offer(signed) = notice else { return };
        let id: DocumentId = signed.id(&self.network);
        let offer = self.setups.get(&host).and_then(|s| {
            let engine = self.engines[host as usize].as_ref()?;
            engine.book().offer(&(self.ids[host as usize], s.machine))
        });
        let Some((seq, until)) = offer.map(|o| (o.seq, o.valid_until.0)) else { return };
        let bytes = encode::to_bytes(notice);
        let size = bytes.len();
        let doc = self.books.add(Published { machine, seq, id, bytes, at: self.now, valid_until: until });
        if self.now < BASE {
            return self.books.everywhere(doc);
        }
        self.offers += 1;
        self.offer_bytes += size as u64;
        let spread = Spread {
            net: &self.net,
            online: &self.online,
            origin: host,
            at: self.now - BASE,
            bytes: size,
            loss: self.plan.loss_permille,
            unwanted_from: self.plan.unwanted_from,
        };
        let (arrival, last) = self.flood.run(&spread, &mut self.dice);
        let wire = size as u64 + costs::GOSSIP_BYTES;
        let note = costs::NOTE_BYTES + costs::ID_BYTES;
        for (node, copies) in self.flood.copies.iter().enumerate() {
            let traffic = &mut self.traffic[node];
            let (received, sent) = (u64::from(copies.received), u64::from(copies.sent));
            let (noted, notes) = (u64::from(copies.notes.0), u64::from(copies.notes.1));
            traffic.received[0] += received * wire;
            traffic.received[1] += noted * note;
            traffic.sent += sent * wire + notes * note;
            traffic.messages += received + sent + noted + notes;
            if received > 0 {
                traffic.ns += costs::INTAKE_NS + (received - 1) * costs::DUPLICATE_NS;
            }
            self.copies += received;
            self.expected += u64::from(self.online[node] && node as u32 != host);
        }
        for node in self.watched..self.ids.len() as u32 {
            let after = arrival[node as usize];
            if after != NEVER {
                self.plan_at(self.now + u64::from(after), Event::Gossip { to: node, doc });
            }
        }
        self.books.fly(doc, arrival, last);
    }
}
