//! How fast search is on this machine: `cargo run --release -p souk-protocol --example search_rates [ASKS]`.
//!
//! Prints the median and the worst of many runs. It judges nothing: times depend on the machine.

mod market;

use std::{
    error::Error,
    io::{Write, stdout},
    time::{Duration, Instant},
};

use souk_protocol::{
    machine::search::{AskIndex, Options, OrderBy, search},
    query::Query,
};

/// Runs of each search.
const RUNS: usize = 101;

fn times(mut run: impl FnMut()) -> (Duration, Duration) {
    let mut times: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    (times[RUNS / 2], times[RUNS - 1])
}

fn main() -> Result<(), Box<dyn Error>> {
    let asks = match std::env::args().nth(1) {
        Some(text) => text.parse()?,
        None => 100_000,
    };
    let mut out = stdout().lock();
    let offers = market::offers(asks, 1);
    let start = Instant::now();
    let mut index = AskIndex::new();
    for (id, offer) in &offers {
        index.insert(*id, offer);
    }
    let each = start.elapsed() / offers.len() as u32;
    writeln!(out, "{} asks of {} machines; taking one offer in: {each:.1?}", index.len(), index.machines())?;
    for (query, order, explain) in [
        ("gpu_ram>=24 dph<1.5 num_gpus>=2", "dph", false),
        ("gpu_ram>=24 dph<1.5 num_gpus>=2", "score-", false),
        ("gpu_name=RTX_4090 geolocation in [DE,FR,SE] reliability>0.4", "dph", false),
        ("rentable=any", "score-", false),
        ("rentable=any", "geolocation,dph-", false),
        ("gpu_ram>=200 dph<1.5 num_gpus>=2", "dph", false),
        ("gpu_ram>=24 dph<1.5 num_gpus>=2", "dph", true),
    ] {
        let parsed = Query::parse(query)?;
        let options = Options { order: OrderBy::parse_list(order)?, explain, ..Options::at(market::NOW) };
        let matched = search(&index, &parsed, &options).matched;
        let (median, worst) = times(|| {
            std::hint::black_box(search(&index, &parsed, &options));
        });
        let note = if explain { ", explained" } else { "" };
        writeln!(out, "{median:>9.2?} (worst {worst:.2?})  {query} -o {order}{note}: {matched} match")?;
    }
    // An offer that changes between searches makes the medians be computed anew.
    let parsed = Query::parse("gpu_ram>=24 dph<1.5 num_gpus>=2")?;
    let options = Options::at(market::NOW);
    let mut changes = offers.iter().cycle();
    let (median, worst) = times(|| {
        if let Some((id, offer)) = changes.next() {
            index.insert(*id, offer);
        }
        std::hint::black_box(search(&index, &parsed, &options));
    });
    writeln!(out, "{median:>9.2?} (worst {worst:.2?})  the same after a change")?;
    Ok(())
}
