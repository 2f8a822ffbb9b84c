//! What each member of a private cluster has used of this host lately, in slots times time, hour by hour.
//!
//! Owns the counts, within [`limits::QUOTA_WINDOW`]; what a member may use is on its cluster's list.

use std::collections::BTreeMap;

use crate::{Millis, NodeId, Timestamp, limits};

const HOUR_MS: u64 = 3_600_000;
/// Nodes whose use is remembered: members, and some that were.
const NODES: usize = 2 * limits::CLUSTER_MEMBERS;

/// Slots times milliseconds of each node, by the hour in which they were used.
#[derive(Debug, Clone, Default)]
pub(super) struct Uses {
    of: BTreeMap<NodeId, BTreeMap<u64, u64>>,
}

impl Uses {
    /// So much was used at that time. What is older than the window is not kept; nor are the counts of more nodes than there is room
    /// for: those of nobody in `members` go first.
    pub(super) fn add(
        &mut self,
        node: NodeId,
        slot_ms: u64,
        at: Timestamp,
        now: Timestamp,
        members: impl Fn(&NodeId) -> bool,
    ) {
        let hour = at.0.min(now.0) / HOUR_MS;
        if slot_ms == 0 || leaves_at(hour) <= now {
            return;
        }
        if !self.of.contains_key(&node) && self.of.len() >= NODES {
            self.of.retain(|known, hours| members(known) && hours.keys().any(|hour| leaves_at(*hour) > now));
        }
        if !self.of.contains_key(&node) && self.of.len() >= NODES {
            return;
        }
        let hours = self.of.entry(node).or_default();
        hours.retain(|hour, _| leaves_at(*hour) > now);
        let used = hours.entry(hour).or_default();
        *used = used.saturating_add(slot_ms);
    }

    /// What a node has used within the window that ends now.
    pub(super) fn within(&self, node: &NodeId, now: Timestamp) -> u64 {
        self.lately(node, now).fold(0, |sum, (_, used)| sum.saturating_add(used))
    }

    /// When a node's use falls below this, if it uses no more; now if it is below.
    pub(super) fn below_at(&self, node: &NodeId, slot_ms: u64, now: Timestamp) -> Timestamp {
        let mut left = self.within(node, now);
        let mut at = now;
        for (hour, used) in self.lately(node, now) {
            if left < slot_ms {
                break;
            }
            left = left.saturating_sub(used);
            at = leaves_at(hour);
        }
        at
    }

    fn lately(&self, node: &NodeId, now: Timestamp) -> impl Iterator<Item = (u64, u64)> + '_ {
        let hours = self.of.get(node).into_iter().flatten();
        hours.map(|(hour, used)| (*hour, *used)).filter(move |(hour, _)| leaves_at(*hour) > now)
    }
}

/// When the last of what was used in an hour is out of the window.
fn leaves_at(hour: u64) -> Timestamp {
    Timestamp(hour.saturating_add(1).saturating_mul(HOUR_MS)) + limits::QUOTA_WINDOW
}

/// So many slot hours.
pub(super) fn slot_hours(hours: u32) -> u64 {
    Millis::from_hours(u64::from(hours)).0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp(500_000 * HOUR_MS);

    fn node(n: u16) -> NodeId {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&n.to_be_bytes());
        NodeId(id)
    }

    #[test]
    fn use_is_forgotten_an_hour_at_a_time() {
        let mut uses = Uses::default();
        let (first, second) = (NOW, NOW + Millis(HOUR_MS));
        uses.add(node(1), 10, first, second, |_| true);
        uses.add(node(1), 5, second, second, |_| true);
        assert_eq!((uses.within(&node(1), second), uses.within(&node(2), second)), (15, 0));
        let gone = first + Millis(HOUR_MS) + limits::QUOTA_WINDOW;
        assert_eq!(uses.within(&node(1), Timestamp(gone.0 - 1)), 15);
        assert_eq!(uses.within(&node(1), gone), 5);
        assert_eq!(uses.below_at(&node(1), 15, second), gone);
        assert_eq!(uses.below_at(&node(1), 5, second), gone + Millis(HOUR_MS));
        assert_eq!(uses.below_at(&node(1), 16, second), second);
    }

    #[test]
    fn strangers_make_room_for_members() {
        let mut uses = Uses::default();
        let nodes = u16::try_from(NODES).unwrap();
        for n in 0..nodes {
            uses.add(node(n), 1, NOW, NOW, |_| true);
        }
        uses.add(node(nodes), 1, NOW, NOW, |_| true);
        assert_eq!(uses.within(&node(nodes), NOW), 0, "all are members, which can't be");
        uses.add(node(nodes), 1, NOW, NOW, |known| *known < node(1024));
        assert_eq!((uses.within(&node(nodes), NOW), uses.within(&node(5), NOW), uses.of.len()), (1, 1, 1025));
    }

    proptest! {
        #[test]
        fn counts_stay_bounded(adds in proptest::collection::vec((0u64..2_000, any::<u64>()), 0..200)) {
            let mut uses = Uses::default();
            for (hours, slot_ms) in adds {
                let now = NOW + Millis::from_hours(hours);
                uses.add(node(1), slot_ms, Timestamp(now.0.saturating_sub(slot_ms)), now, |_| true);
                let _ = uses.within(&node(1), now);
                prop_assert!(uses.below_at(&node(1), slot_ms, now) >= now);
                prop_assert!(uses.of.get(&node(1)).is_none_or(|hours| hours.len() <= 722));
            }
        }
    }
}
