//! Search: which asks of the market match a query, in which order, and why the others do not.
//!
//! [`AskIndex`] holds the asks in columns and is kept up to date offer by offer; [`search`] makes one pass over it. What a
//! search yields depends on the index's contents, the query and the options only: not on the order in which offers came, and
//! on no clock or randomness. Which offers are valid and held, and for how long, is the book's to say; an expired offer that
//! is still held is passed over.
//!
//! Floats are used here: nothing of this is signed or paid. The price that counts is in the offer.

mod columns;
mod explain;
mod facts;
mod index;
pub mod newcomer;
mod order;
pub mod performance;
mod pool;
mod predicate;
mod score;
mod source;
mod view;

use serde::Serialize;

pub use explain::{Excluded, Explain, Failure, NearMiss};
pub use facts::{PeerFacts, STRANGER_RELIABILITY, STRANGER_TRUST};
pub use index::AskIndex;
pub use order::{OrderBy, OrderError};
pub use score::VALUE;
pub use view::{AskView, Datum};

use crate::{
    money::Currency,
    owner::HostId,
    query::{Comparison, Condition, Expr, Field, Query, Test, Value},
    time::Timestamp,
};
use columns::{Column, TextColumn};
use order::Ranking;
use predicate::{CHUNK, Mask, Node};
use source::Pass;

/// The disk whose price is in `dph` when nobody says how much, in GB.
pub const STORAGE_GB: f64 = 10.0;
/// The most disk a price is computed for, in GB: an exabyte.
const STORAGE_MAX_GB: f64 = 1e9;
/// Results given when nobody says how many.
pub const LIMIT: usize = 50;

/// Which price `dph` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pricing {
    /// The fixed one.
    #[default]
    OnDemand,
    /// The lowest bid.
    Bid,
    /// The fixed one less the discount for a reserved term; only asks that have one are found.
    Reserved,
}

/// How to search.
#[derive(Debug, Clone)]
pub struct Options {
    /// What to order by, first key first; nothing means [`OrderBy::DEFAULT`].
    pub order: Vec<OrderBy>,
    /// The disk asked for, in GB. Its price is in `dph`, and asks that can't have it are filtered out by default.
    pub storage_gb: f64,
    /// How many results to give.
    pub limit: usize,
    /// Leave the default filters out, but for what the rental type asks for.
    pub all: bool,
    /// Explain even if something matched.
    pub explain: bool,
    /// Which price `dph` is.
    pub pricing: Pricing,
    /// The currency of all prices; asks in others are only counted.
    pub currency: Currency,
    /// The searching node, or its owner, whose own asks are filtered out by default.
    pub own: Option<HostId>,
    /// The time, for what has expired and for `duration`.
    pub now: Timestamp,
}

impl Options {
    /// The defaults, at a time.
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        Self {
            order: Vec::new(),
            storage_gb: STORAGE_GB,
            limit: LIMIT,
            all: false,
            explain: false,
            pricing: Pricing::OnDemand,
            currency: Currency::usd(),
            own: None,
            now,
        }
    }
}

/// What a default filter kept out that the query itself would have taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hidden {
    /// The filter, as a query has it.
    pub condition: String,
    /// How many asks.
    pub count: usize,
    /// What it says of them: `are rented`.
    pub reason: String,
    /// Whether [`Options::all`] lifts it; if not, the rental type asks for it.
    pub lifted_by_all: bool,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Results {
    /// The first of the matches, in order.
    pub rows: Vec<AskView>,
    /// All matches.
    pub matched: usize,
    /// What the default filters kept out. An ask that several keep out counts with the first.
    pub hidden_by_default: Vec<Hidden>,
    /// Asks that would match if their prices were in the search's currency.
    pub other_currency: usize,
    /// Given where it was asked for, and where nothing matched.
    pub explain: Option<Explain>,
}

/// A filter that the search adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filter {
    Own,
    /// Asked for by the rental type: stays with `all`.
    Discount,
    Rented,
    Disk,
    Avoided,
    Blocked,
}

/// A part of the search all of which must hold.
struct Conjunct {
    expr: Expr,
    node: Node,
    text: String,
    filter: Option<Filter>,
}

impl Conjunct {
    fn of(expr: Expr, filter: Option<Filter>, pass: &Pass<'_>) -> Self {
        Self { node: Node::of(&expr, pass), text: expr.to_string(), expr, filter }
    }

    /// What is to be said of `count` asks that fail it, after the number.
    fn verb(&self, count: usize) -> String {
        let one = count == 1;
        match self.filter {
            None if one => format!("lacks {}", self.text),
            None => format!("lack {}", self.text),
            Some(Filter::Own) if one => "is your own".to_owned(),
            Some(Filter::Own) => "are your own".to_owned(),
            Some(Filter::Discount) if one => "has no discount for a reserved term".to_owned(),
            Some(Filter::Discount) => "have no discount for a reserved term".to_owned(),
            Some(Filter::Avoided) if one => "is of a host that failed you lately".to_owned(),
            Some(Filter::Avoided) => "are of hosts that failed you lately".to_owned(),
            Some(Filter::Blocked) if one => "is of a host that you have blocked".to_owned(),
            Some(Filter::Blocked) => "are of hosts that you have blocked".to_owned(),
            Some(Filter::Rented) if one => "is rented".to_owned(),
            Some(Filter::Rented) => "are rented".to_owned(),
            Some(Filter::Disk) if one => format!("lacks {}", self.text),
            Some(Filter::Disk) => format!("lack {}", self.text),
        }
    }
}

fn is(field: Field, comparison: Comparison, value: Value) -> Expr {
    let test = Test::Compare(comparison, value);
    Expr::Is(Condition { field, test })
}

/// The filters added to a query that says nothing of their fields.
fn default_filters(query: &Query, options: &Options, pass: &Pass<'_>) -> Vec<Conjunct> {
    let mut filters = Vec::new();
    let mut add = |filter: Filter, field: Field, comparison: Comparison, value: Value| {
        if (!options.all || filter == Filter::Discount) && !query.mentions(field) {
            let expr = is(field, comparison, value);
            filters.push(Conjunct::of(expr, Some(filter), pass));
        }
    };
    if let Some(own) = options.own {
        let own = Value::Text(own.to_string());
        add(Filter::Own, Field::HostId, Comparison::NotEqual, own);
    }
    if options.pricing == Pricing::Reserved {
        add(Filter::Discount, Field::ReservedDiscount, Comparison::Greater, Value::Number(0.0));
    }
    add(Filter::Blocked, Field::Blocked, Comparison::Equal, Value::Bool(false));
    add(Filter::Rented, Field::Rentable, Comparison::Equal, Value::Bool(true));
    if pass.storage_gb > 0.0 {
        add(Filter::Disk, Field::DiskSpace, Comparison::GreaterOrEqual, Value::Number(pass.storage_gb));
    }
    // Who names a host, a machine or an ask wants that one.
    if ![Field::HostId, Field::MachineId, Field::Id].iter().any(|field| query.mentions(*field)) {
        add(Filter::Avoided, Field::Avoided, Comparison::Equal, Value::Bool(false));
    }
    filters
}

/// Searches the index.
#[must_use]
pub fn search(index: &AskIndex, query: &Query, options: &Options) -> Results {
    let storage_gb =
        if options.storage_gb.is_nan() { STORAGE_GB } else { options.storage_gb.clamp(0.0, STORAGE_MAX_GB) };
    let pass = Pass::new(index, options.pricing, storage_gb, options.now);
    let mut conjuncts: Vec<Conjunct> =
        query.conjuncts().iter().map(|expr| Conjunct::of(expr.clone(), None, &pass)).collect();
    let asked = conjuncts.len();
    conjuncts.extend(default_filters(query, options, &pass));
    let scope = Scope::new(&pass, &options.currency);

    let mut ranking = Ranking::new(&pass, &options.order);
    let mut hidden = vec![0; conjuncts.len() - asked];
    let mut other_currency = 0;
    for start in (0..index.rows()).step_by(CHUNK) {
        let rows = start..index.rows().min(start + CHUNK);
        let (mut left, here) = scope.of_chunk(rows.clone());
        for (i, conjunct) in conjuncts.iter().enumerate() {
            if left.iter().all(|word| *word == 0) {
                break;
            }
            let holds = conjunct.node.test(&pass, rows.clone());
            if let Some(hidden) = i.checked_sub(asked).and_then(|i| hidden.get_mut(i)) {
                for ((left, here), holds) in left.iter().zip(&here).zip(&holds) {
                    *hidden += (left & here & !holds).count_ones() as usize;
                }
            }
            for (left, holds) in left.iter_mut().zip(&holds) {
                *left &= holds;
            }
        }
        for (i, (word, here)) in left.iter().zip(&here).enumerate() {
            other_currency += (word & !here).count_ones() as usize;
            let mut found = word & here;
            while found != 0 {
                ranking.push(start + i * 64 + found.trailing_zeros() as usize);
                found &= found - 1;
            }
        }
    }

    let matched = ranking.len();
    let explain = (options.explain || matched == 0)
        .then(|| explain::explain(&pass, &conjuncts, &|row| scope.holds(row), other_currency));
    let rows = ranking.first(options.limit);
    Results {
        rows: rows.into_iter().map(|row| AskView::of(&pass, row)).collect(),
        matched,
        hidden_by_default: conjuncts[asked..]
            .iter()
            .zip(hidden)
            .filter(|(_, count)| *count > 0)
            .map(|(conjunct, count)| Hidden {
                condition: conjunct.text.clone(),
                count,
                reason: conjunct.verb(count),
                lifted_by_all: conjunct.filter != Some(Filter::Discount),
            })
            .collect(),
        other_currency,
        explain,
    }
}

/// Which places hold an ask that has not expired, and whose prices are in the search's currency.
struct Scope<'p> {
    index: &'p AskIndex,
    now: f64,
    /// The currency's number, if any ask uses it.
    currency: Option<u32>,
}

impl<'p> Scope<'p> {
    fn new(pass: &Pass<'p>, currency: &Currency) -> Self {
        Self {
            index: pass.index,
            now: pass.now.0 as f64,
            currency: pass.index.pool(TextColumn::Currency).find(&currency.0),
        }
    }

    fn live(&self, row: usize) -> bool {
        let machine = self.index.machine_of()[row] as usize;
        self.index.slots()[row] > 0 && self.index.numbers(Column::ValidUntil)[machine] > self.now
    }

    fn priced(&self, row: usize) -> bool {
        let machine = self.index.machine_of()[row] as usize;
        Some(self.index.texts(TextColumn::Currency)[machine]) == self.currency
    }

    fn holds(&self, row: usize) -> bool {
        self.live(row) && self.priced(row)
    }

    /// The live asks of a chunk, and those in the currency.
    fn of_chunk(&self, rows: std::ops::Range<usize>) -> (Mask, Mask) {
        let mut live = Mask::default();
        let mut here = Mask::default();
        for (i, row) in rows.enumerate() {
            live[i / 64] |= u64::from(self.live(row)) << (i % 64);
            here[i / 64] |= u64::from(self.priced(row)) << (i % 64);
        }
        (live, here)
    }
}
