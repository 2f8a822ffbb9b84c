//! What nodes ask each other about their cluster, each a request with one answer: getting in, the newest list, a new key.
//!
//! Owns the shapes and their bounds. Whom the node answers is its own business: the first two may come from a stranger, the others
//! are for members alone.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::{
    knock::{Answer, Knock, Nonce, Proof},
    list::MemberList,
    secret::{Fence, PreSharedKey},
};
use crate::{
    encode::{self, DecodeError},
    limits,
    signed::Signed,
};

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClusterRequest {
    /// A stranger with a ticket begins.
    Knock(Knock),
    /// It answers the nonce.
    Proof(Proof),
    /// A member has the list of this number, and would have a newer one.
    Newest {
        /// The number.
        have: u64,
    },
    /// A member lacks the key that the newest list names.
    Key {
        /// Which.
        fence: Fence,
    },
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClusterAnswer {
    /// To a knock, always.
    Nonce(Nonce),
    /// To a proof.
    Answer(Answer),
    /// A newer list, and the number of the one that is known.
    Newest {
        /// The number.
        have: u64,
        /// The list, if it is newer than the asker's.
        list: Option<Box<Signed<MemberList>>>,
    },
    /// The key; none if this node has not that one.
    Key(Option<SharedKey>),
}

/// The key on its way from member to member, over their sealed connection.
#[derive(Clone, PartialEq, Eq)]
pub struct SharedKey(pub PreSharedKey);

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedKey({})", self.0.fence())
    }
}

impl Serialize for SharedKey {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(self.0.as_bytes())
    }
}

impl<'de> Deserialize<'de> for SharedKey {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let bytes = Zeroizing::new(serde_bytes::ByteArray::<32>::deserialize(d)?.into_array());
        Ok(Self(PreSharedKey::new(*bytes)))
    }
}

impl ClusterRequest {
    /// As it is sent.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encode::to_bytes(self)
    }

    /// From a peer.
    ///
    /// # Errors
    /// [`DecodeError`]; also beyond [`limits::KNOCK_BYTES`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        encode::from_bytes(bytes, limits::KNOCK_BYTES)
    }
}

impl ClusterAnswer {
    /// As it is sent.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encode::to_bytes(self)
    }

    /// From a peer.
    ///
    /// # Errors
    /// [`DecodeError`]; also beyond [`limits::KNOCK_ANSWER_BYTES`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        encode::from_bytes(bytes, limits::KNOCK_ANSWER_BYTES)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cluster::Token;

    #[test]
    fn they_come_back_are_bounded_and_show_no_key() {
        let requests = [
            ClusterRequest::Knock(Knock { token_id: Token::new([1; 16]).id() }),
            ClusterRequest::Proof(Proof { mac: [2; 32], name: Some("x".repeat(32)) }),
            ClusterRequest::Newest { have: u64::MAX },
            ClusterRequest::Key { fence: PreSharedKey::new([3; 32]).fence() },
        ];
        for request in requests {
            let bytes = request.to_bytes();
            assert_eq!(ClusterRequest::from_bytes(&bytes).unwrap(), request);
            for cut in 0..bytes.len() {
                assert!(ClusterRequest::from_bytes(&bytes[..cut]).is_err());
            }
        }
        let key = ClusterAnswer::Key(Some(SharedKey(PreSharedKey::new([0x5a; 32]))));
        assert_eq!(ClusterAnswer::from_bytes(&key.to_bytes()).unwrap(), key);
        assert!(!format!("{key:?}").contains("5a5a") && !format!("{key:?}").contains("90, 90"));
        assert!(ClusterRequest::from_bytes(&vec![0; limits::KNOCK_BYTES + 1]).is_err());
    }
}
