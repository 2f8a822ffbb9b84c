//! Our own close, sent until the host agrees: of a lease whose accept came after we had stopped waiting, for nothing; and of one whose
//! host was not heard of any more, for what we have acknowledged.

use super::{Opened, RenterLease};
use crate::{
    Amount, Millis, Timestamp, Verified,
    entry::{Body, Entry},
    lease::{EndReason, LeaseState},
    limits,
    machine::{
        context::{Asked, Context},
        record::Record,
    },
    message::{Request, Response},
};

/// Between two attempts to have the host agree.
pub(super) const RETRY: (Millis, Millis) = (Millis::from_secs(1), Millis::from_secs(30));

impl RenterLease {
    /// Whether the host's answer comes too late for us: measured on our clock alone.
    pub(in super::super) fn is_late(&self, now: Timestamp) -> bool {
        now > self.open.time + self.draft.confirm_by.since(self.draft.drafted_at)
    }

    /// When we wait no longer for the host's close.
    fn vanished_at(&self) -> Option<Timestamp> {
        let open = matches!(self.opened, Opened::Accepted(_)) && self.close.is_none();
        open.then(|| self.terms.ends_at + limits::DISK_KEPT + limits::CLOSE_WITHIN)
    }

    /// The host should have closed the lease long ago: we do, for what we have acknowledged.
    fn close_vanished(&mut self, cx: &mut Context, now: Timestamp) {
        if self.vanished_at().is_none_or(|at| now < at) {
            return;
        }
        let reason = EndReason::HostVanished;
        let body = Body::Close { reason, usage: self.usage.as_ref().map(Verified::id), due: self.acked() };
        if let Some((close, ticket)) = cx.append(self.id(), self.host(), body, now) {
            self.close = Some(close);
            self.durable = Some(ticket);
            self.sign_watched(cx, now);
            self.state = LeaseState::Ended(reason);
            self.since = now;
            self.deliver_at = now;
            self.give_up_amending(cx);
            cx.changed(self.id(), now);
        }
    }

    /// Our own close, while the host has not agreed to it.
    pub(in super::super) fn own_close(&self) -> Option<&Verified<Entry>> {
        self.close.as_ref().filter(|c| c.author == self.draft.renter && self.close_ack.is_none())
    }

    /// The host can be reached (again): ask what we have missed, or send it our close.
    pub(in super::super) fn host_connected(&mut self, cx: &mut Context, now: Timestamp) {
        self.deliver_at = now;
        self.deliver_retry = RETRY.0;
        if matches!(self.opened, Opened::Accepted(_)) && self.own_close().is_none() {
            let sync = Request::Sync { lease: self.id(), events_seen: self.events_seen() };
            cx.send(self.host(), sync, self.durable, Asked::Sync(self.id()));
        }
    }

    /// Sends our close when it is time.
    pub(in super::super) fn tick(&mut self, cx: &mut Context, now: Timestamp) {
        self.close_vanished(cx, now);
        self.send_amend(cx, now);
        if self.deliver_due(cx).is_none_or(|at| now < at) {
            return;
        }
        if let Some(close) = self.own_close() {
            let request = Request::Deliver { entry: close.to_signed() };
            cx.send(self.host(), request, self.durable, Asked::Deliver(self.id()));
            self.delivering = true;
        }
    }

    /// When to look again.
    pub(in super::super) fn deadline(&self, cx: &Context) -> Option<Timestamp> {
        let given_up = (self.opened == Opened::GivenUp).then_some(self.draft.ends_at + limits::DISK_KEPT);
        [self.deliver_due(cx), given_up, self.vanished_at(), self.amend_due(cx.connected.contains(&self.host()))]
            .into_iter()
            .flatten()
            .min()
    }

    fn deliver_due(&self, cx: &Context) -> Option<Timestamp> {
        let possible = !self.delivering && self.own_close().is_some() && cx.connected.contains(&self.host());
        possible.then_some(self.deliver_at)
    }

    /// The clock went back: what was to happen again shortly happens shortly.
    pub(in super::super) fn clock_went_back(&mut self, now: Timestamp) {
        self.deliver_at = self.deliver_at.min(now + self.deliver_retry);
    }

    /// The host's answer to our close: its agreement, or nothing yet.
    pub(in super::super) fn close_delivered(&mut self, cx: &mut Context, response: Option<&Response>, now: Timestamp) {
        self.delivering = false;
        self.deliver_at = now + self.deliver_retry;
        self.deliver_retry = Millis((self.deliver_retry.0 * 2).min(RETRY.1.0));
        let signed = match response {
            Some(Response::Seen { close_ack: Some(signed), .. }) => signed,
            Some(Response::Seen { .. } | Response::Busy { .. } | Response::Rejected(_)) | None => return,
            Some(_) => return cx.wrong_answer(self.host(), "not an answer to a close"),
        };
        let Some(entry) = cx.verify(self.host(), signed) else {
            return;
        };
        let ours = self.own_close().map(Verified::id);
        let agreed = entry.body.agreement();
        let admitted = self.own_close().and_then(|c| c.body.closing()).map_or(Amount::ZERO, |(.., due)| due);
        let fits = agreed.is_some_and(|(close, due)| Some(close) == ours && due == admitted);
        if !fits || entry.author != self.host() || entry.lease != Some(self.id()) || entry.peer != Some(cx.me()) {
            return cx.wrong_answer(self.host(), "no agreement to our close");
        }
        self.durable = Some(cx.persist(Record::from(&entry)));
        self.close_ack = Some(entry);
        cx.changed(self.id(), now);
    }
}
