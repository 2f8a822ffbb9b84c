//! Answers to bids: a refusal, another price, or the whole lease, signed. None of them reserves anything or binds anybody.

use super::{Host, reject};
use crate::{
    Amount, Millis, NodeId, Timestamp, Verified,
    lease::LeaseDraft,
    limits,
    machine::{
        context::Context,
        io::{Output, Token},
        policy::{Decision, HostSetup, decide, decide_volume},
    },
    message::Response,
    money::{self, Counters, Rates},
    negotiation::{Counter, ImagePin, Proposal, Reject, RejectCode, RentalType},
    offer::Offer,
    payment::PaymentTerms,
    ports::PublicAccess,
    resources::Resources,
};

/// Proposals waiting for their image's digest.
const RESOLVING: usize = 256;
/// How long an image may be looked up.
pub(super) const RESOLVE_WITHIN: Millis = Millis::from_secs(30);
/// Bids one renter may make in a minute …
const BIDS_PER_MINUTE: u32 = 60;
/// … and how many renters' bids are counted.
const BIDDERS: usize = 4096;
const MINUTE: Millis = Millis::from_mins(1);

/// A bid that is accepted, if its image can be had.
#[derive(Debug)]
pub(super) struct Resolving {
    pub(super) renter: NodeId,
    pub(super) proposal: Proposal,
    pub(super) offer: Verified<Offer>,
    pub(super) price_hour: Amount,
    pub(super) listed_hour: Amount,
    pub(super) resources: Resources,
    pub(super) ends_at: Timestamp,
    pub(super) until: Timestamp,
}

impl Resolving {
    pub(super) fn clock_went_back(&mut self, now: Timestamp) {
        self.until = self.until.min(now + RESOLVE_WITHIN);
    }
}

impl Host {
    /// Answers a bid.
    pub(super) fn propose(&mut self, cx: &mut Context, from: NodeId, token: Token, proposal: Proposal, now: Timestamp) {
        let considered = self.consider(cx, from, &proposal, now);
        match considered {
            Ok((decision, offer)) if self.owner_prices(&decision, &proposal) => {
                self.ask_price(cx, token, from, proposal, &offer, now);
            }
            considered => self.answer_bid(cx, from, token, proposal, considered, now),
        }
    }

    /// Answers a bid that has been considered; one to be taken once the owner agrees, if they are asked, and its image is pinned.
    pub(super) fn answer_bid(
        &mut self,
        cx: &mut Context,
        from: NodeId,
        token: Token,
        proposal: Proposal,
        considered: Result<(Decision, Verified<Offer>), Reject>,
        now: Timestamp,
    ) {
        match considered {
            Err(reject) | Ok((Decision::Reject(reject), _)) => cx.reply(token, Response::Rejected(reject), None),
            Ok((Decision::Counter { price_hour, listed_hour }, offer)) => {
                let counter = Counter {
                    host: cx.me(),
                    renter: from,
                    machine: offer.machine,
                    ask: proposal.ask,
                    offer: proposal.offer,
                    nonce: proposal.nonce,
                    round: proposal.round,
                    price_hour,
                    listed_hour,
                    currency: offer.terms.currency.clone(),
                    valid_until: now + limits::COUNTER_LIFE,
                };
                match cx.sign(counter) {
                    Some(counter) => cx.reply(token, Response::Countered(counter.to_signed()), None),
                    None => reject(cx, token, RejectCode::Terms, "no counter-offer can be made"),
                }
            }
            Ok((Decision::Draft { price_hour, listed_hour, resources, ends_at }, offer)) => {
                let until = now + RESOLVE_WITHIN;
                let resolving =
                    Resolving { renter: from, proposal, offer, price_hour, listed_hour, resources, ends_at, until };
                if self.setup.as_ref().is_some_and(|s| s.asked.accept) {
                    self.ask_whether(cx, token, resolving, now);
                } else {
                    self.resolve(cx, token, resolving, now);
                }
            }
        }
    }

    /// Has the image of a bid that is taken looked up.
    pub(super) fn resolve(&mut self, cx: &mut Context, token: Token, resolving: Resolving, now: Timestamp) {
        if resolving.resources == Resources::volume(resolving.resources.disk_mb) {
            return self.answer_drafted(cx, token, resolving, Ok(ImagePin::none()), now);
        }
        let (reference, digest) = (resolving.proposal.image.clone(), resolving.proposal.image_digest.clone());
        let (renter, workload) = (resolving.renter, resolving.proposal.workload);
        self.resolving.insert(token, resolving);
        cx.out(Output::ResolveImage { token, reference, digest, renter, workload });
    }

    fn consider(
        &mut self,
        cx: &Context,
        from: NodeId,
        proposal: &Proposal,
        now: Timestamp,
    ) -> Result<(Decision, Verified<Offer>), Reject> {
        if self.admit(cx, from, proposal)? {
            if let Some(reject) = self.too_many(from, now) {
                return Err(reject);
            }
            if self.resolving.len() + self.asking.len() >= RESOLVING {
                return Err(Reject::passing(RejectCode::Limit, "too many proposals; wait a minute"));
            }
            if self.leases.len() >= limits::LEASES {
                return Err(Reject::passing(RejectCode::Limit, "this host has too many leases"));
            }
            if let Some(full) = self.bids_full(&from).filter(|_| !proposal.rental.is_firm()) {
                return Err(Reject::passing(RejectCode::Limit, full));
            }
        }
        let (Some(setup), Some(offer)) = (&self.setup, &self.offer) else { return Err(not_offered()) };
        if proposal.ask == offer.volume_ask() {
            self.may_keep_another(&from)?;
            return Ok((decide_volume(setup, offer, self.volume_free_mb(), &from, proposal, now), offer.clone()));
        }
        // Before prices are talked about; which ones is for the draft to say.
        proposal.check().map_err(|e| Reject::lasting(RejectCode::Malformed, e.0))?;
        if let Some(reject) = offer.slots_of(&proposal.ask).and_then(|slots| self.over_quota(&from, slots, None, now)) {
            return Err(reject);
        }
        if setup.accept.takes(&from) {
            self.grant_ports(proposal)?;
        }
        Ok((decide(setup, offer, self.firm_free(), &from, proposal, now), offer.clone()))
    }

    /// Whether this renter may rent here, if the machine is offered as the proposal has it and can be rented out now.
    pub(super) fn admit(&self, cx: &Context, from: NodeId, proposal: &Proposal) -> Result<bool, Reject> {
        let (Some(setup), Some(offer)) = (&self.setup, &self.offer) else { return Err(not_offered()) };
        if from == cx.me() {
            return Err(Reject::lasting(RejectCode::NotAccepted, "a node can't rent from itself"));
        }
        if cx.forked.contains(&from) {
            return Err(Reject::lasting(RejectCode::Forked, super::FORKED));
        }
        if let Some(reject) = self.stranger(&from) {
            return Err(reject);
        }
        if !setup.accept.takes(&from) {
            return Ok(false);
        }
        if !self.runtime_up {
            let sentence = "the host's container engine does not answer right now";
            return Err(Reject::passing(RejectCode::Unavailable, sentence));
        }
        let same = |seen: &Verified<Offer>| {
            seen.terms == offer.terms
                && seen.hardware == offer.hardware
                && seen.availability.slots_total == offer.availability.slots_total
        };
        if !self.recent.iter().any(|seen| seen.id() == proposal.offer && same(seen)) {
            return Err(Reject::passing(RejectCode::Stale, "the offer has changed since; search again"));
        }
        Ok(true)
    }

    /// Counts what a peer asks: none may keep the host busy.
    pub(super) fn too_many(&mut self, from: NodeId, now: Timestamp) -> Option<Reject> {
        if self.proposals.len() >= BIDDERS && !self.proposals.contains_key(&from) {
            self.proposals.retain(|_, (since, _)| now.since(*since) <= MINUTE);
        }
        if self.proposals.len() >= BIDDERS && !self.proposals.contains_key(&from) {
            return Some(Reject::passing(RejectCode::Limit, "too many renters ask at once; wait a minute"));
        }
        let asked = self.proposals.entry(from).or_insert((now, 0));
        if now.since(asked.0) > MINUTE {
            *asked = (now, 0);
        }
        asked.1 = asked.1.saturating_add(1);
        let sentence = "too many proposals and questions; wait a minute";
        (asked.1 > BIDS_PER_MINUTE).then(|| Reject::passing(RejectCode::Limit, sentence))
    }

    /// The image of a proposal is pinned, or can't be had.
    pub(in super::super) fn image(
        &mut self,
        cx: &mut Context,
        token: Token,
        result: Result<ImagePin, Reject>,
        now: Timestamp,
    ) {
        let Some(resolving) = self.resolving.remove(&token) else {
            return;
        };
        self.answer_drafted(cx, token, resolving, result, now);
    }

    fn answer_drafted(
        &mut self,
        cx: &mut Context,
        token: Token,
        resolving: Resolving,
        result: Result<ImagePin, Reject>,
        now: Timestamp,
    ) {
        let drafted = result.and_then(|image| {
            if resolving.proposal.image_digest.as_ref().is_some_and(|wanted| *wanted != image.digest) {
                return Err(Reject::lasting(RejectCode::Image, "the image's digest is not the one asked for"));
            }
            let gone = || Reject::lasting(RejectCode::Stale, "this machine is not offered any more");
            let setup = self.setup.as_ref().ok_or_else(gone)?;
            let public = self.grant_ports(&resolving.proposal)?;
            // Dated after our start, so that its open is known to be of this run.
            let drafted_at = now.max(self.latest).max(self.started_at + Millis(1));
            let rates = dearest(&resolving);
            let currency = &resolving.offer.terms.currency;
            let payment = self.payment_terms(cx, resolving.renter, currency, (&rates, &resolving.resources), now)?;
            cx.sign(draft(cx.me(), setup, resolving, (image, public, payment), drafted_at))
                .ok_or_else(|| Reject::lasting(RejectCode::Terms, "these terms can't be written as a lease"))
        });
        match drafted {
            Ok(draft) => cx.reply(token, Response::Drafted(draft.to_signed()), None),
            Err(reject) => cx.reply(token, Response::Rejected(reject), None),
        }
    }

    pub(super) fn give_up_resolving(&mut self, cx: &mut Context, now: Timestamp) {
        let late: Vec<Token> = self.resolving.iter().filter(|(_, r)| r.until <= now).map(|(t, _)| *t).collect();
        for token in late {
            self.resolving.remove(&token);
            let reject = Reject::passing(RejectCode::Image, "the image's registry did not answer the host in time");
            cx.reply(token, Response::Rejected(reject), None);
        }
    }
}

fn not_offered() -> Reject {
    Reject::lasting(RejectCode::Stale, "this machine is not offered (any more)")
}

/// The prices, at the highest that a slice and a credit are measured by: a bid may be raised later, and they stay.
fn dearest(r: &Resolving) -> Rates {
    let terms = &r.offer.terms;
    Rates {
        compute_hour: match r.proposal.rental {
            RentalType::Interruptible => r.price_hour.max(r.listed_hour),
            RentalType::OnDemand | RentalType::Reserved => r.price_hour,
        },
        storage_gb_month: terms.storage_gb_month,
        up_gb: terms.up_gb,
        down_gb: terms.down_gb,
    }
}

fn draft(
    me: NodeId,
    setup: &HostSetup,
    r: Resolving,
    (image, public, payment): (ImagePin, Option<PublicAccess>, Option<PaymentTerms>),
    drafted_at: Timestamp,
) -> LeaseDraft {
    let terms = &r.offer.terms;
    let within = Counters { active: setup.credit, storage: setup.credit, ..Counters::default() };
    let dearest = dearest(&r);
    let rates = Rates { compute_hour: r.price_hour, ..dearest };
    // Without a wish of the renter's, a slice has ticks enough.
    let most = payment.as_ref().map(|p| Host::tick_of(&dearest, r.resources.disk_mb, p.slice));
    let tick = most.map_or(setup.tick, |most| setup.tick.min(most));
    let credit = money::due(&dearest, r.resources.disk_mb, &within, Amount::ZERO).unwrap_or(Amount(u64::MAX));
    let commit_by = (drafted_at + limits::COMMIT_WITHIN).min(Timestamp(r.ends_at.0.saturating_sub(1)));
    LeaseDraft {
        host: me,
        renter: r.renter,
        machine: r.offer.machine,
        ask: r.proposal.ask,
        offer: r.proposal.offer,
        nonce: r.proposal.nonce,
        rental: r.proposal.rental,
        resources: r.resources,
        egress: r.proposal.egress,
        public,
        currency: terms.currency.clone(),
        rates,
        credit,
        listed_hour: r.listed_hour,
        payment,
        max_spend: r.proposal.max_spend,
        extend_until: r.proposal.extend.map(|extend| r.ends_at + extend),
        notice: terms.eviction_notice,
        quantum: terms.quantum,
        tick: r.proposal.tick.unwrap_or(tick),
        image,
        workload: r.proposal.workload,
        ssh_host_key: setup.ssh_host_key,
        drafted_at,
        ends_at: r.ends_at,
        commit_by,
        confirm_by: commit_by + limits::CONFIRM_WITHIN,
    }
}
