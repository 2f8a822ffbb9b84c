//! `souk host machines`, and `--machine ID|all` on the host's commands.

use souk_protocol::machine::sisters::SisterState;

use super::{
    Context,
    error::{FAILED, Failure},
    output::{self, Align, Table},
    schedule,
};
use crate::api::types::{HostOrder, HostRole, HostView, MachineOrder, MachineResult, MachineView, ScheduleView};

/// Lists the owner's machines.
pub(super) async fn list(context: &Context) -> Result<u8, Failure> {
    let machines: Vec<MachineView> = context.client()?.get("host/machines").await?;
    if context.json {
        output::json(&machines)?;
        return Ok(0);
    }
    if machines.is_empty() {
        output::note("no machine of this owner is known yet; souk owner sign NODE makes one yours");
        return Ok(0);
    }
    let mut table = Table::new(&[
        ("MACHINE", Align::Left),
        ("NODE", Align::Left),
        ("STATE", Align::Left),
        ("WHAT", Align::Left),
        ("FREE", Align::Right),
        ("PRICE/H", Align::Right),
        ("MIN BID/H", Align::Right),
        ("SEEN", Align::Left),
    ]);
    for machine in &machines {
        let offer = machine.offer.as_ref();
        let of = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        table.row([
            machine.machine.map_or_else(|| "?".to_owned(), |m| m.short()),
            machine.node.short(),
            state(machine.state).to_owned(),
            of(offer.map(|o| output::cut(o.gpu.as_deref().unwrap_or("CPU"), 24))),
            of(offer.map(|o| format!("{}/{}", o.slots_free, o.slots_total))),
            of(offer.map(|o| output::money(o.slot_hour, &o.currency, 4))),
            of(offer.map(|o| output::money(o.min_bid, &o.currency, 4))),
            if machine.here {
                "this one".to_owned()
            } else if machine.connected {
                "now".to_owned()
            } else {
                machine.seen_ms.map_or_else(|| "never".to_owned(), |at| format!("{} ago", output::ago(at)))
            },
        ]);
    }
    output::line(table.text())?;
    Ok(0)
}

const fn state(state: SisterState) -> &'static str {
    match state {
        SisterState::Online => "online",
        SisterState::Unlisted => "unlisted",
        SisterState::Offline => "offline",
        SisterState::Unseen => "not seen",
    }
}

/// Has an order carried out on the machines named.
pub(super) async fn order(context: &Context, machine: String, order: HostOrder) -> Result<u8, Failure> {
    let request = MachineOrder { machine, order };
    let results: Vec<MachineResult> = context.client()?.post("host/machines/order", &request).await?;
    finished(context, &results)
}

/// Says what came of an order. Fails if it was not carried out everywhere.
pub(super) fn finished(context: &Context, results: &[MachineResult]) -> Result<u8, Failure> {
    let code = if results.iter().all(|r| r.error.is_none()) { 0 } else { FAILED };
    if context.json {
        output::json(&results)?;
        return Ok(code);
    }
    let mut table = Table::new(&[("MACHINE", Align::Left), ("NODE", Align::Left), ("RESULT", Align::Left)]);
    for result in results {
        table.row([
            result.machine.map_or_else(|| "?".to_owned(), |m| m.short()),
            result.node.short(),
            match (&result.error, &result.done) {
                (Some(error), _) => format!("failed: {error}"),
                (None, done) => done.as_ref().map_or_else(|| "done".to_owned(), summary),
            },
        ]);
    }
    output::line(table.text())?;
    Ok(code)
}

/// What is kept from renters, in words.
fn kept(schedule: &ScheduleView) -> String {
    let held = match schedule::held(schedule) {
        held if held.is_empty() => "nothing held".to_owned(),
        held => held,
    };
    match schedule::announced(schedule) {
        windows if windows.is_empty() => format!("{held}, no maintenance"),
        windows => format!("{held}, maintenance {windows}"),
    }
}

/// A machine's answer in a few words: what it offers, where it says that.
fn summary(done: &serde_json::Value) -> String {
    let Ok(view) = serde_json::from_value::<HostView>(done.clone()) else {
        let schedule = serde_json::from_value::<ScheduleView>(done.clone());
        return schedule.map_or_else(|_| "done".to_owned(), |schedule| kept(&schedule));
    };
    let free = view.slots.iter().filter(|s| matches!(s.holder, crate::api::types::SlotHolder::Free)).count();
    match (view.role, &view.prices) {
        (HostRole::Listed, Some(prices)) => format!(
            "offered at {}/h a slot, bids from {}/h, {free} of {} slots free",
            output::money(prices.slot_hour, &prices.currency, 9),
            output::money(prices.min_bid, &prices.currency, 9),
            view.slots.len()
        ),
        (HostRole::Listed | HostRole::Unlisted | HostRole::Off, _) => "not offered".to_owned(),
    }
}
