//! The renter's own meter: what it finds out of a real instance, and what it acknowledges then.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use souk_protocol::{Amount, opinion::Watched};
use souk_tests::{
    export::{Export, Item, read_entry},
    node::{Node, state_of},
    part::have,
    world::{World, rent},
};

/// What a second costs, in nano-dollars, rounded down.
const SECOND: u64 = 277_777;
const IDLE: &str = "while :; do sleep 1; done";

fn amount(value: &Value) -> u64 {
    value.as_str().unwrap().parse::<Amount>().unwrap().0
}

fn silent(lease: &Value) -> u64 {
    lease["silent_ms"].as_u64().unwrap_or_default()
}

/// Waits until so many further receipts have been acknowledged.
fn more(renter: &Node, lease: &str, receipts: u64) -> Value {
    let n = |lease: &Value| lease["receipt"]["acked_n"].as_u64().unwrap_or(0);
    let before = n(&renter.show(lease));
    renter.finds(lease, "further receipts", |lease| n(lease) >= before + receipts)
}

fn full(lease: &Value) {
    assert_eq!(lease["receipt"]["partial"], Value::Null, "{lease:#}");
    assert_eq!(lease["receipt"]["acked"], lease["receipt"]["due"], "{lease:#}");
}

#[test]
fn a_frozen_instance_is_not_paid_for_and_one_that_runs_is() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (host, renter) = world.pair(1);
    let lease = rent(&renter, &host, 1, IDLE, &["--tick", "1s"]);
    let container = world.docker().container(&host.id);
    full(&more(&renter, &lease, 6));
    // The helper that answers is one process in the instance.
    let top = world.docker().cli(&["top", &container]).ok();
    assert_eq!(top.matches("guest pulse").count(), 1, "{top}");

    // Behind the back of the host's node, which goes on claiming.
    let frozen = Instant::now();
    assert_eq!(world.docker().cli(&["pause", &container]).code, 0);
    let found = renter.finds(&lease, "a partial acknowledgement", |lease| lease["receipt"]["partial"] == "silent");
    assert!(amount(&found["receipt"]["acked"]) < amount(&found["receipt"]["due"]));
    assert_eq!(state_of(&host.show(&lease)), "running", "the host knows nothing of it");
    assert_eq!(world.docker().cli(&["unpause", &container]).code, 0);
    let frozen = u64::try_from(frozen.elapsed().as_millis()).unwrap();
    renter.finds(&lease, "the helper's own count", |lease| silent(lease) + 8000 > frozen);
    // What was acknowledged before the silence was noticed is not taken back: nothing more is, until that is made up for. Then all that
    // runs is acknowledged again, and the silence never, but for what two meters may differ by.
    let before = amount(&renter.show(&lease)["receipt"]["acked"]);
    renter.finds(&lease, "more is acknowledged", |lease| amount(&lease["receipt"]["acked"]) > before + 2 * SECOND);
    let later = more(&renter, &lease, 3);
    assert_eq!(later["receipt"]["partial"], "silent");
    assert!(silent(&later) <= frozen + 1000, "{} of {frozen}", silent(&later));
    let gap = amount(&later["receipt"]["due"]) - amount(&later["receipt"]["acked"]);
    let (silence, ran) = (silent(&later) * SECOND / 1000, later["receipt"]["counters"]["active_ms"].as_u64().unwrap());
    assert!(gap <= silence && gap + 5 * SECOND + ran / 100 * SECOND / 1000 + SECOND >= silence, "{gap} of {silence}");

    // The same after a start of the renter's node, which has that from what it signed.
    let mut renter = renter;
    renter.kill();
    renter.start();
    let again = more(&renter, &lease, 3);
    assert_eq!(again["receipt"]["partial"], "silent");
    assert!(silent(&again).abs_diff(silent(&later)) < 2000, "{} {}", silent(&again), silent(&later));

    // At the end it signs once what it saw, killed at that moment or not, and only it does.
    let _ = renter.json(&["destroy", "-y", &lease]);
    renter.kill();
    renter.start();
    for node in [&renter, &host] {
        node.finds(&lease, "closed by both", |l| l["state"] == "ended" && l["receipt"]["closed"] == true);
    }
    let file = world.path().join("probe.souk");
    let export = Export::of(&renter, Some(&lease), &file);
    let seen: Vec<Watched> = probes(&export);
    assert!(seen.len() <= 1, "{seen:?}");
    assert_eq!(renter.souk(&["verify", file.to_str().unwrap()], &[]).code, 0);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(probes(&Export::of(&host, Some(&lease), &file)), []);
}

/// What an export says that was seen of leases' hosts.
fn probes(export: &Export) -> Vec<Watched> {
    let entries = export.items.iter().filter_map(|i| if let Item::Entry(entry) = i { Some(entry) } else { None });
    entries.filter_map(|entry| read_entry(entry).body.rental().copied()).collect()
}

#[test]
fn the_end_of_a_rental_is_one_probe_in_its_renters_chain() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (host, renter) = world.pair(1);
    let lease = rent(&renter, &host, 1, IDLE, &["--tick", "1s"]);
    full(&more(&renter, &lease, 6));
    let _ = renter.json(&["destroy", "-y", &lease]);
    for node in [&renter, &host] {
        node.finds(&lease, "closed by both", |l| l["state"] == "ended" && l["receipt"]["closed"] == true);
    }
    let file = world.path().join("probe.souk");
    let seen = probes(&Export::of(&renter, Some(&lease), &file));
    let [seen] = seen[..] else { panic!("{seen:?}") };
    assert!(seen.watched.0 >= 3000 && seen.answered.0 + 2000 >= seen.watched.0, "{seen:?}");
    assert_eq!(renter.souk(&["verify", file.to_str().unwrap()], &[]).code, 0);
    std::thread::sleep(Duration::from_secs(6));
    let told = renter.json(&["reputation", &host.id[host.id.len() - 8..], "--explain"]).to_string();
    assert!(told.contains("watched"), "{told}");
}

#[test]
fn a_renter_that_was_away_acknowledges_what_ran_meanwhile_in_full() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (host, mut renter) = world.pair(1);
    let lease = rent(&renter, &host, 1, IDLE, &["--tick", "1s"]);
    full(&more(&renter, &lease, 4));

    // A computer that sleeps, for longer than any link lives through.
    let process = Pid::from_raw(i32::try_from(renter.pid()).unwrap()).unwrap();
    kill_process(process, Signal::STOP).unwrap();
    host.finds(&lease, "25 s that nobody acknowledges", |lease| {
        amount(&lease["receipt"]["due"]) >= amount(&lease["receipt"]["acked"]) + 7_000_000
    });
    kill_process(process, Signal::CONT).unwrap();
    let awake = more(&renter, &lease, 3);
    full(&awake);
    assert_eq!(silent(&awake), 0);

    // A node that was not there.
    renter.kill();
    std::thread::sleep(Duration::from_secs(5));
    renter.start();
    full(&more(&renter, &lease, 3));

    // The helper alone is killed: another one answers.
    let container = world.docker().container(&host.id);
    let kill = "kill -9 $(for p in /proc/[0-9]*; do grep -qs pulse $p/cmdline && echo ${p#/proc/}; done | grep -v \"^$$\\$\") || true";
    assert_eq!(renter.souk(&["exec", &lease, "--", "sh", "-c", kill], &[]).code, 0);
    let killed = more(&renter, &lease, 20);
    full(&killed);
    assert_eq!(silent(&killed), 0);
    let top = world.docker().cli(&["top", &container]).ok();
    assert_eq!(top.matches("guest pulse").count(), 1, "{top}");

    // An instance that ends is told by its host, and paid for until then.
    assert_eq!(world.docker().cli(&["kill", &container]).code, 0);
    let ended = renter.reaches(&lease, "paused exited");
    assert_eq!(silent(&ended), 0);
    let settled =
        renter.finds(&lease, "the last receipt", |lease| lease["receipt"]["acked"] == lease["receipt"]["due"]);
    full(&settled);
}
