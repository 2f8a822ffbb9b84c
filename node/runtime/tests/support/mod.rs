//! What the engine tests share: images made here, a runtime with its reports, and clean-up.
#![allow(
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    unreachable_pub
)]

pub mod engine;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use souk_runtime::{
    Devices, DockerRuntime, Egress, ExecSpec, Exit, InstanceEvent, InstanceSpec, LogOptions, OutputStream, Priority,
    Runtime, RuntimeConfig, RuntimeReport,
};
use tokio::sync::mpsc;

pub const DEADLINE: Duration = Duration::from_secs(60);
pub const SOCKET: &str = "/var/run/docker.sock";
pub const BUSYBOX: &str = "souk-test/busybox:2";
pub const EMPTY: &str = "souk-test/empty:3";

/// Whether a part is there; says that the test is skipped where it isn't, and fails where it is required.
pub fn have(part: &str) -> bool {
    let there = match part {
        "docker" => Path::new(SOCKET).exists() && Path::new("/usr/bin/busybox").exists(),
        "dockerd" => on_path("dockerd") && on_path("unshare") && Path::new("/usr/bin/busybox").exists() && is_root(),
        "nft" => on_path("nft") && is_root(),
        "netns" => on_path("ip") && is_root(),
        "loop" => on_path("mkfs.ext4") && on_path("losetup") && Path::new("/dev/loop-control").exists() && is_root(),
        other => on_path(other),
    };
    let required = std::env::var("SOUK_TEST_REQUIRE").unwrap_or_default();
    assert!(there || !required.split(',').any(|name| name == part), "{part} is required and absent");
    if !there {
        println!("skipped: {part} is absent");
    }
    there
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn on_path(program: &str) -> bool {
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|folder| folder.join(program).exists())
}

pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Unmounts everything under a folder.
pub fn unmount_under(folder: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let inside = |line: &&str| line.split(' ').nth(4).is_some_and(|at| Path::new(at).starts_with(folder));
    let devices: Vec<&str> = mounts.lines().filter(inside).filter_map(|line| line.split(' ').nth(2)).collect();
    // Where a disk is mounted elsewhere too, there as well.
    for line in mounts.lines().rev() {
        let mut fields = line.split(' ').skip(2);
        if let (Some(device), Some(at)) = (fields.next(), fields.nth(1))
            && device.starts_with("7:")
            && devices.contains(&device)
        {
            let _ = Command::new("umount").args(["-l", &at.replace("\\040", " ")]).output();
        }
    }
}

/// A tar of a root file system with busybox, or with nothing but it.
pub fn root_fs(full: bool) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    if full {
        for name in ["bin", "etc", "tmp", "root", "proc", "sys", "dev", "data"] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        std::fs::copy("/usr/bin/busybox", root.join("bin/busybox")).unwrap();
        for applet in run("/usr/bin/busybox", &["--list"]).lines() {
            let _ = std::os::unix::fs::symlink("busybox", root.join("bin").join(applet));
        }
        std::fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nguest:x:1000:1000::/tmp:/bin/sh\n")
            .unwrap();
        std::fs::write(root.join("etc/group"), "root:x:0:\nguest:x:1000:\n").unwrap();
        std::fs::write(root.join("bin/not-executable"), "x").unwrap();
    } else {
        std::fs::copy("/usr/bin/busybox", root.join("busybox")).unwrap();
    }
    let output = Command::new("tar").args(["-C", root.to_str().unwrap(), "-c", "."]).output().unwrap();
    assert!(output.status.success());
    output.stdout
}

pub async fn import(socket: &str, name: &str, tar: Vec<u8>, changes: &[&str]) {
    use bollard::query_parameters::CreateImageOptions;
    let docker = bollard::Docker::connect_with_unix(socket, 60, bollard::API_DEFAULT_VERSION)
        .unwrap()
        .negotiate_version()
        .await
        .unwrap();
    if docker.inspect_image(name).await.is_ok() {
        return;
    }
    let (repo, tag) = name.rsplit_once(':').unwrap();
    let options = CreateImageOptions {
        from_src: Some("-".into()),
        repo: Some(repo.into()),
        tag: Some(tag.into()),
        changes: changes.iter().map(|change| (*change).to_owned()).collect(),
        ..Default::default()
    };
    let mut stream = docker.create_image(Some(options), Some(bollard::body_full(tar.into())), None);
    while let Some(line) = stream.next().await {
        line.unwrap();
    }
}

pub async fn images(socket: &str) {
    static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _one = ONE.lock().await;
    import(
        socket,
        BUSYBOX,
        root_fs(true),
        &["ENV PATH=/bin", "ENV NVIDIA_VISIBLE_DEVICES=all", "CMD [\"echo\",\"image default\"]"],
    )
    .await;
    import(socket, EMPTY, root_fs(false), &[]).await;
}

static COUNT: AtomicU32 = AtomicU32::new(0);

pub fn unique(name: &str) -> String {
    format!("{name}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A runtime under test; removes all it made when dropped.
pub struct World {
    pub runtime: DockerRuntime,
    pub config: RuntimeConfig,
    pub reports: mpsc::Receiver<RuntimeReport>,
    pub seen: VecDeque<RuntimeReport>,
    _data: Option<tempfile::TempDir>,
}

pub fn config(socket: &str, data: &Path) -> RuntimeConfig {
    RuntimeConfig {
        socket: PathBuf::from(socket),
        data_dir: data.to_owned(),
        node_id: unique("test"),
        local_images: vec!["souk-test/*".into()],
        registries: vec!["docker.io".into()],
        check_seconds: 1,
        ..RuntimeConfig::default()
    }
}

impl World {
    pub async fn new() -> Self {
        Self::with_disks(true).await
    }

    /// One whose instances have disks in files, where the engine has no limits of its own, or not.
    pub async fn with_disks(loop_disks: bool) -> Self {
        images(SOCKET).await;
        let data = tempfile::tempdir().unwrap();
        let config = RuntimeConfig { loop_disks, ..config(SOCKET, data.path()) };
        let mut world = Self::with(config).await;
        world._data = Some(data);
        world
    }

    pub async fn with(config: RuntimeConfig) -> Self {
        let (runtime, reports) = DockerRuntime::connect(config.clone()).await.unwrap();
        Self { runtime, config, reports, seen: VecDeque::new(), _data: None }
    }

    /// A node's next run, after the runtime was shut down.
    pub async fn reconnect(&mut self) {
        (self.runtime, self.reports) = DockerRuntime::connect(self.config.clone()).await.unwrap();
    }

    pub async fn spec(&self, name: &str, command: &[&str]) -> InstanceSpec {
        let image = self.runtime.resolve_image(BUSYBOX).await.unwrap().pin;
        InstanceSpec {
            lease: unique(name),
            image,
            source: souk_runtime::ImageSource::Registry,
            command: Some(command.iter().map(|word| (*word).to_owned()).collect()),
            entrypoint: None,
            user: None,
            env: vec![],
            workdir: None,
            onstart: None,
            cpu_milli: 500,
            cpuset: None,
            memory_mb: 64,
            pids: 64,
            shm_mb: 16,
            disk_mb: 64,
            egress: Egress::None,
            devices: Devices::default(),
            priority: Priority::Rental,
            volumes: vec![],
            stop_grace_ms: 5_000,
        }
    }

    /// The next report that fits; those before it are kept in `seen`.
    pub async fn wait<T>(&mut self, what: &str, pick: impl Fn(&RuntimeReport) -> Option<T>) -> T {
        let end = Instant::now() + DEADLINE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match tokio::time::timeout(left, self.reports.recv()).await {
                Ok(Some(report)) => {
                    let found = pick(&report);
                    self.seen.push_back(report);
                    if let Some(found) = found {
                        return found;
                    }
                }
                Ok(None) | Err(_) => panic!("no report: {what}; seen {:?}", self.seen),
            }
        }
    }

    pub async fn event<T>(&mut self, lease: &str, what: &str, pick: impl Fn(&InstanceEvent) -> Option<T>) -> T {
        let lease = lease.to_owned();
        self.wait(what, move |report| match report {
            RuntimeReport::Instance { lease: of, event } if *of == lease => {
                if let InstanceEvent::Failed(failure) = event
                    && what != "failed"
                {
                    panic!("{what}: {failure:?}");
                }
                pick(event)
            }
            _ => None,
        })
        .await
    }

    pub async fn prepare(&mut self, spec: &InstanceSpec) {
        self.runtime.prepare(spec.clone()).unwrap();
        self.event(&spec.lease, "prepared", |event| matches!(event, InstanceEvent::Prepared { .. }).then_some(()))
            .await;
    }

    pub async fn start(&mut self, spec: &InstanceSpec) {
        self.prepare(spec).await;
        self.runtime.start(&spec.lease).unwrap();
        self.event(&spec.lease, "started", |event| matches!(event, InstanceEvent::Started { .. }).then_some(())).await;
    }

    pub async fn exited(&mut self, lease: &str) -> Exit {
        self.event(lease, "exited", |event| match event {
            InstanceEvent::Exited(exit) => Some(*exit),
            _ => None,
        })
        .await
    }

    pub async fn failed(&mut self, lease: &str) -> souk_runtime::Failure {
        self.event(lease, "failed", |event| match event {
            InstanceEvent::Failed(failure) => Some(failure.clone()),
            _ => None,
        })
        .await
    }

    pub async fn destroy(&mut self, lease: &str) {
        self.runtime.destroy(lease).unwrap();
        self.event(lease, "destroyed", |event| matches!(event, InstanceEvent::Destroyed).then_some(())).await;
    }

    /// Runs a spec to its end: exit, standard output, standard error.
    pub async fn run(&mut self, spec: &InstanceSpec) -> (Exit, String, String) {
        self.start(spec).await;
        let exit = self.exited(&spec.lease).await;
        let (out, err) = self.logs(&spec.lease, LogOptions::default()).await;
        self.destroy(&spec.lease).await;
        (exit, out, err)
    }

    pub async fn logs(&self, lease: &str, options: LogOptions) -> (String, String) {
        let mut stream = self.runtime.logs(lease, options).await.unwrap();
        let (mut out, mut err) = (String::new(), String::new());
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.unwrap();
            let text = String::from_utf8_lossy(&chunk.bytes).into_owned();
            match chunk.stream {
                OutputStream::Stdout => out.push_str(&text),
                OutputStream::Stderr => err.push_str(&text),
            }
        }
        (out, err)
    }

    /// Waits until the log holds a text.
    pub async fn log_has(&self, lease: &str, text: &str) {
        let end = Instant::now() + DEADLINE;
        loop {
            let (out, err) = self.logs(lease, LogOptions::default()).await;
            if out.contains(text) || err.contains(text) {
                return;
            }
            assert!(Instant::now() < end, "the log never had {text:?}: {out:?} {err:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Runs a shell line inside: exit code, standard output, standard error.
    pub async fn shell(&self, lease: &str, line: &str) -> (i64, String, String) {
        let spec = ExecSpec { command: vec!["sh".into(), "-c".into(), line.into()], ..ExecSpec::default() };
        let mut session = self.runtime.exec(lease, spec).await.unwrap();
        let (mut out, mut err) = (String::new(), String::new());
        let read = async {
            while let Some(item) = session.output.next().await {
                let (stream, bytes) = item.unwrap();
                let text = String::from_utf8_lossy(&bytes).into_owned();
                match stream {
                    OutputStream::Stdout => out.push_str(&text),
                    OutputStream::Stderr => err.push_str(&text),
                }
            }
        };
        tokio::time::timeout(DEADLINE, read).await.expect("the output ends");
        let code = tokio::time::timeout(DEADLINE, session.control.exit_code()).await.expect("an exit code").unwrap();
        (code, out, err)
    }

    pub fn container(&self, lease: &str) -> String {
        souk_runtime::name::Names::new(&self.config.node_id, lease).container
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let host = format!("unix://{}", self.config.socket.display());
        let label = format!("label=souk.node={}", self.config.node_id);
        let list = |arguments: &[&str]| {
            let mut all = vec!["-H", host.as_str()];
            all.extend(arguments);
            let output = Command::new("docker").args(&all).output();
            output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
        };
        for id in list(&["ps", "-aq", "--filter", &label]).split_whitespace() {
            list(&["rm", "-fv", id]);
        }
        for id in list(&["network", "ls", "-q", "--filter", &label]).split_whitespace() {
            list(&["network", "rm", id]);
        }
        unmount_under(&self.config.data_dir);
        let table = format!("souk_{}", souk_runtime::name::node_tag(&self.config.node_id));
        let _ = Command::new("nft").args(["delete", "table", "inet", &table]).output();
    }
}
