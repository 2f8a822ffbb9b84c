//! Whole lives of leases of every type while either side is killed at any moment: what both hold at the end is the same.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::{
    collections::{BTreeMap, BTreeSet},
    process::{Child, Stdio},
    time::Duration,
};

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use serde_json::Value;
use souk_protocol::{
    LeaseId, Signed, encode,
    entry::{Body, Entry},
    lease::LeaseDraft,
    limits,
    receipt::{Ack, Usage},
    terms::{Amended, LeaseTerms},
};
use souk_tests::{
    docker::{BUSYBOX, nothing_left},
    export::{Export, Item, read_entry},
    node::Node,
    part::have,
    wait::{poll, until},
    watch::Watch,
    world::World,
};

/// A host's slots.
const SLOTS: u16 = 2;
/// Leases a renter has at most at once.
const LEASES: usize = 2;
/// How long everything may take to come to rest in the end: leases that were asked for and never answered are given up in it.
const REST: Duration = Duration::from_secs(120);

/// A number from the environment, or this one.
fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(otherwise)
}

struct Chance(ChaCha8Rng);

impl Chance {
    fn below(&mut self, n: u32) -> u32 {
        self.0.next_u32() % n
    }

    fn of<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(u32::try_from(from.len()).unwrap()) as usize]
    }

    /// An amount from $0.05 to $0.64.
    fn bid(&mut self) -> String {
        format!("0.{:02}", 5 + self.below(60))
    }
}

struct Play {
    chance: Chance,
    host: Node,
    renters: Vec<Node>,
    /// The asks of one slot and of all.
    asks: [String; 2],
    commands: Vec<Child>,
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

fn open(node: &Node) -> Vec<String> {
    let outcome = node.souk(&["ps"], &[]);
    let leases: Value = serde_json::from_str(&outcome.out).unwrap_or_default();
    leases.as_array().into_iter().flatten().map(|l| l["lease"].as_str().unwrap().to_owned()).collect()
}

impl Play {
    /// What a renter does next. It may be refused: that is an answer, too.
    fn wish(&mut self, renter: usize) -> Vec<String> {
        let leases = open(&self.renters[renter]);
        let chance = &mut self.chance;
        if leases.is_empty() || (leases.len() < LEASES && chance.below(3) == 0) {
            let kind = match chance.below(5) {
                0 => "--type on-demand --for 12s --extend 1h".to_owned(),
                1 => "--type on-demand --for 2h".to_owned(),
                2 => "--type reserved --for 2h".to_owned(),
                _ => format!("--type bid --bid {}", chance.bid()),
            };
            let ask = &self.asks[usize::from(chance.below(5) == 0)];
            let ceiling = if chance.below(3) == 0 { " --max-spend 9" } else { "" };
            return words(&format!(
                "rent {ask} --image {BUSYBOX} --disk 1 --tick 1s -y -d {kind}{ceiling} -- sleep 600"
            ));
        }
        let lease = chance.of(&leases).clone();
        words(&match chance.below(11) {
            0..=3 => format!("bid {lease} {}", chance.bid()),
            4 => format!("extend {lease} 1h -y"),
            5 => format!("extend {lease} --auto 2h"),
            6 => format!("max-spend {lease} {}", 5 + chance.below(9)),
            7 => format!("stop {lease}"),
            8 | 9 => format!("start {lease}"),
            _ => format!("destroy -y {lease}"),
        })
    }

    /// What the host's owner does next.
    fn order(&mut self) -> Vec<String> {
        words(&match self.chance.below(7) {
            0 | 1 => format!("host hold {}", self.chance.below(u32::from(SLOTS) + 1)),
            2 => "host hold 0".to_owned(),
            3 => format!("host price --price {}", self.chance.of(&["0.90", "1.00", "1.10"])),
            4 => format!("host idle-job set {BUSYBOX} -- sleep 600"),
            5 => "host idle-job clear".to_owned(),
            _ => "host maintenance add".to_owned(),
        })
    }

    fn act(&mut self) -> String {
        let who = self.chance.below(5) as usize;
        let (node, mut words) = match who.checked_sub(1) {
            Some(renter) if renter < self.renters.len() => (Some(renter), self.wish(renter)),
            _ => (None, self.order()),
        };
        if words.last().is_some_and(|w| w == "add") {
            words.extend(["in 1s".to_owned(), "2s".to_owned()]);
        }
        let arguments: Vec<&str> = words.iter().map(String::as_str).collect();
        let node = node.map_or(&self.host, |renter| &self.renters[renter]);
        let mut command = node.command(&arguments);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        self.commands.push(child);
        format!("{}: {}", node.name(), words.join(" "))
    }

    /// Commands that wait for a node that was killed end with it.
    fn reap(&mut self) {
        for mut child in self.commands.drain(..) {
            child.kill().ok();
            child.wait().unwrap();
        }
    }

    /// Kills one of them, or the host and a renter, and starts what it has killed.
    fn kill(&mut self) -> String {
        let renter = self.chance.below(u32::try_from(self.renters.len()).unwrap()) as usize;
        let which = self.chance.below(5);
        let away = Duration::from_millis(u64::from(*self.chance.of(&[0u32, 0, 300, 2500])));
        let renter = &mut self.renters[renter];
        let mut victims = match which {
            0..=1 => vec![&mut self.host],
            2..=3 => vec![renter],
            _ => vec![&mut self.host, renter],
        };
        for node in &mut victims {
            node.kill();
        }
        std::thread::sleep(away);
        for node in &mut victims {
            node.start();
        }
        let names: Vec<&str> = victims.iter().map(|n| n.name()).collect();
        format!("{} killed, started after {away:?}", names.join(" and "))
    }

    /// Everything is ended, and both sides of each lease have said so.
    fn settle(&mut self) {
        let _ = self.host.json(&["host", "hold", "0"]);
        let _ = self.host.json(&["host", "idle-job", "clear"]);
        for renter in &self.renters {
            renter.meets(&self.host);
        }
        let mut left = Vec::new();
        let rest = poll(REST, || {
            left.clear();
            for renter in &self.renters {
                for lease in open(renter) {
                    let _ = renter.souk(&["destroy", "-y", &lease], &[]);
                    left.push(format!("{} {lease}", renter.name()));
                }
            }
            left.extend(open(&self.host).into_iter().map(|lease| format!("host {lease}")));
            left.is_empty().then_some(())
        });
        let shown = |which: &String| {
            let (name, lease) = which.split_once(' ').unwrap();
            let node = self.renters.iter().find(|n| n.name() == name).unwrap_or(&self.host);
            format!("{which}: {:#}", node.show(lease))
        };
        assert!(rest.is_some(), "leases that don't end: {:#?}", left.iter().map(shown).collect::<Vec<_>>());
    }
}

/// What one side's ledger says of a lease.
#[derive(Debug, Default)]
struct Account {
    draft: Option<Signed<LeaseDraft>>,
    accept: Option<Signed<Entry>>,
    amended: BTreeMap<u32, (Amended, Signed<Entry>)>,
    placements: Vec<Entry>,
    usages: BTreeMap<u64, (Usage, Signed<Usage>)>,
    acks: BTreeMap<u64, Signed<Ack>>,
    closed: bool,
}

fn accounts(export: &Export) -> BTreeMap<LeaseId, Account> {
    let mut all: BTreeMap<LeaseId, Account> = BTreeMap::new();
    for item in &export.items {
        match item {
            Item::Entry(signed) => {
                let entry = read_entry(signed);
                let Some(lease) = entry.lease else { continue };
                let account = all.entry(lease).or_default();
                match &entry.body {
                    Body::LeaseOpen { draft } => account.draft = Some(draft.clone()),
                    Body::LeaseAccept { .. } => account.accept = Some(signed.clone()),
                    Body::Amended(amended) => {
                        let before = account.amended.insert(amended.terms.n, (amended.clone(), signed.clone()));
                        assert!(before.is_none(), "{lease}: two amendments of number {}", amended.terms.n);
                    }
                    Body::Placement { .. } => account.placements.push(entry),
                    Body::CloseAck { .. } => account.closed = true,
                    Body::Genesis { .. }
                    | Body::Void { .. }
                    | Body::Amend { .. }
                    | Body::Anchor { .. }
                    | Body::Close { .. }
                    | Body::Settle(_)
                    | Body::SettleAck(_)
                    | Body::Dispute(_)
                    | Body::Attestation(_)
                    | Body::Probe(_)
                    | Body::Checkpoint(_) => {}
                }
            }
            Item::Usage(signed) => {
                let usage: Usage = encode::from_bytes(signed.payload(), limits::RECEIPT_BYTES).unwrap();
                let lease = usage.lease;
                let before = all.entry(lease).or_default().usages.insert(usage.n, (usage, signed.clone()));
                assert!(before.is_none_or(|(_, old)| old == *signed), "{lease}: two usages of one number");
            }
            Item::Ack(signed) => {
                let ack: Ack = encode::from_bytes(signed.payload(), limits::RECEIPT_BYTES).unwrap();
                all.entry(ack.lease).or_default().acks.insert(ack.n, signed.clone());
            }
        }
    }
    all
}

/// Both hold the same contract and the same last receipt, and its amount follows from the draft, the amendments and the counters.
fn same(lease: LeaseId, host: &Account, renter: &Account) {
    assert_eq!((&host.draft, &host.accept), (&renter.draft, &renter.accept), "{lease}: the contract");
    let last = |a: &Account| a.amended.last_key_value().map(|(_, (_, entry))| entry.clone());
    assert_eq!(last(host), last(renter), "{lease}: the terms");
    let receipt = |a: &Account| {
        let (n, ack) = a.acks.last_key_value()?;
        Some((a.usages[n].1.clone(), ack.clone()))
    };
    assert_eq!(receipt(host), receipt(renter), "{lease}: the receipt");
    assert!(host.closed && renter.closed, "{lease}: closed and agreed to by both");

    let draft: LeaseDraft = encode::from_bytes(host.draft.as_ref().unwrap().payload(), limits::DRAFT_BYTES).unwrap();
    let mut terms = vec![LeaseTerms::drafted(&draft)];
    for (at, (n, (amended, _))) in host.amended.iter().enumerate() {
        assert_eq!(*n as usize, at + 1, "{lease}: an amendment is missing");
        let now = amended.terms;
        assert_eq!(terms[at].due(&draft, &now.counted), Ok(now.carried), "{lease}: what amendment {n} carries");
        terms.push(now);
    }
    for (usage, _) in host.usages.values() {
        let due = terms[usage.terms as usize].due_in(&draft, &usage.counters, usage.state);
        assert_eq!(due, Ok(usage.due), "{lease}: usage {}", usage.n);
    }
    if let Some((usage, ack)) = receipt(host) {
        let usage: Usage = encode::from_bytes(usage.payload(), limits::RECEIPT_BYTES).unwrap();
        let ack: Ack = encode::from_bytes(ack.payload(), limits::RECEIPT_BYTES).unwrap();
        assert_eq!((ack.due, ack.partial), (usage.due, None), "{lease}: honest nodes agree");
    }
}

/// When each slot was billed, by the host's own events: from, until, lease.
fn occupied(host: &Node, lease: LeaseId, account: &Account) -> Vec<(u16, u64, u64, LeaseId)> {
    let shown = host.show(&lease.to_string());
    let mut spans = Vec::new();
    let mut since = None;
    for event in shown["events"].as_array().unwrap() {
        let at = event["at_ms"].as_u64().unwrap();
        match (since, event["state"] == "running") {
            (None, true) => since = Some(at),
            (Some(from), false) => {
                since = None;
                let placed = account.placements.iter().rev().find(|p| p.time.0 <= from);
                let Some(Body::Placement { slots, .. }) = placed.map(|p| &p.body) else {
                    panic!("{lease} ran without a placement: {shown:#}")
                };
                spans.extend(slots.iter().map(|slot| (*slot, from, at, lease)));
            }
            (None, false) | (Some(_), true) => {}
        }
    }
    assert!(since.is_none(), "{lease} runs on: {shown:#}");
    spans
}

fn compare(world: &World, play: &Play) -> usize {
    let export = |node: &Node| {
        let file = world.path().join(format!("{}.souk", node.name()));
        let _ = std::fs::remove_file(&file);
        let export = Export::of(node, None, &file);
        let verdict = play.host.souk(&["verify", file.to_str().unwrap()], &[]);
        assert_eq!(verdict.code, 0, "{}: {}{}", node.name(), verdict.out, verdict.err);
        assert_eq!(node.json(&["ledger", "check"])["faults"], Value::Array(Vec::new()), "{}", node.name());
        accounts(&export)
    };
    let host = export(&play.host);
    let made: BTreeSet<LeaseId> = host.iter().filter(|(_, a)| a.accept.is_some()).map(|(id, _)| *id).collect();
    let mut seen = BTreeSet::new();
    for renter in &play.renters {
        for (lease, account) in export(renter) {
            if account.accept.is_none() {
                assert!(!made.contains(&lease), "{} does not know that {lease} exists", renter.name());
                assert!(account.acks.is_empty(), "{} owes for {lease}, which never was", renter.name());
                continue;
            }
            same(lease, &host[&lease], &account);
            let id = lease.to_string();
            let (ours, theirs) = (renter.show(&id), play.host.show(&id));
            assert_eq!(ours["terms"], theirs["terms"], "{lease}");
            assert_eq!((&ours["state"], &ours["reason"]), (&theirs["state"], &theirs["reason"]), "{lease}");
            let receipt = |node: &Node| node.json(&["receipts", &id])[0].take();
            let (ours, theirs) = (receipt(renter), receipt(&play.host));
            for key in ["n", "usage", "ack", "acked_n", "due", "acked", "counters", "closed"] {
                assert_eq!(ours[key], theirs[key], "{lease}: {key}");
            }
            assert_eq!(ours["due"], ours["acked"], "{lease}");
            seen.insert(lease);
        }
    }
    assert_eq!(seen, made, "leases without a renter");
    let mut spans: Vec<_> = made.iter().flat_map(|lease| occupied(&play.host, *lease, &host[lease])).collect();
    spans.sort();
    for pair in spans.windows(2) {
        let ((slot, _, until, one), (next, from, _, other)) = (pair[0], pair[1]);
        assert!(slot != next || from >= until, "slot {slot} was billed to {one} and {other} at once: {spans:#?}");
    }
    let amended = made.iter().map(|lease| host[lease].amended.len()).sum::<usize>();
    println!("{} leases, {} runs of slots, {amended} amendments, agreed on by both sides", made.len(), spans.len());
    made.len()
}

#[test]
fn lives_of_leases_under_random_kills_end_the_same_on_both_sides() {
    if !have("docker") {
        return;
    }
    let (seed, rounds) = (setting("SOUK_TEST_SEED", 3), setting("SOUK_TEST_ROUNDS", 12));
    println!("SOUK_TEST_SEED={seed} SOUK_TEST_ROUNDS={rounds}");
    let world = World::with_docker();
    let setup = world.node("host").host(SLOTS, "1.00").env("SOUK_HOST_PRICES_MIN_BID", "0.05");
    let setup = setup.env("SOUK_HOST_EVICTION_NOTICE", "1s").env("SOUK_HOST_QUANTUM", "3s");
    let host = world.watch(setup.env("SOUK_HOST_PRICES_RESERVED_DISCOUNT", "200").start());
    let renters: Vec<Node> =
        ["anna", "bert", "carl"].map(|name| world.node(name).knows(&host.listen[0]).start()).into();
    for renter in &renters {
        renter.meets(&host);
    }
    let asks = [1, u64::from(SLOTS)].map(|slots| renters[0].ask_of(&host, slots));
    let watch = Watch::over(world.docker(), &host);
    let mut play = Play { chance: Chance(ChaCha8Rng::seed_from_u64(seed)), host, renters, asks, commands: Vec::new() };
    for round in 0..rounds {
        for _ in 0..4 {
            println!("round {round}: {}", play.act());
            let pause = if play.chance.below(2) == 0 { 30 } else { 1200 };
            std::thread::sleep(Duration::from_millis(u64::from(play.chance.below(pause))));
        }
        println!("round {round}: {}", play.kill());
        play.reap();
        let ran = watch.so_far();
        assert!(ran <= usize::from(SLOTS), "seed {seed}, round {round}: {ran} containers ran at once");
    }
    play.settle();
    nothing_left(world.docker(), &play.host);
    until("the last acknowledgements have arrived", || {
        let due = play.host.json(&["receipts"]);
        due.as_array().unwrap().iter().all(|r| r["due"] == r["acked"] && r["closed"] == true).then_some(())
    });
    let leases = compare(&world, &play);
    assert!(leases >= 3, "too little came to be to say anything: {leases} leases");
    assert!(watch.most() <= usize::from(SLOTS), "more containers than slots ran at once");
}
