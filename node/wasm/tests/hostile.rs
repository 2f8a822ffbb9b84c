//! Guests that take what they can, and more: bounded, told, and nothing of them left.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use souk_wasm::{End, Event, Usage};
use support::{WITHIN, finish, guest, house, run, spec};

#[tokio::test]
async fn nothing_outside_of_the_workspace_is_reached() {
    let Some(module) = guest() else { return };
    let (folder, wasm) = house().await;
    let module = wasm.put(module.to_vec()).await.unwrap();
    let (workspace, notices) = (folder.path().join("w"), folder.path().join("n"));
    std::fs::create_dir(&workspace).unwrap();
    std::fs::create_dir(&notices).unwrap();
    std::fs::write(notices.join("notice.json"), "{}").unwrap();
    // Links that somebody else has left there, `copy` say.
    std::os::unix::fs::symlink("/etc/passwd", workspace.join("planted")).unwrap();
    std::os::unix::fs::symlink("/etc", workspace.join("planted-folder")).unwrap();
    let mut spec = spec(&["escape"], &workspace);
    spec.notices = Some(notices.clone());
    let done = run(&wasm, module, &spec).await;
    assert_eq!(done.end, End::Exited { code: 0 }, "{done:?}");
    let bad = ["OPENED", "MADE", "REMOVED"];
    assert!(!bad.iter().any(|word| done.stdout.contains(word)), "{}", done.stdout);
    assert!(notices.join("notice.json").exists());
    assert!(!folder.path().join("a").exists());
}

#[tokio::test]
async fn memory_ends_at_the_limit() {
    let Some(module) = guest() else { return };
    let (folder, wasm) = house().await;
    let module = wasm.put(module.to_vec()).await.unwrap();
    let mut spec = spec(&["memory"], folder.path());
    spec.limits.memory_bytes = 64 << 20;
    let done = run(&wasm, module, &spec).await;
    assert_eq!(done.end, End::Exited { code: 0 }, "{done:?}");
    let got: u64 = done.stdout.split(' ').next().unwrap().parse().unwrap();
    assert!((32..64).contains(&got), "{}", done.stdout);
    assert!(done.usage.memory_refused && done.usage.memory_peak_bytes <= 64 << 20, "{:?}", done.usage);
}

#[tokio::test]
async fn all_that_was_granted_can_be_had() {
    let Some(module) = guest() else { return };
    let (folder, wasm) = house().await;
    let module = wasm.put(module.to_vec()).await.unwrap();
    let mut spec = spec(&["memory"], folder.path());
    spec.limits.memory_bytes = 1 << 30;
    let done = run(&wasm, module, &spec).await;
    let got: u64 = done.stdout.split(' ').next().unwrap().parse().unwrap();
    assert!((1000..1024).contains(&got), "{done:?}");
}

#[tokio::test]
async fn a_loop_is_stopped_within_a_second() {
    let Some(module) = guest() else { return };
    let (folder, wasm) = house().await;
    let module = wasm.put(module.to_vec()).await.unwrap();
    for what in ["spin", "sleep"] {
        let mut running = wasm.start(module, &spec(&[what], folder.path())).await.unwrap();
        while running.events.recv().await.unwrap() != Event::Started {}
        let asked = Instant::now();
        running.handle.stop().await;
        let done = finish(running).await;
        assert_eq!(done.end, End::Stopped);
        // A second is promised; this machine may have others to serve.
        assert!(asked.elapsed() < Duration::from_secs(5), "{what}: {:?}", asked.elapsed());
    }
}

#[tokio::test]
async fn processor_time_ends() {
    let Some(module) = guest() else { return };
    let (folder, wasm) = house().await;
    let module = wasm.put(module.to_vec()).await.unwrap();
    let mut spec = spec(&["spin"], folder.path());
    spec.limits.cpu_ms = Some(300);
    let done = run(&wasm, module, &spec).await;
    assert_eq!(done.end, End::CpuSpent);
    assert!((300_000..2_000_000).contains(&done.usage.cpu_us), "{:?}", done.usage);
}

#[tokio::test]
async fn fuel_ends_at_the_same_point() {
    let Some(module) = guest() else { return };
    let (folder, wasm) = house().await;
    let module = wasm.put(module.to_vec()).await.unwrap();
    let mut spec = spec(&["spin"], folder.path());
    spec.limits.fuel = Some(10_000_000);
    let done = run(&wasm, module, &spec).await;
    assert_eq!(done.end, End::FuelSpent);
    assert_eq!(done.usage.fuel, Some(10_000_000));
}

#[tokio::test]
async fn a_share_of_a_core_holds() {
    let Some(module) = guest() else { return };
    let (folder, wasm) = house().await;
    let module = wasm.put(module.to_vec()).await.unwrap();
    let mut spec = spec(&["spin"], folder.path());
    spec.limits.cpu_milli = Some(100);
    let mut running = wasm.start(module, &spec).await.unwrap();
    while running.events.recv().await.unwrap() != Event::Started {}
    tokio::time::sleep(Duration::from_secs(3)).await;
    let used = running.handle.usage().await.unwrap();
    running.handle.kill().await;
    finish(running).await;
    // A tenth of three seconds, and what it may run ahead.
    assert!(used.cpu_us < 700_000, "{used:?}");
}

#[tokio::test]
async fn what_stands_uses_nothing() {
    let Some(module) = guest() else { return };
    let (folder, wasm) = house().await;
    let module = wasm.put(module.to_vec()).await.unwrap();
    let mut running = wasm.start(module, &spec(&["spin"], folder.path())).await.unwrap();
    while running.events.recv().await.unwrap() != Event::Started {}
    let busy = more(&running.handle, Usage::default()).await;
    let paused = running.handle.pause().await.unwrap();
    assert!(paused.cpu_us >= busy.cpu_us);
    tokio::time::sleep(Duration::from_millis(500)).await;
    // As the kernel counts; samples that were under way when it was stopped may still come.
    let later = running.handle.usage().await.unwrap();
    assert!(later.cpu_us - paused.cpu_us < 20_000, "{paused:?} {later:?}");
    running.handle.resume().await.unwrap();
    more(&running.handle, later).await;
    running.handle.pause().await.unwrap();
    running.handle.stop().await;
    assert_eq!(finish(running).await.end, End::Stopped);
}

/// Waits until a run has used more.
async fn more(handle: &souk_wasm::Handle, than: Usage) -> Usage {
    let until = Instant::now() + WITHIN;
    loop {
        let usage = handle.usage().await.unwrap();
        if usage.cpu_us > than.cpu_us + 50_000 {
            return usage;
        }
        assert!(Instant::now() < until, "it stands");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn recursion_and_traps_are_told() {
    let Some(module) = guest() else { return };
    let (folder, wasm) = house().await;
    let module = wasm.put(module.to_vec()).await.unwrap();
    let deep = run(&wasm, module, &spec(&["deep"], folder.path())).await;
    // Its own stack lies in its memory; whichever ends first.
    assert!(matches!(&deep.end, End::Trapped { .. }), "{deep:?}");
    let trap = run(&wasm, module, &spec(&["trap"], folder.path())).await;
    assert!(matches!(&trap.end, End::Trapped { trap } if trap.contains("unreachable")), "{trap:?}");
}

#[tokio::test]
async fn a_million_files_are_not_made() {
    let Some(module) = guest() else { return };
    let (folder, wasm) = house().await;
    let module = wasm.put(module.to_vec()).await.unwrap();
    let workspace = folder.path().join("w");
    std::fs::create_dir(&workspace).unwrap();
    let mut spec = spec(&["many"], &workspace);
    spec.limits.files = 500;
    let done = run(&wasm, module, &spec).await;
    let expected =
        "500 files, ENOSPC\na folder refused, a link refused\nafter removing one: made\none that is there: opened\n";
    assert_eq!(done.stdout, expected, "{done:?}");
    assert_eq!(std::fs::read_dir(&workspace).unwrap().count(), 500);
    assert!(done.usage.disk_refused);
}

#[tokio::test]
async fn the_disk_ends_at_the_limit() {
    let Some(module) = guest() else { return };
    let (folder, wasm) = house().await;
    let module = wasm.put(module.to_vec()).await.unwrap();
    let workspace = folder.path().join("w");
    std::fs::create_dir(&workspace).unwrap();
    let mut spec = spec(&["fill"], &workspace);
    spec.limits.disk_bytes = 4 << 20;
    let done = run(&wasm, module, &spec).await;
    assert_eq!(done.end, End::Exited { code: 0 }, "{done:?}");
    let got: u64 = done.stdout.split(' ').next().unwrap().parse().unwrap();
    assert!((3500..=4096).contains(&got), "{}", done.stdout);
    for line in
        ["KiB, ENOSPC", "beyond: refused", "longer: refused", "after a hole: refused", "after removing it: written"]
    {
        assert!(done.stdout.contains(line), "{}", done.stdout);
    }
}

#[tokio::test]
async fn large_pieces_are_no_crash() {
    let Some(module) = guest() else { return };
    let (folder, wasm) = house().await;
    let module = wasm.put(module.to_vec()).await.unwrap();
    let workspace = folder.path().join("w");
    std::fs::create_dir(&workspace).unwrap();
    std::fs::File::create(workspace.join("large")).unwrap().set_len(100 << 20).unwrap();
    let done = run(&wasm, module, &spec(&["gulp"], &workspace)).await;
    assert_eq!((&done.end, done.stdout.as_str()), (&End::Exited { code: 0 }, "read\nwritten\n"), "{done:?}");
}

#[tokio::test]
async fn a_flood_of_output_is_cut_with_a_mark() {
    let Some(module) = guest() else { return };
    let (folder, wasm) = house().await;
    let module = wasm.put(module.to_vec()).await.unwrap();
    let mut spec = spec(&["flood"], folder.path());
    spec.limits.log_bytes = 100_000;
    let done = run(&wasm, module, &spec).await;
    assert_eq!(done.end, End::Exited { code: 0 });
    assert!(
        done.stdout.len() < 100_200 && done.stdout.ends_with("what follows is dropped]\n"),
        "{}",
        done.stdout.len()
    );
    assert!(done.usage.log_bytes > 10_000_000);
}

#[tokio::test]
async fn a_guest_that_nobody_hears_waits_or_is_cut_off() {
    let Some(module) = guest() else { return };
    let (folder, wasm) = house().await;
    let module = wasm.put(module.to_vec()).await.unwrap();
    let mut running = wasm.start(module, &spec(&["flood"], folder.path())).await.unwrap();
    while running.events.recv().await.unwrap() != Event::Started {}
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(running.events.try_recv().is_err(), "it waits for a reader");
    running.output.close();
    while running.output.recv().await.is_some() {}
    assert_eq!(finish(running).await.end, End::Exited { code: 0 });
}

#[tokio::test]
async fn a_worker_killed_from_outside_is_told() {
    if !support::sees_workers() {
        return;
    }
    let Some(module) = guest() else { return };
    let (folder, wasm) = house().await;
    let module = wasm.put(module.to_vec()).await.unwrap();
    let workspace = folder.path().join("w");
    std::fs::create_dir(&workspace).unwrap();
    let mut running = wasm.start(module, &spec(&["spin"], &workspace)).await.unwrap();
    while running.events.recv().await.unwrap() != Event::Started {}
    let worker = support::standing_in(&workspace).unwrap();
    rustix::process::kill_process(worker, rustix::process::Signal::KILL).unwrap();
    assert_eq!(finish(running).await.end, End::Killed { signal: 9 });
}

#[tokio::test]
async fn a_handle_let_go_is_the_end() {
    let Some(module) = guest() else { return };
    let (folder, wasm) = house().await;
    let module = wasm.put(module.to_vec()).await.unwrap();
    let workspace = folder.path().join("w");
    std::fs::create_dir(&workspace).unwrap();
    let mut running = wasm.start(module, &spec(&["spin"], &workspace)).await.unwrap();
    while running.events.recv().await.unwrap() != Event::Started {}
    drop(running.handle);
    let ended = tokio::time::timeout(WITHIN, running.events.recv()).await.unwrap().unwrap();
    assert!(matches!(ended, Event::Ended { end: End::Stopped, .. }), "{ended:?}");
}

/// Where the next test's process finds its workspace; unset, it is no such process.
const PARENT_OF: &str = "SOUK_TEST_PARENT_OF";

#[tokio::test]
async fn a_parent_that_is_killed_takes_its_workers_along() {
    if !support::sees_workers() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let workspace = folder.path().join("w");
    std::fs::create_dir(&workspace).unwrap();
    let mut parent = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_parent_in_a_process_of_its_own", "--nocapture"])
        .env(PARENT_OF, &workspace)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let until = Instant::now() + WITHIN;
    let seen = |there: bool| {
        while support::standing_in(&workspace).is_some() != there {
            assert!(Instant::now() < until, "the worker is there: {}", !there);
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    seen(true);
    // Stopped, it could not hear that the parent has gone; the kernel sees to it.
    rustix::process::kill_process(support::standing_in(&workspace).unwrap(), rustix::process::Signal::STOP).unwrap();
    parent.kill().unwrap();
    parent.wait().unwrap();
    seen(false);
}

#[tokio::test]
async fn the_parent_in_a_process_of_its_own() {
    let Some(workspace) = std::env::var_os(PARENT_OF) else { return };
    let (_folder, wasm) = house().await;
    let forever = "(module (func (export \"_start\") (loop br 0)))";
    let module = wasm.put(wat::parse_str(forever).unwrap()).await.unwrap();
    let mut spec = souk_wasm::Spec::new("m");
    spec.workspace = Some(workspace.into());
    let running = wasm.start(module, &spec).await.unwrap();
    finish(running).await;
}
