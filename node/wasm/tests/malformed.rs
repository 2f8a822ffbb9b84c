//! Modules that are none, or were made to hurt: a typed refusal, in bounded time, and a parent that goes on.
#![allow(clippy::unwrap_used)]

mod support;

use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};
use souk_wasm::{CompileLimits, Config, End, Flavour, Spec, Wasm, WasmError};
use support::{Done, finish, guest, house, program};

async fn refused(wasm: &Wasm, module: Vec<u8>) -> WasmError {
    let module = wasm.put(module).await.unwrap();
    wasm.compile(module, Flavour::Plain).await.unwrap_err()
}

async fn run_text(wasm: &Wasm, text: &str) -> Done {
    let module = wasm.put(wat::parse_str(text).unwrap()).await.unwrap();
    let mut spec = Spec::new("module");
    spec.limits.cpu_ms = Some(2000);
    finish(wasm.start(module, &spec).await.unwrap()).await
}

#[tokio::test]
async fn what_is_no_module_is_refused() {
    let (_folder, wasm) = house().await;
    let component = wat::parse_str("(component)").unwrap();
    for bytes in [vec![], b"#!/bin/sh\n".to_vec(), b"\0asm\x01\0\0\0\xff\xff".to_vec(), b"(module)".to_vec(), component]
    {
        let error = refused(&wasm, bytes).await;
        assert!(matches!(error, WasmError::Invalid { .. }), "{error:?}");
    }
    let missing = wasm.compile(souk_wasm::ModuleId::new([0; 32]), Flavour::Plain).await.unwrap_err();
    assert!(matches!(missing, WasmError::Missing { .. }), "{missing:?}");
}

#[tokio::test]
async fn proposals_that_are_off_are_refused() {
    let (_folder, wasm) = house().await;
    for text in [
        "(module (memory i64 1))",
        "(module (memory 1) (memory 1))",
        "(module (memory 1 1 shared))",
        "(module (type (struct)))",
    ] {
        let error = refused(&wasm, wat::parse_str(text).unwrap()).await;
        assert!(matches!(error, WasmError::Invalid { .. }), "{text}: {error:?}");
    }
}

#[tokio::test]
async fn modules_that_want_what_is_not_given_are_refused() {
    let (_folder, wasm) = house().await;
    for text in [
        "(module)",
        "(module (func (export \"_start\") (param i32)))",
        "(module (global (export \"_start\") i32 (i32.const 1)))",
        "(module (import \"env\" \"system\" (func)) (func (export \"_start\")))",
        "(module (import \"wasi_snapshot_preview1\" \"fd_write\" (func (param i64))) (func (export \"_start\")))",
        // More than its limit from the start.
        "(module (memory 65536) (func (export \"_start\")))",
        "(module (table 4000000000 funcref) (func (export \"_start\")))",
    ] {
        let done = run_text(&wasm, text).await;
        assert!(matches!(done.end, End::Refused { .. }), "{text}: {done:?}");
    }
}

#[tokio::test]
async fn hostile_code_traps_or_is_cut() {
    let (_folder, wasm) = house().await;
    let trapped = [
        "(module (memory (export \"memory\") 1) (func (export \"_start\") (drop (i32.load (i32.const -1)))))",
        "(module (func $f (export \"_start\") (call $f)))",
        "(module (func (export \"_start\") (drop (i32.div_s (i32.const 1) (i32.const 0)))))",
        "(module (table 1 funcref) (func (export \"_start\") (call_indirect (i32.const 0))))",
        // A call without a memory to answer to.
        "(module (import \"wasi_snapshot_preview1\" \"fd_write\" (func $w (param i32 i32 i32 i32) (result i32)))
           (func (export \"_start\") (drop (call $w (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 0)))))",
    ];
    for text in trapped {
        let done = run_text(&wasm, text).await;
        assert!(matches!(done.end, End::Trapped { .. }), "{text}: {done:?}");
    }
    // Code that runs before `_start` is the guest's as well.
    let done = run_text(&wasm, "(module (func $s (loop br 0)) (start $s) (func (export \"_start\")))").await;
    assert_eq!(done.end, End::CpuSpent);
    // Pointers to nowhere, lists without end.
    let wild = "(module (import \"wasi_snapshot_preview1\" \"fd_write\" (func $w (param i32 i32 i32 i32) (result i32)))
        (import \"wasi_snapshot_preview1\" \"random_get\" (func $r (param i32 i32) (result i32)))
        (import \"wasi_snapshot_preview1\" \"fd_readdir\" (func $d (param i32 i32 i32 i64 i32) (result i32)))
        (import \"wasi_snapshot_preview1\" \"poll_oneoff\" (func $p (param i32 i32 i32 i32) (result i32)))
        (memory (export \"memory\") 1)
        (func (export \"_start\")
          (drop (call $w (i32.const 1) (i32.const -8) (i32.const -1) (i32.const -4)))
          (drop (call $w (i32.const 1) (i32.const 0) (i32.const 8192) (i32.const -4)))
          (drop (call $r (i32.const 60000) (i32.const -1)))
          (drop (call $d (i32.const 3) (i32.const -1) (i32.const -1) (i64.const -1) (i32.const -1)))
          (drop (call $p (i32.const 0) (i32.const 0) (i32.const -1) (i32.const 0)))))";
    let done = run_text(&wasm, wild).await;
    assert!(matches!(done.end, End::Exited { .. } | End::Trapped { .. }), "{done:?}");
}

#[tokio::test]
async fn a_compiler_is_ended_at_its_limits() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::new(&folder.path().join("wasm"), program());
    config.compile =
        CompileLimits { cpu_seconds: 1, memory_bytes: 1 << 20, module_bytes: 8 << 20, ..CompileLimits::default() };
    let wasm = Wasm::open(config).await.unwrap();
    // One function, in which everything depends on everything before it.
    let body = "(i32.store (i32.and (local.get 0) (i32.const 65532))
        (local.tee 0 (i32.add (i32.mul (local.get 0) (local.get 1)) (i32.load (local.get 0)))))"
        .repeat(300_000);
    let text = format!("(module (memory 1) (func (export \"_start\") (local i32 i32) {body}))");
    let error = refused(&wasm, wat::parse_str(text).unwrap()).await;
    assert!(matches!(error, WasmError::CompilerEnded { .. }), "{error:?}");
    let error = wasm.put(vec![0; 9 << 20]).await.unwrap_err();
    assert!(matches!(error, WasmError::TooLarge { .. }), "{error:?}");
    // It goes on for others.
    let module = wasm.put(wat::parse_str("(module (func (export \"_start\")))").unwrap()).await.unwrap();
    assert_eq!(finish(wasm.start(module, &Spec::new("m")).await.unwrap()).await.end, End::Exited { code: 0 });
}

/// A real module with some bytes changed: refused with a reason, or run to one of the known ends.
#[test]
fn mutated_modules_never_hurt_the_parent() {
    let Some(guest) = guest() else { return };
    let cases = std::env::var("SOUK_TEST_MUTANTS").ok().and_then(|n| n.parse().ok()).unwrap_or(24);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (folder, wasm) = runtime.block_on(house());
    let flips = prop::collection::vec((0..guest.len(), any::<u8>()), 1..4);
    let mut runner = TestRunner::new(Cases { cases, failure_persistence: None, ..Cases::default() });
    runner
        .run(&flips, |flips| {
            let mut module = guest.to_vec();
            for (at, byte) in flips {
                module[at] ^= byte;
            }
            runtime.block_on(mutant(&wasm, module, folder.path()));
            Ok(())
        })
        .unwrap();
}

async fn mutant(wasm: &Wasm, module: Vec<u8>, folder: &std::path::Path) {
    let id = wasm.put(module).await.unwrap();
    let workspace = folder.join("w");
    let _ = std::fs::remove_dir_all(&workspace);
    std::fs::create_dir(&workspace).unwrap();
    let mut spec = support::spec(&["files"], &workspace);
    spec.limits.cpu_ms = Some(500);
    match wasm.start(id, &spec).await {
        Err(WasmError::Invalid { reason }) => assert!(!reason.is_empty() && reason.len() < 2500),
        Err(error) => panic!("{error:?}"),
        Ok(running) => {
            let done = finish(running).await;
            let known =
                matches!(done.end, End::Exited { .. } | End::Trapped { .. } | End::CpuSpent | End::Refused { .. });
            assert!(known, "{done:?}");
        }
    }
    wasm.remove(id).await.unwrap();
}
