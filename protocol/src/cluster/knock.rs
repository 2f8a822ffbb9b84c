//! The exchange by which a node with a ticket gets on the list: over a connection that has proved both ends' ids.
//!
//! Four messages, in canonical CBOR: [`Knock`], [`Nonce`], [`Proof`], [`Answer`]. The keeper answers every knock with a nonce, and
//! says no more than "no" to who has not proved the token: a stranger can't even find out whether there is such a ticket. The
//! token itself is never sent, so one keeper's answer is of no use with another.

use serde::{Deserialize, Serialize};

use super::{
    founding::check_name,
    list::MemberList,
    secret::{Token, TokenId},
};
use crate::{
    id::NodeId,
    signed::{Invalid, Signed},
};

/// First, by the knocker: which ticket it has. At most [`crate::limits::KNOCK_BYTES`], like the next two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Knock {
    /// Of the ticket's token.
    pub token_id: TokenId,
}

/// Second, by the keeper, whatever it was told: 32 random bytes, for one proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nonce(#[serde(with = "super::secret::bytes_or_hex")] pub [u8; 32]);

/// Third, by the knocker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// [`Token::mac`] over the nonce, the keeper's id and the knocker's.
    #[serde(with = "super::secret::bytes_or_hex")]
    pub mac: [u8; 32],
    /// What it would like to be called; none leaves that to the keeper.
    pub name: Option<String>,
}

impl Proof {
    /// The proof that this node has a ticket's token.
    #[must_use]
    pub fn of(token: &Token, nonce: &Nonce, keeper: &NodeId, knocker: &NodeId, name: Option<String>) -> Self {
        Self { mac: *token.mac(&nonce.0, keeper, knocker).as_bytes(), name }
    }

    /// Checks the name, which the knocker does before it sends.
    ///
    /// # Errors
    /// Says what a name is made of.
    pub fn check(&self) -> Result<(), Invalid> {
        self.name.as_ref().map_or(Ok(()), |name| check_name(name, "the name"))
    }
}

/// Last, by the keeper. At most [`crate::limits::KNOCK_ANSWER_BYTES`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It is a member now.
    Admitted {
        /// The list that says so. Yet to be verified, in the network of the ticket's founding.
        list: Signed<MemberList>,
    },
    /// It is not.
    Refused(Refusal),
}

/// Why a knocker is not let in. All but the first are said only to who has proved a ticket's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// There is no such ticket, or the proof is wrong; nothing more is said.
    #[error(
        "the cluster's keeper does not know this ticket: it may have been forgotten long after its end; ask for a new one (souk cluster invite)"
    )]
    Nothing,
    /// So many nodes have come with it as it was made for.
    #[error("the ticket was used up by others: ask the cluster's keeper for a new one (souk cluster invite)")]
    Used,
    /// It came too late.
    #[error("the ticket has expired: ask the cluster's keeper for a new one (souk cluster invite)")]
    Expired,
    /// The knocker was a member, and was removed.
    #[error(
        "this node was removed from the cluster, and no ticket brings it back: its keeper can (souk cluster admit)"
    )]
    Removed,
    /// There is no room on the list.
    #[error(
        "the cluster has as many members as one can have, 1,024: its keeper has to remove one (souk cluster remove)"
    )]
    Full,
    /// Another member has the name, or it can't be a name.
    #[error(
        "the name is another member's, or has other characters than a-z, 0-9 and -: choose another one with --name, or none"
    )]
    NameTaken,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        cluster::list::tests::{list, node, sign},
        encode, limits,
    };

    #[test]
    fn messages_come_back_and_stay_within_their_bounds() {
        let token = Token::new([3; 16]);
        let knock = Knock { token_id: token.id() };
        let bytes = encode::to_bytes(&knock);
        assert_eq!(encode::from_bytes::<Knock>(&bytes, limits::KNOCK_BYTES).unwrap(), knock);
        let nonce = Nonce([0xfe; 32]);
        let bytes = encode::to_bytes(&nonce);
        assert_eq!((bytes.len(), encode::from_bytes::<Nonce>(&bytes, limits::KNOCK_BYTES).unwrap()), (34, nonce));
        let proof = Proof::of(&token, &nonce, &node(1), &node(2), Some("n".repeat(limits::CLUSTER_NAME_BYTES)));
        let bytes = encode::to_bytes(&proof);
        assert_eq!(encode::from_bytes::<Proof>(&bytes, limits::KNOCK_BYTES).unwrap(), proof);
        assert!(proof.check().is_ok() && Proof { name: Some("No".to_owned()), ..proof }.check().is_err());
        let answers = [
            Answer::Admitted { list: sign(list(2, &[2])).to_signed() },
            Answer::Refused(Refusal::Nothing),
            Answer::Refused(Refusal::NameTaken),
        ];
        for answer in answers {
            let bytes = encode::to_bytes(&answer);
            assert_eq!(encode::from_bytes::<Answer>(&bytes, limits::KNOCK_ANSWER_BYTES).unwrap(), answer);
            for at in 0..bytes.len() {
                assert!(encode::from_bytes::<Answer>(&bytes[..at], limits::KNOCK_ANSWER_BYTES).is_err());
            }
        }
    }
}
