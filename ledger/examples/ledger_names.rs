//! Prints what it costs to find a lease by what people call it, to list leases, events and earnings, among so many leases:
//! through the ledger's indexes, and by reading every row as was done before there were any.
//!
//! `cargo run --release -p souk-ledger --example ledger_names [LEASES] [DIRECTORY]`
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{
    env, hint,
    path::PathBuf,
    time::{Duration, Instant},
};

use souk_ledger::{
    commit::Ledger,
    record::{Fact, Private},
    view::{Select, View},
};
use souk_protocol::{
    LeaseId, Timestamp, Verified,
    lease::LeaseState,
    message::{Cause, EventCode, LeaseEvent},
};

#[path = "../src/fixture.rs"]
mod fixture;
use fixture::{Deal, Party, START};

/// Days over which the leases are spread.
const DAYS: u64 = 30;
const DAY_MS: u64 = 86_400_000;

fn main() {
    let mut args = env::args().skip(1);
    let leases: u64 = args.next().map_or(10_000, |n| n.parse().unwrap());
    let kept = tempfile::tempdir().unwrap();
    let directory = args.next().map_or_else(|| kept.path().to_owned(), PathBuf::from);
    let mut host = Party::new(1);
    let mut ledger = Ledger::open(&directory, host.key.node_id(), host.network).unwrap();
    let begin = Instant::now();
    let ids = fill(&mut ledger, &mut host, leases);
    println!("{leases} leases with 3 events and 2 usages each, written in {:?}", begin.elapsed());
    let view = ledger.view();
    let last = ids.len() - 1;
    let (id, label) = (ids[last / 2], format!("job-{}", last / 2));
    let number = last as u64 / 2 + 1;
    let prefix = id.to_string()[..12].to_owned();

    let by_number = best(100, || assert_eq!(view.numbered(number).unwrap(), Some(id)));
    let by_label = best(100, || assert_eq!(view.labelled(&label, 17).unwrap(), [id]));
    let by_id = best(100, || assert_eq!(view.starting_with(&prefix, 17).unwrap(), [id]));
    let scanned = best(2, || assert_eq!(all_rows(&view, &label, number, &prefix), [id]));
    println!("one lease by number {by_number:?}, by label {by_label:?}, by id {by_id:?}");
    println!(
        "one lease by reading every row: {scanned:?}, {:.0} x",
        ratio(scanned, by_number.max(by_label).max(by_id))
    );

    let page = best(5, || assert_eq!(view.page(None, 100).unwrap().len(), 100));
    let all = best(2, || assert_eq!(view.leases(Select::All, usize::MAX).unwrap().len(), ids.len()));
    println!("the newest 100 leases {page:?}; all of them {all:?}");
    let events = best(5, || assert_eq!(view.newest_events(None, 100).unwrap().len(), 100));
    println!("the newest 100 events of all leases {events:?}");
    let earned = best(2, || {
        hint::black_box(view.earnings(0..=u32::MAX).unwrap());
    });
    println!("earnings of {DAYS} days, {leases} leases in them: {earned:?}");
}

/// As a node looked for a lease before: every row read, with what belongs to it, and compared.
fn all_rows(view: &View, label: &str, number: u64, prefix: &str) -> Vec<LeaseId> {
    let mut found = Vec::new();
    for lease in view.leases(Select::All, usize::MAX).unwrap() {
        hint::black_box(view.events(&lease.id()).unwrap());
        let named = lease.label.as_deref() == Some(label) || lease.number == number;
        if named || lease.id().to_string().starts_with(prefix) {
            found.push(lease.id());
        }
    }
    found
}

fn fill(ledger: &mut Ledger, host: &mut Party, leases: u64) -> Vec<LeaseId> {
    let mut renter = Party::new(2);
    let mut ids = Vec::new();
    ledger.stage(&Fact::Entry(host.genesis())).unwrap();
    renter.genesis();
    for n in 0..leases {
        let mut deal = Deal::new(host, &renter, n);
        let mut facts = vec![Fact::Entry(deal.open(&mut renter, host)), Fact::Entry(deal.accept(host, &renter))];
        for _ in 0..2 {
            let mut usage = deal.usage_value(deal.n + 1, host);
            usage.time = Timestamp(START + n * DAYS / leases * DAY_MS + usage.n * 60_000);
            let usage = Verified::sign(usage, &host.key, &host.network).unwrap();
            deal.n += 1;
            deal.usage = Some(usage.clone());
            facts.push(Fact::Usage(usage));
        }
        facts.push(Fact::Ack(deal.ack(&renter, 0)));
        for step in 1..=3 {
            let event = LeaseEvent {
                n: step,
                at: Timestamp(START + u64::from(step)),
                state: LeaseState::Running,
                what: EventCode::State,
                by: Cause::Host,
                exit_code: None,
                note: "as it goes".to_owned(),
            };
            facts.push(Fact::Private(Private::Event { lease: deal.id, event }));
        }
        facts.push(Fact::Private(Private::Label { lease: deal.id, text: format!("job-{n}") }));
        for fact in &facts {
            ledger.stage(fact).unwrap();
        }
        if ledger.pending_bytes() > 1 << 20 {
            ledger.commit().unwrap();
        }
        ids.push(deal.id);
    }
    ledger.commit().unwrap();
    ids
}

fn ratio(slow: Duration, fast: Duration) -> f64 {
    slow.as_secs_f64() / fast.as_secs_f64()
}

/// The best of so many runs.
fn best(runs: u32, mut work: impl FnMut()) -> Duration {
    (0..runs)
        .map(|_| {
            let begin = Instant::now();
            work();
            begin.elapsed()
        })
        .min()
        .unwrap_or_default()
}
