//! SSH into an instance: the host's side of one connection, and the keys of both sides.
//!
//! Keys are derived from the node's seed, never stored: one for the host's server, one for each rental. Owns no session: those are
//! `souk-ssh`'s.

use std::sync::Arc;

use souk_protocol::{Keypair, LeaseId, Nonce, message::Frame};
use souk_runtime::Runtime;
use souk_ssh::{
    Access,
    keys::{AllowedKeys, ClientKey, HostKey},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};
use zeroize::Zeroizing;

use super::send;

/// What a node's SSH keys are made of.
#[derive(Clone)]
pub struct SshSeed(Zeroizing<[u8; 32]>);

impl std::fmt::Debug for SshSeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SshSeed")
    }
}

impl SshSeed {
    /// Of this node.
    #[must_use]
    pub fn of(keypair: &Keypair) -> Self {
        Self(keypair.seed())
    }

    /// What it signs with.
    pub(crate) fn signer(&self) -> Keypair {
        Keypair::from_seed(&self.0)
    }

    /// The key of its SSH server, which its leases name.
    #[must_use]
    pub fn host_key(&self) -> HostKey {
        HostKey::of_node(&self.0)
    }

    /// The key with which it gets into what it rents under this nonce.
    #[must_use]
    pub fn rental_key(&self, rental: &Nonce) -> ClientKey {
        ClientKey::of_rental(&self.0, &rental.0)
    }
}

/// Serves one SSH connection.
///
/// # Errors
/// A sentence for the asker, if there is no connection to be had.
pub async fn serve<S>(
    runtime: &Arc<dyn Runtime>,
    host_key: &HostKey,
    lease: LeaseId,
    allowed: watch::Receiver<AllowedKeys>,
    stream: &mut S,
) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    send(stream, &Frame::Ready).await?;
    let access = Access { runtime: Arc::clone(runtime), lease: lease.to_string(), host_key: host_key.clone(), allowed };
    if let Err(error) = souk_ssh::serve(stream, access).await {
        // Its client has been told in SSH's own words; a frame would be noise on the stream.
        tracing::debug!(%lease, %error, "an SSH connection ended");
    }
    Ok(())
}
