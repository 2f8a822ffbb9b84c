//! Images without a registry: sent from the renter's own engine to the host's, layer by layer.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{fs, io::Read as _, process::Stdio};

use rustix::process::{Pid, Signal, kill_process};
use souk_tests::{
    docker::{BUSYBOX, Docker, Engine, EngineSetup, nothing_left},
    node::{Node, state_of},
    part::have_all,
    program::{Outcome, wait},
    wait::{PATIENCE, until},
    world::{World, lease_of},
};

/// An image of the renter's engine: busybox, and one more layer with so many random bytes.
fn image(docker: &Docker, name: &str, mib: u64) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut random = vec![0; usize::try_from(mib << 20).unwrap()];
    fs::File::open("/dev/urandom").unwrap().read_exact(&mut random).unwrap();
    fs::write(folder.path().join("data"), random).unwrap();
    let made = docker.cli(&["create", BUSYBOX]).ok();
    let made = made.trim();
    let _ = docker.cli(&["cp", &folder.path().join("data").display().to_string(), &format!("{made}:/data")]).ok();
    let id = docker.cli(&["commit", "--change", "ENV OF=mine", made, name]).ok();
    let _ = docker.cli(&["rm", made]).ok();
    id.trim().to_owned()
}

fn souk(renter: &Node, home: &Docker, arguments: &[&str]) -> std::process::Command {
    let mut command = renter.command(arguments);
    command.env("DOCKER_HOST", format!("unix://{}", home.socket().display()));
    command
}

fn run(command: &mut std::process::Command) -> Outcome {
    souk_tests::program::run(command, &[])
}

fn rent_arguments<'a>(ask: &'a str, image: &'a str, line: &'a str) -> Vec<&'a str> {
    let mut all = vec!["rent", ask, "--image", image, "--push", "--disk", "1", "-y", "--egress", "none"];
    all.extend(["--", "sh", "-c", line]);
    all
}

const LINE: &str = "echo $OF; sha256sum /data; exec sleep 600";

#[test]
fn an_image_goes_from_engine_to_engine_and_only_what_lacks() {
    if !have_all(&["docker", "dockerd"]) {
        return;
    }
    let home = Engine::start(EngineSetup::default());
    let world = World::with_docker();
    let (host, renter) = world.pair(1);
    let stranger = world.node("stranger").knows(&host.listen[0]).start();
    // Both engines have the same lowest layer, which the host lets anyone use.
    let file = world.path().join("base.tar").display().to_string();
    let _ = world.docker().cli(&["save", "-o", &file, BUSYBOX]).ok();
    let _ = home.docker.cli(&["load", "-q", "-i", &file]).ok();
    let id = image(&home.docker, "mine/app:dev", 12);
    let sum = home.docker.cli(&["run", "--rm", "--network", "none", "mine/app:dev", "sha256sum", "/data"]).ok();

    let ask = renter.ask_of(&host, 1);
    let outcome = run(&mut souk(&renter, &home.docker, &rent_arguments(&ask, "mine/app:dev", LINE)));
    assert_eq!(outcome.code, 0, "{}{}", outcome.out, outcome.err);
    let lease = lease_of(&outcome.lines());
    let detail = renter.reaches(&lease, "running");
    assert_eq!(detail["image_digest"], id.as_str(), "the lease names the very image");
    let sum = sum.split(' ').next().unwrap();
    until("it runs with its data", || {
        let logs = renter.souk(&["logs", &lease], &[]).out;
        (logs.contains("mine") && logs.contains(sum)).then_some(())
    });
    // The engine of the host knows it by no name, and nothing of what came is left beside it.
    let named = world.docker().cli(&["image", "inspect", "-f", "{{.RepoTags}}", &id]).ok();
    assert_eq!(named.trim(), "[]");
    let sent = host.dir().join("runtime/sent");
    assert!(fs::read_dir(&sent).unwrap().next().is_none(), "{sent:?}");
    let _ = renter.json(&["destroy", "-y", &lease]);
    renter.reaches(&lease, "ended destroyed");

    // A second time nothing is sent; and who hasn't sent it does not get it, by no name.
    let ask = renter.ask_of(&host, 1);
    let outcome = run(&mut souk(&renter, &home.docker, &rent_arguments(&ask, "mine/app:dev", LINE)));
    assert_eq!(outcome.code, 0, "{}{}", outcome.out, outcome.err);
    let again = lease_of(&outcome.lines());
    renter.reaches(&again, "running");
    let _ = renter.json(&["destroy", "-y", &again]);
    renter.reaches(&again, "ended destroyed");
    let ask = stranger.ask_of(&host, 1);
    let reference = format!("push://mine/app:dev@{id}");
    let mut taken = vec!["rent", &ask, "--image", &reference, "--disk", "1", "-y", "-d", "--egress", "none"];
    taken.extend(["--", "sleep", "600"]);
    let lease = lease_of(&stranger.souk(&taken, &[]).lines());
    let shown = stranger.show(&lease);
    assert_eq!(state_of(&shown), "preparing", "it waits for what was not sent: {shown:#}");
    // It owns the image too, and sends it: no layer but those of everyone counts as there.
    let pushed = run(&mut souk(&stranger, &home.docker, &["push", &lease]));
    let pushed = pushed.json();
    assert_eq!((pushed["layers"].as_u64(), pushed["sent"].as_u64()), (Some(2), Some(1)), "{pushed:#}");
    assert!(pushed["bytes"].as_u64() > Some(12 << 20), "{pushed:#}");
    stranger.reaches(&lease, "running");
    let _ = stranger.json(&["destroy", "-y", &lease]);
    stranger.reaches(&lease, "ended destroyed");
    nothing_left(world.docker(), &host);
    let _ = world.docker().cli(&["rmi", "-f", &id]);
}

#[test]
fn a_push_that_is_cut_goes_on_and_a_host_that_dies_loses_nothing_of_it() {
    if !have_all(&["docker", "dockerd"]) {
        return;
    }
    let home = Engine::start(EngineSetup::default());
    let world = World::with_docker();
    let mut host = world.watch(world.node("host").host(1, "1.00").start());
    let renter = world.node("renter").knows(&host.listen[0]).start();
    renter.meets(&host);
    let id = image(&home.docker, "mine/large:1", 200);
    let ask = renter.ask_of(&host, 1);
    let parts = host.dir().join("runtime/sent");
    let size = || {
        let folders = fs::read_dir(&parts).into_iter().flatten().flatten();
        let files = folders.flat_map(|folder| fs::read_dir(folder.path()).into_iter().flatten().flatten());
        files.filter_map(|file| file.metadata().ok()).map(|about| about.len()).sum::<u64>()
    };
    // The command is killed in the middle.
    let mut command = souk(&renter, &home.docker, &rent_arguments(&ask, "mine/large:1", LINE));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let before = until("some of it has come", || Some(size()).filter(|bytes| *bytes > 4 << 20));
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    let _ = wait(&mut child, PATIENCE);
    let leases = renter.json(&["ps"]);
    let lease = leases[0]["lease"].as_str().unwrap().to_owned();
    // Another command goes on; the host dies beneath it and comes back.
    let mut command = souk(&renter, &home.docker, &["push", &lease]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("more has come", || (size() > before + (8 << 20)).then_some(()));
    host.kill();
    let kept = size();
    host.start();
    renter.meets(&host);
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(ended.status.success(), "{said}{}", String::from_utf8_lossy(&ended.stderr));
    let said: serde_json::Value = serde_json::from_str(said.trim()).unwrap();
    if said["sent"] == 1 {
        let bytes = said["bytes"].as_u64().unwrap();
        assert!(
            bytes <= (201 << 20) - before.min(kept) / 2,
            "it began anew: {bytes} of 200 MiB, {before} and {kept} were there"
        );
    }
    renter.reaches(&lease, "running");
    let _ = renter.json(&["destroy", "-y", &lease]);
    renter.reaches(&lease, "ended destroyed");
    nothing_left(world.docker(), &host);
    let _ = world.docker().cli(&["rmi", "-f", &id]);
}

#[test]
fn a_run_takes_its_image_along_and_refusals_are_clear() {
    if !have_all(&["docker", "dockerd"]) {
        return;
    }
    let home = Engine::start(EngineSetup::default());
    let world = World::with_docker();
    let host = world.watch(world.node("host").host(1, "1.00").start());
    let renter = world.node("renter").knows(&host.listen[0]).start();
    let picky = world.watch(
        world.node("picky").knows(&host.listen[0]).host(1, "2.00").env("SOUK_HOST_IMAGES_SENT", "false").start(),
    );
    renter.meets(&host);
    renter.meets(&picky);
    let id = image(&home.docker, "mine/job:1", 1);
    let _ = renter.ask_of(&host, 1);
    let _ = renter.ask_of(&picky, 1);
    let mut command = std::process::Command::new(souk_tests::program::souk());
    command.arg("--dir").arg(renter.dir()).env("SOUK_NETWORK_NAME", renter.variable("SOUK_NETWORK_NAME"));
    command.env("DOCKER_HOST", format!("unix://{}", home.docker.socket().display()));
    command.args([
        "run",
        "-q",
        "--disk",
        "1",
        "--egress",
        "none",
        "--push",
        "mine/job:1",
        "--",
        "sh",
        "-c",
        "echo $OF; exit 3",
    ]);
    let outcome = run(&mut command);
    assert_eq!((outcome.code, outcome.out.as_str()), (3, "mine\n"), "{}", outcome.err);

    let ask = renter.ask_of(&picky, 1);
    let (code, sentence) = run(&mut souk(&renter, &home.docker, &rent_arguments(&ask, "mine/job:1", LINE))).error();
    assert!(code == "rejected" && sentence.contains("takes no images from renters"), "{code}: {sentence}");
    let (code, sentence) = run(&mut souk(&renter, &home.docker, &rent_arguments(&ask, "not/there:1", LINE))).error();
    assert!(code == "not_found" && sentence.contains("not/there:1"), "{code}: {sentence}");
    nothing_left(world.docker(), &host);
    let _ = world.docker().cli(&["rmi", "-f", &id]);
}
