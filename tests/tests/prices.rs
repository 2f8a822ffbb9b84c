//! Prices and conditions on real nodes: set at once and kept, by strategy, by the owner's own programs.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use serde_json::Value;
use souk_tests::{docker::BUSYBOX, node::Node, part::have, program::Outcome, wait::until, world::World};

/// A script of an owner, in a world's folder.
fn script(world: &World, name: &str, body: &str) -> String {
    let path: PathBuf = world.path().join(name);
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

fn rent(renter: &Node, ask: &str, more: &[&str]) -> Outcome {
    let rent = ["rent", ask, "--image", BUSYBOX, "--disk", "1", "-d", "-y"];
    renter.souk(&[&rent[..], more, &["--", "sleep", "600"]].concat(), &[])
}

/// The price agreed in a rental that must have come about; its lease is destroyed.
fn agreed(renter: &Node, outcome: &Outcome) -> String {
    assert_eq!(outcome.code, 0, "{}{}", outcome.out, outcome.err);
    let steps = outcome.lines();
    let step = |name: &str| steps.iter().find(|s| s["step"] == name).cloned().unwrap();
    let lease = step("accepted")["lease"].as_str().unwrap().to_owned();
    let _ = renter.json(&["destroy", "-y", &lease]);
    step("drafted")["price_hour"].as_str().unwrap().to_owned()
}

fn shown(node: &Node, pointer: &str) -> Value {
    node.json(&["host", "show"]).pointer(pointer).cloned().unwrap_or_default()
}

/// Waits until the renter's search has this host's one-slot ask at this price.
fn seen_at(renter: &Node, host: &Node, price: f64) {
    until("the price is seen", || {
        let asks = renter.asks();
        let ask = asks.iter().find(|a| a["host_id"] == host.id.as_str() && a["slots"] == 1)?;
        (ask["dph"].as_f64() == Some(price)).then_some(())
    });
}

#[test]
fn prices_change_at_once_are_kept_and_must_fit() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let host = world.node("host").host(2, "1.00").env("SOUK_HOST_PRICES_STORAGE_GB_MONTH", "0");
    let mut host = world.watch(host.start());
    let renter = world.node("renter").knows(&host.listen[0]).start();
    seen_at(&renter, &host, 1.0);

    let view = host.json(&["host", "price", "--gpu-price", "0.5", "--min-bid", "0.2", "--reserved-discount", "12.5"]);
    assert_eq!(view["prices"]["slot_hour"], "0.50");
    assert_eq!(
        (view["prices"]["min_bid"].as_str(), view["prices"]["reserved_discount"].as_u64()),
        (Some("0.20"), Some(125))
    );
    seen_at(&renter, &host, 0.5);

    // What contradicts itself or does not fit changes nothing.
    for (wrong, word) in [
        (&["--price", "0.1"][..], "min_bid"),
        (&["--price", "18446744073"], "fit"),
        (&["--storage-price", "18446744073"], "fit"),
        (&["--up-price", "18446744073"], "fit"),
        (&["--strategy", "market"], "bounds"),
        (&["--strategy", "market", "--min", "2", "--max", "1"], "above"),
        (&["--strategy", "command"], "command"),
    ] {
        let (code, sentence) = host.refused(&[&["host", "price"][..], wrong].concat());
        assert_eq!(code, "bad_request", "{wrong:?}");
        assert!(sentence.contains(word), "{wrong:?}: {sentence}");
    }
    assert_eq!(host.json(&["host", "price"])["prices"]["slot_hour"], "0.50");

    // It survives the process, and a gift is a price.
    host.kill();
    host.start();
    assert_eq!(shown(&host, "/prices/slot_hour"), "0.50");
    let _ = host.json(&["host", "price", "--price", "0", "--min-bid", "0"]);
    seen_at(&renter, &host, 0.0);
    let outcome = rent(&renter, &renter.ask_of(&host, 1), &[]);
    assert_eq!(agreed(&renter, &outcome), "0.00");

    // Unlisted stays unlisted.
    let _ = host.json(&["host", "unlist"]);
    assert_eq!(host.json(&["host", "price", "--price", "0.3"])["role"], "unlisted");
}

#[test]
fn a_program_says_the_price_and_where_it_fails_the_listed_one_holds() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (host, renter) = world.pair(2);
    let asked = world.path().join("asked.json");
    let half = format!("cat > {}; echo 0.5", asked.display());
    let command = script(&world, "half", &half);
    let _ = host.json(&["host", "price", "--strategy", "command", "--command", &command]);
    let ask = renter.ask_of(&host, 2);
    let outcome = rent(&renter, &ask, &[]);
    assert_eq!(agreed(&renter, &outcome), "1.00", "half a dollar for each of two slots");
    let question: Value = serde_json::from_slice(&fs::read(&asked).unwrap()).unwrap();
    for (key, value) in [("question", "price"), ("slot_hour", "1.00"), ("bid_hour", "2.00"), ("image", BUSYBOX)] {
        assert_eq!(question[key], value, "{question}");
    }
    assert_eq!((question["renter"].as_str(), question["slots"].as_u64()), (Some(renter.id.as_str()), Some(2)));

    // A bid below it is countered with it, exactly.
    let outcome = rent(&renter, &renter.ask_of(&host, 2), &["--price", "0.1", "--max-price", "1.5"]);
    assert!(outcome.lines().iter().any(|s| s["step"] == "countered" && s["price_hour"] == "1.00"), "{}", outcome.out);
    assert_eq!(agreed(&renter, &outcome), "1.00");

    // Never above the listed price, and the listed price whenever it says nothing that makes sense.
    let (pids, children) = (world.path().join("pids"), "trap '' TERM HUP; while :; do sleep 60; done");
    let hang = format!("for i in 1 2 3 4 5; do ({children}) & echo $! >> {}; done; {children}", pids.display());
    let bad = [
        ("dear", "echo 7", ""),
        ("garbage", "echo cheap", "cheap"),
        ("failing", "echo broken >&2; exit 3", "code 3: broken"),
        ("flood", "yes 0.1 | head -c 500000", "not the price"),
        ("hanging", hang.as_str(), "did not end"),
    ];
    for (name, body, why) in bad {
        let command = script(&world, name, body);
        let _ = host.json(&["host", "price", "--command", &command]);
        let outcome = rent(&renter, &renter.ask_of(&host, 2), &[]);
        assert_eq!(agreed(&renter, &outcome), "2.00", "{name}");
        if !why.is_empty() {
            let told = shown(&host, "/pricing/failure/sentence");
            assert!(told.as_str().unwrap_or_default().contains(why), "{name}: {told}");
            assert!(host.log().contains(why), "{name} is not in the log");
        }
    }
    let alive = |pid: &str| {
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        state.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim().starts_with('Z'))
    };
    let pids = fs::read_to_string(pids).unwrap();
    assert!(pids.lines().count() >= 5);
    until("what the hanging program left is gone", || (!pids.lines().any(alive)).then_some(()));
}

#[test]
fn the_listed_price_follows_the_others_and_market_shows_them() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let follower = world.node("follower").host(1, "1.00").env("SOUK_HOST_PRICING_EVERY", "1s");
    let mut follower = world.watch(follower.env("SOUK_HOST_PRICES_STORAGE_GB_MONTH", "0").start());
    let others = [("a", "2.00"), ("b", "2.00"), ("c", "40.00")]
        .map(|(name, price)| world.watch(world.node(name).host(1, price).knows(&follower.listen[0]).start()));
    for other in &others {
        let _ = follower.ask_of(other, 1);
    }
    let view = follower.json(&["host", "price", "--strategy", "market", "--min", "0.50", "--max", "1.80"]);
    assert_eq!(view["pricing"]["strategy"], "market");
    let near =
        |price: &Value| price.as_str().and_then(|p| p.parse::<f64>().ok()).is_some_and(|p| (1.7..=1.8).contains(&p));
    until("the price has come near its bound, half the way each time", || {
        near(&shown(&follower, "/prices/slot_hour")).then_some(())
    });
    assert_eq!(shown(&follower, "/pricing/seen/hosts"), 3);
    assert_eq!(shown(&follower, "/pricing/seen/median"), "2.00", "the dear one moves nothing");

    // Where it came to is kept.
    follower.kill();
    follower.set("SOUK_HOST_PRICING_EVERY", "1h");
    follower.start();
    assert!(near(&shown(&follower, "/prices/slot_hour")));

    // Too few comparable offers: it stays.
    let _ = follower.json(&["host", "price", "--hosts", "9"]);
    assert!(near(&shown(&follower, "/prices/slot_hour")));

    let cpu = until("all four are in the market", || {
        let view = others[0].json(&["market", "cpu"]);
        (view["models"][0]["hosts"] == 4).then(|| view["models"][0].clone())
    });
    assert_eq!(
        (cpu["machines"].as_u64(), cpu["slots_total"].as_u64(), cpu["slots_free"].as_u64()),
        (Some(4), Some(4), Some(4))
    );
    let bars: u64 = cpu["histogram"].as_array().unwrap().iter().filter_map(|b| b["hosts"].as_u64()).sum();
    assert_eq!(bars, 4);
    assert_eq!(others[0].refused(&["market", "RTX 9090"]).0, "not_found");
}

#[test]
fn who_and_what_a_host_takes_is_its_owners_word() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let body = "q=$(cat)\n\
                case $q in *'\"max_spend\":null'*) printf 'no limit, no lease\\033[2J\\nsecond line\\n'; exit 1;; esac\n\
                case $q in *'\"max_spend\":\"66.00\"'*) sleep 60;; esac\n\
                case $q in *'\"question\":\"accept\"'*'\"agreed\":{'*) exit 0;; esac; exit 2";
    let check = script(&world, "check", body);
    let host = world.node("host").host(2, "1.00").env("SOUK_HOST_ACCEPT_COMMAND", &check);
    let mut host = world.watch(host.env("SOUK_HOST_IMAGES_DENY", "evil/*").start());
    let renter = world.node("renter").knows(&host.listen[0]).start();
    let ask = renter.ask_of(&host, 1);

    let refused = |more: &[&str]| rent(&renter, &ask, more).error();
    let (code, sentence) = refused(&[]);
    assert_eq!(code, "rejected");
    assert!(sentence.ends_with("no limit, no lease[2J"), "{sentence:?}");
    assert_eq!(agreed(&renter, &rent(&renter, &ask, &["--max-spend", "50"])), "1.00");
    let (_, sentence) = refused(&["--max-spend", "66"]);
    assert!(sentence.contains("did not answer"), "{sentence}");
    assert!(shown(&host, "/conditions/failure/sentence").as_str().unwrap().contains("did not end"));

    // A ceiling that the disk alone would use up is refused before anybody is asked.
    let (code, sentence) = renter.refused(&["rent", &ask, "--image", BUSYBOX, "--max-spend", "0", "-y"]);
    assert!(code == "bad_request" && sentence.contains("leaves nothing for compute"), "{code} {sentence}");

    let evil = ["rent", &ask, "--image", "docker.io/evil/miner:1", "--disk", "1", "--max-spend", "50", "-d", "-y"];
    let (_, sentence) = renter.refused(&evil);
    assert!(sentence.contains("does not run the image"), "{sentence}");

    // Attestations and trust: said in the offer, and refused by name, since nobody has them.
    host.kill();
    host.set("SOUK_HOST_ACCEPT_ANYONE", "false");
    host.set("SOUK_HOST_ACCEPT_MIN_TRUST", "250");
    host.start();
    let outcome = until("the new offer is seen", || {
        let outcome = rent(&renter, &ask, &["--max-spend", "50"]);
        outcome.err.contains("trusted").then_some(outcome)
    });
    let (code, sentence) = outcome.error();
    assert!(code == "rejected" && sentence.contains("0.250"), "{code}: {sentence}");
}
