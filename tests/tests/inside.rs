//! An instance and what it is given: its variables, its scripts, and the endpoint that is its own alone.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

use serde_json::Value;
use souk_tests::{
    docker::{BUSYBOX, nothing_left},
    node::{Node, state_of},
    part::have,
    program::Outcome,
    wait::until,
    world::{World, lease_of, rent},
};

const GUEST: &str = "/.souk/guest";

fn inside(renter: &Node, lease: &str, words: &[&str]) -> Outcome {
    renter.souk(&[&["exec", lease, "--"], words].concat(), &[])
}

fn shell(renter: &Node, lease: &str, line: &str) -> Outcome {
    inside(renter, lease, &["sh", "-c", line])
}

/// The socket of a host's only instance, as this machine sees it.
fn socket(host: &Node) -> PathBuf {
    let folder = std::fs::read_dir(host.dir().join("runtime/inside")).unwrap();
    let folders: Vec<_> = folder.flatten().collect();
    assert_eq!(folders.len(), 1, "{folders:?}");
    folders[0].path().join("api.sock")
}

/// What the endpoint answers to these bytes; empty if it hangs up.
fn raw(socket: &std::path::Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
    // It may hang up before it has read all.
    stream.write_all(bytes).ok();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok();
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn an_instance_knows_itself_and_may_label_stop_and_destroy_itself_alone() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (mut host, renter) = world.pair(2);
    let lease = rent(&renter, &host, 1, "sleep 600", &["--env", "CONTAINER_ID=mine", "--egress", "none"]);

    // Who it is, by its variables; what the renter set wins where nothing is proven by it.
    let variables = shell(&renter, &lease, "env").ok();
    let variable = |name: &str| {
        let line = variables.lines().find_map(|l| l.strip_prefix(&format!("{name}=")));
        line.unwrap_or_else(|| panic!("{name} is not set: {variables}")).to_owned()
    };
    assert_eq!(variable("SOUK_INSTANCE_ID"), lease);
    assert_eq!(variable("CONTAINER_ID"), "mine");
    assert!(variable("VAST_CONTAINERLABEL").starts_with("C."));
    assert_eq!(variable("GPU_COUNT"), "0");
    assert!(shell(&renter, &lease, "test -d $DATA_DIRECTORY").code == 0, "{}", variable("DATA_DIRECTORY"));
    let key = variable("CONTAINER_API_KEY");
    assert_eq!(key.len(), 64);
    let ask = renter.ask_of(&host, 1);
    let rented = ["rent", &ask, "--image", BUSYBOX, "--disk", "1", "-y", "--env", "CONTAINER_API_KEY=x"];
    assert_eq!(renter.souk(&rented, &[]).code, 2, "somebody else's identity was taken");

    // How its lease stands.
    let own = |words: &[&str]| inside(&renter, &lease, &[&[GUEST, "self"], words].concat());
    let told = own(&["show"]).json();
    assert_eq!((told["lease"].as_str(), told["state"].as_str()), (Some(lease.as_str()), Some("running")));
    assert_eq!(told["ends_at_ms"], renter.show(&lease)["ends_at_ms"]);
    assert_eq!(own(&["notice"]).json(), Value::Null);
    assert_eq!(own(&["nonsense"]).code, 2);
    let wrong = shell(&renter, &lease, &format!("CONTAINER_API_KEY={} {GUEST} self", "0".repeat(64)));
    assert!(wrong.code == 1 && wrong.err.contains("this instance's key"), "{}{}", wrong.out, wrong.err);
    let fixed = "rm /.souk/self/api.sock; touch /.souk/self/x; mv /.souk/self /tmp/s; ls /.souk/self";
    assert_eq!(shell(&renter, &lease, fixed).out, "api.sock\n", "the guest changed its folder");

    // A label is news for the renter, and names nothing.
    assert_eq!(own(&["label", "epoch \"1\""]).json()["label"], "epoch \"1\"");
    renter.finds(&lease, "its label", |l| l["label_inside"] == "epoch \"1\"");
    assert_eq!(renter.show(&lease)["label"], Value::Null);
    assert_eq!(renter.refused(&["show", "epoch \"1\""]).0, "not_found");
    let again = own(&["label", "epoch 2"]);
    assert!(again.code == 1 && again.err.contains("ten seconds"), "{}{}", again.out, again.err);

    // The same key and socket after the node died and came back, in the container that ran on.
    host.kill();
    let gone = world.docker().cli(&["exec", &world.docker().container(&host.id), GUEST, "self"]);
    assert!(gone.code == 1 && gone.err.contains("does not run right now"), "{}{}", gone.out, gone.err);
    host.start();
    renter.meets(&host);
    until("the endpoint is back", || (own(&["show"]).code == 0).then_some(()));
    assert_eq!(shell(&renter, &lease, "echo $CONTAINER_API_KEY").ok().trim(), key);
    assert_eq!(own(&["show"]).json()["label"], "epoch \"1\"");

    // Another instance's key opens nothing here, and its own endpoint is another.
    let other = rent(&renter, &host, 1, "sleep 600", &["--egress", "none"]);
    let crossed = shell(&renter, &other, &format!("CONTAINER_API_KEY={key} {GUEST} self destroy"));
    assert_eq!(crossed.code, 1, "{}", crossed.out);
    assert_eq!(inside(&renter, &other, &[GUEST, "self"]).json()["lease"], other.as_str());

    // Stopped from inside it costs no more, and its renter starts it again.
    let stopping = world.docker().cli(&["exec", "-d", &world.docker().containers(&host.id)[1], GUEST, "self", "stop"]);
    assert_eq!(stopping.code, 0, "{}", stopping.err);
    for node in [&renter, &host] {
        let shown = node.reaches(&lease, "paused stopped");
        let events = node.json(&["events", shown["lease"].as_str().unwrap()]);
        let stopped = events.as_array().unwrap().iter().find(|e| state_of(e) == "paused stopped").unwrap();
        assert_eq!(stopped["by"], "guest", "{stopped}");
    }
    assert_eq!(state_of(&renter.show(&other)), "running", "the neighbour was stopped with it");
    let _ = renter.json(&["start", &lease]);
    renter.reaches(&lease, "running");

    // Destroyed from inside, by a program that ends its own lease: both sides agree, and the host is not blamed.
    let destroying = shell(&renter, &lease, &format!("{GUEST} self destroy; sleep 60"));
    assert_ne!(destroying.code, 0, "the program outlived its instance");
    for node in [&renter, &host] {
        node.finds(&lease, "closed by both", |l| {
            state_of(l) == "ended asked_from_inside" && l["receipt"]["closed"] == true
        });
    }
    assert_eq!(state_of(&renter.show(&other)), "running", "the neighbour went with it");
    let asks = renter.asks();
    assert!(asks.iter().all(|a| a["avoided"] == false), "the host is avoided for it: {asks:#?}");
    let _ = renter.json(&["destroy", "-y", &other]);
    nothing_left(world.docker(), &host);
    let folders = || std::fs::read_dir(host.dir().join("runtime/inside")).unwrap().count();
    until("the instances' folders are gone", || (folders() == 0).then_some(()));
}

#[test]
fn a_hostile_guest_hurts_its_own_endpoint_at_most() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (host, renter) = world.pair(1);
    let lease = rent(&renter, &host, 1, "sleep 600", &["--egress", "none"]);
    let key = shell(&renter, &lease, "echo $CONTAINER_API_KEY").ok().trim().to_owned();
    let path = socket(&host);
    let head = |method: &str, path: &str| {
        format!("{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n")
    };
    let status = |answer: &str| answer.split(' ').nth(1).and_then(|s| s.parse::<u16>().ok()).unwrap_or(0);
    let polite = || {
        until("a polite request is answered", || {
            (status(&raw(&path, format!("{}\r\n", head("GET", "/v1/self")).as_bytes())) == 200).then_some(())
        })
    };
    let refused = |what: &str, bytes: &[u8], allowed: &[u16]| {
        until(what, || {
            let status = status(&raw(&path, bytes));
            assert!(status == 429 || allowed.contains(&status), "{what}: {status}");
            (status != 429).then_some(())
        });
    };
    polite();
    // 0: it hung up.
    refused("no key", b"GET /v1/self HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", &[401]);
    let wrong = "GET /v1/self HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer zz\r\nConnection: close\r\n\r\n";
    refused("a wrong key", wrong.as_bytes(), &[401]);
    refused("nonsense", &[0xff; 5000], &[400, 0]);
    refused(
        "a huge header",
        format!("{}X: {}\r\n\r\n", head("GET", "/v1/self"), "a".repeat(100_000)).as_bytes(),
        &[431, 400, 0],
    );
    let many: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
    refused("many headers", format!("{}{many}\r\n", head("GET", "/v1/self")).as_bytes(), &[431, 400, 0]);
    let long = format!("{}Content-Length: 10000000\r\n\r\n{}", head("POST", "/v1/self/label"), "a".repeat(100_000));
    refused("a huge body", long.as_bytes(), &[400, 413, 0]);
    let label = |text: &str| format!("{}Content-Length: {}\r\n\r\n{text}", head("POST", "/v1/self/label"), text.len());
    refused("no JSON", label("label=x").as_bytes(), &[400]);
    refused("more than a label", label(r#"{"label":"a","lease":"b"}"#).as_bytes(), &[400]);
    refused("a control character", label(r#"{"label":"a\u001b[2J"}"#).as_bytes(), &[409]);
    refused("a path of nobody's", format!("{}\r\n", head("POST", "/v1/leases")).as_bytes(), &[404]);
    refused("a look that acts", format!("{}\r\n", head("GET", "/v1/self/destroy")).as_bytes(), &[405]);

    // A thousand connections that say nothing, and some that drip: they are cut, and the rest of the node goes on.
    let before = open_files(&host);
    let mut idle = Vec::new();
    for n in 0..1000 {
        // Without waiting: what the kernel's queue has no room for is refused there.
        let Ok(stream) = nonblocking(&path) else { break };
        if n % 2 == 0 {
            let _ = (&stream).write(b"GET /v1/self HT");
        }
        idle.push(stream);
    }
    assert!(idle.len() > 8, "only {} connections", idle.len());
    assert!(open_files(&host) < before + 32, "connections grow with the guest's wish: {before}, {}", open_files(&host));
    assert_eq!(state_of(&renter.show(&lease)), "running");
    assert_eq!(shell(&renter, &lease, "echo on").ok(), "on\n");
    drop(idle);
    polite();
    let _ = renter.json(&["destroy", "-y", &lease]);
    nothing_left(world.docker(), &host);
}

fn open_files(node: &Node) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", node.pid())).unwrap().count()
}

fn nonblocking(path: &std::path::Path) -> std::io::Result<UnixStream> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

#[test]
fn scripts_run_before_the_command_at_each_start() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (host, renter) = world.pair(1);
    let script = world.path().join("setup.sh");
    // Bash isn't in this image: the script runs all the same.
    std::fs::write(&script, "#!/bin/bash\necho setup as $(id -un) in $HOME\necho more >> /tmp/count\nexit 3\n")
        .unwrap();
    let options = ["--onstart", script.to_str().unwrap(), "--egress", "none"];
    let lease = rent(&renter, &host, 1, "echo command; cat /tmp/count; sleep 600", &options);
    let logs = |what: &str, times: usize| {
        until(what, || {
            let told = renter.souk(&["logs", &lease], &[]);
            let text: Vec<String> = told.lines().iter().map(|l| l["text"].as_str().unwrap().to_owned()).collect();
            let text = text.concat();
            (text.matches(what).count() == times).then_some(text)
        })
    };
    let text = logs("command\n", 1);
    let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("no `{part}` in {text}"));
    assert!(at("setup as root in /root") < at("command\n"), "{text}");
    assert!(text.contains("no /bin/bash") && text.contains("onstart.sh ended with code 3"), "{text}");
    assert_eq!(shell(&renter, &lease, "head -n 1 /root/onstart.sh").ok(), "#!/bin/bash\n");

    // What its user makes of it holds from then on.
    let _ = shell(&renter, &lease, "echo 'echo edited; echo once > /tmp/count' > /root/onstart.sh").ok();
    let _ = renter.json(&["stop", &lease]);
    let _ = renter.json(&["start", &lease]);
    let text = logs("once\n", 1);
    assert!(text.ends_with("edited\ncommand\nonce\n"), "{text}");

    // A stop while it runs ends it, and the command never begins.
    let _ = shell(&renter, &lease, "echo 'echo waiting; sleep 600' > /root/onstart.sh").ok();
    let _ = renter.json(&["stop", &lease]);
    let _ = renter.json(&["start", &lease]);
    let _ = logs("waiting\n", 1);
    let _ = renter.json(&["stop", &lease]);
    host.reaches(&lease, "paused stopped");
    assert_eq!(logs("waiting\n", 1).matches("command\n").count(), 2);
    let _ = renter.json(&["destroy", "-y", &lease]);

    // As another user, whose home can't be written, and with a provisioning script of the image's own file system.
    let ask = renter.ask_of(&host, 1);
    let line = "[ -e /dev/shm/done ] && echo provisioned; echo command; sleep 600";
    let first = renter.souk(
        &[
            "rent",
            &ask,
            "--image",
            BUSYBOX,
            "--disk",
            "1",
            "-y",
            "--egress",
            "none",
            "--user",
            "65534",
            "--env",
            "PROVISIONING_SCRIPT=/tmp/none.sh",
            "--onstart-cmd",
            "echo as $(id -u); touch /dev/shm/done",
            "--",
            "sh",
            "-c",
            line,
        ],
        &[],
    );
    assert_eq!(first.code, 0, "{}{}", first.out, first.err);
    let lease = lease_of(&first.lines());
    let text = until("it has begun", || {
        let told = renter.souk(&["logs", &lease], &[]).out;
        told.contains("command\\n").then_some(told)
    });
    for part in ["as 65534", "provisioned", "neither a URL nor a file", "the provisioning script ended with code 1"] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    let _ = renter.json(&["destroy", "-y", &lease]);
    nothing_left(world.docker(), &host);
}

#[test]
fn a_provisioning_script_is_run_until_it_has_gone_well_once() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let (host, renter) = world.pair(1);
    let options = ["--egress", "none", "--env", "PROVISIONING_SCRIPT=/root/own.sh"];
    let lease = rent(&renter, &host, 1, "echo ready; sleep 600", &options);
    let ready = |times: usize| {
        until("it is ready", || {
            let told = renter.souk(&["logs", &lease], &[]).out;
            (told.matches("ready\\n").count() == times).then_some(told)
        })
    };
    assert!(ready(1).contains("neither a URL nor a file"), "{}", ready(1));
    let _ = shell(&renter, &lease, "echo 'echo provisioning' > /root/own.sh").ok();
    for times in 2..=3 {
        let _ = renter.json(&["stop", &lease]);
        let _ = renter.json(&["start", &lease]);
        assert_eq!(ready(times).matches("provisioning\\n").count(), 1, "{}", ready(times));
    }
    let _ = renter.json(&["destroy", "-y", &lease]);
    nothing_left(world.docker(), &host);
}
