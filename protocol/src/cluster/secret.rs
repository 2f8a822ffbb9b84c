//! A cluster's secrets: the key of its transport, and the tokens of its tickets. Neither is ever shown or sent as it is, but in
//! a ticket; what others see of them are their ids.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::id::NodeId;

macro_rules! hex_text {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(#[serde(with = "bytes_or_hex")] pub [u8; 8]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

hex_text!(
    /// Tells one shared key from another, and says nothing of it: part of the member list, so that members see a new one is in use.
    Fence
);
hex_text!(
    /// Names a ticket's token without telling it.
    TokenId
);

/// Bytes of a fixed length: a byte string in CBOR, hexadecimal text in JSON.
pub(super) mod bytes_or_hex {
    use serde::{Deserialize, Deserializer, Serializer, de};
    use zeroize::Zeroizing;

    pub(in super::super) fn serialize<const N: usize, S: Serializer>(bytes: &[u8; N], s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() {
            s.serialize_str(&Zeroizing::new(hex::encode(bytes)))
        } else {
            s.serialize_bytes(bytes)
        }
    }

    pub(in super::super) fn deserialize<'de, const N: usize, D: Deserializer<'de>>(d: D) -> Result<[u8; N], D::Error> {
        if d.is_human_readable() {
            let text = Zeroizing::new(String::deserialize(d)?);
            let mut bytes = [0; N];
            hex::decode_to_slice(text.as_bytes(), &mut bytes).map_err(de::Error::custom)?;
            return Ok(bytes);
        }
        Ok(serde_bytes::ByteArray::<N>::deserialize(d)?.into_array())
    }
}

fn first_eight(digest: [u8; 32]) -> [u8; 8] {
    std::array::from_fn(|i| digest[i])
}

/// The key without which nobody can even begin a handshake over TCP. Overwritten when dropped; not serialisable, so that it
/// gets into no answer or log by accident.
#[derive(Clone)]
pub struct PreSharedKey([u8; 32]);

impl PreSharedKey {
    /// From 32 random bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key, for the transport and for the file that keeps it.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// What may be known of it.
    #[must_use]
    pub fn fence(&self) -> Fence {
        Fence(first_eight(blake3::derive_key("souk 2026-11 cluster fence v1", &self.0)))
    }
}

impl fmt::Debug for PreSharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PreSharedKey(its fence is {})", self.fence())
    }
}

/// In constant time.
impl PartialEq for PreSharedKey {
    fn eq(&self, other: &Self) -> bool {
        blake3::Hash::from_bytes(self.0) == blake3::Hash::from_bytes(other.0)
    }
}

impl Eq for PreSharedKey {}

impl Drop for PreSharedKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// What admits to a cluster whoever has it, so often as its ticket says. Overwritten when dropped. It never crosses the wire:
/// who has it proves so by [`Token::mac`]. Serialisable for its keeper's private file.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(#[serde(with = "bytes_or_hex")] [u8; 16]);

impl Token {
    /// From 16 random bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub(super) const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// What its keeper finds it by.
    #[must_use]
    pub fn id(&self) -> TokenId {
        TokenId(first_eight(blake3::derive_key("souk 2026-11 cluster token v1", &self.0)))
    }

    /// The proof of having it, to this keeper, by this node, once.
    #[must_use]
    pub fn mac(&self, nonce: &[u8; 32], keeper: &NodeId, knocker: &NodeId) -> blake3::Hash {
        let key = Zeroizing::new(blake3::derive_key("souk 2026-11 cluster admission v1", &self.0));
        let mut said = [0; 96];
        said[..32].copy_from_slice(nonce);
        said[32..64].copy_from_slice(&keeper.0);
        said[64..].copy_from_slice(&knocker.0);
        blake3::keyed_hash(&key, &said)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(its id is {})", self.id())
    }
}

/// In constant time.
impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        let wide = |token: &Self| blake3::hash(&token.0);
        wide(self) == wide(other)
    }
}

impl Eq for Token {}

impl Drop for Token {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Keypair;

    #[test]
    fn secrets_show_nothing_of_themselves() {
        let (key, token) = (PreSharedKey::new([0x5a; 32]), Token::new([0x5b; 16]));
        for shown in [format!("{key:?}"), format!("{token:?}")] {
            assert!(!shown.contains("5a5a") && !shown.contains("5b5b") && !shown.contains("90, 90"), "{shown}");
        }
        assert_ne!(key.fence(), PreSharedKey::new([0x5c; 32]).fence());
        assert!(key == PreSharedKey::new([0x5a; 32]) && key != PreSharedKey::new([0x5c; 32]));
        assert!(token == Token::new([0x5b; 16]) && token != Token::new([0x5c; 16]));
    }

    #[test]
    fn a_token_comes_back_from_a_file_and_its_id_from_text() {
        let token = Token::new([7; 16]);
        let json = serde_json::to_string(&(&token, token.id())).unwrap();
        let (back, id): (Token, TokenId) = serde_json::from_str(&json).unwrap();
        assert!(back == token && id == token.id());
        assert!(serde_json::from_str::<Token>("\"07\"").is_err());
        assert!(serde_json::from_str::<Token>(&format!("\"{}\"", "zz".repeat(16))).is_err());
    }

    #[test]
    fn a_proof_is_for_one_nonce_keeper_and_knocker() {
        let node = |seed| Keypair::from_seed(&[seed; 32]).node_id();
        let token = Token::new([7; 16]);
        let mac = token.mac(&[1; 32], &node(1), &node(2));
        assert_eq!(mac, token.mac(&[1; 32], &node(1), &node(2)));
        let others = [
            token.mac(&[2; 32], &node(1), &node(2)),
            token.mac(&[1; 32], &node(3), &node(2)),
            token.mac(&[1; 32], &node(1), &node(3)),
            token.mac(&[1; 32], &node(2), &node(1)),
            Token::new([8; 16]).mac(&[1; 32], &node(1), &node(2)),
        ];
        assert!(others.iter().all(|other| *other != mac));
    }
}
