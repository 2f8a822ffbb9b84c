//! Private container engines: stopped and started beneath a running node, or with an OCI runtime that tells what it was asked.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{fs, os::unix::fs::PermissionsExt};

use souk_tests::{
    docker::{BUSYBOX, Engine, EngineSetup, nothing_left},
    node::state_of,
    part::have_all,
    wait::until,
    world::{World, rent},
};

const NO_NETWORK: [&str; 4] = ["--tick", "1s", "--egress", "none"];

/// What the owner is told of the engine; a machine with little disk has other things to say.
fn of_the_engine(shown: &serde_json::Value) -> Vec<String> {
    let all = shown["problems"].as_array().unwrap().iter().map(|p| p["sentence"].as_str().unwrap().to_owned());
    all.filter(|sentence| sentence.contains("engine")).collect()
}

#[test]
fn an_engine_that_restarts_ends_instances_and_they_come_back() {
    if !have_all(&["dockerd"]) {
        return;
    }
    let mut engine = Engine::start(EngineSetup::default());
    let world = World::on(engine.docker.clone());
    let (host, renter) = world.pair(1);
    let lease = rent(&renter, &host, 1, "echo up >> /root/ups; exec sleep 600", &NO_NETWORK);
    engine.stop();
    let paused = renter.reaches(&lease, "paused engine_restart");
    let status = host.json(&["status"]);
    assert!(!of_the_engine(&status).is_empty(), "the owner is not told: {status:#}");
    let event = paused["events"].as_array().unwrap().iter().find(|e| e["reason"] == "engine_restart").unwrap();
    assert_eq!(event["by"], "engine", "{event:#}");
    // Nobody can rent what can't be run.
    engine.resume();
    renter.finds(&lease, "it runs again", |l| state_of(l) == "running");
    until("its disk was kept, and its command run again", || {
        (renter.souk(&["exec", &lease, "--", "cat", "/root/ups"], &[]).out == "up\nup\n").then_some(())
    });
    assert_eq!(of_the_engine(&host.json(&["status"])), Vec::<String>::new());
    let _ = renter.json(&["destroy", "-y", &lease]);
    renter.reaches(&lease, "ended destroyed");
    nothing_left(world.docker(), &host);
}

#[test]
fn an_engine_with_live_restore_restarts_beneath_running_instances() {
    if !have_all(&["dockerd"]) {
        return;
    }
    let mut engine = Engine::start(EngineSetup { live_restore: true, ..EngineSetup::default() });
    let world = World::on(engine.docker.clone());
    let (host, renter) = world.pair(1);
    let lease = rent(&renter, &host, 1, "exec sleep 600", &NO_NETWORK);
    let container = world.docker().container(&host.id);
    let pid = world.docker().inspect(&container)["State"]["Pid"].clone();
    engine.stop();
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists(), "live-restore does not work here");
    engine.resume();
    renter.finds(&lease, "receipts go on", |l| state_of(l) == "running" && l["receipt"]["acked_n"].as_u64() >= Some(3));
    assert_eq!(world.docker().inspect(&container)["State"]["Pid"], pid, "it was started again");
    let _ = renter.json(&["destroy", "-y", &lease]);
    renter.reaches(&lease, "ended destroyed");
    nothing_left(world.docker(), &host);
}

#[test]
fn each_lease_gets_its_own_gpu_and_no_other() {
    if !have_all(&["dockerd", "runc"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (script, record) = (folder.path().join("nvidia"), folder.path().join("record"));
    let text = format!(
        "#!/bin/sh\nbundle=.\nlast=\nfor word in \"$@\"; do [ \"$last\" = --bundle ] && bundle=$word; last=$word; done\n\
         case \" $* \" in *' create '*) tr ',' '\\n' < \"$bundle/config.json\" | grep -o 'NVIDIA_VISIBLE_DEVICES=[^\"]*' >> {} ;; esac\n\
         exec runc \"$@\"\n",
        record.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let engine = Engine::start(EngineSetup { runtimes: vec![("nvidia".to_owned(), script)], ..EngineSetup::default() });
    let world = World::on(engine.docker.clone());
    let uuids = ["GPU-11111111-1111-1111-1111-111111111111", "GPU-22222222-2222-2222-2222-222222222222"];
    let config = format!(
        "[[host.declared_gpus]]\nmodel = \"RTX 4090\"\nvram_mib = 24564\ndevices = [[\"/dev/null\"], [\"/dev/zero\"]]\nuuid = {uuids:?}\n"
    );
    let host = world.node("host").host(2, "0.35").config(&config);
    let host = world.watch(host.start());
    let renter = world.node("renter").knows(&host.listen[0]).start();
    let found = until("the GPUs are on offer", || {
        let found = renter.json(&["search", "--storage", "1", "gpu_name=RTX_4090 num_gpus=1 gpu_ram>=24"]);
        found["rows"].as_array().filter(|r| r.len() == 1).map(|r| r[0].clone())
    });
    assert_eq!(found["dph"].as_f64().map(|d| (d * 100.0).round()), Some(35.0));

    let leases = [0, 1].map(|_| rent(&renter, &host, 1, "echo $NVIDIA_VISIBLE_DEVICES; exec sleep 600", &NO_NETWORK));
    let placed: Vec<String> =
        leases.iter().map(|l| renter.show(l)["devices"][0].as_str().unwrap().to_owned()).collect();
    let mut sorted = placed.clone();
    sorted.sort();
    assert_eq!(sorted, uuids);
    for (lease, uuid) in leases.iter().zip(&placed) {
        assert_eq!(host.show(lease)["devices"], serde_json::json!([uuid]), "both sides hold one placement");
        until("the guest sees its GPU", || {
            (renter.souk(&["logs", lease], &[]).out.contains(uuid.as_str())).then_some(())
        });
    }
    let asked: Vec<String> = fs::read_to_string(&record).unwrap().lines().map(str::to_owned).collect();
    let expected: Vec<String> = placed.iter().map(|u| format!("NVIDIA_VISIBLE_DEVICES={u}")).collect();
    assert_eq!(asked, expected, "what the OCI runtime was asked for");

    // A third GPU there is none.
    let ask = found["id"].as_str().unwrap();
    let (code, sentence) = renter.refused(&["rent", ask, "--image", BUSYBOX, "--disk", "1", "-y"]);
    assert!(code == "rejected" && sentence.contains("free"), "{code}: {sentence}");
    // Freed, it is that one again.
    let _ = renter.json(&["destroy", "-y", &leases[0]]);
    renter.reaches(&leases[0], "ended destroyed");
    let again = rent(&renter, &host, 1, "exec sleep 600", &NO_NETWORK);
    assert_eq!(renter.show(&again)["devices"][0], placed[0].as_str());
    for lease in [&leases[1], &again] {
        let _ = renter.json(&["destroy", "-y", lease]);
    }
    nothing_left(world.docker(), &host);
}

/// Device nodes of a test.
struct Devices([String; 2]);

impl Drop for Devices {
    fn drop(&mut self) {
        for node in &self.0 {
            fs::remove_file(node).ok();
        }
    }
}

#[test]
fn declared_devices_are_seen_by_their_lease_alone() {
    if !have_all(&["dockerd"]) {
        return;
    }
    let engine = Engine::start(EngineSetup::default());
    let world = World::on(engine.docker.clone());
    // Both write to nowhere.
    let nodes = Devices(["a", "b"].map(|name| format!("/dev/souk-test-{}-{name}", std::process::id())));
    for node in &nodes.0 {
        souk_tests::program::must("mknod", &[node, "c", "1", "3"]);
    }
    let [a, b] = nodes.0.clone();
    let config =
        format!("[[host.declared_gpus]]\nmodel = \"Old Card\"\nvram_mib = 4096\ndevices = [[{a:?}], [{b:?}]]\n");
    let host = world.watch(world.node("host").host(2, "0.10").config(&config).start());
    let renter = world.node("renter").knows(&host.listen[0]).start();
    let leases = [0, 1].map(|_| rent(&renter, &host, 1, "exec sleep 600", &NO_NETWORK));
    let mut seen = Vec::new();
    for lease in &leases {
        let own = renter.show(lease)["devices"][0].as_str().unwrap().to_owned();
        let other = if own == a { &b } else { &a };
        let test = format!("echo x > {own} && ! test -e {other}");
        assert_eq!(renter.souk(&["exec", lease, "--", "sh", "-c", &test], &[]).code, 0, "{own}");
        seen.push(own);
    }
    seen.sort();
    assert_eq!(seen, [a, b]);
    for lease in &leases {
        let _ = renter.json(&["destroy", "-y", lease]);
    }
    nothing_left(world.docker(), &host);
}

#[test]
fn a_host_without_an_engine_says_so_and_offers_nothing_until_it_is_there() {
    if !have_all(&["dockerd"]) {
        return;
    }
    let mut engine = Engine::start(EngineSetup::default());
    let world = World::on(engine.docker.clone());
    engine.stop();
    let host = world.watch(world.node("host").host(1, "0.10").start());
    let shown = until("the missing engine shows", || {
        let shown = host.json(&["host", "show"]);
        (!of_the_engine(&shown).is_empty()).then_some(shown)
    });
    assert_eq!(shown["engine"]["version"], serde_json::Value::Null);
    assert!(host.asks().is_empty());
    let renter = world.node("renter").knows(&host.listen[0]).start();
    renter.meets(&host);
    engine.resume();
    let _ = renter.ask_of(&host, 1);
    assert_eq!(of_the_engine(&host.json(&["host", "show"])), Vec::<String>::new());
}
