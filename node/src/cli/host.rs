//! `souk host`: what this machine offers, and to whom.

use serde_json::json;

use super::{
    Context,
    args::{HostCommand, ListArgs},
    error::Failure,
    machines, node,
    output::{self, Align, Table},
};
use crate::api::types::{AcceptRequest, HostOrder, HostRole, HostView, ListRequest, SlotHolder, SlotView};

pub(super) async fn host(context: &Context, command: HostCommand) -> Result<u8, Failure> {
    let (order, on) = match command {
        HostCommand::Machines => return machines::list(context).await,
        HostCommand::Show(on) => (HostOrder::Show, on),
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
        HostOrder::Show | HostOrder::Join(_) | HostOrder::Leave => client.get("host").await?,
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
