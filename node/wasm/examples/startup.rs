//! How long a run takes to begin: from `start` to the first instruction, for a compiled module of about a megabyte.
//!
//! `cargo run --release -p souk-wasm --example startup [RUNS]`, after `cargo build --release -p souk-wasm`.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic, reason = "it speaks to the person who measures")]

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use souk_wasm::{Config, Event, Flavour, ModuleId, Program, Running, Spec, Wasm};

#[tokio::main]
async fn main() {
    let runs = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(200);
    let folder = tempfile::tempdir().unwrap();
    let module = wat::parse_str(text()).unwrap();
    println!("module: {} KiB", module.len() >> 10);
    for (name, spares) in [("cold (a new process)", 0), ("warm (a process that waits)", 1)] {
        let config = Config { spares, ..Config::new(folder.path(), program()) };
        let wasm = Wasm::open(config).await.unwrap();
        let id = wasm.put(module.clone()).await.unwrap();
        let began = Instant::now();
        wasm.compile(id, Flavour::Plain).await.unwrap();
        println!("compiled or found: {:?}", began.elapsed());
        let mut started = Vec::new();
        let mut ended = Vec::new();
        for _ in 0..runs {
            let (start, end) = one(&wasm, id).await;
            started.push(start);
            ended.push(end);
            // The next spare.
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
        println!("{name}: started {}, ended {}", percentiles(&mut started), percentiles(&mut ended));
    }
}

async fn one(wasm: &Wasm, id: ModuleId) -> (Duration, Duration) {
    let began = Instant::now();
    let Running { mut events, output, handle } = wasm.start(id, &Spec::new("m")).await.unwrap();
    let mut started = Duration::ZERO;
    loop {
        match events.recv().await.unwrap() {
            Event::Ready(_) => {}
            Event::Started => started = began.elapsed(),
            Event::Ended { end, .. } => {
                assert_eq!(end, souk_wasm::End::Exited { code: 0 });
                drop((output, handle));
                return (started, began.elapsed());
            }
        }
    }
}

fn percentiles(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)];
    format!("p50 {:?}, p99 {:?}", at(50), at(99))
}

/// The worker beside this example.
fn program() -> Program {
    let own = std::env::current_exe().unwrap();
    let path = own.parent().unwrap().parent().unwrap().join("souk-wasm-worker");
    assert!(path.exists(), "build it first: cargo build --release -p souk-wasm");
    Program { path, args: Vec::new() }
}

/// Many functions of some arithmetic.
fn text() -> String {
    let mut text = String::from("(module (memory (export \"memory\") 16)\n");
    for n in 0..7000 {
        let _ = write!(text, "(func $f{n} (param i32) (result i32) (local i32 i32)");
        for k in 0..12 {
            let _ = write!(
                text,
                "(local.set 1 (i32.add (i32.mul (local.get 0) (i32.const {})) (local.get 2)))",
                n * 31 + k
            );
            let _ = write!(text, "(i32.store (i32.and (local.get 1) (i32.const 65532)) (local.get 2))");
        }
        text.push_str("(local.get 1))\n");
    }
    text.push_str("(func (export \"_start\") (drop (call $f1 (i32.const 5)))))");
    text
}
