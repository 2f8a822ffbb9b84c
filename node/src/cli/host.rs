//! `souk host`: what this machine offers, and to whom.

use serde_json::json;
use souk_protocol::Currency;

use super::{
    Context,
    args::{EarningsArgs, HostCommand, IdleJobCommand, ListArgs, PriceArgs},
    earnings,
    error::Failure,
    host_show, machines, node,
    output::{self, Align, Table},
    schedule, watch,
};
use crate::{
    api::types::{
        AcceptRequest, EarningsRequest, FailureView, HostOrder, HostRole, HostView, IdleJobRequest, IdleJobView,
        IdleState, ListRequest, PriceRequest, PublicView, SeenView,
    },
    config::Strategy,
};

pub(super) async fn host(context: &Context, command: HostCommand) -> Result<u8, Failure> {
    let only_prices = matches!(command, HostCommand::Price(_));
    let (order, on) = match command {
        HostCommand::IdleJob(command) => return idle_job(context, command).await,
        HostCommand::Show(args) if args.watch && args.on.machine.is_none() => {
            return watch::show(context, true, "host", |view: &HostView| describe(view)).await;
        }
        HostCommand::Earnings(args) if args.on.machine.is_none() => return earnings::earnings(context, &args).await,
        HostCommand::Earnings(args) => {
            let EarningsArgs { days, from, to, on, .. } = args;
            (HostOrder::Earnings(EarningsRequest { days, from, to }), on)
        }
        HostCommand::Hold(args) => return schedule::hold(context, args).await,
        HostCommand::Maintenance(command) => return schedule::maintenance(context, command).await,
        HostCommand::Extend(args) => return schedule::extend(context, args).await,
        HostCommand::Price(args) => {
            let on = args.on.clone();
            let request = price_request(*args);
            let asked = request == PriceRequest::default();
            (if asked { HostOrder::Show } else { HostOrder::Price(Box::new(request)) }, on)
        }
        HostCommand::Machines => return machines::list(context).await,
        HostCommand::Show(args) => (HostOrder::Show, args.on),
        HostCommand::List(args) => {
            let on = args.on.clone();
            (HostOrder::List(request(args)), on)
        }
        HostCommand::Unlist(on) => (HostOrder::Unlist, on),
        HostCommand::Accept(who) => (HostOrder::Accept(AcceptRequest { who: who.who, accept: true }), who.on),
        HostCommand::Refuse(who) => (HostOrder::Accept(AcceptRequest { who: who.who, accept: false }), who.on),
    };
    if let Some(machine) = on.machine {
        return machines::order(context, machine, order).await;
    }
    let client = context.client()?;
    let view: HostView = match order {
        HostOrder::List(request) => client.post("host/list", &request).await?,
        HostOrder::Unlist => client.post("host/unlist", &json!({})).await?,
        HostOrder::Accept(request) => client.post("host/accept", &request).await?,
        HostOrder::Price(request) => {
            let view: HostView = client.post("host/price", &request).await?;
            return shown_prices(context, &view);
        }
        HostOrder::Show if only_prices => return shown_prices(context, &client.get("host").await?),
        HostOrder::Show | HostOrder::Schedule(_) | HostOrder::Earnings(_) | HostOrder::Join(_) | HostOrder::Leave => {
            client.get("host").await?
        }
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
        latest_end: args.until,
        max_term_ms: args.max_term,
        eviction_notice_ms: args.notice,
        quantum_ms: args.quantum,
    }
}

fn shown_prices(context: &Context, view: &HostView) -> Result<u8, Failure> {
    if context.json {
        output::json(view)?;
    } else {
        output::line(prices(view))?;
    }
    Ok(0)
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

async fn idle_job(context: &Context, command: IdleJobCommand) -> Result<u8, Failure> {
    let client = context.client()?;
    let view: IdleJobView = match command {
        IdleJobCommand::Show => client.get("host/idle-job").await?,
        IdleJobCommand::Clear => client.post("host/idle-job", &IdleJobRequest::default()).await?,
        IdleJobCommand::Set(args) => {
            let command = Some(args.command).filter(|words| !words.is_empty());
            client.post("host/idle-job", &IdleJobRequest { image: Some(args.image), command }).await?
        }
    };
    if context.json {
        output::json(&view)?;
        return Ok(0);
    }
    let Some(image) = view.image else {
        output::line("nothing runs on free slots (souk host idle-job set IMAGE)")?;
        return Ok(0);
    };
    let mut pairs = vec![("image", image)];
    pairs.extend(view.digest.map(|digest| ("digest", digest)));
    pairs.extend(view.command.map(|words| ("command", words.join(" "))));
    pairs.extend(view.problem.map(|problem| ("problem", problem)));
    let mut text = output::pairs(&pairs);
    if !view.slots.is_empty() {
        let mut table = Table::new(&[("SLOT", Align::Right), ("STATE", Align::Left), ("NOTE", Align::Left)]);
        for slot in view.slots {
            let state = match slot.state {
                IdleState::Preparing => "preparing",
                IdleState::Running => "running",
                IdleState::Ending => "ending",
                IdleState::Waiting => "waiting",
                IdleState::Away => "away",
            };
            table.row([slot.slot.to_string(), state.to_owned(), slot.note.unwrap_or_default()]);
        }
        text.push_str("\n\n");
        text.push_str(&table.text());
    }
    output::line(text)?;
    Ok(0)
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
        (true, _) => {
            let members = |cluster: &String| format!("every member of `{cluster}`");
            view.accepts.cluster.as_ref().map_or_else(|| "anyone".to_owned(), members)
        }
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
        ("offer", view.offer.as_ref().map(host_show::offer).unwrap_or_default()),
        ("gpus", gpus.join(", ")),
        ("cpu", format!("{} ({} threads)", hardware.cpu.model, hardware.cpu.cores)),
        ("memory", output::megabytes(hardware.ram_mb)),
        ("disk", output::megabytes(hardware.disk_mb)),
        ("prices", named_prices.unwrap_or_else(|| "none named".to_owned())),
        ("strategy", if view.prices.is_some() { strategy(view) } else { String::new() }),
        ("slice", format!("{} of {} slots at least", view.min_slots, view.slots.len())),
        ("held", schedule::held(&view.schedule)),
        ("maintenance", schedule::announced(&view.schedule)),
        ("accepts", accepts),
    ];
    lines.extend(conditions(view));
    let public = |p: &PublicView| format!("{}, ports {}, {} free", p.address, p.ports, p.free);
    lines.extend([("registries", view.registries.join(", ")), ("engine", engine)]);
    lines.extend(view.public.as_ref().map(|p| ("public", public(p))));
    let mut text = output::pairs(&lines);
    for table in host_show::tables(view) {
        text.push_str("\n\n");
        text.push_str(&table);
    }
    text
}
