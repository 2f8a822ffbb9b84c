//! Hosts who want a renter's money, and one real renter: it pays what it owes by its own count, and no more than a slice ahead.
#![allow(clippy::unwrap_used)]

use souk_protocol::{
    Amount, Currency, Keypair, LeaseId, Millis, Nonce, Timestamp, Verified, encode,
    entry::{Body, Entry},
    lease::{EndReason, LeaseDraft, LeaseState},
    limits,
    machine::{
        io::{Command, DueReason, Input, MadePayment, Refusal, Step, Token, Verdict, Wish},
        policy::HostSetup,
        pricing::OwnerAsked,
        record::Record,
    },
    message::{Cause, EventCode, LeaseEvent, LeaseUpdate, Request, Response},
    money::Counters,
    negotiation::ImagePin,
    offer::{Notice, Offer},
    opinion::DisputeCode,
    payment::{PayLevel, PayWhen, PaymentAsk, PaymentTerms},
    receipt::{PartialReason, Usage},
    resources::Resources,
    signed::Signed,
    workload::Workload,
};
use souk_tests::sim::{
    dice::Dice,
    hostile::{Bench, Liar, network},
    owner,
};

/// The price of a slot for an hour: a slice of five minutes is a twelfth of it.
const HOUR: u64 = 1_200_000_000;

fn setup() -> HostSetup {
    let mut setup = HostSetup {
        asked: OwnerAsked::default(),
        credit: Millis::from_hours(24),
        tick: Millis::from_secs(60),
        ..owner::setup(&mut Dice::new(5), 4)
    };
    setup.terms.slot_hour = Amount(HOUR);
    setup.terms.storage_gb_month = Amount(0);
    setup.floor_slot_hour = Amount(HOUR);
    setup
}

const SLICE: u64 = HOUR / 12;

fn usd() -> Currency {
    Currency::usd()
}

fn deliver(entry: &Verified<Entry>) -> Request {
    Request::Deliver { entry: entry.to_signed() }
}

fn disputes(bench: &Bench) -> Vec<DisputeCode> {
    let entry = |r: &Record| if let Record::Entry(e) = r { e.verify(&network()).ok() } else { None };
    let code = |e: Verified<Entry>| if let Body::Dispute(dispute) = &e.body { Some(dispute.code) } else { None };
    bench.records.iter().filter_map(entry).filter_map(code).collect()
}

fn offer(liar: &Liar, now: Timestamp) -> Offer {
    let setup = setup();
    Offer {
        host: liar.id(),
        machine: setup.machine,
        seq: 1,
        issued_at: now,
        valid_until: now + limits::OFFER_LIFE,
        availability: souk_protocol::offer::Availability {
            slots_total: 4,
            slots_free: 4,
            volume_mb: 0,
            reachability: setup.reachability,
            maintenance: None,
            ports_free: 0,
        },
        hardware: setup.hardware,
        terms: setup.terms,
        membership: None,
    }
}

/// A renter that wants what a liar offers, and its draft.
fn wanting(liar: &Liar, prepay: Option<Millis>, payment: PaymentTerms) -> (Bench, Verified<LeaseDraft>) {
    wanting_with(Bench::new(Keypair::from_seed(&[1; 32])), liar, prepay, payment)
}

fn wanting_with(
    mut bench: Bench,
    liar: &Liar,
    prepay: Option<Millis>,
    payment: PaymentTerms,
) -> (Bench, Verified<LeaseDraft>) {
    let offer = liar.verified(offer(liar, bench.now));
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
        max_spend: None,
        prepay,
        tick: None,
        label: None,
        volume: false,
    };
    bench.feed(Input::Command(Command::Rent { token: Token(77), wish: Box::new(wish) }));
    let Some((_, _, Request::Propose(p))) = bench.asked.first() else { panic!("no bid") };
    let draft = LeaseDraft {
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
        rates: souk_protocol::Rates { compute_hour: p.price_hour, ..Default::default() },
        listed_hour: p.price_hour,
        credit: Amount(u64::MAX),
        payment: Some(payment),
        max_spend: None,
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
    };
    let draft = liar.verified(draft);
    let signed = draft.to_signed();
    bench.answer(|_| Ok(Response::Drafted(signed)));
    (bench, draft)
}

fn terms(when: PayWhen, first: u64) -> PaymentTerms {
    PaymentTerms { when, methods: vec!["bank".to_owned()], slice: Amount(SLICE), first: Amount(first) }
}

fn pay(bench: &mut Bench, liar: &Liar, amount: u64, reference: &str) {
    let payment = MadePayment {
        peer: liar.id(),
        currency: usd(),
        amount: Amount(amount),
        method: "bank".to_owned(),
        reference: reference.to_owned(),
    };
    bench.feed(Input::Command(Command::Settle { token: Token(300), payment: Box::new(payment) }));
}

#[test]
fn no_more_is_paid_ahead_than_a_slice_unless_the_owner_says_so() {
    let liar = Liar::new(2, Timestamp(1_790_000_000_000));
    let (bench, _) = wanting(&liar, None, terms(PayWhen::Before, SLICE + 1));
    assert!(matches!(bench.steps.last(), Some(Step::Failed { why: Refusal::Payment(_) })), "{:?}", bench.steps.last());
    assert!(bench.dues.is_empty());

    let (bench, draft) = wanting(&liar, None, terms(PayWhen::Before, SLICE));
    let due = bench.dues.last().unwrap();
    assert_eq!((due.amount, due.why, due.lease), (Amount(SLICE), DueReason::First, draft.id().into()));
    assert!(bench.asked.is_empty(), "nothing is opened before it is paid");

    let (bench, _) = wanting(&liar, Some(Millis::from_hours(8)), terms(PayWhen::Before, SLICE));
    assert_eq!(bench.dues.last().unwrap().amount, Amount(HOUR * 8), "an unattended job is paid ahead as asked");
}

#[test]
fn a_host_that_wants_more_ahead_at_a_time_than_the_owner_allows_is_refused_even_if_so_much_is_there() {
    let liar = Liar::new(2, Timestamp(1_790_000_000_000));
    let allowing = |most: u64| {
        let mut bench = Bench::new(Keypair::from_seed(&[1; 32]));
        let paying = souk_protocol::machine::account::Paying { ahead_most: [(usd(), Amount(most))].into() };
        let rules = souk_protocol::machine::account::AccountPolicy {
            paying,
            ..souk_protocol::machine::account::AccountPolicy::default()
        };
        bench.feed(Input::Command(Command::Accounts(Box::new(rules))));
        bench
    };
    // Nothing is to be paid with the open: so it would begin, and stop for good when that is used.
    for first in [0, SLICE] {
        let (bench, _) = wanting_with(allowing(SLICE - 1), &liar, None, terms(PayWhen::Before, first));
        let Some(Step::Failed { why: why @ Refusal::PaysTooLittleAhead { .. } }) = bench.steps.last() else {
            panic!("{:?}", bench.steps.last())
        };
        assert!(why.to_string().contains("renter.payment.ahead_most"), "{why}");
        assert!(bench.dues.is_empty() && bench.engine.renter().leases().is_empty());
    }
    for (most, prepay, when) in [
        (SLICE, None, PayWhen::Before),
        (SLICE - 1, Some(Millis::from_hours(8)), PayWhen::Before),
        (SLICE - 1, None, PayWhen::After),
    ] {
        let (bench, _) = wanting_with(allowing(most), &liar, prepay, terms(when, 0));
        assert!(!matches!(bench.steps.last(), Some(Step::Failed { .. })), "{:?}", bench.steps.last());
    }
}

#[test]
fn a_first_payment_that_can_t_be_made_or_is_not_made_in_time_opens_nothing() {
    let liar = Liar::new(2, Timestamp(1_790_000_000_000));
    let (mut bench, draft) = wanting(&liar, None, terms(PayWhen::Before, SLICE));
    let (peer, currency) = (draft.host, usd());
    bench.feed(Input::Command(Command::CannotSettle { peer, currency, why: "no money".to_owned() }));
    assert!(matches!(bench.steps.last(), Some(Step::Failed { why: Refusal::Payment(_) })));
    assert!(bench.engine.renter().leases().is_empty());

    let (mut bench, _) = wanting(&liar, None, terms(PayWhen::Before, SLICE));
    bench.wait(limits::COMMIT_WITHIN);
    assert!(matches!(bench.steps.last(), Some(Step::Failed { why: Refusal::Payment(_) })));
    pay(&mut bench, &liar, SLICE, "late");
    assert!(bench.engine.renter().leases().is_empty(), "what comes too late opens nothing");
}

/// The renter has paid and opened; the liar has accepted, and says that it runs.
fn rented(liar: &mut Liar, when: PayWhen) -> (Bench, Verified<LeaseDraft>) {
    let first = if when == PayWhen::Before { SLICE } else { 0 };
    let (mut bench, draft) = wanting(liar, None, terms(when, first));
    if first > 0 {
        pay(&mut bench, liar, first, "first");
    }
    let Some((_, _, Request::Commit { open, settle, .. })) = bench.asked.first() else { panic!("no open") };
    assert_eq!(settle.is_some(), first > 0, "the first payment goes with the open");
    let (open, settle, now) = (open.id(&network()), settle.clone(), bench.now);
    let accept = liar.entry(draft.id().into(), draft.renter, Body::LeaseAccept { open }, now);
    bench.answer(|_| Ok(Response::Answered(accept.to_signed())));
    if let Some(settle) = settle {
        let ack = souk_protocol::settlement::SettleAck {
            settle: settle.id(&network()),
            n: 1,
            currency: usd(),
            total: Amount(first),
        };
        let ack = liar.entry_about(draft.renter, Body::SettleAck(ack), now);
        assert_eq!(bench.ask(liar.id(), deliver(&ack)), Response::Settled { ack: None });
    }
    let (state, by) = (LeaseState::Running, Cause::Host);
    let event = LeaseEvent { n: 1, at: now, state, what: EventCode::State, by, exit_code: None, note: String::new() };
    let update = LeaseUpdate { events: vec![event], ..update(&draft, None, None) };
    bench.ask(liar.id(), Request::Update(Box::new(update)));
    (bench, draft)
}

fn update(draft: &Verified<LeaseDraft>, usage: Option<Signed<Usage>>, payment: Option<PaymentAsk>) -> LeaseUpdate {
    LeaseUpdate {
        lease: draft.id().into(),
        events: Vec::new(),
        progress: None,
        entries: Vec::new(),
        usage,
        eviction: None,
        rank: None,
        asked: None,
        payment,
    }
}

fn asks(when: PayWhen, level: PayLevel) -> PaymentAsk {
    let most = Amount(u64::MAX / 2);
    PaymentAsk { level, when, owed: most, ahead: Amount::ZERO, slice: most, pay: most, received: Amount::ZERO }
}

fn usage(liar: &Liar, draft: &Verified<LeaseDraft>, at: Timestamp, secs: u64) -> Verified<Usage> {
    let counters =
        Counters { active: Millis::from_secs(secs), storage: Millis::from_secs(secs.min(300)), ..Counters::default() };
    let due = souk_protocol::terms::LeaseTerms::drafted(draft).due(draft, &counters).unwrap();
    liar.verified(Usage {
        host: liar.id(),
        lease: draft.id().into(),
        n: 1,
        prev: None,
        time: at,
        counters,
        terms: 0,
        due,
        state: LeaseState::Running,
    })
}

#[test]
fn a_host_that_asks_for_more_is_paid_what_is_owed_and_never_more_than_a_slice_ahead() {
    let mut liar = Liar::new(2, Timestamp(1_790_000_000_000));
    let (mut bench, draft) = rented(&mut liar, PayWhen::Before);
    bench.dues.clear();
    for level in [PayLevel::Asked, PayLevel::Warned, PayLevel::Stopped] {
        let ask = Some(asks(PayWhen::Before, level));
        bench.ask(liar.id(), Request::Update(Box::new(update(&draft, None, ask))));
        assert!(bench.dues.is_empty(), "a slice is ahead already, and nothing was delivered for it");
    }
    // An hour later, with not a second of it delivered, it still gets nothing.
    bench.wait(Millis::from_hours(1));
    assert!(bench.dues.is_empty());

    let mut liar = Liar::new(3, Timestamp(1_790_000_000_000));
    let (mut bench, draft) = rented(&mut liar, PayWhen::After);
    bench.wait(Millis::from_secs(300));
    let usage = usage(&liar, &draft, bench.now, 300);
    let ask = Some(asks(PayWhen::After, PayLevel::Asked));
    bench.ask(liar.id(), Request::Update(Box::new(update(&draft, Some(usage.to_signed()), ask))));
    let due = bench.dues.pop().unwrap();
    assert_eq!((due.amount, due.why), (usage.due, DueReason::Low(PayLevel::Asked)));
    assert_eq!(usage.due, Amount(SLICE));
    // Paid once, and said once: the same payment, told again by a shell that has crashed meanwhile, is that one.
    let before = bench.records.len();
    pay(&mut bench, &liar, SLICE, "T1");
    pay(&mut bench, &liar, SLICE, "T1");
    let settles = bench.records[before..]
        .iter()
        .filter(|r| matches!(r, Record::Entry(e) if matches!(e.verify(&network()).unwrap().body, Body::Settle(_))));
    assert_eq!(settles.count(), 1);
    assert_eq!(bench.engine.accounts().get(&liar.id(), &usd()).unwrap().flows().paid, Amount(SLICE));
    let ask = Some(asks(PayWhen::After, PayLevel::Stopped));
    bench.ask(liar.id(), Request::Update(Box::new(update(&draft, None, ask))));
    assert!(bench.dues.is_empty(), "nothing more is owed");
}

#[test]
fn over_metering_is_acknowledged_as_far_as_it_can_be_and_complained_of() {
    let mut liar = Liar::new(2, Timestamp(1_790_000_000_000));
    let (mut bench, draft) = rented(&mut liar, PayWhen::After);
    bench.wait(Millis::from_secs(300));
    let lying = usage(&liar, &draft, bench.now, 3000);
    let ask = Some(asks(PayWhen::After, PayLevel::Stopped));
    let answer = bench.ask(liar.id(), Request::Update(Box::new(update(&draft, Some(lying.to_signed()), ask))));
    let Response::Seen { ack: Some(ack), .. } = answer else { panic!("{answer:?}") };
    let ack = ack.verify(&network()).unwrap();
    assert_eq!(ack.partial, Some(PartialReason::OverMetered));
    // Five minutes and their tolerance: one per cent and five seconds.
    assert_eq!(ack.due, Amount(HOUR * 308 / 3600));
    assert_eq!(disputes(&bench), [DisputeCode::OverMetered]);
    assert_eq!(bench.dues.last().unwrap().amount, ack.due, "no more is paid than is acknowledged");
    // The rest is waived by an honest host, and agreed to.
    let counters = Counters { waived: Millis::from_secs(3000 - 308), ..lying.counters };
    let due = souk_protocol::terms::LeaseTerms::drafted(&draft).due(&draft, &counters).unwrap();
    let waived =
        liar.verified(Usage { n: 2, prev: Some(lying.id()), time: bench.now, counters, due, ..(*lying).clone() });
    let answer = bench.ask(liar.id(), Request::Update(Box::new(update(&draft, Some(waived.to_signed()), None))));
    let Response::Seen { ack: Some(agreed), .. } = answer else { panic!("{answer:?}") };
    let agreed = agreed.verify(&network()).unwrap();
    assert_eq!((agreed.partial, agreed.due), (None, ack.due));
}

#[test]
fn a_host_that_vanishes_is_closed_after_three_days_for_what_was_acknowledged_and_agrees_when_it_is_back() {
    let mut liar = Liar::new(2, Timestamp(1_790_000_000_000));
    let (mut bench, draft) = rented(&mut liar, PayWhen::After);
    let lease: LeaseId = draft.id().into();
    bench.wait(Millis::from_secs(300));
    let usage = usage(&liar, &draft, bench.now, 300);
    bench.ask(liar.id(), Request::Update(Box::new(update(&draft, Some(usage.to_signed()), None))));
    bench.wait(Millis(limits::DISK_KEPT.0 + limits::CLOSE_WITHIN.0 + 3_000_000));
    let open = |bench: &Bench| bench.engine.renter().leases().get(&lease).map(|l| l.state());
    assert_eq!(open(&bench), Some(LeaseState::Running), "it has seventy-two hours");
    bench.wait(Millis::from_hours(1));
    assert_eq!(open(&bench), Some(LeaseState::Ended(EndReason::HostVanished)));
    bench.asked.clear();
    bench.feed(Input::Connected(liar.id()));
    let close =
        bench.asked.iter().find_map(|(_, _, r)| if let Request::Deliver { entry } = r { Some(entry) } else { None });
    let close = close.unwrap().verify(&network()).unwrap();
    let (reason, last, due) = close.body.closing().unwrap();
    assert_eq!((reason, last, due), (EndReason::HostVanished, Some(usage.id()), usage.due));
    let agreed = liar.entry(lease, draft.renter, Body::CloseAck { close: close.id(), due }, bench.now);
    while !bench.asked.is_empty() {
        let agreed = agreed.to_signed();
        bench.answer(|_| Ok(Response::Seen { events_seen: 0, ack: None, close_ack: Some(agreed) }));
    }
    assert_eq!(open(&bench), None);
    assert_eq!(
        bench.dues.last().map(|d| (d.amount, d.why)),
        Some((usage.due, DueReason::Last)),
        "what is owed is owed"
    );
}
