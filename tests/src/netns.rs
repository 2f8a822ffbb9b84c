//! A visitor from elsewhere: a network namespace with one cable to this machine.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a harness: what does not work fails the test")]

use std::{
    fs::File,
    net::Ipv4Addr,
    os::fd::AsFd,
    process::Command,
    sync::atomic::{AtomicU8, Ordering},
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::program::must;

/// Runs something on a thread of its own in a network namespace. Sockets made there stay there, wherever they are used.
///
/// # Panics
/// If the namespace can't be entered, or the work panics.
pub fn within<T: Send + 'static>(namespace: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let namespace = File::open(namespace).unwrap();
    let thread = thread::spawn(move || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        work()
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A namespace of its own. Gone when dropped.
#[derive(Debug)]
pub struct Elsewhere {
    name: String,
    link: String,
    /// This machine's address, as it is seen from there.
    pub host: Ipv4Addr,
}

impl Elsewhere {
    /// Makes one.
    ///
    /// # Panics
    /// If it can't be made.
    #[must_use]
    pub fn new() -> Self {
        static MADE: AtomicU8 = AtomicU8::new(0);
        let (id, n) = (std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let (name, link, inner) = (format!("skelse{id}-{n}"), format!("se{id}h{n}"), format!("se{id}g{n}"));
        // Of the range for benchmarks, a piece that is ours as long as nobody else has this process id.
        let piece = u16::try_from((id * 4 + u32::from(n) % 4) % 0x4000).unwrap_or(0) * 4;
        let [third, fourth] = piece.to_be_bytes();
        let (host, guest) = (Ipv4Addr::new(198, 19, third, fourth | 1), Ipv4Addr::new(198, 19, third, fourth | 2));
        must("ip", &["netns", "add", &name]);
        let made = Self { name, link, host };
        must("ip", &["link", "add", &made.link, "type", "veth", "peer", "name", &inner, "netns", &made.name]);
        must("ip", &["addr", "add", &format!("{host}/30"), "dev", &made.link]);
        must("ip", &["link", "set", &made.link, "up"]);
        for line in
            [format!("addr add {guest}/30 dev {inner}"), format!("link set {inner} up"), "link set lo up".to_owned()]
        {
            let words: Vec<&str> = ["-n", &made.name].into_iter().chain(line.split(' ')).collect();
            must("ip", &words);
        }
        made
    }

    /// The namespace's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs something there.
    ///
    /// # Panics
    /// As [`within`].
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        within(&format!("/var/run/netns/{}", self.name), work)
    }
}

impl Default for Elsewhere {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        Command::new("ip").args(["link", "del", &self.link]).output().ok();
        Command::new("ip").args(["netns", "del", &self.name]).output().ok();
    }
}
