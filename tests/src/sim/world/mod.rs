//! The world: virtual time, and everything that happens in it.

pub mod money;
mod post;
mod shell;
mod trade;
mod troubles;

use std::{collections::BTreeMap, sync::Arc};

use souk_protocol::{
    DocumentId, Keypair, LeaseId, NetworkId, NodeId,
    machine::{
        io::{DuePayment, Input, NoAnswer, RuntimeReport, Ticket, Token},
        pricing::OwnerAnswer,
    },
    message::{Action, Request, Response},
    negotiation::ImagePin,
};

use super::{
    check,
    dice::Dice,
    machine::{Machine, Step},
    net::{Net, pair},
    node::Node,
    owner,
    store::Store,
};

/// How long a request may take.
const REQUEST_TIMEOUT: u64 = 10_000;
/// How long a world may take to come to rest after its troubles.
const REST_WITHIN: u64 = 4 * 3_600_000;

/// What a world is made of.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The test that runs it.
    pub name: &'static str,
    /// The seed of everything random in it.
    pub seed: u64,
    /// Nodes.
    pub nodes: usize,
    /// Of them hosts, too.
    pub hosts: usize,
    /// Slots of a machine, at most.
    pub slots: u16,
    /// How long troubles and trade last, in virtual milliseconds.
    pub lasts: u64,
    /// Rents in that time.
    pub rents: u64,
    /// How long an instance is kept, at most, in virtual milliseconds.
    pub kept: u64,
    /// Messages lost, per mille.
    pub loss: u64,
    /// Requests repeated, at once or much later, per mille.
    pub repeat: u64,
    /// Crashes of nodes in that time.
    pub crashes: u64,
    /// Partitions in that time.
    pub partitions: u64,
    /// Container engines that go down in that time.
    pub outages: u64,
    /// Orders to container engines that fail, per mille.
    pub failing: u64,
    /// Slots that another node of the machine takes for a while.
    pub rivals: u64,
    /// Opens after which the two parties are cut apart for minutes, per mille.
    pub cuts: u64,
    /// Of the rents so many are interruptible, per mille; some of the others reserved, unless zero.
    pub bids: u64,
    /// Changes a renter wants of each lease.
    pub changes: u64,
    /// How often owners of machines change their minds.
    pub rethinks: u64,
    /// How long trade goes on without troubles, in virtual milliseconds, and everything is to come right.
    pub calm: u64,
    /// Of the hosts so many want to be paid, per mille.
    pub paid: u64,
    /// Steps of clocks, each of at most two seconds either way.
    pub clock_steps: u64,
}

/// What happened in a world that held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Events.
    pub events: u64,
    /// Leases that came to be.
    pub accepted: u64,
    /// Of them, volumes that were kept.
    pub volumes: u64,
    /// Of them closed since the accept came too late.
    pub unconfirmed: u64,
    /// Opens that were voided.
    pub voided: u64,
    /// Violations reported by engines.
    pub violations: u64,
    /// Crashes.
    pub crashes: u64,
    /// Changes that renters wanted.
    pub changes: u64,
    /// Looks for what is amiss in a calm world.
    pub looks: u64,
    /// Amendments in force in the end.
    pub amended: u64,
    /// Runs of interruptible instances that others ended.
    pub evicted: u64,
    /// Of them free, since they were shorter than their quantum.
    pub freed: u64,
    /// Sum of what was acknowledged in the end.
    pub acknowledged: u64,
    /// Payments made.
    pub payments: u64,
    /// Instances that were stopped for money.
    pub stopped: u64,
    /// Of them such that ran again.
    pub resumed: u64,
    /// First payments that came with an open.
    pub firsts: u64,
}

impl Outcome {
    /// The sum of two.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            events: self.events + other.events,
            accepted: self.accepted + other.accepted,
            volumes: self.volumes + other.volumes,
            unconfirmed: self.unconfirmed + other.unconfirmed,
            voided: self.voided + other.voided,
            violations: self.violations + other.violations,
            crashes: self.crashes + other.crashes,
            changes: self.changes + other.changes,
            looks: self.looks + other.looks,
            amended: self.amended + other.amended,
            evicted: self.evicted + other.evicted,
            freed: self.freed + other.freed,
            acknowledged: self.acknowledged.saturating_add(other.acknowledged),
            payments: self.payments + other.payments,
            stopped: self.stopped + other.stopped,
            resumed: self.resumed + other.resumed,
            firsts: self.firsts + other.firsts,
        }
    }
}

#[derive(Debug, Clone)]
enum Event {
    Request { to: usize, from: usize, message: u64, request: Box<Request> },
    Response { message: u64, result: Box<Result<Response, NoAnswer>> },
    Gossip { to: usize, from: usize, data: Arc<Told> },
    Flush { node: usize, run: u64, upto: Ticket },
    Wake { node: usize, run: u64, stamp: u64 },
    Step { node: usize, run: Option<u64>, lease: LeaseId, step: Step },
    Report { node: usize, run: u64, lease: LeaseId, report: RuntimeReport },
    Image { node: usize, run: u64, token: Token, reference: String },
    Owner { node: usize, run: u64, token: Token, answer: OwnerAnswer },
    Lock { node: usize, run: u64, lease: LeaseId, slots: Vec<u16> },
    LinkUp(usize, usize),
    LinkDown(usize, usize),
    Crash(usize),
    Start(usize),
    EngineDown(usize),
    EngineUp(usize),
    TellEngine { node: usize, run: u64 },
    Partition,
    Heal,
    Cut(usize, usize, bool),
    Rival(usize),
    RivalGone(usize, u16),
    ClockStep(usize),
    Rent(usize),
    Pay { node: usize, run: u64, due: Box<DuePayment> },
    Verified { node: usize, run: u64, settle: DocumentId, peer: NodeId, reference: String },
    Act { node: usize, lease: LeaseId, action: Action },
    Change { node: usize, lease: LeaseId },
    Rethink(usize),
    TellForeign { node: usize, run: u64 },
    Look,
    Calm,
    Rest,
}

/// Gossip on its way.
#[derive(Debug)]
struct Told {
    id: [u8; 32],
    data: Vec<u8>,
}

struct Message {
    from: usize,
    run: u64,
    token: Token,
}

/// A world.
pub struct World {
    settings: Settings,
    dice: Dice,
    now: u64,
    order: u64,
    queue: BTreeMap<(u64, u64), Event>,
    net: Net,
    pub(super) nodes: Vec<Node>,
    index: BTreeMap<NodeId, usize>,
    messages: BTreeMap<u64, Message>,
    next_message: u64,
    resting: bool,
    calm: bool,
    trace: bool,
    pub(super) outcome: Outcome,
    pub(super) bank: money::Bank,
}

type Held = Result<(), String>;

impl World {
    /// A world at its beginning.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let mut dice = Dice::new(settings.seed);
        let network = NetworkId::of_name("simulated");
        let mut nodes = Vec::new();
        for i in 0..settings.nodes {
            let key = Keypair::from_seed(&dice.bytes());
            let hosting = (i < settings.hosts).then(|| {
                let slots = u16::try_from(dice.range(1, u64::from(settings.slots) + 1)).unwrap_or(1);
                let machine = Machine { up: true, failing: settings.failing, ..Machine::default() };
                (machine, owner::setup(&mut dice, slots))
            });
            let store = Store::new(key.node_id(), network);
            let clock = i64::try_from(dice.range(0, 80_000)).unwrap_or(0) - 40_000;
            nodes.push(Node::new(key, store, hosting, clock));
        }
        let index = nodes.iter().enumerate().map(|(i, n)| (n.id, i)).collect();
        let net = Net::new(settings.nodes, settings.loss, settings.repeat);
        let trace = std::env::var_os("SOUK_SIM_TRACE").is_some();
        let mut world = Self {
            dice,
            now: 0,
            order: 0,
            queue: BTreeMap::new(),
            net,
            nodes,
            index,
            messages: BTreeMap::new(),
            next_message: 1,
            resting: false,
            calm: false,
            trace,
            outcome: Outcome::default(),
            bank: money::Bank::default(),
            settings,
        };
        world.plan();
        world
    }

    fn plan(&mut self) {
        let s = self.settings.clone();
        for node in 0..s.nodes {
            self.at(node as u64, Event::Start(node));
            for _ in 0..4 {
                let other = usize::try_from(self.dice.range(0, s.nodes as u64)).unwrap_or(0);
                if other != node {
                    self.net.wanted.insert(pair(node, other));
                }
            }
        }
        let any = |dice: &mut Dice, of: usize| usize::try_from(dice.range(0, of as u64)).unwrap_or(0);
        for _ in 0..s.rents {
            let (at, node) = (self.dice.range(5_000, s.lasts), any(&mut self.dice, s.nodes));
            self.at(at, Event::Rent(node));
        }
        for _ in 0..s.crashes {
            let (at, node) = (self.dice.range(1_000, s.lasts), any(&mut self.dice, s.nodes));
            self.at(at, Event::Crash(node));
        }
        for _ in 0..s.outages {
            let (at, node) = (self.dice.range(1_000, s.lasts), any(&mut self.dice, s.hosts));
            self.at(at, Event::EngineDown(node));
        }
        for _ in 0..s.rivals {
            let (at, node) = (self.dice.range(1_000, s.lasts), any(&mut self.dice, s.hosts));
            self.at(at, Event::Rival(node));
        }
        for _ in 0..s.clock_steps {
            let (at, node) = (self.dice.range(1_000, s.lasts), any(&mut self.dice, s.nodes));
            self.at(at, Event::ClockStep(node));
        }
        for _ in 0..s.partitions {
            let at = self.dice.range(1_000, s.lasts);
            let healed = at + self.dice.range(1_000, 200_000);
            self.at(at, Event::Partition);
            self.at(healed, Event::Heal);
        }
        for _ in 0..s.rethinks {
            let (at, node) = (self.dice.range(1_000, s.lasts), any(&mut self.dice, s.hosts));
            self.at(at, Event::Rethink(node));
        }
        if s.calm > 0 {
            self.at(s.lasts, Event::Calm);
        }
        self.at(s.lasts + s.calm, Event::Rest);
    }

    fn at(&mut self, at: u64, event: Event) {
        self.order += 1;
        self.queue.insert((at, self.order), event);
    }

    fn after(&mut self, low: u64, high: u64, event: Event) {
        let at = self.now + self.dice.range(low, high);
        self.at(at, event);
    }

    /// Runs it until everything has come to rest.
    ///
    /// # Errors
    /// The invariant that broke, by name.
    pub fn run(mut self) -> Result<Outcome, String> {
        while let Some(((at, _), event)) = self.queue.pop_first() {
            self.now = at;
            self.outcome.events += 1;
            if self.trace {
                eprint_line(&format!("{at} {event:?}"));
            }
            self.happen(event).map_err(|why| format!("at {} ms of seed {}: {why}", self.now, self.settings.seed))?;
            if self.resting && check::is_at_rest(&self) {
                break;
            }
            if self.now > self.settings.lasts + self.settings.calm + REST_WITHIN {
                return Err(format!("seed {}: it does not come to rest: {}", self.settings.seed, check::unrest(&self)));
            }
        }
        check::at_the_end(&mut self).map_err(|why| format!("in the end of seed {}: {why}", self.settings.seed))?;
        Ok(self.outcome)
    }

    /// Whether nothing in it can cost a host what it could have billed.
    pub(super) const fn is_exact(&self) -> bool {
        let s = &self.settings;
        s.crashes == 0 && s.outages == 0 && s.clock_steps == 0 && s.failing == 0
    }

    fn is_run(&self, node: usize, run: u64) -> bool {
        self.nodes[node].engine.is_some() && self.nodes[node].run == run
    }

    fn happen(&mut self, event: Event) -> Held {
        match event {
            Event::Request { to, from, message, request } => self.request(to, from, message, *request),
            Event::Response { message, result } => {
                let Some(m) = self.messages.remove(&message) else {
                    return Ok(());
                };
                if !self.is_run(m.from, m.run) {
                    return Ok(());
                }
                self.feed(m.from, Input::Response { token: m.token, result: *result })
            }
            Event::Gossip { to, from, data } => self.gossip(to, from, &data),
            Event::Flush { node, run, upto } if self.is_run(node, run) => self.flushed(node, upto),
            Event::Wake { node, run, stamp } => {
                let due = self.is_run(node, run) && self.nodes[node].wake.is_some_and(|(_, s)| s == stamp);
                if due {
                    self.nodes[node].wake = None;
                    return self.feed(node, Input::Tick);
                }
                Ok(())
            }
            Event::Step { node, run, lease, step } => self.step(node, run, lease, step),
            Event::Report { node, run, lease, report } if self.is_run(node, run) => {
                self.feed(node, Input::Runtime { lease, report })
            }
            Event::Image { node, run, token, reference } if self.is_run(node, run) => {
                let pin = ImagePin { reference, digest: owner::image_digest() };
                self.feed(node, Input::Image { token, result: Ok(pin) })
            }
            Event::Owner { node, run, token, answer } if self.is_run(node, run) => {
                self.feed(node, Input::Owner { token, answer })
            }
            Event::Lock { node, run, lease, slots } if self.is_run(node, run) => {
                let locked = self.nodes[node].hosting.as_mut().is_some_and(|(m, _)| m.lock(lease, &slots));
                self.feed(node, Input::Locked { lease, locked })
            }
            Event::LinkUp(a, b) => self.link_up(a, b),
            Event::LinkDown(a, b) if !self.net.reaches(a, b) => self.link_down(a, b),
            Event::Crash(node) => self.crash(node),
            Event::Start(node) => self.start(node),
            Event::EngineDown(node) => self.engine_down(node),
            Event::EngineUp(node) => self.engine_up(node),
            Event::TellEngine { node, run } if self.is_run(node, run) => {
                let up = self.nodes[node].hosting.as_ref().is_some_and(|(m, _)| m.up);
                self.feed(node, Input::RuntimeUp(up))
            }
            Event::Partition if !self.calm => {
                self.net.partition(&mut self.dice);
                for (a, b) in self.net.links.clone() {
                    if !self.net.reaches(a, b) {
                        self.after(500, 20_000, Event::LinkDown(a, b));
                    }
                }
                Ok(())
            }
            Event::Heal => {
                self.net.heal();
                for (a, b) in self.net.wanted.clone() {
                    self.after(1, 5_000, Event::LinkUp(a, b));
                }
                Ok(())
            }
            Event::Cut(a, b, apart) => {
                self.net.cut(a, b, apart && !self.calm);
                let next = if apart { Event::LinkDown(a, b) } else { Event::LinkUp(a, b) };
                self.after(100, 9_000, next);
                Ok(())
            }
            Event::Rival(node) if !self.calm => {
                if let Some((machine, setup)) = &mut self.nodes[node].hosting {
                    let slot = u16::try_from(self.dice.range(0, setup.slots.len() as u64)).unwrap_or(0);
                    if let std::collections::btree_map::Entry::Vacant(place) = machine.locks.entry(slot) {
                        place.insert(None);
                        let run = self.nodes[node].run;
                        self.after(0, 20_000, Event::TellForeign { node, run });
                        self.after(1_000, 120_000, Event::RivalGone(node, slot));
                    }
                }
                Ok(())
            }
            Event::RivalGone(node, slot) => {
                if let Some((machine, _)) = &mut self.nodes[node].hosting
                    && machine.locks.get(&slot) == Some(&None)
                {
                    machine.locks.remove(&slot);
                    let run = self.nodes[node].run;
                    self.after(0, 3_000, Event::TellForeign { node, run });
                }
                Ok(())
            }
            Event::ClockStep(node) if !self.calm => {
                self.nodes[node].clock_steps += 1;
                self.nodes[node].clock += i64::try_from(self.dice.range(0, 4_000)).unwrap_or(0) - 2_000;
                self.nodes[node].wake = None;
                if self.nodes[node].engine.is_some() { self.feed(node, Input::Tick) } else { Ok(()) }
            }
            Event::Rent(node) => self.rent(node),
            Event::Pay { node, run, due } if self.is_run(node, run) => self.pay(node, &due),
            Event::Verified { node, run, settle, peer, reference } if self.is_run(node, run) => {
                self.verified(node, settle, peer, &reference)
            }
            Event::Act { node, lease, action } => self.act(node, lease, action),
            Event::Change { node, lease } if !self.resting => self.change(node, lease),
            Event::Rethink(node) => self.rethink(node),
            Event::TellForeign { node, run } if self.is_run(node, run) => self.tell_foreign(node),
            Event::Look => self.look(),
            Event::Calm => self.calm_down(),
            Event::Rest => self.rest(),
            Event::Flush { .. }
            | Event::Report { .. }
            | Event::Image { .. }
            | Event::Owner { .. }
            | Event::Lock { .. }
            | Event::Pay { .. }
            | Event::Verified { .. }
            | Event::LinkDown(..)
            | Event::TellEngine { .. }
            | Event::Partition
            | Event::Rival(_)
            | Event::Change { .. }
            | Event::TellForeign { .. }
            | Event::ClockStep(_) => Ok(()),
        }
    }
}

#[allow(clippy::print_stderr)] // a trace that was asked for
fn eprint_line(line: &str) {
    eprintln!("{line}");
}
