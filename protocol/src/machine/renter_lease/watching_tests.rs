#![allow(clippy::unwrap_used)]

use super::{
    Opened, Remembered, RenterLease,
    heartbeat::{Beat, Pulse},
    hostile::{Bench, at},
};
use crate::{
    Amount, Millis, Signed, Timestamp, Verified,
    entry::{Body, Entry},
    lease::{EndReason, LeaseState},
    limits,
    machine::{
        io::Output,
        record::{Private, Record},
        testkit::{self, NOW, network},
    },
    message::{Cause, EventCode, LeaseUpdate},
    negotiation::RentalType,
    opinion::Watched,
};

const fn secs(secs: u64) -> Millis {
    Millis::from_secs(secs)
}

impl Bench {
    fn placed(&mut self) -> Signed<Entry> {
        let placement = Body::Placement { start: 1, slots: vec![0], devices: vec!["cpu".to_owned()] };
        self.host.append(self.lease.id(), self.lease.draft().renter, placement, NOW).unwrap().to_signed()
    }

    fn runs(&mut self, placed: bool) {
        let running = self.event(LeaseState::Running, EventCode::State, Cause::Host, NOW);
        let entries = if placed { vec![self.placed()] } else { Vec::new() };
        assert_eq!(self.tell(vec![running], entries, None, NOW), 0);
    }

    /// A process that counts on, asked every half a minute of this span, in seconds.
    fn answers(&mut self, process: u64, span: std::ops::RangeInclusive<u64>) {
        let begin = *span.start();
        for asked in span.step_by(30) {
            let beat = Beat::Answered(Pulse { process, awake: secs(asked - begin), up: secs(asked) });
            let seen = self.lease.events_seen();
            self.lease.beat(&mut self.cx, (secs(asked), beat, secs(asked)), seen, at(asked));
        }
    }

    fn closed(&mut self, when: Timestamp) -> Signed<Entry> {
        let body = Body::Close { reason: EndReason::Destroyed, usage: None, due: Amount::ZERO };
        self.host.append(self.lease.id(), self.lease.draft().renter, body, when).unwrap().to_signed()
    }

    /// The host says so; what is written down because of it.
    fn hears(&mut self, entries: Vec<Signed<Entry>>, when: Timestamp) -> Vec<Record> {
        let (events, usage) = (Vec::new(), None);
        let (progress, eviction, rank, asked, payment) = (None, None, None, None, None);
        let lease = self.lease.id();
        let update = LeaseUpdate { lease, events, progress, entries, usage, eviction, rank, asked, payment };
        self.lease.update(&mut self.cx, &update, when);
        self.records()
    }

    fn records(&mut self) -> Vec<Record> {
        let outputs = testkit::outputs(&mut self.cx).into_iter();
        outputs.filter_map(|o| if let Output::Persist { record, .. } = o { Some(*record) } else { None }).collect()
    }

    fn restarted(&self, watched: Option<Watched>, probed: bool, close: Option<Verified<Entry>>) -> RenterLease {
        let lease = &self.lease;
        let accept = if let Opened::Accepted(accept) = lease.answer() { Some(accept.clone()) } else { None };
        RenterLease::restored(Remembered {
            draft: lease.draft().clone(),
            open: lease.open().clone(),
            accept,
            placement: lease.placement().cloned(),
            usage: None,
            ack: None,
            close,
            close_ack: None,
            events: lease.events().to_vec(),
            amend: None,
            amended: Vec::new(),
            leaving: false,
            watched,
            probed,
        })
    }
}

/// What entries of ours say, in order.
fn said(records: &[Record]) -> Vec<Body> {
    let entries = records.iter().filter_map(|r| if let Record::Entry(entry) = r { Some(entry) } else { None });
    let read = entries.map(|entry| entry.verify(&network()).unwrap());
    read.filter(|e| e.author == testkit::key(2).node_id()).map(|e| e.body.clone()).collect()
}

fn names(records: &[Record]) -> Vec<&'static str> {
    said(records).iter().map(Body::name).collect()
}

#[test]
fn the_end_of_a_lease_is_agreed_to_behind_what_was_seen_of_it_and_that_is_said_once() {
    let mut bench = Bench::new(RentalType::OnDemand);
    bench.runs(true);
    bench.answers(1, 100..=400);
    bench.records();
    let close = bench.closed(at(410));
    let records = bench.hears(vec![close.clone()], at(410));
    assert_eq!(names(&records), ["probe", "close_ack"]);
    let seen = *said(&records)[0].rental().unwrap();
    assert_eq!(seen, Watched { from: at(100), watched: secs(300), answered: secs(300) });
    assert!(bench.lease.is_closed());
    assert_eq!(names(&bench.hears(vec![close.clone()], at(411))), [""; 0]);

    // Killed when the probe was on disk and the agreement was not: the close comes again, and the agreement alone follows.
    let close = close.verify(&network()).unwrap();
    bench.lease = bench.restarted(Some(seen), true, Some(close));
    assert_eq!(names(&bench.hears(Vec::new(), at(420))), ["close_ack"]);
}

#[test]
fn what_never_ran_or_was_never_looked_at_is_not_spoken_of() {
    for (placed, looks) in [(false, true), (true, false)] {
        let mut bench = Bench::new(RentalType::OnDemand);
        bench.runs(placed);
        if looks {
            bench.answers(1, 100..=400);
        }
        bench.records();
        let close = bench.closed(at(410));
        assert_eq!(names(&bench.hears(vec![close], at(410))), ["close_ack"]);
    }
}

#[test]
fn a_start_forgets_at_most_the_last_minutes() {
    let mut bench = Bench::new(RentalType::OnDemand);
    bench.runs(true);
    bench.records();
    bench.answers(1, 0..=1500);
    let noted: Vec<Watched> = bench
        .records()
        .into_iter()
        .filter_map(|r| if let Record::Private(Private::Watched { seen, .. }) = r { Some(seen) } else { None })
        .collect();
    assert_eq!(noted.iter().map(|seen| seen.watched).collect::<Vec<_>>(), [secs(600), secs(1200)]);
    bench.lease = bench.restarted(noted.last().copied(), false, None);
    bench.answers(2, 1800..=2100);
    let close = bench.closed(at(2110));
    let records = bench.hears(vec![close], at(2110));
    let seen = *said(&records)[0].rental().unwrap();
    assert_eq!((seen.watched, seen.answered), (secs(1500), secs(1500)));
    assert_eq!(seen.from, noted[0].from);
}

#[test]
fn a_host_that_is_never_heard_of_again_is_spoken_of_behind_our_own_close() {
    let mut bench = Bench::new(RentalType::OnDemand);
    bench.runs(true);
    bench.answers(1, 100..=400);
    bench.records();
    let late = bench.lease.terms().ends_at + limits::DISK_KEPT + limits::CLOSE_WITHIN;
    bench.lease.tick(&mut bench.cx, late);
    assert_eq!(names(&bench.records()), ["close", "probe"]);
    bench.lease.tick(&mut bench.cx, late + secs(100));
    assert_eq!(names(&bench.records()), [""; 0]);
}
