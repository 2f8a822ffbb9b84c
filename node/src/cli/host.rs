//! `souk host`: what this machine offers, and to whom.

use serde_json::json;
use souk_protocol::Currency;

use super::{
    Context,
    args::{HostCommand, ListArgs, PriceArgs, WhoArg},
    error::Failure,
    node,
    output::{self, Align, Table},
};
use crate::{
    api::types::{
        AcceptRequest, FailureView, HostRole, HostView, ListRequest, PriceRequest, SeenView, SlotHolder, SlotView,
    },
    config::Strategy,
};

pub(super) async fn host(context: &Context, command: HostCommand) -> Result<u8, Failure> {
    let client = context.client()?;
    let accept = |who: WhoArg, accept| AcceptRequest { who: who.who, accept };
    let view: HostView = match command {
        HostCommand::Show => client.get("host").await?,
        HostCommand::List(args) => client.post("host/list", &request(args)).await?,
        HostCommand::Price(args) => {
            let request = price_request(*args);
            let asked = request == PriceRequest::default();
            let view: HostView =
                if asked { client.get("host").await? } else { client.post("host/price", &request).await? };
            if !context.json {
                output::line(prices(&view))?;
                return Ok(0);
            }
            view
        }
        HostCommand::Unlist => client.post("host/unlist", &json!({})).await?,
        HostCommand::Accept(who) => client.post("host/accept", &accept(who, true)).await?,
        HostCommand::Refuse(who) => client.post("host/accept", &accept(who, false)).await?,
    };
    if context.json {
        output::json(&view)?;
        return Ok(0);
    }
    output::line(describe(&view))?;
    node::problems(&view.problems)
}

fn request(args: ListArgs) -> ListRequest {
    ListRequest {
        slot_hour: args.price,
        min_bid: args.min_bid,
        storage_gb_month: args.storage_price,
        up_gb: args.up_price,
        down_gb: args.down_price,
        currency: args.currency,
        slots: args.slots,
        min_slots: args.min_slots,
    }
}

fn price_request(args: PriceArgs) -> PriceRequest {
    PriceRequest {
        slot_hour: args.price,
        min_bid: args.min_bid,
        storage_gb_month: args.storage_price,
        up_gb: args.up_price,
        down_gb: args.down_price,
        reserved_discount: args.reserved_discount,
        strategy: args.strategy.map(Into::into),
        command: args.command,
        min: args.min,
        max: args.max,
        hosts: args.hosts,
    }
}

/// The prices, one a line.
fn prices(view: &HostView) -> String {
    let Some(p) = &view.prices else {
        return "no price is named (souk host list --price P)".to_owned();
    };
    let money = |amount| output::money(amount, &p.currency, 9);
    let percent = format!("{}.{}%", p.reserved_discount / 10, p.reserved_discount % 10);
    output::pairs(&[
        ("slot", format!("{}/h", money(p.slot_hour))),
        ("lowest bid", format!("{}/h", money(p.min_bid))),
        ("storage", format!("{}/GB/month", money(p.storage_gb_month))),
        ("traffic", format!("{}/GB out, {}/GB in", money(p.up_gb), money(p.down_gb))),
        ("reserved", if p.reserved_discount > 0 { format!("{percent} cheaper") } else { String::new() }),
        ("strategy", strategy(view)),
        ("state", if view.role == HostRole::Listed { "offered" } else { "not offered" }.to_owned()),
    ])
}

fn strategy(view: &HostView) -> String {
    let pricing = &view.pricing;
    let currency = view.prices.as_ref().map_or_else(Currency::usd, |p| p.currency.clone());
    let money = |amount| output::money(amount, &currency, 9);
    let text = match pricing.strategy {
        Strategy::Fixed => "fixed".to_owned(),
        Strategy::Floor => "floor: down to the lowest bid while slots are free".to_owned(),
        Strategy::Command => format!("command: {}", pricing.command.as_deref().unwrap_or_default()),
        Strategy::Market => {
            let (min, max) = (pricing.min.unwrap_or_default(), pricing.max.unwrap_or_default());
            let seen = match &pricing.seen {
                Some(SeenView { hosts, median: Some(median), .. }) if *hosts >= u64::from(pricing.hosts) => {
                    format!("median {} of {hosts} hosts", money(*median))
                }
                Some(SeenView { hosts, .. }) => {
                    format!("{hosts} other hosts with comparable offers, {} are needed", pricing.hosts)
                }
                None => "not looked at yet".to_owned(),
            };
            format!("market: between {} and {}/h; {seen}", money(min), money(max))
        }
    };
    match &pricing.failure {
        Some(failure) if pricing.strategy == Strategy::Command => format!("{text} ({})", failed(failure)),
        Some(_) | None => text,
    }
}

fn failed(failure: &FailureView) -> String {
    format!("failed {} times, last at {}: {}", failure.times, output::time(failure.at_ms), failure.sentence)
}

fn conditions(view: &HostView) -> Vec<(&'static str, String)> {
    let c = &view.conditions;
    let mut pairs = Vec::new();
    if !c.attested_by.is_empty() {
        let names: Vec<String> = c.attested_by.iter().map(ToString::to_string).collect();
        pairs.push(("attested by", format!("{} (nobody has attestations yet)", names.join(", "))));
    }
    if let Some(trust) = c.min_trust {
        pairs.push(("min trust", format!("{}.{:03} (nobody has trust yet)", trust / 1000, trust % 1000)));
    }
    let some = |list: &[String]| {
        let more = if list.len() > 5 { format!(" and {} more", list.len() - 5) } else { String::new() };
        format!("{}{more}", list.iter().take(5).cloned().collect::<Vec<_>>().join(", "))
    };
    pairs.push(("images", some(&c.images_allowed)));
    pairs.push(("not images", some(&c.images_denied)));
    if let Some(command) = &c.command {
        let failure = c.failure.as_ref().map_or_else(String::new, |f| format!(" ({})", failed(f)));
        pairs.push(("asks", format!("{command}{failure}")));
    }
    pairs
}

fn describe(view: &HostView) -> String {
    let hardware = &view.hardware;
    let gpus: Vec<String> = hardware
        .gpus
        .iter()
        .map(|g| {
            let declared = if g.declared { " (declared)" } else { "" };
            format!("{} x{}{declared}", g.model, g.uuid_hashes.len())
        })
        .collect();
    let listed = match view.role {
        HostRole::Off => "not a host (souk up --host)",
        HostRole::Unlisted => "not offered (souk host list --price P)",
        HostRole::Listed => "offered",
    };
    let named_prices = view.prices.as_ref().map(|p| {
        let money = |amount| output::money(amount, &p.currency, 9);
        format!(
            "{}/h a slot, bids from {}/h, disk {}/GB/month, traffic {}/GB out, {}/GB in",
            money(p.slot_hour),
            money(p.min_bid),
            money(p.storage_gb_month),
            money(p.up_gb),
            money(p.down_gb)
        )
    });
    let named = view.accepts.peers.len();
    let accepts = match (view.accepts.anyone, named) {
        (true, _) => "anyone".to_owned(),
        (false, 0) => "nobody yet (souk host accept PEER, or anyone)".to_owned(),
        (false, _) => {
            let names: Vec<String> = view.accepts.peers.iter().take(4).map(ToString::to_string).collect();
            let more = if named > 4 { format!(" and {} more", named - 4) } else { String::new() };
            format!("{}{more}", names.join(", "))
        }
    };
    let engine = match &view.engine.version {
        Some(version) => format!(
            "{version}, GPUs {}, disk limits {}",
            view.engine.gpus.as_deref().unwrap_or("none"),
            if view.engine.hard_disk_quota { "enforced" } else { "watched" }
        ),
        None => format!("does not answer at {}", view.engine.socket),
    };
    let mut lines = vec![
        ("machine", view.machine.to_string()),
        ("state", listed.to_owned()),
        ("gpus", gpus.join(", ")),
        ("cpu", format!("{} ({} threads)", hardware.cpu.model, hardware.cpu.cores)),
        ("memory", output::megabytes(hardware.ram_mb)),
        ("disk", output::megabytes(hardware.disk_mb)),
        ("prices", named_prices.unwrap_or_else(|| "none named".to_owned())),
        ("strategy", if view.prices.is_some() { strategy(view) } else { String::new() }),
        ("slice", format!("{} of {} slots at least", view.min_slots, view.slots.len())),
        ("accepts", accepts),
    ];
    lines.extend(conditions(view));
    lines.extend([("registries", view.registries.join(", ")), ("engine", engine)]);
    let mut text = output::pairs(&lines);
    if !view.slots.is_empty() {
        text.push_str("\n\n");
        text.push_str(&slots(&view.slots));
    }
    text
}

fn slots(slots: &[SlotView]) -> String {
    let mut table =
        Table::new(&[("SLOT", Align::Right), ("WHAT", Align::Left), ("DEVICE", Align::Left), ("HELD BY", Align::Left)]);
    for slot in slots {
        table.row([
            slot.slot.to_string(),
            slot.gpu.clone().unwrap_or_else(|| "CPU".to_owned()),
            slot.device.clone().unwrap_or_else(|| "-".to_owned()),
            match &slot.holder {
                SlotHolder::Free => "nobody".to_owned(),
                SlotHolder::Lease { lease } => lease.short(),
                SlotHolder::Elsewhere => "another node of this machine".to_owned(),
            },
        ]);
    }
    table.text()
}
