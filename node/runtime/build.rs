//! Builds the guest helper as a static program, to be embedded in this crate.
//!
//! A nested build, in a target directory of its own (no lock is shared with the outer build), with the toolchain that runs
//! the outer one, for the host's own architecture and with its C runtime linked in.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    if let Err(error) = build_guest() {
        // A build script speaks to Cargo by its exit code and its standard error.
        #[allow(clippy::print_stderr)]
        {
            eprintln!("the guest helper could not be built: {error}");
        }
        std::process::exit(1);
    }
}

fn build_guest() -> Result<(), Box<dyn std::error::Error>> {
    let manifest_dir = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let guest = manifest_dir.parent().ok_or("the crate has no parent folder")?.join("guest");
    rerun_if_changed(&guest.join("src"))?;
    rerun_if_changed(&guest.join("Cargo.toml"))?;
    // What the helper copies files with.
    rerun_if_changed(&guest.with_file_name("transfer"))?;

    let out_dir = PathBuf::from(std::env::var("OUT_DIR")?);
    let target = std::env::var("TARGET")?;
    let target_dir = out_dir.join("guest");
    let mut cargo = Command::new(std::env::var("CARGO")?);
    cargo
        .args(["build", "--release", "--locked", "--package", "souk-guest"])
        .arg("--manifest-path")
        .arg(guest.join("Cargo.toml"))
        .args(["--target", &target])
        .arg("--target-dir")
        .arg(&target_dir)
        .env("RUSTFLAGS", "-C target-feature=+crt-static -C panic=abort -C opt-level=s -C strip=symbols");
    // What the outer build was told (lints, coverage, wrappers, its job server) isn't meant for this one.
    for inherited in [
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_BUILD_RUSTFLAGS",
        "CARGO_BUILD_TARGET",
        "CARGO_BUILD_TARGET_DIR",
        "CARGO_TARGET_DIR",
        "CARGO_MAKEFLAGS",
        "MAKEFLAGS",
        "MFLAGS",
        "RUSTC",
    ] {
        cargo.env_remove(inherited);
    }
    let status = cargo.status()?;
    if !status.success() {
        return Err(format!("cargo ended with {status}").into());
    }
    let program = target_dir.join(&target).join("release").join("souk-guest");
    std::fs::copy(&program, out_dir.join("souk-guest"))?;
    Ok(())
}

fn rerun_if_changed(path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    // Cargo reads these lines from standard output.
    #[allow(clippy::print_stdout)]
    {
        println!("cargo::rerun-if-changed={}", path.to_str().ok_or("a path that is not UTF-8")?);
    }
    Ok(())
}
