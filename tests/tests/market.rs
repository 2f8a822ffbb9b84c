//! Offers among real nodes: seen by all, changed for all, gone for all.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::time::{Duration, Instant};

use souk_tests::{
    node::Node,
    part::have,
    wait::{until, within},
    world::World,
};

/// Slack for a busy machine. On an idle one it takes some 20 ms, printed by the test.
const VISIBLE_WITHIN: Duration = Duration::from_secs(5);

fn prices(node: &Node, host: &Node) -> Vec<String> {
    let asks = node.asks();
    asks.iter().filter(|a| a["host_id"] == host.id.as_str()).map(|a| a["dph"].to_string()).collect()
}

#[test]
fn three_nodes_from_one_address_see_one_market() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let a = world.watch(world.node("a").host(2, "0.50").env("SOUK_HOST_PRICES_STORAGE_GB_MONTH", "0").start());
    // One over QUIC, one over TCP; each knows only the first.
    let b = world.node("b").host(4, "0.25").env("SOUK_HOST_PRICES_STORAGE_GB_MONTH", "0");
    let b = world.watch(b.quic().knows(a.address("quic-v1")).start());
    let c = world.node("c").tcp().knows(a.address("/tcp/")).start();

    let began = Instant::now();
    within(VISIBLE_WITHIN, "both offers are in C's search", || {
        (prices(&c, &a).len() == 2 && prices(&c, &b).len() == 3).then_some(())
    });
    println!("both hosts' offers were visible {:?} after the last node was ready", began.elapsed());
    assert!(until("A has B's offer", || (prices(&a, &b).len() == 3).then_some(true)));

    // Cheapest first, by a query with conditions; own asks don't count.
    let found = c.json(&["search", "--storage", "1", "num_gpus=0 dph<=0.5", "-o", "dph"]);
    let rows = found["rows"].as_array().unwrap();
    let prices_found: Vec<f64> = rows.iter().map(|r| r["dph"].as_f64().unwrap()).collect();
    assert_eq!(prices_found, [0.25, 0.5, 0.5]);
    assert_eq!((rows[0]["host_id"].as_str(), rows[0]["slots"].as_u64()), (Some(b.id.as_str()), Some(1)));

    // A price change is everywhere.
    let _ = a.json(&["host", "list", "--price", "0.75"]);
    within(VISIBLE_WITHIN, "the new price is everywhere", || {
        [&b, &c].iter().all(|n| prices(n, &a) == ["0.75", "1.5"] || prices(n, &a) == ["1.5", "0.75"]).then_some(())
    });

    // Who comes late gets the whole book.
    let d = world.node("d").knows(c.address("/tcp/")).start();
    within(VISIBLE_WITHIN, "a late joiner has the whole book", || {
        (prices(&d, &a).len() == 2 && prices(&d, &b).len() == 3).then_some(())
    });

    // Unlisted is gone, for all, and does not come back from those who still had it.
    let _ = b.json(&["host", "unlist"]);
    within(VISIBLE_WITHIN, "the unlisted is gone everywhere", || {
        [&a, &c, &d].iter().all(|n| prices(n, &b).is_empty()).then_some(())
    });
    let e = world.node("e").knows(d.address("/tcp/")).start();
    within(VISIBLE_WITHIN, "the newest node has A's offer", || (prices(&e, &a).len() == 2).then_some(()));
    assert!(prices(&e, &b).is_empty(), "a withdrawn offer came back");
    assert!(b.asks().iter().all(|ask| ask["host_id"] != b.id.as_str()), "the host itself still lists it");
}

#[test]
fn a_restarted_host_goes_on_with_its_listing_and_a_higher_number() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let mut host = world.watch(world.node("host").host(1, "0.50").start());
    let renter = world.node("renter").knows(&host.listen[0]).start();
    let _ = renter.ask_of(&host, 1);
    let _ = host.json(&["host", "list", "--price", "0.60"]);
    let price = |host: &Node, want: &str| {
        until("the price is seen", || (prices(&renter, host).iter().any(|p| p.starts_with(want))).then_some(()))
    };
    price(&host, "0.6");
    host.kill();
    host.start();
    // The command line's price outlives the process, and the new offers outrank those from before.
    let _ = host.json(&["host", "list", "--price", "0.70"]);
    price(&host, "0.7");
}

#[test]
fn peers_of_earlier_days_are_found_without_a_bootstrap_address() {
    let world = World::new();
    let a = world.node("a").start();
    let mut b = world.node("b").knows(&a.listen[0]).start();
    b.meets(&a);
    b.stop();
    b.forgets();
    b.start();
    b.meets(&a);
    // Also after a crash, with what was kept before, and with a file that is broken it starts all the same.
    b.kill();
    b.start();
    b.meets(&a);
    b.kill();
    std::fs::write(b.dir().join("peers.json"), b"{").unwrap();
    b.start();
    assert_eq!(b.json(&["peers"]), serde_json::json!([]));
}
