//! Peers that tell of payments nobody asked for, and payees that correct themselves for ever.
#![allow(clippy::unwrap_used)]

use super::*;
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
