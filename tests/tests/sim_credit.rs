//! Hosts that want to be paid, renters that pay and such that don't, in worlds that fail.
#![allow(clippy::print_stdout)] // what happened, for whoever runs a larger set

use souk_tests::sim::{Outcome, Settings, run, seeds};

fn world(name: &'static str, seed: u64) -> Settings {
    Settings {
        name,
        seed,
        nodes: 8,
        hosts: 3,
        slots: 4,
        lasts: 400_000,
        rents: 30,
        kept: 200_000,
        loss: 30,
        repeat: 50,
        crashes: 6,
        partitions: 2,
        outages: 2,
        failing: 60,
        rivals: 10,
        cuts: 60,
        clock_steps: 4,
        bids: 300,
        changes: 3,
        rethinks: 8,
        calm: 400_000,
        paid: 1000,
    }
}

fn enough(outcome: &Outcome, what: bool) {
    println!("{outcome:?}");
    assert!(std::env::var_os("SOUK_SIM_SEED").is_some() || what, "{outcome:?}");
}

/// Nothing fails: who pays is never stopped for long, who does not is stopped at a slice.
#[test]
fn paid_worlds_without_troubles() {
    let mut sum = Outcome::default();
    for seed in seeds(1, 6) {
        let calm = Settings {
            loss: 0,
            repeat: 0,
            crashes: 0,
            partitions: 0,
            outages: 0,
            failing: 0,
            rivals: 0,
            cuts: 0,
            clock_steps: 0,
            ..world("paid_worlds_without_troubles", seed)
        };
        sum = sum.plus(run(calm));
    }
    enough(&sum, sum.accepted > 20 && sum.payments > 40 && sum.firsts > 5 && sum.stopped > 5 && sum.resumed > 0);
}

/// Crashes in the middle of payments, lost and repeated messages, partitions: no unit is paid twice, lost, or lent beyond a slice.
#[test]
fn paid_worlds_with_every_trouble() {
    let mut sum = Outcome::default();
    for seed in seeds(100, 20) {
        sum = sum.plus(run(world("paid_worlds_with_every_trouble", seed)));
    }
    enough(&sum, sum.accepted > 50 && sum.crashes > 50 && sum.payments > 80 && sum.stopped > 20 && sum.resumed > 3);
}
