//! One owner of many machines: its key, what it signs for a node, and what it tells that node to do.
//!
//! A [`Membership`] is mutual: the owner signs it, and the node agrees by carrying it in its own signed offers. An
//! [`OwnerOrder`] is what the owner wants of such a node, whoever brings it. What an order says is the node's business, not the
//! protocol's: here it is bytes with an author, an addressee and a short life.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    encode::{self, DecodeError},
    id::{MachineId, NodeId, Nonce, ParseIdError},
    limits,
    signed::{Document, Invalid, Signed},
    time::Timestamp,
};

/// What an owner's id begins with in text. A peer id begins with `12D3KooW`, so neither is taken for the other.
const PREFIX: &str = "owner";
/// What a membership's ticket begins with.
const TICKET_PREFIX: &str = "soukmember";
/// Characters of a ticket: some 350 in practice.
const TICKET_CHARS: usize = 1024;

/// An owner: its Ed25519 public key. Printed as `owner` and the key in base58. Never a node: nobody can be dialled by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerId(pub [u8; 32]);

impl OwnerId {
    /// The key as the author of a document is named.
    #[must_use]
    pub const fn author(&self) -> NodeId {
        NodeId(self.0)
    }

    /// The last eight characters of the text form.
    #[must_use]
    pub fn short(&self) -> String {
        let text = self.to_string();
        text[text.len() - 8..].to_owned()
    }
}

impl fmt::Display for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", bs58::encode(self.0).into_string())
    }
}

impl fmt::Debug for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnerId({})", self.short())
    }
}

impl FromStr for OwnerId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseIdError::Malformed {
            text: text.chars().take(80).collect(),
            what: "an owner's id",
            expected: "`owner` and 43 or 44 base58 characters",
        };
        let key = text.strip_prefix(PREFIX).filter(|key| key.len() <= 44).ok_or_else(bad)?;
        let bytes = bs58::decode(key).into_vec().map_err(|_| bad())?;
        Ok(Self(bytes.try_into().map_err(|_| bad())?))
    }
}

impl Serialize for OwnerId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() { s.collect_str(self) } else { s.serialize_bytes(&self.0) }
    }
}

impl<'de> Deserialize<'de> for OwnerId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        if d.is_human_readable() {
            return String::deserialize(d)?.parse().map_err(de::Error::custom);
        }
        Ok(Self(serde_bytes::ByteArray::<32>::deserialize(d)?.into_array()))
    }
}

/// Whose a machine is, as a search shows it: its owner, or its node where that belongs to nobody else. Always text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostId {
    /// A node that is its own owner.
    Node(NodeId),
    /// An owner of one or many nodes.
    Owner(OwnerId),
}

impl HostId {
    /// The last eight characters of the text form.
    #[must_use]
    pub fn short(&self) -> String {
        match self {
            Self::Node(node) => node.short(),
            Self::Owner(owner) => owner.short(),
        }
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => node.fmt(f),
            Self::Owner(owner) => owner.fmt(f),
        }
    }
}

impl FromStr for HostId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with(PREFIX) { text.parse().map(Self::Owner) } else { text.parse().map(Self::Node) }
    }
}

impl Serialize for HostId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HostId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

/// An owner's word that a node, or one machine of it, is its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    /// The signer.
    pub owner: OwnerId,
    /// Whose offers may carry it.
    pub node: NodeId,
    /// Only this machine of the node; none for all of them.
    pub machine: Option<MachineId>,
    /// When it was made.
    pub issued_at: Timestamp,
    /// No offer that carries it is valid longer.
    pub valid_until: Timestamp,
}

impl Document for Membership {
    const CONTEXT: &'static str = "souk 2026-11 membership v1";
    const NAME: &'static str = "membership";
    const MAX_BYTES: usize = limits::MEMBERSHIP_BYTES;

    fn author(&self) -> NodeId {
        self.owner.author()
    }

    fn check(&self) -> Result<(), Invalid> {
        let life = self.valid_until.0.checked_sub(self.issued_at.0);
        let lives = life.is_some_and(|ms| ms > 0 && ms <= limits::MEMBERSHIP_LIFE.0);
        Invalid::unless(lives, "it must end after it was issued, within five years")?;
        Invalid::unless(self.owner.0 != self.node.0, "an owner's key can't be its node's")
    }
}

impl Membership {
    /// Whether it is of this node and machine.
    #[must_use]
    pub fn covers(&self, node: &NodeId, machine: &MachineId) -> bool {
        self.node == *node && self.machine.is_none_or(|m| m == *machine)
    }

    /// Whether it holds at `now`, give or take what clocks may differ by at its beginning.
    #[must_use]
    pub fn holds_at(&self, now: Timestamp) -> bool {
        self.issued_at <= now + limits::CLOCK_SKEW && now < self.valid_until
    }
}

/// Why a text is no membership ticket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// Something else, or cut short.
    #[error("this is not a membership ticket: it begins with `{TICKET_PREFIX}` and was made by `souk owner sign`")]
    Malformed,
    /// Its bytes are no signed document.
    #[error("the membership ticket is damaged: {0}")]
    Damaged(#[from] DecodeError),
}

impl Signed<Membership> {
    /// As one word that people can send each other.
    #[must_use]
    pub fn to_ticket(&self) -> String {
        format!("{TICKET_PREFIX}{}", bs58::encode(encode::to_bytes(self)).with_check().into_string())
    }

    /// Reads [`Self::to_ticket`]. The signature is yet to be checked.
    ///
    /// # Errors
    /// [`TicketError`]: something else, cut short, or mistyped.
    pub fn from_ticket(text: &str) -> Result<Self, TicketError> {
        let text = text.trim();
        let body =
            text.strip_prefix(TICKET_PREFIX).filter(|t| t.len() <= TICKET_CHARS).ok_or(TicketError::Malformed)?;
        let bytes = bs58::decode(body).with_check(None).into_vec().map_err(|_| TicketError::Malformed)?;
        Ok(encode::from_bytes(&bytes, limits::MEMBERSHIP_BYTES + 128)?)
    }
}

/// What an owner wants of one of its nodes. Carried out once, by the node it is addressed to and no other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnerOrder {
    /// The signer.
    pub owner: OwnerId,
    /// Who is to carry it out.
    pub to: NodeId,
    /// What, in the words of the node's own programming interface: JSON of at most [`limits::ORDER_BYTES`].
    #[serde(with = "serde_bytes")]
    pub order: Vec<u8>,
    /// Tells one order from the same order again.
    pub nonce: Nonce,
    /// When it was given.
    pub issued_at: Timestamp,
    /// It is not carried out from then on: at most [`limits::ORDER_LIFE`] later.
    pub valid_until: Timestamp,
}

impl Document for OwnerOrder {
    const CONTEXT: &'static str = "souk 2026-11 owner order v1";
    const NAME: &'static str = "owner's order";
    const MAX_BYTES: usize = limits::ORDER_BYTES + 512;

    fn author(&self) -> NodeId {
        self.owner.author()
    }

    fn check(&self) -> Result<(), Invalid> {
        let life = self.valid_until.0.checked_sub(self.issued_at.0);
        let lives = life.is_some_and(|ms| ms > 0 && ms <= limits::ORDER_LIFE.0);
        Invalid::unless(lives, "it must end after it was given, within two minutes")?;
        Invalid::unless(self.order.len() <= limits::ORDER_BYTES, "it is over 16 KiB long")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::{Keypair, Millis, NetworkId, Verified};

    fn membership() -> Verified<Membership> {
        let key = Keypair::from_seed(&[9; 32]);
        let membership = Membership {
            owner: OwnerId(key.node_id().0),
            node: Keypair::from_seed(&[1; 32]).node_id(),
            machine: None,
            issued_at: Timestamp(1_000),
            valid_until: Timestamp(2_000),
        };
        Verified::sign(membership, &key, &NetworkId::of_name("tests")).unwrap()
    }

    #[test]
    fn ids_come_back_and_are_not_taken_for_each_other() {
        let key = Keypair::from_seed(&[9; 32]).node_id();
        let owner = OwnerId(key.0);
        assert_eq!(owner.to_string().parse::<OwnerId>().unwrap(), owner);
        assert_eq!(owner.to_string().parse::<HostId>().unwrap(), HostId::Owner(owner));
        assert_eq!(key.to_string().parse::<HostId>().unwrap(), HostId::Node(key));
        assert!(key.to_string().parse::<OwnerId>().is_err());
        assert!(owner.to_string().parse::<NodeId>().is_err());
        assert_eq!(
            serde_json::from_str::<HostId>(&serde_json::to_string(&owner).unwrap()).unwrap(),
            HostId::Owner(owner)
        );
    }

    #[test]
    fn a_ticket_comes_back_and_one_wrong_character_is_noticed() {
        let signed = membership().to_signed();
        let ticket = signed.to_ticket();
        assert_eq!(Signed::from_ticket(&format!(" {ticket}\n")).unwrap(), signed);
        assert!(ticket.len() < TICKET_CHARS / 2, "{}", ticket.len());
        let mut wrong = ticket.clone().into_bytes();
        let last = wrong.len() - 5;
        wrong[last] = if wrong[last] == b'a' { b'b' } else { b'a' };
        assert_eq!(Signed::<Membership>::from_ticket(&String::from_utf8(wrong).unwrap()), Err(TicketError::Malformed));
        assert_eq!(Signed::<Membership>::from_ticket(&ticket[..40]), Err(TicketError::Malformed));
        assert_eq!(Signed::<Membership>::from_ticket(&"soukmember1".repeat(1000)), Err(TicketError::Malformed));
    }

    #[test]
    fn lives_are_bounded_and_a_node_does_not_own_itself() {
        let good = membership().clone();
        let check = |change: &dyn Fn(&mut Membership)| {
            let mut changed = Membership::clone(&good);
            change(&mut changed);
            changed.check().is_ok()
        };
        assert!(check(&|_| ()));
        assert!(!check(&|m| m.valid_until = m.issued_at));
        assert!(!check(&|m| m.valid_until = m.issued_at + limits::MEMBERSHIP_LIFE + Millis(1)));
        assert!(!check(&|m| m.node = m.owner.author()));
    }

    proptest! {
        #[test]
        fn junk_is_no_ticket_and_never_panics(text in "(soukmember)?[ -~]{0,600}") {
            prop_assert!(Signed::<Membership>::from_ticket(&text).is_err());
            let _ = text.parse::<HostId>();
        }
    }
}
