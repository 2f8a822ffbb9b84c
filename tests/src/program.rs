//! The program under test, and other programs run to their end.
//!
//! Owns where `souk` is: `SOUK_BIN`, or built once a test process, in the tests' own profile.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a harness: what can't be run fails the test"
)]

use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::wait::PATIENCE;

/// The path of `souk`, built first if need be.
///
/// # Panics
/// If it can't be built.
pub fn souk() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(path) = std::env::var_os("SOUK_BIN") {
            return PathBuf::from(path);
        }
        let me = std::env::current_exe().expect("this program's path");
        let folder = me.parent().expect("a folder");
        let folder = if folder.ends_with("deps") { folder.parent().expect("a folder") } else { folder };
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "-p", "souk", "--bin", "souk", "--target-dir"]).arg(folder.parent().unwrap());
        cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
        // What cargo told this test of its own package makes some build scripts run anew.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") || text == "CARGO_CRATE_NAME" {
                cargo.env_remove(&name);
            }
        }
        if folder.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().expect("cargo runs").success(), "souk does not build");
        folder.join("souk")
    })
}

/// How a program ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its exit code; -1 where a signal ended it.
    pub code: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Outcome {
    /// The output of a program that must have succeeded.
    ///
    /// # Panics
    /// If it has not.
    #[must_use]
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "it failed: {}{}", self.out, self.err);
        self.out
    }

    /// The same as JSON.
    ///
    /// # Panics
    /// If it failed or is no JSON.
    #[must_use]
    #[track_caller]
    pub fn json(self) -> Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    /// The lines of a program that printed one JSON value a line.
    ///
    /// # Panics
    /// If one is no JSON.
    #[must_use]
    pub fn lines(&self) -> Vec<Value> {
        let line = |l: &str| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"));
        self.out.lines().map(line).collect()
    }

    /// The error of a `souk --json` that must have failed: code and sentence.
    ///
    /// # Panics
    /// If it succeeded, or told none.
    #[must_use]
    #[track_caller]
    pub fn error(&self) -> (String, String) {
        assert_ne!(self.code, 0, "it succeeded: {}", self.out);
        let found = self.err.lines().chain(self.out.lines()).filter_map(|l| serde_json::from_str::<Value>(l).ok());
        let error = found.map(|v| v["error"].clone()).find(|e| e.is_object());
        let error = error.unwrap_or_else(|| panic!("no error was told: {}{}", self.out, self.err));
        let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
        (text("code"), text("message"))
    }
}

/// Runs a command to its end with this input, and kills it where that does not come.
///
/// # Panics
/// If it can't be run or does not end.
pub fn run(command: &mut Command, input: &[u8]) -> Outcome {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_vec();
    // Whoever ends without reading its input closes the pipe: not our business.
    let feed = thread::spawn(move || drop(stdin.write_all(&input)));
    let (out, err) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let code = wait(&mut child, PATIENCE);
    let told = || (out.join().unwrap_or_default(), err.join().unwrap_or_default());
    let Some(code) = code else {
        child.kill().ok();
        child.wait().ok();
        let (out, err) = told();
        panic!("{command:?} did not end in {PATIENCE:?}: {out}{err}");
    };
    feed.join().ok();
    let (out, err) = told();
    Outcome { code, out, err }
}

/// Runs a program that must succeed, and returns what it printed.
///
/// # Panics
/// If it fails.
#[track_caller]
pub fn must(program: &str, arguments: &[&str]) -> String {
    let outcome = run(Command::new(program).args(arguments), &[]);
    assert_eq!(outcome.code, 0, "{program} {arguments:?}: {}{}", outcome.out, outcome.err);
    outcome.out
}

/// The exit code of a child that ends in time.
pub fn wait(child: &mut Child, patience: Duration) -> Option<i32> {
    let end = Instant::now() + patience;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status.code().unwrap_or(-1)),
            Ok(None) if Instant::now() < end => thread::sleep(Duration::from_millis(3)),
            Ok(None) | Err(_) => return None,
        }
    }
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut bytes).ok();
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// A command whose process the kernel kills when the thread that starts it ends, where the machine has `setpriv`.
#[must_use]
pub fn mortal(program: &Path) -> Command {
    static SETPRIV: OnceLock<bool> = OnceLock::new();
    if !*SETPRIV.get_or_init(|| Path::new("/usr/bin/setpriv").exists()) {
        return Command::new(program);
    }
    let mut command = Command::new("/usr/bin/setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}
