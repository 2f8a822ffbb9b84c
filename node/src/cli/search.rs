//! `souk search`: what is on offer, as a table.

use souk_protocol::{Currency, query::Field};

use super::{
    Context,
    args::SearchArgs,
    error::Failure,
    output::{self, Align, Table},
};
use crate::api::types::{AskRow, Explanation, SearchRequest, SearchResults};

pub(super) async fn search(context: &Context, args: SearchArgs) -> Result<u8, Failure> {
    let asked = args.explain;
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
    if !results.rows.is_empty() {
        output::line(table(&results.rows))?;
    }
    let shown = results.rows.len() as u64;
    if results.matched > shown {
        output::note(format!("{shown} of {} shown (--limit N)", results.matched));
    }
    if let Some(explanation) = &results.explain {
        if results.rows.is_empty() {
            output::line(nothing(explanation, asked))?;
        }
        if asked {
            output::line(explain(explanation))?;
        }
    }
    if !results.rows.is_empty() {
        hidden(&results);
    }
    Ok(0)
}

fn nothing(explanation: &Explanation, asked: bool) -> String {
    if explanation.considered == 0 {
        return "no offers yet (souk peers shows who is connected)".to_owned();
    }
    let hint = if asked { "" } else { " (souk search --explain)" };
    format!("{}{hint}", output::plain(&explanation.sentence))
}

fn hidden(results: &SearchResults) {
    for hidden in &results.hidden {
        let reason = output::plain(&hidden.reason);
        output::note(format!("{} more {reason} (--all shows them)", hidden.count));
    }
    if results.other_currency > 0 {
        output::note(format!("{} more have prices in another currency", results.other_currency));
    }
}

fn explain(explanation: &Explanation) -> String {
    let mut table = Table::new(&[("CONDITION", Align::Left), ("EXCLUDES", Align::Right), ("WITHOUT IT", Align::Right)]);
    for count in &explanation.conditions {
        let by_default = if count.by_default { " (by default)" } else { "" };
        table.row([
            format!("{}{by_default}", count.condition),
            count.excludes.to_string(),
            format!("{} more", count.alone),
        ]);
    }
    let mut lines = Vec::new();
    if !explanation.conditions.is_empty() {
        lines.push(table.text());
    }
    for miss in &explanation.nearest {
        let text = format!("nearest: {} {}, fails {}", miss.id.short(), miss.summary, miss.fails.join(", "));
        lines.push(output::plain(&text));
    }
    lines.join("\n")
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
        ("DLPERF", Align::Right),
        ("NET ↑/↓", Align::Right),
        ("REL", Align::Right),
        ("TRUST", Align::Right),
        ("WHERE", Align::Left),
        ("", Align::Left),
    ]);
    for row in rows {
        let number = |field, decimals: usize, unit: &str| match row.number(field) {
            Some(x) => format!("{x:.decimals$}{unit}"),
            None => "-".to_owned(),
        };
        let gpus = row.number(Field::NumGpus).unwrap_or_default() > 0.0;
        let mut price = number(Field::Dph, 4, "");
        if row.currency != Currency::usd() {
            price = format!("{price} {}", row.currency);
        }
        table.row([
            row.row.to_string(),
            row.id.short(),
            row.host_id.short(),
            if gpus {
                let model = row.text(Field::GpuName).unwrap_or("?");
                format!("{} x{}", output::cut(model, 24), number(Field::NumGpus, 0, ""))
            } else {
                format!("CPU x{}", row.slots)
            },
            if gpus { number(Field::GpuRam, 1, " GB") } else { "-".to_owned() },
            number(Field::CpuCoresEffective, 1, ""),
            number(Field::CpuRam, 1, " GB"),
            number(Field::DiskSpace, 0, " GB"),
            price,
            number(Field::MinBid, 4, ""),
            number(Field::Dlperf, 1, ""),
            format!("{}/{}", number(Field::InetUp, 0, ""), number(Field::InetDown, 0, "")),
            row.number(Field::Reliability).map_or("-".to_owned(), |r| format!("{:.1}%", r * 100.0)),
            number(Field::Trust, 2, ""),
            row.text(Field::Geolocation).unwrap_or("-").to_owned(),
            remarks(row),
        ]);
    }
    table.text()
}

fn remarks(row: &AskRow) -> String {
    let rented = (!row.is(Field::Rentable)).then_some("rented");
    let relayed = (row.text(Field::Reachability) == Some("relayed")).then_some("relayed");
    rented.into_iter().chain(relayed).collect::<Vec<_>>().join(", ")
}
