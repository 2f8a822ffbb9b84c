//! Parts of a machine that a test needs: whether they are there, and what happens where they aren't.
//!
//! An absent part is never passed in silence: the test prints `skipped: …`, or fails where `SOUK_TEST_REQUIRE` names the part.
#![allow(clippy::print_stdout, clippy::panic, reason = "it speaks to the person who runs the tests")]

use std::path::Path;

/// The engine that tests share, where they need not stop it.
pub const SHARED_ENGINE: &str = "/var/run/docker.sock";

/// Whether a part is there: `docker` (a running engine), `dockerd` (one to run), `loop` (file systems in files), `nft`, `netns` (network namespaces), `runc`, or any program's name.
///
/// # Panics
/// If it is absent and required.
#[must_use]
pub fn have(part: &str) -> bool {
    let busybox = Path::new("/usr/bin/busybox").exists();
    let there = match part {
        "docker" => std::os::unix::net::UnixStream::connect(SHARED_ENGINE).is_ok() && on_path("docker") && busybox,
        "dockerd" => on_path("dockerd") && on_path("docker") && busybox && is_root(),
        "loop" => on_path("mkfs.ext4") && on_path("losetup") && is_root() && Path::new("/dev/loop-control").exists(),
        "nft" => on_path("nft") && is_root(),
        "netns" => on_path("ip") && is_root(),
        program => on_path(program),
    };
    present(part, there)
}

/// What [`have`] says of a part that a test has looked for itself.
///
/// # Panics
/// As [`have`].
#[must_use]
pub fn present(part: &str, there: bool) -> bool {
    let required = std::env::var("SOUK_TEST_REQUIRE").unwrap_or_default();
    assert!(there || !required.split(',').any(|name| name.trim() == part), "{part} is required and absent");
    if !there {
        absent(part);
    }
    there
}

/// Says that a part is absent, where only its use could tell.
///
/// # Panics
/// If it is required.
pub fn absent(part: &str) {
    let required = std::env::var("SOUK_TEST_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|name| name.trim() == part), "{part} is required and absent");
    println!("skipped: {part} is absent");
}

/// Whether all of them are there.
#[must_use]
pub fn have_all(parts: &[&str]) -> bool {
    parts.iter().all(|part| have(part))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn on_path(program: &str) -> bool {
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|folder| folder.join(program).exists())
}
