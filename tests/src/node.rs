//! One real node: a `souk` process with a data directory and a machine (its slots' lock directory) of its own.
//!
//! Owns the process. It is killed when the node is dropped, and by the kernel if the test itself dies.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a harness: what does not work fails the test"
)]

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};

use serde_json::Value;

use crate::{
    program::{Outcome, mortal, run, souk, wait},
    wait::{until, within},
};

/// How long an orderly stop may take.
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// How a node is run. Filled by the builder's methods, kept for restarts.
#[derive(Debug, Clone)]
pub struct Setup {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    host: bool,
    listen: Vec<&'static str>,
    bootstrap: Vec<String>,
    env: Vec<(String, String)>,
    config: String,
    namespace: Option<String>,
}

impl Setup {
    pub(crate) fn new(name: &str, root: &Path) -> Self {
        let env = [
            ("SOUK_NETWORK_NAME", "scenario".to_owned()),
            ("SOUK_RUNTIME_LOCK_DIR", root.join(format!("{name}.locks")).display().to_string()),
            ("SOUK_HOST_LOCAL_IMAGES", format!("{}/*", crate::docker::REPOSITORY)),
            ("SOUK_LOG_LEVEL", "info".to_owned()),
            // Many leases at once on machines with little disk; and on some of those nothing can enforce a limit.
            ("SOUK_RUNTIME_PREALLOCATE_DISKS", "false".to_owned()),
            ("SOUK_HOST_ALLOW_SOFT_DISK", "true".to_owned()),
            ("SOUK_HOST_RESERVE_DISK_MB", "500".to_owned()),
        ];
        Self {
            name: name.to_owned(),
            dir: root.join(name),
            host: false,
            listen: vec!["/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"],
            bootstrap: Vec::new(),
            env: env.map(|(k, v)| (k.to_owned(), v)).to_vec(),
            config: String::new(),
            namespace: None,
        }
    }

    /// It runs there, listening at every address, at the usual port.
    #[must_use]
    pub fn at(self, place: &crate::homes::Place) -> Self {
        self.within(&place.namespace)
    }

    /// The same by the name of the namespace.
    #[must_use]
    pub fn within(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self.listen = vec!["/ip4/0.0.0.0/udp/7843/quic-v1", "/ip4/0.0.0.0/tcp/7843"];
        // How it is reached is told in detail.
        self.env.push(("SOUK_LOG".to_owned(), "info,souk_network::task::reaching=debug".to_owned()));
        self
    }

    /// It rents its machine out, to anyone, with so many slots at so much an hour.
    #[must_use]
    pub fn host(mut self, slots: u16, price: &str) -> Self {
        self.host = true;
        self.env("SOUK_HOST_PRICES_SLOT_HOUR", price)
            .env("SOUK_HOST_SLOTS", &slots.to_string())
            .env("SOUK_HOST_ACCEPT_ANYONE", "true")
    }

    /// It listens at every address of this machine, at ports the system chooses.
    #[must_use]
    pub fn everywhere(mut self) -> Self {
        self.listen = vec!["/ip4/0.0.0.0/udp/0/quic-v1", "/ip4/0.0.0.0/tcp/0"];
        self
    }

    /// It runs there, listening at every address.
    #[must_use]
    pub fn elsewhere(mut self, place: &crate::netns::Elsewhere) -> Self {
        self.namespace = Some(place.name().to_owned());
        self.everywhere()
    }

    /// It shares its machine, with so many slots, at the price that its cluster's members have by default: none.
    #[must_use]
    pub fn sharing(mut self, slots: u16) -> Self {
        self.host = true;
        self.env("SOUK_HOST_SLOTS", &slots.to_string())
    }

    /// It listens over QUIC only.
    #[must_use]
    pub fn quic(mut self) -> Self {
        self.listen = vec!["/ip4/127.0.0.1/udp/0/quic-v1"];
        self
    }

    /// It listens over TCP only.
    #[must_use]
    pub fn tcp(mut self) -> Self {
        self.listen = vec!["/ip4/127.0.0.1/tcp/0"];
        self
    }

    /// It begins with this address.
    #[must_use]
    pub fn knows(mut self, address: &str) -> Self {
        self.bootstrap.push(address.to_owned());
        self
    }

    /// A variable; the later of two with one name holds.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Lines of its configuration file.
    #[must_use]
    pub fn config(mut self, text: &str) -> Self {
        self.config.push_str(text);
        self
    }

    /// Makes its identity and runs it until it serves.
    ///
    /// # Panics
    /// If it does not come up.
    #[must_use]
    pub fn start(self) -> Node {
        let mut node = self.stopped();
        node.start();
        node
    }

    /// Makes its identity, and leaves it at that.
    ///
    /// # Panics
    /// If it can't be made.
    #[must_use]
    pub fn stopped(self) -> Node {
        let mut node = Node { setup: self, process: None, id: String::new(), listen: Vec::new(), starts: 0 };
        let made = node.souk(&["init"], &[]).json();
        node.id = made["node"].as_str().unwrap_or_default().to_owned();
        if !node.setup.config.is_empty() {
            fs::write(node.setup.dir.join("config.toml"), &node.setup.config).unwrap();
        }
        node
    }
}

/// A node.
#[derive(Debug)]
pub struct Node {
    setup: Setup,
    process: Option<Child>,
    /// Its peer id.
    pub id: String,
    /// Where it listened when it was last ready, with its peer id.
    pub listen: Vec<String>,
    starts: u32,
}

impl Node {
    /// Its data directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.setup.dir
    }

    /// Its name in this world.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.setup.name
    }

    /// Its process.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
    }

    /// The value of a variable it is run with.
    ///
    /// # Panics
    /// If it has none of that name.
    #[must_use]
    pub fn variable(&self, name: &str) -> &str {
        let found = self.setup.env.iter().rev().find(|(known, _)| known == name);
        found.map_or_else(|| panic!("{name} is not set"), |(_, value)| value.as_str())
    }

    /// Sets a variable, from the next start on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.setup.env.push((name.to_owned(), value.to_owned()));
    }

    /// Knows no address to begin with, from the next start on.
    pub fn forgets(&mut self) {
        self.setup.bootstrap.clear();
    }

    /// The `n`th address it listens on, to begin with.
    ///
    /// # Panics
    /// If it has none.
    #[must_use]
    pub fn address(&self, part: &str) -> &str {
        self.listen.iter().find(|a| a.contains(part)).unwrap_or_else(|| panic!("no {part} in {:?}", self.listen))
    }

    fn file(&self, end: &str) -> PathBuf {
        self.setup.dir.with_extension(format!("{}.{end}", self.starts))
    }

    /// Runs it until it serves.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn start(&mut self) {
        self.launch();
        self.ready();
    }

    /// Starts its process, and does not wait.
    ///
    /// # Panics
    /// If it runs already, or can't be run.
    pub fn launch(&mut self) {
        assert!(self.process.is_none(), "{} runs already", self.setup.name);
        self.starts += 1;
        let mut command = match &self.setup.namespace {
            Some(namespace) => crate::homes::inside(namespace, souk()),
            None => mortal(souk()),
        };
        command.arg("--dir").arg(&self.setup.dir).args(["--json", "up"]).envs(self.setup.env.iter().cloned());
        if self.setup.host {
            command.arg("--host");
        }
        // Where it was: peers that know its address find it again.
        let listen: Vec<String> = if self.listen.is_empty() || self.setup.namespace.is_some() {
            self.setup.listen.iter().map(|a| (*a).to_owned()).collect()
        } else {
            self.listen.iter().map(|a| a.split("/p2p/").next().unwrap_or_default().to_owned()).collect()
        };
        for address in listen {
            command.args(["--listen", &address]);
        }
        for address in &self.setup.bootstrap {
            command.args(["--bootstrap", address]);
        }
        let (out, log) = (File::create(self.file("out")).unwrap(), File::create(self.file("log")).unwrap());
        let child = command.stdin(std::process::Stdio::null()).stdout(out).stderr(log).spawn().expect("souk runs");
        self.process = Some(child);
    }

    /// Waits until it serves.
    ///
    /// # Panics
    /// If that does not come.
    pub fn ready(&mut self) {
        let out = self.file("out");
        let ready = until("the node is ready", || {
            if let Some(status) = self.process.as_mut().and_then(|p| p.try_wait().ok().flatten()) {
                panic!("{} ended at once ({status}): {}", self.setup.name, self.log());
            }
            let text = fs::read_to_string(&out).unwrap_or_default();
            text.ends_with('\n').then(|| serde_json::from_str::<Value>(text.trim()).ok()).flatten()
        });
        let texts =
            |v: &Value| v.as_array().into_iter().flatten().filter_map(|a| a.as_str().map(str::to_owned)).collect();
        assert_eq!(ready["node"], self.id.as_str());
        self.listen = texts(&ready["listen"]);
    }

    /// Waits for a process that is to end by itself: its exit code and log.
    ///
    /// # Panics
    /// If it does not end.
    pub fn ended(&mut self) -> (i32, String) {
        let mut child = self.process.take().expect("it was started");
        let code = wait(&mut child, crate::wait::PATIENCE);
        let code = code.unwrap_or_else(|| {
            child.kill().ok();
            panic!("{} does not end: {}", self.setup.name, self.log())
        });
        (code, self.log())
    }

    /// Kills it, as a power cut would, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.process.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }

    /// Stops it in order.
    ///
    /// # Panics
    /// If it does not end, or fails to.
    pub fn stop(&mut self) {
        let _ = self.souk(&["down"], &[]).json();
        let mut child = self.process.take().expect("it runs");
        let code = wait(&mut child, STOP_WITHIN);
        assert_eq!(code, Some(0), "{} did not stop in order: {}", self.setup.name, self.log());
    }

    /// Whether its process is there.
    pub fn runs(&mut self) -> bool {
        self.process.as_mut().is_some_and(|p| matches!(p.try_wait(), Ok(None)))
    }

    /// Its log of the last start.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.file("log")).unwrap_or_default()
    }

    /// A command line of this node, not yet run, with JSON output.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = mortal(souk());
        command.arg("--json").arg("--dir").arg(&self.setup.dir).args(arguments).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(self.setup.env.iter().filter(|(k, _)| k == "SOUK_NETWORK_NAME").cloned());
        command
    }

    /// Runs `souk --json` with these arguments on this node, to its end.
    #[must_use]
    pub fn souk(&self, arguments: &[&str], input: &[u8]) -> Outcome {
        run(&mut self.command(arguments), input)
    }

    /// The same, for a command that must succeed and print JSON.
    #[must_use]
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        self.souk(arguments, &[]).json()
    }

    /// The same for a command that must fail: its code and sentence.
    #[must_use]
    #[track_caller]
    pub fn refused(&self, arguments: &[&str]) -> (String, String) {
        self.souk(arguments, &[]).error()
    }

    /// The asks its search finds, all of them.
    #[must_use]
    pub fn asks(&self) -> Vec<Value> {
        let found = self.json(&["search", "--all"]);
        found["rows"].as_array().cloned().unwrap_or_default()
    }

    /// Waits for an ask of a host with so many slots: its id.
    ///
    /// # Panics
    /// If there is none in time.
    #[must_use]
    pub fn ask_of(&self, host: &Self, slots: u64) -> String {
        let found = until("the ask is in search", || {
            let asks = self.asks();
            asks.into_iter().find(|a| a["host_id"] == host.id.as_str() && a["slots"] == slots && a["rentable"] == true)
        });
        found["id"].as_str().unwrap_or_default().to_owned()
    }

    /// All about a lease.
    #[must_use]
    #[track_caller]
    pub fn show(&self, lease: &str) -> Value {
        self.json(&["show", lease])
    }

    /// Waits until a lease is in this state (`running`, `paused stopped`, `ended destroyed` …), and returns it.
    ///
    /// # Panics
    /// If it does not come to it.
    pub fn reaches(&self, lease: &str, state: &str) -> Value {
        self.finds(lease, state, |detail| state_of(detail) == state)
    }

    /// Waits until something shows in a lease, and returns it.
    ///
    /// # Panics
    /// If it does not.
    pub fn finds(&self, lease: &str, what: &str, look: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let found = crate::wait::poll(crate::wait::PATIENCE, || {
            let outcome = self.souk(&["show", lease], &[]);
            last = serde_json::from_str(&outcome.out).unwrap_or(Value::String(outcome.err));
            (outcome.code == 0 && look(&last)).then(|| last.clone())
        });
        found.unwrap_or_else(|| panic!("on {}, {lease} never showed: {what}; it is {last:#}", self.setup.name))
    }

    /// Whether nobody holds a lock of this node's machine.
    #[must_use]
    pub fn locks_free(&self) -> bool {
        let folder = fs::read_dir(self.variable("SOUK_RUNTIME_LOCK_DIR"));
        let mut files = folder.into_iter().flatten().flatten();
        files.all(|file| {
            let file = File::open(file.path()).unwrap();
            rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok()
        })
    }

    /// Waits until it is connected to another.
    pub fn meets(&self, other: &Self) {
        within(crate::wait::PATIENCE, "the nodes are connected", || {
            let peers = self.json(&["peers"]);
            peers.as_array()?.iter().any(|p| p["node"] == other.id.as_str()).then_some(())
        });
    }

    pub(crate) fn print_logs(&self) {
        for start in 1..=self.starts {
            let path = self.setup.dir.with_extension(format!("{start}.log"));
            let text = fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            println!("--- {} ({}), start {start}, last lines", self.setup.name, self.id);
            for line in &lines[lines.len().saturating_sub(60)..] {
                println!("{line}");
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            self.print_logs();
        }
    }
}

/// A lease's state with its reason, in one text.
#[must_use]
pub fn state_of(lease: &Value) -> String {
    let word = |key: &str| lease[key].as_str().unwrap_or_default().to_owned();
    format!("{} {}", word("state"), word("reason")).trim().to_owned()
}
