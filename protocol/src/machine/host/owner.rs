//! Questions to the machine's owner about a proposal: its price, and whether to take it.
//!
//! Owns the proposals that wait for an answer, and what holds where none comes. Every other check is done before the owner is
//! asked, so that only bids that could be taken cost them anything, and again afterwards where time matters.

use super::{Host, drafts::Resolving};
use crate::{
    Amount, NodeId, Timestamp, Verified, limits,
    machine::{
        context::Context,
        io::{Output, Token},
        policy::{Decision, HostSetup, decide},
        pricing::{About, Agreed, OwnerAnswer, Question, at_price},
    },
    message::Response,
    negotiation::{Proposal, Reject, RejectCode, RentalType},
    offer::Offer,
};

/// A proposal that waits for the owner.
#[derive(Debug)]
pub(super) struct Asking {
    what: What,
    pub(super) until: Timestamp,
}

#[derive(Debug)]
enum What {
    Price(NodeId, Box<Proposal>),
    Accept(Box<Resolving>),
}

impl Host {
    /// Whether the owner names the price of such a bid: one that would be taken at some price.
    pub(super) fn owner_prices(&self, decision: &Decision, proposal: &Proposal) -> bool {
        let asked = self.setup.as_ref().is_some_and(|s| s.asked.price);
        asked && proposal.rental == RentalType::OnDemand && !matches!(decision, Decision::Reject(_))
    }

    pub(super) fn ask_price(
        &mut self,
        cx: &mut Context,
        token: Token,
        renter: NodeId,
        proposal: Proposal,
        offer: &Offer,
        now: Timestamp,
    ) {
        self.put(cx, token, About::Price, renter, &proposal, offer, None);
        let what = What::Price(renter, Box::new(proposal));
        self.asking.insert(token, Asking { what, until: now + limits::OWNER_WITHIN });
    }

    pub(super) fn ask_whether(&mut self, cx: &mut Context, token: Token, resolving: Resolving, now: Timestamp) {
        let agreed = Agreed {
            price_hour: resolving.price_hour,
            resources: resolving.resources.clone(),
            ends_at: resolving.ends_at,
        };
        self.put(cx, token, About::Accept, resolving.renter, &resolving.proposal, &resolving.offer, Some(agreed));
        let what = What::Accept(Box::new(resolving));
        self.asking.insert(token, Asking { what, until: now + limits::OWNER_WITHIN });
    }

    #[expect(clippy::too_many_arguments, reason = "each is a part of the question")]
    fn put(
        &self,
        cx: &mut Context,
        token: Token,
        about: About,
        renter: NodeId,
        proposal: &Proposal,
        offer: &Offer,
        agreed: Option<Agreed>,
    ) {
        let question = Question {
            about,
            renter,
            proposal: proposal.clone(),
            slots: offer.slots_of(&proposal.ask).unwrap_or(0),
            slots_total: offer.availability.slots_total,
            slots_free: self.slots.free(),
            slot_hour: offer.terms.slot_hour,
            min_bid_slot_hour: offer.terms.min_bid_slot_hour,
            currency: offer.terms.currency.clone(),
            agreed,
        };
        cx.out(Output::AskOwner { token, question: Box::new(question) });
    }

    /// The owner has answered. An answer to what was not asked, or was given up, changes nothing.
    pub(in super::super) fn owner_says(&mut self, cx: &mut Context, token: Token, answer: OwnerAnswer, now: Timestamp) {
        let Some(asking) = self.asking.remove(&token) else { return };
        match (asking.what, answer) {
            (What::Price(from, proposal), OwnerAnswer::Price(price)) => {
                self.priced(cx, token, from, *proposal, price, now);
            }
            (What::Accept(resolving), OwnerAnswer::Accept(Ok(()))) => {
                let until = now + super::drafts::RESOLVE_WITHIN;
                self.resolve(cx, token, Resolving { until, ..*resolving });
            }
            (What::Accept(_), OwnerAnswer::Accept(Err(reject))) => cx.reply(token, Response::Rejected(reject), None),
            (what @ What::Price(..), OwnerAnswer::Accept(_)) | (what @ What::Accept(_), OwnerAnswer::Price(_)) => {
                self.asking.insert(token, Asking { what, until: asking.until });
            }
        }
    }

    /// The price is known. The machine may have been rented, changed or withdrawn meanwhile.
    fn priced(
        &mut self,
        cx: &mut Context,
        token: Token,
        from: NodeId,
        proposal: Proposal,
        price: Option<Amount>,
        now: Timestamp,
    ) {
        let considered = self.admit(cx, from, &proposal).and_then(|_| self.decide_at(from, &proposal, price, now));
        self.answer_bid(cx, from, token, proposal, considered, now);
    }

    fn decide_at(
        &self,
        from: NodeId,
        proposal: &Proposal,
        price: Option<Amount>,
        now: Timestamp,
    ) -> Result<(Decision, Verified<Offer>), Reject> {
        let gone = || Reject::lasting(RejectCode::Stale, "this machine is not offered (any more)");
        let (setup, offer) = self.setup.as_ref().zip(self.offer.as_ref()).ok_or_else(gone)?;
        let listed = offer.terms.slot_hour;
        let price = price.unwrap_or(listed).min(listed);
        let priced = HostSetup { floor_slot_hour: price, ..setup.clone() };
        let decision = decide(&priced, offer, self.slots.free(), &from, proposal, now);
        let slots = offer.slots_of(&proposal.ask).unwrap_or(0);
        Ok((at_price(decision, slots, price, listed), offer.clone()))
    }

    pub(super) fn give_up_asking(&mut self, cx: &mut Context, now: Timestamp) {
        let late: Vec<Token> = self.asking.iter().filter(|(_, a)| a.until <= now).map(|(t, _)| *t).collect();
        for token in late {
            let answer = match self.asking.get(&token).map(|a| &a.what) {
                Some(What::Price(..)) => OwnerAnswer::Price(None),
                Some(What::Accept(_)) => OwnerAnswer::Accept(self.unanswered()),
                None => continue,
            };
            self.owner_says(cx, token, answer, now);
        }
    }

    fn unanswered(&self) -> Result<(), Reject> {
        if self.setup.as_ref().is_some_and(|s| s.asked.unanswered_is_yes) {
            return Ok(());
        }
        Err(unanswered())
    }
}

/// What a renter is told where the owner's word is needed and does not come.
#[must_use]
pub fn unanswered() -> Reject {
    let sentence =
        "this host's owner checks each renter with a program of their own, which did not answer; try again later";
    Reject::passing(RejectCode::Unavailable, sentence)
}
