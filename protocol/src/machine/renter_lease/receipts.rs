//! How much of a host's usage we acknowledge, and whether we agree to its close.

use super::RenterLease;
use crate::{
    Amount, Millis, Timestamp, Verified,
    entry::{Body, Entry},
    lease::{LeaseState, PauseReason},
    limits,
    machine::{context::Context, io::Refusal, record::Record},
    message::{Cause, EventCode},
    money::Counters,
    opinion::{Dispute, DisputeCode},
    receipt::{Ack, PartialReason, Usage},
    signed::Signed,
};

impl RenterLease {
    pub(super) fn take_usage(&mut self, cx: &mut Context, signed: &Signed<Usage>, now: Timestamp) {
        let host = self.draft.host;
        if self.close.is_some() || self.usage.as_ref().is_some_and(|u| u.id() == cx.id_of(signed)) {
            return;
        }
        let Some(usage) = cx.verify(host, signed) else {
            return;
        };
        if usage.terms != self.terms.n {
            // Of terms before ours, or of ones whose entry is on its way: the newest usage comes again.
            return;
        }
        if let Err(why) = self.check(&usage) {
            return cx.false_receipt(host, why);
        }
        if self.usage.as_ref().is_some_and(|known| usage.n < known.n) || usage.n > self.budget(now) {
            return;
        }
        let (counters, partial) = self.plausible(&usage, now);
        // What was acknowledged once stays so.
        let state = if self.leaving { usage.state } else { LeaseState::Running };
        let due = self.terms.due_in(&self.draft, &counters, state).unwrap_or(usage.due);
        let due = due.clamp(self.acked().min(usage.due), usage.due);
        let partial = (due < usage.due).then(|| partial.unwrap_or(PartialReason::NotAsked));
        let ack = Ack { renter: self.draft.renter, lease: self.id(), n: usage.n, usage: usage.id(), due, partial };
        let Some(ack) = cx.sign(ack) else { return };
        let more = due.saturating_sub(self.acked());
        cx.accounts.change(&host, &self.draft.currency, |account| account.has_spent(more));
        self.complain_of(cx, &usage, partial, now);
        self.not_taken(&usage);
        cx.persist(Record::from(&usage));
        self.durable = Some(cx.persist(Record::from(&ack)));
        self.usage = Some(usage);
        self.ack = Some(ack);
        cx.changed(self.id(), now);
    }

    /// More is claimed than we owe: kept in our chain, once for each time that it begins.
    fn complain_of(
        &mut self,
        cx: &mut Context,
        usage: &Verified<Usage>,
        partial: Option<PartialReason>,
        now: Timestamp,
    ) {
        let began = self.ack.as_ref().is_none_or(|before| before.partial.is_none());
        let Some(reason) = partial.filter(|_| began) else { return };
        let sentence = match reason {
            PartialReason::OverMetered => "more is claimed than can have been used by our own clock",
            PartialReason::NotRunning => "time is claimed in which it was not running",
            PartialReason::Silent => "time is claimed in which nothing in the instance answered",
            PartialReason::NotAsked => "we are said to have left the reserved term, and have not asked for that",
        };
        let about = usage.id();
        let body = Body::Dispute(Dispute { about, code: DisputeCode::OverMetered, sentence: sentence.to_owned() });
        cx.append(self.id(), self.draft.host, body, now);
    }

    /// What it has used by our own clock since it was last counted, as far as that can be for two ticks: what its host may count
    /// already, and we have not signed for yet.
    pub(in super::super) fn uncounted(&self, now: Timestamp) -> Amount {
        let running = self.state == LeaseState::Running;
        if self.close.is_some() || self.state.is_ended() {
            return Amount::ZERO;
        }
        let since = self.usage.as_ref().map_or(self.since, |usage| usage.time);
        let passed = Millis(now.since(since).0.saturating_add(limits::METER_TOLERANCE.0).min(self.draft.tick.0 * 2));
        let mut counters = self.usage.as_ref().map_or_else(Counters::default, |usage| usage.counters);
        counters.storage = Millis(counters.storage.0.saturating_add(passed.0));
        if running {
            counters.active = Millis(counters.active.0.saturating_add(passed.0));
        }
        // One that can't be counted is none that more is paid for.
        self.terms.due_in(&self.draft, &counters, self.state).unwrap_or(Amount::ZERO).saturating_sub(self.acked())
    }

    /// What makes a usage false whenever it comes. One older than the newest is only late.
    fn check(&self, usage: &Usage) -> Result<(), &'static str> {
        if usage.host != self.draft.host || usage.lease != self.id() {
            return Err("a usage of another lease");
        }
        if self.terms.due_in(&self.draft, &usage.counters, usage.state) != Ok(usage.due) {
            return Err("its due is not what its counters cost");
        }
        if !usage.counters.covers(&self.terms.counted) {
            return Err("it counts less than its terms began with");
        }
        let Some(known) = self.usage.as_ref().filter(|known| usage.n >= known.n) else {
            return Ok(());
        };
        if usage.n == known.n {
            return Err("two usages with one number");
        }
        if !usage.counters.covers(&known.counters) {
            return Err("its counters shrink");
        }
        // We have agreed to what was due already, and can't agree to less.
        if usage.due < self.acked() {
            return Err("less is due than was agreed to");
        }
        if usage.time < known.time {
            return Err("it is dated before the one before");
        }
        if usage.n - known.n == 1 && usage.prev != Some(known.id()) {
            return Err("it does not follow the one before");
        }
        Ok(())
    }

    /// The counters, cut to what can have passed on our clock since our open, to how long the host itself says the instance ran, and to
    /// how long of that it may have run by our own meter, with tolerance; and the reason if they were cut.
    fn plausible(&self, usage: &Usage, now: Timestamp) -> (Counters, Option<PartialReason>) {
        self.cut(&usage.counters, usage.time, self.silent(), now)
    }

    /// Whether so much can have been used. Of silence no host need know, so terms may carry it: it is taken off what comes after.
    pub(super) fn believes(&self, claimed: &Counters, at: Timestamp, now: Timestamp) -> bool {
        self.cut(claimed, at, Millis(0), now).1.is_none()
    }

    /// The silence that our newest acknowledgement rests on: after a start it is all we know of it.
    pub(super) fn silence_acknowledged(&self) -> Millis {
        let (Some(usage), Some(ack)) = (&self.usage, &self.ack) else { return Millis(0) };
        if ack.partial != Some(PartialReason::Silent) || ack.usage != usage.id() {
            return Millis(0);
        }
        let owed = |silent: u64| {
            // The renter's clock is not asked: what it allows was allowed when this was signed.
            let (counters, _) = self.cut(&usage.counters, usage.time, Millis(silent), Timestamp(u64::MAX));
            self.terms.due_in(&self.draft, &counters, usage.state).unwrap_or(usage.due)
        };
        // The least silence with which no more is owed than was acknowledged: what is owed falls as it grows.
        let (mut low, mut high) = (0, usage.counters.active.0);
        while low < high {
            let middle = low + (high - low) / 2;
            if owed(middle) <= ack.due { high = middle } else { low = middle + 1 }
        }
        Millis(low)
    }

    fn cut(
        &self,
        claimed: &Counters,
        at: Timestamp,
        silent: Millis,
        now: Timestamp,
    ) -> (Counters, Option<PartialReason>) {
        let with_slack = |time: Millis| {
            let share = time.0 / 1000 * limits::METER_TOLERANCE_PERMILLE;
            Millis(time.0.saturating_add(share).saturating_add(limits::METER_TOLERANCE.0))
        };
        let passed = with_slack(now.since(self.open.time));
        let ran = self.ran(at).map_or(passed, with_slack);
        let runs = self.paid_runs(at);
        let paid = runs.map_or(passed, with_slack);
        let answered = runs
            .map_or(passed.0.saturating_sub(silent.0), |runs| with_slack(Millis(runs.0.saturating_sub(silent.0))).0);
        // What is waived is billed to nobody: only what is billed must have run, and answered.
        let billed = Millis(claimed.active.0.saturating_sub(claimed.waived.0));
        let ran = billed.min(passed).min(ran).min(paid);
        let allowed = ran.min(Millis(answered));
        let waived = Millis(claimed.active.0.saturating_sub(allowed.0));
        let counters = Counters { waived, storage: claimed.storage.min(passed), ..*claimed };
        let partial = if billed > passed || claimed.storage > passed {
            Some(PartialReason::OverMetered)
        } else if billed > ran {
            Some(PartialReason::NotRunning)
        } else {
            (billed > allowed).then_some(PartialReason::Silent)
        };
        (counters, partial)
    }

    /// How much of that is to be paid: a run of an interruptible instance that others cut before its quantum is free.
    fn paid_runs(&self, until: Timestamp) -> Option<Millis> {
        let ran = self.ran(until)?;
        if self.draft.rental.is_firm() {
            return Some(ran);
        }
        let mut free = 0u64;
        let mut began = None;
        for event in &self.events {
            match event.state {
                LeaseState::Running if event.what == EventCode::State => began = began.or(Some(event.at)),
                // A change of ours, or a price we had agreed on, begins a new quantum; what the host does alone does not.
                LeaseState::Running
                    if matches!(event.what, EventCode::Repriced | EventCode::Amended) && event.by != Cause::Host =>
                {
                    began = began.map(|_| event.at);
                }
                LeaseState::Running => {}
                LeaseState::Paused(PauseReason::Outbid) => {
                    let run = began.take().map_or(Millis(0), |at| event.at.since(at));
                    free = free.saturating_add(if run < self.draft.quantum { run.0 } else { 0 });
                }
                LeaseState::Preparing | LeaseState::Kept | LeaseState::Paused(_) | LeaseState::Ended(_) => {
                    began = None;
                }
            }
        }
        Some(Millis(ran.0.saturating_sub(free)))
    }

    /// How long the instance has been `running` up to `until` by the events the host told; none if we don't have all of them.
    fn ran(&self, until: Timestamp) -> Option<Millis> {
        if self.events.first().is_some_and(|first| first.n != 1) {
            return None;
        }
        let ends = self.events.iter().skip(1).map(|e| e.at).chain([until]);
        let runs = self.events.iter().zip(ends).filter(|(event, _)| event.state == LeaseState::Running);
        Some(Millis(runs.fold(0, |sum: u64, (event, end)| sum.saturating_add(end.since(event.at).0))))
    }

    /// The host's close: agreed to, if it is about the newest usage, for what we have acknowledged.
    pub(super) fn take_close(&mut self, cx: &mut Context, news: &[Verified<Entry>], now: Timestamp) {
        for entry in news {
            self.store_close(cx, entry);
        }
        let (Some(close), None) = (&self.close, &self.close_ack) else {
            return;
        };
        let Some((reason, ..)) = close.body.closing().filter(|_| close.author == self.draft.host) else {
            return;
        };
        let body = Body::CloseAck { close: close.id(), due: self.acked() };
        self.sign_watched(cx, now);
        if let Some((entry, ticket)) = cx.append(self.id(), self.draft.host, body, now) {
            self.close_ack = Some(entry);
            self.durable = Some(ticket);
        }
        if !self.state.is_ended() {
            self.state = LeaseState::Ended(reason);
            self.since = now;
        }
        // The lease is forgotten now, and with it who waits for a change of it.
        self.amend_settled(cx, Err(Refusal::UnknownLease(self.id())));
        cx.changed(self.id(), now);
    }

    fn store_close(&mut self, cx: &mut Context, entry: &Verified<Entry>) {
        let host = self.draft.host;
        let ours = entry.author == host && entry.lease == Some(self.id()) && entry.peer == Some(cx.me());
        let Some((_, usage, due)) = entry.body.closing().filter(|_| ours && self.close.is_none()) else {
            return;
        };
        let newest = self.usage.as_ref().map(Verified::id);
        let claimed = self.usage.as_ref().map_or(Amount::ZERO, |u| u.due);
        if usage != newest || due != claimed {
            return cx.false_receipt(host, "its close is not about the newest usage");
        }
        self.durable = Some(cx.persist(Record::from(entry)));
        self.close = Some(entry.clone());
    }
}
