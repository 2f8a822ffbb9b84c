//! A renter that acknowledges less than its host claims. The difference stands for a day at most: then the host waives it, or ends
//! the lease. It waives by itself once in a lease's life, and what it waives uses up how far it lends to that renter. What both have
//! signed by then is the evidence, and what is not acknowledged the loss.

use super::HostLease;
use crate::{
    Amount, Millis, Timestamp,
    lease::EndReason,
    limits,
    machine::{account::Disputed, context::Context},
    message::{Cause, EventCode},
    opinion::DisputeCode,
    receipt::Ack,
};

impl HostLease {
    /// Since when less is acknowledged than claimed.
    #[must_use]
    pub const fn disputed_at(&self) -> Option<Timestamp> {
        self.disputed_at
    }

    /// A renter's answer to a usage has been taken.
    pub(super) fn weigh(&mut self, cx: &mut Context, ack: &Ack, claimed: Amount, now: Timestamp) {
        if ack.partial.is_none() {
            self.unsettled = false;
            if self.disputed_at.take().is_some() {
                self.log_code(cx, EventCode::Agreed, Cause::Renter, String::new(), now);
            }
            return;
        }
        if self.unsettled {
            // What was not acknowledged has been waived, and still there is no agreement.
            let note = "its renter does not acknowledge what is left, either".to_owned();
            return self.end(cx, EndReason::Disputed, Cause::Host, note, now);
        }
        if self.disputed_at.is_none() {
            self.disputed_at = Some(now);
            let currency = &self.draft.currency;
            let note = format!("{} {currency} of {claimed} are acknowledged", ack.due);
            self.log_code(cx, EventCode::Disputed, Cause::Renter, note, now);
            self.complain(cx, DisputeCode::NotAcknowledged, "less is acknowledged than was used", now);
        }
    }

    /// When something is to be done about a difference.
    pub(super) fn dispute_due(&self) -> Option<Timestamp> {
        self.disputed_at.filter(|_| self.ending.is_none()).map(|at| at + limits::DISPUTED)
    }

    /// Its day is over.
    pub(super) fn end_dispute(&mut self, cx: &mut Context, now: Timestamp) {
        if self.dispute_due().is_none_or(|at| now < at) {
            return;
        }
        let waives = cx.accounts.policy().lending.disputed == Disputed::Waive && !self.waived;
        if !(waives && self.waive(cx, now)) {
            let note = "renter and host did not agree on what was used".to_owned();
            self.end(cx, EndReason::Disputed, Cause::Host, note, now);
        }
    }

    /// Waives what is not acknowledged, which is a miss of the renter's, and refused. False if there is nothing to waive, or it can't be done by waiving time.
    pub(in super::super) fn waive(&mut self, cx: &mut Context, now: Timestamp) -> bool {
        let Some(time) = self.waivable().filter(|_| self.disputed_at.is_some()) else {
            return false;
        };
        let used = self.count(now).1;
        self.meter.waive(time, now);
        (self.waived, self.unsettled) = (true, true);
        self.disputed_at = None;
        self.log_code(cx, EventCode::Agreed, Cause::Host, format!("{time} of running time are waived"), now);
        self.issue_usage(cx, now);
        cx.accounts.change(&self.draft.renter, &self.draft.currency, |account| account.miss());
        self.refused(cx, used.saturating_sub(self.count(now).1));
        true
    }

    /// The longest time that can be waived without less being due than is acknowledged; none if nothing can.
    fn waivable(&self) -> Option<Millis> {
        let usage = self.usage.as_ref().filter(|u| u.terms == self.terms.n)?;
        let acked = self.acked();
        let less = |time: u64| {
            let mut counters = usage.counters;
            counters.waived = Millis(counters.waived.0.saturating_add(time));
            self.terms.due_in(&self.draft, &counters, usage.state).unwrap_or(Amount::ZERO)
        };
        // Of what ran under these terms: before them it is carried as an amount.
        let segment = usage.counters.since(&self.terms.counted);
        let (mut low, mut high) = (0, segment.active.0.saturating_sub(segment.waived.0));
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if less(middle) >= acked { low = middle } else { high = middle - 1 }
        }
        (low > 0).then_some(Millis(low))
    }
}
