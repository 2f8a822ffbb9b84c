//! What must hold of every market and every query.

use std::{cmp::Ordering, collections::BTreeSet};

use proptest::prelude::*;
use souk_protocol::{
    AskId,
    machine::search::{AskIndex, AskView, Datum, Options, OrderBy, performance, search},
    query::{Field, Query, Version, fields},
};

use crate::{
    everything, facts_of, index_of,
    market::{self, Dice},
    naive::matches,
    run,
};

fn ids(asks: &[AskView]) -> BTreeSet<AskId> {
    asks.iter().map(|a| a.ask).collect()
}

/// One condition, mostly on values that the market has.
fn condition(dice: &mut Dice, asks: &[AskView]) -> String {
    let info = &fields()[dice.below(fields().len() as u64) as usize];
    let value = |dice: &mut Dice| loop {
        let ask = &asks[dice.below(asks.len() as u64) as usize];
        match ask.get(info.field) {
            Datum::Absent => {
                if dice.percent(2) {
                    return match info.kind.is_ordered() {
                        true => Some("1".to_owned()),
                        false => None,
                    };
                }
            }
            Datum::Number(x) if !x.is_finite() => return Some("1".to_owned()),
            Datum::Number(x) => return Some(x.to_string()),
            Datum::Bool(b) => return Some(b.to_string()),
            Datum::Text(t) if info.field == Field::DriverVersion => {
                return Version::parse(t).map(|v| v.to_string());
            }
            Datum::Text(t) if t.len() >= 8 && ["id", "machine_id"].contains(&info.name) => {
                return Some(t[..1 + dice.below(7) as usize].to_owned());
            }
            Datum::Text(t) => return Some(format!("\"{t}\"")),
        }
    };
    let Some(first) = value(dice) else {
        return format!("{}=any", info.name);
    };
    let operators: &[&str] = if info.kind.is_ordered() {
        &["<", "<=", "=", "!=", ">=", ">", "in", "notin"]
    } else {
        &["=", "!=", "in", "notin"]
    };
    match *dice.pick(operators) {
        operator @ ("in" | "notin") => {
            let second = value(dice).unwrap_or_else(|| first.clone());
            format!("{} {operator} [{first},{second}]", info.name)
        }
        operator => format!("{}{operator}{first}", info.name),
    }
}

fn query(dice: &mut Dice, asks: &[AskView], depth: u64) -> String {
    let part = |dice: &mut Dice| query(dice, asks, depth - 1);
    match dice.below(if depth == 0 { 1 } else { 6 }) {
        0 | 1 => condition(dice, asks),
        2 => format!("not ({})", part(dice)),
        3 => format!("({}) or ({})", part(dice), part(dice)),
        _ => format!("{} ({})", part(dice), part(dice)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(16) })]

    #[test]
    fn search_finds_what_a_naive_evaluator_finds_and_explains_it(seed: u64) {
        let mut dice = Dice(seed);
        let offers = market::offers(1500, seed);
        let index = index_of(&offers);
        let asks = run(&index, "", &everything()).rows;
        for _ in 0..20 {
            let text = query(&mut dice, &asks, 3);
            let parsed = Query::parse(&text).unwrap();
            let expected: Vec<AskView> =
                asks.iter().filter(|a| matches(a, parsed.root())).cloned().collect();
            let options = Options { explain: true, ..everything() };
            let found = search(&index, &parsed, &options);
            prop_assert_eq!(found.matched, expected.len(), "{}", &text);
            prop_assert_eq!(ids(&found.rows), ids(&expected), "{}", &text);

            let explain = found.explain.unwrap();
            prop_assert_eq!(explain.considered, asks.len());
            prop_assert_eq!(explain.matched, expected.len());
            let conjuncts = parsed.conjuncts();
            prop_assert_eq!(explain.conditions.len(), conjuncts.len());
            let fails = |ask: &AskView| conjuncts.iter().filter(|c| !matches(ask, c)).count();
            for (excluded, conjunct) in explain.conditions.iter().zip(conjuncts) {
                let failing = || asks.iter().filter(|a| !matches(a, conjunct));
                prop_assert_eq!(&excluded.condition, &conjunct.to_string());
                prop_assert_eq!(excluded.excludes, failing().count(), "{}", &text);
                prop_assert_eq!(excluded.alone, failing().filter(|a| fails(a) == 1).count());
            }
            let fewest: Vec<usize> = {
                let mut all: Vec<usize> = asks.iter().map(fails).filter(|n| *n > 0).collect();
                all.sort_unstable();
                all.truncate(3);
                all
            };
            let nearest: Vec<usize> = explain.nearest.iter().map(|m| m.fails.len()).collect();
            prop_assert_eq!(nearest, fewest);
        }
    }

    #[test]
    fn default_filters_hide_what_they_say(seed: u64) {
        let mut dice = Dice(seed);
        let offers = market::offers(800, seed);
        let index = index_of(&offers);
        let asks = run(&index, "", &everything()).rows;
        let own = offers[0].1.host_id();
        let options = Options { all: false, own: Some(own), storage_gb: 50.0, ..everything() };
        let lifted = Options { all: true, ..options.clone() };
        for _ in 0..10 {
            let text = query(&mut dice, &asks, 2);
            let shown = run(&index, &text, &options);
            let all = run(&index, &text, &lifted);
            let hidden: usize = shown.hidden_by_default.iter().map(|h| h.count).sum();
            prop_assert_eq!(shown.matched + hidden, all.matched, "{}", &text);
            let parsed = Query::parse(&text).unwrap();
            for ask in &shown.rows {
                prop_assert!(parsed.mentions(Field::Rentable) || *ask.get(Field::Rentable) == Datum::Bool(true));
                prop_assert!(parsed.mentions(Field::HostId) || ask.text(Field::HostId) != Some(own.to_string().as_str()));
            }
        }
    }

    #[test]
    fn the_order_is_total_and_does_not_depend_on_how_the_index_came_to_be(seed: u64) {
        let mut dice = Dice(seed);
        let mut offers = market::offers(600, seed);
        let index = index_of(&offers);
        // The same offers in another order, with others put in between and taken out again.
        for i in (1..offers.len()).rev() {
            offers.swap(i, dice.below(i as u64 + 1) as usize);
        }
        let mut other = AskIndex::new();
        for (id, offer) in &market::offers(400, seed ^ 1) {
            other.insert(*id, offer);
        }
        for (id, offer) in &offers {
            other.set_facts(offer.host, facts_of(offer));
            other.insert(*id, offer);
        }
        for (_, offer) in &market::offers(400, seed ^ 1) {
            prop_assert!(other.remove(&offer.host, &offer.machine));
        }
        prop_assert_eq!(index.len(), other.len());
        for _ in 0..10 {
            let by = |dice: &mut Dice| OrderBy {
                field: fields()[dice.below(fields().len() as u64) as usize].field,
                descending: dice.percent(50),
            };
            let order = vec![by(&mut dice), by(&mut dice)];
            let options = Options { order: order.clone(), ..everything() };
            let all = run(&index, "", &options);
            prop_assert_eq!(&all, &run(&other, "", &options));
            let limit = dice.below(all.rows.len() as u64) as usize;
            let top = run(&index, "", &Options { limit, ..options });
            prop_assert_eq!(&top.rows[..], &all.rows[..limit]);
            for pair in all.rows.windows(2) {
                let by_all = order.iter().fold(Ordering::Equal, |order, by| {
                    order.then_with(|| compare(*by, &pair[0], &pair[1]))
                });
                prop_assert_eq!(
                    by_all.then(pair[0].ask.cmp(&pair[1].ask)), Ordering::Less, "{:?}: {:?} {:?}", order,
                    order.iter().map(|b| pair[0].get(b.field)).collect::<Vec<_>>(), order.iter().map(|b| pair[1].get(b.field)).collect::<Vec<_>>()
                );
            }
        }
    }
}

fn compare(by: OrderBy, a: &AskView, b: &AskView) -> Ordering {
    let turn = |order: Ordering| {
        if by.descending { order.reverse() } else { order }
    };
    let readable = |d: &Datum| match d {
        Datum::Text(t) if by.field == Field::DriverVersion => {
            Version::parse(t).map_or(Datum::Absent, |v| Datum::Number(v.order()))
        }
        have @ (Datum::Absent | Datum::Number(_) | Datum::Bool(_) | Datum::Text(_)) => have.clone(),
    };
    match (readable(a.get(by.field)), readable(b.get(by.field))) {
        (Datum::Absent, Datum::Absent) => Ordering::Equal,
        (Datum::Absent, _) => Ordering::Greater,
        (_, Datum::Absent) => Ordering::Less,
        (Datum::Number(a), Datum::Number(b)) => turn(a.total_cmp(&b)),
        (Datum::Bool(a), Datum::Bool(b)) => turn(a.cmp(&b)),
        (Datum::Text(a), Datum::Text(b)) => {
            let key = |t: &str| (performance::normal(t), t.to_owned());
            turn(key(&a).cmp(&key(&b)))
        }
        (a, b) => panic!("{a:?} against {b:?}"),
    }
}
