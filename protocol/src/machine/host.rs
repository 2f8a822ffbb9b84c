//! The host's side of the market: offers, answers to proposals and commits, slots, and the leases on them.
//!
//! The lease exists by our durable accept of the renter's open, and by nothing else. The same open always gets the same
//! answer. A draft reserves nothing: the first durable accept wins.

use std::collections::{BTreeMap, VecDeque};

use super::{
    book::{Book, Known},
    context::Context,
    host_lease::HostLease,
    io::{Output, Recalled, RuntimeReport, Token},
    policy::{Decision, HostSetup, decide},
    record::{Private, Record},
    slots::Slots,
};
use crate::{
    Amount, DocumentId, LeaseId, MachineId, Millis, NodeId, Nonce, Timestamp, Verified,
    entry::{Body, Entry, VoidCode},
    id::Digest,
    lease::{EndReason, LeaseDraft, LeaseState, PauseReason},
    limits,
    message::{Action, Cause, Request, Response},
    money::Rates,
    negotiation::{Counter, ImagePin, Proposal, Reject, RejectCode},
    offer::{Availability, Notice, Offer, Terms, Withdrawal},
    resources::Resources,
    signed::Signed,
    workload::Workload,
};

/// Offers of ours that a proposal may still name, if their terms are today's.
const RECENT_OFFERS: usize = 8;
/// Proposals waiting for their image's digest.
const RESOLVING: usize = 256;
/// Opens waiting for their slots' locks.
const LOCKING: usize = 64;
/// Voids remembered to give the same answer again.
const VOIDS: usize = 4096;
/// Drafts one renter gets in a minute.
const DRAFTS_PER_MINUTE: u32 = 60;

#[derive(Debug)]
struct Resolving {
    renter: NodeId,
    proposal: Proposal,
    offer: Verified<Offer>,
    price_hour: Amount,
    resources: Resources,
    ends_at: Timestamp,
}

#[derive(Debug)]
struct Locking {
    tokens: Vec<Token>,
    open: Verified<Entry>,
    draft: Verified<LeaseDraft>,
    workload: Workload,
    bytes: Vec<u8>,
    slots: Vec<u16>,
}

/// A machine on offer and its leases.
#[derive(Debug)]
pub struct Host {
    setup: Option<HostSetup>,
    slots: Slots,
    runtime_up: bool,
    offer: Option<Verified<Offer>>,
    offer_seq: u64,
    recent: VecDeque<(DocumentId, Terms)>,
    dirty: bool,
    allowance: u32,
    counted_at: Timestamp,
    published_at: Timestamp,
    resolving: BTreeMap<Token, Resolving>,
    locking: BTreeMap<LeaseId, Locking>,
    restarting: BTreeMap<LeaseId, Token>,
    voids: BTreeMap<DocumentId, Verified<Entry>>,
    void_order: VecDeque<DocumentId>,
    drafts: BTreeMap<NodeId, (Timestamp, u32)>,
    pub(super) leases: BTreeMap<LeaseId, HostLease>,
}

impl Host {
    pub(super) const fn new(offer_seq: u64) -> Self {
        Self {
            setup: None,
            slots: Slots::empty(),
            runtime_up: false,
            offer: None,
            offer_seq,
            recent: VecDeque::new(),
            dirty: false,
            allowance: limits::OFFER_BURST,
            counted_at: Timestamp(0),
            published_at: Timestamp(0),
            resolving: BTreeMap::new(),
            locking: BTreeMap::new(),
            restarting: BTreeMap::new(),
            voids: BTreeMap::new(),
            void_order: VecDeque::new(),
            drafts: BTreeMap::new(),
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

    pub(super) fn remember_void(&mut self, open: DocumentId, entry: Verified<Entry>) {
        if self.void_order.len() >= VOIDS
            && let Some(oldest) = self.void_order.pop_front()
        {
            self.voids.remove(&oldest);
        }
        self.void_order.push_back(open);
        self.voids.insert(open, entry);
    }

    /// Offers the machine so, or withdraws it. Signed leases are not touched.
    pub(super) fn configure(&mut self, cx: &mut Context, book: &mut Book, setup: Option<HostSetup>, now: Timestamp) {
        match setup {
            Some(setup) => {
                let same_slots = self.slots.all().iter().map(|s| &s.device).eq(setup.slots.iter());
                if !same_slots {
                    let held: Vec<_> = self
                        .leases
                        .iter()
                        .filter(|(_, l)| l.holds_slots())
                        .map(|(id, _)| (*id, self.slots.of(id)))
                        .collect();
                    self.slots = Slots::new(setup.slots.clone());
                    for (lease, slots) in held {
                        self.hold(lease, &slots);
                    }
                }
                self.setup = Some(setup);
                self.dirty = true;
            }
            None => self.withdraw(cx, book, now),
        }
    }

    fn hold(&mut self, lease: LeaseId, remembered: &[u16]) {
        let slots = self.leases.get(&lease).and_then(|l| match l.placement().map(|p| &p.body) {
            Some(Body::Placement { slots, .. }) => Some(slots.clone()),
            Some(_) | None => None,
        });
        self.slots.take(lease, slots.as_deref().unwrap_or(remembered));
    }

    fn withdraw(&mut self, cx: &mut Context, book: &mut Book, now: Timestamp) {
        let Some(setup) = self.setup.take() else {
            return;
        };
        self.dirty = false;
        if self.offer.take().is_none() {
            return;
        }
        self.offer_seq += 1;
        self.recent.clear();
        let ticket = cx.persist(Record::Private(Private::OfferSeq(self.offer_seq)));
        let withdrawal = Withdrawal { host: cx.me(), machine: setup.machine, seq: self.offer_seq, issued_at: now };
        if let Some(withdrawal) = cx.sign(withdrawal) {
            book.insert(Known::Withdrawal(withdrawal.clone()), true, now);
            cx.out(Output::BookChanged { key: (cx.me(), setup.machine) });
            cx.out(Output::Publish {
                notice: Box::new(Notice::Withdrawal(withdrawal.to_signed())),
                after: Some(ticket),
            });
        }
    }

    /// Issues an offer if one is due: at once on a change, as far as the rate that others take allows, and before the last ends.
    pub(super) fn publish(&mut self, cx: &mut Context, book: &mut Book, now: Timestamp) {
        let Some(setup) = &self.setup else { return };
        if !self.runtime_up {
            return;
        }
        let renewal = now >= self.published_at + Self::renew_every(cx.me(), &setup.machine);
        if !(self.dirty || renewal) || now < self.may_publish_at() {
            return;
        }
        let earned = u32::try_from(now.since(self.counted_at).0 / limits::OFFER_INTERVAL.0).unwrap_or(u32::MAX);
        self.allowance = self.allowance.saturating_add(earned).min(limits::OFFER_BURST).saturating_sub(1);
        if earned > 0 {
            self.counted_at = now;
        }
        let mut terms = setup.terms.clone();
        terms.accepts = setup.accept.public();
        let offer = Offer {
            host: cx.me(),
            machine: setup.machine,
            seq: self.offer_seq + 1,
            issued_at: now,
            valid_until: now + limits::OFFER_LIFE,
            hardware: setup.hardware.clone(),
            terms,
            availability: Availability {
                slots_total: self.slots.total(),
                slots_free: self.slots.free(),
                reachability: setup.reachability,
            },
        };
        self.dirty = false;
        self.published_at = now;
        let Some(offer) = cx.sign(offer) else { return };
        self.offer_seq += 1;
        let ticket = cx.persist(Record::Private(Private::OfferSeq(self.offer_seq)));
        book.insert(Known::Offer(offer.clone()), true, now);
        cx.out(Output::BookChanged { key: (offer.host, offer.machine) });
        if self.recent.len() >= RECENT_OFFERS {
            self.recent.pop_front();
        }
        self.recent.push_back((offer.id(), offer.terms.clone()));
        cx.out(Output::Publish { notice: Box::new(Notice::Offer(offer.to_signed())), after: Some(ticket) });
        self.offer = Some(offer);
    }

    /// Ten minutes, spread by ±20 % over machines, so that renewals don't come in waves.
    fn renew_every(host: NodeId, machine: &MachineId) -> Millis {
        let spread = u64::from(Digest::of(&[host.0.as_slice(), machine.0.as_slice()].concat()).0[0]);
        Millis(limits::OFFER_REPUBLISH.0 * (80 + spread * 40 / 255) / 100)
    }

    fn may_publish_at(&self) -> Timestamp {
        if self.allowance > 0 { Timestamp(0) } else { self.counted_at + limits::OFFER_INTERVAL }
    }

    /// Answers a bid.
    pub(super) fn propose(&mut self, cx: &mut Context, from: NodeId, token: Token, proposal: Proposal, now: Timestamp) {
        match self.consider(cx, from, &proposal, now) {
            Err(reject) => cx.reply(token, Response::Rejected(reject), None),
            Ok((Decision::Reject(reject), _)) => cx.reply(token, Response::Rejected(reject), None),
            Ok((Decision::Counter { price_hour, listed_hour }, offer)) => {
                let counter = Counter {
                    host: cx.me(),
                    renter: from,
                    machine: offer.machine,
                    ask: proposal.ask,
                    offer: offer.id(),
                    nonce: proposal.nonce,
                    round: proposal.round,
                    price_hour,
                    listed_hour,
                    currency: offer.terms.currency.clone(),
                    valid_until: now + limits::COUNTER_LIFE,
                };
                match cx.sign(counter) {
                    Some(counter) => cx.reply(token, Response::Countered(counter.to_signed()), None),
                    None => cx.reply(
                        token,
                        Response::Rejected(Reject::lasting(RejectCode::Terms, "no counter-offer can be made")),
                        None,
                    ),
                }
            }
            Ok((Decision::Draft { price_hour, resources, ends_at }, offer)) => {
                let (reference, digest) = (proposal.image.clone(), proposal.image_digest.clone());
                self.resolving
                    .insert(token, Resolving { renter: from, proposal, offer, price_hour, resources, ends_at });
                cx.out(Output::ResolveImage { token, reference, digest });
            }
        }
    }

    fn consider(
        &mut self,
        cx: &Context,
        from: NodeId,
        proposal: &Proposal,
        now: Timestamp,
    ) -> Result<(Decision, Verified<Offer>), Reject> {
        let (Some(setup), Some(offer)) = (&self.setup, &self.offer) else {
            return Err(Reject::lasting(RejectCode::Stale, "this machine is not offered (any more)"));
        };
        if from == cx.me() {
            return Err(Reject::lasting(RejectCode::NotAccepted, "a node can't rent from itself"));
        }
        if !self.runtime_up {
            return Err(Reject::passing(
                RejectCode::Unavailable,
                "the host's container engine does not answer right now",
            ));
        }
        let seen = self.recent.iter().find(|(id, _)| *id == proposal.offer);
        if setup.accept.takes(&from) && seen.is_none_or(|(_, terms)| *terms != offer.terms) {
            return Err(Reject::passing(RejectCode::Stale, "the offer has changed since; search again"));
        }
        let drafts = self.drafts.entry(from).or_insert((now, 0));
        if now.since(drafts.0) > Millis::from_mins(1) {
            *drafts = (now, 0);
        }
        drafts.1 += 1;
        if drafts.1 > DRAFTS_PER_MINUTE || self.resolving.len() >= RESOLVING {
            return Err(Reject::passing(RejectCode::Limit, "too many proposals; wait a minute"));
        }
        if self.drafts.len() > 4096 {
            self.drafts.retain(|_, (since, _)| now.since(*since) <= Millis::from_mins(1));
        }
        if self.leases.len() >= limits::LEASES {
            return Err(Reject::passing(RejectCode::Limit, "this host has too many leases"));
        }
        Ok((decide(setup, offer, self.slots.free(), &from, proposal, now), offer.clone()))
    }

    /// The image of a proposal is pinned, or can't be had.
    pub(super) fn image(&mut self, cx: &mut Context, token: Token, result: Result<ImagePin, Reject>, now: Timestamp) {
        let Some(r) = self.resolving.remove(&token) else {
            return;
        };
        let drafted = result.and_then(|image| {
            if r.proposal.image_digest.as_ref().is_some_and(|wanted| *wanted != image.digest) {
                return Err(Reject::lasting(RejectCode::Image, "the image's digest is not the one asked for"));
            }
            let setup = self
                .setup
                .as_ref()
                .ok_or_else(|| Reject::lasting(RejectCode::Stale, "this machine is not offered any more"))?;
            cx.sign(Self::draft(cx.me(), setup, r, image, now))
                .ok_or_else(|| Reject::lasting(RejectCode::Terms, "these terms can't be written as a lease"))
        });
        match drafted {
            Ok(draft) => cx.reply(token, Response::Drafted(draft.to_signed()), None),
            Err(reject) => cx.reply(token, Response::Rejected(reject), None),
        }
    }

    fn draft(me: NodeId, setup: &HostSetup, r: Resolving, image: ImagePin, now: Timestamp) -> LeaseDraft {
        let terms = &r.offer.terms;
        let credit = u128::from(r.price_hour.0) * u128::from(setup.credit.0) / 3_600_000;
        LeaseDraft {
            host: me,
            renter: r.renter,
            machine: setup.machine,
            ask: r.proposal.ask,
            offer: r.offer.id(),
            nonce: r.proposal.nonce,
            rental: r.proposal.rental,
            resources: r.resources,
            egress: r.proposal.egress,
            currency: terms.currency.clone(),
            rates: Rates {
                compute_hour: r.price_hour,
                storage_gb_month: terms.storage_gb_month,
                up_gb: terms.up_gb,
                down_gb: terms.down_gb,
            },
            credit: Amount(u64::try_from(credit).unwrap_or(u64::MAX)),
            max_spend: r.proposal.max_spend,
            tick: r.proposal.tick.unwrap_or(setup.tick),
            image,
            workload: r.proposal.workload,
            drafted_at: now,
            ends_at: r.ends_at.max(now + limits::COMMIT_WITHIN + Millis(1)),
            commit_by: now + limits::COMMIT_WITHIN,
            confirm_by: now + limits::COMMIT_WITHIN + limits::CONFIRM_WITHIN,
        }
    }

    /// A renter's durable open: the one point at which a lease may come to be.
    pub(super) fn commit(
        &mut self,
        cx: &mut Context,
        from: NodeId,
        token: Token,
        open: &Signed<Entry>,
        bytes: Vec<u8>,
        now: Timestamp,
    ) {
        let id = cx.id_of(open);
        if let Some(void) = self.voids.get(&id) {
            return cx.reply(token, Response::Answered(void.to_signed()), None);
        }
        let malformed = |sentence: &str| Response::Rejected(Reject::lasting(RejectCode::Malformed, sentence));
        let Some(open) = cx.verify(from, open) else {
            return cx.reply(token, malformed("the open does not verify"), None);
        };
        let ours = open.author == from && open.peer == Some(cx.me());
        let draft = open.body.draft().filter(|_| ours).and_then(|d| cx.verify(from, d));
        let Some(draft) = draft.filter(|d| d.host == cx.me() && d.renter == from && open.lease == Some(d.id().into()))
        else {
            return cx.reply(token, malformed("the open holds no draft of this host for its sender"), None);
        };
        let lease: LeaseId = draft.id().into();
        if let Some(known) = self.leases.get(&lease) {
            let same = matches!(&known.accept().body, Body::LeaseAccept { open } if *open == id);
            if same {
                return cx.reply(token, Response::Answered(known.accept().to_signed()), known.durable());
            }
            return self.void(cx, token, &open, VoidCode::Taken, "this draft was opened before", now);
        }
        if let Some(waiting) = self.locking.get_mut(&lease) {
            if waiting.open.id() == id && waiting.tokens.len() < 16 {
                waiting.tokens.push(token);
                return;
            }
            return cx.reply(token, Response::Busy { retry_after_ms: 200 }, None);
        }
        if now > draft.commit_by {
            let otherwise =
                Response::Rejected(Reject::lasting(RejectCode::Stale, "it came after the draft's last moment"));
            return cx.out(Output::Recall { token, lease, what: Recalled::Answer(id), otherwise: Box::new(otherwise) });
        }
        let workload = match Workload::from_bytes(&bytes) {
            Ok(workload) if Digest::of(&bytes) == draft.workload => workload,
            Ok(_) => {
                return cx.reply(token, malformed("the workload is not the one the lease names"), None);
            }
            Err(_) => return cx.reply(token, malformed("the workload is malformed"), None),
        };
        let accepts = self.setup.as_ref().is_some_and(|s| s.accept.takes(&from) && s.machine == draft.machine);
        if !accepts || !self.runtime_up {
            return self.void(cx, token, &open, VoidCode::Unavailable, "the host can't serve it now", now);
        }
        if self.locking.len() >= LOCKING {
            return cx.reply(token, Response::Busy { retry_after_ms: 1000 }, None);
        }
        let picked = self.slots.pick(draft.resources.slots).filter(|slots| self.slots.take(lease, slots));
        let Some(slots) = picked else {
            return self.void(
                cx,
                token,
                &open,
                VoidCode::Taken,
                "the slots were rented to another in the meantime",
                now,
            );
        };
        cx.out(Output::LockSlots { lease, slots: slots.clone() });
        self.locking.insert(lease, Locking { tokens: vec![token], open, draft, workload, bytes, slots });
    }

    fn void(
        &mut self,
        cx: &mut Context,
        token: Token,
        open: &Verified<Entry>,
        code: VoidCode,
        sentence: &str,
        now: Timestamp,
    ) {
        let Some(lease) = open.lease else { return };
        cx.persist(Record::from(open));
        let body = Body::Void { open: open.id(), code, sentence: sentence.to_owned() };
        if let Some((entry, ticket)) = cx.append(lease, open.author, body, now) {
            cx.reply(token, Response::Answered(entry.to_signed()), Some(ticket));
            self.remember_void(open.id(), entry);
        }
    }

    /// The machine-wide locks of a lease's slots are ours, or another node's.
    pub(super) fn locked(&mut self, cx: &mut Context, lease: LeaseId, locked: bool, now: Timestamp) {
        if let Some(token) = self.restarting.remove(&lease) {
            return self.restart_locked(cx, lease, token, locked, now);
        }
        let Some(Locking { tokens, open, draft, workload, bytes, slots }) = self.locking.remove(&lease) else {
            return;
        };
        self.dirty = true;
        if !locked {
            self.slots.release(&lease);
            for token in tokens {
                match self.voids.get(&open.id()) {
                    Some(void) => cx.reply(token, Response::Answered(void.to_signed()), None),
                    None => self.void(
                        cx,
                        token,
                        &open,
                        VoidCode::Taken,
                        "the slots are used by another node of this machine",
                        now,
                    ),
                }
            }
            return;
        }
        cx.persist(Record::from(&open));
        cx.persist(Record::Private(Private::Workload { lease, bytes }));
        let Some((accept, ticket)) = cx.append(lease, draft.renter, Body::LeaseAccept { open: open.id() }, now) else {
            return;
        };
        for token in tokens {
            cx.reply(token, Response::Answered(accept.to_signed()), Some(ticket));
        }
        let devices = self.slots.devices(&slots);
        let mut held = HostLease::accepted(draft, accept, workload, ticket, now);
        held.place(cx, slots, devices, now);
        held.prepare(cx);
        self.leases.insert(lease, held);
        cx.changed(lease, now);
    }

    /// A renter's wish about its instance.
    pub(super) fn control(
        &mut self,
        cx: &mut Context,
        from: NodeId,
        token: Token,
        lease: LeaseId,
        action: Action,
        now: Timestamp,
    ) {
        let reject = |code, sentence: &str| Response::Rejected(Reject::lasting(code, sentence));
        let Some(held) = self.leases.get_mut(&lease).filter(|l| l.draft().renter == from) else {
            return cx.reply(
                token,
                reject(RejectCode::Malformed, "this host has no open lease of yours by that id"),
                None,
            );
        };
        match action {
            Action::Stop => held.pause(cx, PauseReason::Stopped, Cause::Renter, now),
            Action::Destroy => held.end(cx, EndReason::Destroyed, Cause::Renter, String::new(), now),
            Action::Start => return self.restart(cx, token, lease, now),
        }
        let (state, durable) = (held.state(), held.durable());
        cx.reply(token, Response::Controlled { state }, durable);
        self.settle_slots(cx, lease);
    }

    fn restart(&mut self, cx: &mut Context, token: Token, lease: LeaseId, now: Timestamp) {
        let Some(held) = self.leases.get(&lease) else {
            return;
        };
        if held.state() == LeaseState::Running {
            return cx.reply(token, Response::Controlled { state: held.state() }, held.durable());
        }
        if let Some(why) = held.cannot_start(now) {
            return cx.reply(
                token,
                Response::Rejected(Reject::lasting(RejectCode::Terms, format!("it can't be started: {why}"))),
                None,
            );
        }
        if !self.runtime_up {
            return cx.reply(
                token,
                Response::Rejected(Reject::passing(
                    RejectCode::Unavailable,
                    "the host's container engine does not answer right now",
                )),
                None,
            );
        }
        // A container keeps the devices it was made with, so only the same slots will do where slots have devices.
        let before = match held.placement().map(|p| &p.body) {
            Some(Body::Placement { slots, devices, .. }) if !devices.is_empty() => Some(slots.clone()),
            Some(_) | None => None,
        };
        let wanted = before.or_else(|| self.slots.pick(held.draft().resources.slots));
        let Some(slots) = wanted.filter(|slots| self.slots.take(lease, slots)) else {
            return cx.reply(
                token,
                Response::Rejected(Reject::passing(
                    RejectCode::Taken,
                    "its slots are rented to another now; try again later",
                )),
                None,
            );
        };
        self.restarting.insert(lease, token);
        cx.out(Output::LockSlots { lease, slots });
    }

    fn restart_locked(&mut self, cx: &mut Context, lease: LeaseId, token: Token, locked: bool, now: Timestamp) {
        let slots = self.slots.of(&lease);
        let devices = self.slots.devices(&slots);
        match self.leases.get_mut(&lease) {
            Some(held) if locked && held.cannot_start(now).is_none() => {
                held.place(cx, slots, devices, now);
                held.start(cx, Cause::Renter, now);
                cx.reply(token, Response::Controlled { state: held.state() }, held.durable());
                self.dirty = true;
            }
            Some(_) | None => {
                self.slots.release(&lease);
                cx.reply(
                    token,
                    Response::Rejected(Reject::passing(
                        RejectCode::Taken,
                        "its slots are used by another node of this machine",
                    )),
                    None,
                );
            }
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
                held.renter_connected(now);
                let news = Response::News(Box::new(held.update(events_seen)));
                cx.reply(token, news, held.durable());
            }
            None => {
                let sentence = "this host has no open lease of yours by that id";
                cx.reply(token, Response::Rejected(Reject::lasting(RejectCode::Malformed, sentence)), None);
            }
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
        let verified = cx.verify(from, entry).filter(|e| e.author == from);
        let lease = verified.as_ref().and_then(|e| e.lease);
        if let (Some(entry), Some(held)) = (verified, lease.and_then(|id| self.leases.get_mut(&id)))
            && held.draft().renter == from
        {
            match &entry.body {
                Body::CloseAck { .. } => held.take_close_ack(cx, &entry.to_signed(), now),
                Body::Close { reason: EndReason::Unconfirmed, .. } => {
                    held.closed_by_renter(cx, &entry, EndReason::Unconfirmed, now)
                }
                Body::Genesis { .. }
                | Body::LeaseOpen { .. }
                | Body::LeaseAccept { .. }
                | Body::Void { .. }
                | Body::Placement { .. }
                | Body::Anchor { .. }
                | Body::Close { .. } => {}
            }
        }
        let durable = lease.and_then(|id| self.leases.get(&id)).and_then(HostLease::durable);
        cx.reply(token, Response::Seen { events_seen: 0, ack: None, close_ack: None }, durable);
    }

    pub(super) fn report(&mut self, cx: &mut Context, lease: LeaseId, report: RuntimeReport, now: Timestamp) {
        if let Some(held) = self.leases.get_mut(&lease) {
            held.report(cx, report, now);
        }
        self.settle_slots(cx, lease);
    }

    /// The answer to an update of ours.
    pub(super) fn updated(&mut self, cx: &mut Context, lease: LeaseId, response: Option<&Response>, now: Timestamp) {
        let Some(held) = self.leases.get_mut(&lease) else {
            return;
        };
        match response {
            Some(Response::Seen { events_seen, ack, close_ack }) => {
                held.seen(cx, *events_seen, ack.as_ref(), close_ack.as_ref(), now)
            }
            Some(_) | None => held.unanswered(now),
        }
        self.settle_slots(cx, lease);
    }

    pub(super) fn abort(&mut self, cx: &mut Context, lease: LeaseId, now: Timestamp) -> bool {
        let Some(held) = self.leases.get_mut(&lease) else {
            return false;
        };
        held.end(cx, EndReason::HostAborted, Cause::Host, "the host took the machine back".to_owned(), now);
        self.settle_slots(cx, lease);
        true
    }

    /// Frees the slots of a lease that no longer needs them, and forgets it once it is over and agreed on.
    fn settle_slots(&mut self, cx: &mut Context, lease: LeaseId) {
        let (holds, closed) = self.leases.get(&lease).map_or((false, true), |l| (l.holds_slots(), l.is_closed()));
        if !holds && !self.locking.contains_key(&lease) && !self.restarting.contains_key(&lease) {
            let slots = self.slots.release(&lease);
            if !slots.is_empty() {
                cx.out(Output::UnlockSlots { slots });
                self.dirty = true;
            }
        }
        if closed {
            self.leases.remove(&lease);
        }
    }

    pub(super) fn runtime(&mut self, cx: &mut Context, up: bool, now: Timestamp) {
        if self.runtime_up == up {
            return;
        }
        self.runtime_up = up;
        self.dirty = true;
        for lease in self.leases.values_mut() {
            if up { lease.engine_up(cx) } else { lease.engine_down(cx, now) }
        }
    }

    /// Takes back leases from the ledger, and looks for their containers.
    pub(super) fn restore(&mut self, cx: &mut Context, mut lease: HostLease, now: Timestamp) {
        lease.resume(cx, now);
        self.leases.insert(lease.id(), lease);
    }

    /// Locks the slots of restored leases again, once the machine's slots are known.
    pub(super) fn hold_restored(&mut self, cx: &mut Context) {
        let holding: Vec<LeaseId> = self.leases.iter().filter(|(_, l)| l.holds_slots()).map(|(id, _)| *id).collect();
        for lease in holding {
            self.hold(lease, &[]);
            let slots = self.slots.of(&lease);
            if !slots.is_empty() {
                cx.out(Output::LockSlots { lease, slots });
            }
        }
    }

    pub(super) fn connected(&mut self, peer: &NodeId, now: Timestamp) {
        for lease in self.leases.values_mut().filter(|l| l.draft().renter == *peer) {
            lease.renter_connected(now);
        }
    }

    pub(super) fn tick(&mut self, cx: &mut Context, book: &mut Book, now: Timestamp) {
        let ids: Vec<LeaseId> = self.leases.keys().copied().collect();
        for id in ids {
            if let Some(lease) = self.leases.get_mut(&id) {
                lease.tick(cx, now);
                lease.pump(cx, now);
            }
            self.settle_slots(cx, id);
        }
        self.publish(cx, book, now);
    }

    pub(super) fn deadline(&self, me: NodeId) -> Option<(Timestamp, &'static str)> {
        let offer = self.setup.as_ref().filter(|_| self.runtime_up).map(|setup| {
            let renewal = self.published_at + Self::renew_every(me, &setup.machine);
            (if self.dirty { self.may_publish_at() } else { renewal }, "an offer is due")
        });
        let leases = self.leases.values().filter_map(|l| Some((l.deadline()?, "a lease needs a look")));
        leases.chain(offer).min()
    }

    /// Requests a renter or a stranger may send us as a host.
    pub(super) fn request(&mut self, cx: &mut Context, from: NodeId, token: Token, request: Request, now: Timestamp) {
        match request {
            Request::Propose(proposal) => self.propose(cx, from, token, *proposal, now),
            Request::Commit { open, workload } => self.commit(cx, from, token, &open, workload, now),
            Request::Control { lease, action, nonce: Nonce(_) } => self.control(cx, from, token, lease, action, now),
            Request::Sync { lease, events_seen } => self.sync(cx, from, token, lease, events_seen, now),
            Request::Deliver { entry } => self.deliver(cx, from, token, &entry, now),
            Request::BookSummary | Request::BookPage { .. } | Request::BookFetch { .. } | Request::Update(_) => {
                cx.reply(
                    token,
                    Response::Rejected(Reject::lasting(RejectCode::Malformed, "not a request to a host")),
                    None,
                );
            }
        }
    }
}
