//! A Debian with a real JupyterLab in it, made once for each version and kept in the engine.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use souk_tests::{
    docker::{Docker, REPOSITORY},
    part::absent,
    program::{mortal, wait},
};

/// The package, and so the image.
const VERSION: &str = "4.4.5";
/// How long one of the steps may take on a busy machine.
const STEP_WITHIN: Duration = Duration::from_secs(600);
/// What the machine trusts.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The image's name; none where its packages can't be had.
pub fn jupyter(docker: &Docker) -> Option<String> {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let name = format!("{REPOSITORY}/jupyter:{VERSION}");
    if docker.cli(&["image", "inspect", &name]).code == 0 {
        return Some(name);
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    let (tar, place) = (folder.path().join("root.tar").display().to_string(), root.display().to_string());
    let include = "--include=python3,python3-venv,ca-certificates";
    if !step(mortal(Path::new("debootstrap")).args(["--variant=minbase", include, "bookworm", &place])) {
        absent("debian");
        return None;
    }
    fs::copy("/etc/resolv.conf", root.join("etc/resolv.conf")).unwrap();
    fs::copy(CERTIFICATES, root.join(CERTIFICATES.trim_start_matches('/'))).unwrap();
    assert!(step(mortal(Path::new("chroot")).args([&place, "python3", "-m", "venv", "/opt/jupyter"])));
    let package = format!("jupyterlab=={VERSION}");
    let mut pip = mortal(Path::new("chroot"));
    pip.args([&place, "/opt/jupyter/bin/pip", "install", "--quiet", &package]).env("PIP_CERT", CERTIFICATES);
    if !step(&mut pip) {
        absent("pip");
        return None;
    }
    for gone in ["var/cache/apt/archives", "var/lib/apt/lists", "root/.cache"] {
        fs::remove_dir_all(root.join(gone)).ok();
    }
    assert!(step(Command::new("tar").args(["-C", &place, "-cf", &tar, "."])));
    let path = "ENV PATH=/usr/local/bin:/usr/bin:/bin";
    let host = format!("unix://{}", docker.socket().display());
    let mut import = Command::new("docker");
    import.args(["-H", &host, "import", "--change", path, "--change", r#"CMD ["/bin/bash"]"#, &tar, &name]);
    assert!(step(&mut import));
    Some(name)
}

/// Runs a command to its end: whether it succeeded.
fn step(command: &mut Command) -> bool {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let code = wait(&mut child, STEP_WITHIN);
    if code.is_none() {
        child.kill().ok();
        child.wait().ok();
    }
    code == Some(0)
}
