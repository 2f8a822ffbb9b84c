//! A host that is paid before use and its renter, both whole engines, for hours: slices double, leases come and go, and payments
//! are made by programs that take minutes. At each step neither side can lose more than a slice, and nothing stalls for ever.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

use std::collections::{BTreeMap, BTreeSet};

use super::{
    account::{AccountPolicy, Lending, Note},
    engine::Engine,
    io::{Command, DuePayment, Input, MadePayment, NoAnswer, Output, RuntimeOrder, RuntimeReport, Step, Token, Wish},
    policy::HostSetup,
    record::Restore,
    testkit::{NOW, key, network, setup},
};
use crate::{
    Amount, Currency, DocumentId, LeaseId, Millis, Nonce, Timestamp,
    lease::{LeaseState, PauseReason},
    limits,
    message::{Action, Cause, Request, Response},
    negotiation::{ImagePin, RentalType},
    payment::PayWhen,
    resources::Egress,
    workload::Workload,
};

const HOST: usize = 0;
const RENTER: usize = 1;
/// How long a message is on its way.
const LATENCY: Millis = Millis(40);
const TICK: Millis = Millis::from_secs(30);
/// An hour of one slot, and what a slot costs in five minutes, in nano-units.
const HOUR: u64 = 1_000_000_000;
const FIRST: u64 = HOUR / 12;
/// What a slot costs in the time by which two meters may differ, twice.
const SLACK: u64 = HOUR / 360;

#[derive(Debug)]
enum Happens {
    Request { to: usize, asked: Token, request: Box<Request> },
    Input { to: usize, input: Box<Input> },
    Paid(Box<DuePayment>),
    Looked { settle: DocumentId, reference: String },
}

/// The two, and a bank.
struct World {
    engines: [Engine; 2],
    now: Timestamp,
    order: u64,
    events: BTreeMap<(Timestamp, u64), Happens>,
    /// Whom an answer to a request goes to, by who was asked and under which token.
    asked: BTreeMap<(usize, Token), Token>,
    token: u64,
    /// How long the payer's program takes, and the payee's: for first payments, which an open waits for, and for others.
    first: (Millis, Millis),
    later: (Millis, Millis),
    bank: BTreeMap<String, Amount>,
    /// One payment at a time to one peer, as a node's payouts have it: what is asked for meanwhile is asked for again.
    paying: bool,
    /// What the host has seen of it.
    arrived: Amount,
    leases: Vec<LeaseId>,
    failed: Vec<String>,
    /// Since when a lease stands still for money, and the longest that one ever did.
    stands: BTreeMap<LeaseId, Timestamp>,
    longest: Millis,
    pauses: u32,
    /// What either side could have lost at most, as parts of a slice then (in thousandths), and the slices there were.
    worst: [u64; 2],
    slices: BTreeSet<Amount>,
}

impl World {
    fn new(first: (Millis, Millis), later: (Millis, Millis)) -> Self {
        let engine = |seed| Engine::new(key(seed), network(), Restore::default(), NOW).unwrap();
        let mut world = Self {
            engines: [engine(1), engine(2)],
            now: NOW,
            order: 0,
            events: BTreeMap::new(),
            asked: BTreeMap::new(),
            token: 1 << 20,
            first,
            later,
            bank: BTreeMap::new(),
            paying: false,
            arrived: Amount::ZERO,
            leases: Vec::new(),
            failed: Vec::new(),
            stands: BTreeMap::new(),
            longest: Millis(0),
            pauses: 0,
            worst: [0, 0],
            slices: BTreeSet::new(),
        };
        let lending =
            Lending { methods: vec!["bank".to_owned()], strangers: Some(PayWhen::Before), ..Lending::default() };
        let policy = AccountPolicy { lending, ..AccountPolicy::default() };
        world.feed(HOST, Input::RuntimeUp(true));
        world.feed(HOST, Input::Command(Command::Accounts(Box::new(policy))));
        let setup = HostSetup { tick: TICK, ..setup() };
        world.feed(HOST, Input::Command(Command::Host(Some(Box::new(setup)))));
        world.feed(RENTER, Input::Command(Command::Accounts(Box::default())));
        world.feed(RENTER, Input::Command(Command::Host(None)));
        for (one, other) in [(HOST, 2), (RENTER, 1)] {
            world.feed(one, Input::Connected(key(other).node_id()));
        }
        world.run(Millis::from_secs(10));
        world
    }

    fn token(&mut self) -> Token {
        self.token += 1;
        Token(self.token)
    }

    fn after(&mut self, time: Millis, what: Happens) {
        self.order += 1;
        self.events.insert((self.now + time, self.order), what);
    }

    fn feed(&mut self, to: usize, input: Input) {
        self.engines[to].handle(input, self.now);
        while let Some(output) = self.engines[to].poll_output() {
            self.carry_out(to, output);
        }
    }

    fn carry_out(&mut self, by: usize, output: Output) {
        let other = 1 - by;
        let soon = |input| Happens::Input { to: by, input: Box::new(input) };
        match output {
            Output::Send { token, request, .. } if matches!(*request, Request::Meet(_)) => {
                // Chains are compared elsewhere.
                let why = "it did not answer".to_owned();
                self.after(LATENCY, soon(Input::Response { token, result: Err(NoAnswer { why }) }));
            }
            Output::Send { token, request, .. } => {
                self.after(LATENCY, Happens::Request { to: other, asked: token, request });
            }
            Output::Reply { token, response, .. } => self.answer(by, token, *response),
            Output::Recall { token, otherwise, .. } => self.answer(by, token, *otherwise),
            Output::Publish { notice, .. } => {
                let (token, from) = (self.token(), self.engines[by].me());
                let input = Box::new(Input::Gossip { token, from, data: crate::encode::to_bytes(&*notice) });
                self.after(LATENCY, Happens::Input { to: other, input });
            }
            Output::Runtime { lease, order, .. } => {
                let report = match *order {
                    RuntimeOrder::Prepare { .. } => RuntimeReport::Prepared,
                    RuntimeOrder::Start { .. } => RuntimeReport::Started,
                    RuntimeOrder::Stop(_) => RuntimeReport::Exited { code: 143, by: Cause::Host, note: String::new() },
                    RuntimeOrder::Destroy => RuntimeReport::Destroyed,
                    _ => return,
                };
                self.after(Millis(100), soon(Input::Runtime { lease, report }));
            }
            Output::ResolveImage { token, reference, .. } => {
                let digest = format!("sha256:{}", "a".repeat(64));
                self.after(LATENCY, soon(Input::Image { token, result: Ok(ImagePin { reference, digest }) }));
            }
            Output::LockSlots { lease, .. } => self.after(Millis(1), soon(Input::Locked { lease, locked: true })),
            Output::SettlementDue(due) => {
                assert_eq!(by, RENTER);
                if std::mem::replace(&mut self.paying, true) {
                    return;
                }
                let takes = if due.until.is_some() { self.first.0 } else { self.later.0 };
                self.after(takes, Happens::Paid(due));
            }
            Output::VerifySettlement(claimed) => {
                assert_eq!(by, HOST);
                let takes = if claimed.until.is_some() { self.first.1 } else { self.later.1 };
                let (settle, reference) = (claimed.settle, claimed.said.reference);
                self.after(takes, Happens::Looked { settle, reference });
            }
            Output::Step { step, .. } => match *step {
                Step::Accepted { lease } => self.leases.push(lease),
                Step::Failed { why } => self.failed.push(why.to_string()),
                _ => {}
            },
            Output::Violation(violation) => panic!("an honest node is blamed: {violation}"),
            Output::Forked { author, .. } => panic!("an honest node is accused: {author}"),
            Output::Halted(why) => panic!("an honest node is stopped: {why}"),
            _ => {}
        }
    }

    fn answer(&mut self, by: usize, token: Token, response: Response) {
        let token = self.asked.remove(&(by, token)).unwrap();
        let input = Box::new(Input::Response { token, result: Ok(response) });
        self.after(LATENCY, Happens::Input { to: 1 - by, input });
    }

    fn happen(&mut self, what: Happens) {
        match what {
            Happens::Request { to, asked, request } => {
                let (token, from) = (self.token(), self.engines[1 - to].me());
                self.asked.insert((to, token), asked);
                self.feed(to, Input::Request { from, token, request: *request });
            }
            Happens::Input { to, input } => self.feed(to, *input),
            Happens::Paid(due) => {
                self.paying = false;
                let (token, reference) = (self.token(), format!("T{}", self.bank.len()));
                self.bank.insert(reference.clone(), due.amount);
                let DuePayment { peer, currency, amount, .. } = *due;
                let payment = MadePayment { peer, currency, amount, method: "bank".to_owned(), reference };
                self.feed(RENTER, Input::Command(Command::Settle { token, payment: Box::new(payment) }));
            }
            Happens::Looked { settle, reference } => {
                let amount = self.bank.get(&reference).copied().unwrap();
                self.arrived = self.arrived.saturating_add(amount);
                self.feed(HOST, Input::SettlementVerified { settle, result: Ok(amount) });
            }
        }
    }

    /// Lets so much time pass; after each thing that happens the two are looked at.
    fn run(&mut self, time: Millis) {
        let until = self.now + time;
        for _ in 0..2_000_000 {
            let event = self.events.first_key_value().map(|((at, _), _)| (*at, None));
            let wakes = [HOST, RENTER].map(|n| self.engines[n].deadline().map(|(at, _)| (at, Some(n))));
            let next = wakes.into_iter().flatten().chain(event).min_by_key(|(at, _)| *at);
            let Some((at, whose)) = next.filter(|(at, _)| *at <= until) else {
                self.now = until;
                return;
            };
            self.now = self.now.max(at);
            match whose {
                Some(node) => self.feed(node, Input::Tick),
                None => {
                    let (_, what) = self.events.pop_first().unwrap();
                    self.happen(what);
                }
            }
            self.look();
        }
        panic!("it does not come to rest");
    }

    fn note(&self, of: usize) -> Option<Note> {
        let peer = self.engines[1 - of].me();
        self.engines[of].accounts().get(&peer, &Currency::usd()).map(|account| account.note().clone())
    }

    /// Everything that all leases have used, by the host's count: signed for, and not.
    fn used(&self) -> u64 {
        let renter = self.engines[RENTER].me();
        let earned = self.engines[HOST].accounts().get(&renter, &Currency::usd()).map_or(0, |a| a.flows().earned.0);
        let leases = self.engines[HOST].host().leases();
        earned + leases.values().map(|l| l.unsigned(self.now).0).sum::<u64>()
    }

    fn sent(&self) -> u64 {
        self.bank.values().map(|amount| amount.0).sum()
    }

    /// Neither side can lose more than a slice of its own measure, whatever the other does from here on; and no slice is more
    /// than the first and all that was settled.
    fn look(&mut self) {
        let (Some(hosts), Some(renters)) = (self.note(HOST), self.note(RENTER)) else { return };
        let used = self.used();
        if hosts.lent.slice > Amount::ZERO {
            let lost = used.saturating_sub(self.arrived.0);
            assert!(lost <= hosts.lent.slice.0, "the host could lose {lost} of {:?}", hosts.lent);
            self.worst[HOST] = self.worst[HOST].max(lost * 1000 / hosts.lent.slice.0);
            self.slices.insert(hosts.lent.slice);
            assert!(hosts.lent.slice.0 <= hosts.lent.base.0 + self.arrived.0, "{:?}", hosts.lent);
        }
        if renters.ahead.slice > Amount::ZERO {
            let lost = self.sent().saturating_sub(used);
            assert!(lost <= renters.ahead.slice.0 + SLACK, "the renter could lose {lost} of {:?}", renters.ahead);
            self.worst[RENTER] = self.worst[RENTER].max(lost * 1000 / renters.ahead.slice.0);
            assert!(renters.ahead.slice.0 <= renters.ahead.base.0 + used, "{:?}", renters.ahead);
        }
        for (id, lease) in self.engines[HOST].host().leases() {
            if lease.state() == LeaseState::Paused(PauseReason::NoCredit) {
                if !self.stands.contains_key(id) {
                    self.pauses += 1;
                }
                let since = *self.stands.entry(*id).or_insert(self.now);
                self.longest = self.longest.max(self.now.since(since));
            } else {
                self.stands.remove(id);
            }
        }
    }

    /// Rents a slot. While a payment is on its way, its host takes no other lease: then it is tried again, as long as that may take.
    fn rent(&mut self, nonce: u8) -> LeaseId {
        let offer = self.engines[RENTER].book().offers().next().unwrap();
        let ask = crate::AskId::of(&offer.host, &offer.machine, 1);
        for again in 0..20 {
            let wish = Wish {
                ask,
                nonce: Nonce([nonce + again; 16]),
                rental: RentalType::OnDemand,
                extend: None,
                bid: None,
                max_price: None,
                term: Some(Millis::from_hours(90)),
                disk_mb: 1000,
                egress: Egress::None,
                ports: Vec::new(),
                image: "debian:12".to_owned(),
                image_digest: None,
                workload: Workload::default(),
                max_spend: None,
                prepay: None,
                tick: Some(TICK),
                label: None,
                volume: false,
            };
            let (token, before) = (self.token(), self.leases.len());
            self.feed(RENTER, Input::Command(Command::Rent { token, wish: Box::new(wish) }));
            self.run(limits::COMMIT_WITHIN);
            if self.leases.len() > before {
                return *self.leases.last().unwrap();
            }
        }
        panic!("{:?}", self.failed);
    }

    fn destroy(&mut self, lease: LeaseId) {
        let token = self.token();
        let nonce = Nonce([99; 16]);
        self.feed(RENTER, Input::Command(Command::Control { token, lease, action: Action::Destroy, nonce }));
        self.run(Millis::from_mins(1));
        assert!(!self.engines[HOST].host().leases().contains_key(&lease), "it is over");
    }

    fn runs(&self, lease: LeaseId) -> bool {
        self.engines[HOST].host().leases().get(&lease).is_some_and(|l| l.state() == LeaseState::Running)
    }

    fn doublings(&self, of: usize) -> u32 {
        let note = self.note(of).unwrap();
        let slice = if of == HOST { note.lent } else { note.ahead };
        (slice.slice.0 / slice.base.0).ilog2()
    }
}

#[test]
fn a_slice_doubles_five_times_and_a_second_lease_shares_it() {
    let quick = (Millis::from_secs(3), Millis::from_secs(2));
    let mut world = World::new(quick, quick);
    let one = world.rent(1);
    let first = world.note(HOST).unwrap().lent.base.0;
    assert!((FIRST..FIRST * 11 / 10).contains(&first), "{first}");
    assert!(world.sent() >= FIRST, "its first payment came with its open");
    world.run(Millis::from_hours(1));
    // The same two, the same account: what the first lease has proven counts for the second, and both use up one slice.
    let doublings = world.doublings(HOST);
    assert!(doublings >= 2, "{doublings}");
    let two = world.rent(50);
    world.run(Millis::from_hours(2));
    assert!(world.runs(one) && world.runs(two));
    world.destroy(one);
    world.run(Millis::from_hours(2));
    assert!(world.runs(two));
    assert!(world.doublings(HOST) >= 5 && world.doublings(RENTER) >= 5);
    assert_eq!(world.pauses, 0, "who pays is never stopped");
    assert_eq!(world.worst[HOST], 0, "what was used was paid before");
    world.destroy(two);
}

/// A first slice lasts as long as such a payment takes: it is used up before more arrives. That costs the host nothing, so it is no
/// miss: the slice grows all the same, and soon there is always enough ahead.
#[test]
fn programs_that_take_minutes_stop_short_slices_and_stall_nothing() {
    let (quick, pays, looks) = (Millis::from_secs(3), Millis::from_mins(3), Millis::from_mins(2));
    let mut world = World::new((quick, quick), (pays, looks));
    let one = world.rent(1);
    world.run(Millis::from_hours(4));
    // Asked for, it may have been told already, and is told again after five minutes.
    let most = Millis(pays.0 + looks.0 + Millis::from_mins(5).0 + TICK.0);
    assert!(world.pauses > 0, "the program is slow enough to be felt");
    assert!(world.pauses <= 4 && world.longest <= most, "{} pauses, of up to {}", world.pauses, world.longest);
    let (before, doublings) = (world.pauses, world.doublings(HOST));
    let two = world.rent(50);
    world.run(Millis::from_hours(8));
    assert!(world.runs(one) && world.runs(two));
    assert_eq!(world.pauses, before, "grown, a slice outlasts a payment");
    assert!(doublings >= 3 && world.doublings(HOST) >= 5 && world.doublings(RENTER) >= 5);
    assert_eq!(world.worst[HOST], 0, "what was used was paid before");
    world.destroy(one);
    world.destroy(two);
}
