//! Names on the wire: protocol ids, topics, and peer ids.
//!
//! Owns the rule by which a network's id becomes part of each name, and the bridge between souk's ids and libp2p's.

use libp2p::{PeerId, StreamProtocol, gossipsub::IdentTopic, identity};
use souk_protocol::{Keypair, NetworkId, NodeId};

use crate::error::StartError;

/// What gossip is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// Offers of hosts.
    Offers,
    /// Fork proofs and attestations.
    Proofs,
}

impl Topic {
    /// All topics.
    pub const ALL: [Self; 2] = [Self::Offers, Self::Proofs];
}

/// The names of one network's protocols and topics.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    /// Said in identify; a peer that says another is of another network.
    pub(crate) network: String,
    /// Request and answer.
    pub(crate) exchange: StreamProtocol,
    /// Byte streams.
    pub(crate) stream: StreamProtocol,
    /// Dialling back.
    pub(crate) reach: StreamProtocol,
    /// Asking to become a member.
    pub(crate) knock: StreamProtocol,
    /// The peer directory.
    pub(crate) kad: StreamProtocol,
    /// Gossipsub adds its own version to it.
    pub(crate) mesh: String,
    offers: IdentTopic,
    proofs: IdentTopic,
}

impl Names {
    /// The names of `network`.
    pub(crate) fn of(network: &NetworkId) -> Result<Self, StartError> {
        let digits = network.to_string();
        let base = format!("/souk/{}", digits.get(..16).unwrap_or(&digits));
        let protocol = |name: &str| {
            StreamProtocol::try_from_owned(format!("{base}/{name}/1")).map_err(|e| StartError::Config(e.to_string()))
        };
        Ok(Self {
            network: format!("{base}/1"),
            exchange: protocol("exchange")?,
            stream: protocol("stream")?,
            reach: protocol("reach")?,
            knock: protocol("knock")?,
            kad: protocol("kad")?,
            mesh: format!("{base}/mesh"),
            offers: IdentTopic::new(format!("{base}/offers/1")),
            proofs: IdentTopic::new(format!("{base}/proofs/1")),
        })
    }

    /// The gossipsub topic of `topic`.
    pub(crate) const fn topic(&self, topic: Topic) -> &IdentTopic {
        match topic {
            Topic::Offers => &self.offers,
            Topic::Proofs => &self.proofs,
        }
    }

    /// The topic of a gossipsub topic hash, if it is one of this network's.
    pub(crate) fn topic_of(&self, hash: &libp2p::gossipsub::TopicHash) -> Option<Topic> {
        Topic::ALL.into_iter().find(|topic| self.topic(*topic).hash() == *hash)
    }
}

/// The libp2p peer id of a node; none if the bytes make no peer id, which no 32-byte key does.
pub(crate) fn peer_id(node: &NodeId) -> Option<PeerId> {
    PeerId::from_bytes(&node.to_peer_id_bytes()).ok()
}

/// The node of a libp2p peer id; none if its key is not Ed25519.
pub(crate) fn node_id(peer: &PeerId) -> Option<NodeId> {
    NodeId::from_peer_id_bytes(&peer.to_bytes())
}

/// The libp2p identity of a node's key: the same seed, so the same public key.
pub(crate) fn identity(key: &Keypair) -> Result<identity::Keypair, StartError> {
    let mut seed = key.seed();
    identity::Keypair::ed25519_from_bytes(&mut seed[..]).map_err(|e| StartError::Config(e.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_node_and_its_peer_id_are_one() {
        let key = Keypair::from_seed(&[5; 32]);
        let peer = identity(&key).unwrap().public().to_peer_id();
        assert_eq!(node_id(&peer), Some(key.node_id()));
        assert_eq!(peer_id(&key.node_id()), Some(peer));
        assert_eq!(peer.to_string(), key.node_id().to_string());
    }

    #[test]
    fn networks_share_no_name() {
        let a = Names::of(&NetworkId::of_name("a")).unwrap();
        let b = Names::of(&NetworkId::of_name("b")).unwrap();
        assert_ne!(a.exchange, b.exchange);
        assert_ne!(a.stream, b.stream);
        assert_eq!(b.topic_of(&a.topic(Topic::Offers).hash()), None);
        assert_eq!(a.topic_of(&a.topic(Topic::Proofs).hash()), Some(Topic::Proofs));
    }
}
