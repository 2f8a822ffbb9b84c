//! A member's view of its cluster: the newest list it has seen.

use super::list::{Member, MemberList, Quota};
use crate::{
    id::{DocumentId, NodeId},
    signed::Verified,
    time::Timestamp,
};

/// The least characters of an id that stand for a member: all ids begin with the same eight.
const PREFIX_CHARS: usize = 12;

/// The newest list.
#[derive(Debug, Clone)]
pub struct Roster {
    list: Verified<MemberList>,
}

/// What became of a list that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adoption {
    /// It holds from now on.
    Adopted {
        /// On it, and not on the one before.
        joined: Vec<NodeId>,
        /// On the one before, and not on it.
        left: Vec<NodeId>,
        /// Whether the shared key is another one.
        rekeyed: bool,
    },
    /// A newer one is known.
    Stale,
    /// It is the one that holds.
    Same,
}

/// The list is another cluster's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the member list is another cluster's")]
pub struct AnotherCluster;

/// No member is meant by a text, or more than one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotFound {
    /// None.
    #[error("no member of the cluster has the name or id `{0}`: see `souk cluster members`")]
    Nobody(String),
    /// Which of them?
    #[error("more than one member's id begins or ends with `{0}`: write more of it, or the name")]
    Ambiguous(String),
}

impl Roster {
    /// Begins with this list.
    #[must_use]
    pub const fn new(list: Verified<MemberList>) -> Self {
        Self { list }
    }

    /// The list that holds.
    #[must_use]
    pub const fn list(&self) -> &Verified<MemberList> {
        &self.list
    }

    /// Takes a list if it is newer.
    ///
    /// # Errors
    /// [`AnotherCluster`], and nothing changes.
    pub fn adopt(&mut self, list: Verified<MemberList>) -> Result<Adoption, AnotherCluster> {
        if list.founding != self.list.founding {
            return Err(AnotherCluster);
        }
        if list.id() == self.list.id() {
            return Ok(Adoption::Same);
        }
        if age(&list) < age(&self.list) {
            return Ok(Adoption::Stale);
        }
        let without = |a: &MemberList, b: &MemberList| -> Vec<NodeId> {
            a.members.iter().map(|m| m.node).filter(|node| b.member(node).is_none()).collect()
        };
        let (joined, left) = (without(&list, &self.list), without(&self.list, &list));
        let rekeyed = list.fence != self.list.fence;
        self.list = list;
        Ok(Adoption::Adopted { joined, left, rekeyed })
    }

    /// Whether a node is in the cluster.
    #[must_use]
    pub fn is_member(&self, node: &NodeId) -> bool {
        self.list.member(node).is_some()
    }

    /// What a member may use; none if it is no member.
    #[must_use]
    pub fn quota_of(&self, node: &NodeId) -> Option<Quota> {
        self.list.member(node).map(|m| m.quota)
    }

    /// A member's name.
    #[must_use]
    pub fn name_of(&self, node: &NodeId) -> Option<&str> {
        self.list.member(node).map(|m| m.name.as_str())
    }

    /// The member that a person means: by its name, its id, the first characters of that, at least twelve, or its last eight.
    ///
    /// # Errors
    /// [`NotFound`]: no member, or more than one.
    pub fn find(&self, text: &str) -> Result<&Member, NotFound> {
        let text = text.trim();
        let shown = || text.chars().take(80).collect::<String>();
        if let Some(named) = self.list.members.iter().find(|m| m.name == text) {
            return Ok(named);
        }
        let meant = |m: &&Member| {
            let id = m.node.to_string();
            (text.len() >= PREFIX_CHARS && id.starts_with(text)) || m.node.short() == text
        };
        let mut found = self.list.members.iter().filter(meant);
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one),
            (Some(_), Some(_)) => Err(NotFound::Ambiguous(shown())),
            (None, _) => Err(NotFound::Nobody(shown())),
        }
    }
}

/// The newer of two lists is the greater. A keeper restored from a copy may give one number twice: then, too, all members come to
/// hold the same one.
fn age(list: &Verified<MemberList>) -> (u64, Timestamp, DocumentId) {
    (list.seq, list.issued_at, list.id())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::cluster::{
        Fence,
        list::tests::{list, node, sign},
    };

    #[test]
    fn the_newest_list_holds_and_says_who_came_and_went() {
        let mut roster = Roster::new(sign(list(1, &[2])));
        let mut next = list(2, &[3, 4]);
        next.fence = Some(Fence([1; 8]));
        let next = sign(next);
        let Adoption::Adopted { mut joined, left, rekeyed } = roster.adopt(next.clone()).unwrap() else { panic!() };
        joined.sort_unstable();
        let mut expected = vec![node(3), node(4)];
        expected.sort_unstable();
        assert_eq!((joined, left, rekeyed), (expected, vec![node(2)], true));
        assert_eq!(roster.adopt(next), Ok(Adoption::Same));
        assert_eq!(roster.adopt(sign(list(1, &[2]))), Ok(Adoption::Stale));
        assert!(roster.is_member(&node(3)) && !roster.is_member(&node(2)));
        assert_eq!((roster.quota_of(&node(2)), roster.name_of(&node(3))), (None, Some("n3")));
    }

    #[test]
    fn another_clusters_list_changes_nothing() {
        let mut roster = Roster::new(sign(list(1, &[2])));
        let mut other = list(9, &[]);
        other.founding.salt = [0; 16];
        assert_eq!(roster.adopt(sign(other)), Err(AnotherCluster));
        assert_eq!(roster.list().seq, 1);
    }

    #[test]
    fn a_member_is_found_by_name_or_id() {
        let roster = Roster::new(sign(list(1, &[2, 3])));
        let id = node(2).to_string();
        for text in ["n2", id.as_str(), &id[..14], &id[id.len() - 8..], " n2 "] {
            assert_eq!(roster.find(text).unwrap().node, node(2), "{text}");
        }
        assert_eq!(roster.find("n9"), Err(NotFound::Nobody("n9".to_owned())));
        assert_eq!(roster.find("12D3KooW"), Err(NotFound::Nobody("12D3KooW".to_owned())));
        assert!(roster.find(&"x".repeat(10_000)).unwrap_err().to_string().len() < 200);
    }

    proptest! {
        /// In whatever order lists come, and also if two have the same number: all members end up with the same one.
        #[test]
        fn all_members_come_to_hold_the_same_list(order in Just((0..6usize).collect::<Vec<_>>()).prop_shuffle()) {
            let lists: Vec<_> = [(1, vec![]), (2, vec![2]), (2, vec![3]), (3, vec![2, 3]), (3, vec![4]), (3, vec![])]
                .into_iter().map(|(seq, seeds)| sign(list(seq, &seeds))).collect();
            let mut roster = Roster::new(lists[order[0]].clone());
            for at in &order {
                roster.adopt(lists[*at].clone()).unwrap();
            }
            let newest = lists.iter().max_by_key(|l| age(l)).unwrap();
            prop_assert_eq!(roster.list().id(), newest.id());
        }
    }
}
