//! Peers that tell of payments nobody asked for, and payees that correct themselves for ever.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::machine::account::{self, NotLost};
use crate::machine::testkit::{NOW, context, key, network, outputs};

fn settle(n: u32, currency: &str) -> Settle {
    Settle {
        n,
        currency: Currency(currency.to_owned()),
        amount: Amount(10),
        total: Amount(10 * u64::from(n)),
        method: "bank".to_owned(),
        reference: format!("R{n}"),
    }
}

fn entry(author: u8, body: Body) -> Verified<Entry> {
    let mut chain = super::super::chain::Chain::new(key(author), network(), None);
    chain.begin(NOW).unwrap();
    chain.append_about(key(1).node_id(), body, NOW).unwrap()
}

fn tell(cx: &mut Context, from: u8, settle: Settle, dealing: Dealing, now: Timestamp) -> Result<Told, &'static str> {
    let (signed, peer) = (entry(from, Body::Settle(settle)).to_signed(), key(from).node_id());
    cx.take_settle(peer, &signed, |_, _| dealing, None, now).map(|(told, _)| told)
}

const STRANGER: Dealing = Dealing { deals: false, fits: true, drafted: false };
const KNOWN: Dealing = Dealing { deals: true, fits: true, drafted: false };

fn currency(n: u8) -> String {
    format!("X{}{}", char::from(b'A' + n / 26), char::from(b'A' + n % 26))
}

#[test]
fn invented_currencies_open_few_accounts_and_never_shut_out_a_payment_that_comes_with_an_open() {
    let mut cx = context();
    let taken = (0..200).filter(|n| tell(&mut cx, 2, settle(1, &currency(*n)), STRANGER, NOW).is_ok()).count();
    assert_eq!(taken, limits::STRANGE_ACCOUNTS_PER_PEER);
    let none = Dealing { fits: false, ..KNOWN };
    assert!(tell(&mut cx, 3, settle(1, "USD"), none, NOW).is_err(), "nothing is paid here in this currency");
    assert_eq!(cx.payments.between.len(), taken, "what is refused leaves nothing behind");
    let taken = (0..200).filter(|n| tell(&mut cx, 4, settle(1, &currency(*n)), KNOWN, NOW).is_ok()).count();
    assert_eq!(taken, limits::ACCOUNTS_PER_PEER, "one lease is no leave to invent currencies");
    for stranger in 5..=255 {
        let _ = tell(&mut cx, stranger, settle(1, "USD"), STRANGER, NOW);
        let _ = tell(&mut cx, stranger, settle(1, "EUR"), STRANGER, NOW);
    }
    let mut newcomer = STRANGER;
    assert!(tell(&mut cx, 3, settle(1, "USD"), newcomer, NOW).is_err());
    newcomer.drafted = true;
    assert_eq!(tell(&mut cx, 3, settle(1, "USD"), newcomer, NOW), Ok(Told::Waits));
}

#[test]
fn payments_of_strangers_that_did_not_arrive_shut_no_door_and_are_forgotten() {
    let mut cx = context();
    for stranger in 2..=255 {
        for currency in ["USD", "EUR"] {
            let told = entry(stranger, Body::Settle(settle(1, currency)));
            let peer = key(stranger).node_id();
            cx.take_settle(peer, &told.to_signed(), |_, _| STRANGER, None, NOW).unwrap();
            cx.settlement_verified(told.id(), Amount::ZERO, NOW).unwrap();
        }
        outputs(&mut cx);
    }
    assert!(cx.payments.between.len() > limits::STRANGE_ACCOUNTS);
    for n in 0..200 {
        for stranger in 2..=8 {
            let told = entry(stranger, Body::Settle(settle(1, &currency(n))));
            if cx.take_settle(key(stranger).node_id(), &told.to_signed(), |_, _| STRANGER, None, NOW).is_ok() {
                cx.settlement_verified(told.id(), Amount::ZERO, NOW).unwrap();
            }
        }
    }
    assert!(cx.payments.between.len() <= limits::EMPTY_ACCOUNTS);
    assert_eq!(cx.payments.of_peer(&key(2).node_id()).count(), limits::ACCOUNTS_PER_PEER);
}

#[test]
fn an_hour_has_so_many_payments_of_a_peer_and_what_waits_counts_over_all_currencies() {
    let mut cx = context();
    let each = u32::try_from(limits::PAYMENTS_WAITING / 2).unwrap();
    for currency in ["USD", "EUR"] {
        (1..=each).for_each(|n| assert!(tell(&mut cx, 2, settle(n, currency), KNOWN, NOW).is_ok()));
    }
    assert!(tell(&mut cx, 2, settle(1, "GBP"), KNOWN, NOW).is_err());
    let mut take = |n: u32, now: Timestamp| {
        let told = entry(3, Body::Settle(settle(n, "USD")));
        let taken = cx.take_settle(key(3).node_id(), &told.to_signed(), |_, _| KNOWN, None, now).is_ok();
        taken && cx.settlement_verified(told.id(), Amount(10), now).is_some()
    };
    let taken = (1..100).take_while(|n| take(*n, NOW)).count();
    assert_eq!(taken, usize::try_from(limits::PAYMENTS_PER_HOUR).unwrap());
    assert!(take(limits::PAYMENTS_PER_HOUR + 1, NOW + HOUR), "the same one is taken later");
}

#[test]
fn an_answer_is_corrected_a_few_times_and_never_by_another_number() {
    let mut cx = context();
    let peer = key(2).node_id();
    let payment = MadePayment {
        peer,
        currency: Currency::usd(),
        amount: Amount(1_000),
        method: "bank".to_owned(),
        reference: "R".to_owned(),
    };
    cx.pay(&payment, NOW).unwrap();
    let settle = cx.payments.newest_unanswered(&(peer, Currency::usd())).unwrap().id();
    let mut says = |n: u32, total: u64, now: Timestamp| {
        let ack = SettleAck { settle, n, currency: Currency::usd(), total: Amount(total) };
        let signed = entry(2, Body::SettleAck(ack)).to_signed();
        cx.take_settle_ack(peer, &signed, now);
        cx.accounts.get(&peer, &Currency::usd()).unwrap().flows().paid_acked.0
    };
    let minutes = |n: u64| NOW + Millis::from_mins(n);
    assert_eq!(says(1, 1, NOW), 1);
    assert_eq!(says(1, 2, NOW), 1, "not within a minute");
    assert_eq!(says(7, 3, minutes(1)), 1, "a false number");
    for n in 1..=u64::from(limits::CORRECTIONS) {
        assert_eq!(says(1, 1 + n, minutes(n)), 1 + n);
    }
    assert_eq!(says(1, 900, minutes(100)), 1 + u64::from(limits::CORRECTIONS));
}

fn pay(cx: &mut Context, amount: u64, reference: &str) -> Verified<Entry> {
    let (peer, currency) = (key(2).node_id(), Currency::usd());
    let (amount, method, reference) = (Amount(amount), "bank".to_owned(), reference.to_owned());
    cx.pay(&MadePayment { peer, currency, amount, method, reference }, NOW).unwrap();
    cx.payments.newest_unanswered(&(peer, Currency::usd())).unwrap().clone()
}

fn acked(cx: &mut Context, of: &Verified<Entry>, n: u32, total: u64) -> bool {
    let ack = SettleAck { settle: of.id(), n, currency: Currency::usd(), total: Amount(total) };
    cx.take_settle_ack(key(2).node_id(), &entry(2, Body::SettleAck(ack)).to_signed(), NOW)
}

const OLD: Timestamp = Timestamp(NOW.0 + limits::LOST_AFTER.0);

#[test]
fn what_is_written_off_is_owed_again_and_is_ours_again_if_it_arrives_after_all() {
    let mut cx = context();
    let of = (key(2).node_id(), Currency::usd());
    assert_eq!(cx.write_off(&of, 1, OLD), Err(NotLost::Unknown), "nothing was paid");
    cx.accounts.change(&of.0, &of.1, |a| a.has_spent(Amount(100)));
    let first = pay(&mut cx, 100, "one");
    let owing = |cx: &Context| cx.accounts.get(&of.0, &of.1).unwrap().owing();
    assert_eq!(owing(&cx), 0, "it counts as paid until its owner says otherwise");
    assert_eq!(cx.write_off(&of, 1, Timestamp(OLD.0 - 1)), Err(NotLost::Young));
    assert_eq!(cx.write_off(&of, 1, Timestamp(0)), Err(NotLost::Young), "a clock that went back makes nothing old");
    assert_eq!(cx.write_off(&of, 2, OLD), Err(NotLost::Unknown));
    assert_eq!(owing(&cx), 0, "what is refused changes nothing");
    assert_eq!(cx.write_off(&of, 1, OLD), Ok(Amount(100)));
    assert_eq!(cx.write_off(&of, 1, OLD), Err(NotLost::Already));
    assert_eq!(owing(&cx), 100);
    assert!(cx.payments.newest_unanswered(&of).is_none(), "what is lost holds up no payment");
    let second = pay(&mut cx, 100, "two");
    assert_eq!(said(&second).unwrap().total, Amount(200), "the totals in the chain go on");
    assert_eq!(owing(&cx), 0);
    assert!(acked(&mut cx, &first, 1, 100), "a late word on what was lost");
    assert_eq!(owing(&cx), -100, "it is paid ahead now");
    assert!(acked(&mut cx, &second, 2, 200));
    assert_eq!(owing(&cx), -100);
    assert_eq!(cx.write_off(&of, 1, OLD), Err(NotLost::Confirmed));
}

#[test]
fn what_is_lost_stays_lost_when_a_later_payment_arrives() {
    let mut cx = context();
    let of = (key(2).node_id(), Currency::usd());
    cx.accounts.change(&of.0, &of.1, |a| a.has_spent(Amount(100)));
    pay(&mut cx, 100, "one");
    cx.write_off(&of, 1, OLD).unwrap();
    let second = pay(&mut cx, 100, "two");
    assert!(acked(&mut cx, &second, 2, 100), "only the second has arrived");
    let account = cx.accounts.get(&of.0, &of.1).unwrap();
    assert_eq!((account.owing(), account.lost()), (0, Amount(100)));
}

#[test]
fn only_the_payment_that_is_named_is_lost_and_only_its_confirmation_finds_it() {
    let mut cx = context();
    let of = (key(2).node_id(), Currency::usd());
    let first = pay(&mut cx, 100, "one");
    let second = pay(&mut cx, 30, "two");
    pay(&mut cx, 7, "three");
    let lost = |cx: &Context| cx.accounts.get(&of.0, &of.1).unwrap().lost();
    assert_eq!(cx.write_off(&of, 1, OLD), Ok(Amount(100)));
    assert_eq!(cx.write_off(&of, 3, OLD), Ok(Amount(107)));
    assert_eq!(cx.payments.newest_unanswered(&of).unwrap().id(), second.id(), "it is not lost");
    assert!(acked(&mut cx, &first, 1, 100));
    assert_eq!(lost(&cx), Amount(7));
    assert!(acked(&mut cx, &second, 2, 100), "answered: it has not arrived");
    assert_eq!(lost(&cx), Amount(7), "what did not arrive is lost by the owner's word alone");
    assert_eq!(cx.write_off(&of, 2, NOW), Err(NotLost::Young), "the answer may be corrected");
    assert_eq!(cx.write_off(&of, 2, OLD), Ok(Amount(37)));
    assert_eq!(cx.write_off(&of, 2, OLD), Err(NotLost::Already));
}

#[test]
fn what_is_lost_is_lost_after_a_restart_and_a_late_confirmation_finds_it_there() {
    let mut cx = context();
    let of = (key(2).node_id(), Currency::usd());
    cx.accounts.change(&of.0, &of.1, |a| a.has_spent(Amount(100)));
    let first = pay(&mut cx, 100, "one");
    let second = pay(&mut cx, 30, "two");
    cx.write_off(&of, 1, OLD).unwrap();
    let note = cx.accounts.take_changed().remove(&of).unwrap();
    let note: account::Note = crate::encode::from_bytes(&crate::encode::to_bytes(&note), 4096).unwrap();
    let row = AccountRow {
        peer: of.0,
        currency: of.1.clone(),
        flows: *cx.accounts.get(&of.0, &of.1).unwrap().flows(),
        note: Some(note),
        paid: Some(second.to_signed()),
        unanswered: vec![first.to_signed(), second.to_signed()],
        received: None,
        unverified: Vec::new(),
        answer: None,
    };
    let mut again = context();
    again.accounts.restore(&row);
    again.payments.restore(&row, &network(), OLD).unwrap();
    let seen = |cx: &Context| cx.accounts.get(&of.0, &of.1).map(|a| (a.owing(), a.lost())).unwrap();
    assert_eq!(seen(&again), (70, Amount(100)));
    assert_eq!(again.write_off(&of, 1, OLD), Err(NotLost::Already));
    assert!(acked(&mut again, &first, 1, 100), "a late word on what was lost before the restart");
    assert_eq!(seen(&again), (-30, Amount::ZERO), "the payer has it back, as paid ahead");

    // The power went between the payee's word and the note that follows from it.
    let flows = account::Flows { paid_acked: Amount(130), ..row.flows };
    let mut again = context();
    again.accounts.restore(&AccountRow { flows, unanswered: Vec::new(), ..row });
    assert_eq!(seen(&again), (-30, Amount::ZERO), "nothing that is confirmed is lost");
}

#[test]
fn a_payment_that_is_looked_for_or_lost_holds_up_no_later_one_and_one_that_is_not_taken_does() {
    let mut cx = context();
    let of = (key(2).node_id(), Currency::usd());
    cx.connected.insert(of.0);
    pay(&mut cx, 1, "one");
    pay(&mut cx, 1, "two");
    let told = |cx: &mut Context, now: Timestamp| {
        cx.tell_payments(now);
        let sent = &cx.payments.between[&of].unanswered;
        sent.iter().filter(|s| s.in_flight).map(|s| number(Some(&s.entry))).collect::<Vec<_>>()
    };
    assert_eq!(told(&mut cx, NOW), [1]);
    let key = (key(2).node_id(), Currency::usd());
    cx.payment_told(&key, 1, None, NOW);
    assert_eq!(told(&mut cx, NOW), [0u32; 0], "nobody knows whether the first was taken");
    assert_eq!(told(&mut cx, NOW + RETRY.0), [1]);
    cx.payment_told(&key, 1, Some(&Response::Settled { ack: None }), NOW + RETRY.0);
    assert_eq!(told(&mut cx, NOW + RETRY.0), [2]);
    cx.payment_told(&key, 2, None, NOW + RETRY.0);
    pay(&mut cx, 1, "three");
    assert_eq!(told(&mut cx, NOW + RETRY.0), [0u32; 0], "the second was not taken");
    (1..=3).for_each(|n| assert!(cx.write_off(&key, n, OLD).is_ok()));
    pay(&mut cx, 1, "four");
    assert_eq!(told(&mut cx, NOW + RETRY.0), [3], "what is lost is told all the same: it may be confirmed yet");
    cx.payment_told(&key, 3, None, NOW + RETRY.0);
    assert_eq!(told(&mut cx, NOW + RETRY.0), [4], "none of the lost was taken since, and they hold up nothing");
}

#[test]
fn after_many_misses_one_payment_is_looked_for_each_hour_and_one_that_arrives_opens_the_door() {
    let mut cx = context();
    let mut take = |n: u32, arrives: u64, now: Timestamp| {
        let told = entry(3, Body::Settle(settle(n, "USD")));
        let taken = cx.take_settle(key(3).node_id(), &told.to_signed(), |_, _| KNOWN, None, now).is_ok();
        taken && cx.settlement_verified(told.id(), Amount(arrives), now).is_some()
    };
    let most = u32::from(limits::PAYMENTS_MISSED);
    assert_eq!((1..50).take_while(|n| take(*n, 0, NOW)).count(), usize::from(limits::PAYMENTS_MISSED));
    assert!(!take(most + 1, 0, NOW + Millis(HOUR.0 - 1)));
    assert!(take(most + 1, 0, NOW + HOUR));
    assert!(!take(most + 2, 10, NOW + HOUR), "one an hour");
    assert!(take(most + 2, 10, NOW + HOUR + HOUR));
    assert!(take(most + 3, 10, NOW + HOUR + HOUR), "one has arrived");
}
