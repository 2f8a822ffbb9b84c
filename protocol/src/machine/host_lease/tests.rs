#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::{HostLease, limits};
use crate::{
    Amount, Millis, Nonce, Timestamp, Verified,
    entry::Body,
    lease::{EndReason, LeaseDraft, LeaseState, PauseReason},
    machine::{
        context::Context,
        io::{InsideWish, Output, RuntimeOrder, RuntimeReport},
        testkit::{self, NOW, draft},
    },
    message::{Cause, Extension, Request},
    negotiation::RentalType,
    receipt::Ack,
    workload::Workload,
};

const CREDIT: Amount = Amount(500_000_000);

fn lease(cx: &mut Context, max_spend: Option<Amount>, credit: Amount) -> HostLease {
    let draft = draft(max_spend, credit);
    let accept = testkit::accept(cx, &draft);
    let mut lease = HostLease::accepted(draft, accept, Workload::default(), None, NOW);
    lease.place(cx, vec![0], Vec::new(), NOW);
    lease.prepare(cx);
    lease
}

fn running(cx: &mut Context, max_spend: Option<Amount>, credit: Amount) -> HostLease {
    let mut lease = lease(cx, max_spend, credit);
    lease.report(cx, RuntimeReport::Prepared, NOW);
    lease.report(cx, RuntimeReport::Started, NOW);
    assert_eq!(lease.state(), LeaseState::Running);
    testkit::outputs(cx);
    lease
}

fn exited(by: Cause) -> RuntimeReport {
    RuntimeReport::Exited { code: 143, by, note: String::new() }
}

fn at(secs: u64) -> Timestamp {
    NOW + Millis::from_secs(secs)
}

fn orders(cx: &mut Context) -> Vec<RuntimeOrder> {
    let order = |o| if let Output::Runtime { order, .. } = o { Some(*order) } else { None };
    testkit::outputs(cx).into_iter().filter_map(order).collect()
}

fn ack(lease: &HostLease, due: Amount) -> crate::Signed<Ack> {
    let usage = lease.usage().unwrap();
    let ack =
        Ack { renter: lease.draft().renter, lease: lease.id(), n: usage.n, usage: usage.id(), due, partial: None };
    Verified::sign(ack, &testkit::key(2), &testkit::network()).unwrap().to_signed()
}

#[test]
fn who_has_declined_is_asked_again_only_for_less_or_by_the_owner() {
    let cx = &mut testkit::context();
    let mut lease = running(cx, None, CREDIT);
    let offered = |price| Extension { ends_at: at(10_000), compute_hour: Amount(price), valid_until: at(5_000) };
    lease.ask_extension(cx, offered(100), at(1));
    assert_eq!(lease.asked(), Some(offered(100)));
    lease.decline_extension(cx, Cause::Renter, at(2));
    for price in [100, 101] {
        lease.ask_extension(cx, offered(price), at(3));
        assert_eq!(lease.asked(), None, "asked again at {price}");
    }
    lease.ask_extension_anew(cx, offered(100), at(4));
    assert_eq!(lease.asked(), Some(offered(100)));
    lease.decline_extension(cx, Cause::Renter, at(5));
    lease.ask_extension(cx, offered(99), at(6));
    assert_eq!(lease.asked(), Some(offered(99)));
}

#[test]
fn processes_that_were_told_to_stop_ended_by_whoever_had_them_stopped() {
    let cx = &mut testkit::context();
    for (reason, by) in [(PauseReason::Stopped, Cause::Renter), (PauseReason::Maintenance, Cause::Host)] {
        let mut lease = running(cx, None, CREDIT);
        lease.pause(cx, reason, by, at(10));
        lease.report(cx, exited(Cause::Renter), at(11));
        assert_eq!(lease.events().last().unwrap().by, by);
    }
}

#[test]
fn late_news_of_the_stop_before_does_not_end_what_starts_now() {
    let cx = &mut testkit::context();
    let mut lease = running(cx, None, CREDIT);
    lease.pause(cx, PauseReason::Outbid, Cause::Market, at(10));
    lease.report(cx, exited(Cause::Renter), at(11));
    lease.begin(cx, vec![0], Vec::new(), at(12));
    assert_eq!(lease.state(), LeaseState::Preparing);
    orders(cx);
    lease.report(cx, exited(Cause::Renter), at(13));
    assert_eq!(lease.state(), LeaseState::Preparing);
    assert_eq!(orders(cx), vec![RuntimeOrder::Start { devices: Vec::new() }]);
    lease.report(cx, RuntimeReport::Started, at(14));
    assert_eq!(lease.state(), LeaseState::Running);
}

#[test]
fn a_stop_ends_billing_at_once_and_frees_the_slots_only_once_the_processes_are_gone() {
    let cx = &mut testkit::context();
    let mut lease = running(cx, None, CREDIT);
    lease.pause(cx, PauseReason::Stopped, Cause::Renter, at(10));
    assert_eq!(orders(cx), vec![RuntimeOrder::Stop(limits::STOP_GRACE)]);
    assert!(lease.holds_slots() && lease.is_stopping());
    assert_eq!(lease.count(at(60)).0.active, Millis::from_secs(10));
    // The order is given again until it shows an effect.
    lease.tick(cx, true, at(50));
    assert_eq!(orders(cx), vec![RuntimeOrder::Stop(limits::STOP_GRACE)]);
    lease.report(cx, exited(Cause::Renter), at(60));
    assert!(!lease.holds_slots());
    assert!(!lease.is_stopping() && lease.cannot_start(at(61)).is_none());
    assert_eq!(lease.events().last().unwrap().exit_code, Some(143));
}

#[test]
fn compute_stops_at_the_credit_the_ceiling_and_the_end_and_is_not_billed_past_them() {
    let cx = &mut testkit::context();
    let mut lease = running(cx, None, Amount(10_000_000));
    let due = lease.deadline(true, false).unwrap();
    lease.tick(cx, true, due);
    while lease.state() == LeaseState::Running {
        let next = lease.deadline(true, false).unwrap();
        assert!(next > due.min(next) || next > NOW);
        lease.tick(cx, true, next);
    }
    assert_eq!(lease.state(), LeaseState::Paused(PauseReason::NoCredit));
    assert!(lease.count(at(9999)).1.0 - 10_000_000 < 10_000_000, "a step over the credit");

    let ceiling = Amount(100_000_000);
    let mut lease = running(cx, Some(ceiling), CREDIT);
    let mut now = NOW;
    while !matches!(lease.state(), LeaseState::Paused(_)) {
        now = lease.deadline(true, false).unwrap();
        lease.tick(cx, true, now);
    }
    assert_eq!(lease.state(), LeaseState::Paused(PauseReason::MaxSpend));
    lease.report(cx, exited(Cause::Renter), now);
    assert!(lease.cannot_start(now).is_some());
    // The disk is kept for 48 hours under the ceiling, and never costs more.
    assert!(lease.count(now + limits::DISK_KEPT).1 <= ceiling);
    assert_eq!(lease.count(Timestamp(u64::MAX / 2)).1, ceiling);

    let mut lease = running(cx, None, Amount(u64::MAX));
    // Asked much too late, it still counts only up to the end.
    lease.tick(cx, true, at(100_000));
    assert_eq!(lease.state(), LeaseState::Paused(PauseReason::Expired));
    assert_eq!(lease.count(at(100_000)).0.active, Millis::from_hours(1));
    assert!(lease.cannot_start(at(100_000)).is_some());
}

#[test]
fn a_start_that_fails_ends_a_lease_that_never_ran_and_keeps_the_disk_of_one_that_did() {
    let failed = || RuntimeReport::Failed { reason: EndReason::CreateFailed, note: "no".to_owned() };
    let cx = &mut testkit::context();
    let mut fresh = lease(cx, None, CREDIT);
    fresh.report(cx, failed(), at(1));
    assert!(matches!(orders(cx).last(), Some(RuntimeOrder::Destroy)));
    fresh.report(cx, RuntimeReport::Destroyed, at(2));
    assert_eq!(fresh.state(), LeaseState::Ended(EndReason::CreateFailed));

    let mut lease = running(cx, None, CREDIT);
    lease.pause(cx, PauseReason::Stopped, Cause::Renter, at(10));
    lease.report(cx, exited(Cause::Renter), at(11));
    lease.place(cx, vec![1], Vec::new(), at(20));
    lease.start(cx, Cause::Renter, at(20));
    assert!(lease.holds_slots());
    lease.report(cx, failed(), at(21));
    assert_eq!(lease.state(), LeaseState::Paused(PauseReason::Stopped));
    assert_eq!(lease.count(at(21)).0.active, Millis::from_secs(10));
}

#[test]
fn an_end_is_signed_before_the_instance_goes_and_told_after() {
    let cx = &mut testkit::context();
    let mut lease = running(cx, None, CREDIT);
    lease.end(cx, EndReason::Destroyed, Cause::Renter, String::new(), at(10));
    assert!(lease.holds_slots(), "processes may be alive");
    assert!(lease.update(0).entries.iter().all(|e| e.verify(&testkit::network()).unwrap().body.name() != "close"));
    let due = lease.count(at(10)).1;
    lease.report(cx, RuntimeReport::Destroyed, at(15));
    assert!(!lease.holds_slots() && lease.state().is_ended() && !lease.is_closed());
    assert_eq!(lease.count(at(1000)).1, due, "nothing is billed from the decision on");
    let update = lease.update(0);
    let close = update.entries.last().unwrap().verify(&testkit::network()).unwrap();
    assert!(matches!(close.body, Body::Close { due: claimed, .. } if claimed == due));
}

#[test]
fn a_crash_before_a_stop_or_destroy_was_carried_out_forgets_neither() {
    for destroy in [false, true] {
        let cx = &mut testkit::context();
        let mut lease = running(cx, None, CREDIT);
        if destroy {
            lease.end(cx, EndReason::Destroyed, Cause::Renter, String::new(), at(10));
        } else {
            lease.pause(cx, PauseReason::Stopped, Cause::Renter, at(10));
        }
        let from = super::Remembered {
            amended: Vec::new(),
            draft: lease.draft.clone(),
            accept: lease.accept.clone(),
            workload: Workload::default(),
            usage: lease.usage.clone(),
            ack: None,
            placement: lease.placement.clone(),
            close: lease.close.clone(),
            events: lease.events.clone(),
        };
        testkit::outputs(cx);
        let mut back = HostLease::restored(from, at(100));
        back.resume(cx, at(100));
        assert!(back.holds_slots(), "its processes may still be alive");
        back.engine_up(cx, at(101));
        if destroy {
            assert_eq!(orders(cx), vec![RuntimeOrder::Destroy]);
            back.report(cx, RuntimeReport::Missing, at(102));
            assert_eq!(back.state(), LeaseState::Ended(EndReason::Destroyed));
        } else {
            assert!(matches!(orders(cx)[..], [RuntimeOrder::Adopt { .. }]));
            back.report(cx, RuntimeReport::Started, at(102));
            assert_eq!(orders(cx), vec![RuntimeOrder::Stop(limits::STOP_GRACE)]);
            assert_eq!(back.state(), LeaseState::Paused(PauseReason::Stopped));
        }
        assert_eq!(back.count(at(102)).0.active, Millis::from_secs(10));
    }
}

#[test]
fn what_ran_runs_again_after_a_restart_and_the_time_between_is_free() {
    let cx = &mut testkit::context();
    let mut lease = running(cx, None, CREDIT);
    lease.tick(cx, true, at(10));
    let usage = lease.usage.clone();
    let from = super::Remembered {
        amended: Vec::new(),
        draft: lease.draft.clone(),
        accept: lease.accept.clone(),
        workload: Workload::default(),
        usage,
        ack: None,
        placement: lease.placement.clone(),
        close: None,
        events: lease.events.clone(),
    };
    let mut back = HostLease::restored(from, at(500));
    back.resume(cx, at(500));
    assert_eq!(back.state(), LeaseState::Paused(PauseReason::HostRestart));
    back.engine_up(cx, at(501));
    back.report(cx, exited(Cause::Engine), at(502));
    assert!(matches!(orders(cx).last(), Some(RuntimeOrder::Start { .. })));
    back.report(cx, RuntimeReport::Started, at(503));
    assert_eq!(back.state(), LeaseState::Running);
    assert_eq!(back.count(at(513)).0.active, Millis::from_secs(20));
}

#[test]
fn news_wait_for_the_renter_without_spinning() {
    let cx = &mut testkit::context();
    let mut lease = running(cx, None, CREDIT);
    assert!(lease.deadline(true, false).unwrap() > NOW);
    cx.connected.insert(lease.draft().renter);
    assert_eq!(lease.deadline(true, true), Some(NOW));
    lease.pump(cx, NOW);
    let sent = testkit::outputs(cx);
    assert!(matches!(&sent[..], [Output::Send { request, .. }] if matches!(**request, Request::Update(_))));
    lease.unanswered(NOW);
    assert!(lease.deadline(true, true).unwrap() > NOW);
}

#[test]
fn wishes_are_remembered() {
    let cx = &mut testkit::context();
    let mut lease = running(cx, None, CREDIT);
    assert!(lease.is_new_wish(Nonce([1; 16])) && !lease.is_new_wish(Nonce([1; 16])));
    for n in 0..100 {
        lease.is_new_wish(Nonce([n; 16]));
    }
    assert!(lease.wishes.len() <= super::WISHES);
}

#[derive(Debug, Clone)]
enum Happening {
    Report(RuntimeReport),
    Stop,
    Start,
    End,
    EngineDown,
    EngineUp,
    Ack,
    Wait(u64),
}

fn happenings() -> impl Strategy<Value = Happening> {
    let note = String::new;
    prop_oneof![
        Just(Happening::Report(RuntimeReport::Prepared)),
        Just(Happening::Report(RuntimeReport::Started)),
        Just(Happening::Report(exited(Cause::Guest))),
        Just(Happening::Report(exited(Cause::Engine))),
        Just(Happening::Report(RuntimeReport::NotRunning)),
        Just(Happening::Report(RuntimeReport::DiskFull)),
        Just(Happening::Report(RuntimeReport::Missing)),
        Just(Happening::Report(RuntimeReport::Failed { reason: EndReason::ImageFailed, note: note() })),
        Just(Happening::Report(RuntimeReport::Destroyed)),
        (0u64..1 << 40).prop_map(|b| Happening::Report(RuntimeReport::Traffic { rx_bytes: b, tx_bytes: b / 2 })),
        Just(Happening::Stop),
        Just(Happening::Start),
        Just(Happening::End),
        Just(Happening::EngineDown),
        Just(Happening::EngineUp),
        Just(Happening::Ack),
        Just(Happening::Ack),
        (1u64..10_000_000).prop_map(Happening::Wait),
        (1u64..10_000).prop_map(Happening::Wait),
    ]
}

proptest! {
    /// Whatever happens in whatever order: money only grows and stays under the ceiling, nothing is active that does not
    /// run, an end is final, and no deadline lies in the past.
    #[test]
    fn any_order_of_events_keeps_the_books(
        steps in proptest::collection::vec(happenings(), 0..60),
        ceiling in proptest::option::of(80_000_000u64..2_000_000_000),
    ) {
        let cx = &mut testkit::context();
        let mut lease = lease(cx, ceiling.map(Amount), CREDIT);
        let mut now = NOW;
        let mut before = lease.count(now);
        let mut usages = 0;
        for step in steps {
            let was = lease.state();
            match step {
                Happening::Report(report) => lease.report(cx, report, now),
                Happening::Stop => lease.pause(cx, PauseReason::Stopped, Cause::Renter, now),
                Happening::Start if !lease.is_stopping() && lease.cannot_start(now).is_none() => {
                    lease.place(cx, vec![0], Vec::new(), now);
                    lease.start(cx, Cause::Renter, now);
                }
                Happening::Start => {}
                Happening::End => lease.end(cx, EndReason::Destroyed, Cause::Renter, String::new(), now),
                Happening::EngineDown => lease.engine_down(cx, now),
                Happening::EngineUp => lease.engine_up(cx, now),
                Happening::Ack => {
                    if let Some(due) = lease.usage().map(|u| u.due) {
                        let ack = ack(&lease, due);
                        lease.seen(cx, 0, Some(&ack), None, now);
                        prop_assert_eq!(lease.acked(), due);
                    }
                }
                Happening::Wait(ms) => now = now + Millis(ms),
            }
            lease.tick(cx, true, now);
            let after = lease.count(now);
            prop_assert!(after.0.covers(&before.0) && after.1 >= before.1);
            prop_assert!(ceiling.is_none_or(|most| after.1.0 <= most));
            prop_assert!(after.0.active <= Millis::from_hours(1), "past the end");
            prop_assert!(lease.acked() <= after.1);
            prop_assert!(!was.is_ended() || lease.state() == was, "an end is final");
            prop_assert!(lease.deadline(true, false).is_none_or(|at| at > now), "{:?}", lease.state());
            prop_assert!(lease.state() != LeaseState::Running || lease.holds_slots());
            if let Some(usage) = lease.usage() {
                prop_assert!(usage.n >= usages && lease.terms().due(lease.draft(), &usage.counters) == Ok(usage.due));
                usages = usage.n;
            }
            before = after;
            for output in testkit::outputs(cx) {
                prop_assert!(!matches!(output, Output::Violation(_)));
            }
        }
    }
}

#[test]
fn what_programs_inside_ask_for_is_their_instances_alone_to_suffer() {
    let cx = &mut testkit::context();
    let mut lease = running(cx, None, CREDIT);
    lease.asked_inside(cx, &InsideWish::Label("epoch 1".to_owned()), at(1)).unwrap();
    assert_eq!(lease.label_from_inside(), Some("epoch 1"));
    assert_eq!((lease.state(), lease.since()), (LeaseState::Running, NOW), "a label changes nothing else");
    assert!(lease.asked_inside(cx, &InsideWish::Label("epoch 2".to_owned()), at(2)).is_err(), "not in a loop");
    lease.asked_inside(cx, &InsideWish::Label("epoch 2".to_owned()), at(12)).unwrap();
    let said = lease.events().len();
    lease.asked_inside(cx, &InsideWish::Label("epoch 2".to_owned()), at(30)).unwrap();
    assert_eq!(lease.events().len(), said, "the same again is no event");
    assert!(lease.asked_inside(cx, &InsideWish::Label("a\u{1b}[2J".to_owned()), at(40)).is_err());
    assert!(lease.asked_inside(cx, &InsideWish::Label("a".repeat(65)), at(40)).is_err());
    orders(cx);

    lease.asked_inside(cx, &InsideWish::Stop, at(60)).unwrap();
    assert_eq!(lease.state(), LeaseState::Paused(PauseReason::Stopped));
    assert_eq!(lease.events().last().unwrap().by, Cause::Guest);
    assert_eq!(orders(cx), [RuntimeOrder::Stop(limits::STOP_GRACE)]);
    lease.asked_inside(cx, &InsideWish::Stop, at(61)).unwrap();
    assert!(orders(cx).is_empty(), "one stop is enough");
    let (counters, _) = lease.count(at(120));
    assert_eq!(counters.active, Millis::from_secs(60), "nothing is billed after it");

    lease.asked_inside(cx, &InsideWish::Destroy, at(130)).unwrap();
    assert!(lease.asked_inside(cx, &InsideWish::Label("late".to_owned()), at(140)).is_err());
    assert!(lease.asked_inside(cx, &InsideWish::Stop, at(140)).is_err());
    lease.report(cx, RuntimeReport::Destroyed, at(150));
    assert_eq!(lease.state(), LeaseState::Ended(EndReason::AskedFromInside));
    assert_eq!(lease.events().last().unwrap().by, Cause::Guest);
    assert!(!EndReason::AskedFromInside.is_hosts_doing());
}

#[test]
fn labels_from_inside_never_push_out_what_happened_to_the_lease() {
    let cx = &mut testkit::context();
    let mut lease = running(cx, None, CREDIT);
    let mut told = 0;
    for n in 0..1000 {
        told += usize::from(lease.asked_inside(cx, &InsideWish::Label(format!("{n}")), at(n * 11)).is_ok());
    }
    assert_eq!(told, limits::LABELS);
    assert_eq!(lease.events().first().unwrap().n, 1);
    assert!(lease.asked_inside(cx, &InsideWish::Label(format!("{}", told - 1)), at(20_000)).is_ok(), "it is called so");
}

#[test]
fn a_reserved_term_is_left_by_its_renter_alone() {
    let cx = &mut testkit::context();
    let reserved = LeaseDraft { rental: RentalType::Reserved, ..(*draft(None, CREDIT)).clone() };
    let draft = Verified::sign(reserved, &testkit::key(1), &testkit::network()).unwrap();
    let accept = testkit::accept(cx, &draft);
    let mut lease = HostLease::accepted(draft, accept, Workload::default(), None, NOW);
    lease.place(cx, vec![0], Vec::new(), NOW);
    lease.report(cx, RuntimeReport::Started, NOW);
    assert!(lease.asked_inside(cx, &InsideWish::Destroy, at(10)).is_err());
    assert_eq!(lease.state(), LeaseState::Running);
    lease.asked_inside(cx, &InsideWish::Stop, at(20)).unwrap();
    assert_eq!(lease.state(), LeaseState::Paused(PauseReason::Stopped));
    lease.asked_inside(cx, &InsideWish::Destroy, at(3700)).unwrap();
}
