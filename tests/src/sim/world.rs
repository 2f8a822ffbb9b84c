//! The world: virtual time, and everything that happens in it.

use std::{collections::BTreeMap, sync::Arc};

use souk_protocol::{
    Keypair, LeaseId, NetworkId, NodeId, Nonce, encode,
    lease::LeaseState,
    machine::{
        engine::Engine,
        io::{Command, Input, NoAnswer, Output, RuntimeOrder, RuntimeReport, Step as Progress, Ticket, Token, Verdict},
        renter_lease::Opened,
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
    /// Of them closed since the accept came too late.
    pub unconfirmed: u64,
    /// Opens that were voided.
    pub voided: u64,
    /// Violations reported by engines.
    pub violations: u64,
    /// Crashes.
    pub crashes: u64,
    /// Sum of what was acknowledged in the end.
    pub acknowledged: u64,
}

impl Outcome {
    /// The sum of two.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            events: self.events + other.events,
            accepted: self.accepted + other.accepted,
            unconfirmed: self.unconfirmed + other.unconfirmed,
            voided: self.voided + other.voided,
            violations: self.violations + other.violations,
            crashes: self.crashes + other.crashes,
            acknowledged: self.acknowledged + other.acknowledged,
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
    Act { node: usize, lease: LeaseId, action: Action },
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
    trace: bool,
    pub(super) outcome: Outcome,
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
            trace,
            outcome: Outcome::default(),
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
        self.at(s.lasts, Event::Rest);
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
            if self.now > self.settings.lasts + REST_WITHIN {
                return Err(format!("seed {}: it does not come to rest: {}", self.settings.seed, check::unrest(&self)));
            }
        }
        check::at_the_end(&mut self).map_err(|why| format!("in the end of seed {}: {why}", self.settings.seed))?;
        Ok(self.outcome)
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
            Event::Partition if !self.resting => {
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
                self.net.cut(a, b, apart && !self.resting);
                let next = if apart { Event::LinkDown(a, b) } else { Event::LinkUp(a, b) };
                self.after(100, 9_000, next);
                Ok(())
            }
            Event::Rival(node) if !self.resting => {
                if let Some((machine, setup)) = &mut self.nodes[node].hosting {
                    let slot = u16::try_from(self.dice.range(0, setup.slots.len() as u64)).unwrap_or(0);
                    if let std::collections::btree_map::Entry::Vacant(place) = machine.locks.entry(slot) {
                        place.insert(None);
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
                }
                Ok(())
            }
            Event::ClockStep(node) if !self.resting => {
                self.nodes[node].clock += i64::try_from(self.dice.range(0, 4_000)).unwrap_or(0) - 2_000;
                self.nodes[node].wake = None;
                if self.nodes[node].engine.is_some() { self.feed(node, Input::Tick) } else { Ok(()) }
            }
            Event::Rent(node) => self.rent(node),
            Event::Act { node, lease, action } => self.act(node, lease, action),
            Event::Rest => self.rest(),
            Event::Flush { .. }
            | Event::Report { .. }
            | Event::Image { .. }
            | Event::Lock { .. }
            | Event::LinkDown(..)
            | Event::TellEngine { .. }
            | Event::Partition
            | Event::Rival(_)
            | Event::ClockStep(_) => Ok(()),
        }
    }

    /// Gives an input to a node's engine, and carries out what comes of it.
    fn feed(&mut self, node: usize, input: Input) -> Held {
        let time = self.nodes[node].time(self.now);
        let Some(engine) = &mut self.nodes[node].engine else {
            return Ok(());
        };
        engine.handle(input, time);
        if let Some((at, why)) = engine.deadline()
            && at <= time
        {
            return Err(format!("bounded: the engine would spin, since {why}"));
        }
        self.drain(node)?;
        check::at_each_step(&self.nodes[node], time)
    }

    fn drain(&mut self, node: usize) -> Held {
        while let Some(output) = self.nodes[node].engine.as_mut().and_then(Engine::poll_output) {
            let n = &mut self.nodes[node];
            let after = match &output {
                Output::Send { after, .. }
                | Output::Reply { after, .. }
                | Output::Publish { after, .. }
                | Output::Runtime { after, .. } => *after,
                Output::Recall { .. } => Some(n.newest),
                Output::Persist { ticket, record } => {
                    if *ticket <= n.newest {
                        return Err("tickets do not rise".to_owned());
                    }
                    n.newest = *ticket;
                    n.store.append(*ticket, (**record).clone());
                    continue;
                }
                Output::Verdict { .. }
                | Output::ResolveImage { .. }
                | Output::LockSlots { .. }
                | Output::UnlockSlots { .. }
                | Output::Step { .. }
                | Output::Done { .. }
                | Output::Changed { .. }
                | Output::BookChanged { .. }
                | Output::Violation(_) => None,
            };
            match after {
                Some(ticket) if ticket > n.durable => n.outbox.push_back((ticket, output)),
                Some(_) | None => self.carry_out(node, output)?,
            }
        }
        self.flush(node);
        self.sleep(node);
        Ok(())
    }

    fn flush(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        if let Some(upto) = n.store.newest().filter(|_| !n.flushing) {
            n.flushing = true;
            let run = n.run;
            let slow = self.dice.permille(20);
            self.after(1, if slow { 800 } else { 12 }, Event::Flush { node, run, upto });
        }
    }

    fn flushed(&mut self, node: usize, upto: Ticket) -> Held {
        let n = &mut self.nodes[node];
        n.flushing = false;
        n.store.flush(upto)?;
        n.durable = upto;
        while let Some((_, output)) = self.nodes[node].outbox.pop_front_if(|(ticket, _)| *ticket <= upto) {
            self.carry_out(node, output)?;
        }
        self.flush(node);
        Ok(())
    }

    fn sleep(&mut self, node: usize) {
        let n = &mut self.nodes[node];
        let Some((at, _)) = n.engine.as_ref().and_then(Engine::deadline) else {
            n.wake = None;
            return;
        };
        let virtual_at = self.now + at.since(n.time(self.now)).0;
        if n.wake.is_some_and(|(due, _)| due == virtual_at) {
            return;
        }
        let stamp = self.order;
        n.wake = Some((virtual_at, stamp));
        let run = n.run;
        self.at(virtual_at, Event::Wake { node, run, stamp });
    }

    fn carry_out(&mut self, node: usize, output: Output) -> Held {
        let run = self.nodes[node].run;
        match output {
            Output::Send { token, to, request, .. } => {
                if !self.nodes[node].store.has_sent(&request) {
                    return Err(format!("nothing-lost: sent before it was on disk: {request:?}"));
                }
                self.send(node, token, to, request);
            }
            Output::Reply { token, response, .. } => self.reply(node, token, *response)?,
            Output::Recall { token, lease, what, otherwise } => {
                let response = self.nodes[node].store.recall(&lease, what, *otherwise);
                self.reply(node, token, response)?;
            }
            Output::Verdict { token, verdict } => {
                let data = self.nodes[node].gossip.remove(&token).ok_or("a verdict on nothing")?;
                match verdict {
                    Verdict::Accept => self.spread(node, data),
                    Verdict::Ignore => {}
                    Verdict::Reject => return Err("an honest node's gossip is rejected".to_owned()),
                }
            }
            Output::Publish { notice, .. } => {
                self.spread(node, encode::to_bytes(&*notice));
            }
            Output::Runtime { lease, order, .. } => self.order(node, lease, order),
            Output::ResolveImage { token, reference, .. } => {
                self.after(1, 300, Event::Image { node, run, token, reference });
            }
            Output::LockSlots { lease, slots } => self.after(0, 5, Event::Lock { node, run, lease, slots }),
            Output::UnlockSlots { slots } => {
                if let Some((machine, _)) = &mut self.nodes[node].hosting {
                    machine.unlock(&slots);
                }
            }
            Output::Step { step, .. } => self.progressed(node, *step),
            Output::Violation(violation) => {
                self.outcome.violations += 1;
                return Err(format!("an honest node is blamed: {violation}"));
            }
            Output::Done { .. } | Output::Changed { .. } | Output::BookChanged { .. } | Output::Persist { .. } => {}
        }
        Ok(())
    }

    fn send(&mut self, from: usize, token: Token, to: NodeId, request: Box<Request>) {
        let message = self.next_message;
        self.next_message += 1;
        self.messages.insert(message, Message { from, run: self.nodes[from].run, token });
        let no_answer = Box::new(Err(NoAnswer { why: "the peer did not answer in time".to_owned() }));
        self.at(self.now + REQUEST_TIMEOUT, Event::Response { message, result: no_answer });
        let Some(to) = self.index.get(&to).copied() else {
            return;
        };
        let alive = self.nodes[to].engine.is_some() && self.net.reaches(from, to);
        if alive && !self.net.links.contains(&pair(from, to)) {
            self.net.wanted.insert(pair(from, to));
            self.after(1, 40, Event::LinkUp(from, to));
        }
        if let Some(delay) = self.net.delay(&mut self.dice).filter(|_| alive) {
            let at = self.now + delay;
            if matches!(*request, Request::Commit { .. }) && self.dice.permille(self.settings.cuts) {
                // The open arrives, its answer does not, and nothing else does for a while.
                self.at(at + 1, Event::Cut(from, to, true));
                let joined = at + self.dice.range(20_000, 240_000);
                self.at(joined, Event::Cut(from, to, false));
            }
            if self.dice.permille(self.net.repeat) {
                let much_later = self.dice.permille(300);
                let later = at + self.dice.range(1, if much_later { 600_000 } else { 3_000 });
                let again = Event::Request { to, from, message: 0, request: request.clone() };
                self.at(later, again);
            }
            self.at(at, Event::Request { to, from, message, request });
        }
    }

    fn request(&mut self, to: usize, from: usize, message: u64, request: Request) -> Held {
        if self.nodes[to].engine.is_none() || !self.net.reaches(from, to) {
            return Ok(());
        }
        let n = &mut self.nodes[to];
        let token = n.token();
        n.inbound.insert(token, (from, message));
        let from = self.nodes[from].id;
        self.feed(to, Input::Request { from, token, request })
    }

    fn reply(&mut self, node: usize, token: Token, response: Response) -> Held {
        if !self.nodes[node].store.has_answered(&response) {
            return Err(format!("nothing-lost: answered before it was on disk: {response:?}"));
        }
        let asked = self.nodes[node].inbound.remove(&token);
        let (to, message) = asked.ok_or("every request gets exactly one reply: a second one")?;
        if message == 0 || !self.net.reaches(node, to) {
            return Ok(());
        }
        if let Some(delay) = self.net.delay(&mut self.dice) {
            self.at(self.now + delay, Event::Response { message, result: Box::new(Ok(response)) });
        }
        Ok(())
    }

    fn spread(&mut self, from: usize, data: Vec<u8>) {
        let told = Arc::new(Told { id: *souk_protocol::Digest::of(&data).as_bytes(), data });
        self.nodes[from].seen.insert(told.id);
        for to in self.net.neighbours(from) {
            if let Some(delay) = self.net.delay(&mut self.dice) {
                self.at(self.now + delay, Event::Gossip { to, from, data: Arc::clone(&told) });
            }
        }
    }

    fn gossip(&mut self, to: usize, from: usize, told: &Told) -> Held {
        if self.nodes[to].engine.is_none() || !self.net.reaches(from, to) || !self.nodes[to].seen.insert(told.id) {
            return Ok(());
        }
        let (token, data) = (self.nodes[to].token(), told.data.clone());
        self.nodes[to].gossip.insert(token, data.clone());
        let from = self.nodes[from].id;
        self.feed(to, Input::Gossip { token, from, data })
    }

    fn link_up(&mut self, a: usize, b: usize) -> Held {
        let alive = self.nodes[a].engine.is_some() && self.nodes[b].engine.is_some();
        if alive && self.net.reaches(a, b) && self.net.link(a, b) {
            let (id_a, id_b) = (self.nodes[a].id, self.nodes[b].id);
            self.feed(a, Input::Connected(id_b))?;
            self.feed(b, Input::Connected(id_a))?;
        }
        Ok(())
    }

    fn link_down(&mut self, a: usize, b: usize) -> Held {
        if self.net.unlink(a, b) {
            let (id_a, id_b) = (self.nodes[a].id, self.nodes[b].id);
            self.feed(a, Input::Disconnected(id_b))?;
            self.feed(b, Input::Disconnected(id_a))?;
        }
        Ok(())
    }

    fn crash(&mut self, node: usize) -> Held {
        if self.nodes[node].engine.take().is_none() || self.resting {
            return Ok(());
        }
        self.outcome.crashes += 1;
        let n = &mut self.nodes[node];
        let kept = usize::try_from(self.dice.range(0, n.store.waiting() as u64 + 1)).unwrap_or(0);
        n.store.crash(kept)?;
        n.outbox.clear();
        n.inbound.clear();
        n.gossip.clear();
        n.seen.clear();
        n.flushing = false;
        n.wake = None;
        if let Some((machine, _)) = &mut n.hosting {
            machine.node_died();
        }
        for other in self.net.neighbours(node) {
            self.link_down(node, other)?;
        }
        self.after(100, 60_000, Event::Start(node));
        Ok(())
    }

    fn start(&mut self, node: usize) -> Held {
        if self.nodes[node].engine.is_some() {
            return Ok(());
        }
        let network = NetworkId::of_name("simulated");
        let time = self.nodes[node].time(self.now);
        let n = &mut self.nodes[node];
        n.run += 1;
        n.newest = Ticket(0);
        n.durable = Ticket(0);
        let engine = Engine::new(n.key.clone(), network, n.store.restore(time), time);
        n.engine = Some(engine.map_err(|e| format!("nothing-lost: {e}"))?);
        let run = n.run;
        self.drain(node)?;
        // As the shell does: the offer and the runtime's news come in either order.
        let runtime_first = self.dice.permille(500);
        let setup = self.nodes[node].hosting.as_ref().map(|(_, setup)| Box::new(setup.clone()));
        let up = self.nodes[node].hosting.as_ref().is_some_and(|(m, _)| m.up);
        if runtime_first {
            self.feed(node, Input::RuntimeUp(up))?;
        } else {
            self.after(10, 3_000, Event::TellEngine { node, run });
        }
        self.feed(node, Input::Command(Command::Host(setup)))?;
        for (a, b) in self.net.wanted.clone() {
            if a == node || b == node {
                self.after(1, 4_000, Event::LinkUp(a, b));
            }
        }
        Ok(())
    }

    fn order(&mut self, node: usize, lease: LeaseId, order: Box<RuntimeOrder>) {
        let run = self.nodes[node].run;
        let takes = match &*order {
            RuntimeOrder::Prepare { .. } => self.dice.range(10, 20_000),
            RuntimeOrder::Start => self.dice.range(5, 800),
            RuntimeOrder::Stop(_) | RuntimeOrder::Destroy => self.dice.range(5, 9_000),
            RuntimeOrder::Adopt { .. } => self.dice.range(1, 200),
        };
        if let Some((machine, _)) = &mut self.nodes[node].hosting {
            let free = machine.busy_until.get(&lease).copied().unwrap_or(0).max(self.now);
            let at = free + takes;
            machine.busy_until.insert(lease, at);
            self.at(at, Event::Step { node, run: Some(run), lease, step: Step::Order(order) });
        }
    }

    fn step(&mut self, node: usize, run: Option<u64>, lease: LeaseId, step: Step) -> Held {
        // What a dead node had ordered may have got through to the container engine, or not.
        let orphaned = run.is_some_and(|run| !self.is_run(node, run));
        if orphaned && self.dice.permille(500) {
            return Ok(());
        }
        let (now, current) = (self.now, self.nodes[node].run);
        let Some((machine, _)) = &mut self.nodes[node].hosting else {
            return Ok(());
        };
        if !machine.up {
            if !orphaned {
                machine.deferred.push((lease, step, current));
            }
            return Ok(());
        }
        let (report, ends) = machine.step(lease, step, &mut self.dice, now)?;
        if let Some((start, after)) = ends {
            self.at(now.saturating_add(after), Event::Step { node, run: None, lease, step: Step::Exit(start) });
        }
        if let Some(report) = report.filter(|_| !orphaned && self.nodes[node].engine.is_some()) {
            self.at(now + 1, Event::Report { node, run: current, lease, report });
        }
        Ok(())
    }

    fn engine_down(&mut self, node: usize) -> Held {
        let now = self.now;
        let run = self.nodes[node].run;
        let Some((machine, _)) = &mut self.nodes[node].hosting else {
            return Ok(());
        };
        if !machine.up || self.resting {
            return Ok(());
        }
        machine.up = false;
        if self.dice.permille(600) {
            machine.kill_all(now);
        }
        self.after(1, 1_000, Event::TellEngine { node, run });
        self.after(2_000, 90_000, Event::EngineUp(node));
        Ok(())
    }

    fn engine_up(&mut self, node: usize) -> Held {
        let run = self.nodes[node].run;
        let Some((machine, _)) = &mut self.nodes[node].hosting else {
            return Ok(());
        };
        if machine.up {
            return Ok(());
        }
        machine.up = true;
        let deferred = std::mem::take(&mut machine.deferred);
        self.after(1, 500, Event::TellEngine { node, run });
        for (lease, step, of) in deferred {
            self.at(self.now, Event::Step { node, run: Some(of), lease, step });
        }
        Ok(())
    }

    fn rent(&mut self, node: usize) -> Held {
        let wish = self.nodes[node].engine.as_ref().and_then(|e| owner::wish(&mut self.dice, e));
        let Some(wish) = wish.filter(|_| !self.resting) else {
            return Ok(());
        };
        let token = self.nodes[node].token();
        self.feed(node, Input::Command(Command::Rent { token, wish: Box::new(wish) }))
    }

    /// An owner hears of a negotiation, and makes plans for the instance.
    fn progressed(&mut self, node: usize, step: Progress) {
        let Progress::Accepted { lease } = step else {
            return;
        };
        let kept = self.settings.kept;
        for action in [Action::Stop, Action::Start, Action::Start] {
            if self.dice.permille(400) {
                self.after(100, kept, Event::Act { node, lease, action });
            }
        }
        self.after(kept / 4, kept, Event::Act { node, lease, action: Action::Destroy });
    }

    fn act(&mut self, node: usize, lease: LeaseId, action: Action) -> Held {
        let open =
            self.nodes[node].engine.as_ref().and_then(|e| e.renter().leases().get(&lease)).is_some_and(|l| {
                matches!(l.answer(), Opened::Accepted(_)) && !matches!(l.state(), LeaseState::Ended(_))
            });
        if !open {
            return Ok(());
        }
        let (token, nonce) = (self.nodes[node].token(), Nonce(self.dice.bytes()));
        self.feed(node, Input::Command(Command::Control { token, lease, action, nonce }))
    }

    /// Troubles are over: everything comes back, and owners destroy what they still have.
    fn rest(&mut self) -> Held {
        self.resting = true;
        self.net.loss = 0;
        self.net.repeat = 0;
        self.net.heal();
        for node in 0..self.nodes.len() {
            self.start(node)?;
            self.engine_up(node)?;
            if let Some((machine, _)) = &mut self.nodes[node].hosting {
                machine.failing = 0;
                machine.locks.retain(|_, holder| holder.is_some());
            }
            let rented = self.nodes[node].engine.iter().flat_map(|e| e.renter().leases().keys().copied());
            for lease in rented.collect::<Vec<_>>() {
                self.after(1, 20_000, Event::Act { node, lease, action: Action::Destroy });
            }
        }
        for (a, b) in self.net.wanted.clone() {
            self.after(1, 5_000, Event::LinkUp(a, b));
        }
        self.after(60_000, 61_000, Event::Rest);
        Ok(())
    }
}

#[allow(clippy::print_stderr)] // a trace that was asked for
fn eprint_line(line: &str) {
    eprintln!("{line}");
}
