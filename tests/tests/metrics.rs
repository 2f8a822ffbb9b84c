//! What a node tells monitoring, what the documentation says of it, and what the dashboard asks for: one list.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, fs, path::Path};

use souk_tests::{wait::until, world::World};

fn file(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).unwrap()
}

/// The names in a text that begin like figures of a node.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|w| w.starts_with("souk_") || w.starts_with("process_")).map(str::to_owned).collect()
}

#[test]
fn figures_documentation_and_dashboard_agree() {
    let world = World::new();
    let node = world.node("host").host(1, "0.10").start();
    let other = world.node("other").knows(&node.listen[0]).start();
    other.meets(&node);
    let said = node.json(&["metrics"]);
    let said: BTreeSet<String> =
        said.as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap().to_owned()).collect();
    let documented = file("docs/metrics.md");
    let rows = documented.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    assert_eq!(rows.map(str::to_owned).collect::<BTreeSet<_>>(), said);
    let dashboard: serde_json::Value = serde_json::from_str(&file("packaging/grafana-dashboard.json")).unwrap();
    let asked = names(&dashboard["panels"].to_string());
    assert!(asked.len() > 10 && asked.is_subset(&said), "asked for and not said: {:?}", asked.difference(&said));
}

#[test]
fn figures_are_the_nodes_own() {
    let world = World::new();
    let node = world.node("a").start();
    let other = world.node("b").knows(&node.listen[0]).start();
    other.meets(&node);
    let figure = |name: &str| {
        let all = node.json(&["metrics"]);
        let found = all.as_array().unwrap().iter().find(|m| m["name"] == name).cloned().unwrap();
        found["samples"][0]["value"].as_f64().unwrap()
    };
    until("it counts its peer", || (figure("souk_peers") == 1.0).then_some(()));
    assert!(figure("souk_network_connections_established_total") >= 1.0);
    assert!(figure("process_resident_memory_bytes") > 1e6 && figure("process_cpu_seconds_total") > 0.0);
    // As Prometheus reads it: each figure with its kind, and a number at the end of each line.
    let mut command = std::process::Command::new("curl");
    let socket = node.dir().join("api.sock");
    if !souk_tests::part::have("curl") {
        return;
    }
    command.args(["-s", "--unix-socket", socket.to_str().unwrap(), "http://souk/v1/metrics"]);
    let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert!(text.contains("# TYPE souk_peers gauge\nsouk_peers 1\n"), "{text}");
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        assert!(line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
    }
}
