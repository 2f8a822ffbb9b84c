//! The files of a cluster in a node's data directory.
//!
//! `cluster.list` is the signed list of members as it came; `cluster.key` the key that members share, in hexadecimal; and
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
                format!("restore {} from a backup, or join again with a new ticket: souk cluster join TICKET", path.display())
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
        let key = match read(&dir.join(KEY), 256)? {
            None => None,
            Some(text) => Some(parse_key(&text).ok_or_else(|| damaged(KEY, "it is not 64 hexadecimal digits".to_owned()))?),
        };
        if list.fence.is_some() && key.is_none() {
            return Err(ClusterError::NoKey { dir: dir.to_owned() });
        }
        Ok(Some(Self { list, key }))
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
            Some(key) => {
                let text = Zeroizing::new(hex::encode(key.as_bytes()));
                write(&dir.join(KEY), text.as_bytes())?;
            }
            None => remove(&dir.join(KEY))?,
        }
        // Last: without it there is no cluster.
        save_list(dir, &self.list)
    }
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
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(ClusterError::Io { path: path.to_owned(), source: e })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
