//! Whole engines that meet: what one was away for, it learns from another; and floods of forks of free keys.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::wildcard_enum_match_arm)]

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Amount, Digest, DocumentId, Keypair, Millis, NodeId, Nonce, Timestamp, Verified, encode,
    fork::{FORKS_ASKED, FORKS_PAGE, ForkProof, ForksAsked, ForksTold},
    heads::{ChainHead, HeadReport, Meet, Met},
    limits,
    machine::{
        engine::Engine,
        forks::Concern,
        heads::{Instance, LookedUp, countersign, report},
        io::{Command, Input, NoAnswer, Output, Token, Verdict},
        record::{Private, Record, Restore},
        testkit::{NOW, key, network, proposal, setup},
    },
    message::{Request, Response},
    negotiation::RejectCode,
    violation::Violation,
};

fn free_key(n: u32) -> Keypair {
    let mut seed = [9; 32];
    seed[..4].copy_from_slice(&n.to_be_bytes());
    Keypair::from_seed(&seed)
}

/// A proof against a key, by its own signatures.
fn proof(key: &Keypair) -> ForkProof {
    let told = |id: u8| {
        let own = Instance { nonce: Nonce([id; 16]), started: NOW };
        let head = Some(ChainHead { seq: 5, id: DocumentId([id; 32]) });
        report(key, &network(), (own, true), head, vec![], NOW).unwrap().to_signed()
    };
    ForkProof::Heads(told(1), told(2))
}

/// A node: its engine, the proofs in its ledger, and those that it has dealt with.
struct Node {
    engine: Engine,
    key: Keypair,
    held: BTreeMap<NodeId, ForkProof>,
    most: usize,
    concerns: BTreeMap<NodeId, Concern>,
    breaches: Vec<Violation>,
    verdicts: Vec<Verdict>,
    replies: BTreeMap<Token, Response>,
}

/// An answer on its way: who gave it, to whom, and what.
type Told = (usize, usize, ForksTold);

struct World {
    nodes: Vec<Node>,
    links: BTreeSet<(usize, usize)>,
    now: Timestamp,
    told: Vec<Told>,
    asked: BTreeMap<Token, (usize, Token)>,
    gossiped: usize,
    next: u64,
}

impl World {
    fn new(count: u8) -> Self {
        let node = |n: u8| {
            let restore = Restore { instance: Nonce([n + 1; 16]), ..Restore::default() };
            Node {
                engine: Engine::new(key(n + 1), network(), restore, NOW).unwrap(),
                key: key(n + 1),
                held: BTreeMap::new(),
                most: 0,
                concerns: BTreeMap::new(),
                breaches: Vec::new(),
                verdicts: Vec::new(),
                replies: BTreeMap::new(),
            }
        };
        let mut world = Self {
            nodes: (0..count).map(node).collect(),
            links: BTreeSet::new(),
            now: NOW,
            told: Vec::new(),
            asked: BTreeMap::new(),
            gossiped: 0,
            next: 1_000_000,
        };
        for n in 0..world.nodes.len() {
            world.feed(n, Input::Tick);
        }
        world
    }

    fn id(&self, n: usize) -> NodeId {
        self.nodes[n].key.node_id()
    }

    fn linked(&self, n: usize) -> Vec<usize> {
        (0..self.nodes.len()).filter(|m| self.links.contains(&(n.min(*m), n.max(*m)))).collect()
    }

    fn connect(&mut self, a: usize, b: usize) {
        self.links.insert((a.min(b), a.max(b)));
        let (one, other) = (self.id(a), self.id(b));
        self.feed(a, Input::Connected(other));
        self.feed(b, Input::Connected(one));
    }

    fn part(&mut self, a: usize, b: usize) {
        self.links.remove(&(a.min(b), a.max(b)));
        let (one, other) = (self.id(a), self.id(b));
        self.feed(a, Input::Disconnected(other));
        self.feed(b, Input::Disconnected(one));
    }

    fn pass(&mut self, time: Millis) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.now + Millis::from_secs(1);
            for n in 0..self.nodes.len() {
                self.feed(n, Input::Tick);
            }
        }
    }

    /// Gives a node an input, and carries out all that comes of it anywhere.
    fn feed(&mut self, n: usize, input: Input) {
        self.nodes[n].engine.handle(input, self.now);
        let mut outputs = Vec::new();
        while let Some(output) = self.nodes[n].engine.poll_output() {
            outputs.push(output);
        }
        for output in outputs {
            self.carry_out(n, output);
        }
    }

    fn carry_out(&mut self, n: usize, output: Output) {
        match output {
            Output::Persist { record, .. } => {
                let node = &mut self.nodes[n];
                match *record {
                    Record::Fork(proof) => {
                        let author = proof.verify(&network()).unwrap();
                        assert!(node.held.insert(author, *proof).is_none(), "it was held already");
                    }
                    Record::Private(Private::ForkGone(author)) => {
                        node.held.remove(&author);
                    }
                    _ => {}
                }
                node.most = node.most.max(node.held.len());
            }
            Output::Send { token, to, request, .. } => {
                let Some(other) = (0..self.nodes.len()).find(|m| self.id(*m) == to && self.linked(n).contains(m))
                else {
                    let result = Err(NoAnswer { why: "it is not there".to_owned() });
                    return self.feed(n, Input::Response { token, result });
                };
                self.next += 1;
                let at = Token(self.next);
                self.asked.insert(at, (n, token));
                let from = self.id(n);
                let input = match *request {
                    Request::Meet(meet) => self.meeting(other, from, at, meet),
                    request => Input::Request { from, token: at, request },
                };
                self.feed(other, input);
            }
            Output::Reply { token, response, .. } => match self.asked.remove(&token) {
                Some((asker, question)) => {
                    let input = match *response {
                        Response::Met(met) => {
                            self.told.push((n, asker, met.forks.clone()));
                            let all = &self.nodes[asker].concerns;
                            let concerns = met.forks.accused().filter_map(|id| Some((id, *all.get(&id)?))).collect();
                            Input::Met { token: question, met, concerns }
                        }
                        other => Input::Response { token: question, result: Ok(other) },
                    };
                    self.feed(asker, input);
                }
                None => drop(self.nodes[n].replies.insert(token, *response)),
            },
            Output::Forked { proof, found: true, .. } => {
                self.gossiped += 1;
                let from = self.id(n);
                for other in self.linked(n) {
                    self.gossip(other, from, &proof);
                }
            }
            Output::Verdict { verdict, .. } => self.nodes[n].verdicts.push(verdict),
            Output::Violation(breach) => self.nodes[n].breaches.push(breach),
            _ => {}
        }
    }

    fn meeting(&self, n: usize, from: NodeId, token: Token, meet: Box<Meet>) -> Input {
        let held = &self.nodes[n].held;
        let proofs = meet.forks.proofs.iter().filter_map(|id| held.get(id).cloned()).collect();
        Input::Meeting { from, token, meet, looked_up: Box::new(LookedUp { proofs, ..LookedUp::default() }) }
    }

    fn gossip(&mut self, n: usize, from: NodeId, proof: &ForkProof) {
        let concern = proof.accused().and_then(|id| self.nodes[n].concerns.get(&id).copied()).unwrap_or_default();
        self.next += 1;
        self.feed(n, Input::Proof { token: Token(self.next), from, data: encode::to_bytes(proof), concern });
    }

    /// What a node answers to a stranger's question.
    fn ask(&mut self, n: usize, from: NodeId, request: Request) -> Option<Response> {
        self.next += 1;
        let token = Token(self.next);
        let input = match request {
            Request::Meet(meet) => self.meeting(n, from, token, meet),
            request => Input::Request { from, token, request },
        };
        self.feed(n, input);
        self.nodes[n].replies.remove(&token)
    }

    fn refuses_a_lease_to(&mut self, n: usize, renter: NodeId) -> bool {
        let bid = proposal(Amount(1_000_000_000), 1);
        let answer = self.ask(n, renter, Request::Propose(Box::new(bid)));
        matches!(answer, Some(Response::Rejected(reject)) if reject.code == RejectCode::Forked)
    }

    fn proofs_told(&self, from: usize, to: usize) -> usize {
        self.told.iter().filter(|(a, b, _)| (*a, *b) == (from, to)).map(|(.., told)| told.proofs.len()).sum()
    }
}

#[test]
fn a_node_that_was_away_learns_of_a_fork_from_one_that_did_not_find_it_and_refuses_leases() {
    // The host was away; the finder is gone when it is back.
    let (host, witness, finder) = (0, 1, 2);
    let mut world = World::new(3);
    world.feed(host, Input::Command(Command::Host(Some(Box::new(setup())))));
    world.feed(host, Input::RuntimeUp(true));
    let forked = free_key(1).node_id();
    world.nodes[witness].concerns.insert(forked, Concern::Dealt);
    world.connect(witness, finder);
    world.feed(finder, Input::Contradicted(Box::new(proof(&free_key(1)))));
    assert!(world.nodes[witness].engine.is_forked(&forked), "by gossip");
    world.part(witness, finder);
    world.pass(Millis::from_mins(10));
    assert!(!world.refuses_a_lease_to(host, forked), "nobody has told it");
    world.connect(host, witness);
    assert!(world.nodes[host].engine.is_forked(&forked), "at its first meetings, without waiting");
    assert!(world.refuses_a_lease_to(host, forked));
    assert_eq!(world.gossiped, 1, "what others have told is not gossiped again");
    // Once is enough, and a meeting of two who know the same takes a few bytes.
    assert_eq!(world.proofs_told(witness, host), 1);
    world.told.clear();
    world.pass(Millis::from_mins(30));
    assert!(world.told.len() >= 40, "{}", world.told.len());
    assert!(world.told.iter().all(|(.., told)| told.proofs.is_empty() && told.names.is_empty() && !told.more));
    assert!(world.told.iter().all(|(.., told)| encode::to_bytes(told).len() < 64));
    // Read anew after an hour, and over other connections, it is not sent again.
    world.pass(Millis::from_hours(2));
    world.part(host, witness);
    world.connect(host, witness);
    world.pass(Millis::from_mins(5));
    assert_eq!(world.proofs_told(witness, host) + world.proofs_told(host, witness), 0);
    // And it goes on from node to node.
    world.connect(host, finder);
    assert!(world.nodes.iter().all(|node| node.breaches.is_empty() && node.held.len() == 1));
}

#[test]
fn a_thousand_proofs_are_caught_up_on_in_portions() {
    let mut world = World::new(2);
    for n in 0..1_000 {
        world.nodes[0].concerns.insert(free_key(n).node_id(), Concern::Heard);
        world.feed(0, Input::Contradicted(Box::new(proof(&free_key(n)))));
    }
    world.connect(0, 1);
    let mut minutes = 0;
    let mut before = 0;
    while world.nodes[1].held.len() < 1_000 && minutes < 20 {
        let at_once: Vec<usize> = world.told.iter().map(|(.., told)| encode::to_bytes(&told.proofs).len()).collect();
        assert!(at_once.iter().all(|bytes| *bytes <= limits::FORKS_BYTES + 1024), "{at_once:?}");
        assert!(at_once.iter().sum::<usize>() <= limits::FORKS_BYTES_PER_MINUTE + 1024, "{at_once:?}");
        world.told.clear();
        world.pass(Millis::from_secs(61));
        assert!(world.nodes[1].held.len() >= before);
        before = world.nodes[1].held.len();
        minutes += 1;
    }
    assert_eq!(world.nodes[1].held, world.nodes[0].held, "after {minutes} minutes");
    assert!(world.nodes.iter().all(|node| node.breaches.is_empty()));
}

#[test]
fn twenty_thousand_forks_of_free_keys_push_out_none_that_matters_and_take_no_more_than_their_room() {
    let mut world = World::new(2);
    let (dealt, heard) = (free_key(1_000_000), free_key(1_000_001));
    world.nodes[0].concerns.insert(heard.node_id(), Concern::Heard);
    world.feed(0, Input::Contradicted(Box::new(proof(&dealt))));
    world.gossip(0, key(90).node_id(), &proof(&heard));
    let all = limits::PROOFS_PER_MINUTE * 334;
    assert!(all >= 20_000);
    for n in 0..all {
        // All of them are made to be seen: each has an offer in the book. Every peer passes on its share of them.
        let guilty = free_key(n);
        world.nodes[0].concerns.insert(guilty.node_id(), Concern::Seen);
        world.gossip(0, free_key(2_000_000 + n / limits::PROOFS_PER_MINUTE).node_id(), &proof(&guilty));
    }
    assert!(world.nodes[0].engine.is_forked(&dealt.node_id()));
    assert!(world.nodes[0].engine.is_forked(&heard.node_id()));
    assert!(world.nodes[0].breaches.is_empty(), "a proof of a key that nobody knows is no offence");
    assert!(!world.nodes[0].verdicts.contains(&Verdict::Reject));
    let node = &world.nodes[0];
    assert_eq!((node.held.len(), node.most), (limits::PROOFS, limits::PROOFS));
    assert!(node.held.contains_key(&dealt.node_id()) && node.held.contains_key(&heard.node_id()));
    // Another node that nobody of them concerns takes in no more than the few it keeps of strangers.
    world.feed(1, Input::Command(Command::Host(Some(Box::new(setup())))));
    world.feed(1, Input::RuntimeUp(true));
    world.connect(0, 1);
    world.pass(Millis::from_mins(30));
    assert_eq!(world.nodes[1].most, limits::STRANGE_PROOFS);
    world.told.clear();
    world.pass(Millis::from_hours(2));
    assert_eq!(world.proofs_told(0, 1), 0, "and what it would not keep is not fetched again and again");
    // Once one of those that it has not kept wants something of it, it asks by name: the first answer may come before, the next not.
    let missed: Vec<NodeId> =
        world.nodes[0].held.keys().filter(|id| !world.nodes[1].held.contains_key(*id)).take(2).copied().collect();
    world.feed(1, Input::Connected(missed[0]));
    assert!(!world.nodes[1].engine.is_forked(&missed[0]));
    assert!(!world.refuses_a_lease_to(1, missed[0]));
    assert!(world.refuses_a_lease_to(1, missed[0]));
    world.feed(1, Input::Connected(missed[1]));
    world.pass(Millis::from_mins(2));
    assert!(world.nodes[1].engine.is_forked(&missed[1]));
    assert_eq!(world.proofs_told(0, 1), 2);
    assert!(world.nodes[1].held.len() <= limits::STRANGE_PROOFS + 2);
}

/// A peer that answers a meeting with whatever a test wants.
fn says(liar: &Keypair, asked: &Meet, forks: ForksTold) -> Met {
    let own = Instance { nonce: Nonce([77; 16]), started: NOW };
    let theirs: Verified<HeadReport> = asked.report.verify(&network()).unwrap();
    Met {
        report: report(liar, &network(), (own, true), None, vec![], NOW).unwrap().to_signed(),
        at: vec![],
        seen: countersign(liar, &network(), &theirs, NOW).unwrap().to_signed(),
        yours: vec![],
        newest: None,
        doubt: false,
        forks,
    }
}

/// All meetings that an engine asks of a liar within some minutes, each answered at once by `lie`.
fn lied_to(minutes: u64, mut lie: impl FnMut(&ForksAsked) -> ForksTold) -> (Engine, Vec<ForksAsked>, usize, usize) {
    let liar = key(66);
    let restore = Restore { instance: Nonce([1; 16]), ..Restore::default() };
    let mut engine = Engine::new(key(1), network(), restore, NOW).unwrap();
    let (mut asked, mut kept, mut breaches) = (Vec::new(), 0, 0);
    engine.handle(Input::Connected(liar.node_id()), NOW);
    for second in 0..minutes * 60 {
        let now = NOW + Millis::from_secs(second);
        engine.handle(Input::Tick, now);
        while let Some(output) = engine.poll_output() {
            match output {
                Output::Send { token, request, .. } => {
                    if let Request::Meet(meet) = *request {
                        let met = Box::new(says(&liar, &meet, lie(&meet.forks)));
                        asked.push(meet.forks);
                        engine.handle(Input::Met { token, met, concerns: BTreeMap::new() }, now);
                    }
                }
                Output::Persist { record, .. } => kept += usize::from(matches!(*record, Record::Fork(_))),
                Output::Violation(_) => breaches += 1,
                _ => {}
            }
        }
    }
    (engine, asked, kept, breaches)
}

#[test]
fn lies_about_forks_convict_nobody_and_lists_without_end_are_read_slowly() {
    let minutes = 10;
    // Names without end, and nothing behind them.
    let mut n = 0_u64;
    let (_, asked, kept, breaches) = lied_to(minutes, |asked| {
        let name = |n: u64| NodeId(Digest::of(&n.to_be_bytes()).0);
        n += FORKS_PAGE as u64;
        let names = if asked.after.is_some() { (n..n + FORKS_PAGE as u64).map(name).collect() } else { Vec::new() };
        ForksTold { upto: asked.after.map(|_| n), more: true, names, proofs: Vec::new() }
    });
    assert_eq!((kept, breaches), (0, 0));
    assert!(asked.len() as u64 <= (minutes + 1) * 12, "{}", asked.len());
    assert!(asked.iter().all(|asked| asked.proofs.len() <= FORKS_ASKED));
    assert!(asked.iter().any(|asked| asked.after.is_none()), "it reads on only once it has asked for what it lacks");
    // Proofs that nobody asked for, that prove nothing, and of another than was named.
    let guilty = free_key(1);
    let honest = free_key(2);
    let own = Instance { nonce: Nonce([1; 16]), started: NOW };
    let one = report(&honest, &network(), (own, true), None, vec![], NOW).unwrap().to_signed();
    let nothing = ForkProof::Heads(one.clone(), one);
    let (engine, _, kept, breaches) =
        lied_to(1, |_| ForksTold { proofs: vec![proof(&guilty)], ..ForksTold::default() });
    assert_eq!((kept, breaches, engine.is_forked(&guilty.node_id())), (0, 0, false), "unasked");
    let named = |names: Vec<NodeId>, proofs: Vec<ForkProof>| {
        let mut first = true;
        move |asked: &ForksAsked| {
            let names = if std::mem::take(&mut first) { names.clone() } else { Vec::new() };
            let proofs = if asked.proofs.is_empty() { Vec::new() } else { proofs.clone() };
            ForksTold { upto: asked.after.map(|_| 1), more: false, names, proofs }
        }
    };
    let (engine, asked, kept, breaches) = lied_to(5, named(vec![honest.node_id()], vec![nothing]));
    assert_eq!((kept, engine.is_forked(&honest.node_id())), (0, false));
    assert_eq!(breaches, 1, "it was asked for a proof, and gave none");
    assert!(asked.iter().filter(|asked| !asked.proofs.is_empty()).count() <= 2, "nor is it asked for it for ever");
    let (engine, _, kept, breaches) = lied_to(5, named(vec![honest.node_id()], vec![proof(&guilty)]));
    assert_eq!((kept, breaches, engine.is_forked(&guilty.node_id())), (0, 0, false));
    // The same way, the truth is believed.
    let (engine, _, kept, breaches) = lied_to(1, named(vec![guilty.node_id()], vec![proof(&guilty)]));
    assert_eq!((kept, breaches, engine.is_forked(&guilty.node_id())), (1, 0, true));
}

#[test]
fn who_pulls_proofs_has_its_share_of_bytes_in_a_minute() {
    let mut world = World::new(1);
    let all: Vec<Keypair> = (0..600).map(free_key).collect();
    for key in &all {
        world.feed(0, Input::Contradicted(Box::new(proof(key))));
    }
    let asker = key(40);
    let own = Instance { nonce: Nonce([8; 16]), started: NOW };
    let mut bytes = 0;
    for round in 0..50 {
        let told = report(&asker, &network(), (own, true), None, vec![], NOW).unwrap().to_signed();
        let wanted = all.iter().cycle().skip(round * 64).take(FORKS_ASKED).map(Keypair::node_id).collect();
        let forks = ForksAsked { of: None, after: None, proofs: wanted };
        let meet = Meet { report: told, known: vec![], at: vec![], yours: vec![], forks };
        match world.ask(0, asker.node_id(), Request::Meet(Box::new(meet))) {
            Some(Response::Met(met)) => {
                assert!(met.fits() && met.forks.upto.is_none());
                let size = met.forks.proofs.iter().map(|proof| encode::to_bytes(proof).len()).sum::<usize>();
                assert!(size <= limits::FORKS_BYTES, "{size}");
                bytes += size;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(bytes > limits::FORKS_BYTES_PER_MINUTE / 2 && bytes <= limits::FORKS_BYTES_PER_MINUTE, "{bytes}");
    // The names are told to anybody, in pages.
    let told = report(&asker, &network(), (own, true), None, vec![], NOW).unwrap().to_signed();
    let forks = ForksAsked { of: None, after: Some(0), proofs: vec![] };
    let meet = Meet { report: told, known: vec![], at: vec![], yours: vec![], forks };
    let Some(Response::Met(met)) = world.ask(0, asker.node_id(), Request::Meet(Box::new(meet))) else { panic!() };
    assert_eq!((met.forks.names.len(), met.forks.more), (FORKS_PAGE, true));
}

#[test]
fn what_was_remembered_is_taken_up_again_and_one_that_is_too_much_goes() {
    let forked: Vec<(NodeId, Concern)> = (0..limits::PROOFS as u32 + 5)
        .map(|n| (NodeId(Digest::of(&n.to_be_bytes()).0), if n == 3 { Concern::Dealt } else { Concern::Nobody }))
        .collect();
    let restore = Restore { instance: Nonce([1; 16]), forked: forked.clone(), ..Restore::default() };
    let mut engine = Engine::new(key(1), network(), restore, NOW).unwrap();
    let mut gone = BTreeSet::new();
    while let Some(output) = engine.poll_output() {
        if let Output::Persist { record, .. } = output
            && let Record::Private(Private::ForkGone(author)) = *record
        {
            gone.insert(author);
        }
    }
    assert_eq!(gone.len(), 5);
    assert!(forked.iter().all(|(author, _)| engine.is_forked(author) != gone.contains(author)));
    assert!(engine.is_forked(&forked[3].0));
}
