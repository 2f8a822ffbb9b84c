//! `souk ledger compact` on real nodes in the midst of a lease: every answer stays, whenever the node is killed, and the other side
//! goes on with its receipts.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    fs,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use souk_ledger::{
    commit::Ledger,
    record::{Fact, Private},
};
use souk_protocol::NetworkId;
use souk_tests::{
    node::Node,
    part::have,
    wait::{PATIENCE, poll, until},
    world::{World, rent},
};

const TICK: [&str; 2] = ["--tick", "1s"];

/// Bytes of what lies there. Files may go meanwhile.
fn bytes(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return fs::metadata(path).map_or(0, |m| m.len()) };
    entries.filter_map(Result::ok).map(|entry| bytes(&entry.path())).sum()
}

fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Gives a node's ledger a past: 12 MB of this node's own notes, each of which the next one has replaced. Weeks of receipts would
/// look no different to compaction; it begins by itself at 128 MB, which is no setting.
fn grow(node: &mut Node) {
    node.stop();
    let network = NetworkId::of_name(node.variable("SOUK_NETWORK_NAME"));
    let mut ledger = Ledger::open(&node.dir().join("ledger"), node.id.parse().unwrap(), network).unwrap();
    for n in 0..12_000_u64 {
        let value = n.to_be_bytes().repeat(128);
        ledger.stage(&Fact::Private(Private::Row { key: b"tests/past".to_vec(), value: Some(value.into()) })).unwrap();
        if n % 1000 == 999 {
            ledger.commit().unwrap();
        }
    }
    drop(ledger);
    node.start();
}

/// What a node says of a lease that is over, and of what was paid: none of it may change.
fn told(node: &Node, other: &Node, over: &str) -> Value {
    let account = node.json(&["account", &other.id]);
    let leases = account["leases"].as_array().unwrap();
    let of_it: Vec<&Value> = leases.iter().filter(|l| l["lease"] == over).collect();
    assert_eq!(of_it.len(), 1, "{account:#}");
    json!({
        "receipts": node.json(&["receipts", over]),
        "lease": of_it,
        "settlements": account["settlements"],
        "state": node.show(over)["state"],
        "events": node.show(over)["events"],
    })
}

/// Its export, whole and as a stranger sees it.
fn is_valid(node: &Node, file: &Path) {
    fs::remove_file(file).ok();
    let path = file.to_str().unwrap();
    let _ = node.json(&["ledger", "export", path]);
    let verdict = node.souk(&["verify", path], &[]);
    assert_eq!(verdict.code, 0, "{}: {}{}", node.name(), verdict.out, verdict.err);
    let check = node.json(&["ledger", "check"]);
    assert_eq!(check["faults"], json!([]), "{}: {check:#}", node.name());
}

/// Compacts, once the node may sign.
fn compact(node: &Node) -> Value {
    until("it compacts", || {
        let outcome = node.souk(&["ledger", "compact"], &[]);
        (outcome.code == 0).then(|| serde_json::from_str(&outcome.out).unwrap())
    })
}

fn number(node: &Node, lease: &str) -> u64 {
    node.show(lease)["receipt"]["acked_n"].as_u64().unwrap_or_default()
}

fn goes_on(node: &Node, lease: &str) {
    let before = number(node, lease);
    node.finds(lease, "receipts go on", |d| {
        d["state"] == "running" && d["receipt"]["acked_n"].as_u64().is_some_and(|n| n >= before + 2)
    });
}

#[test]
fn a_ledger_is_compacted_beside_a_running_lease_and_every_answer_stays() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (mut host, mut renter) = world.pair(2);
    let going = rent(&renter, &host, 1, "sleep 3600", &TICK);
    let over = rent(&renter, &host, 1, "sleep 3600", &TICK);
    renter.finds(&over, "receipts", |d| d["receipt"]["acked_n"].as_u64().is_some_and(|n| n >= 3));
    let _ = renter.json(&["destroy", "-y", &over]);
    for node in [&host, &renter] {
        node.finds(&over, "closed", |d| d["receipt"]["closed"] == true);
    }
    let _ = renter.json(&["pay", &host.id, "0.01", "--reference", "before it was compacted"]);
    until("the payment is there to be confirmed", || {
        host.json(&["account", &renter.id])["claims"].as_array().is_some_and(|c| !c.is_empty()).then_some(())
    });
    let _ = host.json(&["account", &renter.id, "--received", "0.01"]);
    until("it is answered", || {
        let settlements = renter.json(&["account", &host.id])["settlements"].clone();
        settlements.as_array().is_some_and(|s| s.iter().any(|s| s["ack_at_ms"].is_u64())).then_some(())
    });
    grow(&mut host);
    grow(&mut renter);
    goes_on(&renter, &going);

    for (node, other) in [(&host, &renter), (&renter, &host)] {
        let file = world.path().join(format!("{}.souk", node.name()));
        is_valid(node, &file);
        let (before, size) = (told(node, other, &over), bytes(&node.dir().join("ledger")));
        let done = compact(node);
        assert!(done["dropped"].as_u64() >= Some(11_999), "{done:#}");
        assert!(done["bytes_after"].as_u64() < done["bytes_before"].as_u64(), "{done:#}");
        assert!(done["checkpoint"].as_u64() > done["up_to"].as_u64(), "{done:#}");
        let now = bytes(&node.dir().join("ledger"));
        assert!(now < size, "{size} bytes before, {now} after");
        assert_eq!(told(node, other, &over), before);
        is_valid(node, &file);
    }
    // Both go on from what is left, and so after a start.
    goes_on(&renter, &going);
    for node in [&mut host, &mut renter] {
        node.kill();
        node.start();
    }
    goes_on(&renter, &going);
    let _ = renter.json(&["destroy", "-y", &going]);
    for node in [&host, &renter] {
        node.finds(&going, "closed", |d| {
            d["receipt"]["closed"] == true && d["receipt"]["due"] == d["receipt"]["acked"]
        });
        is_valid(node, &world.path().join("last.souk"));
    }
}

/// What tells how far a compaction is: a file, by the end of its name, in the journal or beside it; or time.
#[derive(Debug, Clone, Copy)]
enum Point {
    Journal(&'static str),
    Store(&'static str),
    After(Duration),
}

impl Point {
    fn is_reached(self, ledger: &Path, began: Instant) -> bool {
        let there = |of: &Path, end: &str| names(of).iter().any(|name| name.ends_with(end));
        match self {
            Self::Journal(end) => there(&ledger.join("journal"), end),
            Self::Store(end) => there(ledger, end),
            Self::After(time) => began.elapsed() >= time,
        }
    }
}

#[test]
fn a_node_that_is_killed_while_it_compacts_has_lost_nothing() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (mut host, renter) = world.pair(2);
    let going = rent(&renter, &host, 1, "sleep 3600", &TICK);
    let over = rent(&renter, &host, 1, "sleep 3600", &TICK);
    renter.finds(&over, "receipts", |d| d["receipt"]["acked_n"].as_u64().is_some_and(|n| n >= 2));
    let _ = renter.json(&["destroy", "-y", &over]);
    host.finds(&over, "closed", |d| d["receipt"]["closed"] == true);
    let (ledger, file) = (host.dir().join("ledger"), world.path().join("host.souk"));
    let expected = told(&host, &renter, &over);
    let mut cut = 0;
    for point in [
        Point::Store(".work"),
        Point::Journal(".base.new"),
        Point::Journal(".base"),
        Point::After(Duration::from_millis(5)),
        Point::After(Duration::from_millis(150)),
        Point::After(Duration::from_millis(400)),
    ] {
        grow(&mut host);
        until("it signs", || {
            (!host.json(&["status"])["problems"].to_string().contains("nothing is signed")).then_some(())
        });
        let acked = number(&host, &going);
        // What an earlier round has left is no sign of this one.
        let old = names(&ledger.join("journal"));
        let mut asked =
            host.command(&["ledger", "compact"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let began = Instant::now();
        poll(PATIENCE, || {
            let ended = asked.try_wait().unwrap().is_some();
            let fresh = names(&ledger.join("journal")) != old || !matches!(point, Point::Journal(_));
            (ended || fresh && point.is_reached(&ledger, began)).then_some(())
        })
        .unwrap_or_else(|| panic!("{point:?} was never reached"));
        host.kill();
        cut += u32::from(!asked.wait().unwrap().success());

        host.start();
        assert_eq!(told(&host, &renter, &over), expected, "killed at {point:?}");
        is_valid(&host, &file);
        let bases = names(&ledger.join("journal")).into_iter().filter(|n| n.ends_with(".base.new")).count();
        assert_eq!(bases, 0, "what was unfinished at {point:?} is gone");
        assert!(number(&host, &going) >= acked, "killed at {point:?}");
        goes_on(&renter, &going);
    }
    assert!(cut > 0, "it was never killed before the end");
    compact(&host);
    assert_eq!(told(&host, &renter, &over), expected);
    is_valid(&host, &file);
    let _ = renter.json(&["destroy", "-y", &going]);
    renter.finds(&going, "closed", |d| d["receipt"]["closed"] == true);
}

#[test]
fn what_can_not_be_compacted_is_refused_with_a_sentence() {
    let world = World::new();
    let node = world.node("alone").start();
    until("it signs", || (!node.json(&["status"])["problems"].to_string().contains("nothing is signed")).then_some(()));
    // The notes of a start may be there to be dropped; after that there is nothing.
    let refused = until("there is nothing left to drop", || {
        let outcome = node.souk(&["ledger", "compact"], &[]);
        (outcome.code != 0).then(|| outcome.error())
    });
    assert_eq!(refused.0, "wrong_state", "{refused:?}");
    assert!(refused.1.contains("nothing to drop"), "{refused:?}");
    assert_eq!(node.json(&["ledger", "check"])["faults"], json!([]));
}
