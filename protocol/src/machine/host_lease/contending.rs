//! A hosted lease's part in the sharing of the machine: whether it wants slots, what it bids for them, and how it loses them.
//!
//! Who gets slots is the host's decision ([`super::super::host`]); here it is carried out and told.

use super::{super::context::Context, HostLease};
use crate::{
    Amount, LeaseId, Millis, Timestamp,
    entry::Body,
    lease::{LeaseState, PauseReason},
    machine::{auction::Bid, io::RuntimeOrder},
    message::{Cause, EventCode, Eviction, Rank},
    offer::Window,
};

/// A waiting lease hears of another rank within this.
const RANK_WITHIN: Millis = Millis::from_secs(1);

/// Who displaces an interruptible lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Winner {
    /// The lease; none for the host's own work.
    pub(in super::super) lease: Option<LeaseId>,
    /// What it pays for a slot and an hour.
    pub(in super::super) slot_hour: Amount,
}

impl Winner {
    const fn cause(self) -> Cause {
        if self.lease.is_some() { Cause::Market } else { Cause::Host }
    }

    fn describe(self, currency: &crate::Currency) -> String {
        match self.lease {
            Some(lease) => {
                let id = lease.to_string();
                let short: String = id.chars().take(16).collect();
                format!("lease {short} pays {} {currency} for a slot and an hour", self.slot_hour)
            }
            None => "the host needs the slots itself".to_owned(),
        }
    }
}

impl HostLease {
    /// Whether it runs, or would run by itself if it had slots.
    #[must_use]
    pub fn wants_slots(&self) -> bool {
        self.ending.is_none()
            && (self.needs_slots()
                || matches!(self.state, LeaseState::Paused(PauseReason::Outbid | PauseReason::Maintenance)))
    }

    /// Its bid, if it is interruptible and wants slots.
    #[must_use]
    pub fn bid(&self) -> Option<Bid> {
        (!self.draft.rental.is_firm() && self.wants_slots()).then(|| Bid {
            lease: self.id(),
            slots: self.draft.resources.slots,
            price_hour: self.terms.compute_hour,
            at: self.terms.bid_at,
        })
    }

    /// What it pays for a slot and an hour, rounded down.
    #[must_use]
    pub fn slot_hour(&self) -> Amount {
        Amount(self.terms.compute_hour.0 / u64::from(self.draft.resources.slots.max(1)))
    }

    /// The slots it had last.
    #[must_use]
    pub fn last_slots(&self) -> Vec<u16> {
        match self.placement.as_ref().map(|p| &p.body) {
            Some(Body::Placement { slots, .. }) => slots.clone(),
            Some(_) | None => Vec::new(),
        }
    }

    /// It has slots, and starts in them.
    pub(in super::super) fn begin(&mut self, cx: &mut Context, slots: Vec<u16>, devices: Vec<String>, now: Timestamp) {
        self.place(cx, slots, devices, now);
        if self.state == LeaseState::Preparing {
            self.go(cx, now);
        } else {
            self.start(cx, Cause::Host, now);
        }
    }

    /// Tells the renter once of a window that its contract crosses.
    pub(in super::super) fn announce_maintenance(&mut self, cx: &mut Context, window: Window, now: Timestamp) {
        let crosses = self.terms.ends_at > window.from && !self.state.is_ended() && self.ending.is_none();
        if crosses && self.maintenance_told != Some(window) {
            self.maintenance_told = Some(window);
            let lasts = window.until.since(window.from);
            let note =
                format!("the machine is maintained in {} for {lasts}: it is paused, unbilled", window.from.since(now));
            self.log_code(cx, EventCode::MaintenanceAnnounced, Cause::Host, note, now);
        }
    }

    /// When and why it is stopped soon.
    #[must_use]
    pub const fn eviction(&self) -> Option<Eviction> {
        self.eviction
    }

    /// Where it stands in the auction.
    #[must_use]
    pub const fn rank(&self) -> Option<Rank> {
        self.rank
    }

    /// Its slots go to others: with notice if it runs, else at once.
    pub(in super::super) fn evict(&mut self, cx: &mut Context, winner: Winner, now: Timestamp) {
        match self.state {
            LeaseState::Running if self.draft.notice.0 > 0 => {
                if self.eviction.is_some() {
                    return;
                }
                let at = now + self.draft.notice;
                self.eviction = Some(Eviction { at, winner: winner.lease, slot_hour: winner.slot_hour });
                let note = format!("it is stopped in {}: {}", self.draft.notice, winner.describe(&self.draft.currency));
                self.log_code(cx, EventCode::EvictionNotice, winner.cause(), note, now);
                let notice = self.notice_text(winner, at);
                self.order(cx, RuntimeOrder::Notice(Some(notice)));
            }
            LeaseState::Running | LeaseState::Preparing if !self.adopting => self.displace(cx, winner, now),
            LeaseState::Running
            | LeaseState::Preparing
            | LeaseState::Kept
            | LeaseState::Paused(_)
            | LeaseState::Ended(_) => {}
        }
    }

    /// What the guest reads.
    fn notice_text(&self, winner: Winner, at: Timestamp) -> String {
        let lease = winner.lease.map_or_else(|| "null".to_owned(), |lease| format!("\"{lease}\""));
        format!(
            "{{\"event\":\"eviction\",\"at_ms\":{},\"in_ms\":{},\"winner\":{lease},\"slot_hour\":\"{}\",\"currency\":\"{}\"}}\n",
            at.0, self.draft.notice.0, winner.slot_hour, self.draft.currency
        )
    }

    fn displace(&mut self, cx: &mut Context, winner: Winner, now: Timestamp) {
        self.eviction = None;
        let note = winner.describe(&self.draft.currency);
        self.pause_with(cx, PauseReason::Outbid, winner.cause(), note, now);
    }

    /// Who caused the end of the processes, in a pause: of those that were told to stop, whoever caused the pause.
    pub(super) fn ended_by(&self, by: Cause) -> Cause {
        let pause = self.events.iter().rev().find(|e| e.what == EventCode::State);
        pause.filter(|_| by == Cause::Renter).map_or(by, |e| e.by)
    }

    /// Its notice is over.
    pub(super) fn evicted(&mut self, cx: &mut Context, eviction: Eviction, now: Timestamp) {
        self.displace(cx, Winner { lease: eviction.winner, slot_hour: eviction.slot_hour }, now);
    }

    /// It keeps its slots after all.
    pub(in super::super) fn keep(&mut self, cx: &mut Context, now: Timestamp) {
        if self.eviction.take().is_some() && self.state == LeaseState::Running {
            self.log_code(cx, EventCode::NoticeWithdrawn, Cause::Market, String::new(), now);
            self.order(cx, RuntimeOrder::Notice(None));
        }
    }

    /// Waits for slots, which others have.
    pub(in super::super) fn wait_outbid(&mut self, cx: &mut Context, note: String, now: Timestamp) {
        if self.state != LeaseState::Paused(PauseReason::Outbid) && self.ending.is_none() {
            self.enter(cx, LeaseState::Paused(PauseReason::Outbid), Cause::Market, None, note, now);
        }
    }

    /// Waits for slots that others are about to leave.
    pub(in super::super) fn wait_for_slots(&mut self, cx: &mut Context, by: Cause, now: Timestamp) {
        self.prepare_by = Timestamp(u64::MAX);
        let note = "waits for its slots, which others are leaving; nothing is billed".to_owned();
        self.enter(cx, LeaseState::Preparing, by, None, note, now);
    }

    /// After a restart: the slots it had last are another's.
    pub(in super::super) fn lost_slots(&mut self, cx: &mut Context, now: Timestamp) {
        if self.state == LeaseState::Preparing {
            self.prepare_by = Timestamp(u64::MAX);
        } else if self.draft.rental.is_firm() {
            self.slots_lost(cx, now);
        } else {
            let note = "others have its slots now".to_owned();
            self.pause_with(cx, PauseReason::Outbid, Cause::Market, note, now);
        }
    }

    /// Where it stands now; told to the renter if that has changed.
    pub(in super::super) fn ranked(&mut self, cx: &mut Context, rank: Option<Rank>, now: Timestamp) {
        if self.rank != rank {
            self.rank = rank;
            // One bid may move a thousand others: each is told a little later, together with what follows.
            if !self.news {
                self.news = true;
                self.send_at = self.send_at.max(now + RANK_WITHIN);
            }
            cx.changed(self.id(), now);
        }
    }

    /// The machine is maintained from now on, or no more.
    pub(in super::super) fn maintain(&mut self, cx: &mut Context, begun: bool, now: Timestamp) {
        if begun && self.needs_slots() && !self.adopting {
            self.eviction = None;
            let note = "the machine is maintained, as announced".to_owned();
            self.pause_with(cx, PauseReason::Maintenance, Cause::Host, note, now);
        }
    }
}
