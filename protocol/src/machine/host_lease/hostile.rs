//! Changes of terms by renters that mean ill, and crashes between any two records.
#![allow(clippy::unwrap_used)]

use super::{HostLease, Remembered, limits};
use crate::{
    Amount, DocumentId, LeaseId, Millis, Timestamp, Verified,
    entry::{Body, Entry},
    lease::{LeaseDraft, LeaseState, PauseReason},
    machine::{
        chain::Chain,
        context::Context,
        io::RuntimeReport,
        testkit::{self, NOW, key, network},
    },
    message::Cause,
    negotiation::RentalType,
    terms::{Change, LeaseTerms},
    workload::Workload,
};

fn at(secs: u64) -> Timestamp {
    NOW + Millis::from_secs(secs)
}

fn interruptible() -> Verified<LeaseDraft> {
    let draft = (*testkit::draft(None, Amount(500_000_000))).clone();
    let draft = LeaseDraft { rental: RentalType::Interruptible, quantum: Millis::from_secs(600), ..draft };
    Verified::sign(draft, &key(1), &network()).unwrap()
}

fn running(cx: &mut Context, draft: Verified<LeaseDraft>) -> HostLease {
    let accept = testkit::accept(cx, &draft);
    let mut lease = HostLease::accepted(draft, accept, Workload::default(), None, NOW);
    lease.place(cx, vec![0], Vec::new(), NOW);
    lease.prepare(cx);
    lease.report(cx, RuntimeReport::Prepared, NOW);
    lease.report(cx, RuntimeReport::Started, NOW);
    assert_eq!(lease.state(), LeaseState::Running);
    lease
}

/// The renter's change, made on a chain of its own, with a date of its choice.
fn amend(lease: &HostLease, change: Change, dated: Timestamp, valid_until: Timestamp) -> Verified<Entry> {
    let mut chain = Chain::new(key(2), network(), None);
    chain.begin(NOW).unwrap();
    let body = Body::Amend { n: lease.terms().n + 1, change, valid_until };
    chain.append(lease.id(), lease.draft().host, body, dated).unwrap()
}

fn double(lease: &HostLease) -> Change {
    Change::Bid { compute_hour: Amount(lease.terms().compute_hour.0 * 2) }
}

#[test]
fn a_renters_date_does_not_date_our_chain() {
    let cx = &mut testkit::context();
    let mut lease = running(cx, interruptible());
    let far = Timestamp(u64::MAX / 2);
    let entry = amend(&lease, double(&lease), far, at(10) + limits::AMEND_WITHIN);
    lease.amend(cx, &entry, at(10)).unwrap();
    assert_eq!(cx.chain.head().unwrap().time, at(10));
}

#[test]
fn terms_follow_as_of_their_entrys_date_even_where_our_chain_is_ahead_of_our_clock() {
    let cx = &mut testkit::context();
    let mut lease = running(cx, interruptible());
    let other = LeaseId([7; 32]);
    cx.append(other, lease.draft().renter, Body::LeaseAccept { open: DocumentId::default() }, at(30)).unwrap();
    let (known, change) = (*lease.terms(), double(&lease));
    let entry = amend(&lease, change, at(10), at(10) + limits::AMEND_WITHIN);
    lease.amend(cx, &entry, at(10)).unwrap();
    let answer = lease.answer_to(&entry).unwrap();
    assert!(lease.terms().follows(&known, lease.draft(), Some(&change), answer.time));
    // Where the chain is ahead of the change's last moment nothing may be signed.
    cx.append(other, lease.draft().renter, Body::LeaseAccept { open: DocumentId::default() }, at(900)).unwrap();
    let late = amend(&lease, double(&lease), at(20), at(20) + limits::AMEND_WITHIN);
    assert!(lease.amend(cx, &late, at(20)).is_err());
}

#[test]
fn a_crash_between_new_terms_and_their_first_usage_loses_nothing() {
    let cx = &mut testkit::context();
    let draft = interruptible();
    let mut lease = running(cx, draft.clone());
    let usage = lease.usage().cloned();
    let entry = amend(&lease, double(&lease), at(300), at(300) + limits::AMEND_WITHIN);
    lease.amend(cx, &entry, at(300)).unwrap();
    let from = Remembered {
        draft,
        accept: lease.accept().clone(),
        workload: Workload::default(),
        usage,
        ack: None,
        placement: lease.placement().cloned(),
        close: None,
        events: lease.events()[..1].to_vec(),
        amended: lease.answer_to(&entry).into_iter().cloned().collect(),
    };
    let mut restored = HostLease::restored(from, at(400));
    restored.resume(cx, at(400));
    let usage = {
        restored.pause(cx, PauseReason::Stopped, Cause::Renter, at(401));
        restored.issue_usage(cx, at(402));
        restored.usage().unwrap()
    };
    let terms: &LeaseTerms = restored.terms();
    assert!(usage.counters.covers(&terms.counted), "the ledger refuses a usage below its terms");
    assert_eq!((usage.terms, usage.due >= terms.carried), (1, true));
}

/// The renter reckons from the events alone, so each change of its own begins a quantum, and counts what ran.
#[test]
fn every_change_by_the_renter_counts_what_ran_before_it() {
    let cx = &mut testkit::context();
    let mut lease = running(cx, interruptible());
    let ceiling = Change::Ceiling { max_spend: Some(Amount(900_000_000)) };
    let entry = amend(&lease, ceiling, at(300), at(300) + limits::AMEND_WITHIN);
    lease.amend(cx, &entry, at(300)).unwrap();
    assert_eq!(lease.terms().counted.active, Millis::from_secs(300), "a ceiling is held against all that ran");
    lease.pause(cx, PauseReason::Outbid, Cause::Market, at(660));
    assert_eq!(lease.usage().unwrap().counters.waived, Millis::from_secs(360));
}

#[test]
fn what_waits_for_slots_does_not_wait_past_its_end() {
    let cx = &mut testkit::context();
    let draft = testkit::draft(None, Amount(500_000_000));
    let accept = testkit::accept(cx, &draft);
    let mut lease = HostLease::accepted(draft, accept, Workload::default(), None, NOW);
    lease.wait_for_slots(cx, Cause::Market, NOW);
    let end = lease.terms().ends_at;
    assert_eq!(lease.deadline(true, false).map(|at| at <= end), Some(true));
    lease.tick(cx, true, end);
    assert!(!lease.wants_slots(), "nobody else gets the slots it waits for");
}

/// Terms follow one from the other: a renter that misses one could agree to nothing any more.
#[test]
fn a_silent_renter_is_not_extended_beyond_what_it_can_be_told() {
    let cx = &mut testkit::context();
    let draft = (*testkit::draft(None, Amount(u64::MAX))).clone();
    let draft = LeaseDraft { extend_until: Some(draft.ends_at + Millis::from_hours(1000)), ..draft };
    let draft = Verified::sign(draft, &key(1), &network()).unwrap();
    let mut lease = running(cx, draft);
    let price = lease.terms().compute_hour;
    for _ in 0..100 {
        let Some(due) = lease.extension_due() else { break };
        if let Some(longer) = lease.wants_extension(due) {
            lease.extend_alone(cx, longer, price, due);
        }
        lease.tick(cx, true, due);
    }
    assert!(lease.terms().n > 4);
    let told: Vec<u32> = lease
        .update(0)
        .entries
        .iter()
        .filter_map(|e| e.verify(&network()).ok()?.body.amended().map(|a| a.terms.n))
        .collect();
    assert_eq!(told, (1..=lease.terms().n).collect::<Vec<u32>>(), "each of them is still told");
}
