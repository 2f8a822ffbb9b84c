//! `souk search`: what is on offer, as a table.

use souk_protocol::{money::Amount, offer::Reachability};

use super::{
    Context,
    args::SearchArgs,
    error::Failure,
    output::{self, Align, Table},
};
use crate::api::types::{AskRow, Explanation, SearchRequest, SearchResults};

pub(super) async fn search(context: &Context, args: SearchArgs) -> Result<u8, Failure> {
    let request = SearchRequest {
        query: args.query.join(" "),
        order: args.order,
        rental: args.rental.map(Into::into),
        storage_gb: args.storage,
        limit: args.limit,
        explain: args.explain,
        all: args.all,
    };
    let results: SearchResults = context.client()?.post("search", &request).await?;
    if context.json {
        output::json(&results)?;
        return Ok(0);
    }
    if results.rows.is_empty() {
        output::line(nothing(&results))?;
    } else {
        output::line(table(&results.rows))?;
        let shown = results.rows.len() as u64;
        if results.matched > shown {
            output::note(format!("{shown} of {} shown (--limit N)", results.matched));
        }
    }
    for hidden in &results.hidden {
        output::note(output::plain(hidden));
    }
    if let Some(explanation) = &results.explain {
        output::line(explain(explanation))?;
    }
    Ok(0)
}

fn nothing(results: &SearchResults) -> String {
    if results.total == 0 {
        return "no offers yet: souk peers shows who is connected".to_owned();
    }
    let hint = if results.explain.is_some() { "" } else { " (--explain says why)" };
    format!("no offer matches, of {}{hint}", results.total)
}

fn explain(explanation: &Explanation) -> String {
    let mut table = Table::new(&[("CONDITION", Align::Left), ("ALONE EXCLUDES", Align::Right)]);
    for count in &explanation.conditions {
        table.row([count.condition.clone(), count.excludes.to_string()]);
    }
    let mut text = String::new();
    if !explanation.conditions.is_empty() {
        text.push_str(&table.text());
    }
    for miss in &explanation.nearest {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str("nearest: ");
        text.push_str(&output::plain(miss));
    }
    text
}

fn table(rows: &[AskRow]) -> String {
    let mut table = Table::new(&[
        ("#", Align::Right),
        ("ID", Align::Left),
        ("HOST", Align::Left),
        ("GPU", Align::Left),
        ("VRAM", Align::Right),
        ("CPU", Align::Right),
        ("RAM", Align::Right),
        ("DISK", Align::Right),
        ("$/h", Align::Right),
        ("BID", Align::Right),
        ("NET ↑/↓", Align::Right),
        ("REL", Align::Right),
        ("WHERE", Align::Left),
        ("", Align::Left),
    ]);
    for row in rows {
        let dollars = |amount: Amount| output::amount(amount, 4);
        let currency = &row.currency;
        let price = if *currency == souk_protocol::Currency::usd() {
            dollars(row.dph)
        } else {
            format!("{} {currency}", dollars(row.dph))
        };
        table.row([
            row.row.to_string(),
            row.id.short(),
            row.host.short(),
            gpu(row),
            if row.gpus == 0 {
                "-".to_owned()
            } else {
                format!("{}.{} GB", row.vram_mib / 1000, row.vram_mib % 1000 / 100)
            },
            output::threads(row.cpu_milli),
            output::megabytes(row.ram_mb),
            output::megabytes(row.disk_mb),
            price,
            dollars(row.min_bid),
            network(row),
            row.reliability_permille.map_or("-".to_owned(), |r| format!("{}.{}%", r / 10, r % 10)),
            row.country.clone().unwrap_or_else(|| "-".to_owned()),
            remarks(row),
        ]);
    }
    table.text()
}

fn gpu(row: &AskRow) -> String {
    match &row.gpu_name {
        Some(name) if row.gpus > 0 => format!("{} x{}", output::cut(name, 24), row.gpus),
        _ => format!("CPU x{}", row.slots),
    }
}

fn network(row: &AskRow) -> String {
    let rate = |mbps: Option<u32>| mbps.map_or("-".to_owned(), |r| r.to_string());
    format!("{}/{}", rate(row.up_mbps), rate(row.down_mbps))
}

fn remarks(row: &AskRow) -> String {
    let mut remarks = Vec::new();
    if !row.rentable {
        remarks.push("rented");
    }
    if row.declared {
        remarks.push("declared");
    }
    if row.reachability == Reachability::Relayed {
        remarks.push("relayed");
    }
    remarks.join(", ")
}
