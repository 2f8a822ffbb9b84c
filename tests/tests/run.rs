//! `souk run` with real nodes and a real engine: what goes in, what comes out, and that the machine is given back.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{fs, process::Stdio};

use rustix::process::{Pid, Signal, kill_process};
use souk_tests::{
    docker::{BUSYBOX, nothing_left},
    node::Node,
    part::have,
    program::{Outcome, wait},
    wait::{PATIENCE, until},
    world::World,
};

fn run(renter: &Node, options: &[&str], line: &str, input: &[u8]) -> Outcome {
    let mut command = std::process::Command::new(souk_tests::program::souk());
    command
        .arg("--dir")
        .arg(renter.dir())
        .args(["run", "-Q", "num_gpus=0", "--disk", "1", "--wait", "90s"])
        .args(options);
    command.args([BUSYBOX, "--", "sh", "-c", line]).env("SOUK_NETWORK_NAME", renter.variable("SOUK_NETWORK_NAME"));
    souk_tests::program::run(&mut command, input)
}

fn nothing_rented(renter: &Node) {
    until("no lease is open", || renter.json(&["ps"]).as_array().unwrap().is_empty().then_some(()));
}

#[test]
fn a_run_passes_code_streams_and_files_and_gives_back() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (host, renter) = world.pair(2);
    let _ = renter.ask_of(&host, 1);

    let outcome = run(&renter, &[], "echo out; echo err >&2; exit 7", &[]);
    assert_eq!((outcome.code, outcome.out.as_str()), (7, "out\n"), "{}", outcome.err);
    assert!(outcome.err.lines().any(|line| line == "err"), "{}", outcome.err);
    let outcome = run(&renter, &["-i", "-q"], "wc -c", b"12345");
    assert_eq!((outcome.code, outcome.out.trim(), outcome.err.as_str()), (0, "5", ""));
    let outcome = run(&renter, &["-q", "-e", "A=b"], "kill -9 $$; echo $A", &[]);
    assert_eq!(outcome.code, 137, "{}", outcome.err);

    let data = world.path().join("data");
    fs::create_dir_all(data.join("sub")).unwrap();
    fs::write(data.join("sub/x"), "6").unwrap();
    let (input, output) = (format!("{}:/tmp/in", data.display()), world.path().join("result"));
    let out = format!("/tmp/out:{}", output.display());
    let line = "mkdir /tmp/out; echo $(( $(cat /tmp/in/sub/x) * 7 )) > /tmp/out/y";
    let outcome = run(&renter, &["--in", &input, "--out", &out], line, &[]);
    assert_eq!(outcome.code, 0, "{}{}", outcome.out, outcome.err);
    assert_eq!(fs::read_to_string(output.join("y")).unwrap(), "42\n");

    // Souk's own failures have one code.
    let missing = run(&renter, &["--out", "/nothing:here"], "true", &[]);
    assert_eq!(missing.code, 125, "{}", missing.err);
    let nobody = run(&renter, &["--max-price", "0.000001"], "true", &[]);
    assert_eq!(nobody.code, 125, "{}", nobody.err);
    nothing_rented(&renter);
    nothing_left(world.docker(), &host);
}

#[test]
fn an_interrupted_and_a_killed_run_give_their_machines_back() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (host, renter) = world.pair(1);
    let _ = renter.ask_of(&host, 1);
    for (signal, code) in [(Signal::INT, Some(130)), (Signal::KILL, Some(-1))] {
        let _ = renter.ask_of(&host, 1);
        let mut command = renter.command(&[
            "run",
            "-Q",
            "num_gpus=0",
            "--disk",
            "1",
            BUSYBOX,
            "--",
            "sh",
            "-c",
            "echo up; sleep 600",
        ]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.as_mut().unwrap()), &mut line).unwrap();
        assert!(line.contains("up"), "{line}");
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(wait(&mut child, PATIENCE), code);
        nothing_rented(&renter);
    }
    nothing_left(world.docker(), &host);
}

#[test]
fn three_ranks_run_on_three_hosts() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let hosts: Vec<Node> =
        ["a", "b", "c"].iter().map(|name| world.watch(world.node(name).host(1, "1.00").start())).collect();
    let mut renter = world.node("renter");
    for host in &hosts {
        renter = renter.knows(&host.listen[0]);
    }
    let renter = renter.start();
    for host in &hosts {
        let _ = renter.ask_of(host, 1);
    }
    let outcome = run(&renter, &["--count", "3"], "echo one; echo two; exit $SOUK_RANK", &[]);
    assert_eq!(outcome.code, 1, "the first that is not 0: {}{}", outcome.out, outcome.err);
    for rank in 0..3 {
        let own: Vec<&str> = outcome.out.lines().filter(|l| l.starts_with(&format!("[{rank}]"))).collect();
        assert_eq!(own, [format!("[{rank}] one"), format!("[{rank}] two")]);
    }
    let summary = renter.json(&["ps", "-a"]);
    let mut peers: Vec<&str> = summary.as_array().unwrap().iter().map(|l| l["peer"].as_str().unwrap()).collect();
    peers.sort_unstable();
    peers.dedup();
    assert_eq!(peers.len(), 3, "{summary}");
    nothing_rented(&renter);
    for host in &hosts {
        nothing_left(world.docker(), host);
    }
}
