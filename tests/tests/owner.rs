//! One owner, many machines, among real nodes: one name on the market, orders from the owner's own node, and word of a machine that
//! goes without one.
#![allow(clippy::unwrap_used)]

use serde_json::Value;
use souk_protocol::{Keypair, NetworkId, Nonce, OwnerId, Timestamp, Verified, owner::OwnerOrder};
use souk_tests::{
    node::Node,
    part::have,
    wait::{until, within},
    world::World,
};

/// How long a connection may be gone before a machine is offline, in these tests.
const OFFLINE_AFTER: &str = "2s";

/// The owner ids and prices of a host's asks, as a node sees them.
fn asks_of(node: &Node, host: &Node) -> Vec<(String, String)> {
    let asks = node.asks();
    let of_host = asks.iter().filter(|a| a["node"] == host.id.as_str());
    of_host.map(|a| (a["host_id"].as_str().unwrap().to_owned(), a["dph"].to_string())).collect()
}

fn sign(laptop: &Node, host: &Node) -> String {
    laptop.json(&["owner", "sign", &host.id])["ticket"].as_str().unwrap().to_owned()
}

fn state(node: &Node, of: &Node) -> Option<String> {
    let machines = node.json(&["host", "machines"]);
    let found = machines.as_array()?.iter().find(|m| m["node"] == of.id.as_str())?;
    found["state"].as_str().map(str::to_owned)
}

fn becomes(node: &Node, of: &Node, wanted: &str) {
    let what = format!("{} sees {} {wanted}", node.name(), of.name());
    within(souk_tests::wait::PATIENCE, &what, || (state(node, of).as_deref() == Some(wanted)).then_some(()));
}

fn host(world: &World, name: &str, first: &Node) -> Node {
    let host = world.node(name).host(1, "0.50").env("SOUK_HOST_PRICES_STORAGE_GB_MONTH", "0");
    world.watch(host.env("SOUK_OWNER_OFFLINE_AFTER", OFFLINE_AFTER).knows(&first.listen[0]).start())
}

#[test]
fn one_owner_has_one_name_gives_orders_and_misses_a_machine_that_goes() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let laptop = world.node("laptop").env("SOUK_OWNER_OFFLINE_AFTER", OFFLINE_AFTER).start();
    let (a, mut b) = (host(&world, "a", &laptop), host(&world, "b", &laptop));
    let stranger = world.node("stranger").knows(&laptop.listen[0]).start();

    let owner = laptop.json(&["owner", "init"])["owner"].as_str().unwrap().to_owned();
    assert!(owner.starts_with("owner"), "{owner}");
    assert_eq!(laptop.json(&["owner", "init"])["created"], false);
    for host in [&a, &b] {
        let joined = host.json(&["owner", "join", &sign(&laptop, host)]);
        assert_eq!((joined["owner"].as_str(), joined["has_key"].as_bool()), (Some(owner.as_str()), Some(false)));
    }
    // A ticket is for one node.
    let (code, message) = a.refused(&["owner", "join", &sign(&laptop, &b)]);
    assert_eq!(code, "bad_request", "{message}");

    let named = |host: &Node| asks_of(&stranger, host).first().is_some_and(|(id, _)| *id == owner);
    until("a stranger sees one owner", || (named(&a) && named(&b)).then_some(()));
    let by_owner = stranger.json(&["search", &format!("host_id={owner}")]);
    assert_eq!(by_owner["rows"].as_array().unwrap().len(), 2);
    for node in [&laptop, &a] {
        becomes(node, &b, "online");
    }

    // The owner's node changes all prices, and then one.
    let results = laptop.json(&["host", "list", "--price", "0.80", "--machine", "all"]);
    let results = results.as_array().unwrap();
    assert_eq!(results.len(), 2, "{results:?}");
    assert!(results.iter().all(|r| r["error"].is_null() && r["done"]["prices"]["slot_hour"] == "0.8"), "{results:?}");
    let priced = |host: &Node, price: &str| asks_of(&stranger, host).first().is_some_and(|(_, p)| p == price);
    until("both have the new price", || (priced(&a, "0.8") && priced(&b, "0.8")).then_some(()));
    let machine = a.json(&["host", "show"])["machine"].as_str().unwrap().to_owned();
    let _ = laptop.json(&["host", "list", "--price", "0.90", "--machine", &machine[..8]]);
    until("one has another", || (priced(&a, "0.9") && priced(&b, "0.8")).then_some(()));

    // A machine off the market is still told to come back.
    let _ = laptop.json(&["host", "unlist", "--machine", &machine]);
    becomes(&laptop, &a, "unlisted");
    let _ = laptop.json(&["host", "list", "--machine", &machine]);
    becomes(&laptop, &a, "online");

    // Without the key there are no orders to others.
    let (code, message) = a.refused(&["host", "unlist", "--machine", "all"]);
    assert_eq!(code, "wrong_state", "{message}");
    let (code, _) = laptop.refused(&["host", "unlist", "--machine", "beef0000"]);
    assert_eq!(code, "not_found");

    // One goes without a word: its sister and the owner notice, and its return, too.
    b.kill();
    for node in [&a, &laptop] {
        becomes(node, &b, "offline");
        assert!(node.log().contains("machine_offline"), "{}", node.log());
    }
    let failed = laptop.souk(&["host", "show", "--machine", "all"], &[]);
    assert_eq!(failed.code, 1);
    let failed: Value = serde_json::from_str(&failed.out).unwrap();
    let errors: Vec<&Value> = failed.as_array().unwrap().iter().filter(|r| !r["error"].is_null()).collect();
    assert_eq!(errors.len(), 1, "{failed:#}");
    assert_eq!(errors[0]["error"]["code"], "unreachable");
    b.start();
    for node in [&a, &laptop] {
        becomes(node, &b, "online");
        assert!(node.log().contains("machine_online"), "{}", node.log());
    }
    until("it is still the owner's", || named(&b).then_some(()));

    // Dismissed, it is its own again, and obeys no more.
    let _ = laptop.json(&["owner", "dismiss", &b.id]);
    let own = |host: &Node| asks_of(&stranger, host).first().is_some_and(|(id, _)| *id == host.id);
    until("it is its own", || own(&b).then_some(()));
    assert_eq!(state(&laptop, &b), None);
    assert!(own(&b) && !own(&a));
}

#[test]
fn orders_that_are_not_the_owners_or_come_twice_change_nothing() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let laptop = world.node("laptop").start();
    let mut host = host(&world, "a", &laptop);
    let _ = laptop.json(&["owner", "init"]);
    let _ = host.json(&["owner", "join", &sign(&laptop, &host)]);
    let seed: [u8; 32] = std::fs::read(laptop.dir().join("owner.key")).unwrap().try_into().unwrap();
    let owner = Keypair::from_seed(&seed);
    let network = NetworkId::of_name("scenario");
    let made = |by: &Keypair, to: &str, order: &str, at: Timestamp| {
        let order = OwnerOrder {
            owner: OwnerId(by.node_id().0),
            to: to.parse().unwrap(),
            order: order.as_bytes().to_vec(),
            nonce: Nonce([7; 16]),
            issued_at: at,
            valid_until: Timestamp(at.0 + 60_000),
        };
        Verified::sign(order, by, &network).unwrap().to_signed()
    };
    let price = |node: &Node| node.json(&["host", "show"])["prices"]["slot_hour"].as_str().unwrap().to_owned();
    let now = souk::clock::now();
    let raise = r#"{"order":"list","request":{"slot_hour":"0.77"}}"#;
    let mut peer = souk_tests::peer::Peer::new(&network, &host.listen);
    let other = Keypair::from_seed(&[42; 32]);
    let long_ago = Timestamp(now.0 - 3_600_000);
    for (what, order) in [
        ("another owner's", made(&other, &host.id, raise, now)),
        ("for another node", made(&owner, &laptop.id, raise, now)),
        ("of long ago", made(&owner, &host.id, raise, long_ago)),
    ] {
        assert!(peer.order(&host.id, &order).is_err(), "{what}");
        assert_eq!(price(&host), "0.5", "{what}");
    }
    // Not an order a host knows: it says so, and does nothing.
    let odd = made(&owner, &host.id, r#"{"order":"exec","request":{"command":["sh"]}}"#, now);
    assert!(peer.order(&host.id, &odd).unwrap().contains("does not know that order"));
    // The owner's, brought by a stranger: carried out, once. Also not again after a restart.
    let good = made(&owner, &host.id, raise, souk::clock::now());
    assert!(peer.order(&host.id, &good).unwrap().contains("done"));
    assert_eq!(price(&host), "0.77");
    let _ = host.json(&["host", "list", "--price", "0.55"]);
    assert!(peer.order(&host.id, &good).is_err());
    host.kill();
    host.start();
    let mut peer = souk_tests::peer::Peer::new(&network, &host.listen);
    assert!(peer.order(&host.id, &good).is_err());
    assert_eq!(price(&host), "0.55");
}
