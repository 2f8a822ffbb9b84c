#![allow(clippy::unwrap_used)]

use super::*;
use crate::{
    machine::testkit::{NOW, key},
    money::Currency,
};

fn claim(n: u8, reference: &str) -> Claim {
    Claim {
        settle: DocumentId([n; 32]),
        peer: key(n).node_id(),
        said: Settle {
            n: 1,
            currency: Currency::usd(),
            amount: Amount(10),
            total: Amount(10),
            method: "bank".to_owned(),
            reference: reference.to_owned(),
        },
        time: NOW,
        until: None,
    }
}

fn all(arrivals: &mut Arrivals) -> Vec<Look> {
    std::iter::from_fn(|| arrivals.poll()).collect()
}

const HERE: Found = Found::Arrived { amount: None };

#[test]
fn a_program_is_asked_until_it_knows() {
    let mut arrivals = Arrivals::default();
    let c = claim(2, "a");
    arrivals.claimed(c.clone(), HowFound::Program, None);
    arrivals.claimed(c.clone(), HowFound::Program, None);
    assert_eq!(all(&mut arrivals), [Look::Ask(c.clone())], "claimed twice, looked for once");
    let mut now = NOW;
    for found in [Found::Pending { after: None }, Found::Unknown { why: "junk".to_owned() }] {
        arrivals.found(&c.settle, found, None, now);
        assert_eq!(all(&mut arrivals), []);
        now = arrivals.deadline().unwrap();
        arrivals.tick(now);
        assert_eq!(all(&mut arrivals), [Look::Ask(c.clone())]);
    }
    arrivals.found(&c.settle, HERE, None, now);
    assert_eq!(all(&mut arrivals), [Look::Use(c.clone()), Look::Done(c.clone(), Ok(Amount(10)))]);
    arrivals.found(&c.settle, HERE, None, now);
    assert_eq!(all(&mut arrivals), [], "an answer nobody waits for");
}

#[test]
fn while_an_open_waits_it_is_looked_for_every_second() {
    let mut arrivals = Arrivals::default();
    let c = Claim { until: Some(NOW + Millis::from_secs(20)), ..claim(2, "a") };
    arrivals.claimed(c.clone(), HowFound::Program, None);
    for second in 0..20 {
        let now = NOW + Millis::from_secs(second);
        arrivals.found(&c.settle, Found::Pending { after: Some(LATER) }, None, now);
        assert_eq!(arrivals.deadline(), Some(now + URGENT));
    }
    let now = NOW + Millis::from_secs(20);
    arrivals.found(&c.settle, Found::Pending { after: None }, None, now);
    assert_eq!(arrivals.deadline(), Some(now + AGAIN.0), "and then as others");
}

const LATER: Millis = Millis::from_mins(30);

#[test]
fn one_piece_of_money_counts_once() {
    let mut arrivals = Arrivals::default();
    let (first, second, third) = (claim(2, "a"), claim(3, "a"), claim(4, "a"));
    arrivals.claimed(first.clone(), HowFound::Program, None);
    arrivals.claimed(second.clone(), HowFound::Program, None);
    arrivals.found(&first.settle, HERE, None, NOW);
    arrivals.found(&second.settle, HERE, None, NOW);
    arrivals.claimed(third.clone(), HowFound::Program, None);
    let done: Vec<_> = all(&mut arrivals)
        .into_iter()
        .filter_map(
            |step| if let Look::Done(claim, result) = step { Some((claim.settle, result.is_ok())) } else { None },
        )
        .collect();
    assert_eq!(done, [(first.settle, true), (second.settle, false), (third.settle, false)]);
    // Nor after a restart, when only the disk knows; but the claim that has used it may be asked about again.
    let mut arrivals = Arrivals::default();
    arrivals.claimed(second, HowFound::Program, Some(first.settle));
    arrivals.claimed(first.clone(), HowFound::Program, Some(first.settle));
    let steps = all(&mut arrivals);
    assert!(
        matches!(&steps[..], [Look::Done(_, Err(_)), Look::Ask(claim)] if claim.settle == first.settle),
        "{steps:?}"
    );
}

#[test]
fn less_may_have_arrived_and_more_is_not_taken() {
    for (said, taken) in [(Some(Amount(4)), 4), (Some(Amount(99)), 10), (Some(Amount::ZERO), 0), (None, 10)] {
        let mut arrivals = Arrivals::default();
        let c = claim(2, "a");
        arrivals.claimed(c.clone(), HowFound::Program, None);
        arrivals.found(&c.settle, Found::Arrived { amount: said }, None, NOW);
        let last = all(&mut arrivals).pop();
        assert_eq!(last, Some(Look::Done(c, Ok(Amount(taken)))));
    }
}

#[test]
fn a_person_has_the_last_word() {
    let mut arrivals = Arrivals::default();
    let (c, d) = (claim(2, "a"), claim(3, "b"));
    arrivals.claimed(c.clone(), HowFound::Person, None);
    arrivals.claimed(d.clone(), HowFound::Program, None);
    assert_eq!(all(&mut arrivals), [Look::Tell(c.clone()), Look::Ask(d.clone())]);
    assert_eq!((arrivals.deadline(), arrivals.iter().count()), (None, 2), "a person takes as long as it takes");
    assert_eq!(arrivals.confirm(&DocumentId([9; 32]), Amount(1)), None);
    assert_eq!(arrivals.confirm(&c.settle, Amount(11)), Some(Amount(10)));
    assert_eq!(arrivals.confirm(&d.settle, Amount::ZERO), Some(Amount::ZERO), "also about what a program looks for");
    assert_eq!(
        all(&mut arrivals),
        [Look::Use(c.clone()), Look::Done(c, Ok(Amount(10))), Look::Done(d, Ok(Amount::ZERO))]
    );
    assert_eq!(arrivals.iter().count(), 0);
}
