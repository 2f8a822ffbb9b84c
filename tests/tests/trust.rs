//! Trust on real nodes: who is blocked gets nothing, attestations count for those who accept them, evidence of leases is pulled
//! and moves scores, and what is false is refused.
#![allow(clippy::unwrap_used, clippy::panic)]
#![allow(clippy::wildcard_enum_match_arm, reason = "any other answer fails the test, whichever it is")]

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::Value;
use souk_network::{Multiaddr, NetworkConfig, NetworkEvent, NetworkHandle, spawn};
use souk_protocol::{
    Keypair, NetworkId, NodeId, Timestamp, Verified,
    entry::{Body, Entry},
    evidence::EvidencePage,
    message::{Request, Response},
    negotiation::RejectCode,
    opinion::Attestation,
};
use souk_tests::{
    docker::BUSYBOX,
    export::{Export, Item, read_entry},
    node::Node,
    part::have,
    wait::until,
    world::{World, rent},
};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);

fn network() -> NetworkId {
    NetworkId::of_name("scenario")
}

fn now() -> Timestamp {
    Timestamp(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap())
}

/// A peer that says whatever it is told to, and shows the evidence it is given.
struct Raw {
    runtime: Runtime,
    handle: NetworkHandle,
    key: Keypair,
    to: NodeId,
    shows: Arc<Mutex<EvidencePage>>,
    asked: Arc<Mutex<u32>>,
    stop: CancellationToken,
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Raw {
    fn meet(seed: u8, node: &Node) -> Self {
        // Only the first of a process takes effect.
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (key, stop) = (Keypair::from_seed(&[seed; 32]), CancellationToken::new());
        let (to, address): (NodeId, Multiaddr) = (node.id.parse().unwrap(), node.listen[0].parse().unwrap());
        let (shows, asked) = (Arc::new(Mutex::new(EvidencePage::default())), Arc::new(Mutex::new(0)));
        let (page, count) = (Arc::clone(&shows), Arc::clone(&asked));
        let handle = runtime.block_on(async {
            let listen = vec!["/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()];
            let config = NetworkConfig { listen, ..NetworkConfig::new(key.clone(), network()) };
            let (handle, mut events) = spawn(config, stop.clone()).unwrap();
            tokio::spawn(async move {
                while let Some(event) = events.recv().await {
                    if let NetworkEvent::Request { body, reply, .. } = event
                        && matches!(Request::from_bytes(&body), Ok(Request::Evidence { .. }))
                    {
                        *count.lock().unwrap() += 1;
                        let page = page.lock().unwrap().clone();
                        reply.send(Response::Evidence(Box::new(page)).to_bytes()).ok();
                    }
                }
            });
            handle.dial(address).await.unwrap();
            handle
        });
        Self { runtime, handle, key, to, shows, asked, stop }
    }

    fn id(&self) -> NodeId {
        self.key.node_id()
    }

    fn ask(&self, request: &Request) -> Response {
        let answer = self.runtime.block_on(self.handle.request(self.to, request.to_bytes(), PATIENCE)).unwrap();
        Response::from_bytes(&answer).unwrap()
    }

    fn page(&self) -> EvidencePage {
        match self.ask(&Request::Evidence { with: None, before: None }) {
            Response::Evidence(page) => *page,
            other => panic!("no evidence: {other:?}"),
        }
    }

    /// The next entry of an own chain.
    fn say(&self, seq: u64, prev: Option<&Verified<Entry>>, peer: Option<NodeId>, body: Body) -> Verified<Entry> {
        let prev = prev.map(Verified::id);
        let entry = Entry { author: self.id(), seq, prev, time: now(), lease: None, peer, body };
        Verified::sign(entry, &self.key, &network()).unwrap()
    }
}

fn reputation(node: &Node, of: &str) -> Value {
    let all = node.json(&["reputation", of, "--explain"]);
    all.as_array().unwrap().first().cloned().unwrap_or_default()
}

fn found(node: &Node, query: &str) -> u64 {
    node.json(&["search", query, "--storage", "1"])["matched"].as_u64().unwrap()
}

#[test]
fn who_is_blocked_gets_no_lease_no_answer_and_no_place_in_searches() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (host, mut renter) = world.pair(1);
    let ask = renter.ask_of(&host, 1);
    let stranger = Raw::meet(11, &host);
    assert!(matches!(stranger.ask(&Request::BookSummary), Response::BookSummary { .. }));

    // By the last characters of its id, as lists print it.
    let blocked = renter.json(&["block", &host.id[host.id.len() - 8..]]);
    assert_eq!(blocked[0]["peer"], host.id.as_str());
    assert_eq!(found(&renter, ""), 0);
    let results = renter.json(&["search", "--storage", "1"]);
    let hidden = results["hidden"].as_array().unwrap();
    assert!(hidden.iter().any(|h| h["condition"] == "blocked=false" && h["count"] == 1), "{hidden:?}");
    let sentence = results["explain"]["sentence"].as_str().unwrap();
    assert!(sentence.contains("of a host that you have blocked"), "{sentence}");
    assert_eq!(found(&renter, "blocked=true"), 1);
    let (code, why) = renter.refused(&["rent", &ask, "--image", BUSYBOX, "--disk", "1", "-y"]);
    assert!(code == "rejected" && why.contains("blocked"), "{code}: {why}");

    // It is on disk, not only in memory.
    renter.kill();
    renter.start();
    renter.meets(&host);
    until("the offer is back", || (found(&renter, "blocked=true") == 1).then_some(()));
    assert_eq!(found(&renter, ""), 0);
    let (code, _) = renter.refused(&["trust", &host.id]);
    assert_eq!(code, "wrong_state", "nobody is trusted and blocked");
    let none = renter.json(&["block", &host.id, "--remove"]);
    assert_eq!(none.as_array().map(Vec::len), Some(0));
    until("it is found again", || (found(&renter, "") == 1).then_some(()));

    // A lease that is open goes on; nothing new begins.
    let lease = rent(&renter, &host, 1, "sleep 1000", &["--tick", "1s"]);
    let _ = renter.reaches(&lease, "running");
    let _ = host.json(&["block", &renter.id]);
    let _ = host.json(&["block", &stranger.id().to_string()]);
    let told = |request: &Request| match stranger.ask(request) {
        Response::Rejected(reject) => reject.code,
        other => panic!("answered: {other:?}"),
    };
    assert_eq!(told(&Request::BookSummary), RejectCode::Blocked);
    assert_eq!(told(&Request::Evidence { with: None, before: None }), RejectCode::Blocked);
    let acked = || renter.show(&lease)["acked"].clone();
    let before = acked();
    until("receipts go on", || (acked() != before).then_some(()));
    let _ = renter.json(&["destroy", "-y", &lease]);
    let _ = host.reaches(&lease, "ended destroyed");
    until("the slot is free", || (found(&renter, "") == 1).then_some(()));
    let (code, why) = renter.refused(&["rent", &ask, "--image", BUSYBOX, "--disk", "1", "-y"]);
    assert!(code == "rejected" && why.contains("blocked you"), "{code}: {why}");
}

#[test]
fn leases_of_others_are_pulled_verified_and_named() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let host = world.watch(world.node("host").host(1, "3600.00").start());
    let renter = world.node("renter").knows(&host.listen[0]).start();
    renter.meets(&host);
    // A dollar a second: what is paid for counts for something.
    let lease = rent(&renter, &host, 1, "sleep 1000", &["--tick", "1s"]);
    let much = |detail: &Value| detail["acked"].as_str().and_then(|a| a.parse::<f64>().ok()).is_some_and(|a| a >= 5.0);
    let _ = renter.finds(&lease, "some dollars", much);
    let _ = renter.json(&["destroy", "-y", &lease]);
    let _ = renter.reaches(&lease, "ended destroyed");

    // The renter's own eyes.
    let id = renter.show(&lease)["lease"].as_str().unwrap().to_owned();
    let own = until("the renter thinks better of it", || {
        let seen = reputation(&renter, &host.id);
        (seen["host"]["trust"].as_f64()? > 0.14).then_some(seen)
    });
    let reasons = own["host"]["reasons"].as_array().unwrap();
    assert!(reasons.iter().any(|r| r["lease"] == id.as_str() && r["by"] == renter.id.as_str()), "{own:#}");

    // Somebody else's, who trusts the renter: the lease is pulled from its parties.
    let watcher = world.node("watcher").knows(&host.listen[0]).knows(&renter.listen[0]).start();
    watcher.meets(&renter);
    let _ = watcher.json(&["trust", &renter.id, "--credit", "20"]);
    let seen = until("the watcher has the evidence", || {
        let seen = reputation(&watcher, &host.id);
        let reasons = seen["host"]["reasons"].as_array()?;
        reasons.iter().any(|r| r["lease"] == id.as_str() && r["what"] == "success").then_some(seen)
    });
    assert_eq!(seen["leases_known"], 1, "{seen:#}");

    // The host takes its machine back: that counts against it, by its own signature.
    let broken = rent(&renter, &host, 1, "sleep 1000", &["--tick", "1s"]);
    let _ = host.json(&["destroy", "-y", &broken]);
    let _ = renter.reaches(&broken, "ended host_aborted");
    let fell = until("the failure is named", || {
        let seen = reputation(&renter, &host.id);
        let reasons = seen["host"]["reasons"].as_array()?;
        reasons.iter().any(|r| r["what"] == "host_abort" && r["admitted"] == true).then_some(seen)
    });
    assert!(fell["host"]["trust"].as_f64() < own["host"]["trust"].as_f64(), "{fell:#}");
    assert!(fell["host"]["reliability"].as_f64().unwrap() < 1.0);
    until("searches know it", || {
        let rows = renter.asks();
        let row = rows.iter().find(|r| r["host_id"] == host.id.as_str())?;
        (row["trust"] == fell["host"]["trust"]).then_some(())
    });

    // A complaint is signed, delivered, and in the lease's evidence on both sides.
    let made = renter.json(&["report", &broken, "bait", "it went away"]);
    assert_eq!((made["code"].as_str(), made["against"].as_str()), (Some("bait"), Some(host.id.as_str())));
    until("it is named, as a claim", || {
        let seen = reputation(&renter, &host.id);
        let reasons = seen["host"]["reasons"].as_array()?;
        reasons.iter().any(|r| r["what"] == "bait" && r["admitted"] == false).then_some(())
    });
    let mut files = 0;
    until("the host has it in its ledger", || {
        files += 1;
        let export = Export::of(&host, Some(&broken), &world.path().join(format!("host{files}.souk")));
        let disputes = export.items.iter().filter_map(|item| match item {
            Item::Entry(entry) => match read_entry(entry).body {
                Body::Dispute(dispute) => Some(dispute.sentence),
                _ => None,
            },
            Item::Usage(_) | Item::Ack(_) => None,
        });
        disputes.into_iter().any(|sentence| sentence == "it went away").then_some(())
    });
    // With it the lease is still what it was: it verifies from the file alone.
    let file = world.path().join(format!("host{files}.souk"));
    assert_eq!(host.souk(&["verify", &file.display().to_string()], &[]).code, 0);
}

#[test]
fn attestations_count_for_those_who_accept_them_until_they_are_withdrawn() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let host = world.watch(world.node("host").host(1, "1.00").start());
    let attester = world.node("attester").knows(&host.listen[0]).start();
    attester.meets(&host);
    let made = attester.json(&["attest", &host.id, "datacenter"]);
    assert_eq!((made["claim"].as_str(), made["about"].as_str()), (Some("datacenter"), Some(host.id.as_str())));
    until("it was delivered", || {
        let held = host.json(&["attest"]);
        held.as_array()?.iter().any(|a| a["by"] == attester.id.as_str() && a["entry"] == made["entry"]).then_some(())
    });
    let (code, _) = attester.refused(&["attest", &attester.id, "verified"]);
    assert_eq!(code, "bad_request");

    let believer = world.node("believer").knows(&host.listen[0]);
    let believer = believer.config(&format!("[trust]\nattesters = [\"{}\"]\n", attester.id));
    let mut believer = believer.start();
    let doubter = world.node("doubter").knows(&host.listen[0]).start();
    doubter.meets(&host);
    until("the believer finds it", || (found(&believer, "datacenter=true") == 1).then_some(()));
    let seen = reputation(&believer, &host.id);
    assert_eq!(seen["attested"][0], "datacenter");
    // The doubter has asked by then, and takes nobody's word.
    until("the doubter looks", || reputation(&doubter, &host.id)["computed_at_ms"].is_u64().then_some(()));
    assert_eq!(found(&doubter, "datacenter=true"), 0);

    let gone = attester.json(&["attest", &host.id, "datacenter", "--withdraw"]);
    assert_eq!(gone["withdrawn"], true);
    until("the host knows", || {
        let held = host.json(&["attest"]);
        held.as_array()?.iter().any(|a| a["withdrawn"] == true).then_some(())
    });
    // A new start asks at once.
    believer.stop();
    believer.start();
    believer.meets(&host);
    until("nobody vouches any more", || (found(&believer, "datacenter=false") == 1).then_some(()));
}

#[test]
fn false_evidence_is_refused_and_floods_are_not_answered() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (host, renter) = world.pair(1);
    let lease = rent(&renter, &host, 1, "sleep 1000", &["--tick", "1s"]);
    let acked = |detail: &Value| detail["acked"].as_str().is_some_and(|a| a != "0");
    let _ = renter.finds(&lease, "a receipt", acked);

    // What the host shows to anybody.
    let spy = Raw::meet(21, &host);
    let real = spy.page();
    assert_eq!(real.leases.len(), 1);

    // Others' leases as one's own; a bent signature; junk.
    let mut bent = real.clone();
    let bytes = souk_protocol::encode::to_bytes(&bent.leases[0].accept);
    let mut bytes = bytes;
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    bent.leases[0].accept = souk_protocol::encode::from_bytes(&bytes, bytes.len()).unwrap();
    let liars = [(22, real.clone(), "about others"), (23, bent, "does not verify")];
    for (seed, page, why) in liars {
        let liar = Raw::meet(seed, &renter);
        *liar.shows.lock().unwrap() = page;
        let id = liar.id().to_string();
        let _ = renter.json(&["reputation", &id]);
        until("it is found out", || {
            let log = renter.log();
            log.lines()
                .any(|line| line.contains(&id) && line.contains("evidence is false") && line.contains(why))
                .then_some(())
        });
        // Asked for once, and not again, however often somebody looks.
        let _ = renter.json(&["reputation", &id]);
        let _ = renter.json(&["reputation", &id]);
        assert_eq!(*liar.asked.lock().unwrap(), 1);
    }

    // Who asks without end is told to wait, and the host goes on.
    let busy = (0..40).filter(|_| {
        let answer = spy.ask(&Request::Evidence { with: None, before: None });
        matches!(answer, Response::Busy { .. })
    });
    assert!(busy.count() > 10);

    // Opinions of others, or for others, or too many.
    let genesis = spy.say(0, None, None, Body::Genesis { network: network() });
    let claim = |n: u32| Attestation { claim: format!("c{n}"), until: None, withdrawn: false };
    let other: NodeId = renter.id.parse().unwrap();
    let stray = spy.say(1, Some(&genesis), Some(other), Body::Attestation(claim(0)));
    let told = |entry: &Verified<Entry>| spy.ask(&Request::Opinion { entry: entry.to_signed() });
    assert!(matches!(told(&stray), Response::Rejected(r) if r.code == RejectCode::Malformed));
    let mut last = genesis;
    let mut kept = 0;
    for n in 1..=20 {
        let next = spy.say(u64::from(n), Some(&last), Some(spy.to), Body::Attestation(claim(n)));
        kept += u32::from(matches!(told(&next), Response::Noted));
        last = next;
    }
    assert_eq!(kept, souk_protocol::machine::opinions::OF_PEER);
    let _ = renter.json(&["destroy", "-y", &lease]);
    let _ = host.reaches(&lease, "ended destroyed");
}
