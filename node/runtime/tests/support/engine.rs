//! A private engine, started, stopped and killed at will.
#![allow(dead_code, missing_docs, clippy::unwrap_used, unreachable_pub)]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::DEADLINE;

pub struct PrivateEngine {
    folder: tempfile::TempDir,
    options: Vec<String>,
    daemon: Option<Child>,
}

impl PrivateEngine {
    pub fn new(options: &[String]) -> Self {
        let mut engine = Self {
            folder: tempfile::Builder::new().prefix("ske").tempdir().unwrap(),
            options: options.to_vec(),
            daemon: None,
        };
        engine.start();
        engine
    }

    pub fn socket(&self) -> String {
        self.folder.path().join("s").to_str().unwrap().to_owned()
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("node")
    }

    pub fn start(&mut self) {
        let path = |name: &str| self.folder.path().join(name).to_str().unwrap().to_owned();
        let log = std::fs::File::create(path("log")).unwrap();
        // In a network of its own: an engine told to have no bridge removes `docker0`, whosever it is.
        let daemon = Command::new("unshare")
            .args(["--net", "dockerd"])
            .args(["--data-root", &path("data"), "--exec-root", &path("exec"), "--pidfile", &path("pid")])
            .args(["-H", &format!("unix://{}", path("s")), "--bridge", "none", "--iptables=false"])
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.daemon = Some(daemon);
        let end = Instant::now() + DEADLINE;
        while !self.answers() {
            let log = std::fs::read_to_string(path("log")).unwrap_or_default();
            assert!(Instant::now() < end, "dockerd doesn't start: {log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn answers(&self) -> bool {
        let host = format!("unix://{}", self.socket());
        let output = Command::new("docker").args(["-H", &host, "info"]).output().unwrap();
        output.status.success()
    }

    pub fn docker(&self, arguments: &[&str]) -> String {
        let host = format!("unix://{}", self.socket());
        let mut all = vec!["-H", host.as_str()];
        all.extend(arguments);
        super::run("docker", &all)
    }

    /// Asks the daemon to end (SIGTERM), or ends it (SIGKILL), and waits until it has.
    pub fn stop(&mut self, kill: bool) {
        let Some(mut daemon) = self.daemon.take() else {
            return;
        };
        let pid = rustix::process::Pid::from_child(&daemon);
        let signal = if kill { rustix::process::Signal::KILL } else { rustix::process::Signal::TERM };
        let _ = rustix::process::kill_process(pid, signal);
        let _ = daemon.wait();
        if kill {
            // Its containerd dies with it; where nobody reaps that, the next daemon would take the zombie for a running one.
            let _ = std::fs::remove_file(self.folder.path().join("exec/containerd/containerd.pid"));
        }
    }
}

impl Drop for PrivateEngine {
    fn drop(&mut self) {
        self.stop(false);
        // What a killed daemon left: shims (known by this engine's own folder), then mounts, the innermost first.
        let folder = self.folder.path().to_str().unwrap().to_owned();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let pid =
                entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(rustix::process::Pid::from_raw);
            if let (true, Some(pid)) = (String::from_utf8_lossy(&words).contains(&folder), pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let mounts: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(1)).collect();
        for mount in mounts.iter().rev().filter(|mount| mount.starts_with(&folder)) {
            let _ = Command::new("umount").args(["-l", mount]).output();
        }
    }
}
