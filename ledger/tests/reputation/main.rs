//! Reputation in made-up markets under attack: what `docs/reputation.md` promises, as thresholds. `--nocapture` prints its figures.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod attacks;
mod world;

use souk_ledger::reputation::{Score, Scores};
use souk_protocol::NodeId;
use world::{NOW, World};

const SEEDS: [u64; 5] = [1, 2, 3, 4, 5];

fn highest(scores: &Scores, nodes: &[NodeId]) -> f64 {
    nodes.iter().map(|n| scores.of(n).trust).fold(0.0, f64::max)
}

#[test]
fn a_thousand_sybils_with_a_twentieth_of_the_trade_stay_strangers() {
    for seed in SEEDS {
        let mut world = World::new(seed);
        let alone = world.views().map(|(_, view)| view.compute(NOW));
        let sybils = world.sybils(1000, 50, 0.05, 4, 200.0);
        for ((name, view), alone) in world.views().into_iter().zip(alone) {
            let scores = view.compute(NOW);
            let high = highest(&scores, &sybils.hosts);
            let (before, after) = (world.correlation(&alone), world.correlation(&scores));
            let usual = world.hosts.iter().map(|(h, _)| scores.of(h).trust).sum::<f64>() / world.hosts.len() as f64;
            println!(
                "seed {seed} {name}: Sybils at most {high:.4}, honest {usual:.3}; correlation {before:.2}, then {after:.2}"
            );
            assert_eq!(high.to_bits(), Score::stranger().trust.to_bits(), "seed {seed}, {name}");
            assert!(before >= 0.6 && after >= 0.6, "seed {seed}, {name}: {before} {after}");
        }
    }
}

#[test]
fn slander_by_sybils_moves_no_score() {
    for seed in [1, 2, 3] {
        let mut world = World::new(seed);
        let sybils = world.sybils(1000, 50, 0.05, 4, 200.0);
        let before = world.views().map(|(_, view)| view.compute(NOW));
        world.slander(&sybils, 10);
        for ((name, view), before) in world.views().into_iter().zip(before) {
            let after = view.compute(NOW);
            let moved = |(host, _): &(NodeId, f64)| (before.of(host).trust - after.of(host).trust).abs();
            let most = world.hosts.iter().map(moved).fold(0.0, f64::max);
            println!("seed {seed} {name}: 10,000 complaints move a score by {most:.6} at most");
            assert!(most < 0.001, "seed {seed}, {name}: {most}");
        }
    }
}

#[test]
fn the_order_of_receipts_changes_no_bit() {
    for seed in SEEDS {
        let mut world = World::new(seed);
        let sybils = world.sybils(200, 50, 0.05, 4, 200.0);
        world.slander(&sybils, 3);
        let one = world.views().map(|(_, view)| view.compute(NOW));
        let mut rng = world.rng.clone();
        rng.shuffle(&mut world.evidence);
        for ((_, view), one) in world.views().into_iter().zip(one) {
            let other = view.compute(NOW);
            for node in one.nodes() {
                let bits = |s: Score| [s.trust, s.reliability, s.successes, s.failures].map(f64::to_bits);
                assert_eq!(bits(one.of(node)), bits(other.of(node)));
                assert_eq!(bits(one.of_renter(node)), bits(other.of_renter(node)));
            }
        }
    }
}
