//! Money of a hosted lease: usages, acknowledgements, credit, the ceiling, anchors and the close.

use super::{
    super::{context::Context, record::Record},
    HostLease,
};
use crate::{
    Amount, Millis, Timestamp, Verified,
    entry::{Body, Entry},
    lease::{EndReason, LeaseDraft, LeaseState},
    limits,
    receipt::{Ack, Usage},
    signed::Signed,
};

/// Between two anchors of a running lease.
const ANCHOR_EVERY: Millis = Millis::from_hours(1);

impl HostLease {
    /// The next usage. Never dated before the one before, whatever the clock says.
    pub(super) fn issue_usage(&mut self, cx: &mut Context, now: Timestamp) {
        self.issue_usage_in(cx, self.state, now);
    }

    /// The next usage, of a lease in this state.
    pub(super) fn issue_usage_in(&mut self, cx: &mut Context, state: LeaseState, now: Timestamp) {
        self.next_tick = now + self.draft.tick;
        self.meter.advance(now);
        let counters = *self.meter.counters();
        let Ok(due) = self.terms.due_in(&self.draft, &counters, state) else {
            return;
        };
        let before = self.usage.as_ref();
        let usage = Usage {
            host: self.draft.host,
            lease: self.id(),
            n: before.map_or(1, |u| u.n + 1),
            prev: before.map(Verified::id),
            time: before.map_or(now, |u| u.time.max(now)),
            counters,
            terms: self.terms.n,
            due,
            state,
        };
        let Some(usage) = cx.sign(usage) else { return };
        self.durable = Some(cx.persist(Record::from(&usage)));
        self.usage = Some(usage);
        self.tell(now);
        cx.changed(self.id(), now);
    }

    /// A last usage before the close, if something was used since the newest.
    pub(super) fn issue_last_usage(&mut self, cx: &mut Context, now: Timestamp) {
        self.meter.advance(now);
        let counted = self.usage.as_ref().map(|u| u.counters).unwrap_or_default();
        if counted != *self.meter.counters() {
            self.issue_usage(cx, now);
        }
    }

    pub(super) fn write_close(&mut self, cx: &mut Context, reason: EndReason, now: Timestamp) {
        let usage = self.usage.as_ref().map(Verified::id);
        let due = self.usage.as_ref().map_or(Amount::ZERO, |u| u.due);
        let body = Body::Close { reason, usage, due };
        if let Some((entry, ticket)) = cx.append(self.id(), self.draft.renter, body, now) {
            self.close = Some(entry);
            self.durable = Some(ticket);
        }
    }

    /// Agrees to the renter's close: of a lease it never took up, or of one that we had not closed.
    pub(super) fn agree_to(&mut self, cx: &mut Context, close: &Verified<Entry>, now: Timestamp) {
        if self.close_ack.is_some() {
            return;
        }
        let admitted = close.body.closing().map_or(Amount::ZERO, |(.., due)| due);
        let body = Body::CloseAck { close: close.id(), due: admitted };
        if let Some((entry, ticket)) = cx.append(self.id(), self.draft.renter, body, now) {
            let more = admitted.saturating_sub(self.acked());
            cx.accounts.change(&self.draft.renter, &self.draft.currency, |account| account.has_earned(more));
            self.close_ack = Some(entry);
            self.durable = Some(ticket);
        }
        self.closed = true;
    }

    /// How far what is due may run ahead of what is acknowledged now: the draft's credit, in proportion to a raised bid, and the
    /// quantum of an interruptible lease, which can't be acknowledged before it is over; or what is paid ahead, if that is more.
    fn credit(&self) -> Amount {
        let (drafted, now) = (self.draft.rates.compute_hour.0, self.terms.compute_hour.0);
        let raised = u128::from(self.draft.credit.0) * u128::from(now) / u128::from(drafted.max(1));
        let quantum = if self.draft.rental.is_firm() { Millis(0) } else { self.draft.quantum };
        let quantum = u128::from(now) * u128::from(quantum.0) / 3_600_000;
        let credit = raised.max(u128::from(self.draft.credit.0)).max(u128::from(self.ahead.0)).saturating_add(quantum);
        Amount(u64::try_from(credit).unwrap_or(u64::MAX))
    }

    pub(super) fn over_credit(&self, now: Timestamp) -> bool {
        let (_, due) = self.count(now);
        due.saturating_sub(self.acked()) > self.credit()
    }

    /// Whether compute must stop, so that keeping the disk still fits under the ceiling.
    pub(super) fn over_ceiling(&self, now: Timestamp) -> bool {
        let (_, due) = self.count(now);
        self.compute_limit().is_some_and(|limit| due > Amount::ZERO && due >= limit)
    }

    /// Whether not even the disk can be kept.
    pub(super) fn ceiling_used_up(&self, now: Timestamp) -> bool {
        let (_, due) = self.count(now);
        self.terms.max_spend.is_some_and(|ceiling| due > Amount::ZERO && due >= ceiling)
    }

    fn compute_limit(&self) -> Option<Amount> {
        let ceiling = self.terms.max_spend?;
        let reserve = LeaseDraft::disk_reserve(&self.draft.rates, self.draft.resources.disk_mb).unwrap_or(ceiling);
        Some(ceiling.saturating_sub(reserve))
    }

    /// When a running lease reaches its ceiling or the end of its credit.
    pub(super) fn spent_at(&self) -> Timestamp {
        let ceiling = self.compute_limit().map(|limit| limit.max(Amount(1)));
        let credit = self.acked().saturating_add(self.credit()).checked_add(Amount(1));
        // What is due never passes the ceiling, so a credit beyond it is never used up.
        let credit = credit.filter(|c| self.terms.max_spend.is_none_or(|most| *c <= most));
        let at = [ceiling, credit].into_iter().flatten().min().and_then(|limit| self.reaches(limit));
        at.unwrap_or(Timestamp(u64::MAX))
    }

    /// When a volume reaches its ceiling, less what keeping it for the last days costs.
    pub(super) fn limit_at(&self) -> Timestamp {
        let limit = self.compute_limit().map(|limit| limit.max(Amount(1)));
        limit.and_then(|limit| self.reaches(limit)).unwrap_or(Timestamp(u64::MAX))
    }

    /// When a paused lease's disk is destroyed.
    pub(super) fn gone_at(&self) -> Timestamp {
        let kept = self.terms.ends_at + limits::DISK_KEPT;
        let ceiling = self.terms.max_spend.map(|most| most.max(Amount(1))).and_then(|most| self.reaches(most));
        kept.min(ceiling.unwrap_or(kept))
    }

    /// When `amount` is due, if the lease stays in its state.
    fn reaches(&self, amount: Amount) -> Option<Timestamp> {
        let running = self.state == LeaseState::Running;
        let (expected, has_disk) = (self.meter.expected(), self.meter.has_disk());
        let left = self.terms.time_until(&self.draft, &expected, running, has_disk, amount)?;
        Some(self.meter.counted_to() + left)
    }

    pub(super) fn take_ack(&mut self, cx: &mut Context, signed: &Signed<Ack>, now: Timestamp) {
        let renter = self.draft.renter;
        if self.ack.as_ref().is_some_and(|known| known.id() == cx.id_of(signed)) {
            return;
        }
        let Some(ack) = cx.verify(renter, signed) else {
            return;
        };
        let Some(usage) = &self.usage else {
            return cx.false_receipt(renter, "an acknowledgement of nothing");
        };
        if ack.renter != renter || ack.lease != self.id() {
            return cx.false_receipt(renter, "an acknowledgement of another lease");
        }
        if ack.usage != usage.id() {
            if ack.n >= usage.n {
                cx.false_receipt(renter, "an acknowledgement of a usage that is not ours");
            }
            // Of an older usage: the newest will be answered, too.
            return;
        }
        if ack.n != usage.n || ack.due > usage.due || (ack.due < usage.due) != ack.partial.is_some() {
            return cx.false_receipt(renter, "an acknowledgement that does not fit its usage");
        }
        if ack.due < self.acked() {
            return cx.false_receipt(renter, "an acknowledgement that takes back an earlier one");
        }
        self.confirmed = true;
        let known = usage.terms;
        self.amended.retain(|e| e.body.amended().is_none_or(|a| a.terms.n >= known));
        self.durable = Some(cx.persist(Record::from(&ack)));
        let due = ack.due;
        let (usage, id, claimed) = (usage.id(), ack.id(), usage.due);
        let more = due.saturating_sub(self.acked());
        cx.accounts.change(&renter, &self.draft.currency, |account| account.has_earned(more));
        self.ack = Some(ack.clone());
        let paused = matches!(self.state, LeaseState::Paused(_)) && self.anchored_at < self.since;
        if (paused || now >= self.anchored_at + ANCHOR_EVERY) && self.ending.is_none() {
            self.anchored_at = now.max(self.since);
            if let Some((_, ticket)) = cx.append(self.id(), renter, Body::Anchor { usage, ack: id, due }, now) {
                self.durable = Some(ticket);
            }
        }
        self.weigh(cx, &ack, claimed, now);
        cx.changed(self.id(), now);
    }

    /// The renter agrees that it is over. False if this is no agreement to our close.
    pub(in super::super) fn take_close_ack(
        &mut self,
        cx: &mut Context,
        signed: &Signed<Entry>,
        now: Timestamp,
    ) -> bool {
        let renter = self.draft.renter;
        let Some(entry) = cx.verify(renter, signed) else {
            return false;
        };
        let claimed = self.usage.as_ref().map_or(Amount::ZERO, |u| u.due);
        let ours = self.close.as_ref().filter(|_| self.state.is_ended()).map(Verified::id);
        let agreed = entry.body.agreement();
        let fits = agreed.is_some_and(|(close, due)| Some(close) == ours && (self.acked()..=claimed).contains(&due));
        if entry.author != renter || entry.peer != Some(cx.me()) || entry.lease != Some(self.id()) || !fits {
            cx.false_receipt(renter, "an agreement to a close that is not ours, or for another amount");
            return false;
        }
        if !self.closed {
            let agreed = agreed.map_or(Amount::ZERO, |(_, due)| due);
            let more = agreed.saturating_sub(self.acked());
            cx.accounts.change(&renter, &self.draft.currency, |account| account.has_earned(more));
            self.durable = Some(cx.persist(Record::from(&entry)));
            self.closed = true;
            self.refused(cx, claimed.saturating_sub(agreed));
            cx.changed(self.id(), now);
        }
        true
    }
}
