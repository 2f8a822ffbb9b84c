//! `souk host`: what this machine offers, and to whom.

use serde_json::json;

use super::{
    Context,
    args::{HostCommand, ListArgs, WhoArg},
    earnings,
    error::Failure,
    host_show, node, output, watch,
};
use crate::api::types::{AcceptRequest, HostRole, HostView, ListRequest};

pub(super) async fn host(context: &Context, command: HostCommand) -> Result<u8, Failure> {
    let client = context.client()?;
    let accept = |who: WhoArg, accept| AcceptRequest { who: who.who, accept };
    let view: HostView = match command {
        HostCommand::Show(args) if args.watch => {
            return watch::show(context, true, "host", |view: &HostView| describe(view)).await;
        }
        HostCommand::Earnings(args) => return earnings::earnings(context, &args).await,
        HostCommand::Show(_) => client.get("host").await?,
        HostCommand::List(args) => client.post("host/list", &request(args)).await?,
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
    let prices = view.prices.as_ref().map(|p| {
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
    let mut text = output::pairs(&[
        ("machine", view.machine.to_string()),
        ("state", listed.to_owned()),
        ("offer", view.offer.as_ref().map(host_show::offer).unwrap_or_default()),
        ("gpus", gpus.join(", ")),
        ("cpu", format!("{} ({} threads)", hardware.cpu.model, hardware.cpu.cores)),
        ("memory", output::megabytes(hardware.ram_mb)),
        ("disk", output::megabytes(hardware.disk_mb)),
        ("prices", prices.unwrap_or_else(|| "none named".to_owned())),
        ("slice", format!("{} of {} slots at least", view.min_slots, view.slots.len())),
        ("accepts", accepts),
        ("registries", view.registries.join(", ")),
        ("engine", engine),
    ]);
    for table in host_show::tables(view) {
        text.push_str("\n\n");
        text.push_str(&table);
    }
    text
}
