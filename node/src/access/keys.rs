//! Who gets into hosted instances over SSH: the newest list that each renter has signed, else the workload's.
//!
//! Owns one file for each lease whose keys were changed, `ssh-keys/LEASE` in the data directory: the signed list, as it came. It is
//! on disk before its renter hears of it, so that a key once removed never gets in again, whatever becomes of the node.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, DirBuilder, File},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use souk_protocol::{
    LeaseId, NetworkId, NodeId, Signed, Verified, encode, message::Frame, signed::Document, ssh::SshKeyList,
};
use souk_ssh::keys::AllowedKeys;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::{Mutex as TurnMutex, watch},
};

use super::send;

/// Bytes of a signed list.
pub const LIST_BYTES: usize = SshKeyList::MAX_BYTES + 128;
/// What a renter is told when the host's disk is at fault.
const UNREADABLE: &str = "the host can't read from its disk which SSH keys get in, so none does; souk exec works, and its owner can tell more";

/// The keys of all hosted leases. Cheap to clone.
#[derive(Debug, Clone)]
pub struct KeyStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    network: NetworkId,
    leases: Mutex<BTreeMap<LeaseId, Arc<LeaseKeys>>>,
}

/// One lease's keys. Changes wait for each other.
#[derive(Debug, Default)]
struct LeaseKeys {
    /// None until it was looked for on disk.
    newest: TurnMutex<Option<Newest>>,
    allowed: watch::Sender<AllowedKeys>,
}

/// The newest list that the renter has signed, if any.
type Newest = Option<Verified<SshKeyList>>;

/// Whose lease it is, and what its workload says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// The renter.
    pub renter: NodeId,
    /// Keys of revision 0.
    pub keys: Vec<String>,
}

impl KeyStore {
    /// Opens the store in a data directory; lists of other leases than the open ones are deleted.
    #[must_use]
    pub fn open(data: &Path, network: NetworkId, open: &BTreeSet<LeaseId>) -> Self {
        let dir = data.join("ssh-keys");
        let files = fs::read_dir(&dir).into_iter().flatten().flatten();
        for file in
            files.filter(|f| f.file_name().to_str().and_then(|n| n.parse().ok()).is_none_or(|l| !open.contains(&l)))
        {
            if let Err(error) = fs::remove_file(file.path()) {
                tracing::warn!(%error, path = %file.path().display(), "an old list of SSH keys can't be deleted");
            }
        }
        Self(Arc::new(Inner { dir, network, leases: Mutex::default() }))
    }

    /// The keys that get in now, and from now on.
    ///
    /// # Errors
    /// A sentence for the renter.
    pub async fn allowed(&self, lease: LeaseId, granted: &Granted) -> Result<watch::Receiver<AllowedKeys>, String> {
        let keys = self.of(lease);
        let mut newest = keys.newest.lock().await;
        self.loaded(lease, granted, &keys, &mut newest).await?;
        Ok(keys.allowed.subscribe())
    }

    /// Takes a new list, if any, and returns the newest as it was signed.
    ///
    /// # Errors
    /// A sentence for the renter; then nothing has changed.
    pub async fn exchange(
        &self,
        lease: LeaseId,
        granted: &Granted,
        replace: Option<Signed<SshKeyList>>,
    ) -> Result<Option<Signed<SshKeyList>>, String> {
        let keys = self.of(lease);
        let mut newest = keys.newest.lock().await;
        let held = self.loaded(lease, granted, &keys, &mut newest).await?;
        let Some(signed) = replace else { return Ok(held.as_ref().map(Verified::to_signed)) };
        let list = signed.verify(&self.0.network).map_err(|e| e.to_string())?;
        if list.renter != granted.renter || list.lease != lease {
            return Err("the list of SSH keys is another lease's".to_owned());
        }
        if Some(list.revision) != held.as_ref().map_or(0, |held| held.revision).checked_add(1) {
            return Err("the SSH keys were changed meanwhile: look at them, and try again".to_owned());
        }
        let allowed = AllowedKeys::read(list.keys.iter().map(String::as_str)).map_err(|e| e.to_string())?;
        let (dir, bytes) = (self.0.dir.clone(), encode::to_bytes(&signed));
        let written = tokio::task::spawn_blocking(move || write(&dir, &lease.to_string(), &bytes)).await;
        if let Err(error) = written.map_err(io::Error::other).and_then(|written| written) {
            tracing::error!(%lease, %error, "a list of SSH keys can't be written");
            return Err("the host could not write the SSH keys to its disk; they are as they were".to_owned());
        }
        *newest = Some(Some(list));
        keys.allowed.send_replace(allowed);
        Ok(Some(signed))
    }

    /// A lease is over: nobody gets in any more, and nothing is kept.
    pub fn forget(&self, lease: &LeaseId) {
        let held = self.0.leases.lock().unwrap_or_else(PoisonError::into_inner).remove(lease);
        if let Some(keys) = held {
            keys.allowed.send_replace(AllowedKeys::default());
        }
        match fs::remove_file(self.0.dir.join(lease.to_string())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%lease, %error, "a list of SSH keys can't be deleted");
            }
            Ok(()) | Err(_) => {}
        }
    }

    fn of(&self, lease: LeaseId) -> Arc<LeaseKeys> {
        let mut leases = self.0.leases.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(leases.entry(lease).or_default())
    }

    async fn loaded<'a>(
        &self,
        lease: LeaseId,
        granted: &Granted,
        keys: &LeaseKeys,
        newest: &'a mut Option<Newest>,
    ) -> Result<&'a Newest, String> {
        if newest.is_none() {
            let path = self.0.dir.join(lease.to_string());
            let read = tokio::task::spawn_blocking(move || read(&path)).await.map_err(io::Error::other).and_then(|r| r);
            let list = read.map_err(|e| e.to_string()).and_then(|bytes| self.verified(lease, granted, bytes));
            let list = list.map_err(|error| {
                tracing::error!(%lease, error, "the list of its SSH keys can't be read");
                UNREADABLE
            })?;
            let lines = list.as_ref().map_or(&granted.keys, |list| &list.keys);
            // A workload may say what it likes: what is no key lets nobody in.
            let keys_only = lines.iter().map(String::as_str).filter(|line| AllowedKeys::read([*line]).is_ok());
            keys.allowed.send_replace(AllowedKeys::read(keys_only).map_err(|e| e.to_string())?);
            *newest = Some(list);
        }
        Ok(newest.get_or_insert_default())
    }

    /// What the disk holds: the renter's list or nothing.
    fn verified(&self, lease: LeaseId, granted: &Granted, bytes: Option<Vec<u8>>) -> Result<Newest, String> {
        let Some(bytes) = bytes else { return Ok(None) };
        let signed: Signed<SshKeyList> = encode::from_bytes(&bytes, LIST_BYTES).map_err(|e| e.to_string())?;
        let list = signed.verify(&self.0.network).map_err(|e| e.to_string())?;
        if list.renter != granted.renter || list.lease != lease {
            return Err("it is another lease's".to_owned());
        }
        Ok(Some(list))
    }
}

/// Serves one question about the keys, or one change.
///
/// # Errors
/// A sentence for the asker.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    store: &KeyStore,
    lease: LeaseId,
    granted: &Granted,
    replace: Option<Signed<SshKeyList>>,
    stream: &mut S,
) -> Result<(), String> {
    let newest = store.exchange(lease, granted, replace).await?;
    send(stream, &Frame::Ready).await?;
    let bytes = newest.map(|signed| encode::to_bytes(&signed)).unwrap_or_default();
    stream.write_all(&bytes).await.map_err(|e| e.to_string())
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut bytes = Vec::new();
    file.take(LIST_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Whole or not at all, and durable when it returns.
fn write(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let private = fs::Permissions::from_mode(0o600);
    let mut file = tempfile::Builder::new().permissions(private).tempfile_in(dir)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(dir.join(name)).map_err(|e| e.error)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use souk_protocol::Keypair;

    const LEASE: LeaseId = LeaseId([9; 32]);

    fn network() -> NetworkId {
        NetworkId::of_name("test")
    }

    fn key(n: u8) -> String {
        souk_ssh::keys::public_line(&souk_ssh::keys::HostKey::of_node(&[n; 32]).public(), "")
    }

    fn list(author: &Keypair, lease: LeaseId, revision: u64, keys: &[u8]) -> Signed<SshKeyList> {
        let keys = keys.iter().map(|n| key(*n)).collect();
        let list = SshKeyList { renter: author.node_id(), lease, revision, keys };
        Verified::sign(list, author, &network()).unwrap().to_signed()
    }

    #[tokio::test]
    async fn the_newest_list_of_the_renter_holds_also_after_a_crash() {
        let dir = tempfile::tempdir().unwrap();
        let renter = Keypair::from_seed(&[1; 32]);
        let granted = Granted { renter: renter.node_id(), keys: vec![key(1)] };
        let open = BTreeSet::from([LEASE]);
        let store = KeyStore::open(dir.path(), network(), &open);
        assert_eq!(store.exchange(LEASE, &granted, None).await.unwrap(), None);
        let first = list(&renter, LEASE, 1, &[1, 2]);
        let second = list(&renter, LEASE, 2, &[2]);
        store.exchange(LEASE, &granted, Some(first.clone())).await.unwrap();
        let mut allowed = store.allowed(LEASE, &granted).await.unwrap();
        store.exchange(LEASE, &granted, Some(second.clone())).await.unwrap();
        assert!(allowed.has_changed().unwrap());
        allowed.mark_unchanged();

        // Neither an old list again, nor one from the future, nor another's, nor another lease's, nor one of no keys' kind.
        let stranger = Keypair::from_seed(&[2; 32]);
        for wrong in [
            first,
            list(&renter, LEASE, 4, &[1]),
            list(&stranger, LEASE, 3, &[1]),
            list(&renter, LeaseId([8; 32]), 3, &[1]),
        ] {
            assert!(store.exchange(LEASE, &granted, Some(wrong)).await.is_err());
        }
        let nonsense =
            SshKeyList { renter: renter.node_id(), lease: LEASE, revision: 3, keys: vec!["hello".to_owned()] };
        let nonsense = Verified::sign(nonsense, &renter, &network()).unwrap().to_signed();
        assert!(store.exchange(LEASE, &granted, Some(nonsense)).await.unwrap_err().contains("public key"));
        assert!(!allowed.has_changed().unwrap());

        // Nothing but the disk is left.
        let again = KeyStore::open(dir.path(), network(), &open);
        assert_eq!(again.exchange(LEASE, &granted, None).await.unwrap(), Some(second));

        // A damaged one lets nobody in, rather than those who were removed.
        let path = dir.path().join("ssh-keys").join(LEASE.to_string());
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
        let damaged = KeyStore::open(dir.path(), network(), &open);
        assert_eq!(damaged.allowed(LEASE, &granted).await.unwrap_err(), UNREADABLE);

        // Over is over.
        drop(KeyStore::open(dir.path(), network(), &BTreeSet::new()));
        assert!(!path.exists());
        again.forget(&LEASE);
    }
}
