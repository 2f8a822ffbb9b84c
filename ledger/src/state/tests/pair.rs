//! Payments and attestations.

use souk_protocol::{
    Currency, DocumentId, Millis, entry,
    opinion::{Attestation, Dispute, DisputeCode, Observation, UPTIME_WINDOW, Watched},
    settlement::{Settle, SettleAck},
};

use super::*;
use crate::pair::{Attested, Settlement};

type Entry = Verified<entry::Entry>;

fn paid(n: u32, amount: u64, total: u64) -> Body {
    Body::Settle(Settle {
        n,
        currency: Currency::usd(),
        amount: Amount(amount),
        total: Amount(total),
        method: "manual".to_owned(),
        reference: format!("r{n}"),
    })
}

fn arrived(settle: DocumentId, n: u32, total: u64) -> Body {
    Body::SettleAck(SettleAck { settle, n, currency: Currency::usd(), total: Amount(total) })
}

impl World {
    /// A word of the renter's to the host about no lease, not taken yet.
    fn renter_says(&mut self, body: Body) -> Entry {
        let host = self.host.clone();
        self.renter.say(None, &host, body)
    }

    /// What the host would say next, without its chain going on.
    fn host_would_say(&self, body: Body) -> Entry {
        self.host.clone().say(None, &self.renter, body)
    }

    fn host_says(&mut self, body: Body) -> Entry {
        let renter = self.renter.clone();
        self.host.say(None, &renter, body)
    }

    fn settlement(&self, n: u32, by_us: bool) -> Settlement {
        let key = keys::settlement(&self.renter.key.node_id(), &Currency::usd(), by_us, n);
        self.state.row(&key, "settlement").unwrap().unwrap()
    }
}

#[test]
fn payments_add_up_and_are_answered() {
    let mut w = World::of_host();
    let first = w.renter_says(paid(1, 5, 5));
    assert_eq!(w.entry(first.clone()).unwrap(), Applied::New);
    assert_eq!(w.entry(first.clone()).unwrap(), Applied::Known);
    assert_eq!(w.balance().received_claimed, Amount(5));
    assert_eq!(w.balance().owed(), 0, "a payment nobody has acknowledged settles nothing");
    let ack = w.host_says(arrived(first.id(), 1, 3));
    w.entry(ack).unwrap();
    assert_eq!((w.balance().received, w.balance().owed()), (Amount(3), -3));
    let rest = w.host_says(arrived(first.id(), 1, 5));
    w.entry(rest.clone()).unwrap();
    assert_eq!(w.balance().received, Amount(5));
    assert_eq!(w.settlement(1, false).ack.unwrap().id, rest.id());

    // The second never arrives; the third says it too.
    w.renter_says(paid(2, 7, 12));
    let third = w.renter_says(paid(3, 1, 13));
    w.entry(third).unwrap();
    assert_eq!(w.balance().received_claimed, Amount(13));
}

#[test]
fn false_payments_and_answers_are_refused() {
    let mut w = World::of_host();
    let first = w.renter_says(paid(1, 5, 5));
    w.entry(first.clone()).unwrap();
    for body in [paid(1, 5, 5), paid(2, 5, 9), paid(2, 5, 11), paid(4, 5, 9), paid(2, u64::MAX, u64::MAX)] {
        let entry = w.renter.clone().say(None, &w.host.clone(), body);
        assert!(matches!(w.refused(&Fact::Entry(entry)), Refusal::Payment(_)));
    }
    for body in [arrived(first.id(), 1, 6), arrived(first.id(), 2, 5), arrived(DocumentId([0; 32]), 1, 5)] {
        let entry = w.host_would_say(body);
        assert!(matches!(w.refused(&Fact::Entry(entry)), Refusal::Payment(_)));
    }
    let ack = w.host_says(arrived(first.id(), 1, 4));
    w.entry(ack).unwrap();
    let less = w.host_would_say(arrived(first.id(), 1, 3));
    assert!(matches!(w.refused(&Fact::Entry(less)), Refusal::Payment(_)));
    // Our own leave no number out.
    let gap = w.host_would_say(paid(2, 5, 5 + 5));
    assert!(matches!(w.refused(&Fact::Entry(gap)), Refusal::Payment(_)));
    // The renter can't acknowledge its own payment.
    let own = w.renter_says(arrived(first.id(), 1, 5));
    assert!(matches!(w.refused(&Fact::Entry(own)), Refusal::Payment(_)));
}

#[test]
fn the_newest_word_on_a_claim_counts() {
    let mut w = World::of_host();
    let says = |withdrawn| {
        Body::Attestation(Attestation {
            claim: "datacenter".to_owned(),
            until: Some(Timestamp(START + 500)),
            withdrawn,
        })
    };
    let (given, taken_back) = (w.renter_says(says(false)), w.renter_says(says(true)));
    w.entry(given.clone()).unwrap();
    let key = keys::attestation(&w.renter.key.node_id(), &w.host.key.node_id(), "datacenter");
    let row = |w: &World| w.state.row::<Attested>(&key, "attestation").unwrap().unwrap();
    assert!(row(&w).holds(Timestamp(START + 499)) && !row(&w).holds(Timestamp(START + 500)));
    w.entry(taken_back.clone()).unwrap();
    assert!(!row(&w).holds(Timestamp(START)));
    assert_eq!(row(&w).id, taken_back.id());
}

#[test]
fn a_complaint_stays_with_its_lease_and_a_stranger_makes_none() {
    let mut w = World::leased();
    let about = w.deal.draft.id();
    let complaint =
        || Body::Dispute(Dispute { about, code: DisputeCode::NotDelivered, sentence: "it never started".to_owned() });
    let (id, host) = (w.deal.id, w.host.clone());
    let dispute = w.renter.say(Some(id), &host, complaint());
    w.entry(dispute.clone()).unwrap();
    assert_eq!(w.lease().renter_dispute.unwrap().id, dispute.id());
    assert!(w.lease().host_dispute.is_none());
    let mut stranger = Party::new(9);
    stranger.genesis();
    let entry = stranger.say(Some(id), &host, complaint());
    assert_eq!(w.refused(&Fact::Entry(entry)), Refusal::NotItsAuthors);
}

#[test]
fn an_observation_is_a_link_of_the_chain_and_no_more() {
    let mut w = World::of_host();
    let seen = Body::Probe(Observation::Uptime { from: Timestamp(UPTIME_WINDOW.0 * 4), up_permille: 1000 });
    let probe = w.host_says(seen);
    w.entry(probe.clone()).unwrap();
    assert_eq!(w.state.head(&w.host.key.node_id()).unwrap().unwrap().id, probe.id());
}

#[test]
fn a_renter_says_once_and_at_the_end_what_it_saw_of_a_lease_that_ran() {
    let mut w = World::leased();
    let id = w.deal.id;
    let from = Timestamp(w.deal.draft.drafted_at.0 - 10);
    let seen = || Body::Probe(Observation::Rental(Watched { from, watched: Millis(9), answered: Millis(8) }));
    let tries = |w: &mut World, why: &'static str| {
        let early = w.renter.clone().say(Some(id), &w.host.clone(), seen());
        assert_eq!(w.refused(&Fact::Entry(early)), Refusal::Lease(why));
    };
    tries(&mut w, "nothing of it ever started");
    let placement = Body::Placement { start: 1, slots: vec![0], devices: vec!["cpu".to_owned()] };
    let renter = w.renter.clone();
    let placed = w.host.say(Some(id), &renter, placement);
    w.entry(placed).unwrap();
    tries(&mut w, "it is not over");
    let close = w.deal.close(&mut w.host, &renter);
    w.entry(close).unwrap();

    // Its host has nothing to say of itself, a stranger nothing of others, and nobody of what nobody rents.
    let of_host = w.host.clone().say(Some(id), &renter, seen());
    assert_eq!(w.refused(&Fact::Entry(of_host)), Refusal::NotItsAuthors);
    let mut stranger = Party::new(9);
    stranger.genesis();
    let of_stranger = stranger.say(Some(id), &w.host, seen());
    assert_eq!(w.refused(&Fact::Entry(of_stranger)), Refusal::NotItsAuthors);
    let unknown = crate::fixture::Deal::new(&w.host, &w.renter, 77).id;
    let of_none = w.renter.clone().say(Some(unknown), &w.host, seen());
    assert_eq!(w.refused(&Fact::Entry(of_none)), Refusal::UnknownLease(unknown));

    let host = w.host.clone();
    let probe = w.renter.say(Some(id), &host, seen());
    assert_eq!(w.entry(probe.clone()).unwrap(), Applied::New);
    assert_eq!(w.entry(probe.clone()).unwrap(), Applied::Known);
    assert_eq!(w.lease().renter_probe.unwrap().id, probe.id());
    tries(&mut w, "its renter has said already what it saw");
}
