//! A real image registry of the test's own, open or behind a password.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a harness: what does not work fails the test")]

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use crate::{
    docker::Docker,
    program::{Outcome, mortal, run},
    wait::until,
};

/// The user of a registry behind a password.
pub const USER: &str = "kunde";
/// Its password.
pub const PASSWORD: &str = "korrekt-Pferd-7";
/// The same, as `htpasswd -B` writes it.
const PASSWORD_LINE: &str = "kunde:$2b$05$OjQRkyuOfAIx95xXCZsUBe.DaxHh8jIy9MN1NtAcnnQdj8ZWCvWcC\n";

/// A `docker-registry` process.
#[derive(Debug)]
pub struct Registry {
    server: Child,
    /// Its name: address and port.
    pub name: String,
    folder: TempDir,
}

impl Registry {
    /// One that wants [`USER`] and [`PASSWORD`].
    ///
    /// # Panics
    /// If it does not come up.
    #[must_use]
    pub fn with_password() -> Self {
        let folder = tempfile::Builder::new().prefix("souk-registry-").tempdir().unwrap();
        // A port that was free a moment ago; another program taking it makes the start below fail loudly.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let name = format!("127.0.0.1:{port}");
        let path = |name: &str| folder.path().join(name).display().to_string();
        fs::write(folder.path().join("htpasswd"), PASSWORD_LINE).unwrap();
        let settings = format!(
            "version: 0.1\nlog:\n  level: error\nauth:\n  htpasswd:\n    realm: test\n    path: {}\nstorage:\n  filesystem:\n    \
             rootdirectory: {}\nhttp:\n  addr: {name}\n",
            path("htpasswd"),
            path("data")
        );
        fs::write(folder.path().join("config.yml"), settings).unwrap();
        let mut command = mortal(Path::new("docker-registry"));
        command.args(["serve", &path("config.yml")]).stdout(Stdio::null()).stderr(Stdio::null());
        let server = command.spawn().expect("docker-registry runs");
        until("the registry answers", || TcpStream::connect(&name).ok());
        Self { server, name, folder }
    }

    /// A `docker` command whose logins are this registry's own, and nobody else's.
    #[must_use]
    pub fn docker(&self, docker: &Docker, arguments: &[&str], input: &[u8]) -> Outcome {
        let host = format!("unix://{}", docker.socket().display());
        let config = self.folder.path().join("docker").display().to_string();
        run(Command::new("docker").args(["--config", &config, "-H", &host]).args(arguments), input)
    }

    /// Pushes an image of the engine under this name, and lets the engine forget the name.
    ///
    /// # Panics
    /// If it can't.
    #[must_use]
    pub fn push(&self, docker: &Docker, image: &str, name: &str) -> String {
        let name = format!("{}/{name}", self.name);
        let _ = self.docker(docker, &["login", "-u", USER, "--password-stdin", &self.name], PASSWORD.as_bytes()).ok();
        let _ = docker.cli(&["tag", image, &name]).ok();
        let _ = self.docker(docker, &["push", "-q", &name], &[]).ok();
        let _ = docker.cli(&["rmi", &name]).ok();
        name
    }

    /// The folder with its own `docker login`, for `DOCKER_CONFIG`.
    #[must_use]
    pub fn docker_config(&self) -> String {
        self.folder.path().join("docker").display().to_string()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
