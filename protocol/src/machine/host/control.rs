//! What renters wish of their leases: stop, start, destroy, news, and their part of the end.

use super::{Host, WAITING, reject, reject_for_now};
use crate::{
    LeaseId, NodeId, Nonce, Timestamp,
    entry::{Body, Entry},
    lease::{EndReason, LeaseState, PauseReason},
    machine::{
        context::Context,
        host_lease::HostLease,
        io::{Output, Recalled, Token},
    },
    message::{Action, Cause, Response},
    negotiation::RejectCode,
    signed::Signed,
};

pub(super) const NOT_YOURS: &str = "this host has no open lease of yours by that id";

/// A wish about a lease.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    pub(super) lease: LeaseId,
    pub(super) action: Action,
    pub(super) nonce: Nonce,
}

/// Wishes to start that wait for their slots' locks.
#[derive(Debug)]
pub(super) struct Restarting {
    tokens: Vec<Token>,
    slots: Vec<u16>,
}

impl Host {
    /// A renter's wish about its instance. One that comes again is answered, and not carried out again.
    pub(super) fn control(&mut self, cx: &mut Context, from: NodeId, token: Token, wish: Wish, now: Timestamp) {
        let Some(held) = self.leases.get_mut(&wish.lease).filter(|l| l.draft().renter == from) else {
            return reject(cx, token, RejectCode::Malformed, NOT_YOURS);
        };
        held.confirm();
        if held.draft().is_volume()
            && let Some(why) = self.cannot_control_volume(wish.lease, wish.action)
        {
            return reject_for_now(cx, token, RejectCode::Terms, why);
        }
        let Some(held) = self.leases.get_mut(&wish.lease) else { return };
        let is_new = held.is_new_wish(wish.nonce);
        if is_new && matches!(wish.action, Action::Stop | Action::Destroy) {
            // The newer wish counts.
            for waiting in self.after_stop.remove(&wish.lease).unwrap_or_default() {
                reject_for_now(cx, waiting, RejectCode::Terms, "it was to be stopped again before it could start");
            }
        }
        match wish.action {
            Action::Stop if is_new => held.pause(cx, PauseReason::Stopped, Cause::Renter, now),
            Action::Destroy if is_new => held.end(cx, EndReason::Destroyed, Cause::Renter, String::new(), now),
            Action::Start if is_new || self.restarting.contains_key(&wish.lease) => {
                return self.restart(cx, token, wish.lease, now);
            }
            Action::DeclineExtension if is_new => held.decline_extension(cx, Cause::Renter, now),
            Action::Stop | Action::Destroy | Action::Start | Action::DeclineExtension => {}
        }
        let (state, durable) = (held.state(), held.durable());
        cx.reply(token, Response::Controlled { state }, durable);
        self.settle_slots(wish.lease);
    }

    fn restart(&mut self, cx: &mut Context, token: Token, lease: LeaseId, now: Timestamp) {
        if let Some(waiting) = self.restarting.get_mut(&lease) {
            if waiting.tokens.len() < WAITING {
                return waiting.tokens.push(token);
            }
            return cx.reply(token, Response::Busy { retry_after_ms: 200 }, None);
        }
        let Some(held) = self.leases.get(&lease) else {
            return reject(cx, token, RejectCode::Malformed, NOT_YOURS);
        };
        if matches!(held.state(), LeaseState::Running | LeaseState::Preparing) {
            return cx.reply(token, Response::Controlled { state: held.state() }, held.durable());
        }
        if let Some(why) = held.cannot_start(now) {
            return reject_for_now(cx, token, RejectCode::Terms, format!("it can't be started: {why}"));
        }
        if self.start_over_quota(cx, token, held, now) {
            return;
        }
        if let Some(why) = self.volumes_missing(held.draft().renter, held.workload()) {
            return reject_for_now(cx, token, RejectCode::Terms, format!("it can't be started: {why}"));
        }
        if held.is_stopping() {
            let waiting = self.after_stop.entry(lease).or_default();
            if waiting.len() < WAITING {
                return waiting.push(token);
            }
            return cx.reply(token, Response::Busy { retry_after_ms: 1000 }, None);
        }
        if !self.runtime_up || self.relocking.contains(&lease) {
            let sentence = "the host's container engine does not answer right now";
            return reject_for_now(cx, token, RejectCode::Unavailable, sentence);
        }
        let slots = held.draft().resources.slots;
        if !held.draft().rental.is_firm() {
            if let Some(full) = self.bids_full(&held.draft().renter) {
                return reject_for_now(cx, token, RejectCode::Limit, full);
            }
            // Its bid decides.
            if let Some(held) = self.leases.get_mut(&lease) {
                held.wait_outbid(cx, "waits for its turn".to_owned(), now);
            }
            self.share_out(cx, now);
            let answer = self.leases.get(&lease).map(|held| (held.state(), held.durable()));
            let (state, durable) = answer.unwrap_or((LeaseState::Preparing, None));
            return cx.reply(token, Response::Controlled { state }, durable);
        }
        let can = self.firm_free() >= slots && self.maintained(now).is_none();
        if can
            && !self.has_free_now(slots)
            && let Some(held) = self.leases.get_mut(&lease)
        {
            // Others are in them at lower rank, and leave first.
            held.wait_for_slots(cx, Cause::Renter, now);
            return cx.reply(token, Response::Controlled { state: held.state() }, held.durable());
        }
        let picked = self.slots_to_restart(lease).filter(|slots| can && self.slots.take(lease, slots));
        let Some(slots) = picked else {
            let sentence = "its slots are rented to another now; try again later";
            return reject_for_now(cx, token, RejectCode::Taken, sentence);
        };
        self.restarting.insert(lease, Restarting { tokens: vec![token], slots: slots.clone() });
        cx.out(Output::LockSlots { lease, slots });
    }

    /// Carries out wishes to start that came while the processes were still ending.
    pub(super) fn restart_stopped(&mut self, cx: &mut Context, lease: LeaseId, now: Timestamp) {
        if self.leases.get(&lease).is_some_and(HostLease::is_stopping) {
            return;
        }
        for token in self.after_stop.remove(&lease).unwrap_or_default() {
            self.restart(cx, token, lease, now);
        }
    }

    /// The same slots as last time if they are free, else others.
    fn slots_to_restart(&self, lease: LeaseId) -> Option<Vec<u16>> {
        let held = self.leases.get(&lease)?;
        self.slots.pick_like(held.draft().resources.slots, &held.last_slots())
    }

    pub(super) fn restart_locked(
        &mut self,
        cx: &mut Context,
        lease: LeaseId,
        restarting: Restarting,
        locked: bool,
        now: Timestamp,
    ) {
        let Restarting { tokens, slots } = restarting;
        let ours = self.slots.of(&lease) == slots;
        let devices = self.slots.devices(&slots);
        match self.leases.get_mut(&lease) {
            Some(held) if locked && ours && !held.is_stopping() && held.cannot_start(now).is_none() => {
                held.place(cx, slots, devices, now);
                held.start(cx, Cause::Renter, now);
                for token in tokens {
                    cx.reply(token, Response::Controlled { state: held.state() }, held.durable());
                }
                self.dirty = true;
            }
            held => {
                let why = held.filter(|_| locked).and_then(|h| h.cannot_start(now));
                self.slots.release(&lease);
                if locked {
                    cx.out(Output::UnlockSlots { slots });
                }
                let why = why.unwrap_or("its slots are used by another node of this machine");
                for token in tokens {
                    reject_for_now(cx, token, RejectCode::Taken, why);
                }
            }
        }
    }

    /// The renter uses an instance: it knows the lease.
    pub(in super::super) fn reached(&mut self, lease: &LeaseId) {
        if let Some(held) = self.leases.get_mut(lease) {
            held.confirm();
        }
    }

    /// A renter asks what it has missed.
    pub(super) fn sync(
        &mut self,
        cx: &mut Context,
        from: NodeId,
        token: Token,
        lease: LeaseId,
        events_seen: u32,
        now: Timestamp,
    ) {
        match self.leases.get_mut(&lease).filter(|l| l.draft().renter == from) {
            Some(held) => {
                held.confirm();
                held.renter_connected(now);
                let news = Response::News(Box::new(held.update(events_seen)));
                cx.reply(token, news, held.durable());
            }
            None => reject(cx, token, RejectCode::Malformed, NOT_YOURS),
        }
    }

    /// An entry of the renter's: its agreement to a close, or a close of its own.
    pub(super) fn deliver(
        &mut self,
        cx: &mut Context,
        from: NodeId,
        token: Token,
        entry: &Signed<Entry>,
        now: Timestamp,
    ) {
        let verified = cx.verify(from, entry).filter(|e| e.author == from && e.peer == Some(cx.me()));
        let Some((entry, lease)) = verified.and_then(|e| e.lease.map(|lease| (e, lease))) else {
            return reject(cx, token, RejectCode::Malformed, "the entry is not its sender's word to this node");
        };
        let seen = |close_ack| Response::Seen { events_seen: 0, ack: None, close_ack };
        let Some(held) = self.leases.get_mut(&lease).filter(|l| l.draft().renter == from) else {
            let otherwise = Box::new(seen(None));
            return cx.out(Output::Recall { token, lease, what: Recalled::CloseAck, otherwise });
        };
        let taken = match &entry.body {
            Body::CloseAck { .. } => held.take_close_ack(cx, &entry.to_signed(), now),
            Body::Close { reason: EndReason::Unconfirmed, .. } => {
                let taken = held.closed_by_renter(cx, &entry, now);
                if !taken {
                    cx.false_receipt(from, "a close of a lease it has taken up, as if it had not");
                }
                taken
            }
            Body::Close { reason: EndReason::HostVanished, .. } => {
                let taken = held.closed_since_vanished(cx, &entry, now);
                if !taken {
                    cx.false_receipt(from, "a close of a lease as if its host were gone, too early or for too little");
                }
                taken
            }
            Body::Genesis { .. }
            | Body::LeaseOpen { .. }
            | Body::LeaseAccept { .. }
            | Body::Void { .. }
            | Body::Placement { .. }
            | Body::Amend { .. }
            | Body::Amended(_)
            | Body::Anchor { .. }
            | Body::Close { .. }
            | Body::Settle(_)
            | Body::SettleAck(_)
            | Body::Dispute(_)
            | Body::Attestation(_)
            | Body::Probe(_)
            | Body::Checkpoint(_) => false,
        };
        if taken {
            let close_ack = held.close_ack().map(|e| e.to_signed());
            cx.reply(token, seen(close_ack), held.durable());
        } else {
            reject(cx, token, RejectCode::Terms, "the entry does not fit the lease");
        }
        self.settle_slots(lease);
    }
}
