//! Peers who mean to take without giving: what each costs the other is bounded by one slice, and leaves evidence.
#![allow(clippy::unwrap_used)]

use souk_protocol::{
    Amount, Currency, Keypair, LeaseId, Millis, Nonce, Timestamp, Verified, encode,
    entry::{Body, Entry, VoidCode},
    lease::{EndReason, LeaseDraft, LeaseState, PauseReason},
    limits,
    machine::{
        account::{AccountPolicy, Lending},
        io::{Command, DueReason, Input, MadePayment, Refusal, Step, Token, Verdict, Wish},
        policy::HostSetup,
        pricing::OwnerAsked,
        record::Record,
    },
    message::{Cause, EventCode, LeaseEvent, LeaseUpdate, Request, Response},
    money::Counters,
    negotiation::{ImagePin, RejectCode},
    offer::{Notice, Offer},
    opinion::DisputeCode,
    payment::{PayLevel, PayWhen, PaymentAsk, PaymentTerms},
    receipt::{Ack, PartialReason, Usage},
    resources::Resources,
    settlement::Settle,
    signed::Signed,
    workload::Workload,
};
use souk_tests::sim::{
    dice::Dice,
    hostile::{Bench, Liar, network},
    owner,
};

/// The price of a slot for an hour: a slice of five minutes is a twelfth of it, and some disk.
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

/// A host that is paid by strangers so.
fn host(strangers: PayWhen) -> Bench {
    let mut bench = Bench::new(Keypair::from_seed(&[1; 32]));
    let lending = Lending { methods: vec!["bank".to_owned()], strangers: Some(strangers), ..Lending::default() };
    bench.feed(Input::Command(Command::Accounts(Box::new(AccountPolicy { lending, ..AccountPolicy::default() }))));
    bench.feed(Input::Command(Command::Host(Some(Box::new(setup())))));
    bench
}

fn usd() -> Currency {
    Currency::usd()
}

fn paid(n: u32, amount: u64, total: u64) -> Body {
    let reference = format!("R{n}");
    let (amount, total) = (Amount(amount), Amount(total));
    Body::Settle(Settle { n, currency: usd(), amount, total, method: "bank".to_owned(), reference })
}

fn commit(open: &Verified<Entry>, workload: &[u8], settle: Option<&Verified<Entry>>) -> Request {
    let settle = settle.map(Verified::to_signed);
    Request::Commit { open: open.to_signed(), workload: workload.to_vec(), settle }
}

fn deliver(entry: &Verified<Entry>) -> Request {
    Request::Deliver { entry: entry.to_signed() }
}

fn voided(response: &Response) -> (VoidCode, String) {
    let Response::Answered(entry) = response else { panic!("not answered: {response:?}") };
    let entry = entry.verify(&network()).unwrap();
    let (code, sentence) = entry.body.voided().unwrap_or_else(|| panic!("{:?}", entry.body));
    (code, sentence.to_owned())
}

fn refused(response: &Response) -> RejectCode {
    let Response::Rejected(reject) = response else { panic!("not refused: {response:?}") };
    reject.code
}

/// A lease of a stranger that is paid afterwards, running.
fn running(bench: &mut Bench, renter: &mut Liar, nonce: u8) -> LeaseId {
    let (draft, workload) = renter.drafted(bench, nonce);
    let open = renter.open(&draft, bench.now);
    let answer = bench.ask(renter.id(), commit(&open, &workload, None));
    assert!(matches!(answer, Response::Answered(_)), "{answer:?}");
    let lease = draft.id().into();
    assert_eq!(state(bench, &lease), LeaseState::Running);
    lease
}

fn state(bench: &Bench, lease: &LeaseId) -> LeaseState {
    bench.engine.host().leases()[lease].state()
}

fn owed(bench: &Bench, renter: &Liar) -> i128 {
    bench.engine.owed_by(&renter.id(), &usd(), bench.now)
}

fn disputes(bench: &Bench) -> Vec<DisputeCode> {
    let entry = |r: &Record| if let Record::Entry(e) = r { e.verify(&network()).ok() } else { None };
    let code = |e: Verified<Entry>| if let Body::Dispute(dispute) = &e.body { Some(dispute.code) } else { None };
    bench.records.iter().filter_map(entry).filter_map(code).collect()
}

fn whats(bench: &Bench, lease: &LeaseId) -> Vec<EventCode> {
    bench.engine.host().leases()[lease].events().iter().map(|e| e.what).collect()
}

/// The renter acknowledges the newest usage, in full or in part.
fn acknowledge(bench: &mut Bench, renter: &Liar, lease: LeaseId, part: impl Fn(Amount) -> Amount) {
    let Some(usage) = bench.engine.host().leases()[&lease].usage().cloned() else { return };
    let due = part(usage.due);
    let partial = (due < usage.due).then_some(PartialReason::OverMetered);
    let ack = Ack { renter: renter.id(), lease, n: usage.n, usage: usage.id(), due, partial };
    let ack = renter.sign(ack);
    bench.feed(Input::Connected(renter.id()));
    let Some(place) = bench.asked.iter().position(|(_, _, r)| matches!(r, Request::Update(u) if u.lease == lease))
    else {
        return;
    };
    let (token, ..) = bench.asked.remove(place);
    let seen = Response::Seen { events_seen: 999, ack: Some(ack), close_ack: None };
    bench.feed(Input::Response { token, result: Ok(seen) });
}

/// Runs on, and lets the renter acknowledge each minute or not at all.
fn pass(bench: &mut Bench, renter: &Liar, lease: LeaseId, minutes: u64, acknowledges: bool) {
    for _ in 0..minutes * 6 {
        bench.wait(Millis::from_secs(10));
        if bench.engine.host().leases().contains_key(&lease) && acknowledges {
            acknowledge(bench, renter, lease, |due| due);
        }
    }
}

#[test]
fn who_never_pays_has_five_quarters_of_a_slice_whether_it_acknowledges_or_not() {
    for acknowledges in [true, false] {
        let mut bench = host(PayWhen::After);
        let mut renter = Liar::new(2, bench.now);
        let lease = running(&mut bench, &mut renter, 1);
        pass(&mut bench, &renter, lease, 5, acknowledges);
        assert_eq!(state(&bench, &lease), LeaseState::Running, "a slice is five minutes, and a quarter more");
        pass(&mut bench, &renter, lease, 30, acknowledges);
        assert_eq!(state(&bench, &lease), LeaseState::Paused(PauseReason::NoCredit));
        let most = i128::from(SLICE) * 5 / 4;
        let tick = i128::from(HOUR) / 360;
        assert!((most..most + tick).contains(&owed(&bench, &renter)), "{} of {most}", owed(&bench, &renter));
        let told = whats(&bench, &lease);
        let place = |what| told.iter().position(|w| *w == what).unwrap();
        assert!(place(EventCode::PaymentAsked) < place(EventCode::PaymentWarned), "{told:?}");
        assert!(disputes(&bench).contains(&DisputeCode::Unpaid), "evidence is kept");

        // It gets nothing else, by whatever key it has here.
        let offer = bench.engine.host().offer().cloned().unwrap();
        let (proposal, _) = renter.bid(&offer, offer.id(), 2);
        assert_eq!(refused(&bench.ask(renter.id(), Request::Propose(Box::new(proposal)))), RejectCode::Unpaid);

        // Its disk goes after two days, and what it owes stays owed.
        bench.wait(Millis::from_hours(47));
        assert_eq!(state(&bench, &lease), LeaseState::Paused(PauseReason::NoCredit));
        bench.wait(Millis::from_hours(2));
        assert_eq!(state(&bench, &lease), LeaseState::Ended(EndReason::Unpaid));
        assert!(owed(&bench, &renter) < most + tick);
    }
}

#[test]
fn what_is_stopped_runs_on_when_it_is_paid_and_not_before() {
    let mut bench = host(PayWhen::After);
    let mut renter = Liar::new(2, bench.now);
    let me = bench.engine.me();
    let lease = running(&mut bench, &mut renter, 1);
    pass(&mut bench, &renter, lease, 10, true);
    assert_eq!(state(&bench, &lease), LeaseState::Paused(PauseReason::NoCredit));

    // Said to be paid is not paid.
    let settle = renter.entry_about(me, paid(1, SLICE * 2, SLICE * 2), bench.now);
    let answer = bench.ask(renter.id(), deliver(&settle));
    assert_eq!(answer, Response::Settled { ack: None });
    assert_eq!(state(&bench, &lease), LeaseState::Paused(PauseReason::NoCredit));
    let claimed = bench.claims.pop().unwrap();
    assert_eq!((claimed.settle, claimed.said.amount), (settle.id(), Amount(SLICE * 2)));
    // It is told again and again, and looked for once.
    assert_eq!(bench.ask(renter.id(), deliver(&settle)), Response::Settled { ack: None });
    assert!(bench.claims.is_empty());

    // Only a part has arrived, and it is enough.
    bench.feed(Input::SettlementVerified { settle: settle.id(), result: Ok(Amount(SLICE)) });
    let Response::Settled { ack: Some(ack) } = bench.ask(renter.id(), deliver(&settle)) else { panic!("no answer") };
    let ack = ack.verify(&network()).unwrap();
    let Body::SettleAck(said) = &ack.body else { panic!("{:?}", ack.body) };
    assert_eq!((said.settle, said.total), (settle.id(), Amount(SLICE)));
    bench.wait(Millis(1));
    assert_eq!(state(&bench, &lease), LeaseState::Running);
    // It has missed its first slice, and settled as much since.
    let account = bench.engine.accounts().get(&renter.id(), &usd()).unwrap();
    assert_eq!((account.note().lent.slice, account.note().stopped_at), (Amount(2 * SLICE), None));
}

#[test]
fn payments_that_never_arrive_count_for_nothing_and_are_soon_not_taken_any_more() {
    let mut bench = host(PayWhen::After);
    let mut renter = Liar::new(2, bench.now);
    let me = bench.engine.me();
    let lease = running(&mut bench, &mut renter, 1);
    pass(&mut bench, &renter, lease, 3, true);
    let before = owed(&bench, &renter);
    let mut total = 0;
    let mut last = None;
    for n in 1..20 {
        total += SLICE;
        let settle = renter.entry_about(me, paid(n, SLICE, total), bench.now);
        let answer = bench.ask(renter.id(), deliver(&settle));
        if matches!(answer, Response::Rejected(_)) {
            last = Some(n);
            break;
        }
        let result = Err("no such transfer".to_owned());
        bench.feed(Input::SettlementVerified { settle: settle.id(), result });
    }
    assert_eq!(last, Some(u32::from(limits::PAYMENTS_MISSED) + 1));
    assert_eq!(owed(&bench, &renter), before);
}

#[test]
fn false_payments_are_refused_and_change_nothing() {
    let mut bench = host(PayWhen::After);
    let (mut renter, mut thief) = (Liar::new(2, bench.now), Liar::new(3, bench.now));
    let me = bench.engine.me();
    running(&mut bench, &mut renter, 1);
    let settle = renter.entry_about(me, paid(1, 5, 5), bench.now);
    bench.ask(renter.id(), deliver(&settle));
    let before = bench.mark();
    for body in [paid(2, 5, 9), paid(2, 5, 11), paid(4, 5, 9), paid(2, u64::MAX, u64::MAX)] {
        let entry = renter.entry_about(me, body, bench.now);
        refused(&bench.ask(renter.id(), deliver(&entry)));
    }
    let to_another = renter.entry_about(thief.id(), paid(2, 5, 10), bench.now);
    refused(&bench.ask(renter.id(), deliver(&to_another)));
    refused(&bench.ask(thief.id(), deliver(&settle)));
    let ack = souk_protocol::settlement::SettleAck { settle: settle.id(), n: 1, currency: usd(), total: Amount(5) };
    let own = thief.entry_about(me, Body::SettleAck(ack), bench.now);
    refused(&bench.ask(thief.id(), deliver(&own)));
    assert_eq!(bench.mark(), before);
    // More wait than are kept: the rest is refused, not kept.
    let mut total = 5;
    let taken = (2..40).filter(|n| {
        total += 1;
        let entry = renter.entry_about(me, paid(*n, 1, total), bench.now);
        matches!(bench.ask(renter.id(), deliver(&entry)), Response::Settled { .. })
    });
    assert_eq!(taken.count() + 1, limits::PAYMENTS_WAITING);
    assert_eq!(bench.engine.payments_waiting(), limits::PAYMENTS_WAITING);
}

#[test]
fn a_stranger_that_pays_before_is_let_in_only_with_its_first_payment() {
    let mut bench = host(PayWhen::Before);
    let mut renter = Liar::new(2, bench.now);
    let me = bench.engine.me();
    let (draft, workload) = renter.drafted(&mut bench, 1);
    let terms = draft.payment.clone().unwrap();
    assert_eq!((terms.when, terms.first, terms.slice), (PayWhen::Before, Amount(SLICE), Amount(SLICE)));
    let open = renter.open(&draft, bench.now);
    assert_eq!(voided(&bench.ask(renter.id(), commit(&open, &workload, None))).0, VoidCode::Unpaid);

    // Too little, and what has arrived is kept.
    let (draft, workload) = renter.drafted(&mut bench, 2);
    let settle = renter.entry_about(me, paid(1, SLICE, SLICE), bench.now);
    let open = renter.open(&draft, bench.now);
    let (answer, token) = ask_later(&mut bench, &renter, commit(&open, &workload, Some(&settle)));
    assert!(answer.is_none(), "it waits, and holds no slots");
    assert_eq!(bench.engine.host().slots().free(), 4);
    assert_eq!(bench.claims.pop().unwrap().until, Some(bench.now + limits::PAYMENT_WITHIN));
    bench.feed(Input::SettlementVerified { settle: settle.id(), result: Ok(Amount(SLICE / 2)) });
    assert_eq!(voided(&bench.reply_to(token).unwrap()).0, VoidCode::Unpaid);
    assert_eq!(owed(&bench, &renter), -i128::from(SLICE / 2));

    // The next draft asks for the rest alone. It comes too late: void again, and kept again.
    let (draft, workload) = renter.drafted(&mut bench, 3);
    assert_eq!(draft.payment.as_ref().unwrap().first, Amount(SLICE - SLICE / 2));
    let settle = renter.entry_about(me, paid(2, SLICE, SLICE * 2), bench.now);
    let open = renter.open(&draft, bench.now);
    let (_, token) = ask_later(&mut bench, &renter, commit(&open, &workload, Some(&settle)));
    bench.wait(Millis(limits::PAYMENT_WITHIN.0 + 1));
    assert!(voided(&bench.reply_to(token).unwrap()).1.contains("did not arrive within"));
    bench.feed(Input::SettlementVerified { settle: settle.id(), result: Ok(Amount(SLICE)) });

    // Now more than a slice is there, and nothing is asked for.
    let (draft, workload) = renter.drafted(&mut bench, 4);
    assert_eq!(draft.payment.as_ref().unwrap().first, Amount::ZERO);
    let open = renter.open(&draft, bench.now);
    let answer = bench.ask(renter.id(), commit(&open, &workload, None));
    assert!(matches!(answer, Response::Answered(_)));
    let lease = draft.id().into();
    assert_eq!(state(&bench, &lease), LeaseState::Running);
    pass(&mut bench, &renter, lease, 7, false);
    assert_eq!(state(&bench, &lease), LeaseState::Running);
    pass(&mut bench, &renter, lease, 2, false);
    assert_eq!(state(&bench, &lease), LeaseState::Paused(PauseReason::NoCredit), "what was paid ahead is used up");
    assert!(owed(&bench, &renter) < i128::from(HOUR / 360), "{}", owed(&bench, &renter));
}

/// A request whose answer takes its time.
fn ask_later(bench: &mut Bench, from: &Liar, request: Request) -> (Option<Response>, Token) {
    let token = Token(5_000 + bench.records.len() as u64);
    bench.feed(Input::Request { from: from.id(), token, request });
    (bench.reply_to(token), token)
}

#[test]
fn free_keys_together_get_no_more_than_the_pot() {
    let mut bench = host(PayWhen::After);
    let mut lent = Vec::new();
    for seed in 2..40u8 {
        let mut renter = Liar::new(seed, bench.now);
        let (draft, workload) = renter.drafted(&mut bench, seed);
        if draft.payment.as_ref().unwrap().when == PayWhen::Before {
            break;
        }
        let open = renter.open(&draft, bench.now);
        bench.ask(renter.id(), commit(&open, &workload, None));
        let lease: LeaseId = draft.id().into();
        // It uses all that it gets, goes away, and comes back by another name.
        for _ in 0..20 {
            bench.wait(Millis::from_secs(30));
        }
        assert_eq!(state(&bench, &lease), LeaseState::Paused(PauseReason::NoCredit));
        lent.push(owed(&bench, &renter));
    }
    // Thirty slot-minutes, and six and a quarter for each.
    assert_eq!(lent.len(), 4);
    assert!(lent.iter().sum::<i128>() <= i128::from(HOUR) / 2, "{lent:?}");
    bench.wait(Millis::from_hours(24));
    let (draft, _) = Liar::new(90, bench.now).drafted(&mut bench, 90);
    assert_eq!(draft.payment.as_ref().unwrap().when, PayWhen::After, "tomorrow there is another pot");
}

#[test]
fn opens_of_many_drafts_at_once_share_one_pot() {
    let mut bench = host(PayWhen::After);
    let mut drafts = Vec::new();
    for seed in 2..9u8 {
        let renter = Liar::new(seed, bench.now);
        drafts.push((renter.drafted(&mut bench, seed), renter));
    }
    assert!(drafts.iter().all(|((d, _), _)| d.payment.as_ref().unwrap().when == PayWhen::After));
    bench.wait(Millis::from_secs(1));
    let answers: Vec<Response> = drafts
        .into_iter()
        .map(|((draft, workload), mut renter)| {
            let open = renter.open(&draft, bench.now);
            bench.ask(renter.id(), commit(&open, &workload, None))
        })
        .collect();
    let accepted =
        |r: &&Response| matches!(r, Response::Answered(e) if e.verify(&network()).unwrap().body.voided().is_none());
    assert_eq!(answers.iter().filter(accepted).count(), 4);
    assert_eq!(bench.engine.host().leases().len(), 4);
    assert_eq!(bench.engine.host().slots().free(), 0);
}

#[test]
fn a_difference_stands_for_a_day_and_is_waived_once() {
    let mut bench = host(PayWhen::Before);
    bench.feed(Input::Command(Command::Accounts(Box::default())));
    let mut renter = Liar::new(2, bench.now);
    let lease = running(&mut bench, &mut renter, 1);
    bench.wait(Millis::from_mins(60));
    acknowledge(&mut bench, &renter, lease, |due| Amount(due.0 / 2));
    assert!(whats(&bench, &lease).contains(&EventCode::Disputed));
    assert!(disputes(&bench).contains(&DisputeCode::NotAcknowledged));
    let since = bench.engine.host().leases()[&lease].disputed_at().unwrap();
    bench.wait(Millis(limits::DISPUTED.0 - 1_000_000));
    assert_eq!(bench.engine.host().leases()[&lease].disputed_at(), Some(since));
    let usage = || bench.engine.host().leases()[&lease].usage().unwrap().clone();
    assert_eq!(usage().counters.waived, Millis(0));
    let acked = bench.engine.host().leases()[&lease].acked();
    bench.wait(Millis(1_100_000));
    let usage = bench.engine.host().leases()[&lease].usage().unwrap().clone();
    assert!(usage.counters.waived > Millis(0), "waived");
    assert!(usage.due >= acked, "never less than was agreed to");
    acknowledge(&mut bench, &renter, lease, |due| due);
    assert_eq!(bench.engine.host().leases()[&lease].disputed_at(), None);
}

#[test]
fn who_does_not_acknowledge_what_is_left_after_a_waiver_is_done_with() {
    let mut bench = host(PayWhen::Before);
    bench.feed(Input::Command(Command::Accounts(Box::default())));
    let mut renter = Liar::new(2, bench.now);
    let lease = running(&mut bench, &mut renter, 1);
    bench.wait(Millis::from_mins(30));
    acknowledge(&mut bench, &renter, lease, |due| Amount(due.0 / 2));
    let acked = bench.engine.host().leases()[&lease].acked();
    bench.feed(Input::Command(Command::Waive { token: Token(9), lease }));
    // It says nothing to the usage that comes of it, and not enough to the next.
    let place = bench.asked.iter().position(|(_, _, r)| matches!(r, Request::Update(_))).unwrap();
    let (token, ..) = bench.asked.remove(place);
    let silent = Response::Seen { events_seen: 999, ack: None, close_ack: None };
    bench.feed(Input::Response { token, result: Ok(silent) });
    let place = bench.asked.iter().position(|(_, _, r)| matches!(r, Request::Update(_))).unwrap();
    let (token, ..) = bench.asked.remove(place);
    let silent = Response::Seen { events_seen: 999, ack: None, close_ack: None };
    bench.feed(Input::Response { token, result: Ok(silent) });
    bench.wait(Millis::from_mins(10));
    acknowledge(&mut bench, &renter, lease, |_| acked);
    assert_eq!(state(&bench, &lease), LeaseState::Ended(EndReason::Disputed));
    // An owner that waives nothing ends it when its day is over.
    let mut bench = host(PayWhen::Before);
    let lending = Lending { disputed: souk_protocol::machine::account::Disputed::Close, ..Lending::default() };
    bench.feed(Input::Command(Command::Accounts(Box::new(AccountPolicy { lending, ..AccountPolicy::default() }))));
    let mut renter = Liar::new(2, bench.now);
    let lease = running(&mut bench, &mut renter, 1);
    bench.wait(Millis::from_mins(30));
    acknowledge(&mut bench, &renter, lease, |due| Amount(due.0 / 2));
    bench.wait(Millis(limits::DISPUTED.0 - 1));
    assert!(!state(&bench, &lease).is_ended());
    bench.wait(Millis(1));
    assert_eq!(state(&bench, &lease), LeaseState::Ended(EndReason::Disputed));
}

#[test]
fn an_owner_waives_at_once_and_both_agree() {
    let mut bench = host(PayWhen::Before);
    bench.feed(Input::Command(Command::Accounts(Box::default())));
    let mut renter = Liar::new(2, bench.now);
    let lease = running(&mut bench, &mut renter, 1);
    let stop = Request::Control { lease, action: souk_protocol::message::Action::Stop, nonce: Nonce([1; 16]) };
    bench.wait(Millis::from_mins(60));
    bench.ask(renter.id(), stop);
    acknowledge(&mut bench, &renter, lease, |due| Amount(due.0 - 1000));
    let acked = bench.engine.host().leases()[&lease].acked();
    bench.feed(Input::Command(Command::Waive { token: Token(9), lease }));
    let usage = bench.engine.host().leases()[&lease].usage().unwrap().clone();
    assert!(usage.due >= acked && usage.due.0 < acked.0 + HOUR / 3_600_000 + 1, "{} {acked}", usage.due);
    acknowledge(&mut bench, &renter, lease, |due| due);
    let held = &bench.engine.host().leases()[&lease];
    assert_eq!((held.disputed_at(), held.acked()), (None, usage.due));
    assert_eq!(whats(&bench, &lease).iter().filter(|w| **w == EventCode::Agreed).count(), 1);
}

// The other side: a renter, and hosts who want its money.

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
    let mut bench = Bench::new(Keypair::from_seed(&[1; 32]));
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

#[test]
fn a_host_takes_such_a_close_only_when_it_is_due_and_for_no_less_than_acknowledged() {
    let mut bench = host(PayWhen::Before);
    bench.feed(Input::Command(Command::Accounts(Box::default())));
    let mut renter = Liar::new(2, bench.now);
    let me = bench.engine.me();
    let lease = running(&mut bench, &mut renter, 1);
    bench.wait(Millis::from_mins(10));
    acknowledge(&mut bench, &renter, lease, |due| due);
    let acked = bench.engine.host().leases()[&lease].acked();
    assert!(acked > Amount::ZERO);
    let close = |due: Amount| Body::Close { reason: EndReason::HostVanished, usage: None, due };
    let early = renter.entry(lease, me, close(acked), bench.now);
    assert_eq!(refused(&bench.ask(renter.id(), deliver(&early))), RejectCode::Terms);
    assert_eq!(state(&bench, &lease), LeaseState::Running);
    bench.wait(Millis::from_hours(2 + 48));
    let low = renter.entry(lease, me, close(Amount(acked.0 - 1)), bench.now);
    assert_eq!(refused(&bench.ask(renter.id(), deliver(&low))), RejectCode::Terms);
    let fair = renter.entry(lease, me, close(acked), bench.now);
    let Response::Seen { close_ack: Some(agreed), .. } = bench.ask(renter.id(), deliver(&fair)) else {
        panic!("not agreed")
    };
    assert_eq!(agreed.verify(&network()).unwrap().body.agreement(), Some((fair.id(), acked)));
    assert!(bench.engine.host().leases().is_empty());
}
