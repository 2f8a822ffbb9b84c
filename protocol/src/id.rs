//! Fixed-size identifiers, and how people read and write them.
//!
//! Owns the text and byte forms only. In CBOR every id is a byte string; in JSON and on the command line it is text: a libp2p
//! peer id for [`NodeId`], lower-case hex for the rest.

use std::{fmt, str::FromStr, sync::LazyLock};

use blake3::hazmat::{HasherExt, hash_derive_key_context};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Why a text is not the id it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    /// The text has the wrong length or characters.
    #[error("`{text}` is not {what}: expected {expected}")]
    Malformed {
        /// The offending text, cut to 80 characters.
        text: String,
        /// Which id was wanted, with its article.
        what: &'static str,
        /// The form it should have.
        expected: &'static str,
    },
    /// A peer id of a key type other than Ed25519.
    #[error("`{0}` is a peer id, but not of an Ed25519 key (those begin with 12D3KooW)")]
    NotEd25519(String),
}

fn malformed(text: &str, what: &'static str, expected: &'static str) -> ParseIdError {
    ParseIdError::Malformed { text: text.chars().take(80).collect(), what, expected }
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $what:literal, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// The id's bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// The first characters of the text form: enough for a person to tell ids apart in a list.
            #[must_use]
            pub fn short(&self) -> String {
                self.to_string().chars().take(12).collect()
            }
        }

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

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let mut bytes = [0; $len];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| malformed(text, $what, $expected))?;
                Ok(Self(bytes))
            }
        }

        serde_id!($name, $len);
    };
}

macro_rules! serde_id {
    ($name:ident, $len:literal) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                if s.is_human_readable() { s.collect_str(self) } else { s.serialize_bytes(&self.0) }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                if d.is_human_readable() {
                    let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                    return text.parse().map_err(de::Error::custom);
                }
                let bytes = serde_bytes::ByteArray::<$len>::deserialize(d)?;
                Ok(Self(bytes.into_array()))
            }
        }
    };
}

hex_id!(
    /// A BLAKE3-256 digest of some bytes.
    Digest, 32, "a digest", "64 hexadecimal digits"
);
hex_id!(
    /// The id of a signed document: the digest its author signed (see [`crate::signed`]).
    DocumentId, 32, "a document id", "64 hexadecimal digits"
);
hex_id!(
    /// The id of a lease: the document id of its draft, which both parties sign.
    LeaseId, 32, "a lease id", "64 hexadecimal digits"
);
hex_id!(
    /// Names a network. Part of every signature, so that nothing said in one network means anything in another.
    NetworkId, 32, "a network id", "64 hexadecimal digits"
);
hex_id!(
    /// One machine of a host, stable for the machine's life. Drawn at random by `souk init`.
    MachineId, 16, "a machine id", "32 hexadecimal digits"
);
hex_id!(
    /// One ask: n slots of one machine of one host. Depends on nothing else, so it survives republishing.
    AskId, 8, "an ask id", "16 hexadecimal digits"
);
hex_id!(
    /// Randomness that makes a document unique.
    Nonce, 16, "a nonce", "32 hexadecimal digits"
);
hex_id!(
    /// An Ed25519 public key that an SSH client is to be shown by a host, other than the node's own key.
    SshKey, 32, "an Ed25519 public key", "64 hexadecimal digits"
);

impl Digest {
    /// The BLAKE3 digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl From<DocumentId> for LeaseId {
    fn from(id: DocumentId) -> Self {
        Self(id.0)
    }
}

impl From<LeaseId> for DocumentId {
    fn from(id: LeaseId) -> Self {
        Self(id.0)
    }
}

impl NetworkId {
    /// The id of a public network: a hash of its name. Private networks draw theirs at random.
    #[must_use]
    pub fn of_name(name: &str) -> Self {
        Self(blake3::derive_key("souk 2026-11 network v1", name.as_bytes()))
    }
}

impl AskId {
    /// The ask of `slots` slots on `machine` of `host`.
    #[must_use]
    pub fn of(host: &NodeId, machine: &MachineId, slots: u16) -> Self {
        let mut input = [0; 32 + 16 + 2];
        input[..32].copy_from_slice(&host.0);
        input[32..48].copy_from_slice(&machine.0);
        input[48..].copy_from_slice(&slots.to_be_bytes());
        // `blake3::derive_key`, with the context hashed once.
        static CONTEXT: LazyLock<[u8; 32]> = LazyLock::new(|| hash_derive_key_context("souk 2026-11 ask v1"));
        let digest = blake3::Hasher::new_from_context_key(&CONTEXT).update(&input).finalize();
        Self(std::array::from_fn(|i| digest.as_bytes()[i]))
    }
}

/// A node: its Ed25519 public key. Printed as the libp2p peer id of that key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 32]);

/// An Ed25519 peer id is the identity multihash (`00`, length `24`) of the protobuf `08 01 12 20 ‖ key`.
const PEER_ID_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

impl NodeId {
    /// The public key's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The bytes of the libp2p peer id of this key.
    #[must_use]
    pub fn to_peer_id_bytes(&self) -> [u8; 38] {
        let mut bytes = [0; 38];
        bytes[..6].copy_from_slice(&PEER_ID_PREFIX);
        bytes[6..].copy_from_slice(&self.0);
        bytes
    }

    /// Reads the bytes of a libp2p peer id; none if it is not of an Ed25519 key.
    #[must_use]
    pub fn from_peer_id_bytes(bytes: &[u8]) -> Option<Self> {
        let key = bytes.strip_prefix(&PEER_ID_PREFIX)?;
        Some(Self(key.try_into().ok()?))
    }

    /// The last eight characters of the text form: the first ones are the same for all keys.
    #[must_use]
    pub fn short(&self) -> String {
        let text = self.to_string();
        text[text.len() - 8..].to_owned()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bs58::encode(self.to_peer_id_bytes()).into_string())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({})", self.short())
    }
}

impl FromStr for NodeId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || malformed(text, "a peer id", "52 base58 characters beginning with 12D3KooW");
        if text.len() > 128 {
            return Err(bad());
        }
        let bytes = bs58::decode(text).into_vec().map_err(|_| bad())?;
        if bytes.len() != 38 {
            return Err(bad());
        }
        Self::from_peer_id_bytes(&bytes).ok_or_else(|| ParseIdError::NotEd25519(text.to_owned()))
    }
}

serde_id!(NodeId, 32);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Keypair;

    #[test]
    fn a_node_id_prints_as_a_peer_id_and_comes_back() {
        let id = Keypair::from_seed(&[7; 32]).node_id();
        let text = id.to_string();
        assert!(text.starts_with("12D3KooW"), "{text}");
        assert_eq!(text.parse::<NodeId>().unwrap(), id);
        assert_eq!(NodeId::from_peer_id_bytes(&id.to_peer_id_bytes()), Some(id));
    }

    #[test]
    fn other_key_types_and_junk_are_refused() {
        assert!(matches!(
            "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N".parse::<NodeId>(),
            Err(ParseIdError::Malformed { .. })
        ));
        assert!("".parse::<NodeId>().is_err());
        assert!("x".repeat(10_000).parse::<NodeId>().is_err());
    }

    #[test]
    fn an_ask_depends_on_host_machine_and_size_only() {
        let host = Keypair::from_seed(&[1; 32]).node_id();
        let machine = MachineId([2; 16]);
        assert_eq!(AskId::of(&host, &machine, 2), AskId::of(&host, &machine, 2));
        assert_ne!(AskId::of(&host, &machine, 2), AskId::of(&host, &machine, 4));
        let input = [&host.0[..], &machine.0, &2_u16.to_be_bytes()].concat();
        assert_eq!(AskId::of(&host, &machine, 2).0, blake3::derive_key("souk 2026-11 ask v1", &input)[..8]);
    }
}
