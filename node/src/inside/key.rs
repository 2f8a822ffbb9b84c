//! The key of an instance: derived, never stored, so that it outlives restarts of the node.

use std::fmt;

use souk_protocol::{Keypair, LeaseId};
use zeroize::Zeroizing;

/// What the keys of a node's instances are made of.
#[derive(Clone)]
pub struct ApiSeed(Zeroizing<[u8; 32]>);

impl fmt::Debug for ApiSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiSeed")
    }
}

impl ApiSeed {
    /// Of this node.
    #[must_use]
    pub fn of(keypair: &Keypair) -> Self {
        Self(Zeroizing::new(blake3::derive_key("souk 2026-11 instance api key v1", keypair.seed().as_ref())))
    }

    /// The key of one lease's instance, and of no other's.
    #[must_use]
    pub fn key(&self, lease: &LeaseId) -> ApiKey {
        ApiKey(*blake3::keyed_hash(&self.0, &lease.0).as_bytes())
    }
}

/// What a program in an instance proves to be with.
#[derive(Clone)]
pub struct ApiKey([u8; 32]);

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey")
    }
}

impl ApiKey {
    /// As the instance's environment has it: 64 hexadecimal digits.
    #[must_use]
    pub fn text(&self) -> String {
        hex::encode(self.0)
    }

    /// Whether that text is this key, in a time that says nothing of how much of it was right.
    #[must_use]
    pub fn is(&self, text: &str) -> bool {
        let mut given = [0; 32];
        let decoded = hex::decode_to_slice(text.trim(), &mut given).is_ok();
        decoded & (blake3::Hash::from_bytes(given) == blake3::Hash::from_bytes(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_opens_one_instance_of_one_node() {
        let seed = |n| ApiSeed::of(&Keypair::from_seed(&[n; 32]));
        let (one, two) = (LeaseId([1; 32]), LeaseId([2; 32]));
        let text = seed(1).key(&one).text();
        assert_eq!(text.len(), 64);
        assert!(seed(1).key(&one).is(&text), "after a restart too");
        assert!(!seed(1).key(&two).is(&text));
        assert!(!seed(2).key(&one).is(&text));
        assert!(!seed(1).key(&one).is(&text[..62]));
        assert!(!seed(1).key(&one).is(""));
        assert!(!format!("{:?}", seed(1).key(&one)).contains(&text[..8]));
    }
}
