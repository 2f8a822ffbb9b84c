//! The guest helper: embedded here, written once where the engine can mount it from.
//!
//! Files are named by the hash of their content, so that containers made by an older node keep the helper they were made with.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::error::RuntimeError;

/// Where the helper is inside an instance.
pub const HELPER_IN_INSTANCE: &str = "/.souk/guest";

const HELPER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/souk-guest"));

/// Writes the helper below the data directory, unless it is there with the same content, and gives its path.
///
/// # Errors
/// [`RuntimeError::Files`].
pub fn install(data_dir: &Path) -> Result<PathBuf, RuntimeError> {
    let hash = blake3::hash(HELPER).to_hex();
    let folder = data_dir.join("helper");
    let path = folder.join(format!("guest-{}", hash.get(..16).unwrap_or_default()));
    write(&folder, &path).map_err(|source| RuntimeError::Files { path: path.display().to_string(), source })?;
    Ok(path)
}

fn write(folder: &Path, path: &Path) -> std::io::Result<()> {
    if fs::read(path).is_ok_and(|content| content == HELPER) {
        return fs::set_permissions(path, fs::Permissions::from_mode(0o755));
    }
    fs::create_dir_all(folder)?;
    let temporary = folder.join(format!(".new-{}", std::process::id()));
    let mut file = fs::File::create(&temporary)?;
    file.write_all(HELPER)?;
    file.set_permissions(fs::Permissions::from_mode(0o755))?;
    file.sync_all()?;
    drop(file);
    fs::rename(&temporary, path)
}
