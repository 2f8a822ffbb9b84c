#![allow(clippy::unwrap_used)]
mod pair;
mod restored;

use std::sync::Arc;

use souk_protocol::{
    Amount, Keypair, NetworkId, Timestamp, Verified,
    entry::{Body, VoidCode},
    lease::LeaseState,
};

use super::*;
use crate::{
    chain::{ForkProof, NoFork},
    fixture::{Deal, Party, START},
    record::{PRIVATE_KEY_BYTES, Private},
    store::MemoryKv,
};

struct World {
    host: Party,
    renter: Party,
    deal: Deal,
    state: State,
    kv: Arc<MemoryKv>,
    at: u64,
}

impl World {
    /// A host's state with its genesis.
    fn of_host() -> Self {
        let (mut host, renter) = (Party::new(1), Party::new(2));
        let kv = Arc::new(MemoryKv::default());
        let mut world = Self {
            deal: Deal::new(&host, &renter, 1),
            state: State::new(host.key.node_id(), host.network, kv.clone()),
            kv,
            at: 0,
            renter,
            host: host.clone(),
        };
        let genesis = host.genesis();
        world.host = host;
        assert_eq!(world.entry(genesis).unwrap(), Applied::New);
        world.renter.genesis();
        world
    }

    /// The same with an accepted lease.
    fn leased() -> Self {
        let mut world = Self::of_host();
        let open = world.deal.open(&mut world.renter, &world.host);
        world.entry(open).unwrap();
        let accept = world.deal.accept(&mut world.host, &world.renter);
        world.entry(accept).unwrap();
        world
    }

    fn fact(&mut self, fact: &Fact) -> Result<Applied, FoldError> {
        self.at += 1;
        let at = Position { index: self.at, ..Position::FIRST };
        self.state.apply(at, fact)
    }

    fn entry(&mut self, entry: Verified<souk_protocol::entry::Entry>) -> Result<Applied, FoldError> {
        self.fact(&Fact::Entry(entry))
    }

    fn refused(&mut self, fact: &Fact) -> Refusal {
        let before = format!("{:?}", self.state.staged);
        let refusal = match self.fact(fact) {
            Err(FoldError::Refused(refusal)) => refusal,
            other => panic!("not refused: {other:?}"),
        };
        assert_eq!(before, format!("{:?}", self.state.staged), "a refusal changed something");
        refusal
    }

    fn lease(&mut self) -> Lease {
        let id = self.deal.id;
        self.state.lease(&id).unwrap().unwrap().clone()
    }

    fn balance(&mut self) -> Balance {
        let key = keys::balance(&self.renter.key.node_id(), self.deal.draft.value_currency());
        self.state.row(&key, "balance").unwrap().unwrap_or_default()
    }
}

trait CurrencyOf {
    fn value_currency(&self) -> &souk_protocol::Currency;
}

impl CurrencyOf for Verified<souk_protocol::lease::LeaseDraft> {
    fn value_currency(&self) -> &souk_protocol::Currency {
        &self.currency
    }
}

#[test]
fn a_lease_goes_from_open_to_closed_and_the_balance_follows() {
    let mut w = World::of_host();
    let open = w.deal.open(&mut w.renter, &w.host);
    w.entry(open.clone()).unwrap();
    assert_eq!(w.lease().status(), Status::Opened);
    assert_eq!(w.entry(open).unwrap(), Applied::Known);
    let accept = w.deal.accept(&mut w.host, &w.renter);
    w.entry(accept).unwrap();
    assert_eq!(w.lease().status(), Status::Active);
    for _ in 0..10 {
        let usage = w.deal.usage(&w.host);
        assert_eq!(w.fact(&Fact::Usage(usage.clone())).unwrap(), Applied::New);
        assert_eq!(w.balance().claimed, usage.due);
    }
    assert_eq!(w.lease().receipts.recent.len(), crate::lease::RECENT_USAGES);
    let ack = w.deal.ack(&w.renter, 5);
    w.fact(&Fact::Ack(ack.clone())).unwrap();
    assert_eq!(w.balance().earned, ack.due);
    let ack = w.deal.ack(&w.renter, 0);
    w.fact(&Fact::Ack(ack.clone())).unwrap();
    assert_eq!(w.balance().earned, ack.due);
    assert_eq!(w.fact(&Fact::Ack(ack.clone())).unwrap(), Applied::Known);
    let close = w.deal.close(&mut w.host, &w.renter);
    w.entry(close.clone()).unwrap();
    assert_eq!(w.lease().status(), Status::Closing);
    let answer = w.deal.close_ack(&close, &mut w.renter, &w.host);
    w.entry(answer).unwrap();
    assert_eq!(w.lease().status(), Status::Closed);
    assert_eq!(w.balance().earned, w.balance().claimed);

    let usage = w.deal.usage(&w.host);
    assert!(matches!(w.refused(&Fact::Usage(usage)), Refusal::Lease(_)));
    // One index row for each of host, renter, time, number and the last status.
    let changes = w.state.take_changes();
    w.kv.write(&changes).unwrap();
    let mut rows = 0;
    w.kv.scan(b"i", b"", &mut |_, _| {
        rows += 1;
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(rows, 5);
}

#[test]
fn our_chain_has_no_gaps_and_no_forks() {
    let mut w = World::of_host();
    let open = w.deal.open(&mut w.renter, &w.host);
    w.entry(open).unwrap();
    let before = w.host.clone();
    let accept = w.deal.accept(&mut w.host, &w.renter);
    // A gap.
    let mut ahead = w.host.clone();
    let later = w.deal.close(&mut ahead, &w.renter);
    assert!(matches!(w.refused(&Fact::Entry(later)), Refusal::Chain(_)));
    w.entry(accept.clone()).unwrap();
    // The same number twice.
    let mut again = before;
    let body = Body::Void { open: w.deal.open.unwrap(), code: VoidCode::Taken, sentence: String::new() };
    let void = again.say(Some(w.deal.id), &w.renter, body.clone());
    assert!(matches!(w.refused(&Fact::Entry(void)), Refusal::WouldFork(_)));
    // A contradiction that fits the chain.
    let void = w.host.clone().say(Some(w.deal.id), &w.renter, body);
    assert!(matches!(w.refused(&Fact::Entry(void)), Refusal::Lease(_)));
    // A clock that went back.
    let mut value = (*w.deal.close(&mut w.host.clone(), &w.renter)).clone();
    value.time = Timestamp(START - 1);
    let back = Verified::sign(value, &w.host.key, &w.host.network).unwrap();
    assert!(matches!(w.refused(&Fact::Entry(back)), Refusal::Chain(_)));
}

#[test]
fn a_counterparty_that_forks_leaves_a_proof_that_anyone_can_check() {
    let mut w = World::leased();
    let network = w.renter.network;
    let fork_point = w.renter.clone();
    let close = w.deal.close(&mut w.renter, &w.host);
    w.entry(close.clone()).unwrap();
    let mut other = fork_point;
    let second = Deal::new(&w.host, &w.renter, 2).open(&mut other, &w.host);
    assert_eq!(w.entry(second.clone()).unwrap(), Applied::Fork);
    // No lease came of it, and a further fork adds nothing.
    assert!(w.state.lease(&second.lease.unwrap()).unwrap().is_none());
    let third = Deal::new(&w.host, &w.renter, 3).open(&mut other, &w.host);
    assert_eq!(w.entry(third.clone()).unwrap(), Applied::Known);

    let proof = ForkProof::Entries(close.to_signed(), second.to_signed());
    assert_eq!(proof.verify(&network), Ok(w.renter.key.node_id()));
    assert!(encode::to_bytes(&ForkProof::Entries(close.to_signed(), close.to_signed())).len() < 1024);
    // Neighbours that don't fit are one too.
    let proof = ForkProof::Entries(close.to_signed(), third.to_signed());
    assert_eq!(proof.verify(&network), Ok(w.renter.key.node_id()));
    let none = ForkProof::Entries(second.to_signed(), third.to_signed());
    assert_eq!(none.verify(&network), Err(NoFork::Consistent));
    assert!(matches!(
        ForkProof::Entries(close.to_signed(), second.to_signed()).verify(&NetworkId([9; 32])),
        Err(NoFork::Unverified(_))
    ));
}

#[test]
fn two_usages_with_one_number_and_a_shrinking_ack_are_forks() {
    // From the renter's side, the host's usages.
    let (host, mut renter) = (Party::new(1), Party::new(2));
    let mut deal = Deal::new(&host, &renter, 1);
    let kv = Arc::new(MemoryKv::default());
    let mut state = State::new(renter.key.node_id(), renter.network, kv);
    let mut host = host;
    host.genesis();
    let facts = [renter.genesis(), deal.open(&mut renter, &host), deal.accept(&mut host, &renter)];
    for fact in facts {
        state.apply(Position::FIRST, &Fact::Entry(fact)).unwrap();
    }
    let mut other = deal.usage_value(1, &host);
    other.time = Timestamp(START + 7);
    let other = Verified::sign(other, &host.key, &host.network).unwrap();
    let first = deal.usage(&host);
    let apply = |state: &mut State, fact| state.apply(Position::FIRST, &fact);
    apply(&mut state, Fact::Usage(first.clone())).unwrap();
    assert_eq!(apply(&mut state, Fact::Usage(other.clone())).unwrap(), Applied::Fork);
    let proof = ForkProof::Usages(first.to_signed(), other.to_signed());
    assert_eq!(proof.verify(&host.network), Ok(host.key.node_id()));

    let mut w = World::leased();
    let first = w.deal.usage(&w.host);
    w.fact(&Fact::Usage(first)).unwrap();
    let full = w.deal.ack(&w.renter, 0);
    w.fact(&Fact::Ack(full.clone())).unwrap();
    let second = w.deal.usage(&w.host);
    w.fact(&Fact::Usage(second.clone())).unwrap();
    let less = w.deal.ack(&w.renter, second.due.0 - 1);
    assert_eq!(w.fact(&Fact::Ack(less.clone())).unwrap(), Applied::Fork);
    assert_eq!(w.lease().agreed(), full.due);
    let proof = ForkProof::Acks(full.to_signed(), less.to_signed());
    assert_eq!(proof.verify(&w.host.network), Ok(w.renter.key.node_id()));
}

#[test]
fn false_receipts_are_refused() {
    let mut w = World::leased();
    let first = w.deal.usage(&w.host);
    w.fact(&Fact::Usage(first.clone())).unwrap();
    let key = Keypair::from_seed(&[1; 32]);
    let good = w.deal.usage_value(2, &w.host);
    let mut cases = Vec::new();
    let mut case = |change: &dyn Fn(&mut souk_protocol::receipt::Usage)| {
        let mut usage = good.clone();
        change(&mut usage);
        cases.push(usage);
    };
    case(&|u| u.due = Amount(u.due.0 + 1));
    case(&|u| u.prev = Some(souk_protocol::DocumentId([9; 32])));
    case(&|u| u.time = Timestamp(1));
    case(&|u| u.n = 3);
    let draft = w.deal.draft.clone();
    case(&|u| {
        u.counters.rx_bytes = 0;
        u.due = souk_protocol::terms::LeaseTerms::drafted(&draft).due(&draft, &u.counters).unwrap();
    });
    case(&|u| u.counters.active.0 = u64::MAX);
    for usage in cases {
        let usage = Verified::sign(usage, &key, &w.host.network).unwrap();
        let refusal = w.refused(&Fact::Usage(usage.clone()));
        assert!(matches!(refusal, Refusal::Receipt(_) | Refusal::Overflow(_)), "{usage:?}: {refusal}");
    }
    // An acknowledgement of what was never claimed, of more than was, and without its reason.
    let good = (*w.deal.ack(&w.renter, 0)).clone();
    for change in 0..3 {
        let mut ack = good.clone();
        match change {
            0 => ack.usage = souk_protocol::DocumentId([9; 32]),
            1 => ack.due = Amount(ack.due.0 + 1),
            _ => ack.due = Amount(ack.due.0 - 1),
        }
        let ack = Verified::sign(ack, &w.renter.key, &w.renter.network).unwrap();
        assert!(matches!(w.refused(&Fact::Ack(ack)), Refusal::Receipt(_)));
    }
}

#[test]
fn records_of_others_and_unknown_leases_are_refused() {
    let mut w = World::leased();
    let (mut stranger, other) = (Party::new(8), Party::new(9));
    stranger.genesis();
    let mut deal = Deal::new(&other, &stranger, 5);
    let open = deal.open(&mut stranger, &other);
    assert_eq!(w.refused(&Fact::Entry(open)), Refusal::NotOurs);
    let usage = deal.usage(&other);
    assert!(matches!(w.refused(&Fact::Usage(usage)), Refusal::UnknownLease(_)));
    // A third party closes a lease it has no part in.
    let close = w.deal.close(&mut stranger, &w.host);
    assert_eq!(w.refused(&Fact::Entry(close)), Refusal::NotItsAuthors);
    // The renter accepts its own open.
    let body = Body::LeaseAccept { open: w.deal.open.unwrap() };
    let accept = w.renter.clone().say(Some(w.deal.id), &w.host, body);
    assert_eq!(w.refused(&Fact::Entry(accept)), Refusal::NotItsAuthors);
}

fn event(n: u32) -> souk_protocol::message::LeaseEvent {
    souk_protocol::message::LeaseEvent {
        n,
        at: Timestamp(n.into()),
        state: LeaseState::Running,
        what: souk_protocol::message::EventCode::State,
        by: souk_protocol::message::Cause::Host,
        exit_code: None,
        note: format!("event {n}"),
    }
}

#[test]
fn private_rows_come_and_go_and_events_are_bounded() {
    let mut w = World::leased();
    let id = w.deal.id;
    let private = |p| Fact::Private(p);
    for n in 1..=300 {
        w.fact(&private(Private::Event { lease: id, event: event(n) })).unwrap();
    }
    // A number that is there already, or so old that it was dropped, changes nothing.
    for n in [300, 1] {
        assert_eq!(w.fact(&private(Private::Event { lease: id, event: event(n) })).unwrap(), Applied::Known);
    }
    let state = Private::State { lease: id, time: Timestamp(5), state: LeaseState::Running };
    w.fact(&private(state)).unwrap();
    assert_eq!(w.lease().state, Some((LeaseState::Running, Timestamp(5))));
    let changes = w.state.take_changes();
    let kept = changes.iter().filter(|(key, value)| key.starts_with(b"v") && value.is_some()).count();
    assert_eq!(kept, souk_protocol::limits::EVENTS_PER_LEASE);
    let indexed = changes.iter().filter(|(key, value)| key.starts_with(b"iv") && value.is_some()).count();
    assert_eq!(indexed, kept);
    w.kv.write(&changes).unwrap();
    // A host that jumps ahead leaves no more behind.
    for n in [1_000, 100_000, u32::MAX] {
        w.fact(&private(Private::Event { lease: id, event: event(n) })).unwrap();
    }
    let changes = w.state.take_changes();
    w.kv.write(&changes).unwrap();
    let mut left = 0;
    w.kv.scan(b"v", b"", &mut |_, _| {
        left += 1;
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(left, 1);
    w.refused(&private(Private::Label { lease: id, text: "a\0b".to_owned() }));
    w.refused(&private(Private::Label { lease: id, text: "x".repeat(65) }));
    let row = |key: Vec<u8>| Private::Row { key, value: None };
    w.refused(&private(row(Vec::new())));
    w.refused(&private(row(vec![1; PRIVATE_KEY_BYTES + 1])));
    w.fact(&private(row(vec![1; PRIVATE_KEY_BYTES]))).unwrap();
}
