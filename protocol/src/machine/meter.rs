//! Counts what a lease uses, by the state it is in.
//!
//! Owns the counters. Time counts only between two calls, so what passes while the node is down counts for nothing.

use crate::{
    lease::LeaseState,
    money::Counters,
    time::{Millis, Timestamp},
};

/// A lease's meter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meter {
    counters: Counters,
    state: LeaseState,
    /// Whether the instance's disk exists.
    disk: bool,
    counted_to: Timestamp,
    /// Compute is not counted past this: the contract's end.
    compute_until: Timestamp,
}

impl Meter {
    /// A meter that goes on from `counters`, from now. It counts no compute past `compute_until`, however late it is asked.
    #[must_use]
    pub const fn new(
        counters: Counters,
        state: LeaseState,
        disk: bool,
        compute_until: Timestamp,
        now: Timestamp,
    ) -> Self {
        Self { counters, state, disk, counted_to: now, compute_until }
    }

    /// Counts up to `now`. A clock that went back counts nothing until it has caught up.
    pub fn advance(&mut self, now: Timestamp) {
        let passed = now.since(self.counted_to);
        let computed = Timestamp(now.0.min(self.compute_until.0)).since(self.counted_to);
        self.counted_to = self.counted_to.max(now);
        if passed.0 == 0 {
            return;
        }
        let add = |counter: &mut Millis, time: Millis| counter.0 = counter.0.saturating_add(time.0);
        match self.state {
            LeaseState::Running => add(&mut self.counters.active, computed),
            LeaseState::Paused(_) => add(&mut self.counters.paused, passed),
            LeaseState::Preparing | LeaseState::Ended(_) => {}
        }
        if self.disk && !self.state.is_ended() {
            add(&mut self.counters.storage, passed);
        }
    }

    /// Counts up to `now` in the old state, and from then on in the new one.
    pub fn enter(&mut self, state: LeaseState, now: Timestamp) {
        self.advance(now);
        self.state = state;
    }

    /// The disk exists from now on.
    pub fn disk_created(&mut self, now: Timestamp) {
        self.advance(now);
        self.disk = true;
    }

    /// Takes over traffic counters, which never shrink.
    pub fn traffic(&mut self, rx_bytes: u64, tx_bytes: u64) {
        self.counters.rx_bytes = self.counters.rx_bytes.max(rx_bytes);
        self.counters.tx_bytes = self.counters.tx_bytes.max(tx_bytes);
    }

    /// Whether the instance's disk exists.
    #[must_use]
    pub const fn has_disk(&self) -> bool {
        self.disk
    }

    /// Up to when has been counted.
    #[must_use]
    pub const fn counted_to(&self) -> Timestamp {
        self.counted_to
    }

    /// What has been counted.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::lease::{EndReason, PauseReason};
    use proptest::prelude::*;

    #[test]
    fn only_running_is_billed_and_the_disk_from_its_creation() {
        let mut meter =
            Meter::new(Counters::default(), LeaseState::Preparing, false, Timestamp(u64::MAX), Timestamp(0));
        meter.disk_created(Timestamp(100));
        meter.enter(LeaseState::Running, Timestamp(150));
        meter.enter(LeaseState::Paused(PauseReason::Stopped), Timestamp(1150));
        meter.enter(LeaseState::Ended(EndReason::Destroyed), Timestamp(2000));
        meter.advance(Timestamp(9000));
        let c = meter.counters();
        assert_eq!((c.active.0, c.paused.0, c.storage.0), (1000, 850, 1900));
    }

    proptest! {
        #[test]
        fn counters_never_shrink_nor_outrun_the_clock(times in proptest::collection::vec((0u64..10_000, 0u8..4), 1..50)) {
            let mut meter = Meter::new(Counters::default(), LeaseState::Preparing, true, Timestamp(9_000), Timestamp(0));
            let mut last = *meter.counters();
            let mut latest = 0;
            for (at, state) in times {
                let state = [LeaseState::Preparing, LeaseState::Running, LeaseState::Paused(PauseReason::Exited), LeaseState::Running][usize::from(state)];
                meter.enter(state, Timestamp(at));
                latest = latest.max(at);
                let now = *meter.counters();
                prop_assert!(now.covers(&last));
                prop_assert!(now.active.0 + now.paused.0 <= latest && now.storage.0 == latest && now.active.0 <= 9_000);
                last = now;
            }
        }
    }
}
