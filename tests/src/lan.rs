//! A local network without a way out: machines in network namespaces of their own, on one bridge.
//!
//! Owns the namespaces; they are gone when it is dropped.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a harness: what does not work fails the test")]

use std::{
    net::Ipv4Addr,
    process::Command,
    sync::atomic::{AtomicU16, Ordering},
};

use crate::{part::have_all, program::must};

/// See the module.
#[derive(Debug)]
pub struct Lan {
    tag: String,
    namespaces: Vec<String>,
}

/// A machine on it.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Its namespace.
    pub namespace: String,
    /// Its address there.
    pub address: Ipv4Addr,
}

impl Lan {
    /// An empty one; none where this machine can't make it.
    #[must_use]
    pub fn new() -> Option<Self> {
        static MADE: AtomicU16 = AtomicU16::new(0);
        if !have_all(&["netns", "nsenter"]) {
            return None;
        }
        let tag = format!("sl{}x{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let mut made = Self { tag, namespaces: Vec::new() };
        let switch = made.namespace("switch");
        for words in [&["link", "add", "name", "switch0", "type", "bridge"][..], &["link", "set", "switch0", "up"]] {
            must("ip", &[&["-n", &switch], words].concat());
        }
        Some(made)
    }

    fn namespace(&mut self, name: &str) -> String {
        let name = format!("{}{name}", self.tag);
        must("ip", &["netns", "add", &name]);
        self.namespaces.push(name.clone());
        must("ip", &["-n", &name, "link", "set", "lo", "up"]);
        name
    }

    /// A machine more.
    ///
    /// # Panics
    /// If it can't be made.
    pub fn machine(&mut self) -> Machine {
        let n = u8::try_from(self.namespaces.len()).unwrap();
        let (namespace, switch) = (self.namespace(&format!("m{n}")), self.namespaces[0].clone());
        let address = Ipv4Addr::new(192, 168, 77, n);
        let port = format!("p{n}");
        must("ip", &["-n", &switch, "link", "add", &port, "type", "veth", "peer", "name", "eth", "netns", &namespace]);
        must("ip", &["-n", &switch, "link", "set", &port, "master", "switch0", "up"]);
        must("ip", &["-n", &namespace, "addr", "add", &format!("{address}/24"), "dev", "eth"]);
        must("ip", &["-n", &namespace, "link", "set", "eth", "up"]);
        // Where multicast goes on a machine with a router, too.
        must("ip", &["-n", &namespace, "route", "add", "default", "dev", "eth"]);
        Machine { namespace, address }
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for namespace in &self.namespaces {
            Command::new("ip").args(["netns", "del", namespace]).output().ok();
        }
    }
}
