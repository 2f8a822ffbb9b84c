//! The signed list of a cluster's members. Each is whole: the newest one is all there is to know.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{
    founding::{Founding, check_name},
    secret::Fence,
};
use crate::{
    id::{NetworkId, NodeId},
    limits,
    signed::{Document, Invalid, VerifyError},
    time::Timestamp,
};

/// What a member may use of each host of the cluster. Kept by each host for itself; none means no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Slots that run, or are about to, at the same time.
    pub slots_at_once: Option<u32>,
    /// Slots times hours within any [`limits::QUOTA_WINDOW`].
    pub slot_hours: Option<u32>,
}

/// One of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Who.
    pub node: NodeId,
    /// What people call it: as [`check_name`] allows.
    pub name: String,
    /// What it may use.
    pub quota: Quota,
}

/// Who is in a cluster, signed by its keeper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberList {
    /// Of which cluster.
    pub founding: Founding,
    /// 1, 2, 3 …: the higher one counts.
    pub seq: u64,
    /// When it was signed, by the keeper's clock.
    pub issued_at: Timestamp,
    /// Of the key that members seal their connections with; none if the list alone keeps others out.
    pub fence: Option<Fence>,
    /// In the order of their ids. The keeper is one of them.
    pub members: Vec<Member>,
}

impl MemberList {
    /// The first list of a new cluster: its keeper, alone.
    #[must_use]
    pub fn first(founding: Founding, keepers_name: String, fence: Option<Fence>, now: Timestamp) -> Self {
        let keeper = Member { node: founding.keeper, name: keepers_name, quota: Quota::default() };
        Self { founding, seq: 1, issued_at: now, fence, members: vec![keeper] }
    }

    /// A member by its id.
    #[must_use]
    pub fn member(&self, node: &NodeId) -> Option<&Member> {
        let at = self.members.binary_search_by(|m| m.node.cmp(node)).ok()?;
        self.members.get(at)
    }
}

impl Document for MemberList {
    const CONTEXT: &'static str = "souk 2026-11 members v1";
    const NAME: &'static str = "member list";
    const MAX_BYTES: usize = limits::MEMBER_LIST_BYTES;

    fn author(&self) -> NodeId {
        self.founding.keeper
    }

    fn check(&self) -> Result<(), Invalid> {
        self.founding.check()?;
        Invalid::unless(self.seq > 0, "its number is zero")?;
        let many = self.members.len() <= limits::CLUSTER_MEMBERS;
        Invalid::unless(many, "it has over 1,024 members")?;
        let ordered = self.members.windows(2).all(|pair| matches!(pair, [a, b] if a.node < b.node));
        Invalid::unless(ordered, "its members are out of order, or one is there twice")?;
        self.members.iter().try_for_each(|m| check_name(&m.name, "a member's name"))?;
        let names: BTreeSet<&str> = self.members.iter().map(|m| m.name.as_str()).collect();
        Invalid::unless(names.len() == self.members.len(), "two members have the same name")?;
        Invalid::unless(self.member(&self.founding.keeper).is_some(), "its keeper is not among its members")
    }

    /// The signature says only that the keeper named in it has signed: whether that is this network's keeper, the network's id says.
    fn check_carried(&self, network: &NetworkId) -> Result<(), VerifyError> {
        Invalid::unless(self.founding.network() == *network, "it is the list of another cluster")
            .map_err(|e| VerifyError::Invalid(Self::NAME, e))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{Keypair, Signed, Verified, encode, signed};

    pub(crate) fn key(seed: u8) -> Keypair {
        Keypair::from_seed(&[seed; 32])
    }

    pub(crate) fn node(seed: u8) -> NodeId {
        key(seed).node_id()
    }

    /// A cluster kept by key 1.
    pub(crate) fn founding() -> Founding {
        Founding { name: "lab".to_owned(), keeper: node(1), salt: [9; 16] }
    }

    /// Its list with these members beside the keeper.
    pub(crate) fn list(seq: u64, seeds: &[u8]) -> MemberList {
        let mut list = MemberList::first(founding(), "keeper".to_owned(), None, Timestamp(1_000));
        list.seq = seq;
        for seed in seeds {
            let member = Member { node: node(*seed), name: format!("n{seed}"), quota: Quota::default() };
            list.members.push(member);
        }
        list.members.sort_by_key(|m| m.node);
        list
    }

    pub(crate) fn sign(list: MemberList) -> Verified<MemberList> {
        let network = list.founding.network();
        Verified::sign(list, &key(1), &network).unwrap()
    }

    #[test]
    fn a_list_is_in_order_and_its_keeper_is_in_it() {
        let check = |change: &dyn Fn(&mut MemberList)| {
            let mut changed = list(1, &[2, 3]);
            change(&mut changed);
            changed.check().is_ok()
        };
        assert!(check(&|_| ()));
        assert!(!check(&|l| l.members.reverse()));
        assert!(!check(&|l| l.members.retain(|m| m.node != node(1))));
        assert!(!check(&|l| l.members.iter_mut().for_each(|m| m.name = "same".to_owned())));
        assert!(!check(&|l| l.members[1].name = "No".to_owned()));
        assert!(!check(&|l| l.members[1] = l.members[0].clone()));
        assert!(!check(&|l| l.seq = 0));
        assert!(!check(&|l| l.founding.name = String::new()));
    }

    #[test]
    fn the_largest_list_can_be_signed_and_no_larger_one() {
        let keeper = founding().keeper;
        let quota = Quota { slots_at_once: Some(u32::MAX), slot_hours: Some(u32::MAX) };
        let mut large = list(u64::MAX, &[]);
        large.fence = Some(Fence([0xff; 8]));
        large.issued_at = Timestamp(u64::MAX);
        large.founding.name = "x".repeat(limits::CLUSTER_NAME_BYTES);
        large.members = (0..limits::CLUSTER_MEMBERS - 1)
            .map(|n| Member {
                node: NodeId(*blake3::hash(&n.to_be_bytes()).as_bytes()),
                name: format!("{n:032}"),
                quota,
            })
            .chain([Member { node: keeper, name: "k".repeat(32), quota }])
            .collect();
        large.members.sort_by_key(|m| m.node);
        let bytes = encode::to_bytes(&sign(large.clone()).to_signed()).len();
        assert!(bytes < MemberList::MAX_BYTES, "{bytes}");
        large.members.push(Member { node: NodeId([0xff; 32]), name: "more".to_owned(), quota });
        assert!(large.check().is_err());
    }

    #[test]
    fn a_list_of_another_cluster_or_by_another_key_is_refused() {
        let good = sign(list(3, &[2])).to_signed();
        let network = founding().network();
        assert_eq!(good.verify(&network).unwrap().seq, 3);
        assert!(good.verify(&NetworkId::of_name("lab")).is_err());

        // A member founds a cluster of its own, and signs its list as if for ours.
        let theirs = Founding { keeper: node(2), ..founding() };
        let mut list = list(9, &[2]);
        list.founding = theirs.clone();
        assert!(Verified::sign(list.clone(), &key(2), &network).is_err());
        let payload = encode::to_bytes(&list);
        let signature = key(2).sign(&signed::digest(MemberList::CONTEXT, &network, &payload).0);
        let wire = (serde_bytes::Bytes::new(&payload), serde_bytes::Bytes::new(&signature));
        let forged: Signed<MemberList> = encode::from_bytes(&encode::to_bytes(&wire), 10_000).unwrap();
        let why = forged.verify(&network).err().unwrap().to_string();
        assert!(
            why.contains("another cluster") || format!("{:?}", forged.verify(&network)).contains("another cluster")
        );
        // In its own cluster it holds.
        assert!(Verified::sign(list, &key(2), &theirs.network()).is_ok());
        // Nobody but the keeper signs ours.
        assert!(Verified::sign(super::tests::list(9, &[2]), &key(2), &network).is_err());
    }
}
