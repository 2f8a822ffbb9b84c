//! Hosts that mean ill: nothing they sign may be written down that our own ledger would refuse. And honest ones, heard late.
#![allow(clippy::unwrap_used)]

use super::{
    Remembered, RenterLease,
    heartbeat::{Beat, Pulse},
};
use crate::{
    Amount, LeaseId, Millis, Timestamp, Verified,
    entry::Body,
    lease::{EndReason, LeaseDraft, LeaseState, PauseReason},
    machine::{
        chain::Chain,
        context::Context,
        io::{Output, Token},
        testkit::{self, NOW, key, network},
    },
    message::{Cause, EventCode, LeaseEvent, LeaseUpdate},
    money::Counters,
    negotiation::RentalType,
    receipt::{PartialReason, Usage},
    terms::{Amended, Change, LeaseTerms},
};

pub(super) fn at(secs: u64) -> Timestamp {
    NOW + Millis::from_secs(secs)
}

pub(super) struct Bench {
    pub(super) cx: Context,
    pub(super) host: Chain,
    pub(super) lease: RenterLease,
    pub(super) n: u32,
    pub(super) usages: Vec<Verified<Usage>>,
}

impl Bench {
    pub(super) fn new(rental: RentalType) -> Self {
        let chain = |seed| {
            let mut chain = Chain::new(key(seed), network(), None);
            chain.begin(NOW).unwrap();
            chain
        };
        let (mut cx, mut host) = (Context::new(chain(2)), chain(1));
        let draft = (*testkit::draft(None, Amount(u64::MAX))).clone();
        let extend_until = Some(draft.ends_at + Millis::from_hours(100));
        let draft = LeaseDraft { rental, extend_until, quantum: Millis::from_secs(600), ..draft };
        let draft = Verified::sign(draft, &key(1), &network()).unwrap();
        let id: LeaseId = draft.id().into();
        let (open, ticket) = cx.append(id, draft.host, Body::LeaseOpen { draft: draft.to_signed() }, NOW).unwrap();
        let mut lease = RenterLease::opened(draft, open, ticket, NOW);
        let body = Body::LeaseAccept { open: lease.open().id() };
        let accept = host.append(id, lease.draft().renter, body, NOW).unwrap().to_signed();
        assert!(lease.take_answer(&mut cx, &accept, NOW));
        testkit::outputs(&mut cx);
        Self { cx, host, lease, n: 0, usages: Vec::new() }
    }

    pub(super) fn event(&mut self, state: LeaseState, what: EventCode, by: Cause, when: Timestamp) -> LeaseEvent {
        self.n += 1;
        LeaseEvent { n: self.n, at: when, state, what, by, exit_code: None, note: String::new() }
    }

    pub(super) fn usage(&mut self, counters: Counters, terms: &LeaseTerms, when: Timestamp) -> Verified<Usage> {
        let last = self.usages.last();
        let usage = Usage {
            host: key(1).node_id(),
            lease: self.lease.id(),
            n: last.map_or(1, |u| u.n + 1),
            prev: last.map(Verified::id),
            time: when,
            counters,
            terms: terms.n,
            due: terms.due(self.lease.draft(), &counters).unwrap(),
            state: LeaseState::Running,
        };
        let usage = Verified::sign(usage, &key(1), &network()).unwrap();
        self.usages.push(usage.clone());
        usage
    }

    /// The host extends by itself, and carries `counted`.
    fn extended(&mut self, counted: &Counters, when: Timestamp) -> (LeaseTerms, crate::Signed<crate::entry::Entry>) {
        let (known, draft) = (*self.lease.terms(), self.lease.draft().clone());
        let later = known.ends_at + Millis::from_hours(1);
        let terms = known.extended(&draft, later, known.compute_hour, counted).unwrap();
        let body = Body::Amended(Amended { amend: None, terms });
        (terms, self.host.append(self.lease.id(), draft.renter, body, when).unwrap().to_signed())
    }

    pub(super) fn tell(
        &mut self,
        events: Vec<LeaseEvent>,
        entries: Vec<crate::Signed<crate::entry::Entry>>,
        usage: Option<&Verified<Usage>>,
        when: Timestamp,
    ) -> usize {
        let update = LeaseUpdate {
            lease: self.lease.id(),
            events,
            progress: None,
            entries,
            usage: usage.map(Verified::to_signed),
            eviction: None,
            rank: None,
            asked: None,
            payment: None,
        };
        self.lease.update(&mut self.cx, &update, when);
        testkit::outputs(&mut self.cx).iter().filter(|o| matches!(o, Output::Violation(_))).count()
    }
}

fn used(secs: u64) -> Counters {
    Counters { active: Millis::from_secs(secs), storage: Millis::from_secs(secs), ..Counters::default() }
}

#[test]
fn terms_heard_together_with_the_run_they_carry_are_no_lie() {
    let mut bench = Bench::new(RentalType::OnDemand);
    let running = bench.event(LeaseState::Running, EventCode::State, Cause::Host, NOW);
    let (terms, entry) = bench.extended(&used(3000), at(3000));
    let amended = bench.event(LeaseState::Running, EventCode::Amended, Cause::Host, at(3000));
    assert_eq!(bench.tell(vec![running, amended], vec![entry], None, at(3001)), 0, "an honest host is not blamed");
    assert_eq!(*bench.lease.terms(), terms);
}

#[test]
fn terms_below_the_newest_usage_and_usages_below_their_terms_are_not_written_down() {
    let mut bench = Bench::new(RentalType::OnDemand);
    let running = bench.event(LeaseState::Running, EventCode::State, Cause::Host, NOW);
    let drafted = *bench.lease.terms();
    let usage = bench.usage(used(1000), &drafted, at(1000));
    assert_eq!(bench.tell(vec![running], Vec::new(), Some(&usage), at(1000)), 0);
    assert!(bench.lease.acked() > Amount::ZERO);
    let (_, low) = bench.extended(&used(500), at(1010));
    assert_eq!(bench.tell(Vec::new(), vec![low], None, at(1010)), 1);
    assert_eq!(bench.lease.terms().n, 0);

    let (terms, good) = bench.extended(&used(1100), at(1100));
    assert_eq!(bench.tell(Vec::new(), vec![good], None, at(1100)), 0);
    assert_eq!(*bench.lease.terms(), terms);
    let below = bench.usage(used(1050), &terms, at(1110));
    assert_eq!(bench.tell(Vec::new(), Vec::new(), Some(&below), at(1110)), 1);
    assert_eq!(bench.lease.usage().unwrap().n, 1);
}

#[test]
fn a_usage_that_takes_back_what_was_agreed_to_is_not_written_down() {
    let mut bench = Bench::new(RentalType::OnDemand);
    let running = bench.event(LeaseState::Running, EventCode::State, Cause::Host, NOW);
    let terms = *bench.lease.terms();
    let usage = bench.usage(used(1000), &terms, at(1000));
    assert_eq!(bench.tell(vec![running], Vec::new(), Some(&usage), at(1000)), 0);
    let acked = bench.lease.acked();
    let waived = Counters { waived: Millis::from_secs(900), ..used(1001) };
    let less = bench.usage(waived, &terms, at(1001));
    assert!(less.due < acked);
    assert_eq!(bench.tell(Vec::new(), Vec::new(), Some(&less), at(1001)), 1);
    assert_eq!((bench.lease.acked(), bench.lease.usage().unwrap().n), (acked, 1));
}

/// What the host counts and what we allow must agree on which run was within its quantum.
#[test]
fn a_longer_contract_by_the_host_alone_begins_no_quantum() {
    let mut bench = Bench::new(RentalType::Interruptible);
    let outbid = LeaseState::Paused(PauseReason::Outbid);
    let events = [
        (LeaseState::Running, EventCode::State, Cause::Host, 0),
        (LeaseState::Running, EventCode::Amended, Cause::Host, 300),
        (outbid, EventCode::State, Cause::Market, 660),
    ];
    let events: Vec<LeaseEvent> = events.map(|(s, what, by, secs)| bench.event(s, what, by, at(secs))).into();
    let terms = *bench.lease.terms();
    let usage = bench.usage(used(660), &terms, at(660));
    assert_eq!(bench.tell(events, Vec::new(), Some(&usage), at(661)), 0);
    assert_eq!(bench.lease.acked(), usage.due, "the whole run was past its quantum");
}

#[test]
fn who_waits_for_a_change_hears_that_the_lease_has_ended() {
    let mut bench = Bench::new(RentalType::OnDemand);
    let change = Change::AutoExtend { until: None };
    bench.lease.amend(&mut bench.cx, Token(5), change, at(1)).unwrap();
    testkit::outputs(&mut bench.cx);
    let body = Body::Close { reason: EndReason::HostAborted, usage: None, due: Amount::ZERO };
    let close = bench.host.append(bench.lease.id(), key(2).node_id(), body, at(2)).unwrap().to_signed();
    let update = LeaseUpdate {
        lease: bench.lease.id(),
        events: Vec::new(),
        progress: None,
        entries: vec![close],
        usage: None,
        eviction: None,
        rank: None,
        asked: None,
        payment: None,
    };
    bench.lease.update(&mut bench.cx, &update, at(2));
    assert!(bench.lease.is_closed());
    let told = testkit::outputs(&mut bench.cx);
    assert!(told.iter().any(|o| matches!(o, Output::Done { token: Token(5), result: Err(_) })));
}

/// Frozen for 600 of its first 1000 seconds; the host counts them all.
fn frozen(bench: &mut Bench) -> Verified<Usage> {
    let running = bench.event(LeaseState::Running, EventCode::State, Cause::Host, NOW);
    assert_eq!(bench.tell(vec![running], Vec::new(), None, at(1)), 0);
    for (asked, awake) in [(0, 0), (200, 200), (990, 390), (1000, 400)] {
        let secs = Millis::from_secs;
        let beat = Beat::Answered(Pulse { process: 1, awake: secs(awake), up: secs(asked) });
        bench.lease.beat(&mut bench.cx, (secs(5000 + asked), beat, secs(5000 + asked)), 1, at(1));
    }
    let terms = *bench.lease.terms();
    bench.usage(used(1000), &terms, at(1000))
}

fn owed(bench: &Bench, active: u64, storage: u64) -> Amount {
    let counters = Counters { active: Millis::from_secs(active), ..used(storage) };
    bench.lease.terms().due(bench.lease.draft(), &counters).unwrap()
}

#[test]
fn time_in_which_nothing_answered_inside_is_not_acknowledged_until_the_host_waives_it() {
    let mut bench = Bench::new(RentalType::OnDemand);
    let usage = frozen(&mut bench);
    assert_eq!(bench.lease.silent(), Millis::from_secs(600));
    assert_eq!(bench.tell(Vec::new(), Vec::new(), Some(&usage), at(1000)), 0, "the host may believe it itself");
    let ack = bench.lease.ack.clone().unwrap();
    assert_eq!(ack.partial, Some(PartialReason::Silent));
    // 400 s, and what two meters may differ by: 1 % and 5 s.
    assert_eq!(ack.due, owed(&bench, 409, 1000));
    assert!(ack.due < usage.due);

    // More of the same: the difference stays, and what ran since is acknowledged.
    let terms = *bench.lease.terms();
    let more = bench.usage(used(2000), &terms, at(2000));
    assert_eq!(bench.tell(Vec::new(), Vec::new(), Some(&more), at(2000)), 0);
    assert_eq!(bench.lease.acked(), owed(&bench, 1419, 2000));
    let waived = Counters { waived: Millis::from_secs(600), ..used(2001) };
    let honest = bench.usage(waived, &terms, at(2001));
    assert!(honest.due >= bench.lease.acked().saturating_sub(owed(&bench, 20, 0)));
    let waived = Counters { waived: Millis::from_secs(581), ..used(2001) };
    bench.usages.pop();
    let honest = bench.usage(waived, &terms, at(2001));
    assert_eq!(bench.tell(Vec::new(), Vec::new(), Some(&honest), at(2001)), 0);
    assert_eq!((bench.lease.acked(), bench.lease.ack.clone().unwrap().partial), (honest.due, None));
}

#[test]
fn what_was_not_acknowledged_is_remembered_by_the_acknowledgement() {
    let mut bench = Bench::new(RentalType::OnDemand);
    let usage = frozen(&mut bench);
    bench.tell(Vec::new(), Vec::new(), Some(&usage), at(1000));
    let (lease, before) = (&bench.lease, bench.lease.acked());
    let accept = match lease.answer() {
        super::Opened::Accepted(accept) => Some(accept.clone()),
        super::Opened::Waiting | super::Opened::GivenUp | super::Opened::Void(..) => None,
    };
    let again = RenterLease::restored(Remembered {
        draft: lease.draft().clone(),
        open: lease.open().clone(),
        accept,
        placement: None,
        usage: lease.usage().cloned(),
        ack: lease.ack.clone(),
        close: None,
        close_ack: None,
        events: lease.events().to_vec(),
        amend: None,
        amended: Vec::new(),
        leaving: false,
        watched: None,
        probed: false,
    });
    let known = again.silent().0.abs_diff(600_000);
    assert!(known <= 1000, "within what one unit of money is: {}", again.silent());
    bench.lease = again;
    let terms = *bench.lease.terms();
    let next = bench.usage(used(1001), &terms, at(1001));
    assert_eq!(bench.tell(Vec::new(), Vec::new(), Some(&next), at(1001)), 0);
    let ack = bench.lease.ack.clone().unwrap();
    assert_eq!(ack.partial, Some(PartialReason::Silent));
    assert!(ack.due >= before && ack.due <= owed(&bench, 412, 1001));
}

#[test]
fn questions_of_another_run_say_nothing_of_this_one() {
    let mut bench = Bench::new(RentalType::OnDemand);
    let running = bench.event(LeaseState::Running, EventCode::State, Cause::Host, NOW);
    let stopped = bench.event(LeaseState::Paused(PauseReason::Stopped), EventCode::State, Cause::Renter, at(100));
    let started = bench.event(LeaseState::Running, EventCode::State, Cause::Renter, at(200));
    bench.tell(vec![running], Vec::new(), None, at(0));
    let secs = Millis::from_secs;
    bench.lease.beat(&mut bench.cx, (secs(90), Beat::Silent, secs(100)), 1, at(1));
    bench.tell(vec![stopped], Vec::new(), None, at(101));
    bench.lease.beat(&mut bench.cx, (secs(110), Beat::Silent, secs(140)), 2, at(1));
    bench.tell(vec![started], Vec::new(), None, at(201));
    bench.lease.beat(&mut bench.cx, (secs(190), Beat::Silent, secs(210)), 1, at(1));
    assert_eq!(bench.lease.silent(), Millis(0));
    bench.lease.beat(&mut bench.cx, (secs(210), Beat::Silent, secs(230)), 3, at(1));
    assert_eq!(bench.lease.silent(), secs(20));
}
