//! The accounts that the engine starts from: the ledger's balances, what was noted beside them, and the payments that wait.

use souk_ledger::{
    pair::{Settlement, SettlementKey},
    view::{QueryError, View},
};
use souk_protocol::{
    Currency, NodeId, Signed, encode,
    entry::Entry,
    limits,
    machine::account::{AccountRow, Flows, Note},
};

/// Payments of one account and direction that a start looks at: those that wait are the newest.
const NEWEST: usize = 4 * limits::PAYMENTS_WAITING;
/// Bytes of a note.
const NOTE_BYTES: usize = 1024;

/// Where what is noted beside an account's sums is kept.
pub(super) fn note_key(peer: &NodeId, currency: &Currency) -> Vec<u8> {
    [b"account/".as_slice(), &peer.0, currency.0.as_bytes()].concat()
}

/// All accounts.
pub(super) fn accounts(view: &View) -> Result<Vec<AccountRow>, QueryError> {
    let mut rows = Vec::new();
    for (peer, currency, balance) in view.balances(None)? {
        let flows = Flows {
            earned: balance.earned,
            spent: balance.spent,
            received_claimed: balance.received_claimed,
            received: balance.received,
            paid: balance.paid,
            paid_acked: balance.paid_acked,
        };
        let note = view.private(&note_key(&peer, &currency))?;
        let note = note.and_then(|bytes| encode::from_bytes::<Note>(&bytes, NOTE_BYTES).ok());
        let (ours, theirs) = (payments(view, &peer, &currency, true)?, payments(view, &peer, &currency, false)?);
        let us = view.own();
        let said = |author: &NodeId, row: &Settlement| view.entry(author, row.seq);
        let answered = theirs.iter().filter_map(|row| row.ack).max_by_key(|ack| ack.seq);
        rows.push(AccountRow {
            flows,
            note,
            paid: optional(ours.last(), |row| said(&us, row))?,
            unanswered: waiting(&ours, |row| said(&us, row))?,
            received: optional(theirs.last(), |row| said(&peer, row))?,
            unverified: waiting(&theirs, |row| said(&peer, row))?,
            answer: optional(answered.as_ref(), |ack| view.entry(&us, ack.seq))?,
            peer,
            currency,
        });
    }
    Ok(rows)
}

/// The newest payments of one direction, oldest first.
fn payments(view: &View, peer: &NodeId, currency: &Currency, by_us: bool) -> Result<Vec<Settlement>, QueryError> {
    let of = SettlementKey { peer: *peer, currency: currency.clone(), by_us };
    let mut rows = view.settlements(&of, NEWEST)?;
    rows.reverse();
    Ok(rows)
}

/// Those without an answer. Payments are answered in their order, so only what came after the newest answer waits.
fn waiting(
    rows: &[Settlement],
    entry: impl Fn(&Settlement) -> Result<Option<Signed<Entry>>, QueryError>,
) -> Result<Vec<Signed<Entry>>, QueryError> {
    let from = rows.iter().rposition(|row| row.ack.is_some()).map_or(0, |newest| newest + 1);
    rows.iter().skip(from).filter_map(|row| entry(row).transpose()).collect()
}

fn optional<T>(
    row: Option<&T>,
    entry: impl FnOnce(&T) -> Result<Option<Signed<Entry>>, QueryError>,
) -> Result<Option<Signed<Entry>>, QueryError> {
    row.map_or(Ok(None), entry)
}
