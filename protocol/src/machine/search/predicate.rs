//! A query made ready for one pass over the columns.
//!
//! Texts are looked up once a distinct text, ids become bit patterns, numbers are compared a chunk of asks at a time, with
//! one bit an ask as the result. An absent value meets no condition.

use std::ops::Range;

use super::{
    columns::TextColumn,
    performance::normal,
    pool::{ABSENT, Entry},
    source::{Pass, Source},
};
use crate::query::{Comparison, Condition, Expr, Field, Test, Value};

/// Asks looked at together.
pub(super) const CHUNK: usize = 1024;
const WORDS: usize = CHUNK / 64;

/// One bit for each ask of a chunk.
pub(super) type Mask = [u64; WORDS];

/// The shortest end of a peer id that stands for the whole: all begin alike, so only the end tells them apart.
const HOST_SUFFIX: usize = 6;

/// The first digits of an id, as the upper bits of a number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prefix {
    bits: u128,
    mask: u128,
}

/// A part of a query, ready to be tested.
#[derive(Debug)]
pub(super) enum Node {
    Always,
    Compare(Source, Comparison, f64),
    /// Whether the number is one of these, sorted ones; or none of them.
    Numbers(Source, Vec<f64>, bool),
    /// Whether the column's text is one for which the table says so.
    Texts(TextColumn, Vec<bool>),
    /// Whether the id begins with one of these; or with none of them.
    Ids(Source, Vec<Prefix>, bool),
    All(Vec<Node>),
    Either(Vec<Node>),
    Not(Box<Node>),
}

impl Node {
    /// Makes a part of a query ready for the texts now in the index.
    pub fn of(expr: &Expr, pass: &Pass<'_>) -> Self {
        match expr {
            Expr::All(parts) => Self::All(parts.iter().map(|p| Self::of(p, pass)).collect()),
            Expr::Either(parts) => Self::Either(parts.iter().map(|p| Self::of(p, pass)).collect()),
            Expr::Not(inner) => Self::Not(Box::new(Self::of(inner, pass))),
            Expr::Is(condition) => Self::of_condition(condition, pass),
        }
    }

    fn of_condition(condition: &Condition, pass: &Pass<'_>) -> Self {
        let (values, negated) = match &condition.test {
            Test::Any => return Self::Always,
            Test::Compare(comparison, value) => {
                let source = Source::of(condition.field);
                if let Some(number) = number(value)
                    && !matches!(source, Source::Text(_) | Source::MachineId | Source::AskId)
                {
                    return Self::Compare(source, *comparison, number);
                }
                let negated = *comparison == Comparison::NotEqual;
                (std::slice::from_ref(value), negated)
            }
            Test::In(values) => (values.as_slice(), false),
            Test::NotIn(values) => (values.as_slice(), true),
        };
        Self::one_of(condition.field, values, negated, pass)
    }

    fn one_of(field: Field, values: &[Value], negated: bool, pass: &Pass<'_>) -> Self {
        match Source::of(field) {
            Source::Text(column) => {
                let wanted: Vec<Wanted<'_>> = values.iter().filter_map(Wanted::of).collect();
                let table =
                    pass.index.pool(column).table(|entry| wanted.iter().any(|w| w.is(column, entry)) != negated);
                Self::Texts(column, table)
            }
            source @ (Source::MachineId | Source::AskId) => {
                let prefixes = values.iter().filter_map(prefix).collect();
                Self::Ids(source, prefixes, negated)
            }
            source @ (Source::Machine(..) | Source::PerSlot(..) | Source::Share(..) | Source::Derived(_)) => {
                let mut numbers: Vec<f64> = values.iter().filter_map(number).collect();
                numbers.sort_by(f64::total_cmp);
                Self::Numbers(source, numbers, negated)
            }
        }
    }

    /// Sets the bits of the asks in `rows` of which this holds; at most [`CHUNK`] of them. Those of empty places mean nothing.
    pub fn test(&self, pass: &Pass<'_>, rows: Range<usize>) -> Mask {
        match self {
            Self::Always => [u64::MAX; WORDS],
            Self::Compare(source, comparison, wanted) => {
                let numbers = read(pass, *source, &rows);
                let wanted = *wanted;
                // One loop for each comparison, so that none is chosen anew for every ask.
                match comparison {
                    Comparison::Less => bits(&numbers, |x| x < wanted),
                    Comparison::LessOrEqual => bits(&numbers, |x| x <= wanted),
                    Comparison::Equal => bits(&numbers, |x| x == wanted),
                    Comparison::NotEqual => bits(&numbers, |x| !x.is_nan() && x != wanted),
                    Comparison::GreaterOrEqual => bits(&numbers, |x| x >= wanted),
                    Comparison::Greater => bits(&numbers, |x| x > wanted),
                }
            }
            Self::Numbers(source, wanted, negated) => {
                bits(&read(pass, *source, &rows), |x| !x.is_nan() && contains(wanted, x) != *negated)
            }
            Self::Texts(column, table) => {
                let texts = pass.index.texts(*column);
                let machines = &pass.index.machine_of()[rows];
                bits(machines, |machine| {
                    let number = texts[machine as usize];
                    number != ABSENT && table[number as usize]
                })
            }
            Self::Ids(source, prefixes, negated) => {
                let mut mask = [0; WORDS];
                for (i, row) in rows.enumerate() {
                    let id = id_bits(pass, *source, row);
                    let found = prefixes.iter().any(|p| id & p.mask == p.bits);
                    mask[i / 64] |= u64::from(found != *negated) << (i % 64);
                }
                mask
            }
            Self::All(parts) => parts.iter().fold([u64::MAX; WORDS], |mask, part| {
                let other = part.test(pass, rows.clone());
                std::array::from_fn(|i| mask[i] & other[i])
            }),
            Self::Either(parts) => parts.iter().fold([0; WORDS], |mask, part| {
                let other = part.test(pass, rows.clone());
                std::array::from_fn(|i| mask[i] | other[i])
            }),
            Self::Not(inner) => inner.test(pass, rows).map(|word| !word),
        }
    }

    /// Whether it holds of one ask.
    pub fn holds(&self, pass: &Pass<'_>, row: usize) -> bool {
        match self {
            Self::Always => true,
            Self::Compare(source, comparison, wanted) => {
                let number = pass.number(*source, row);
                !number.is_nan() && comparison.holds(number, *wanted)
            }
            Self::Numbers(source, wanted, negated) => {
                let number = pass.number(*source, row);
                !number.is_nan() && contains(wanted, number) != *negated
            }
            Self::Texts(column, table) => {
                let number = pass.index.texts(*column)[pass.index.machine_of()[row] as usize];
                number != ABSENT && table[number as usize]
            }
            Self::Ids(source, prefixes, negated) => {
                let id = id_bits(pass, *source, row);
                prefixes.iter().any(|p| id & p.mask == p.bits) != *negated
            }
            Self::All(parts) => parts.iter().all(|p| p.holds(pass, row)),
            Self::Either(parts) => parts.iter().any(|p| p.holds(pass, row)),
            Self::Not(inner) => !inner.holds(pass, row),
        }
    }

    /// How far an ask is from meeting it: 0 where it does, towards 1 the further off a number is, 1 for what has no degrees.
    /// Several that must all hold add up.
    pub fn distance(&self, pass: &Pass<'_>, row: usize) -> f64 {
        if self.holds(pass, row) {
            return 0.0;
        }
        match self {
            Self::Compare(source, _, wanted) => gap(pass.number(*source, row), *wanted),
            Self::Numbers(source, wanted, false) => {
                let have = pass.number(*source, row);
                wanted.iter().map(|w| gap(have, *w)).fold(1.0, f64::min)
            }
            Self::All(parts) => parts.iter().map(|p| p.distance(pass, row)).sum(),
            Self::Either(parts) => parts.iter().map(|p| p.distance(pass, row)).fold(1.0, f64::min),
            Self::Numbers(_, _, true) | Self::Always | Self::Texts(..) | Self::Ids(..) | Self::Not(_) => 1.0,
        }
    }
}

/// A text as it is compared with those of a column.
struct Wanted<'a> {
    text: &'a str,
    normal: String,
}

impl<'a> Wanted<'a> {
    fn of(value: &'a Value) -> Option<Self> {
        match value {
            Value::Text(text) => Some(Self { text, normal: normal(text) }),
            Value::Number(_) | Value::Version(_) | Value::Bool(_) => None,
        }
    }

    fn is(&self, column: TextColumn, entry: &Entry) -> bool {
        match column {
            TextColumn::Host => {
                let shortened = self.text.len() >= HOST_SUFFIX && entry.text.ends_with(self.text);
                shortened || entry.text == self.text
            }
            // A machine may have several.
            TextColumn::Runtime => entry.normal.split(',').any(|one| one == self.normal),
            TextColumn::GpuName
            | TextColumn::CpuName
            | TextColumn::CpuArch
            | TextColumn::Driver
            | TextColumn::Geolocation
            | TextColumn::Reachability
            | TextColumn::Currency
            | TextColumn::Class
            | TextColumn::Count => entry.normal == self.normal,
        }
    }
}

/// A value as a number that orders as it does; none for a text.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => Some(*number),
        Value::Version(version) => Some(version.order()),
        Value::Bool(truth) => Some(f64::from(u8::from(*truth))),
        Value::Text(_) => None,
    }
}

/// The hexadecimal digits of a value as the upper bits of an id; none if it is no such thing.
fn prefix(value: &Value) -> Option<Prefix> {
    let Value::Text(text) = value else {
        return None;
    };
    if text.is_empty() || text.len() > 32 {
        return None;
    }
    let digits = u128::from_str_radix(text, 16).ok().filter(|_| text.bytes().all(|b| b.is_ascii_hexdigit()))?;
    let shift = 128 - 4 * text.len() as u32;
    Some(Prefix { bits: digits << shift, mask: u128::MAX << shift })
}

fn id_bits(pass: &Pass<'_>, source: Source, row: usize) -> u128 {
    if source == Source::AskId {
        u128::from(pass.index.ids()[row]) << 64
    } else {
        u128::from_be_bytes(pass.index.identity(row).machine.0)
    }
}

fn read(pass: &Pass<'_>, source: Source, rows: &Range<usize>) -> Numbers {
    let mut numbers = Numbers { values: [0.0; CHUNK], length: rows.len().min(CHUNK) };
    pass.fill(source, rows.clone(), &mut numbers.values[..rows.len().min(CHUNK)]);
    numbers
}

/// The numbers of a chunk.
struct Numbers {
    values: [f64; CHUNK],
    length: usize,
}

impl std::ops::Deref for Numbers {
    type Target = [f64];
    fn deref(&self) -> &[f64] {
        &self.values[..self.length]
    }
}

#[inline]
fn bits<T: Copy>(values: &[T], test: impl Fn(T) -> bool) -> Mask {
    let mut mask = [0; WORDS];
    for (word, values) in mask.iter_mut().zip(values.chunks(64)) {
        for (i, value) in values.iter().enumerate() {
            *word |= u64::from(test(*value)) << i;
        }
    }
    mask
}

fn contains(sorted: &[f64], wanted: f64) -> bool {
    // The values are finite and hold no negative zero; neither does what is compared, once zero is added.
    sorted.binary_search_by(|x| x.total_cmp(&(wanted + 0.0))).is_ok()
}

fn gap(have: f64, wanted: f64) -> f64 {
    let off = (have - wanted).abs();
    if off == 0.0 {
        0.0
    } else if off.is_finite() {
        off / (off + wanted.abs())
    } else {
        1.0
    }
}
