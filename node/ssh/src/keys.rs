//! Keys in OpenSSH's forms: souk's own, derived rather than stored, and those of whoever gets in.

use std::fmt;

use russh::keys::ssh_key::{
    self, Algorithm, LineEnding, PrivateKey, PublicKey,
    private::{Ed25519Keypair, KeypairData},
    public::{Ed25519PublicKey, KeyData},
};
use zeroize::Zeroizing;

/// Bits of RSA keys that get in: fewer can be broken, more take long to check.
pub const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// Characters of a key's comment that are kept.
const COMMENT: usize = 128;

/// Why a public key isn't one, or doesn't get in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No such line.
    #[error("that is no public key as OpenSSH writes it (ssh-ed25519 AAAA…)")]
    Malformed,
    /// The half that nobody else may see.
    #[error("that is a private key: give its public half, the file that ends in .pub")]
    Private,
    /// A kind that isn't taken.
    #[error("{0} keys are not taken: use an Ed25519, ECDSA or RSA key (ssh-keygen -t ed25519)")]
    Kind(String),
    /// An RSA key that is too small or too large.
    #[error("an RSA key of {0} bits is not taken, only {min} to {max} bits: use another (ssh-keygen -t ed25519)", min = RSA_BITS.start(), max = RSA_BITS.end())]
    Bits(usize),
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

/// A public key of a kind that gets in: Ed25519, ECDSA, or RSA of [`RSA_BITS`].
#[derive(Debug, Clone)]
pub struct AuthorizedKey {
    data: KeyData,
    comment: String,
}

impl AuthorizedKey {
    /// Reads a line as of a `.pub` file.
    ///
    /// # Errors
    /// [`KeyError`]: no key, one with options before it, or of a kind or size that isn't taken.
    pub fn read(line: &str) -> Result<Self, KeyError> {
        let line = line.trim();
        if line.contains("PRIVATE KEY") {
            return Err(KeyError::Private);
        }
        let key = PublicKey::from_openssh(line).map_err(|_| KeyError::Malformed)?;
        let data = key.key_data().clone();
        match &data {
            KeyData::Ed25519(_) | KeyData::Ecdsa(_) => {}
            KeyData::Rsa(rsa) => {
                let modulus = rsa.n().as_positive_bytes().unwrap_or_default();
                let unused = modulus.first().map_or(0, |byte| byte.leading_zeros());
                let bits = (modulus.len().saturating_mul(8)).saturating_sub(unused as usize);
                if !RSA_BITS.contains(&bits) {
                    return Err(KeyError::Bits(bits));
                }
            }
            _ => return Err(KeyError::Kind(data.algorithm().to_string())),
        }
        let comment = String::from_utf8_lossy(key.comment().as_ref()).into_owned();
        let comment = comment.chars().filter(|c| !c.is_control()).take(COMMENT).collect();
        Ok(Self { data, comment })
    }

    /// As one line of OpenSSH.
    #[must_use]
    pub fn line(&self) -> String {
        PublicKey::new(self.data.clone(), self.comment.clone()).to_openssh().unwrap_or_default()
    }

    /// The fingerprint as OpenSSH prints it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.data.fingerprint(ssh_key::HashAlg::Sha256).to_string()
    }

    /// Its kind as OpenSSH names it.
    #[must_use]
    pub fn kind(&self) -> String {
        self.data.algorithm().to_string()
    }

    /// What its owner calls it.
    #[must_use]
    pub fn comment(&self) -> &str {
        &self.comment
    }

    /// Whether both are the same key, whatever they are called.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.data == other.data
    }
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
        let key = |line| AuthorizedKey::read(line).map(|key| key.data);
        lines.into_iter().map(key).collect::<Result<Vec<_>, _>>().map(Self)
    }

    /// Whether its owner gets in. RSA keys sign with SHA-2, or not at all.
    pub(crate) fn admits(&self, key: &PublicKey, algorithm: &Algorithm) -> bool {
        *algorithm != Algorithm::Rsa { hash: None } && self.has(key.key_data())
    }

    pub(crate) fn has(&self, key: &KeyData) -> bool {
        self.0.contains(key)
    }
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
        assert!(allowed.admits(read.public_key(), &Algorithm::Ed25519));
        assert!(!allowed.admits(host.private().unwrap().public_key(), &Algorithm::Ed25519));
    }

    /// An RSA key of so many bits as one line; nobody knows its factors.
    fn rsa(bits: usize) -> String {
        let mut modulus = vec![0xff; bits.div_ceil(8)];
        modulus[0] >>= bits.div_ceil(8) * 8 - bits;
        let mpint = |bytes: &[u8]| ssh_key::Mpint::from_positive_bytes(bytes);
        let key = ssh_key::public::RsaPublicKey::new(mpint(&[1, 0, 1]), mpint(&modulus)).unwrap();
        PublicKey::new(KeyData::Rsa(key), "rsa").to_openssh().unwrap()
    }

    #[test]
    fn rsa_keys_need_bits_enough_and_sha_2() {
        for bits in [2048, 3072, 4096, 8192] {
            let line = rsa(bits);
            let key = PublicKey::from_openssh(&line).unwrap();
            let allowed = AllowedKeys::read([line.as_str()]).unwrap();
            assert!(allowed.admits(&key, &Algorithm::Rsa { hash: Some(ssh_key::HashAlg::Sha256) }));
            assert!(!allowed.admits(&key, &Algorithm::Rsa { hash: None }));
        }
        for bits in [1024, 2047, 8193] {
            assert_eq!(AuthorizedKey::read(&rsa(bits)).unwrap_err(), KeyError::Bits(bits));
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let own = public_line(&HostKey::of_node(&[5; 32]).public(), "x");
        let private = HostKey::of_node(&[5; 32]).private_file().unwrap();
        for wrong in ["hello", "", "ssh-rsa AAAA", &format!("command=\"sh\" {own}"), &own[..40]] {
            assert_eq!(AuthorizedKey::read(wrong).unwrap_err(), KeyError::Malformed, "{wrong}");
        }
        assert_eq!(AuthorizedKey::read(&private).unwrap_err(), KeyError::Private);
        let hardware = "sk-ssh-ed25519@openssh.com \
                        AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAICFo/k5LU8863u66YC9eUO2170QduohPURkQnbLa/dczAAAABHNzaDo= x";
        assert!(matches!(AuthorizedKey::read(hardware), Err(KeyError::Kind(_))));
        let key = AuthorizedKey::read(&own).unwrap();
        assert_eq!((key.line(), key.comment(), key.kind().as_str()), (own.clone(), "x", "ssh-ed25519"));
        assert!(key.is(&AuthorizedKey::read(own.trim_end_matches(" x")).unwrap()));
        assert_eq!(key.fingerprint(), fingerprint(&HostKey::of_node(&[5; 32]).public()));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_reading_panic(text in "(ssh-(rsa|ed25519|dss)|ecdsa-sha2-nistp256)? ?[A-Za-z0-9+/=]{0,200} ?\\PC{0,40}") {
            if let Ok(key) = AuthorizedKey::read(&text) {
                proptest::prop_assert!(key.is(&AuthorizedKey::read(&key.line()).unwrap()));
            }
        }
    }
}
