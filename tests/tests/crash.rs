//! Nodes killed, stopped and started: one lease stays one lease, nothing is lost, nothing is left over.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::{
    collections::BTreeSet,
    process::Stdio,
    time::{Duration, Instant},
};

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use serde_json::Value;
use souk_tests::{
    docker::{BUSYBOX, nothing_left},
    node::{Node, state_of},
    part::have,
    wait::{PATIENCE, poll, until},
    world::{World, rent},
};

const TICK: [&str; 2] = ["--tick", "1s"];

fn acked(lease: &Value) -> u64 {
    lease["receipt"]["acked_n"].as_u64().unwrap_or_default()
}

fn active_ms(lease: &Value) -> u64 {
    lease["receipt"]["counters"]["active_ms"].as_u64().unwrap_or_default()
}

fn settled(lease: &Value) -> bool {
    let r = &lease["receipt"];
    r["closed"] == true && r["due"] == r["acked"]
}

/// The leases of a node that are not over.
fn open(node: &Node) -> BTreeSet<String> {
    let leases = node.json(&["ps"]);
    leases.as_array().unwrap().iter().map(|l| l["lease"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_killed_host_adopts_what_runs_and_bills_nothing_for_its_absence() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (mut host, renter) = world.pair(1);
    let began = Instant::now();
    let lease = rent(&renter, &host, 1, "while :; do echo alive; sleep 0.2; done", &TICK);
    renter.finds(&lease, "two receipts", |l| acked(l) >= 2);
    let container = world.docker().container(&host.id);
    let pid = world.docker().inspect(&container)["State"]["Pid"].clone();
    assert_ne!(pid, 0);

    let away = Instant::now();
    host.kill();
    assert!(host.locks_free());
    // The guest goes on without it.
    let lines = || world.docker().cli(&["logs", &container]).ok().lines().count();
    let before = lines();
    until("the guest works on", || (lines() > before + 10).then_some(()));
    assert_eq!(state_of(&renter.show(&lease)), "running", "silence alone ends nothing");
    host.start();
    let away = away.elapsed();

    let known = acked(&renter.show(&lease));
    let detail = renter.finds(&lease, "receipts go on", |l| state_of(l) == "running" && acked(l) >= known + 2);
    let billed = Duration::from_millis(active_ms(&detail));
    let most = began.elapsed() - away + Duration::from_millis(1500);
    assert!(billed <= most, "{billed:?} billed, though it was there for {most:?} at most");
    assert_eq!(world.docker().container(&host.id), container);
    assert_eq!(world.docker().inspect(&container)["State"]["Pid"], pid, "it was started again");
    assert!(!host.locks_free(), "an adopted instance holds its slot");

    let _ = renter.json(&["destroy", "-y", &lease]);
    for node in [&host, &renter] {
        node.finds(&lease, "closed", settled);
    }
    nothing_left(world.docker(), &host);
}

#[test]
fn a_reboot_starts_instances_again() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (mut host, renter) = world.pair(1);
    let lease = rent(&renter, &host, 1, "echo boot >> /root/boots; cat /root/boots; exec sleep 600", &TICK);
    renter.finds(&lease, "a receipt", |l| acked(l) >= 1);
    let container = world.docker().container(&host.id);
    host.kill();
    let _ = world.docker().cli(&["kill", &container]).ok();
    host.start();
    until("it has run its command twice, with its disk kept", || {
        (renter.souk(&["exec", &lease, "--", "cat", "/root/boots"], &[]).out == "boot\nboot\n").then_some(())
    });
    let shown = renter.reaches(&lease, "running");
    assert!(shown["events"].as_array().unwrap().iter().any(|e| e["reason"] == "host_restart"), "{shown:#}");
    assert_eq!(world.docker().container(&host.id), container);
    // A stopped one is stopped after the next reboot, too.
    let _ = renter.json(&["stop", &lease]);
    host.reaches(&lease, "paused stopped");
    host.kill();
    host.start();
    renter.meets(&host);
    host.reaches(&lease, "paused stopped");
    assert_eq!(world.docker().inspect(&container)["State"]["Running"], false);

    // And one whose container is gone for good says so. The renter may need a while to notice that its connection was lost.
    until("it is started again", || (renter.souk(&["start", &lease], &[]).code == 0).then_some(()));
    renter.reaches(&lease, "running");
    host.kill();
    let _ = world.docker().cli(&["rm", "-f", &container]).ok();
    host.start();
    for node in [&host, &renter] {
        node.reaches(&lease, "ended container_lost");
    }
    nothing_left(world.docker(), &host);
}

#[test]
fn a_renter_that_is_away_finds_its_job_and_catches_up() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (host, mut renter) = world.pair(1);
    let lease = rent(&renter, &host, 1, "sleep 600", &TICK);
    let before = acked(&host.finds(&lease, "a receipt", |l| acked(l) >= 1));
    renter.stop();
    let later = host.finds(&lease, "time has passed", |l| {
        active_ms(l) > 5000 + before * 1000
            || (l["receipt"]["n"].as_u64() > Some(before + 1) && l["uptime_ms"].as_u64() > Some(6000))
    });
    assert_eq!(state_of(&later), "running", "silence alone stops nothing");
    assert_eq!(world.docker().inspect(&world.docker().container(&host.id))["State"]["Running"], true);
    renter.start();
    let caught =
        renter.finds(&lease, "caught up", |l| active_ms(l) >= 5000 && l["receipt"]["due"] == l["receipt"]["acked"]);
    assert!(acked(&caught) > before);
    host.finds(&lease, "the host has the ack", |l| l["receipt"]["due"] == l["receipt"]["acked"] && acked(l) > before);

    // An end that nobody heard of is heard of later.
    renter.kill();
    let container = world.docker().container(&host.id);
    let _ = world.docker().cli(&["kill", "--signal", "KILL", &container]).ok();
    host.finds(&lease, "the end of the command", |l| l["exit_code"] == 137);
    renter.start();
    renter.finds(&lease, "the end of the command", |l| state_of(l) == "paused exited" && l["exit_code"] == 137);
    let _ = renter.json(&["destroy", "-y", &lease]);
    for node in [&host, &renter] {
        node.finds(&lease, "closed", settled);
    }
    nothing_left(world.docker(), &host);
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    Renter,
    Host,
}

/// Kills one side at a moment drawn from the seed while a rental is under way, again and again.
fn killed_at_any_moment(side: Side, seed: u64) {
    if !have("docker") {
        return;
    }
    let rounds = std::env::var("SOUK_TEST_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(8);
    let seed = std::env::var("SOUK_TEST_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(seed);
    println!("SOUK_TEST_SEED={seed} SOUK_TEST_ROUNDS={rounds}");
    let mut chance = ChaCha8Rng::seed_from_u64(seed);
    let world = World::with_docker();
    let (mut host, mut renter) = world.pair(2);
    let mut came_to_be = 0;
    for round in 0..rounds {
        let ask = renter.ask_of(&host, 1);
        let arguments = ["rent", &ask, "--image", BUSYBOX, "--disk", "1", "-y", "--tick", "1s", "--", "sleep", "600"];
        let mut command = renter.command(&arguments);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // From the quote to some receipts; most moments fall into negotiation and preparing.
        let span = if chance.next_u32() % 4 == 0 { 2500 } else { 450 };
        let moment = Duration::from_millis(u64::from(chance.next_u32() % span));
        std::thread::sleep(moment);
        let node = if side == Side::Renter { &mut renter } else { &mut host };
        node.kill();
        node.start();
        child.kill().ok();
        child.wait().unwrap();
        let said = format!("seed {seed}, round {round}, {side:?} killed after {moment:?}");

        // Both agree what there is, and it is one lease at most.
        let restarted = Instant::now();
        renter.meets(&host);
        let met = restarted.elapsed();
        let agreed = poll(PATIENCE, || {
            let (ours, theirs) = (open(&renter), open(&host));
            // One may have ended before both were asked.
            let runs = |node: &Node, lease: &String| {
                let shown = node.souk(&["show", lease], &[]);
                shown.code == 0 && state_of(&shown.json()) == "running"
            };
            let both = ours == theirs && ours.iter().all(|l| [&renter, &host].iter().all(|n| runs(n, l)));
            both.then_some(ours)
        });
        let Some(leases) = agreed else {
            panic!("{said}: no agreement: renter {:#}, host {:#}", renter.json(&["ps"]), host.json(&["ps"]));
        };
        println!("{said}: met again in {met:?}, agreed in {:?} on {} lease", restarted.elapsed(), leases.len());
        assert!(leases.len() <= 1, "{said}: {leases:?}");
        assert_eq!(world.docker().containers(&host.id).len(), leases.len(), "{said}");
        for lease in &leases {
            came_to_be += 1;
            for node in [&renter, &host] {
                node.finds(lease, "a receipt that both hold", |l| acked(l) >= 1);
            }
            let _ = renter.json(&["destroy", "-y", lease]);
            for node in [&renter, &host] {
                node.finds(lease, "closed", settled);
            }
        }
        nothing_left(world.docker(), &host);
        println!("{said}: destroyed, closed by both and cleaned up {:?} after the restart", restarted.elapsed());
    }
    println!("{came_to_be} of {rounds} rentals came to be");
    for node in [&renter, &host] {
        assert_eq!(node.json(&["ledger", "check"])["faults"], Value::Array(Vec::new()));
    }
}

#[test]
fn a_renter_killed_at_any_moment_leaves_one_lease_or_none() {
    killed_at_any_moment(Side::Renter, 1);
}

#[test]
fn a_host_killed_at_any_moment_leaves_one_lease_or_none() {
    killed_at_any_moment(Side::Host, 2);
}

#[test]
fn two_nodes_of_one_machine_sell_a_slot_once() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let one = world.watch(world.node("one").host(1, "1.00").start());
    let locks = one.variable("SOUK_RUNTIME_LOCK_DIR").to_owned();
    let two = world.node("two").host(1, "1.00").env("SOUK_RUNTIME_LOCK_DIR", &locks).knows(&one.listen[0]);
    let two = world.watch(two.start());
    let renter = world.node("renter").knows(&one.listen[0]).start();
    let ask = renter.ask_of(&two, 1);
    let lease = rent(&renter, &one, 1, "sleep 600", &[]);
    let (code, sentence) = renter.refused(&["rent", &ask, "--image", BUSYBOX, "--disk", "1", "-y"]);
    assert_eq!(code, "rejected", "{sentence}");
    assert!(world.docker().containers(&two.id).is_empty());
    let _ = renter.json(&["destroy", "-y", &lease]);
    one.finds(&lease, "closed", settled);
    let lease = rent(&renter, &two, 1, "sleep 600", &[]);
    let _ = renter.json(&["destroy", "-y", &lease]);
    nothing_left(world.docker(), &one);
    nothing_left(world.docker(), &two);
}
