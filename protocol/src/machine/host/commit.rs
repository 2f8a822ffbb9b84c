//! Opens and their answers: the one point at which a lease comes to be.
//!
//! An answer, once signed, is the answer. Those of this run are remembered until their draft's last moment, after which an open
//! is answered from the ledger or refused; so are opens of drafts made before this run.

use super::{Host, WAITING, reject};
use crate::{
    LeaseId, NodeId, Timestamp, Verified,
    entry::{Body, Entry, VoidCode},
    id::Digest,
    lease::LeaseDraft,
    machine::{
        context::Context,
        host_lease::HostLease,
        io::{Output, Recalled, Ticket, Token},
        record::{Private, Record},
    },
    message::{Cause, Response},
    negotiation::{Reject, RejectCode},
    signed::Signed,
    workload::Workload,
};

/// Opens waiting for their slots' locks.
const LOCKING: usize = 64;
/// Answers remembered; beyond, no new void is given until some are past their last moment.
const ANSWERED: usize = 4096;

/// An open that waits for its slots' locks.
#[derive(Debug)]
pub(super) struct Locking {
    tokens: Vec<Token>,
    open: Verified<Entry>,
    draft: Verified<LeaseDraft>,
    workload: Workload,
    bytes: Vec<u8>,
    slots: Vec<u16>,
}

impl Locking {
    pub(super) fn draft(&self) -> &LeaseDraft {
        &self.draft
    }
}

/// Our answer to an open, whose lease we don't hold.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) entry: Verified<Entry>,
    pub(super) ticket: Option<Ticket>,
    pub(super) until: Timestamp,
}

impl Host {
    pub(in super::super) fn remember_answer(&mut self, lease: LeaseId, entry: Verified<Entry>, commit_by: Timestamp) {
        self.remember(lease, Answered { entry, ticket: None, until: commit_by });
    }

    pub(super) fn remember(&mut self, lease: LeaseId, answer: Answered) {
        if self.latest <= answer.until {
            self.answered_until.insert((answer.until, lease));
            self.answered.insert(lease, answer);
        }
    }

    pub(super) fn forget_answered(&mut self) {
        while let Some((_, lease)) = self.answered_until.first().filter(|(until, _)| *until < self.latest).copied() {
            self.answered_until.pop_first();
            self.answered.remove(&lease);
        }
    }

    /// A renter's durable open.
    pub(super) fn commit(
        &mut self,
        cx: &mut Context,
        from: NodeId,
        token: Token,
        (open, settle): (&Signed<Entry>, Option<&Signed<Entry>>),
        bytes: Vec<u8>,
        now: Timestamp,
    ) {
        let Some(open) = cx.verify(from, open) else {
            return reject(cx, token, RejectCode::Malformed, "the open does not verify");
        };
        let ours = open.author == from && open.peer == Some(cx.me());
        let draft = open.body.draft().filter(|_| ours).and_then(|d| cx.verify(from, d));
        let Some(draft) = draft.filter(|d| d.host == cx.me() && d.renter == from && open.lease == Some(d.id().into()))
        else {
            return reject(cx, token, RejectCode::Malformed, "the open holds no draft of this host for its sender");
        };
        let lease: LeaseId = draft.id().into();
        let held = self.leases.get(&lease).map(|l| (l.accept(), l.durable()));
        if let Some((entry, ticket)) = held.or_else(|| self.answered.get(&lease).map(|a| (&a.entry, a.ticket))) {
            if answers(entry, &open) {
                return cx.reply(token, Response::Answered(entry.to_signed()), ticket);
            }
            return reject(cx, token, RejectCode::Taken, "this draft was opened before, by another open");
        }
        if let Some(waiting) = self.locking.get_mut(&lease) {
            if waiting.open.id() == open.id() && waiting.tokens.len() < WAITING {
                return waiting.tokens.push(token);
            }
            return cx.reply(token, Response::Busy { retry_after_ms: 200 }, None);
        }
        if self.is_paying(cx, token, &open, lease) {
            return;
        }
        if self.latest.max(now) > draft.commit_by || draft.drafted_at <= self.started_at {
            let sentence = "it came after the draft's last moment, or the host has started anew since";
            let otherwise = Box::new(Response::Rejected(Reject::lasting(RejectCode::Stale, sentence)));
            return cx.out(Output::Recall { token, lease, what: Recalled::Answer(open.id()), otherwise });
        }
        if cx.forked.contains(&from) {
            return reject(cx, token, RejectCode::Forked, super::FORKED);
        }
        let no = self.stranger(&from).or_else(|| self.over_quota(&from, draft.resources.slots, None, now));
        if let Some(reject) = no {
            return cx.reply(token, Response::Rejected(reject), None);
        }
        let workload = match Workload::from_bytes(&bytes) {
            Ok(workload) if Digest::of(&bytes) == draft.workload => workload,
            Ok(_) => {
                return reject(cx, token, RejectCode::Malformed, "the workload is not the one the lease names");
            }
            Err(_) => return reject(cx, token, RejectCode::Malformed, "the workload is malformed"),
        };
        if self.locking.len() >= LOCKING || self.answered.len() >= ANSWERED {
            return cx.reply(token, Response::Busy { retry_after_ms: 1000 }, None);
        }
        let accepts = self.setup.as_ref().is_some_and(|s| s.accept.takes(&from) && s.machine == draft.machine);
        if !accepts || !self.runtime_up {
            let sentence = "the host can't serve it now";
            return self.void(cx, vec![token], &open, &draft, VoidCode::Unavailable, sentence, now);
        }
        self.open_with_payment(cx, token, open, draft, (workload, bytes), settle, now);
    }

    /// Takes an open whose first payment is there, or that needs none.
    pub(super) fn take_open(
        &mut self,
        cx: &mut Context,
        tokens: Vec<Token>,
        open: Verified<Entry>,
        draft: Verified<LeaseDraft>,
        (workload, bytes): (Workload, Vec<u8>),
        now: Timestamp,
    ) {
        let (from, lease): (NodeId, LeaseId) = (draft.renter, draft.id().into());
        if !self.runtime_up {
            let sentence = "the host can't serve it now";
            return self.void(cx, tokens, &open, &draft, VoidCode::Unavailable, sentence, now);
        }
        if draft.is_volume() {
            return self.commit_volume(cx, tokens, &open, draft, (workload, bytes), now);
        }
        if let Some(why) = self.volumes_missing(from, &workload) {
            return self.void(cx, tokens, &open, &draft, VoidCode::Unavailable, &why, now);
        }
        if !self.ports_are_free(&draft) {
            let sentence = "its public ports were given to another in the meantime";
            return self.void(cx, tokens, &open, &draft, VoidCode::Taken, sentence, now);
        }
        let maintained = self.maintained(now).is_some();
        if !draft.rental.is_firm() {
            let full = self.bids_full(&from).is_some() || draft.resources.slots > self.slots.total();
            if full || maintained {
                let sentence = "the machine is maintained, or too many bids wait for it";
                return self.void(cx, tokens, &open, &draft, VoidCode::Unavailable, sentence, now);
            }
            return self.accept(cx, tokens, &open, draft, (workload, bytes), now);
        }
        let wanted = draft.resources.slots;
        let can = self.firm_free() >= wanted && !maintained;
        if can && !self.has_free_now(wanted) {
            // Interruptible leases are in them, and leave first.
            self.accept(cx, tokens, &open, draft, (workload, bytes), now);
            if let Some(held) = self.leases.get_mut(&lease) {
                held.wait_for_slots(cx, Cause::Market, now);
            }
            return;
        }
        let picked = self.slots.pick(wanted).filter(|slots| can && self.slots.take(lease, slots));
        let Some(slots) = picked else {
            let sentence = "the slots were rented to another in the meantime";
            return self.void(cx, tokens, &open, &draft, VoidCode::Taken, sentence, now);
        };
        cx.out(Output::LockSlots { lease, slots: slots.clone() });
        self.locking.insert(lease, Locking { tokens, open, draft, workload, bytes, slots });
    }

    #[allow(clippy::too_many_arguments)] // the open, its draft, and what is said to whom
    pub(super) fn void(
        &mut self,
        cx: &mut Context,
        tokens: Vec<Token>,
        open: &Verified<Entry>,
        draft: &Verified<LeaseDraft>,
        code: VoidCode,
        sentence: &str,
        now: Timestamp,
    ) {
        let lease = draft.id().into();
        cx.persist(Record::from(open));
        let body = Body::Void { open: open.id(), code, sentence: sentence.to_owned() };
        let Some((entry, ticket)) = cx.append(lease, open.author, body, now.max(draft.drafted_at)) else {
            return tokens.into_iter().for_each(|t| cx.reply(t, Response::Busy { retry_after_ms: 1000 }, None));
        };
        for token in tokens {
            cx.reply(token, Response::Answered(entry.to_signed()), Some(ticket));
        }
        self.remember(lease, Answered { entry, ticket: Some(ticket), until: draft.commit_by });
    }

    /// The locks of an open's slots are ours, and with them the lease is made, or another node's.
    pub(super) fn open_locked(
        &mut self,
        cx: &mut Context,
        lease: LeaseId,
        locking: Locking,
        locked: bool,
        now: Timestamp,
    ) {
        let Locking { tokens, open, draft, workload, bytes, slots } = locking;
        self.dirty = true;
        if !locked || self.slots.of(&lease) != slots {
            // Another node's, or the machine has been cut anew since.
            self.slots.release(&lease);
            if locked {
                cx.out(Output::UnlockSlots { slots });
            }
            let sentence = "the slots are used by another node of this machine";
            return self.void(cx, tokens, &open, &draft, VoidCode::Taken, sentence, now);
        }
        self.accept(cx, tokens, &open, draft, (workload, bytes), now);
        let devices = self.slots.devices(&slots);
        // If it could not be accepted, no lease holds the slots, and they are freed.
        if let Some(held) = self.leases.get_mut(&lease) {
            held.begin(cx, slots, devices, now);
        }
    }

    /// Makes the lease. It has no slots of its own yet, and waits for its turn.
    pub(super) fn accept(
        &mut self,
        cx: &mut Context,
        tokens: Vec<Token>,
        open: &Verified<Entry>,
        draft: Verified<LeaseDraft>,
        (workload, bytes): (Workload, Vec<u8>),
        now: Timestamp,
    ) {
        let lease: LeaseId = draft.id().into();
        if self.is_stranger(&draft.renter) {
            let sentence = "you were removed from the host's cluster in the meantime";
            return self.void(cx, tokens, open, &draft, VoidCode::Unavailable, sentence, now);
        }
        if !self.lend(cx, &draft, now) {
            let sentence = "strangers have used up what this host lends them today; propose again, and pay first";
            return self.void(cx, tokens, open, &draft, VoidCode::Unpaid, sentence, now);
        }
        cx.persist(Record::from(open));
        cx.persist(Record::Private(Private::Workload { lease, bytes }));
        let body = Body::LeaseAccept { open: open.id() };
        let Some((accept, ticket)) = cx.append(lease, draft.renter, body, now.max(draft.drafted_at)) else {
            return tokens.into_iter().for_each(|t| cx.reply(t, Response::Busy { retry_after_ms: 1000 }, None));
        };
        for token in tokens {
            cx.reply(token, Response::Answered(accept.to_signed()), Some(ticket));
        }
        self.leases.insert(lease, HostLease::accepted(draft, accept, workload, Some(ticket), now));
        self.dirty = true;
        cx.changed(lease, now);
    }
}

fn answers(entry: &Entry, to: &Verified<Entry>) -> bool {
    match &entry.body {
        Body::LeaseAccept { open } | Body::Void { open, .. } => *open == to.id(),
        Body::Genesis { .. }
        | Body::LeaseOpen { .. }
        | Body::Placement { .. }
        | Body::Amend { .. }
        | Body::Amended(_)
        | Body::Anchor { .. }
        | Body::Close { .. }
        | Body::CloseAck { .. }
        | Body::Settle(_)
        | Body::SettleAck(_)
        | Body::Dispute(_)
        | Body::Attestation(_)
        | Body::Probe(_)
        | Body::Checkpoint(_) => false,
    }
}
