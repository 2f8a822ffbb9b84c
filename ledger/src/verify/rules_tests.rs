//! Lies that a check once took for the truth.
#![allow(clippy::unwrap_used)]

use souk_protocol::{
    Amount, DocumentId, LeaseId, NodeId, Verified, encode,
    entry::{Body, VoidCode},
    money::Counters,
    terms::{Amended, Change, LeaseTerms},
};

use super::*;
use crate::{
    export::{Filter, Item, Trailer},
    fixture::{Deal, Party},
    record::Fact,
};

fn what(host: &Party, filter: Filter, facts: &[Fact]) -> Option<String> {
    let (network, author) = (host.network, host.key.node_id());
    let mut bytes = Vec::new();
    let push = |bytes: &mut Vec<u8>, body: &[u8]| {
        bytes.extend_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
        bytes.extend_from_slice(body);
    };
    push(
        &mut bytes,
        &encode::to_bytes(&Header { format: FORMAT.to_owned(), version: VERSION, network, author, filter, cut: false }),
    );
    for fact in facts {
        let item = match fact {
            Fact::Entry(entry) => Item::Entry(entry.to_signed()),
            Fact::Usage(usage) => Item::Usage(usage.to_signed()),
            Fact::Ack(ack) => Item::Ack(ack.to_signed()),
            Fact::Fork(_) | Fact::Private(_) => unreachable!("it is never exported"),
        };
        push(&mut bytes, &encode::to_bytes(&item));
    }
    let head = facts.iter().rev().find_map(|fact| own(fact, &author));
    let digest = souk_protocol::Digest::of(&bytes);
    let trailer = Trailer { author, count: facts.len() as u64, head, digest };
    let trailer = Verified::sign(trailer, &host.key, &network).unwrap();
    push(&mut bytes, &encode::to_bytes(&Item::Trailer(trailer.to_signed())));
    match verify_on(&bytes[..], 1).unwrap().verdict {
        Verdict::Valid => None,
        Verdict::Invalid(fault) | Verdict::Incomplete(fault) => Some(fault.what),
    }
}

fn own(fact: &Fact, author: &NodeId) -> Option<DocumentId> {
    if let Fact::Entry(entry) = fact { (entry.author == *author).then(|| entry.id()) } else { None }
}

/// Host, renter, and an open lease of the two.
fn opened() -> (Party, Party, Deal, Vec<Fact>) {
    let (mut host, mut renter) = (Party::new(1), Party::new(2));
    let genesis = Fact::Entry(host.genesis());
    renter.genesis();
    let mut deal = Deal::new(&host, &renter, 1);
    let open = Fact::Entry(deal.open(&mut renter, &host));
    (host, renter, deal, vec![genesis, open])
}

#[test]
fn a_lease_closed_before_it_was_voided_takes_no_receipts() {
    let (mut host, mut renter, mut deal, mut facts) = opened();
    facts.push(Fact::Entry(deal.close(&mut renter, &host)));
    let body = Body::Void { open: deal.open.unwrap(), code: VoidCode::Taken, sentence: String::new() };
    facts.push(Fact::Entry(host.say(Some(deal.id), &renter, body)));
    assert_eq!(what(&host, Filter::All, &facts), None);
    facts.push(Fact::Usage(deal.usage(&host)));
    assert!(what(&host, Filter::All, &facts).unwrap().contains("not accepted"));
}

#[test]
fn a_usage_does_not_go_back_to_terms_that_were_amended() {
    let (mut host, mut renter, mut deal, mut facts) = opened();
    facts.push(Fact::Entry(deal.accept(&mut host, &renter)));
    let drafted = LeaseTerms::drafted(&deal.draft);
    let change = Change::Ceiling { max_spend: Some(Amount(90_000_000_000)) };
    let amend = Body::Amend { n: 1, change, valid_until: souk_protocol::Timestamp(u64::MAX) };
    let amend = renter.say(Some(deal.id), &host, amend);
    let now = souk_protocol::Timestamp(crate::fixture::START + 60_000);
    let terms = drafted.changed(&deal.draft, &change, &Counters::default(), now).unwrap();
    facts.push(Fact::Entry(amend.clone()));
    facts.push(Fact::Entry(host.say(
        Some(deal.id),
        &renter,
        Body::Amended(Amended { amend: Some(amend.id()), terms }),
    )));
    let mut count = |terms: u32| {
        let usage = souk_protocol::receipt::Usage { terms, ..deal.usage_value(deal.n + 1, &host) };
        let usage = Verified::sign(usage, &host.key, &host.network).unwrap();
        (deal.n, deal.usage) = (deal.n + 1, Some(usage.clone()));
        Fact::Usage(usage)
    };
    facts.push(count(1));
    assert_eq!(what(&host, Filter::All, &facts), None);
    facts.push(count(0));
    assert!(what(&host, Filter::All, &facts).unwrap().contains("terms that were amended"));
}

#[test]
fn an_export_of_a_lease_holds_no_other_and_is_in_order() {
    let (mut host, renter, deal, facts) = opened();
    let accept = Fact::Entry(deal.accept(&mut host, &renter));
    let slots = Body::Placement { start: 1, slots: vec![0], devices: Vec::new() };
    let placement = Fact::Entry(host.say(Some(deal.id), &renter, slots));
    let one = [facts[1].clone(), accept.clone(), placement.clone()];
    assert_eq!(what(&host, Filter::Lease(deal.id), &one), None);
    let other = what(&host, Filter::Lease(LeaseId([7; 32])), &one).unwrap();
    assert!(other.contains("not of the lease"), "{other}");
    // What it says of itself, said out of order: a complaint is taken at any time.
    let dispute = souk_protocol::opinion::Dispute {
        about: deal.id.into(),
        code: souk_protocol::opinion::DisputeCode::Other,
        sentence: String::new(),
    };
    let dispute = Fact::Entry(host.say(Some(deal.id), &renter, Body::Dispute(dispute)));
    let turned = [facts[1].clone(), dispute, accept];
    assert!(what(&host, Filter::Lease(deal.id), &turned).unwrap().contains("after a later one"));
}
