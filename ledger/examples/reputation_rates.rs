//! Prints what it costs to compute everybody's score from so many receipts.
//!
//! `cargo run --release -p souk-ledger --example reputation_rates [LEASES]`
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{collections::BTreeSet, env, time::Instant};

use souk_ledger::reputation::{Evidence, Reputation, Seed, Side};
use souk_protocol::{Amount, Currency, Digest, LeaseId, Millis, NodeId, Timestamp, money::NANO};

const NOW: Timestamp = Timestamp(1_800_000_000_000);
/// Leases of one renter, and renters of one host, on average.
const EACH: u64 = 20;

fn main() {
    let leases: u64 = env::args().nth(1).map_or(100_000, |n| n.parse().unwrap());
    let renters = (leases / EACH).max(2);
    let hosts = (renters / EACH).max(2);
    let draw = |n: u64, what: u8| {
        let digest = Digest::of(&[&n.to_le_bytes()[..], &[what]].concat());
        u64::from_le_bytes(std::array::from_fn(|i| digest.0[i]))
    };
    let node = |n: u64, what: u8| NodeId(Digest::of(&[&n.to_be_bytes()[..], &[what]].concat()).0);
    let evidence: Vec<Evidence> = (0..leases)
        .map(|n| {
            let amount = Amount(NANO * (1 + draw(n, 2) % 60));
            let at = Timestamp(NOW.0 - draw(n, 3) % (90 * 86_400_000));
            Evidence {
                lease: LeaseId(Digest::of(&n.to_le_bytes()).0),
                host: node(draw(n, 1) % hosts, b'h'),
                renter: node(n % renters, b'r'),
                signatures: 6,
                n: 60,
                currency: Currency::usd(),
                agreed: amount,
                settled: amount,
                used: Millis(3_600_000),
                at,
                closed: true,
                ends_at: at,
                failures: BTreeSet::new(),
            }
        })
        .collect();
    let me = node(0, b'r');
    let seeds = (1..10).map(|n| (node(n, b'r'), Seed::Listed)).collect();
    let view = Reputation { evidence, seeds, ..Reputation::new(me) };
    println!("{leases} leases of {renters} renters and {hosts} hosts");
    for _ in 0..3 {
        let view = view.clone();
        let begin = Instant::now();
        let scores = view.compute(NOW);
        println!("all scores: {:.0} ms", begin.elapsed().as_secs_f64() * 1e3);
        let begin = Instant::now();
        for n in 0..hosts {
            assert!(scores.of(&node(n, b'h')).trust > 0.0);
        }
        println!("  reading one: {:.1} µs", begin.elapsed().as_secs_f64() * 1e6 / hosts as f64);
        let begin = Instant::now();
        let told = scores.explain(Side::Host, &node(0, b'h'), 100);
        println!(
            "  explaining one of {} receipts: {:.1} ms",
            told.reasons.len() + told.left_out,
            begin.elapsed().as_secs_f64() * 1e3
        );
    }
}
