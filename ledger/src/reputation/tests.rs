#![allow(clippy::unwrap_used)]
use proptest::prelude::*;
use souk_protocol::{
    LeaseId, Millis,
    entry::Body,
    lease::EndReason,
    opinion::{Dispute, DisputeCode},
};

use std::sync::Arc;

use super::*;
use crate::{
    commit::{Backend, Ledger},
    fixture::{Deal, Party},
    journal::{Sizes, simulated::SimulatedDisk},
    record::Fact,
    reputation::{evidence::CLOSED_WITHIN, graph::Pair, walk::Scratch},
    state::Applied,
};

const NOW: Timestamp = Timestamp(1_800_000_000_000);

fn node(n: u8) -> NodeId {
    NodeId([n; 32])
}

fn evidence(lease: u8, renter: u8, host: u8, units: u64) -> Evidence {
    Evidence {
        lease: LeaseId([lease; 32]),
        host: node(host),
        renter: node(renter),
        signatures: 6,
        n: 1,
        currency: Currency::usd(),
        agreed: Amount(units * NANO),
        settled: Amount(units * NANO),
        used: Millis(0),
        at: NOW,
        closed: true,
        ends_at: NOW,
        failures: BTreeSet::new(),
    }
}

fn failed(cause: Cause, admitted: bool) -> Failure {
    Failure { cause, against: Side::Host, admitted }
}

fn seen(me: u8, evidence: Vec<Evidence>) -> Reputation {
    Reputation { evidence, ..Reputation::new(node(me)) }
}

#[test]
fn nothing_known_is_a_stranger() {
    let scores = seen(1, Vec::new()).compute(NOW);
    assert_eq!(scores.of(&node(2)), Score::stranger());
    assert_eq!(format!("{:.2}", Score::stranger().trust), "0.13");
}

#[test]
fn own_receipts_count_in_full_and_are_named() {
    let mut bad = evidence(2, 1, 3, 0);
    bad.failures.insert(failed(Cause::NoShow, false));
    let scores = seen(1, vec![evidence(1, 1, 2, 7), bad]).compute(NOW);
    let good = scores.of(&node(2));
    assert_eq!((good.successes, good.failures), (3.0, 0.0));
    assert!((good.trust - scale::lower_bound(4.0, 1.0)).abs() < 1e-12);
    let bad = scores.explain(Side::Host, &node(3), 10);
    let kind = Kind::Failure { cause: Cause::NoShow, admitted: false };
    assert_eq!(bad.reasons, [Reason { lease: Some(LeaseId([2; 32])), rater: node(1), kind, weight: 0.5 }]);
    assert!(bad.score.trust < Score::stranger().trust);
    assert_eq!(scores.of_renter(&node(2)), Score::stranger());
}

#[test]
fn explanations_add_up_to_the_score() {
    let mut all = Vec::new();
    for n in 0..40 {
        // Renters 100… deal with hosts 50…; the first two are seeds.
        let mut e = evidence(n, 100 + n % 8, 50 + n % 5, 3 + u64::from(n));
        if n % 6 == 0 {
            e.failures.insert(failed(Cause::HostAbort, true));
        }
        all.push(e);
    }
    let mut view = seen(1, all);
    view.seeds = [(node(100), Seed::Listed), (node(101), Seed::Trusted)].into();
    let scores = view.compute(NOW);
    let mut failures = 0.0;
    for host in 50..55 {
        let told = scores.explain(Side::Host, &node(host), 1000);
        let sum = |good: bool| -> f64 {
            told.reasons.iter().filter(|r| (r.kind == Kind::Success) == good).map(|r| r.weight).sum()
        };
        assert!(told.score.successes > 0.0);
        assert!((sum(true) - told.score.successes).abs() < 1e-9);
        assert!((sum(false) - told.score.failures).abs() < 1e-9);
        failures += told.score.failures;
        assert_eq!(scores.explain(Side::Host, &node(host), 1).left_out, told.reasons.len() - 1);
    }
    assert!(failures > 0.0);
}

#[test]
fn what_was_measured_counts_by_itself() {
    let window = |n: u64, up_permille| Probe {
        lease: None,
        peer: node(2),
        at: NOW,
        seen: souk_protocol::opinion::Observation::Uptime { from: Timestamp(NOW.0 - n * 43_200_000), up_permille },
    };
    let figure = |measured| Probe {
        lease: None,
        peer: node(3),
        at: NOW,
        seen: souk_protocol::opinion::Observation::Performance { what: "dlperf".to_owned(), promised: 100, measured },
    };
    let mut view = seen(1, Vec::new());
    // The third is older than 30 days.
    view.probes = vec![window(1, 1000), window(2, 500), window(70, 0), figure(91), figure(60)];
    let scores = view.clone().compute(NOW);
    assert_eq!(scores.of(&node(2)).uptime, Some(0.75));
    assert!((scores.of(&node(2)).trust - Score::stranger().trust * 0.875).abs() < 1e-12);
    assert_eq!(scores.of(&node(3)).failures, 0.0, "the newest of two figures of one moment is the better one");
    view.probes = vec![figure(89)];
    let scores = view.compute(NOW);
    assert_eq!(scores.of(&node(3)).failures, 1.0);
    assert_eq!(scores.explain(Side::Host, &node(3), 5).reasons.len(), 1);
}

#[test]
fn what_was_watched_of_leases_fills_windows_in_which_nothing_else_was_seen() {
    use souk_protocol::{
        LeaseId, Millis,
        opinion::{Observation, UPTIME_WINDOW, Watched},
    };
    let begin = |n: u64| Timestamp((NOW.0 / UPTIME_WINDOW.0 - n) * UPTIME_WINDOW.0);
    let look = |n, up_permille| Probe {
        lease: None,
        peer: node(2),
        at: begin(n),
        seen: Observation::Uptime { from: begin(n), up_permille },
    };
    // From the middle of one window into that after the next one.
    let rental = |n, hours, answered| Probe {
        lease: Some(LeaseId([7; 32])),
        peer: node(2),
        at: begin(n - 2) + Millis::from_hours(1),
        seen: Observation::Rental(Watched {
            from: begin(n) + Millis::from_hours(6),
            watched: Millis::from_hours(hours),
            answered: Millis::from_hours(answered),
        }),
    };
    let uptime = |probes: Vec<Probe>| {
        let mut view = seen(1, Vec::new());
        view.probes = probes;
        view.compute(NOW).of(&node(2)).uptime
    };
    assert_eq!(uptime(vec![rental(10, 10, 5)]), Some(0.5));
    assert_eq!(uptime(vec![rental(10, 2, 1)]), None, "less than an hour of each window says nothing of them");
    assert_eq!(uptime(vec![rental(70, 10, 5)]), None, "older than 30 days");
    // Three windows, of which two were looked at: those count as looked at, once.
    assert_eq!(uptime(vec![look(9, 1000), look(8, 1000), rental(10, 10, 4)]), Some(0.8));
    assert_eq!(uptime(vec![look(10, 0), look(9, 0), look(8, 0), rental(10, 10, 10)]), Some(0.0));
    let mut view = seen(1, Vec::new());
    view.probes = vec![rental(10, 10, 5)];
    let told = view.compute(NOW).explain(Side::Host, &node(2), 5);
    assert!(matches!(told.reasons[..], [Reason { kind: Kind::Watched(_), lease: Some(_), .. }]));
}

#[test]
fn the_blocked_have_no_score_and_no_say() {
    let mut view = seen(1, vec![evidence(1, 1, 2, 7), evidence(2, 3, 2, 7)]);
    view.blocked.insert(node(2));
    let scores = view.compute(NOW);
    assert_eq!(scores.of(&node(2)).trust, 0.0);
    assert_eq!(scores.leases(), 0);
}

#[test]
fn neither_side_hides_what_speaks_against_it() {
    let mut hosts = evidence(1, 1, 2, 7);
    hosts.signatures = 7;
    let mut renters = evidence(1, 1, 2, 3);
    renters.failures.insert(failed(Cause::Bait, false));
    for order in [[hosts.clone(), renters.clone()], [renters, hosts]] {
        let scores = seen(1, order.to_vec()).compute(NOW);
        assert_eq!(scores.leases(), 1);
        let score = scores.of(&node(2));
        assert_eq!((score.successes, score.failures), (3.0, 1.0));
    }
}

#[test]
fn a_lease_nobody_closed_counts_against_both() {
    let mut open = evidence(1, 1, 2, 7);
    open.closed = false;
    let at = |after: u64| seen(2, vec![open.clone()]).compute(Timestamp(NOW.0 + after));
    assert_eq!(at(CLOSED_WITHIN.0).of_renter(&node(1)).failures, 0.0);
    let late = at(CLOSED_WITHIN.0 + 1).of_renter(&node(1)).failures;
    assert!(late > 0.4 && late <= 0.5, "{late}");
}

#[test]
fn payments_pay_leases_in_their_order() {
    let mut leases = [evidence(1, 1, 2, 5), evidence(2, 1, 2, 5), evidence(3, 4, 2, 5)];
    leases[0].at = Timestamp(NOW.0 + 1);
    leases.iter_mut().for_each(|e| e.settled = Amount::ZERO);
    let paid = |total| Paid { payer: node(1), payee: node(2), currency: Currency::usd(), total: Amount(total * NANO) };
    settle(&mut leases, &[paid(7), paid(4)]);
    assert_eq!(leases.each_ref().map(|e| e.settled.0 / NANO), [2, 5, 0]);
}

#[test]
fn evidence_is_read_from_signed_documents() {
    let (mut host, mut renter) = (Party::new(1), Party::new(2));
    let own = host.key.node_id();
    let disk = Arc::new(SimulatedDisk::default());
    let sizes = Sizes { segment: 64 << 10, first: 4 << 10, step: 16 << 10, replace: 64 << 20 };
    let mut ledger = Ledger::open_with(disk, sizes, &Backend::Memory, own, host.network).unwrap();
    let mut deal = Deal::new(&host, &renter, 1);
    let mut tell = |fact: Fact| {
        assert_eq!(ledger.stage(&fact).unwrap(), Applied::New);
        ledger.commit().unwrap();
        ledger.view().lease(&deal_id(&fact)).unwrap()
    };
    tell(Fact::Entry(host.genesis()));
    renter.genesis();
    let opened = tell(Fact::Entry(deal.open(&mut renter, &host))).unwrap();
    assert_eq!(Evidence::from_lease(&opened), None, "the host has not accepted");
    tell(Fact::Entry(deal.accept(&mut host, &renter)));
    tell(Fact::Usage(deal.usage(&host)));
    let lease = tell(Fact::Ack(deal.ack(&renter, 3))).unwrap();
    let e = Evidence::from_lease(&lease).unwrap();
    assert_eq!((e.host, e.renter, e.lease), (own, renter.key.node_id(), deal.id));
    assert_eq!((e.agreed, e.settled, e.closed), (lease.agreed(), Amount::ZERO, false));
    assert!(e.agreed > Amount::ZERO && e.used == Millis(60_000) && e.n == 1 && e.failures.is_empty());
    assert_eq!(e.signatures, 4);
    let complaint = Dispute { about: deal.id.into(), code: DisputeCode::Bait, sentence: "half the memory".to_owned() };
    tell(Fact::Entry(renter.say(Some(deal.id), &host, Body::Dispute(complaint))));
    let close = Body::Close { reason: EndReason::HostAborted, usage: None, due: Amount::ZERO };
    let lease = tell(Fact::Entry(host.say(Some(deal.id), &renter, close))).unwrap();
    let e = Evidence::from_lease(&lease).unwrap();
    assert_eq!(e.failures, BTreeSet::from([failed(Cause::HostAbort, true), failed(Cause::Bait, false)]));
    assert!(e.closed && e.signatures == 5);
}

/// The lease a fact is about; the zero id for none.
fn deal_id(fact: &Fact) -> LeaseId {
    match fact {
        Fact::Entry(entry) => entry.lease.unwrap_or_default(),
        Fact::Usage(usage) => usage.lease,
        Fact::Ack(ack) => ack.lease,
        Fact::Fork(_) | Fact::Private(_) => LeaseId::default(),
    }
}

/// The walk as a sum over all paths, by recursion: what [`Walk`] must come to where nothing is halved.
fn paths(graph: &Graph, from: usize, left: usize, weight: f64, mass: &mut [f64], avoid: Option<usize>) {
    if left == 0 {
        return;
    }
    let all: f64 = graph.trade[from].iter().map(|(_, v)| v).sum();
    for (to, value) in &graph.trade[from] {
        if avoid != Some(*to as usize) {
            let next = weight * (1.0 - limits::RESTART) * value / all;
            mass[*to as usize] += limits::RESTART * next;
            paths(graph, *to as usize, left - 1, next, mass, avoid);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_walk_is_the_sum_over_its_paths(trades in prop::collection::vec((1_u8..5, 5_u8..9, 1_u64..30), 1..14)) {
        let leases: Vec<Evidence> =
            (0_u8..).zip(&trades).map(|(n, (renter, host, units))| evidence(n, *renter, *host, *units)).collect();
        let units = Reputation::new(node(1)).units;
        let graph = Graph::new(&leases, &BTreeSet::from([node(1)]), &units, NOW);
        // All nodes are starts, so nothing is a bridge.
        let share = 1.0 / graph.nodes.len() as f64;
        let walk = Walk::new(&graph, vec![share; graph.nodes.len()], &[]);
        let sum = |avoid: Option<usize>| {
            let mut mass = vec![0.0; graph.nodes.len()];
            for n in (0..graph.nodes.len()).filter(|n| Some(*n) != avoid) {
                paths(&graph, n, limits::DEPTH, share, &mut mass, avoid);
            }
            mass
        };
        for (walked, summed) in walk.mass.iter().zip(sum(None)) {
            prop_assert!((walked - summed).abs() < 1e-12);
        }
        // Without a node: its raters keep what comes around it, but for four steps that begin at it.
        let mut scratch = Scratch::new(graph.nodes.len());
        for host in 0..graph.nodes.len() as Index {
            let raters: Vec<Index> = graph.pairs_of(host, Side::Host).map(|p: &Pair| p.renter).collect();
            let kept = walk.without(host, raters.iter().copied(), &mut scratch);
            let around = sum(Some(host as usize));
            for (rater, kept) in raters.iter().zip(kept) {
                let slack = share * limits::RESTART * (1.0 - limits::RESTART).powi(4);
                let exact = around[*rater as usize];
                prop_assert!(kept >= exact - 1e-12 && kept <= exact + slack + 1e-12, "{kept} {exact}");
            }
        }
    }

    #[test]
    fn any_order_and_doubles_make_the_same_bits(
        trades in prop::collection::vec((1_u8..9, 5_u8..13, 0_u64..30, 0_u64..200, 0_usize..8, 1_u8..4), 1..60),
        order in any::<u64>(),
    ) {
        let mut leases = Vec::new();
        for (n, (renter, host, units, days, cause, signatures)) in (0_u8..).zip(trades) {
            // Few lease ids, so that some have several accounts; a lease has one pair of parties.
            let mut e = evidence(n % 32, renter, host, units);
            e.at = Timestamp(NOW.0 - days * 86_400_000);
            e.signatures = signatures;
            if let Some(cause) = Cause::ALL.get(cause) {
                e.failures.insert(failed(*cause, n % 2 == 0));
            }
            if let Some(known) = leases.iter().find(|k: &&Evidence| k.lease == e.lease) {
                (e.renter, e.host) = (known.renter, known.host);
            }
            leases.push(e);
        }
        let compute = |leases: Vec<Evidence>| {
            let mut view = seen(1, leases);
            view.seeds = [(node(3), Seed::Listed), (node(6), Seed::Attester)].into();
            view.vouches = BTreeSet::from([(node(6), node(12))]);
            view.compute(NOW)
        };
        let one = compute(leases.clone());
        let half = leases.len() / 2;
        leases.extend_from_within(..half);
        leases.sort_by_key(|e| souk_protocol::Digest::of(&[&e.lease.0[..], &order.to_le_bytes(), &[e.signatures]].concat()));
        let other = compute(leases);
        for n in 1..14 {
            for side in [Side::Host, Side::Renter] {
                let bits = |s: Score| [s.trust, s.reliability, s.successes, s.failures].map(f64::to_bits);
                prop_assert_eq!(bits(one.on(side, &node(n))), bits(other.on(side, &node(n))));
                prop_assert_eq!(one.explain(side, &node(n), 99), other.explain(side, &node(n), 99));
            }
        }
    }
}

#[test]
fn too_much_evidence_is_cut_the_least_useful_first() {
    let lease = |n: u32, units: u64| {
        let mut e = evidence(0, 1, 2, units);
        e.lease.0[..4].copy_from_slice(&n.to_be_bytes());
        e
    };
    let many: Vec<Evidence> = (0..limits::EVIDENCE_OF_PAIR as u32 + 50).map(|n| lease(n, 1 + u64::from(n))).collect();
    let scores = seen(1, many).compute(NOW);
    assert_eq!(scores.leases(), limits::EVIDENCE_OF_PAIR);
    let told = scores.explain(Side::Host, &node(2), usize::MAX);
    assert!(told.reasons.iter().all(|r| r.lease.is_some_and(|l| l.0[..4] >= 50_u32.to_be_bytes()[..])));
}
