//! Proofs of forks that prove nothing, and floods of them: one real engine, and peers whose every word is written by hand.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

use souk_protocol::{
    DocumentId, Keypair, NodeId, Nonce, Verified, encode,
    fork::ForkProof,
    heads::{ChainHead, HeadReport},
    limits,
    machine::{
        forks::Concern,
        io::{Input, Token, Verdict},
        record::{Private, Record},
    },
};
use souk_tests::sim::hostile::{Bench, network};

fn report(key: &Keypair, seq: u64, id: u8) -> Verified<HeadReport> {
    let report = HeadReport {
        author: key.node_id(),
        instance: Nonce([id; 16]),
        started: souk_protocol::Timestamp(u64::MAX),
        signing: true,
        head: Some(ChainHead { seq, id: DocumentId([id; 32]) }),
        time: souk_protocol::Timestamp(u64::MAX),
        heard: Vec::new(),
    };
    Verified::sign(report, key, &network()).unwrap()
}

fn proof(key: &Keypair) -> ForkProof {
    ForkProof::Heads(report(key, 5, 1).to_signed(), report(key, 5, 2).to_signed())
}

fn key(n: u32) -> Keypair {
    let mut seed = [7; 32];
    seed[..4].copy_from_slice(&n.to_be_bytes());
    Keypair::from_seed(&seed)
}

/// What the engine makes of gossip on the topic of proofs.
fn judged(bench: &mut Bench, data: Vec<u8>, concern: Concern) -> Verdict {
    judged_of(bench, key(1_000_000).node_id(), data, concern)
}

fn judged_of(bench: &mut Bench, from: NodeId, data: Vec<u8>, concern: Concern) -> Verdict {
    bench.engine.handle(Input::Proof { token: Token(77), from, data, concern }, bench.now);
    let mut verdict = None;
    while let Some(output) = bench.engine.poll_output() {
        match output {
            souk_protocol::machine::io::Output::Verdict { token: Token(77), verdict: v } => verdict = Some(v),
            souk_protocol::machine::io::Output::Persist { record, .. } => bench.records.push(*record),
            _ => {}
        }
    }
    verdict.unwrap()
}

fn kept(bench: &Bench) -> usize {
    bench.records.iter().filter(|r| matches!(r, Record::Fork(_))).count()
}

#[test]
fn only_what_proves_itself_is_kept_and_passed_on() {
    let mut bench = Bench::new(Keypair::from_seed(&[1; 32]));
    let guilty = key(1);
    let good = encode::to_bytes(&proof(&guilty));
    assert!(good.len() < 1024, "{}", good.len());
    let (a, b) = (report(&guilty, 5, 1).to_signed(), report(&guilty, 6, 2).to_signed());
    for nothing in [
        encode::to_bytes(&ForkProof::Heads(a.clone(), b)),
        encode::to_bytes(&ForkProof::Heads(a.clone(), a.clone())),
        encode::to_bytes(&ForkProof::Heads(a.clone(), report(&key(2), 5, 2).to_signed())),
        vec![0; 100],
        vec![0; limits::PROOF_BYTES + 1],
        Vec::new(),
    ] {
        assert_eq!(judged(&mut bench, nothing, Concern::Dealt), Verdict::Reject);
    }
    // Every bit of it counts.
    for at in (0..good.len()).step_by(7) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        let from = key(3_000_000 + u32::try_from(at).unwrap()).node_id();
        assert_ne!(judged_of(&mut bench, from, bad, Concern::Dealt), Verdict::Accept, "byte {at}");
    }
    assert_eq!((kept(&bench), bench.engine.is_forked(&guilty.node_id())), (0, false));
    assert_eq!(judged(&mut bench, good.clone(), Concern::Dealt), Verdict::Accept);
    assert_eq!(judged(&mut bench, good, Concern::Dealt), Verdict::Ignore, "once is enough");
    assert_eq!((kept(&bench), bench.engine.is_forked(&guilty.node_id())), (1, true));
}

#[test]
fn forks_of_fresh_keys_concern_nobody_and_the_table_is_bounded() {
    let mut bench = Bench::new(Keypair::from_seed(&[1; 32]));
    for n in 0..500 {
        assert_eq!(judged(&mut bench, encode::to_bytes(&proof(&key(n))), Concern::Nobody), Verdict::Ignore);
    }
    assert_eq!(kept(&bench), 0);
    // One peer alone passes on no more than its share, and is not blamed for more.
    let passed: Vec<Verdict> =
        (0..200).map(|n| judged(&mut bench, encode::to_bytes(&proof(&key(n))), Concern::Seen)).collect();
    let accepted = passed.iter().filter(|v| **v == Verdict::Accept).count();
    assert_eq!(accepted, usize::try_from(limits::PROOFS_PER_MINUTE).unwrap());
    assert!(passed.iter().all(|v| *v != Verdict::Reject));
    // Even where all of them were dealt with, there is an end.
    let most = u32::try_from(limits::PROOFS).unwrap();
    for n in 1_000..most + 3_000 {
        let from = key(2_000_000 + n / limits::PROOFS_PER_MINUTE).node_id();
        judged_of(&mut bench, from, encode::to_bytes(&proof(&key(n))), Concern::Dealt);
    }
    let gone = bench.records.iter().filter(|r| matches!(r, Record::Private(Private::ForkGone(_)))).count();
    assert_eq!(kept(&bench) - gone, limits::PROOFS);
}
