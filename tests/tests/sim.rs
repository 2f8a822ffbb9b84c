//! Many engines in a failing world, in virtual time.
#![allow(clippy::print_stdout)] // what happened, for whoever runs a larger set

use souk_tests::sim::{Outcome, Settings, run, seeds};

fn small(name: &'static str, seed: u64) -> Settings {
    Settings {
        name,
        seed,
        nodes: 7,
        hosts: 3,
        slots: 4,
        lasts: 400_000,
        rents: 30,
        kept: 120_000,
        loss: 30,
        repeat: 50,
        crashes: 6,
        partitions: 2,
        outages: 2,
        failing: 60,
        rivals: 20,
        cuts: 60,
        clock_steps: 4,
        paid: 0,
        bids: 400,
        changes: 4,
        rethinks: 12,
        calm: 500_000,
    }
}

#[test]
fn quiet_worlds() {
    for seed in seeds(1, 5) {
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
            ..small("quiet_worlds", seed)
        };
        let outcome = run(calm);
        assert!(outcome.accepted > 0 && outcome.acknowledged > 0, "{outcome:?}");
    }
}

#[test]
fn small_worlds_with_every_trouble() {
    let mut sum = Outcome::default();
    for seed in seeds(100, 30) {
        sum = sum.plus(run(small("small_worlds_with_every_trouble", seed)));
    }
    println!("{sum:?}");
    // Every kind of trouble has really happened.
    assert!(std::env::var_os("SOUK_SIM_SEED").is_some() || (sum.accepted > 100 && sum.crashes > 100), "{sum:?}");
}

#[test]
fn the_same_seed_is_the_same_world() {
    let outcomes: Vec<Outcome> = (0..2).map(|_| run(small("the_same_seed_is_the_same_world", 7))).collect();
    assert_eq!(outcomes[0], outcomes[1]);
}

/// Hundreds of bids for the slots of few machines.
#[test]
fn an_auction_of_hundreds() {
    let scale = std::env::var("SOUK_SIM_LARGE").ok().and_then(|text| text.parse::<u64>().ok()).unwrap_or(1);
    for seed in seeds(500, scale) {
        let auction = Settings {
            nodes: 40,
            hosts: 8,
            slots: 6,
            lasts: 300_000,
            rents: 420,
            kept: 500_000,
            crashes: 8,
            rivals: 6,
            bids: 850,
            changes: 5,
            rethinks: 10,
            calm: 400_000,
            ..small("an_auction_of_hundreds", seed)
        };
        let outcome = run(auction);
        println!("{outcome:?}");
        let enough = outcome.volumes > 3
            && outcome.accepted >= 200
            && outcome.evicted > 10
            && outcome.freed > 5
            && outcome.amended > 100;
        assert!(std::env::var_os("SOUK_SIM_SEED").is_some() || enough, "{outcome:?}");
    }
}

/// Two hundred nodes and thousands of leases; a few times as many with `SOUK_SIM_LARGE=3`.
#[test]
fn a_large_world() {
    let scale = std::env::var("SOUK_SIM_LARGE").ok().and_then(|text| text.parse::<u64>().ok()).unwrap_or(1);
    for seed in seeds(9000, 1) {
        let large = Settings {
            nodes: 200,
            hosts: 14,
            slots: 64,
            lasts: 300_000 * scale,
            rents: 3_000 * scale,
            kept: 40_000,
            crashes: 60 * scale,
            partitions: 4 * scale,
            outages: 12 * scale,
            rivals: 20 * scale,
            clock_steps: 40 * scale,
            rethinks: 0,
            changes: 1,
            calm: 0,
            ..small("a_large_world", seed)
        };
        let outcome = run(large);
        println!("{outcome:?}");
        assert!(std::env::var_os("SOUK_SIM_SEED").is_some() || outcome.accepted > 1_000, "{outcome:?}");
    }
}
