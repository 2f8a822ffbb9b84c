//! Offers among many nodes: how fast a change of one is seen by the others, and what being so many costs each.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use souk_tests::{node::Node, part::have, world::World};

use crate::{nodes::worked, quantiles, row};

/// Nodes, where `SOUK_BENCH_NODES` says nothing else.
const NODES: usize = 16;
const CHANGES: usize = 25;
const IDLE: Duration = Duration::from_secs(30);

/// A request to a node's API, without the command line's own start.
fn post(node: &Node, path: &str, body: &Value) -> Value {
    let body = body.to_string();
    let mut socket = UnixStream::connect(node.dir().join("api.sock")).unwrap();
    let head = format!(
        "POST /v1/{path} HTTP/1.1\r\nhost: souk\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all((head + &body).as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (_, content) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(content).unwrap_or_else(|e| panic!("{e}: {answer}"))
}

/// The price of the only offer, where a node knows it.
fn price_at(node: &Node) -> Option<f64> {
    post(node, "search", &json!({ "query": "", "storage_gb": 0 }))["rows"][0]["dph"].as_f64()
}

/// When a node's search shows this price; it is asked again and again.
fn shows(node: &Node, price: f64) {
    let end = Instant::now() + Duration::from_secs(10);
    while price_at(node).is_none_or(|dph| (dph - price).abs() >= 1e-6) {
        assert!(Instant::now() < end, "the price was not seen in 10 s");
        std::thread::sleep(Duration::from_micros(300));
    }
}

/// Memory of a process, what it shares with others counted by its share.
fn own_mb(node: &Node) -> f64 {
    let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", node.pid())).unwrap();
    let line = text.lines().find(|l| l.starts_with("Pss:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// From the owner's change until another node's search shows it; and then, what a node costs that has nothing to do.
pub fn run() {
    if !have("docker") {
        return;
    }
    let wanted = std::env::var("SOUK_BENCH_NODES").ok().map(|n| n.parse().unwrap());
    let count: usize = wanted.unwrap_or(NODES);
    let world = World::with_docker();
    let host = world.watch(world.node("n0").host(1, "1.00").start());
    let mut others: Vec<Node> = Vec::new();
    for n in 1..count {
        // Each knows the first and the one before it.
        let before = others.last().map_or(&host, |n| n).listen[0].clone();
        others.push(world.node(&format!("n{n}")).knows(&host.listen[0]).knows(&before).start());
    }
    for node in &others {
        shows(node, 1.0);
    }
    let mut times = Vec::new();
    let mut price = 1.0;
    for change in 0..CHANGES {
        let node = &others[change * 7 % others.len()];
        let text = format!("1.{:03}", change + 1);
        price = text.parse().unwrap();
        // An offer of one machine is taken every two seconds at most.
        std::thread::sleep(Duration::from_millis(2100));
        let began = Instant::now();
        post(&host, "host/list", &json!({ "slot_hour": text }));
        shows(node, price);
        times.push(began.elapsed());
    }
    row(&format!("change → seen in search, {count} nodes"), &quantiles(&mut times));

    let late = world.node("late").knows(&others[others.len() / 2].listen[0]).start();
    let began = Instant::now();
    shows(&late, price);
    row("  ready → the market in a node that joins late", &format!("{:.0} ms", began.elapsed().as_secs_f64() * 1e3));

    let before: Vec<f64> = others.iter().map(worked).collect();
    std::thread::sleep(IDLE);
    let shares = others.iter().zip(before).map(|(node, before)| worked(node) - before);
    let share = shares.sum::<f64>() / IDLE.as_secs_f64() / others.len() as f64 * 100.0;
    let memory = others.iter().map(own_mb).sum::<f64>() / others.len() as f64;
    row("  each with nothing to do", &format!("{memory:.1} MB, {share:.2} % of a core"));
}
