//! Standing orders: rules for renting by itself, when a match comes or when a host is lost.
//!
//! Pure: which ask may be tried when, and when a host counts as lost. What is on disk, and who rents, is the node's.

use std::collections::BTreeMap;

use crate::{
    AskId, Millis, NodeId, Timestamp,
    lease::{EndReason, LeaseState},
};

/// After a first failure an ask is left alone for this long, and twice as long after each further one …
const AGAIN: (Millis, Millis) = (Millis::from_secs(15), Millis::from_mins(10));
/// … and a host that lost the lease to be replaced for this long.
const LOST_HOST: Millis = Millis::from_hours(1);
/// Asks and hosts remembered.
const REMEMBERED: usize = 1024;

/// What an order has tried in vain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tried {
    asks: BTreeMap<AskId, (u32, Timestamp)>,
    hosts: BTreeMap<NodeId, Timestamp>,
}

impl Tried {
    /// Whether an ask may be tried now.
    #[must_use]
    pub fn may_try(&self, ask: &AskId, host: &NodeId, now: Timestamp) -> bool {
        let rested = self.asks.get(ask).is_none_or(|(_, until)| now >= *until);
        rested && self.hosts.get(host).is_none_or(|until| now >= *until)
    }

    /// It was tried in vain. Returns until when it is left alone.
    pub fn failed(&mut self, ask: AskId, now: Timestamp) -> Timestamp {
        if self.asks.len() >= REMEMBERED {
            self.asks.retain(|_, (_, until)| *until > now);
        }
        if self.asks.len() >= REMEMBERED {
            self.asks.pop_first();
        }
        let times = self.asks.get(&ask).map_or(0, |(times, _)| *times);
        let rest = Millis((AGAIN.0.0 << times.min(16)).min(AGAIN.1.0));
        self.asks.insert(ask, (times.saturating_add(1), now + rest));
        now + rest
    }

    /// This host has lost a lease that is being replaced.
    pub fn lost(&mut self, host: NodeId, now: Timestamp) {
        if self.hosts.len() >= REMEMBERED {
            self.hosts.pop_first();
        }
        self.hosts.insert(host, now + LOST_HOST);
    }
}

/// What became of a lease that is to be replaced when its host is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watched {
    /// It goes on.
    Fine,
    /// It is over by the renter's doing, or as agreed: nothing is to be replaced.
    Over,
    /// The host has ended it, or is gone for too long.
    Lost,
}

/// Judges a lease in this state, whose host has not been connected since `gone_since`, if it is not.
#[must_use]
pub fn watch(state: LeaseState, gone_since: Option<Timestamp>, patience: Millis, now: Timestamp) -> Watched {
    match state {
        LeaseState::Ended(reason) if reason.is_hosts_doing() => Watched::Lost,
        LeaseState::Ended(EndReason::Unconfirmed) => Watched::Lost,
        LeaseState::Ended(_) => Watched::Over,
        LeaseState::Preparing | LeaseState::Running | LeaseState::Kept | LeaseState::Paused(_) => {
            let lost = gone_since.is_some_and(|since| now.since(since) >= patience);
            if lost { Watched::Lost } else { Watched::Fine }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::lease::PauseReason;

    const HOST: NodeId = NodeId([1; 32]);
    const ASK: AskId = AskId([2; 8]);

    #[test]
    fn a_failed_ask_rests_longer_each_time() {
        let mut tried = Tried::default();
        let mut now = Timestamp(0);
        let mut before = Millis(0);
        for _ in 0..40 {
            assert!(tried.may_try(&ASK, &HOST, now));
            let until = tried.failed(ASK, now);
            assert!(!tried.may_try(&ASK, &HOST, Timestamp(until.0 - 1)));
            let rest = until.since(now);
            assert!(rest >= before && rest <= AGAIN.1);
            (before, now) = (rest, until);
        }
    }

    #[test]
    fn a_lost_host_is_not_rented_from_again_soon() {
        let mut tried = Tried::default();
        tried.lost(HOST, Timestamp(0));
        assert!(!tried.may_try(&ASK, &HOST, Timestamp(1)));
        assert!(tried.may_try(&ASK, &HOST, Timestamp(LOST_HOST.0)));
    }

    #[test]
    fn only_the_hosts_doing_and_long_silence_are_losses() {
        let judge = |state, gone| watch(state, gone, Millis(100), Timestamp(1000));
        assert_eq!(judge(LeaseState::Running, None), Watched::Fine);
        assert_eq!(judge(LeaseState::Running, Some(Timestamp(901))), Watched::Fine);
        assert_eq!(judge(LeaseState::Running, Some(Timestamp(900))), Watched::Lost);
        assert_eq!(judge(LeaseState::Paused(PauseReason::Outbid), None), Watched::Fine);
        assert_eq!(judge(LeaseState::Ended(EndReason::ContainerLost), None), Watched::Lost);
        assert_eq!(judge(LeaseState::Ended(EndReason::Destroyed), Some(Timestamp(0))), Watched::Over);
    }

    proptest! {
        #[test]
        fn memory_is_bounded(asks in proptest::collection::vec(any::<[u8; 8]>(), 0..3000)) {
            let mut tried = Tried::default();
            for ask in asks {
                tried.failed(AskId(ask), Timestamp(5));
            }
            prop_assert!(tried.asks.len() <= REMEMBERED);
        }
    }
}
