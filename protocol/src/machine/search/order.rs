//! The order of results: what `-o` takes, and the first few of many in that order.
//!
//! The order is total. What is absent comes last, whichever way; ties go by ask id, then by host, machine and size.

use std::cmp::Ordering;

use serde::Serialize;

use super::source::{Pass, Source};
use crate::query::{Field, FieldInfo};

/// Fields an order may name.
const FIELDS: usize = 8;

/// A field to order by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct OrderBy {
    /// Which.
    pub field: Field,
    /// Greatest first.
    pub descending: bool,
}

/// Why a text is not an order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// No such field.
    #[error("can't order by `{name}`: there is no such field{}", meant(*.nearest))]
    UnknownField {
        /// What was written, cut to 40 characters.
        name: String,
        /// The field that was probably meant.
        nearest: Option<&'static FieldInfo>,
    },
    /// Nothing between two commas.
    #[error("the order names no field between two commas: write it like `dph,num_gpus-`")]
    Empty,
    /// Too many fields.
    #[error("the order names {0} fields: at most {FIELDS} are allowed")]
    TooMany(usize),
}

fn meant(nearest: Option<&'static FieldInfo>) -> String {
    nearest.map_or_else(String::new, |info| format!(", did you mean `{}`?", info.name))
}

impl OrderBy {
    /// The default order: `score-`.
    pub const DEFAULT: Self = Self { field: Field::Score, descending: true };

    /// Reads an order: fields with commas between, each with a `-` before or after it for greatest first. An empty text is
    /// the default order.
    ///
    /// # Errors
    /// Names the field that does not exist; see [`OrderError`].
    pub fn parse_list(text: &str) -> Result<Vec<Self>, OrderError> {
        if text.trim().is_empty() {
            return Ok(vec![Self::DEFAULT]);
        }
        let count = text.split(',').count();
        if count > FIELDS {
            return Err(OrderError::TooMany(count));
        }
        text.split(',').map(|part| Self::parse(part.trim())).collect()
    }

    fn parse(text: &str) -> Result<Self, OrderError> {
        let (name, descending) = match (text.strip_prefix('-'), text.strip_suffix('-')) {
            (Some(name), _) | (None, Some(name)) => (name, true),
            (None, None) => (text.trim_start_matches('+').trim_end_matches('+'), false),
        };
        if name.is_empty() {
            return Err(OrderError::Empty);
        }
        let field = Field::by_name(name).ok_or_else(|| OrderError::UnknownField {
            name: name.chars().take(40).collect(),
            nearest: Field::nearest(name).map(Field::info),
        })?;
        Ok(Self { field, descending })
    }
}

/// One key of an order, ready to be read.
enum Key {
    Number(Source),
    Text(super::columns::TextColumn, Vec<u64>),
    AskId,
    /// The first or second half of the machine's id.
    MachineId(bool),
}

/// Collects what matched, and yields the first of it in order.
pub(super) struct Ranking<'p, 'a> {
    pass: &'p Pass<'a>,
    keys: Vec<(Key, bool)>,
    found: Vec<Candidate>,
    /// Keys after the first, in the order of `found`.
    further: Vec<u64>,
}

#[derive(Clone, Copy)]
struct Candidate {
    first: u64,
    row: u32,
    at: u32,
}

impl<'p, 'a> Ranking<'p, 'a> {
    pub fn new(pass: &'p Pass<'a>, order: &[OrderBy]) -> Self {
        let order = if order.is_empty() { &[OrderBy::DEFAULT] } else { order };
        let mut keys = Vec::new();
        for by in order.iter().take(FIELDS) {
            let down = by.descending;
            match Source::of(by.field) {
                Source::Text(column) => {
                    keys.push((Key::Text(column, pass.index.pool(column).ranks()), down));
                }
                Source::AskId => keys.push((Key::AskId, down)),
                Source::MachineId => {
                    keys.push((Key::MachineId(true), down));
                    keys.push((Key::MachineId(false), down));
                }
                source @ (Source::Machine(..) | Source::PerSlot(..) | Source::Share(..) | Source::Derived(_)) => {
                    keys.push((Key::Number(source), down))
                }
            }
        }
        Self { pass, keys, found: Vec::new(), further: Vec::new() }
    }

    /// Adds an ask.
    pub fn push(&mut self, row: usize) {
        let mut keys = self.keys.iter().map(|(key, down)| self.pass.key(key, *down, row));
        let candidate =
            Candidate { first: keys.next().unwrap_or_default(), row: row as u32, at: self.found.len() as u32 };
        self.further.extend(keys);
        self.found.push(candidate);
    }

    /// Asks added.
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// The first `limit` asks in order.
    pub fn first(mut self, limit: usize) -> Vec<usize> {
        let mut found = std::mem::take(&mut self.found);
        let order = |a: &Candidate, b: &Candidate| self.compare(a, b);
        if limit == 0 {
            return Vec::new();
        }
        if limit < found.len() {
            found.select_nth_unstable_by(limit - 1, order);
            found.truncate(limit);
        }
        found.sort_unstable_by(order);
        found.into_iter().map(|c| c.row as usize).collect()
    }

    fn compare(&self, a: &Candidate, b: &Candidate) -> Ordering {
        let further = |c: &Candidate| {
            let width = self.keys.len().saturating_sub(1);
            let start = c.at as usize * width;
            self.further.get(start..start + width).unwrap_or_default()
        };
        a.first
            .cmp(&b.first)
            .then_with(|| further(a).cmp(further(b)))
            .then_with(|| self.pass.tie(a.row as usize, b.row as usize))
    }
}

impl Pass<'_> {
    fn key(&self, key: &Key, descending: bool, row: usize) -> u64 {
        let index = self.index;
        let flip = |key: u64| if descending { !key } else { key };
        match key {
            Key::Number(source) => {
                let number = self.number(*source, row);
                if number.is_nan() { u64::MAX } else { flip(sortable(number)) }
            }
            Key::Text(column, ranks) => {
                let number = index.texts(*column)[index.machine_of()[row] as usize];
                ranks.get(number as usize).map_or(u64::MAX, |rank| flip(*rank))
            }
            Key::AskId => flip(index.ids()[row]),
            Key::MachineId(upper) => {
                let id = u128::from_be_bytes(index.identity(row).machine.0);
                flip(if *upper { (id >> 64) as u64 } else { id as u64 })
            }
        }
    }

    /// The order of asks that every key leaves equal.
    pub(super) fn tie(&self, a: usize, b: usize) -> Ordering {
        let index = self.index;
        let whole = |row: usize| {
            let identity = index.identity(row);
            (identity.host, identity.machine, index.slots()[row])
        };
        index.ids()[a].cmp(&index.ids()[b]).then_with(|| whole(a).cmp(&whole(b)))
    }
}

/// A number that orders as the float does (by `f64::total_cmp`), both zeros being the same.
fn sortable(number: f64) -> u64 {
    let bits = (number + 0.0).to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn orders_read_as_people_write_them() {
        let read = |text: &str| {
            OrderBy::parse_list(text).unwrap().iter().map(|o| (o.field.name(), o.descending)).collect::<Vec<_>>()
        };
        assert_eq!(read(""), [("score", true)]);
        assert_eq!(read("dph"), [("dph", false)]);
        assert_eq!(read("dph-"), [("dph", true)]);
        assert_eq!(read("-dph, num_gpus+"), [("dph", true), ("num_gpus", false)]);
        let error = OrderBy::parse_list("dhp-").unwrap_err().to_string();
        assert_eq!(error, "can't order by `dhp`: there is no such field, did you mean `dph`?");
        assert_eq!(OrderBy::parse_list("dph,,id"), Err(OrderError::Empty));
        assert_eq!(OrderBy::parse_list("-"), Err(OrderError::Empty));
        assert!(matches!(OrderBy::parse_list(&"dph,".repeat(100)), Err(OrderError::TooMany(_))));
    }

    #[test]
    fn sortable_numbers_order_as_floats_do() {
        let numbers = [f64::NEG_INFINITY, -1e300, -1.0, -1e-300, 0.0, 1e-300, 1.0, f64::INFINITY];
        assert!(numbers.windows(2).all(|pair| sortable(pair[0]) < sortable(pair[1])));
        assert_eq!(sortable(0.0), sortable(-0.0));
    }
}
