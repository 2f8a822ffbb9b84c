//! The host's side of the market: offers, answers to proposals and commits, slots, and the leases on them.
//!
//! The lease exists by our durable accept of the renter's open, and by nothing else. The same open always gets the same
//! answer. A draft reserves nothing: the first durable accept wins. `offers` says what is to be had, `drafts` answers bids
//! (`owner` where the owner is asked about them), `commit` makes leases, `ports` gives out public ports, `control` does what renters wish, and this file keeps the machine's slots.

mod allocation;
mod amending;
mod cluster;
#[cfg(test)]
mod cluster_tests;
mod commit;
mod control;
mod credit;
mod dealing;
mod drafts;
mod inside;
mod offers;
pub mod owner;
mod paying;
mod ports;
#[cfg(test)]
mod refused;
mod volumes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use self::{
    allocation::{Shared, Sharing},
    cluster::Cluster,
    commit::{Answered, Locking},
    control::Restarting,
    drafts::Resolving,
    owner::Asking,
    paying::Paying,
};
use super::{
    book::Book,
    context::Context,
    host_lease::HostLease,
    io::{Output, RuntimeReport, Ticket, Token},
    policy::{HostSetup, asked_hour},
    quota::Uses,
    slots::Slots,
};
use crate::{
    LeaseId, NodeId, Timestamp, Verified,
    entry::Body,
    lease::{EndReason, LeaseState},
    limits,
    message::{Cause, Request, Response},
    negotiation::{Reject, RejectCode},
    offer::Offer,
};

/// Requests that wait for the same lock.
const WAITING: usize = 16;
/// What a renter with two chains is told.
pub(super) const FORKED: &str =
    "your key is known to have signed two contradicting chains: this host makes no new agreement with it";

/// A machine on offer and its leases.
#[derive(Debug)]
pub struct Host {
    setup: Option<HostSetup>,
    slots: Slots,
    runtime_up: bool,
    /// Whether the owner has said how the machine is offered since we started: restored leases wait for their slots until then.
    ready: bool,
    /// Drafts made before belong to an earlier run of this node: what became of their opens only the ledger knows.
    started_at: Timestamp,
    /// The latest time we have seen, so that what is late stays late when the clock goes back.
    latest: Timestamp,
    offer: Option<Verified<Offer>>,
    offer_ticket: Option<Ticket>,
    offer_seq: u64,
    recent: VecDeque<Verified<Offer>>,
    dirty: bool,
    allowance: u32,
    counted_at: Timestamp,
    published_at: Timestamp,
    renew_at: Timestamp,
    /// An offer that could not be signed, since it says too much, is not tried again before.
    retry_at: Timestamp,
    resolving: BTreeMap<Token, Resolving>,
    asking: BTreeMap<Token, Asking>,
    proposals: BTreeMap<NodeId, (Timestamp, u32)>,
    locking: BTreeMap<LeaseId, Locking>,
    paying: BTreeMap<LeaseId, Paying>,
    /// When accounts are to be looked at again.
    credit_at: Option<Timestamp>,
    restarting: BTreeMap<LeaseId, Restarting>,
    /// Wishes to start that wait for the processes of the last run to end.
    after_stop: BTreeMap<LeaseId, Vec<Token>>,
    relocking: BTreeSet<LeaseId>,
    /// Slots being locked for leases whose turn has come.
    starting: BTreeMap<LeaseId, Vec<u16>>,
    /// Slots that were released, and are unlocked unless somebody gets them at once.
    unlocking: BTreeSet<u16>,
    sharing: Sharing,
    shared: Shared,
    /// Slots the host's own job may run on.
    idle: Vec<u16>,
    answered: BTreeMap<LeaseId, Answered>,
    answered_until: BTreeSet<(Timestamp, LeaseId)>,
    cluster: Option<Cluster>,
    uses: Uses,
    /// When a member's slot hours are used up.
    quota_at: Option<Timestamp>,
    pub(super) leases: BTreeMap<LeaseId, HostLease>,
}

impl Host {
    /// A host whose offers have used numbers up to `offer_seq`, and whose chain `head` was last written at that time.
    pub(super) fn new(offer_seq: u64, head: Option<Timestamp>, now: Timestamp) -> Self {
        Self {
            setup: None,
            slots: Slots::empty(),
            runtime_up: false,
            ready: false,
            // An answer is never dated before its draft, so no answered draft is younger than the head.
            started_at: head.map_or(now, |head| head.max(now)),
            latest: now,
            offer: None,
            offer_ticket: None,
            offer_seq,
            recent: VecDeque::new(),
            dirty: false,
            allowance: limits::OFFER_BURST,
            counted_at: Timestamp(0),
            published_at: Timestamp(0),
            renew_at: Timestamp(0),
            retry_at: Timestamp(0),
            resolving: BTreeMap::new(),
            asking: BTreeMap::new(),
            proposals: BTreeMap::new(),
            locking: BTreeMap::new(),
            paying: BTreeMap::new(),
            credit_at: None,
            restarting: BTreeMap::new(),
            after_stop: BTreeMap::new(),
            relocking: BTreeSet::new(),
            starting: BTreeMap::new(),
            unlocking: BTreeSet::new(),
            sharing: Sharing::default(),
            shared: Shared::default(),
            idle: Vec::new(),
            answered: BTreeMap::new(),
            answered_until: BTreeSet::new(),
            cluster: None,
            uses: Uses::default(),
            quota_at: None,
            leases: BTreeMap::new(),
        }
    }

    /// The machine's slots.
    #[must_use]
    pub const fn slots(&self) -> &Slots {
        &self.slots
    }

    /// The offer that is out.
    #[must_use]
    pub const fn offer(&self) -> Option<&Verified<Offer>> {
        self.offer.as_ref()
    }

    /// How the machine is offered.
    #[must_use]
    pub const fn setup(&self) -> Option<&HostSetup> {
        self.setup.as_ref()
    }

    /// The leases on this machine that are not over and agreed on.
    #[must_use]
    pub const fn leases(&self) -> &BTreeMap<LeaseId, HostLease> {
        &self.leases
    }

    /// How many questions of others, answers to opens and counts of bids are kept: each of them is bounded.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.resolving.len()
            + self.asking.len()
            + self.proposals.len()
            + self.locking.len()
            + self.paying.len()
            + self.restarting.len()
            + self.relocking.len()
            + self.starting.len()
            + self.answered.len()
    }

    /// Nothing that shows our offer leaves before this is durable.
    pub(super) const fn offer_durable(&self) -> Option<Ticket> {
        self.offer_ticket
    }

    /// The machine's slots are these now. Leases keep theirs: by device where slots have devices, else by number.
    fn cut(&mut self, devices: &[Option<String>]) {
        if self.slots.all().iter().map(|s| &s.device).eq(devices.iter()) {
            return;
        }
        self.slots = Slots::new(devices.iter().cloned());
        let (mut needed, kept): (Vec<&HostLease>, Vec<&HostLease>) =
            self.leases.values().filter(|l| l.holds_slots()).partition(|l| l.needs_slots());
        // Of two leases that were placed in one slot, the younger placement holds it.
        needed.sort_by_key(|l| std::cmp::Reverse(l.placement().map(|p| p.seq)));
        for lease in needed.into_iter().chain(kept) {
            let Some(Body::Placement { slots, devices, .. }) = lease.placement().map(|p| &p.body) else {
                continue;
            };
            let numbers = if devices.is_empty() {
                slots.clone()
            } else {
                let same = |n: &u16| {
                    let device = self.slots.all().get(usize::from(*n)).and_then(|s| s.device.as_ref());
                    device.is_some_and(|d| devices.contains(d))
                };
                (0..self.slots.total()).filter(same).collect()
            };
            self.slots.take(lease.id(), &numbers);
        }
    }

    /// Locks the slots of restored leases again, now that the machine's slots are known, before their containers are looked for. A
    /// lease that was accepted, and not placed before the node died, gets its slots now.
    pub(super) fn hold_restored(&mut self, cx: &mut Context, now: Timestamp) {
        if std::mem::replace(&mut self.ready, true) {
            return;
        }
        let holding: Vec<LeaseId> = self.leases.iter().filter(|(_, l)| l.holds_slots()).map(|(id, _)| *id).collect();
        for lease in holding {
            if self.slots.of(&lease).is_empty()
                && let Some(held) =
                    self.leases.get(&lease).filter(|l| l.placement().is_none() && l.draft().rental.is_firm())
                && let Some(slots) = self.slots.pick(held.draft().resources.slots)
            {
                self.slots.take(lease, &slots);
            }
            let slots = self.slots.of(&lease);
            if let Some(held) = self.leases.get_mut(&lease).filter(|l| slots.is_empty() && l.needs_slots()) {
                held.lost_slots(cx, now);
            }
            if !slots.is_empty() {
                self.relocking.insert(lease);
                cx.out(Output::LockSlots { lease, slots });
            }
        }
        self.look(cx, now);
    }

    /// Looks what containers there are, of all leases whose slots are ours.
    fn look(&mut self, cx: &mut Context, now: Timestamp) {
        if self.runtime_up && self.ready {
            for (_, lease) in self.leases.iter_mut().filter(|(id, _)| !self.relocking.contains(*id)) {
                lease.engine_up(cx, now);
            }
        }
    }

    /// The machine-wide locks of a lease's slots are ours, or another node's.
    pub(super) fn locked(&mut self, cx: &mut Context, lease: LeaseId, locked: bool, now: Timestamp) {
        if let Some(restarting) = self.restarting.remove(&lease) {
            self.restart_locked(cx, lease, restarting, locked, now);
        } else if let Some(locking) = self.locking.remove(&lease) {
            self.open_locked(cx, lease, locking, locked, now);
        } else if let Some(slots) = self.starting.remove(&lease) {
            self.start_locked(cx, lease, slots, locked, now);
        } else if self.relocking.remove(&lease) {
            self.relocked(cx, lease, locked, now);
        }
        self.settle_slots(lease);
    }

    fn relocked(&mut self, cx: &mut Context, lease: LeaseId, locked: bool, now: Timestamp) {
        self.dirty = true;
        if !locked {
            self.slots.release(&lease);
        }
        let slots = self.slots.of(&lease);
        let devices = self.slots.devices(&slots);
        let Some(held) = self.leases.get_mut(&lease) else {
            return;
        };
        if !locked {
            held.slots_lost(cx, now);
        } else if held.placement().is_none() && held.state() == LeaseState::Preparing {
            held.begin(cx, slots, devices, now);
        }
        if self.runtime_up {
            held.engine_up(cx, now);
        }
    }

    pub(super) fn report(&mut self, cx: &mut Context, lease: LeaseId, report: RuntimeReport, now: Timestamp) {
        if let Some(held) = self.leases.get_mut(&lease) {
            held.report(cx, report, now);
        }
        self.settle_slots(lease);
        self.restart_stopped(cx, lease, now);
    }

    /// The answer to an update of ours.
    pub(super) fn updated(&mut self, cx: &mut Context, lease: LeaseId, response: Option<&Response>, now: Timestamp) {
        let Some(held) = self.leases.get_mut(&lease) else {
            return;
        };
        match response {
            Some(Response::Seen { events_seen, ack, close_ack }) => {
                held.seen(cx, *events_seen, ack.as_ref(), close_ack.as_ref(), now);
            }
            Some(Response::Rejected(_) | Response::Busy { .. }) | None => held.unanswered(now),
            Some(_) => {
                cx.wrong_answer(held.draft().renter, "not an answer to an update");
                held.unanswered(now);
            }
        }
        self.settle_slots(lease);
    }

    pub(super) fn abort(&mut self, cx: &mut Context, lease: LeaseId, now: Timestamp) {
        if let Some(held) = self.leases.get_mut(&lease) {
            held.end(cx, EndReason::HostAborted, Cause::Host, "the host took the machine back".to_owned(), now);
        }
        self.settle_slots(lease);
    }

    /// Frees the slots of a lease that no longer needs them, and forgets it once it is over and agreed on.
    fn settle_slots(&mut self, lease: LeaseId) {
        let (holds, closed) = self.leases.get(&lease).map_or((false, true), |l| (l.holds_slots(), l.is_closed()));
        let locking = self.locking.contains_key(&lease)
            || self.restarting.contains_key(&lease)
            || self.relocking.contains(&lease)
            || self.starting.contains_key(&lease);
        if !holds && !locking {
            let slots = self.slots.release(&lease);
            if !slots.is_empty() {
                self.unlocking.extend(slots);
                self.dirty = true;
            }
        }
        if closed && let Some(mut held) = self.leases.remove(&lease) {
            self.note_last_use(&mut held);
            self.dirty |= held.draft().is_volume();
            self.remember(
                lease,
                Answered { entry: held.accept().clone(), ticket: held.durable(), until: held.draft().commit_by },
            );
        }
    }

    pub(super) fn runtime(&mut self, cx: &mut Context, up: bool, now: Timestamp) {
        if self.runtime_up == up {
            return;
        }
        self.runtime_up = up;
        self.dirty = true;
        self.look(cx, now);
        for lease in self.leases.values_mut().filter(|_| !up) {
            lease.engine_down(cx, now);
        }
    }

    /// Takes back a lease from the ledger. Its container is looked for when the engine is up.
    pub(super) fn restore(&mut self, cx: &mut Context, mut lease: HostLease, now: Timestamp) {
        lease.resume(cx, now);
        self.leases.insert(lease.id(), lease);
    }

    pub(super) fn connected(&mut self, peer: &NodeId, now: Timestamp) {
        for lease in self.leases.values_mut().filter(|l| l.draft().renter == *peer) {
            lease.renter_connected(now);
        }
    }

    pub(super) fn tick(&mut self, cx: &mut Context, book: &mut Book, now: Timestamp) {
        self.latest = self.latest.max(now);
        self.forget_answered();
        self.give_up_resolving(cx, now);
        self.give_up_asking(cx, now);
        self.extend_leases(cx, now);
        let ids: Vec<LeaseId> = self.leases.keys().copied().collect();
        for id in ids {
            if let Some(lease) = self.leases.get_mut(&id) {
                lease.tick(cx, self.runtime_up, now);
            }
            self.settle_slots(id);
        }
        self.give_up_paying(cx, now);
        self.stop_without_volumes(cx, now);
        self.watch_accounts(cx, now);
        self.watch_quotas(cx, now);
        self.share_out(cx, now);
        // What credit and sharing out have brought about goes out with the rest. Who runs again may end soon.
        for lease in self.leases.values_mut() {
            lease.tell_expiry(cx, now);
            lease.pump(cx, now);
        }
        self.publish(cx, book, now);
    }

    pub(super) fn deadline(&self, cx: &Context) -> Option<(Timestamp, &'static str)> {
        let offer = self.publish_at().map(|at| (at, "an offer is due"));
        let bids = self.resolving.values().map(|r| (r.until, "an image is looked up for too long"));
        let asked = self.asking.values().map(|a| (a.until, "the owner is asked for too long"));
        let leases = self.leases.values().filter_map(|l| {
            let connected = cx.connected.contains(&l.draft().renter);
            Some((l.deadline(self.runtime_up, connected)?, "a lease needs a look"))
        });
        let maintenance = self.maintenance_due(self.latest).map(|at| (at, "maintenance begins or ends"));
        let paying = self.paying_until().map(|at| (at, "a first payment does not arrive"));
        let credit = self.credit_at.map(|at| (at, "an account runs low"));
        let quota = self.quota_at.map(|at| (at, "a quota is used up"));
        leases.chain(offer).chain(bids).chain(asked).chain(maintenance).chain(paying).chain(credit).chain(quota).min()
    }

    /// The clock went back: what was to happen again shortly happens shortly.
    pub(super) fn clock_went_back(&mut self, now: Timestamp) {
        self.counted_at = self.counted_at.min(now);
        self.published_at = self.published_at.min(now);
        self.renew_at = self.renew_at.min(now + limits::OFFER_REPUBLISH);
        self.retry_at = self.retry_at.min(now + limits::OFFER_LULL);
        self.proposals.clear();
        self.paying_clock_went_back(now);
        for resolving in self.resolving.values_mut() {
            resolving.clock_went_back(now);
        }
        for asking in self.asking.values_mut() {
            asking.until = asking.until.min(now + limits::OWNER_WITHIN);
        }
        for lease in self.leases.values_mut() {
            lease.clock_went_back(now);
        }
    }

    /// Requests a renter or a stranger may send us as a host.
    pub(super) fn request(&mut self, cx: &mut Context, from: NodeId, token: Token, request: Request, now: Timestamp) {
        match request {
            Request::Propose(proposal) => self.propose(cx, from, token, *proposal, now),
            Request::Commit { open, workload, settle } => {
                self.commit(cx, from, token, (&open, settle.as_ref()), workload, now);
            }
            Request::Control { lease, action, nonce } => {
                self.control(cx, from, token, control::Wish { lease, action, nonce }, now);
            }
            Request::Sync { lease, events_seen } => self.sync(cx, from, token, lease, events_seen, now),
            Request::Deliver { entry } => self.deliver(cx, from, token, &entry, now),
            Request::Amend { entry } => self.amend(cx, from, token, &entry, now),
            Request::Quote { machine } => self.quote(cx, from, token, machine, now),
            Request::AskExtension { lease, ends_at } => {
                self.asked_extension(cx, from, token, (lease, ends_at), now);
            }
            Request::BookSummary
            | Request::BookPage { .. }
            | Request::BookFetch { .. }
            | Request::Update(_)
            | Request::Evidence { .. }
            | Request::Opinion { .. }
            | Request::Login(_)
            | Request::Meet(_)
            | Request::Recall { .. }
            | Request::Order(_) => {
                reject(cx, token, RejectCode::Malformed, "not a request to a host");
            }
        }
    }
}

fn reject(cx: &mut Context, token: Token, code: RejectCode, sentence: impl Into<String>) {
    cx.reply(token, Response::Rejected(Reject::lasting(code, sentence)), None);
}

fn reject_for_now(cx: &mut Context, token: Token, code: RejectCode, sentence: impl Into<String>) {
    cx.reply(token, Response::Rejected(Reject::passing(code, sentence)), None);
}
