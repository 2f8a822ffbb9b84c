//! Starts: first ones, second ones, restored ones, and peers that lie.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::{
    DocumentId,
    entry::Body,
    machine::{
        chain::Chain,
        testkit::{NOW, key, network},
    },
};

const OWN: Nonce = Nonce([1; 16]);

fn head(seq: u64) -> Head {
    Head { author: key(1).node_id(), seq, id: DocumentId([seq as u8; 32]), time: NOW }
}

fn guard(own: Option<Head>, parties: &[u8], expects: bool) -> Guard {
    let parties = parties.iter().map(|p| key(*p).node_id()).collect();
    Guard::new(key(1), network(), OWN, own, parties, expects, NOW)
}

/// A report of key 1 by another start of it.
fn other(signing: bool, started: Timestamp, at: Option<Head>, heard: &[Nonce]) -> Signed<HeadReport> {
    let own = Instance { nonce: Nonce([2; 16]), started };
    let at = at.map(|h| ChainHead { seq: h.seq, id: h.id });
    report(&key(1), &network(), (own, signing), at, heard.to_vec(), NOW).unwrap().to_signed()
}

fn met(peer: u8, question: &Request, yours: Vec<Signed<HeadReport>>, newest: Option<Signed<Entry>>) -> Response {
    let Request::Meet(meet) = question else { panic!("{question:?}") };
    let asked = meet.report.verify(&network()).unwrap();
    let own = Instance { nonce: Nonce([peer; 16]), started: NOW };
    let report = report(&key(peer), &network(), (own, true), None, vec![], NOW).unwrap().to_signed();
    let seen = countersign(&key(peer), &network(), &asked, NOW).unwrap().to_signed();
    Response::Met(Box::new(Met {
        report,
        at: vec![],
        seen,
        yours,
        newest,
        doubt: false,
        forks: crate::fork::ForksTold::default(),
    }))
}

fn question(guard: &mut Guard, peer: u8) -> Request {
    guard.connected(key(peer).node_id(), NOW);
    let (to, request) = guard.poll().unwrap();
    assert_eq!(to, key(peer).node_id());
    request
}

fn says(guard: &mut Guard, peer: u8, yours: Vec<Signed<HeadReport>>, newest: Option<Signed<Entry>>, now: Timestamp) {
    let asked = question(guard, peer);
    guard.answered(key(peer).node_id(), Some(met(peer, &asked, yours, newest)), now);
}

#[test]
fn a_node_that_knows_nobody_begins_at_once_and_one_that_does_waits_so_long_and_no_longer() {
    assert!(matches!(guard(None, &[], false).verdict(NOW), Some(Verdict::Pass { answers: 0, .. })));
    let mut first = guard(None, &[], true);
    assert!(first.verdict(NOW + Millis(4_999)).is_none());
    assert!(first.verdict(NOW + PATIENCE_IDLE).is_some());
    let mut leased = guard(Some(head(5)), &[2], true);
    assert!(leased.verdict(NOW + PATIENCE_IDLE).is_none());
    assert!(leased.verdict(NOW + PATIENCE).is_some());
}

#[test]
fn answers_let_it_pass_after_a_moment_but_not_before_the_other_sides_of_leases_have_answered() {
    let mut plain = guard(None, &[], true);
    says(&mut plain, 2, vec![], None, NOW);
    assert!(plain.verdict(NOW).is_none());
    assert!(matches!(plain.verdict(NOW + SETTLE), Some(Verdict::Pass { answers: 1, .. })));
    let mut leased = guard(Some(head(5)), &[3], true);
    says(&mut leased, 2, vec![], None, NOW);
    assert!(leased.verdict(NOW + Millis::from_secs(10)).is_none());
    says(&mut leased, 3, vec![], None, NOW + Millis::from_secs(11));
    assert!(leased.verdict(NOW + Millis::from_secs(12)).is_none(), "it is asked for the receipts it holds");
    let (to, request) = leased.poll().unwrap();
    assert_eq!(request, Request::Recall { length: 6, since: NOW, page: 0 });
    let workload = HeldRecord::Workload { lease: crate::LeaseId([1; 32]), bytes: vec![1] };
    let held = Response::Recalled { records: vec![workload], more: false };
    leased.answered(to, Some(held), NOW + Millis::from_secs(12));
    let verdict = leased.verdict(NOW + Millis::from_secs(12));
    assert!(matches!(&verdict, Some(Verdict::Pass { answers: 2, records }) if records.len() == 1), "{verdict:?}");
}

#[test]
fn a_second_start_is_refused_and_a_word_from_an_earlier_life_refuses_nobody() {
    let (earlier, later) = (Timestamp(NOW.0 - 1), NOW + Millis(1));
    for (signing, started, heard, refused) in [
        (true, earlier, vec![OWN], true),
        (true, later, vec![OWN], true),
        (false, earlier, vec![OWN], true),
        (false, later, vec![OWN], false),
        (true, earlier, vec![], false),
        (true, earlier, vec![Nonce([7; 16])], false),
    ] {
        let mut guard = guard(Some(head(5)), &[], true);
        says(&mut guard, 2, vec![other(signing, started, Some(head(5)), &heard)], None, NOW);
        let verdict = guard.verdict(NOW + SETTLE);
        let is_refused = matches!(verdict, Some(Verdict::Refuse(OwnKey::Elsewhere { .. })));
        assert_eq!(is_refused, refused, "{signing} {started:?} {heard:?}: {verdict:?}");
    }
}

#[test]
fn a_peer_in_doubt_is_asked_again_and_not_for_ever() {
    let mut guard = guard(Some(head(5)), &[], true);
    let asked = question(&mut guard, 2);
    let Response::Met(mut answer) = met(2, &asked, vec![], None) else { unreachable!() };
    answer.doubt = true;
    guard.answered(key(2).node_id(), Some(Response::Met(answer)), NOW);
    assert_eq!(guard.phase(), Phase::Doubting);
    assert!(guard.verdict(NOW + Millis::from_secs(8)).is_none());
    guard.tick(NOW + AGAIN);
    let (_, again) = guard.poll().unwrap();
    guard.answered(key(2).node_id(), Some(met(2, &again, vec![], None)), NOW + Millis::from_secs(2));
    assert!(guard.verdict(NOW + Millis::from_secs(2)).is_some());
    // One that never stops doubting holds nobody up for long.
    let mut guard = super::tests::guard(Some(head(5)), &[], true);
    let asked = question(&mut guard, 2);
    let Response::Met(mut answer) = met(2, &asked, vec![], None) else { unreachable!() };
    answer.doubt = true;
    guard.answered(key(2).node_id(), Some(Response::Met(answer)), NOW);
    assert!(guard.verdict(NOW + DOUBT).is_some());
}

#[test]
fn a_restored_ledger_goes_on_after_the_newest_head_it_has_signed() {
    let mut guard = guard(Some(head(5)), &[], true);
    says(&mut guard, 2, vec![other(true, NOW, Some(head(8)), &[])], None, NOW);
    assert_eq!(guard.phase(), Phase::CatchingUp { length: 6, known: 9 });
    let (to, request) = guard.poll().unwrap();
    assert_eq!(to, key(2).node_id());
    assert_eq!(request, Request::Recall { length: 6, since: NOW, page: 0 });
    assert!(guard.verdict(NOW + SETTLE).is_none(), "what it holds is under way");
    // Its word in two pages; the second names a newer entry still.
    guard.answered(to, Some(Response::Recalled { records: vec![], more: true }), NOW);
    assert!(matches!(guard.poll(), Some((_, Request::Recall { page: 1, .. }))));
    let mut chain = Chain::new(key(1), network(), Some(head(9)));
    let body = Body::LeaseAccept { open: DocumentId::default() };
    let entry = chain.append(crate::LeaseId([1; 32]), key(2).node_id(), body, NOW).unwrap();
    let records = vec![HeldRecord::Entry(entry.to_signed())];
    guard.answered(to, Some(Response::Recalled { records, more: false }), NOW);
    let verdict = guard.verdict(NOW + SETTLE);
    let Some(Verdict::CatchUp { head, records }) = verdict else { panic!("{verdict:?}") };
    assert_eq!((head.seq, head.id, records.len()), (10, entry.id(), 1));
}

#[test]
fn only_our_own_signature_makes_us_catch_up() {
    let mut guard = guard(Some(head(5)), &[], true);
    // Another's chain, however long, told as ours.
    let own = Instance { nonce: Nonce([2; 16]), started: NOW };
    let at = Some(ChainHead { seq: u64::MAX - 1, id: DocumentId([9; 32]) });
    let foreign = report(&key(2), &network(), (own, true), at, vec![OWN], NOW).unwrap().to_signed();
    let mut chain = Chain::new(key(2), network(), None);
    let entry = chain.begin(NOW).unwrap().unwrap().to_signed();
    says(&mut guard, 2, vec![foreign], Some(entry.clone()), NOW);
    assert!(matches!(guard.verdict(NOW + SETTLE), Some(Verdict::Pass { .. })));
    // In recovery: entries of others about others are not taken.
    let mut guard = super::tests::guard(Some(head(5)), &[], true);
    says(&mut guard, 2, vec![other(true, NOW, Some(head(8)), &[])], None, NOW);
    guard.poll().unwrap();
    let records = vec![HeldRecord::Entry(entry)];
    guard.answered(key(2).node_id(), Some(Response::Recalled { records, more: true }), NOW);
    assert!(guard.poll().is_none(), "it is not asked any more");
    let Some(Verdict::CatchUp { records, .. }) = guard.verdict(NOW + SETTLE) else { panic!("no verdict") };
    assert!(records.is_empty());
}

#[test]
fn ten_million_junk_entries_are_not_read() {
    let mut guard = guard(Some(head(5)), &[], true);
    says(&mut guard, 2, vec![other(true, NOW, Some(head(8)), &[])], None, NOW);
    let mut chain = Chain::new(key(1), network(), Some(head(9)));
    let body = Body::LeaseAccept { open: DocumentId::default() };
    let entry = chain.append(crate::LeaseId([1; 32]), key(2).node_id(), body, NOW).unwrap().to_signed();
    let mut pages = 0;
    // A peer that says "more" for ever, each page full.
    while let Some((to, request)) = guard.poll() {
        assert!(matches!(request, Request::Recall { .. }), "{request:?}");
        pages += 1;
        let records = vec![HeldRecord::Entry(entry.clone()); limits::RECALL_RECORDS];
        guard.answered(to, Some(Response::Recalled { records, more: true }), NOW);
    }
    assert_eq!(pages, limits::RECALL_PAGES);
    let Some(Verdict::CatchUp { records, .. }) = guard.verdict(NOW + SETTLE) else { panic!("no verdict") };
    assert!(records.len() <= RECORDS);
}

#[test]
fn a_guard_answers_meetings_and_repeats_what_it_is_told() {
    let mut guard = guard(Some(head(5)), &[], true);
    let own = Instance { nonce: Nonce([3; 16]), started: NOW };
    let theirs = report(&key(2), &network(), (own, true), None, vec![], NOW).unwrap().to_signed();
    let meet = Meet {
        report: theirs,
        known: vec![Nonce([8; 16])],
        at: vec![4],
        yours: vec![],
        forks: crate::fork::ForksAsked::default(),
    };
    let at = [ChainHead { seq: 4, id: DocumentId([4; 32]) }, ChainHead { seq: 3, id: DocumentId([3; 32]) }];
    let Response::Met(met) = guard.meeting(key(2).node_id(), &meet, &at, NOW) else { panic!("no meeting") };
    let report = met.report.verify(&network()).unwrap();
    assert!(!report.signing && report.heard == [Nonce([8; 16])] && report.instance == OWN);
    assert_eq!(met.at.len(), 1, "only what was asked about");
    // A head that is not the asker's is no meeting.
    assert!(matches!(guard.meeting(key(3).node_id(), &meet, &[], NOW), Response::Rejected(_)));
}

#[test]
fn junk_of_strangers_and_of_one_party_leaves_room_for_what_this_node_has_signed() {
    let mut guard = guard(Some(head(5)), &[3, 4], true);
    for peer in [2, 3, 4] {
        says(&mut guard, peer, vec![other(true, NOW, Some(head(8)), &[])], None, NOW);
        while guard.poll().is_some() {}
    }
    let junk = |author: u8| {
        let mut chain = Chain::new(key(author), network(), None);
        chain.begin(NOW).unwrap();
        let body = Body::LeaseAccept { open: DocumentId::default() };
        HeldRecord::Entry(chain.append(crate::LeaseId([1; 32]), key(1).node_id(), body, NOW).unwrap().to_signed())
    };
    let page = |peer| vec![junk(peer); limits::RECALL_RECORDS];
    for peer in [2, 3] {
        for _ in 0..3 * RECORDS / limits::RECALL_RECORDS {
            guard.recalled(key(peer).node_id(), page(peer), true, NOW);
        }
    }
    let share = FOREIGN / 2;
    assert_eq!(guard.records.len(), share, "none of the stranger's, and a share of the party's");
    let mut chain = Chain::new(key(1), network(), Some(head(9)));
    let body = Body::LeaseAccept { open: DocumentId::default() };
    let entry = chain.append(crate::LeaseId([1; 32]), key(4).node_id(), body, NOW).unwrap();
    for peer in [2, 2, 3, 4] {
        guard.recalled(key(peer).node_id(), vec![HeldRecord::Entry(entry.to_signed())], false, NOW);
    }
    assert_eq!(guard.records.len(), share + 3, "once from each party, and once from all others");
}

#[test]
fn a_peer_that_has_no_time_is_asked_again_and_waited_for() {
    let mut guard = guard(Some(head(5)), &[3], true);
    says(&mut guard, 3, vec![other(true, NOW, Some(head(8)), &[])], None, NOW);
    while guard.poll().is_some() {}
    let party = key(3).node_id();
    let busy = || Some(Response::Busy { retry_after_ms: 60_000 });
    guard.answered(party, busy(), NOW);
    let later = NOW + CATCH_UP;
    assert!(guard.verdict(later).is_none(), "what it holds of us is not known");
    guard.tick(NOW + Millis(1));
    assert!(guard.poll().is_none(), "not at once");
    guard.tick(NOW + BUSY);
    assert!(matches!(guard.poll(), Some((to, Request::Recall { page: 0, .. })) if to == party));
    guard.tick(NOW + BUSY + BUSY);
    assert!(guard.poll().is_none(), "once for each answer");
    guard.answered(party, Some(Response::Recalled { records: Vec::new(), more: false }), later);
    assert!(matches!(guard.verdict(later + SETTLE), Some(Verdict::CatchUp { .. })));
}
