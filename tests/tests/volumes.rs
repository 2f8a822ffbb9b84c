//! Volumes: kept beside instances, on real nodes with a real engine and loop-mounted file systems.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use souk_tests::{
    docker::{BUSYBOX, Engine, EngineSetup, nothing_left},
    export::{Export, Item},
    node::{Node, state_of},
    part::have_all,
    wait::until,
    world::{World, lease_of},
};

const IDLE: &str = "while :; do sleep 1; done";

/// Unmounts what a test that failed leaves. Declared before the nodes, so that they are gone by then.
struct Mounts(PathBuf);

impl Drop for Mounts {
    fn drop(&mut self) {
        for at in mounts(&self.0) {
            Command::new("umount").args(["-l", &at]).output().ok();
        }
    }
}

fn mounts(under: &Path) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let at = table.lines().filter_map(|line| line.split(' ').nth(1));
    at.filter(|at| Path::new(at).starts_with(under)).map(str::to_owned).collect()
}

/// Loop devices whose file is in a folder, deleted or not.
fn loops(under: &Path) -> usize {
    let out = Command::new("losetup").args(["--list", "--noheadings", "--output", "BACK-FILE"]).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    text.lines().filter(|line| Path::new(line.trim()).starts_with(under)).count()
}

fn host(world: &World) -> Node {
    let host = world.node("host").host(2, "1.00").env("SOUK_HOST_VOLUMES", "1");
    world.watch(host.env("SOUK_HOST_PRICES_STORAGE_GB_MONTH", "720").start())
}

fn create(renter: &Node, host: &Node, name: &str, options: &[&str]) -> String {
    let ask = renter.ask_of(host, 1);
    let outcome = renter.souk(&[&["volume", "create", name, &ask, "-y", "--tick", "1s"], options].concat(), &[]);
    assert_eq!(outcome.code, 0, "{}{}", outcome.out, outcome.err);
    lease_of(&outcome.lines())
}

fn attach<'a>(ask: &'a str, volume: &'a str) -> Vec<&'a str> {
    vec!["rent", ask, "--image", BUSYBOX, "--disk", "1", "--volume", volume, "-y", "--", "sh", "-c", IDLE]
}

fn instance(renter: &Node, host: &Node, volume: &str) -> String {
    let outcome = renter.souk(&attach(&renter.ask_of(host, 1), volume), &[]);
    assert_eq!(outcome.code, 0, "{}{}", outcome.out, outcome.err);
    lease_of(&outcome.lines())
}

fn sh(renter: &Node, lease: &str, line: &str) -> String {
    renter.souk(&["exec", lease, "--", "sh", "-c", line], &[]).ok()
}

fn closed(lease: &Value) -> bool {
    lease["receipt"]["closed"] == true && lease["receipt"]["due"] == lease["receipt"]["acked"]
}

fn destroy(renter: &Node, lease: &str) {
    let _ = renter.json(&["destroy", "-y", lease]);
    renter.finds(lease, "closed", closed);
}

#[test]
fn data_outlives_instances_and_is_billed_by_its_size_until_it_is_deleted() {
    if !have_all(&["docker", "loop"]) {
        return;
    }
    let world = World::with_docker();
    let _mounts = Mounts(world.path().to_owned());
    let host = host(&world);
    let renter = world.node("renter").knows(&host.listen[0]).start();
    let volume = create(&renter, &host, "data", &["--size", "0.1"]);
    assert_eq!(state_of(&renter.show("data")), "kept");
    let (_, why) = renter.refused(&["volume", "create", "data", &renter.ask_of(&host, 1), "--size", "0.1", "-y"]);
    assert!(why.contains("named data already"), "{why}");
    let (_, why) = renter.refused(&["volume", "create", "big", &renter.ask_of(&host, 1), "--size", "2", "-y"]);
    assert!(why.contains("left for volumes"), "{why}");

    let first = instance(&renter, &host, "data:/data");
    assert_eq!(sh(&renter, &first, "echo kept > /data/file; cat /data/file; stat -c %a /data"), "kept\n777\n");
    let (_, why) = renter.refused(&["volume", "delete", "-y", "data"]);
    assert!(why.contains("attached to instance"), "{why}");
    let (_, why) = renter.refused(&["stop", "data"]);
    assert!(why.contains("neither started nor stopped"), "{why}");
    // Several instances may have it at once.
    let second = instance(&renter, &host, "data:/mnt/here:ro");
    assert_eq!(sh(&renter, &second, "cat /mnt/here/file; touch /mnt/here/x 2>&1 | grep -c Read-only"), "kept\n1\n");
    destroy(&renter, &first);
    destroy(&renter, &second);
    let third = instance(&renter, &host, &format!("{}:/data", &volume[..12]));
    assert_eq!(sh(&renter, &third, "cat /data/file"), "kept\n");

    // It holds what was rented and not much more.
    let full = sh(
        &renter,
        &third,
        "dd if=/dev/zero of=/data/big bs=1M count=300 2>&1 | grep -c 'No space'; wc -c < /data/big",
    );
    let mut lines = full.lines();
    assert_eq!(lines.next(), Some("1"), "{full}");
    let held: u64 = lines.next().unwrap().trim().parse().unwrap();
    assert!((99_000_000..115_000_000).contains(&held), "{held} bytes");

    // Another renter has no way to it.
    let stranger = world.node("stranger").knows(&host.listen[0]).start();
    let ask = stranger.ask_of(&host, 1);
    let (_, why) = stranger.refused(&attach(&ask, &format!("{volume}:/data")));
    assert!(why.contains("no "), "{why}");
    let listed = renter.json(&["volume", "list"]);
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");

    destroy(&renter, &third);
    renter.finds("data", "three receipts", |l| l["receipt"]["acked_n"].as_u64() >= Some(3));
    let _ = renter.json(&["volume", "delete", "-y", "data"]);
    let over = renter.finds(&volume, "closed", closed);
    assert_eq!(state_of(&over), "ended destroyed");
    // 720 a month for a GB are 1 an hour: 0.1 GB for so many milliseconds, to the unit.
    let export = Export::of(&renter, Some(&volume), &world.path().join("volume.ledger"));
    let mut usage = export.items.iter().filter_map(|item| match item {
        Item::Usage(usage) => Some(usage.verify(&souk_protocol::NetworkId::of_name("scenario")).unwrap()),
        Item::Entry(_) | Item::Ack(_) => None,
    });
    let usage = usage.next_back().unwrap();
    let stored = u128::from(usage.counters.storage.0);
    assert!(stored > 3000 && usage.counters.active.0 == 0, "{:?}", usage.counters);
    assert_eq!(u128::from(usage.due.0), 1_000_000_000 * stored / 10 / 3_600_000);

    nothing_left(world.docker(), &host);
    until("no mount and no loop device is left", || {
        (mounts(world.path()).is_empty() && loops(world.path()) == 0).then_some(())
    });
    assert_eq!(std::fs::read_dir(host.dir().join("runtime/volumes")).unwrap().count(), 0);
}

#[test]
fn files_are_copied_without_an_instance_and_cloned_to_another_host() {
    if !have_all(&["docker", "dockerd", "loop"]) {
        return;
    }
    let other = Engine::start(EngineSetup::default());
    let world = World::with_docker();
    let _mounts = Mounts(world.path().to_owned());
    let mut near = host(&world);
    let far = world.node("far").host(2, "1.00").env("SOUK_HOST_VOLUMES", "1").knows(&near.listen[0]);
    let socket = other.docker.socket().display().to_string();
    let far = world.watch(far.env("SOUK_RUNTIME_DOCKER_SOCKET", &socket).start());
    let renter = world.node("renter").knows(&near.listen[0]).start();
    renter.meets(&far);
    let _ = create(&renter, &near, "data", &["--size", "0.1"]);

    let here = world.path().join("tree");
    std::fs::create_dir_all(here.join("deep/er")).unwrap();
    std::fs::write(here.join("deep/er/file"), "kept").unwrap();
    let big: Vec<u8> = (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(here.join("big"), &big).unwrap();
    let path = |name: &str| world.path().join(name).display().to_string();
    let copy = |from: &str, to: &str| renter.json(&["copy", from, to]);
    let up = copy(&format!("{}/", path("tree")), "data:/");
    assert_eq!(up["problems"], 0, "{up}");
    assert!(up["moved_bytes"].as_u64() >= Some(3_000_000), "{up}");
    // What is there is not sent again, and what is not in the volume is not to be written.
    let again = copy(&format!("{}/", path("tree")), "data:/");
    assert!(again["moved_bytes"].as_u64() < Some(100_000), "{again}");
    let beside = renter.souk(&["copy", &path("tree/big"), "data:/../big"], &[]);
    assert!(beside.code != 0 && format!("{}{}", beside.out, beside.err).contains("ead-only"), "{beside:?}");
    until("the container of the copies is gone", || world.docker().containers(&near.id).is_empty().then_some(()));
    // Nothing else gets in.
    assert_ne!(renter.souk(&["exec", "data", "--", "sh"], &[]).code, 0);

    // With an instance, on this host.
    let lease = instance(&renter, &near, "data:/data");
    assert_eq!(sh(&renter, &lease, "cat /data/deep/er/file; mkdir /tmp/x; echo more > /tmp/x/more"), "kept");
    let _ = copy(&format!("{}:/tmp/x/", &lease[..12]), "data:/");
    assert_eq!(sh(&renter, &lease, "cat /data/more"), "more\n");
    destroy(&renter, &lease);

    // A node that is killed in a copy removes the container at its next start, and the copy goes on.
    std::fs::write(world.path().join("bigger"), big.repeat(15)).unwrap();
    let mut cut = renter.command(&["copy", &path("bigger"), "data:/"]);
    let mut cut = cut.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    until("a container is there for the copy", || (!world.docker().containers(&near.id).is_empty()).then_some(()));
    near.kill();
    cut.wait().unwrap();
    near.start();
    renter.meets(&near);
    until("what the copy had is gone", || world.docker().containers(&near.id).is_empty().then_some(()));
    renter.reaches("data", "kept");
    let whole = copy(&path("bigger"), "data:/");
    assert_eq!((whole["entries"].as_u64(), whole["problems"].as_u64()), (Some(1), Some(0)), "{whole}");

    let ask = renter.ask_of(&far, 1);
    let (_, why) = renter.refused(&["volume", "clone", "data", &ask, "--size", "0.05", "-y"]);
    assert!(why.contains("can't be smaller"), "{why}");
    let cloned = renter.souk(&["volume", "clone", "data", &ask, "--tick", "1s", "-y"], &[]);
    assert_eq!(cloned.code, 0, "{}{}", cloned.out, cloned.err);
    let there = renter.show("data-clone");
    assert_eq!((state_of(&there).as_str(), there["peer"].as_str()), ("kept", Some(far.id.as_str())));
    // The same command completes it, and moves only what is missing.
    std::fs::write(here.join("new"), "new").unwrap();
    let _ = copy(&path("tree/new"), "data:/");
    let cloned = renter.souk(&["volume", "clone", "data", &ask, "-y"], &[]);
    assert_eq!(cloned.code, 0, "{}{}", cloned.out, cloned.err);
    let last: Value = serde_json::from_str(cloned.out.lines().last().unwrap()).unwrap();
    assert!(last["moved_bytes"].as_u64().is_some_and(|moved| (3..100_000).contains(&moved)), "{last}");
    std::fs::create_dir(path("back")).unwrap();
    let _ = copy("data-clone:/", &path("back"));
    assert_eq!(std::fs::read(world.path().join("back/big")).unwrap(), big);
    assert_eq!(std::fs::read_to_string(world.path().join("back/deep/er/file")).unwrap(), "kept");
    assert_eq!(std::fs::read_to_string(world.path().join("back/more")).unwrap(), "more\n");
    assert_eq!(std::fs::read_to_string(world.path().join("back/new")).unwrap(), "new");
    let _ = renter.json(&["volume", "delete", "-y", "data", "data-clone"]);
    nothing_left(world.docker(), &near);
    nothing_left(&other.docker, &far);
}

/// Whether the instance can be asked, and still has what was written to its volume.
fn has_one(renter: &Node, lease: &str) -> Option<()> {
    let read = renter.souk(&["exec", lease, "--", "cat", "/data/n"], &[]);
    assert!(read.code != 0 || read.out == "1\n", "{read:?}");
    (read.code == 0).then_some(())
}

#[test]
fn a_killed_host_and_a_rebooted_machine_have_it_again() {
    if !have_all(&["docker", "loop"]) {
        return;
    }
    let world = World::with_docker();
    let _mounts = Mounts(world.path().to_owned());
    let mut host = host(&world);
    let renter = world.node("renter").knows(&host.listen[0]).start();
    let volume = create(&renter, &host, "data", &["--size", "0.1"]);
    let lease = instance(&renter, &host, "data:/data");
    assert_eq!(sh(&renter, &lease, "echo 1 > /data/n; sync; cat /data/n"), "1\n");
    host.kill();
    host.start();
    renter.meets(&host);
    // The renter took it for running all the while: it answers once the host has adopted it.
    until("the exec answers", || has_one(&renter, &lease));
    host.reaches(&volume, "kept");

    // As after a reboot: neither the container runs nor is anything mounted, and a folder of no lease is there.
    host.kill();
    let container = world.docker().container(&host.id);
    let _ = world.docker().cli(&["kill", &container]).ok();
    for at in mounts(world.path()) {
        assert!(Command::new("umount").arg(&at).status().unwrap().success());
    }
    let orphan = host.dir().join("runtime/volumes/orphan.ext4");
    std::fs::write(&orphan, "").unwrap();
    host.start();
    renter.meets(&host);
    renter.finds(&lease, "it was restarted and runs", |l| {
        let events = l["events"].as_array().unwrap();
        state_of(l) == "running" && events.iter().filter(|e| e["reason"] == "host_restart").count() >= 2
    });
    until("the exec answers", || has_one(&renter, &lease));
    until("the orphan is gone", || (!orphan.exists()).then_some(()));

    // Gone for good: said so, and the instance that had it is stopped.
    host.kill();
    for at in mounts(world.path()) {
        assert!(Command::new("umount").args(["-l", &at]).status().unwrap().success());
    }
    std::fs::remove_file(host.dir().join(format!("runtime/volumes/{volume}.ext4"))).unwrap();
    host.start();
    renter.meets(&host);
    renter.reaches(&volume, "ended volume_lost");
    renter.reaches(&lease, "paused volume_ended");
    let (_, why) = renter.refused(&["start", &lease]);
    assert!(why.contains("keeps no volume"), "{why}");
    destroy(&renter, &lease);
    nothing_left(world.docker(), &host);
}

#[test]
fn past_its_end_it_stops_who_has_it_and_an_extension_brings_it_back() {
    if !have_all(&["docker", "loop"]) {
        return;
    }
    let world = World::with_docker();
    let _mounts = Mounts(world.path().to_owned());
    let host = host(&world);
    let renter = world.node("renter").knows(&host.listen[0]).start();
    let volume = create(&renter, &host, "short", &["--size", "0.1", "--for", "12s"]);
    let lease = instance(&renter, &host, "short:/data");
    assert_eq!(sh(&renter, &lease, "echo here > /data/f; sync; cat /data/f"), "here\n");
    renter.reaches(&volume, "paused expired");
    renter.reaches(&lease, "paused volume_ended");
    let told = renter.show(&volume);
    assert!(told["events"].as_array().unwrap().iter().any(|e| e["what"] == "expiring_soon"), "{told:#}");
    let (_, why) = renter.refused(&attach(&renter.ask_of(&host, 1), "short:/data"));
    assert!(why.contains("paused(expired)"), "{why}");
    let _ = renter.json(&["extend", &volume, "10m", "-y"]);
    renter.reaches(&volume, "kept");
    let _ = renter.json(&["start", &lease]);
    renter.reaches(&lease, "running");
    assert_eq!(sh(&renter, &lease, "cat /data/f"), "here\n");
    destroy(&renter, &lease);
    let _ = renter.json(&["volume", "delete", "-y", "short"]);
    renter.finds(&volume, "closed", closed);
    nothing_left(world.docker(), &host);
}
