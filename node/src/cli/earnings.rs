//! `souk host earnings`: what was earned by day and machine, as a table with bars, as JSON, or as comma-separated values.

use std::collections::{BTreeMap, BTreeSet};

use souk_protocol::{Amount, Currency};

use super::{
    Context,
    args::EarningsArgs,
    error::Failure,
    output::{self, Align, Table},
    plot::{self, Bar},
};
use crate::api::{
    client::escape,
    types::{EarnedView, EarningsView, date, day},
};

/// Bars shown: of the newest days.
const BARS: u32 = 62;
/// Decimals of the table.
const DECIMALS: u32 = 6;

pub(super) async fn earnings(context: &Context, args: &EarningsArgs) -> Result<u8, Failure> {
    let mut path = "host/earnings".to_owned();
    let mut sign = '?';
    let asked = [("days", args.days.map(|n| n.to_string())), ("from", args.from.clone()), ("to", args.to.clone())];
    for (name, value) in asked {
        if let Some(value) = value {
            path.push_str(&format!("{sign}{name}={}", escape(&value)));
            sign = '&';
        }
    }
    let view: EarningsView = context.client()?.get(&path).await?;
    if context.json {
        output::json(&view)?;
    } else if args.csv {
        output::line(csv(&view))?;
    } else {
        output::line(text(&view, plot::unicode()))?;
    }
    Ok(0)
}

fn csv(view: &EarningsView) -> String {
    let head = "day,machine,currency,leases,acknowledged_compute,acknowledged_storage,acknowledged_traffic,\
                acknowledged_other,acknowledged,unacknowledged,claimed_compute,claimed_storage,claimed_traffic,\
                claimed_other,claimed,running_ms,disk_ms,rx_bytes,tx_bytes";
    let row = |e: &EarnedView| {
        let (a, c) = (&e.acknowledged, &e.claimed);
        let money = [
            a.compute,
            a.storage,
            a.traffic,
            a.other,
            a.total,
            e.unacknowledged,
            c.compute,
            c.storage,
            c.traffic,
            c.other,
            c.total,
        ];
        let mut cells = vec![
            e.day.clone().unwrap_or_default(),
            e.machine.map(|m| m.to_string()).unwrap_or_default(),
            e.currency.to_string(),
            e.leases.to_string(),
        ];
        cells.extend(money.iter().map(ToString::to_string));
        let used = &e.counters;
        cells.extend([used.active_ms.0, used.storage_ms.0, used.rx_bytes, used.tx_bytes].map(|n| n.to_string()));
        cells.join(",")
    };
    std::iter::once(head.to_owned()).chain(view.days.iter().map(row)).collect::<Vec<_>>().join("\n")
}

fn text(view: &EarningsView, unicode: bool) -> String {
    if view.days.is_empty() {
        return format!("nothing was earned from {} to {}", view.from, view.to);
    }
    let mut parts = vec![table(view)];
    for total in &view.total {
        parts.push(bars(view, &total.currency, unicode));
    }
    parts.push(format!(
        "{} is acknowledged, {} is claimed and not yet acknowledged; days are of UTC",
        if unicode { "█" } else { "#" },
        if unicode { "░" } else { "." }
    ));
    parts.join("\n\n")
}

fn table(view: &EarningsView) -> String {
    let machines: BTreeSet<_> = view.days.iter().map(|e| e.machine).collect();
    let (many, other) = (machines.len() > 1, view.total.iter().any(|e| e.claimed.other > Amount::ZERO));
    let mut columns = vec![("DAY", Align::Left)];
    if many {
        columns.push(("MACHINE", Align::Left));
    }
    columns.extend([("LEASES", Align::Right), ("RUNNING", Align::Right), ("COMPUTE", Align::Right)]);
    columns.extend([("STORAGE", Align::Right), ("TRAFFIC", Align::Right)]);
    if other {
        columns.push(("OTHER", Align::Right));
    }
    columns.extend([("ACKNOWLEDGED", Align::Right), ("NOT YET", Align::Right)]);
    let mut table = Table::new(&columns);
    let mut row = |e: &EarnedView| {
        let money = |amount| rounded_down(amount, &e.currency);
        let mut cells = vec![e.day.clone().unwrap_or_else(|| "total".to_owned())];
        if many {
            cells.push(e.machine.map_or_else(String::new, |m| m.to_string()));
        }
        let a = &e.acknowledged;
        cells.extend([e.leases.to_string(), e.counters.active_ms.to_string()]);
        cells.extend([a.compute, a.storage, a.traffic].map(money));
        cells.extend(other.then(|| money(a.other)));
        cells.extend([a.total, e.unacknowledged].map(money));
        table.row(cells);
    };
    view.days.iter().for_each(&mut row);
    if many {
        view.machines.iter().for_each(&mut row);
    }
    view.total.iter().for_each(&mut row);
    table.text()
}

/// One bar a day, from the first in which something was earned; of a long time the newest.
fn bars(view: &EarningsView, currency: &Currency, unicode: bool) -> String {
    let mut days: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for e in view.days.iter().filter(|e| e.currency == *currency) {
        let (solid, light) = days.entry(e.day.as_deref().unwrap_or_default()).or_default();
        *solid = solid.saturating_add(e.acknowledged.total.0);
        *light = light.saturating_add(e.unacknowledged.0);
    }
    let first = days.keys().next().and_then(|first| day(first).ok()).unwrap_or(0);
    let last = day(&view.to).unwrap_or(first);
    let bars: Vec<Bar> = (first.max(last.saturating_sub(BARS - 1))..=last)
        .map(|n| {
            let label = date(n);
            let (solid, light) = days.get(label.as_str()).copied().unwrap_or_default();
            let value = rounded_down(Amount(solid.saturating_add(light)), currency);
            Bar { label, solid, light, value }
        })
        .collect();
    plot::bars(&bars, unicode)
}

/// An amount for the table: an earning never looks larger than it is.
fn rounded_down(amount: Amount, currency: &Currency) -> String {
    let unit = 10u64.pow(9 - DECIMALS);
    output::money(Amount(amount.0 / unit * unit), currency, DECIMALS)
}
