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

/// What to open of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "to", rename_all = "snake_case", deny_unknown_fields)]
pub enum TunnelRequest {
    /// Its SSH server.
    Ssh,
    /// The way for the image that its preparing waits for: the messages of a handover.
    Push,
    /// An image of its disk: the messages of a handover, in which the host sends.
    Snapshot {
        /// Keep it on the host.
        #[serde(default)]
        keep: bool,
    },
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
