//! Who this node is: its key, and the id of its machine.
//!
//! Owns two files of the data directory: `node.key`, a 32-byte Ed25519 seed that only its owner may read, and `machine.id`.
//! Neither is ever overwritten.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use souk_protocol::{Keypair, MachineId};
use zeroize::Zeroizing;

/// The seed's file.
pub const KEY_FILE: &str = "node.key";
/// The machine id's file.
pub const MACHINE_FILE: &str = "machine.id";
/// Bytes of a seed.
pub(crate) const SEED_BYTES: usize = 32;

/// Why there is no usable identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Nothing has been initialised there.
    #[error("there is no node in {}", dir.display())]
    Missing {
        /// The data directory.
        dir: PathBuf,
    },
    /// Others can read what they must not.
    #[error("others may read or change {} (mode {mode:04o})", path.display())]
    Open {
        /// The file or directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The mode it should have.
        wanted: u32,
    },
    /// The file is not what it should be.
    #[error("{} is damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// In which way.
        why: String,
    },
    /// The file system said no.
    #[error("can't {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl IdentityError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Missing { dir } => format!("souk init --dir {}", dir.display()),
            Self::Open { path, wanted, .. } => format!("chmod {wanted:o} {}", path.display()),
            Self::Damaged { path, .. } if path.ends_with(crate::owner::key::FILE) => format!(
                "restore {0} from a backup, or move it away and run `souk owner init` to be a new owner",
                path.display()
            ),
            Self::Damaged { path, .. } => format!(
                "restore {0} from a backup, or move it away and run `souk init` to be a new node",
                path.display()
            ),
            Self::Io { path, .. } => format!("ls -ld {}", path.display()),
        }
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    let path = path.to_owned();
    move |source| IdentityError::Io { what, path, source }
}

/// A node's key and machine.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Signs for the node, and names it.
    pub keypair: Keypair,
    /// This machine, for the node's life.
    pub machine: MachineId,
}

impl Identity {
    /// Makes what is missing: the directory (mode 0700), the key, the machine's id. Whether there was no key before.
    ///
    /// # Errors
    /// [`IdentityError`], also if what is there can't be used.
    pub fn create(dir: &Path) -> Result<(Self, bool), IdentityError> {
        if !dir.exists() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed("create", dir))?;
        }
        check_private(dir, &fs::metadata(dir).map_err(failed("look at", dir))?, 0o700)?;
        let mut seed = Zeroizing::new([0; SEED_BYTES]);
        random(seed.as_mut())?;
        let new = write_new(dir, KEY_FILE, seed.as_ref())?;
        let mut machine = MachineId::default();
        random(&mut machine.0)?;
        write_new(dir, MACHINE_FILE, format!("{machine}\n").as_bytes())?;
        Ok((Self::load(dir)?, new))
    }

    /// Reads both files.
    ///
    /// # Errors
    /// [`IdentityError`]: missing, damaged, or open to others.
    pub fn load(dir: &Path) -> Result<Self, IdentityError> {
        let missing = || IdentityError::Missing { dir: dir.to_owned() };
        let meta = match fs::metadata(dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(missing()),
            other => other.map_err(failed("look at", dir))?,
        };
        let key = dir.join(KEY_FILE);
        let machine = dir.join(MACHINE_FILE);
        if !key.exists() {
            return Err(missing());
        }
        check_private(dir, &meta, 0o700)?;
        Ok(Self { keypair: read_key(&key)?, machine: read_machine(&machine)? })
    }
}

pub(crate) fn random(bytes: &mut [u8]) -> Result<(), IdentityError> {
    getrandom::fill(bytes).map_err(|e| IdentityError::Io {
        what: "draw random bytes from",
        path: PathBuf::from("/dev/urandom"),
        source: io::Error::other(e.to_string()),
    })
}

fn check_private(path: &Path, meta: &fs::Metadata, wanted: u32) -> Result<(), IdentityError> {
    let mode = meta.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::Open { path: path.to_owned(), mode, wanted });
    }
    Ok(())
}

/// Writes a file that only its owner may read, durably, unless it exists. Whether it was written.
pub(crate) fn write_new(dir: &Path, name: &str, bytes: &[u8]) -> Result<bool, IdentityError> {
    let path = dir.join(name);
    let write = || -> io::Result<bool> {
        if path.symlink_metadata().is_ok() {
            return Ok(false);
        }
        let mut file = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o600)).tempfile_in(dir)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        match file.persist_noclobber(&path) {
            Ok(_) => {}
            Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            Err(e) => return Err(e.error),
        }
        File::open(dir)?.sync_all()?;
        Ok(true)
    };
    write().map_err(failed("write", &path))
}

pub(crate) fn read_key(path: &Path) -> Result<Keypair, IdentityError> {
    let mut file = open(path)?;
    let meta = file.metadata().map_err(failed("look at", path))?;
    check_private(path, &meta, 0o600)?;
    let damaged = |why: String| IdentityError::Damaged { path: path.to_owned(), why };
    if !meta.is_file() || meta.size() != SEED_BYTES as u64 {
        return Err(damaged(format!("it has {} bytes, a key has {SEED_BYTES}", meta.size())));
    }
    let mut seed = Zeroizing::new([0; SEED_BYTES]);
    file.read_exact(seed.as_mut()).map_err(failed("read", path))?;
    if seed.iter().all(|b| *b == seed[0]) {
        return Err(damaged("all of its bytes are the same".to_owned()));
    }
    Ok(Keypair::from_seed(&seed))
}

fn read_machine(path: &Path) -> Result<MachineId, IdentityError> {
    let mut text = String::new();
    open(path)?.take(256).read_to_string(&mut text).map_err(failed("read", path))?;
    text.trim().parse().map_err(|e: souk_protocol::id::ParseIdError| IdentityError::Damaged {
        path: path.to_owned(),
        why: e.to_string(),
    })
}

fn open(path: &Path) -> Result<File, IdentityError> {
    OpenOptions::new()
        .read(true)
        // A FIFO in its place would block for ever.
        .custom_flags(i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0))
        .open(path)
        .map_err(failed("read", path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn creating_twice_keeps_the_first() {
        let outer = tempfile::tempdir().unwrap();
        let dir = outer.path().join("a/b");
        let (first, new) = Identity::create(&dir).unwrap();
        assert!(new);
        let (second, new) = Identity::create(&dir).unwrap();
        assert!(!new);
        assert_eq!(first.keypair.node_id(), second.keypair.node_id());
        assert_eq!(first.machine, second.machine);
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dir), 0o700);
        assert_eq!(mode(&dir.join(KEY_FILE)), 0o600);
    }

    #[test]
    fn what_others_may_read_or_is_damaged_is_refused() {
        let outer = tempfile::tempdir().unwrap();
        let dir = outer.path().join("n");
        assert!(matches!(Identity::load(&dir), Err(IdentityError::Missing { .. })));
        Identity::create(&dir).unwrap();
        let key = dir.join(KEY_FILE);
        let chmod = |p: &Path, mode| fs::set_permissions(p, fs::Permissions::from_mode(mode)).unwrap();

        chmod(&key, 0o640);
        let error = Identity::load(&dir).unwrap_err();
        assert_eq!(error.hint(), format!("chmod 600 {}", key.display()));
        chmod(&key, 0o600);
        chmod(&dir, 0o755);
        assert!(matches!(Identity::load(&dir), Err(IdentityError::Open { wanted: 0o700, .. })));
        chmod(&dir, 0o700);

        for damage in [&[][..], &[1; 31], &[0; 32], &[7; 33]] {
            fs::write(&key, damage).unwrap();
            assert!(matches!(Identity::load(&dir), Err(IdentityError::Damaged { .. })));
        }
    }
}
