//! A host in a private cluster: strangers, quotas, removals, and prices of zero.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

use std::collections::{BTreeMap, VecDeque};

use crate::{
    Amount, Keypair, LeaseId, Millis, NetworkId, NodeId, Nonce, Timestamp, Verified,
    cluster::{Founding, Member, MemberList, Quota},
    entry::Body,
    lease::{EndReason, LeaseDraft, LeaseState, PauseReason},
    limits,
    machine::{
        chain::Chain,
        engine::Engine,
        io::{Command, Input, Output, RuntimeOrder, RuntimeReport, Token},
        policy::{HostSetup, OnRemoval},
        record::Restore,
        testkit::{NOW, key, proposal, setup},
    },
    message::{Action, Cause, Request, Response},
    negotiation::{ImagePin, Proposal, Reject, RejectCode},
    workload::Workload,
};

const KEEPER: u8 = 9;

fn founding() -> Founding {
    Founding { name: "lab".to_owned(), keeper: key(KEEPER).node_id(), salt: [1; 16] }
}

fn network() -> NetworkId {
    founding().network()
}

/// The keeper, the host (key 1) and these, each with its quota.
fn list(seq: u64, members: &[(u8, Quota)]) -> Verified<MemberList> {
    let mut list = MemberList::first(founding(), "keeper".to_owned(), None, NOW);
    list.seq = seq;
    for (seed, quota) in members.iter().chain(&[(1, Quota::default())]) {
        list.members.push(Member { node: key(*seed).node_id(), name: format!("n{seed}"), quota: *quota });
    }
    list.members.sort_by_key(|m| m.node);
    Verified::sign(list, &key(KEEPER), &network()).unwrap()
}

const FREE: Quota = Quota { slots_at_once: None, slot_hours: None };

/// A host (key 1) that asks for no money, whose world does what it is told.
struct Bench {
    engine: Engine,
    now: Timestamp,
    renters: BTreeMap<u8, Chain>,
    replies: Vec<(Token, Response)>,
    /// Whether slots are locked at once, or wait for the test.
    locks: bool,
    token: u64,
}

fn free_setup() -> HostSetup {
    let mut setup = setup();
    setup.terms.slot_hour = Amount::ZERO;
    setup.terms.min_bid_slot_hour = Amount::ZERO;
    setup.terms.storage_gb_month = Amount::ZERO;
    HostSetup { floor_slot_hour: Amount::ZERO, ..setup }
}

fn bench(members: &[(u8, Quota)]) -> Bench {
    let engine = Engine::new(key(1), network(), Restore::default(), NOW).unwrap();
    let mut bench = Bench { engine, now: NOW, renters: BTreeMap::new(), replies: Vec::new(), locks: true, token: 1 };
    bench.feed(Input::RuntimeUp(true));
    bench.members(list(1, members), OnRemoval::Ends);
    bench.feed(Input::Command(Command::Host(Some(Box::new(free_setup())))));
    bench.wait(Millis(10));
    bench
}

impl Bench {
    fn members(&mut self, list: Verified<MemberList>, on_removal: OnRemoval) {
        self.feed(Input::Command(Command::Members { list, on_removal }));
    }

    fn feed(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            self.engine.handle(input, self.now);
            while let Some(output) = self.engine.poll_output() {
                match output {
                    Output::Reply { token, response, .. } => self.replies.push((token, *response)),
                    Output::ResolveImage { token, reference, .. } => {
                        let digest = format!("sha256:{}", "a".repeat(64));
                        inputs.push_back(Input::Image { token, result: Ok(ImagePin { reference, digest }) });
                    }
                    Output::LockSlots { lease, .. } if self.locks => {
                        inputs.push_back(Input::Locked { lease, locked: true });
                    }
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
        for _ in 0..1_000_000 {
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

    fn ask(&mut self, from: u8, request: Request) -> Option<Response> {
        self.token += 1;
        let token = Token(self.token);
        self.feed(Input::Request { from: key(from).node_id(), token, request });
        let place = self.replies.iter().position(|(t, _)| *t == token)?;
        Some(self.replies.remove(place).1)
    }

    fn draft(&mut self, from: u8, slots: u16) -> Result<Verified<LeaseDraft>, Reject> {
        self.token += 1;
        let offer = self.engine.host().offer().unwrap();
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&self.token.to_be_bytes());
        let wish = Proposal {
            nonce: Nonce(nonce),
            ask: crate::AskId::of(&offer.host, &offer.machine, slots),
            offer: offer.id(),
            workload: Workload::default().to_bytes().1,
            ..proposal(Amount::ZERO, 0)
        };
        match self.ask(from, Request::Propose(Box::new(wish))) {
            Some(Response::Drafted(draft)) => Ok(draft.verify(&network()).unwrap()),
            Some(Response::Rejected(reject)) => Err(reject),
            other => panic!("{other:?}"),
        }
    }

    fn open(&mut self, from: u8, draft: &Verified<LeaseDraft>) -> Option<Response> {
        let now = self.now;
        let chain = self.renters.entry(from).or_insert_with(|| {
            let mut chain = Chain::new(Keypair::from_seed(&[from; 32]), network(), None);
            chain.begin(NOW).unwrap();
            chain
        });
        let body = Body::LeaseOpen { draft: draft.to_signed() };
        let open = chain.append(draft.id().into(), key(1).node_id(), body, now).unwrap();
        let workload = Workload::default().to_bytes().0;
        self.ask(from, Request::Commit { open: open.to_signed(), workload, settle: None })
    }

    fn rent(&mut self, from: u8, slots: u16) -> LeaseId {
        let draft = self.draft(from, slots).unwrap();
        let Some(Response::Answered(answer)) = self.open(from, &draft) else { panic!("no answer") };
        assert!(matches!(answer.verify(&network()).unwrap().body, Body::LeaseAccept { .. }));
        let lease = draft.id().into();
        assert_eq!(self.state(lease), LeaseState::Running);
        lease
    }

    fn state(&self, lease: LeaseId) -> LeaseState {
        self.engine.host().leases()[&lease].state()
    }

    fn control(&mut self, from: u8, lease: LeaseId, action: Action) -> Result<LeaseState, RejectCode> {
        self.token += 1;
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&self.token.to_be_bytes());
        match self.ask(from, Request::Control { lease, action, nonce: Nonce(nonce) }) {
            Some(Response::Controlled { state }) => Ok(state),
            Some(Response::Rejected(reject)) => Err(reject.code),
            other => panic!("{other:?}"),
        }
    }
}

fn node(seed: u8) -> NodeId {
    key(seed).node_id()
}

fn code<T: std::fmt::Debug>(result: Result<T, Reject>) -> RejectCode {
    result.unwrap_err().code
}

#[test]
fn a_stranger_gets_nothing_and_a_member_all_for_nothing() {
    let mut bench = bench(&[(2, FREE)]);
    assert_eq!(code(bench.draft(3, 1)), RejectCode::NotMember);
    for request in
        [Request::BookSummary, Request::BookPage { after: None }, Request::Quote { machine: setup().machine }]
    {
        let answer = bench.ask(3, request);
        assert!(matches!(&answer, Some(Response::Rejected(r)) if r.code == RejectCode::NotMember), "{answer:?}");
    }
    assert!(matches!(bench.ask(2, Request::BookSummary), Some(Response::BookSummary { count: 1, .. })));

    // Nobody acknowledges anything, and nothing is due.
    let lease = bench.rent(2, 2);
    bench.wait(Millis::from_hours(30));
    assert_eq!(bench.state(lease), LeaseState::Running);
    let (counters, due) = bench.engine.host().leases()[&lease].count(bench.now);
    assert_eq!((due, counters.active), (Amount::ZERO, Millis::from_hours(30)));
    assert_eq!(bench.control(2, lease, Action::Destroy), Ok(LeaseState::Paused(PauseReason::Stopped)));
    let close = bench.engine.host().leases()[&lease].update(0).entries.last().unwrap().verify(&network()).unwrap();
    assert_eq!(close.body.closing().map(|(reason, _, due)| (reason, due)), Some((EndReason::Destroyed, Amount::ZERO)));
}

#[test]
fn an_interruptible_bid_of_zero_runs_where_nobody_bids_more() {
    let mut bench = bench(&[(2, FREE), (3, FREE)]);
    let offer = bench.engine.host().offer().unwrap().id();
    let bid = |price| Proposal {
        offer,
        rental: crate::negotiation::RentalType::Interruptible,
        workload: Workload::default().to_bytes().1,
        ..proposal(Amount(price), 0)
    };
    let Some(Response::Drafted(draft)) = bench.ask(2, Request::Propose(Box::new(bid(0)))) else { panic!() };
    let draft = draft.verify(&network()).unwrap();
    assert!(matches!(bench.open(2, &draft), Some(Response::Answered(_))));
    bench.wait(Millis::from_mins(1));
    assert_eq!(bench.state(draft.id().into()), LeaseState::Running);
}

#[test]
fn slots_at_once_are_counted_over_what_runs_and_what_is_on_its_way() {
    let two = Quota { slots_at_once: Some(2), slot_hours: None };
    let mut bench = bench(&[(2, two), (3, FREE)]);
    assert_eq!(code(bench.draft(2, 4)), RejectCode::Quota);
    let (first, second) = (bench.draft(2, 2).unwrap(), bench.draft(2, 1).unwrap());
    // Slots are being locked for the first when the second is opened.
    bench.locks = false;
    assert!(bench.open(2, &first).is_none());
    let answer = bench.open(2, &second);
    assert!(matches!(&answer, Some(Response::Rejected(r)) if r.code == RejectCode::Quota), "{answer:?}");
    bench.locks = true;
    let lease: LeaseId = first.id().into();
    bench.feed(Input::Locked { lease, locked: true });
    assert_eq!(bench.state(lease), LeaseState::Running);
    assert_eq!(code(bench.draft(2, 1)), RejectCode::Quota);
    // Others have their own.
    bench.rent(3, 1);
    // What is stopped has no slots, and gets them again only within the quota.
    bench.control(2, lease, Action::Stop).unwrap();
    let other = bench.rent(2, 1);
    assert_eq!(bench.control(2, lease, Action::Start), Err(RejectCode::Quota));
    bench.control(2, other, Action::Destroy).unwrap();
    assert_eq!(bench.control(2, lease, Action::Start), Ok(LeaseState::Preparing));
    assert_eq!(bench.state(lease), LeaseState::Running);
}

#[test]
fn slot_hours_are_used_up_and_come_back_after_a_month() {
    let three = Quota { slots_at_once: None, slot_hours: Some(3) };
    let mut bench = bench(&[(2, three), (3, FREE)]);
    let lease = bench.rent(2, 2);
    bench.rent(3, 1);
    bench.wait(Millis::from_mins(89));
    assert_eq!(bench.state(lease), LeaseState::Running);
    bench.wait(Millis(60_001));
    assert_eq!(bench.state(lease), LeaseState::Paused(PauseReason::QuotaUsed));
    let used = bench.engine.host().used_by(&node(2), bench.now);
    assert!((10_800_000..10_800_100).contains(&used), "{used}");
    assert_eq!(bench.control(2, lease, Action::Start), Err(RejectCode::Quota));
    let refusal = bench.draft(2, 1).unwrap_err();
    assert!(refusal.code == RejectCode::Quota && !refusal.is_final && refusal.sentence.contains("30 d"), "{refusal}");
    // More is granted, and used.
    let more = Quota { slots_at_once: None, slot_hours: Some(4) };
    bench.members(list(2, &[(2, more), (3, FREE)]), OnRemoval::Ends);
    bench.control(2, lease, Action::Start).unwrap();
    bench.wait(Millis::from_hours(2));
    assert_eq!(bench.state(lease), LeaseState::Paused(PauseReason::QuotaUsed));
    bench.wait(Millis::from_hours(30 * 24 + 1));
    assert_eq!(bench.engine.host().used_by(&node(2), bench.now), 0);
    bench.rent(2, 1);
}

#[test]
fn what_was_used_before_a_start_counts_and_is_counted_to_the_end_of_a_lease() {
    let two = Quota { slots_at_once: None, slot_hours: Some(2) };
    let mut bench = bench(&[(2, two)]);
    let old = Timestamp(NOW.0 - limits::QUOTA_WINDOW.0 - 7_200_000);
    let remember = |slot_ms, at| Input::Command(Command::RememberUse { node: node(2), slot_ms, at });
    bench.feed(remember(u64::MAX, old));
    assert_eq!(bench.engine.host().used_by(&node(2), bench.now), 0, "out of the window");
    bench.feed(remember(3_600_000, NOW));
    let lease = bench.rent(2, 1);
    bench.wait(Millis::from_mins(30));
    bench.control(2, lease, Action::Destroy).unwrap();
    assert_eq!(bench.engine.host().used_by(&node(2), bench.now), 5_400_000);
    bench.feed(remember(1_800_000, NOW));
    assert_eq!(code(bench.draft(2, 1)), RejectCode::Quota);
}

#[test]
fn who_is_removed_loses_its_leases_at_once() {
    let mut bench = bench(&[(2, FREE), (3, FREE)]);
    let (lease, other) = (bench.rent(2, 1), bench.rent(3, 1));
    bench.wait(Millis::from_mins(10));
    let draft = bench.draft(2, 1).unwrap();
    bench.members(list(2, &[(3, FREE)]), OnRemoval::Ends);
    assert_eq!(bench.state(lease), LeaseState::Ended(EndReason::MemberRemoved));
    assert_eq!(bench.state(other), LeaseState::Running);
    let last = bench.engine.host().leases()[&lease].events().last().unwrap().clone();
    assert_eq!((last.by, last.note.as_str()), (Cause::Host, "the renter was removed from the cluster"));
    // The draft it had binds nobody, and an older list brings it not back.
    let answer = bench.open(2, &draft);
    assert!(matches!(&answer, Some(Response::Rejected(r)) if r.code == RejectCode::NotMember), "{answer:?}");
    bench.members(list(1, &[(2, FREE), (3, FREE)]), OnRemoval::Ends);
    assert_eq!(code(bench.draft(2, 1)), RejectCode::NotMember);
    // It still gets its last receipt, and may agree to the close.
    assert!(matches!(bench.ask(2, Request::Sync { lease, events_seen: 0 }), Some(Response::News(_))));
}

#[test]
fn who_is_removed_while_its_slots_are_locked_gets_none() {
    let mut bench = bench(&[(2, FREE)]);
    let draft = bench.draft(2, 1).unwrap();
    bench.locks = false;
    assert!(bench.open(2, &draft).is_none());
    bench.members(list(2, &[]), OnRemoval::RunsOut);
    bench.feed(Input::Locked { lease: draft.id().into(), locked: true });
    let Some((_, Response::Answered(answer))) = bench.replies.pop() else { panic!("{:?}", bench.replies) };
    assert!(matches!(answer.verify(&network()).unwrap().body, Body::Void { .. }));
    assert!(bench.engine.host().leases().is_empty());
    assert_eq!(bench.engine.host().slots().free(), 4);
}

#[test]
fn by_the_hosts_wish_what_is_rented_runs_out() {
    let mut bench = bench(&[(2, FREE)]);
    let lease = bench.rent(2, 1);
    bench.members(list(2, &[]), OnRemoval::RunsOut);
    assert_eq!(bench.state(lease), LeaseState::Running);
    let ends_at = bench.engine.host().leases()[&lease].terms().ends_at;
    let later = Request::AskExtension { lease, ends_at: ends_at + Millis::from_hours(1) };
    let answer = bench.ask(2, later);
    assert!(matches!(&answer, Some(Response::Rejected(r)) if r.code == RejectCode::NotMember), "{answer:?}");
    assert_eq!(code(bench.draft(2, 1)), RejectCode::NotMember);
    bench.control(2, lease, Action::Stop).unwrap();
    bench.control(2, lease, Action::Start).unwrap();
    assert_eq!(bench.state(lease), LeaseState::Running);
    bench.wait(Millis::from_hours(101));
    assert_eq!(bench.state(lease), LeaseState::Paused(PauseReason::Expired));
    // The host thinks better of it.
    bench.members(list(2, &[]), OnRemoval::Ends);
    assert_eq!(bench.state(lease), LeaseState::Ended(EndReason::MemberRemoved));
}

#[test]
fn another_networks_list_is_ignored() {
    let mut bench = bench(&[(2, FREE)]);
    let founding = Founding { salt: [2; 16], ..founding() };
    let other = MemberList::first(founding.clone(), "keeper".to_owned(), None, NOW);
    bench.members(Verified::sign(other, &key(KEEPER), &founding.network()).unwrap(), OnRemoval::Ends);
    assert!(bench.engine.host().roster().unwrap().is_member(&node(2)));
    bench.draft(2, 1).unwrap();
}
