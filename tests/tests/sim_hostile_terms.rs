//! Peers who lie about the terms of a lease, or ask without end, to one real engine: each gets a typed refusal, and changes nothing.
#![allow(clippy::unwrap_used)]

use souk_protocol::{
    Amount, Keypair, LeaseId, Millis, Nonce, Timestamp, Verified, encode,
    entry::{Body, Entry},
    lease::{EndReason, LeaseDraft, LeaseState},
    limits,
    machine::{
        io::{Command, Input, Token, Verdict, Wish},
        policy::HostSetup,
    },
    message::{Cause, EventCode, LeaseEvent, LeaseUpdate, Request, Response},
    money::Counters,
    negotiation::{ImagePin, RejectCode, RentalType},
    offer::{Availability, Notice, Offer},
    receipt::{Ack, PartialReason, Usage},
    resources::Resources,
    terms::{Amended, Change, LeaseTerms, NextPrice},
    violation::Violation,
    workload::Workload,
};
use souk_tests::sim::{
    dice::Dice,
    hostile::{Bench, Liar, network},
    owner,
};

const HOUR: Amount = Amount(5_000_000_000);

fn setup() -> HostSetup {
    let mut setup = HostSetup { credit: Millis::from_mins(30), ..owner::setup(&mut Dice::new(5), 4) };
    setup.terms.slot_hour = HOUR;
    setup.terms.min_bid_slot_hour = Amount(1_000_000_000);
    setup.terms.eviction_notice = Millis::from_secs(30);
    setup.terms.quantum = Millis::from_secs(20);
    setup.terms.reserved_discount = 200;
    setup
}

/// A host with its offer out.
fn host() -> Bench {
    let mut bench = Bench::new(Keypair::from_seed(&[1; 32]));
    bench.feed(Input::Command(Command::Host(Some(Box::new(setup())))));
    bench
}

fn code(response: &Response) -> RejectCode {
    let Response::Rejected(reject) = response else { panic!("not refused: {response:?}") };
    reject.code
}

fn bid(bench: &Bench, renter: &Liar, nonce: u8) -> (Request, Vec<u8>) {
    let offer = bench.engine.host().offer().cloned().unwrap();
    let (mut proposal, workload) = renter.bid(&offer, offer.id(), nonce);
    proposal.rental = RentalType::Interruptible;
    proposal.price_hour = Amount(2_000_000_000);
    (Request::Propose(Box::new(proposal)), workload)
}

/// An interruptible lease of a liar, running on the host.
fn running(bench: &mut Bench, renter: &mut Liar, nonce: u8) -> (Verified<LeaseDraft>, LeaseId) {
    let (propose, workload) = bid(bench, renter, nonce);
    let Response::Drafted(draft) = bench.ask(renter.id(), propose) else { panic!("no draft") };
    let draft = draft.verify(&network()).unwrap();
    let open = renter.open(&draft, bench.now);
    let answer = bench.ask(renter.id(), Request::Commit { open: open.to_signed(), workload, settle: None });
    assert!(matches!(answer, Response::Answered(_)), "{answer:?}");
    let lease = draft.id().into();
    assert_eq!(bench.engine.host().leases()[&lease].state(), LeaseState::Running);
    (draft, lease)
}

fn raise(n: u32, compute_hour: u64, valid_until: Timestamp) -> Body {
    Body::Amend { n, change: Change::Bid { compute_hour: Amount(compute_hour) }, valid_until }
}

fn amend(entry: &Verified<Entry>) -> Request {
    Request::Amend { entry: entry.to_signed() }
}

#[test]
fn changes_that_are_not_right() {
    let mut bench = host();
    let (mut renter, mut thief) = (Liar::new(2, bench.now), Liar::new(3, bench.now));
    let (draft, lease) = running(&mut bench, &mut renter, 1);
    let (_, other) = running(&mut bench, &mut thief, 2);
    bench.wait(Millis::from_secs(1));
    let (now, me) = (bench.now, draft.host);
    let soon = now + Millis::from_secs(60);
    let terms = |bench: &Bench, lease: &LeaseId| *bench.engine.host().leases()[lease].terms();
    let before = (bench.mark(), terms(&bench, &lease), terms(&bench, &other));

    let forged = thief.entry(lease, me, raise(1, 3_000_000_000, soon), now);
    assert_eq!(code(&bench.ask(thief.id(), amend(&forged))), RejectCode::Malformed, "of another's lease");
    assert_eq!(code(&bench.ask(renter.id(), amend(&forged))), RejectCode::Malformed, "by another");
    let ours = renter.entry(other, me, raise(1, 3_000_000_000, soon), now);
    assert_eq!(code(&bench.ask(renter.id(), amend(&ours))), RejectCode::Malformed, "of another's lease");
    let astray = renter.entry(lease, thief.id(), raise(1, 3_000_000_000, soon), now);
    assert_eq!(code(&bench.ask(renter.id(), amend(&astray))), RejectCode::Malformed, "to another host");
    let no_change = renter.entry(lease, me, Body::Placement { start: 1, slots: vec![0], devices: Vec::new() }, now);
    assert_eq!(code(&bench.ask(renter.id(), amend(&no_change))), RejectCode::Malformed, "no change");
    for (body, want) in [
        (raise(0, 3_000_000_000, soon), RejectCode::Stale),
        (raise(2, 3_000_000_000, soon), RejectCode::Stale),
        (raise(u32::MAX, 3_000_000_000, soon), RejectCode::Stale),
        (raise(1, 3_000_000_000, Timestamp(now.0 - 1)), RejectCode::Stale),
        (raise(1, 3_000_000_000, now + Millis::from_hours(1)), RejectCode::Stale),
        (raise(1, 2_000_000_000, soon), RejectCode::Terms),
        (raise(1, 2_000_000_001, soon), RejectCode::Terms),
        (raise(1, 999_999_999, soon), RejectCode::Price),
        (raise(1, 0, soon), RejectCode::Price),
    ] {
        let entry = renter.entry(lease, me, body.clone(), now);
        assert_eq!(code(&bench.ask(renter.id(), amend(&entry))), want, "{body:?}");
    }
    assert_eq!((bench.mark(), terms(&bench, &lease), terms(&bench, &other)), before);

    // The right one, and what was refused before it, again.
    let good = renter.entry(lease, me, raise(1, 3_000_000_000, soon), now);
    let answer = bench.ask(renter.id(), amend(&good));
    assert!(matches!(answer, Response::Answered(_)), "{answer:?}");
    let after = (bench.mark(), terms(&bench, &lease));
    assert_eq!(after.1.compute_hour, Amount(3_000_000_000));
    assert_eq!(bench.ask(renter.id(), amend(&good)), answer, "one change has one answer");
    assert_eq!((bench.mark(), terms(&bench, &lease)), after);
    assert_eq!(code(&bench.ask(renter.id(), amend(&forged))), RejectCode::Malformed);
    assert!(bench.complaints().is_empty());
}

/// A date in the far future must not get into the host's chain: nobody would take its entries any more.
#[test]
fn a_change_of_the_far_future_dates_no_chain() {
    let mut bench = host();
    let mut renter = Liar::new(2, bench.now);
    let (draft, lease) = running(&mut bench, &mut renter, 1);
    let now = bench.now;
    let future = now + Millis::from_hours(100_000);
    let entry = renter.entry(lease, draft.host, raise(1, 3_000_000_000, now + Millis::from_secs(60)), future);
    let answer = bench.ask(renter.id(), amend(&entry));
    assert!(matches!(answer, Response::Answered(_) | Response::Rejected(_)), "{answer:?}");
    assert!(bench.engine.head().unwrap().time <= now + Millis(1000));
}

#[test]
fn floods_are_refused_and_others_served() {
    let mut bench = host();
    let (mut flooder, mut honest) = (Liar::new(2, bench.now), Liar::new(3, bench.now));
    let (draft, lease) = running(&mut bench, &mut flooder, 1);
    let (propose, _) = bid(&bench, &flooder, 2);
    let (records, pending) = (bench.records.len(), bench.engine.host().pending());
    let machine = draft.machine;
    let mut limited = 0;
    for n in 0..10_000u64 {
        if n % 10 == 0 {
            bench.wait(Millis(1));
        }
        let (now, me) = (bench.now, draft.host);
        let request = match n % 4 {
            0 => propose.clone(),
            1 => Request::Quote { machine },
            2 => Request::AskExtension { lease, ends_at: now + Millis::from_hours(3) },
            _ => amend(&flooder.entry(lease, me, raise(1, 1, now + Millis::from_secs(60)), now)),
        };
        if matches!(bench.ask(flooder.id(), request), Response::Rejected(r) if r.code == RejectCode::Limit) {
            limited += 1;
        }
    }
    assert!(limited >= 10_000 - 100, "{limited}");
    assert!(bench.records.len() - records < 20, "its questions are not written down");
    assert!(bench.engine.host().pending() <= pending + 2);
    assert_eq!(bench.engine.host().leases().len(), 1);
    let (_, served) = running(&mut bench, &mut honest, 3);
    let answer = bench.ask(honest.id(), Request::Quote { machine });
    assert!(matches!(answer, Response::Quoted { .. }), "{answer:?}");
    assert_eq!(bench.engine.host().leases()[&served].state(), LeaseState::Running);
}

/// Bids that wait cost nothing, so one renter must not take all the places there are.
#[test]
fn one_renter_does_not_fill_the_queue() {
    let mut bench = host();
    let (mut greedy, mut honest) = (Liar::new(2, bench.now), Liar::new(3, bench.now));
    let mut leases = 0;
    let refused = loop {
        bench.wait(Millis::from_secs(30));
        let (propose, workload) = bid(&bench, &greedy, u8::try_from(leases).unwrap());
        let answer = bench.ask(greedy.id(), propose);
        let Response::Drafted(draft) = answer else { break answer };
        let draft = draft.verify(&network()).unwrap();
        let open = greedy.open(&draft, bench.now);
        let answer = bench.ask(greedy.id(), Request::Commit { open: open.to_signed(), workload, settle: None });
        assert!(matches!(answer, Response::Answered(_)), "{answer:?}");
        leases += 1;
    };
    assert_eq!(code(&refused), RejectCode::Limit);
    let total = usize::from(bench.engine.host().offer().unwrap().availability.slots_total);
    assert_eq!(leases, total + limits::WAITING_BIDS_OF_RENTER);
    let (propose, workload) = bid(&bench, &honest, 1);
    let Response::Drafted(draft) = bench.ask(honest.id(), propose) else { panic!("others are served") };
    let open = honest.open(&draft.verify(&network()).unwrap(), bench.now);
    let answer = bench.ask(honest.id(), Request::Commit { open: open.to_signed(), workload, settle: None });
    assert!(matches!(answer, Response::Answered(_)), "{answer:?}");
}

/// A lease that an honest renter has with a lying host, running.
fn rented(liar: &mut Liar, rental: RentalType, extend: Option<Millis>) -> (Bench, Verified<LeaseDraft>) {
    let mut bench = Bench::new(Keypair::from_seed(&[1; 32]));
    let setup = setup();
    let reachability = setup.reachability;
    let availability =
        Availability { slots_total: 4, slots_free: 4, reachability, maintenance: None, ports_free: 0, volume_mb: 0 };
    let offer = liar.verified(Offer {
        membership: None,
        host: liar.id(),
        machine: setup.machine,
        seq: 1,
        issued_at: bench.now,
        valid_until: bench.now + limits::OFFER_LIFE,
        hardware: setup.hardware,
        terms: setup.terms,
        availability,
    });
    let data = encode::to_bytes(&Notice::Offer(offer.to_signed()));
    assert_eq!(bench.gossip(liar.id(), data), Verdict::Accept);
    let ask = souk_protocol::AskId::of(&liar.id(), &offer.machine, 1);
    let wish = Wish {
        ask,
        nonce: Nonce([4; 16]),
        rental,
        extend,
        bid: None,
        max_price: Some(HOUR),
        term: Some(Millis::from_hours(2)),
        disk_mb: 1000,
        egress: souk_protocol::resources::Egress::None,
        ports: Vec::new(),
        image: "debian:12".to_owned(),
        image_digest: None,
        workload: Workload::default(),
        max_spend: None,
        prepay: None,
        tick: None,
        label: None,
        volume: false,
    };
    bench.feed(Input::Command(Command::Rent { token: Token(77), wish: Box::new(wish) }));
    let Some((_, _, Request::Propose(p))) = bench.asked.first() else { panic!("no bid") };
    let now = bench.now;
    let draft = liar.verified(LeaseDraft {
        ssh_host_key: souk_protocol::SshKey([7; 32]),
        host: liar.id(),
        renter: bench.engine.me(),
        machine: offer.machine,
        ask,
        offer: offer.id(),
        nonce: p.nonce,
        rental,
        resources: Resources::share(&offer.hardware, offer.class(), 1, 4, 1000).unwrap(),
        egress: p.egress,
        public: None,
        currency: offer.terms.currency.clone(),
        rates: souk_protocol::Rates { compute_hour: p.price_hour, ..Default::default() },
        listed_hour: HOUR,
        credit: Amount(10_000_000_000),
        payment: None,
        max_spend: None,
        extend_until: extend.map(|extend| now + Millis::from_hours(2) + extend),
        notice: offer.terms.eviction_notice,
        quantum: offer.terms.quantum,
        tick: Millis::from_secs(10),
        image: ImagePin { reference: "debian:12".to_owned(), digest: owner::image_digest() },
        workload: p.workload,
        drafted_at: now,
        ends_at: now + Millis::from_hours(2),
        commit_by: now + limits::COMMIT_WITHIN,
        confirm_by: now + limits::COMMIT_WITHIN + limits::CONFIRM_WITHIN,
    });
    bench.answer(|_| Ok(Response::Drafted(draft.to_signed())));
    let Some((_, _, Request::Commit { open, .. })) = bench.asked.first() else { panic!("no open") };
    let open = open.id(&network());
    let accept = liar.entry(draft.id().into(), draft.renter, Body::LeaseAccept { open }, now);
    bench.answer(|_| Ok(Response::Answered(accept.to_signed())));
    let (state, what, by) = (LeaseState::Running, EventCode::State, Cause::Host);
    let event = LeaseEvent { n: 1, at: now, state, what, by, exit_code: None, note: String::new() };
    tell(&mut bench, &draft, LeaseUpdate { events: vec![event], ..news(&draft) });
    bench.feed(Input::Connected(liar.id()));
    bench.asked.clear();
    (bench, draft)
}

fn news(draft: &Verified<LeaseDraft>) -> LeaseUpdate {
    LeaseUpdate {
        lease: draft.id().into(),
        events: Vec::new(),
        progress: None,
        entries: Vec::new(),
        usage: None,
        eviction: None,
        rank: None,
        asked: None,
        payment: None,
    }
}

fn tell(bench: &mut Bench, draft: &Verified<LeaseDraft>, update: LeaseUpdate) -> Option<Verified<Ack>> {
    let answer = bench.ask(draft.host, Request::Update(Box::new(update)));
    let Response::Seen { ack, .. } = &answer else { panic!("{answer:?}") };
    ack.as_ref().map(|a| a.verify(&network()).unwrap())
}

fn used(active: u64) -> Counters {
    Counters { active: Millis(active), storage: Millis(active), ..Counters::default() }
}

#[test]
fn terms_that_nobody_agreed_to() {
    let mut liar = Liar::new(2, Timestamp(1_790_000_000_000));
    let (mut bench, draft) = rented(&mut liar, RentalType::Interruptible, None);
    let lease: LeaseId = draft.id().into();
    bench.wait(Millis::from_secs(100));
    let now = bench.now;
    let change = Change::Bid { compute_hour: Amount(4_000_000_000) };
    bench.feed(Input::Command(Command::Amend { token: Token(5), lease, change }));
    let Some((_, _, Request::Amend { entry })) = bench.asked.first() else { panic!("nothing asked") };
    let asked = Some(entry.id(&network()));
    let drafted = LeaseTerms::drafted(&draft);
    let counted = used(90_000);
    let good = drafted.changed(&draft, &change, &counted, now).unwrap();
    let over = drafted.changed(&draft, &change, &used(900_000), now).unwrap();
    let later = now + Millis::from_hours(5);
    let lies = [
        ("raises the price alone", None, good),
        ("extends without leave", None, LeaseTerms { compute_hour: drafted.compute_hour, ends_at: later, ..good }),
        ("answers a change never made", Some(draft.id()), good),
        ("carries too much", asked, LeaseTerms { carried: Amount(good.carried.0 + 1), ..good }),
        ("counts what can't have been used", asked, over),
        ("takes another price", asked, LeaseTerms { compute_hour: Amount(4_000_000_001), ..good }),
        (
            "agrees on a later price",
            asked,
            LeaseTerms { next: Some(NextPrice { from: now, compute_hour: Amount(9) }), ..good },
        ),
        ("lifts the ceiling", asked, LeaseTerms { max_spend: Some(Amount(1)), ..good }),
        ("dates the bid back", asked, LeaseTerms { bid_at: Timestamp(now.0 - 5_000), ..good }),
        ("extends beside", asked, LeaseTerms { ends_at: later, ..good }),
    ];
    let terms = |bench: &Bench| *bench.engine.renter().leases()[&lease].terms();
    for (lie, amend, terms_told) in lies {
        let before = bench.mark();
        let entry = liar.entry(lease, draft.renter, Body::Amended(Amended { amend, terms: terms_told }), now);
        tell(&mut bench, &draft, LeaseUpdate { entries: vec![entry.to_signed()], ..news(&draft) });
        assert_eq!((bench.mark(), terms(&bench)), (before, drafted), "{lie}");
        assert!(matches!(bench.complaints().as_slice(), [Violation::FalseReceipt { .. }]), "{lie}");
    }
    // Numbers that are skipped, or come again, say nothing.
    for n in [0, 2, u32::MAX] {
        let before = bench.mark();
        let amended = Amended { amend: asked, terms: LeaseTerms { n, ..good } };
        let entry = liar.entry(lease, draft.renter, Body::Amended(amended), now);
        tell(&mut bench, &draft, LeaseUpdate { entries: vec![entry.to_signed()], ..news(&draft) });
        assert_eq!((bench.mark(), terms(&bench)), (before, drafted), "{n}");
    }
    let entry = liar.entry(lease, draft.renter, Body::Amended(Amended { amend: asked, terms: good }), now);
    tell(&mut bench, &draft, LeaseUpdate { entries: vec![entry.to_signed()], ..news(&draft) });
    assert_eq!(terms(&bench), good);
    assert!(bench.complaints().is_empty());
}

#[test]
fn a_change_taken_after_its_time() {
    let mut liar = Liar::new(2, Timestamp(1_790_000_000_000));
    let (mut bench, draft) = rented(&mut liar, RentalType::Interruptible, None);
    let lease: LeaseId = draft.id().into();
    let change = Change::Bid { compute_hour: Amount(4_000_000_000) };
    bench.feed(Input::Command(Command::Amend { token: Token(5), lease, change }));
    let Some((_, _, Request::Amend { entry })) = bench.asked.first() else { panic!("nothing asked") };
    let asked = Some(entry.id(&network()));
    let in_time = bench.now + Millis::from_secs(10);
    bench.wait(Millis(limits::AMEND_WITHIN.0 + limits::CLOCK_SKEW.0 + 10));
    let drafted = LeaseTerms::drafted(&draft);
    let now = bench.now;
    let late = drafted.changed(&draft, &change, &used(5_000), now).unwrap();
    let entry = liar.entry(lease, draft.renter, Body::Amended(Amended { amend: asked, terms: late }), now);
    tell(&mut bench, &draft, LeaseUpdate { entries: vec![entry.to_signed()], ..news(&draft) });
    assert_eq!(*bench.engine.renter().leases()[&lease].terms(), drafted);
    assert!(matches!(bench.complaints().as_slice(), [Violation::FalseReceipt { .. }]));

    // Taken in time and told late, it holds: an honest host may have been cut off.
    let mut honest = Liar::new(2, in_time);
    let taken = drafted.changed(&draft, &change, &used(5_000), in_time).unwrap();
    let entry = honest.entry(lease, draft.renter, Body::Amended(Amended { amend: asked, terms: taken }), in_time);
    tell(&mut bench, &draft, LeaseUpdate { entries: vec![entry.to_signed()], ..news(&draft) });
    assert_eq!(*bench.engine.renter().leases()[&lease].terms(), taken);
    assert!(bench.complaints().is_empty());
}

#[test]
fn extensions_by_a_host_alone_stay_within_its_leave() {
    let mut liar = Liar::new(2, Timestamp(1_790_000_000_000));
    let (mut bench, draft) = rented(&mut liar, RentalType::OnDemand, Some(Millis::from_hours(1)));
    let lease: LeaseId = draft.id().into();
    bench.wait(Millis::from_secs(100));
    let now = bench.now;
    let drafted = LeaseTerms::drafted(&draft);
    let leave = draft.extend_until.unwrap();
    let price = drafted.compute_hour;
    let good = drafted.extended(&draft, leave, price, &used(90_000)).unwrap();
    let dearer = Some(NextPrice { from: draft.ends_at, compute_hour: Amount(price.0 + 1) });
    let lies = [
        ("too long", LeaseTerms { ends_at: leave + Millis(1), ..good }),
        ("dearer", LeaseTerms { next: dearer, ..good }),
        ("dearer at once", LeaseTerms { compute_hour: Amount(price.0 + 1), ..good }),
        ("shorter", LeaseTerms { ends_at: Timestamp(draft.ends_at.0 - 1), ..good }),
    ];
    for (lie, terms) in lies {
        let entry = liar.entry(lease, draft.renter, Body::Amended(Amended { amend: None, terms }), now);
        tell(&mut bench, &draft, LeaseUpdate { entries: vec![entry.to_signed()], ..news(&draft) });
        assert_eq!(*bench.engine.renter().leases()[&lease].terms(), drafted, "{lie}");
        assert!(matches!(bench.complaints().as_slice(), [Violation::FalseReceipt { .. }]), "{lie}");
    }
    let entry = liar.entry(lease, draft.renter, Body::Amended(Amended { amend: None, terms: good }), now);
    tell(&mut bench, &draft, LeaseUpdate { entries: vec![entry.to_signed()], ..news(&draft) });
    assert_eq!(*bench.engine.renter().leases()[&lease].terms(), good);
}

#[test]
fn a_discount_is_not_owed_by_who_has_not_left() {
    let mut liar = Liar::new(2, Timestamp(1_790_000_000_000));
    let (mut bench, draft) = rented(&mut liar, RentalType::Reserved, None);
    bench.wait(Millis::from_secs(1000));
    let terms = LeaseTerms::drafted(&draft);
    let state = LeaseState::Ended(EndReason::LeftEarly);
    let counters = used(1_000_000);
    let (ran, claimed) = (terms.due(&draft, &counters).unwrap(), terms.due_in(&draft, &counters, state).unwrap());
    assert!(claimed > ran);
    let usage = Usage {
        host: liar.id(),
        lease: draft.id().into(),
        n: 1,
        prev: None,
        time: bench.now,
        counters,
        terms: 0,
        due: claimed,
        state,
    };
    let usage = liar.sign(usage);
    let ack = tell(&mut bench, &draft, LeaseUpdate { usage: Some(usage), ..news(&draft) }).unwrap();
    assert_eq!((ack.due, ack.partial), (ran, Some(PartialReason::NotAsked)));
}
