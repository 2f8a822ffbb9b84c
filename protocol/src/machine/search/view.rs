//! One ask with all its fields, as lists, the API and scripts see it.

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{
    columns::TextColumn,
    source::{Pass, Source},
};
use crate::{
    id::{AskId, DocumentId, MachineId, NodeId},
    money::Currency,
    query::{Field, Kind, fields},
};

/// The value of a field for one ask.
#[derive(Debug, Clone, PartialEq)]
pub enum Datum {
    /// The offer does not tell.
    Absent,
    /// A number in the field's unit.
    Number(f64),
    /// True or false.
    Bool(bool),
    /// A text, an id, or a version as the host wrote it.
    Text(String),
}

/// An ask: some slots of one machine, with the value of every field.
///
/// Serialises as a map with the names of [`fields`], and `slots`, `offer` and `currency`. What is absent is null.
#[derive(Debug, Clone, PartialEq)]
pub struct AskView {
    /// The ask.
    pub ask: AskId,
    /// Whose it is.
    pub host: NodeId,
    /// Which machine's.
    pub machine: MachineId,
    /// The offer it is a part of, which a proposal names.
    pub offer: DocumentId,
    /// How many slots it is.
    pub slots: u16,
    /// What its prices are in.
    pub currency: Currency,
    /// In the order of [`fields`].
    values: Vec<Datum>,
}

impl AskView {
    pub(super) fn of(pass: &Pass<'_>, row: usize) -> Self {
        let index = pass.index;
        let identity = index.identity(row);
        let currency = index.text(TextColumn::Currency, row).unwrap_or_default();
        Self {
            ask: AskId(index.ids()[row].to_be_bytes()),
            host: identity.host,
            machine: identity.machine,
            offer: identity.offer,
            slots: index.slots()[row],
            currency: Currency(currency.to_owned()),
            values: fields().iter().map(|info| pass.datum(info.field, row)).collect(),
        }
    }

    /// The value of a field.
    #[must_use]
    pub fn get(&self, field: Field) -> &Datum {
        self.values.get(field as usize).unwrap_or(&Datum::Absent)
    }

    /// The number of a field; none if it is absent or no number.
    #[must_use]
    pub fn number(&self, field: Field) -> Option<f64> {
        match self.get(field) {
            Datum::Number(number) => Some(*number),
            Datum::Absent | Datum::Bool(_) | Datum::Text(_) => None,
        }
    }

    /// The text of a field; none if it is absent or no text.
    #[must_use]
    pub fn text(&self, field: Field) -> Option<&str> {
        match self.get(field) {
            Datum::Text(text) => Some(text),
            Datum::Absent | Datum::Bool(_) | Datum::Number(_) => None,
        }
    }

    /// In a few words: `2x A100 48 GB at $0.61/h`.
    #[must_use]
    pub fn summary(&self) -> String {
        let number = |field| self.number(field).unwrap_or_default();
        let what = match self.text(Field::GpuName) {
            Some(model) => {
                let ram = number(Field::GpuRam).floor();
                format!("{}x {model} {ram} GB", number(Field::NumGpus))
            }
            None => {
                let cores = number(Field::CpuCoresEffective);
                let ram = number(Field::CpuRam).floor();
                let cpu = self.text(Field::CpuName).unwrap_or("CPU");
                let threads = format!("{cores:.3}");
                let threads = threads.trim_end_matches('0').trim_end_matches('.');
                let word = if threads == "1" { "thread" } else { "threads" };
                format!("{threads} {word} of {cpu}, {ram} GB")
            }
        };
        format!("{what} at {}/h", price(number(Field::Dph), &self.currency))
    }
}

/// A price as people write it: two decimals, or as many as show three digits of a small one.
fn price(amount: f64, currency: &Currency) -> String {
    let decimals = match amount {
        x if x >= 0.1 || x == 0.0 => 2,
        x if x >= 0.001 => 4,
        _ => 9,
    };
    if *currency == Currency::usd() {
        format!("${amount:.decimals$}")
    } else {
        format!("{amount:.decimals$} {currency}")
    }
}

impl Pass<'_> {
    /// The value of a field for an ask.
    pub(super) fn datum(&self, field: Field, row: usize) -> Datum {
        let text = |text: Option<&str>| text.map_or(Datum::Absent, |t| Datum::Text(t.to_owned()));
        match Source::of(field) {
            Source::Text(column) => text(self.index.text(column, row)),
            Source::MachineId => Datum::Text(self.index.identity(row).machine.to_string()),
            Source::AskId => Datum::Text(AskId(self.index.ids()[row].to_be_bytes()).to_string()),
            source @ (Source::Machine(..) | Source::PerSlot(..) | Source::Share(..) | Source::Derived(_)) => {
                let number = self.number(source, row);
                match field.info().kind {
                    Kind::Version => text(self.index.text(TextColumn::Driver, row)),
                    Kind::Bool => Datum::Bool(number == 1.0),
                    Kind::Number | Kind::Text | Kind::Id if number.is_nan() => Datum::Absent,
                    Kind::Number | Kind::Text | Kind::Id => Datum::Number(number),
                }
            }
        }
    }
}

impl Serialize for Datum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        /// Beyond this a float no longer holds every whole number.
        const WHOLE: f64 = 9_007_199_254_740_992.0;
        match self {
            Self::Absent => serializer.serialize_none(),
            Self::Number(x) if x.fract() == 0.0 && x.abs() < WHOLE => serializer.serialize_i64(*x as i64),
            // JSON has no infinity: a free ask's performance for its price is not a number there.
            Self::Number(x) if !x.is_finite() => serializer.serialize_none(),
            Self::Number(x) => serializer.serialize_f64(*x),
            Self::Bool(truth) => serializer.serialize_bool(*truth),
            Self::Text(text) => serializer.serialize_str(text),
        }
    }
}

impl Serialize for AskView {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(fields().len() + 3))?;
        for (info, value) in fields().iter().zip(&self.values) {
            map.serialize_entry(info.name, value)?;
        }
        map.serialize_entry("slots", &self.slots)?;
        map.serialize_entry("offer", &self.offer)?;
        map.serialize_entry("currency", &self.currency)?;
        map.end()
    }
}
