//! The row of a month that a new agreement about a lease makes.

use souk_protocol::{Amount, entry::Entry};

use crate::{
    lease::Lease,
    months::{AgreedIn, Month},
    record::Held,
};

/// The month and the row of what both parties of a lease have just agreed to, and the document that says so.
pub(super) fn agreed(lease: &Lease, due: Amount) -> Option<(Month, AgreedIn)> {
    let receipt = lease.receipts.agreed.as_ref();
    let row = match receipt.filter(|r| r.ack.value.due == due) {
        Some(receipt) => {
            let usage = &receipt.usage;
            AgreedIn { due, document: receipt.ack.id, usage: Some((usage.id, usage.value.n)), time: usage.value.time }
        }
        None => {
            let says = |entry: &&Held<Entry>| {
                let body = &entry.value.body;
                body.closing().map(|(.., due)| due).or(body.agreement().map(|(_, due)| due)) == Some(due)
            };
            let close =
                [lease.renter_close_ack.as_ref(), lease.renter_close.as_ref()].into_iter().flatten().find(says)?;
            // By the renter's clock, which may be behind its host's: nothing is agreed to before what was agreed to already.
            let time = close.value.time.max(receipt.map_or(close.value.time, |r| r.usage.value.time));
            AgreedIn { due, document: close.id, usage: None, time }
        }
    };
    Some((Month::of(row.time), row))
}
