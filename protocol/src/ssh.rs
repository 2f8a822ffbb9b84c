//! Who gets into an instance over SSH, once it runs: the renter's signed list, in place of the workload's.
//!
//! Owns the list's form and bounds. What makes a text a usable key is the node's business.

use serde::{Deserialize, Serialize};

use crate::{
    id::{LeaseId, NodeId},
    limits,
    signed::{Document, Invalid},
};

/// All keys that get in from now on. Goes to the host alone, which keeps the newest as long as the lease is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SshKeyList {
    /// The signer.
    pub renter: NodeId,
    /// Into whose instance.
    pub lease: LeaseId,
    /// 1 for the first list after the workload's, and one more for each after it: an old list can't be brought back.
    pub revision: u64,
    /// Public keys as OpenSSH writes them, at most [`limits::SSH_KEYS`].
    pub keys: Vec<String>,
}

impl Document for SshKeyList {
    const CONTEXT: &'static str = "souk 2026-11 ssh keys v1";
    const NAME: &'static str = "list of SSH keys";
    const MAX_BYTES: usize = limits::SSH_KEYS * (limits::SSH_KEY_BYTES + 8) + 256;

    fn author(&self) -> NodeId {
        self.renter
    }

    fn check(&self) -> Result<(), Invalid> {
        Invalid::unless(self.revision > 0, "the workload's keys are its revision 0")?;
        check_keys(&self.keys)
    }
}

/// Checks how many and how long keys are.
///
/// # Errors
/// Says what is out of bounds.
pub(crate) fn check_keys(keys: &[String]) -> Result<(), Invalid> {
    let few = keys.len() <= limits::SSH_KEYS;
    Invalid::unless(few, &format!("{} SSH keys are too many, at most {} may get in", keys.len(), limits::SSH_KEYS))?;
    keys.iter().try_for_each(|key| Invalid::text(key, limits::SSH_KEY_BYTES, "an SSH key"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        encode,
        id::NetworkId,
        key::Keypair,
        signed::{Signed, Verified},
    };

    fn list(author: &Keypair, revision: u64, keys: Vec<String>) -> SshKeyList {
        SshKeyList { renter: author.node_id(), lease: LeaseId([7; 32]), revision, keys }
    }

    #[test]
    fn a_full_list_fits_its_bounds_and_a_fuller_one_does_not() {
        let (author, network) = (Keypair::from_seed(&[3; 32]), NetworkId::of_name("test"));
        let longest = vec!["k".repeat(limits::SSH_KEY_BYTES); limits::SSH_KEYS];
        let full = list(&author, u64::MAX, longest.clone());
        full.check().unwrap();
        let signed = Verified::sign(full, &author, &network).unwrap().to_signed();
        let bytes = encode::to_bytes(&signed);
        let back: Signed<SshKeyList> = encode::from_bytes(&bytes, SshKeyList::MAX_BYTES + 128).unwrap();
        assert_eq!(back.verify(&network).unwrap().keys, longest);

        let more = [longest, vec!["k".to_owned()]].concat();
        for (revision, keys) in
            [(1, more), (1, vec!["k".repeat(limits::SSH_KEY_BYTES + 1)]), (1, vec!["a\nb".to_owned()]), (0, Vec::new())]
        {
            assert!(list(&author, revision, keys).check().is_err());
        }
    }
}
