//! Renters that use, and do not sign for it: what they refuse uses up how far this host lends to them.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

use std::collections::VecDeque;

use crate::{
    Amount, Currency, LeaseId, Millis, Nonce, Timestamp, Verified,
    entry::{Body, Entry, VoidCode},
    lease::{EndReason, LeaseDraft, LeaseState, PauseReason},
    limits,
    machine::{
        account::{AccountPolicy, AccountRow, Lending, Note},
        chain::Chain,
        engine::Engine,
        io::{Command, Input, Output, Refusal, RuntimeOrder, RuntimeReport, Token},
        policy::HostSetup,
        record::{Private, Record, Restore},
        testkit::{NOW, key, network, proposal, setup},
    },
    message::{Action, Cause, Request, Response},
    negotiation::{ImagePin, Proposal, Reject, RejectCode},
    payment::PayWhen,
    settlement::Settle,
    terms::Change,
    workload::Workload,
};

const PRICE: Amount = Amount(1_000_000_000);

/// A host (key 1), whose world does what it is told, and a renter (key 2) whose every word is written by hand.
struct Bench {
    engine: Engine,
    now: Timestamp,
    renter: Chain,
    replies: Vec<(Token, Response)>,
    notes: Vec<Note>,
    done: Vec<Result<(), Refusal>>,
    paid: (u32, u64),
    token: u64,
}

fn bench(strangers: PayWhen) -> Bench {
    bench_of(strangers, Restore::default())
}

fn bench_of(strangers: PayWhen, restore: Restore) -> Bench {
    let engine = Engine::new(key(1), network(), restore, NOW).unwrap();
    let mut renter = Chain::new(key(2), network(), None);
    renter.begin(NOW).unwrap();
    let (now, replies, notes, done) = (NOW, Vec::new(), Vec::new(), Vec::new());
    let mut bench = Bench { engine, now, renter, replies, notes, done, paid: (0, 0), token: 1 };
    bench.feed(Input::RuntimeUp(true));
    let lending = Lending { methods: vec!["bank".to_owned()], strangers: Some(strangers), ..Lending::default() };
    let policy = AccountPolicy { lending, ..AccountPolicy::default() };
    bench.feed(Input::Command(Command::Accounts(Box::new(policy))));
    // What is not acknowledged stops nothing here but by the account.
    let setup = HostSetup { credit: Millis::from_hours(24), ..setup() };
    bench.feed(Input::Command(Command::Host(Some(Box::new(setup)))));
    bench.wait(Millis(10));
    bench
}

impl Bench {
    fn feed(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            self.engine.handle(input, self.now);
            while let Some(output) = self.engine.poll_output() {
                match output {
                    Output::Reply { token, response, .. } => self.replies.push((token, *response)),
                    Output::Persist { record, .. } => {
                        if let Record::Private(Private::Account(note)) = *record {
                            self.notes.push(*note);
                        }
                    }
                    Output::Done { result, .. } => self.done.push(result),
                    Output::ResolveImage { token, reference, .. } => {
                        let digest = format!("sha256:{}", "a".repeat(64));
                        inputs.push_back(Input::Image { token, result: Ok(ImagePin { reference, digest }) });
                    }
                    Output::LockSlots { lease, .. } => inputs.push_back(Input::Locked { lease, locked: true }),
                    Output::Runtime { lease, order, .. } => {
                        let report = match *order {
                            RuntimeOrder::Prepare { .. } => RuntimeReport::Prepared,
                            RuntimeOrder::Start { .. } => RuntimeReport::Started,
                            RuntimeOrder::Stop(_) => {
                                RuntimeReport::Exited { code: 143, by: Cause::Renter, note: String::new() }
                            }
                            RuntimeOrder::Destroy => RuntimeReport::Destroyed,
                            _ => continue,
                        };
                        inputs.push_back(Input::Runtime { lease, report });
                    }
                    _ => {}
                }
            }
        }
    }

    fn wait(&mut self, time: Millis) {
        let until = self.now + time;
        for _ in 0..100_000 {
            match self.engine.deadline() {
                Some((at, _)) if at <= until => {
                    self.now = at.max(self.now);
                    self.feed(Input::Tick);
                }
                _ => {
                    self.now = until;
                    return self.feed(Input::Tick);
                }
            }
        }
        panic!("it does not come to rest");
    }

    fn ask(&mut self, request: Request) -> Option<Response> {
        self.token += 1;
        let token = Token(self.token);
        self.feed(Input::Request { from: key(2).node_id(), token, request });
        self.reply_to(token)
    }

    fn reply_to(&mut self, token: Token) -> Option<Response> {
        let place = self.replies.iter().position(|(t, _)| *t == token)?;
        Some(self.replies.remove(place).1)
    }

    fn draft(&mut self, nonce: u8) -> Result<Verified<LeaseDraft>, Reject> {
        let workload = Workload::default().to_bytes().1;
        let offer = self.engine.host().offer().unwrap().id();
        let wish = Proposal { nonce: Nonce([nonce; 16]), offer, workload, ..proposal(PRICE, 0) };
        match self.ask(Request::Propose(Box::new(wish))) {
            Some(Response::Drafted(draft)) => Ok(draft.verify(&network()).unwrap()),
            Some(Response::Rejected(reject)) => Err(reject),
            other => panic!("{other:?}"),
        }
    }

    /// The next payment.
    fn pay(&mut self, amount: Amount) -> Verified<Entry> {
        self.paid = (self.paid.0 + 1, self.paid.1 + amount.0);
        let settle = Settle {
            n: self.paid.0,
            currency: Currency::usd(),
            amount,
            total: Amount(self.paid.1),
            method: "bank".to_owned(),
            reference: format!("R{}", self.paid.0),
        };
        self.renter.append_about(key(1).node_id(), Body::Settle(settle), self.now).unwrap()
    }

    fn arrives(&mut self, settle: &Verified<Entry>) {
        let Body::Settle(said) = &settle.body else { panic!("{:?}", settle.body) };
        self.feed(Input::SettlementVerified { settle: settle.id(), result: Ok(said.amount) });
    }

    fn say(&mut self, lease: LeaseId, body: Body) -> Verified<Entry> {
        self.renter.append(lease, key(1).node_id(), body, self.now).unwrap()
    }

    /// Opens a draft, with a payment or without. The answer, if it does not wait, and its token.
    fn open(&mut self, draft: &Verified<LeaseDraft>, settle: Option<&Verified<Entry>>) -> (Option<Body>, Token) {
        let open = self.say(draft.id().into(), Body::LeaseOpen { draft: draft.to_signed() });
        let settle = settle.map(Verified::to_signed);
        let workload = Workload::default().to_bytes().0;
        let answer = self.ask(Request::Commit { open: open.to_signed(), workload, settle });
        (answer.map(answered), Token(self.token))
    }

    /// A lease that runs, and its first payment if it asks for one.
    fn rent(&mut self, nonce: u8) -> LeaseId {
        let draft = self.draft(nonce).unwrap();
        let first = draft.payment.as_ref().map_or(Amount::ZERO, |p| p.first);
        let settle = (first > Amount::ZERO).then(|| self.pay(first));
        let (answer, token) = self.open(&draft, settle.as_ref());
        if let Some(settle) = settle {
            assert!(answer.is_none(), "it waits for its payment: {answer:?}");
            self.arrives(&settle);
            let answer = self.reply_to(token).map(answered);
            assert!(matches!(answer, Some(Body::LeaseAccept { .. })), "{answer:?}");
        } else {
            assert!(matches!(answer, Some(Body::LeaseAccept { .. })), "{answer:?}");
        }
        let lease = draft.id().into();
        assert_eq!(self.state(lease), LeaseState::Running);
        lease
    }

    fn state(&self, lease: LeaseId) -> LeaseState {
        self.engine.host().leases()[&lease].state()
    }

    fn used(&self, lease: LeaseId) -> Amount {
        self.engine.host().leases()[&lease].count(self.now).1
    }

    fn owed(&self) -> i128 {
        self.engine.owed_by(&key(2).node_id(), &Currency::usd(), self.now)
    }

    fn refused(&self) -> Amount {
        self.engine.accounts().get(&key(2).node_id(), &Currency::usd()).unwrap().note().refused
    }

    fn control(&mut self, lease: LeaseId, action: Action) -> Option<Response> {
        self.ask(Request::Control { lease, action, nonce: Nonce([9; 16]) })
    }

    fn deliver(&mut self, entry: &Verified<Entry>) -> Option<Response> {
        self.ask(Request::Deliver { entry: entry.to_signed() })
    }

    /// Destroys it, and agrees to so much of what the host claims.
    fn leave(&mut self, lease: LeaseId, agreed: impl FnOnce(Amount) -> Amount) {
        self.control(lease, Action::Destroy);
        let held = &self.engine.host().leases()[&lease];
        let close = held.update(0).entries.last().unwrap().verify(&network()).unwrap();
        let (.., claimed) = close.body.closing().unwrap();
        let ack = self.say(lease, Body::CloseAck { close: close.id(), due: agreed(claimed) });
        let answer = self.deliver(&ack);
        assert!(matches!(answer, Some(Response::Seen { .. })), "{answer:?}");
        assert!(!self.engine.host().leases().contains_key(&lease), "it is over");
    }

    fn never_taken_up(&mut self, lease: LeaseId) -> Option<Response> {
        let close = Body::Close { reason: EndReason::Unconfirmed, usage: None, due: Amount::ZERO };
        let close = self.say(lease, close);
        self.deliver(&close)
    }
}

fn answered(response: Response) -> Body {
    let Response::Answered(entry) = response else { panic!("{response:?}") };
    entry.verify(&network()).unwrap().body.clone()
}

fn slice(draft: &LeaseDraft) -> Amount {
    draft.payment.as_ref().unwrap().slice
}

/// How this renter fares that has used this, signed nothing, and comes again: it pays for what it has used before anything else.
fn pays_for_what_it_refused(bench: &mut Bench, used: Amount, nonce: u8) {
    assert_eq!(bench.refused(), used);
    assert_eq!(bench.notes.last().map(|n| n.refused), Some(used), "it is written down");
    assert!(bench.owed() >= 0, "nothing is left of what was paid: {}", bench.owed());
    let again = bench.draft(nonce).map(|draft| draft.payment.as_ref().map(|p| (p.when, p.first, p.slice)));
    match again {
        Err(reject) => assert_eq!(reject.code, RejectCode::Unpaid),
        Ok(payment) => {
            let (when, first, slice) = payment.unwrap();
            assert_eq!((when, first >= slice), (PayWhen::Before, true), "it is not lent another slice");
        }
    }
}

#[test]
fn a_slice_paid_ahead_is_used_up_once_whatever_is_agreed_to_in_the_end() {
    let mut bench = bench(PayWhen::Before);
    let lease = bench.rent(1);
    bench.wait(Millis::from_mins(20));
    assert_eq!(bench.state(lease), LeaseState::Paused(PauseReason::NoCredit));
    let before = bench.owed();
    bench.leave(lease, |_| Amount::ZERO);
    assert_eq!(bench.owed(), before, "what is agreed to does not change what it has had");
    let used = bench.refused();
    assert!(used.0 >= bench.paid.1);
    pays_for_what_it_refused(&mut bench, used, 2);

    // Paid on top, it is rented to again; what it did not sign for is still known.
    let settle = bench.pay(used);
    bench.deliver(&settle);
    bench.arrives(&settle);
    assert_eq!(bench.draft(3).unwrap().payment.as_ref().unwrap().first, Amount::ZERO);
    assert_eq!(bench.refused(), used);
}

#[test]
fn a_slice_lent_is_used_up_by_what_is_refused() {
    let mut bench = bench(PayWhen::After);
    let lease = bench.rent(1);
    bench.wait(Millis::from_mins(20));
    assert_eq!(bench.state(lease), LeaseState::Paused(PauseReason::NoCredit));
    bench.leave(lease, |_| Amount::ZERO);
    let used = bench.refused();
    pays_for_what_it_refused(&mut bench, used, 2);

    // In portions, too: what is left of the slice is all there is.
    let mut bench = self::bench(PayWhen::After);
    let mut all = Amount::ZERO;
    let mut of = Amount::ZERO;
    for nonce in 1..20 {
        let Ok(draft) = bench.draft(nonce) else { break };
        of = slice(&draft);
        let lease = bench.rent(nonce + 100);
        bench.wait(Millis::from_mins(2));
        let used = bench.used(lease);
        bench.leave(lease, |_| Amount::ZERO);
        all = all.saturating_add(used);
    }
    assert!(all > of && all.0 <= of.0 * 5 / 4 + 1000, "{all} of a slice of {of}");
}

#[test]
fn what_is_agreed_to_is_not_refused() {
    let mut bench = bench(PayWhen::After);
    let lease = bench.rent(1);
    bench.wait(Millis::from_mins(2));
    bench.leave(lease, |claimed| claimed);
    assert_eq!(bench.refused(), Amount::ZERO);
    let lease = bench.rent(2);
    bench.wait(Millis::from_mins(1));
    let used = bench.used(lease);
    bench.leave(lease, |claimed| Amount(claimed.0 - 7));
    assert_eq!(bench.refused(), Amount(7), "of {used}");
}

#[test]
fn a_close_as_if_it_was_never_taken_up_counts_what_was_used() {
    let mut bench = bench(PayWhen::Before);
    let lease = bench.rent(1);
    bench.wait(Millis::from_mins(4));
    let (used, before) = (bench.used(lease), bench.owed());
    assert!(used > Amount::ZERO);
    let answer = bench.never_taken_up(lease);
    assert!(matches!(answer, Some(Response::Seen { .. })), "{answer:?}");
    assert_eq!((bench.refused(), bench.owed()), (used, before));
    assert_eq!(bench.notes.last().map(|n| n.refused), Some(used), "a restart knows it");
    assert_eq!(bench.draft(2).unwrap().payment.as_ref().unwrap().first, used);
}

#[test]
fn who_has_done_anything_about_a_lease_has_taken_it_up() {
    type Deed = fn(&mut Bench, LeaseId);
    let deeds: [Deed; 4] = [
        |bench, lease| {
            bench.control(lease, Action::Start);
        },
        |bench, lease| {
            let change = Change::Ceiling { max_spend: Some(Amount(u64::MAX)) };
            let amend = bench.say(lease, Body::Amend { n: 7, change, valid_until: bench.now + limits::AMEND_WITHIN });
            bench.ask(Request::Amend { entry: amend.to_signed() });
        },
        |bench, lease| {
            bench.ask(Request::AskExtension { lease, ends_at: bench.now + Millis::from_hours(200) });
        },
        |bench, lease| bench.feed(Input::Reached { lease }),
    ];
    for (n, deed) in deeds.into_iter().enumerate() {
        let mut bench = bench(PayWhen::Before);
        let lease = bench.rent(1);
        deed(&mut bench, lease);
        let answer = bench.never_taken_up(lease);
        assert!(matches!(answer, Some(Response::Rejected(_))), "{n}: {answer:?}");
        assert_eq!(bench.state(lease), LeaseState::Running, "{n}");
    }
}

#[test]
fn a_restart_forgets_nothing_and_the_owner_forgives() {
    let mut bench = bench(PayWhen::Before);
    let lease = bench.rent(1);
    bench.wait(Millis::from_mins(4));
    bench.leave(lease, |_| Amount::ZERO);
    let account = bench.engine.accounts().get(&key(2).node_id(), &Currency::usd()).unwrap();
    let (flows, used) = (*account.flows(), account.note().refused);
    let row = AccountRow {
        peer: key(2).node_id(),
        currency: Currency::usd(),
        flows,
        note: bench.notes.last().cloned(),
        paid: None,
        unanswered: Vec::new(),
        received: None,
        unverified: Vec::new(),
        answer: None,
    };
    let mut back = bench_of(PayWhen::Before, Restore { accounts: vec![row], ..Restore::default() });
    assert_eq!((back.refused(), back.owed()), (used, bench.owed()));
    assert_eq!(back.draft(1).unwrap().payment.as_ref().unwrap().first, used);
    let forgive = || Command::Forgive { token: Token(77), peer: key(2).node_id(), currency: Currency::usd() };
    back.done.clear();
    back.feed(Input::Command(forgive()));
    assert_eq!(back.done, [Ok(())]);
    assert_eq!((back.refused(), back.notes.last().map(|n| n.refused)), (Amount::ZERO, Some(Amount::ZERO)));
    assert_eq!(back.draft(2).unwrap().payment.as_ref().unwrap().first, Amount::ZERO);
    back.feed(Input::Command(forgive()));
    assert!(matches!(back.done[..], [Ok(()), Err(Refusal::Malformed(_))]), "there is nothing left to forgive");
}

#[test]
fn an_old_payment_opens_nothing_once_it_is_used_up() {
    let mut bench = bench(PayWhen::Before);
    let draft = bench.draft(1).unwrap();
    let all = slice(&draft);
    let old = bench.pay(all);
    let (_, token) = bench.open(&draft, Some(&old));
    bench.arrives(&old);
    assert!(matches!(bench.reply_to(token).map(answered), Some(Body::LeaseAccept { .. })));
    bench.wait(Millis::from_secs(280));
    bench.leave(draft.id().into(), |claimed| claimed);
    // Nearly all is used, and signed for. The same payment does not count again.
    let draft = bench.draft(2).unwrap();
    let first = draft.payment.as_ref().unwrap().first;
    assert!(first > Amount::ZERO && first < all);
    let (answer, _) = bench.open(&draft, Some(&old));
    assert!(matches!(answer, Some(Body::Void { code: VoidCode::Unpaid, .. })), "{answer:?}");
    // A new one does.
    bench.rent(3);
}

#[test]
fn a_first_payment_is_enough_if_other_leases_run_on_while_it_is_looked_for() {
    let mut bench = bench(PayWhen::Before);
    bench.rent(1);
    bench.wait(Millis::from_secs(150));
    let draft = bench.draft(2).unwrap();
    let first = draft.payment.as_ref().unwrap().first;
    assert!(first.0 > slice(&draft).0 * 49 / 100);
    let settle = bench.pay(first);
    let (answer, token) = bench.open(&draft, Some(&settle));
    assert!(answer.is_none(), "{answer:?}");
    bench.wait(Millis::from_secs(15));
    bench.arrives(&settle);
    assert!(matches!(bench.reply_to(token).map(answered), Some(Body::LeaseAccept { .. })));
}
