//! The notice file: what the host has to tell the programs of the instance, eviction above all.
//!
//! Owns the file and its folder, nothing around them. A reader finds the old text, the new one or no file, never half of one.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};

/// Where programs look for it.
pub const FILE: &str = "/run/souk/notice.json";
const FOLDER: &str = "/run/souk";
const NEW: &str = "/run/souk/.notice.json.new";

/// Writes it, readable by every user of the instance.
pub fn write(text: &[u8]) -> std::io::Result<()> {
    fs::create_dir_all(FOLDER)?;
    fs::set_permissions(FOLDER, Permissions::from_mode(0o755))?;
    gone(fs::remove_file(NEW))?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(NEW)?;
    file.write_all(text)?;
    // Whatever the umask.
    file.set_permissions(Permissions::from_mode(0o644))?;
    drop(file);
    fs::rename(NEW, FILE)
}

/// Removes it; fine where there is none.
pub fn remove() -> std::io::Result<()> {
    gone(fs::remove_file(FILE))
}

fn gone(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(()),
        other => other,
    }
}
