//! The host's own job on slots that nobody rents: gone before a rental's container is made, back after, and never in a bill.
#![allow(clippy::unwrap_used, clippy::panic)]

use souk_tests::{
    docker::{BUSYBOX, nothing_left},
    node::{Node, state_of},
    part::have_all,
    wait::until,
    world::{World, lease_of, rent},
};

const NO_NETWORK: [&str; 4] = ["--tick", "1s", "--egress", "none"];

/// What happened to containers of these nodes, in order: the action, and the lease or idle job.
fn happened(world: &World, nodes: &[&Node]) -> Vec<(String, String)> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 1;
    let until = now.to_string();
    let format = r#"{{.TimeNano}} {{.Action}} {{index .Actor.Attributes "souk.lease"}}"#;
    let mut lines = Vec::new();
    for node in nodes {
        let label = format!("label=souk.node={}", node.id);
        let filters = ["--filter", "type=container", "--filter", label.as_str()];
        let arguments = [&["events", "--since", "10m", "--until", &until, "--format", format], &filters[..]].concat();
        lines.extend(world.docker().cli(&arguments).out.lines().map(str::to_owned));
    }
    lines.sort();
    let words = |line: &String| {
        let mut words = line.split(' ').skip(1).map(str::to_owned);
        Some((words.next()?, words.next()?))
    };
    lines.iter().filter_map(words).collect()
}

/// Whether an idle container had ended for good before anything of the lease was made.
fn ended_before(events: &[(String, String)], idle: &str, lease: &str) -> bool {
    let made = events.iter().position(|(action, of)| action == "create" && of == lease).unwrap();
    let last = |action: &str| events[..made].iter().rposition(|(found, of)| found == action && of == idle);
    last("die") > last("start")
}

fn idle_states(host: &Node) -> Vec<String> {
    let view = host.json(&["host", "idle-job", "show"]);
    let slots = view["slots"].as_array().unwrap();
    slots.iter().map(|slot| format!("{} {}", slot["slot"], slot["state"].as_str().unwrap())).collect()
}

fn runs_on(host: &Node, wanted: &[&str]) {
    until(&format!("the idle job does {wanted:?}"), || (idle_states(host) == wanted).then_some(()));
}

/// Idle containers of a node that run.
fn running(world: &World, host: &Node) -> Vec<String> {
    let (node, idle) = (format!("label=souk.node={}", host.id), "label=souk.idle=true");
    let format = r#"{{.Label "souk.lease"}}"#;
    let found = world.docker().cli(&["ps", "--filter", &node, "--filter", idle, "--format", format]);
    let mut found: Vec<String> = found.out.lines().map(str::to_owned).collect();
    found.sort();
    found
}

#[test]
fn the_idle_job_makes_room_before_a_rental_and_comes_back_after() {
    if !have_all(&["docker"]) {
        return;
    }
    let world = World::with_docker();
    let (mut host, renter) = world.pair(2);
    assert_eq!(host.json(&["host", "idle-job", "show"])["image"], serde_json::Value::Null);
    let (code, sentence) = host.refused(&["host", "idle-job", "set", "Not An Image"]);
    assert!(code == "bad_request" && sentence.contains("image"), "{code}: {sentence}");
    let job = "echo slot $SOUK_IDLE_SLOT; exec sleep 600";
    let _ = host.json(&["host", "idle-job", "set", BUSYBOX, "--", "sh", "-c", job]);
    runs_on(&host, &["0 running", "1 running"]);
    until("both run", || (running(&world, &host) == ["idle.0", "idle.1"]).then_some(()));
    for container in world.docker().containers(&host.id) {
        let about = world.docker().inspect(&container);
        assert_eq!(about["HostConfig"]["CpuShares"], 2, "after everything else");
        assert_eq!(about["HostConfig"]["OomScoreAdj"], 1000, "the first to go when memory runs out");
    }

    let lease = rent(&renter, &host, 1, "exec sleep 600", &NO_NETWORK);
    assert_eq!(running(&world, &host), ["idle.1"], "the other slot's goes on");
    assert!(ended_before(&happened(&world, &[&host]), "idle.0", &lease), "{:#?}", happened(&world, &[&host]));
    let listed = host.json(&["ps", "-a"]);
    assert_eq!(listed.as_array().unwrap().len(), 1, "no lease but the rental: {listed:#}");
    let second = rent(&renter, &host, 1, "exec sleep 600", &NO_NETWORK);
    assert_eq!(running(&world, &host), Vec::<String>::new());
    assert!(ended_before(&happened(&world, &[&host]), "idle.1", &second));
    let _ = renter.json(&["destroy", "-y", &lease]);
    renter.reaches(&lease, "ended destroyed");
    until("it is back on the free slot", || (running(&world, &host) == ["idle.0"]).then_some(()));

    // A node that dies leaves it running; the next one begins anew, and doesn't start a rental beside it.
    host.kill();
    assert_eq!(running(&world, &host), ["idle.0"]);
    host.start();
    renter.meets(&host);
    // A request may go over the connection of the node that died, until that is noticed.
    let ask = renter.ask_of(&host, 1);
    let words = ["--", "sleep", "600"];
    let again = [&["rent", &ask, "--image", BUSYBOX, "--disk", "1", "-y"][..], &NO_NETWORK, &words].concat();
    let third = until("it is rented again", || {
        let outcome = renter.souk(&again, &[]);
        (outcome.code == 0).then(|| lease_of(&outcome.lines()))
    });
    assert!(ended_before(&happened(&world, &[&host]), "idle.0", &third));
    assert_eq!(running(&world, &host), Vec::<String>::new());
    renter.finds(&second, "the other lease goes on", |l| state_of(l) == "running");
    for lease in [&second, &third] {
        let _ = renter.json(&["destroy", "-y", lease]);
        renter.reaches(lease, "ended destroyed");
    }
    until("both are back", || (running(&world, &host) == ["idle.0", "idle.1"]).then_some(()));

    // It ends with its setting, and with its node.
    let _ = host.json(&["host", "idle-job", "clear"]);
    until("nothing is left of it", || world.docker().containers(&host.id).is_empty().then_some(()));
    let _ = host.json(&["host", "idle-job", "set", BUSYBOX, "--", "sh", "-c", job]);
    until("it runs again", || (running(&world, &host).len() == 2).then_some(()));
    host.stop();
    nothing_left(world.docker(), &host);
}

#[test]
fn an_idle_slot_is_free_for_another_node_of_the_machine_and_left_to_it() {
    if !have_all(&["docker"]) {
        return;
    }
    let world = World::with_docker();
    let locks = world.path().join("shared.locks").display().to_string();
    let node = |name| {
        let setup = world.node(name).host(2, "1.00").env("SOUK_RUNTIME_LOCK_DIR", &locks);
        world.watch(setup.start())
    };
    let (private, public) = (node("private"), node("public"));
    let renter = world.node("renter").knows(&public.listen[0]).start();
    renter.meets(&public);
    let _ = private.json(&["host", "idle-job", "set", BUSYBOX, "--", "sleep", "600"]);
    until("the private node's job runs", || (running(&world, &private) == ["idle.0", "idle.1"]).then_some(()));

    let lease = rent(&renter, &public, 1, "exec sleep 600", &NO_NETWORK);
    let events = happened(&world, &[&private, &public]);
    assert!(ended_before(&events, "idle.0", &lease), "{events:#?}");
    assert_eq!(running(&world, &private), ["idle.1"]);
    let _ = renter.json(&["destroy", "-y", &lease]);
    renter.reaches(&lease, "ended destroyed");
    until("it is back", || (running(&world, &private) == ["idle.0", "idle.1"]).then_some(()));
}
