//! An instance moves to other devices with all that is its own, whenever the node is cut off in between; and is told what its host
//! has to say.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, clippy::wildcard_enum_match_arm)]

mod support;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use souk_runtime::{
    Devices, Egress, ExecSpec, ExitCause, FailureCode, InstanceEvent, InstanceSpec, InstanceState, LogOptions, Runtime,
    Step,
};
use support::{BUSYBOX, EMPTY, SOCKET, World, have, import, root_fs, run};

fn nodes(paths: &[&str]) -> Devices {
    Devices { gpus: vec![], nodes: paths.iter().map(PathBuf::from).collect() }
}

const FIRST: &str = "/dev/fuse";
const SECOND: &str = "/dev/loop-control";
const LIST: &str = "ls /dev/fuse /dev/loop-control 2>/dev/null; true";

/// Device nodes that a container has only where it is given them.
fn have_devices() -> bool {
    let there = have("docker") && [FIRST, SECOND].iter().all(|path| std::path::Path::new(path).exists());
    if !there {
        println!("skipped: {FIRST} and {SECOND} are not both here");
    }
    there
}

async fn started(world: &mut World, lease: &str) {
    world.event(lease, "started", |event| matches!(event, InstanceEvent::Started { .. }).then_some(())).await;
}

async fn stop(world: &mut World, lease: &str) {
    world.runtime.kill(lease).unwrap();
    world.exited(lease).await;
}

/// What of a lease is in the engine: containers, volumes and images.
fn left_of(world: &World, lease: &str) -> Vec<String> {
    let (node, lease) = (format!("label=souk.node={}", world.config.node_id), format!("label=souk.lease={lease}"));
    let list = |arguments: &[&str]| {
        let mut all = arguments.to_vec();
        all.extend(["--filter", &node, "--filter", &lease]);
        run("docker", &all).split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let mut found = list(&["ps", "-aq"]);
    found.extend(list(&["volume", "ls", "-q"]));
    found.extend(list(&["image", "ls", "-aq"]));
    found
}

/// An image with a volume of its own.
async fn with_volume() -> &'static str {
    const NAME: &str = "souk-test/volume:1";
    import(SOCKET, NAME, root_fs(true), &["ENV PATH=/bin", "VOLUME /data"]).await;
    NAME
}

async fn movable(world: &World, name: &str, egress: Egress) -> InstanceSpec {
    let mut spec = world.spec(name, &["sh", "-c", "echo run; sleep 1000"]).await;
    spec.image = world.runtime.resolve_image(with_volume().await).await.unwrap().pin;
    spec.egress = egress;
    spec.env = vec![("OWN".into(), "kept here".into())];
    spec.workdir = Some("/tmp".into());
    spec.devices = nodes(&[FIRST]);
    spec
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_keeps_everything_but_the_devices() {
    if !have_devices() {
        return;
    }
    let mut world = World::new().await;
    let egress = if have("nft") { Egress::Internet } else { Egress::None };
    let spec = movable(&world, "move", egress).await;
    let lease = spec.lease.clone();
    world.start(&spec).await;
    assert_eq!(world.shell(&lease, LIST).await.1.trim(), FIRST);
    let write = "echo layer > /root/file; echo volume > /data/file; rm /etc/group; chmod 4755 /root/file";
    assert_eq!(world.shell(&lease, write).await.0, 0);
    let facts = "env | grep ^OWN; hostname; pwd; ip -4 addr show dev eth0 2>/dev/null | grep inet; cat /root/file /data/file; ls /etc/group; stat -c %a /root/file; grep -c . /proc/self/limits; cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; grep ^Cap /proc/self/status";
    let before = world.shell(&lease, facts).await;
    assert!(before.1.contains("layer\nvolume\n"), "{before:?}");

    // Devices of a running instance stay: nothing is moved under its feet.
    world.runtime.start_on(&lease, nodes(&[SECOND])).unwrap();
    let failure = world.failed(&lease).await;
    assert_eq!((failure.step, failure.code), (Step::Start, FailureCode::EngineRefused));

    let mut ids = Vec::new();
    for (devices, shown) in [
        (nodes(&[SECOND]), SECOND.to_owned()),
        (nodes(&[SECOND]), SECOND.to_owned()),
        (nodes(&[SECOND, FIRST]), format!("{FIRST}\n{SECOND}")),
        (nodes(&[FIRST, SECOND]), format!("{FIRST}\n{SECOND}")),
        (nodes(&[]), String::new()),
    ] {
        stop(&mut world, &lease).await;
        world.runtime.start_on(&lease, devices).unwrap();
        started(&mut world, &lease).await;
        assert_eq!(world.shell(&lease, LIST).await.1.trim(), shown);
        assert_eq!(world.shell(&lease, facts).await, before);
        ids.push(run("docker", &["inspect", "-f", "{{.Id}}", &world.container(&lease)]));
        let found = left_of(&world, &lease);
        assert_eq!(found.iter().filter(|id| ids.last().unwrap().starts_with(*id)).count(), 1, "{found:?}");
    }
    assert!(ids[0] == ids[1] && ids[2] == ids[3] && ids[1] != ids[2], "the same devices are no move: {ids:?}");
    // Only a spec without a device is the same spec, wherever the container is: a repeated prepare keeps it.
    world.prepare(&spec).await;
    assert_eq!(run("docker", &["inspect", "-f", "{{.Id}}", &world.container(&lease)]), ids[4]);

    // What ran before it moved is not told again.
    stop(&mut world, &lease).await;
    world.destroy(&lease).await;
    assert_eq!(left_of(&world, &lease), Vec::<String>::new());
    let events = |wanted: fn(&InstanceEvent) -> bool| {
        world
            .seen
            .iter()
            .filter(|report| matches!(report, souk_runtime::RuntimeReport::Instance { event, .. } if wanted(event)))
            .count()
    };
    assert_eq!(events(|event| matches!(event, InstanceEvent::Started { .. })), 6);
    assert_eq!(events(|event| matches!(event, InstanceEvent::Exited(_))), 6);
    assert_eq!(events(|event| matches!(event, InstanceEvent::Gone)), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_deleted_does_not_weigh_for_ever() {
    if !have_devices() {
        return;
    }
    let mut world = World::with_disks(false).await;
    let mut spec = world.spec("weight", &["sleep", "1000"]).await;
    spec.disk_mb = 32;
    spec.devices = nodes(&[FIRST]);
    let lease = spec.lease.clone();
    world.start(&spec).await;
    for round in 0..4 {
        let devices = if round % 2 == 0 { nodes(&[SECOND]) } else { nodes(&[FIRST]) };
        let write = format!("echo {round} > /root/round; dd if=/dev/zero of=/data/big bs=1M count=14 2>/dev/null");
        assert_eq!(world.shell(&lease, &write).await.0, 0);
        stop(&mut world, &lease).await;
        world.runtime.start_on(&lease, devices).unwrap();
        started(&mut world, &lease).await;
        assert_eq!(
            world.shell(&lease, "cat /root/round; stat -c %s /data/big").await.1,
            format!("{round}\n14680064\n")
        );
        let carried = run(
            "docker",
            &["inspect", "-f", "{{index .Config.Labels \"souk.carried_bytes\"}}", &world.container(&lease)],
        );
        let carried: u64 = carried.trim().parse().unwrap();
        assert!((14 << 20..=32 << 20).contains(&carried), "round {round}: {carried}");
    }
    let full = world.seen.iter().any(|report| {
        matches!(report, souk_runtime::RuntimeReport::Instance { event: InstanceEvent::DiskFull { .. }, .. })
    });
    assert!(!full, "one file of 14 MB, written over four times, fits 32 MB");
    world.destroy(&lease).await;
    assert_eq!(left_of(&world, &lease), Vec::<String>::new());
}

/// The engine's state after each step of a move that the node did not live to complete.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_cut_short_anywhere_is_completed_or_undone() {
    if !have_devices() {
        return;
    }
    let steps = ["image", "successor", "renamed", "taken", "removed"];
    for (step, disks) in [false, true].into_iter().flat_map(|disks| steps.map(|step| (step, disks))) {
        let mut world = World::with_disks(disks).await;
        let spec = movable(&world, "cut", Egress::None).await;
        let lease = spec.lease.clone();
        world.start(&spec).await;
        world.shell(&lease, "echo precious > /root/file; echo too > /data/file").await;
        stop(&mut world, &lease).await;
        world.runtime.shutdown().await;

        let name = world.container(&lease);
        let docker = |arguments: &[&str]| run("docker", arguments).trim().to_owned();
        let (next, old) = (format!("{name}-next"), format!("{name}-old"));
        // A disk in a file goes along by itself; other files as an image.
        let own_disk = docker(&["inspect", "-f", "{{index .Config.Labels \"souk.loop_disk\"}}", &name]) == "true";
        let image = if own_disk {
            docker(&["inspect", "-f", "{{.Image}}", &name])
        } else {
            docker(&["commit", "--pause=false", &name])
        };
        let container = name.clone();
        if step != "image" {
            let label = |name: &str| {
                let value = docker(&["inspect", "-f", &format!("{{{{index .Config.Labels \"{name}\"}}}}"), &container]);
                format!("{name}={value}")
            };
            let mut labels: Vec<String> = ["souk.node", "souk.lease", "souk.spec", "souk.disk_mb"].map(label).to_vec();
            if own_disk {
                labels.push(label("souk.loop_disk"));
            }
            let helper = docker(&[
                "inspect",
                "-f",
                "{{range .Mounts}}{{if eq .Destination \"/.souk/guest\"}}{{.Source}}{{end}}{{end}}",
                &name,
            ]);
            let (volume, helper) = (format!("{name}-v0:/data"), format!("{helper}:/.souk/guest:ro"));
            let mut create = vec!["create", "--name", &next, "--device", SECOND, "-v", &volume, "-v", &helper];
            create.extend([
                "--env",
                "NVIDIA_VISIBLE_DEVICES=void",
                "--network",
                "none",
                "--entrypoint",
                "/.souk/guest",
            ]);
            create.extend(labels.iter().flat_map(|label| ["--label", label.as_str()]));
            create.extend([image.as_str(), "init", "--", "sleep", "1000"]);
            docker(&create);
        }
        if ["renamed", "taken", "removed"].contains(&step) {
            docker(&["rename", &name, &old]);
        }
        if ["taken", "removed"].contains(&step) {
            docker(&["rename", &next, &name]);
        }
        if step == "removed" {
            docker(&["rm", &old]);
        }

        let mut next_node = World::with(world.config.clone()).await;
        let found = next_node.runtime.adopt(std::slice::from_ref(&lease)).await.unwrap();
        let moved = ["renamed", "taken", "removed"].contains(&step);
        assert_eq!(matches!(found[0].state, InstanceState::Created), moved, "{step}: {found:?}");
        assert_eq!(matches!(found[0].state, InstanceState::Exited(_)), !moved, "{step}: {found:?}");
        let containers = docker(&["ps", "-aq", "--filter", &format!("label=souk.lease={lease}")]);
        assert_eq!(containers.split_whitespace().count(), 1, "{step}: {containers}");
        next_node.runtime.start_on(&lease, nodes(&[SECOND])).unwrap();
        started(&mut next_node, &lease).await;
        let (_, out, err) = next_node.shell(&lease, &format!("cat /root/file /data/file; {LIST}")).await;
        assert_eq!(out, format!("precious\ntoo\n{SECOND}\n"), "{step}: {err}");
        next_node.destroy(&lease).await;
        assert_eq!(left_of(&next_node, &lease), Vec::<String>::new(), "{step}");
    }
}

/// A node that dies at a random moment of a move, again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moves_survive_a_node_that_dies_at_any_moment() {
    if !have_devices() {
        return;
    }
    let mut world = World::new().await;
    let spec = movable(&world, "dying", Egress::None).await;
    let lease = spec.lease.clone();
    world.start(&spec).await;
    for round in 0_u64..8 {
        let devices = if round % 2 == 0 { nodes(&[SECOND]) } else { nodes(&[FIRST]) };
        assert_eq!(world.shell(&lease, &format!("echo {round} >> /root/rounds")).await.0, 0);
        stop(&mut world, &lease).await;
        world.runtime.start_on(&lease, devices.clone()).unwrap();
        // Where it is cut differs from run to run; whatever it hits must be taken up.
        tokio::time::sleep(Duration::from_millis(round * 60)).await;
        world.runtime.shutdown().await;
        let data = world.config.clone();
        let mut next = World::with(data).await;
        next.runtime.adopt(std::slice::from_ref(&lease)).await.unwrap();
        let running = run(
            "docker",
            &["ps", "-q", "--filter", &format!("label=souk.lease={lease}"), "--filter", "status=running"],
        );
        assert!(running.split_whitespace().count() <= 1, "round {round}");
        if running.trim().is_empty() {
            next.runtime.start_on(&lease, devices).unwrap();
            started(&mut next, &lease).await;
        }
        let wanted: String = (0..=round).map(|round| format!("{round}\n")).collect();
        assert_eq!(next.shell(&lease, "cat /root/rounds").await.1, wanted, "round {round}");
        std::mem::swap(&mut world.runtime, &mut next.runtime);
        std::mem::swap(&mut world.reports, &mut next.reports);
        // The other world's clean-up would take the container along.
        std::mem::forget(next);
    }
    world.destroy(&lease).await;
    assert_eq!(left_of(&world, &lease), Vec::<String>::new());
}

async fn cat_notice(world: &World, lease: &str, busybox: &str, user: &str) -> (i64, String) {
    let command = [busybox, "cat", souk_runtime::NOTICE_IN_INSTANCE].map(str::to_owned).to_vec();
    let spec = ExecSpec { command, user: Some(user.to_owned()), ..ExecSpec::default() };
    let mut session = world.runtime.exec(lease, spec).await.unwrap();
    let mut out = String::new();
    while let Some(Ok((_, bytes))) = futures::StreamExt::next(&mut session.output).await {
        out.push_str(&String::from_utf8_lossy(&bytes));
    }
    (session.control.exit_code().await.unwrap(), out)
}

/// Waits until the notice reads so; none for no notice.
async fn noticed(world: &World, lease: &str, busybox: &str, wanted: Option<&str>) {
    let end = Instant::now() + support::DEADLINE;
    loop {
        let (code, out) = cat_notice(world, lease, busybox, "1234").await;
        if (code == 0).then_some(out.as_str()) == wanted {
            return;
        }
        assert!(Instant::now() < end, "{code} {out}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

const NOTICE: &str = r#"{"event":"eviction","in_s":30}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notice_is_there_in_any_image() {
    if !have("docker") {
        return;
    }
    let mut world = World::new().await;
    for (image, busybox, user) in
        [(BUSYBOX, "/bin/busybox", None), (EMPTY, "/busybox", None), (EMPTY, "/busybox", Some("4321"))]
    {
        let mut spec = world.spec("notice", &[]).await;
        spec.image = world.runtime.resolve_image(image).await.unwrap().pin;
        spec.command = Some([busybox, "sleep", "1000"].map(str::to_owned).to_vec());
        spec.user = user.map(str::to_owned);
        let lease = spec.lease.clone();
        world.prepare(&spec).await;
        world.runtime.notice(&lease, Some(NOTICE.to_owned())).unwrap();
        world.runtime.start(&lease).unwrap();
        started(&mut world, &lease).await;
        noticed(&world, &lease, busybox, None).await;
        for text in [Some(NOTICE), Some("{}"), None, None, Some(NOTICE)] {
            world.runtime.notice(&lease, text.map(str::to_owned)).unwrap();
            noticed(&world, &lease, busybox, text).await;
        }
        // The next run doesn't find what the last one was told.
        stop(&mut world, &lease).await;
        world.runtime.start(&lease).unwrap();
        started(&mut world, &lease).await;
        noticed(&world, &lease, busybox, None).await;
        world.destroy(&lease).await;
    }
    let long = "x".repeat(souk_runtime::MAX_NOTICE_BYTES + 1);
    assert!(world.runtime.notice("any", Some(long)).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_can_not_lead_a_notice_out_of_its_container() {
    if !have("docker") {
        return;
    }
    let mut world = World::new().await;
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap();
    for full in [false, true] {
        let mut spec = world.spec("trap", &["sleep", "1000"]).await;
        spec.pids = 16;
        let lease = spec.lease.clone();
        world.start(&spec).await;
        let trap =
            format!("mkdir -p /run {target}; ln -s {target} /run/souk; ln -s {target}/host /run/souk/notice.json");
        assert_eq!(world.shell(&lease, &trap).await.0, 0);
        if full {
            // No room for one more process: the engine puts the file in place.
            world.shell(&lease, "for i in $(seq 40); do setsid sleep 1000 & done 2>/dev/null; true").await;
        }
        world.runtime.notice(&lease, Some(NOTICE.to_owned())).unwrap();
        // Orders are carried out one after the other: when this is answered, the notice was tried.
        world.runtime.usage(&lease).await.unwrap();
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0, "nothing was written on the host");
        world.destroy(&lease).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_reaches_processes_in_sessions_of_their_own() {
    if !have("docker") {
        return;
    }
    let mut world = World::new().await;
    let job =
        |name: &str| format!("trap 'echo {name} told; exit 0' TERM; echo {name} ready; while :; do sleep 0.05; done");
    let line = format!(
        "sh -c \"{}\" & setsid sh -c \"{}\" & (setsid sh -c \"{}\" &) ; wait",
        job("background"),
        job("session"),
        job("orphan")
    );
    let spec = world.spec("sessions", &["sh", "-c", &line]).await;
    world.start(&spec).await;
    for name in ["background", "session", "orphan"] {
        world.log_has(&spec.lease, &format!("{name} ready")).await;
    }
    world.runtime.stop(&spec.lease, 20_000).unwrap();
    let exit = world.exited(&spec.lease).await;
    assert_eq!((exit.code, exit.by), (143, ExitCause::Stop));
    let (out, _) = world.logs(&spec.lease, LogOptions::default()).await;
    for name in ["background", "session", "orphan"] {
        assert!(out.contains(&format!("{name} told\n")), "{name}: {out}");
    }
    world.destroy(&spec.lease).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traffic_is_told_before_an_end_and_counts_on() {
    if !have("docker") || !have("nft") {
        return;
    }
    let mut world = World::new().await;
    let mut spec =
        world.spec("traffic", &["sh", "-c", "for i in 1 2 3; do nc -w 1 10.99.99.99 80; done; exit 3"]).await;
    spec.egress = Egress::Internet;
    let lease = spec.lease.clone();
    world.prepare(&spec).await;
    let mut before = 0;
    for _ in 0..3 {
        world.runtime.start(&lease).unwrap();
        let sent = world
            .event(&lease, "traffic", |event| match event {
                InstanceEvent::Traffic(usage) => Some(usage.tx_bytes),
                InstanceEvent::Exited(_) => panic!("told after the end"),
                _ => None,
            })
            .await;
        assert!(sent >= before + 3 * 40, "{sent} after {before}");
        world.exited(&lease).await;
        before = sent;
    }
    world.runtime.destroy(&lease).unwrap();
    let last = world
        .event(&lease, "the last traffic", |event| match event {
            InstanceEvent::Traffic(usage) => Some(usage.tx_bytes),
            _ => None,
        })
        .await;
    assert!(last >= before);
    world.event(&lease, "destroyed", |event| matches!(event, InstanceEvent::Destroyed).then_some(())).await;
}
