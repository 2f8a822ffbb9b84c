//! Reading an instance's output: every line once and in order, whatever breaks on the way; and what is missing is said.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    fs::File,
    io::Read,
    path::PathBuf,
    process::{Child, Stdio},
    time::Duration,
};

use serde_json::Value;
use souk_tests::{
    docker::{BUSYBOX, Engine, EngineSetup, nothing_left},
    node::Node,
    part::have,
    program::{souk, wait},
    wait::{PATIENCE, until},
    world::{World, lease_of, rent},
};

/// A `souk logs -f` that runs while other things happen.
struct Follower {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Follower {
    fn begin(world: &World, renter: &Node, name: &str, arguments: &[&str]) -> Self {
        let (out, err) = (world.path().join(format!("{name}.out")), world.path().join(format!("{name}.err")));
        // Without --json: bytes as they are.
        let mut command = std::process::Command::new(souk());
        command.arg("--dir").arg(renter.dir()).arg("logs").args(arguments);
        command.env("SOUK_NETWORK_NAME", renter.variable("SOUK_NETWORK_NAME"));
        command.stdin(Stdio::null()).stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
        Self { child: command.spawn().unwrap(), out, err }
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.out).unwrap()
    }

    fn told(&self) -> String {
        std::fs::read_to_string(&self.err).unwrap()
    }

    #[track_caller]
    fn until(&self, line: &str) {
        let shows = || self.text().lines().any(|l| l == line).then_some(());
        let shown = souk_tests::wait::poll(PATIENCE, shows);
        assert!(shown.is_some(), "never `{line}`: {:?} {}", self.text().lines().last(), self.told());
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Lines `n 1`, `n 2` … without end, a new one each twentieth of a second, and each again as an error.
const COUNTING: &str = "n=$(cat /n 2>/dev/null || echo 0); while :; do n=$((n+1)); echo $n > /n; echo n $n; echo e $n >&2; sleep 0.05; done";

/// The lines are `PREFIX 1` to as many as there are, each once.
#[track_caller]
fn complete(text: &str, prefix: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        assert_eq!(*line, format!("{prefix} {}", index + 1), "line {} of {}", index + 1, lines.len());
    }
    lines.len()
}

/// The last line so far.
fn last(follower: &Follower) -> usize {
    let text = follower.text();
    text.lines().rev().find_map(|l| l.strip_prefix("n ")?.parse().ok()).unwrap_or(0)
}

#[test]
fn a_follower_has_every_line_once_whatever_breaks() {
    if !(have("docker") && have("nft")) {
        return;
    }
    let world = World::with_docker();
    let (mut host, mut renter) = world.pair(1);
    let lease = rent(&renter, &host, 1, COUNTING, &["--egress", "none", "--label", "count"]);
    let mut follower = Follower::begin(&world, &renter, "all", &["-f", "count"]);
    let goes_on = |follower: &Follower| {
        let then = last(follower) + 10;
        follower.until(&format!("n {then}"));
    };
    goes_on(&follower);

    // The host's node dies while the instance runs on, and comes back.
    for away in [0, 1500] {
        host.kill();
        std::thread::sleep(Duration::from_millis(away));
        host.start();
        goes_on(&follower);
    }
    // The instance is stopped, and started again, with a label of another kind by then.
    let _ = renter.json(&["label", &lease, "other"]);
    let _ = renter.json(&["stop", &lease]);
    let stopped = last(&follower);
    let _ = renter.json(&["start", &lease]);
    follower.until(&format!("n {}", stopped + 10));
    assert!(
        follower.told().contains("paused(stopped)") || follower.told().contains("preparing"),
        "{}",
        follower.told()
    );

    // In order, the end comes with the end of the lease.
    let _ = renter.json(&["destroy", "-y", &lease]);
    assert_eq!(wait(&mut follower.child, PATIENCE), Some(0), "{}", follower.told());
    let counted = complete(&follower.text(), "n");
    assert!(counted > 40, "{counted}");
    let errors: String = follower.told().lines().filter(|l| l.starts_with("e ")).map(|l| format!("{l}\n")).collect();
    assert!(complete(&errors, "e") > 40);
    assert!(!follower.told().contains("missing"), "{}", follower.told());
    assert!(follower.told().contains("the lease is over"), "{}", follower.told());

    // Events too, over a restart of the node that is asked.
    let mut command = renter.command(&["events", "-f", "--limit", "1000"]);
    let out = world.path().join("events.out");
    let mut events = command.stdin(Stdio::null()).stdout(File::create(&out).unwrap()).spawn().unwrap();
    let seen = |what: &dyn Fn(&[Value]) -> bool, why: &str| {
        until(why, || {
            let text = std::fs::read_to_string(&out).unwrap();
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let all: Vec<Value> = whole.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
            what(&all).then_some(all)
        })
    };
    let _ = seen(&|all| all.iter().any(|e| e["state"] == "ended"), "the first lease's end");
    renter.kill();
    renter.start();
    renter.meets(&host);
    let next = rent(&renter, &host, 1, "sleep 600", &["--egress", "none"]);
    let _ = renter.json(&["destroy", "-y", &next]);
    let all = seen(&|all| all.iter().filter(|e| e["state"] == "ended").count() == 2, "the second lease's end");
    events.kill().unwrap();
    events.wait().unwrap();
    let numbers: Vec<u64> = all.iter().map(|e| e["record"].as_u64().unwrap()).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "an event twice: {numbers:?}");
    let plain = renter.json(&["events", "--limit", "1000"]);
    assert_eq!(plain.as_array().unwrap(), &all, "the follower missed events");
    nothing_left(world.docker(), &host);
}

#[test]
fn a_follower_outlives_the_engine_and_hears_of_lines_that_rotation_dropped() {
    if !have("docker") {
        return;
    }
    let mut engine = Engine::start(EngineSetup::default());
    let world = World::on(engine.docker.clone());
    let (mut host, renter) = world.pair(1);
    let lease = rent(&renter, &host, 1, COUNTING, &["--egress", "none"]);
    let follower = Follower::begin(&world, &renter, "engine", &["-f", &lease]);
    follower.until("n 10");
    engine.stop();
    let stopped = last(&follower);
    engine.resume();
    follower.until(&format!("n {}", stopped + 10));
    let _ = complete(&follower.text(), "n");
    assert!(!follower.told().contains("missing"), "{}", follower.told());
    drop(follower);
    let _ = renter.json(&["destroy", "-y", &lease]);

    // More than the log keeps is written while the host's node is away: the reader is told so, and goes on.
    let flood = "echo first; until [ -e /go ]; do sleep 0.1; done; \
                 yes 0123456789012345678901234567890123456789012345678901234567890123456789 | head -c 60000000; \
                 echo; echo flooded; sleep 600";
    let lease = rent(&renter, &host, 1, flood, &["--egress", "none"]);
    let follower = Follower::begin(&world, &renter, "flood", &["-f", &lease]);
    follower.until("first");
    host.kill();
    let container = world.docker().container(&host.id);
    let _ = world.docker().cli(&["exec", &container, "touch", "/go"]).ok();
    until("it is written", || {
        world.docker().cli(&["logs", "--tail", "1", &container]).out.contains("flooded").then_some(())
    });
    host.start();
    follower.until("flooded");
    assert!(follower.told().contains("lines are missing here"), "{}", follower.told());
    drop(follower);
    let _ = renter.json(&["destroy", "-y", &lease]);
    nothing_left(world.docker(), &host);
}

#[test]
fn parts_of_the_output_are_chosen_by_line_and_time() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (host, renter) = world.pair(1);
    // A long line is many pieces for the engine, and one for people.
    let line = "for i in 1 2 3; do echo old $i; sleep 0.1; done; sleep 2; echo new 1; sleep 0.1; echo new 2 >&2; sleep 0.1; \
                head -c 50000 /dev/zero | tr '\\0' x; echo; sleep 0.1; echo end";
    let lease = rent(&renter, &host, 1, line, &["--egress", "none"]);
    renter.reaches(&lease, "paused exited");
    let logs = |options: &[&str]| {
        let mut command = std::process::Command::new(souk());
        command.arg("--dir").arg(renter.dir()).arg("logs").args(options).arg(&lease);
        command.env("SOUK_NETWORK_NAME", renter.variable("SOUK_NETWORK_NAME"));
        let outcome = souk_tests::program::run(&mut command, &[]);
        assert_eq!(outcome.code, 0, "{options:?}: {}", outcome.err);
        (outcome.out, outcome.err)
    };
    let long = "x".repeat(50_000);
    let (all, errors) = logs(&[]);
    assert_eq!(all, format!("old 1\nold 2\nold 3\nnew 1\n{long}\nend\n"));
    assert_eq!(errors, "new 2\n");
    assert_eq!(logs(&["-f"]).0, all, "its command has ended: nothing more comes");
    assert_eq!(logs(&["--tail", "1"]), ("end\n".to_owned(), String::new()));
    assert_eq!(logs(&["--tail", "2"]), (format!("{long}\nend\n"), String::new()));
    assert_eq!(logs(&["--tail", "3"]), (format!("{long}\nend\n"), "new 2\n".to_owned()));
    assert_eq!(logs(&["--tail", "0"]), (String::new(), String::new()));
    assert_eq!(logs(&["--tail", "99"]), (all.clone(), errors.clone()));
    assert_eq!(logs(&["--tail", "4000000000"]), (all.clone(), errors.clone()));

    // Each line has its time, a long one a single one; and times given back choose the same lines.
    let (stamped, _) = logs(&["--timestamps"]);
    let times: Vec<&str> = stamped.lines().map(|l| l.split_once(' ').unwrap().0).collect();
    assert_eq!(times.len(), 6);
    assert!(times.iter().all(|t| t.ends_with('Z') && t.len() == 30) && times.is_sorted(), "{times:?}");
    let bare: String = stamped.lines().map(|l| format!("{}\n", l.split_once(' ').unwrap().1)).collect();
    assert_eq!(bare, all);
    // To the millisecond, rounded down: nothing that was meant is lost.
    let new = &times[3][..23];
    let since = format!("{new}Z");
    let (recent, recent_errors) = logs(&["--since", &since]);
    assert_eq!((recent, recent_errors), (format!("new 1\n{long}\nend\n"), "new 2\n".to_owned()));
    assert_eq!(logs(&["--since", &since, "--tail", "1"]).0, "end\n");
    assert_eq!(logs(&["--since", &since, "--tail", "99"]).0, format!("new 1\n{long}\nend\n"));
    let (both, _) = logs(&["--since", &since, "--tail", "1", "--timestamps"]);
    assert_eq!(both, format!("{} end\n", times[5]));
    assert_eq!(logs(&["--since", "1h"]).0, all);
    assert_eq!(logs(&["--since", "2999-01-01T00:00:00Z"]), (String::new(), String::new()));
    let json = renter.souk(&["logs", "--tail", "1", &lease], &[]).lines();
    assert_eq!((json[0]["stream"].as_str(), json[0]["text"].as_str()), (Some("stdout"), Some("end\n")));
    let _ = renter.json(&["destroy", "-y", &lease]);
    nothing_left(world.docker(), &host);
}

#[test]
fn a_follower_may_come_before_the_first_line() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (host, renter) = world.pair(1);
    let ask = renter.ask_of(&host, 1);
    let rented = renter.souk(
        &[
            "rent",
            &ask,
            "--image",
            BUSYBOX,
            "--disk",
            "1",
            "-y",
            "-d",
            "--egress",
            "none",
            "--",
            "sh",
            "-c",
            "sleep 1; echo here; exit 4",
        ],
        &[],
    );
    assert_eq!(rented.code, 0, "{}{}", rented.out, rented.err);
    let lease = lease_of(&rented.lines());
    let mut follower = Follower::begin(&world, &renter, "early", &["-f", &lease]);
    assert_eq!(wait(&mut follower.child, PATIENCE), Some(0), "{}", follower.told());
    assert_eq!(follower.text(), "here\n", "{}", follower.told());
    let _ = renter.json(&["destroy", "-y", &lease]);
    nothing_left(world.docker(), &host);
}

#[test]
fn an_exec_over_a_cut_says_so_and_its_process_is_hung_up() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (mut host, mut renter) = world.pair(1);
    let lease = rent(&renter, &host, 1, "sleep 600", &["--egress", "none"]);
    let inside = |host: &Node, line: &str| {
        let container = world.docker().container(&host.id);
        world.docker().cli(&["exec", &container, "sh", "-c", line])
    };
    let begin = |renter: &Node, line: &str| {
        let mut command = renter.command(&["exec", &lease, "--", "sh", "-c", line]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let runs = |host: &Node, what: &str| inside(host, "ps -o args").out.lines().any(|l| l.trim() == what);
    let starts = |host: &Node, what: &str| until("it runs", || runs(host, what).then_some(()));
    let ends = |host: &Node, what: &str| until("it is hung up", || (!runs(host, what)).then_some(()));

    // The renter's node dies: the command ends with it, and whoever waits is told.
    let mut waiting = begin(&renter, "sleep 4001; true");
    starts(&host, "sleep 4001");
    renter.kill();
    assert_eq!(wait(&mut waiting, PATIENCE), Some(125));
    let mut told = String::new();
    waiting.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert!(told.contains("lost") || told.contains("ended before the command did"), "{told}");
    ends(&host, "sleep 4001");
    renter.start();
    renter.meets(&host);

    // The host's node dies: 125 again, and what it left is hung up when it is back.
    let mut waiting = begin(&renter, "sleep 4002; true");
    starts(&host, "sleep 4002");
    host.kill();
    assert_eq!(wait(&mut waiting, PATIENCE), Some(125));
    host.start();
    renter.reaches(&lease, "running");
    let _ = renter.json(&["destroy", "-y", &lease]);
    nothing_left(world.docker(), &host);
}
