//! Attacks beyond the three that are promised to fail. Each says what happens, also where the attacker gets something.

use std::collections::BTreeSet;

use souk_ledger::reputation::{Cause, Score};
use souk_protocol::{Currency, Millis, NodeId, Timestamp};

use crate::{
    highest,
    world::{DAY, NOW, World, failed},
};

/// A twentieth of the trade, concentrated on fewer renters, with fakes small and large: fifty hosts are too many for it, and few
/// renters have no standing however much they buy.
#[test]
fn concentrating_what_is_bought_lifts_no_large_group() {
    for (renters, hosts) in [(20, 5), (80, 20), (400, 50)] {
        for seed in [1, 2] {
            for fake in [1.0, 10.0, 200.0] {
                let mut world = World::new(seed);
                let sybils = world.sybils(renters, hosts, 0.05, hosts.min(4), fake);
                for (name, view) in world.views() {
                    let scores = view.compute(NOW);
                    let lifted = sybils.hosts.iter().filter(|h| scores.of(h).trust > 0.2).count();
                    println!("{renters} renters, {hosts} hosts, fakes of {fake}, {name}: {lifted} lifted");
                    assert_eq!(lifted, 0, "{renters} renters, {hosts} hosts, fakes of {fake}, seed {seed}, {name}");
                }
            }
        }
    }
}

/// Honest renters are lured to one Sybil host by a low price, and served well. That host earns its score; the ring of renters
/// and hosts behind it does not get a share of it.
#[test]
fn a_lured_renter_opens_no_door_to_the_ring_behind() {
    for seed in [1, 2, 3] {
        let mut world = World::new(seed);
        let sybils = world.sybils(200, 20, 0.01, 4, 200.0);
        let front = sybils.hosts[0];
        for renter in world.renters.clone().into_iter().take(40) {
            world.good(renter, front, 10.0);
        }
        for renter in &sybils.renters {
            world.good(*renter, front, 200.0);
        }
        for (name, view) in world.views() {
            let scores = view.compute(NOW);
            let behind = highest(&scores, &sybils.hosts[1..]);
            println!("seed {seed} {name}: the front {:.2}, behind it {behind:.4}", scores.of(&front).trust);
            assert!(behind < Score::stranger().trust + 0.02, "seed {seed}, {name}: {behind}");
        }
    }
}

/// A ring that pays each other in circles, with two bridges to the honest market.
#[test]
fn a_ring_with_bridges_stays_outside() {
    for seed in [1, 2, 3] {
        let mut world = World::new(seed);
        let ring: Vec<NodeId> = (0..40).map(|_| world.rng.node()).collect();
        for (n, renter) in ring.iter().enumerate() {
            for k in 1..8 {
                world.good(*renter, ring[(n + k) % ring.len()], 500.0);
            }
        }
        for bridge in &ring[..2] {
            for _ in 0..10 {
                let host = world.an_honest_host();
                world.good(*bridge, host, 20.0);
            }
        }
        for (name, view) in world.views() {
            let high = highest(&view.compute(NOW), &ring);
            assert_eq!(high.to_bits(), Score::stranger().trust.to_bits(), "seed {seed}, {name}");
        }
    }
}

/// A host that was good for long and now takes machines back: its score falls under that of a stranger in two months, and is
/// halved long before.
#[test]
fn a_good_name_is_lost_faster_than_it_was_earned() {
    let mut world = World::new(4);
    let host = world.rng.node();
    let renters: Vec<NodeId> = world.renters.iter().copied().take(60).collect();
    for renter in &renters {
        world.lease(*renter, host, 20.0, BTreeSet::new()).at = Timestamp(NOW.0 - 30 * DAY);
    }
    let before = world.views().map(|(_, view)| view.compute(NOW).of(&host).trust);
    for renter in &renters {
        for n in 0..2 {
            world.lease(*renter, host, 1.0, BTreeSet::from([failed(Cause::HostAbort, true)])).at =
                Timestamp(NOW.0 - n * DAY);
        }
    }
    for ((name, view), before) in world.views().into_iter().zip(before) {
        let after = view.compute(NOW).of(&host).trust;
        println!("{name}: {before:.2} before, {after:.2} after");
        assert!(before > 0.4 && after < before / 2.0, "{name}: {before} {after}");
    }
}

/// A new key is a stranger: better than a bad name, worse than any good one.
#[test]
fn a_new_key_is_worth_no_more_than_a_strangers() {
    let world = World::new(5);
    for (_, view) in world.views() {
        let scores = view.compute(NOW);
        assert_eq!(scores.of(&NodeId([9; 32])), Score::stranger());
        let above =
            world.hosts.iter().filter(|(h, q)| *q > 0.7 && scores.of(h).trust > Score::stranger().trust).count();
        let good = world.hosts.iter().filter(|(_, q)| *q > 0.7).count();
        assert!(above * 10 >= good * 8, "{above} of {good} good hosts are above a stranger");
    }
}

/// Money of one's own making carries no trust, and receipts dated ahead do not stay young.
#[test]
fn invented_money_and_dates_ahead_count_nothing() {
    let mut world = World::new(6);
    let host = world.rng.node();
    for renter in world.renters.clone() {
        let e = world.lease(renter, host, 1_000.0, BTreeSet::new());
        e.currency = Currency("JUNK".to_owned());
        e.used = Millis(0);
        let e = world.lease(renter, host, 1_000.0, BTreeSet::new());
        e.at = Timestamp(NOW.0 + 2 * DAY);
    }
    for (_, view) in world.views() {
        assert_eq!(view.compute(NOW).of(&host).trust.to_bits(), Score::stranger().trust.to_bits());
    }
}
