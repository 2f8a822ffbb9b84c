//! Ledgers restored from an older copy, and proofs that others have found.

use souk_protocol::{
    DocumentId, Nonce,
    heads::{ChainHead, HeadReport},
};

use super::*;
use crate::{keys, state::keep::Keep};

fn resume(seq: u64, id: DocumentId) -> Fact {
    Fact::Private(Private::Resume { seq, id, time: Timestamp(START + seq) })
}

#[test]
fn a_chain_goes_on_past_a_gap_and_takes_back_what_was_in_it_and_nothing_else() {
    let mut w = World::of_host();
    // Signed and lost: the host's accept of one lease, and of a second one that never comes back.
    let open = w.deal.open(&mut w.renter, &w.host);
    let accept = w.deal.accept(&mut w.host, &w.renter);
    let mut other = Deal::new(&w.host, &w.renter, 2);
    let other_open = other.open(&mut w.renter, &w.host);
    let lost = other.accept(&mut w.host, &w.renter);
    assert_eq!(w.fact(&resume(lost.seq, lost.id())).unwrap(), Applied::New);
    assert_eq!(w.state.head(&w.host.key.node_id()).unwrap().unwrap().seq, lost.seq);
    // What was signed before comes back in any order, if it fits.
    w.entry(open).unwrap();
    let mut forged = Party { seq: accept.seq, prev: Some(DocumentId([9; 32])), ..w.host.clone() };
    let forged = w.deal.accept(&mut forged, &w.renter);
    assert_eq!(w.refused(&Fact::Entry(forged)), Refusal::WouldFork("it names another entry before it"));
    assert_eq!(w.entry(accept.clone()).unwrap(), Applied::New);
    assert_eq!(w.entry(accept).unwrap(), Applied::Known);
    assert_eq!(w.lease().status(), Status::Active);
    let mut twin = Party { seq: lost.seq, prev: lost.prev, ..w.host.clone() };
    w.entry(other_open).unwrap();
    let void = Body::Void { open: other.open.unwrap(), code: VoidCode::Late, sentence: String::new() };
    let twin = twin.say(Some(other.id), &w.renter.clone(), void);
    assert_eq!(w.refused(&Fact::Entry(twin)), Refusal::WouldFork("this number is taken"));
    // The next one follows the head that others have seen.
    let usage = w.deal.usage(&w.host);
    w.fact(&Fact::Usage(usage)).unwrap();
    let close = w.deal.close(&mut w.host.clone(), &w.renter);
    assert_eq!((close.seq, close.prev), (lost.seq + 1, Some(lost.id())));
    w.entry(close).unwrap();
}

#[test]
fn a_ledger_that_was_never_restored_takes_no_number_twice_and_leaves_none_out() {
    let mut w = World::leased();
    let mut old = Party { seq: 1, prev: None, ..w.host.clone() };
    old.prev = Some(DocumentId([1; 32]));
    let old = w.deal.accept(&mut old, &w.renter);
    assert!(matches!(w.refused(&Fact::Entry(old)), Refusal::WouldFork(_)));
    let mut ahead = Party { seq: w.host.seq + 1, ..w.host.clone() };
    let close = w.deal.close(&mut ahead, &w.renter);
    assert!(matches!(w.refused(&Fact::Entry(close)), Refusal::Chain(_)));
    let first = w.deal.usage(&w.host);
    w.fact(&Fact::Usage(first)).unwrap();
    w.deal.usage(&w.host);
    let third = w.deal.usage(&w.host);
    let refusal = w.refused(&Fact::Usage(third.clone()));
    assert_eq!(refusal, Refusal::Receipt("our usages leave out a number"));
    // A restored one may have lost the second, and has the third back from the renter.
    let head = w.state.head(&w.host.key.node_id()).unwrap().unwrap();
    w.fact(&resume(0, DocumentId([5; 32]))).unwrap();
    assert_eq!(w.state.head(&w.host.key.node_id()).unwrap(), Some(head), "the chain itself was whole");
    assert_eq!(w.fact(&Fact::Usage(third)).unwrap(), Applied::New);
}

#[test]
fn proofs_that_others_have_found_are_kept_once_and_checked() {
    let mut w = World::leased();
    let key = w.renter.key.clone();
    let report = |seq: u64, id: u8| {
        let head = Some(ChainHead { seq, id: DocumentId([id; 32]) });
        let (author, time, instance) = (key.node_id(), Timestamp(START), Nonce([id; 16]));
        let report = HeadReport { author, instance, started: time, signing: true, head, time, heard: Vec::new() };
        Verified::sign(report, &key, &w.renter.network).unwrap().to_signed()
    };
    let proof = ForkProof::Heads(report(4, 1), report(4, 2));
    let nothing = ForkProof::Heads(report(4, 1), report(5, 2));
    assert_eq!(w.refused(&Fact::Fork(Box::new(nothing))), Refusal::NoFork(NoFork::Consistent));
    assert_eq!(w.fact(&Fact::Fork(Box::new(proof.clone()))).unwrap(), Applied::New);
    assert_eq!(w.fact(&Fact::Fork(Box::new(proof))).unwrap(), Applied::Known);
}

#[test]
fn there_is_an_end_of_proofs_and_one_that_goes_makes_room() {
    let mut w = World::leased();
    let proof = |n: u64| {
        let mut seed = [3; 32];
        seed[..8].copy_from_slice(&n.to_be_bytes());
        let key = Keypair::from_seed(&seed);
        let report = |id: u8| {
            let head = Some(ChainHead { seq: 4, id: DocumentId([id; 32]) });
            let (author, time, instance) = (key.node_id(), Timestamp(START), Nonce([id; 16]));
            let report = HeadReport { author, instance, started: time, signing: true, head, time, heard: Vec::new() };
            Verified::sign(report, &key, &w.renter.network).unwrap().to_signed()
        };
        (key.node_id(), Fact::Fork(Box::new(ForkProof::Heads(report(1), report(2)))))
    };
    let most = crate::chain::PROOFS;
    let all: Vec<_> = [0, 1, most].map(proof).into_iter().collect();
    // As many as there may be, without making all of them.
    w.fact(&all[0].1).unwrap();
    w.state.put(keys::PROOF_COUNT.to_vec(), &(most - 1));
    assert_eq!(w.fact(&all[1].1).unwrap(), Applied::New);
    assert_eq!(w.fact(&all[2].1).unwrap(), Applied::Known, "there is no room");
    let gone = |n: usize| Fact::Private(Private::ForkGone { author: all[n].0 });
    assert_eq!(w.fact(&gone(2)).unwrap(), Applied::Known, "it was not kept");
    assert_eq!(w.fact(&all[2].1).unwrap(), Applied::Known, "and what is not there makes no room");
    assert_eq!(w.fact(&gone(0)).unwrap(), Applied::New);
    assert_eq!(w.fact(&gone(0)).unwrap(), Applied::Known);
    assert_eq!(w.fact(&all[2].1).unwrap(), Applied::New);
    assert_eq!(w.fact(&all[0].1).unwrap(), Applied::Known, "the room is taken");
    // What is rewritten is what is kept.
    let cut = w.state.cut().unwrap().unwrap();
    let kept = [0, 1, 2].map(|n| w.state.keeps(n as u64, all[n].1.to_record(), &cut).unwrap());
    assert_eq!(kept, [Keep::No(None), Keep::Yes(None), Keep::Yes(None)]);
}
