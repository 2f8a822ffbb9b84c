//! Copies to and from instances, with real nodes and a real engine.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, PermissionsExt as _, symlink},
    },
    path::Path,
};

use souk_tests::{
    docker::BUSYBOX,
    node::Node,
    part::have,
    wait::until,
    world::{World, lease_of},
};

/// Keeps an instance of busybox running.
const IDLE: &str = "while :; do sleep 1; done";

fn instance(renter: &Node, host: &Node) -> String {
    let ask = renter.ask_of(host, 2);
    let rent = ["rent", &ask, "--image", BUSYBOX, "--disk", "2", "-y", "--", "sh", "-c", IDLE];
    let outcome = renter.souk(&rent, &[]);
    assert_eq!(outcome.code, 0, "{}{}", outcome.out, outcome.err);
    lease_of(&outcome.lines())
}

fn sh(renter: &Node, lease: &str, line: &str) -> String {
    renter.souk(&["exec", lease, "--", "sh", "-c", line], &[]).ok()
}

fn copy(renter: &Node, from: &str, to: &str) -> serde_json::Value {
    renter.json(&["copy", from, to])
}

/// Bytes that don't repeat.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(&mut next).take(length.div_ceil(8)).flatten().collect();
    bytes.truncate(length);
    bytes
}

fn same(one: &Path, other: &Path) {
    let out = std::process::Command::new("diff").args(["-r", "--no-dereference"]).args([one, other]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
}

#[test]
fn trees_go_up_and_come_back_as_they_were_and_only_what_changed_is_sent() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let host = world.watch(world.node("host").host(2, "1.00").start());
    let renter = world.node("renter").knows(&host.listen[0]).start();
    let lease = instance(&renter, &host);

    let tree = world.path().join("tree");
    for folder in 0..100 {
        let folder = tree.join(format!("d{folder}"));
        fs::create_dir_all(&folder).unwrap();
        for file in 0..100 {
            fs::write(folder.join(format!("f{file}")), format!("{} {file}", folder.display())).unwrap();
        }
    }
    fs::write(tree.join(OsStr::from_bytes(b"caf\xe9 \xff\n")), "any bytes").unwrap();
    fs::write(tree.join("script"), "#!/bin/sh\necho ran\n").unwrap();
    fs::set_permissions(tree.join("script"), fs::Permissions::from_mode(0o751)).unwrap();
    symlink("../../etc/passwd", tree.join("link")).unwrap();
    fs::create_dir(tree.join("closed")).unwrap();
    fs::write(tree.join("closed/inside"), "x").unwrap();
    fs::set_permissions(tree.join("closed"), fs::Permissions::from_mode(0o550)).unwrap();
    let sparse = fs::File::create(tree.join("sparse")).unwrap();
    sparse.set_len(300 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"in the middle", 150 << 20).unwrap();
    fs::create_dir(tree.join("cache")).unwrap();
    fs::write(tree.join("cache/x.pyc"), "no").unwrap();
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_millis(1_234_567_890_123);
    fs::File::open(tree.join("script")).unwrap().set_modified(old).unwrap();

    let there = format!("{lease}:/tmp/");
    let path = tree.to_str().unwrap();
    let first = renter.json(&["copy", "-x", "*.pyc", path, &there]);
    assert_eq!(first["problems"], 0, "{first}");
    assert!(first["entries"].as_u64().unwrap() > 10_100, "{first}");
    assert!(first["moved_bytes"].as_u64().unwrap() < 2 << 20, "holes are not sent: {first}");
    assert_eq!(
        sh(&renter, &lease, "/tmp/tree/script; stat -c %a-%Y /tmp/tree/script; readlink /tmp/tree/link")
            .lines()
            .collect::<Vec<_>>(),
        ["ran", "751-1234567890", "../../etc/passwd"]
    );
    assert_eq!(
        sh(&renter, &lease, "stat -c %a /tmp/tree/closed; ls /tmp/tree/cache | wc -l").replace('\n', " "),
        "550 0 "
    );
    assert!(sh(&renter, &lease, "du -k /tmp/tree/sparse").trim_start().starts_with(|c: char| c.is_ascii_digit()));

    // Nothing has changed: nothing is sent. One thing has: it is.
    let again = renter.json(&["copy", "-x", "*.pyc", path, &there]);
    assert_eq!(again["moved_bytes"], 0, "{again}");
    assert!(again["unchanged"].as_u64().unwrap() > 10_000, "{again}");
    fs::write(tree.join("d7/f7"), "changed").unwrap();
    let third = renter.json(&["copy", "-x", "*.pyc", path, &there]);
    assert_eq!(third["moved_bytes"], 7, "{third}");

    // And back.
    let back = world.path().join("back");
    let outcome = copy(&renter, &format!("{lease}:/tmp/tree/"), back.to_str().unwrap());
    assert_eq!(outcome["problems"], 0, "{outcome}");
    fs::remove_file(tree.join("cache/x.pyc")).unwrap();
    same(&tree, &back);
    let sparse = fs::metadata(back.join("sparse")).unwrap();
    assert_eq!(sparse.len(), 300 << 20);
    assert!(sparse.blocks() * 512 < 1 << 20, "it is not sparse any more: {} blocks", sparse.blocks());
    let script = fs::metadata(back.join("script")).unwrap();
    assert_eq!((script.mode() & 0o7777, script.modified().unwrap()), (0o751, old - std::time::Duration::ZERO));
    let _ = renter.json(&["destroy", "-y", &lease]);
}

#[test]
fn a_cut_copy_goes_on_and_a_guest_can_not_lead_it_astray() {
    if !have("docker") {
        return;
    }
    let world = World::with_docker();
    let host = world.watch(world.node("host").host(2, "1.00").start());
    let renter = world.node("renter").knows(&host.listen[0]).start();
    let lease = instance(&renter, &host);

    // Killed in the middle of a big file.
    let big = world.path().join("big");
    fs::write(&big, noise(200 << 20)).unwrap();
    let there = format!("{lease}:/tmp/big");
    let mut child = renter.command(&["copy", big.to_str().unwrap(), &there]).spawn().unwrap();
    until("some of it is there", || {
        let size = sh(&renter, &lease, "stat -c %s /tmp/.souk-*.part 2>/dev/null || echo 0");
        let size: u64 = size.trim().parse().unwrap_or(0);
        let ended = child.try_wait().unwrap().is_some();
        assert!(!ended, "it was faster than the test");
        (size > 16 << 20).then_some(())
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(
        renter.souk(&["exec", &lease, "--", "test", "-e", "/tmp/big"], &[]).code,
        1,
        "it has its name too early"
    );
    let second = copy(&renter, big.to_str().unwrap(), &there);
    let moved = second["moved_bytes"].as_u64().unwrap();
    assert!(moved < (200 << 20) - (15 << 20), "all of it was sent again: {second}");
    let digest = |path: &str| sh(&renter, &lease, &format!("sha256sum {path}")).split(' ').next().unwrap().to_owned();
    let ours = souk_tests::program::must("sha256sum", &[big.to_str().unwrap()]);
    assert!(ours.starts_with(&digest("/tmp/big")), "it is not the same");

    // Only the chunk that differs.
    sh(&renter, &lease, "printf X | dd of=/tmp/big bs=1 seek=50000000 conv=notrunc 2>/dev/null");
    let third = copy(&renter, big.to_str().unwrap(), &there);
    assert!(third["moved_bytes"].as_u64().unwrap() <= 1 << 20, "{third}");
    assert!(ours.starts_with(&digest("/tmp/big")), "it is not the same");

    // A link in the target's place in the instance, and one here, lead nowhere.
    sh(&renter, &lease, "mkdir -p /tmp/t /tmp/secret; ln -s /tmp/secret /tmp/t/sub");
    let tree = world.path().join("t");
    fs::create_dir_all(tree.join("sub")).unwrap();
    fs::write(tree.join("sub/file"), "x").unwrap();
    let outcome = renter.souk(&["copy", tree.to_str().unwrap(), &format!("{lease}:/tmp")], &[]);
    assert_eq!(outcome.code, 1, "{}{}", outcome.out, outcome.err);
    assert_eq!(sh(&renter, &lease, "ls /tmp/secret"), "");
    let out = world.path().join("out");
    let outside = world.path().join("outside");
    fs::create_dir_all(&out).unwrap();
    fs::create_dir_all(&outside).unwrap();
    symlink(&outside, out.join("sub")).unwrap();
    sh(&renter, &lease, "rm /tmp/t/sub; mkdir /tmp/t/sub; echo evil > /tmp/t/sub/file");
    let outcome = renter.souk(&["copy", &format!("{lease}:/tmp/t/"), out.to_str().unwrap()], &[]);
    assert_eq!(outcome.code, 1, "{}{}", outcome.out, outcome.err);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);

    // What isn't there is said so.
    let (_, sentence) = renter.refused(&["copy", &format!("{lease}:/nothing"), out.to_str().unwrap()]);
    assert!(sentence.contains("No such file"), "{sentence}");
    let _ = renter.json(&["destroy", "-y", &lease]);
}
