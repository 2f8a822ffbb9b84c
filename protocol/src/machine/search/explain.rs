//! Why a search found what it found: what each condition excludes, and what came nearest.

use serde::Serialize;

use super::{
    Conjunct, Filter,
    predicate::CHUNK,
    source::Pass,
    view::{AskView, Datum},
};
use crate::query::{Comparison, Condition, Expr, Field, Test, Value};

/// Nearest misses shown.
const NEAREST: usize = 3;

/// What one condition keeps out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Excluded {
    /// The condition, as a query has it.
    pub condition: String,
    /// Whether the search added it.
    pub by_default: bool,
    /// Offers that do not meet it, whatever else they meet.
    pub excludes: usize,
    /// Offers that meet everything else: as many more would match without it.
    pub alone: usize,
}

/// A condition that a near miss does not meet.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Failure {
    /// The condition, as a query has it.
    pub condition: String,
    /// What the ask has instead; absent for several conditions joined.
    pub have: Option<Datum>,
    /// By how much it misses a number, in the field's unit.
    pub off_by: Option<f64>,
    /// The field's unit; empty where it has none.
    pub unit: &'static str,
}

/// An ask that nearly matched.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NearMiss {
    /// The ask.
    pub ask: AskView,
    /// What it does not meet.
    pub fails: Vec<Failure>,
}

/// Why a search found what it found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explain {
    /// Offers looked at: unexpired, in the search's currency.
    pub considered: usize,
    /// Offers that met everything.
    pub matched: usize,
    /// Each condition in the order written, then the default filters.
    pub conditions: Vec<Excluded>,
    /// What came nearest: fewest conditions failed, then by the least.
    pub nearest: Vec<NearMiss>,
    /// The whole in one line.
    pub sentence: String,
}

/// The offers that fail each condition, one bit each.
struct Failed {
    /// By condition, then 64 offers to a word.
    bits: Vec<Vec<u64>>,
    considered: Vec<u64>,
}

impl Failed {
    fn of(pass: &Pass<'_>, conjuncts: &[Conjunct], considered: &dyn Fn(usize) -> bool) -> Self {
        let rows = pass.index.rows();
        let mut failed = Self { bits: vec![Vec::new(); conjuncts.len()], considered: Vec::new() };
        for start in (0..rows).step_by(CHUNK) {
            let end = rows.min(start + CHUNK);
            let words = (end - start).div_ceil(64);
            let mut present = vec![0_u64; words];
            for row in start..end {
                let at = row - start;
                present[at / 64] |= u64::from(considered(row)) << (at % 64);
            }
            for (bits, conjunct) in failed.bits.iter_mut().zip(conjuncts) {
                let mask = conjunct.node.test(pass, start..end);
                bits.extend(present.iter().zip(mask).map(|(p, m)| p & !m));
            }
            failed.considered.extend(present);
        }
        failed
    }

    fn fails(&self, condition: usize, row: usize) -> bool {
        self.bits[condition][row / 64] >> (row % 64) & 1 == 1
    }

    /// Offers that fail exactly one condition.
    fn exactly_one(&self) -> Vec<u64> {
        let mut once = vec![0_u64; self.considered.len()];
        let mut twice = once.clone();
        for bits in &self.bits {
            for ((word, once), twice) in bits.iter().zip(&mut once).zip(&mut twice) {
                *twice |= *once & word;
                *once |= word;
            }
        }
        once.iter().zip(&twice).map(|(o, t)| o & !t).collect()
    }

    fn excluded(&self, conjuncts: &[Conjunct]) -> Vec<Excluded> {
        let single = self.exactly_one();
        let count = |bits: &[u64]| bits.iter().map(|w| w.count_ones() as usize).sum();
        conjuncts
            .iter()
            .zip(&self.bits)
            .map(|(conjunct, bits)| {
                let alone: Vec<u64> = bits.iter().zip(&single).map(|(b, s)| b & s).collect();
                Excluded {
                    condition: conjunct.text.clone(),
                    by_default: conjunct.filter.is_some(),
                    excludes: count(bits),
                    alone: count(&alone),
                }
            })
            .collect()
    }

    /// Offers by condition, each counted once: with the condition that excludes most among those it fails.
    fn attributed(&self, excluded: &[Excluded]) -> Vec<(usize, usize)> {
        let mut order: Vec<usize> = (0..excluded.len()).collect();
        order.sort_by_key(|i| (std::cmp::Reverse(excluded[*i].excludes), *i));
        let mut left = self.considered.clone();
        let mut counts = Vec::new();
        for i in order {
            let mut count = 0;
            for (left, word) in left.iter_mut().zip(&self.bits[i]) {
                count += (*left & word).count_ones() as usize;
                *left &= !word;
            }
            if count > 0 {
                counts.push((i, count));
            }
        }
        counts
    }

    /// Places of the nearest misses, nearest first.
    fn nearest(&self, pass: &Pass<'_>, conjuncts: &[Conjunct]) -> Vec<usize> {
        let own = conjuncts.iter().position(|c| c.filter == Some(Filter::Own));
        let mut by_fails: Vec<Vec<usize>> = vec![Vec::new(); conjuncts.len() + 1];
        for row in 0..pass.index.rows() {
            if self.considered[row / 64] >> (row % 64) & 1 == 0 {
                continue;
            }
            let fails = (0..conjuncts.len()).filter(|i| self.fails(*i, row)).count();
            if fails > 0 && own.is_none_or(|own| !self.fails(own, row)) {
                by_fails[fails].push(row);
            }
        }
        let mut nearest = Vec::new();
        for rows in by_fails {
            let mut misses: Vec<(f64, f64, usize)> = rows
                .into_iter()
                .map(|row| {
                    let failed = (0..conjuncts.len()).filter(|i| self.fails(*i, row));
                    let distance = failed.map(|i| conjuncts[i].node.distance(pass, row)).sum();
                    let dph = pass.number(super::source::Source::of(Field::Dph), row);
                    (distance, dph, row)
                })
                .collect();
            misses.sort_unstable_by(|a, b| {
                let by_number = a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1));
                by_number.then_with(|| pass.tie(a.2, b.2))
            });
            nearest.extend(misses.into_iter().map(|(_, _, row)| row));
            if nearest.len() >= NEAREST {
                break;
            }
        }
        nearest.truncate(NEAREST);
        nearest
    }
}

/// Explains a search over the asks for which `considered` says so. `elsewhere` matched but are in other currencies.
pub(super) fn explain(
    pass: &Pass<'_>,
    conjuncts: &[Conjunct],
    considered: &dyn Fn(usize) -> bool,
    elsewhere: usize,
) -> Explain {
    let failed = Failed::of(pass, conjuncts, considered);
    let total: usize = failed.considered.iter().map(|w| w.count_ones() as usize).sum();
    let conditions = failed.excluded(conjuncts);
    let attributed = failed.attributed(&conditions);
    let excluded: usize = attributed.iter().map(|(_, count)| count).sum();
    let nearest: Vec<NearMiss> = failed
        .nearest(pass, conjuncts)
        .into_iter()
        .map(|row| NearMiss {
            ask: AskView::of(pass, row),
            fails: (0..conjuncts.len())
                .filter(|i| failed.fails(*i, row))
                .map(|i| failure(pass, &conjuncts[i], row))
                .collect(),
        })
        .collect();
    let matched = total - excluded;
    let mut sentence = if matched == 0 {
        format!("no offer matches: {}", offers(total))
    } else {
        format!("{matched} of {} match", offers(total))
    };
    for (i, count) in attributed {
        sentence.push_str(&format!(", {count} {}", conjuncts[i].verb(count)));
    }
    if elsewhere > 0 {
        let is = if elsewhere == 1 { "is" } else { "are" };
        sentence.push_str(&format!(", {elsewhere} that would match {is} in other currencies"));
    }
    if matched == 0
        && let Some(miss) = nearest.first()
    {
        sentence.push_str(&format!("; nearest: {}", miss.ask.summary()));
    }
    Explain { considered: total, matched, conditions, nearest, sentence }
}

fn offers(count: usize) -> String {
    match count {
        0 => "no offers are known".to_owned(),
        1 => "1 offer".to_owned(),
        _ => format!("{count} offers"),
    }
}

fn failure(pass: &Pass<'_>, conjunct: &Conjunct, row: usize) -> Failure {
    let condition = match &conjunct.expr {
        Expr::Is(condition) => Some(condition),
        Expr::All(_) | Expr::Either(_) | Expr::Not(_) => None,
    };
    let have = condition.map(|c| pass.datum(c.field, row));
    let off_by = match (condition, &have) {
        (Some(condition), Some(Datum::Number(have))) => off_by(condition, *have),
        (None | Some(_), None | Some(_)) => None,
    };
    let unit = condition.map_or("", |c| c.field.info().unit);
    Failure { condition: conjunct.text.clone(), have, off_by, unit }
}

/// How far `have` is from the nearest number the condition takes.
fn off_by(condition: &Condition, have: f64) -> Option<f64> {
    let gap = |value: &Value| match value {
        Value::Number(wanted) => Some((have - wanted).abs()),
        Value::Version(_) | Value::Bool(_) | Value::Text(_) => None,
    };
    match &condition.test {
        Test::Compare(Comparison::NotEqual, _) | Test::NotIn(_) | Test::Any => None,
        Test::Compare(_, value) => gap(value),
        Test::In(values) => values.iter().filter_map(gap).min_by(f64::total_cmp),
    }
}
