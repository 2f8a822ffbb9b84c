//! Search beside SQLite in memory over the same asks, in one run.
//!
//! SQLite gets what helps it: every field as a column, scores worked out beforehand, indexes on each field that is asked for or
//! ordered by, statistics, a prepared statement, and a warm cache; it reads the rows it finds, as search does. A search says how
//! many match, so SQLite counts them too. The price is for the disk that is asked for, so it is an expression; what SQLite does
//! where it is told the prices of this very disk beforehand, and nobody wants the count, is printed as well: it may then walk
//! an index in order and stop at the fiftieth.

use std::{
    collections::BTreeMap,
    hint::black_box,
    time::{Duration, Instant},
};

use rusqlite::{Connection, Statement, types::Value};
use souk_protocol::{
    AskId,
    machine::search::{AskIndex, AskView, Datum, Options, OrderBy, STORAGE_GB, search},
    query::{Field, Query, fields},
};

use crate::row;

#[allow(dead_code, reason = "shared with the search's own rates")]
#[path = "../../../../protocol/examples/search_rates/market.rs"]
mod market;

const ASKS: usize = 100_000;
const RUNS: usize = 101;
/// The time, and the disk in GB.
const ASKED: (i64, f64) = (market::NOW.0 as i64, STORAGE_GB);

/// A query, its order, and both as SQL.
const SEARCHES: [(&str, &str, &str, &str); 3] = [
    ("gpu_ram>=24 dph<1.5 num_gpus>=2", "dph", "gpu_ram >= 24 AND DPH < 1.5 AND num_gpus >= 2", "DPH"),
    ("gpu_ram>=24 dph<1.5 num_gpus>=2", "score-", "gpu_ram >= 24 AND DPH < 1.5 AND num_gpus >= 2", "score DESC"),
    (
        "gpu_name=RTX_4090 geolocation in [DE,FR,SE] reliability>0.4",
        "dph",
        "gpu_name = 'RTX 4090' AND geolocation IN ('DE', 'FR', 'SE') AND reliability > 0.4",
        "DPH",
    ),
];

/// The price with the disk asked for, as SQL.
const DPH: &str = "(price + ?2 * storage_cost / 720.0)";

/// What search adds by default, as SQL.
const DEFAULTS: &str = "rentable = 1 AND disk_space >= ?2 AND avoided = 0 AND currency = 'USD' AND valid_until > ?1";

const INDEXES: [&str; 10] = [
    "gpu_ram",
    "dph",
    "price",
    "gpu_name, price",
    "num_gpus",
    "score",
    "gpu_name, dph",
    "geolocation, dph",
    "num_gpus, gpu_ram, dph",
    "rentable, dph",
];

pub fn run() {
    let offers = market::offers(ASKS, 1);
    let mut index = AskIndex::new();
    for (id, offer) in &offers {
        index.insert(*id, offer);
    }
    let options = Options::at(market::NOW);
    let database =
        fill(&index, &options, &offers.iter().map(|(_, o)| ((o.host, o.machine), o.valid_until.0)).collect());
    for (text, order, conditions, by) in SEARCHES {
        let query = Query::parse(text).unwrap();
        let options = Options { order: OrderBy::parse_list(order).unwrap(), ..options.clone() };
        let rows = format!("SELECT * FROM asks WHERE {conditions} AND {DEFAULTS} ORDER BY {by}, id LIMIT 50");
        let count = format!("SELECT count(*) FROM asks WHERE {conditions} AND {DEFAULTS}");
        let mut told = database.prepare(&rows.replace("DPH", "dph")).unwrap();
        let mut select = database.prepare(&rows.replace("DPH", DPH)).unwrap();
        let mut count = database.prepare(&count.replace("DPH", DPH)).unwrap();
        let found = search(&index, &query, &options);
        let same: Vec<String> = read(&mut select).into_iter().map(|row| text_of(&row[0])).collect();
        assert_eq!(found.rows.iter().map(|r| r.ask.to_string()).collect::<Vec<_>>(), same, "{text}");
        assert_eq!(found.matched as i64, counted(&mut count), "{text}");

        // In turns, so that both see the same machine.
        let [mut ours, mut theirs, mut easiest] = [const { Vec::new() }; 3];
        for _ in 0..RUNS {
            let start = Instant::now();
            black_box(search(&index, &query, &options));
            ours.push(start.elapsed());
            let start = Instant::now();
            black_box((read(&mut select), counted(&mut count)));
            theirs.push(start.elapsed());
            let start = Instant::now();
            black_box(read(&mut told));
            easiest.push(start.elapsed());
        }
        let (ours, theirs, easiest) = (median(ours), median(theirs), median(easiest));
        let times = theirs.as_secs_f64() / ours.as_secs_f64();
        row(
            &format!("search {} asks, {} match", index.len(), found.matched),
            &format!("{ours:.2?}  {text} -o {order}"),
        );
        row("  beside SQLite", &format!("{theirs:.2?}: ours is {times:.1} × as fast"));
        row("  told the prices, not counting", &format!("{easiest:.2?}"));
    }
}

/// The same asks in a table: every field, and what the scope of a search looks at.
fn fill(
    index: &AskIndex,
    options: &Options,
    valid_until: &BTreeMap<(souk_protocol::NodeId, souk_protocol::MachineId), u64>,
) -> Connection {
    let mut database = Connection::open_in_memory().unwrap();
    let names: Vec<&str> = fields().iter().map(|info| info.name).filter(|name| *name != "id").collect();
    let column = |name: &&str| format!(", {name}");
    let columns: String = names.iter().map(column).collect();
    database
        .execute_batch(&format!("CREATE TABLE asks (id TEXT{columns}, currency TEXT, valid_until INTEGER, price REAL)"))
        .unwrap();
    let everything = Query::parse("").unwrap();
    let transaction = database.transaction().unwrap();
    {
        let marks = vec!["?"; names.len() + 4].join(",");
        let mut insert = transaction.prepare(&format!("INSERT INTO asks VALUES ({marks})")).unwrap();
        for currency in ["USD", "EUR"] {
            let currency = souk_protocol::Currency(currency.to_owned());
            let all = Options { all: true, limit: usize::MAX, currency, ..options.clone() };
            let bare = search(index, &everything, &Options { storage_gb: 0.0, ..all.clone() }).rows;
            let price: BTreeMap<AskId, f64> = bare.iter().map(|a| (a.ask, a.number(Field::Dph).unwrap())).collect();
            for ask in search(index, &everything, &all).rows {
                let mut values = vec![Value::Text(ask.ask.to_string())];
                values.extend(fields().iter().filter(|info| info.name != "id").map(|info| value(&ask, info)));
                values.push(Value::Text(ask.currency.to_string()));
                values.push(Value::Integer(valid_until[&(ask.host, ask.machine)] as i64));
                values.push(Value::Real(price[&ask.ask]));
                insert.execute(rusqlite::params_from_iter(values)).unwrap();
            }
        }
    }
    transaction.commit().unwrap();
    for (n, columns) in INDEXES.iter().enumerate() {
        database.execute_batch(&format!("CREATE INDEX by_{n} ON asks ({columns})")).unwrap();
    }
    database.execute_batch("ANALYZE").unwrap();
    database
}

fn value(ask: &AskView, info: &souk_protocol::query::FieldInfo) -> Value {
    match ask.get(info.field) {
        Datum::Absent => Value::Null,
        Datum::Number(x) => Value::Real(*x),
        Datum::Bool(truth) => Value::Integer(i64::from(*truth)),
        Datum::Text(text) => Value::Text(text.clone()),
    }
}

fn read(statement: &mut Statement<'_>) -> Vec<Vec<Value>> {
    let columns = statement.column_count();
    let rows = statement.query_map(ASKED, |row| (0..columns).map(|i| row.get(i)).collect());
    rows.unwrap().map(Result::unwrap).collect()
}

fn counted(statement: &mut Statement<'_>) -> i64 {
    statement.query_row(ASKED, |row| row.get(0)).unwrap()
}

fn text_of(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Null | Value::Integer(_) | Value::Real(_) | Value::Blob(_) => String::new(),
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
