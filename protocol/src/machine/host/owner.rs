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
        let volume = self.offer.as_ref().is_some_and(|offer| proposal.ask == offer.volume_ask());
        asked && !volume && proposal.rental == RentalType::OnDemand && !matches!(decision, Decision::Reject(_))
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
            slots_free: self.firm_free(),
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
                self.resolve(cx, token, Resolving { until, ..*resolving }, now);
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
        let decision = decide(&priced, offer, self.firm_free(), &from, proposal, now);
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        AskId, Millis, NetworkId,
        machine::{
            engine::Engine,
            io::{Command, Input},
            pricing::OwnerAsked,
            record::Restore,
            testkit::{NOW, key, proposal, setup},
        },
        message::Request,
        negotiation::ImagePin,
    };

    const LISTED: u64 = 1_000_000_000;

    struct Bench {
        engine: Engine,
        now: Timestamp,
        questions: Vec<(Token, Question)>,
        replies: Vec<Response>,
    }

    impl Bench {
        fn new(asked: OwnerAsked) -> Self {
            let engine = Engine::new(key(1), NetworkId::of_name("tests"), Restore::default(), NOW).unwrap();
            let mut bench = Self { engine, now: NOW, questions: Vec::new(), replies: Vec::new() };
            let floor_slot_hour = if asked.price { Amount::ZERO } else { Amount(LISTED) };
            let host = HostSetup { asked, floor_slot_hour, ..setup() };
            bench.feed(Input::RuntimeUp(true));
            bench.feed(Input::Command(Command::Host(Some(Box::new(host)))));
            bench
        }

        fn feed(&mut self, input: Input) {
            self.engine.handle(input, self.now);
            while let Some(output) = self.engine.poll_output() {
                if let Output::AskOwner { token, question } = output {
                    self.questions.push((token, *question));
                } else if let Output::Reply { response, .. } = output {
                    self.replies.push(*response);
                } else if let Output::ResolveImage { token, reference, .. } = output {
                    let digest = format!("sha256:{}", "a".repeat(64));
                    self.engine.handle(Input::Image { token, result: Ok(ImagePin { reference, digest }) }, self.now);
                }
            }
        }

        fn bid(&mut self, price: u64, token: u64) {
            let offer = self.engine.host().offer().unwrap().clone();
            let ask = AskId::of(&offer.host, &offer.machine, 2);
            let bid = Proposal { ask, offer: offer.id(), ..proposal(Amount(price), 0) };
            let request = Request::Propose(Box::new(bid));
            self.feed(Input::Request { from: key(2).node_id(), token: Token(token), request });
        }

        fn wait(&mut self, time: Millis) {
            self.now = self.now + time;
            self.feed(Input::Tick);
        }

        /// The price of the only answer so far: drafted or countered.
        fn price(&mut self) -> (Option<u64>, Option<u64>) {
            assert_eq!(self.replies.len(), 1, "{:?}", self.replies);
            let network = NetworkId::of_name("tests");
            let reply = self.replies.remove(0);
            if let Response::Drafted(draft) = &reply {
                return (Some(draft.verify(&network).unwrap().rates.compute_hour.0), None);
            }
            let Response::Countered(counter) = &reply else { panic!("{reply:?}") };
            (None, Some(counter.verify(&network).unwrap().price_hour.0))
        }

        fn refused(&mut self) -> RejectCode {
            assert_eq!(self.replies.len(), 1, "{:?}", self.replies);
            let Response::Rejected(reject) = self.replies.remove(0) else { panic!("not refused") };
            reject.code
        }

        fn answer(&mut self, answer: OwnerAnswer) {
            let token = self.questions.pop().unwrap().0;
            self.feed(Input::Owner { token, answer });
        }
    }

    #[test]
    fn the_owners_price_holds_whatever_is_bid_and_the_listed_one_where_there_is_none() {
        let mut bench = Bench::new(OwnerAsked { price: true, ..OwnerAsked::default() });
        let half = || OwnerAnswer::Price(Some(Amount(LISTED / 2)));
        let cases = [
            (2 * LISTED, half(), (Some(LISTED), None)),
            (LISTED / 4, half(), (None, Some(LISTED))),
            (2 * LISTED, OwnerAnswer::Price(Some(Amount(u64::MAX))), (Some(2 * LISTED), None)),
            (LISTED, OwnerAnswer::Price(None), (None, Some(2 * LISTED))),
            (LISTED, OwnerAnswer::Price(Some(Amount::ZERO)), (Some(0), None)),
        ];
        for (n, (bid, answer, expected)) in (0..).zip(cases) {
            bench.bid(bid, n);
            assert!(bench.replies.is_empty(), "it waits for the owner");
            // What answers another question is no answer.
            let token = bench.questions[0].0;
            bench.feed(Input::Owner { token, answer: OwnerAnswer::Accept(Ok(())) });
            assert!(bench.replies.is_empty());
            bench.answer(answer);
            assert_eq!(bench.price(), expected, "a bid of {bid}");
        }
        assert_eq!(bench.engine.host().pending(), 1, "but for the count of bids nothing is kept");
        // No answer at all: the listed price, once the time is up; later answers change nothing.
        bench.bid(2 * LISTED, 9);
        let late = bench.questions[0].0;
        assert!(bench.engine.deadline().unwrap().0 <= bench.now + limits::OWNER_WITHIN);
        bench.wait(limits::OWNER_WITHIN);
        assert_eq!(bench.price(), (Some(2 * LISTED), None));
        bench.feed(Input::Owner { token: late, answer: half() });
        assert!(bench.replies.is_empty());
        // Withdrawn meanwhile.
        bench.questions.clear();
        bench.bid(2 * LISTED, 10);
        bench.feed(Input::Command(Command::Host(None)));
        bench.answer(half());
        assert_eq!(bench.refused(), RejectCode::Stale);
    }

    #[test]
    fn the_credit_covers_the_disk_too_where_compute_is_a_gift() {
        let mut bench = Bench::new(OwnerAsked { price: true, ..OwnerAsked::default() });
        bench.bid(LISTED, 0);
        bench.answer(OwnerAnswer::Price(Some(Amount::ZERO)));
        let Response::Drafted(draft) = bench.replies.remove(0) else { panic!("not drafted") };
        let draft = draft.verify(&NetworkId::of_name("tests")).unwrap();
        let used = crate::money::Counters { storage: setup().credit, ..Default::default() };
        let disk = crate::money::due(&draft.rates, draft.resources.disk_mb, &used, Amount::ZERO).unwrap();
        assert_eq!((draft.rates.compute_hour, draft.credit), (Amount::ZERO, disk));
        assert!(disk > Amount::ZERO);
    }

    #[test]
    fn nobody_is_drafted_whom_the_owner_has_not_taken() {
        let no = Reject::lasting(RejectCode::NotAccepted, "no miners");
        for unanswered_is_yes in [false, true] {
            let mut bench = Bench::new(OwnerAsked { accept: true, unanswered_is_yes, ..OwnerAsked::default() });
            bench.bid(LISTED, 0);
            assert_eq!(bench.price(), (None, Some(2 * LISTED)), "too low a bid is not worth a question");
            bench.bid(2 * LISTED, 1);
            let agreed = bench.questions[0].1.agreed.clone().unwrap();
            assert_eq!((agreed.price_hour, agreed.resources.slots), (Amount(2 * LISTED), 2));
            bench.answer(OwnerAnswer::Accept(Err(no.clone())));
            assert_eq!(bench.refused(), RejectCode::NotAccepted);
            bench.bid(2 * LISTED, 2);
            bench.answer(OwnerAnswer::Accept(Ok(())));
            bench.wait(Millis(1));
            assert_eq!(bench.price(), (Some(2 * LISTED), None));
            bench.bid(2 * LISTED, 3);
            bench.wait(limits::OWNER_WITHIN);
            bench.wait(Millis(1));
            if unanswered_is_yes {
                assert_eq!(bench.price(), (Some(2 * LISTED), None));
            } else {
                assert_eq!(bench.refused(), RejectCode::Unavailable);
            }
        }
    }

    #[test]
    fn questions_are_bounded() {
        let mut bench = Bench::new(OwnerAsked { accept: true, ..OwnerAsked::default() });
        let offer = bench.engine.host().offer().unwrap().clone();
        let ask = AskId::of(&offer.host, &offer.machine, 1);
        for n in 0..2000u64 {
            let mut name = [0; 32];
            name[..8].copy_from_slice(&n.to_be_bytes());
            let from = crate::Keypair::from_seed(&name).node_id();
            let bid = Proposal { ask, offer: offer.id(), ..proposal(Amount(LISTED), 0) };
            bench.feed(Input::Request { from, token: Token(n), request: Request::Propose(Box::new(bid)) });
        }
        assert_eq!(bench.questions.len(), 256);
        assert_eq!(bench.replies.len(), 2000 - 256, "each of the others is refused at once");
    }
}
