//! Sights in, events out.
#![allow(clippy::unwrap_used)]
use super::*;
use souk_protocol::{
    Currency, NodeId,
    lease::{EndReason, LeaseState, PauseReason},
    message::{Cause, EventCode},
    resources::{Resources, SlotClass},
};

const HOUR: u64 = 3_600_000;

fn sight(role: Role) -> Sight {
    let class = SlotClass::Cpu;
    let resources = Resources { slots: 1, class, cpu_milli: 1000, ram_mb: 1, disk_mb: 1, shm_mb: 1, pids: 1 };
    let view = LeaseView {
        number: 3,
        lease: LeaseId([1; 32]),
        rental: souk_protocol::negotiation::RentalType::OnDemand,
        role,
        peer: NodeId([2; 32]),
        label_inside: None,
        label: Some("job\u{1b}".to_owned()),
        state: LeaseState::Running,
        since_ms: Timestamp(0),
        image: "debian".to_owned(),
        command: String::new(),
        resources,
        price_hour: Amount(1),
        due: Amount(0),
        acked: Amount(0),
        currency: Currency::usd(),
        uptime_ms: Millis(0),
        ends_at_ms: Timestamp(100 * HOUR),
        exit_code: None,
        progress: None,
        note: String::new(),
        reachable: true,
        relayed: false,
        public: None,
        place: None,
        eviction: None,
    };
    Sight {
        view,
        machine: MachineId::default(),
        drafted_at: Timestamp(10),
        credit: Amount(1000),
        max_spend: Some(Amount(100)),
        events: Vec::new(),
        disk: None,
        held: true,
    }
}

fn step(sight: &mut Sight, at: u64, state: LeaseState) {
    let n = u32::try_from(sight.events.len()).unwrap() + 1;
    let (note, what) = ("a\nnote".to_owned(), EventCode::State);
    sight.events.push(LeaseEvent { n, at: Timestamp(at), state, what, by: Cause::Host, exit_code: None, note });
    sight.view.state = state;
}

fn kinds(watch: &mut Watch, sight: &Sight, at: u64) -> Vec<&'static str> {
    watch.lease(sight, Timestamp(at)).into_iter().map(|h| h.kind.name()).collect()
}

#[test]
fn each_step_is_told_once_also_after_a_crash() {
    let mut watch = Watch::since(Timestamp(5));
    let mut seen = sight(Role::Renter);
    step(&mut seen, 11, LeaseState::Preparing);
    assert!(kinds(&mut watch, &seen, 12).is_empty());
    let kept = serde_json::to_string(&watch).unwrap();
    step(&mut seen, 13, LeaseState::Running);
    step(&mut seen, 14, LeaseState::Paused(PauseReason::Stopped));
    step(&mut seen, 14, LeaseState::Paused(PauseReason::Stopped));
    step(&mut seen, 15, LeaseState::Running);
    let first = watch.lease(&seen, Timestamp(16));
    assert!(watch.lease(&seen, Timestamp(16)).is_empty());
    // The node forgot that it told: the same events, with the same numbers.
    let mut again: Watch = serde_json::from_str(&kept).unwrap();
    let second = again.lease(&seen, Timestamp(99));
    let node = NodeId([9; 32]);
    let ids = |news: Vec<Happening>| news.into_iter().map(|h| super::super::Event::of(node, h).id).collect::<Vec<_>>();
    assert_eq!(first.iter().map(|h| h.kind.name()).collect::<Vec<_>>(), ["lease_started", "lease_stopped", "resumed"]);
    assert!(first[1].text.contains("stopped, a note") && first[1].data["by"] == "host", "{:?}", first[1]);
    assert_eq!(first[1].data["label"], "job ");
    assert_eq!(ids(first), ids(second));
    step(&mut seen, 20, LeaseState::Ended(EndReason::Destroyed));
    seen.held = false;
    assert_eq!(kinds(&mut watch, &seen, 21), ["lease_ended"]);
    assert_eq!(watch.leases().count(), 0, "what is over is forgotten");
}

#[test]
fn what_was_before_the_first_hook_is_nobodys_news() {
    let mut watch = Watch::since(Timestamp(50));
    let mut seen = sight(Role::Host);
    step(&mut seen, 11, LeaseState::Running);
    assert!(kinds(&mut watch, &seen, 60).is_empty());
    step(&mut seen, 61, LeaseState::Paused(PauseReason::Stopped));
    step(&mut seen, 62, LeaseState::Running);
    assert_eq!(kinds(&mut watch, &seen, 63), ["lease_stopped", "resumed"]);
    let mut young = sight(Role::Host);
    young.view.lease = LeaseId([7; 32]);
    young.drafted_at = Timestamp(70);
    assert_eq!(kinds(&mut watch, &young, 71), ["rented"]);
}

#[test]
fn ends_that_come_near_or_move_are_told_once() {
    let mut watch = Watch::since(Timestamp(0));
    let mut seen = sight(Role::Renter);
    assert!(kinds(&mut watch, &seen, 70 * HOUR).is_empty());
    assert_eq!(kinds(&mut watch, &seen, 77 * HOUR), ["expiring_soon"]);
    assert!(kinds(&mut watch, &seen, 78 * HOUR).is_empty());
    seen.view.ends_at_ms = Timestamp(200 * HOUR);
    assert_eq!(kinds(&mut watch, &seen, 79 * HOUR), ["contract_extended"]);
    assert_eq!(kinds(&mut watch, &seen, 177 * HOUR), ["expiring_soon"]);
    assert!(kinds(&mut watch, &seen, 201 * HOUR).is_empty());
    // Its host says so too: that is no news.
    let mut told = sight(Role::Renter);
    told.view.lease = LeaseId([9; 32]);
    assert_eq!(kinds(&mut watch, &told, 77 * HOUR), ["expiring_soon"]);
    step(&mut told, 78 * HOUR, LeaseState::Running);
    told.events[0].what = EventCode::ExpiringSoon;
    assert!(kinds(&mut watch, &told, 78 * HOUR).is_empty());
    // A short contract: in its last quarter.
    let mut short = sight(Role::Renter);
    short.view.lease = LeaseId([8; 32]);
    short.view.ends_at_ms = Timestamp(10 + 4 * HOUR);
    assert!(kinds(&mut watch, &short, 2 * HOUR).is_empty());
    assert_eq!(kinds(&mut watch, &short, 11 + 3 * HOUR), ["expiring_soon"]);
}

#[test]
fn low_credit_is_told_again_only_after_it_has_eased() {
    let mut watch = Watch::since(Timestamp(0));
    let mut seen = sight(Role::Renter);
    let mut at = |due: u64, acked: u64, ceiling: Option<u64>| {
        (seen.view.due, seen.view.acked, seen.max_spend) = (Amount(due), Amount(acked), ceiling.map(Amount));
        kinds(&mut watch, &seen, 100)
    };
    assert!(at(79, 79, Some(100)).is_empty());
    assert_eq!(at(80, 80, Some(100)), ["low_credit"]);
    assert!(at(100, 100, Some(100)).is_empty());
    assert!(at(100, 100, Some(1000)).is_empty(), "eased");
    assert_eq!(at(900, 100, None), ["low_credit"], "of what the host lends");
    assert!(at(u64::MAX, 0, Some(0)).is_empty(), "no ceiling of zero, and no overflow");
}

#[test]
fn a_host_is_offline_once_it_is_long_out_of_reach_or_says_so() {
    let mut watch = Watch::since(Timestamp(0));
    let mut seen = sight(Role::Renter);
    step(&mut seen, 11, LeaseState::Running);
    assert_eq!(kinds(&mut watch, &seen, 1000), ["lease_started"]);
    seen.view.reachable = false;
    assert!(kinds(&mut watch, &seen, 2000).is_empty() && kinds(&mut watch, &seen, 31_999).is_empty());
    assert_eq!(kinds(&mut watch, &seen, 32_000), ["offline"]);
    let mut after_a_crash: Watch = serde_json::from_str(&serde_json::to_string(&watch).unwrap()).unwrap();
    seen.view.reachable = true;
    step(&mut seen, 40_000, LeaseState::Paused(PauseReason::HostRestart));
    assert!(kinds(&mut watch, &seen, 40_001).is_empty(), "it still is");
    step(&mut seen, 41_000, LeaseState::Running);
    assert_eq!(kinds(&mut watch, &seen, 41_001), ["back_online"]);
    assert_eq!(kinds(&mut after_a_crash, &seen, 41_001), ["back_online"]);
    step(&mut seen, 50_000, LeaseState::Paused(PauseReason::EngineRestart));
    assert_eq!(kinds(&mut watch, &seen, 50_001), ["offline"]);
}

#[test]
fn disks_and_engines_are_told_as_they_change() {
    let mut watch = Watch::since(Timestamp(0));
    let mut seen = sight(Role::Host);
    assert_eq!(kinds(&mut watch, &seen, 20), ["rented"]);
    let mut at = |used| {
        seen.disk = Some((used, 100));
        kinds(&mut watch, &seen, 30).len()
    };
    assert_eq!([at(89), at(90), at(99), at(85), at(90), at(79), at(95)], [0, 1, 0, 0, 0, 0, 1]);
    let machine = MachineId::default();
    let mut engine = |up| watch.engine(machine, up, Timestamp(1)).map(|h| (h.kind.name(), h.number));
    assert_eq!(engine(true), None);
    assert_eq!(engine(false), Some(("engine_down", 1)));
    assert_eq!(engine(false), None);
    assert_eq!(engine(true), Some(("engine_up", 1)));
    assert_eq!(engine(false), Some(("engine_down", 2)));
}
