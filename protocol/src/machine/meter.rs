//! Counts what a lease uses, by the state it is in.
//!
//! Owns the counters. Time counts only between two calls, so what passes while the node is down counts for nothing.
//!
//! A run that others cut before its quantum is free. So that no amount ever shrinks, what runs within its quantum is kept apart
//! and not counted until the quantum is over, or the run has ended for another reason.

use crate::{
    lease::{LeaseState, PauseReason},
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
    /// A run shorter than this is free if others cut it; zero where none does.
    quantum: Millis,
    /// What has run within the quantum of the present run, and is not counted yet.
    apart: Millis,
    /// Whether the present run is past its quantum.
    counts: bool,
}

impl Meter {
    /// A meter that goes on from `counters`, from now. It counts no compute past `compute_until`, however late it is asked.
    #[must_use]
    pub const fn new(
        counters: Counters,
        state: LeaseState,
        disk: bool,
        compute_until: Timestamp,
        quantum: Millis,
        now: Timestamp,
    ) -> Self {
        Self { counters, state, disk, counted_to: now, compute_until, quantum, apart: Millis(0), counts: false }
    }

    /// The contract ends at another time.
    pub const fn compute_until(&mut self, ends_at: Timestamp) {
        self.compute_until = ends_at;
    }

    /// Counts what has run so far, and begins another quantum: the renter changes the terms, or an agreed price holds.
    pub fn price_changes(&mut self, now: Timestamp) {
        self.advance(now);
        self.count_apart();
        self.counts = false;
    }

    fn count_apart(&mut self) {
        self.counters.active.0 = self.counters.active.0.saturating_add(self.apart.0);
        self.apart = Millis(0);
    }

    fn run(&mut self, time: Millis) {
        if self.counts || self.quantum.0 == 0 {
            self.counters.active.0 = self.counters.active.0.saturating_add(time.0);
            return;
        }
        self.apart.0 = self.apart.0.saturating_add(time.0);
        if self.apart >= self.quantum {
            self.counts = true;
            self.count_apart();
        }
    }

    /// Counts up to `now`. A clock that went back counts nothing until it has caught up.
    pub fn advance(&mut self, now: Timestamp) {
        let passed = now.since(self.counted_to);
        let computed = Timestamp(now.0.min(self.compute_until.0)).since(self.counted_to);
        self.counted_to = self.counted_to.max(now);
        if passed.0 == 0 {
            return;
        }
        match self.state {
            LeaseState::Running => self.run(computed),
            LeaseState::Paused(_) => self.counters.paused.0 = self.counters.paused.0.saturating_add(passed.0),
            LeaseState::Preparing | LeaseState::Kept | LeaseState::Ended(_) => {}
        }
        if self.disk && !self.state.is_ended() {
            self.counters.storage.0 = self.counters.storage.0.saturating_add(passed.0);
        }
    }

    /// Counts up to `now` in the old state, and from then on in the new one.
    pub fn enter(&mut self, state: LeaseState, now: Timestamp) {
        self.advance(now);
        if state == LeaseState::Paused(PauseReason::Outbid) {
            self.counters.waived.0 = self.counters.waived.0.saturating_add(self.apart.0);
        }
        if state != LeaseState::Running {
            self.count_apart();
            self.counts = false;
        }
        self.state = state;
    }

    /// So much of what ran is not billed.
    pub fn waive(&mut self, time: Millis, now: Timestamp) {
        self.advance(now);
        let waived = self.counters.waived.0.saturating_add(time.0);
        self.counters.waived = Millis(waived.min(self.counters.active.0));
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

    /// What has been counted, and what will be unless others cut the present run within its quantum.
    #[must_use]
    pub const fn expected(&self) -> Counters {
        Counters { active: Millis(self.counters.active.0.saturating_add(self.apart.0)), ..self.counters }
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
            Meter::new(Counters::default(), LeaseState::Preparing, false, Timestamp(u64::MAX), Millis(0), Timestamp(0));
        meter.disk_created(Timestamp(100));
        meter.enter(LeaseState::Running, Timestamp(150));
        meter.enter(LeaseState::Paused(PauseReason::Stopped), Timestamp(1150));
        meter.enter(LeaseState::Ended(EndReason::Destroyed), Timestamp(2000));
        meter.advance(Timestamp(9000));
        let c = meter.counters();
        assert_eq!((c.active.0, c.paused.0, c.storage.0), (1000, 850, 1900));
    }

    #[test]
    fn a_run_that_others_cut_before_its_quantum_is_free() {
        let mut meter = Meter::new(
            Counters::default(),
            LeaseState::Preparing,
            true,
            Timestamp(u64::MAX),
            Millis(100),
            Timestamp(0),
        );
        let billed = |m: &Meter| m.counters().active.0 - m.counters().waived.0;
        meter.enter(LeaseState::Running, Timestamp(0));
        meter.advance(Timestamp(99));
        assert_eq!((billed(&meter), meter.expected().active.0), (0, 99));
        meter.enter(LeaseState::Paused(PauseReason::Outbid), Timestamp(99));
        assert_eq!((billed(&meter), meter.counters().waived.0), (0, 99));
        meter.enter(LeaseState::Running, Timestamp(200));
        meter.enter(LeaseState::Paused(PauseReason::Stopped), Timestamp(250));
        assert_eq!(billed(&meter), 50, "the renter's own stop is not free");
        meter.enter(LeaseState::Running, Timestamp(300));
        meter.advance(Timestamp(450));
        assert_eq!(billed(&meter), 200, "past the quantum all of it counts");
        meter.enter(LeaseState::Paused(PauseReason::Outbid), Timestamp(460));
        assert_eq!(billed(&meter), 210);
        meter.enter(LeaseState::Running, Timestamp(500));
        meter.price_changes(Timestamp(530));
        meter.enter(LeaseState::Paused(PauseReason::Outbid), Timestamp(540));
        assert_eq!(billed(&meter), 240, "what ran at the former price is billed");
    }

    proptest! {
        #[test]
        fn counters_never_shrink_nor_outrun_the_clock(quantum in 0u64..2000, times in proptest::collection::vec((0u64..10_000, 0u8..5), 1..50)) {
            let mut meter = Meter::new(Counters::default(), LeaseState::Preparing, true, Timestamp(9_000), Millis(quantum), Timestamp(0));
            let mut last = *meter.counters();
            let mut latest = 0;
            for (at, state) in times {
                let state = [LeaseState::Preparing, LeaseState::Running, LeaseState::Paused(PauseReason::Exited), LeaseState::Running, LeaseState::Paused(PauseReason::Outbid)][usize::from(state)];
                meter.enter(state, Timestamp(at));
                latest = latest.max(at);
                let now = *meter.counters();
                prop_assert!(now.covers(&last) && now.waived <= now.active && meter.expected().covers(&now));
                prop_assert!(now.active.0 + now.paused.0 <= latest && now.storage.0 == latest && now.active.0 <= 9_000);
                last = now;
            }
        }
    }
}
