#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::{
    machine::testkit::{NOW, key},
    time::Millis,
};

const UNIT: u64 = 1000;

fn after(unit: u64) -> Limit {
    Limit { when: PayWhen::After, unit: Amount(unit) }
}

fn before(unit: u64) -> Limit {
    Limit { when: PayWhen::Before, unit: Amount(unit) }
}

#[test]
fn use_that_is_paid_after_is_asked_for_at_half_warned_of_at_all_and_stopped_at_five_quarters() {
    let limit = after(UNIT);
    let at = |owed| limit.level(owed);
    assert_eq!((at(-5), at(0), at(499)), (None, None, None));
    assert_eq!((at(500), at(999)), (Some(PayLevel::Asked), Some(PayLevel::Asked)));
    assert_eq!((at(1000), at(1250)), (Some(PayLevel::Warned), Some(PayLevel::Warned)));
    assert_eq!(at(1251), Some(PayLevel::Stopped));
    assert!(limit.runs_again(1000) && !limit.runs_again(1001), "a quarter of a slice to run on");
    assert_eq!((limit.to_pay(700), limit.to_pay(-1)), (Amount(700), Amount::ZERO));
    assert_eq!(
        (limit.next(0), limit.next(500), limit.next(1000), limit.next(1251)),
        (Some(500), Some(1000), Some(1251), None)
    );
}

#[test]
fn use_that_is_paid_before_runs_while_something_is_left() {
    let limit = before(UNIT);
    let at = |ahead: i128| limit.level(-ahead);
    assert_eq!((at(1000), at(501)), (None, None));
    assert_eq!((at(500), at(251)), (Some(PayLevel::Asked), Some(PayLevel::Asked)));
    assert_eq!((at(250), at(1)), (Some(PayLevel::Warned), Some(PayLevel::Warned)));
    assert_eq!((at(0), at(-7)), (Some(PayLevel::Stopped), Some(PayLevel::Stopped)));
    assert!(limit.runs_again(-250) && !limit.runs_again(-249));
    assert_eq!((limit.to_pay(-400), limit.to_pay(30)), (Amount(600), Amount(1030)));
}

#[test]
fn what_costs_nothing_is_never_stopped() {
    for limit in [after(0), before(0)] {
        assert_eq!(limit.level(0), None);
        assert!(limit.runs_again(0));
    }
    assert_eq!(after(0).level(1), Some(PayLevel::Stopped), "but what is owed is owed");
}

fn account() -> Account {
    Account::new(key(2).node_id(), Currency::usd())
}

#[test]
fn leases_both_ways_are_one_balance_and_a_payment_counts_where_it_is_known() {
    let mut a = account();
    a.has_earned(Amount(700));
    a.has_spent(Amount(500));
    assert_eq!((a.owed(Amount::ZERO), a.owed(Amount(100)), a.owing()), (200, 300, -200));
    a.flows.received_claimed = Amount(200);
    assert_eq!(a.owed(Amount::ZERO), 200, "not before it has arrived");
    a.flows.received = Amount(200);
    assert_eq!((a.owed(Amount::ZERO), a.owing()), (0, 0));
    a.has_spent(Amount(50));
    a.flows.paid = Amount(50);
    assert_eq!((a.owing(), a.owed(Amount::ZERO)), (0, -50), "paid, and not acknowledged yet");
    // What is paid ahead for leases the other way is no debt of the peer's, nor is its own a debt of ours.
    a.flows.paid = Amount(5_000);
    a.flows.paid_acked = Amount(5_000);
    assert_eq!(a.owed(Amount::ZERO), 500);
    a.flows.received = Amount(9_000);
    assert_eq!((a.owed(Amount::ZERO), a.owing()), (-8_300, -4_450));
}

#[test]
fn a_line_is_more_than_a_slice_and_a_slice_may_be_more_than_a_line() {
    let mut a = account();
    a.note.lent.raise(Amount(100));
    assert_eq!(a.limit(PayWhen::After, Some(Amount(5000))).unit, Amount(5000));
    assert_eq!(a.limit(PayWhen::After, Some(Amount(50))).unit, Amount(100));
    assert_eq!(a.limit(PayWhen::Before, Some(Amount(5000))).unit, Amount(100));
}

#[test]
fn a_level_is_told_when_it_rises_and_again_when_it_rises_anew() {
    let mut a = account();
    let told: Vec<bool> =
        [None, Some(PayLevel::Asked), Some(PayLevel::Asked), Some(PayLevel::Stopped), None, Some(PayLevel::Asked)]
            .into_iter()
            .map(|level| a.at_level(level))
            .collect();
    assert_eq!(told, [false, true, false, true, false, true]);
}

#[test]
fn a_miss_counts_once_until_it_is_paid() {
    let mut a = account();
    a.note.lent.raise(Amount(100));
    a.flows.earned = Amount(10_000);
    a.flows.received = Amount(6300);
    a.grow();
    assert_eq!(a.note.lent.slice, Amount(6400));
    a.stop(NOW);
    a.stop(NOW + Millis(5));
    assert_eq!((a.note.lent.slice, a.note.stopped_at), (Amount(800), Some(NOW)));
    a.resume();
    a.stop(NOW + Millis(9));
    assert_eq!(a.note.lent.slice, Amount(100));
}

#[test]
fn money_paid_ahead_and_money_owed_are_no_settlements() {
    let mut a = account();
    a.note.lent.raise(Amount(100));
    a.flows.received = Amount(1_000_000);
    a.grow();
    assert_eq!(a.note.lent.slice, Amount(100), "nothing was used for it");
    assert!(a.is_unproven());
    a.has_earned(Amount(100));
    a.grow();
    assert_eq!(a.note.lent.slice, Amount(200));
    assert!(!a.is_unproven());
}

fn lending() -> Lending {
    Lending { methods: vec!["manual".to_owned()], ..Lending::default() }
}

#[test]
fn strangers_pay_before_known_peers_after_friends_never() {
    let (stranger, known, lined, friend) = (key(2).node_id(), key(3).node_id(), key(4).node_id(), key(5).node_id());
    let usd = Currency::usd();
    let rules = Lending {
        peers: BTreeSet::from([known]),
        lines: BTreeMap::from([((lined, usd.clone()), Amount(20))]),
        free: BTreeSet::from([friend]),
        ..lending()
    };
    assert_eq!(rules.when(&stranger, &usd), Some(PayWhen::Before));
    assert_eq!(rules.when(&known, &usd), Some(PayWhen::After));
    assert_eq!(rules.when(&lined, &usd), Some(PayWhen::After));
    assert_eq!(rules.when(&friend, &usd), None);
    let eur = Currency("EUR".to_owned());
    assert_eq!(rules.when(&lined, &eur), Some(PayWhen::Before), "a line is in one currency");
    let none = Lending { methods: Vec::new(), ..rules };
    assert!([stranger, known, lined, friend].iter().all(|peer| none.when(peer, &usd).is_none()));
}

fn pot(slot_minutes: u64) -> Accounts {
    let mut accounts = Accounts::default();
    accounts.set_policy(AccountPolicy {
        lending: Lending { pot: slot_minutes * 60_000, ..lending() },
        ..AccountPolicy::default()
    });
    accounts
}

#[test]
fn free_keys_get_no_more_than_the_pot_in_a_day_whatever_their_number() {
    let mut accounts = pot(30);
    let usd = Currency::usd();
    let each = 6 * 60_000;
    let taken = (2u8..200)
        .filter(|seed| {
            let peer = key(*seed).node_id();
            let has = accounts.has_in_pot(&peer, &usd, each, NOW);
            if has {
                accounts.draw(&peer, &usd, each, NOW);
            }
            has
        })
        .count();
    assert_eq!(taken, 5);
    assert_eq!(accounts.pot(NOW).left(), 0);
    // One who has drawn has its own share, and no more.
    let first = key(2).node_id();
    assert!(accounts.has_in_pot(&first, &usd, each, NOW) && !accounts.has_in_pot(&first, &usd, each + 1, NOW));
    // Who has settled a first slice is no stranger, and gives its share back.
    accounts.change(&first, &usd, |a| {
        a.note.lent.raise(Amount(100));
        a.has_earned(Amount(100));
        a.flows.received = Amount(99);
    });
    assert_eq!(accounts.pot(NOW).left(), 0, "not by less");
    accounts.change(&first, &usd, |a| a.flows.received = Amount(100));
    assert_eq!(accounts.pot(NOW).left(), each);
    assert_eq!(accounts.pot(NOW + Millis::from_hours(24)).left(), 30 * 60_000, "and tomorrow there is another");
}

/// What may happen to an account.
#[derive(Debug, Clone)]
enum Step {
    Earn(u64),
    Spend(u64),
    Receive(u64),
    Pay(u64),
    PayAcked(u64),
    Raise(u64),
    Draw(u64),
    Stop,
    Resume,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let amount = 0u64..1_000_000;
    let step = prop_oneof![
        amount.clone().prop_map(Step::Earn),
        amount.clone().prop_map(Step::Spend),
        amount.clone().prop_map(Step::Receive),
        amount.clone().prop_map(Step::Pay),
        amount.clone().prop_map(Step::PayAcked),
        (0u64..10_000).prop_map(Step::Raise),
        (0u64..10_000).prop_map(Step::Draw),
        Just(Step::Stop),
        Just(Step::Resume),
        Just(Step::Restart),
    ];
    proptest::collection::vec(step, 0..80)
}

/// Does a step as the machines do: what was written down survives, and nothing else.
fn run(steps: &[Step], restarts: bool) -> Account {
    let (peer, usd) = (key(2).node_id(), Currency::usd());
    let mut accounts = pot(30);
    let mut written: Option<Note> = None;
    accounts.change(&peer, &usd, |_| {});
    for step in steps {
        let add = |a: &mut Amount, by: u64| *a = a.saturating_add(Amount(by));
        accounts.change(&peer, &usd, |a| match step {
            Step::Earn(by) => a.has_earned(Amount(*by)),
            Step::Spend(by) => a.has_spent(Amount(*by)),
            Step::Receive(by) => add(&mut a.flows.received, *by),
            Step::Pay(by) => add(&mut a.flows.paid, *by),
            Step::PayAcked(by) => a.flows.paid_acked = a.flows.paid.min(a.flows.paid_acked.saturating_add(Amount(*by))),
            Step::Raise(base) => {
                a.note.lent.raise(Amount(*base));
                a.note.ahead.raise(Amount(*base));
            }
            Step::Stop => a.stop(NOW),
            Step::Resume => a.resume(),
            Step::Draw(_) | Step::Restart => {}
        });
        if let Step::Draw(slot_ms) = step {
            accounts.draw(&peer, &usd, *slot_ms, NOW);
        }
        written = accounts.take_changed().into_values().next_back().or(written);
        if restarts && matches!(step, Step::Restart) {
            let row = AccountRow {
                peer,
                currency: usd.clone(),
                flows: *accounts.get(&peer, &usd).unwrap().flows(),
                note: written.clone(),
                paid: None,
                unanswered: Vec::new(),
                received: None,
                unverified: Vec::new(),
                answer: None,
            };
            let policy = accounts.policy().clone();
            accounts = Accounts::default();
            accounts.set_policy(policy);
            accounts.restore(&row);
        }
    }
    accounts.get(&peer, &usd).unwrap().clone()
}

#[test]
fn what_is_refused_uses_up_what_is_lent_and_is_no_part_of_what_is_agreed_on() {
    let mut a = account();
    a.flows.received = Amount(1000);
    let (owed, owing, settled) = (a.owed(Amount::ZERO), a.owing(), a.settled_to_us());
    a.has_refused(Amount(300));
    assert_eq!((a.owed(Amount::ZERO), a.owed(Amount(5))), (owed + 300, owed + 305));
    assert_eq!((a.owing(), a.settled_to_us()), (owing, settled));
    a.has_refused(Amount(u64::MAX));
    assert_eq!(a.note().refused, Amount(u64::MAX));
    assert_eq!((a.forgive(), a.owed(Amount::ZERO)), (Amount(u64::MAX), owed));
}

/// A note as it was before anything refused was counted.
#[derive(serde::Serialize)]
struct OldNote {
    peer: NodeId,
    currency: Currency,
    lent: Slice,
    ahead: Slice,
    stopped_at: Option<Timestamp>,
    drawn: Option<Drawn>,
}

#[test]
fn a_note_of_before_anything_refused_was_counted_is_read() {
    let mut note = account().note().clone();
    note.lent.raise(Amount(5));
    let Note { peer, currency, lent, ahead, stopped_at, drawn, .. } = note.clone();
    let old = crate::encode::to_bytes(&OldNote { peer, currency, lent, ahead, stopped_at, drawn });
    assert_eq!(crate::encode::from_bytes::<Note>(&old, 4096).unwrap(), note);
    note.refused = Amount(7);
    let new = crate::encode::to_bytes(&note);
    assert_eq!(crate::encode::from_bytes::<Note>(&new, 4096).unwrap(), note);
    note.refused = Amount(u64::MAX);
    note.lent = Slice { base: Amount(u64::MAX), slice: Amount(u64::MAX), used: Amount(u64::MAX) };
    (note.ahead, note.stopped_at) = (note.lent, Some(Timestamp(u64::MAX)));
    note.drawn = Some(Drawn { day: u64::MAX, slot_ms: u64::MAX });
    assert!(crate::encode::to_bytes(&note).len() < 512);
}

proptest! {
    /// `restarts-change-nothing`: an account rebuilt from the ledger at any moment is the one that was never rebuilt.
    #[test]
    fn a_restart_at_any_moment_changes_nothing(steps in steps()) {
        prop_assert_eq!(run(&steps, true), run(&steps, false));
    }

    /// A restart that loses the last note, since the node died between a receipt and it, makes up for what follows from the sums.
    #[test]
    fn what_follows_from_the_sums_needs_no_note(base in 1u64..10_000, sums in proptest::collection::vec(0u64..1_000_000, 1..20)) {
        let mut a = account();
        a.note.lent.raise(Amount(base));
        let first = a.note.clone();
        for sum in sums {
            a.has_earned(Amount(sum));
            a.flows.received = a.flows.received.saturating_add(Amount(sum));
            a.grow();
        }
        let row = AccountRow {
            peer: a.peer(),
            currency: a.currency().clone(),
            flows: a.flows,
            note: Some(first),
            paid: None,
            unanswered: Vec::new(),
            received: None,
            unverified: Vec::new(),
            answer: None,
        };
        prop_assert_eq!(Account::restored(&row), a);
    }

    /// `money-conserved`: what one side is owed is what the other owes, once each knows what the other has signed.
    #[test]
    fn both_sides_count_the_same(earned in 0u64..u64::MAX, spent in 0u64..u64::MAX, paid in 0u64..u64::MAX, back in 0u64..u64::MAX) {
        let mut host = account();
        let mut renter = Account::new(key(1).node_id(), Currency::usd());
        (host.flows.earned, renter.flows.spent) = (Amount(earned), Amount(earned));
        (host.flows.spent, renter.flows.earned) = (Amount(spent), Amount(spent));
        (host.flows.received, renter.flows.paid, renter.flows.paid_acked) = (Amount(paid), Amount(paid), Amount(paid));
        (host.flows.paid, host.flows.paid_acked, renter.flows.received) = (Amount(back), Amount(back), Amount(back));
        prop_assert_eq!(host.owed(Amount::ZERO), renter.owing());
        prop_assert_eq!(host.owing(), renter.owed(Amount::ZERO));
        if earned >= paid && spent >= back {
            prop_assert_eq!(host.owed(Amount::ZERO), -host.owing(), "debts both ways are one");
        }
    }

    /// A peer that uses in any portions and pays by any rule leaves no more unpaid than five quarters of its slice, and a portion; and
    /// its slice is never more than the first and all that it has ever settled.
    #[test]
    fn exposure_is_bounded_by_what_was_settled(
        base in 1u64..10_000, portion in 1u64..500,
        deeds in proptest::collection::vec((any::<bool>(), 0u64..100_000), 1..400),
    ) {
        let mut a = account();
        a.note.lent.raise(Amount(base));
        for (uses, amount) in deeds {
            let limit = a.limit(PayWhen::After, None);
            let owed = a.owed(Amount::ZERO);
            if limit.level(owed) == Some(PayLevel::Stopped) {
                a.stop(NOW);
            } else if uses {
                let used = amount.min(portion);
                a.has_earned(Amount(used));
                prop_assert!(a.owed(Amount::ZERO) <= limit.stop() + i128::from(portion));
            }
            if !uses {
                a.flows.received = a.flows.received.saturating_add(Amount(amount));
                a.grow();
                if a.note.stopped_at.is_some() && a.limit(PayWhen::After, None).runs_again(a.owed(Amount::ZERO)) {
                    a.resume();
                }
            }
            let settled = a.settled_to_us().0;
            prop_assert!(a.note.lent.slice.0 <= base + settled);
            prop_assert!(a.owed(Amount::ZERO) <= i128::from(base + settled) * 5 / 4 + i128::from(portion));
        }
    }

    #[test]
    fn no_sum_is_too_strange(flows in proptest::array::uniform6(any::<u64>()), unsigned in any::<u64>(), unit in any::<u64>()) {
        let [earned, spent, received_claimed, received, paid, paid_acked] = flows.map(Amount);
        let mut a = account();
        a.flows = Flows { earned, spent, received_claimed, received, paid, paid_acked };
        a.has_refused(Amount(unsigned));
        a.has_refused(earned);
        a.note.lent.raise(Amount(unit));
        a.grow();
        let owed = a.owed(Amount(unsigned));
        for when in [PayWhen::After, PayWhen::Before] {
            let limit = a.limit(when, Some(Amount(unit)));
            let _ = (limit.level(owed), limit.next(owed), limit.to_pay(owed), limit.runs_again(owed), a.owing());
            prop_assert!(limit.next(owed).is_none_or(|next| next > owed));
        }
    }
}
