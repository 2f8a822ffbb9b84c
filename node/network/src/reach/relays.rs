//! Which peers relay for this node while others can't dial it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId};

use crate::schedule::Schedule;

/// Relays wanted at once: one may go.
const WANTED: usize = 2;
/// The first wait after a relay refused or was lost.
const FIRST: Duration = Duration::from_secs(5);
/// The longest.
const LAST: Duration = Duration::from_secs(15 * 60);
/// Peers remembered for having refused; more, and all are forgotten.
const MAX_REFUSED: usize = 256;

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Ask this peer, connected at this address, for a place.
    Reserve(PeerId, Multiaddr),
    /// Give the place back.
    Leave(PeerId),
}

/// The places asked for and had.
#[derive(Debug)]
pub(crate) struct Relays {
    /// Whether the place is had.
    places: BTreeMap<PeerId, bool>,
    refused: Schedule<PeerId>,
}

impl Default for Relays {
    fn default() -> Self {
        Self { places: BTreeMap::new(), refused: Schedule::new(FIRST, LAST) }
    }
}

impl Relays {
    /// What is due: `wanted` says whether others can't dial this node, `offered` who relays, the best first.
    pub(crate) fn due(&mut self, wanted: bool, offered: &[(PeerId, Multiaddr)], now: Instant) -> Vec<Step> {
        if !wanted {
            return std::mem::take(&mut self.places).into_keys().map(Step::Leave).collect();
        }
        // Whose wait is over may be asked again; its failures are kept.
        self.refused.due(now);
        let mut steps = Vec::new();
        for (peer, address) in offered {
            if self.places.len() >= WANTED {
                break;
            }
            if !self.places.contains_key(peer) && !self.refused.is_pending(peer) {
                self.places.insert(*peer, false);
                steps.push(Step::Reserve(*peer, address.clone()));
            }
        }
        steps
    }

    /// A relay has given the place.
    pub(crate) fn had(&mut self, peer: PeerId) {
        if let Some(had) = self.places.get_mut(&peer) {
            *had = true;
            self.refused.remove(&peer);
        }
    }

    /// A relay has refused, or the place is lost.
    pub(crate) fn lost(&mut self, peer: PeerId, now: Instant, jitter: f64) {
        if self.places.remove(&peer).is_some() {
            if self.refused.len() >= MAX_REFUSED {
                self.refused = Schedule::new(FIRST, LAST);
            }
            self.refused.failed(peer, now, jitter);
        }
    }

    /// The relays that have a place for this node.
    pub(crate) fn having(&self) -> impl Iterator<Item = &PeerId> {
        self.places.iter().filter(|(_, had)| **had).map(|(peer, _)| peer)
    }

    /// When one that refused may be asked again.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.refused.deadline()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn two_are_asked_others_stand_in_and_all_are_left_when_none_is_needed() {
        let now = Instant::now();
        let mut relays = Relays::default();
        let offered: Vec<(PeerId, Multiaddr)> =
            (1..=3).map(|n| (PeerId::random(), format!("/ip4/8.8.8.{n}/tcp/1").parse().unwrap())).collect();
        let peer = |n: usize| offered[n].0;
        let ask = |n: usize| Step::Reserve(peer(n), offered[n].1.clone());
        assert_eq!(relays.due(false, &offered, now), []);
        assert_eq!(relays.due(true, &offered, now), [ask(0), ask(1)]);
        assert_eq!(relays.due(true, &offered, now), []);
        relays.had(peer(0));
        assert_eq!(relays.having().collect::<Vec<_>>(), [&peer(0)]);
        relays.lost(peer(1), now, 0.5);
        assert_eq!(relays.due(true, &offered, now), [ask(2)], "the one that refused is left alone");
        relays.lost(peer(2), now, 0.5);
        assert_eq!(relays.due(true, &offered, now), []);
        let later = relays.deadline().unwrap();
        assert_eq!(relays.due(true, &offered, later).len(), 1);
        let left = relays.due(false, &offered, later);
        assert_eq!(left.len(), 2);
        assert_eq!(relays.having().count(), 0);
    }

    #[test]
    fn who_refuses_again_and_again_is_asked_ever_more_seldom() {
        let (mut now, start) = (Instant::now(), Instant::now());
        let mut relays = Relays::default();
        let offered = [(PeerId::random(), "/ip4/8.8.8.1/tcp/1".parse().unwrap())];
        let mut asked = 0;
        while now < start + Duration::from_secs(3600) {
            for _ in relays.due(true, &offered, now) {
                asked += 1;
                relays.lost(offered[0].0, now, 0.5);
            }
            now += Duration::from_secs(1);
        }
        assert!((5..=13).contains(&asked), "asked {asked} times in an hour");
    }
}
