//! Instances on a real engine: from prepare to destroy, exit codes, signals, limits.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, clippy::wildcard_enum_match_arm)]

mod support;

use souk_runtime::{ExecSpec, ExitCause, FailureCode, InstanceEvent, LogOptions, Runtime, Step};
use support::{EMPTY, World, have};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exit_codes_and_output_are_exact() {
    if !have("docker") {
        return;
    }
    let mut world = World::new().await;
    let cases: [(&[&str], i64); 5] = [
        (&["true"], 0),
        (&["sh", "-c", "exit 7"], 7),
        (&["sh", "-c", "kill -9 $$"], 137),
        (&["no-such-program"], 127),
        (&["/bin/not-executable"], 126),
    ];
    for (command, code) in cases {
        let spec = world.spec("code", command).await;
        let (exit, _, err) = world.run(&spec).await;
        assert_eq!((exit.code, exit.by), (code, ExitCause::Guest), "{command:?}");
        assert!(!exit.oom, "{command:?}");
        assert_eq!(err.contains("command not found"), code == 127, "{err}");
    }
    let mut spec = world.spec("split", &["sh", "-c", "echo out; echo err >&2; env; pwd; hostname"]).await;
    spec.env = vec![("SOUK_INSTANCE_ID".into(), "a b=c".into())];
    spec.workdir = Some("/data".into());
    let (_, out, err) = world.run(&spec).await;
    assert!(out.starts_with("out\n") && out.contains("SOUK_INSTANCE_ID=a b=c\n") && out.contains("\n/data\n"), "{out}");
    assert_eq!(err, "err\n");

    let mut spec = world.spec("default", &[]).await;
    spec.command = None;
    let (exit, out, _) = world.run(&spec).await;
    assert_eq!((exit.code, out.as_str()), (0, "image default\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_may_be_repeated() {
    if !have("docker") {
        return;
    }
    let mut world = World::new().await;
    let spec = world.spec("again", &["sleep", "1000"]).await;
    world.prepare(&spec).await;
    world.start(&spec).await;
    world.runtime.start(&spec.lease).unwrap();
    world.runtime.stop(&spec.lease, 5_000).unwrap();
    let exit = world.exited(&spec.lease).await;
    assert_eq!((exit.code, exit.by), (143, ExitCause::Stop));
    world.runtime.stop(&spec.lease, 5_000).unwrap();
    world.event(&spec.lease, "not running", |event| matches!(event, InstanceEvent::NotRunning).then_some(())).await;
    // The disk outlives the processes.
    world.runtime.start(&spec.lease).unwrap();
    world.event(&spec.lease, "started", |event| matches!(event, InstanceEvent::Started { .. }).then_some(())).await;
    world.shell(&spec.lease, "echo kept > /data/file").await;
    world.runtime.kill(&spec.lease).unwrap();
    let exit = world.exited(&spec.lease).await;
    assert_eq!((exit.code, exit.by), (137, ExitCause::Stop));
    world.runtime.start(&spec.lease).unwrap();
    world.event(&spec.lease, "started", |event| matches!(event, InstanceEvent::Started { .. }).then_some(())).await;
    assert_eq!(world.shell(&spec.lease, "cat /data/file").await.1, "kept\n");
    world.destroy(&spec.lease).await;
    world.destroy(&spec.lease).await;
    world.runtime.start(&spec.lease).unwrap();
    let failure = world.failed(&spec.lease).await;
    assert_eq!((failure.step, failure.code), (Step::Start, FailureCode::InstanceGone));
    world.runtime.stop(&spec.lease, 0).unwrap();
    world.event(&spec.lease, "not running", |event| matches!(event, InstanceEvent::NotRunning).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_without_anything_is_kept_alive() {
    if !have("docker") {
        return;
    }
    let mut world = World::new().await;
    let mut spec = world.spec("empty", &[]).await;
    spec.image = world.runtime.resolve_image(EMPTY).await.unwrap().pin;
    spec.command = None;
    world.start(&spec).await;
    let exec =
        ExecSpec { command: ["/busybox", "sh", "-c", "exit 3"].map(str::to_owned).to_vec(), ..ExecSpec::default() };
    let mut session = world.runtime.exec(&spec.lease, exec).await.unwrap();
    assert_eq!(session.control.exit_code().await.unwrap(), 3);
    world.runtime.stop(&spec.lease, 10_000).unwrap();
    let exit = world.exited(&spec.lease).await;
    assert_eq!((exit.code, exit.by), (0, ExitCause::Stop));
    world.destroy(&spec.lease).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_reaches_every_process_and_lets_it_finish() {
    if !have("docker") {
        return;
    }
    let mut world = World::new().await;
    // The wrapper dies of SIGTERM at once; the job beneath saves its work first.
    let job = "(trap 'sleep 1; echo saved; exit 0' TERM; echo job ready; while :; do sleep 0.1; done) & echo $! ; wait";
    let spec = world.spec("term", &["sh", "-c", job]).await;
    world.start(&spec).await;
    world.log_has(&spec.lease, "job ready").await;
    world.runtime.stop(&spec.lease, 20_000).unwrap();
    let exit = world.exited(&spec.lease).await;
    assert_eq!((exit.code, exit.by), (143, ExitCause::Stop));
    let (out, _) = world.logs(&spec.lease, LogOptions::default()).await;
    assert!(out.ends_with("saved\n"), "{out}");
    world.destroy(&spec.lease).await;

    let stubborn = world.spec("stubborn", &["sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.1; done"]).await;
    world.start(&stubborn).await;
    world.log_has(&stubborn.lease, "deaf").await;
    world.runtime.stop(&stubborn.lease, 1_000).unwrap();
    let exit = world.exited(&stubborn.lease).await;
    assert_eq!((exit.code, exit.by, exit.oom), (137, ExitCause::Stop, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphans_inside_are_reaped() {
    if !have("docker") {
        return;
    }
    let mut world = World::new().await;
    let spec = world.spec("reap", &["sh", "-c", "for i in 1 2 3 4 5; do (sleep 0.1 &) ; done; sleep 1000"]).await;
    world.start(&spec).await;
    let counted = "for try in $(seq 200); do sleeping=$(ps -o stat,comm | grep -c 'sleep'); [ $sleeping -le 1 ] && break; sleep 0.05; done; ps -o pid,stat,comm";
    let (_, out, _) = world.shell(&spec.lease, counted).await;
    assert!(!out.contains(" Z"), "{out}");
    assert!(out.lines().any(|line| line.trim_start().starts_with("1 ") && line.contains("guest")), "{out}");
    world.destroy(&spec.lease).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_hold() {
    if !have("docker") {
        return;
    }
    let mut world = World::new().await;
    let mut spec = world.spec("limits", &["sleep", "1000"]).await;
    spec.cpuset = Some(vec![0]);
    world.start(&spec).await;
    let (_, out, err) = world
        .shell(
            &spec.lease,
            "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max /sys/fs/cgroup/cpuset/cpuset.cpus /sys/fs/cgroup/cpuset.cpus 2>/dev/null; df -k /dev/shm | tail -1; ulimit -n; ulimit -c; grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status; ls /sys/class/net",
        )
        .await;
    assert!(out.contains("67108864\n64\n"), "{out}{err}");
    assert!(out.contains("50000\n") || out.contains("50000 100000\n"), "{out}");
    assert!(out.contains(" 16384 "), "{out}");
    let own = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX);
    assert!(out.contains(&format!("\n{}\n0\n", own.min(65_536))), "{out}");
    // The bits of the documented capabilities.
    let wanted: u64 = [0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 31].iter().map(|bit| 1_u64 << bit).sum();
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert!(out.contains(&format!("{set}:\t{wanted:016x}")), "{set} {wanted:016x}: {out}");
    }
    assert!(out.contains("NoNewPrivs:\t1") && out.contains("Seccomp:\t2"), "{out}");
    assert!(out.ends_with("\nlo\n"), "no network but loopback: {out}");
    // More processes than granted are refused.
    let (_, out, err) = world.shell(&spec.lease, "for i in $(seq 100); do sleep 30 & done 2>&1; echo end").await;
    assert!(out.contains("fork") || err.contains("fork"), "{out}{err}");
    world.destroy(&spec.lease).await;

    let hungry = world.spec("oom", &["sh", "-c", "dd if=/dev/zero of=/dev/null bs=512M count=1; exit $?"]).await;
    let (exit, _, _) = world.run(&hungry).await;
    assert_eq!((exit.code, exit.oom, exit.by), (137, true, ExitCause::Guest));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_overflows_stops_its_instance_alone() {
    if !have("docker") {
        return;
    }
    let mut world = World::with_disks(false).await;
    if world.runtime.info().disk_quota == souk_runtime::DiskQuota::Hard {
        println!("skipped: this engine enforces disk quotas itself");
        return;
    }
    let mut spec = world.spec("disk", &["sh", "-c", "dd if=/dev/zero of=/data/big bs=1M count=15; sleep 1000"]).await;
    spec.disk_mb = 16;
    world.start(&spec).await;
    // First its owner is told that it fills up.
    let (used, limit) = world
        .event(&spec.lease, "disk nearly full", |event| match event {
            InstanceEvent::DiskUse { used_bytes, limit_bytes } => Some((*used_bytes, *limit_bytes)),
            _ => None,
        })
        .await;
    assert!((15 << 20..=16 << 20).contains(&used) && limit == 16 << 20, "{used} {limit}");
    world.shell(&spec.lease, "dd if=/dev/zero of=/data/more bs=1M count=9").await;
    let (used, limit) = world
        .event(&spec.lease, "disk full", |event| match event {
            InstanceEvent::DiskFull { used_bytes, limit_bytes } => Some((*used_bytes, *limit_bytes)),
            _ => None,
        })
        .await;
    assert!(used >= 24 << 20 && limit == 16 << 20, "{used} {limit}");
    assert_eq!(world.exited(&spec.lease).await.by, ExitCause::Stop);
    world.destroy(&spec.lease).await;
}
