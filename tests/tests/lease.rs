//! One lease between two real nodes: the price, the bytes both hold, the instance's life, and what is owed.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;

use serde_json::Value;
use souk_protocol::Amount;
use souk_tests::{
    docker::{BUSYBOX, nothing_left},
    export::{Export, read_entry},
    node::{Node, state_of},
    part::have,
    program::wait,
    wait::{PATIENCE, until},
    world::{World, lease_of, rent},
};

fn amount(value: &Value) -> u128 {
    u128::from(value.as_str().unwrap().parse::<Amount>().unwrap().0)
}

fn number(value: &Value) -> u128 {
    u128::from(value.as_u64().unwrap())
}

/// What a receipt's counters cost, by the formula that is written down, rounded down once.
fn due(receipt: &Value, lease: &Value) -> u128 {
    const HOUR: u128 = 3_600_000;
    const MONTH_MB: u128 = 30 * 24 * HOUR * 1000;
    const GB: u128 = 1_000_000_000;
    let (c, r) = (&receipt["counters"], &lease["rates"]);
    let active = (number(&c["active_ms"]) - number(&c["waived_ms"])) * amount(&r["compute_hour"]);
    let disk = number(&lease["resources"]["disk_mb"]);
    let storage = number(&c["storage_ms"]) * disk * amount(&r["storage_gb_month"]);
    let bytes = number(&c["tx_bytes"]) * amount(&r["up_gb"]) + number(&c["rx_bytes"]) * amount(&r["down_gb"]);
    // Over one denominator: HOUR divides MONTH_MB; both times GB.
    (active * (MONTH_MB / HOUR) * GB + storage * GB + bytes * MONTH_MB) / (MONTH_MB * GB)
}

fn receipt(node: &Node, lease: &str) -> Value {
    node.json(&["receipts", lease])[0].take()
}

#[test]
fn a_settled_price_one_lease_for_both_and_receipts_that_anyone_can_check() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let host = world.node("host").host(2, "1.00").env("SOUK_HOST_PRICES_MIN_BID", "0.70");
    let host = host.env("SOUK_HOST_PRICING_STRATEGY", "floor");
    let host = world.watch(host.env("SOUK_HOST_PRICES_STORAGE_GB_MONTH", "900").start());
    let renter = world.node("renter").knows(&host.listen[0]).start();

    // Opens under the floor: the host asks for more, and they meet between floor and limit.
    let ask = renter.ask_of(&host, 2);
    let line = "echo hello; while :; do sleep 1; done";
    let rent = ["rent", &ask, "--image", BUSYBOX, "--disk", "1", "--price", "1.00", "--max-price", "1.80", "-y"];
    let outcome = renter.souk(&[&rent[..], &["--tick", "1s", "--label", "job", "--", "sh", "-c", line]].concat(), &[]);
    assert_eq!(outcome.code, 0, "{}{}", outcome.out, outcome.err);
    let steps = outcome.lines();
    let kinds: Vec<&str> = steps.iter().map(|s| s["step"].as_str().unwrap()).filter(|s| *s != "preparing").collect();
    let countered = kinds.iter().filter(|k| **k == "countered").count();
    assert!(countered >= 1, "no counter-offer: {kinds:?}");
    assert_eq!(kinds[kinds.len() - 4..], ["drafted", "committed", "accepted", "running"]);
    let lease = lease_of(&steps);
    let price = amount(&steps.iter().find(|s| s["step"] == "drafted").unwrap()["price_hour"]);
    assert!((1_400_000_000..=1_800_000_000).contains(&price), "{price}");

    // Both tell the same story.
    let (ours, theirs) = (renter.show(&lease), host.show(&lease));
    for key in
        ["lease", "rates", "resources", "image_digest", "ends_at_ms", "drafted_at_ms", "credit", "tick_ms", "egress"]
    {
        assert_eq!(ours[key], theirs[key], "{key}");
    }
    assert_eq!(
        (&ours["label"], ours["role"].as_str(), theirs["role"].as_str()),
        (&Value::from("job"), Some("renter"), Some("host"))
    );
    assert_eq!(amount(&ours["rates"]["compute_hour"]), price);
    let container = world.docker().inspect(&world.docker().container(&host.id));
    assert_eq!(container["State"]["Running"], true);

    // What is owed follows from the counters, and goes on.
    let first = renter.finds(&lease, "a receipt", |l| l["receipt"]["acked_n"].as_u64() >= Some(2));
    let listed = renter.json(&["ps"])[0].take();
    assert_eq!(listed["lease"], first["lease"]);
    assert!(amount(&listed["due"]) > 0, "no live cost: {listed}");
    let later = host.finds(&lease, "further receipts", |l| l["receipt"]["acked_n"].as_u64() >= Some(4));
    for shown in [&first, &later] {
        assert_eq!(amount(&shown["receipt"]["due"]), due(&shown["receipt"], shown), "{:#}", shown["receipt"]);
    }

    // The end is countersigned by both.
    let _ = renter.json(&["destroy", "-y", &lease]);
    for node in [&renter, &host] {
        node.finds(&lease, "closed by both", |l| state_of(l) == "ended destroyed" && l["receipt"]["closed"] == true);
    }
    let (ours, theirs) = (receipt(&renter, &lease), receipt(&host, &lease));
    for key in ["n", "usage", "ack", "acked_n", "due", "acked", "counters"] {
        assert_eq!(ours[key], theirs[key], "{key}");
    }
    assert_eq!(ours["due"], ours["acked"]);
    assert_eq!(amount(&ours["due"]), due(&ours, &renter.show(&lease)));
    nothing_left(world.docker(), &host);

    // Byte for byte the same documents, in two exports that hold.
    let file = |name: &str| world.path().join(name);
    let a = Export::of(&renter, Some(&lease), &file("renter.souk"));
    let b = Export::of(&host, Some(&lease), &file("host.souk"));
    for kind in ["lease_open", "lease_accept", "close", "close_ack"] {
        assert!(a.entry(kind) == b.entry(kind), "{kind} differs");
    }
    assert!(read_entry(a.entry("lease_open")).body.draft().unwrap().payload().len() > 200);
    assert!(a.last_receipt() == b.last_receipt(), "the last receipts differ");
    let _ = Export::of(&host, None, &file("all.souk"));
    for name in ["renter.souk", "host.souk", "all.souk"] {
        let verdict = renter.souk(&["verify", file(name).to_str().unwrap()], &[]);
        assert_eq!(verdict.code, 0, "{name}: {}{}", verdict.out, verdict.err);
    }
    for node in [&renter, &host] {
        assert_eq!(node.json(&["ledger", "check"])["faults"], Value::Array(Vec::new()));
    }

    // A flipped bit anywhere is found and placed; a cut file is not called valid.
    let told = |bytes: &[u8]| {
        fs::write(file("bent.souk"), bytes).unwrap();
        renter.souk(&["verify", file("bent.souk").to_str().unwrap()], &[])
    };
    for (number, frame) in b.frames.iter().enumerate() {
        let mut bent = b.bytes.clone();
        let end = b.frames.get(number + 1).copied().unwrap_or(bent.len());
        let at = frame + 4 + (end - frame - 4) * (1 + number % 3) / 4;
        bent[at] ^= 1 << (number % 8);
        let outcome = told(&bent);
        assert_eq!(outcome.code, 1, "a flip in record {number} passed: {}", outcome.out);
        let text = format!("{}{}", outcome.out, outcome.err);
        assert!(text.contains("offset") || text.contains("record"), "no place is named: {text}");
    }
    assert_eq!(told(&b.bytes[..*b.frames.last().unwrap()]).code, 6);
    assert_eq!(told(&b.bytes[..b.bytes.len() - 7]).code, 6);
}

#[test]
fn refusals_say_why() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let host =
        world.node("host").host(1, "1.00").env("SOUK_HOST_ACCEPT_ANYONE", "false").env("SOUK_HOST_EGRESS", "none");
    let host = world.watch(host.env("SOUK_HOST_MAX_TERM", "2h").env("SOUK_HOST_REGISTRIES", "127.0.0.1:9").start());
    let renter = world.node("renter").knows(&host.listen[0]).start();
    let ask = until("the ask is known", || {
        renter.asks().iter().find(|a| a["host_id"] == host.id.as_str()).map(|a| a["id"].as_str().unwrap().to_owned())
    });
    let try_rent = |options: &[&str]| {
        let base = ["rent", &ask, "-y", "-d"];
        renter.refused(&[&base[..], options].concat())
    };
    let expect = |options: &[&str], code: &str, words: &[&str]| {
        let (told, sentence) = try_rent(options);
        assert_eq!(told, code, "{sentence}");
        assert!(words.iter().all(|w| sentence.contains(w)), "{options:?}: {sentence}");
    };
    expect(&["--image", BUSYBOX, "--disk", "1"], "rejected", &["souk host accept", &renter.id]);
    let _ = host.json(&["host", "accept", &renter.id]);
    expect(&["--image", BUSYBOX, "--disk", "900000"], "rejected", &["disk"]);
    // Not in the engine, and the registry it would come from is not among those this host allows, or does not answer.
    expect(&["--image", "souk-scenario/nothing:1", "--disk", "1"], "rejected", &["docker.io"]);
    expect(&["--image", "elsewhere.example/x:1", "--disk", "1"], "rejected", &["elsewhere.example"]);
    expect(&["--image", "127.0.0.1:9/some/thing:1", "--disk", "1"], "rejected", &["registr"]);
    expect(&["--image", "UPPER//x", "--disk", "1"], "rejected", &["image"]);
    expect(&["--image", BUSYBOX, "--disk", "1", "--egress", "internet"], "rejected", &["egress"]);
    expect(&["--image", BUSYBOX, "--disk", "1", "--for", "3h"], "rejected", &["term", "at most"]);
    expect(&["--image", BUSYBOX, "--disk", "1", "--price", "0.10", "--max-price", "0.20"], "price", &["0.2"]);
    expect(&["--image", BUSYBOX, "--disk", "1", "--price", "0.40", "--max-price", "0.20"], "price", &["0.2"]);

    // All slots are rented: whoever comes now is told.
    let rented = rent(&renter, &host, 1, "sleep 600", &[]);
    expect(&["--image", BUSYBOX, "--disk", "1"], "rejected", &["free"]);
    assert_eq!(renter.refused(&["rent", "00ff00ff", "--image", BUSYBOX, "-y"]).0, "not_found");

    // Nothing of all this is on record but the one lease.
    assert_eq!(renter.json(&["ps", "-a"]).as_array().unwrap().len(), 1);
    let _ = renter.json(&["destroy", "-y", &rented]);
    nothing_left(world.docker(), &host);
}

#[test]
fn an_instance_lives_stops_starts_and_leaves_nothing() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (host, renter) = world.pair(1);
    let line = "trap 'echo bye; exit 9' TERM; echo begun; while :; do sleep 0.1; done";
    let lease = rent(&renter, &host, 1, line, &["--env", "GREETING=hi there", "--label", "life"]);

    // Exit codes, both outputs, and input to its end.
    let exec = |arguments: &[&str], input: &[u8]| {
        let mut command = renter.command(&[]);
        command.args(arguments);
        souk_tests::program::run(&mut command, input)
    };
    let shell = |line: &str| exec(&["exec", "life", "--", "sh", "-c", line], &[]);
    assert_eq!(shell("exit 7").code, 7);
    assert_eq!(shell("kill -9 $$").code, 137);
    let both = shell("echo $GREETING; echo err >&2");
    assert_eq!((both.code, both.out.as_str(), both.err.as_str()), (0, "hi there\n", "err\n"));
    let big: Vec<u8> = (0..3_000_000_u32).map(|i| b'a' + (i % 23) as u8).collect();
    let echoed = exec(&["exec", "-i", "life", "--", "cat"], &big);
    assert!(echoed.code == 0 && echoed.out.as_bytes() == big, "3 MB through cat came back as {}", echoed.out.len());
    assert_eq!(shell("no-such-program-here").code, 127);
    assert_eq!(exec(&["exec", "nobody", "--", "true"], &[]).code, 125);
    assert_eq!(exec(&["exec", "life", "--", "/no/such"], &[]).code / 125, 1, "126, 127 or 125");

    // A reader who follows sees what is said at the end, and waits for more.
    let followed = world.path().join("followed");
    let into = fs::File::create(&followed).unwrap();
    let mut follower = renter.command(&["logs", "-f", &lease]).stdout(into).spawn().unwrap();
    let stopped = renter.json(&["stop", &lease]);
    let stopped = stopped.as_array().map_or(&stopped, |all| &all[0]);
    assert_eq!(state_of(stopped), "paused stopped");
    for node in [&host, &renter] {
        node.finds(&lease, "its exit code", |l| state_of(l) == "paused stopped" && l["exit_code"] == 9);
    }
    assert!(host.locks_free(), "a stopped instance holds its slot");
    assert_ne!(shell("true").code, 0, "an exec in a stopped instance");

    // Stopped, it costs no compute; started again, it runs again, with its disk.
    let active = |node: &Node| number(&receipt(node, &lease)["counters"]["active_ms"]);
    let before = active(&host);
    let _ = renter.json(&["start", &lease]);
    renter.reaches(&lease, "running");
    assert_eq!(renter.show(&lease)["starts"], 2);
    assert!(active(&host) < before + 10_000);
    let logs = until("it has begun twice", || {
        let outcome = exec(&["logs", &lease], &[]);
        (outcome.out.matches("begun").count() == 2).then_some(outcome.out)
    });
    assert!(logs.contains("bye"), "{logs}");
    let _ = renter.json(&["start", &lease]);
    assert_eq!(renter.show(&lease)["starts"], 2, "what runs is not started once more");
    // What is not read when the instance is destroyed is gone with it.
    let followed = until("its reader has both", || {
        let text = fs::read_to_string(&followed).unwrap();
        (text.matches("begun").count() == 2 && text.contains("bye")).then_some(text)
    });
    assert!(!followed.contains("missing"), "{followed}");

    let _ = renter.json(&["destroy", "-y", "life"]);
    for node in [&renter, &host] {
        node.reaches(&lease, "ended destroyed");
    }
    assert_eq!(wait(&mut follower, PATIENCE), Some(0));
    nothing_left(world.docker(), &host);

    // A command that ends by itself: its code is told, its output stays until it is destroyed.
    let short = rent(&renter, &host, 1, "echo done; exit 5", &[]);
    assert_eq!(renter.reaches(&short, "paused exited")["exit_code"], 5);
    assert!(exec(&["logs", &short], &[]).out.contains("done"));
    let _ = renter.json(&["destroy", "-y", &short]);
    assert_eq!(renter.refused(&["stop", &short]).0, "not_found", "what is over can't be stopped");
    nothing_left(world.docker(), &host);
    assert_eq!(host.json(&["ps"]).as_array().unwrap().len(), 0);
}

#[test]
fn a_guest_reaches_neither_host_nor_neighbour() {
    if !(have("docker") && have("nft")) {
        return;
    }
    let world = World::with_docker();
    let (host, renter) = world.pair(3);
    let none = rent(&renter, &host, 1, "sleep 600", &["--egress", "none"]);
    let serve = "while :; do echo secret | nc -l -p 8080; done";
    let neighbour = rent(&renter, &host, 1, serve, &["--egress", "internet"]);
    let guest = rent(&renter, &host, 1, "sleep 600", &["--egress", "internet"]);
    let inside = |lease: &str, line: &str| renter.souk(&["exec", lease, "--", "sh", "-c", line], &[]);

    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || listener.incoming().flatten().for_each(drop));
    let addresses = souk_tests::program::must("ip", &["-4", "-o", "addr", "show"]);
    let own: Vec<String> = addresses
        .lines()
        .filter_map(|l| l.split_whitespace().nth(3)?.split('/').next().map(str::to_owned))
        // Bridges come and go beside this test.
        .filter(|a| !a.starts_with("127.") && std::net::TcpStream::connect((a.as_str(), port)).is_ok())
        .collect();
    assert!(!own.is_empty());

    // With no network there is the loopback and nothing else.
    let links = inside(&none, "ls /sys/class/net").ok();
    assert_eq!(links.split_whitespace().collect::<Vec<_>>(), ["lo"]);

    let gateway = inside(&guest, "ip route | sed -n 's/default via \\([0-9.]*\\).*/\\1/p'").ok().trim().to_owned();
    assert!(!gateway.is_empty(), "egress internet has no route at all");
    let ip = inside(&neighbour, "ip -4 -o addr show eth0 | sed 's/.*inet \\([0-9.]*\\).*/\\1/'").ok().trim().to_owned();
    let fetch = |lease: &str| inside(lease, &format!("nc -w 2 {ip} 8080 < /dev/null")).out;
    until("the neighbour's server works", || (fetch(&neighbour) == "secret\n").then_some(()));
    for address in own.iter().chain([&gateway]) {
        for lease in [&guest, &none] {
            let reached = inside(lease, &format!("nc -w 1 {address} {port} < /dev/null"));
            assert_ne!(reached.code, 0, "{address}:{port} was reached");
            assert_ne!(inside(lease, &format!("ping -c 1 -W 1 {address}")).code, 0, "{address} answers a ping");
        }
    }
    assert_eq!(fetch(&guest), "", "a neighbour was reached");
    assert_ne!(inside(&guest, "nc -w 1 169.254.169.254 80 < /dev/null").code, 0, "the metadata address was reached");
    let sockets = inside(
        &guest,
        "find / -xdev -name docker.sock; (echo mine > /proc/sys/kernel/hostname) 2>/dev/null && echo writable",
    );
    assert_eq!(sockets.out, "");

    for lease in [&none, &neighbour, &guest] {
        let _ = renter.json(&["destroy", "-y", lease]);
    }
    nothing_left(world.docker(), &host);
}
