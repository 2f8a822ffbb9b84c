//! The files of a cluster in a node's data directory.
//!
//! `cluster.list` is the signed list of members as it came; `cluster.key` the key that members share, in hexadecimal, a line each while a new one takes
//! its place; and
//! `cluster.tickets` the keeper's tickets. All are written whole or not at all, durably, and only their owner may read them.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use souk_protocol::{
    NetworkId, Signed, Verified,
    cluster::{MemberList, PreSharedKey, Tickets},
    encode, limits,
};
use zeroize::Zeroizing;

/// The list's file.
pub const LIST: &str = "cluster.list";
/// The key's file.
pub const KEY: &str = "cluster.key";
/// The tickets' file.
pub const TICKETS: &str = "cluster.tickets";
/// Bytes that are read of the list: the largest one with its signature, and room.
const LIST_BYTES: u64 = 1024 * 1024;
/// Bytes of the keys' file.
const KEYS_BYTES: u64 = 256;
/// Bytes that are read of the tickets.
const TICKETS_BYTES: u64 = 4 * 1024 * 1024;

/// Why a cluster's files can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The file is not what it should be.
    #[error("{} is damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// In which way.
        why: String,
    },
    /// Others can read a secret.
    #[error("others may read {} (mode {mode:04o})", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The list names a key that is not here.
    #[error("the key of this cluster is missing in {}", dir.display())]
    NoKey {
        /// The data directory.
        dir: PathBuf,
    },
    /// The file system said no.
    #[error("can't use {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl ClusterError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Open { path, .. } => format!("chmod 600 {}", path.display()),
            Self::Damaged { path, .. } => {
                format!(
                    "restore {} from a backup, or join again with a new ticket: souk cluster join TICKET",
                    path.display()
                )
            }
            Self::NoKey { .. } => "join again with a new ticket: souk cluster join TICKET".to_owned(),
            Self::Io { path, .. } => format!("ls -l {}", path.display()),
        }
    }
}

/// What a node keeps of its cluster.
#[derive(Debug, Clone)]
pub struct ClusterFiles {
    /// The newest list it has seen.
    pub list: Verified<MemberList>,
    /// The key that all members share; none in a cluster by list alone.
    pub key: Option<PreSharedKey>,
}

impl ClusterFiles {
    /// Reads them; none if this node is in no cluster.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub fn load(dir: &Path) -> Result<Option<Self>, ClusterError> {
        let Some(bytes) = read(&dir.join(LIST), LIST_BYTES)? else { return Ok(None) };
        let damaged = |name: &str, why: String| ClusterError::Damaged { path: dir.join(name), why };
        let list = verified(&bytes).map_err(|why| damaged(LIST, why))?;
        let Some(fence) = list.fence else { return Ok(Some(Self { list, key: None })) };
        let mut keys = Vec::new();
        if let Some(text) = read(&dir.join(KEY), KEYS_BYTES)? {
            for line in text.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
                keys.push(
                    parse_key(line).ok_or_else(|| damaged(KEY, "a line is not 64 hexadecimal digits".to_owned()))?,
                );
            }
        }
        let fits = keys.iter().position(|key| key.fence() == fence);
        // The newest one, where it is not yet, or no more, the one that others have: somebody may still use it.
        let at =
            fits.or_else(|| keys.len().checked_sub(1)).ok_or_else(|| ClusterError::NoKey { dir: dir.to_owned() })?;
        let key = keys.swap_remove(at);
        Ok(Some(Self { list, key: Some(key) }))
    }

    /// Forgets keys that were used before this one. Only for the node: whoever else reads here may do so while it changes them.
    ///
    /// # Errors
    /// [`ClusterError::Io`].
    pub fn forget_old_keys(&self, dir: &Path) -> Result<(), ClusterError> {
        match &self.key {
            Some(key) if self.key_fits() => save_keys(dir, &[key]),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether the key here is the one that the list says members have. Not so where the key was changed while this node was away.
    #[must_use]
    pub fn key_fits(&self) -> bool {
        self.list.fence == self.key.as_ref().map(PreSharedKey::fence)
    }

    /// Writes both.
    ///
    /// # Errors
    /// [`ClusterError::Io`].
    pub fn save(&self, dir: &Path) -> Result<(), ClusterError> {
        match &self.key {
            Some(key) => save_keys(dir, &[key])?,
            None => remove(&dir.join(KEY))?,
        }
        // Last: without it there is no cluster.
        save_list(dir, &self.list)
    }
}

/// Writes the keys alone, the newest last: two while one takes the place of the other, so that a crash between this and the new list
/// loses neither.
///
/// # Errors
/// [`ClusterError::Io`].
pub fn save_keys(dir: &Path, keys: &[&PreSharedKey]) -> Result<(), ClusterError> {
    let mut text = Zeroizing::new(String::with_capacity(KEYS_BYTES as usize));
    for key in keys {
        text.push_str(&Zeroizing::new(hex::encode(key.as_bytes())));
        text.push('\n');
    }
    write(&dir.join(KEY), text.as_bytes())
}

/// Writes the list alone.
///
/// # Errors
/// [`ClusterError::Io`].
pub fn save_list(dir: &Path, list: &Verified<MemberList>) -> Result<(), ClusterError> {
    write(&dir.join(LIST), &encode::to_bytes(&list.to_signed()))
}

/// The keeper's tickets; none out if there is no file.
///
/// # Errors
/// [`ClusterError`].
pub fn load_tickets(dir: &Path) -> Result<Tickets, ClusterError> {
    let path = dir.join(TICKETS);
    let Some(bytes) = read(&path, TICKETS_BYTES)? else { return Ok(Tickets::default()) };
    encode::from_bytes(&bytes, bytes.len()).map_err(|e| ClusterError::Damaged { path, why: e.to_string() })
}

/// Writes them.
///
/// # Errors
/// [`ClusterError::Io`].
pub fn save_tickets(dir: &Path, tickets: &Tickets) -> Result<(), ClusterError> {
    write(&dir.join(TICKETS), &Zeroizing::new(encode::to_bytes(tickets)))
}

fn verified(bytes: &[u8]) -> Result<Verified<MemberList>, String> {
    let most = usize::try_from(LIST_BYTES).unwrap_or(usize::MAX);
    let signed: Signed<MemberList> = encode::from_bytes(bytes, most).map_err(|e| e.to_string())?;
    let read: MemberList =
        encode::from_bytes(signed.payload(), limits::MEMBER_LIST_BYTES).map_err(|e| e.to_string())?;
    let network: NetworkId = read.founding.network();
    signed.verify(&network).map_err(|e| e.to_string())
}

fn parse_key(text: &[u8]) -> Option<PreSharedKey> {
    let mut bytes = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.trim_ascii(), bytes.as_mut()).ok()?;
    Some(PreSharedKey::new(*bytes))
}

fn read(path: &Path, most: u64) -> Result<Option<Zeroizing<Vec<u8>>>, ClusterError> {
    let failed = |source| ClusterError::Io { path: path.to_owned(), source };
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(ClusterError::Open { path: path.to_owned(), mode });
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > most {
        return Err(ClusterError::Damaged { path: path.to_owned(), why: format!("it is longer than {most} bytes") });
    }
    Ok(Some(bytes))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), ClusterError> {
    let dir = path.parent().unwrap_or_else(|| Path::new("."));
    let save = || -> io::Result<()> {
        let mut file = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o600)).tempfile_in(dir)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|e| e.error)?;
        fs::File::open(dir)?.sync_all()
    };
    save().map_err(|source| ClusterError::Io { path: path.to_owned(), source })
}

fn remove(path: &Path) -> Result<(), ClusterError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(ClusterError::Io { path: path.to_owned(), source: e }),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use souk_protocol::{Keypair, Timestamp, cluster::Founding};

    fn key(seed: u8) -> PreSharedKey {
        PreSharedKey::new([seed; 32])
    }

    fn list(fence: Option<&PreSharedKey>) -> Verified<MemberList> {
        let keeper = Keypair::from_seed(&[1; 32]);
        let founding = Founding { name: "lab".to_owned(), keeper: keeper.node_id(), salt: [2; 16] };
        let network = founding.network();
        let list = MemberList::first(founding, "k".to_owned(), fence.map(PreSharedKey::fence), Timestamp(1));
        Verified::sign(list, &keeper, &network).unwrap()
    }

    #[test]
    fn they_come_back_and_what_is_damaged_or_open_is_named() {
        let dir = tempfile::tempdir().unwrap();
        assert!(ClusterFiles::load(dir.path()).unwrap().is_none());
        ClusterFiles { list: list(Some(&key(1))), key: Some(key(1)) }.save(dir.path()).unwrap();
        let back = ClusterFiles::load(dir.path()).unwrap().unwrap();
        assert!(back.key == Some(key(1)) && back.list.id() == list(Some(&key(1))).id() && back.key_fits());
        assert_eq!(load_tickets(dir.path()).unwrap(), Tickets::default());

        let whole = fs::read(dir.path().join(LIST)).unwrap();
        for bad in [&whole[..whole.len() - 1], b"", b"x"] {
            fs::write(dir.path().join(LIST), bad).unwrap();
            assert!(matches!(ClusterFiles::load(dir.path()), Err(ClusterError::Damaged { .. })));
        }
        fs::write(dir.path().join(LIST), &whole).unwrap();
        fs::set_permissions(dir.path().join(KEY), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(ClusterFiles::load(dir.path()), Err(ClusterError::Open { .. })));
        fs::remove_file(dir.path().join(KEY)).unwrap();
        assert!(matches!(ClusterFiles::load(dir.path()), Err(ClusterError::NoKey { .. })));
    }

    #[test]
    fn a_crash_while_keys_change_loses_neither() {
        let dir = tempfile::tempdir().unwrap();
        ClusterFiles { list: list(Some(&key(1))), key: Some(key(1)) }.save(dir.path()).unwrap();
        save_keys(dir.path(), &[&key(1), &key(2)]).unwrap();
        // Before the list: the old one is in force.
        assert!(ClusterFiles::load(dir.path()).unwrap().unwrap().key == Some(key(1)));
        save_list(dir.path(), &list(Some(&key(2)))).unwrap();
        let files = ClusterFiles::load(dir.path()).unwrap().unwrap();
        assert!(files.key == Some(key(2)));
        files.forget_old_keys(dir.path()).unwrap();
        let left = fs::read_to_string(dir.path().join(KEY)).unwrap();
        assert_eq!(left.lines().count(), 1);
        // A list that names a key which never came.
        save_list(dir.path(), &list(Some(&key(3)))).unwrap();
        let late = ClusterFiles::load(dir.path()).unwrap().unwrap();
        assert!(late.key == Some(key(2)) && !late.key_fits());
    }
}
