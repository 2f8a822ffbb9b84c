//! What makes a cluster this one: its name, its keeper, and some randomness. The network's id follows from it.

use serde::{Deserialize, Serialize};

use crate::{
    encode,
    id::{NetworkId, NodeId},
    limits,
    signed::Invalid,
};

/// A cluster's beginning. Never changes: its hash is the id of the cluster's network, so the id proves who keeps the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Founding {
    /// What people call it: as [`check_name`] allows.
    pub name: String,
    /// The only node that signs its member list.
    pub keeper: NodeId,
    /// Drawn at random, so that a keeper's second cluster of the same name is another one.
    #[serde(with = "super::secret::bytes_or_hex")]
    pub salt: [u8; 16],
}

impl Founding {
    /// The id of the cluster's network.
    #[must_use]
    pub fn network(&self) -> NetworkId {
        NetworkId(blake3::derive_key("souk 2026-11 cluster v1", &encode::to_bytes(self)))
    }

    /// Checks the name.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn check(&self) -> Result<(), Invalid> {
        check_name(&self.name, "the cluster's name")
    }
}

/// Fails unless a text can be the name of a cluster or a member: 1 to 32 characters of `a-z`, `0-9` and `-`, the first of which
/// is not `-`, since a command would take that for an option. `field` begins the sentence.
///
/// # Errors
/// Says what a name is made of.
pub fn check_name(name: &str, field: &str) -> Result<(), Invalid> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let good =
        (1..=limits::CLUSTER_NAME_BYTES).contains(&name.len()) && name.bytes().all(plain) && !name.starts_with('-');
    if good {
        return Ok(());
    }
    let most = limits::CLUSTER_NAME_BYTES;
    Err(Invalid(format!("{field} must have 1 to {most} characters of a-z, 0-9 and -, and begin with no -")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Keypair;

    #[test]
    fn the_id_of_a_cluster_depends_on_all_that_founded_it() {
        let keeper = |seed| Keypair::from_seed(&[seed; 32]).node_id();
        let founding =
            |name: &str, seed, salt| Founding { name: name.to_owned(), keeper: keeper(seed), salt: [salt; 16] };
        let id = founding("lab", 1, 1).network();
        assert_eq!(id, founding("lab", 1, 1).network());
        for other in [founding("lab2", 1, 1), founding("lab", 2, 1), founding("lab", 1, 2)] {
            assert_ne!(id, other.network());
        }
        assert_ne!(id, NetworkId::of_name("lab"));
        let bytes = encode::to_bytes(&founding("lab", 1, 1));
        assert_eq!(encode::from_bytes::<Founding>(&bytes, 256).unwrap(), founding("lab", 1, 1));
        assert_eq!(id.0, blake3::derive_key("souk 2026-11 cluster v1", &bytes));
    }

    #[test]
    fn names_are_plain() {
        let check = |name: &str| check_name(name, "the name").is_ok();
        for good in ["a", "lab-2", "0", "a-", &"x".repeat(32)] {
            assert!(check(good), "{good}");
        }
        for bad in ["", "-a", "Lab", "a b", "a_b", "ä", "a\n", &"x".repeat(33)] {
            assert!(!check(bad), "{bad:?}");
        }
    }
}
