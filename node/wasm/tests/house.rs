//! What holds a worker, and what is believed of compiled code.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use souk_wasm::{Config, End, Event, Spec, Wasm};
use support::{finish, house, program, standing_in};

const NOTHING: &str = "(module (func (export \"_start\")))";
const FOREVER: &str = "(module (func (export \"_start\") (loop br 0)))";

fn kernel_has(part: &str) -> bool {
    // The kernel's own list where it is mounted; otherwise what this very process may do says nothing, and the test is lenient.
    std::fs::read_to_string("/sys/kernel/security/lsm").is_ok_and(|list| list.contains(part))
}

#[tokio::test]
async fn a_worker_is_confined_and_says_so() {
    if !support::sees_workers() {
        return;
    }
    let (folder, wasm) = house().await;
    let module = wasm.put(wat::parse_str(FOREVER).unwrap()).await.unwrap();
    let workspace = folder.path().join("w");
    std::fs::create_dir(&workspace).unwrap();
    let mut spec = Spec::new("m");
    spec.workspace = Some(workspace.clone());
    let mut running = wasm.start(module, &spec).await.unwrap();
    let Some(Event::Ready(held)) = running.events.recv().await else { panic!("not ready") };
    assert!(held.seccomp && held.capabilities_dropped && held.no_new_privileges, "{held:?}");
    assert!(held.landlock.is_some() || !kernel_has("landlock"), "{held:?}");
    while running.events.recv().await.unwrap() != Event::Started {}
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", standing_in(&workspace).unwrap().as_raw_pid())).unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Seccomp:"), "2");
    assert_eq!(field("CapEff:"), "0000000000000000");
    running.handle.kill().await;
    assert_eq!(finish(running).await.end, End::Stopped);
}

#[tokio::test]
async fn a_worker_becomes_another_user_where_it_can() {
    if !support::sees_workers() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // Closed on the way to the workspace: the worker comes to it by its descriptor.
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let (house, workspace) = (folder.path().join("wasm"), folder.path().join("w"));
    std::fs::create_dir(&workspace).unwrap();
    std::os::unix::fs::chown(&workspace, Some(54_321), Some(54_321)).unwrap();
    let wasm = Wasm::open(Config { user: Some((54_321, 54_321)), ..Config::new(&house, program()) }).await.unwrap();
    let Some(module) = support::guest() else { return };
    let module = wasm.put(module.to_vec()).await.unwrap();
    std::fs::write(workspace.join("given"), "given").unwrap();
    let done = finish(wasm.start(module, &support::spec(&["files"], &workspace)).await.unwrap()).await;
    assert_eq!(done.end, End::Exited { code: 0 }, "{done:?}");
    assert!(matches!(done.events[0], Event::Ready(held) if held.user), "{:?}", done.events);
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!(std::fs::metadata(workspace.join("folder/file")).unwrap().uid(), 54_321);
}

#[tokio::test]
async fn compiled_code_that_was_changed_is_not_run() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("wasm");
    let config = Config::new(&place, program());
    let wasm = Wasm::open(config.clone()).await.unwrap();
    let module = wasm.put(wat::parse_str(NOTHING).unwrap()).await.unwrap();
    assert_eq!(finish(wasm.start(module, &Spec::new("m")).await.unwrap()).await.end, End::Exited { code: 0 });
    let code = |end: &str| {
        let files = std::fs::read_dir(place.join("compiled")).unwrap().flatten().map(|entry| entry.path());
        files.filter(|path| path.extension().is_some_and(|has| has == end)).collect::<Vec<_>>()
    };
    let [path] = &code("code")[..] else { panic!("{:?}", code("code")) };
    assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(place.join("compiled")).unwrap().permissions().mode() & 0o777, 0o700);
    let before = std::fs::read(path).unwrap();
    // As another node would find it.
    let mut changed = before.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    std::fs::File::create(path).unwrap().write_all(&changed).unwrap();
    let wasm = Wasm::open(config.clone()).await.unwrap();
    assert_eq!(finish(wasm.start(module, &Spec::new("m")).await.unwrap()).await.end, End::Exited { code: 0 });
    assert_eq!(std::fs::read(path).unwrap(), before, "it was made anew");
    // Code of another module under this one's name.
    let other = wasm.put(wat::parse_str(FOREVER).unwrap()).await.unwrap();
    wasm.compile(other, souk_wasm::Flavour::Plain).await.unwrap();
    for end in ["code", "digest"] {
        let others = code(end).into_iter().find(|path| path.to_string_lossy().contains(&other.to_string())).unwrap();
        std::fs::copy(others, path.with_extension(end)).unwrap();
    }
    let wasm = Wasm::open(config).await.unwrap();
    assert_eq!(finish(wasm.start(module, &Spec::new("m")).await.unwrap()).await.end, End::Exited { code: 0 });
    wasm.remove(module).await.unwrap();
    wasm.remove(other).await.unwrap();
    assert_eq!((code("code").len(), code("digest").len(), wasm.has(&module)), (0, 0, false));
}

#[tokio::test]
async fn the_cache_keeps_what_was_used_last() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("wasm");
    let wasm = Wasm::open(Config { cache_bytes: 1, ..Config::new(&place, program()) }).await.unwrap();
    for text in [NOTHING, FOREVER] {
        let module = wasm.put(wat::parse_str(text).unwrap()).await.unwrap();
        wasm.compile(module, souk_wasm::Flavour::Plain).await.unwrap();
        let files = std::fs::read_dir(place.join("compiled")).unwrap().flatten().map(|entry| entry.path());
        let kept: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "code")).collect();
        assert!(kept.len() == 1 && kept[0].to_string_lossy().contains(&module.to_string()), "{kept:?}");
    }
}

#[tokio::test]
async fn a_program_that_is_no_worker_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let none = souk_wasm::Program { path: "/bin/true".into(), args: Vec::new() };
    let wasm = Wasm::open(Config::new(folder.path(), none)).await.unwrap();
    let module = wasm.put(wat::parse_str(NOTHING).unwrap()).await.unwrap();
    assert!(wasm.compile(module, souk_wasm::Flavour::Plain).await.is_err());
}
