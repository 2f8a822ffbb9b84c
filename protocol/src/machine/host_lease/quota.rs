//! A hosted lease's part in its renter's quota: what it has used, and that it stops when nothing is left.

use super::{super::context::Context, HostLease};
use crate::{Timestamp, lease::PauseReason, message::Cause};

impl HostLease {
    /// Slots times milliseconds that it has used since this was last asked, for its renter's quota. What is waived does not count.
    pub(in super::super) fn newly_used(&mut self, now: Timestamp) -> u64 {
        let mut meter = self.meter.clone();
        meter.advance(now);
        let counters = meter.expected();
        let used = counters.active.0.saturating_sub(counters.waived.0);
        let new = used.saturating_sub(self.noted.0);
        self.noted.0 = self.noted.0.max(used);
        new.saturating_mul(u64::from(self.draft.resources.slots))
    }

    /// Its renter's slot hours are used up: it stops, and its disk is kept.
    pub(in super::super) fn quota_used(&mut self, cx: &mut Context, why: String, now: Timestamp) {
        self.pause_with(cx, PauseReason::QuotaUsed, Cause::Clock, why, now);
    }
}
