//! Which hosts are there, as this node has seen it: shares of 12-hour windows.
//!
//! A look counts only while we are connected to anybody: our own outage is nobody else's. A host is there if it has an offer that
//! is valid, which it must renew. Owns the windows of the newest 30 days of so many hosts.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    Millis, NodeId, Timestamp,
    opinion::{Observation, UPTIME_WINDOW},
};

/// Hosts looked at. Beyond it the one seen longest ago goes.
pub const HOSTS: usize = 4096;
/// Windows kept of one host: 30 days.
pub const WINDOWS: usize = 60;
/// Between two looks.
pub const EVERY: Millis = Millis::from_mins(1);
/// Looks that make a window worth telling of: an hour.
const LEAST: u32 = 60;

/// Looks in one window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Looks {
    /// All.
    pub all: u32,
    /// Those that found it.
    pub up: u32,
}

/// What was seen of hosts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Uptime {
    /// By host and number of the window.
    hosts: BTreeMap<NodeId, BTreeMap<u64, Looks>>,
    next_at: Timestamp,
}

impl Uptime {
    /// Looks for all hosts known, if it is time to: `there` are those with a valid offer.
    pub fn look(&mut self, there: impl IntoIterator<Item = NodeId>, online: bool, now: Timestamp) {
        // A clock that went back must not stop us from looking.
        self.next_at = self.next_at.min(now + EVERY);
        if now < self.next_at {
            return;
        }
        self.next_at = now + EVERY;
        if !online {
            return;
        }
        let there: BTreeSet<NodeId> = there.into_iter().collect();
        let window = now.0 / UPTIME_WINDOW.0;
        for host in &there {
            if self.hosts.len() < HOSTS || self.hosts.contains_key(host) || self.make_room(&there) {
                self.hosts.entry(*host).or_default();
            }
        }
        for (host, windows) in &mut self.hosts {
            let looks = windows.entry(window).or_default();
            looks.all += 1;
            looks.up += u32::from(there.contains(host));
            while windows.len() > WINDOWS {
                windows.pop_first();
            }
        }
        // Who has not been there in all the windows kept is forgotten.
        self.hosts.retain(|_, windows| windows.values().any(|looks| looks.up > 0));
    }

    /// Drops one host that is not there.
    fn make_room(&mut self, there: &BTreeSet<NodeId>) -> bool {
        let gone = self.hosts.keys().find(|host| !there.contains(host)).copied();
        gone.is_some_and(|host| self.hosts.remove(&host).is_some())
    }

    /// What can be said of each host by now.
    pub fn observations(&self) -> impl Iterator<Item = (NodeId, Timestamp, Observation)> + '_ {
        self.hosts.iter().flat_map(|(host, windows)| {
            let worth = windows.iter().filter(|(_, looks)| looks.all >= LEAST);
            worth.map(|(window, looks)| {
                let from = Timestamp(window.saturating_mul(UPTIME_WINDOW.0));
                let share = u64::from(looks.up.min(looks.all)) * 1000 / u64::from(looks.all.max(1));
                let up_permille = u16::try_from(share).unwrap_or(1000);
                (*host, from, Observation::Uptime { from, up_permille })
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId([n; 32])
    }

    fn seen(uptime: &Uptime) -> Vec<(NodeId, u16)> {
        let share = |o: &Observation| if let Observation::Uptime { up_permille, .. } = o { *up_permille } else { 0 };
        uptime.observations().map(|(host, _, o)| (host, share(&o))).collect()
    }

    #[test]
    fn who_is_away_loses_and_our_own_outage_is_nobodys() {
        let mut uptime = Uptime::default();
        let start = Timestamp(UPTIME_WINDOW.0 * 10);
        for minute in 0..200 {
            let now = start + Millis(EVERY.0 * minute);
            let there: &[NodeId] = if minute < 100 { &[node(1), node(2)] } else { &[node(1)] };
            uptime.look(there.iter().copied(), true, now);
            uptime.look(there.iter().copied(), true, now + Millis(1));
        }
        assert_eq!(seen(&uptime), [(node(1), 1000), (node(2), 500)]);
        let before = uptime.clone();
        for minute in 200..400 {
            uptime.look([], false, start + Millis(EVERY.0 * minute));
        }
        assert_eq!(seen(&uptime), seen(&before));
        // A few looks say nothing.
        uptime.look([node(3)], true, start + Millis(EVERY.0 * 500));
        assert!(!seen(&uptime).iter().any(|(host, _)| *host == node(3)));
    }

    #[test]
    fn windows_and_hosts_are_bounded() {
        let mut uptime = Uptime::default();
        for window in 0..200 {
            uptime.look([node(1)], true, Timestamp(UPTIME_WINDOW.0 * (window + 1)));
        }
        assert_eq!(uptime.hosts[&node(1)].len(), WINDOWS);
        let crowd = |n: u32| {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&n.to_be_bytes());
            NodeId(id)
        };
        let now = Timestamp(UPTIME_WINDOW.0 * 300);
        uptime.look((0..5000).map(crowd), true, now);
        assert!(uptime.hosts.len() <= HOSTS);
    }
}
