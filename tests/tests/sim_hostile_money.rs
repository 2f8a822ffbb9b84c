//! Renters who mean to take without paying, and one real host: what each costs it is bounded by one slice, and leaves evidence.
#![allow(clippy::unwrap_used)]

use souk_protocol::{
    Amount, Currency, Keypair, LeaseId, Millis, Nonce, Verified,
    entry::{Body, Entry, VoidCode},
    lease::{EndReason, LeaseState, PauseReason},
    limits,
    machine::{
        account::{AccountPolicy, Lending},
        io::{Command, Input, Token},
        policy::HostSetup,
        pricing::OwnerAsked,
        record::Record,
    },
    message::{EventCode, Request, Response},
    negotiation::RejectCode,
    opinion::DisputeCode,
    payment::PayWhen,
    receipt::{Ack, PartialReason},
    settlement::Settle,
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
