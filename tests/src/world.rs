//! A world of one test: its folder, its nodes' beginnings, and what must be cleaned up after them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a harness: what does not work fails the test")]

use std::{cell::RefCell, process::Command};

use tempfile::TempDir;

use crate::{
    docker::{BUSYBOX, Docker, unmount_below},
    node::{Node, Setup},
};

/// A world. Declare it before its nodes, so that they are gone when it is cleaned up.
#[derive(Debug)]
pub struct World {
    root: TempDir,
    /// The engine its hosts use.
    pub docker: Option<Docker>,
    hosts: RefCell<Vec<String>>,
}

impl World {
    /// One without containers.
    ///
    /// # Panics
    /// If there is no place for it.
    #[must_use]
    pub fn new() -> Self {
        Self::made(None)
    }

    /// One whose hosts use this machine's engine.
    #[must_use]
    pub fn with_docker() -> Self {
        Self::on(Docker::shared())
    }

    /// One whose hosts use this engine.
    #[must_use]
    pub fn on(docker: Docker) -> Self {
        Self::made(Some(docker))
    }

    fn made(docker: Option<Docker>) -> Self {
        let root = tempfile::Builder::new().prefix("souk-test-").tempdir().unwrap();
        Self { root, docker, hosts: RefCell::default() }
    }

    /// Its folder.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        self.root.path()
    }

    /// A node to be.
    #[must_use]
    pub fn node(&self, name: &str) -> Setup {
        let setup = Setup::new(name, self.root.path());
        match &self.docker {
            Some(docker) => setup.env("SOUK_RUNTIME_DOCKER_SOCKET", &docker.socket().display().to_string()),
            None => setup,
        }
    }

    /// A host with so many slots at $1.00 an hour each and no price for its disk, and a renter that knows it.
    #[must_use]
    pub fn pair(&self, slots: u16) -> (Node, Node) {
        let host = self.watch(self.node("host").host(slots, "1.00").start());
        let renter = self.node("renter").knows(&host.listen[0]).start();
        renter.meets(&host);
        (host, renter)
    }

    /// Notes a host, so that what it leaves in the engine and the firewall is removed in the end.
    #[must_use]
    pub fn watch(&self, host: Node) -> Node {
        self.hosts.borrow_mut().push(host.id.clone());
        host
    }

    /// The engine.
    ///
    /// # Panics
    /// If it has none.
    #[must_use]
    pub fn docker(&self) -> &Docker {
        self.docker.as_ref().unwrap_or_else(|| panic!("this world has no engine"))
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for host in self.hosts.borrow().iter() {
            if let Some(docker) = &self.docker {
                docker.sweep(host);
            }
            let table = format!("souk_{}", souk_runtime::name::node_tag(host));
            Command::new("nft").args(["delete", "table", "inet", &table]).output().ok();
        }
        // A node that was killed leaves the disks of its instances mounted.
        unmount_below(self.path());
    }
}

/// Rents an ask of a host with so many slots to run a shell line, and waits until it runs: the lease's id.
///
/// # Panics
/// If it does not come to run.
#[must_use]
pub fn rent(renter: &Node, host: &Node, slots: u64, line: &str, options: &[&str]) -> String {
    rent_image(renter, host, slots, BUSYBOX, options, &["sh", "-c", line])
}

/// As [`rent`], of another image with another command.
///
/// # Panics
/// If it does not come to run.
#[must_use]
pub fn rent_image(renter: &Node, host: &Node, slots: u64, image: &str, options: &[&str], command: &[&str]) -> String {
    let ask = renter.ask_of(host, slots);
    let arguments = [&["rent", &ask, "--image", image, "--disk", "1", "-y"], options, &["--"], command];
    let outcome = renter.souk(&arguments.concat(), &[]);
    assert_eq!(outcome.code, 0, "{}{}", outcome.out, outcome.err);
    lease_of(&outcome.lines())
}

/// The lease that the steps of a rental speak of.
///
/// # Panics
/// If they name none.
#[must_use]
pub fn lease_of(steps: &[serde_json::Value]) -> String {
    let step = steps.iter().find(|s| s["step"] == "accepted").unwrap_or_else(|| panic!("not accepted: {steps:#?}"));
    step["lease"].as_str().unwrap_or_default().to_owned()
}
