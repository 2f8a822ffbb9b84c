#![allow(clippy::unwrap_used)]
use std::sync::Arc;

use souk_protocol::{Amount, Keypair, NetworkId, Verified, encode, entry::Body, lease::LeaseState};

use super::*;
use crate::{
    commit::{Backend, Ledger},
    export::{Filter, Item, Trailer, export},
    fixture::{Deal, Party},
    journal::{Sizes, simulated::SimulatedDisk},
    record::{Fact, Private},
};

fn ledger_of(party: &Party, facts: &[Fact]) -> Ledger {
    let (own, network) = (party.key.node_id(), party.network);
    let disk = Arc::new(SimulatedDisk::default());
    let mut ledger = Ledger::open_with(disk, Sizes::default(), &Backend::Memory, own, network).unwrap();
    for fact in facts {
        ledger.stage(fact).unwrap();
    }
    ledger.commit().unwrap();
    ledger
}

/// A host's ledger of two leases with three receipts each, the second of them still running, and one unanswered open.
fn sample() -> (Party, Ledger, Vec<Deal>) {
    let (mut host, mut renter) = (Party::new(1), Party::new(2));
    let mut facts = vec![Fact::Entry(host.genesis())];
    renter.genesis();
    let mut deals = Vec::new();
    for number in 0..3 {
        let mut deal = Deal::new(&host, &renter, number);
        facts.push(Fact::Entry(deal.open(&mut renter, &host)));
        if number < 2 {
            facts.push(Fact::Entry(deal.accept(&mut host, &renter)));
            for _ in 0..3 {
                facts.push(Fact::Usage(deal.usage(&host)));
                facts.push(Fact::Ack(deal.ack(&renter, 0)));
            }
            facts.push(Fact::Private(Private::State {
                lease: deal.id,
                time: souk_protocol::Timestamp(1),
                state: LeaseState::Running,
            }));
        }
        if number == 0 {
            let close = deal.close(&mut host, &renter);
            facts.push(Fact::Entry(close.clone()));
            facts.push(Fact::Entry(deal.close_ack(&close, &mut renter, &host)));
        }
        deals.push(deal);
    }
    let ledger = ledger_of(&host, &facts);
    (host, ledger, deals)
}

fn exported(host: &Party, ledger: &Ledger, filter: Filter) -> Vec<u8> {
    let mut bytes = Vec::new();
    export(&ledger.view(), filter, &host.key, &mut bytes).unwrap();
    bytes
}

fn check(bytes: &[u8]) -> Report {
    verify_on(bytes, 2).unwrap()
}

#[test]
fn an_export_is_valid_and_says_what_it_holds() {
    let (host, ledger, deals) = sample();
    let report = check(&exported(&host, &ledger, Filter::All));
    assert_eq!(report.verdict, Verdict::Valid);
    assert_eq!(report.verdict.exit_code(), 0);
    assert_eq!((report.records, report.leases, report.unanswered), (20, 3, 1));
    assert_eq!(report.unanswered_leases, [deals[2].id]);
    let due: u64 = deals[..2].iter().map(|d| d.usage.as_ref().unwrap().due.0).sum();
    assert_eq!(report.agreed.values().collect::<Vec<_>>(), [&Amount(due)]);

    let one = check(&exported(&host, &ledger, Filter::Lease(deals[1].id)));
    assert_eq!(one.verdict, Verdict::Valid);
    assert_eq!((one.records, one.leases, one.unanswered), (8, 1, 0));
}

#[test]
fn any_changed_byte_fails() {
    let (host, ledger, deals) = sample();
    let good = exported(&host, &ledger, Filter::Lease(deals[0].id));
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        let report = verify_on(&bad[..], 1).unwrap();
        match report.verdict {
            Verdict::Valid => panic!("byte {at} of {} does not matter", good.len()),
            Verdict::Invalid(fault) | Verdict::Incomplete(fault) => {
                assert!(fault.offset <= good.len() as u64);
            }
        }
    }
}

#[test]
fn a_cut_export_is_incomplete_wherever_it_was_cut() {
    let (host, ledger, _) = sample();
    let good = exported(&host, &ledger, Filter::All);
    let mut borders = vec![0];
    let mut at = 0;
    while at < good.len() {
        let len = u32::from_le_bytes(*good[at..].first_chunk().unwrap());
        at += 4 + len as usize;
        borders.push(at);
    }
    for cut in borders[..borders.len() - 1].iter().flat_map(|b| [*b, b + 2, b + 9]) {
        let report = verify_on(&good[..cut], 1).unwrap();
        assert!(matches!(report.verdict, Verdict::Incomplete(_)), "cut at {cut}: {:?}", report.verdict);
        assert_eq!(report.verdict.exit_code(), 6);
    }
    let mut longer = good.clone();
    longer.push(0);
    assert!(matches!(check(&longer).verdict, Verdict::Invalid(_)));
    assert!(matches!(check(b"not an export at all, but long enough").verdict, Verdict::Invalid(_)));
}

/// Frames of an export, to be rearranged and signed again by its own author.
fn items(bytes: &[u8]) -> (Header, Vec<Vec<u8>>) {
    let mut frames = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let len = u32::from_le_bytes(*bytes[at..].first_chunk().unwrap()) as usize;
        frames.push(bytes[at + 4..at + 4 + len].to_vec());
        at += 4 + len;
    }
    frames.pop();
    let header = encode::from_bytes(&frames.remove(0), FRAME_BYTES).unwrap();
    (header, frames)
}

fn sealed(header: &Header, frames: &[Vec<u8>], key: &Keypair) -> Vec<u8> {
    let mut bytes = Vec::new();
    let push = |bytes: &mut Vec<u8>, body: &[u8]| {
        bytes.extend_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
        bytes.extend_from_slice(body);
    };
    push(&mut bytes, &encode::to_bytes(header));
    let mut head = None;
    for frame in frames {
        if let Ok(Item::Entry(entry)) = encode::from_bytes(frame, FRAME_BYTES) {
            let entry = entry.verify(&header.network).unwrap();
            if entry.author == key.node_id() {
                head = Some(entry.id());
            }
        }
        push(&mut bytes, frame);
    }
    let trailer =
        Trailer { author: key.node_id(), count: frames.len() as u64, head, digest: souk_protocol::Digest::of(&bytes) };
    let trailer = Verified::sign(trailer, key, &header.network).unwrap();
    push(&mut bytes, &encode::to_bytes(&Item::Trailer(trailer.to_signed())));
    bytes
}

/// What is wrong, with the frame's number.
fn fault(bytes: &[u8]) -> (u64, String) {
    match check(bytes).verdict {
        Verdict::Invalid(fault) => (fault.record, fault.what),
        other @ (Verdict::Valid | Verdict::Incomplete(_)) => panic!("{other:?}"),
    }
}

#[test]
fn an_author_can_not_leave_out_or_rearrange_its_own_records() {
    let (host, ledger, _) = sample();
    let (header, frames) = items(&exported(&host, &ledger, Filter::All));
    assert_eq!(check(&sealed(&header, &frames, &host.key)).verdict, Verdict::Valid);

    // Left out: our accept (frame 3), whose successors then find no lease, or a gap in the chain.
    let mut without = frames.clone();
    without.remove(2);
    assert_eq!(fault(&sealed(&header, &without, &host.key)).0, 3);
    // Twice, and swapped.
    let mut twice = frames.clone();
    twice.insert(4, frames[3].clone());
    assert_eq!(fault(&sealed(&header, &twice, &host.key)), (5, "it is there twice".to_owned()));
    let mut swapped = frames.clone();
    swapped.swap(3, 4);
    assert_eq!(fault(&sealed(&header, &swapped, &host.key)).0, 4);
    // Sealed by somebody else.
    let other = Keypair::from_seed(&[9; 32]);
    assert!(fault(&sealed(&header, &frames, &other)).1.contains("not the author's"));
    // Of another network.
    let elsewhere = Header { network: NetworkId([4; 32]), ..header.clone() };
    let bytes = {
        let mut bytes = sealed(&header, &frames, &host.key);
        let (old, new) = (encode::to_bytes(&header), encode::to_bytes(&elsewhere));
        bytes.splice(4..4 + old.len(), new);
        bytes
    };
    assert_eq!(fault(&bytes).0, 1);
}

#[test]
fn a_false_sum_is_found_though_its_author_signed_it() {
    let (host, ledger, _) = sample();
    let (header, mut frames) = items(&exported(&host, &ledger, Filter::All));
    let Ok(Item::Usage(usage)) = encode::from_bytes(&frames[3], FRAME_BYTES) else {
        panic!("the fourth record is the first usage");
    };
    let mut usage = (*usage.verify(&header.network).unwrap()).clone();
    usage.due = Amount(usage.due.0 + 1);
    let usage = Verified::sign(usage, &host.key, &header.network).unwrap();
    frames[3] = encode::to_bytes(&Item::Usage(usage.to_signed()));
    let (record, what) = fault(&sealed(&header, &frames, &host.key));
    assert_eq!(record, 4);
    assert!(what.contains("its sum is not what the rates make"), "{what}");
}

#[test]
fn many_records_pass_through_few_buffers() {
    let (mut host, mut renter) = (Party::new(1), Party::new(2));
    let mut facts = vec![Fact::Entry(host.genesis())];
    renter.genesis();
    let mut deal = Deal::new(&host, &renter, 1);
    facts.push(Fact::Entry(deal.open(&mut renter, &host)));
    facts.push(Fact::Entry(deal.accept(&mut host, &renter)));
    for _ in 0..2000 {
        facts.push(Fact::Usage(deal.usage(&host)));
        facts.push(Fact::Ack(deal.ack(&renter, 0)));
    }
    let ledger = ledger_of(&host, &facts);
    let bytes = exported(&host, &ledger, Filter::All);
    for threads in [1, 3] {
        let report = verify_on(&bytes[..], threads).unwrap();
        assert_eq!(report.verdict, Verdict::Valid);
        assert_eq!(report.records, 4003);
    }
    // The first fault is the one reported, whichever thread met it first.
    let mut bad = bytes.clone();
    let (early, late) = (bytes.len() / 3, bytes.len() / 2);
    bad[early] ^= 1;
    bad[late] ^= 1;
    if let Verdict::Invalid(fault) = verify_on(&bad[..], 3).unwrap().verdict {
        assert!(fault.offset <= early as u64);
    }
}

/// Bounds so narrow that small files meet them.
const NARROW: Bounds = Bounds {
    open_leases: 3,
    closed_leases: 2,
    old_leases: 4,
    entries: 8,
    settlements: 2,
    balances: 2,
    authors: 3,
    group: 4,
};

fn within(host: &Party, facts: &[Fact]) -> Verdict {
    let header = Header {
        format: FORMAT.to_owned(),
        version: VERSION,
        network: host.network,
        author: host.key.node_id(),
        filter: Filter::All,
    };
    let frames: Vec<Vec<u8>> = facts.iter().map(|fact| encode::to_bytes(&item_of(fact))).collect();
    verify_within(&sealed(&header, &frames, &host.key)[..], 1, NARROW).unwrap().verdict
}

fn item_of(fact: &Fact) -> Item {
    match fact {
        Fact::Entry(entry) => Item::Entry(entry.to_signed()),
        Fact::Usage(usage) => Item::Usage(usage.to_signed()),
        Fact::Ack(ack) => Item::Ack(ack.to_signed()),
        Fact::Private(_) => unreachable!("it is never exported"),
    }
}

fn complaint(about: souk_protocol::DocumentId) -> Body {
    let code = souk_protocol::opinion::DisputeCode::Other;
    Body::Dispute(souk_protocol::opinion::Dispute { about, code, sentence: "it was slow".to_owned() })
}

#[test]
fn a_lease_closed_long_ago_can_still_be_complained_of_and_not_be_opened_again() {
    let (mut host, mut renter) = (Party::new(1), Party::new(2));
    let mut facts = vec![Fact::Entry(host.genesis())];
    renter.genesis();
    let mut first = None;
    for number in 0..6 {
        let mut deal = Deal::new(&host, &renter, number);
        facts.push(Fact::Entry(deal.open(&mut renter, &host)));
        facts.push(Fact::Entry(deal.accept(&mut host, &renter)));
        facts.push(Fact::Usage(deal.usage(&host)));
        let close = deal.close(&mut host, &renter);
        facts.push(Fact::Entry(close.clone()));
        facts.push(Fact::Entry(deal.close_ack(&close, &mut renter, &host)));
        first = first.or(Some(deal));
    }
    let mut first = first.unwrap();
    let with = |fact: Fact| within(&host, &[facts.clone(), vec![fact]].concat());
    let complaint = complaint(first.id.into());
    assert_eq!(with(Fact::Entry(renter.clone().say(Some(first.id), &host, complaint.clone()))), Verdict::Valid);
    let mut stranger = Party::new(3);
    stranger.genesis();
    let Verdict::Invalid(fault) = with(Fact::Entry(stranger.say(Some(first.id), &host, complaint))) else {
        panic!("a stranger complains of it");
    };
    assert!(fault.what.contains("not its author's"), "{}", fault.what);
    let Verdict::Invalid(fault) = with(Fact::Entry(first.open(&mut renter, &host))) else {
        panic!("it is opened twice");
    };
    assert!(fault.what.contains("open already"), "{}", fault.what);
}

#[test]
fn too_many_open_leases_or_peers_are_given_up_on() {
    let mut host = Party::new(1);
    let genesis = Fact::Entry(host.genesis());
    let mut facts = vec![genesis.clone()];
    let mut renter = Party::new(2);
    renter.genesis();
    for number in 0..4 {
        facts.push(Fact::Entry(Deal::new(&host, &renter, number).open(&mut renter, &host)));
    }
    assert_eq!(within(&host, &facts[..4]), Verdict::Valid);
    assert!(matches!(within(&host, &facts), Verdict::Invalid(fault) if fault.what.contains("leases are open")));

    // Each of them says one thing, with a key that costs nothing.
    let mut facts = vec![genesis];
    for seed in 10..14 {
        let mut peer = Party::new(seed);
        peer.genesis();
        let claim = souk_protocol::opinion::Attestation { claim: "kind".to_owned(), until: None, withdrawn: false };
        facts.push(Fact::Entry(peer.say(None, &host, Body::Attestation(claim))));
    }
    assert_eq!(within(&host, &facts[..3]), Verdict::Valid);
    assert!(matches!(within(&host, &facts), Verdict::Invalid(fault) if fault.what.contains("peers")));
}

#[test]
fn what_is_remembered_does_not_grow_with_the_file() {
    let (mut host, mut renter) = (Party::new(1), Party::new(2));
    let mut rows = Vec::new();
    let network = host.network;
    let mut audit = Audit::new(
        &Header {
            format: FORMAT.to_owned(),
            version: VERSION,
            network,
            author: host.key.node_id(),
            filter: Filter::All,
        },
        NARROW,
    );
    let mut record = 0;
    let mut take = |audit: &mut Audit, fact| {
        record += 1;
        audit.take(Checked { offset: 0, record, fact: Ok(fact) }).unwrap();
    };
    take(&mut audit, Fact::Entry(host.genesis()));
    renter.genesis();
    for number in 0..60 {
        let mut deal = Deal::new(&host, &renter, number);
        take(&mut audit, Fact::Entry(deal.open(&mut renter, &host)));
        take(&mut audit, Fact::Entry(deal.accept(&mut host, &renter)));
        for day in 0..5 {
            let mut usage = deal.usage_value(day + 1, &host);
            usage.time = souk_protocol::Timestamp(crate::fixture::START + (number * 5 + day) * 86_400_000);
            let usage = Verified::sign(usage, &host.key, &network).unwrap();
            deal.usage = Some(usage.clone());
            take(&mut audit, Fact::Usage(usage));
        }
        let settle = souk_protocol::settlement::Settle {
            n: u32::try_from(number).unwrap() + 1,
            currency: souk_protocol::Currency::usd(),
            amount: Amount(5),
            total: Amount(5 * (number + 1)),
            method: "manual".to_owned(),
            reference: String::new(),
        };
        take(&mut audit, Fact::Entry(renter.say(None, &host, Body::Settle(settle))));
        let close = deal.close(&mut host, &renter);
        take(&mut audit, Fact::Entry(close.clone()));
        take(&mut audit, Fact::Entry(deal.close_ack(&close, &mut renter, &host)));
        rows.push(audit.rows());
    }
    let (early, late) = (rows[..20].iter().max().unwrap(), rows[20..].iter().max().unwrap());
    assert!(late <= early && *late < 60, "{rows:?}");
}
