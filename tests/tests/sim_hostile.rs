//! Peers who lie to one real engine: each lie gets a typed refusal, and changes nothing.
#![allow(clippy::unwrap_used)]

use souk_protocol::{
    Amount, Keypair, LeaseId, Millis, NetworkId, Nonce, Timestamp, Verified, encode,
    entry::{Body, Entry},
    lease::{EndReason, LeaseDraft, LeaseState},
    limits,
    machine::{
        io::{Command, Input, Refusal, Step, Token, Verdict, Wish},
        policy::HostSetup,
        pricing::OwnerAsked,
    },
    message::{Action, EventCode, LeaseEvent, LeaseUpdate, Request, Response},
    money::Counters,
    negotiation::{ImagePin, RejectCode},
    offer::{Notice, Offer, Withdrawal},
    receipt::{Ack, PartialReason, Usage},
    resources::Resources,
    signed::Signed,
    violation::Violation,
    workload::Workload,
};
use souk_tests::sim::{
    dice::Dice,
    hostile::{Bench, Liar, network},
    owner,
};

fn setup() -> HostSetup {
    HostSetup {
        listed: true,
        asked: OwnerAsked::default(),
        credit: Millis::from_mins(30),
        ..owner::setup(&mut Dice::new(5), 4)
    }
}

/// A host with its offer out.
fn host() -> Bench {
    let mut bench = Bench::new(Keypair::from_seed(&[1; 32]));
    bench.feed(Input::Command(Command::Host(Some(Box::new(setup())))));
    bench
}

fn commit(open: &Verified<Entry>, workload: &[u8]) -> Request {
    Request::Commit { open: open.to_signed(), workload: workload.to_vec(), settle: None }
}

fn code(response: &Response) -> RejectCode {
    let Response::Rejected(reject) = response else { panic!("not refused: {response:?}") };
    reject.code
}

/// A lease of a liar that runs on the host.
fn running(bench: &mut Bench, renter: &mut Liar, nonce: u8) -> (Verified<LeaseDraft>, LeaseId) {
    let (draft, workload) = renter.drafted(bench, nonce);
    let open = renter.open(&draft, bench.now);
    let answer = bench.ask(renter.id(), commit(&open, &workload));
    assert!(matches!(answer, Response::Answered(_)), "{answer:?}");
    let lease = draft.id().into();
    assert_eq!(bench.engine.host().leases()[&lease].state(), LeaseState::Running);
    (draft, lease)
}

#[test]
fn opens_that_are_not_right() {
    let mut bench = host();
    let mut renter = Liar::new(2, bench.now);
    let mut thief = Liar::new(3, bench.now);
    let (draft, workload) = renter.drafted(&mut bench, 1);
    let before = bench.mark();

    let stolen = thief.open(&draft, bench.now);
    assert_eq!(code(&bench.ask(thief.id(), commit(&stolen, &workload))), RejectCode::Malformed, "another's draft");
    let open = renter.open(&draft, bench.now);
    assert_eq!(code(&bench.ask(thief.id(), commit(&open, &workload))), RejectCode::Malformed, "another's open");
    assert_eq!(code(&bench.ask(renter.id(), commit(&open, b"else"))), RejectCode::Malformed, "another workload");
    let changed = renter.verified(Entry { peer: Some(thief.id()), ..(*open).clone() });
    assert_eq!(code(&bench.ask(renter.id(), commit(&changed, &workload))), RejectCode::Malformed, "another peer");
    let elsewhere = Verified::sign((*open).clone(), &renter.key, &NetworkId::of_name("elsewhere")).unwrap();
    assert_eq!(code(&bench.ask(renter.id(), commit(&elsewhere, &workload))), RejectCode::Malformed);
    assert!(matches!(bench.complaints().as_slice(), [Violation::Unverified { .. }]));
    // A draft that the renter signed for itself is not the host's.
    let forged = LeaseDraft { rates: souk_protocol::Rates::default(), ..(*draft).clone() };
    assert!(Verified::sign(forged, &renter.key, &network()).is_err());
    assert_eq!(bench.mark(), before);

    bench.wait(Millis(limits::COMMIT_WITHIN.0 + 2));
    assert_eq!(code(&bench.ask(renter.id(), commit(&open, &workload))), RejectCode::Stale, "too late");
    assert!(bench.engine.host().leases().is_empty());
}

#[test]
fn one_open_has_one_answer_for_ever() {
    let mut bench = host();
    let mut renter = Liar::new(2, bench.now);
    let (draft, workload) = renter.drafted(&mut bench, 1);
    let open = renter.open(&draft, bench.now);
    let first = bench.ask(renter.id(), commit(&open, &workload));
    let before = bench.mark();
    assert_eq!(bench.ask(renter.id(), commit(&open, &workload)), first);
    let second = renter.open(&draft, bench.now);
    assert_ne!(second.id(), open.id());
    assert_eq!(code(&bench.ask(renter.id(), commit(&second, &workload))), RejectCode::Taken);
    assert_eq!(bench.mark(), before);

    // Over and agreed on, the lease is forgotten; its open, repeated, still makes no second one.
    let lease: LeaseId = draft.id().into();
    let destroy = Request::Control { lease, action: Action::Destroy, nonce: Nonce([1; 16]) };
    assert!(matches!(bench.ask(renter.id(), destroy), Response::Controlled { .. }));
    let news = bench.ask(renter.id(), Request::Sync { lease, events_seen: 0 });
    let Response::News(update) = news else { panic!("{news:?}") };
    let close =
        update.entries.iter().map(|e| e.verify(&network()).unwrap()).find(|e| e.body.name() == "close").unwrap();
    let Body::Close { due, .. } = close.body else { unreachable!() };
    let ack = renter.entry(lease, draft.host, Body::CloseAck { close: close.id(), due }, bench.now);
    assert!(matches!(bench.ask(renter.id(), Request::Deliver { entry: ack.to_signed() }), Response::Seen { .. }));
    assert!(bench.engine.host().leases().is_empty());
    assert_eq!(bench.ask(renter.id(), commit(&open, &workload)), first);
    assert_eq!(bench.engine.host().slots().free(), 4);
}

#[test]
fn leases_of_others_are_out_of_reach() {
    let mut bench = host();
    let mut renter = Liar::new(2, bench.now);
    let mut thief = Liar::new(3, bench.now);
    let (draft, lease) = running(&mut bench, &mut renter, 1);
    let before = bench.mark();
    for action in [Action::Stop, Action::Start, Action::Destroy] {
        let control = Request::Control { lease, action, nonce: Nonce([9; 16]) };
        assert_eq!(code(&bench.ask(thief.id(), control)), RejectCode::Malformed);
    }
    assert_eq!(code(&bench.ask(thief.id(), Request::Sync { lease, events_seen: 0 })), RejectCode::Malformed);
    let body = Body::Close { reason: EndReason::Unconfirmed, usage: None, due: Amount::ZERO };
    let close = thief.entry(lease, draft.host, body.clone(), bench.now);
    assert!(matches!(
        bench.ask(thief.id(), Request::Deliver { entry: close.to_signed() }),
        Response::Seen { close_ack: None, .. }
    ));
    // The renter's own close, told by another.
    let close = renter.entry(lease, draft.host, body, bench.now);
    assert_eq!(code(&bench.ask(thief.id(), Request::Deliver { entry: close.to_signed() })), RejectCode::Malformed);
    assert_eq!(bench.mark(), before);
    let update = LeaseUpdate {
        lease,
        events: Vec::new(),
        progress: None,
        entries: Vec::new(),
        usage: None,
        eviction: None,
        rank: None,
        asked: None,
        payment: None,
    };
    assert_eq!(code(&bench.ask(thief.id(), Request::Update(Box::new(update)))), RejectCode::Malformed);
    assert_eq!(bench.mark(), before);
}

#[test]
fn false_acknowledgements() {
    let mut bench = host();
    let mut renter = Liar::new(2, bench.now);
    let (_, lease) = running(&mut bench, &mut renter, 1);
    bench.feed(Input::Connected(renter.id()));
    bench.asked.retain(|(_, _, r)| matches!(r, Request::Update(_)));
    let seen = |ack: Option<Signed<Ack>>| Ok(Response::Seen { events_seen: 1, ack, close_ack: None });
    bench.answer(|_| seen(None));
    let honest = |usage: &Verified<Usage>, renter: &Liar| Ack {
        renter: renter.id(),
        lease,
        n: usage.n,
        usage: usage.id(),
        due: usage.due,
        partial: None,
    };
    bench.wait(Millis::from_secs(10));
    let usage = bench.engine.host().leases()[&lease].usage().cloned().unwrap();
    assert!(usage.due > Amount::ZERO);
    let ack = honest(&usage, &renter);
    bench.answer(|_| seen(Some(renter.sign(ack))));
    assert_eq!(bench.engine.host().leases()[&lease].acked(), usage.due);
    assert!(bench.complaints().is_empty());

    bench.wait(Millis::from_secs(10));
    let newer = bench.engine.host().leases()[&lease].usage().cloned().unwrap();
    let lies = [
        ("over due", Ack { due: Amount(newer.due.0 + 1), ..honest(&newer, &renter) }),
        (
            "shrinking",
            Ack { due: Amount(usage.due.0 - 1), partial: Some(PartialReason::OverMetered), ..honest(&newer, &renter) },
        ),
        ("less without a reason", Ack { due: Amount(newer.due.0 - 1), ..honest(&newer, &renter) }),
        ("a reason for nothing", Ack { partial: Some(PartialReason::NotRunning), ..honest(&newer, &renter) }),
        ("of another lease", Ack { lease: LeaseId([7; 32]), ..honest(&newer, &renter) }),
        ("of a usage to come", Ack { n: newer.n + 5, usage: Default::default(), ..honest(&newer, &renter) }),
    ];
    for (lie, ack) in lies {
        let before = bench.mark();
        bench.answer(|_| seen(Some(renter.sign(ack))));
        assert!(matches!(bench.complaints().as_slice(), [Violation::FalseReceipt { .. }]), "{lie}");
        assert_eq!(bench.mark(), before, "{lie}");
        // The next usage brings the next question.
        bench.feed(Input::Connected(renter.id()));
        bench.asked.retain(|(_, _, r)| matches!(r, Request::Update(_)));
    }
    let before = bench.mark();
    bench.answer(|_| Ok(Response::BookNotices { notices: Vec::new() }));
    assert!(matches!(bench.complaints().as_slice(), [Violation::WrongAnswer { .. }]));
    assert_eq!(bench.mark(), before);
}

#[test]
fn what_was_taken_up_is_not_closed_as_unconfirmed() {
    let mut bench = host();
    let mut renter = Liar::new(2, bench.now);
    let (draft, lease) = running(&mut bench, &mut renter, 1);
    let stop = Request::Control { lease, action: Action::Stop, nonce: Nonce([1; 16]) };
    assert!(matches!(bench.ask(renter.id(), stop), Response::Controlled { .. }));
    let before = bench.mark();
    let body = Body::Close { reason: EndReason::Unconfirmed, usage: None, due: Amount::ZERO };
    let close = renter.entry(lease, draft.host, body, bench.now);
    assert_eq!(code(&bench.ask(renter.id(), Request::Deliver { entry: close.to_signed() })), RejectCode::Terms);
    assert!(matches!(bench.complaints().as_slice(), [Violation::FalseReceipt { .. }]));
    assert_eq!(bench.mark(), before);
    // Nor is an agreement taken to a close that was never signed.
    let ack = renter.entry(lease, draft.host, Body::CloseAck { close: close.id(), due: Amount::ZERO }, bench.now);
    assert_eq!(code(&bench.ask(renter.id(), Request::Deliver { entry: ack.to_signed() })), RejectCode::Terms);
    assert_eq!(bench.mark(), before);
}

#[test]
fn a_wish_that_comes_again_is_done_once() {
    let mut bench = host();
    let mut renter = Liar::new(2, bench.now);
    let (_, lease) = running(&mut bench, &mut renter, 1);
    let wish = |action, n| Request::Control { lease, action, nonce: Nonce([n; 16]) };
    let _ = bench.ask(renter.id(), wish(Action::Stop, 1));
    let _ = bench.ask(renter.id(), wish(Action::Start, 2));
    assert_eq!(bench.engine.host().leases()[&lease].state(), LeaseState::Running);
    let replayed = bench.ask(renter.id(), wish(Action::Stop, 1));
    assert_eq!(replayed, Response::Controlled { state: LeaseState::Running });
    assert_eq!(bench.engine.host().leases()[&lease].state(), LeaseState::Running);
}

/// An offer of a liar.
fn offer(liar: &Liar, seq: u64, at: Timestamp) -> Offer {
    let setup = setup();
    Offer {
        host: liar.id(),
        machine: setup.machine,
        seq,
        issued_at: at,
        valid_until: at + limits::OFFER_LIFE,
        hardware: setup.hardware,
        terms: setup.terms,
        availability: souk_protocol::offer::Availability {
            slots_total: 4,
            slots_free: 4,
            volume_mb: 0,
            reachability: souk_protocol::offer::Reachability::Direct,
            maintenance: None,
            ports_free: 0,
        },
        membership: None,
    }
}

#[test]
fn offers_that_are_not_right() {
    let mut bench = Bench::new(Keypair::from_seed(&[1; 32]));
    let liar = Liar::new(2, bench.now);
    let say = |notice: &Signed<Offer>| encode::to_bytes(&Notice::Offer(notice.clone()));
    let good = liar.sign(offer(&liar, 5, bench.now));
    assert_eq!(bench.gossip(liar.id(), say(&good)), Verdict::Accept);
    let before = bench.mark();

    assert_eq!(bench.gossip(liar.id(), say(&good)), Verdict::Ignore, "replayed");
    let old = liar.sign(offer(&liar, 4, bench.now));
    assert_eq!(bench.gossip(liar.id(), say(&old)), Verdict::Ignore, "superseded");
    let expired = liar.sign(offer(&liar, 6, Timestamp(bench.now.0 - limits::OFFER_LIFE.0 - 1)));
    assert_eq!(bench.gossip(liar.id(), say(&expired)), Verdict::Ignore, "expired");
    let future = liar.sign(offer(&liar, 6, bench.now + limits::CLOCK_SKEW + Millis(1)));
    assert_eq!(bench.gossip(liar.id(), say(&future)), Verdict::Ignore, "future-dated");
    let elsewhere = Verified::sign(offer(&liar, 6, bench.now), &liar.key, &NetworkId::of_name("elsewhere")).unwrap();
    assert_eq!(bench.gossip(liar.id(), say(&elsewhere.to_signed())), Verdict::Reject, "wrong network");
    let mut forged = say(&liar.sign(offer(&liar, 6, bench.now)));
    let last = forged.len() - 1;
    forged[last] ^= 1;
    assert_eq!(bench.gossip(liar.id(), forged), Verdict::Reject, "forged");
    for junk in [Vec::new(), vec![0xff; 64], vec![0; limits::OFFER_BYTES * 4]] {
        assert_eq!(bench.gossip(liar.id(), junk), Verdict::Reject, "junk, or oversized");
    }
    assert_eq!(bench.mark(), before);
    assert_eq!(bench.complaints().len(), 3);

    // Too many at once: the author's burst is used up, whatever the numbers.
    let verdicts: Vec<Verdict> =
        (10..30).map(|seq| bench.gossip(liar.id(), say(&liar.sign(offer(&liar, seq, bench.now))))).collect();
    let taken = verdicts.iter().filter(|v| **v == Verdict::Accept).count();
    assert!(taken <= limits::OFFER_BURST as usize, "{taken}");
    let gone = Withdrawal { host: liar.id(), machine: setup().machine, seq: 100, issued_at: bench.now };
    bench.wait(limits::OFFER_INTERVAL);
    let gone = encode::to_bytes(&Notice::Withdrawal(liar.sign(gone)));
    assert_eq!(bench.gossip(liar.id(), gone), Verdict::Accept);
    assert_eq!(bench.gossip(liar.id(), say(&liar.sign(offer(&liar, 99, bench.now)))), Verdict::Ignore, "withdrawn");
    assert_eq!(bench.engine.book().offers().count(), 0);
}

#[test]
fn a_host_can_t_fill_the_book_alone() {
    let mut bench = Bench::new(Keypair::from_seed(&[1; 32]));
    let liar = Liar::new(2, bench.now);
    for n in 0..limits::MACHINES_PER_HOST as u64 + 10 {
        let mut machine = [0; 16];
        machine[..8].copy_from_slice(&n.to_be_bytes());
        let offer = Offer { machine: souk_protocol::MachineId(machine), ..offer(&liar, 1, bench.now) };
        bench.gossip(liar.id(), encode::to_bytes(&Notice::Offer(liar.sign(offer))));
    }
    assert_eq!(bench.engine.book().offers().count(), limits::MACHINES_PER_HOST);
}

/// A renter who has seen a liar's offer and wants it.
fn renter(liar: &Liar) -> (Bench, Verified<Offer>) {
    let mut bench = Bench::new(Keypair::from_seed(&[1; 32]));
    let offer = liar.verified(offer(liar, 1, bench.now));
    let data = encode::to_bytes(&Notice::Offer(offer.to_signed()));
    assert_eq!(bench.gossip(liar.id(), data), Verdict::Accept);
    let wish = Wish {
        ask: souk_protocol::AskId::of(&liar.id(), &offer.machine, 1),
        nonce: Nonce([4; 16]),
        rental: souk_protocol::negotiation::RentalType::OnDemand,
        extend: None,
        bid: None,
        max_price: None,
        term: Some(Millis::from_hours(1)),
        disk_mb: 1000,
        egress: souk_protocol::resources::Egress::None,
        ports: Vec::new(),
        image: "debian:12".to_owned(),
        image_digest: None,
        workload: Workload::default(),
        max_spend: Some(Amount(5_000_000_000)),
        prepay: None,
        tick: None,
        label: None,
        volume: false,
    };
    bench.feed(Input::Command(Command::Rent { token: Token(77), wish: Box::new(wish) }));
    (bench, offer)
}

/// The draft that the renter of [`renter`] expects.
fn draft(liar: &Liar, bench: &Bench, offer: &Verified<Offer>) -> LeaseDraft {
    let Some((_, _, Request::Propose(p))) = bench.asked.first() else { panic!("no bid") };
    LeaseDraft {
        host: liar.id(),
        renter: bench.engine.me(),
        machine: offer.machine,
        ask: p.ask,
        offer: offer.id(),
        nonce: p.nonce,
        rental: p.rental,
        resources: Resources::share(&offer.hardware, offer.class(), 1, 4, p.disk_mb).unwrap(),
        egress: p.egress,
        public: None,
        currency: offer.terms.currency.clone(),
        rates: souk_protocol::Rates {
            compute_hour: p.price_hour,
            storage_gb_month: offer.terms.storage_gb_month,
            up_gb: offer.terms.up_gb,
            down_gb: offer.terms.down_gb,
        },
        listed_hour: p.price_hour,
        credit: Amount(1_000_000_000),
        payment: None,
        max_spend: p.max_spend,
        extend_until: None,
        notice: offer.terms.eviction_notice,
        quantum: offer.terms.quantum,
        tick: Millis::from_secs(10),
        image: ImagePin { reference: p.image.clone(), digest: owner::image_digest() },
        workload: p.workload,
        ssh_host_key: souk_protocol::SshKey([7; 32]),
        drafted_at: bench.now,
        ends_at: bench.now + Millis::from_hours(1),
        commit_by: bench.now + limits::COMMIT_WITHIN,
        confirm_by: bench.now + limits::COMMIT_WITHIN + limits::CONFIRM_WITHIN,
    }
}

#[test]
fn drafts_that_were_not_agreed() {
    type Change = fn(&mut LeaseDraft);
    let lies: [(&str, Change); 12] = [
        ("dearer", |d| d.rates.compute_hour.0 += 1),
        ("dearer disk", |d| d.rates.storage_gb_month.0 += 1),
        ("dearer traffic", |d| d.rates.up_gb.0 += 1),
        ("less memory", |d| d.resources.ram_mb -= 1),
        ("no ceiling", |d| d.max_spend = None),
        ("another currency", |d| d.currency.0 = "EUR".to_owned()),
        ("another image", |d| d.image.reference = "debian:11".to_owned()),
        ("another workload", |d| d.workload.0[0] ^= 1),
        ("a shorter term", |d| d.ends_at = d.drafted_at + Millis::from_mins(2)),
        ("an endless wait", |d| d.confirm_by = d.confirm_by + Millis::from_hours(1)),
        ("for another", |d| d.renter = souk_protocol::NodeId([9; 32])),
        ("another negotiation's", |d| d.nonce.0[0] ^= 1),
    ];
    for (lie, change) in lies {
        let liar = Liar::new(2, Timestamp(1_790_000_000_000));
        let (mut bench, offer) = renter(&liar);
        let mut lying = draft(&liar, &bench, &offer);
        change(&mut lying);
        let before = bench.mark();
        bench.answer(|_| Ok(Response::Drafted(liar.sign(lying))));
        assert!(matches!(bench.steps.last(), Some(Step::Failed { why: Refusal::BadDraft(_) })), "{lie}");
        assert_eq!(bench.mark(), before, "{lie}");
    }
    let liar = Liar::new(2, Timestamp(1_790_000_000_000));
    let (mut bench, _) = renter(&liar);
    bench.answer(|_| Ok(Response::Controlled { state: LeaseState::Running }));
    assert!(matches!(bench.complaints().as_slice(), [Violation::WrongAnswer { .. }]));
    assert!(matches!(bench.steps.last(), Some(Step::Failed { why: Refusal::NoAnswer(_) })));
}

/// A lease that a renter has with a lying host, running.
fn rented(liar: &mut Liar) -> (Bench, Verified<LeaseDraft>) {
    let (mut bench, offer) = renter(liar);
    let draft = liar.verified(draft(liar, &bench, &offer));
    let signed = draft.to_signed();
    bench.answer(|_| Ok(Response::Drafted(signed)));
    let Some((_, _, Request::Commit { open, .. })) = bench.asked.first() else { panic!("no open") };
    let open = open.id(&network());
    let now = bench.now;
    let accept = liar.entry(draft.id().into(), draft.renter, Body::LeaseAccept { open }, now);
    bench.answer(|_| Ok(Response::Answered(accept.to_signed())));
    assert!(matches!(bench.steps.last(), Some(Step::Accepted { .. })));
    let state = LeaseState::Running;
    let by = souk_protocol::message::Cause::Host;
    let event =
        LeaseEvent { n: 1, at: bench.now, state, what: EventCode::State, by, exit_code: None, note: String::new() };
    let update = LeaseUpdate { events: vec![event], ..update(&draft, None) };
    let answer = bench.ask(liar.id(), Request::Update(Box::new(update)));
    assert!(matches!(answer, Response::Seen { events_seen: 1, .. }), "{answer:?}");
    (bench, draft)
}

fn update(draft: &Verified<LeaseDraft>, usage: Option<Signed<Usage>>) -> LeaseUpdate {
    LeaseUpdate {
        lease: draft.id().into(),
        events: Vec::new(),
        progress: None,
        entries: Vec::new(),
        usage,
        eviction: None,
        rank: None,
        asked: None,
        payment: None,
    }
}

fn due(draft: &LeaseDraft, counters: &Counters) -> Result<Amount, souk_protocol::money::Overflow> {
    souk_protocol::terms::LeaseTerms::drafted(draft).due(draft, counters)
}

fn usage(draft: &Verified<LeaseDraft>, before: Option<&Verified<Usage>>, active: u64, time: Timestamp) -> Usage {
    let counters = Counters { active: Millis(active), storage: Millis(active), ..Counters::default() };
    Usage {
        host: draft.host,
        lease: draft.id().into(),
        n: before.map_or(1, |u| u.n + 1),
        prev: before.map(Verified::id),
        time,
        counters,
        terms: 0,
        due: due(draft, &counters).unwrap(),
        state: LeaseState::Running,
    }
}

#[test]
fn false_usages() {
    let mut liar = Liar::new(2, Timestamp(1_790_000_000_000));
    let (mut bench, draft) = rented(&mut liar);
    let tell = |bench: &mut Bench, usage: Signed<Usage>| {
        let answer = bench.ask(draft.host, Request::Update(Box::new(update(&draft, Some(usage)))));
        let Response::Seen { ack, .. } = &answer else { panic!("{answer:?}") };
        ack.as_ref().map(|a| a.verify(&network()).unwrap())
    };
    bench.wait(Millis::from_secs(100));
    let first = liar.verified(usage(&draft, None, 100_000, bench.now));
    let ack = tell(&mut bench, first.to_signed()).unwrap();
    assert_eq!((ack.due, ack.partial), (first.due, None));

    bench.wait(Millis::from_secs(100));
    let next = usage(&draft, Some(&first), 200_000, bench.now);
    let shrunk = Counters { active: Millis(50_000), ..next.counters };
    let lies = [
        ("wrong due", Usage { due: Amount(next.due.0 + 1), ..next.clone() }),
        ("shrinking", Usage { counters: shrunk, due: due(&draft, &shrunk).unwrap(), ..next.clone() }),
        ("a number twice", Usage { n: 1, prev: None, ..next.clone() }),
        ("not after the last", Usage { prev: Some(draft.id()), ..next.clone() }),
        ("dated back", Usage { time: Timestamp(first.time.0 - 1), ..next.clone() }),
        ("of another lease", Usage { lease: LeaseId([3; 32]), ..next.clone() }),
    ];
    for (lie, lying) in lies {
        let before = bench.mark();
        // Asked again, the renter repeats what it has acknowledged, and nothing more.
        let ack = tell(&mut bench, liar.sign(lying));
        assert_eq!(ack.map(|a| a.usage), Some(first.id()), "{lie}");
        assert!(matches!(bench.complaints().as_slice(), [Violation::FalseReceipt { .. }]), "{lie}");
        assert_eq!(bench.mark(), before, "{lie}");
    }

    // Ten times the time that has passed: acknowledged as far as it can be true.
    let greedy = liar.verified(usage(&draft, Some(&first), 2_000_000, bench.now));
    let ack = tell(&mut bench, greedy.to_signed()).unwrap();
    assert_eq!(ack.partial, Some(PartialReason::OverMetered));
    let most = Counters { active: Millis(207_000), storage: Millis(207_000), ..Counters::default() };
    assert!(ack.due <= due(&draft, &most).unwrap() && ack.due >= first.due, "{}", ack.due);

    // What the ceiling has cut is never more than the ceiling.
    bench.wait(Millis::from_hours(20));
    let all = liar.verified(usage(&draft, Some(&greedy), 72_000_000, bench.now));
    let ack = tell(&mut bench, all.to_signed()).unwrap();
    assert!(ack.due <= draft.max_spend.unwrap());
}

#[test]
fn time_in_a_pause_is_not_acknowledged_as_running() {
    let mut liar = Liar::new(2, Timestamp(1_790_000_000_000));
    let (mut bench, draft) = rented(&mut liar);
    bench.wait(Millis::from_secs(50));
    let state = LeaseState::Paused(souk_protocol::lease::PauseReason::Stopped);
    let by = souk_protocol::message::Cause::Renter;
    let event =
        LeaseEvent { n: 2, at: bench.now, state, what: EventCode::State, by, exit_code: None, note: String::new() };
    bench.wait(Millis::from_secs(150));
    let lying = liar.verified(usage(&draft, None, 200_000, bench.now));
    let told = LeaseUpdate { events: vec![event], ..update(&draft, Some(lying.to_signed())) };
    let Response::Seen { ack: Some(ack), .. } = bench.ask(draft.host, Request::Update(Box::new(told))) else {
        panic!("no answer")
    };
    let ack = ack.verify(&network()).unwrap();
    assert_eq!(ack.partial, Some(PartialReason::NotRunning));
    let ran = Counters { active: Millis(56_000), storage: Millis(200_000), ..Counters::default() };
    assert!(ack.due <= due(&draft, &ran).unwrap());
}

#[test]
fn false_ends() {
    let mut liar = Liar::new(2, Timestamp(1_790_000_000_000));
    let (mut bench, draft) = rented(&mut liar);
    bench.wait(Millis::from_secs(10));
    let lease: LeaseId = draft.id().into();
    let before = bench.mark();
    let close = |due, usage| Body::Close { reason: EndReason::Destroyed, usage, due };
    for body in [close(Amount(1), None), close(Amount::ZERO, Some(draft.id()))] {
        let now = bench.now;
        let entry = liar.entry(lease, draft.renter, body, now);
        let told = LeaseUpdate { entries: vec![entry.to_signed()], ..update(&draft, None) };
        let answer = bench.ask(draft.host, Request::Update(Box::new(told)));
        assert!(matches!(answer, Response::Seen { close_ack: None, .. }), "{answer:?}");
        assert!(matches!(bench.complaints().as_slice(), [Violation::FalseReceipt { .. }]));
    }
    // A stranger's news of our lease.
    let stranger = Liar::new(5, bench.now);
    let told = Request::Update(Box::new(update(&draft, None)));
    assert_eq!(code(&bench.ask(stranger.id(), told)), RejectCode::Malformed);
    assert_eq!(bench.mark(), before);
}
