//! Whether the walls hold against native code: a process of its own confines itself as a worker does, and tries what a guest that took the
//! worker over would try.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::process::Command;

use super::{confine, filter};

/// The folder of the process that tries; unset, this is not that process.
const TRIES: &str = "SOUK_TEST_WALLS";

#[test]
fn native_code_is_held_too() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("own"), "own").unwrap();
    let own = std::env::current_exe().unwrap();
    let args = ["--exact", "worker::walls::the_process_that_tries", "--nocapture", "--test-threads=1"];
    let output = Command::new(own).args(args).env(TRIES, folder.path()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains("seccomp true"), "{told}");
    for line in told.lines().filter(|line| line.starts_with("tried")) {
        assert_ne!(line.ends_with("refused"), line.contains("own file"), "{line}\n{told}");
    }
    let tries = if told.contains("landlock true") { 9 } else { 4 };
    assert_eq!(told.lines().filter(|line| line.starts_with("tried")).count(), tries, "{told}");
}

#[test]
fn the_process_that_tries() {
    let Some(folder) = std::env::var_os(TRIES) else { return };
    let folder = Path::new(&folder);
    confine::at_start(None).unwrap();
    let opened: OwnedFd = File::open(folder).unwrap().into();
    let landlock = confine::landlock(Some(opened.as_fd()), None).unwrap();
    println!("\nlandlock {}", landlock.is_some());
    let told = |what: &str, done: bool| println!("tried {what}: {}", if done { "done" } else { "refused" });
    // What Landlock alone refuses, before the filter hides it.
    if landlock.is_some() {
        told("a file of the host", File::open("/etc/passwd").is_ok());
        told("a folder of the host", std::fs::read_dir("/etc").is_ok());
        told("a file beside the workspace", File::create(folder.with_extension("beside")).is_ok());
        told("a program to run", Command::new("/bin/true").status().is_ok());
        told("a pipe in the workspace", rustix::fs::mkfifoat(&opened, "pipe", rustix::fs::Mode::RWXU).is_ok());
    }
    // Asked before: it is none of the calls that are left.
    let parent = rustix::process::getppid();
    println!("seccomp {}", filter::apply().unwrap());
    told("own file", File::open(folder.join("own")).is_ok());
    told("a socket", std::net::UdpSocket::bind("127.0.0.1:0").is_ok());
    told("a thread", std::thread::Builder::new().spawn(|| ()).is_ok());
    told("a signal to the parent", parent.is_some_and(|parent| rustix::process::test_kill_process(parent).is_ok()));
    // The harness would need what is refused now.
    std::process::exit(0);
}
