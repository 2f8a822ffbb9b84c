//! One owner, many machines, among real nodes: one name on the market, orders from the owner's own node, and word of a machine that
//! goes without one.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use souk_network::{Multiaddr, NetworkConfig, NetworkHandle, spawn};
use souk_protocol::{
    Keypair, NetworkId, Nonce, OwnerId, Signed, Timestamp, Verified,
    message::{Request, Response},
    owner::OwnerOrder,
};
use souk_tests::{
    node::Node,
    part::have,
    wait::{until, within},
    world::World,
};
use tokio::runtime::Runtime;
use tokio_util::sync::{CancellationToken, DropGuard};

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
    // A killed process's TCP connections end at once, QUIC's by their idle time.
    let host = world.node(name).tcp().host(1, "0.50").env("SOUK_HOST_PRICES_STORAGE_GB_MONTH", "0");
    world.watch(host.env("SOUK_OWNER_OFFLINE_AFTER", OFFLINE_AFTER).knows(&first.listen[0]).start())
}

#[test]
fn one_owner_has_one_name_gives_orders_and_misses_a_machine_that_goes() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let laptop = world.node("laptop").tcp().env("SOUK_OWNER_OFFLINE_AFTER", OFFLINE_AFTER).start();
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
    let by_owner = stranger.json(&["search", "--all", &format!("host_id={owner}")]);
    assert_eq!(by_owner["rows"].as_array().unwrap().len(), 2);
    for node in [&laptop, &a] {
        becomes(node, &b, "online");
    }

    // The owner's node changes all prices, and then one.
    let results = laptop.json(&["host", "list", "--price", "0.80", "--machine", "all"]);
    let results = results.as_array().unwrap();
    assert_eq!(results.len(), 2, "{results:?}");
    assert!(results.iter().all(|r| r["error"].is_null() && r["done"]["prices"]["slot_hour"] == "0.80"), "{results:?}");
    let priced = |host: &Node, price: &str| asks_of(&stranger, host).first().is_some_and(|(_, p)| p == price);
    until("both have the new price", || (priced(&a, "0.8") && priced(&b, "0.8")).then_some(()));
    let machine = a.json(&["host", "show"])["machine"].as_str().unwrap().to_owned();
    let _ = laptop.json(&["host", "list", "--price", "0.90", "--machine", &machine[..8]]);
    until("one has another", || (priced(&a, "0.9") && priced(&b, "0.8")).then_some(()));

    let _ = laptop.json(&["host", "price", "--price", "0.95", "--machine", &machine[..8]]);
    until("the price is another again", || (priced(&a, "0.95") && priced(&b, "0.8")).then_some(()));
    // Which program says prices is not for others to name.
    let by = ["host", "price", "--strategy", "command", "--command", "id", "--machine", "all"];
    let (code, message) = laptop.refused(&by);
    assert_eq!(code, "bad_request", "{message}");

    // A machine off the market is still told to come back.
    let _ = laptop.json(&["host", "unlist", "--machine", &machine]);
    becomes(&laptop, &a, "unlisted");
    let _ = laptop.json(&["host", "list", "--machine", &machine]);
    becomes(&laptop, &a, "online");

    // Memberships are renewed from the owner's node.
    let until_ms = |host: &Node| host.json(&["owner", "show"])["membership"]["valid_until_ms"].as_u64().unwrap();
    let before = until_ms(&b);
    let renewed = laptop.json(&["owner", "renew", "--for", "1000days"]);
    assert!(renewed.as_array().unwrap().iter().all(|r| r["error"].is_null()), "{renewed:#}");
    assert!(until_ms(&b) > before);

    // Without the key there are no orders to others.
    let (code, message) = a.refused(&["host", "unlist", "--machine", "all"]);
    assert_eq!(code, "wrong_state", "{message}");
    let (code, _) = laptop.refused(&["host", "unlist", "--machine", "beef0000"]);
    assert_eq!(code, "not_found");

    let earned = laptop.json(&["host", "earnings", "--days", "2", "--machine", "all"]);
    let earned = earned.as_array().unwrap();
    assert!(earned.len() == 2 && earned.iter().all(|r| r["done"]["from"].is_string()), "{earned:?}");

    let kept = laptop.json(&["host", "maintenance", "add", "in 3h", "30min", "--machine", "all"]);
    assert!(kept.as_array().unwrap().iter().all(|r| r["done"]["maintenance"].as_array().is_some_and(|w| w.len() == 1)));
    let kept = laptop.json(&["host", "maintenance", "remove", "1", "--machine", &machine[..8]]);
    assert_eq!(kept[0]["done"]["maintenance"].as_array().map(Vec::len), Some(0), "{kept:#}");

    let heard = world.path().join("heard.json");
    let line = format!("cat > {0}.new && mv {0}.new {0}", heard.display());
    let _ = a.json(&["hook", "add", "machine_offline", "--", "/bin/sh", "-c", &line]);

    // One goes without a word: its sister and the owner notice, and its return, too.
    b.kill();
    for node in [&a, &laptop] {
        becomes(node, &b, "offline");
        assert!(node.log().contains("machine_offline"), "{}", node.log());
    }
    let told = until("the hook heard of it", || std::fs::read_to_string(&heard).ok());
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((told["event"].as_str(), told["data"]["node"].as_str()), (Some("machine_offline"), Some(b.id.as_str())));
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

fn now() -> Timestamp {
    Timestamp(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap())
}

/// Somebody who brings orders.
struct Messenger {
    runtime: Runtime,
    handle: NetworkHandle,
    _stop: DropGuard,
}

impl Messenger {
    fn to(node: &Node, seed: u8) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let stop = CancellationToken::new();
        let address: Multiaddr = node.listen[0].parse().unwrap();
        let handle = runtime.block_on(async {
            let listen = vec!["/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()];
            let network = NetworkId::of_name("scenario");
            let config = NetworkConfig { listen, ..NetworkConfig::new(Keypair::from_seed(&[seed; 32]), network) };
            let (handle, mut events) = spawn(config, stop.clone()).unwrap();
            tokio::spawn(async move { while events.recv().await.is_some() {} });
            handle.dial(address).await.unwrap();
            handle
        });
        Self { runtime, handle, _stop: stop.drop_guard() }
    }

    /// What the node answers, or why it does not do it.
    fn brings(&self, to: &Node, order: &Signed<OwnerOrder>) -> Result<String, String> {
        let body = Request::Order(order.clone()).to_bytes();
        let asked = self.handle.request(to.id.parse().unwrap(), body, Duration::from_secs(20));
        let bytes = self.runtime.block_on(asked).unwrap();
        let response = Response::from_bytes(&bytes).unwrap();
        if let Response::Ordered { answer } = response {
            return Ok(String::from_utf8(answer).unwrap());
        }
        Err(format!("{response:?}"))
    }
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
    let raise = r#"{"order":"list","request":{"slot_hour":"0.77"}}"#;
    let peer = Messenger::to(&host, 50);
    let other = Keypair::from_seed(&[42; 32]);
    let long_ago = Timestamp(now().0 - 3_600_000);
    for (what, order) in [
        ("another owner's", made(&other, &host.id, raise, now())),
        ("for another node", made(&owner, &laptop.id, raise, now())),
        ("of long ago", made(&owner, &host.id, raise, long_ago)),
    ] {
        assert!(peer.brings(&host, &order).is_err(), "{what}");
        assert_eq!(price(&host), "0.50", "{what}");
    }
    // Not an order a host knows: it says so, and does nothing.
    let odd = made(&owner, &host.id, r#"{"order":"exec","request":{"command":["sh"]}}"#, now());
    assert!(peer.brings(&host, &odd).unwrap().contains("does not know that order"));
    // The owner's, brought by a stranger: carried out, once. Also not again after a restart.
    let good = made(&owner, &host.id, raise, now());
    assert!(peer.brings(&host, &good).unwrap().contains("done"));
    assert_eq!(price(&host), "0.77");
    let _ = host.json(&["host", "list", "--price", "0.55"]);
    assert!(peer.brings(&host, &good).is_err());
    host.kill();
    host.start();
    let peer = Messenger::to(&host, 51);
    assert!(peer.brings(&host, &good).is_err());
    assert_eq!(price(&host), "0.55");
}
