//! An sshd of a test's own on loopback, and an `ssh` that knows it as a person's does: by configuration.
//!
//! Owns its process and its keys. Needs root, since sshd logs in the user that runs it only then without PAM.
#![allow(clippy::unwrap_used, reason = "a harness: what does not work fails the test")]

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
};

use crate::{
    program::{mortal, must},
    ssh::Running,
    wait::until,
};

const SSHD: &str = "/usr/sbin/sshd";

/// A running sshd.
#[derive(Debug)]
pub struct Sshd {
    _running: Running,
    /// Where it listens on loopback.
    pub port: u16,
    folder: PathBuf,
}

impl Sshd {
    /// Whether there is one to run.
    #[must_use]
    pub fn there() -> bool {
        crate::part::present("sshd", Path::new(SSHD).exists() && rustix::process::geteuid().is_root())
    }

    /// Runs one, in whose sessions programs are looked for along `path`, and which adds `lines` to its configuration.
    ///
    /// # Panics
    /// If it does not come up.
    #[must_use]
    pub fn start(folder: &Path, path: &str, lines: &str) -> Self {
        fs::create_dir_all(folder).unwrap();
        // Where privileges are separated; Debian's service makes it at its start.
        fs::create_dir_all("/run/sshd").unwrap();
        let file = |name: &str| folder.join(name).display().to_string();
        for key in ["host", "user"] {
            must("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &file(key)]);
        }
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\n\
             PidFile none\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nPrintMotd no\nPrintLastLog no\n\
             SetEnv PATH={path}\n{lines}",
            file("host"),
            file("user.pub")
        );
        fs::write(folder.join("sshd_config"), config).unwrap();
        let mut server = mortal(Path::new(SSHD));
        server.args(["-D", "-f", &file("sshd_config")]).stderr(Stdio::null());
        let running = Running(server.spawn().unwrap());
        until("sshd", || TcpStream::connect(("127.0.0.1", port)).ok());
        Self { _running: running, port, folder: folder.to_owned() }
    }

    /// A folder with an `ssh` in it that finds this sshd by the name `box`: the system's own, with a configuration.
    ///
    /// # Panics
    /// If it can't be made.
    #[must_use]
    pub fn client(&self, lines: &str) -> PathBuf {
        let file = |name: &str| self.folder.join(name).display().to_string();
        let public = fs::read_to_string(file("host.pub")).unwrap();
        fs::write(file("known"), format!("box {public}")).unwrap();
        let config = format!(
            "Host box\n    HostName 127.0.0.1\n    HostKeyAlias box\n    Port {}\n    IdentityFile {}\n    \
             IdentitiesOnly yes\n    UserKnownHostsFile {}\n    StrictHostKeyChecking yes\n{lines}",
            self.port,
            file("user"),
            file("known")
        );
        fs::write(file("ssh_config"), config).unwrap();
        let bin = self.folder.join("bin");
        fs::create_dir_all(&bin).unwrap();
        let script =
            format!("#!/bin/sh\necho $$ >>{}\nexec /usr/bin/ssh -F {} \"$@\"\n", file("pids"), file("ssh_config"));
        fs::write(bin.join("ssh"), script).unwrap();
        fs::set_permissions(bin.join("ssh"), fs::Permissions::from_mode(0o755)).unwrap();
        bin
    }

    /// The process ids of every `ssh` that was run through [`Self::client`], oldest first.
    #[must_use]
    pub fn clients(&self) -> Vec<i32> {
        let text = fs::read_to_string(self.folder.join("pids")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }
}
