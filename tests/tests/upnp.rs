//! A node at home whose router maps ports: others reach it directly, and the ports are given back.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::Ipv4Addr;

use serde_json::Value;
use souk_tests::{
    homes::{Internet, Nat},
    node::Node,
    part::have_all,
    wait::until,
    world::World,
};

fn reached(node: &Node) -> Value {
    node.json(&["status"])["reachability"].clone()
}

#[test]
fn a_router_is_asked_and_others_come_directly() {
    if !have_all(&["miniupnpd", "ss"]) {
        return;
    }
    // A range that the router takes for the internet's.
    let Some(mut net) = Internet::at(Ipv4Addr::new(8, 8, 4, 0), 10, 0) else { return };
    let (public, home, other) = (net.public("pub"), net.home("host", Nat::Symmetric), net.home("rent", Nat::Symmetric));
    let router = net.maps_ports(&home);
    let world = World::new();
    let start = |name: &str, place| world.node(name).at(place);
    let first = start("public", &public).start();
    let address = first.address(&format!("{}/tcp/", public.address)).to_owned();
    let mut mapped = start("mapped", &home).knows(&address).start();
    let plain = start("plain", &other).knows(&address).start();

    // Both routers are of the kind through which no hole can be punched.
    let found = until("the node at home is reached directly", || {
        let found = reached(&mapped);
        (found["state"] == "direct").then_some(found)
    });
    let sentence = found["sentence"].as_str().unwrap();
    assert!(sentence.contains(&format!("maps 2 ports of {} to it", home.address)), "{sentence}");
    let rules = net.mapped(&home);
    assert_eq!(rules.matches("dport 7843 dnat ip to 192.168.1.2:7843").count(), 2, "{rules}");
    // Where nobody maps ports, everything is as it was.
    until("the other one comes through a relay", || (reached(&plain)["state"] == "relayed").then_some(()));
    assert!(!reached(&plain)["sentence"].as_str().unwrap().contains("UPnP"));
    until("the two are connected directly", || {
        let peers = plain.json(&["peers"]);
        let found = peers.as_array().unwrap().iter().find(|p| p["node"] == mapped.id.as_str()).cloned()?;
        let direct = found["relayed"] == false && !found["address"].as_str().unwrap().contains("p2p-circuit");
        direct.then_some(())
    });
    let metrics = mapped.json(&["metrics"]);
    let ports = metrics.as_array().unwrap().iter().find(|m| m["name"] == "souk_mapped_ports").unwrap().clone();
    assert_eq!(ports["samples"][0]["value"], 2.0, "{ports:#}");

    // Given back.
    mapped.stop();
    let rules = net.mapped(&home);
    assert!(!rules.contains("7843"), "{rules}");
    // Not asked where the owner does not want it.
    mapped.set("SOUK_NETWORK_PORT_MAPPING", "false");
    mapped.start();
    until("it comes through a relay now", || (reached(&mapped)["state"] == "relayed").then_some(()));
    assert!(!net.mapped(&home).contains("7843"));
    for node in [&first, &mapped, &plain] {
        assert!(!node.log().contains("panicked"), "{}", node.log());
    }
    drop(router);
}
