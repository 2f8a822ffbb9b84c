//! The owner's key: a 32-byte Ed25519 seed in a file that only its user may read, never overwritten.
//!
//! It is read for each signature and wiped afterwards; no long-lived part of the node holds it.

use std::path::Path;

use souk_protocol::{
    Keypair, MachineId, Millis, NetworkId, NodeId, OwnerId, Timestamp, Verified, limits, owner::Membership,
    signed::VerifyError,
};
use zeroize::Zeroizing;

use crate::identity::{self, IdentityError};

/// The seed's file in a data directory.
pub const FILE: &str = "owner.key";
/// How long a membership lasts when nobody says: a year.
pub const MEMBERSHIP: Millis = Millis::from_hours(366 * 24);

/// Makes the key unless there is one. Whether there was none before.
///
/// # Errors
/// [`IdentityError`], also if the one that is there can't be used.
pub fn create(dir: &Path) -> Result<(Keypair, bool), IdentityError> {
    let mut seed = Zeroizing::new([0; identity::SEED_BYTES]);
    identity::random(seed.as_mut())?;
    let new = identity::write_new(dir, FILE, seed.as_ref())?;
    Ok((identity::read_key(&dir.join(FILE))?, new))
}

/// Reads the key; none if this node does not hold one.
///
/// # Errors
/// [`IdentityError`]: damaged, or open to others.
pub fn load(dir: &Path) -> Result<Option<Keypair>, IdentityError> {
    let path = dir.join(FILE);
    if path.symlink_metadata().is_err() {
        return Ok(None);
    }
    identity::read_key(&path).map(Some)
}

/// The id of an owner's key.
#[must_use]
pub const fn id_of(key: &Keypair) -> OwnerId {
    OwnerId(key.node_id().0)
}

/// Makes a node, or one machine of it, a member.
///
/// # Errors
/// [`VerifyError`] if the membership would be too long, or the node is the owner itself.
pub fn sign(
    key: &Keypair,
    network: &NetworkId,
    node: NodeId,
    machine: Option<MachineId>,
    life: Millis,
    now: Timestamp,
) -> Result<Verified<Membership>, VerifyError> {
    let life = life.min(Millis(limits::MEMBERSHIP_LIFE.0.saturating_add(1)));
    let membership = Membership { owner: id_of(key), node, machine, issued_at: now, valid_until: now + life };
    Verified::sign(membership, key, network)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_made_once_for_its_user_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(load(dir.path()).unwrap().is_none());
        let (first, new) = create(dir.path()).unwrap();
        assert!(new);
        let (second, new) = create(dir.path()).unwrap();
        assert!(!new && first.node_id() == second.node_id());
        let path = dir.path().join(FILE);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(load(dir.path()).is_err(), "others may read it");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, [1; 5]).unwrap();
        let error = load(dir.path()).unwrap_err();
        assert!(error.hint().contains("souk owner init"), "{}", error.hint());
    }

    #[test]
    fn no_membership_lasts_for_ever() {
        let key = Keypair::from_seed(&[9; 32]);
        let node = Keypair::from_seed(&[1; 32]).node_id();
        let network = NetworkId::of_name("tests");
        assert!(sign(&key, &network, node, None, MEMBERSHIP, Timestamp(5)).is_ok());
        assert!(sign(&key, &network, node, None, Millis(u64::MAX), Timestamp(5)).is_err());
        assert!(sign(&key, &network, key.node_id(), None, MEMBERSHIP, Timestamp(5)).is_err());
    }
}
