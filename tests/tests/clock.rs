//! A host whose clock is set wrong while leases run: nothing ends by it, and nobody pays for time that was not.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::path::Path;

use serde_json::Value;
use souk_tests::{
    docker::nothing_left,
    node::state_of,
    part::have_all,
    wait::until,
    world::{World, rent},
};

const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

fn active(lease: &Value) -> u64 {
    lease["receipt"]["counters"]["active_ms"].as_u64().unwrap_or(0)
}

#[test]
fn a_clock_that_jumps_ends_no_lease_and_bills_no_time() {
    if !have_all(&["docker", "faketime"]) {
        return;
    }
    if !Path::new(LIBRARY).exists() {
        println!("skipped: {LIBRARY} is absent");
        return;
    }
    let world = World::with_docker();
    let offset = world.path().join("offset");
    let set = |text: &str| {
        // At once for whoever reads it.
        let next = world.path().join("offset.next");
        std::fs::write(&next, format!("{text}\n")).unwrap();
        std::fs::rename(next, &offset).unwrap();
    };
    set("+0");
    let host = world.node("host").host(1, "1.00").env("LD_PRELOAD", LIBRARY).env("FAKETIME_NO_CACHE", "1");
    let host = host.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("FAKETIME_TIMESTAMP_FILE", offset.to_str().unwrap());
    let host = world.watch(host.start());
    let renter = world.node("renter").knows(&host.listen[0]).start();
    renter.meets(&host);
    let lease = rent(&renter, &host, 1, "sleep 600", &["--for", "1h", "--tick", "1s"]);
    renter.finds(&lease, "a receipt", |l| l["receipt"]["acked_n"].as_u64() >= Some(1));
    let began = std::time::Instant::now();

    // Ten days ahead: past the contract's end, and past the time that a disk is kept after it.
    set("+10d");
    until("the host has noticed", || host.log().contains("jumped ahead").then_some(()));
    let n = |l: &Value| l["receipt"]["acked_n"].as_u64();
    let before = n(&renter.show(&lease));
    let later = renter.finds(&lease, "receipts go on", |l| n(l) > before.map(|n| n + 2));
    assert_eq!(state_of(&later), "running");
    set("+0");
    until("the host follows its clock again", || host.log().contains("followed again").then_some(()));
    // An hour back: the time since counts for nothing, and it goes on.
    set("-1h");
    until("the host lives in the past", || {
        let told = host.json(&["ps"]);
        (told.as_array().unwrap().len() == 1).then_some(())
    });
    assert_eq!(state_of(&host.show(&lease)), "running");
    set("+0");
    let before = n(&renter.show(&lease));
    let back = renter.finds(&lease, "receipts go on again", |l| n(l) > before);
    let passed = u64::try_from(began.elapsed().as_millis()).unwrap();
    assert!(active(&back) <= passed + 30_000, "{} ms are billed for {passed} ms", active(&back));
    assert_eq!((&back["starts"], state_of(&back).as_str()), (&Value::from(1), "running"));

    let _ = renter.json(&["destroy", "-y", &lease]);
    for node in [&host, &renter] {
        node.finds(&lease, "closed", |l| {
            l["receipt"]["closed"] == true && l["receipt"]["due"] == l["receipt"]["acked"]
        });
        assert_eq!(node.json(&["ledger", "check"])["faults"], Value::Array(Vec::new()));
    }
    nothing_left(world.docker(), &host);
}
