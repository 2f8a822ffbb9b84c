//! The folder that a node shares with one instance alone, mounted read-only there: the socket of its endpoint, and its onstart
//! script.
//!
//! The node makes it, writes into it and removes it. The guest can connect to what is in it and read it, and change nothing, so the
//! node may open paths below it. Owns the folder; what is served on the socket is the node's.

use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use bollard::models::{Mount, MountType};

use crate::name::Names;

/// Where the folder is inside an instance.
pub const FOLDER_IN_INSTANCE: &str = "/.souk/self";
/// The socket's name in it.
pub const SOCKET: &str = "api.sock";
/// The script's name in it.
pub const ONSTART: &str = "onstart.sh";

/// The folder of an instance on this machine, by the runtime's data directory and the node's id.
#[must_use]
pub fn folder(data_dir: &Path, node_id: &str, lease: &str) -> PathBuf {
    of(data_dir, &Names::new(node_id, lease))
}

pub(crate) fn of(data_dir: &Path, names: &Names) -> PathBuf {
    data_dir.join("inside").join(&names.short)
}

/// Makes it, with this script in it or none.
pub(crate) fn make(folder: &Path, onstart: Option<&str>) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    // Every user of the instance may look into it; on this machine the data directory is closed.
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    let script = folder.join(ONSTART);
    let Some(text) = onstart else { return gone(fs::remove_file(script)) };
    let new = folder.join(".onstart.new");
    gone(fs::remove_file(&new))?;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.set_permissions(fs::Permissions::from_mode(0o644))?;
    fs::rename(new, script)
}

/// Removes it; fine where there is none.
pub(crate) fn remove(folder: &Path) {
    if let Err(error) = gone(fs::remove_dir_all(folder)) {
        tracing::warn!(%error, folder = %folder.display(), "an instance's folder is left");
    }
}

/// The mount: not a bind by text, so the source must exist and the engine never makes it.
pub(crate) fn mount(folder: &Path) -> Mount {
    Mount {
        target: Some(FOLDER_IN_INSTANCE.to_owned()),
        source: Some(folder.display().to_string()),
        typ: Some(MountType::BIND),
        read_only: Some(true),
        ..Mount::default()
    }
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_folder_is_made_again_and_removed_twice() {
        let root = tempfile::tempdir().unwrap();
        let path = folder(root.path(), "node", "lease");
        assert_ne!(path, folder(root.path(), "node", "other"));
        make(&path, Some("echo one")).unwrap();
        make(&path, Some("echo two")).unwrap();
        assert_eq!(fs::read_to_string(path.join(ONSTART)).unwrap(), "echo two");
        make(&path, None).unwrap();
        assert!(!path.join(ONSTART).exists());
        remove(&path);
        remove(&path);
        assert!(!path.exists());
    }
}
