//! Contracts that grow, get dearer or are left early, between real nodes and on the real engine.
#![allow(clippy::unwrap_used, clippy::panic)]

use serde_json::Value;
use souk_protocol::Amount;
use souk_tests::{
    docker::nothing_left,
    export::Export,
    node::{Node, state_of},
    part::have,
    world::{World, rent},
};

const HOUR: u64 = 3_600_000;

fn amount(value: &Value) -> u64 {
    value.as_str().unwrap_or_else(|| panic!("no amount: {value}")).parse::<Amount>().unwrap().0
}

fn price(text: &str) -> u64 {
    text.parse::<Amount>().unwrap().0
}

fn ends(lease: &Value) -> u64 {
    lease["terms"]["ends_at_ms"].as_u64().unwrap()
}

fn happened(lease: &Value, what: &str) -> bool {
    lease["events"].as_array().unwrap().iter().any(|e| e["what"] == what)
}

fn verified(world: &World, host: &Node, renter: &Node, lease: &str) {
    for node in [renter, host] {
        let file = world.path().join(format!("{}-{lease}.souk", node.name()));
        let _ = Export::of(node, Some(lease), &file);
        let verdict = renter.souk(&["verify", file.to_str().unwrap()], &[]);
        assert_eq!(verdict.code, 0, "{}{}", verdict.out, verdict.err);
    }
}

#[test]
fn a_later_end_at_the_same_price_a_lower_one_or_one_agreed_on() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (host, renter) = world.pair(1);
    let lease = rent(&renter, &host, 1, "sleep 600", &["--for", "1h", "--tick", "1s", "--max-spend", "50"]);
    let end = ends(&renter.show(&lease));

    // The same price is taken at once, and both know.
    let longer = renter.json(&["extend", &lease, "2h"]);
    assert_eq!((ends(&longer), &longer["terms"]["next"]), (end + 2 * HOUR, &Value::Null));
    assert_eq!(ends(&host.show(&lease)), end + 2 * HOUR);
    assert_eq!(renter.refused(&["extend", &lease, "900h"]).0, "rejected");
    let (code, sentence) = host.refused(&["extend", &lease, "2h"]);
    assert!(code == "wrong_state" && sentence.contains("renter"), "{sentence}");

    // A dearer one only where it is agreed to; and it holds only after the end that was.
    let _ = host.json(&["host", "list", "--price", "2.00"]);
    assert_eq!(renter.refused(&["extend", &lease, "1h"]).0, "price");
    let (code, sentence) = renter.refused(&["extend", &lease, "1h", "--max-price", "1.50"]);
    assert!(code == "price" && sentence.contains("2.00") && sentence.contains("1.50"), "{sentence}");
    let dearer = renter.json(&["extend", &lease, "1h", "--max-price", "2.50"]);
    assert_eq!(ends(&dearer), end + 3 * HOUR);
    assert_eq!(amount(&dearer["terms"]["next"]["price_hour"]), price("2.00"));
    assert_eq!(dearer["terms"]["next"]["from_ms"].as_u64(), Some(end + 2 * HOUR));
    assert_eq!(amount(&dearer["terms"]["price_hour"]), price("1.00"));
    // Longer still, at what is agreed already.
    let longest = renter.json(&["extend", &lease, "1h"]);
    assert_eq!((ends(&longest), &longest["terms"]["next"]), (end + 4 * HOUR, &dearer["terms"]["next"]));

    // The ceiling goes both ways, but not below what keeping the disk costs.
    assert_eq!(amount(&renter.json(&["max-spend", &lease, "20"])["max_spend"]), price("20"));
    assert_eq!(renter.refused(&["max-spend", &lease, "0.000001"]).0, "bad_request");
    assert_eq!(renter.json(&["max-spend", &lease, "none"])["max_spend"], Value::Null);
    assert_eq!(renter.refused(&["bid", &lease, "3"]).0, "bad_request");

    // What the host asks for is taken or not.
    let asked = host.json(&["host", "extend", &lease, "1h", "--price", "2.00"]);
    assert_eq!(asked["asked"]["ends_at_ms"].as_u64(), Some(end + 5 * HOUR));
    renter.finds(&lease, "what the host asks for", |l| l["asked"]["ends_at_ms"] == asked["asked"]["ends_at_ms"]);
    let _ = renter.json(&["extend", &lease, "--decline"]);
    host.finds(&lease, "the refusal", |l| l["asked"].is_null() && happened(l, "extension_declined"));
    renter.finds(&lease, "nothing asked any more", |l| l["asked"].is_null());
    assert_eq!(renter.refused(&["extend", &lease, "--accept"]).0, "wrong_state");
    let _ = host.json(&["host", "extend", &lease, "1h", "--price", "2.00"]);
    renter.finds(&lease, "what the host asks for", |l| !l["asked"].is_null());
    assert_eq!(ends(&renter.json(&["extend", &lease, "--accept", "-y"])), end + 5 * HOUR);

    let _ = renter.json(&["destroy", "-y", &lease]);
    renter.finds(&lease, "closed", |l| state_of(l) == "ended destroyed" && l["receipt"]["closed"] == true);
    assert_eq!(ends(&renter.show(&lease)), end + 5 * HOUR, "what is over keeps its terms");
    verified(&world, &host, &renter, &lease);
    nothing_left(world.docker(), &host);
}

#[test]
fn a_dearer_price_holds_from_the_former_end_on_without_a_break() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (host, renter) = world.pair(1);
    let lease = rent(&renter, &host, 1, "sleep 600", &["--for", "20s", "--tick", "1s"]);
    let _ = host.json(&["host", "list", "--price", "2.00"]);
    let agreed = renter.json(&["extend", &lease, "1h", "--max-price", "2"]);
    assert_eq!(amount(&agreed["terms"]["price_hour"]), price("1.00"));
    for node in [&renter, &host] {
        let dear = node.finds(&lease, "the agreed price", |l| l["terms"]["price_hour"] == "2.00");
        assert_eq!((dear["state"].as_str(), &dear["starts"]), (Some("running"), &Value::from(1)));
        assert_eq!(dear["terms"]["next"], Value::Null);
    }
    let _ = renter.json(&["destroy", "-y", &lease]);
    renter.finds(&lease, "closed", |l| l["receipt"]["closed"] == true && l["receipt"]["due"] == l["receipt"]["acked"]);
    verified(&world, &host, &renter, &lease);
    nothing_left(world.docker(), &host);
}

#[test]
fn a_host_extends_as_its_renter_allowed_while_the_renter_is_away() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (host, mut renter) = world.pair(1);
    let lease = rent(&renter, &host, 1, "sleep 600", &["--for", "20s", "--extend", "30s", "--tick", "1s"]);
    let first = renter.show(&lease);
    let end = ends(&first);
    assert_eq!(first["terms"]["extend_until_ms"].as_u64(), Some(end + 30_000));
    renter.stop();
    let extended = host.finds(&lease, "a later end", |l| ends(l) > end);
    assert!(ends(&extended) <= end + 30_000 && extended["terms"]["next"].is_null());
    renter.start();
    let back = renter.finds(&lease, "the later end", |l| ends(l) >= ends(&extended));
    assert_eq!(amount(&back["terms"]["price_hour"]), price("1.00"));
    assert!(happened(&back, "amended"));

    // It may be taken back, or allowed anew.
    let off = renter.json(&["extend", &lease, "--auto", "off"]);
    assert_eq!(off["terms"]["extend_until_ms"], Value::Null);
    let on = renter.json(&["extend", &lease, "--auto", "2h"]);
    assert_eq!(on["terms"]["extend_until_ms"].as_u64(), Some(ends(&off) + 2 * HOUR));
    let _ = renter.json(&["destroy", "-y", &lease]);
    renter.finds(&lease, "closed", |l| l["receipt"]["closed"] == true);
    verified(&world, &host, &renter, &lease);
    nothing_left(world.docker(), &host);
}

#[test]
fn who_leaves_a_reserved_term_early_owes_its_discount() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let host = world.node("host").host(1, "1.00").env("SOUK_HOST_PRICES_STORAGE_GB_MONTH", "0.00");
    let host = world.watch(host.env("SOUK_HOST_PRICES_RESERVED_DISCOUNT", "200").start());
    let renter = world.node("renter").knows(&host.listen[0]).start();
    let lease =
        rent(&renter, &host, 1, "sleep 600", &["--type", "reserved", "--for", "2h", "--tick", "1s", "--label", "r"]);
    let shown = renter.finds(&lease, "some receipts", |l| l["receipt"]["acked_n"].as_u64() >= Some(2));
    assert_eq!((&shown["rental"], amount(&shown["price_hour"])), (&Value::from("reserved"), price("0.80")));
    assert_eq!(amount(&shown["terms"]["listed_hour"]), price("1.00"));
    let active = |l: &Value| l["receipt"]["counters"]["active_ms"].as_u64().unwrap();
    let cost = |hour: &str, l: &Value| price(hour) / 1000 * active(l) / (HOUR / 1000);
    assert!(amount(&shown["receipt"]["due"]).abs_diff(cost("0.80", &shown)) <= 1000, "{:#}", shown["receipt"]);

    let _ = renter.json(&["destroy", "-y", "r"]);
    for node in [&renter, &host] {
        let left =
            node.finds(&lease, "left early", |l| state_of(l) == "ended left_early" && l["receipt"]["closed"] == true);
        let due = amount(&left["receipt"]["due"]);
        assert!(due.abs_diff(cost("1.00", &left)) <= 1000, "{due} for {} ms", active(&left));
        assert_eq!(left["receipt"]["due"], left["receipt"]["acked"]);
    }
    verified(&world, &host, &renter, &lease);
    nothing_left(world.docker(), &host);
}
