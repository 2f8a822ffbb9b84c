//! Differences that are waived: once in a lease's life, and never for nothing.
#![allow(clippy::unwrap_used)]

use super::{HostLease, Remembered, limits};
use crate::{
    Amount, Currency, Millis, Timestamp, Verified,
    lease::{EndReason, LeaseDraft, LeaseState},
    machine::{
        account::Account,
        context::Context,
        io::{Output, RuntimeReport},
        record::{Private, Record},
        testkit::{self, NOW, draft, key, network},
    },
    receipt::{Ack, PartialReason},
    workload::Workload,
};

/// A firm lease of a week that runs, and is never stopped for what is not acknowledged.
fn running(cx: &mut Context) -> HostLease {
    let week = LeaseDraft { ends_at: NOW + Millis::from_hours(168), ..(*draft(None, Amount(u64::MAX))).clone() };
    let draft = Verified::sign(week, &key(1), &network()).unwrap();
    let accept = testkit::accept(cx, &draft);
    let mut lease = HostLease::accepted(draft, accept, Workload::default(), None, NOW);
    lease.place(cx, vec![0], Vec::new(), NOW);
    lease.report(cx, RuntimeReport::Prepared, NOW);
    lease.report(cx, RuntimeReport::Started, NOW);
    assert_eq!(lease.state(), LeaseState::Running);
    lease
}

fn acknowledge(cx: &mut Context, lease: &mut HostLease, part: impl FnOnce(Amount) -> Amount, now: Timestamp) {
    lease.tick(cx, true, now);
    let usage = lease.usage().unwrap();
    let due = part(usage.due);
    let partial = (due < usage.due).then_some(PartialReason::OverMetered);
    let ack = Ack { renter: key(2).node_id(), lease: lease.id(), n: usage.n, usage: usage.id(), due, partial };
    let ack = Verified::sign(ack, &key(2), &network()).unwrap().to_signed();
    lease.seen(cx, 0, Some(&ack), None, now);
    assert_eq!(lease.acked(), due);
}

fn account(cx: &Context) -> &Account {
    cx.accounts.get(&key(2).node_id(), &Currency::usd()).unwrap()
}

/// Disputes a second time what a first dispute made the host waive, and agrees to all in between.
fn disputes_again(cx: &mut Context, lease: &mut HostLease, from: Timestamp) -> Timestamp {
    acknowledge(cx, lease, |due| due, from);
    assert_eq!(lease.disputed_at(), None);
    let acked = lease.acked();
    let again = from + Millis::from_hours(2);
    acknowledge(cx, lease, |_| acked, again);
    assert_eq!(lease.disputed_at(), Some(again));
    again
}

#[test]
fn a_host_waives_by_itself_once_in_a_leases_life() {
    let cx = &mut testkit::context();
    let mut lease = running(cx);
    let first = NOW + Millis::from_hours(2);
    acknowledge(cx, &mut lease, |due| Amount(due.0 / 2), first);
    let waives = first + limits::DISPUTED;
    lease.tick(cx, true, waives);
    assert!(lease.usage().unwrap().counters.waived > Millis(0) && !lease.is_ending());
    let again = disputes_again(cx, &mut lease, waives + Millis::from_mins(1));
    lease.tick(cx, true, again + Millis(limits::DISPUTED.0 - 1));
    assert!(!lease.is_ending(), "it has its day");
    lease.tick(cx, true, again + limits::DISPUTED);
    assert!(lease.is_ending(), "and then it is over");
    lease.report(cx, RuntimeReport::Destroyed, again + limits::DISPUTED);
    assert_eq!(lease.state(), LeaseState::Ended(EndReason::Disputed));
}

#[test]
fn a_restart_and_a_long_history_do_not_hide_a_waiver() {
    for forgotten in [false, true] {
        let cx = &mut testkit::context();
        let mut lease = running(cx);
        let first = NOW + Millis::from_hours(2);
        acknowledge(cx, &mut lease, |due| Amount(due.0 / 2), first);
        let waives = first + limits::DISPUTED;
        lease.tick(cx, true, waives);
        acknowledge(cx, &mut lease, |due| due, waives + Millis::from_mins(1));
        let events = lease.events().to_vec();
        let from = Remembered {
            draft: lease.draft().clone(),
            accept: lease.accept().clone(),
            workload: Workload::default(),
            usage: lease.usage().cloned(),
            ack: lease.ack.clone(),
            placement: lease.placement().cloned(),
            close: None,
            // Only so many events are kept.
            events: if forgotten {
                events.into_iter().filter(|e| e.state != LeaseState::Preparing).take(1).collect()
            } else {
                events
            },
            amended: Vec::new(),
        };
        let mut back = HostLease::restored(from, waives + Millis::from_mins(2));
        back.resume(cx, waives + Millis::from_mins(2));
        back.report(cx, RuntimeReport::Started, waives + Millis::from_mins(2));
        let again = disputes_again(cx, &mut back, waives + Millis::from_mins(3));
        back.tick(cx, true, again + limits::DISPUTED);
        assert!(back.is_ending(), "forgotten: {forgotten}");
    }
}

#[test]
fn what_is_waived_is_refused_and_a_miss() {
    let cx = &mut testkit::context();
    let mut lease = running(cx);
    let (renter, usd) = (key(2).node_id(), Currency::usd());
    cx.accounts.change(&renter, &usd, |a| {
        a.note.lent.raise(Amount(1_000_000));
        (a.flows.earned, a.flows.received) = (Amount(100_000_000), Amount(100_000_000));
    });
    let slice = account(cx).note().lent.slice;
    assert_eq!(slice, Amount(64_000_000));
    let first = NOW + Millis::from_hours(2);
    acknowledge(cx, &mut lease, |due| Amount(due.0 / 2), first);
    lease.disputed_at = Some(first);
    let now = first + Millis::from_hours(1);
    let (claimed, before) = (lease.count(now).1, account(cx).owed(lease.unsigned(now)));
    testkit::outputs(cx);
    assert!(lease.waive(cx, now));
    let (left, refused) = (lease.count(now).1, account(cx).note().refused);
    assert!(left < claimed);
    assert_eq!(refused, Amount(claimed.0 - left.0));
    assert_eq!(account(cx).owed(lease.unsigned(now)), before, "it is not lent again");
    assert_eq!(account(cx).note().lent.slice, Amount(slice.0 / 8));
    let noted = testkit::outputs(cx).into_iter().any(|o| {
        matches!(o, Output::Persist { record, .. }
            if matches!(&*record, Record::Private(Private::Account(note)) if note.refused == refused))
    });
    assert!(noted, "it is written down");

    // What is left is agreed on: nothing more is refused.
    acknowledge(cx, &mut lease, |due| due, now + Millis::from_mins(1));
    assert_eq!(account(cx).note().refused, refused);
}
