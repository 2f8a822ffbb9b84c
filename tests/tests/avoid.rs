//! A host that failed its renter is left alone for a while: told, kept over a restart, and never in the way of who names it.
#![allow(clippy::unwrap_used)]

use serde_json::Value;
use souk_tests::{
    docker::BUSYBOX,
    node::Node,
    part::have,
    wait::until,
    world::{World, rent},
};

/// Asks of a host that a search finds, without `--all`. The machine that runs this may have little disk.
fn found(node: &Node, host: &Node, query: &str) -> Vec<Value> {
    let results = node.json(&["search", query, "--storage", "1"]);
    let rows = results["rows"].as_array().cloned().unwrap_or_default();
    rows.into_iter().filter(|row| row["host_id"] == host.id.as_str()).collect()
}

fn avoided(node: &Node, host: &Node) -> Option<Value> {
    let results = node.json(&["search", "--storage", "1"]);
    let hosts = results["avoided"].as_array().cloned().unwrap_or_default();
    hosts.into_iter().find(|h| h["host_id"] == host.id.as_str())
}

#[test]
fn a_host_that_took_its_machine_back_is_avoided_and_said_to_be_until_a_lease_goes_well() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (host, mut renter) = world.pair(2);
    let lease = rent(&renter, &host, 1, "sleep 1000", &[]);
    assert_eq!(avoided(&renter, &host), None);
    assert!(!found(&renter, &host, "").is_empty());

    let _ = host.json(&["destroy", "-y", &lease]);
    let _ = renter.reaches(&lease, "ended host_aborted");
    let told = until("the failure is counted", || avoided(&renter, &host));
    assert_eq!((told["failures"].as_u64(), told["last"].as_str()), (Some(1), Some("host_aborted")));
    assert_eq!(told["until_ms"].as_u64().unwrap() - told["last_at_ms"].as_u64().unwrap(), 300_000);

    // Left out by default, and said so; there for who asks for it by a word or by name.
    until("both asks are free again", || (found(&renter, &host, "avoided=any").len() == 2).then_some(()));
    let results = renter.json(&["search", "--storage", "1"]);
    assert_eq!(results["matched"], 0);
    let hidden = results["hidden"].as_array().unwrap();
    assert!(hidden.iter().any(|h| h["condition"] == "avoided=false" && h["count"] == 2), "{hidden:?}");
    let sentence = results["explain"]["sentence"].as_str().unwrap();
    assert!(sentence.contains("2 are of hosts that failed you lately"), "{sentence}");
    assert!(renter.asks().iter().any(|ask| ask["host_id"] == host.id.as_str() && ask["avoided"] == true));
    assert_eq!(found(&renter, &host, &format!("host_id={}", host.id)).len(), 2);

    // The ledger remembers, whatever happens to the node.
    renter.kill();
    renter.start();
    renter.meets(&host);
    let again = until("the offers are back", || avoided(&renter, &host));
    assert_eq!((&again["failures"], &again["last"]), (&told["failures"], &told["last"]));

    // Who names the ask gets it, and is warned.
    let ask = renter.ask_of(&host, 1);
    let arguments = ["rent", &ask, "--image", BUSYBOX, "--disk", "1", "-y", "--", "sh", "-c", "sleep 1000"];
    let outcome = renter.souk(&arguments, &[]);
    assert_eq!(outcome.code, 0, "{}{}", outcome.out, outcome.err);
    assert!(outcome.err.contains("failed you 1x (last: host_aborted"), "{}", outcome.err);
    let lease = souk_tests::world::lease_of(&outcome.lines());
    let _ = renter.reaches(&lease, "running");

    // A lease that goes well clears it.
    let _ = renter.json(&["destroy", "-y", &lease]);
    let _ = renter.reaches(&lease, "ended destroyed");
    until("it is forgiven", || avoided(&renter, &host).is_none().then_some(()));
    assert!(!found(&renter, &host, "").is_empty());
}
