//! `souk host hold`, `maintenance`, `extend`: what the owner keeps from renters, and asks them for.

use super::{
    Context,
    args::{HoldArgs, HostExtendArgs, MachineArg, MaintenanceCommand, WindowArg},
    error::Failure,
    machines,
    output::{self, Align, Table, money},
};
use crate::{
    api::{
        client::escape,
        types::{
            HostOrder, LeaseDetail, MachineOrder, MachineResult, OfferExtensionRequest, ScheduleRequest, ScheduleView,
            WindowView,
        },
    },
    market::ErrorCode,
};

pub(super) async fn hold(context: &Context, args: HoldArgs) -> Result<u8, Failure> {
    let request = ScheduleRequest::Hold { slots: args.slots };
    if let Some(machine) = args.on.machine {
        return machines::order(context, machine, HostOrder::Schedule(Some(request))).await;
    }
    let view: ScheduleView = context.client()?.post("host/schedule", &request).await?;
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
        MaintenanceCommand::List(MachineArg { machine: Some(machine) }) => {
            return machines::order(context, machine, HostOrder::Schedule(None)).await;
        }
        MaintenanceCommand::List(MachineArg { machine: None }) => client.get("host/schedule").await?,
        MaintenanceCommand::Add(args) => {
            let request = ScheduleRequest::AddMaintenance { from_ms: args.from, for_ms: args.lasts };
            if let Some(machine) = args.on.machine {
                return machines::order(context, machine, HostOrder::Schedule(Some(request))).await;
            }
            client.post("host/schedule", &request).await?
        }
        MaintenanceCommand::Remove(WindowArg { number, on: MachineArg { machine: Some(machine) } }) => {
            return remove_on(context, machine, number).await;
        }
        MaintenanceCommand::Remove(WindowArg { number, on: MachineArg { machine: None } }) => {
            let announced: ScheduleView = client.get("host/schedule").await?;
            client.post("host/schedule", &removal(&announced, number)?).await?
        }
    };
    if context.json {
        output::json(&view)?;
    } else {
        output::line(windows(&view))?;
    }
    Ok(0)
}

/// Takes back the window of that number in a machine's own list.
fn removal(announced: &ScheduleView, number: usize) -> Result<ScheduleRequest, Failure> {
    let window = number.checked_sub(1).and_then(|i| announced.maintenance.get(i)).ok_or_else(|| {
        Failure::new(format!("no window of number {number} is announced"))
            .code(ErrorCode::NotFound)
            .hint("souk host maintenance list")
    })?;
    Ok(ScheduleRequest::RemoveMaintenance { from_ms: window.from_ms })
}

/// Asks each machine for its list first: the numbers are each its own.
async fn remove_on(context: &Context, machine: String, number: usize) -> Result<u8, Failure> {
    let client = context.client()?;
    let ask = MachineOrder { machine, order: HostOrder::Schedule(None) };
    let listed: Vec<MachineResult> = client.post("host/machines/order", &ask).await?;
    let mut results = Vec::new();
    for mut result in listed {
        let announced = result.done.take().and_then(|done| serde_json::from_value::<ScheduleView>(done).ok());
        match announced.map(|announced| removal(&announced, number)) {
            Some(Ok(request)) => {
                let order = HostOrder::Schedule(Some(request));
                let order = MachineOrder { machine: result.node.to_string(), order };
                let done: Vec<MachineResult> = client.post("host/machines/order", &order).await?;
                results.extend(done);
            }
            Some(Err(failure)) => results.push(MachineResult { error: Some(failure.error), ..result }),
            None => results.push(result),
        }
    }
    machines::finished(context, &results)
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
