//! Programs in C, as anybody builds them: what they are given, and what they see.
#![allow(clippy::unwrap_used)]

mod support;

use souk_wasm::{End, Event, Mode, Spec};
use support::{finish, guest, house, run, spec};

#[tokio::test]
async fn arguments_environment_outputs_and_exit_code() {
    let Some(module) = guest() else { return };
    let (folder, wasm) = house().await;
    let module = wasm.put(module.to_vec()).await.unwrap();
    let mut spec = spec(&["say", "one", "two words"], folder.path());
    spec.env = vec![(String::from("KEY"), String::from("value"))];
    let done = run(&wasm, module, &spec).await;
    assert_eq!(done.end, End::Exited { code: 42 });
    assert_eq!(done.stdout, "arg one\narg two words\nenv KEY=value\n");
    assert_eq!(done.stderr, "to stderr\n");
    assert!(done.usage.memory_peak_bytes > 0);
    assert!(matches!(done.events[..], [Event::Ready(_), Event::Started, Event::Ended { .. }]), "{:?}", done.events);
}

#[tokio::test]
async fn the_workspace_is_shared_with_the_host() {
    let Some(module) = guest() else { return };
    let (folder, wasm) = house().await;
    let module = wasm.put(module.to_vec()).await.unwrap();
    let workspace = folder.path().join("workspace");
    std::fs::create_dir(&workspace).unwrap();
    std::fs::write(workspace.join("given"), "given by the host").unwrap();
    let done = run(&wasm, module, &spec(&["files"], &workspace)).await;
    assert_eq!(done.end, End::Exited { code: 0 }, "{done:?}");
    assert_eq!(done.stdout, "written by the guest\ngiven by the host\n");
    assert_eq!(std::fs::read_to_string(workspace.join("folder/file")).unwrap(), "written by the guest");
}

#[tokio::test]
async fn a_notice_is_found_and_can_not_be_written() {
    let Some(module) = guest() else { return };
    let (folder, wasm) = house().await;
    let module = wasm.put(module.to_vec()).await.unwrap();
    let notices = folder.path().join("notices");
    std::fs::create_dir(&notices).unwrap();
    let mut spec = spec(&["notice"], folder.path());
    spec.notices = Some(notices);
    let mut running = wasm.start(module, &spec).await.unwrap();
    let mut said = Vec::new();
    while said != b"waiting\n" {
        said.extend_from_slice(&running.output.recv().await.unwrap().bytes);
    }
    running.handle.notice(Some(String::from("{\"event\":\"eviction\"}"))).await.unwrap();
    let done = finish(running).await;
    assert_eq!((done.end, done.stdout.as_str()), (End::Exited { code: 0 }, "{\"event\":\"eviction\"}\n"));
}

#[tokio::test]
async fn without_a_workspace_there_are_no_files() {
    let Some(module) = guest() else { return };
    let (_folder, wasm) = house().await;
    let module = wasm.put(module.to_vec()).await.unwrap();
    let mut spec = Spec::new("guest");
    spec.args.push(String::from("files"));
    assert_eq!(run(&wasm, module, &spec).await.end, End::Exited { code: 1 });
}

#[tokio::test]
async fn a_deterministic_run_is_the_same_anywhere_and_any_time() {
    let Some(module) = guest() else { return };
    let (folder, wasm) = house().await;
    let module = wasm.put(module.to_vec()).await.unwrap();
    let mut outputs = Vec::new();
    for (place, names) in [("a", ["x", "y", "z"]), ("b", ["z", "x", "y"])] {
        let workspace = folder.path().join(place);
        std::fs::create_dir(&workspace).unwrap();
        for name in names {
            std::fs::write(workspace.join(name), name).unwrap();
        }
        let mut spec = spec(&["list"], &workspace);
        spec.mode = Mode::Deterministic { seed: [7; 32], clock: 1_000_000_000_000_000_000 };
        let done = run(&wasm, module, &spec).await;
        assert_eq!(done.end, End::Exited { code: 0 }, "{done:?}");
        outputs.push((done.stdout, done.stderr, done.usage.fuel));
    }
    assert_eq!(outputs[0], outputs[1]);
    let (text, _, fuel) = &outputs[0];
    assert!(text.contains("real 1000000000.") && text.contains("inode 0, changed 0"), "{text}");
    assert!(fuel.is_some_and(|fuel| fuel > 0));
    let mut other = spec(&["list"], &folder.path().join("a"));
    other.mode = Mode::Deterministic { seed: [8; 32], clock: 0 };
    assert_ne!(run(&wasm, module, &other).await.stdout, outputs[0].0);
}

#[tokio::test]
async fn an_ordinary_run_has_clocks_and_inodes() {
    let Some(module) = guest() else { return };
    let (folder, wasm) = house().await;
    let module = wasm.put(module.to_vec()).await.unwrap();
    let workspace = folder.path().join("w");
    std::fs::create_dir(&workspace).unwrap();
    let first = run(&wasm, module, &spec(&["list"], &workspace)).await;
    let second = run(&wasm, module, &spec(&["list"], &workspace)).await;
    assert_eq!(first.end, End::Exited { code: 0 }, "{first:?}");
    assert!(!first.stdout.contains("inode 0,"));
    assert_ne!(first.stdout, second.stdout);
}
