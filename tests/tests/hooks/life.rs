//! The events of a lease's whole life, on both sides, each once.

use std::collections::BTreeMap;

use serde_json::Value;
use souk_tests::{
    part::have,
    wait::{PATIENCE, until, within},
    world::{World, rent},
};

use crate::{hook, receiver::Receiver, signed_by, waiting};

#[test]
fn both_sides_hear_of_a_lease_and_of_a_host_that_goes_and_comes() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (mut host, mut renter) = world.pair(1);
    let (hosts, renters) = (Receiver::start(&[]), Receiver::start(&[]));
    let _ = host.json(&["hook", "add", "all", &format!("http://{}/", hosts.address)]);
    let _ = renter.json(&["hook", "add", "all", &format!("http://{}/", renters.address)]);
    let options = ["--tick", "1s", "--egress", "none", "--label", "job"];
    let lease = rent(&renter, &host, 1, "exec sleep 600", &options);
    let heard = |receiver: &Receiver, event: &str| {
        let what = format!("{event} is heard");
        within(PATIENCE * 2, &what, || receiver.got().into_iter().find(|r| r.json()["event"] == event))
    };
    let started = heard(&renters, "lease_started");
    assert!(signed_by(&renter, &started));
    let event = started.json();
    assert_eq!(
        (event["lease"].as_str(), event["data"]["label"].as_str()),
        (Some(lease.as_str()), Some("job")),
        "{event:#}"
    );
    assert_eq!((event["data"]["state"].as_str(), event["data"]["role"].as_str()), (Some("running"), Some("renter")));
    assert_eq!(heard(&hosts, "rented").json()["data"]["peer"], renter.id.as_str());

    let _ = renter.json(&["stop", &lease]);
    assert_eq!(heard(&renters, "lease_stopped").json()["data"]["reason"], "stopped");
    let _ = renter.json(&["start", &lease]);
    heard(&renters, "resumed");

    // The renter's node is killed with an event on its way, the host's with all of them: no event is lost or made twice.
    renter.kill();
    host.kill();
    renter.start();
    let away = heard(&renters, "offline").json();
    assert_eq!(away["data"]["reason"], "unreachable", "{away:#}");
    host.start();
    heard(&renters, "back_online");
    renter.reaches(&lease, "running");
    let _ = renter.json(&["destroy", "-y", &lease]);
    assert_eq!(heard(&renters, "lease_ended").json()["data"]["reason"], "destroyed");
    heard(&hosts, "lease_ended");

    for (node, receiver) in [(&host, &hosts), (&renter, &renters)] {
        until("nothing waits", || waiting(node.dir()).is_empty().then_some(()));
        assert_eq!(hook(node, "hook1")["failed"], 0);
        // What was on its way when a node was killed may have come twice: as the same event, byte for byte.
        let mut events: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for got in receiver.got() {
            let id = got.header("webhook-id").to_owned();
            let known = events.entry(id.clone()).or_insert_with(|| got.body.clone());
            assert_eq!(*known, got.body, "{id} has changed");
        }
        let mut kinds: Vec<String> = events
            .values()
            .map(|b| serde_json::from_slice::<Value>(b).unwrap()["event"].as_str().unwrap().to_owned())
            .collect();
        kinds.sort();
        println!("{}: {}", node.name(), receiver.events().join(" "));
        for event in ["lease_started", "resumed", "lease_ended"] {
            assert_eq!(kinds.iter().filter(|k| *k == event).count(), 1, "{event}: {kinds:?}");
        }
        let sided = if node.name() == "host" { &["rented"][..] } else { &["offline", "back_online"] };
        for event in sided {
            assert_eq!(kinds.iter().filter(|k| *k == event).count(), 1, "{event}: {kinds:?}");
        }
    }
}
