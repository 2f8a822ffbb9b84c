//! Real nodes started and stopped as a person does it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(60);

fn souk(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_souk"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SOUK_") {
            command.env_remove(name);
        }
    }
    command.arg("--dir").arg(dir).args(args).stdin(Stdio::null());
    command
}

fn run(dir: &Path, args: &[&str]) -> Output {
    souk(dir, args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn json(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

const LOOPBACK: [&str; 5] = ["up", "--network", "test", "--listen", "/ip4/127.0.0.1/tcp/0"];

/// Stops a background node whatever happens to the test.
struct Stopped(PathBuf);

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = souk(&self.0, &["down"]).output();
    }
}

#[test]
fn a_node_in_the_background_answers_and_goes_down() {
    let outer = tempfile::tempdir().unwrap();
    let dir = outer.path().join("n");
    let _stopped = Stopped(dir.clone());
    let started = json(&run(&dir, &[&LOOPBACK[..], &["-d", "--json"]].concat()));
    let status = json(&run(&dir, &["status", "--json"]));
    assert_eq!(status["node"], started["node"]);
    assert_eq!(status["pid"], started["pid"]);
    assert_eq!(status["network"], "test");
    assert_eq!(status["host"], "off");

    for args in [&LOOPBACK[..], &["up", "-d"]] {
        let second = run(&dir, args);
        assert_eq!(second.status.code(), Some(1));
        let errors = text(&second.stderr);
        assert!(errors.contains("error: ") && errors.contains("try: "), "{errors}");
        assert!(errors.contains(&started["pid"].to_string()), "it names the one that runs: {errors}");
    }

    assert_eq!(json(&run(&dir, &["ps", "--json"])), serde_json::json!([]));
    assert_eq!(json(&run(&dir, &["search", "--json"]))["matched"], 0);
    let misspelt = run(&dir, &["search", "gpu_rm>=24"]);
    assert_eq!(misspelt.status.code(), Some(1));
    assert!(text(&misspelt.stderr).contains("gpu_ram"), "{}", text(&misspelt.stderr));
    assert_eq!(json(&run(&dir, &["ledger", "check", "--json"]))["entries"], 1);

    let file = outer.path().join("ledger.souk");
    let name = file.display().to_string();
    assert!(run(&dir, &["ledger", "export", &name]).status.success());

    let down = run(&dir, &["down"]);
    assert!(down.status.success(), "{}", text(&down.stderr));
    assert!(!dir.join("api.sock").exists());
    let status = run(&dir, &["status"]);
    assert!(text(&status.stderr).contains("no node is running"));

    assert_eq!(json(&run(&dir, &["verify", &name, "--json"]))["verdict"], "valid");
    let whole = std::fs::read(&file).unwrap();
    for (cut, code) in [(whole.len() - 1, 6), (1, 6)] {
        std::fs::write(&file, &whole[..cut]).unwrap();
        assert_eq!(run(&dir, &["verify", &name]).status.code(), Some(code), "cut at {cut}");
    }
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    std::fs::write(&file, flipped).unwrap();
    assert_eq!(run(&dir, &["verify", &name]).status.code(), Some(1));
}

fn wait(child: &mut Child) -> std::process::ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("the node did not end");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_node_in_the_foreground_says_when_it_is_ready_and_ends_in_order_on_a_signal() {
    let outer = tempfile::tempdir().unwrap();
    let dir = outer.path().join("n");
    let mut node = None;
    // Twice: what the first one leaves behind must not keep the second from starting.
    for _ in 0..2 {
        let mut child = souk(&dir, &LOOPBACK).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready: Vec<String> = lines.map_while(Result::ok).take_while(|l| l != "ready").collect();
        assert!(ready.iter().any(|l| l.starts_with("listening /ip4/127.0.0.1/tcp/")), "{ready:?}");
        assert!(ready.iter().any(|l| *l == format!("api {}/api.sock", dir.display())), "{ready:?}");
        let name = ready.iter().find(|l| l.starts_with("node 12D3KooW")).cloned();
        assert!(name.is_some() && (node.is_none() || node == name), "the same node each time");
        node = name;

        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert_eq!(wait(&mut child).code(), Some(0));
        assert!(!dir.join("api.sock").exists());
    }
}
