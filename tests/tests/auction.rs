//! Slots that renters contend for, between real nodes and on the real engine: bids, notices, fixed prices that go first, and a
//! slot that is never two renters' at once.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use serde_json::Value;
use souk_protocol::Amount;
use souk_tests::{
    docker::{BUSYBOX, nothing_left},
    export::Export,
    node::{Node, Setup, state_of},
    part::have,
    wait::until,
    watch::Watch,
    world::{World, lease_of},
};

const WORK: &str = "trap 'echo bye; exit 9' TERM; echo begun; while :; do sleep 0.1; done";

fn amount(value: &Value) -> u64 {
    value.as_str().unwrap_or_else(|| panic!("no amount: {value}")).parse::<Amount>().unwrap().0
}

fn price(text: &str) -> u64 {
    text.parse::<Amount>().unwrap().0
}

/// A host of one slot: $1.00, bids from $0.05, two seconds of notice.
fn host(world: &World, quantum: &str) -> Setup {
    let host = world.node("host").host(1, "1.00").env("SOUK_HOST_PRICES_MIN_BID", "0.05");
    host.env("SOUK_HOST_EVICTION_NOTICE", "2s").env("SOUK_HOST_QUANTUM", quantum)
}

fn renter(world: &World, name: &str, host: &Node) -> Node {
    let renter = world.node(name).knows(&host.listen[0]).start();
    renter.meets(host);
    renter
}

fn arguments<'a>(ask: &'a str, options: &[&'a str]) -> Vec<&'a str> {
    let base = ["rent", ask, "--image", BUSYBOX, "--disk", "1", "--tick", "1s", "-y"];
    [&base[..], options, &["--", "sh", "-c", WORK]].concat()
}

/// Rents, and returns once the lease exists.
fn take(renter: &Node, ask: &str, options: &[&str]) -> String {
    let outcome = renter.souk(&arguments(ask, &[options, &["-d"]].concat()), &[]);
    assert_eq!(outcome.code, 0, "{}{}", outcome.out, outcome.err);
    lease_of(&outcome.lines())
}

fn event<'a>(lease: &'a Value, what: &str) -> Option<&'a Value> {
    lease["events"].as_array().unwrap().iter().rev().find(|e| e["what"] == what)
}

/// What a bid for the one slot has to be now.
fn to_win(renter: &Node, ask: &str) -> Value {
    let told = renter.json(&["quote", ask]);
    assert_eq!(told["slices"].as_array().unwrap().len(), 1);
    told["slices"][0].clone()
}

/// Time in which a lease ran, by its events.
fn ran(lease: &Value) -> u64 {
    let mut since = None;
    let mut total = 0;
    for event in lease["events"].as_array().unwrap() {
        let at = event["at_ms"].as_u64().unwrap();
        match (since, event["state"] == "running") {
            (None, true) => since = Some(at),
            (Some(from), false) => {
                total += at - from;
                since = None;
            }
            (None, false) | (Some(_), true) => {}
        }
    }
    total
}

/// Both sides hold the same last receipt, and what they export holds.
fn agree(world: &World, host: &Node, renter: &Node, lease: &str) -> Value {
    for node in [renter, host] {
        node.finds(lease, "closed by both", |l| l["state"] == "ended" && l["receipt"]["closed"] == true);
    }
    let receipt = |node: &Node| node.json(&["receipts", lease])[0].take();
    let (ours, theirs) = (receipt(renter), receipt(host));
    for key in ["n", "usage", "ack", "acked_n", "due", "acked", "counters"] {
        assert_eq!(ours[key], theirs[key], "{key}");
    }
    assert_eq!(ours["due"], ours["acked"]);
    let file = world.path().join(format!("{lease}.souk"));
    for node in [renter, host] {
        let _ = std::fs::remove_file(&file);
        let _ = Export::of(node, Some(lease), &file);
        let verdict = renter.souk(&["verify", file.to_str().unwrap()], &[]);
        assert_eq!(verdict.code, 0, "{}{}", verdict.out, verdict.err);
        assert_eq!(node.json(&["ledger", "check"])["faults"], Value::Array(Vec::new()));
    }
    ours
}

#[test]
fn three_renters_have_one_slot_in_turn() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let host = world.watch(host(&world, "0s").start());
    let [anna, bert, carl] = ["anna", "bert", "carl"].map(|name| renter(&world, name, &host));
    let watch = Watch::over(world.docker(), &host);
    let ask = anna.ask_of(&host, 1);

    // Nobody is there: the lowest bid wins. Then one more than the one who runs.
    let slice = to_win(&anna, &ask);
    assert_eq!((amount(&slice["to_win"]), amount(&slice["min_bid"])), (price("0.05"), price("0.05")));
    assert_eq!((amount(&slice["on_demand"]), &slice["bids"]), (price("1.00"), &Value::from(0)));
    let a = take(&anna, &ask, &["--bid", "0.10"]);
    anna.reaches(&a, "running");
    assert_eq!(amount(&to_win(&bert, &ask)["to_win"]), price("0.10") + 1);

    // A higher bid: notice, then the slot changes hands.
    let b = take(&bert, &ask, &["--type", "bid", "--bid", "0.20"]);
    let warned = anna.finds(&a, "a notice", |l| event(l, "eviction_notice").is_some());
    if warned["state"] == "running" {
        assert_eq!(
            (&warned["eviction"]["winner"], amount(&warned["eviction"]["slot_hour"])),
            (&Value::from(b.as_str()), price("0.20"))
        );
    }
    let outbid = anna.finds(&a, "outbid, with its place", |l| state_of(l) == "paused outbid" && !l["place"].is_null());
    let notice = event(&outbid, "eviction_notice").unwrap();
    let note = notice["note"].as_str().unwrap();
    assert!(note.contains(&b[..16]) && note.contains("0.2"), "{note}");
    assert_eq!((&notice["by"], &notice["state"]), (&Value::from("market"), &Value::from("running")));
    let ended = anna.finds(&a, "the end of its processes", |l| event(l, "exited").is_some());
    assert_eq!(
        (&event(&ended, "exited").unwrap()["by"], &ended["exit_code"]),
        (&Value::from("market"), &Value::from(9))
    );
    let paused = outbid["events"].as_array().unwrap().iter().find(|e| e["state"] == "paused").unwrap();
    let warning = paused["at_ms"].as_u64().unwrap() - notice["at_ms"].as_u64().unwrap();
    assert!(warning >= 2000, "stopped after {warning} ms");
    bert.reaches(&b, "running");
    assert_eq!(outbid["place"]["ahead"], 1);
    assert_eq!(amount(&outbid["place"]["to_win"]), price("0.20") + 1);
    assert_eq!(amount(&to_win(&carl, &ask)["to_win"]), price("0.20") + 1);

    // Who waits is told where it stands, and has not failed.
    let mut waiting = carl.command(&arguments(&ask, &["--bid", "0.06"]));
    let mut waiting = waiting.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(waiting.stdout.take().unwrap()).lines();
    let steps = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    let step = steps.take(200).find(|s| s["step"] == "waiting" && !s["lease"]["place"].is_null()).unwrap();
    assert_eq!(step["lease"]["place"]["ahead"], 2, "{step:#}");
    waiting.kill().unwrap();
    waiting.wait().unwrap();
    let low = step["lease"]["lease"].as_str().unwrap().to_owned();
    let _ = carl.json(&["destroy", "-y", &low]);
    assert_eq!(agree(&world, &host, &carl, &low)["counters"]["active_ms"], 0);

    // A fixed price goes before any bid; and no bid wins against it.
    let c = take(&carl, &ask, &[]);
    let warned = bert.finds(&b, "a notice", |l| event(l, "eviction_notice").is_some());
    assert!(event(&warned, "eviction_notice").unwrap()["note"].as_str().unwrap().contains(&c[..16]));
    carl.reaches(&c, "running");
    bert.reaches(&b, "paused outbid");
    let slice = to_win(&bert, &ask);
    assert!(slice["to_win"].is_null() && slice["on_demand"].is_null(), "{slice}");

    // While paused nothing but the disk is billed.
    let counted = |node: &Node, lease: &str| node.show(lease)["receipt"]["counters"].clone();
    let first = anna.finds(&a, "a receipt in the pause", |l| l["receipt"]["counters"]["paused_ms"].as_u64() > Some(0));
    let later = anna.finds(&a, "a later one", |l| l["receipt"]["n"].as_u64() > first["receipt"]["n"].as_u64());
    let (x, y) = (&first["receipt"], &later["receipt"]);
    assert_eq!(x["counters"]["active_ms"], y["counters"]["active_ms"]);
    let passed = y["counters"]["storage_ms"].as_u64().unwrap() - x["counters"]["storage_ms"].as_u64().unwrap();
    let disk = passed * price("0.10") / (30 * 24 * 3_600_000);
    let billed = amount(&y["due"]) - amount(&x["due"]);
    assert!(passed > 0 && billed.abs_diff(disk) <= 2, "{billed} for a disk of {disk}");

    // The one who paid the fixed price leaves: the highest bid is back by itself.
    let _ = carl.json(&["destroy", "-y", &c]);
    assert_eq!(bert.reaches(&b, "running")["starts"], 2);
    let active = counted(&anna, &a)["active_ms"].clone();
    assert_eq!(state_of(&anna.show(&a)), "paused outbid");

    // A raise overtakes, but not a tiny one; a lower bid gives way again.
    let (code, sentence) = anna.refused(&["bid", &a, "0.104"]);
    assert!(code == "bad_request" && sentence.contains("5 %"), "{code}: {sentence}");
    let (code, sentence) = anna.refused(&["bid", &a, "0.01"]);
    assert!(code == "rejected" && sentence.contains("0.05"), "{code}: {sentence}");
    let raised = anna.json(&["bid", &a, "0.30"]);
    assert_eq!(amount(&raised["terms"]["price_hour"]), price("0.30"));
    assert!(raised["place"].is_null() || raised["place"]["ahead"] == 0, "{raised:#}");
    assert_eq!(amount(&to_win(&carl, &ask)["to_win"]), price("0.30") + 1);
    assert_eq!(anna.reaches(&a, "running")["starts"], 2);
    bert.reaches(&b, "paused outbid");
    let _ = anna.json(&["bid", &a, "0.05"]);
    bert.reaches(&b, "running");
    // A bid raised while it is being evicted keeps the slot, if it is the highest before the notice is over.
    let _ = anna.json(&["bid", &a, "0.30"]);
    bert.finds(&b, "a notice that runs", |l| !l["eviction"].is_null() || state_of(l) == "paused outbid");
    let _ = bert.json(&["bid", &b, "0.40"]);
    bert.reaches(&b, "running");
    let _ = anna.json(&["bid", &a, "0.05"]);
    assert_eq!(anna.finds(&a, "its place", |l| !l["place"].is_null())["place"]["ahead"], 1);
    assert!(counted(&anna, &a)["active_ms"].as_u64() > active.as_u64(), "its second run is counted");

    // Who is left has it.
    let _ = bert.json(&["destroy", "-y", &b]);
    assert_eq!(anna.reaches(&a, "running")["starts"], 3);
    let begun = until("it has begun three times", || {
        let logs = anna.souk(&["logs", &a], &[]).out;
        (logs.matches("begun").count() == 3).then_some(logs)
    });
    assert_eq!(begun.matches("bye").count(), 2, "each time it was asked to end: {begun}");
    let _ = anna.json(&["destroy", "-y", &a]);

    for (node, lease) in [(&anna, &a), (&bert, &b), (&carl, &c)] {
        let receipt = agree(&world, &host, node, lease);
        let (counted, shown) = (receipt["counters"]["active_ms"].as_u64().unwrap(), ran(&host.show(lease)));
        assert_eq!(counted, shown, "billed as it ran");
    }
    assert_eq!(watch.most(), 1, "containers that ran at once on one slot");
    nothing_left(world.docker(), &host);
}

#[test]
fn a_run_that_others_cut_short_is_free() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let host = host(&world, "10min").env("SOUK_HOST_PRICES_STORAGE_GB_MONTH", "0.00");
    let host = world.watch(host.env("SOUK_HOST_EVICTION_NOTICE", "0s").start());
    let [anna, bert] = ["anna", "bert"].map(|name| renter(&world, name, &host));
    let ask = anna.ask_of(&host, 1);
    let a = take(&anna, &ask, &["--bid", "0.50"]);
    anna.reaches(&a, "running");
    anna.finds(&a, "some receipts of the run", |l| l["receipt"]["n"].as_u64() >= Some(2));

    let b = take(&bert, &ask, &["--bid", "0.60"]);
    bert.reaches(&b, "running");
    let cut = anna.finds(&a, "the receipt of the cut", |l| {
        state_of(l) == "paused outbid" && l["receipt"]["counters"]["active_ms"].as_u64() > Some(1000)
    });
    let counters = &cut["receipt"]["counters"];
    assert_eq!(counters["waived_ms"], counters["active_ms"], "all of it");
    assert_eq!(amount(&cut["receipt"]["due"]), 0);

    // Who goes by itself has had what it used.
    bert.finds(&b, "some time", |l| l["uptime_ms"].as_u64() > Some(1500) || l["receipt"]["n"].as_u64() > Some(2));
    let _ = bert.json(&["destroy", "-y", &b]);
    let left = agree(&world, &host, &bert, &b);
    assert_eq!(left["counters"]["waived_ms"], 0);
    assert!(left["counters"]["active_ms"].as_u64() > Some(0) && amount(&left["due"]) > 0, "{left:#}");
    anna.reaches(&a, "running");
    let _ = anna.json(&["destroy", "-y", &a]);
    agree(&world, &host, &anna, &a);
    nothing_left(world.docker(), &host);
}

#[test]
fn slots_held_by_the_host_and_maintenance_pause_and_give_back() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let mut host = world.watch(host(&world, "0s").start());
    let anna = renter(&world, "anna", &host);
    let ask = anna.ask_of(&host, 1);
    let a = take(&anna, &ask, &["--bid", "0.10"]);
    anna.reaches(&a, "running");

    // The host's own work: bids give way with notice, nobody new gets in, a restart forgets nothing.
    assert_eq!(host.refused(&["host", "hold", "2"]).0, "bad_request");
    assert_eq!(host.json(&["host", "hold", "1"])["hold"], 1);
    let outbid = anna.reaches(&a, "paused outbid");
    let notice = event(&outbid, "eviction_notice").unwrap();
    assert!(notice["by"] == "host" && notice["note"].as_str().unwrap().contains("itself"), "{notice}");
    let slice = to_win(&anna, &ask);
    assert!(slice["to_win"].is_null() && slice["on_demand"].is_null(), "{slice}");
    let (code, sentence) = anna.refused(&arguments(&ask, &["-d"]));
    assert!(code == "rejected" && sentence.contains("free"), "{sentence}");
    host.kill();
    host.start();
    anna.meets(&host);
    assert_eq!(host.json(&["host", "maintenance", "list"])["hold"], 1);
    assert_eq!(state_of(&anna.show(&a)), "paused outbid");
    let _ = host.json(&["host", "hold", "0"]);
    assert_eq!(anna.reaches(&a, "running")["starts"], 2);

    // Maintenance: announced, then nothing runs, then it goes on by itself.
    let _ = host.json(&["host", "maintenance", "add", "in 2s", "5s"]);
    let told = anna.finds(&a, "an announcement", |l| event(l, "maintenance_announced").is_some());
    assert_eq!(event(&told, "maintenance_announced").unwrap()["by"], "host");
    let paused = anna.reaches(&a, "paused maintenance");
    let (code, sentence) = anna.refused(&arguments(&ask, &["-d"]));
    assert!(code == "rejected" && sentence.contains("maintained"), "{sentence}");
    assert_eq!(anna.reaches(&a, "running")["starts"], 3);
    let active = |l: &Value| l["receipt"]["counters"]["active_ms"].as_u64().unwrap_or(0);
    assert!(active(&paused) <= ran(&host.show(&a)));
    assert_eq!(
        host.json(&["host", "maintenance", "list"])["maintenance"],
        Value::Array(Vec::new()),
        "past ones are gone"
    );
    let _ = anna.json(&["destroy", "-y", &a]);
    agree(&world, &host, &anna, &a);

    // No new contract crosses a window that is to come.
    let added = host.json(&["host", "maintenance", "add", "in 1h", "30min"]);
    let from = added["maintenance"][0]["from_ms"].as_u64().unwrap();
    assert_eq!(host.refused(&["host", "maintenance", "add", "in 80min", "1h"]).0, "bad_request");
    let (code, sentence) = anna.refused(&arguments(&ask, &["--for", "2h", "-d"]));
    assert!(code == "rejected" && sentence.contains("at most"), "{sentence}");
    let b = take(&anna, &ask, &[]);
    assert!(anna.show(&b)["ends_at_ms"].as_u64().unwrap() <= from);
    anna.finds(&b, "a receipt", |l| l["receipt"]["acked_n"].as_u64() >= Some(1));
    assert_eq!(host.json(&["host", "maintenance", "remove", "1"])["maintenance"], Value::Array(Vec::new()));
    let _ = anna.json(&["destroy", "-y", &b]);
    agree(&world, &host, &anna, &b);
    nothing_left(world.docker(), &host);
}
