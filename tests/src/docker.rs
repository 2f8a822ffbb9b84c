//! Container engines: the one of this machine, and private ones that a test may stop, configure and kill.
//!
//! Owns the image that the scenarios run, made here from busybox, since there is no registry to pull from.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a harness: what does not work fails the test"
)]

use std::{
    fs,
    os::unix::{fs::symlink, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    part::SHARED_ENGINE,
    program::{Outcome, mortal, must, run, wait},
    wait::until,
};

/// Where this harness's images are.
pub const REPOSITORY: &str = "souk-scenario";
/// Busybox with all its applets. Its own command prints `image default`.
pub const BUSYBOX: &str = "souk-scenario/busybox:1";
/// How long an engine may take to stop.
const STOP_WITHIN: Duration = Duration::from_secs(40);

/// An engine, by its socket.
#[derive(Debug, Clone)]
pub struct Docker {
    socket: PathBuf,
}

impl Docker {
    /// The engine of this machine, with the image in it.
    #[must_use]
    pub fn shared() -> Self {
        let docker = Self { socket: PathBuf::from(SHARED_ENGINE) };
        docker.image();
        docker
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Runs a `docker` command.
    #[must_use]
    pub fn cli(&self, arguments: &[&str]) -> Outcome {
        let host = format!("unix://{}", self.socket.display());
        run(Command::new("docker").args(["-H", &host]).args(arguments), &[])
    }

    /// A container, as the engine describes it.
    ///
    /// # Panics
    /// If there is none of that name.
    #[must_use]
    pub fn inspect(&self, container: &str) -> Value {
        self.cli(&["inspect", container]).json()[0].take()
    }

    /// Makes the image, unless the engine has it.
    ///
    /// # Panics
    /// If it can't be made.
    pub fn image(&self) {
        static ONE: Mutex<()> = Mutex::new(());
        let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if self.cli(&["image", "inspect", BUSYBOX]).code == 0 {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let (root, tar) = (folder.path().join("root"), folder.path().join("root.tar"));
        for name in ["bin", "etc", "tmp", "root", "proc", "sys", "dev"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::copy("/usr/bin/busybox", root.join("bin/busybox")).unwrap();
        for applet in must("/usr/bin/busybox", &["--list"]).lines().filter(|a| *a != "busybox") {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nguest:x:1000:1000::/tmp:/bin/sh\n").unwrap();
        fs::write(root.join("etc/group"), "root:x:0:\nguest:x:1000:\n").unwrap();
        let (root, tar) = (root.display().to_string(), tar.display().to_string());
        must("tar", &["-C", &root, "-cf", &tar, "."]);
        let command = r#"CMD ["echo","image default"]"#;
        let _ = self.cli(&["import", "--change", "ENV PATH=/bin", "--change", command, &tar, BUSYBOX]).ok();
    }

    /// Containers of a node, running or not.
    #[must_use]
    pub fn containers(&self, node: &str) -> Vec<String> {
        self.labelled(&["ps", "-aq", "--no-trunc"], node)
    }

    /// Networks of a node.
    #[must_use]
    pub fn networks(&self, node: &str) -> Vec<String> {
        self.labelled(&["network", "ls", "-q", "--no-trunc"], node)
    }

    fn labelled(&self, list: &[&str], node: &str) -> Vec<String> {
        let filter = format!("label=souk.node={node}");
        let found = self.cli(&[list, &["--filter", &filter]].concat());
        found.out.split_whitespace().map(str::to_owned).collect()
    }

    /// The one container of a node.
    ///
    /// # Panics
    /// If it has none, or more.
    #[must_use]
    pub fn container(&self, node: &str) -> String {
        let filter = format!("label=souk.node={node}");
        let listed =
            self.cli(&["ps", "-a", "--no-trunc", "--filter", &filter, "--format", "{{.ID}} {{.Label \"souk.lease\"}}"]);
        // At its start a node tries on a container whether disks hold.
        let mut found: Vec<&str> = listed.out.lines().filter(|line| !line.ends_with(" disk-self-test")).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0).split(' ').next().unwrap_or_default().to_owned()
    }

    /// Removes what a node has here.
    pub fn sweep(&self, node: &str) {
        for container in self.containers(node) {
            let _ = self.cli(&["rm", "-fv", &container]);
        }
        for network in self.networks(node) {
            let _ = self.cli(&["network", "rm", &network]);
        }
    }
}

/// How a private engine is run.
#[derive(Debug, Clone, Default)]
pub struct EngineSetup {
    /// Containers outlive the engine's restarts.
    pub live_restore: bool,
    /// Further OCI runtimes, by name and program.
    pub runtimes: Vec<(String, PathBuf)>,
}

/// A private engine: its own data, state, socket and process.
#[derive(Debug)]
pub struct Engine {
    root: TempDir,
    setup: EngineSetup,
    process: Option<Child>,
    /// Its command line.
    pub docker: Docker,
}

impl Engine {
    /// Starts one, with the image in it.
    ///
    /// # Panics
    /// If it does not come up.
    #[must_use]
    pub fn start(setup: EngineSetup) -> Self {
        let root = tempfile::Builder::new().prefix("souk-engine-").tempdir().unwrap();
        let docker = Docker { socket: root.path().join("docker.sock") };
        let mut engine = Self { root, setup, process: None, docker };
        engine.resume();
        engine.docker.image();
        engine
    }

    /// Starts it again after a stop.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn resume(&mut self) {
        let path = |name: &str| self.root.path().join(name).display().to_string();
        let log = fs::OpenOptions::new().create(true).append(true).open(path("log")).unwrap();
        // In a network of its own: an engine told to have no bridge removes `docker0`, whosever it is.
        let mut command = mortal(Path::new("unshare"));
        command.args(["--net", "dockerd"]);
        command.args(["--data-root", &path("data"), "--exec-root", &path("exec"), "--pidfile", &path("pid")]);
        command.args(["-H", &format!("unix://{}", path("docker.sock"))]);
        command.args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"]);
        if self.setup.live_restore {
            command.arg("--live-restore");
        }
        for (name, program) in &self.setup.runtimes {
            command.args(["--add-runtime", &format!("{name}={}", program.display())]);
        }
        let errors = log.try_clone().unwrap();
        let child = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn().expect("dockerd runs");
        self.process = Some(child);
        let log = path("log");
        let up = crate::wait::poll(crate::wait::PATIENCE, || {
            let answers = UnixStream::connect(self.docker.socket()).is_ok();
            (answers && self.docker.cli(&["version"]).code == 0).then_some(())
        });
        assert!(up.is_some(), "dockerd does not come up: {}", fs::read_to_string(log).unwrap_or_default());
    }

    /// Stops it in order, as a package upgrade does.
    ///
    /// # Panics
    /// If it does not stop.
    pub fn stop(&mut self) {
        let mut child = self.process.take().expect("it runs");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(wait(&mut child, STOP_WITHIN).is_some(), "dockerd does not stop");
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.process.is_some() {
            let all = self.docker.cli(&["ps", "-aq"]).out;
            let all: Vec<&str> = all.split_whitespace().collect();
            if !all.is_empty() {
                let _ = self.docker.cli(&[&["rm", "-fv"], all.as_slice()].concat());
            }
            self.stop();
        }
        // An engine that dies leaves mounts below its root, which would keep the folder from being removed.
        unmount_below(self.root.path());
    }
}

/// Unmounts everything below a folder.
pub fn unmount_below(folder: &Path) {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let below = |mount: &&str| Path::new(mount).starts_with(folder);
    for mount in mounts.lines().rev().filter_map(|l| l.split(' ').nth(1)).filter(below) {
        Command::new("umount").args(["-l", mount]).status().ok();
    }
}

/// Waits until an engine has nothing of a node.
///
/// # Panics
/// If something stays.
pub fn nothing_left(docker: &Docker, node: &crate::node::Node) {
    until("no container, network or bridge of the node is left", || {
        let prefix = souk_runtime::name::bridge_prefix(&node.id);
        let links = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
        let bridges = links.filter(|l| l.file_name().to_string_lossy().starts_with(&prefix)).count();
        (bridges == 0 && docker.containers(&node.id).is_empty() && docker.networks(&node.id).is_empty()).then_some(())
    });
    until("no lock is held", || node.locks_free().then_some(()));
}
