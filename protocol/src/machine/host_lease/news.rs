//! What the renter of a hosted lease is told, and when it is told again.

use super::{
    super::context::{Asked, Context},
    HostLease, RETRY,
};
use crate::{
    Millis, Timestamp, Verified,
    entry::Entry,
    message::{LeaseUpdate, Request},
    receipt::Ack,
    signed::Signed,
};

impl HostLease {
    /// What the renter has not confirmed.
    #[must_use]
    pub fn update(&self, events_seen: u32) -> LeaseUpdate {
        let mut entries: Vec<Signed<Entry>> = vec![self.accept.to_signed()];
        entries.extend(self.amended.iter().map(Verified::to_signed));
        entries.extend(self.placement.as_ref().map(Verified::to_signed));
        entries.extend(self.close.as_ref().filter(|_| self.state.is_ended()).map(Verified::to_signed));
        let acked = self.ack.as_ref().map(|a| a.usage);
        LeaseUpdate {
            lease: self.id(),
            events: self.events.iter().filter(|e| e.n > events_seen).cloned().collect(),
            progress: self.progress,
            entries,
            usage: self.usage.as_ref().filter(|u| Some(u.id()) != acked).map(Verified::to_signed),
            eviction: self.eviction,
            rank: self.rank,
            asked: self.asked,
            payment: self.payment,
        }
    }

    /// Something is new: it goes out at once.
    pub(super) fn tell(&mut self, now: Timestamp) {
        self.news = true;
        self.send_at = self.send_at.min(now);
    }

    /// Sends what is new, if there is something and the renter can be reached.
    pub(in super::super) fn pump(&mut self, cx: &mut Context, now: Timestamp) {
        let reachable = cx.connected.contains(&self.draft.renter);
        if !self.news || self.in_flight || self.closed || now < self.send_at || !reachable {
            return;
        }
        self.news = false;
        self.in_flight = true;
        let update = Request::Update(Box::new(self.update(self.events_seen)));
        cx.send(self.draft.renter, update, self.durable, Asked::Update(self.id()));
    }

    /// The renter can be reached (again): tell it everything.
    pub(in super::super) fn renter_connected(&mut self, now: Timestamp) {
        self.news = true;
        self.send_at = now;
        self.retry = RETRY.0;
    }

    /// The renter did something about the lease, so it knows of it.
    pub(in super::super) const fn confirm(&mut self) {
        self.confirmed = true;
    }

    /// Our agreement to the renter's close, if we gave it.
    pub(in super::super) const fn close_ack(&self) -> Option<&Verified<Entry>> {
        self.close_ack.as_ref()
    }

    pub(in super::super) fn unanswered(&mut self, now: Timestamp) {
        self.in_flight = false;
        self.news = true;
        self.send_at = now + self.retry;
        self.retry = Millis((self.retry.0 * 2).min(RETRY.1.0));
    }

    /// The renter's answer to an update.
    pub(in super::super) fn seen(
        &mut self,
        cx: &mut Context,
        events_seen: u32,
        ack: Option<&Signed<Ack>>,
        close_ack: Option<&Signed<Entry>>,
        now: Timestamp,
    ) {
        self.in_flight = false;
        self.retry = RETRY.0;
        self.send_at = now;
        self.events_seen = events_seen.min(self.events.last().map_or(0, |e| e.n));
        if let Some(ack) = ack {
            self.take_ack(cx, ack, now);
        }
        if let Some(entry) = close_ack.filter(|_| self.state.is_ended()) {
            self.take_close_ack(cx, entry, now);
        }
        if self.state.is_ended() && !self.closed && !self.news {
            // It has not agreed to the close: ask it again, but not in a loop.
            self.news = true;
            self.send_at = now + RETRY.1;
        }
    }
}
