//! Ways into an instance.

use serde::{Deserialize, Serialize};
use souk_protocol::LeaseId;

/// What an SSH client needs for one instance.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshView {
    /// The lease.
    pub lease: LeaseId,
    /// Its name.
    pub label: Option<String>,
    /// The user name that stands for the image's own user.
    pub user: String,
    /// The host's SSH key as the lease names it, as one line of OpenSSH.
    pub host_key: String,
    /// The same, as OpenSSH prints fingerprints.
    pub fingerprint: String,
    /// The key that gets in, as one line of OpenSSH.
    pub public_key: String,
    /// Its private half, as a file of OpenSSH.
    pub private_key: String,
}

impl std::fmt::Debug for SshView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SshView")
            .field("lease", &self.lease)
            .field("public_key", &self.public_key)
            .finish_non_exhaustive()
    }
}

/// A change of who gets into one instance over SSH; an empty one only asks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SshKeysRequest {
    /// Public keys to let in, each as one line of OpenSSH.
    #[serde(default)]
    pub add: Vec<String>,
    /// Keys to keep out: as a line, a fingerprint, or the comment of one key.
    #[serde(default)]
    pub remove: Vec<String>,
}

/// Who gets into one instance over SSH.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshKeysView {
    /// The lease.
    pub lease: LeaseId,
    /// How often the keys have changed since it was rented.
    pub revision: u64,
    /// The keys.
    pub keys: Vec<SshKeyView>,
}

/// A key that gets in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshKeyView {
    /// Its kind, as OpenSSH names it.
    pub kind: String,
    /// As OpenSSH prints fingerprints.
    pub fingerprint: String,
    /// What its owner calls it.
    pub comment: String,
    /// As one line of OpenSSH.
    pub key: String,
    /// Whether it is the rental's own, which `souk ssh` uses.
    pub own: bool,
}

/// How a rented Jupyter is reached.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JupyterView {
    /// The lease.
    pub lease: LeaseId,
    /// Its name.
    pub label: Option<String>,
    /// What lets a browser in.
    pub token: String,
    /// Where it listens, on the instance's own loopback.
    pub port: u16,
}

impl std::fmt::Debug for JupyterView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JupyterView").field("lease", &self.lease).field("port", &self.port).finish_non_exhaustive()
    }
}

/// What to open of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "to", rename_all = "snake_case", deny_unknown_fields)]
pub enum TunnelRequest {
    /// Its SSH server.
    Ssh,
    /// A port.
    Port {
        /// Where, as the instance sees it.
        #[serde(default = "localhost")]
        host: String,
        /// Which.
        port: u16,
        /// Datagrams, each after its length as 16-bit big-endian.
        #[serde(default)]
        udp: bool,
    },
}

fn localhost() -> String {
    "localhost".to_owned()
}
