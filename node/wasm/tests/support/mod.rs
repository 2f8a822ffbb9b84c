//! A place for modules, and guests to put into it.
#![allow(dead_code, clippy::unwrap_used, clippy::print_stdout, clippy::panic, reason = "each test uses its part of it")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use souk_wasm::{Config, End, Event, ModuleId, Program, Running, Spec, Stream, Usage, Wasm};

/// Nothing here takes longer, on the slowest machine.
pub const WITHIN: Duration = Duration::from_secs(60);

/// How this crate's own worker is started.
pub fn program() -> Program {
    Program { path: PathBuf::from(env!("CARGO_BIN_EXE_souk-wasm-worker")), args: Vec::new() }
}

/// A house for modules in a new folder.
pub async fn house() -> (tempfile::TempDir, Wasm) {
    let folder = tempfile::tempdir().unwrap();
    let wasm = Wasm::open(Config::new(&folder.path().join("wasm"), program())).await.unwrap();
    (folder, wasm)
}

/// The guest in C, built by Debian's clang; `None`, with a line, where that is absent. `SOUK_TEST_REQUIRE=wasi` makes that a failure.
pub fn guest() -> Option<&'static [u8]> {
    static GUEST: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    GUEST.get_or_init(|| build("guest")).as_deref()
}

fn build(name: &str) -> Option<Vec<u8>> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c").join(name).with_extension("c");
    let folder = tempfile::tempdir().unwrap();
    let module = folder.path().join("module.wasm");
    let mut clang = Command::new("clang");
    // Optimised as far as it goes without turning the recursion into a loop.
    clang.args(["--target=wasm32-wasi", "-O1", "-fno-optimize-sibling-calls", "-o"]).arg(&module).arg(&source);
    let there = Path::new("/usr/include/wasm32-wasi/stdio.h").exists();
    let output = if there { clang.output().ok() } else { None };
    let Some(output) = output else {
        let required = std::env::var("SOUK_TEST_REQUIRE").unwrap_or_default();
        assert!(!required.split(',').any(|part| part.trim() == "wasi"), "wasi is required and absent");
        println!("skipped: wasi (clang, wasi-libc, libclang-rt-dev-wasm32) is absent");
        return None;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(std::fs::read(module).unwrap())
}

/// What came of a run.
#[derive(Debug)]
pub struct Done {
    pub end: End,
    pub usage: Usage,
    pub stdout: String,
    pub stderr: String,
    pub events: Vec<Event>,
}

/// Waits for the end, and reads all.
pub async fn finish(running: Running) -> Done {
    let Running { mut events, mut output, handle } = running;
    let reading = tokio::spawn(async move {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        while let Some(chunk) = output.recv().await {
            match chunk.stream {
                Stream::Stdout => stdout.extend_from_slice(&chunk.bytes),
                Stream::Stderr => stderr.extend_from_slice(&chunk.bytes),
            }
        }
        (String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr).into_owned())
    });
    let mut all = Vec::new();
    let (end, usage) = loop {
        let event = tokio::time::timeout(WITHIN, events.recv()).await.unwrap().unwrap();
        all.push(event.clone());
        if let Event::Ended { end, usage } = event {
            break (end, usage);
        }
    };
    let (stdout, stderr) = reading.await.unwrap();
    drop(handle);
    Done { end, usage, stdout, stderr, events: all }
}

/// Runs the guest in C to its end.
pub async fn run(wasm: &Wasm, module: ModuleId, spec: &Spec) -> Done {
    finish(wasm.start(module, spec).await.unwrap()).await
}

/// A spec of the guest in C, with a workspace.
pub fn spec(what: &[&str], workspace: &Path) -> Spec {
    let mut spec = Spec::new("guest");
    spec.args.extend(what.iter().map(|word| (*word).to_owned()));
    spec.workspace = Some(workspace.to_owned());
    spec
}

/// The worker whose working directory this is.
pub fn standing_in(folder: &Path) -> Option<rustix::process::Pid> {
    let folder = folder.canonicalize().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut there =
        processes.filter(|entry| std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == folder));
    there.find_map(|entry| rustix::process::Pid::from_raw(entry.file_name().to_string_lossy().parse().ok()?))
}

/// Whether this test may look at a worker's process, which only root may.
pub fn sees_workers() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: root is absent");
    }
    root
}
