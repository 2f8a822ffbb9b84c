//! What people see of leases on real nodes: names among many, events of both sides, earnings that follow from receipts.
#![allow(clippy::unwrap_used)]

use serde_json::Value;
use souk_protocol::Amount;
use souk_tests::{
    docker::BUSYBOX,
    node::{Node, state_of},
    part::have,
    wait::until,
    world::{World, lease_of},
};

fn amount(value: &Value) -> u64 {
    value.as_str().unwrap().parse::<Amount>().unwrap().0
}

fn sum(rows: &Value, of: impl Fn(&Value) -> u64) -> u64 {
    rows.as_array().unwrap().iter().map(of).sum()
}

fn rented(world: &World, renter: &Node, host: &Node, label: &str) -> String {
    world.docker().image();
    let ask = renter.ask_of(host, 1);
    let rent = ["rent", &ask, "--image", BUSYBOX, "--disk", "1", "-y", "--tick", "1s", "--label", label, "--"];
    let outcome = renter.souk(&[&rent[..], &["sh", "-c", "while :; do sleep 1; done"]].concat(), &[]);
    assert_eq!(outcome.code, 0, "{}{}", outcome.out, outcome.err);
    let steps = outcome.lines();
    let lease = lease_of(&steps);
    let accepted = steps.iter().find(|s| s["step"] == "accepted").unwrap();
    assert_eq!(accepted["number"], renter.show(&lease)["number"], "a lease keeps the number it was told by");
    lease
}

#[test]
fn names_events_and_earnings_follow_the_lease_also_after_a_crash() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let host = world.node("host").host(2, "10.00").env("SOUK_HOST_PRICES_STORAGE_GB_MONTH", "900");
    let mut host = world.watch(host.start());
    let renter = world.node("renter").knows(&host.listen[0]).start();

    // Two leases of one label: the open one is meant.
    let first = rented(&world, &renter, &host, "train");
    renter.finds(&first, "a receipt", |l| l["receipt"]["acked_n"].as_u64() >= Some(2));
    let _ = renter.json(&["destroy", "-y", "train"]);
    for node in [&renter, &host] {
        node.finds(&first, "closed by both", |l| state_of(l) == "ended destroyed" && l["receipt"]["closed"] == true);
    }
    let second = rented(&world, &renter, &host, "train");
    assert_eq!(renter.show("train")["lease"], second.as_str());
    assert_eq!((renter.show("1")["lease"].as_str(), renter.show("#2")["number"].as_u64()), (Some(&*first), Some(2)));
    assert_eq!(host.show(&second[..12])["lease"], second.as_str());

    // Pages of lists.
    let all = renter.json(&["ps", "-a"]);
    assert_eq!(all.as_array().unwrap().len(), 2);
    let newest = renter.json(&["ps", "-a", "--limit", "1"]);
    assert_eq!((newest.as_array().unwrap().len(), newest[0]["lease"].as_str()), (1, Some(&*second)));
    assert_eq!(renter.json(&["ps", "-a", "--before", "2"])[0]["lease"], first.as_str());
    assert_eq!(renter.json(&["receipts", "--before", "2"])[0]["lease"], first.as_str());
    assert_eq!(renter.json(&["ps"]).as_array().unwrap().len(), 1);

    // The host's view: the slot, the lease on it, its offer.
    let shown = host.json(&["host", "show"]);
    let held = shown["slots"].as_array().unwrap().iter().filter(|s| s["held"] == "lease").count();
    assert_eq!((held, shown["offer"]["slots_total"].as_u64()), (1, Some(2)), "{shown:#}");
    assert_eq!((shown["leases"][0]["lease"].as_str(), shown["bids"].as_array().unwrap().len()), (Some(&*second), 0));

    // Events of both leases, on both sides, in one order, that say who caused what.
    let _ = renter.json(&["stop", "train"]);
    for node in [&renter, &host] {
        node.reaches(&second, "paused stopped");
        let events = until("the stop is among all events", || {
            let events = node.json(&["events"]);
            let last = events.as_array()?.last()?.clone();
            let stopped = events.as_array()?.iter().any(|e| e["reason"] == "stopped" && e["by"] == "renter");
            let of = |lease: &str| events.as_array().unwrap().iter().filter(|e| e["lease"] == lease).count();
            let alone = |lease: &str| node.json(&["events", lease]).as_array().unwrap().len();
            // All of one lease's are among all; more may come while it is asked.
            (stopped && last["lease"] == *second && of(&first) == alone(&first) && of(&second) == alone(&second))
                .then_some(events)
        });
        let events = events.as_array().unwrap();
        let ended = events.iter().find(|e| e["state"] == "ended").unwrap();
        assert_eq!((ended["reason"].as_str(), ended["by"].as_str()), (Some("destroyed"), Some("renter")));
        assert!(events.windows(2).all(|w| w[0]["record"].as_u64() < w[1]["record"].as_u64()));
    }

    // Following the events of a lease that is over ends by itself, with the end.
    let followed = renter.souk(&["events", "-f", &first], &[]);
    assert_eq!((followed.code, followed.lines().last().unwrap()["state"].as_str()), (0, Some("ended")));

    // What was earned is what is due and acknowledged, to the unit; and the same after a crash.
    let _ = renter.json(&["destroy", "-y", "train"]);
    host.finds(&second, "closed by both", |l| state_of(l) == "ended destroyed" && l["receipt"]["closed"] == true);
    let receipts = host.json(&["receipts"]);
    let claimed = sum(&receipts, |r| amount(&r["due"]));
    let check = |host: &Node| {
        let earned = host.json(&["host", "earnings", "--days", "2"]);
        assert_eq!(sum(&earned["days"], |d| amount(&d["claimed"]["total"])), claimed, "{earned:#}");
        assert_eq!(sum(&earned["days"], |d| amount(&d["acknowledged"]["total"])), claimed, "{earned:#}");
        let total = &earned["total"][0];
        let parts = ["compute", "storage", "traffic", "other"].map(|kind| amount(&total["acknowledged"][kind]));
        assert_eq!(parts.iter().sum::<u64>(), claimed);
        assert!(parts[0] > 0 && parts[1] > 0 && parts[3] == 0, "{total:#}");
        earned
    };
    let before = check(&host);
    host.kill();
    host.start();
    assert_eq!(check(&host)["days"], before["days"]);
    // A renter earns nothing.
    assert_eq!(renter.json(&["host", "earnings"])["days"].as_array().unwrap().len(), 0);
}
