#![allow(clippy::unwrap_used)]
use souk_protocol::{
    Amount, Millis,
    entry::Body,
    opinion::{Attestation, Dispute, DisputeCode},
    settlement::SettleAck,
};

use super::*;
use crate::{
    fixture::{Deal, Party, START},
    reputation::Evidence,
};

const NOW: Timestamp = Timestamp(START + 3_600_000);

struct Scene {
    host: Party,
    renter: Party,
    page: EvidencePage,
}

/// A lease that ran for two minutes, was acknowledged, closed and agreed to.
fn scene() -> Scene {
    let (mut host, mut renter) = (Party::new(1), Party::new(2));
    host.genesis();
    renter.genesis();
    let mut deal = Deal::new(&host, &renter, 1);
    let open = deal.open(&mut renter, &host).to_signed();
    let accept = deal.accept(&mut host, &renter).to_signed();
    deal.usage(&host);
    let usage = deal.usage(&host).to_signed();
    let ack = deal.ack(&renter, 0).to_signed();
    let close = deal.close(&mut renter, &host);
    let close_ack = deal.close_ack(&close, &mut host, &renter).to_signed();
    let ends = vec![close.to_signed(), close_ack];
    let shown = LeaseEvidence { open, accept, amended: Vec::new(), receipt: Some((usage, ack)), ends };
    let page = EvidencePage { leases: vec![shown], ..EvidencePage::default() };
    Scene { host, renter, page }
}

impl Scene {
    fn read_of(&self, from: &Party) -> Result<Read, Unproven> {
        read(&self.page, &from.key.node_id(), &from.network, NOW)
    }

    fn shown(&mut self) -> &mut LeaseEvidence {
        &mut self.page.leases[0]
    }
}

#[test]
fn either_party_shows_a_lease_and_it_says_the_same() {
    let scene = scene();
    let by_host = scene.read_of(&scene.host).unwrap();
    assert_eq!(by_host, scene.read_of(&scene.renter).unwrap());
    let evidence = Evidence::from_lease(&by_host.leases[0]).unwrap();
    assert!(evidence.closed && evidence.failures.is_empty());
    assert!(evidence.agreed > Amount::ZERO && evidence.used == Millis(120_000));
    // What was read is shown again as it was.
    assert_eq!(show_lease(&by_host.leases[0]).unwrap(), scene.page.leases[0]);
}

#[test]
fn nobody_shows_others_leases() {
    assert_eq!(scene().read_of(&Party::new(3)), Err(Unproven::OfOthers));
}

#[test]
fn another_network_and_another_time_are_refused() {
    let scene = scene();
    let me = scene.host.key.node_id();
    let network = NetworkId::of_name("elsewhere");
    assert!(matches!(read(&scene.page, &me, &network, NOW), Err(Unproven::Verify(_))));
    let early = Timestamp(START - 3_600_000);
    assert_eq!(read(&scene.page, &me, &scene.host.network, early), Err(Unproven::Ahead));
}

#[test]
fn what_is_put_together_from_other_leases_is_refused() {
    let (scene, mut other) = (scene(), scene());
    // Another lease between the same two.
    let mut deal = Deal::new(&other.host, &other.renter, 2);
    let open = deal.open(&mut other.renter, &other.host).to_signed();
    let accept = deal.accept(&mut other.host, &other.renter).to_signed();
    let usage = deal.usage(&other.host).to_signed();
    let ack = deal.ack(&other.renter, 0).to_signed();
    let refused = |change: &dyn Fn(&mut LeaseEvidence)| {
        let mut bent = Scene { page: scene.page.clone(), host: scene.host.clone(), renter: scene.renter.clone() };
        change(bent.shown());
        bent.read_of(&scene.host).unwrap_err()
    };
    refused(&|shown| shown.accept = accept.clone());
    refused(&|shown| shown.open = open.clone());
    refused(&|shown| shown.receipt = Some((usage.clone(), ack.clone())));
    let (real_usage, _) = scene.page.leases[0].receipt.clone().unwrap();
    refused(&|shown| shown.receipt = Some((real_usage.clone(), ack.clone())));
    // Without its open's answer, with the open in its place, with ends in an order that can't be, or twice.
    refused(&|shown| shown.accept = shown.open.clone());
    refused(&|shown| shown.ends.reverse());
    refused(&|shown| shown.ends.push(shown.ends[0].clone()));
    refused(&|shown| shown.ends.push(shown.accept.clone()));
}

#[test]
fn a_sum_that_the_rates_do_not_make_is_refused_though_both_signed_it() {
    let mut scene = scene();
    let (host, renter) = (scene.host.clone(), scene.renter.clone());
    let lease = scene.read_of(&host).unwrap().leases[0].clone();
    let mut usage = lease.receipts.agreed.unwrap().usage.value;
    usage.due = Amount(usage.due.0 + 1);
    let usage = Verified::sign(usage, &host.key, &host.network).unwrap();
    let ack = souk_protocol::receipt::Ack {
        renter: renter.key.node_id(),
        lease: usage.lease,
        n: usage.n,
        usage: usage.id(),
        due: usage.due,
        partial: None,
    };
    let ack = Verified::sign(ack, &renter.key, &renter.network).unwrap();
    scene.shown().receipt = Some((usage.to_signed(), ack.to_signed()));
    assert!(matches!(scene.read_of(&host), Err(Unproven::Fit(_))));
}

#[test]
fn every_flipped_bit_is_noticed() {
    let scene = scene();
    let bytes = souk_protocol::encode::to_bytes(&scene.page);
    let good = scene.read_of(&scene.host).unwrap();
    let me = scene.host.key.node_id();
    for at in (0..bytes.len()).step_by(3) {
        let mut bent = bytes.clone();
        bent[at] ^= 1 << (at % 8);
        if let Ok(page) = souk_protocol::encode::from_bytes::<EvidencePage>(&bent, bytes.len())
            && let Ok(read) = read(&page, &me, &scene.host.network, NOW)
        {
            // Only where a page ends is unsigned.
            assert_eq!(read, good, "byte {at}");
        }
    }
}

#[test]
fn complaints_and_payments_and_attestations_are_their_authors() {
    let mut scene = scene();
    let (mut host, mut renter) = (scene.host.clone(), scene.renter.clone());
    let lease = scene.read_of(&host).unwrap().leases[0].clone();
    let body = Body::Dispute(Dispute { about: lease.draft.id, code: DisputeCode::Bait, sentence: String::new() });
    let complaint = renter.say(Some(lease.id()), &host, body).to_signed();
    scene.shown().ends.push(complaint);
    let read = scene.read_of(&host).unwrap();
    assert_eq!(Evidence::from_lease(&read.leases[0]).unwrap().failures.len(), 1);

    let ack = |total| {
        Body::SettleAck(SettleAck {
            settle: souk_protocol::DocumentId([1; 32]),
            n: 1,
            currency: souk_protocol::Currency::usd(),
            total: Amount(total),
        })
    };
    let paid = host.say(None, &renter, ack(5)).to_signed();
    scene.page.payments = vec![paid];
    assert_eq!(scene.read_of(&renter).unwrap().payments[0].total, Amount(5));
    let (mut third, fourth) = (Party::new(3), Party::new(4));
    third.genesis();
    scene.page.payments = vec![third.say(None, &fourth, ack(5)).to_signed()];
    assert_eq!(scene.read_of(&renter), Err(Unproven::OfOthers));

    scene.page.payments.clear();
    let said = Attestation { claim: "verified".to_owned(), until: None, withdrawn: false };
    scene.page.attestations = vec![third.say(None, &host, Body::Attestation(said.clone())).to_signed()];
    assert_eq!(scene.read_of(&host).unwrap().attestations.len(), 1);
    scene.page.attestations = vec![third.say(None, &fourth, Body::Attestation(said)).to_signed()];
    assert_eq!(scene.read_of(&host), Err(Unproven::OfOthers));
}
