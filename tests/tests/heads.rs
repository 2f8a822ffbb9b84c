//! One key on two nodes, and ledgers from backups: real nodes, found out, refused and caught up.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{fs, path::Path};

use serde_json::Value;
use souk_tests::{
    docker::BUSYBOX,
    node::Node,
    part::have,
    wait::until,
    world::{World, rent},
};

/// Copies a folder with all that is in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Puts an older copy of its ledger in the place of a node's.
fn restore(node: &Node, backup: &Path) {
    let ledger = node.dir().join("ledger");
    fs::remove_dir_all(&ledger).unwrap();
    copy(backup, &ledger);
}

/// Gives a node that was never run the key of another.
fn same_key(of: &Node, mut to: Node) -> Node {
    fs::copy(of.dir().join("node.key"), to.dir().join("node.key")).unwrap();
    to.id.clone_from(&of.id);
    to
}

fn problems(node: &Node) -> String {
    node.json(&["status"])["problems"].to_string()
}

fn calls_forked(node: &Node, other: &Node) -> bool {
    let peers = node.json(&["peers"]);
    peers.as_array().unwrap().iter().any(|p| p["node"] == other.id.as_str() && p["forked"] == true)
}

fn leases(node: &Node) -> usize {
    node.json(&["ps", "-a"]).as_array().unwrap().len()
}

#[test]
fn a_second_start_with_one_key_is_refused_before_it_signs_and_the_first_goes_on() {
    let world = World::new();
    let third = world.node("third").start();
    let first = world.node("first").knows(&third.listen[0]).start();
    first.meets(&third);
    let mut second = same_key(&first, world.node("second").knows(&third.listen[0]).stopped());
    second.launch();
    let (code, log) = second.ended();
    assert_ne!(code, 0, "{log}");
    assert!(log.contains("another node with this node's key is running"), "{log}");
    assert!(log.contains("has signed nothing"), "{log}");
    // Its first entry would have contradicted that of the other.
    assert!(!calls_forked(&third, &first));
    until("the first one tells of it", || problems(&first).contains("copy of this node's key").then_some(()));
    first.meets(&third);
    // And with the first one gone in order, the key may move.
    let mut first = first;
    first.stop();
    second.start();
    second.meets(&third);
}

#[test]
fn a_node_that_is_killed_and_started_again_at_once_is_not_taken_for_two() {
    let world = World::new();
    for quic in [true, false] {
        let name = if quic { "quic" } else { "tcp" };
        let pick = |setup: souk_tests::node::Setup| if quic { setup.quic() } else { setup.tcp() };
        let third = pick(world.node(&format!("third-{name}"))).start();
        let mut node = pick(world.node(name)).knows(&third.listen[0]).start();
        for _ in 0..3 {
            node.meets(&third);
            node.kill();
            node.start();
        }
        node.meets(&third);
        until("it signs", || (!problems(&node).contains("nothing is signed")).then_some(()));
        assert!(node.runs() && !calls_forked(&third, &node));
        assert!(!problems(&node).contains("key"), "{}", problems(&node));
    }
}

#[test]
fn a_copied_key_is_found_out_by_a_third_and_gets_no_lease_from_a_fourth() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    // Two machines with one key, neither of which knows of the other: each begins a chain.
    let mut one = world.watch(world.node("one").host(1, "1.00").start());
    let mut two = same_key(&one, world.node("two").stopped());
    two.start();
    until("it signs", || (!problems(&two).contains("nothing is signed")).then_some(()));
    two.stop();
    one.stop();
    let third = world.node("third").start();
    let fourth = world.node("fourth").knows(&third.listen[0]).start();
    fourth.meets(&third);
    for node in [&mut one, &mut two] {
        node.set("SOUK_NETWORK_BOOTSTRAP", &third.listen[0]);
    }
    one.start();
    let ask = fourth.ask_of(&one, 1);
    two.launch();
    until("the third has found it out", || calls_forked(&third, &one).then_some(()));
    until("its offers are gone from the fourth's search", || {
        fourth.asks().iter().all(|a| a["host_id"] != one.id.as_str()).then_some(())
    });
    let arguments = ["rent", &ask, "--image", BUSYBOX, "--disk", "1", "-y", "--", "true"];
    let outcome = fourth.souk(&arguments, &[]);
    assert_ne!(outcome.code, 0);
    assert!(format!("{}{}", outcome.out, outcome.err).contains("two contradicting chains"), "{outcome:?}");
    // It is permanent.
    let mut fourth = fourth;
    fourth.kill();
    fourth.start();
    fourth.meets(&third);
    until("the offers are there again", || (fourth.json(&["status"])["offers"] != 0).then_some(()));
    assert!(fourth.asks().iter().all(|a| a["host_id"] != one.id.as_str()));
    // Who comes only now has it from the fourth: the finder is gone, and only one of the two chains can be met.
    let mut third = third;
    third.stop();
    if two.runs() {
        two.kill();
    }
    let fifth = world.node("fifth").knows(&fourth.listen[0]).start();
    fifth.meets(&fourth);
    until("the fifth knows", || fifth.log().contains("has signed two contradicting chains").then_some(()));
}

#[test]
fn a_restored_backup_catches_up_before_it_signs_and_stays_one_chain() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (host, mut renter) = world.pair(3);
    let tick = ["--tick", "1s"];
    let kept = rent(&renter, &host, 1, "sleep 600", &tick);
    renter.stop();
    let backup = world.path().join("backup");
    copy(&renter.dir().join("ledger"), &backup);
    renter.start();
    // What happens after the backup: another lease, with receipts, and one that is over.
    let later = rent(&renter, &host, 1, "sleep 600", &tick);
    let over = rent(&renter, &host, 1, "sleep 600", &tick);
    let _ = renter.json(&["destroy", "-y", &over]);
    renter.reaches(&over, "ended destroyed");
    renter.finds(&later, "a receipt", |d| d["receipt"]["n"].as_u64().is_some_and(|n| n >= 2));
    let before = renter.show(&later)["receipt"]["n"].as_u64().unwrap();
    renter.kill();
    restore(&renter, &backup);
    renter.start();
    let shown = renter.finds(&later, "the lease is back", |d| d["state"] == "running");
    assert!(shown["receipt"]["n"].as_u64().is_some_and(|n| n >= before), "{shown:#}");
    assert!(renter.log().contains("restored from an older copy"), "{}", renter.log());
    assert_eq!(leases(&renter), 3);
    renter.reaches(&over, "ended destroyed");
    renter.reaches(&kept, "running");
    // It goes on: nobody calls it forked, receipts go on, and it can rent and end.
    renter.finds(&later, "more receipts", |d| d["receipt"]["n"].as_u64().is_some_and(|n| n > before + 2));
    assert!(!calls_forked(&host, &renter));
    let _ = renter.json(&["destroy", "-y", &later]);
    host.finds(&later, "closed", |d: &Value| d["receipt"]["closed"] == true);
    let fresh = rent(&renter, &host, 1, "sleep 600", &tick);
    assert!(!calls_forked(&host, &renter));
    let check = renter.json(&["ledger", "check"]);
    assert_eq!(check["faults"], serde_json::json!([]), "{check:#}");
    for lease in [&kept, &fresh] {
        let _ = renter.json(&["destroy", "-y", lease]);
    }
}

#[test]
fn a_restored_host_goes_on_with_its_numbers() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (mut host, renter) = world.pair(1);
    let lease = rent(&renter, &host, 1, "sleep 600", &["--tick", "1s"]);
    host.stop();
    let backup = world.path().join("backup");
    copy(&host.dir().join("ledger"), &backup);
    host.start();
    let receipts = |least: u64| {
        renter.finds(&lease, "receipts", |d| d["receipt"]["n"].as_u64().is_some_and(|n| n >= least))["receipt"]["n"]
            .as_u64()
            .unwrap()
    };
    let before = receipts(receipts(1) + 4);
    host.kill();
    restore(&host, &backup);
    host.start();
    // A number that was used before would prove a fork.
    receipts(before + 3);
    assert!(!calls_forked(&renter, &host));
    let _ = renter.json(&["destroy", "-y", &lease]);
    renter.finds(&lease, "closed", |d| d["receipt"]["closed"] == true);
}
