//! Renters who want the same thing at the same moment, contracts that end while nobody looks, and numbers that fit nowhere.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::{Child, Stdio};

use serde_json::Value;
use souk_tests::{
    docker::{BUSYBOX, nothing_left},
    node::{Node, state_of},
    part::have,
    program::wait,
    wait::{PATIENCE, until},
    world::{World, rent},
};

/// Rounds of the race for one slot.
const ROUNDS: usize = 20;

fn leases(node: &Node) -> Vec<Value> {
    node.json(&["ps"]).as_array().unwrap().clone()
}

/// Over, and agreed on; one that was destroyed before it had a disk has no receipt.
fn closed(lease: &Value) -> bool {
    let receipt = &lease["receipt"];
    let agreed = receipt["closed"] == true && receipt["due"] == receipt["acked"];
    lease["state"] == "ended" && (agreed || receipt.is_null())
}

fn begin(renter: &Node, arguments: &[&str]) -> Child {
    let mut command = renter.command(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn of_two_who_rent_the_last_slot_at_once_one_has_it() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (host, anna) = world.pair(1);
    let bert = world.node("bert").knows(&host.listen[0]).start();
    bert.meets(&host);
    let ask = anna.ask_of(&host, 1);
    let arguments = [
        "rent", &ask, "--image", BUSYBOX, "--disk", "1", "--tick", "1s", "-y", "-d", "--egress", "none", "--", "sleep",
    ];
    let arguments = [&arguments[..], &["600"]].concat();
    for round in 0..ROUNDS {
        for renter in [&anna, &bert] {
            let _ = renter.ask_of(&host, 1);
        }
        let mut both = [&anna, &bert].map(|renter| begin(renter, &arguments));
        let codes = both.each_mut().map(|child| wait(child, PATIENCE).unwrap());
        assert!(codes == [0, 1] || codes == [1, 0], "round {round}: {codes:?}");
        let winner = if codes[0] == 0 { &anna } else { &bert };
        let there = leases(&host);
        assert_eq!(there.len(), 1, "round {round}: {there:#?}");
        assert_eq!(there[0]["peer"], winner.id.as_str(), "round {round}");
        assert!(world.docker().containers(&host.id).len() <= 1, "round {round}");
        let lease = there[0]["lease"].as_str().unwrap();
        let _ = winner.json(&["destroy", "-y", lease]);
        for node in [winner, &host] {
            node.finds(lease, "closed", closed);
        }
        until("nobody has a lease any more", || leases(&host).is_empty().then_some(()));
    }
    assert_eq!(leases(&anna).len() + leases(&bert).len(), 0, "who lost has no lease");
    nothing_left(world.docker(), &host);
}

#[test]
fn contracts_that_end_while_the_host_is_away_bill_nothing_of_it() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (mut host, mut renter) = world.pair(2);
    let one = rent(&renter, &host, 1, "sleep 600", &["--for", "6s", "--tick", "1s"]);
    let other = rent(&renter, &host, 1, "sleep 600", &["--for", "1h", "--tick", "1s"]);
    host.kill();
    // The renter may be away, too: it hears of the end later.
    renter.kill();
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let over = now() + 7000;
    until("the contract is over", || (now() > over).then_some(()));
    host.start();
    renter.start();
    renter.meets(&host);
    for node in [&host, &renter] {
        let ended = node.finds(&one, "expired", |l| state_of(l) == "paused expired");
        let active = ended["receipt"]["counters"]["active_ms"].as_u64().unwrap_or(0);
        assert!(active <= 6000, "{active} ms of a contract of 6 s are billed");
        node.reaches(&other, "running");
    }
    until("its processes are gone, and the other's are not", || {
        let filter = format!("label=souk.node={}", host.id);
        let running = world.docker().cli(&["ps", "-q", "--filter", &filter]).ok();
        (running.split_whitespace().count() == 1).then_some(())
    });
    assert_eq!(world.docker().containers(&host.id).len(), 2, "its disk is kept");
    // The slot is another's to rent.
    let next = rent(&renter, &host, 1, "sleep 600", &["--tick", "1s"]);
    let (code, sentence) = renter.refused(&["start", &one]);
    assert!(code == "wrong_state" || code == "rejected", "{code}: {sentence}");
    for lease in [&one, &other, &next] {
        let _ = renter.json(&["destroy", "-y", lease]);
    }
    for lease in [&one, &other, &next] {
        for node in [&host, &renter] {
            node.finds(lease, "closed", closed);
        }
    }
    nothing_left(world.docker(), &host);
}

#[test]
fn numbers_and_texts_that_fit_nowhere_are_refused_in_words() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let host = world.node("host").host(1, "1.00").env("SOUK_HOST_PRICES_MIN_BID", "0");
    let mut host = world.watch(host.start());
    let renter = world.node("renter").knows(&host.listen[0]).start();
    renter.meets(&host);
    // A bid of nothing is a bid, where the host takes any.
    let lease = rent(&renter, &host, 1, "sleep 600", &["--type", "bid", "--bid", "0", "--tick", "1s"]);
    assert_eq!(renter.show(&lease)["terms"]["price_hour"], "0.00");
    let huge =
        ["18446744073.709551615", "18446744073.709551616", "99999999999999999999999999999999999999", "1e30", "-1"];
    for amount in huge {
        for words in [
            vec!["bid", lease.as_str(), amount],
            vec!["extend", lease.as_str(), "1h", "--max-price", amount],
            vec!["rent", "1", "--image", BUSYBOX, "-y", "-d", "--price", amount],
            vec!["rent", "1", "--image", BUSYBOX, "-y", "-d", "--bid", amount],
        ] {
            let outcome = renter.souk(&words, &[]);
            assert!(!outcome.err.contains("panicked"), "{words:?}: {}", outcome.err);
            // The highest amount there is may be offered; what it can buy is not ours to say.
            assert!(outcome.code != 0 || amount == huge[0], "{words:?}: {}", outcome.out);
        }
        let outcome = host.souk(&["host", "price", "--price", amount], &[]);
        assert_ne!(outcome.code, 0, "{amount}: {}", outcome.out);
    }
    for time in ["18446744073709551615ms", "99999999999999999999h", "-1h"] {
        for words in [
            vec!["extend", lease.as_str(), time],
            vec!["extend", lease.as_str(), "--auto", time],
            vec!["rent", "1", "--image", BUSYBOX, "-y", "-d", "--for", time],
            vec!["rent", "1", "--image", BUSYBOX, "-y", "-d", "--disk", time],
        ] {
            let outcome = renter.souk(&words, &[]);
            assert_ne!(outcome.code, 0, "{words:?}: {}", outcome.out);
            assert!(!outcome.err.contains("panicked"), "{words:?}: {}", outcome.err);
        }
    }
    assert_ne!(host.souk(&["host", "hold", "70000"], &[]).code, 0);
    assert_eq!(host.refused(&["host", "hold", "256"]).0, "bad_request");
    // A query of 64 KiB, deep or long, is answered; one byte more is refused.
    let deep = format!("{}num_gpus>=0{}", "(".repeat(30_000), ")".repeat(30_000));
    let long = format!("num_gpus>=0{}", " or num_gpus>=0".repeat(4300));
    let over = "x".repeat(64 * 1024 + 1);
    for query in [deep.as_str(), &long, &over, &"=".repeat(64 * 1024), &"\"".repeat(64 * 1024)] {
        let outcome = renter.souk(&["search", query], &[]);
        assert!(outcome.code == 0 || outcome.code == 1 || outcome.code == 2, "{}: {}", outcome.code, outcome.err);
        assert!(outcome.err.len() < 4096, "a refusal as long as the query");
    }
    assert_ne!(renter.souk(&["search", &over], &[]).code, 0);
    assert!(host.runs());
    assert_eq!(renter.show(&lease)["terms"], host.show(&lease)["terms"]);
    let _ = renter.json(&["destroy", "-y", &lease]);
    for node in [&host, &renter] {
        node.finds(&lease, "closed", closed);
        assert_eq!(node.json(&["ledger", "check"])["faults"], serde_json::json!([]));
    }
    nothing_left(world.docker(), &host);
}
