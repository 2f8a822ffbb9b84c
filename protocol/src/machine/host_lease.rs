//! One lease, as its host keeps it: from the accept to the acknowledged close.
//!
//! Owns the lease's state, meter, events and receipts. It does not own slots, which are the machine's ([`super::host`]): it says
//! through [`HostLease::holds_slots`] whether it needs them.

use super::{
    context::{Asked, Context},
    io::{Output, RuntimeOrder, RuntimeReport, Ticket},
    meter::Meter,
    record::{Private, Record},
};
use crate::{
    Amount, LeaseId, Millis, Timestamp, Verified,
    entry::{Body, Entry},
    lease::{EndReason, LeaseDraft, LeaseState, PauseReason},
    limits,
    message::{Cause, LeaseEvent, LeaseUpdate, Progress, Request},
    money::Counters,
    receipt::{Ack, Usage},
    signed::Signed,
    workload::Workload,
};

/// Between two anchors of a running lease.
const ANCHOR_EVERY: Millis = Millis::from_hours(1);
/// Between two attempts to reach a renter that does not answer.
const RETRY: (Millis, Millis) = (Millis::from_secs(1), Millis::from_secs(30));
/// Progress goes out at most so often.
const PROGRESS_EVERY: Millis = Millis(250);

/// What happens when the processes have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopping {
    No,
    Pause(PauseReason, Cause),
}

/// A lease we host.
#[derive(Debug)]
pub struct HostLease {
    draft: Verified<LeaseDraft>,
    accept: Verified<Entry>,
    workload: Workload,
    state: LeaseState,
    since: Timestamp,
    meter: Meter,
    usage: Option<Verified<Usage>>,
    ack: Option<Verified<Ack>>,
    placement: Option<Verified<Entry>>,
    starts: u32,
    events: Vec<LeaseEvent>,
    events_seen: u32,
    close: Option<Verified<Entry>>,
    closed: bool,
    stopping: Stopping,
    ending: Option<(EndReason, Cause, String)>,
    progress: Option<Progress>,
    next_tick: Timestamp,
    anchored_at: Timestamp,
    /// Nothing about this lease leaves before this is durable.
    durable: Option<Ticket>,
    in_flight: bool,
    news: bool,
    send_at: Timestamp,
    retry: Millis,
}

impl HostLease {
    pub(super) fn accepted(
        draft: Verified<LeaseDraft>,
        accept: Verified<Entry>,
        workload: Workload,
        ticket: Ticket,
        now: Timestamp,
    ) -> Self {
        Self {
            meter: Meter::new(Counters::default(), LeaseState::Preparing, false, now),
            state: LeaseState::Preparing,
            since: now,
            usage: None,
            ack: None,
            placement: None,
            starts: 0,
            events: Vec::new(),
            events_seen: 0,
            close: None,
            closed: false,
            stopping: Stopping::No,
            ending: None,
            progress: None,
            next_tick: now + draft.tick,
            anchored_at: now,
            durable: Some(ticket),
            in_flight: false,
            news: true,
            send_at: now,
            retry: RETRY.0,
            draft,
            accept,
            workload,
        }
    }

    /// A lease from the ledger. Time since its last record counts for nothing.
    #[allow(clippy::too_many_arguments)] // one caller, which has just verified each of them
    pub(super) fn restored(
        draft: Verified<LeaseDraft>,
        accept: Verified<Entry>,
        workload: Workload,
        usage: Option<Verified<Usage>>,
        ack: Option<Verified<Ack>>,
        placement: Option<Verified<Entry>>,
        close: Option<Verified<Entry>>,
        events: Vec<LeaseEvent>,
        now: Timestamp,
    ) -> Self {
        let state = events.last().map_or(LeaseState::Preparing, |e| e.state);
        let counters = usage.as_ref().map_or_else(Counters::default, |u| u.counters);
        let starts = match placement.as_ref().map(|p| &p.body) {
            Some(Body::Placement { start, .. }) => *start,
            Some(_) | None => 0,
        };
        let since = events.last().map_or(accept.time, |e| e.at);
        let ticket = Ticket(0);
        let mut lease = Self::accepted(draft, accept, workload, ticket, now);
        lease.durable = None;
        lease.meter = Meter::new(counters, state, state != LeaseState::Preparing, now);
        lease.state = state;
        lease.since = since;
        lease.usage = usage;
        lease.ack = ack;
        lease.placement = placement;
        lease.starts = starts;
        lease.events = events;
        lease.close = close;
        lease
    }

    /// After a restart: what ran is looked for, and until it is found nothing is billed.
    pub(super) fn resume(&mut self, cx: &mut Context, now: Timestamp) {
        if self.state == LeaseState::Running {
            self.enter(
                cx,
                LeaseState::Paused(PauseReason::HostRestart),
                Cause::Host,
                None,
                "the host's node restarts".to_owned(),
                now,
            );
        }
        if !self.state.is_ended() {
            self.adopt(cx);
        }
    }

    fn adopt(&mut self, cx: &mut Context) {
        let draft = self.draft.clone();
        self.order(cx, RuntimeOrder::Adopt { draft });
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

    /// What the renter has acknowledged.
    #[must_use]
    pub fn acked(&self) -> Amount {
        self.ack.as_ref().map_or(Amount::ZERO, |a| a.due)
    }

    /// Counters and what they cost, as of `now`.
    #[must_use]
    pub fn count(&self, now: Timestamp) -> (Counters, Amount) {
        let mut meter = self.meter.clone();
        meter.advance(now);
        (*meter.counters(), self.draft.due(meter.counters()).unwrap_or(Amount(u64::MAX)))
    }

    /// Whether nothing is left to do: over, and agreed on.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.closed && self.state.is_ended()
    }

    /// Whether its slots are taken: while it prepares or runs, or will run again by itself.
    #[must_use]
    pub fn holds_slots(&self) -> bool {
        let restarts = LeaseState::Paused(PauseReason::HostRestart);
        let recovers = LeaseState::Paused(PauseReason::EngineRestart);
        matches!(self.state, LeaseState::Preparing | LeaseState::Running)
            || self.state == restarts
            || self.state == recovers
    }

    /// The accept that made it.
    #[must_use]
    pub const fn accept(&self) -> &Verified<Entry> {
        &self.accept
    }

    pub(super) const fn durable(&self) -> Option<Ticket> {
        self.durable
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
        self.meter.enter(state, now);
        self.state = state;
        self.since = now;
        let n = self.events.last().map_or(1, |e| e.n.saturating_add(1));
        let event = LeaseEvent { n, at: now, state, by, exit_code, note };
        if self.events.len() >= limits::EVENTS_PER_LEASE {
            self.events.remove(0);
        }
        self.events.push(event.clone());
        self.durable = Some(cx.persist(Record::Private(Private::Event { lease: self.id(), event })));
        if !matches!(state, LeaseState::Preparing | LeaseState::Running) {
            self.issue_usage(cx, now);
        }
        self.news = true;
        self.send_at = now;
        cx.changed(self.id(), now);
    }

    /// The next usage. While an update is on its way none is made: the answer to it must be about the newest.
    fn issue_usage(&mut self, cx: &mut Context, now: Timestamp) {
        self.meter.advance(now);
        let counters = *self.meter.counters();
        let Ok(due) = self.draft.due(&counters) else {
            return;
        };
        let usage = Usage {
            host: self.draft.host,
            lease: self.id(),
            n: self.usage.as_ref().map_or(1, |u| u.n + 1),
            prev: self.usage.as_ref().map(Verified::id),
            time: now,
            counters,
            due,
            state: self.state,
        };
        let Some(usage) = cx.sign(usage) else { return };
        self.durable = Some(cx.persist(Record::from(&usage)));
        self.usage = Some(usage);
        self.next_tick = now + self.draft.tick;
        self.news = true;
        cx.changed(self.id(), now);
    }

    /// What the runtime tells.
    pub(super) fn report(&mut self, cx: &mut Context, report: RuntimeReport, now: Timestamp) {
        match report {
            RuntimeReport::Progress(progress) => {
                self.progress = Some(progress);
                if !self.news {
                    self.news = true;
                    self.send_at = self.send_at.max(now + PROGRESS_EVERY);
                }
                cx.changed(self.id(), now);
            }
            RuntimeReport::Prepared => {
                self.meter.disk_created(now);
                let unstarted = LeaseState::Preparing;
                let waits =
                    matches!(self.state, LeaseState::Paused(PauseReason::HostRestart | PauseReason::EngineRestart));
                if self.ending.is_none() && (self.state == unstarted || waits) {
                    self.order_start(cx, now);
                }
            }
            RuntimeReport::Started => self.started(cx, now),
            RuntimeReport::Exited { code, by, note } => self.exited(cx, code, by, note, now),
            RuntimeReport::DiskFull => {
                self.stopping = Stopping::No;
                let note = format!("the instance wrote more than its {} MB of disk", self.draft.resources.disk_mb);
                self.enter(cx, LeaseState::Paused(PauseReason::DiskFull), Cause::Guest, None, note, now);
            }
            RuntimeReport::Failed { reason, note } => self.end(cx, reason, Cause::Host, note, now),
            RuntimeReport::Destroyed => self.destroyed(cx, now),
            RuntimeReport::Missing => self.missing(cx, now),
            RuntimeReport::Traffic { rx_bytes, tx_bytes } => self.meter.traffic(rx_bytes, tx_bytes),
        }
    }

    fn started(&mut self, cx: &mut Context, now: Timestamp) {
        if self.ending.is_some() || self.state.is_ended() {
            return;
        }
        let wanted = matches!(
            self.state,
            LeaseState::Preparing | LeaseState::Paused(PauseReason::HostRestart | PauseReason::EngineRestart)
        );
        if wanted {
            self.progress = None;
            self.meter.disk_created(now);
            self.enter(cx, LeaseState::Running, Cause::Host, None, String::new(), now);
        } else if self.state != LeaseState::Running {
            // It runs though its lease is paused: the node died between writing that down and stopping it.
            self.order(cx, RuntimeOrder::Stop(limits::STOP_GRACE));
        }
    }

    fn exited(&mut self, cx: &mut Context, code: i32, by: Cause, note: String, now: Timestamp) {
        if self.ending.is_some() || self.state.is_ended() {
            return;
        }
        if let Stopping::Pause(reason, cause) = std::mem::replace(&mut self.stopping, Stopping::No) {
            self.enter(cx, LeaseState::Paused(reason), cause, Some(code), note, now);
            return;
        }
        let interrupted = matches!(by, Cause::Engine | Cause::Host);
        match self.state {
            LeaseState::Paused(PauseReason::HostRestart | PauseReason::EngineRestart) if interrupted => {
                self.order_start(cx, now)
            }
            LeaseState::Running if interrupted => {
                self.enter(cx, LeaseState::Paused(PauseReason::EngineRestart), Cause::Engine, Some(code), note, now);
                self.order_start(cx, now);
            }
            LeaseState::Preparing
            | LeaseState::Running
            | LeaseState::Paused(PauseReason::HostRestart | PauseReason::EngineRestart) => {
                self.enter(cx, LeaseState::Paused(PauseReason::Exited), by, Some(code), note, now);
            }
            LeaseState::Paused(_) | LeaseState::Ended(_) => {}
        }
    }

    fn missing(&mut self, cx: &mut Context, now: Timestamp) {
        if self.ending.is_some() {
            self.destroyed(cx, now);
        } else if self.state == LeaseState::Preparing {
            self.prepare(cx);
        } else if !self.state.is_ended() {
            self.end(
                cx,
                EndReason::ContainerLost,
                Cause::Host,
                "the container was gone when the host looked for it".to_owned(),
                now,
            );
        }
    }

    /// Orders the container made. Its devices were fixed by `place`.
    pub(super) fn prepare(&self, cx: &mut Context) {
        let devices = match self.placement.as_ref().map(|p| &p.body) {
            Some(Body::Placement { devices, .. }) => devices.clone(),
            Some(_) | None => Vec::new(),
        };
        self.order(
            cx,
            RuntimeOrder::Prepare { draft: self.draft.clone(), workload: Box::new(self.workload.clone()), devices },
        );
    }

    /// Signs which slots and devices the next start has.
    pub(super) fn place(&mut self, cx: &mut Context, slots: Vec<u16>, devices: Vec<String>, now: Timestamp) {
        self.starts = self.starts.saturating_add(1);
        let body = Body::Placement { start: self.starts, slots, devices };
        if let Some((entry, ticket)) = cx.append(self.id(), self.draft.renter, body, now) {
            self.placement = Some(entry);
            self.durable = Some(ticket);
        }
    }

    fn order_start(&mut self, cx: &mut Context, now: Timestamp) {
        if now < self.draft.ends_at {
            self.order(cx, RuntimeOrder::Start);
        } else {
            self.enter(cx, LeaseState::Paused(PauseReason::Expired), Cause::Clock, None, String::new(), now);
        }
    }

    /// Runs a paused instance again, in slots that [`HostLease::place`] named.
    pub(super) fn start(&mut self, cx: &mut Context, by: Cause, now: Timestamp) {
        let note = "starting again".to_owned();
        // Holds the slots until the container runs; nothing is billed before.
        self.enter(cx, LeaseState::Preparing, by, None, note, now);
        self.order(cx, RuntimeOrder::Start);
    }

    /// Why it can't be started now, or none.
    #[must_use]
    pub fn cannot_start(&self, now: Timestamp) -> Option<&'static str> {
        match self.state {
            _ if self.ending.is_some() => Some("it is being destroyed"),
            LeaseState::Preparing | LeaseState::Running => Some("it is running or about to"),
            LeaseState::Ended(_) => Some("it has ended"),
            LeaseState::Paused(_) if now >= self.draft.ends_at => Some("its contract has ended"),
            LeaseState::Paused(PauseReason::MaxSpend) => Some("its spending limit is reached"),
            LeaseState::Paused(PauseReason::NoCredit) if self.over_credit(now) => {
                Some("what is due is not acknowledged")
            }
            LeaseState::Paused(_) => None,
        }
    }

    /// Ends the processes for this reason, and keeps the disk.
    pub(super) fn pause(&mut self, cx: &mut Context, reason: PauseReason, by: Cause, now: Timestamp) {
        match self.state {
            LeaseState::Running => {
                if self.stopping == Stopping::No {
                    self.order(cx, RuntimeOrder::Stop(limits::STOP_GRACE));
                }
                self.stopping = Stopping::Pause(reason, by);
            }
            LeaseState::Preparing | LeaseState::Paused(_) if self.state != LeaseState::Paused(reason) => {
                self.order(cx, RuntimeOrder::Stop(limits::STOP_GRACE));
                self.enter(cx, LeaseState::Paused(reason), by, None, String::new(), now);
            }
            LeaseState::Preparing | LeaseState::Paused(_) | LeaseState::Ended(_) => {}
        }
    }

    /// Destroys the instance; the lease is over once it is gone. Billing of compute stops now.
    pub(super) fn end(&mut self, cx: &mut Context, reason: EndReason, by: Cause, note: String, now: Timestamp) {
        if self.ending.is_some() || self.state.is_ended() {
            return;
        }
        self.ending = Some((reason, by, note));
        if self.state == LeaseState::Running {
            self.enter(cx, LeaseState::Paused(PauseReason::Stopped), by, None, "being destroyed".to_owned(), now);
        }
        self.order(cx, RuntimeOrder::Destroy);
    }

    fn destroyed(&mut self, cx: &mut Context, now: Timestamp) {
        if self.state.is_ended() {
            return;
        }
        let lost = || (EndReason::ContainerLost, Cause::Host, "the container is gone".to_owned());
        let (reason, by, note) = self.ending.take().unwrap_or_else(lost);
        self.ending = Some((reason, by, String::new()));
        self.enter(cx, LeaseState::Ended(reason), by, None, note, now);
        if !self.closed {
            self.write_close(cx, reason, now);
        }
    }

    fn write_close(&mut self, cx: &mut Context, reason: EndReason, now: Timestamp) {
        let usage = self.usage.as_ref().map(Verified::id);
        let due = self.usage.as_ref().map_or(Amount::ZERO, |u| u.due);
        if let Some((entry, ticket)) = cx.append(self.id(), self.draft.renter, Body::Close { reason, usage, due }, now)
        {
            self.close = Some(entry);
            self.durable = Some(ticket);
            self.news = true;
        }
    }

    /// The engine is gone: what runs can't be seen, and is not billed.
    pub(super) fn engine_down(&mut self, cx: &mut Context, now: Timestamp) {
        if self.state == LeaseState::Running {
            self.stopping = Stopping::No;
            let note = "the host's container engine stopped".to_owned();
            self.enter(cx, LeaseState::Paused(PauseReason::EngineRestart), Cause::Engine, None, note, now);
        }
    }

    /// The engine is back: look what it has, or go on with what was ordered.
    pub(super) fn engine_up(&mut self, cx: &mut Context) {
        if self.state.is_ended() {
            return;
        }
        if self.ending.is_some() {
            self.order(cx, RuntimeOrder::Destroy);
        } else {
            self.adopt(cx);
        }
    }

    fn over_credit(&self, now: Timestamp) -> bool {
        let (_, due) = self.count(now);
        due.saturating_sub(self.acked()) > self.draft.credit
    }

    /// The due at which compute stops, so that keeping the disk still fits under the ceiling.
    fn spend_limit(&self) -> Option<Amount> {
        let ceiling = self.draft.max_spend?;
        let kept = Counters { storage: limits::DISK_KEPT, ..Counters::default() };
        let reserve =
            crate::money::due(&self.draft.rates, self.draft.resources.disk_mb, &kept, Amount::ZERO).unwrap_or(ceiling);
        Some(ceiling.saturating_sub(reserve))
    }

    /// Does what is due at `now`.
    pub(super) fn tick(&mut self, cx: &mut Context, now: Timestamp) {
        if self.state.is_ended() || self.ending.is_some() {
            return;
        }
        let (_, due) = self.count(now);
        match self.state {
            LeaseState::Running => {
                if now >= self.draft.ends_at {
                    self.pause(cx, PauseReason::Expired, Cause::Clock, now);
                } else if self.spend_limit().is_some_and(|limit| due >= limit) {
                    self.pause(cx, PauseReason::MaxSpend, Cause::Clock, now);
                } else if self.over_credit(now) {
                    self.pause(cx, PauseReason::NoCredit, Cause::Clock, now);
                }
            }
            LeaseState::Preparing if now >= self.since + limits::PREPARE_WITHIN => {
                let note = format!("preparing took more than {}", limits::PREPARE_WITHIN);
                self.end(cx, EndReason::PrepareTimeout, Cause::Clock, note, now);
            }
            LeaseState::Paused(PauseReason::EngineRestart) if now >= self.since + limits::DISK_KEPT => {
                self.end(
                    cx,
                    EndReason::EngineLost,
                    Cause::Engine,
                    "the host's container engine did not come back".to_owned(),
                    now,
                );
            }
            LeaseState::Paused(_) if now >= self.draft.ends_at + limits::DISK_KEPT => {
                self.end(cx, EndReason::Expired, Cause::Clock, String::new(), now);
            }
            LeaseState::Paused(_) | LeaseState::Preparing | LeaseState::Ended(_) => {}
        }
        if now >= self.next_tick && self.state != LeaseState::Preparing && self.ending.is_none() && !self.in_flight {
            self.issue_usage(cx, now);
        }
    }

    /// When to look again.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        let news = (self.news && !self.in_flight).then_some(self.send_at);
        if self.state.is_ended() || self.ending.is_some() {
            return news;
        }
        let step = match self.state {
            LeaseState::Running => Some(self.draft.ends_at.min(self.spend_deadline())),
            LeaseState::Preparing => Some(self.since + limits::PREPARE_WITHIN),
            LeaseState::Paused(_) => Some(self.draft.ends_at + limits::DISK_KEPT),
            LeaseState::Ended(_) => None,
        };
        let tick = (self.state != LeaseState::Preparing && !self.in_flight).then_some(self.next_tick);
        [news, step, tick].into_iter().flatten().min()
    }

    /// When the spending limit is reached at the present rate.
    fn spend_deadline(&self) -> Timestamp {
        let Some(limit) = self.spend_limit() else {
            return Timestamp(u64::MAX);
        };
        let now = Timestamp(self.since.0.max(self.next_tick.0.saturating_sub(self.draft.tick.0)));
        let (_, due) = self.count(now);
        let left = limit.saturating_sub(due).0;
        let ms = u128::from(left) * 3_600_000 / u128::from(self.draft.rates.compute_hour.0.max(1));
        now + Millis(u64::try_from(ms).unwrap_or(u64::MAX))
    }

    /// What the renter has not confirmed.
    #[must_use]
    pub fn update(&self, events_seen: u32) -> LeaseUpdate {
        let mut entries: Vec<Signed<Entry>> = vec![self.accept.to_signed()];
        entries.extend(self.placement.as_ref().map(Verified::to_signed));
        entries.extend(self.close.as_ref().map(Verified::to_signed));
        let acked = self.ack.as_ref().map(|a| a.usage);
        LeaseUpdate {
            lease: self.id(),
            events: self.events.iter().filter(|e| e.n > events_seen).cloned().collect(),
            progress: self.progress,
            entries,
            usage: self.usage.as_ref().filter(|u| Some(u.id()) != acked).map(Verified::to_signed),
        }
    }

    /// Sends what is new, if there is something and the renter can be reached.
    pub(super) fn pump(&mut self, cx: &mut Context, now: Timestamp) {
        if !self.news
            || self.in_flight
            || self.closed
            || now < self.send_at
            || !cx.connected.contains(&self.draft.renter)
        {
            return;
        }
        self.news = false;
        self.in_flight = true;
        let update = Request::Update(Box::new(self.update(self.events_seen)));
        cx.send(self.draft.renter, update, self.durable, Asked::Update(self.id()));
    }

    /// The renter can be reached (again): tell it everything.
    pub(super) fn renter_connected(&mut self, now: Timestamp) {
        self.news = true;
        self.send_at = now;
        self.retry = RETRY.0;
    }

    pub(super) fn unanswered(&mut self, now: Timestamp) {
        self.in_flight = false;
        self.news = true;
        self.send_at = now + self.retry;
        self.retry = Millis((self.retry.0 * 2).min(RETRY.1.0));
    }

    /// The renter's answer to an update.
    pub(super) fn seen(
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
        if let Some(entry) = close_ack {
            self.take_close_ack(cx, entry, now);
        }
    }

    fn take_ack(&mut self, cx: &mut Context, signed: &Signed<Ack>, now: Timestamp) {
        let renter = self.draft.renter;
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
            // Of an older usage: the newest will be answered, too.
            return;
        }
        if ack.n != usage.n || ack.due > usage.due || (ack.due < usage.due) != ack.partial.is_some() {
            return cx.false_receipt(renter, "an acknowledgement that does not fit its usage");
        }
        if ack.due < self.acked() {
            return cx.false_receipt(renter, "an acknowledgement that takes back an earlier one");
        }
        if self.ack.as_ref().is_some_and(|known| known.id() == ack.id()) {
            return;
        }
        self.durable = Some(cx.persist(Record::from(&ack)));
        let due = ack.due;
        let (usage, id) = (usage.id(), ack.id());
        self.ack = Some(ack);
        let paused = matches!(self.state, LeaseState::Paused(_));
        if (now >= self.anchored_at + ANCHOR_EVERY
            || (paused && now.since(self.anchored_at) > Millis(1) && self.anchored_at < self.since))
            && !self.state.is_ended()
        {
            self.anchored_at = now;
            if let Some((_, ticket)) = cx.append(self.id(), renter, Body::Anchor { usage, ack: id, due }, now) {
                self.durable = Some(ticket);
            }
        }
        cx.changed(self.id(), now);
    }

    /// The renter agrees that it is over.
    pub(super) fn take_close_ack(&mut self, cx: &mut Context, signed: &Signed<Entry>, now: Timestamp) {
        let renter = self.draft.renter;
        let Some(entry) = cx.verify(renter, signed) else {
            return;
        };
        let ours = self.close.as_ref().map(Verified::id);
        let fits = matches!(&entry.body, Body::CloseAck { close, .. } if Some(*close) == ours);
        if entry.author != renter || entry.lease != Some(self.id()) || !fits {
            return cx.false_receipt(renter, "an agreement to a close that is not ours");
        }
        if !self.closed {
            self.durable = Some(cx.persist(Record::from(&entry)));
            self.closed = true;
            cx.changed(self.id(), now);
        }
    }

    /// The renter closed it by itself, since our accept came too late for it.
    pub(super) fn closed_by_renter(
        &mut self,
        cx: &mut Context,
        close: &Verified<Entry>,
        reason: EndReason,
        now: Timestamp,
    ) {
        let already = self.closed;
        self.closed = true;
        if already {
            return;
        }
        self.durable = Some(cx.persist(Record::from(close)));
        if let Some((_, ticket)) =
            cx.append(self.id(), self.draft.renter, Body::CloseAck { close: close.id(), due: Amount::ZERO }, now)
        {
            self.durable = Some(ticket);
        }
        self.end(cx, reason, Cause::Renter, "the renter had given up before the host answered".to_owned(), now);
    }
}
