//! Whole-node figures, each beside its limit or peer, measured in the same run on the same machine. It judges nothing.
//!
//! ```text
//! cargo build --release -p souk
//! SOUK_BIN=target/release/souk cargo run --release -p souk-tests --bin souk-bench [PART…]
//! ```
//! Parts: `intake`, `search`, `network`, `visible`, `lease`, `start`, `ssh`, `idle`, `tunnel`, `copy`, `run`; all without one.
//! Those that need the container engine, OpenSSH's server or rsync say so where there is none. `search` is there with
//! `--features sqlite` only.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::panic, reason = "a program for a person to read")]

mod files;
mod intake;
mod nodes;
mod peers;
#[cfg(feature = "sqlite")]
mod search;
mod ssh;
mod swarm;
mod tunnel;
mod wire;

use std::time::Duration;

fn main() {
    rustls::crypto::aws_lc_rs::default_provider().install_default().unwrap();
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let parts: [(&str, fn()); 11] = [
        ("intake", intake::run),
        ("search", search),
        ("network", wire::run),
        ("visible", swarm::run),
        ("lease", nodes::lease),
        ("start", nodes::start),
        ("ssh", ssh::run),
        ("idle", nodes::idle),
        ("tunnel", tunnel::run),
        ("copy", files::copy),
        ("run", files::run),
    ];
    if let Some(unknown) = wanted.iter().find(|w| parts.iter().all(|(name, _)| name != w)) {
        panic!("no part {unknown}");
    }
    for (name, part) in parts {
        if wanted.is_empty() || wanted.iter().any(|w| w == name) {
            part();
        }
    }
}

fn search() {
    #[cfg(feature = "sqlite")]
    search::run();
    #[cfg(not(feature = "sqlite"))]
    println!("skipped: search, whose peer is SQLite: build with --features sqlite");
}

/// Milliseconds, the median and the 99th of a hundred.
fn quantiles(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    format!("p50 {:.2} ms, p99 {:.2} ms of {}", at(50), at(99), times.len())
}

fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times[(times.len() - 1) / 2].as_secs_f64() * 1e3
}

fn row(what: &str, ours: &str) {
    println!("{what:<44} {ours}");
}
