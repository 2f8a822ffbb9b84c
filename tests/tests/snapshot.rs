//! An instance's disk as an image: brought home, kept on its host, and moved to another machine.
#![allow(clippy::unwrap_used, clippy::panic)]

use souk_tests::{
    docker::{Engine, EngineSetup, nothing_left},
    part::have_all,
    wait::until,
    world::{World, lease_of, rent},
};

#[test]
fn a_disk_comes_home_stays_and_moves_to_another_machine() {
    if !have_all(&["docker", "dockerd"]) {
        return;
    }
    let other = Engine::start(EngineSetup::default());
    let world = World::with_docker();
    let (host, renter) = world.pair(2);
    let far = world.node("far").knows(&host.listen[0]).host(1, "1.50");
    let socket = other.docker.socket().display().to_string();
    let far = world.watch(far.env("SOUK_RUNTIME_DOCKER_SOCKET", &socket).start());
    renter.meets(&far);
    let line = "echo $SECRET >> /root/runs; exec sleep 600";
    let lease = rent(&renter, &host, 1, line, &["--egress", "none", "-e", "SECRET=geheim"]);
    let _ = renter.souk(&["exec", &lease, "--", "sh", "-c", "echo kept > /root/file"], &[]).ok();

    // Home, while it runs: the file is in it, the lease's variables are not.
    let file = world.path().join("disk.tar").display().to_string();
    let told = renter.json(&["snapshot", &lease, "--out", &file]);
    assert!(told["image"].as_str().unwrap().starts_with("push://snapshot@sha256:"), "{told:#}");
    let _ = other.docker.cli(&["load", "-q", "-i", &file]).ok();
    let shown =
        other.docker.cli(&["run", "--rm", "--network", "none", "souk-snapshot:latest", "cat", "/root/file"]).ok();
    assert_eq!(shown, "kept\n");
    let env = other.docker.cli(&["image", "inspect", "-f", "{{.Config.Env}}", "souk-snapshot:latest"]).ok();
    assert_eq!(env.trim(), "[PATH=/bin]");

    // Kept, of a stopped one: rented there by its name, and by nobody else without sending it.
    let _ = renter.json(&["stop", &lease]);
    renter.reaches(&lease, "paused stopped");
    let kept = renter.json(&["snapshot", &lease]);
    let image = kept["image"].as_str().unwrap();
    let ask = renter.ask_of(&host, 1);
    let arguments = ["rent", &ask, "--image", image, "--disk", "1", "-y", "--egress", "none", "--"];
    let second = renter.souk(&[&arguments[..], &["sleep", "600"]].concat(), &[]);
    assert_eq!(second.code, 0, "{}{}", second.out, second.err);
    let second = lease_of(&second.lines());
    assert_eq!(renter.souk(&["exec", &second, "--", "cat", "/root/file"], &[]).ok(), "kept\n");
    let _ = renter.json(&["destroy", "-y", &second]);

    // Moved: the clone runs what the lease ran, on its disk; the old lease ends.
    let ask = renter.ask_of(&far, 1);
    let cloned = renter.souk(&["clone", &lease, &ask, "--move", "-y"], &[]);
    assert_eq!(cloned.code, 0, "{}{}", cloned.out, cloned.err);
    let clone = cloned.json()["lease"].as_str().unwrap().to_owned();
    renter.reaches(&clone, "running");
    renter.reaches(&lease, "ended destroyed");
    until("it has both runs", || {
        let runs = renter.souk(&["exec", &clone, "--", "cat", "/root/runs", "/root/file"], &[]).out;
        (runs == "geheim\ngeheim\nkept\n").then_some(())
    });
    let _ = renter.json(&["destroy", "-y", &clone]);
    renter.reaches(&clone, "ended destroyed");
    nothing_left(world.docker(), &host);
}
