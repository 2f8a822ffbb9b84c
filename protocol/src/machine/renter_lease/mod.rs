//! One lease, as its renter keeps it: from our open to the acknowledged close.
//!
//! Owns what we believe of the lease, and the decision how much of a usage we acknowledge. Nothing here trusts the host: each
//! entry, event and receipt is checked against the draft both signed, against what came before, and against our own clock.
//! Receipts and the host's close are in `receipts`, our own meter in [`heartbeat`], our own close of a lease that came too late is in
//! `giving_up`, what our meter saw and what we sign of that at the end in `watching`.

mod amending;
mod giving_up;
pub mod heartbeat;
#[cfg(test)]
mod hostile;
mod receipts;
#[cfg(test)]
mod tests;
mod watching;
#[cfg(test)]
mod watching_tests;

use self::{
    amending::Amending,
    heartbeat::{Beat, Heartbeat},
    watching::Watching,
};
use super::{
    context::Context,
    io::Ticket,
    record::{Private, Record},
};
use crate::{
    Amount, LeaseId, Millis, NodeId, Timestamp, Verified,
    entry::{Body, Entry, VoidCode},
    lease::{EndReason, LeaseDraft, LeaseState},
    limits,
    message::{EventCode, Eviction, Extension, LeaseEvent, LeaseUpdate, Progress, Rank, Response},
    opinion::Watched,
    receipt::{Ack, Usage},
    signed::Signed,
    terms::LeaseTerms,
};

/// What became of our open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// The host has not answered yet.
    Waiting,
    /// We wait no longer: an accept is answered by a close.
    GivenUp,
    /// The lease exists.
    Accepted(Verified<Entry>),
    /// There is no lease.
    Void(VoidCode, String),
}

/// A lease we rent, or have opened.
#[derive(Debug)]
pub struct RenterLease {
    draft: Verified<LeaseDraft>,
    open: Verified<Entry>,
    opened: Opened,
    state: LeaseState,
    since: Timestamp,
    events: Vec<LeaseEvent>,
    placement: Option<Verified<Entry>>,
    terms: LeaseTerms,
    /// The host's word for them; none while they are the draft's.
    in_force: Option<Verified<Entry>>,
    amending: Option<Amending>,
    refused: Vec<Verified<Entry>>,
    eviction: Option<Eviction>,
    rank: Option<Rank>,
    asked: Option<Extension>,
    /// Whether we have asked for its end: only then a reserved lease may claim that we left it.
    leaving: bool,
    usage: Option<Verified<Usage>>,
    ack: Option<Verified<Ack>>,
    /// What our own questions into the instance have found out.
    heartbeat: Heartbeat,
    watching: Watching,
    close: Option<Verified<Entry>>,
    close_ack: Option<Verified<Entry>>,
    progress: Option<Progress>,
    heard_at: Option<Timestamp>,
    durable: Option<Ticket>,
    /// Our close is on its way to the host, or when it goes again.
    delivering: bool,
    deliver_at: Timestamp,
    deliver_retry: Millis,
}

/// What the ledger has of a lease, each document verified.
pub(super) struct Remembered {
    pub(super) draft: Verified<LeaseDraft>,
    pub(super) open: Verified<Entry>,
    pub(super) accept: Option<Verified<Entry>>,
    pub(super) placement: Option<Verified<Entry>>,
    pub(super) usage: Option<Verified<Usage>>,
    pub(super) ack: Option<Verified<Ack>>,
    pub(super) close: Option<Verified<Entry>>,
    pub(super) close_ack: Option<Verified<Entry>>,
    pub(super) events: Vec<LeaseEvent>,
    /// Our newest change.
    pub(super) amend: Option<Verified<Entry>>,
    /// The host's, oldest first; the last one is in force.
    pub(super) amended: Vec<Verified<Entry>>,
    /// Whether we had asked for its end.
    pub(super) leaving: bool,
    /// What our meter had seen when that was last written down.
    pub(super) watched: Option<Watched>,
    /// Whether our chain says what it saw.
    pub(super) probed: bool,
}

impl RenterLease {
    pub(super) fn opened(draft: Verified<LeaseDraft>, open: Verified<Entry>, ticket: Ticket, now: Timestamp) -> Self {
        Self {
            terms: LeaseTerms::drafted(&draft),
            draft,
            open,
            opened: Opened::Waiting,
            in_force: None,
            amending: None,
            refused: Vec::new(),
            eviction: None,
            rank: None,
            asked: None,
            leaving: false,
            state: LeaseState::Preparing,
            since: now,
            events: Vec::new(),
            placement: None,
            usage: None,
            ack: None,
            heartbeat: Heartbeat::default(),
            watching: Watching::default(),
            close: None,
            close_ack: None,
            progress: None,
            heard_at: None,
            durable: Some(ticket),
            delivering: false,
            deliver_at: now,
            deliver_retry: giving_up::RETRY.0,
        }
    }

    pub(super) fn restored(from: Remembered) -> Self {
        let Remembered { draft, open, accept, placement, usage, ack, close, close_ack, .. } = from;
        let Remembered { events, amend, amended, leaving, watched, probed, .. } = from;
        let terms = amended.last().and_then(|e| e.body.amended()).map_or(LeaseTerms::drafted(&draft), |a| a.terms);
        let pending = amend.filter(|e| e.body.amend().is_some_and(|(n, ..)| n > terms.n));
        let last = events.last();
        let given_up = close.as_ref().filter(|c| c.author == draft.renter).and_then(|c| c.body.closing());
        let state = last.map_or(LeaseState::Preparing, |e| e.state);
        let mut lease = Self {
            state: given_up.map_or(state, |(reason, ..)| LeaseState::Ended(reason)),
            since: LeaseEvent::last_step(&events).map_or(open.time, |e| e.at),
            terms,
            in_force: amended.into_iter().next_back(),
            amending: pending.map(Amending::restored),
            refused: Vec::new(),
            eviction: None,
            rank: None,
            asked: None,
            leaving,
            opened: accept.map_or(Opened::Waiting, Opened::Accepted),
            draft,
            open,
            events,
            placement,
            usage,
            ack,
            heartbeat: Heartbeat::default(),
            watching: Watching::restored(watched, probed),
            close,
            close_ack,
            progress: None,
            heard_at: None,
            durable: None,
            delivering: false,
            deliver_at: Timestamp(0),
            deliver_retry: giving_up::RETRY.0,
        };
        lease.heartbeat = Heartbeat::restored(lease.silence_acknowledged());
        lease
    }

    /// What came of a question into the instance, asked at `asked` and known at `at`, both since our machine's start. Asked while the host
    /// said that the instance was past `events_seen`; if it has said more since, the question was of another run.
    pub(super) fn beat(
        &mut self,
        cx: &mut Context,
        (asked, beat, at): (Millis, Beat, Millis),
        events_seen: u32,
        now: Timestamp,
    ) {
        if self.state == LeaseState::Running && events_seen == self.events_seen() {
            self.heartbeat.beat(asked, beat, at);
            self.note_watched(cx, now);
        }
    }

    /// For how long the instance is known not to have run while the host says it did.
    #[must_use]
    pub fn silent(&self) -> Millis {
        self.heartbeat.silent()
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

    /// Our open.
    #[must_use]
    pub const fn open(&self) -> &Verified<Entry> {
        &self.open
    }

    /// What the host answered to it.
    #[must_use]
    pub const fn answer(&self) -> &Opened {
        &self.opened
    }

    /// Where it stands, by the host's last word.
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

    /// How far preparing is.
    #[must_use]
    pub const fn progress(&self) -> Option<Progress> {
        self.progress
    }

    /// When and why it is stopped soon, by the host's last word.
    #[must_use]
    pub const fn eviction(&self) -> Option<Eviction> {
        self.eviction
    }

    /// Where it stands in the auction, by the host's last word.
    #[must_use]
    pub const fn rank(&self) -> Option<Rank> {
        self.rank
    }

    /// The longer contract the host asks for.
    #[must_use]
    pub const fn asked(&self) -> Option<Extension> {
        self.asked
    }

    /// We ask for its end: known to us for good before the host hears of it.
    pub(super) fn leave(&mut self, cx: &mut Context) -> Option<Ticket> {
        if !self.leaving {
            self.leaving = true;
            self.durable = Some(cx.persist(Record::Private(Private::Leaving { lease: self.id() })));
        }
        self.durable
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

    /// What we have acknowledged.
    #[must_use]
    pub fn acked(&self) -> Amount {
        self.ack.as_ref().map_or(Amount::ZERO, |a| a.due)
    }

    /// When the host was last heard of.
    #[must_use]
    pub const fn heard_at(&self) -> Option<Timestamp> {
        self.heard_at
    }

    /// Whether it is over, and both have said so, or whether it never came to be.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.close_ack.is_some() || matches!(self.opened, Opened::Void(..))
    }

    pub(super) const fn durable(&self) -> Option<Ticket> {
        self.durable
    }

    /// The number of the last event we have.
    #[must_use]
    pub fn events_seen(&self) -> u32 {
        self.events.last().map_or(0, |e| e.n)
    }

    pub(super) fn give_up(&mut self) {
        if self.opened == Opened::Waiting {
            self.opened = Opened::GivenUp;
        }
    }

    /// The host's answer to our open. True if it settled the matter.
    pub(super) fn take_answer(&mut self, cx: &mut Context, signed: &Signed<Entry>, now: Timestamp) -> bool {
        let host = self.draft.host;
        let Some(entry) = cx.verify(host, signed) else {
            return false;
        };
        self.answered(cx, &entry, now)
    }

    fn answered(&mut self, cx: &mut Context, entry: &Verified<Entry>, now: Timestamp) -> bool {
        let host = self.draft.host;
        if entry.author != host || entry.lease != Some(self.id()) || entry.peer != Some(cx.me()) {
            cx.wrong_answer(host, "an answer to another open");
            return false;
        }
        let late = self.is_late(now);
        match (&entry.body, &self.opened) {
            (Body::LeaseAccept { open }, Opened::Waiting) if *open == self.open.id() && !late => {
                self.durable = Some(cx.persist(Record::from(entry)));
                self.opened = Opened::Accepted(entry.clone());
                self.since = now;
                cx.changed(self.id(), now);
                true
            }
            (Body::LeaseAccept { open }, Opened::Waiting | Opened::GivenUp) if *open == self.open.id() => {
                cx.persist(Record::from(entry));
                self.opened = Opened::Accepted(entry.clone());
                let body = Body::Close { reason: EndReason::Unconfirmed, usage: None, due: Amount::ZERO };
                if let Some((close, ticket)) = cx.append(self.id(), host, body, now) {
                    self.close = Some(close);
                    self.durable = Some(ticket);
                    self.deliver_at = now;
                }
                self.state = LeaseState::Ended(EndReason::Unconfirmed);
                cx.changed(self.id(), now);
                true
            }
            (Body::Void { open, code, sentence }, Opened::Waiting | Opened::GivenUp) if *open == self.open.id() => {
                self.durable = Some(cx.persist(Record::from(entry)));
                self.opened = Opened::Void(*code, sentence.clone());
                cx.changed(self.id(), now);
                true
            }
            (Body::LeaseAccept { .. }, Opened::Accepted(known)) if known.id() == entry.id() => false,
            (_, Opened::Accepted(_) | Opened::Void(..))
                if matches!(entry.body, Body::LeaseAccept { .. } | Body::Void { .. }) =>
            {
                cx.wrong_answer(host, "two different answers to one open");
                false
            }
            (_, _) => {
                cx.wrong_answer(host, "no answer to the open");
                false
            }
        }
    }

    /// The host's news. Returns our answer, to be sent once all it rests on is durable.
    pub(super) fn update(&mut self, cx: &mut Context, update: &LeaseUpdate, now: Timestamp) -> Response {
        self.heard_at = Some(now);
        let mut news = Vec::new();
        for entry in &update.entries {
            news.extend(self.take_entry(cx, entry, now));
        }
        if !matches!(self.opened, Opened::Accepted(_)) {
            return Response::Seen { events_seen: 0, ack: None, close_ack: None };
        }
        if self.progress != update.progress {
            self.progress = update.progress;
            cx.changed(self.id(), now);
        }
        let told = (update.eviction, update.rank, update.asked);
        if told != (self.eviction, self.rank, self.asked) {
            (self.eviction, self.rank, self.asked) = told;
            cx.changed(self.id(), now);
        }
        self.take_events(cx, &update.events, now);
        // What terms carry is measured by the events until then.
        for entry in &news {
            self.take_terms(cx, entry, now);
        }
        if let Some(usage) = &update.usage {
            self.take_usage(cx, usage, now);
        }
        self.take_close(cx, &news, now);
        let newest = self.usage.as_ref().map(Verified::id);
        let ack = self.ack.as_ref().filter(|a| Some(a.usage) == newest).map(Verified::to_signed);
        let close_ack =
            self.close_ack.as_ref().filter(|c| matches!(c.body, Body::CloseAck { .. })).map(Verified::to_signed);
        Response::Seen { events_seen: self.events_seen(), ack, close_ack }
    }

    /// An entry among a host's news. Returns it, verified, unless it was known: a host tells everything until it is confirmed.
    fn take_entry(&mut self, cx: &mut Context, signed: &Signed<Entry>, now: Timestamp) -> Option<Verified<Entry>> {
        let id = cx.id_of(signed);
        let known = [&self.placement, &self.close, &self.in_force].into_iter().flatten().any(|e| e.id() == id);
        if known || matches!(&self.opened, Opened::Accepted(accept) if accept.id() == id) {
            return None;
        }
        let host = self.draft.host;
        let entry = cx.verify(host, signed)?;
        if entry.author != host || entry.lease != Some(self.id()) || entry.peer != Some(cx.me()) {
            cx.wrong_answer(host, "an entry about something else");
            return Some(entry);
        }
        match &entry.body {
            Body::LeaseAccept { .. } | Body::Void { .. } => {
                self.answered(cx, &entry, now);
            }
            Body::Placement { start, .. } => {
                let newer = match self.placement.as_ref().map(|p| &p.body) {
                    Some(Body::Placement { start: known, .. }) => start > known,
                    Some(_) | None => true,
                };
                if newer && self.close.is_none() && u64::from(*start) <= self.budget(now) {
                    self.durable = Some(cx.persist(Record::from(&entry)));
                    self.placement = Some(entry.clone());
                    cx.changed(self.id(), now);
                }
            }
            // Terms are looked at once the events are known, and a close last, once the usage it is about is.
            Body::Amended(_)
            | Body::Close { .. }
            | Body::Amend { .. }
            | Body::Anchor { .. }
            | Body::Genesis { .. }
            | Body::LeaseOpen { .. }
            | Body::CloseAck { .. }
            | Body::Settle(_)
            | Body::SettleAck(_)
            | Body::Dispute(_)
            | Body::Attestation(_)
            | Body::Probe(_)
            | Body::Checkpoint(_) => {}
        }
        Some(entry)
    }

    /// How many events or receipts a host may have made by now: a host can't fill our disk with a lease's news.
    fn budget(&self, now: Timestamp) -> u64 {
        64 + now.since(self.open.time).0 / 250
    }

    fn take_events(&mut self, cx: &mut Context, events: &[LeaseEvent], now: Timestamp) {
        let budget = self.budget(now);
        for event in events {
            let next = event.n > self.events_seen() && u64::from(event.n) <= budget;
            if !next || self.state.is_ended() {
                continue;
            }
            if self.events.last().is_some_and(|last| event.at < last.at) {
                return cx.wrong_answer(self.draft.host, "an event dated before the one before it");
            }
            self.state = event.state;
            if event.state != LeaseState::Running {
                self.heartbeat.run_ends();
            }
            if event.what != EventCode::Labelled {
                self.since = event.at;
            }
            if event.state != LeaseState::Preparing {
                self.progress = None;
            }
            if self.events.len() >= limits::EVENTS_PER_LEASE {
                self.events.remove(0);
            }
            self.events.push(event.clone());
            self.durable = Some(cx.persist(Record::Private(Private::Event { lease: self.id(), event: event.clone() })));
            cx.changed(self.id(), now);
        }
    }

    /// The host of the lease.
    #[must_use]
    pub fn host(&self) -> NodeId {
        self.draft.host
    }
}
