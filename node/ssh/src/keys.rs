//! Ed25519 keys in OpenSSH's forms, derived rather than stored, and the list of those that get in.

use std::fmt;

use russh::keys::ssh_key::{
    self, LineEnding, PrivateKey, PublicKey,
    private::{Ed25519Keypair, KeypairData},
    public::{Ed25519PublicKey, KeyData},
};
use zeroize::Zeroizing;

/// Why a public key isn't one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No such line.
    #[error("that is no public key as OpenSSH writes it (ssh-ed25519 AAAA…)")]
    Malformed,
    /// A kind that isn't taken.
    #[error("{0} keys are not taken: use an Ed25519 or ECDSA key (ssh-keygen -t ed25519)")]
    Kind(String),
}

/// A seed, and the key made from it.
#[derive(Clone)]
pub struct HostKey(Zeroizing<[u8; 32]>);

/// A key that a renter's client proves.
pub type ClientKey = HostKey;

impl fmt::Debug for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HostKey").field(&public_line(&self.public(), "")).finish()
    }
}

impl HostKey {
    /// The key of a node's SSH server: another than the node's own, and always the same.
    #[must_use]
    pub fn of_node(seed: &[u8; 32]) -> Self {
        Self(Zeroizing::new(blake3::derive_key("souk 2026-11 ssh host key v1", seed)))
    }

    /// The key with which the renter of one rental gets in. `rental` names it: the nonce of its negotiation.
    #[must_use]
    pub fn of_rental(seed: &[u8; 32], rental: &[u8; 16]) -> Self {
        let mut material = Zeroizing::new([0; 48]);
        material[..32].copy_from_slice(seed);
        material[32..].copy_from_slice(rental);
        Self(Zeroizing::new(blake3::derive_key("souk 2026-11 ssh rental key v1", material.as_slice())))
    }

    fn pair(&self) -> Ed25519Keypair {
        Ed25519Keypair::from_seed(&self.0)
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        self.pair().public.0
    }

    pub(crate) fn private(&self) -> Result<PrivateKey, ssh_key::Error> {
        PrivateKey::new(KeypairData::Ed25519(self.pair()), "souk")
    }

    /// The private half as a file of OpenSSH.
    ///
    /// # Errors
    /// If it can't be written down; it always can.
    pub fn private_file(&self) -> Result<Zeroizing<String>, String> {
        self.private().and_then(|key| key.to_openssh(LineEnding::LF)).map_err(|e| e.to_string())
    }
}

/// A public Ed25519 key as one line of OpenSSH.
#[must_use]
pub fn public_line(key: &[u8; 32], comment: &str) -> String {
    let key = PublicKey::new(KeyData::Ed25519(Ed25519PublicKey(*key)), comment.to_owned());
    key.to_openssh().unwrap_or_default()
}

/// The fingerprint as OpenSSH prints it.
#[must_use]
pub fn fingerprint(key: &[u8; 32]) -> String {
    let key = PublicKey::new(KeyData::Ed25519(Ed25519PublicKey(*key)), "");
    key.fingerprint(ssh_key::HashAlg::Sha256).to_string()
}

/// Keys whose owners get in.
#[derive(Debug, Clone, Default)]
pub struct AllowedKeys(Vec<KeyData>);

impl AllowedKeys {
    /// Reads lines as of `authorized_keys`, without options.
    ///
    /// # Errors
    /// [`KeyError`] for the first that is no key, or of a kind that isn't taken.
    pub fn read<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Self, KeyError> {
        lines.into_iter().map(read_key).collect::<Result<Vec<_>, _>>().map(Self)
    }

    pub(crate) fn contains(&self, key: &PublicKey) -> bool {
        self.0.contains(key.key_data())
    }
}

fn read_key(line: &str) -> Result<KeyData, KeyError> {
    let kind = line.split_whitespace().next().unwrap_or_default();
    if kind == "ssh-rsa" || kind == "ssh-dss" {
        return Err(KeyError::Kind(kind.to_owned()));
    }
    PublicKey::from_openssh(line.trim()).map(|key| key.key_data().clone()).map_err(|_| KeyError::Malformed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn keys_are_their_seeds_and_nobody_elses() {
        let seed = [5; 32];
        let host = HostKey::of_node(&seed);
        assert_eq!(host.public(), HostKey::of_node(&seed).public());
        let mine = ClientKey::of_rental(&seed, &[1; 16]);
        assert_ne!(mine.public(), ClientKey::of_rental(&seed, &[2; 16]).public());
        assert_ne!(mine.public(), host.public());
        let file = mine.private_file().unwrap();
        let read = PrivateKey::from_openssh(file.as_bytes()).unwrap();
        let allowed = AllowedKeys::read([public_line(&mine.public(), "x").as_str()]).unwrap();
        assert!(allowed.contains(read.public_key()));
        assert!(!allowed.contains(host.private().unwrap().public_key()));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert_eq!(AllowedKeys::read(["hello"]).unwrap_err(), KeyError::Malformed);
        assert_eq!(AllowedKeys::read([""]).unwrap_err(), KeyError::Malformed);
        assert!(matches!(AllowedKeys::read(["ssh-rsa AAAA"]), Err(KeyError::Kind(_))));
    }
}
