//! Who is known to have contradicted itself: which of all that could be known is remembered, and in what order it was learned.
//!
//! Keys are free, and so are forks of them: anybody can make as many valid proofs as it likes. So what is remembered is bounded,
//! and goes by whose forks could matter here ([`Concern`]): one that matters more never gives way to one that matters less. Among
//! equals a rank decides that only this node can compute, so that nobody can make keys that push out a given one. What is left
//! depends on what was told alone, not on the order in which it was.
//!
//! Owns names and concerns. The proofs themselves are in the ledger; who is asked for them, and told of them, is decided in
//! `heads`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{Digest, Keypair, NodeId, fork::FORKS_PAGE, limits};

/// Whether a key's fork could matter to a node. Only ever rises while the node runs, and is found out anew when it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Concern {
    /// Nobody here has heard of it. At most [`limits::STRANGE_PROOFS`] of these are kept.
    #[default]
    Nobody,
    /// It offers something in the book, or is connected.
    Seen,
    /// It is a party of leases or payments that others have shown evidence of.
    Heard,
    /// It has, or had, leases, payments or entries with this node, or is this node.
    Dealt,
}

/// What became of a name that was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is remembered.
    New {
        /// Who was forgotten for it.
        instead_of: Option<NodeId>,
    },
    /// It was known already.
    Known,
    /// Those that are remembered matter more.
    No,
}

/// Where somebody stands among those remembered: how much it matters, then its rank.
type Place = (Concern, [u8; 32]);

/// Those remembered.
#[derive(Debug)]
pub(super) struct Forks {
    /// What ranks are computed with; known to this node alone.
    secret: Digest,
    most: (usize, usize),
    rows: BTreeMap<NodeId, (Concern, u64)>,
    places: BTreeSet<(Place, NodeId)>,
    /// In the order in which they were learned.
    learned: BTreeMap<u64, NodeId>,
    next: u64,
    /// How many of them concern nobody.
    strange: usize,
}

impl Forks {
    /// Nobody is remembered yet; at most [`limits::PROOFS`] will be.
    pub(super) fn new(key: &Keypair) -> Self {
        Self::bounded(key, limits::PROOFS, limits::STRANGE_PROOFS)
    }

    /// As [`Forks::new`], for other bounds: of all, and of those that concern nobody.
    fn bounded(key: &Keypair, most: usize, strange: usize) -> Self {
        // A signature over what is no document: it is always the same, and never leaves the node.
        let seal = key.sign(&Digest::of(b"souk 2026-11 ranks of forks v1").0);
        Self {
            secret: Digest::of(&seal),
            most: (most, strange.min(most)),
            rows: BTreeMap::new(),
            places: BTreeSet::new(),
            learned: BTreeMap::new(),
            next: 1,
            strange: 0,
        }
    }

    pub(super) fn contains(&self, author: &NodeId) -> bool {
        self.rows.contains_key(author)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    fn place(&self, author: &NodeId, concern: Concern) -> (Place, NodeId) {
        let rank = Digest::of(&[self.secret.0, author.0].concat());
        ((concern, rank.0), *author)
    }

    /// Whoever would have to go, were there one more of this concern; none if there is room.
    fn last(&self, concern: Concern) -> Option<(Place, NodeId)> {
        let strange = concern == Concern::Nobody && self.strange >= self.most.1;
        // Those that concern nobody are the first.
        if strange || self.rows.len() >= self.most.0 { self.places.first().copied() } else { None }
    }

    /// Whether a proof about somebody would be kept.
    pub(super) fn would_take(&self, author: &NodeId, concern: Concern) -> bool {
        !self.contains(author) && self.last(concern).is_none_or(|last| last < self.place(author, concern))
    }

    /// Remembers somebody whose fork is proven, or that it matters more than was known.
    pub(super) fn take(&mut self, author: NodeId, concern: Concern) -> Taken {
        if self.contains(&author) {
            self.raise(&author, concern);
            return Taken::Known;
        }
        let last = self.last(concern);
        self.insert(author, concern, last)
    }

    /// Takes up one that was remembered before this start: who it concerns may show only later, so those that seem to concern
    /// nobody may be more than otherwise.
    pub(super) fn restore(&mut self, author: NodeId, concern: Concern) -> Taken {
        if self.contains(&author) {
            return Taken::Known;
        }
        let last = if self.rows.len() >= self.most.0 { self.places.first().copied() } else { None };
        self.insert(author, concern, last)
    }

    fn insert(&mut self, author: NodeId, concern: Concern, last: Option<(Place, NodeId)>) -> Taken {
        let place = self.place(&author, concern);
        if last.is_some_and(|last| place <= last) {
            return Taken::No;
        }
        let instead_of = last.map(|(_, node)| node);
        if let Some(node) = &instead_of {
            self.forget(node);
        }
        self.places.insert(place);
        self.learned.insert(self.next, author);
        self.rows.insert(author, (concern, self.next));
        self.next = self.next.saturating_add(1);
        self.strange += usize::from(concern == Concern::Nobody);
        Taken::New { instead_of }
    }

    /// Somebody matters more than was known; nothing happens if it is not remembered.
    pub(super) fn raise(&mut self, author: &NodeId, concern: Concern) {
        if let Some((was, n)) = self.rows.get(author).copied().filter(|(was, _)| *was < concern) {
            let (before, after) = (self.place(author, was), self.place(author, concern));
            self.places.remove(&before);
            self.places.insert(after);
            self.rows.insert(*author, (concern, n));
            self.strange -= usize::from(was == Concern::Nobody);
        }
    }

    fn forget(&mut self, author: &NodeId) {
        if let Some((concern, n)) = self.rows.remove(author) {
            let place = self.place(author, concern);
            self.places.remove(&place);
            self.learned.remove(&n);
            self.strange -= usize::from(concern == Concern::Nobody);
        }
    }

    /// Those learned after the one with this number, at most a page of them, and the number up to which there are no others.
    pub(super) fn after(&self, n: u64) -> (Vec<NodeId>, u64) {
        // Nobody can name a number that was not given away.
        let from = if n < self.next { n.saturating_add(1) } else { 0 };
        let page: Vec<(u64, NodeId)> = self.learned.range(from..).take(FORKS_PAGE).map(|(n, id)| (*n, *id)).collect();
        let end = if page.len() < FORKS_PAGE { None } else { page.last().map(|(n, _)| *n) };
        (page.into_iter().map(|(_, id)| id).collect(), end.unwrap_or(self.next - 1))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::machine::testkit::key;

    fn node(n: u32) -> NodeId {
        NodeId(Digest::of(&n.to_be_bytes()).0)
    }

    fn table(most: usize, strange: usize) -> Forks {
        Forks::bounded(&key(1), most, strange)
    }

    fn kept(forks: &Forks) -> BTreeMap<NodeId, Concern> {
        assert_eq!(forks.rows.len(), forks.places.len());
        assert_eq!(forks.rows.len(), forks.learned.len());
        assert_eq!(forks.strange, forks.rows.values().filter(|(c, _)| *c == Concern::Nobody).count());
        forks.rows.iter().map(|(id, (concern, _))| (*id, *concern)).collect()
    }

    #[test]
    fn one_that_matters_stays_whatever_number_of_others_comes() {
        let mut forks = table(100, 20);
        let matter = [(node(1), Concern::Dealt), (node(2), Concern::Heard), (node(3), Concern::Seen)];
        for (id, concern) in matter {
            assert_eq!(forks.take(id, concern), Taken::New { instead_of: None });
        }
        for n in 100..20_100 {
            forks.take(node(n), Concern::Nobody);
            assert!(forks.len() <= 23, "{}", forks.len());
        }
        assert!(matter.iter().all(|(id, _)| forks.contains(id)));
        // Strangers that show themselves push out strangers, and one another, and nobody that was heard of or dealt with.
        for n in 30_000..50_000 {
            forks.take(node(n), Concern::Seen);
            assert!(forks.len() <= 100);
        }
        assert!(forks.contains(&node(1)) && forks.contains(&node(2)));
        assert!(!kept(&forks).values().any(|c| *c == Concern::Nobody));
        // There is always room for one that matters more.
        assert!(forks.would_take(&node(7), Concern::Heard));
        assert!(matches!(forks.take(node(7), Concern::Heard), Taken::New { instead_of: Some(_) }));
    }

    #[test]
    fn what_is_left_does_not_depend_on_the_order() {
        let concern = |n: u32| match n % 7 {
            0 => Concern::Dealt,
            1 | 2 => Concern::Heard,
            3 => Concern::Seen,
            _ => Concern::Nobody,
        };
        let all: Vec<u32> = (0..200).collect();
        let mut turned = all.clone();
        let filled = |order: &[u32]| {
            let mut forks = table(90, 30);
            for n in order {
                forks.take(node(*n), concern(*n));
            }
            kept(&forks)
        };
        let first = filled(&all);
        assert_eq!(first.len(), 90);
        for shift in [1, 17, 63, 120] {
            turned.rotate_left(shift);
            turned.reverse();
            assert_eq!(filled(&turned), first, "{shift}");
        }
        // What would not be kept is known before its proof is asked for.
        let mut forks = table(90, 30);
        for n in all {
            let would = forks.would_take(&node(n), concern(n));
            assert_eq!(would, matches!(forks.take(node(n), concern(n)), Taken::New { .. }));
        }
    }

    #[test]
    fn another_node_ranks_otherwise_so_that_nobody_can_choose_its_keys_by_it() {
        let (mut one, mut other) = (table(50, 50), Forks::bounded(&key(2), 50, 50));
        for n in 0..500 {
            one.take(node(n), Concern::Nobody);
            other.take(node(n), Concern::Nobody);
        }
        assert_ne!(kept(&one), kept(&other));
    }

    #[test]
    fn a_concern_rises_and_does_not_sink() {
        let mut forks = table(2, 2);
        forks.take(node(1), Concern::Nobody);
        assert_eq!(forks.take(node(1), Concern::Dealt), Taken::Known);
        assert_eq!(forks.take(node(1), Concern::Seen), Taken::Known);
        forks.raise(&node(9), Concern::Dealt);
        assert_eq!(kept(&forks), BTreeMap::from([(node(1), Concern::Dealt)]));
        for n in 2..100 {
            forks.take(node(n), Concern::Heard);
        }
        assert!(forks.contains(&node(1)));
        assert_eq!(forks.len(), 2);
    }

    #[test]
    fn they_are_told_in_pages_each_once_and_only_the_new_ones_after() {
        let mut forks = table(10_000, 10_000);
        assert_eq!(forks.after(0), (vec![], 0));
        let count = FORKS_PAGE as u32 * 2 + 5;
        for n in 0..count {
            forks.take(node(n), Concern::Seen);
        }
        let (mut told, mut at) = (Vec::new(), 0);
        for _ in 0..3 {
            let (page, end) = forks.after(at);
            told.extend(page);
            at = end;
        }
        assert_eq!(told, (0..count).map(node).collect::<Vec<_>>());
        assert_eq!(forks.after(at), (vec![], at));
        forks.take(node(count), Concern::Seen);
        assert_eq!(forks.after(at), (vec![node(count)], at + 1));
        // A number that was never given away begins again.
        assert_eq!(forks.after(u64::MAX).0.len(), FORKS_PAGE);
    }
}
