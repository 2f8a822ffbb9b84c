//! What changes a hosted lease's state: orders, the runtime's reports, and time.
//!
//! A pause or an end is decided and written down first, and stops the meter; the processes end after it. Until they are known
//! to be gone the slots stay held.

use super::{
    super::{
        context::Context,
        io::{RuntimeOrder, RuntimeReport},
    },
    HostLease, ORDER_AGAIN,
};
use crate::{
    Amount, Millis, Timestamp, Verified,
    entry::{Body, Entry},
    lease::{EndReason, LeaseState, PauseReason},
    limits,
    message::{Cause, EventCode},
    negotiation::RentalType,
    opinion::DisputeCode,
};

/// Progress goes out at most so often.
const PROGRESS_EVERY: Millis = Millis(250);

const RESTARTING: [LeaseState; 2] =
    [LeaseState::Paused(PauseReason::HostRestart), LeaseState::Paused(PauseReason::EngineRestart)];

impl HostLease {
    /// After a restart: what ran is looked for, once the engine is up, and until it is found nothing is billed.
    pub(in super::super) fn resume(&mut self, cx: &mut Context, now: Timestamp) {
        if self.state == LeaseState::Running && self.ending.is_none() {
            let note = "the host's node restarts".to_owned();
            self.enter(cx, LeaseState::Paused(PauseReason::HostRestart), Cause::Host, None, note, now);
        }
        if self.state.is_ended()
            && let Some(close) = self.renter_close.clone()
        {
            self.agree_to(cx, &close, now);
        }
    }

    /// What the runtime tells.
    pub(in super::super) fn report(&mut self, cx: &mut Context, report: RuntimeReport, now: Timestamp) {
        if self.state.is_ended() {
            return;
        }
        if self.draft.is_volume() {
            return self.volume_report(cx, report, now);
        }
        match report {
            RuntimeReport::Progress(progress) => {
                let before = self.progress.replace(progress).unwrap_or_default();
                let got_on = progress.bytes_done > before.bytes_done || progress.layers_done > before.layers_done;
                if got_on && self.state == LeaseState::Preparing && self.prepare_by != Timestamp(u64::MAX) {
                    // Slots are not held for longer than that, however an image trickles in.
                    let most = self.since + limits::PREPARE_AT_MOST;
                    self.prepare_by = self.prepare_by.max(now + limits::PREPARE_WITHIN).min(most.max(self.prepare_by));
                }
                if !self.news {
                    self.news = true;
                    self.send_at = self.send_at.max(now + PROGRESS_EVERY);
                }
                cx.changed(self.id(), now);
            }
            RuntimeReport::Prepared => {
                // Of a start that was ordered it says nothing: this may be news of what was ordered before. What is to run is started
                // once more, and what is not is stopped, whose answer is sure.
                let asked = std::mem::replace(&mut self.adopting, false);
                if self.ending.is_none() {
                    self.meter.disk_created(now);
                    let waits = self.state == LeaseState::Preparing || RESTARTING.contains(&self.state);
                    if waits && (asked || !self.processes) {
                        self.order_start(cx, now);
                    } else if asked && self.processes && matches!(self.state, LeaseState::Paused(_)) {
                        self.order_stop(cx, now);
                    }
                }
            }
            RuntimeReport::Started => self.started(cx, now),
            RuntimeReport::Exited { code, by, note } => self.exited(cx, code, by, note, now),
            // Of a start ordered since, this says nothing.
            RuntimeReport::NotRunning if self.is_stopping() || self.ending.is_some() => {
                self.processes = false;
                self.stop_ordered = false;
            }
            RuntimeReport::NotRunning => {}
            RuntimeReport::DiskFull => {
                if self.state == LeaseState::Running && self.ending.is_none() {
                    let note = format!("the instance wrote more than its {} MB of disk", self.draft.resources.disk_mb);
                    self.pause_with(cx, PauseReason::DiskFull, Cause::Guest, note, now);
                }
            }
            RuntimeReport::Failed { reason, note } => self.failed(cx, reason, note, now),
            RuntimeReport::Destroyed => self.destroyed(cx, now),
            RuntimeReport::Missing => self.missing(cx, now),
            RuntimeReport::Traffic { rx_bytes, tx_bytes } => {
                if self.ending.is_none() {
                    self.meter.traffic(rx_bytes, tx_bytes);
                }
            }
        }
    }

    fn started(&mut self, cx: &mut Context, now: Timestamp) {
        self.processes = true;
        self.adopting = false;
        if self.ending.is_some() {
            return;
        }
        let wanted = self.state == LeaseState::Preparing || RESTARTING.contains(&self.state);
        if wanted && now < self.terms.ends_at {
            self.progress = None;
            self.meter.disk_created(now);
            self.enter(cx, LeaseState::Running, Cause::Host, None, String::new(), now);
        } else if wanted {
            self.pause(cx, PauseReason::Expired, Cause::Clock, now);
        } else if self.state != LeaseState::Running && !self.stop_ordered {
            // It runs though its lease is paused: the node died between writing that down and stopping it.
            self.order_stop(cx, now);
        }
    }

    fn exited(&mut self, cx: &mut Context, code: i32, by: Cause, note: String, now: Timestamp) {
        // It ended by itself while a stop was on its way. That stop has an answer to come, which must not be taken for one to a later
        // stop, so nothing is started before it is there.
        let answer_to_come = self.stop_ordered
            && by == Cause::Guest
            && self.ending.is_none()
            && matches!(self.state, LeaseState::Paused(_))
            && !RESTARTING.contains(&self.state);
        self.processes = answer_to_come;
        self.stop_ordered = answer_to_come;
        let found = std::mem::replace(&mut self.adopting, false);
        if self.ending.is_some() {
            return;
        }
        self.meter.disk_created(now);
        let interrupted = matches!(by, Cause::Engine | Cause::Host);
        match self.state {
            state if RESTARTING.contains(&state) && interrupted => self.order_start(cx, now),
            // As its last run had left it: the node died before the start that was ordered was carried out, or late news of the
            // stop before it. Nobody stops what is to start.
            LeaseState::Preparing if found || interrupted || by == Cause::Renter => self.order_start(cx, now),
            LeaseState::Running if interrupted => {
                self.enter(cx, LeaseState::Paused(PauseReason::EngineRestart), Cause::Engine, Some(code), note, now);
                self.order_start(cx, now);
            }
            LeaseState::Preparing
            | LeaseState::Running
            | LeaseState::Paused(PauseReason::HostRestart | PauseReason::EngineRestart) => {
                self.enter(cx, LeaseState::Paused(PauseReason::Exited), by, Some(code), note, now);
            }
            LeaseState::Paused(_) | LeaseState::Kept if !found => {
                self.log(cx, EventCode::Exited, self.ended_by(by), Some(code), note, now);
            }
            LeaseState::Paused(_) | LeaseState::Kept | LeaseState::Ended(_) => {}
        }
    }

    /// A step could not be done. Before the first run that ends the lease; later the renter's disk is there, and stays.
    fn failed(&mut self, cx: &mut Context, reason: EndReason, note: String, now: Timestamp) {
        if self.ending.is_some() || !(self.state == LeaseState::Preparing || RESTARTING.contains(&self.state)) {
            return;
        }
        if self.has_run() {
            self.pause_with(cx, PauseReason::Stopped, Cause::Host, format!("it could not be started: {note}"), now);
        } else {
            self.end(cx, reason, Cause::Host, note, now);
        }
    }

    fn has_run(&self) -> bool {
        self.meter.has_disk() && self.events.iter().any(|e| e.state == LeaseState::Running)
            || self.meter.counters().active.0 > 0
    }

    fn missing(&mut self, cx: &mut Context, now: Timestamp) {
        self.processes = false;
        self.adopting = false;
        if self.ending.is_some() {
            self.destroyed(cx, now);
        } else if !self.meter.has_disk() {
            if self.state == LeaseState::Preparing {
                self.prepare(cx);
            }
        } else {
            let note = "the container was gone when the host looked for it".to_owned();
            self.end(cx, EndReason::ContainerLost, Cause::Host, note, now);
        }
    }

    /// Orders the container made. Its devices were fixed by `place`; before that there is nothing to order.
    pub(in super::super) fn prepare(&self, cx: &mut Context) {
        if let Some(Body::Placement { devices, .. }) = self.placement.as_ref().map(|p| &p.body) {
            let devices = devices.clone();
            let workload = Box::new(self.workload.clone());
            self.order(cx, RuntimeOrder::Prepare { draft: self.draft.clone(), workload, devices });
        }
    }

    fn devices(&self) -> Vec<String> {
        match self.placement.as_ref().map(|p| &p.body) {
            Some(Body::Placement { devices, .. }) => devices.clone(),
            Some(_) | None => Vec::new(),
        }
    }

    fn adopt(&mut self, cx: &mut Context) {
        if self.draft.is_volume() {
            return self.adopt_volume(cx);
        }
        self.adopting = true;
        self.stop_ordered = false;
        let draft = self.draft.clone();
        self.order(cx, RuntimeOrder::Adopt { draft });
    }

    /// Starts it in its slots. One that waits for slots is started when it has them.
    fn order_start(&mut self, cx: &mut Context, now: Timestamp) {
        if self.state == LeaseState::Preparing && self.prepare_by == Timestamp(u64::MAX) {
            return;
        }
        if now < self.terms.ends_at {
            self.processes = true;
            self.stop_ordered = false;
            let devices = self.devices();
            self.order(cx, RuntimeOrder::Start { devices });
        } else {
            self.enter(cx, LeaseState::Paused(PauseReason::Expired), Cause::Clock, None, String::new(), now);
        }
    }

    fn order_stop(&mut self, cx: &mut Context, now: Timestamp) {
        self.order_again_at = now + ORDER_AGAIN;
        self.stop_ordered = true;
        self.order(cx, RuntimeOrder::Stop(limits::STOP_GRACE));
    }

    fn order_destroy(&mut self, cx: &mut Context, now: Timestamp) {
        self.order_again_at = now + ORDER_AGAIN;
        let volume = self.draft.is_volume();
        self.order(cx, if volume { RuntimeOrder::DestroyVolume } else { RuntimeOrder::Destroy });
    }

    /// Runs a paused instance again, in slots that [`HostLease::place`] named.
    pub(in super::super) fn start(&mut self, cx: &mut Context, by: Cause, now: Timestamp) {
        // Holds the slots until the container runs; nothing is billed before.
        self.prepare_by = now + limits::PREPARE_WITHIN;
        self.enter(cx, LeaseState::Preparing, by, None, "starting again".to_owned(), now);
        self.go(cx, now);
    }

    /// Orders the container started, or made first.
    pub(super) fn go(&mut self, cx: &mut Context, now: Timestamp) {
        if self.meter.has_disk() {
            self.order_start(cx, now);
        } else {
            self.prepare(cx);
        }
    }

    /// Why it can't be started now, or none.
    #[must_use]
    pub fn cannot_start(&self, now: Timestamp) -> Option<&'static str> {
        match self.state {
            _ if self.ending.is_some() => Some("it is being destroyed"),
            LeaseState::Preparing | LeaseState::Running => Some("it is running or about to"),
            LeaseState::Kept => Some("it is a volume"),
            LeaseState::Ended(_) => Some("it has ended"),
            LeaseState::Paused(PauseReason::HostRestart | PauseReason::EngineRestart) => {
                Some("it starts again by itself as soon as the host can")
            }
            LeaseState::Paused(PauseReason::Outbid) if now < self.terms.ends_at => {
                Some("its bid is too low now; it starts by itself when its turn comes, or `souk bid` more")
            }
            LeaseState::Paused(PauseReason::Maintenance) if now < self.terms.ends_at => {
                Some("the machine is maintained; it starts by itself after it")
            }
            LeaseState::Paused(_) if now >= self.terms.ends_at => Some("its contract has ended; see `souk extend`"),
            LeaseState::Paused(_) if self.over_ceiling(now) => Some("its spending limit is reached"),
            LeaseState::Paused(_) if self.over_credit(now) => Some("what is due is not acknowledged"),
            LeaseState::Paused(_) if self.is_unpaid() => Some("what is owed is not paid: see `souk account`"),
            LeaseState::Paused(_) => None,
        }
    }

    /// Whether it is paused, and its processes are not known to be gone yet.
    #[must_use]
    pub const fn is_stopping(&self) -> bool {
        matches!(self.state, LeaseState::Paused(_)) && self.processes
    }

    /// Ends the processes for this reason, and keeps the disk. Billing of compute stops now.
    pub(in super::super) fn pause(&mut self, cx: &mut Context, reason: PauseReason, by: Cause, now: Timestamp) {
        self.pause_with(cx, reason, by, String::new(), now);
    }

    pub(super) fn pause_with(
        &mut self,
        cx: &mut Context,
        reason: PauseReason,
        by: Cause,
        note: String,
        now: Timestamp,
    ) {
        // What waits for slots stops waiting if the renter says so.
        let runs_again = self.wants_slots() || self.state == LeaseState::Paused(PauseReason::NoCredit);
        let waits = reason == PauseReason::Stopped && runs_again;
        if self.ending.is_some() || !(self.needs_slots() || waits) {
            return;
        }
        // What is past its end does not wait to run again.
        let waits = matches!(reason, PauseReason::Outbid | PauseReason::Maintenance);
        let over = waits && now >= self.terms.ends_at;
        let reason = if over { PauseReason::Expired } else { reason };
        self.enter(cx, LeaseState::Paused(reason), by, None, note, now);
        // While it is not known what there is, what is found running is stopped then. One stop is enough: the report of a second
        // one could be taken for that of a later run.
        if self.processes && !self.adopting && !self.stop_ordered {
            self.order_stop(cx, now);
        }
    }

    /// When the renter is told that the contract ends soon.
    fn expiry_due(&self) -> Option<Timestamp> {
        let lives = self.wants_slots() || (self.state == LeaseState::Kept && self.ending.is_none());
        let alive = !self.expiry_told && lives && self.extension_due().is_none();
        let term = self.terms.ends_at.since(self.draft.drafted_at);
        let before = Millis(limits::EXPIRY_TOLD.0.min(term.0 / 10));
        alive.then(|| Timestamp(self.terms.ends_at.0.saturating_sub(before.0)))
    }

    pub(in super::super) fn tell_expiry(&mut self, cx: &mut Context, now: Timestamp) {
        if self.expiry_due().is_none_or(|at| now < at) {
            return;
        }
        self.expiry_told = true;
        if now < self.terms.ends_at {
            let note = format!("the contract ends in {}: `souk extend` makes it longer", self.terms.ends_at.since(now));
            self.log_code(cx, EventCode::ExpiringSoon, Cause::Clock, note, now);
        }
    }

    /// Its slots are used by another node of this machine.
    pub(in super::super) fn slots_lost(&mut self, cx: &mut Context, now: Timestamp) {
        let note = "its slots are used by another node of this machine".to_owned();
        if !self.draft.rental.is_firm() {
            self.pause_with(cx, PauseReason::Outbid, Cause::Host, note, now);
        } else if self.meter.has_disk() {
            self.pause_with(cx, PauseReason::Stopped, Cause::Host, note, now);
        } else if self.needs_slots() {
            self.end(cx, EndReason::CreateFailed, Cause::Host, note, now);
        }
    }

    /// Destroys the instance; the lease is over once it is gone. Nothing is billed from now on. The close is signed now, so that
    /// the end survives a crash; the renter gets it when the instance is gone.
    pub(in super::super) fn end(
        &mut self,
        cx: &mut Context,
        reason: EndReason,
        by: Cause,
        note: String,
        now: Timestamp,
    ) {
        if self.ending.is_some() || self.state.is_ended() {
            return;
        }
        let early = self.draft.rental == RentalType::Reserved && now < self.terms.ends_at;
        let left = reason == EndReason::Destroyed && by == Cause::Renter && early;
        let reason = if left { EndReason::LeftEarly } else { reason };
        if self.state == LeaseState::Running {
            let note = "being destroyed".to_owned();
            self.enter(cx, LeaseState::Paused(PauseReason::Stopped), by, None, note, now);
        } else if self.renter_close.is_none() {
            self.issue_last_usage(cx, now);
        }
        if left && self.renter_close.is_none() {
            self.issue_usage_in(cx, LeaseState::Ended(reason), now);
        }
        self.meter.enter(LeaseState::Ended(reason), now);
        self.ending = Some((reason, by, note));
        if self.renter_close.is_none() {
            self.write_close(cx, reason, now);
        }
        self.order_destroy(cx, now);
    }

    pub(super) fn destroyed(&mut self, cx: &mut Context, now: Timestamp) {
        if self.ending.is_none() {
            let note = "the container is gone".to_owned();
            self.end(cx, EndReason::ContainerLost, Cause::Host, note, now);
        }
        self.processes = false;
        if let Some((reason, by, note)) = self.ending.clone() {
            self.enter(cx, LeaseState::Ended(reason), by, None, note, now);
        }
        if let Some(close) = self.renter_close.clone() {
            self.agree_to(cx, &close, now);
        }
    }

    /// The renter closed it by itself, since our accept came too late for it. False if it may not any more: it has shown that it
    /// knows the lease.
    pub(in super::super) fn closed_by_renter(
        &mut self,
        cx: &mut Context,
        close: &Verified<Entry>,
        now: Timestamp,
    ) -> bool {
        if let Some(known) = &self.renter_close {
            return known.id() == close.id();
        }
        if self.confirmed || self.ack.is_some() || self.events_seen > 0 {
            return false;
        }
        self.take_renters_close(cx, close, now);
        let note = "the renter had given up before the host answered".to_owned();
        self.end(cx, EndReason::Unconfirmed, Cause::Renter, note, now);
        if self.state.is_ended() {
            self.agree_to(cx, close, now);
        }
        true
    }

    /// The renter closed it since it had not heard of us for long after the contract's end. False if it may not: it is too early, or
    /// it admits less than it has acknowledged.
    pub(in super::super) fn closed_since_vanished(
        &mut self,
        cx: &mut Context,
        close: &Verified<Entry>,
        now: Timestamp,
    ) -> bool {
        if let Some(known) = &self.renter_close {
            return known.id() == close.id();
        }
        let admitted = close.body.closing().map_or(Amount::ZERO, |(.., due)| due);
        let claimed = self.count(now).1;
        let over = now + limits::CLOCK_SKEW >= self.terms.ends_at + limits::DISK_KEPT;
        if !over || !(self.acked()..=claimed).contains(&admitted) {
            return false;
        }
        self.take_renters_close(cx, close, now);
        self.confirmed = true;
        let note = "the renter had not heard of this host for long after its end".to_owned();
        self.end(cx, EndReason::Expired, Cause::Renter, note, now);
        if self.state.is_ended() {
            self.agree_to(cx, close, now);
        }
        true
    }

    /// The engine is gone: what runs can't be seen, and is not billed.
    pub(in super::super) fn engine_down(&mut self, cx: &mut Context, now: Timestamp) {
        if self.state == LeaseState::Running && self.ending.is_none() {
            let note = "the host's container engine stopped".to_owned();
            self.enter(cx, LeaseState::Paused(PauseReason::EngineRestart), Cause::Engine, None, note, now);
        }
    }

    /// The engine is there (again): look what it has, or go on with what was ordered.
    pub(in super::super) fn engine_up(&mut self, cx: &mut Context, now: Timestamp) {
        if self.state.is_ended() {
            return;
        }
        if self.ending.is_some() {
            self.order_destroy(cx, now);
        } else {
            self.adopt(cx);
        }
    }

    /// Does what is due at `now`. `engine` says whether the container engine can be used.
    pub(in super::super) fn tick(&mut self, cx: &mut Context, engine: bool, now: Timestamp) {
        if self.state.is_ended() {
            return;
        }
        let again = engine && now >= self.order_again_at;
        if self.ending.is_some() {
            if again {
                self.order_destroy(cx, now);
            }
            return;
        }
        self.reprice(cx, now);
        if now >= self.terms.ends_at {
            self.extend_again_at = self.extend_again_at.max(self.terms.ends_at);
        }
        if self.asked.is_some_and(|asked| now >= asked.valid_until) {
            self.decline_extension(cx, Cause::Clock, now);
        }
        self.tell_expiry(cx, now);
        self.end_dispute(cx, now);
        // One step may bring about the next: asked very late, compute stops and the disk goes at once.
        let mut before = None;
        while before != Some(self.state) && self.ending.is_none() {
            before = Some(self.state);
            // A stop that this step has ordered is not ordered again by the next.
            self.step(cx, engine && now >= self.order_again_at, now);
        }
        if now >= self.next_tick && self.state != LeaseState::Preparing && self.ending.is_none() && !self.in_flight {
            self.issue_usage(cx, now);
        }
    }

    /// What time brings about in the present state. States only go towards the end here, so steps come to an end.
    fn step(&mut self, cx: &mut Context, again: bool, now: Timestamp) {
        if self.volume_step(cx, now) {
            return;
        }
        match self.state {
            LeaseState::Running => {
                if now >= self.terms.ends_at {
                    self.pause(cx, PauseReason::Expired, Cause::Clock, now);
                } else if let Some(eviction) = self.eviction.filter(|e| now >= e.at) {
                    self.evicted(cx, eviction, now);
                } else if self.over_ceiling(now) {
                    self.pause(cx, PauseReason::MaxSpend, Cause::Clock, now);
                } else if self.over_credit(now) {
                    let note = "what is due is not acknowledged: it runs on when the renter's node is back".to_owned();
                    self.pause_with(cx, PauseReason::NoCredit, Cause::Clock, note, now);
                    let sentence = "what was used is not acknowledged";
                    self.complain(cx, DisputeCode::NotAcknowledged, sentence, now);
                }
            }
            LeaseState::Preparing if now >= self.terms.ends_at => {
                if self.meter.has_disk() || self.processes {
                    self.pause(cx, PauseReason::Expired, Cause::Clock, now);
                } else {
                    self.end(cx, EndReason::Expired, Cause::Clock, "its contract ended before it ran".to_owned(), now);
                }
            }
            LeaseState::Preparing if now >= self.prepare_by => {
                let note = format!("preparing took more than {}", limits::PREPARE_WITHIN);
                if self.has_run() {
                    self.pause_with(cx, PauseReason::Stopped, Cause::Clock, note, now);
                } else {
                    self.end(cx, EndReason::PrepareTimeout, Cause::Clock, note, now);
                }
            }
            LeaseState::Paused(PauseReason::EngineRestart | PauseReason::HostRestart)
                if now >= self.since + limits::DISK_KEPT =>
            {
                let note = "the host's container engine did not come back".to_owned();
                self.end(cx, EndReason::EngineLost, Cause::Engine, note, now);
            }
            LeaseState::Paused(PauseReason::Outbid | PauseReason::Maintenance)
                if now >= self.terms.ends_at && now < self.terms.ends_at + limits::DISK_KEPT =>
            {
                self.enter(cx, LeaseState::Paused(PauseReason::Expired), Cause::Clock, None, String::new(), now);
            }
            LeaseState::Paused(_) if now >= self.terms.ends_at + limits::DISK_KEPT => {
                self.end(cx, EndReason::Expired, Cause::Clock, String::new(), now);
            }
            LeaseState::Paused(_) if self.ceiling_used_up(now) => {
                let note = "its spending limit is used up".to_owned();
                self.end(cx, EndReason::Expired, Cause::Clock, note, now);
            }
            LeaseState::Paused(_) if again && self.processes && !self.adopting && !self.needs_slots() => {
                self.order_stop(cx, now);
            }
            LeaseState::Paused(_) | LeaseState::Preparing | LeaseState::Kept | LeaseState::Ended(_) => {}
        }
    }

    /// When to look again, if the engine can be used and the renter be reached as said.
    pub(in super::super) fn deadline(&self, engine: bool, connected: bool) -> Option<Timestamp> {
        let news = (self.news && !self.in_flight && !self.closed && connected).then_some(self.send_at);
        let again = engine.then_some(self.order_again_at);
        if self.state.is_ended() {
            return news;
        }
        if self.ending.is_some() {
            return [news, again].into_iter().flatten().min();
        }
        let step = match self.state {
            LeaseState::Running => {
                let evicted = self.eviction.map_or(self.terms.ends_at, |e| e.at);
                Some(self.terms.ends_at.min(evicted).min(self.spent_at()))
            }
            LeaseState::Kept => Some(self.terms.ends_at.min(self.limit_at())),
            LeaseState::Preparing => Some(self.prepare_by.min(self.terms.ends_at)),
            LeaseState::Paused(PauseReason::EngineRestart | PauseReason::HostRestart) => {
                Some((self.since + limits::DISK_KEPT).min(self.gone_at()))
            }
            LeaseState::Paused(PauseReason::Outbid | PauseReason::Maintenance) => {
                Some(self.terms.ends_at.min(self.gone_at()))
            }
            LeaseState::Paused(_) => Some(self.gone_at()),
            LeaseState::Ended(_) => None,
        };
        let stop = again.filter(|_| self.processes && !self.adopting && !self.needs_slots());
        let tick = (self.state != LeaseState::Preparing && !self.in_flight).then_some(self.next_tick);
        let amended = [self.reprice_due(), self.extension_due(), self.asked.map(|a| a.valid_until)];
        let soon = [self.expiry_due(), self.dispute_due()].into_iter().flatten().min();
        [news, step, stop, tick, soon].into_iter().chain(amended).flatten().min()
    }
}
