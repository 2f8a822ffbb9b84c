//! A guest's disk is as large as it was granted, whatever it writes and wherever; and the same disk after a crash, a reboot, a move.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, clippy::wildcard_enum_match_arm)]

mod support;

use std::path::PathBuf;

use souk_runtime::{Devices, DiskQuota, InstanceEvent, InstanceSpec, InstanceState, Runtime, RuntimeConfig};
use support::{SOCKET, World, have, import, root_fs, run};

const GRANTED_MIB: u64 = 32;

fn bounded(world: &World) -> bool {
    let hard = world.runtime.info().disk_quota == DiskQuota::Hard;
    assert!(
        hard || world.runtime.info().storage_driver != "overlay2" || !have("loop"),
        "disks in files must hold here"
    );
    if !hard {
        println!("skipped: this engine's disk limits can't be enforced");
    }
    hard
}

async fn with_volume(world: &World, name: &str, command: &[&str]) -> InstanceSpec {
    const NAME: &str = "souk-test/volume:1";
    import(SOCKET, NAME, root_fs(true), &["ENV PATH=/bin", "VOLUME /data"]).await;
    let mut spec = world.spec(name, command).await;
    spec.image = world.runtime.resolve_image(NAME).await.unwrap().pin;
    spec.disk_mb = GRANTED_MIB;
    spec
}

fn layer(world: &World, lease: &str) -> PathBuf {
    let format = "{{.GraphDriver.Data.UpperDir}}";
    let upper = run("docker", &["inspect", "-f", format, &world.container(lease)]);
    PathBuf::from(upper.trim()).parent().unwrap().to_owned()
}

/// As a reboot leaves it: nothing is mounted.
fn unmount(world: &World) {
    support::unmount_under(&world.config.data_dir);
    no_loops(world);
}

/// No loop device is left; the engine may still be about to unmount what ended.
fn no_loops(world: &World) {
    let end = std::time::Instant::now() + support::DEADLINE;
    while run("losetup", &["-a"]).contains(world.config.data_dir.to_str().unwrap()) {
        assert!(std::time::Instant::now() < end, "{}", run("losetup", &["-a"]));
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

async fn started(world: &mut World, lease: &str) {
    world.runtime.start(lease).unwrap();
    world.event(lease, "started", |event| matches!(event, InstanceEvent::Started { .. }).then_some(())).await;
}

async fn killed(world: &mut World, lease: &str) {
    world.runtime.kill(lease).unwrap();
    world.exited(lease).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_a_guest_writes_exceeds_its_disk() {
    if !have("docker") {
        return;
    }
    let mut world = World::new().await;
    if !bounded(&world) {
        return;
    }
    let spec = with_volume(&world, "hog", &["sh", "-c", "echo kept > /data/kept; echo kept > /kept; sleep 1000"]).await;
    world.start(&spec).await;
    let lease = spec.lease.as_str();
    // In the image's tree, in its volume, in the files that the engine makes: one disk. Each in turn takes all that is left.
    for path in ["/big", "/data/big", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"] {
        let line = format!("cp {path} /tmp/before 2>/dev/null; dd if=/dev/zero of={path} bs=64k count=4096 2>&1");
        let (code, out, _) = world.shell(lease, &line).await;
        assert!(code != 0 && out.contains("No space left"), "{path}: {code} {out}");
        let (_, out, _) = world.shell(lease, &format!("du -k {path}; df -k / | tail -1")).await;
        let kib: u64 = out.split_whitespace().next().unwrap().parse().unwrap();
        assert!(kib > GRANTED_MIB * 900 && kib < (GRANTED_MIB + 8) * 1024, "{path} took {out}");
        world.shell(lease, &format!(": > {path}; rm -f /big /data/big")).await;
    }
    // Files without a byte are bounded as well.
    let (code, _, err) =
        world.shell(lease, "i=0; while : > /data/n$i; do i=$((i+1)); [ $i -gt 50000 ] && exit 9; done").await;
    assert!(code != 9, "inodes without end");
    assert!(err.contains("No space left") || code != 0, "{code} {err}");
    let (_, count, _) = world.shell(lease, "ls /data | wc -l").await;
    assert!(count.trim().parse::<u64>().unwrap() > 2000, "{count}");
    world.shell(lease, "cd /data && ls | grep ^n | xargs rm -f").await;

    // Its owner is told before it is full; and it is not stopped when it is.
    world.shell(lease, "dd if=/dev/zero of=/big bs=1M count=31").await;
    let (used, limit) = world
        .event(lease, "disk nearly full", |event| match event {
            InstanceEvent::DiskUse { used_bytes, limit_bytes } => Some((*used_bytes, *limit_bytes)),
            _ => None,
        })
        .await;
    assert!(used <= limit && limit == GRANTED_MIB << 20, "{used} of {limit}");
    assert_eq!(world.shell(lease, "cat /kept /data/kept").await.1, "kept\nkept\n");
    world.shell(lease, "rm /big").await;

    // A restart and a reboot find it as it was.
    killed(&mut world, lease).await;
    started(&mut world, lease).await;
    assert_eq!(world.shell(lease, "cat /kept /data/kept; hostname; cat /etc/hostname").await.1.lines().count(), 3);
    killed(&mut world, lease).await;
    unmount(&world);
    let container = world.container(lease);
    let by_hand = std::process::Command::new("docker").args(["start", &container]).output().unwrap();
    assert!(!by_hand.status.success(), "without its disk nobody can start it");
    started(&mut world, lease).await;
    assert_eq!(world.shell(lease, "cat /kept /data/kept").await.1, "kept\nkept\n");
    let (code, out, _) = world.shell(lease, "dd if=/dev/zero of=/big bs=64k count=4096 2>&1").await;
    assert!(code != 0 && out.contains("No space left"), "{out}");

    // Nothing is left of it.
    let layer = layer(&world, lease);
    world.destroy(lease).await;
    assert!(!layer.exists());
    assert_eq!(std::fs::read_dir(world.config.data_dir.join("disks")).unwrap().count(), 0);
    no_loops(&world);
    assert!(!run("docker", &["volume", "ls", "-q"]).contains(&container));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_cut_off_takes_disks_up_again_and_removes_lost_ones() {
    if !have("docker") {
        return;
    }
    let mut world = World::new().await;
    if !bounded(&world) {
        return;
    }
    let spec =
        with_volume(&world, "kept", &["sh", "-c", "echo run >> /data/runs; echo run >> /runs; sleep 1000"]).await;
    let lease = spec.lease.clone();
    world.start(&spec).await;
    while world.shell(&lease, "cat /data/runs").await.1.is_empty() {}
    killed(&mut world, &lease).await;
    let kept = world.runtime.info();
    assert_eq!(kept.disk_quota, DiskQuota::Hard);

    // As after a reboot, with what a node leaves that is cut off while it makes disks.
    world.runtime.shutdown().await;
    unmount(&world);
    let disks = world.config.data_dir.join("disks");
    std::fs::write(disks.join("0123456789abcdef.ext4"), "half").unwrap();
    std::fs::write(disks.join("fedcba9876543210.new"), "less").unwrap();
    world.reconnect().await;
    let adopted = world.runtime.adopt(std::slice::from_ref(&lease)).await.unwrap();
    assert!(matches!(adopted.first().unwrap().state, InstanceState::Exited(_)), "{adopted:?}");
    assert!(!disks.join("0123456789abcdef.ext4").exists() && !disks.join("fedcba9876543210.new").exists());
    // A stopped instance's files are there to be copied, and to be made an image of.
    let name = world.container(&lease);
    let copied = std::process::Command::new("docker").args(["cp", &format!("{name}:/runs"), "-"]).output().unwrap();
    assert!(String::from_utf8_lossy(&copied.stdout).contains("run\n"), "{copied:?}");
    let image = run("docker", &["commit", &name]);
    let listed = run("docker", &["run", "--rm", "--entrypoint", "/bin/cat", image.trim(), "/runs"]);
    run("docker", &["rmi", image.trim()]);
    assert_eq!(listed, "run\n");

    // A move to other devices keeps the disk, its bytes and its bound.
    if std::path::Path::new("/dev/fuse").exists() {
        let devices = Devices { gpus: vec![], nodes: vec!["/dev/fuse".into()] };
        world.runtime.start_on(&lease, devices).unwrap();
        world.event(&lease, "started", |event| matches!(event, InstanceEvent::Started { .. }).then_some(())).await;
        assert_eq!(
            world.shell(&lease, "cat /data/runs /runs; ls /dev/fuse").await.1,
            "run\nrun\nrun\nrun\n/dev/fuse\n"
        );
        let (code, out, _) = world.shell(&lease, "dd if=/dev/zero of=/big bs=64k count=4096 2>&1").await;
        assert!(code != 0 && out.contains("No space left"), "{out}");
        assert_eq!(run("docker", &["image", "ls", "-aq", "--filter", &format!("label=souk.lease={lease}")]), "");
    }
    world.destroy(&lease).await;
    assert_eq!(std::fs::read_dir(&disks).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_disks_in_files_are_off_disks_are_watched() {
    if !have("docker") {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let config = RuntimeConfig { loop_disks: false, ..support::config(SOCKET, data.path()) };
    let world = World::with(config).await;
    if world.runtime.info().storage_driver == "overlay2" && !run("df", &["-T", "/var/lib/docker"]).contains("xfs") {
        assert_eq!(world.runtime.info().disk_quota, DiskQuota::Soft);
    }
}
