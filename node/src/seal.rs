//! Sealing what the ledger keeps of a workload: commands and environments hold secrets, and backups of a ledger travel.
//!
//! XChaCha20-Poly1305 with a key derived from the node's seed and a random nonce. Who has the seed can read everything; who has
//! the ledger's files alone, nothing.

use chacha20poly1305::{
    XChaCha20Poly1305,
    aead::{Aead, KeyInit, Payload},
};
use souk_protocol::{Keypair, LeaseId};

use crate::clock::random;

/// Bytes of the nonce before the sealed ones.
const NONCE: usize = 24;

/// Seals and opens with one node's key.
pub struct Seal(XChaCha20Poly1305);

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal")
    }
}

impl Seal {
    /// The seal of the node with this key.
    #[must_use]
    pub fn of(key: &Keypair) -> Self {
        let derived = zeroize::Zeroizing::new(blake3::derive_key("souk 2026-11 workload seal v1", key.seed().as_ref()));
        Self(XChaCha20Poly1305::new((&*derived).into()))
    }

    /// Seals what belongs to a lease.
    ///
    /// # Errors
    /// If the system gives no randomness.
    pub fn close(&self, lease: &LeaseId, bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
        let nonce: [u8; NONCE] = random()?;
        let payload = Payload { msg: bytes, aad: &lease.0 };
        let sealed =
            self.0.encrypt((&nonce).into(), payload).map_err(|_| anyhow::anyhow!("a workload can't be sealed"))?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Opens what [`Seal::close`] made for the same lease; none if it is anything else.
    #[must_use]
    pub fn open(&self, lease: &LeaseId, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE>()?;
        self.0.decrypt(nonce.into(), Payload { msg: sealed, aad: &lease.0 }).ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_the_same_key_and_lease_open_it() {
        let (key, lease) = (Keypair::from_seed(&[1; 32]), LeaseId([2; 32]));
        let sealed = Seal::of(&key).close(&lease, b"SECRET=1").unwrap();
        assert!(!sealed.windows(6).any(|w| w == b"SECRET"));
        assert_eq!(Seal::of(&key).open(&lease, &sealed).unwrap(), b"SECRET=1");
        assert!(Seal::of(&key).open(&LeaseId([3; 32]), &sealed).is_none());
        assert!(Seal::of(&Keypair::from_seed(&[9; 32])).open(&lease, &sealed).is_none());
        assert!(Seal::of(&key).open(&lease, &sealed[..10]).is_none());
    }
}
