//! `souk market`: what the offers seen say of prices.

use souk_protocol::Currency;

use super::{
    Context,
    args::MarketArgs,
    error::Failure,
    output::{self, Align, Table},
};
use crate::api::types::{BarView, MarketRequest, MarketView, ModelView};

/// Columns of the longest bar.
const BAR: u64 = 40;

pub(super) async fn market(context: &Context, args: &MarketArgs) -> Result<u8, Failure> {
    let gpu = Some(args.gpu.join(" ")).filter(|g| !g.is_empty());
    let one = gpu.is_some();
    let view: MarketView = context.client()?.post("market", &MarketRequest { gpu }).await?;
    if context.json {
        output::json(&view)?;
        return Ok(0);
    }
    match view.models.as_slice() {
        [] => output::line("no offers yet (souk peers shows who is connected)")?,
        [model] if one => output::line(plot(model, &view.currency))?,
        models => output::line(table(models, &view.currency))?,
    }
    if view.more > 0 {
        output::note(format!("{} more models (souk market GPU)", view.more));
    }
    if view.other_currency > 0 {
        output::note(format!("{} more machines have prices in another currency", view.other_currency));
    }
    Ok(0)
}

fn name(model: &ModelView) -> String {
    model.gpu.as_deref().map_or_else(|| "CPU thread".to_owned(), |gpu| output::cut(gpu, 32))
}

fn occupied(model: &ModelView) -> String {
    let rented = model.slots_total.saturating_sub(model.slots_free);
    let percent = u128::from(rented) * 100 / u128::from(model.slots_total.max(1));
    format!("{percent}%")
}

fn table(models: &[ModelView], currency: &Currency) -> String {
    let mut table = Table::new(&[
        ("GPU", Align::Left),
        ("MEDIAN/h", Align::Right),
        ("25%", Align::Right),
        ("75%", Align::Right),
        ("LOWEST", Align::Right),
        ("FREE", Align::Right),
        ("SLOTS", Align::Right),
        ("RENTED", Align::Right),
        ("HOSTS", Align::Right),
        ("MACHINES", Align::Right),
        ("ASKS", Align::Right),
    ]);
    for model in models {
        let money = |amount| output::money(amount, currency, 4);
        table.row([
            name(model),
            money(model.median),
            money(model.lower_quartile),
            money(model.upper_quartile),
            money(model.lowest),
            model.slots_free.to_string(),
            model.slots_total.to_string(),
            occupied(model),
            model.hosts.to_string(),
            model.machines.to_string(),
            model.asks.to_string(),
        ]);
    }
    table.text()
}

fn plot(model: &ModelView, currency: &Currency) -> String {
    let money = |amount| output::money(amount, currency, 6);
    let text = output::pairs(&[
        (if model.gpu.is_some() { "gpu" } else { "unit" }, name(model)),
        ("median", format!("{}/h", money(model.median))),
        ("middle half", format!("{} to {}/h", money(model.lower_quartile), money(model.upper_quartile))),
        ("range", format!("{} to {}/h", money(model.lowest), money(model.highest))),
        ("slots", format!("{} free of {}, {} rented", model.slots_free, model.slots_total, occupied(model))),
        ("offered by", format!("{} hosts with {} machines, in {} asks", model.hosts, model.machines, model.asks)),
    ]);
    format!("{text}\n\nhosts by price per hour, each counted once:\n{}", bars(model, currency))
}

fn bars(model: &ModelView, currency: &Currency) -> String {
    let most = model.histogram.iter().map(|b| b.hosts).max().unwrap_or(0).max(1);
    let last = model.histogram.len().saturating_sub(1);
    let label = |(n, bar): (usize, &BarView)| {
        let below = if n == 0 && model.lowest < bar.from { "≤ " } else { "" };
        let above = if n == last && model.highest > bar.to { "+" } else { "" };
        format!("{below}{}{above}", output::money(bar.from, currency, 6))
    };
    let labels: Vec<String> = model.histogram.iter().enumerate().map(label).collect();
    let width = labels.iter().map(|l| l.chars().count()).max().unwrap_or(0);
    let line = |(bar, label): (&BarView, &String)| {
        let length = u128::from(bar.hosts) * u128::from(BAR) / u128::from(most);
        // Few are not none.
        let length = usize::try_from(length).unwrap_or(0).max(usize::from(bar.hosts > 0));
        format!("{label:>width$} │{} {}", "█".repeat(length), bar.hosts)
    };
    model.histogram.iter().zip(&labels).map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use souk_protocol::Amount;

    use super::*;

    #[test]
    fn a_plot_has_a_bar_a_bucket_and_no_escape() {
        let bar = |from, to, hosts| BarView { from: Amount(from), to: Amount(to), hosts };
        let model = ModelView {
            gpu: Some("RTX\u{1b}[2J 4090".to_owned()),
            hosts: 101,
            machines: 200,
            asks: 300,
            slots_total: 400,
            slots_free: 100,
            lowest: Amount(100_000_000),
            lower_quartile: Amount(200_000_000),
            median: Amount(300_000_000),
            upper_quartile: Amount(400_000_000),
            highest: Amount(9_000_000_000),
            histogram: vec![bar(100_000_000, 300_000_000, 1), bar(300_000_000, 500_000_000, 100)],
        };
        let text = plot(&model, &Currency::usd());
        assert!(!text.contains('\u{1b}') && text.contains("75% rented"), "{text}");
        let bars: Vec<&str> = text.lines().rev().take(2).collect();
        assert_eq!(bars[1], " $0.10 │█ 1");
        assert_eq!(bars[0], format!("$0.30+ │{} 100", "█".repeat(40)));
        assert!(table(&[model], &Currency::usd()).contains("$0.30"));
    }
}
