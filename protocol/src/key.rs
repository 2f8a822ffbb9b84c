//! Ed25519 keys: signing, and strict verification.
//!
//! Owns the only calls into `ed25519-dalek`. One 32-byte seed feeds a node's signatures and its libp2p identity.

use std::collections::BTreeMap;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use zeroize::Zeroizing;

use crate::id::NodeId;

/// A node's secret key. Never printed, never serialised; wiped when dropped.
pub struct Keypair {
    signing: SigningKey,
    node: NodeId,
}

impl Keypair {
    /// The key made from a 32-byte seed.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let signing = SigningKey::from_bytes(seed);
        let node = NodeId(signing.verifying_key().to_bytes());
        Self { signing, node }
    }

    /// The public half, which names the node.
    #[must_use]
    pub const fn node_id(&self) -> NodeId {
        self.node
    }

    /// The seed this key was made from, for handing the same identity to the transport.
    #[must_use]
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.signing.to_bytes())
    }

    /// Signs a 32-byte digest.
    #[must_use]
    pub fn sign(&self, digest: &[u8; 32]) -> [u8; 64] {
        self.signing.sign(digest).to_bytes()
    }

    /// Signs a webhook as the Standard Webhooks specification has it: over `id.timestamp.body`, where the id is `evt_` and 32
    /// hexadecimal digits and the timestamp is in seconds since the Unix epoch. What is signed is always longer than a digest
    /// and begins with letters of our own, so such a signature never passes for one over a document, or for the transport's.
    #[must_use]
    pub fn sign_webhook(&self, event: &[u8; 16], timestamp: u64, body: &[u8]) -> [u8; 64] {
        let mut content = format!("evt_{:032x}.{timestamp}.", u128::from_be_bytes(*event)).into_bytes();
        content.extend_from_slice(body);
        self.signing.sign(&content).to_bytes()
    }
}

impl Clone for Keypair {
    fn clone(&self) -> Self {
        Self { signing: self.signing.clone(), node: self.node }
    }
}

impl std::fmt::Debug for Keypair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keypair({})", self.node.short())
    }
}

/// A public key that has been decompressed and found fit for use. Making one costs about a tenth of a verification, so a
/// reader of many documents by one author keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

/// The key is not a point of the curve, or one of the few weak points under which anybody can sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the author's key is not a usable Ed25519 public key")]
pub struct BadKey;

impl PublicKey {
    /// Decompresses a node's key.
    ///
    /// # Errors
    /// [`BadKey`] if the bytes are no curve point, or a weak one.
    pub fn of(node: &NodeId) -> Result<Self, BadKey> {
        let key = VerifyingKey::from_bytes(&node.0).map_err(|_| BadKey)?;
        if key.is_weak() { Err(BadKey) } else { Ok(Self(key)) }
    }

    /// Whether `signature` is this key's over `digest`. Strict: exactly one encoding of a signature is accepted.
    #[must_use]
    pub fn verifies(&self, digest: &[u8; 32], signature: &[u8; 64]) -> bool {
        self.0.verify_strict(digest, &Signature::from_bytes(signature)).is_ok()
    }
}

/// Keys that were decompressed before, for a reader of many documents by a few authors.
///
/// Bounded: when it is full it forgets all of them, which costs each author one decompression more.
#[derive(Debug)]
pub struct KeyCache {
    keys: BTreeMap<NodeId, PublicKey>,
    most: usize,
}

impl KeyCache {
    /// An empty one, for at most `most` keys of about 230 bytes each.
    #[must_use]
    pub const fn new(most: usize) -> Self {
        Self { keys: BTreeMap::new(), most }
    }

    /// A node's key, as [`PublicKey::of`].
    ///
    /// # Errors
    /// [`BadKey`], as there; what is not fit for use is not kept.
    pub fn of(&mut self, node: &NodeId) -> Result<PublicKey, BadKey> {
        if let Some(key) = self.keys.get(node) {
            return Ok(*key);
        }
        let key = PublicKey::of(node)?;
        if self.keys.len() >= self.most {
            self.keys.clear();
        }
        self.keys.insert(*node, key);
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn weak_keys_are_refused() {
        // The identity point, under which (R, s) = (identity, 0) would sign anything.
        let mut weak = [0; 32];
        weak[0] = 1;
        assert_eq!(PublicKey::of(&NodeId(weak)).err(), Some(BadKey));
    }

    #[test]
    fn a_cache_answers_as_the_curve_does_and_stays_within_its_bound() {
        let mut cache = KeyCache::new(2);
        for _ in 0..2 {
            for seed in 0..5 {
                let node = Keypair::from_seed(&[seed; 32]).node_id();
                assert_eq!(cache.of(&node), PublicKey::of(&node));
                assert_eq!(cache.of(&node), PublicKey::of(&node));
                assert!(cache.keys.len() <= 2);
            }
        }
        let mut weak = [0; 32];
        weak[0] = 1;
        let held = cache.keys.len();
        assert_eq!((cache.of(&NodeId(weak)).err(), cache.keys.len()), (Some(BadKey), held));
    }

    #[test]
    fn a_webhook_is_signed_as_receivers_check_it() {
        let key = Keypair::from_seed(&[3; 32]);
        let signature = key.sign_webhook(&[0xab; 16], 1_700_000_000, b"{}");
        let content = b"evt_abababababababababababababababab.1700000000.{}";
        let public = VerifyingKey::from_bytes(&key.node_id().0).unwrap();
        assert!(public.verify_strict(content, &Signature::from_bytes(&signature)).is_ok());
        assert!(public.verify_strict(b"{}", &Signature::from_bytes(&signature)).is_err());
    }

    #[test]
    fn a_signature_is_for_its_digest_only() {
        let key = Keypair::from_seed(&[3; 32]);
        let signature = key.sign(&[9; 32]);
        let public = PublicKey::of(&key.node_id()).unwrap();
        assert!(public.verifies(&[9; 32], &signature));
        assert!(!public.verifies(&[8; 32], &signature));
    }
}
