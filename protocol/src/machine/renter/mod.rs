//! The renter's side of the market: negotiations, opens, and the leases that came of them.
//!
//! Owns at most one live open for each negotiation: past `confirm_by` it stops waiting, and answers a later accept with a close
//! that owes nothing, so a renter never pays for two machines when it wanted one.

mod amending;
mod paying;
mod terms;

use std::collections::BTreeMap;

use self::{
    paying::{Asking, FirstPayment},
    terms::{asked_hour, check_draft},
};

use super::{
    book::Book,
    context::{Asked, Context},
    io::{NoAnswer, Output, Refusal, Step, Token, Wish},
    policy::next_bid,
    record::{Private, Record},
    renter_lease::{Opened, RenterLease, heartbeat::Beat},
};
use crate::{
    Amount, LeaseId, Millis, NodeId, Nonce, Timestamp, Verified,
    entry::Body,
    lease::LeaseDraft,
    limits,
    message::{Action, LeaseUpdate, Request, Response},
    negotiation::{Counter, NO_IMAGE, Proposal, Reject, RejectCode, RentalType},
    offer::Offer,
    resources::Egress,
    signed::Signed,
    workload::Workload,
};

/// Between two attempts to get an answer to an open.
const COMMIT_RETRY: (Millis, Millis) = (Millis(500), Millis::from_secs(8));
/// After a `stale`, the newer offer is waited for this long, so many times.
const STALE_WAIT: Millis = Millis(300);
const STALE_TRIES: u8 = 5;
const LATE: &str = "it did not confirm the lease in time; if it does later, the lease is closed at no cost";

#[derive(Debug)]
struct Negotiation {
    wish: Wish,
    offer: Verified<Offer>,
    slots: u16,
    bid: Amount,
    limit: Amount,
    round: u8,
    stale: u8,
    again_at: Option<Timestamp>,
    /// The draft that is to be opened, while its first payment is being made.
    paying: Option<FirstPayment>,
}

/// A wish for a volume is one for disk: whatever else it says is put right.
fn only_disk(wish: &mut Wish, offer: &Offer) {
    wish.ask = offer.volume_ask();
    wish.rental = RentalType::OnDemand;
    (wish.bid, wish.max_price) = (None, None);
    wish.egress = Egress::None;
    wish.ports.clear();
    wish.image = NO_IMAGE.to_owned();
    wish.image_digest = None;
    wish.workload = Workload { salt: wish.workload.salt, ..Workload::default() };
}

#[derive(Debug)]
struct Opening {
    /// Who waits for the outcome; none after a restart.
    token: Option<Token>,
    workload: Vec<u8>,
    in_flight: bool,
    again_at: Timestamp,
    retry: Millis,
}

/// All negotiations and leases of a renter.
#[derive(Debug, Default)]
pub struct Renter {
    negotiations: BTreeMap<Token, Negotiation>,
    openings: BTreeMap<LeaseId, Opening>,
    asking: Asking,
    pub(super) leases: BTreeMap<LeaseId, RenterLease>,
}

impl Renter {
    /// Leases that are not over and agreed on, and opens without an answer.
    #[must_use]
    pub const fn leases(&self) -> &BTreeMap<LeaseId, RenterLease> {
        &self.leases
    }

    /// Begins a negotiation for an ask of the book.
    pub(super) fn rent(&mut self, cx: &mut Context, book: &Book, token: Token, wish: Wish) {
        match self.begin(cx, book, wish) {
            Ok(negotiation) => {
                self.negotiations.insert(token, negotiation);
                self.bid(cx, token);
            }
            Err(why) => failed(cx, token, why),
        }
    }

    /// Gives up a negotiation in which nothing is signed yet.
    pub(super) fn cancel(&mut self, token: Token) {
        self.negotiations.remove(&token);
    }

    fn begin(&self, cx: &Context, book: &Book, mut wish: Wish) -> Result<Negotiation, Refusal> {
        wish.workload.check().map_err(|e| Refusal::Malformed(e.0))?;
        if self.negotiations.len() >= limits::NEGOTIATIONS || self.leases.len() >= limits::LEASES {
            return Err(Refusal::TooMany);
        }
        let (offer, slots) = book.find_ask(&wish.ask).ok_or(Refusal::UnknownAsk(wish.ask))?;
        if offer.host == cx.me() {
            return Err(Refusal::Malformed(
                "this ask is of this very machine; a node can't rent from itself".to_owned(),
            ));
        }
        if cx.forked.contains(&offer.host) {
            return Err(Refusal::Forked(offer.host));
        }
        let slots = if wish.volume {
            only_disk(&mut wish, offer);
            0
        } else {
            slots
        };
        let listed = asked_hour(offer, slots, wish.rental)
            .ok_or_else(|| Refusal::Malformed("the ask's price does not fit".to_owned()))?;
        let (bid, limit) = match (wish.bid, wish.max_price) {
            (None, None) => (listed, listed),
            (Some(bid), None) => (bid, bid),
            (None, Some(max)) => (listed.min(max), max),
            (Some(bid), Some(max)) => (bid.min(max), max),
        };
        Ok(Negotiation {
            offer: offer.clone(),
            slots,
            bid,
            limit,
            round: 0,
            stale: 0,
            again_at: None,
            paying: None,
            wish,
        })
    }

    fn bid(&mut self, cx: &mut Context, token: Token) {
        let Some(n) = self.negotiations.get_mut(&token) else {
            return;
        };
        let (_, workload) = n.wish.workload.to_bytes();
        let proposal = Proposal {
            ask: n.wish.ask,
            offer: n.offer.id(),
            nonce: n.wish.nonce,
            round: n.round,
            rental: n.wish.rental,
            price_hour: n.bid,
            term: n.wish.term,
            extend: n.wish.extend,
            disk_mb: n.wish.disk_mb,
            egress: n.wish.egress,
            ports: n.wish.ports.clone(),
            image: n.wish.image.clone(),
            image_digest: n.wish.image_digest.clone(),
            workload,
            max_spend: n.wish.max_spend,
            tick: n.wish.tick,
        };
        if let Err(e) = proposal.check() {
            self.negotiations.remove(&token);
            return failed(cx, token, Refusal::Malformed(e.0));
        }
        step(cx, token, Step::Proposed { round: n.round + 1, price_hour: n.bid });
        cx.send(n.offer.host, Request::Propose(Box::new(proposal)), None, Asked::Propose(token));
    }

    /// The host's answer to a bid.
    pub(super) fn proposed(
        &mut self,
        cx: &mut Context,
        token: Token,
        from: NodeId,
        result: Result<Response, NoAnswer>,
        now: Timestamp,
    ) {
        let Some(n) = self.negotiations.get_mut(&token) else {
            return;
        };
        let outcome = match result {
            Ok(Response::Countered(counter)) => Self::countered(cx, n, token, from, &counter).map(|()| true),
            Ok(Response::Drafted(draft)) => self.drafted(cx, token, from, &draft, now).map(|()| false),
            Ok(Response::Rejected(Reject { code: RejectCode::Stale, .. })) if n.stale < STALE_TRIES => {
                n.stale += 1;
                n.again_at = Some(now + STALE_WAIT);
                return;
            }
            Ok(Response::Rejected(reject)) => Err(Refusal::Host(reject)),
            Ok(Response::Busy { retry_after_ms }) if n.stale < STALE_TRIES => {
                n.stale += 1;
                n.again_at = Some(now + Millis(retry_after_ms.clamp(50, 5000)));
                return;
            }
            Ok(_) => {
                cx.wrong_answer(from, "not an answer to a bid");
                Err(Refusal::NoAnswer("its answer made no sense".to_owned()))
            }
            Err(no_answer) => Err(Refusal::NoAnswer(no_answer.why)),
        };
        match outcome {
            Ok(true) => self.bid(cx, token),
            Ok(false) => {}
            Err(why) => {
                self.negotiations.remove(&token);
                failed(cx, token, why);
            }
        }
    }

    fn countered(
        cx: &mut Context,
        n: &mut Negotiation,
        token: Token,
        from: NodeId,
        counter: &Signed<Counter>,
    ) -> Result<(), Refusal> {
        let senseless = || Refusal::NoAnswer("its counter-offer made no sense".to_owned());
        let counter = cx.verify(from, counter).ok_or_else(senseless)?;
        let fits = counter.host == from
            && counter.renter == cx.me()
            && counter.nonce == n.wish.nonce
            && counter.round == n.round
            && counter.ask == n.wish.ask;
        if !fits || counter.currency != n.offer.terms.currency {
            cx.wrong_answer(from, "a counter-offer to another bid");
            return Err(senseless());
        }
        step(cx, token, Step::Countered { price_hour: counter.price_hour });
        n.round += 1;
        let over = Refusal::Price { host_wants: counter.price_hour, limit: n.limit };
        if n.round >= limits::ROUNDS {
            return Err(over);
        }
        n.bid = next_bid(n.bid, n.limit, counter.price_hour).ok_or(over)?;
        Ok(())
    }

    /// The host has signed the lease: check every word, pay what it wants first, and open it.
    fn drafted(
        &mut self,
        cx: &mut Context,
        token: Token,
        from: NodeId,
        signed: &Signed<LeaseDraft>,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let draft = cx.verify(from, signed).ok_or(Refusal::BadDraft("it does not verify"))?;
        let n = self.negotiations.get(&token).ok_or(Refusal::TooMany)?;
        check_draft(n, &draft, from, cx.me(), now).map_err(Refusal::BadDraft)?;
        if cx.forked.contains(&from) {
            return Err(Refusal::Forked(from));
        }
        let lease: LeaseId = draft.id().into();
        if self.leases.contains_key(&lease) {
            return Err(Refusal::BadDraft("it was opened before"));
        }
        step(cx, token, Step::Drafted { draft: draft.clone() });
        let prepay = n.wish.prepay;
        let Some((first, due)) = self.first_payment(cx, &draft, prepay, now)? else {
            return self.open(cx, token, &draft, now);
        };
        if let Some(n) = self.negotiations.get_mut(&token) {
            n.paying = Some(first);
        }
        cx.out(Output::SettlementDue(Box::new(due)));
        Ok(())
    }

    /// Signs the open of a draft that is as it should be, writes it down, and sends it.
    fn open(
        &mut self,
        cx: &mut Context,
        token: Token,
        draft: &Verified<LeaseDraft>,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let lease: LeaseId = draft.id().into();
        let n = self.negotiations.get(&token).ok_or(Refusal::TooMany)?;
        let body = Body::LeaseOpen { draft: draft.to_signed() };
        let (open, _) = cx.append(lease, draft.host, body, now).ok_or(Refusal::BadDraft("it can't be opened"))?;
        let (workload, _) = n.wish.workload.to_bytes();
        let mut ticket = cx.persist(Record::Private(Private::Workload { lease, bytes: workload.clone() }));
        if let Some(text) = n.wish.label.clone() {
            ticket = cx.persist(Record::Private(Private::Label { lease, text }));
        }
        paying::pays_ahead(cx, draft);
        self.leases.insert(lease, RenterLease::opened(draft.clone(), open, ticket, now));
        let opening = Opening { token: Some(token), workload, in_flight: false, again_at: now, retry: COMMIT_RETRY.0 };
        self.openings.insert(lease, opening);
        self.negotiations.remove(&token);
        step(cx, token, Step::Committed { lease });
        cx.changed(lease, now);
        self.ask(cx, lease);
        Ok(())
    }

    /// Sends the open (again).
    fn ask(&mut self, cx: &mut Context, lease: LeaseId) {
        let (Some(opening), Some(held)) = (self.openings.get_mut(&lease), self.leases.get(&lease)) else {
            return;
        };
        opening.in_flight = true;
        let draft = held.draft();
        let paid = cx.payments.newest_unanswered(&(draft.host, draft.currency.clone()));
        let settle = paid.filter(|_| draft.payment.is_some()).map(Verified::to_signed);
        let commit = Request::Commit { open: held.open().to_signed(), workload: opening.workload.clone(), settle };
        cx.send(held.host(), commit, held.durable(), Asked::Commit(lease));
    }

    /// The host's answer to an open.
    pub(super) fn committed(
        &mut self,
        cx: &mut Context,
        lease: LeaseId,
        from: NodeId,
        result: Result<Response, NoAnswer>,
        now: Timestamp,
    ) {
        if let Some(opening) = self.openings.get_mut(&lease) {
            opening.in_flight = false;
            opening.again_at = now + opening.retry;
            opening.retry = Millis((opening.retry.0 * 2).min(COMMIT_RETRY.1.0));
        }
        match result {
            Ok(Response::Answered(entry)) => {
                if let Some(held) = self.leases.get_mut(&lease) {
                    held.take_answer(cx, &entry, now);
                }
                self.opening_settled(cx, lease, now);
            }
            // Refused without a signature: it binds nobody, and asking again gives the same.
            Ok(Response::Rejected(reject)) => self.refused(cx, lease, reject, now),
            Ok(Response::Busy { .. }) | Err(_) => {}
            Ok(_) => cx.wrong_answer(from, "not an answer to an open"),
        }
    }

    fn refused(&mut self, cx: &mut Context, lease: LeaseId, reject: Reject, now: Timestamp) {
        if let Some(held) = self.leases.get_mut(&lease) {
            held.give_up();
        }
        if let Some(token) = self.openings.remove(&lease).and_then(|o| o.token) {
            failed(cx, token, Refusal::Host(reject));
        }
        cx.changed(lease, now);
    }

    /// If the host has answered, tells who waits for it.
    fn opening_settled(&mut self, cx: &mut Context, lease: LeaseId, now: Timestamp) {
        let Some(held) = self.leases.get(&lease) else {
            return;
        };
        let outcome = match held.answer() {
            Opened::Waiting | Opened::GivenUp => return,
            Opened::Accepted(_) if held.own_close().is_some() => {
                Step::Failed { why: Refusal::NoAnswer(LATE.to_owned()) }
            }
            Opened::Accepted(_) => Step::Accepted { lease },
            Opened::Void(_, sentence) => Step::Failed { why: Refusal::Void(sentence.clone()) },
        };
        if let Some(token) = self.openings.remove(&lease).and_then(|o| o.token) {
            step(cx, token, outcome);
        }
        self.forget_closed(cx, lease);
        cx.changed(lease, now);
    }

    /// What came of a question into an instance.
    pub(super) fn beat(
        &mut self,
        cx: &mut Context,
        lease: LeaseId,
        beat: (Millis, Beat, Millis),
        events_seen: u32,
        now: Timestamp,
    ) {
        if let Some(held) = self.leases.get_mut(&lease) {
            held.beat(cx, beat, events_seen, now);
        }
    }

    /// The host's answer to a close of ours.
    pub(super) fn delivered(&mut self, cx: &mut Context, lease: LeaseId, response: Option<&Response>, now: Timestamp) {
        if let Some(held) = self.leases.get_mut(&lease) {
            held.close_delivered(cx, response, now);
        }
        self.forget_closed(cx, lease);
    }

    fn forget_closed(&mut self, cx: &mut Context, lease: LeaseId) {
        if self.leases.get(&lease).is_some_and(RenterLease::is_closed) {
            if let Some(mut held) = self.leases.remove(&lease) {
                held.give_up_amending(cx);
            }
            self.openings.remove(&lease);
        }
    }

    /// A host's news of a lease. None if it is not about a lease of ours with that host.
    pub(super) fn update(
        &mut self,
        cx: &mut Context,
        from: NodeId,
        update: &LeaseUpdate,
        now: Timestamp,
    ) -> Option<(Response, Option<super::io::Ticket>)> {
        self.take_payment_ask(from, update, now);
        let held = self.leases.get_mut(&update.lease).filter(|l| l.host() == from)?;
        let response = held.update(cx, update, now);
        let durable = held.durable();
        self.opening_settled(cx, update.lease, now);
        self.forget_closed(cx, update.lease);
        Some((response, durable))
    }

    /// The owner's wish about an instance.
    pub(super) fn control(&mut self, cx: &mut Context, token: Token, lease: LeaseId, action: Action, nonce: Nonce) {
        match self.leases.get_mut(&lease).filter(|l| matches!(l.answer(), Opened::Accepted(_))) {
            Some(held) => {
                let after = if action == Action::Destroy { held.leave(cx) } else { None };
                cx.send(held.host(), Request::Control { lease, action, nonce }, after, Asked::Control(token, lease));
            }
            None => cx.out(Output::Done { token, result: Err(Refusal::UnknownLease(lease)) }),
        }
    }

    pub(super) fn controlled(
        &mut self,
        cx: &mut Context,
        token: Token,
        from: NodeId,
        result: Result<Response, NoAnswer>,
    ) {
        let result = match result {
            Ok(Response::Controlled { .. }) => Ok(()),
            Ok(Response::Rejected(reject)) => Err(Refusal::Host(reject)),
            Ok(Response::Busy { .. }) => Err(Refusal::NoAnswer("it is busy; try again in a moment".to_owned())),
            Ok(_) => {
                cx.wrong_answer(from, "not an answer to a control");
                Err(Refusal::NoAnswer("its answer made no sense".to_owned()))
            }
            Err(no_answer) => Err(Refusal::NoAnswer(no_answer.why)),
        };
        cx.out(Output::Done { token, result });
    }

    /// The host can be reached (again): ask what we have missed.
    pub(super) fn connected(&mut self, cx: &mut Context, peer: NodeId, now: Timestamp) {
        let ours: Vec<LeaseId> = self.leases.values().filter(|l| l.host() == peer).map(RenterLease::id).collect();
        for lease in ours {
            if let Some(opening) = self.openings.get_mut(&lease) {
                opening.again_at = now;
            } else if let Some(held) = self.leases.get_mut(&lease) {
                held.host_connected(cx, now);
            }
        }
    }

    /// The host's news, at our asking. Receipts in it are answered when the host sends its update, which our asking makes it do.
    pub(super) fn synced(
        &mut self,
        cx: &mut Context,
        lease: LeaseId,
        from: NodeId,
        result: &Result<Response, NoAnswer>,
        now: Timestamp,
    ) {
        if let Ok(Response::News(update)) = result
            && update.lease == lease
        {
            self.update(cx, from, update, now);
        }
    }

    pub(super) fn restore(&mut self, lease: RenterLease, workload: Vec<u8>, now: Timestamp) {
        let id = lease.id();
        if *lease.answer() == Opened::Waiting {
            let opening = Opening { token: None, workload, in_flight: false, again_at: now, retry: COMMIT_RETRY.0 };
            self.openings.insert(id, opening);
        }
        self.leases.insert(id, lease);
    }

    pub(super) fn tick(&mut self, cx: &mut Context, book: &Book, now: Timestamp) {
        let again: Vec<Token> =
            self.negotiations.iter().filter(|(_, n)| n.again_at.is_some_and(|at| at <= now)).map(|(t, _)| *t).collect();
        for token in again {
            self.try_newer(cx, book, token);
        }
        let due: Vec<LeaseId> =
            self.openings.iter().filter(|(_, o)| !o.in_flight && o.again_at <= now).map(|(id, _)| *id).collect();
        for lease in due {
            if self.leases.get(&lease).is_none_or(|l| l.is_late(now)) {
                self.abandon(cx, lease, now);
            } else {
                self.ask(cx, lease);
            }
        }
        self.give_up_first_payments(cx, now);
        for held in self.leases.values_mut() {
            held.tick(cx, now);
        }
        self.pay_due(cx, now);
        // Nothing can come of an open whose contract would be over and its disk gone.
        self.leases.retain(|_, l| *l.answer() != Opened::GivenUp || now < l.terms().ends_at + limits::DISK_KEPT);
    }

    /// The clock went back: what was to happen again shortly happens shortly.
    pub(super) fn clock_went_back(&mut self, now: Timestamp) {
        for negotiation in self.negotiations.values_mut() {
            negotiation.again_at = negotiation.again_at.map(|at| at.min(now + STALE_WAIT));
        }
        for opening in self.openings.values_mut() {
            opening.again_at = opening.again_at.min(now + opening.retry);
        }
        self.payments_clock_went_back(now);
        for held in self.leases.values_mut() {
            held.clock_went_back(now);
        }
    }

    fn try_newer(&mut self, cx: &mut Context, book: &Book, token: Token) {
        let Some(n) = self.negotiations.get_mut(&token) else {
            return;
        };
        n.again_at = None;
        match book.find_ask(&n.wish.ask).map(|(offer, slots)| (offer.clone(), slots)) {
            Some((offer, slots)) => {
                // A dearer offer is not what the person agreed to, unless they gave a limit.
                if n.wish.bid.is_none()
                    && n.wish.max_price.is_none()
                    && asked_hour(&offer, slots, n.wish.rental).is_none_or(|asked| asked > n.limit)
                {
                    let host_wants = asked_hour(&offer, slots, n.wish.rental).unwrap_or(Amount(u64::MAX));
                    let limit = n.limit;
                    self.negotiations.remove(&token);
                    return failed(cx, token, Refusal::Price { host_wants, limit });
                }
                n.offer = offer;
                n.slots = slots;
                self.bid(cx, token);
            }
            None => {
                let ask = n.wish.ask;
                self.negotiations.remove(&token);
                failed(cx, token, Refusal::UnknownAsk(ask));
            }
        }
    }

    /// No answer by `confirm_by`: stop waiting. A later accept will be closed at no cost.
    fn abandon(&mut self, cx: &mut Context, lease: LeaseId, now: Timestamp) {
        if let Some(held) = self.leases.get_mut(&lease) {
            held.give_up();
        }
        if let Some(token) = self.openings.remove(&lease).and_then(|o| o.token) {
            failed(cx, token, Refusal::NoAnswer(LATE.to_owned()));
        }
        cx.changed(lease, now);
    }

    pub(super) fn deadline(&self, cx: &Context) -> Option<(Timestamp, &'static str)> {
        let bids = self.negotiations.values().filter_map(|n| n.again_at).map(|at| (at, "a bid is to be repeated"));
        let opens =
            self.openings.values().filter(|o| !o.in_flight).map(|o| (o.again_at, "an open waits for its answer"));
        let leases = self.leases.values().filter_map(|l| Some((l.deadline(cx)?, "a lease needs a look")));
        let payments = self.payments_deadline(cx).map(|at| (at, "a payment is due"));
        bids.chain(opens).chain(leases).chain(payments).min()
    }
}

fn step(cx: &mut Context, token: Token, step: Step) {
    cx.out(Output::Step { token, step: Box::new(step) });
}

fn failed(cx: &mut Context, token: Token, why: Refusal) {
    step(cx, token, Step::Failed { why });
}
