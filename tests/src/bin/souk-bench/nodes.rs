//! Figures of real nodes: offers seen, leases made, instances started, and what an idle node costs.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use souk_tests::{
    docker::BUSYBOX,
    node::Node,
    part::have,
    program,
    wait::until,
    world::{World, rent},
};

use crate::{median, quantiles, row};

const LEASES: usize = 25;
const STARTS: usize = 21;
const IDLE: Duration = Duration::from_secs(60);

/// Two flushes of a page, one after the other, in the folder where the ledgers are.
fn two_flushes(folder: &std::path::Path) -> Duration {
    let mut files = ["x", "y"].map(|name| File::create(folder.join(name)).unwrap());
    let start = Instant::now();
    for file in &mut files {
        file.write_all(&[1; 4096]).unwrap();
        file.sync_data().unwrap();
    }
    start.elapsed()
}

/// From the renter's proposal to the accept that both have on disk.
pub fn lease() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (host, renter) = world.pair(1);
    let (mut times, mut flushes) = (Vec::new(), Vec::new());
    for _ in 0..LEASES {
        let ask = renter.ask_of(&host, 1);
        let mut command = renter
            .command(&["rent", &ask, "--image", BUSYBOX, "--disk", "1", "-y", "--egress", "none", "--", "sleep", "60"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut began = Instant::now();
        let mut lease = String::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let step: Value = serde_json::from_str(&line.unwrap()).unwrap();
            match step["step"].as_str() {
                Some("proposed") => began = Instant::now(),
                Some("accepted") => {
                    times.push(began.elapsed());
                    lease = step["lease"].as_str().unwrap().to_owned();
                }
                _ => {}
            }
        }
        child.wait().unwrap();
        flushes.push(two_flushes(world.path()));
        let _ = renter.json(&["destroy", "-y", &lease]);
        renter.reaches(&lease, "ended destroyed");
    }
    let flush = median(&mut flushes);
    let over = median(&mut times) - flush;
    row("propose → lease durable on both sides", &quantiles(&mut times));
    row("  beside two flushes in a row", &format!("p50 {flush:.2} ms; ours is {over:.2} ms more"));
}

/// From the command to its output: `souk rent` and `souk logs`, and `docker run`, in turns.
pub fn start() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (host, renter) = world.pair(1);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let ask = renter.ask_of(&host, 1);
        let began = Instant::now();
        let arguments = [
            "rent",
            &ask,
            "--image",
            BUSYBOX,
            "--disk",
            "1",
            "-y",
            "--egress",
            "none",
            "--",
            "sh",
            "-c",
            "echo out; sleep 60",
        ];
        let outcome = renter.souk(&arguments, &[]);
        let lease = souk_tests::world::lease_of(&outcome.lines());
        until("its output", || renter.souk(&["logs", &lease], &[]).out.contains("out").then_some(()));
        ours.push(began.elapsed());
        let _ = renter.json(&["destroy", "-y", &lease]);
        renter.reaches(&lease, "ended destroyed");

        let began = Instant::now();
        let mut docker = Command::new("docker");
        docker.args(["run", "--rm", "--network", "none", BUSYBOX, "sh", "-c", "echo out"]);
        let mut child = docker.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        theirs.push(began.elapsed());
        assert_eq!(line, "out\n");
        child.wait().unwrap();
    }
    let ratio = median(&mut ours) / median(&mut theirs);
    row("rent → first output, image present", &quantiles(&mut ours));
    row("  beside docker run", &format!("{}; ours takes {ratio:.2} × as long", quantiles(&mut theirs)));
}

fn resident_mb(node: &Node) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// Processor time so far, in seconds.
pub fn worked(node: &Node) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", node.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    let per_second: f64 = program::must("getconf", &["CLK_TCK"]).trim().parse().unwrap();
    ticks / per_second
}

/// What a node costs that does nothing for a minute, with a few peers; and a host with one instance.
pub fn idle() {
    let world = if have("docker") { World::with_docker() } else { World::new() };
    let (host, renter) = world.pair(1);
    let others: Vec<Node> = (0..3).map(|n| world.node(&format!("o{n}")).knows(&host.listen[0]).start()).collect();
    for node in &others {
        node.meets(&host);
    }
    if world.docker.is_some() {
        let _ = rent(&renter, &host, 1, "sleep 600", &["--egress", "none"]);
    }
    std::thread::sleep(Duration::from_secs(5));
    let all =
        [("idle node, four peers", &others[0]), ("renter of one running instance", &renter), ("host of it", &host)];
    let before = all.map(|(_, node)| worked(node));
    let began = Instant::now();
    std::thread::sleep(IDLE);
    let took = began.elapsed().as_secs_f64();
    for ((what, node), before) in all.iter().zip(before) {
        let share = 100.0 * (worked(node) - before) / took;
        row(what, &format!("{:.1} MB resident, {share:.2} % of a core over {took:.0} s", resident_mb(node)));
    }
}
