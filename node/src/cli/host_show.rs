//! Tables of `souk host show`: who is on the machine, and who bids for it.

use super::{
    leases,
    output::{self, Align, Table},
};
use crate::api::types::{BidView, HostView, LeaseView, OfferView, SlotHolder};

/// The offer in a line.
pub(super) fn offer(offer: &OfferView) -> String {
    let volumes = if offer.volume_mb == 0 {
        "no volumes".to_owned()
    } else {
        let (left, all) = (output::megabytes(offer.volume_free_mb), output::megabytes(offer.volume_mb));
        format!("{left} of {all} left for volumes")
    };
    let slices: Vec<String> = offer.slices.iter().map(|n| format!("{n}x")).collect();
    format!(
        "number {}, {} of {} slots free, sold as {}, {volumes}, valid until {}",
        offer.seq,
        offer.slots_free,
        offer.slots_total,
        slices.join(" "),
        output::time(offer.valid_until_ms)
    )
}

/// Slots, leases and bids, as far as there are any.
pub(super) fn tables(view: &HostView) -> Vec<String> {
    let mut tables = Vec::new();
    if !view.slots.is_empty() {
        tables.push(slots(view));
    }
    if !view.leases.is_empty() {
        tables.push(leases(&view.leases));
    }
    if !view.bids.is_empty() {
        tables.push(bids(&view.bids));
    }
    tables
}

fn slots(view: &HostView) -> String {
    let mut table =
        Table::new(&[("SLOT", Align::Right), ("WHAT", Align::Left), ("DEVICE", Align::Left), ("HELD BY", Align::Left)]);
    for slot in &view.slots {
        let mut holder = match &slot.holder {
            SlotHolder::Free => "nobody".to_owned(),
            SlotHolder::Lease { lease } => {
                let held = view.leases.iter().find(|l| l.lease == *lease);
                held.map_or_else(|| lease.short(), |l| format!("{} {}", l.number, l.lease.short()))
            }
            SlotHolder::Elsewhere => "another node of this machine".to_owned(),
        };
        if !slot.listed {
            holder.push_str(" (not sold any more)");
        }
        table.row([
            slot.slot.to_string(),
            slot.gpu.clone().unwrap_or_else(|| "CPU".to_owned()),
            slot.device.clone().unwrap_or_else(|| "-".to_owned()),
            holder,
        ]);
    }
    table.text()
}

fn leases(leases: &[LeaseView]) -> String {
    let mut table = Table::new(&[
        ("#", Align::Right),
        ("LEASE", Align::Left),
        ("STATE", Align::Left),
        ("TYPE", Align::Left),
        ("GRANT", Align::Left),
        ("$/h", Align::Right),
        ("RENTER", Align::Left),
        ("SINCE", Align::Right),
        ("ENDS", Align::Left),
        ("DUE", Align::Right),
        ("ACKED", Align::Right),
    ]);
    for lease in leases {
        table.row([
            lease.number.to_string(),
            lease.lease.short(),
            leases::state(lease),
            lease.rental.name().to_owned(),
            leases::grant(lease),
            output::amount(lease.price_hour, 4),
            lease.peer.short(),
            output::ago(lease.since_ms).to_string(),
            output::time(lease.ends_at_ms),
            output::money(lease.due, &lease.currency, 6),
            output::money(lease.acked, &lease.currency, 6),
        ]);
    }
    table.text()
}

fn bids(bids: &[BidView]) -> String {
    let mut table = Table::new(&[
        ("RANK", Align::Right),
        ("BID OF", Align::Left),
        ("SLOTS", Align::Right),
        ("$/h A SLOT", Align::Right),
        ("STATE", Align::Left),
        ("SINCE", Align::Right),
        ("RENTER", Align::Left),
    ]);
    for bid in bids {
        table.row([
            bid.rank.to_string(),
            format!("{} {}", bid.number, bid.lease.short()),
            bid.slots.to_string(),
            output::amount(bid.slot_hour, 9),
            bid.state.to_string(),
            output::ago(bid.since_ms).to_string(),
            bid.renter.short(),
        ]);
    }
    table.text()
}
