//! Prints what the ledger does in a second beside the bare signatures it is made of, measured in the same run.
//!
//! `cargo run --release -p souk-ledger --example ledger_rates [RECORDS] [DIRECTORY]`
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{
    env, hint,
    num::NonZero,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use souk_ledger::{
    commit::Ledger,
    export::{Filter, export},
    record::Fact,
    thread::LedgerThread,
    verify::{Verdict, verify},
};
use souk_protocol::key::PublicKey;

#[path = "../src/fixture.rs"]
mod fixture;
use fixture::{Deal, Party};

fn rate(n: u64, took: Duration) -> f64 {
    n as f64 / took.as_secs_f64()
}

fn main() {
    let mut args = env::args().skip(1);
    let records: u64 = args.next().map_or(100_000, |n| n.parse().unwrap());
    let kept = tempfile::tempdir().unwrap();
    let directory = args.next().map_or_else(|| kept.path().to_owned(), PathBuf::from);
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    println!("{records} records, {cores} cores, in {}", directory.display());

    let (mut host, mut renter) = (Party::new(1), Party::new(2));
    let digest = [7; 32];
    let signing = bare(20_000, || host.key.sign(hint::black_box(&digest)));
    let signature = host.key.sign(&digest);
    let public = PublicKey::of(&host.key.node_id()).unwrap();
    let verifying = bare(10_000, || public.verifies(hint::black_box(&digest), &signature));
    println!("bare Ed25519: {signing:.0} signatures/s, {verifying:.0} verify_strict/s on one core");

    let ledger = Ledger::open(&directory, host.key.node_id(), host.network).unwrap();
    let thread = LedgerThread::spawn(ledger, |_| {}).unwrap();
    let handle = thread.handle();
    let genesis = host.genesis();
    renter.genesis();
    let mut deal = Deal::new(&host, &renter, 1);
    let opening = [genesis, deal.open(&mut renter, &host), deal.accept(&mut host, &renter)];
    for entry in opening {
        handle.append_blocking(Fact::Entry(entry)).unwrap();
    }
    let begin = Instant::now();
    let mut last = None;
    for _ in 0..records / 2 {
        let usage = Fact::Usage(deal.usage(&host));
        handle.append_blocking(usage).unwrap();
        last = Some(handle.append_blocking(Fact::Ack(deal.ack(&renter, 0))).unwrap());
    }
    handle.wait(last.unwrap()).unwrap();
    let appended = rate(records, begin.elapsed());
    println!(
        "receipts signed, chained, durable in group commit: {appended:.0}/s, {:.0} % of bare signing",
        100.0 * appended / signing
    );
    let mut waits: Vec<Duration> = (0..200)
        .map(|_| {
            let usage = Fact::Usage(deal.usage(&host));
            let begin = Instant::now();
            handle.wait(handle.append(usage).unwrap()).unwrap();
            begin.elapsed()
        })
        .collect();
    waits.sort_unstable();
    println!("one record, alone, to durable: p50 {:?}, p99 {:?}", waits[100], waits[198]);
    thread.shutdown().unwrap();
    // The handle's view keeps the store open.
    drop(handle);

    let begin = Instant::now();
    let ledger = Ledger::open(&directory, host.key.node_id(), host.network).unwrap();
    println!("open of {records} records, store up to date: {:?}", begin.elapsed());
    let mut bytes = Vec::new();
    let begin = Instant::now();
    let count = export(&ledger.view(), Filter::All, &host.key, &mut bytes).unwrap();
    println!("export: {:.0} records/s, {} MB", rate(count, begin.elapsed()), bytes.len() >> 20);
    drop(ledger);
    let (begin, spent) = (Instant::now(), processor_time());
    let report = verify(&bytes[..]).unwrap();
    assert_eq!(report.verdict, Verdict::Valid);
    let verified = rate(count, begin.elapsed());
    println!(
        "verify: {verified:.0} records/s, {:.0} % of bare verify_strict on {cores} cores ({:.0} % by processor time)",
        100.0 * verified / (verifying * cores as f64),
        100.0 * count as f64 / verifying / (processor_time() - spent)
    );
    drop(bytes);
    std::fs::remove_dir_all(directory.join("sled")).unwrap();
    let begin = Instant::now();
    Ledger::open(&directory, host.key.node_id(), host.network).unwrap();
    println!("open of {records} records, store made anew: {:?}", begin.elapsed());
    println!("resident: {} MB", resident() >> 10);
}

/// The best of five runs, a second.
fn bare<T>(n: u64, mut work: impl FnMut() -> T) -> f64 {
    (0..5)
        .map(|_| {
            let begin = Instant::now();
            for _ in 0..n {
                hint::black_box(work());
            }
            rate(n, begin.elapsed())
        })
        .fold(0.0, f64::max)
}

/// Seconds of processor time used so far, all threads together.
fn processor_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 = after_name.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum();
    ticks as f64 / 100.0
}

/// Resident memory in KB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0)
}
