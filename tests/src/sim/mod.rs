//! A simulator: many real engines in virtual time, in a world that fails.
//!
//! The engines are the ones a node runs. Everything around them is virtual, and drawn from one seed: a network that loses,
//! delays, reorders, repeats and partitions ([`net`]); a disk that is durable only after a flush, and loses the rest in a crash
//! ([`store`]); container engines that survive their nodes, fail, and go down ([`machine`]); owners who rent, bid, extend, stop, start
//! and destroy, and hosts who change prices, hold slots and maintain their machines ([`owner`]); and peers who lie ([`hostile`]).
//! [`world`] runs them, [`check`] holds them to the invariants by name; what those rest on is recomputed by code of its own:
//! terms and money in [`fold`], who is to run in [`rule`], what events add up to in [`history`].

mod accounts;
pub mod check;
pub mod dice;
pub mod fold;
pub mod history;
pub mod hostile;
pub mod machine;
pub mod net;
pub mod node;
pub mod owner;
pub mod rule;
pub mod store;
pub mod world;

pub use world::{Outcome, Settings, World};

/// Runs a world to its end, and panics with the seed and how to run it again if an invariant does not hold.
///
/// # Panics
/// If an invariant does not hold.
pub fn run(settings: Settings) -> Outcome {
    let seed = settings.seed;
    let name = settings.name;
    match World::new(settings).run() {
        Ok(outcome) => outcome,
        Err(broken) => panic!(
            "\n{broken}\nto run it again: SOUK_SIM_SEED={seed} SOUK_SIM_TRACE=1 cargo test -p souk-tests {name} -- --nocapture\n"
        ),
    }
}

/// The seeds a test runs: the one in the environment variable `SOUK_SIM_SEED`, or `count` from `first`; times
/// `SOUK_SIM_TIMES`, if that is set.
#[must_use]
pub fn seeds(first: u64, count: u64) -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("SOUK_SIM_SEED") {
        Some(seed) => vec![seed],
        None => (first..first + count * number("SOUK_SIM_TIMES").unwrap_or(1)).collect(),
    }
}
