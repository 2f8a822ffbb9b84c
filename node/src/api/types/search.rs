//! Looking for offers: what is asked, what is found, and both from and to the search of the protocol crate.
//!
//! A row has the fields of the search language under their own names, as numbers in the field's unit: they are for choosing.
//! What is paid is exact, and in the quote.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use souk_protocol::{
    AskId, Currency, DocumentId, HostId, MachineId, NodeId, Timestamp,
    machine::{
        backoff::Avoided,
        search::{self, AskView, Datum, OrderBy, Pricing},
    },
    negotiation::RentalType,
    query::{Field, Query, fields},
};

use crate::market::{CommandError, ErrorCode};

/// Rows a search may ask for.
pub const MAX_ROWS: u32 = 1000;

/// What is looked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SearchRequest {
    /// Conditions, `gpu_name=RTX_4090 num_gpus>=2`; empty for all.
    pub query: String,
    /// Fields to sort by, first key first, with commas between; `-` at the end (or the beginning) of one for the largest first.
    pub order: Option<String>,
    /// How it is to be rented, which decides what `dph` is.
    pub rental: Option<RentalKind>,
    /// Disk in GB that `dph` includes; none for 10.
    pub storage_gb: Option<u64>,
    /// At most so many rows, up to [`MAX_ROWS`]; none for 50.
    pub limit: Option<u32>,
    /// Say what each condition excludes.
    pub explain: bool,
    /// Leave the default filters out.
    pub all: bool,
}

/// How slots are rented, as search says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RentalKind {
    /// At the host's price, until the contract's end.
    OnDemand,
    /// By a bid.
    Bid,
    /// At a discount, for a term.
    Reserved,
}

impl From<RentalType> for RentalKind {
    fn from(kind: RentalType) -> Self {
        match kind {
            RentalType::OnDemand => Self::OnDemand,
            RentalType::Interruptible => Self::Bid,
            RentalType::Reserved => Self::Reserved,
        }
    }
}

impl From<RentalKind> for RentalType {
    fn from(kind: RentalKind) -> Self {
        match kind {
            RentalKind::OnDemand => Self::OnDemand,
            RentalKind::Bid => Self::Interruptible,
            RentalKind::Reserved => Self::Reserved,
        }
    }
}

impl SearchRequest {
    /// The query and options that this asks for.
    ///
    /// # Errors
    /// `bad_request`, with what is wrong in the query or the order and where.
    pub fn parse(
        &self,
        now: Timestamp,
        own: HostId,
        currency: Currency,
    ) -> Result<(Query, search::Options), CommandError> {
        let bad = |message: String, hint: &str| CommandError::new(ErrorCode::BadRequest, message).hint(hint);
        let query = Query::parse(&self.query)
            .map_err(|e| bad(e.to_string(), "souk search --help lists the fields, with examples"))?;
        let order = OrderBy::parse_list(self.order.as_deref().unwrap_or_default())
            .map_err(|e| bad(e.to_string(), "souk search -o dph, or -o score- (the default)"))?;
        let pricing = match self.rental {
            None | Some(RentalKind::OnDemand) => Pricing::OnDemand,
            Some(RentalKind::Bid) => Pricing::Bid,
            Some(RentalKind::Reserved) => Pricing::Reserved,
        };
        let options = search::Options {
            order,
            storage_gb: self.storage_gb.map_or(search::STORAGE_GB, |gb| gb as f64),
            limit: self.limit.map_or(search::LIMIT, |n| n.min(MAX_ROWS) as usize),
            all: self.all,
            explain: self.explain,
            pricing,
            currency,
            own: Some(own),
            now,
        };
        Ok((query, options))
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SearchResults {
    /// The asks, in order.
    pub rows: Vec<AskRow>,
    /// Asks that match, shown or not.
    pub matched: u64,
    /// What default filters keep out.
    pub hidden: Vec<HiddenCount>,
    /// Asks that would match if their prices were in the renter's currency.
    pub other_currency: u64,
    /// Hosts with offers that failed this node lately: searches leave them out unless the query says otherwise.
    #[serde(default)]
    pub avoided: Vec<AvoidedHost>,
    /// Why so few: where it was asked for, and where nothing matched.
    pub explain: Option<Explanation>,
}

/// A host that has failed this node lately.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AvoidedHost {
    /// Which.
    pub host_id: NodeId,
    /// How, how often in a row, and until when it is avoided.
    #[serde(flatten)]
    pub avoided: Avoided,
}

/// What a default filter keeps out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HiddenCount {
    /// The filter, as a query has it.
    pub condition: String,
    /// Asks.
    pub count: u64,
    /// What it says of them: `are rented`.
    pub reason: String,
    /// Whether `all` lifts it; if not, the rental type asks for it.
    pub lifted_by_all: bool,
}

/// Why a search found what it found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// Asks looked at.
    pub considered: u64,
    /// Each condition, then the default filters.
    pub conditions: Vec<ConditionCount>,
    /// What came nearest.
    pub nearest: Vec<NearView>,
    /// The whole in one line.
    pub sentence: String,
}

/// A condition, and what it costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConditionCount {
    /// As a query has it.
    pub condition: String,
    /// Whether the search added it.
    pub by_default: bool,
    /// Asks that do not meet it.
    pub excludes: u64,
    /// Asks that meet everything else: as many more would match without it.
    pub alone: u64,
}

/// An ask that nearly matched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NearView {
    /// The ask.
    pub id: AskId,
    /// It in a few words.
    pub summary: String,
    /// The conditions it does not meet.
    pub fails: Vec<FailView>,
}

/// A condition that an ask does not meet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FailView {
    /// As a query has it.
    pub condition: String,
    /// What the ask has instead; null where it does not tell, and for several conditions joined.
    pub have: FieldValue,
    /// By how much it misses a number, in `unit`.
    pub off_by: Option<f64>,
    /// The field's unit; empty where it has none.
    pub unit: String,
}

/// The value of a field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FieldValue {
    /// A whole number, in the field's unit.
    Whole(i64),
    /// A number, in the field's unit.
    Number(f64),
    /// True or false.
    Bool(bool),
    /// A text.
    Text(String),
    /// Not told.
    Absent(()),
}

impl From<&Datum> for FieldValue {
    fn from(datum: &Datum) -> Self {
        /// Beyond this a float no longer holds every whole number.
        const WHOLE: f64 = 9_007_199_254_740_992.0;
        match datum {
            Datum::Number(x) if x.fract() == 0.0 && x.abs() < WHOLE => Self::Whole(*x as i64),
            Datum::Number(x) if x.is_finite() => Self::Number(*x),
            Datum::Number(_) | Datum::Absent => Self::Absent(()),
            Datum::Bool(truth) => Self::Bool(*truth),
            Datum::Text(text) => Self::Text(text.clone()),
        }
    }
}

/// One ask: so many slots of one machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AskRow {
    /// Row number of this search, from 1; `souk rent` takes it.
    pub row: u32,
    /// The ask.
    pub id: AskId,
    /// Whose machine: its owner, or the node where that belongs to nobody else.
    pub host_id: HostId,
    /// The node that rents it out.
    pub node: NodeId,
    /// Which machine.
    pub machine_id: MachineId,
    /// The offer it comes from.
    pub offer: DocumentId,
    /// Slots it has.
    pub slots: u16,
    /// The currency of its prices.
    pub currency: Currency,
    /// Every other field of the search language, by name.
    #[serde(flatten)]
    pub fields: BTreeMap<String, FieldValue>,
}

impl AskRow {
    /// A row, numbered from 1.
    #[must_use]
    pub fn of(row: u32, view: &AskView) -> Self {
        let own = [Field::Id, Field::HostId, Field::MachineId];
        Self {
            row,
            id: view.ask,
            // An index holds verified offers, and theirs is always an id.
            host_id: view.text(Field::HostId).and_then(|t| t.parse().ok()).unwrap_or(HostId::Node(view.host)),
            node: view.host,
            machine_id: view.machine,
            offer: view.offer,
            slots: view.slots,
            currency: view.currency.clone(),
            fields: fields()
                .iter()
                .filter(|info| !own.contains(&info.field))
                .map(|info| (info.name.to_owned(), view.get(info.field).into()))
                .collect(),
        }
    }

    /// The number of a field, if it has one.
    #[must_use]
    pub fn number(&self, field: Field) -> Option<f64> {
        match self.fields.get(field.info().name)? {
            FieldValue::Whole(n) => Some(*n as f64),
            FieldValue::Number(x) => Some(*x),
            FieldValue::Bool(_) | FieldValue::Text(_) | FieldValue::Absent(()) => None,
        }
    }

    /// Of choices that nobody makes by hand, one in twenty tries a newcomer: see [`search::newcomer`].
    ///
    /// # Errors
    /// If the system gives no randomness.
    pub fn give_newcomers_a_chance(rows: &mut [Self]) -> anyhow::Result<()> {
        let roll = u64::from_le_bytes(crate::clock::random()?);
        search::newcomer::give_a_chance(rows, |row| row.number(Field::Trust).unwrap_or_default(), roll);
        Ok(())
    }

    /// The text of a field, if it has one.
    #[must_use]
    pub fn text(&self, field: Field) -> Option<&str> {
        match self.fields.get(field.info().name)? {
            FieldValue::Text(text) => Some(text),
            FieldValue::Whole(_) | FieldValue::Number(_) | FieldValue::Bool(_) | FieldValue::Absent(()) => None,
        }
    }

    /// Whether a field says yes.
    #[must_use]
    pub fn is(&self, field: Field) -> bool {
        self.fields.get(field.info().name) == Some(&FieldValue::Bool(true))
    }
}

impl From<search::Failure> for FailView {
    fn from(failure: search::Failure) -> Self {
        Self {
            condition: failure.condition,
            have: failure.have.as_ref().map_or(FieldValue::Absent(()), FieldValue::from),
            off_by: failure.off_by,
            unit: failure.unit.to_owned(),
        }
    }
}

const fn count(n: usize) -> u64 {
    n as u64
}

impl From<search::Results> for SearchResults {
    fn from(results: search::Results) -> Self {
        let rows = (1..).zip(&results.rows);
        Self {
            rows: rows.map(|(row, view)| AskRow::of(row, view)).collect(),
            matched: count(results.matched),
            hidden: results
                .hidden_by_default
                .into_iter()
                .map(|h| HiddenCount {
                    condition: h.condition,
                    count: count(h.count),
                    reason: h.reason,
                    lifted_by_all: h.lifted_by_all,
                })
                .collect(),
            other_currency: count(results.other_currency),
            avoided: Vec::new(),
            explain: results.explain.map(Into::into),
        }
    }
}

impl From<search::Explain> for Explanation {
    fn from(explain: search::Explain) -> Self {
        Self {
            considered: count(explain.considered),
            conditions: explain
                .conditions
                .into_iter()
                .map(|c| ConditionCount {
                    condition: c.condition,
                    by_default: c.by_default,
                    excludes: count(c.excludes),
                    alone: count(c.alone),
                })
                .collect(),
            nearest: explain
                .nearest
                .into_iter()
                .map(|miss| NearView {
                    id: miss.ask.ask,
                    summary: miss.ask.summary(),
                    fails: miss.fails.into_iter().map(Into::into).collect(),
                })
                .collect(),
            sentence: explain.sentence,
        }
    }
}
