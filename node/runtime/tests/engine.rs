//! The engine goes away and comes back, and so does the node: nothing is lost, doubled or left behind.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, clippy::wildcard_enum_match_arm)]

mod support;

use std::os::unix::fs::PermissionsExt as _;

use souk_runtime::{Devices, DiskQuota, ExitCause, InstanceEvent, InstanceState, Runtime, RuntimeReport};
use support::engine::PrivateEngine;
use support::{World, config, have, images};

async fn world(engine: &PrivateEngine) -> World {
    images(&engine.socket()).await;
    World::with(config(&engine.socket(), &engine.data())).await
}

fn is(wanted: RuntimeReport) -> impl Fn(&RuntimeReport) -> Option<()> {
    move |report| (*report == wanted).then_some(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_stops_ends_its_instances_and_is_blamed() {
    if !have("dockerd") {
        return;
    }
    for kill in [false, true] {
        let mut engine = PrivateEngine::new(&[]);
        let mut world = world(&engine).await;
        let spec = world.spec("victim", &["sleep", "1000"]).await;
        world.start(&spec).await;
        engine.stop(kill);
        world.wait("engine down", is(RuntimeReport::EngineDown)).await;
        engine.start();
        world.wait("engine up", is(RuntimeReport::EngineUp)).await;
        assert_eq!(world.exited(&spec.lease).await.by, ExitCause::EngineRestart, "kill: {kill}");
        world.runtime.start(&spec.lease).unwrap();
        world.event(&spec.lease, "started", |event| matches!(event, InstanceEvent::Started { .. }).then_some(())).await;
        assert_eq!(world.shell(&spec.lease, "exit 4").await.0, 4);
        world.destroy(&spec.lease).await;
        let exits = world
            .seen
            .iter()
            .filter(|report| matches!(report, RuntimeReport::Instance { event: InstanceEvent::Exited(_), .. }));
        assert_eq!(exits.count(), 2, "one for each end");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_live_restore_instances_outlive_the_engine() {
    if !have("dockerd") {
        return;
    }
    let mut engine = PrivateEngine::new(&["--live-restore".into()]);
    let mut world = world(&engine).await;
    assert!(world.runtime.info().live_restore);
    let spec = world.spec("survivor", &["sh", "-c", "until [ -e /data/go ]; do sleep 0.05; done; exit 9"]).await;
    world.start(&spec).await;
    engine.stop(false);
    world.wait("engine down", is(RuntimeReport::EngineDown)).await;
    world.runtime.start(&spec.lease).unwrap();
    let failure = world.failed(&spec.lease).await;
    assert_eq!(failure.code, souk_runtime::FailureCode::EngineDown);
    engine.start();
    world.wait("engine up", is(RuntimeReport::EngineUp)).await;
    world.shell(&spec.lease, "touch /data/go").await;
    let exit = world.exited(&spec.lease).await;
    assert_eq!((exit.code, exit.by), (9, ExitCause::Guest));
    let starts = world
        .seen
        .iter()
        .filter(|report| matches!(report, RuntimeReport::Instance { event: InstanceEvent::Started { .. }, .. }));
    assert_eq!(starts.count(), 1);
    world.destroy(&spec.lease).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_node_adopts_its_instances_and_removes_orphans() {
    if !have("docker") || !have("nft") {
        return;
    }
    let mut world = World::new().await;
    let mut kept = world.spec("kept", &["sleep", "1000"]).await;
    kept.egress = souk_runtime::Egress::Internet;
    let mut orphan = world.spec("orphan", &["sleep", "1000"]).await;
    orphan.egress = souk_runtime::Egress::Internet;
    let ended = world.spec("ended", &["sh", "-c", "exit 5"]).await;
    let made = world.spec("made", &["true"]).await;
    world.start(&kept).await;
    world.start(&orphan).await;
    world.start(&ended).await;
    world.exited(&ended.lease).await;
    world.prepare(&made).await;
    world.runtime.shutdown().await;
    assert!(world.runtime.start(&kept.lease).is_err());

    let mut next = World::with(world.config.clone()).await;
    let leases = [&kept, &ended, &made].map(|spec| spec.lease.clone());
    let mut all = leases.to_vec();
    all.push("never-was".into());
    let found = next.runtime.adopt(&all).await.unwrap();
    assert!(matches!(found[0].state, InstanceState::Running { .. }), "{found:?}");
    assert_eq!(found[0].spec_digest.as_deref(), Some(kept.digest().as_str()));
    let InstanceState::Exited(exit) = found[1].state else { panic!("{found:?}") };
    assert_eq!((exit.code, exit.by), (5, ExitCause::Guest));
    assert_eq!((found[2].state, found[3].state), (InstanceState::Created, InstanceState::Gone));
    let names = support::run("docker", &["ps", "-a", "--format", "{{.Names}}"]);
    let networks = support::run("docker", &["network", "ls", "--format", "{{.Name}}"]);
    let orphan = world.container(&orphan.lease);
    assert!(!names.contains(&orphan) && !networks.contains(&orphan), "{names}{networks}");
    assert!(networks.contains(&world.container(&kept.lease)));

    // An adopted instance is watched: somebody removes it by hand.
    support::run("docker", &["rm", "-f", &world.container(&kept.lease)]);
    next.event(&kept.lease, "gone", |event| matches!(event, InstanceEvent::Gone).then_some(())).await;
    for lease in leases {
        next.destroy(&lease).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_container_gets_exactly_its_gpus() {
    if !have("dockerd") {
        return;
    }
    // An OCI runtime that notes what it is asked for, and lets runc do it.
    let folder = tempfile::tempdir().unwrap();
    let notes = folder.path().to_str().unwrap();
    let program = folder.path().join("nvidia");
    let script = format!(
        "#!/bin/sh\nprevious=\nfor word in \"$@\"; do\n  if [ \"$previous\" = --bundle ]; then cp \"$word/config.json\" {notes}/$(basename \"$word\").json; fi\n  previous=\"$word\"\ndone\nexec runc \"$@\"\n"
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let engine = PrivateEngine::new(&["--add-runtime".into(), format!("nvidia={}", program.display())]);
    let mut world = world(&engine).await;
    assert_eq!(world.runtime.info().gpu_runtime.as_deref(), Some("nvidia"));
    let uuids = ["GPU-11111111-2222-3333-4444-555555555555", "GPU-66666666-7777-8888-9999-000000000000"];
    let seen = "env | grep ^NVIDIA_VISIBLE_DEVICES=; sleep 1000";
    for gpus in [vec![uuids[0]], vec![uuids[1]], vec![uuids[1], uuids[0]], vec![]] {
        let mut spec = world.spec("gpu", &["sh", "-c", seen]).await;
        spec.devices.gpus = gpus.iter().map(|uuid| (*uuid).to_owned()).collect();
        // Neither the renter nor the image (which says "all") can ask for more.
        spec.env =
            vec![("NVIDIA_VISIBLE_DEVICES".into(), "all".into()), ("NVIDIA_DRIVER_CAPABILITIES".into(), "all".into())];
        world.start(&spec).await;
        let wanted = if gpus.is_empty() { "void".to_owned() } else { gpus.join(",") };
        world.log_has(&spec.lease, &format!("NVIDIA_VISIBLE_DEVICES={wanted}\n")).await;
        let id = engine.docker(&["inspect", "-f", "{{.Id}}", &world.container(&spec.lease)]);
        let note = folder.path().join(format!("{}.json", id.trim()));
        assert_eq!(note.exists(), !gpus.is_empty(), "the runtime is asked only where there are GPUs");
        if let Ok(note) = std::fs::read(&note) {
            let asked: serde_json::Value = serde_json::from_slice(&note).unwrap();
            let env: Vec<&str> =
                asked["process"]["env"].as_array().unwrap().iter().filter_map(|word| word.as_str()).collect();
            let devices: Vec<&&str> = env.iter().filter(|word| word.starts_with("NVIDIA_")).collect();
            assert_eq!(
                devices,
                [&format!("NVIDIA_VISIBLE_DEVICES={wanted}").as_str(), &"NVIDIA_DRIVER_CAPABILITIES=compute,utility"]
            );
        }
        world.destroy(&spec.lease).await;
    }

    // It moves to the other GPU between two runs, and then has that one alone.
    let mut spec = world.spec("mover", &["sh", "-c", &format!("echo run >> /data/runs; {seen}")]).await;
    spec.devices.gpus = vec![uuids[0].to_owned()];
    world.start(&spec).await;
    world.runtime.kill(&spec.lease).unwrap();
    world.exited(&spec.lease).await;
    let devices = Devices { gpus: vec![uuids[1].to_owned()], nodes: vec![] };
    world.runtime.start_on(&spec.lease, devices).unwrap();
    world.event(&spec.lease, "started", |event| matches!(event, InstanceEvent::Started { .. }).then_some(())).await;
    world.log_has(&spec.lease, &format!("NVIDIA_VISIBLE_DEVICES={}\n", uuids[1])).await;
    assert_eq!(world.shell(&spec.lease, "cat /data/runs").await.1, "run\nrun\n");
    let id = engine.docker(&["inspect", "-f", "{{.Id}}", &world.container(&spec.lease)]);
    let note = std::fs::read_to_string(folder.path().join(format!("{}.json", id.trim()))).unwrap();
    assert!(note.contains(uuids[1]) && !note.contains(uuids[0]), "the runtime is asked for the new one alone");
    world.destroy(&spec.lease).await;
    assert_eq!(engine.docker(&["image", "ls", "-aq", "--filter", "label=souk.lease"]), "");

    // A declared device is there, and only where it was granted.
    let mut spec =
        world.spec("device", &["sh", "-c", "ls /dev/fuse /dev/kmsg /dev/loop-control 2>/dev/null; true"]).await;
    let device =
        ["/dev/fuse", "/dev/loop-control", "/dev/kmsg"].iter().find(|path| std::path::Path::new(path).exists());
    if let Some(device) = device {
        spec.devices.nodes = vec![device.into()];
        let (_, out, err) = world.run(&spec).await;
        assert_eq!(out.trim(), *device, "{err}");
    }
    spec = world.spec("nodevice", &["true"]).await;
    spec.devices.nodes = vec!["/dev/souk-absent".into()];
    world.prepare(&spec).await;
    world.runtime.start(&spec.lease).unwrap();
    assert_eq!(world.failed(&spec.lease).await.code, souk_runtime::FailureCode::DeviceUnavailable);
    // Also where the engine's mounts are not this process's.
    if world.runtime.info().storage_driver == "overlay2" && have("loop") {
        assert_eq!(world.runtime.info().disk_quota, DiskQuota::Hard);
        let mut spec = world.spec("disk", &["dd", "if=/dev/zero", "of=/big", "bs=64k", "count=4096"]).await;
        spec.disk_mb = 16;
        let (exit, _, err) = world.run(&spec).await;
        assert!(exit.code != 0 && err.contains("No space left"), "{err}");
    }
}
