//! Standing orders with real nodes and a real engine: taken when a match comes, kept over a kill -9, replaced when a host is lost.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::time::Duration;

use serde_json::Value;
use souk_tests::{
    docker::{BUSYBOX, nothing_left},
    node::{Node, state_of},
    part::have,
    wait::{until, within},
    world::World,
};

fn orders(node: &Node) -> Vec<Value> {
    node.json(&["order", "list"]).as_array().unwrap().clone()
}

fn order(node: &Node, options: &[&str]) -> Value {
    let begin = ["rent", "--image", BUSYBOX, "--disk", "1", "-y", "-d", "--tick", "1s"];
    node.json(&[&begin, options, &["--", "sh", "-c", "while :; do sleep 1; done"]].concat())
}

/// The lease of the only order, once it has another than `before`. What gossip loses, as it may while a connection of a node that
/// was killed is still there, is found by asking, within a minute.
fn leased(node: &Node, before: Option<&str>) -> String {
    within(Duration::from_secs(150), "the order has a lease", || {
        let all = orders(node);
        let lease = all.first()?["lease"].as_str()?.to_owned();
        (Some(lease.as_str()) != before).then_some(lease)
    })
}

#[test]
fn an_order_waits_over_a_kill_and_takes_the_first_match_once() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let host = world.watch(world.node("host").host(2, "1.00").start());
    let mut renter = world.node("renter").knows(&host.listen[0]).start();
    renter.meets(&host);
    // Too dear: it waits.
    let placed = order(&renter, &["--query", "num_gpus=0 dph<0.5", "--wait"]);
    assert_eq!((placed["state"].as_str().unwrap(), placed["number"].as_u64().unwrap()), ("waiting", 1));
    assert!(placed.to_string().contains("dph<0.5"));
    renter.kill();
    renter.start();
    renter.meets(&host);
    assert_eq!(orders(&renter).len(), 1, "it is on disk");
    assert_eq!(renter.json(&["ps"]), Value::Array(Vec::new()));

    let _ = host.json(&["host", "list", "--price", "0.10"]);
    let lease = leased(&renter, None);
    renter.reaches(&lease, "running");
    assert_eq!(orders(&renter)[0]["state"], "done");
    // A second slot is free and matches: it is not taken.
    renter.kill();
    renter.start();
    renter.meets(&host);
    assert_eq!(renter.json(&["ps"]).as_array().unwrap().len(), 1, "rented once");
    let _ = renter.json(&["destroy", "-y", &lease]);
    renter.reaches(&lease, "ended destroyed");
    nothing_left(world.docker(), &host);
}

#[test]
fn an_order_is_listed_cancelled_and_refused_in_words() {
    let world = World::new();
    let renter = world.node("renter").start();
    let placed = order(&renter, &["--query", "num_gpus>=8", "--wait", "--label", "big", "--wait-for", "1h"]);
    assert!(placed["until_ms"].as_u64().unwrap() > placed["created_ms"].as_u64().unwrap());
    let cancelled = renter.json(&["order", "cancel", "1"]);
    assert_eq!(cancelled["label"], "big");
    assert!(orders(&renter).is_empty());
    let (code, error) = renter.refused(&["order", "cancel", "1"]);
    assert!(code == "not_found" && error.contains("no order 1"), "{code} {error}");
    let (_, error) = renter.refused(&["rent", "--query", "gpu_nam=RTX_4090", "--wait", "--image", BUSYBOX, "-y", "-d"]);
    assert!(error.contains("gpu_name"), "the nearest field is named: {error}");
    // Without --wait it does not wait.
    let (_, error) = renter.refused(&["rent", "--query", "num_gpus>=8", "--image", BUSYBOX, "-y"]);
    assert!(error.contains("nothing was rented"), "{error}");
    assert!(orders(&renter).is_empty());
}

#[test]
fn a_lost_host_is_replaced_and_its_lease_ended_when_it_is_back() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let mut first = world.watch(world.node("first").host(1, "0.10").start());
    let second = world.watch(world.node("second").host(1, "0.20").start());
    let renter = world.node("renter").knows(&first.listen[0]).knows(&second.listen[0]).start();
    renter.meets(&first);
    renter.meets(&second);
    let _ = order(&renter, &["--query", "dph<0.5", "--order", "dph", "--wait", "--failover", "--patience", "3s"]);
    let lease = leased(&renter, None);
    let detail = renter.reaches(&lease, "running");
    assert_eq!(detail["peer"], first.id, "the cheapest goes first");
    assert_eq!(orders(&renter)[0]["state"], "guarding");

    first.kill();
    let replacement = leased(&renter, Some(&lease));
    let detail = renter.reaches(&replacement, "running");
    assert_eq!(detail["peer"], second.id);
    assert_eq!(detail["image"], BUSYBOX);
    assert_eq!(orders(&renter)[0]["replaces"], serde_json::json!([lease]));

    first.start();
    renter.reaches(&lease, "ended destroyed");
    until("nothing is left to be ended", || (orders(&renter)[0]["replaces"] == serde_json::json!([])).then_some(()));
    assert_eq!(state_of(&renter.show(&replacement)), "running");

    // The renter's own end is not a loss.
    let _ = renter.json(&["destroy", "-y", &replacement]);
    until("the order is done", || (orders(&renter)[0]["state"] == "done").then_some(()));
    nothing_left(world.docker(), &first);
    nothing_left(world.docker(), &second);
}
