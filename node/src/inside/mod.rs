//! The endpoint of each instance: a small HTTP server on a Unix socket that is mounted into that instance alone.
//!
//! A program in the instance that knows its key may see how its lease stands, and stop, destroy or label it, and nothing else:
//! which lease is meant is decided by the socket, never by what is asked. Owns the sockets and the tasks that serve them. What a
//! wish does is the engine's to say, by way of the market task.
//!
//! The guest is hostile. Its connections, requests and waits are bounded in `server`; the folder of the socket is the node's own,
//! and the guest can't change anything in it (`souk_runtime::inside`).

mod key;
mod server;
mod view;

use std::{
    collections::BTreeMap,
    io,
    os::{fd::AsRawFd, unix::fs::PermissionsExt},
    path::Path,
};

use souk_protocol::LeaseId;
use tokio::{
    net::UnixListener,
    sync::{mpsc, oneshot},
};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use self::{
    key::{ApiKey, ApiSeed},
    view::{NoticeView, SelfView},
};

/// Questions and wishes of all instances that the market has not taken. When full, they wait.
pub const ASKS: usize = 64;

/// What an instance wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// To know how its lease stands.
    Show,
    /// To be stopped.
    Stop,
    /// To be destroyed.
    Destroy,
    /// To be called so.
    Label(String),
}

/// Something wanted from inside an instance.
#[derive(Debug)]
pub struct Ask {
    /// The instance's lease.
    pub lease: LeaseId,
    /// What.
    pub what: What,
    /// How the lease stands then, or why the wish is not granted.
    pub answer: oneshot::Sender<Result<SelfView, String>>,
}

/// The endpoints of all instances.
#[derive(Debug)]
pub struct Endpoints {
    seed: ApiSeed,
    asks: mpsc::Sender<Ask>,
    open: BTreeMap<LeaseId, DropGuard>,
}

impl Endpoints {
    /// None yet; what they are asked goes to `asks`.
    #[must_use]
    pub const fn new(seed: ApiSeed, asks: mpsc::Sender<Ask>) -> Self {
        Self { seed, asks, open: BTreeMap::new() }
    }

    /// The key of a lease's instance.
    #[must_use]
    pub fn key(&self, lease: &LeaseId) -> ApiKey {
        self.seed.key(lease)
    }

    /// Serves an instance, whose folder this is, unless that is done already.
    pub fn open(&mut self, lease: LeaseId, folder: &Path) {
        if self.open.contains_key(&lease) {
            return;
        }
        match bind(folder) {
            Ok(listener) => {
                let stop = CancellationToken::new();
                let of = server::Of { lease, key: self.seed.key(&lease), asks: self.asks.clone() };
                tokio::spawn(server::serve(listener, of, stop.clone()));
                self.open.insert(lease, stop.drop_guard());
            }
            // Made by a node that had no endpoints yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tracing::debug!(%lease, "the instance has no folder for an endpoint");
            }
            Err(error) => tracing::warn!(%lease, %error, "the instance gets no endpoint"),
        }
    }

    /// Serves it no longer: the instance is gone.
    pub fn close(&mut self, lease: &LeaseId) {
        self.open.remove(lease);
    }
}

/// A socket in that folder, in place of one that an earlier run left. The path goes by a descriptor of the folder: a socket's name
/// has room for a hundred bytes only.
fn bind(folder: &Path) -> io::Result<UnixListener> {
    let folder = std::fs::File::open(folder)?;
    let within = |name: &str| format!("/proc/self/fd/{}/{name}", folder.as_raw_fd());
    let (new, place) = (within(".api.new"), within(souk_runtime::inside::SOCKET));
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&new)?;
    // Whatever user the image has: the key decides, and nobody else sees the folder.
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o666))?;
    std::fs::rename(new, place)?;
    Ok(listener)
}
