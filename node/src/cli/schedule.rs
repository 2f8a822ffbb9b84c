//! `souk host hold`, `maintenance`, `extend`: what the owner keeps from renters, and asks them for.

use super::{
    Context,
    args::{HoldArgs, HostExtendArgs, MaintenanceCommand},
    error::Failure,
    output::{self, Align, Table, money},
};
use crate::{
    api::{
        client::escape,
        types::{LeaseDetail, OfferExtensionRequest, ScheduleRequest, ScheduleView, WindowView},
    },
    market::ErrorCode,
};

pub(super) async fn hold(context: &Context, args: HoldArgs) -> Result<u8, Failure> {
    let view: ScheduleView =
        context.client()?.post("host/schedule", &ScheduleRequest::Hold { slots: args.slots }).await?;
    if context.json {
        output::json(&view)?;
    } else if view.hold == 0 {
        output::line("no slot is held for your own work")?;
    } else {
        output::line(format!(
            "{} slots are held: bids give way with notice, fixed prices stay to their end",
            view.hold
        ))?;
    }
    Ok(0)
}

pub(super) async fn maintenance(context: &Context, command: MaintenanceCommand) -> Result<u8, Failure> {
    let client = context.client()?;
    let view: ScheduleView = match command {
        MaintenanceCommand::List => client.get("host/schedule").await?,
        MaintenanceCommand::Add(args) => {
            let request = ScheduleRequest::AddMaintenance { from_ms: args.from, for_ms: args.lasts };
            client.post("host/schedule", &request).await?
        }
        MaintenanceCommand::Remove(args) => {
            let announced: ScheduleView = client.get("host/schedule").await?;
            let window = args.number.checked_sub(1).and_then(|i| announced.maintenance.get(i)).ok_or_else(|| {
                Failure::new(format!("no window of number {} is announced", args.number))
                    .code(ErrorCode::NotFound)
                    .hint("souk host maintenance list")
            })?;
            client.post("host/schedule", &ScheduleRequest::RemoveMaintenance { from_ms: window.from_ms }).await?
        }
    };
    if context.json {
        output::json(&view)?;
    } else {
        output::line(windows(&view))?;
    }
    Ok(0)
}

/// Slots held, in words; empty for none.
pub(super) fn held(view: &ScheduleView) -> String {
    match view.hold {
        0 => String::new(),
        1 => "1 slot for your own work".to_owned(),
        n => format!("{n} slots for your own work"),
    }
}

/// What is announced, in words; empty for nothing.
pub(super) fn announced(view: &ScheduleView) -> String {
    let window = |w: &WindowView| format!("{} to {}", output::time(w.from_ms), output::time(w.until_ms));
    view.maintenance.iter().map(window).collect::<Vec<_>>().join(", ")
}

fn windows(view: &ScheduleView) -> String {
    if view.maintenance.is_empty() {
        return "no maintenance is announced".to_owned();
    }
    let mut table =
        Table::new(&[("#", Align::Right), ("FROM", Align::Left), ("UNTIL", Align::Left), ("TAKES", Align::Right)]);
    for (number, window) in (1..).zip(&view.maintenance) {
        table.row([
            number.to_string(),
            output::time(window.from_ms),
            output::time(window.until_ms),
            window.until_ms.since(window.from_ms).to_string(),
        ]);
    }
    table.text()
}

pub(super) async fn extend(context: &Context, args: HostExtendArgs) -> Result<u8, Failure> {
    let path = format!("leases/{}/extension/offer", escape(&args.id));
    let request = OfferExtensionRequest { by_ms: args.by, price_hour: args.price };
    let detail: LeaseDetail = context.client()?.post(&path, &request).await?;
    if context.json {
        output::json(&detail)?;
        return Ok(0);
    }
    let view = &detail.view;
    let asked = detail.asked.as_ref().map_or_else(
        || "the renter was asked".to_owned(),
        |asked| {
            let price = money(asked.price_hour, &view.currency, 6);
            format!("its renter is asked for {price}/h until {}", output::time(asked.ends_at_ms))
        },
    );
    output::line(output::plain(&format!("{} {}: {asked}", view.number, view.lease.short())))?;
    Ok(0)
}
