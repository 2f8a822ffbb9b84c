//! Copies to and from instances that were stopped, and between instances of one host, with real nodes and a real engine.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{fs, path::Path};

use souk_tests::{
    node::{Node, state_of},
    part::have,
    program::must,
    wait::until,
    world::{World, rent},
};

/// Says each time it starts.
const SAYS_SO: &str = "echo started >> /starts; mkdir -p /data; echo inside > /data/file; while :; do sleep 1; done";

fn sh(renter: &Node, lease: &str, line: &str) -> String {
    renter.souk(&["exec", lease, "--", "sh", "-c", line], &[]).ok()
}

fn stop(renter: &Node, lease: &str) {
    let _ = renter.json(&["stop", lease]);
    renter.reaches(lease, "paused stopped");
}

/// The containers of a lease that run.
fn running(lease: &str) -> String {
    must("docker", &["ps", "-q", "--no-trunc", "--filter", &format!("label=souk.lease={lease}")])
}

fn rests(lease: &str) {
    until("its container rests again", || running(lease).is_empty().then_some(()));
}

fn noise(path: &Path, mebibytes: usize) {
    let mut random = fs::File::open("/dev/urandom").unwrap();
    let mut file = fs::File::create(path).unwrap();
    std::io::copy(&mut std::io::Read::take(&mut random, (mebibytes as u64) << 20), &mut file).unwrap();
}

#[test]
fn a_stopped_instance_is_copied_to_and_from_and_nothing_of_it_runs() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (mut host, renter) = world.pair(1);
    let lease = rent(&renter, &host, 1, SAYS_SO, &[]);
    until("it has started", || sh(&renter, &lease, "cat /starts /data/file").contains("inside").then_some(()));
    stop(&renter, &lease);
    rests(&lease);
    let active = |lease: &str| renter.show(lease)["receipt"]["counters"]["active_ms"].clone();
    let before = active(&lease);

    // Out of it, and into it.
    let out = world.path().join("out");
    let copied = renter.json(&["copy", &format!("{lease}:/data/"), out.to_str().unwrap()]);
    assert_eq!(copied["problems"], 0, "{copied}");
    assert_eq!(fs::read_to_string(out.join("file")).unwrap(), "inside\n");
    rests(&lease);
    let big = world.path().join("big");
    noise(&big, 150);
    let there = format!("{lease}:/data/big");
    let mut child = renter.command(&["copy", big.to_str().unwrap(), &there]).spawn().unwrap();
    until("the copy holds the container", || (!running(&lease).is_empty()).then_some(()));
    // Meanwhile it is no instance: what runs is billed, and this isn't.
    let (_, sentence) = renter.refused(&["exec", &lease, "--", "true"]);
    assert!(!sentence.is_empty());
    assert_eq!(state_of(&renter.show(&lease)), "paused stopped");

    // The node is killed in the middle. The next one lets nothing run on, and the copy goes on where it was.
    host.kill();
    assert!(!child.wait().unwrap().success());
    host.start();
    renter.meets(&host);
    rests(&lease);
    assert_eq!(state_of(&renter.show(&lease)), "paused stopped");
    let copied = until("the host takes it again", || {
        let outcome = renter.souk(&["copy", big.to_str().unwrap(), &there], &[]);
        (outcome.code == 0).then(|| outcome.lines().pop().unwrap())
    });
    assert_eq!(copied["problems"], 0, "{copied}");
    rests(&lease);
    assert_eq!(active(&lease), before, "it was billed");

    // It started once, and starts again with what was copied.
    let _ = renter.json(&["start", &lease]);
    renter.reaches(&lease, "running");
    until("it says so", || (sh(&renter, &lease, "cat /starts") == "started\nstarted\n").then_some(()));
    let ours = must("sha256sum", &[big.to_str().unwrap()]);
    let theirs = sh(&renter, &lease, "sha256sum /data/big");
    assert_eq!(ours.split(' ').next(), theirs.split(' ').next());

    // A start ends a copy, which says so.
    stop(&renter, &lease);
    fs::remove_file(&big).unwrap();
    noise(&big, 300);
    let mut child = renter.command(&["copy", big.to_str().unwrap(), &there]).spawn().unwrap();
    until("the copy holds the container", || (!running(&lease).is_empty()).then_some(()));
    let _ = renter.json(&["start", &lease]);
    renter.reaches(&lease, "running");
    assert!(!child.wait().unwrap().success());
    until("it says so", || (sh(&renter, &lease, "cat /starts | wc -l").trim() == "3").then_some(()));
    let _ = renter.json(&["destroy", "-y", &lease]);
}

#[test]
fn between_two_instances_of_a_host_nothing_leaves_it() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (host, renter) = world.pair(2);
    let one = rent(&renter, &host, 1, "while :; do sleep 1; done", &["--tick", "1s"]);
    let two = rent(&renter, &host, 1, "while :; do sleep 1; done", &["--tick", "1s"]);
    sh(
        &renter,
        &one,
        "mkdir -p /data/sub; head -c 50000000 /dev/urandom > /data/big; echo x > /data/sub/x; ln -s x /data/sub/l",
    );
    let traffic = |lease: &str| {
        let counters = renter.show(lease)["receipt"]["counters"].clone();
        counters["rx_bytes"].as_u64().unwrap_or(0) + counters["tx_bytes"].as_u64().unwrap_or(0)
    };
    let settled = |lease: &str| {
        let n = renter.show(lease)["receipt"]["n"].as_u64().unwrap_or(0);
        renter.finds(lease, "two more receipts", |l| l["receipt"]["n"].as_u64() >= Some(n + 2));
        traffic(lease)
    };
    let before = (settled(&one), settled(&two));
    let (from, to) = (format!("{one}:/data/"), format!("{two}:/copy"));
    let copied = renter.json(&["copy", &from, &to]);
    assert_eq!((&copied["problems"], &copied["moved_bytes"]), (&0.into(), &50_000_002.into()), "{copied}");
    let after = (settled(&one), settled(&two));
    assert!(after.0 - before.0 < 1 << 20 && after.1 - before.1 < 1 << 20, "it was counted: {before:?} {after:?}");
    let digest =
        |lease: &str, path: &str| sh(&renter, lease, &format!("cd {path} && sha256sum big sub/x && readlink sub/l"));
    assert_eq!(digest(&one, "/data"), digest(&two, "/copy"));
    let again = renter.json(&["copy", &from, &to]);
    assert_eq!(again["moved_bytes"], 0, "{again}");

    // What goes wrong on either side is said here.
    let (_, sentence) = renter.refused(&["copy", &format!("{one}:/nothing"), &to]);
    assert!(sentence.contains("No such file"), "{sentence}");
    sh(&renter, &two, "mkdir -p /copy2/big");
    let outcome = renter.souk(&["copy", &from, &format!("{two}:/copy2")], &[]);
    assert_eq!(outcome.code, 1, "{}{}", outcome.out, outcome.err);
    assert!(outcome.err.contains("folder of this name"), "{}", outcome.err);
    let (_, sentence) = renter.refused(&["copy", &from, &format!("{one}:/copy")]);
    assert!(sentence.contains("the same instance"), "{sentence}");

    // Both of them stopped.
    for lease in [&one, &two] {
        stop(&renter, lease);
        rests(lease);
    }
    let copied = renter.json(&["copy", &from, &format!("{two}:/copy3")]);
    assert_eq!((&copied["problems"], &copied["moved_bytes"]), (&0.into(), &50_000_002.into()), "{copied}");
    rests(&one);
    rests(&two);
    for lease in [&one, &two] {
        let _ = renter.json(&["destroy", "-y", lease]);
    }
}
