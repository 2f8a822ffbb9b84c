//! Prints what it costs to open a ledger whose chain has a million entries, and what compaction makes of it: time, memory, disk.
//!
//! `cargo run --release -p souk-ledger --example ledger_million [ENTRIES] [DIRECTORY]`
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{env, fs, path::Path, path::PathBuf, time::Instant};

use souk_ledger::{commit::Ledger, compact::Stop, record::Fact};
use souk_protocol::entry::Body;

#[path = "../src/fixture.rs"]
mod fixture;
use fixture::{Deal, Party};

/// Anchors between two pairs of receipts: an hour's at a tick of a minute would be one; fewer receipts make more of a chain.
const ANCHORS: u64 = 8;

fn main() {
    let mut args = env::args().skip(1);
    let entries: u64 = args.next().map_or(1_000_000, |n| n.parse().unwrap());
    let kept = tempfile::tempdir().unwrap();
    let directory = args.next().map_or_else(|| kept.path().to_owned(), PathBuf::from);
    let (mut host, mut renter) = (Party::new(1), Party::new(2));
    let open = |host: &Party| Ledger::open(&directory, host.key.node_id(), host.network).unwrap();

    let begin = Instant::now();
    let mut ledger = open(&host);
    ledger.stage(&Fact::Entry(host.genesis())).unwrap();
    renter.genesis();
    let mut deal = Deal::new(&host, &renter, 1);
    ledger.stage(&Fact::Entry(deal.open(&mut renter, &host))).unwrap();
    ledger.stage(&Fact::Entry(deal.accept(&mut host, &renter))).unwrap();
    while host.seq < entries {
        ledger.stage(&Fact::Usage(deal.usage(&host))).unwrap();
        let ack = deal.ack(&renter, 0);
        ledger.stage(&Fact::Ack(ack.clone())).unwrap();
        for _ in 0..ANCHORS {
            let body = Body::Anchor { usage: ack.usage, ack: ack.id(), due: ack.due };
            ledger.stage(&Fact::Entry(host.say(Some(deal.id), &renter, body))).unwrap();
        }
        if ledger.pending_bytes() > 1 << 20 {
            ledger.commit().unwrap();
        }
    }
    ledger.commit().unwrap();
    ledger.flush_store().unwrap();
    println!("{} entries of one chain, with their receipts, written in {:?}", host.seq, begin.elapsed());
    drop(ledger);
    sizes("written", &directory);

    let mut ledger = timed("open, store up to date", || open(&host));
    let begin = Instant::now();
    let prepared = ledger.plan(true).unwrap().unwrap().prepare(&Stop::default()).unwrap().unwrap();
    let entry = host.say_of_itself(Body::Checkpoint(prepared.checkpoint().clone()));
    ledger.stage(&Fact::Entry(entry)).unwrap();
    ledger.commit().unwrap();
    let (records, stay) = prepared.records();
    let built = prepared.build(&Stop::default(), ledger.durable_end()).unwrap();
    println!("compacted beside: {:?}, {stay} of {records} records stay", begin.elapsed());
    let begin = Instant::now();
    ledger.install(built).unwrap();
    println!(
        "put in place: {:?} in which nothing is appended; {} MB resident",
        begin.elapsed(),
        resident("VmRSS:") >> 10
    );
    while ledger.sweep() {}
    drop(ledger);
    sizes("compacted", &directory);
    drop(timed("open after compaction", || open(&host)));
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    // From here on the kernel counts the peak anew.
    let counts = fs::write("/proc/self/clear_refs", "5").is_ok();
    let (begin, before) = (Instant::now(), resident("VmRSS:"));
    let done = work();
    let (took, after, peak) = (begin.elapsed(), resident("VmRSS:"), resident("VmHWM:"));
    let peak = if counts { format!("{} MB", peak >> 10) } else { "unknown".to_owned() };
    println!("{what}: {took:?}, resident {} MB before, {} MB after, peak {peak}", before >> 10, after >> 10);
    done
}

fn sizes(what: &str, directory: &Path) {
    let mut sizes = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        sizes.push(format!("{name} {} MB", bytes(&path) >> 20));
    }
    sizes.sort();
    println!("{what}: {}", sizes.join(", "));
}

fn bytes(path: &Path) -> u64 {
    if path.is_dir() {
        fs::read_dir(path).unwrap().map(|entry| bytes(&entry.unwrap().path())).sum()
    } else {
        fs::metadata(path).map_or(0, |m| m.len())
    }
}

/// Resident memory in KB: `VmRSS:` now, `VmHWM:` at most.
fn resident(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find_map(|l| l.strip_prefix(field)?.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0)
}
