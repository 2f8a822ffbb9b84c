//! Nodes behind home routers, in network namespaces with delay and loss: found, rented, worked with, over a relay or through a hole.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::Value;
use souk_tests::{
    homes::{Internet, Nat, Place},
    node::{Node, state_of},
    part::have_all,
    wait::{until, within},
    world::{World, rent},
};

const MINUTE: Duration = Duration::from_secs(60);
const NO_NETWORK: [&str; 2] = ["--egress", "none"];

/// A public node, a host and a renter behind routers of their own.
struct Scene {
    public: Node,
    host: Node,
    host_home: Place,
    renter: Node,
    net: Internet,
    /// The last: nodes show their logs when they go.
    world: World,
}

/// The two know the public node over this transport alone.
fn scene(hosts: Nat, renters: Nat, over: &str) -> Option<Scene> {
    if !have_all(&["docker"]) {
        return None;
    }
    let mut net = Internet::new(20, 5)?;
    let (public, host_home, renter_home) = (net.public("pub"), net.home("host", hosts), net.home("rent", renters));
    let world = World::with_docker();
    let start = |name: &str, place: &Place| world.node(name).at(place);
    let public_at = public.address;
    let public = start("public", &public).start();
    let address = public.address(&format!("{public_at}/{over}/")).to_owned();
    let host = world.watch(start("host", &host_home).host(1, "1.00").knows(&address).start());
    let renter = start("renter", &renter_home).knows(&address).start();
    Some(Scene { public, host, host_home, renter, net, world })
}

fn reached(node: &Node) -> Value {
    node.json(&["status"])["reachability"].clone()
}

/// What a node knows of its connection to another.
fn link(node: &Node, other: &Node) -> Option<Value> {
    let peers = node.json(&["peers"]);
    peers.as_array().unwrap().iter().find(|p| p["node"] == other.id.as_str()).cloned()
}

fn relays(scene: &Scene) {
    until("the public node is dialled back", || (reached(&scene.public)["state"] == "direct").then_some(()));
    for node in [&scene.host, &scene.renter] {
        until("the public node relays", || {
            let found = reached(node);
            (found["state"] == "relayed" && found["relays"] == serde_json::json!([scene.public.id])).then_some(())
        });
    }
    // Its offer says so, and so does the renter's own copy of it.
    until("the offer says how its host is reached", || {
        let asks = scene.renter.asks();
        asks.iter().any(|a| a["host_id"] == scene.host.id.as_str() && a["reachability"] == "relayed").then_some(())
    });
}

/// Rents, runs a command, copies both ways, and comes to a receipt that both have signed.
fn works(scene: &Scene) -> String {
    let (renter, host) = (&scene.renter, &scene.host);
    let lease = rent(renter, host, 1, "sleep 600", &NO_NETWORK);
    until("a command runs there", || {
        (renter.souk(&["exec", &lease, "--", "echo", "hi"], &[]).out == "hi\n").then_some(())
    });
    let data: Vec<u8> = (0..3_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (there, back) = (scene.world.path().join("there"), scene.world.path().join("back"));
    fs::write(&there, &data).unwrap();
    let _ = renter.souk(&["copy", there.to_str().unwrap(), &format!("{lease}:/root/data")], &[]).ok();
    let _ = renter.souk(&["copy", &format!("{lease}:/root/data"), back.to_str().unwrap()], &[]).ok();
    assert!(fs::read(&back).unwrap() == data, "what came back is something else");
    lease
}

fn ends(scene: &Scene, lease: &str) {
    let _ = scene.renter.json(&["destroy", "-y", lease]);
    scene.renter.reaches(lease, "ended destroyed");
    until("both sides have signed the end", || {
        let (mine, theirs) = (scene.renter.json(&["receipts"]), scene.host.json(&["receipts"]));
        let closed = |r: &Value| r[0]["closed"] == true && r[0]["acked_n"] == r[0]["n"];
        (closed(&mine) && closed(&theirs) && mine[0]["n"] == theirs[0]["n"]).then_some(())
    });
}

#[test]
fn two_homes_meet_at_a_relay_and_go_direct_through_a_hole() {
    let Some(scene) = scene(Nat::Cone, Nat::Cone, "tcp") else { return };
    relays(&scene);
    let lease = works(&scene);
    // New streams go direct, and the relayed connection is let go.
    until("the two are connected directly, and only so", || {
        let (a, b) = (link(&scene.renter, &scene.host)?, link(&scene.host, &scene.renter)?);
        let direct = |l: &Value| l["relayed"] == false && !l["address"].as_str().unwrap().contains("p2p-circuit");
        (direct(&a) && direct(&b)).then_some(())
    });
    assert_eq!(scene.renter.show(&lease)["relayed"], false);
    assert_eq!(scene.renter.souk(&["exec", &lease, "--", "echo", "direct"], &[]).ok(), "direct\n");
    ends(&scene, &lease);
}

#[test]
fn where_no_hole_can_be_had_the_relay_carries_all() {
    let Some(scene) = scene(Nat::Cone, Nat::Symmetric, "tcp") else { return };
    relays(&scene);
    let lease = works(&scene);
    let found = link(&scene.renter, &scene.host).unwrap();
    assert_eq!(found["relayed"], true, "{found:#}");
    assert_eq!(scene.renter.show(&lease)["relayed"], true);
    ends(&scene, &lease);
}

#[test]
fn a_home_cut_off_for_a_minute_loses_nothing() {
    let Some(mut scene) = scene(Nat::Cone, Nat::Cone, "udp") else { return };
    relays(&scene);
    let lease = rent(
        &scene.renter,
        &scene.host,
        1,
        "while :; do date +%s; sleep 1; done",
        &["--egress", "none", "--tick", "1s"],
    );
    until("it has a receipt", || scene.renter.json(&["receipts"])[0]["n"].as_u64().filter(|n| *n > 0));
    let home = scene.host_home.clone();
    scene.net.cut(&home, true);
    let began = Instant::now();
    // Over TCP it takes two pings without an answer, and a minute is what a router needs to start anew.
    within(Duration::from_secs(120), "the renter sees that the host is away", || {
        link(&scene.renter, &scene.host).is_none().then_some(())
    });
    within(Duration::from_secs(70), "a minute is over", || (began.elapsed() >= MINUTE).then_some(()));
    scene.net.cut(&home, false);
    until("the two are connected again", || link(&scene.renter, &scene.host));
    assert_eq!(state_of(&scene.renter.show(&lease)), "running");
    until("commands run again", || {
        (scene.renter.souk(&["exec", &lease, "--", "echo", "back"], &[]).out == "back\n").then_some(())
    });
    ends(&scene, &lease);
}

#[test]
fn a_home_whose_address_changes_is_found_again() {
    let Some(mut scene) = scene(Nat::Cone, Nat::Cone, "udp") else { return };
    relays(&scene);
    let lease = rent(&scene.renter, &scene.host, 1, "sleep 600", &["--egress", "none", "--tick", "1s"]);
    until("it has a receipt", || scene.renter.json(&["receipts"])[0]["n"].as_u64().filter(|n| *n > 0));
    let old = scene.host_home.address.to_string();
    scene.net.moves(&mut scene.host_home);
    // What goes over TCP is noticed by two pings without an answer.
    within(MINUTE * 3, "the renter reaches the host elsewhere", || {
        let found = link(&scene.renter, &scene.host)?;
        (!found["address"].as_str().unwrap().contains(&old)).then_some(())
    });
    within(MINUTE * 2, "commands run again", || {
        (scene.renter.souk(&["exec", &lease, "--", "echo", "back"], &[]).out == "back\n").then_some(())
    });
    assert_eq!(state_of(&scene.renter.show(&lease)), "running");
    ends(&scene, &lease);
}
