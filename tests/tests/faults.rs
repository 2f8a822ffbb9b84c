//! What a person or a disk can get wrong on one machine: each is told in a sentence, with what helps, and nothing is overwritten.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use souk_tests::{
    node::Node,
    wait::until,
    world::World,
};

/// A start that must fail: what it says.
fn fails(node: &mut Node) -> String {
    node.launch();
    let (code, log) = node.ended();
    assert!(code == 1 || code == 2, "exit code {code}: {log}");
    assert!(!log.contains("panicked"), "{log}");
    log
}

fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "it does not say {word:?}: {text}");
    }
}

#[test]
fn one_data_directory_one_node() {
    let world = World::new();
    let node = world.node("one").start();
    let mut second = world.node("one").stopped();
    says(&fails(&mut second), &["one"]);
    assert_eq!(node.json(&["status"])["pid"], node.pid());
}

#[test]
fn keys_are_kept_private_and_never_guessed() {
    let world = World::new();
    let mut node = world.node("one").start();
    let id = node.id.clone();
    node.stop();
    let key = node.dir().join("node.key");
    let chmod = |path: &PathBuf, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    chmod(&key, 0o644);
    says(&fails(&mut node), &["node.key", "chmod 600"]);
    chmod(&key, 0o600);
    let seed = fs::read(&key).unwrap();
    fs::write(&key, &seed[..20]).unwrap();
    says(&fails(&mut node), &["node.key", "20 bytes"]);
    assert_eq!(fs::read(&key).unwrap(), &seed[..20], "a damaged key was overwritten");
    fs::write(&key, &seed).unwrap();
    chmod(&node.dir().to_owned(), 0o755);
    says(&fails(&mut node), &["chmod 700"]);
    chmod(&node.dir().to_owned(), 0o700);
    node.start();
    assert_eq!(node.id, id);
}

#[test]
fn a_wrong_setting_names_its_line_or_variable() {
    let world = World::new();
    let mut node = world.node("one").stopped();
    let file = node.dir().join("config.toml");
    let text = fs::read_to_string(&file).unwrap();
    for (lines, words) in [
        ("[host.prices]\nslot_hour = \"cheap\"\n", &["config.toml:2", "cheap"][..]),
        ("[host]\nprice = \"1\"\n", &["config.toml:2", "price"]),
        ("[host\n", &["config.toml:1"]),
        ("[network]\nname = \"No Such Name\"\n", &["network.name"]),
        ("[host.prices]\nslot_hour = \"1\"\nmin_bid = \"2\"\n", &["min_bid"]),
        ("[[host.declared_gpus]]\nmodel = \"x\"\nvram_mib = 1\ndevices = []\n", &["declared_gpus"]),
    ] {
        fs::write(&file, lines).unwrap();
        says(&fails(&mut node), words);
    }
    fs::write(&file, text).unwrap();
    node.set("SOUK_HOST_SLOTS", "many");
    says(&fails(&mut node), &["SOUK_HOST_SLOTS"]);
    node.set("SOUK_HOST_SLOTS", "2");
    node.start();
}

#[test]
fn a_damaged_ledger_is_found_and_left_as_it_is() {
    let world = World::new();
    let mut node = world.node("one").start();
    node.stop();
    let folder = node.dir().join("ledger/journal");
    let segment = fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    let good = fs::read(&segment).unwrap();
    let used = good.iter().rposition(|b| *b != 0).unwrap();
    for at in [used / 2, 2] {
        let mut bad = good.clone();
        bad[at] ^= 0x40;
        fs::write(&segment, &bad).unwrap();
        says(&fails(&mut node), &["journal"]);
        assert!(fs::read(&segment).unwrap() == bad, "the evidence was overwritten");
    }
    fs::write(&segment, &good).unwrap();
    // What is only made from it, is made anew.
    let db = node.dir().join("ledger/sled/db");
    fs::write(&db, b"no database").unwrap();
    node.start();
    assert_eq!(node.json(&["ledger", "check"])["faults"], serde_json::json!([]));
}

#[test]
fn a_taken_port_and_a_missing_engine_are_told() {
    let world = World::new();
    let first = world.node("first").start();
    for address in &first.listen {
        let mut second = world.node(if address.contains("tcp") { "tcp" } else { "quic" }).stopped();
        second.listen = vec![address.clone()];
        second.launch();
        let (code, log) = second.ended();
        assert_eq!(code, 1, "{log}");
        says(&log, &["in use", address.split("/p2p/").next().unwrap()]);
    }

    let host = world.node("host").host(1, "1.00").env("SOUK_RUNTIME_DOCKER_SOCKET", "/nonexistent/docker.sock").start();
    until("the missing engine is told", || {
        let problems = host.json(&["status"])["problems"].to_string();
        problems.contains("/nonexistent/docker.sock").then_some(())
    });
    // Nothing listens there: refused, not missing.
    let refused = world.path().join("docker.sock");
    drop(std::os::unix::net::UnixListener::bind(&refused).unwrap());
    let host = world.node("other").host(1, "1.00").env("SOUK_RUNTIME_DOCKER_SOCKET", &refused.display().to_string()).start();
    until("the refusing engine is told", || {
        let shown = host.json(&["host", "show"]);
        (!shown["problems"].to_string().is_empty() && shown["engine"]["version"].is_null()).then_some(())
    });
    assert!(host.asks().is_empty());
}

#[test]
fn commands_without_a_node_say_so() {
    let world = World::new();
    let node = world.node("one").stopped();
    for command in [&["ps"][..], &["search"], &["status"], &["destroy", "-y", "1"], &["host", "show"]] {
        let (code, sentence) = node.refused(command);
        assert_eq!(code, "unavailable", "{command:?}: {sentence}");
    }
    assert_eq!(node.souk(&["rent"], &[]).code, 2);
    assert_eq!(node.souk(&["exec", "1", "--", "true"], &[]).code, 125);
    let file = world.path().join("x");
    fs::write(&file, b"nothing of ours").unwrap();
    assert_eq!(node.souk(&["verify", file.to_str().unwrap()], &[]).code, 1);
    fs::write(&file, b"").unwrap();
    assert_eq!(node.souk(&["verify", file.to_str().unwrap()], &[]).code, 6);
    assert_ne!(node.souk(&["verify", "/nonexistent"], &[]).code, 0);
}
