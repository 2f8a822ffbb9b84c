//! A lease that comes back to other devices of its machine, on real nodes.
#![allow(clippy::unwrap_used, clippy::panic)]

use souk_tests::{
    docker::nothing_left,
    node::state_of,
    part::have_all,
    program::must,
    wait::until,
    world::{World, rent},
};

const NO_NETWORK: [&str; 4] = ["--tick", "1s", "--egress", "none"];

/// Device nodes of this test alone.
struct Nodes([String; 2]);

impl Drop for Nodes {
    fn drop(&mut self) {
        for node in &self.0 {
            std::fs::remove_file(node).ok();
        }
    }
}

#[test]
fn a_lease_that_starts_again_on_another_device_keeps_its_disk() {
    if !have_all(&["docker"]) {
        return;
    }
    let world = World::with_docker();
    let nodes = Nodes(["x", "y"].map(|name| format!("/dev/souk-move-{}-{name}", std::process::id())));
    for node in &nodes.0 {
        // Both write to nowhere.
        let _ = must("mknod", &[node, "c", "1", "3"]);
    }
    let [a, b] = &nodes.0;
    let config =
        format!("[[host.declared_gpus]]\nmodel = \"Old Card\"\nvram_mib = 4096\ndevices = [[{a:?}], [{b:?}]]\n");
    let host = world.watch(world.node("host").host(2, "0.10").config(&config).start());
    let renter = world.node("renter").knows(&host.listen[0]).start();
    let device = |lease: &str| renter.show(lease)["devices"][0].as_str().unwrap().to_owned();
    let mover = rent(&renter, &host, 1, "echo run >> /root/runs; exec sleep 600", &NO_NETWORK);
    let other = rent(&renter, &host, 1, "exec sleep 600", &NO_NETWORK);
    let (first, second) = (device(&mover), device(&other));
    assert_ne!(first, second);

    // Its device is taken by another while it is away, and the other one becomes free.
    let _ = renter.json(&["stop", &mover]);
    renter.reaches(&mover, "paused stopped");
    let third = rent(&renter, &host, 1, "exec sleep 600", &NO_NETWORK);
    assert_eq!(device(&third), first);
    let _ = renter.json(&["destroy", "-y", &other]);
    renter.reaches(&other, "ended destroyed");
    let _ = renter.json(&["start", &mover]);
    renter.finds(&mover, "it runs again", |l| state_of(l) == "running");
    assert_eq!(device(&mover), second);
    let test = format!("cat /root/runs; test -e {second} && ! test -e {first} && echo alone");
    until("its files are there, and its new device alone", || {
        (renter.souk(&["exec", &mover, "--", "sh", "-c", &test], &[]).out == "run\nrun\nalone\n").then_some(())
    });
    for lease in [&mover, &third] {
        let _ = renter.json(&["destroy", "-y", lease]);
        renter.reaches(lease, "ended destroyed");
    }
    nothing_left(world.docker(), &host);
    let label = format!("label=souk.node={}", host.id);
    assert_eq!(world.docker().cli(&["image", "ls", "-aq", "--filter", &label]).out, "", "no image is left");
}
