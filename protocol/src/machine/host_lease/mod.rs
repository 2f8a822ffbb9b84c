//! One lease, as its host keeps it: from the accept to the acknowledged close.
//!
//! Owns the lease's state, meter, events and receipts. It does not own slots, which are the machine's ([`super::host`]): it says
//! through [`HostLease::holds_slots`] whether it needs them. What changes the state is in `lifecycle` and `inside`, money in `receipts`, and
//! what the renter is told in `news`.

mod amending;
pub(super) mod contending;
mod disputed;
#[cfg(test)]
mod hostile;
mod inside;
mod lifecycle;
mod news;
mod quota;
mod receipts;
#[cfg(test)]
mod tests;
mod unpaid;
mod volume;
#[cfg(test)]
mod waiving;

use std::collections::{BTreeSet, VecDeque};

use super::{
    context::Context,
    io::{Output, RuntimeOrder, Ticket},
    meter::Meter,
    record::{Private, Record},
};
use crate::{
    Amount, LeaseId, Millis, Nonce, Timestamp, Verified,
    entry::{Body, Entry},
    lease::{EndReason, LeaseDraft, LeaseState, PauseReason},
    limits,
    message::{Cause, EventCode, Eviction, Extension, LeaseEvent, Progress, Rank},
    money::Counters,
    offer::Window,
    opinion::DisputeCode,
    payment::PaymentAsk,
    receipt::{Ack, Usage},
    terms::LeaseTerms,
    workload::Workload,
};

/// Between two attempts to reach a renter that does not answer.
const RETRY: (Millis, Millis) = (Millis::from_secs(1), Millis::from_secs(30));
/// An order to stop or destroy that shows no effect is given again after this.
const ORDER_AGAIN: Millis = Millis::from_secs(30);
/// Wishes remembered, so that one that arrives twice is carried out once.
const WISHES: usize = 32;

/// A lease we host.
#[derive(Debug)]
pub struct HostLease {
    draft: Verified<LeaseDraft>,
    accept: Verified<Entry>,
    workload: Workload,
    state: LeaseState,
    since: Timestamp,
    meter: Meter,
    terms: LeaseTerms,
    /// Amendments that the renter has not shown to know.
    amended: Vec<Verified<Entry>>,
    /// When the renter's wishes for changes are counted from, and how many came since.
    amends: (Timestamp, u32),
    /// The number in the renter's chain of the newest change that was refused.
    refused_to: Option<u64>,
    eviction: Option<Eviction>,
    rank: Option<Rank>,
    asked: Option<Extension>,
    /// The last one it has declined.
    declined: Option<Extension>,
    extend_again_at: Timestamp,
    reprice_again_at: Timestamp,
    expiry_told: bool,
    maintenance_told: Option<Window>,
    usage: Option<Verified<Usage>>,
    ack: Option<Verified<Ack>>,
    placement: Option<Verified<Entry>>,
    starts: u32,
    events: Vec<LeaseEvent>,
    events_seen: u32,
    /// Whether the renter has shown that it knows the lease.
    confirmed: bool,
    wishes: VecDeque<Nonce>,
    /// Ours, signed when the end is decided; told to the renter once the instance is gone.
    close: Option<Verified<Entry>>,
    /// The renter's, because our accept came too late for it.
    renter_close: Option<Verified<Entry>>,
    /// Our agreement to the renter's close.
    close_ack: Option<Verified<Entry>>,
    closed: bool,
    ending: Option<(EndReason, Cause, String)>,
    /// Whether processes of the instance may be alive: its devices are in use until they are known to be gone.
    processes: bool,
    /// Whether it is not known what the runtime has: it is asked after a restart, and until it has said, nothing is stopped.
    adopting: bool,
    /// Whether a stop is under way.
    stop_ordered: bool,
    progress: Option<Progress>,
    prepare_by: Timestamp,
    order_again_at: Timestamp,
    next_tick: Timestamp,
    anchored_at: Timestamp,
    /// Nothing about this lease leaves before this is durable.
    durable: Option<Ticket>,
    in_flight: bool,
    news: bool,
    send_at: Timestamp,
    retry: Millis,
    /// What its renter is asked for, for the account that all leases of the two share.
    payment: Option<PaymentAsk>,
    /// What its renter has paid ahead: so far it runs without being acknowledged.
    ahead: Amount,
    /// Since when the renter acknowledges less than is claimed.
    disputed_at: Option<Timestamp>,
    /// Whether something was waived, ever: that is done once by itself.
    waived: bool,
    /// Whether a difference was waived, and what is left is not agreed on yet.
    unsettled: bool,
    /// What of its use counts in its renter's quota already.
    noted: Millis,
    /// What was complained of in our chain.
    complained: BTreeSet<DisputeCode>,
}

/// What the ledger has of a lease, each document verified.
pub(super) struct Remembered {
    pub(super) draft: Verified<LeaseDraft>,
    pub(super) accept: Verified<Entry>,
    pub(super) workload: Workload,
    pub(super) usage: Option<Verified<Usage>>,
    pub(super) ack: Option<Verified<Ack>>,
    pub(super) placement: Option<Verified<Entry>>,
    pub(super) close: Option<Verified<Entry>>,
    pub(super) events: Vec<LeaseEvent>,
    /// Oldest first; the last one is in force.
    pub(super) amended: Vec<Verified<Entry>>,
}

impl HostLease {
    pub(super) fn accepted(
        draft: Verified<LeaseDraft>,
        accept: Verified<Entry>,
        workload: Workload,
        ticket: Option<Ticket>,
        now: Timestamp,
    ) -> Self {
        Self {
            meter: Meter::new(
                Counters::default(),
                LeaseState::Preparing,
                false,
                draft.ends_at,
                quantum_of(&draft),
                now,
            ),
            terms: LeaseTerms::drafted(&draft),
            amended: Vec::new(),
            amends: (now, 0),
            refused_to: None,
            eviction: None,
            rank: None,
            asked: None,
            declined: None,
            extend_again_at: Timestamp(0),
            reprice_again_at: Timestamp(0),
            expiry_told: false,
            maintenance_told: None,
            state: LeaseState::Preparing,
            since: now,
            usage: None,
            ack: None,
            placement: None,
            starts: 0,
            events: Vec::new(),
            events_seen: 0,
            confirmed: false,
            wishes: VecDeque::new(),
            close: None,
            renter_close: None,
            close_ack: None,
            closed: false,
            ending: None,
            processes: false,
            adopting: false,
            stop_ordered: false,
            progress: None,
            // Preparing is timed from when it has slots.
            prepare_by: Timestamp(u64::MAX),
            order_again_at: now,
            next_tick: now + draft.tick,
            anchored_at: now,
            durable: ticket,
            in_flight: false,
            news: true,
            send_at: now,
            retry: RETRY.0,
            payment: None,
            ahead: Amount::ZERO,
            disputed_at: None,
            waived: false,
            unsettled: false,
            noted: Millis(0),
            complained: BTreeSet::new(),
            draft,
            accept,
            workload,
        }
    }

    /// A lease from the ledger. Time since its last record counts for nothing.
    pub(super) fn restored(from: Remembered, now: Timestamp) -> Self {
        let Remembered { draft, accept, workload, usage, ack, placement, close, events, amended } = from;
        let state = events.last().map_or(LeaseState::Preparing, |e| e.state);
        let mut counters = usage.as_ref().map_or_else(Counters::default, |u| u.counters);
        let made = |e: &LeaseEvent| matches!(e.state, LeaseState::Running | LeaseState::Kept);
        let ran = counters.storage.0 > 0 || events.iter().any(made);
        let mut lease = Self::accepted(draft, accept, workload, None, now);
        lease.starts = match placement.as_ref().map(|p| &p.body) {
            Some(Body::Placement { start, .. }) => *start,
            Some(_) | None => 0,
        };
        lease.since = LeaseEvent::last_step(&events).map_or(lease.accept.time, |e| e.at);
        lease.state = state;
        // Only its renter's own wish stops an instance in its renter's name.
        let stopped = |e: &LeaseEvent| {
            e.by == Cause::Renter && e.what == EventCode::State && e.state == LeaseState::Paused(PauseReason::Stopped)
        };
        lease.confirmed = ack.is_some() || events.iter().any(stopped);
        lease.processes = placement.is_some() && !state.is_ended();
        lease.adopting = lease.processes;
        if placement.is_some() || lease.draft.is_volume() {
            lease.prepare_by = now + limits::PREPARE_WITHIN;
        }
        let (ours, renters) = match close {
            Some(close) if close.author == lease.draft.host => (Some(close), None),
            renters => (None, renters),
        };
        if let Some(Body::Close { reason, .. }) = ours.as_ref().or(renters.as_ref()).map(|c| &c.body) {
            lease.ending = Some((*reason, caused_by(*reason), String::new()));
        }
        let counted = if lease.ending.is_some() { LeaseState::Ended(EndReason::Destroyed) } else { state };
        if let Some(amended) = amended.last().and_then(|e| e.body.amended()) {
            lease.terms = amended.terms;
            // The node may have died between new terms and the first usage under them.
            if !counters.covers(&amended.terms.counted) {
                counters = amended.terms.counted;
            }
        }
        let known = amended.len().saturating_sub(amending::AMENDED);
        lease.amended = amended.into_iter().skip(known).collect();
        let quantum = quantum_of(&lease.draft);
        lease.meter = Meter::new(counters, counted, ran, lease.terms.ends_at, quantum, now);
        // The ledger tells of this.
        lease.noted = Millis(counters.active.0.saturating_sub(counters.waived.0));
        lease.usage = usage;
        lease.ack = ack;
        lease.placement = placement;
        lease.expiry_told =
            events.iter().rev().find(|e| soon_or_amended(e.what)).is_some_and(|e| e.what == EventCode::ExpiringSoon);
        let dispute = events.iter().rev().find(|e| matches!(e.what, EventCode::Disputed | EventCode::Agreed));
        lease.disputed_at = dispute.filter(|e| e.what == EventCode::Disputed).map(|e| e.at);
        lease.unsettled = dispute.is_some_and(|e| e.what == EventCode::Agreed)
            && lease.ack.as_ref().is_some_and(|a| a.partial.is_some());
        // Events are kept only so long. Of a firm lease nothing else is waived; the platform waives cut runs of others.
        let told = events.iter().any(|e| e.what == EventCode::Agreed && e.by == Cause::Host);
        lease.waived = told || (lease.draft.rental.is_firm() && counters.waived > Millis(0));
        lease.events = events;
        lease.close = ours;
        lease.renter_close = renters;
        lease
    }

    /// The lease's id.
    #[must_use]
    pub fn id(&self) -> LeaseId {
        self.draft.id().into()
    }

    /// Its terms.
    #[must_use]
    pub const fn draft(&self) -> &Verified<LeaseDraft> {
        &self.draft
    }

    /// Where it stands.
    #[must_use]
    pub const fn state(&self) -> LeaseState {
        self.state
    }

    /// Since when.
    #[must_use]
    pub const fn since(&self) -> Timestamp {
        self.since
    }

    /// What happened so far.
    #[must_use]
    pub fn events(&self) -> &[LeaseEvent] {
        &self.events
    }

    /// What runs.
    #[must_use]
    pub const fn workload(&self) -> &Workload {
        &self.workload
    }

    /// How far preparing is.
    #[must_use]
    pub const fn progress(&self) -> Option<Progress> {
        self.progress
    }

    /// The newest placement.
    #[must_use]
    pub const fn placement(&self) -> Option<&Verified<Entry>> {
        self.placement.as_ref()
    }

    /// The newest usage.
    #[must_use]
    pub const fn usage(&self) -> Option<&Verified<Usage>> {
        self.usage.as_ref()
    }

    /// What the renter has acknowledged.
    #[must_use]
    pub fn acked(&self) -> Amount {
        self.ack.as_ref().map_or(Amount::ZERO, |a| a.due)
    }

    /// Counters and what they cost, as of `now`, if nobody cuts the present run within its quantum.
    #[must_use]
    pub fn count(&self, now: Timestamp) -> (Counters, Amount) {
        let mut meter = self.meter.clone();
        meter.advance(now);
        let expected = meter.expected();
        let state = self.ending.as_ref().map_or(self.state, |(reason, ..)| LeaseState::Ended(*reason));
        (expected, self.terms.due_in(&self.draft, &expected, state).unwrap_or(Amount(u64::MAX)))
    }

    /// Whether nothing is left to do: over, and agreed on.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.closed && self.state.is_ended()
    }

    /// Whether its slots are taken: while it prepares or runs, will run again by itself, or may still have processes.
    #[must_use]
    pub fn holds_slots(&self) -> bool {
        !self.state.is_ended() && (self.needs_slots() || self.processes)
    }

    /// Whether its public ports are its own: until it is over, and its processes are.
    pub(super) const fn holds_ports(&self) -> bool {
        !self.state.is_ended() || self.processes
    }

    /// Whether it runs, or is about to by itself.
    pub(super) fn needs_slots(&self) -> bool {
        let active = matches!(
            self.state,
            LeaseState::Preparing
                | LeaseState::Running
                | LeaseState::Paused(PauseReason::HostRestart | PauseReason::EngineRestart)
        );
        active && !self.draft.is_volume()
    }

    /// Whether its end is decided, and what it has is being removed.
    pub(super) const fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// The accept that made it.
    #[must_use]
    pub const fn accept(&self) -> &Verified<Entry> {
        &self.accept
    }

    pub(super) const fn durable(&self) -> Option<Ticket> {
        self.durable
    }

    /// Whether this wish has not come before.
    pub(super) fn is_new_wish(&mut self, nonce: Nonce) -> bool {
        if self.wishes.contains(&nonce) {
            return false;
        }
        if self.wishes.len() >= WISHES {
            self.wishes.pop_front();
        }
        self.wishes.push_back(nonce);
        true
    }

    fn order(&self, cx: &mut Context, order: RuntimeOrder) {
        cx.out(Output::Runtime { lease: self.id(), order: Box::new(order), after: self.durable });
    }

    /// Goes to a state, writes it down, and counts what was used until then.
    fn enter(
        &mut self,
        cx: &mut Context,
        state: LeaseState,
        by: Cause,
        exit_code: Option<i32>,
        note: String,
        now: Timestamp,
    ) {
        if self.ending.is_none() {
            self.meter.enter(state, now);
        }
        self.state = state;
        self.since = now;
        if state != LeaseState::Running {
            self.eviction = None;
        }
        if !matches!(state, LeaseState::Paused(PauseReason::Outbid)) {
            self.rank = None;
        }
        self.log(cx, EventCode::State, by, exit_code, note, now);
        if matches!(state, LeaseState::Paused(_)) && self.ending.is_none() && self.renter_close.is_none() {
            self.issue_usage(cx, now);
        }
    }

    fn log_code(&mut self, cx: &mut Context, what: EventCode, by: Cause, note: String, now: Timestamp) {
        self.log(cx, what, by, None, note, now);
    }

    /// Writes an event down, in the present state.
    fn log(
        &mut self,
        cx: &mut Context,
        what: EventCode,
        by: Cause,
        exit_code: Option<i32>,
        mut note: String,
        now: Timestamp,
    ) {
        note.retain(|c| !c.is_control());
        let fits = (0..=limits::SENTENCE_BYTES).rev().find(|i| note.is_char_boundary(*i)).unwrap_or(0);
        note.truncate(fits);
        let last = self.events.last();
        let n = last.map_or(1, |e| e.n.saturating_add(1));
        let at = last.map_or(now, |e| e.at.max(now));
        let event = LeaseEvent { n, at, state: self.state, what, by, exit_code, note };
        if self.events.len() >= limits::EVENTS_PER_LEASE {
            self.events.remove(0);
        }
        self.events.push(event.clone());
        self.durable = Some(cx.persist(Record::Private(Private::Event { lease: self.id(), event })));
        self.tell(now);
        cx.changed(self.id(), now);
    }

    /// Signs which slots and devices the next start has.
    pub(super) fn place(&mut self, cx: &mut Context, slots: Vec<u16>, devices: Vec<String>, now: Timestamp) {
        self.starts = self.starts.saturating_add(1);
        self.prepare_by = now + limits::PREPARE_WITHIN;
        let body = Body::Placement { start: self.starts, slots, devices };
        if let Some((entry, ticket)) = cx.append(self.id(), self.draft.renter, body, now) {
            self.placement = Some(entry);
            self.durable = Some(ticket);
        }
    }

    /// The clock went back: what was to happen again shortly happens shortly.
    pub(super) fn clock_went_back(&mut self, now: Timestamp) {
        let soon = |at: &mut Timestamp, within: Millis| *at = (*at).min(now + within);
        soon(&mut self.next_tick, self.draft.tick);
        soon(&mut self.send_at, self.retry);
        soon(&mut self.order_again_at, ORDER_AGAIN);
        if self.prepare_by != Timestamp(u64::MAX) {
            soon(&mut self.prepare_by, limits::PREPARE_WITHIN);
        }
        if let Some(eviction) = &mut self.eviction {
            soon(&mut eviction.at, self.draft.notice);
        }
        soon(&mut self.extend_again_at, limits::EXTEND_BEFORE);
        soon(&mut self.reprice_again_at, Millis(0));
        self.amends = (now, 0);
        soon(&mut self.anchored_at, Millis(0));
    }
}

const fn soon_or_amended(what: EventCode) -> bool {
    matches!(what, EventCode::ExpiringSoon | EventCode::Amended)
}

/// Only interruptible leases are cut by others.
fn quantum_of(draft: &LeaseDraft) -> Millis {
    if draft.rental.is_firm() { Millis(0) } else { draft.quantum }
}

const fn caused_by(reason: EndReason) -> Cause {
    match reason {
        EndReason::Destroyed | EndReason::LeftEarly | EndReason::Unconfirmed => Cause::Renter,
        EndReason::Expired | EndReason::PrepareTimeout | EndReason::Unpaid | EndReason::HostVanished => Cause::Clock,
        EndReason::EngineLost => Cause::Engine,
        EndReason::AskedFromInside => Cause::Guest,
        EndReason::HostAborted
        | EndReason::ImageFailed
        | EndReason::CreateFailed
        | EndReason::ContainerLost
        | EndReason::VolumeLost
        | EndReason::MemberRemoved
        | EndReason::Disputed => Cause::Host,
    }
}
