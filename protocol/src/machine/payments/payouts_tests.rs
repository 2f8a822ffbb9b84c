#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::machine::testkit::{NOW, key};

fn payout(reference: &str, amount: u64, by: By) -> Payout {
    Payout {
        reference: reference.to_owned(),
        peer: key(2).node_id(),
        currency: Currency::usd(),
        amount: Amount(amount),
        method: "bank".to_owned(),
        by,
        at: NOW,
        stage: Stage::Intended,
        pending: false,
    }
}

fn limited(limit: u64) -> Payouts {
    Payouts::new(Limits::from([(Currency::usd(), Amount(limit))]))
}

fn all(payouts: &mut Payouts) -> Vec<PayoutStep> {
    std::iter::from_fn(|| payouts.poll()).collect()
}

#[test]
fn a_person_who_pays_waits_for_no_retry_of_the_same_peer() {
    let mut payouts = limited(100);
    let (first, other) = (payout("a", 5, By::Person), Payout { peer: key(3).node_id(), ..payout("o", 5, By::Person) });
    for p in [&first, &other] {
        payouts.order(p.clone(), NOW).unwrap();
        payouts.written(&p.reference);
    }
    let fails = |payouts: &mut Payouts, now| {
        for reference in ["a", "o"] {
            payouts.answered(reference, Answer::Unknown { why: "it is down".to_owned() }, now);
        }
    };
    let mut now = NOW;
    for _ in 0..10 {
        fails(&mut payouts, now);
        now = payouts.deadline().unwrap();
        payouts.tick(now);
    }
    fails(&mut payouts, now);
    all(&mut payouts);
    let later = payouts.deadline().unwrap();
    assert!(later > now + Millis(4 * AGAIN.0.0), "it waits long by now");

    // The node by itself may not hurry; the same order of a person again may, and so may another one to that peer.
    payouts.order(payout("b", 5, By::Node), now).unwrap_err();
    assert_eq!(payouts.deadline(), Some(later));
    for again in [first.clone(), payout("c", 5, By::Person)] {
        payouts.order(again, now).unwrap();
        assert_eq!(payouts.deadline(), Some(now));
        payouts.tick(now);
        let asks = all(&mut payouts).into_iter().filter(|step| matches!(step, PayoutStep::Ask(_)));
        assert_eq!(asks.collect::<Vec<_>>(), [PayoutStep::Ask(first.clone())], "of this peer alone");
        payouts.answered("a", Answer::Unknown { why: "it is down".to_owned() }, now);
        assert_eq!(payouts.deadline(), Some(now + AGAIN.0), "and patience begins anew");
    }
}

#[test]
fn a_payment_is_written_before_it_is_paid_and_paid_before_it_is_signed() {
    let mut payouts = Payouts::default();
    let p = payout("a", 5, By::Person);
    payouts.order(p.clone(), NOW).unwrap();
    assert_eq!(all(&mut payouts), [PayoutStep::Write(p.clone())], "no program hears of it before it is on disk");
    payouts.written("a");
    assert_eq!(all(&mut payouts), [PayoutStep::Ask(p.clone())]);
    payouts.answered("a", Answer::Paid { receipt: "r".to_owned() }, NOW);
    let paid = Payout { stage: Stage::Paid { receipt: "r".to_owned() }, ..p.clone() };
    assert_eq!(all(&mut payouts), [PayoutStep::Write(paid.clone())]);
    payouts.written("a");
    assert_eq!(all(&mut payouts), [PayoutStep::Sign(paid)]);
    assert!(payouts.is_under_way(&p.peer, &p.currency));
    payouts.signed("a", Ok(()), NOW);
    let settled = Payout { stage: Stage::Settled { receipt: "r".to_owned() }, ..p.clone() };
    assert_eq!(all(&mut payouts), [PayoutStep::Write(settled.clone())]);
    payouts.written("a");
    assert_eq!(all(&mut payouts), [PayoutStep::Over(settled)]);
    assert!(!payouts.is_under_way(&p.peer, &p.currency) && payouts.deadline().is_none());
    payouts.order(p.clone(), NOW).unwrap();
    assert_eq!(all(&mut payouts), [], "the same order again is that one");
    let other = payouts.order(Payout { amount: Amount(6), ..p }, NOW).unwrap_err();
    assert_eq!(other, NotOrdered::Taken("a".to_owned()));
    payouts.tick(NOW + REMEMBERED);
    assert_eq!(all(&mut payouts), [PayoutStep::Forget("a".to_owned())]);
}

#[test]
fn an_answer_that_is_none_is_asked_for_again_with_the_same_reference_and_never_given_up() {
    let mut payouts = Payouts::default();
    payouts.order(payout("a", 5, By::Person), NOW).unwrap();
    payouts.written("a");
    all(&mut payouts);
    let mut now = NOW;
    for _ in 0..200 {
        payouts.answered("a", Answer::Unknown { why: "junk".to_owned() }, now);
        assert_eq!(all(&mut payouts), []);
        let at = payouts.deadline().unwrap();
        assert!(at > now && at <= now + AGAIN.1, "it waits, and not for ever");
        now = at;
        payouts.tick(now);
        assert!(matches!(&all(&mut payouts)[..], [PayoutStep::Ask(p)] if p.reference == "a"));
    }
    payouts.answered("a", Answer::Pending { after: Some(Millis(u64::MAX)) }, now);
    assert!(payouts.deadline().unwrap() <= now + LATER_MOST, "a program can't have it wait for ever");
    // The clock goes back by a year: it waits no longer for that.
    let before = Timestamp(now.0 - 31_536_000_000);
    payouts.tick(before);
    assert!(payouts.deadline().unwrap() <= before + LATER_MOST);
}

#[test]
fn only_what_the_program_knows_nothing_of_is_cancelled_and_it_is_never_asked_again() {
    let mut payouts = Payouts::default();
    assert_eq!(payouts.cancel("a"), Err(NotCancelled::Unknown));
    let p = payout("a", 5, By::Person);
    payouts.order(p.clone(), NOW).unwrap();
    assert_eq!(payouts.cancel("a"), Err(NotCancelled::Asking), "its row is not on disk");
    payouts.written("a");
    all(&mut payouts);
    assert_eq!(payouts.cancel("a"), Err(NotCancelled::Asking), "the program may be paying it");
    payouts.answered("a", Answer::Unknown { why: "junk".to_owned() }, NOW);
    payouts.cancel("a").unwrap();
    let steps = all(&mut payouts);
    assert!(matches!(&steps[..], [PayoutStep::Write(p)] if matches!(p.stage, Stage::Failed { .. })));
    payouts.written("a");
    assert!(matches!(&all(&mut payouts)[..], [PayoutStep::Over(_)]));
    payouts.answered("a", Answer::Paid { receipt: String::new() }, NOW);
    payouts.order(p.clone(), NOW).unwrap();
    payouts.tick(NOW + LATER_MOST);
    assert_eq!(all(&mut payouts), [], "nothing asks the program for it again");
    assert_eq!(payouts.cancel("a"), Err(NotCancelled::Over("failed")));
    assert!(!payouts.is_under_way(&p.peer, &p.currency), "another payment may be made");
}

#[test]
fn what_a_program_says_is_paid_or_on_its_way_is_not_cancelled() {
    let mut payouts = Payouts::default();
    payouts.order(payout("a", 5, By::Person), NOW).unwrap();
    payouts.written("a");
    payouts.answered("a", Answer::Pending { after: None }, NOW);
    assert_eq!(payouts.cancel("a"), Err(NotCancelled::OnItsWay));
    let row = payouts.get("a").unwrap().clone();
    assert!(all(&mut payouts).contains(&PayoutStep::Write(row.clone())), "it is kept");
    let row: Payout = crate::encode::from_bytes(&crate::encode::to_bytes(&row), 4096).unwrap();
    let mut restarted = Payouts::default();
    restarted.restore(row, false, NOW);
    restarted.tick(NOW);
    restarted.answered("a", Answer::Unknown { why: "junk".to_owned() }, NOW);
    assert_eq!(restarted.cancel("a"), Err(NotCancelled::OnItsWay), "a restart does not forget it");
    payouts.tick(NOW + LATER_MOST);
    payouts.answered("a", Answer::Unknown { why: "junk".to_owned() }, NOW + LATER_MOST);
    assert_eq!(payouts.cancel("a"), Err(NotCancelled::OnItsWay), "what it said before still counts");
    payouts.tick(NOW + LATER_MOST + LATER_MOST);
    payouts.answered("a", Answer::Paid { receipt: String::new() }, NOW + LATER_MOST + LATER_MOST);
    assert_eq!(payouts.cancel("a"), Err(NotCancelled::Over("paid")));
    // A program that was never heard is asked first.
    let mut again = Payouts::default();
    again.restore(payout("b", 5, By::Person), false, NOW);
    assert_eq!(again.cancel("b"), Err(NotCancelled::Asking), "it was not asked in this run");
}

#[test]
fn answers_to_questions_that_nobody_asked_change_nothing() {
    let mut payouts = Payouts::default();
    payouts.order(payout("a", 5, By::Person), NOW).unwrap();
    all(&mut payouts);
    payouts.answered("a", Answer::Paid { receipt: String::new() }, NOW);
    payouts.signed("a", Ok(()), NOW);
    payouts.answered("b", Answer::Paid { receipt: String::new() }, NOW);
    payouts.written("b");
    assert_eq!(all(&mut payouts), []);
    assert_eq!(payouts.get("a").unwrap().stage, Stage::Intended);
}

#[test]
fn what_a_person_has_paid_is_written_and_signed_and_no_program_hears_of_it() {
    let mut payouts = Payouts::default();
    let paid = Payout { stage: Stage::Paid { receipt: String::new() }, ..payout("a", 5, By::Person) };
    payouts.order(paid.clone(), NOW).unwrap();
    assert_eq!(all(&mut payouts), [PayoutStep::Write(paid.clone())]);
    payouts.written("a");
    assert_eq!(all(&mut payouts), [PayoutStep::Sign(paid)]);
}

#[test]
fn what_is_no_payment_is_not_begun() {
    let mut payouts = Payouts::default();
    let good = payout("a", 5, By::Person);
    let bad = [
        Payout { amount: Amount::ZERO, ..good.clone() },
        Payout { reference: String::new(), ..good.clone() },
        Payout { reference: "r".repeat(129), ..good.clone() },
        Payout { reference: "a\u{1b}[2J".to_owned(), ..good.clone() },
        Payout { method: "Bank".to_owned(), ..good.clone() },
        Payout { currency: Currency("usd".to_owned()), ..good.clone() },
        Payout { stage: Stage::Paid { receipt: String::new() }, by: By::Node, ..good.clone() },
        Payout { stage: Stage::Settled { receipt: String::new() }, ..good },
    ];
    for payout in bad {
        assert!(matches!(payouts.order(payout, NOW), Err(NotOrdered::Malformed(_))));
    }
    assert_eq!(all(&mut payouts), []);
}

#[test]
fn a_node_pays_by_itself_within_its_limit_and_one_at_a_time_to_each() {
    let mut payouts = limited(10);
    payouts.order(payout("a", 6, By::Node), NOW).unwrap();
    assert_eq!(payouts.order(payout("b", 1, By::Node), NOW).unwrap_err(), NotOrdered::UnderWay);
    let other = Payout { peer: key(3).node_id(), ..payout("b", 5, By::Node) };
    assert!(matches!(payouts.order(other.clone(), NOW), Err(NotOrdered::Limit { spent: Amount(6), .. })));
    payouts.order(Payout { amount: Amount(4), ..other.clone() }, NOW).unwrap();
    // A person may pay more.
    payouts.order(payout("c", 1_000_000, By::Person), NOW).unwrap();
    // What has failed was not paid.
    payouts.written("a");
    payouts.answered("a", Answer::Failed { why: "no funds".to_owned() }, NOW);
    assert_eq!(payouts.spent(&Currency::usd(), NOW), Amount(4));
    let eur = Payout { currency: Currency("EUR".to_owned()), ..payout("d", 1, By::Node) };
    assert!(matches!(payouts.order(eur, NOW), Err(NotOrdered::Limit { .. })), "no limit is nothing");
    let huge = Payout { peer: key(4).node_id(), ..payout("e", u64::MAX, By::Node) };
    assert!(matches!(payouts.order(huge, NOW), Err(NotOrdered::Limit { .. })), "and no overflow");
}

/// What may happen, in any order.
#[derive(Debug, Clone)]
enum Event {
    Order {
        reference: u8,
        peer: u8,
        amount: u64,
        by: By,
    },
    /// The disk has what was handed to it.
    Durable,
    /// A running program ends: its outcome, and whether its answer comes back.
    End {
        pick: usize,
        paid: bool,
        heard: bool,
    },
    Signed,
    Tick(u64),
    /// The node dies: what was not durable is lost, programs that run may have paid.
    Crash {
        pays: bool,
    },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let order = (0u8..6, 2u8..5, 1u64..40, prop_oneof![Just(By::Node), Just(By::Person)])
        .prop_map(|(reference, peer, amount, by)| Event::Order { reference, peer, amount, by });
    let end =
        (any::<usize>(), any::<bool>(), any::<bool>()).prop_map(|(pick, paid, heard)| Event::End { pick, paid, heard });
    let event = prop_oneof![
        3 => order,
        4 => Just(Event::Durable),
        4 => end,
        3 => Just(Event::Signed),
        2 => (0u64..100_000_000).prop_map(Event::Tick),
        1 => any::<bool>().prop_map(|pays| Event::Crash { pays }),
    ];
    proptest::collection::vec(event, 1..120)
}

/// A node around the machine, with a disk, a chain and a program that pays once by reference.
struct World {
    payouts: Payouts,
    now: Timestamp,
    writing: VecDeque<Payout>,
    disk: BTreeMap<String, Payout>,
    running: Vec<Payout>,
    signing: VecDeque<Payout>,
    chain: Vec<String>,
    paid: BTreeMap<String, (Amount, By, Timestamp)>,
    asked_after_paid: usize,
    known_paid: BTreeSet<String>,
}

const LIMIT: u64 = 60;

impl World {
    fn steps(&mut self) {
        while let Some(step) = self.payouts.poll() {
            match step {
                PayoutStep::Write(row) => self.writing.push_back(row),
                PayoutStep::Ask(row) => {
                    assert!(self.disk.contains_key(&row.reference), "asked for before it was on disk");
                    self.asked_after_paid += usize::from(self.known_paid.contains(&row.reference));
                    self.running.push(row);
                }
                PayoutStep::Sign(row) => {
                    assert!(self.paid.contains_key(&row.reference), "signed for what was not paid");
                    self.signing.push_back(row);
                }
                PayoutStep::Over(_) => {}
                PayoutStep::Forget(reference) => {
                    self.disk.remove(&reference);
                }
            }
        }
    }

    fn pay(&mut self, row: &Payout) {
        let first = (row.amount, row.by, row.at);
        let before = self.paid.insert(row.reference.clone(), first);
        assert!(before.is_none_or(|before| before == first), "one reference for two payments");
    }

    fn durable(&mut self) {
        while let Some(row) = self.writing.pop_front() {
            if matches!(row.stage, Stage::Paid { .. } | Stage::Settled { .. }) {
                self.known_paid.insert(row.reference.clone());
            }
            self.disk.insert(row.reference.clone(), row.clone());
            self.payouts.written(&row.reference);
        }
        self.steps();
    }

    fn crash(&mut self, pays: bool) {
        for row in std::mem::take(&mut self.running) {
            if pays {
                self.pay(&row);
            }
        }
        self.writing.clear();
        self.signing.clear();
        self.payouts = limited(LIMIT);
        for row in self.disk.values() {
            self.payouts.restore(row.clone(), self.chain.contains(&row.reference), self.now);
        }
        self.payouts.tick(self.now);
        self.steps();
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Order { reference, peer, amount, by } => {
                let row = payout(&format!("r{reference}-{peer}"), amount, by);
                let row = Payout { peer: key(peer).node_id(), at: self.now, ..row };
                // The chain remembers references for ever: the shell asks it first.
                if self.payouts.get(&row.reference).is_some() || !self.chain.contains(&row.reference) {
                    self.payouts.order(row, self.now).ok();
                }
            }
            Event::Durable => self.durable(),
            Event::End { pick, paid, heard } => {
                if !self.running.is_empty() {
                    let row = self.running.remove(pick % self.running.len());
                    let was = self.paid.contains_key(&row.reference);
                    if paid {
                        self.pay(&row);
                    }
                    let answer = match (heard, paid || was) {
                        (false, _) => Answer::Unknown { why: String::new() },
                        (true, true) => Answer::Paid { receipt: String::new() },
                        (true, false) => Answer::Failed { why: String::new() },
                    };
                    self.payouts.answered(&row.reference, answer, self.now);
                }
            }
            Event::Signed => {
                if let Some(row) = self.signing.pop_front() {
                    if !self.chain.contains(&row.reference) {
                        self.chain.push(row.reference.clone());
                    }
                    self.payouts.signed(&row.reference, Ok(()), self.now);
                }
            }
            Event::Tick(ms) => {
                self.now = self.now + Millis(ms);
                self.payouts.tick(self.now);
            }
            Event::Crash { pays } => self.crash(pays),
        }
        self.steps();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    /// `never-paid-twice`, `never-over-the-limit`, and nothing that was paid is forgotten, whatever dies when.
    #[test]
    fn whatever_happens_each_reference_is_paid_once_and_said_once(events in events()) {
        let mut world = World {
            payouts: limited(LIMIT), now: NOW, writing: VecDeque::new(), disk: BTreeMap::new(), running: Vec::new(),
            signing: VecDeque::new(), chain: Vec::new(), paid: BTreeMap::new(), asked_after_paid: 0,
            known_paid: BTreeSet::new(),
        };
        for event in events {
            world.event(event);
            // Over any 24 hours what was really paid without asking is within the limit.
            for (_, _, from) in world.paid.values() {
                let within = |at: &Timestamp| *at >= *from && *at < *from + DAY;
                let sum: u64 = world.paid.values().filter(|(_, by, at)| *by == By::Node && within(at)).map(|p| p.0.0).sum();
                prop_assert!(sum <= LIMIT, "{sum} of {LIMIT}");
            }
        }
        prop_assert_eq!(world.asked_after_paid, 0, "what is known to be paid is not asked for again");
        // In the end everything is where it belongs.
        for _ in 0..64 {
            world.durable();
            while !world.running.is_empty() {
                world.event(Event::End { pick: 0, paid: true, heard: true });
            }
            while !world.signing.is_empty() {
                world.event(Event::Signed);
            }
            world.durable();
            world.event(Event::Tick(AGAIN.1.0));
        }
        let said: BTreeSet<&String> = world.chain.iter().collect();
        prop_assert_eq!(said.len(), world.chain.len(), "nothing is said twice");
        prop_assert_eq!(said, world.paid.keys().collect::<BTreeSet<_>>(), "what is paid is said, and nothing else");
    }
}
