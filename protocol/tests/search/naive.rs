//! An evaluator that knows only what an ask shows, and takes one ask at a time.

use std::cmp::Ordering;

use souk_protocol::{
    machine::search::{AskView, Datum},
    query::{Comparison, Condition, Expr, Field, Test, Value, Version},
};

fn text_equal(field: Field, have: &str, wanted: &str) -> bool {
    let plain = |t: &str| {
        let lower = t.to_lowercase().replace(['_', '-'], " ");
        let mut words: Vec<&str> = lower.split_whitespace().collect();
        while words.first().is_some_and(|w| ["nvidia", "geforce", "tesla"].contains(w)) {
            words.remove(0);
        }
        words.join(" ")
    };
    match field.name() {
        "id" | "machine_id" => have.starts_with(&wanted.to_lowercase()),
        "host_id" => have == wanted || (wanted.len() >= 6 && have.ends_with(wanted)),
        _ => plain(have) == plain(wanted),
    }
}

fn equal(field: Field, have: &Datum, wanted: &Value) -> bool {
    match (have, wanted) {
        (Datum::Number(have), Value::Number(wanted)) => have == wanted,
        (Datum::Bool(have), Value::Bool(wanted)) => have == wanted,
        (Datum::Text(have), Value::Version(wanted)) => Version::parse(have) == Some(*wanted),
        (Datum::Text(have), Value::Text(wanted)) => text_equal(field, have, wanted),
        _ => panic!("{field} is {have:?}, compared with {wanted:?}"),
    }
}

fn meets(ask: &AskView, condition: &Condition) -> bool {
    let field = condition.field;
    let have = ask.get(field);
    if condition.test == Test::Any {
        return true;
    }
    let unreadable = matches!(have, Datum::Text(t) if field == Field::DriverVersion && Version::parse(t).is_none());
    if *have == Datum::Absent || unreadable {
        return false;
    }
    match &condition.test {
        Test::Any => true,
        Test::In(values) => values.iter().any(|v| equal(field, have, v)),
        Test::NotIn(values) => !values.iter().any(|v| equal(field, have, v)),
        Test::Compare(Comparison::Equal, value) => equal(field, have, value),
        Test::Compare(Comparison::NotEqual, value) => !equal(field, have, value),
        Test::Compare(comparison, value) => {
            let order = match (have, value) {
                (Datum::Number(have), Value::Number(wanted)) => have.partial_cmp(wanted).unwrap(),
                (Datum::Text(have), Value::Version(wanted)) => Version::parse(have).unwrap().cmp(wanted),
                _ => panic!("{field} has no order"),
            };
            match comparison {
                Comparison::Less => order == Ordering::Less,
                Comparison::LessOrEqual => order != Ordering::Greater,
                Comparison::GreaterOrEqual => order != Ordering::Less,
                Comparison::Greater => order == Ordering::Greater,
                Comparison::Equal | Comparison::NotEqual => unreachable!(),
            }
        }
    }
}

/// Whether an ask matches.
pub fn matches(ask: &AskView, expr: &Expr) -> bool {
    match expr {
        Expr::All(parts) => parts.iter().all(|p| matches(ask, p)),
        Expr::Either(parts) => parts.iter().any(|p| matches(ask, p)),
        Expr::Not(inner) => !matches(ask, inner),
        Expr::Is(condition) => meets(ask, condition),
    }
}
