#![allow(clippy::unwrap_used)]

use super::{Opened, RenterLease};
use crate::{
    Amount, LeaseId, Millis, Timestamp, Verified,
    entry::{Body, Entry, VoidCode},
    lease::{EndReason, LeaseState},
    machine::{
        chain::Chain,
        context::Context,
        io::Output,
        testkit::{self, NOW, draft, key, network},
    },
    message::{Request, Response},
    signed::Signed,
};

/// The renter's context and its open; the host signs with a chain of its own.
fn opened() -> (Context, Chain, RenterLease) {
    let chain = |seed| {
        let mut chain = Chain::new(key(seed), network(), None);
        chain.begin(NOW).unwrap();
        chain
    };
    let (mut cx, host) = (Context::new(chain(2)), chain(1));
    let draft = draft(None, Amount(1));
    let body = Body::LeaseOpen { draft: draft.to_signed() };
    let (open, ticket) = cx.append(draft.id().into(), draft.host, body, NOW).unwrap();
    testkit::outputs(&mut cx);
    (cx, host, RenterLease::opened(draft, open, ticket, NOW))
}

fn says(host: &mut Chain, lease: &RenterLease, body: Body) -> Signed<Entry> {
    let id: LeaseId = lease.id();
    host.append(id, lease.draft().renter, body, NOW).unwrap().to_signed()
}

fn accept(host: &mut Chain, lease: &RenterLease) -> Signed<Entry> {
    says(host, lease, Body::LeaseAccept { open: lease.open().id() })
}

fn too_late(lease: &RenterLease) -> Timestamp {
    NOW + Millis(lease.draft().confirm_by.since(lease.draft().drafted_at).0 + 1)
}

#[test]
fn an_accept_in_time_is_a_lease_and_another_answer_changes_nothing() {
    let (mut cx, mut host, mut lease) = opened();
    let first = accept(&mut host, &lease);
    assert!(lease.take_answer(&mut cx, &first, NOW));
    assert!(matches!(lease.answer(), Opened::Accepted(_)));
    let void = Body::Void { open: lease.open().id(), code: VoidCode::Taken, sentence: String::new() };
    let second = says(&mut host, &lease, void);
    testkit::outputs(&mut cx);
    assert!(!lease.take_answer(&mut cx, &second, NOW));
    assert!(matches!(testkit::outputs(&mut cx)[..], [Output::Violation(_)]));
    assert!(matches!(lease.answer(), Opened::Accepted(_)));
}

#[test]
fn an_accept_that_comes_too_late_is_closed_at_no_cost_and_the_close_sent_until_agreed_to() {
    for gave_up in [true, false] {
        let (mut cx, mut host, mut lease) = opened();
        if gave_up {
            lease.give_up();
        }
        let late = too_late(&lease);
        let entry = accept(&mut host, &lease);
        assert!(lease.take_answer(&mut cx, &entry, late));
        assert_eq!(lease.state(), LeaseState::Ended(EndReason::Unconfirmed));
        let close = lease.own_close().unwrap().clone();
        assert!(matches!(close.body, Body::Close { due: Amount::ZERO, usage: None, .. }));
        testkit::outputs(&mut cx);

        lease.tick(&mut cx, late);
        assert!(testkit::outputs(&mut cx).is_empty(), "the host can't be reached");
        assert_eq!(lease.deadline(&cx), None);
        cx.connected.insert(lease.host());
        lease.tick(&mut cx, late);
        let sent = testkit::outputs(&mut cx);
        assert!(matches!(&sent[..], [Output::Send { request, .. }] if matches!(**request, Request::Deliver { .. })));
        lease.close_delivered(&mut cx, None, late);
        let again = lease.deadline(&cx).unwrap();
        assert!(again > late && !lease.is_closed());

        let costly = says(&mut host, &lease, Body::CloseAck { close: close.id(), due: Amount(5) });
        let seen = |entry| Response::Seen { events_seen: 0, ack: None, close_ack: Some(entry) };
        lease.close_delivered(&mut cx, Some(&seen(costly)), again);
        assert!(!lease.is_closed(), "not for an amount");
        let agreed = says(&mut host, &lease, Body::CloseAck { close: close.id(), due: Amount::ZERO });
        lease.close_delivered(&mut cx, Some(&seen(agreed)), again);
        assert!(lease.is_closed() && lease.deadline(&cx).is_none());
    }
}

#[test]
fn an_answer_to_another_open_is_none() {
    let (mut cx, mut host, mut lease) = opened();
    let other = says(&mut host, &lease, Body::LeaseAccept { open: lease.draft().id() });
    assert!(!lease.take_answer(&mut cx, &other, NOW));
    let entry =
        Entry { peer: Some(key(9).node_id()), ..(*accept(&mut host, &lease).verify(&network()).unwrap()).clone() };
    let forged = Verified::sign(entry, &key(1), &network()).unwrap().to_signed();
    assert!(!lease.take_answer(&mut cx, &forged, NOW));
    assert_eq!(*lease.answer(), Opened::Waiting);
    let violations = testkit::outputs(&mut cx).into_iter().filter(|o| matches!(o, Output::Violation(_)));
    assert_eq!(violations.count(), 2);
}
