//! Whom a host rents to: its owner's choice, what the offer says of it, and the refusal of everybody else.

use std::collections::BTreeSet;

use crate::{
    NodeId,
    negotiation::{Reject, RejectCode},
    offer::Accepts,
    resources::DiskQuota,
};

/// Whom the host rents to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accept {
    /// Anybody.
    Anyone,
    /// These peers.
    Peers(BTreeSet<NodeId>),
    /// These peers, and renters for whom one of the attesters attests.
    Attested {
        /// Named by the owner.
        peers: BTreeSet<NodeId>,
        /// Whose word counts.
        by: Vec<NodeId>,
    },
    /// These peers, and renters trusted at least so much.
    Trusted {
        /// Named by the owner.
        peers: BTreeSet<NodeId>,
        /// In thousandths.
        least: u16,
    },
}

impl Accept {
    /// Lets further peers in, where the owner goes by attestations or trust: those whom they speak for, as this node has found.
    pub fn let_in(&mut self, found: &BTreeSet<NodeId>) {
        if let Self::Attested { peers, .. } | Self::Trusted { peers, .. } = self {
            peers.extend(found.iter().copied());
        }
    }

    /// Whether a peer may rent.
    #[must_use]
    pub fn takes(&self, peer: &NodeId) -> bool {
        match self {
            Self::Anyone => true,
            // Whom attestations or trust speak for has been let in by name.
            Self::Peers(peers) | Self::Attested { peers, .. } | Self::Trusted { peers, .. } => peers.contains(peer),
        }
    }

    /// Whom it comes down to on a machine whose disk limits hold like this. A stranger on a disk that is only watched could fill the
    /// machine's own before anybody looks: where the owner hasn't allowed that, the peers in `named` are all who may rent.
    #[must_use]
    pub fn with_disks(self, quota: DiskQuota, soft_allowed: bool, named: BTreeSet<NodeId>) -> Self {
        match (&self, quota) {
            (Self::Anyone, DiskQuota::Soft) if !soft_allowed => Self::Peers(named),
            _ => self,
        }
    }

    /// What the offer says of it.
    #[must_use]
    pub fn public(&self) -> Accepts {
        match self {
            Self::Anyone => Accepts::Anyone,
            Self::Peers(_) => Accepts::Named,
            Self::Attested { by, .. } => Accepts::Attested { by: by.clone() },
            Self::Trusted { least, .. } => Accepts::Trusted { least: *least },
        }
    }

    /// The refusal of a peer that may not rent.
    #[must_use]
    pub fn refusal(&self, peer: &NodeId) -> Option<Reject> {
        if self.takes(peer) {
            return None;
        }
        let by_name = format!("ask the owner to run: souk host accept {peer}");
        let sentence = match self {
            Self::Anyone | Self::Peers(_) => format!("this host rents to peers its owner has named; {by_name}"),
            Self::Attested { by, .. } => {
                format!(
                    "this host rents to renters that one of {} nodes attests for, and none does for you; {by_name}",
                    by.len()
                )
            }
            Self::Trusted { least, .. } => format!(
                "this host rents to renters trusted at least {}.{:03}, and it knows of no trust in you; {by_name}",
                least / 1000,
                least % 1000
            ),
        };
        Some(Reject::lasting(RejectCode::NotAccepted, sentence))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::Accept;
    use crate::{machine::testkit::key, resources::DiskQuota};

    #[test]
    fn strangers_need_a_disk_limit_that_holds() {
        let (named, stranger) = (key(1).node_id(), key(2).node_id());
        let peers = BTreeSet::from([named]);
        let on = |accept: Accept, quota, allowed| accept.with_disks(quota, allowed, peers.clone());
        assert_eq!(on(Accept::Anyone, DiskQuota::Hard, false), Accept::Anyone);
        assert_eq!(on(Accept::Anyone, DiskQuota::Soft, true), Accept::Anyone);
        let soft = on(Accept::Anyone, DiskQuota::Soft, false);
        assert!(soft.takes(&named) && !soft.takes(&stranger));
        assert!(soft.refusal(&stranger).is_some());
        // Whom the owner trusts by other means stays in.
        let trusted = Accept::Trusted { peers: BTreeSet::new(), least: 500 };
        assert_eq!(on(trusted.clone(), DiskQuota::Soft, false), trusted);
    }
}
