//! Ledgers written before labels and events had records of their own: they lie in rows that only the node understood. Taken over
//! once, at the first start.

use souk_ledger::{
    record::{Fact, Private},
    thread::{LedgerHandle, Ticket},
};
use souk_protocol::{LeaseId, encode, limits, message::LeaseEvent};

/// Is there as long as such rows are.
const MARK: &[u8] = b"next-number";

/// Writes labels and events from old rows as records, and removes the rows. Blocks until that is durable.
pub(super) fn take_over(handle: &LedgerHandle) -> anyhow::Result<()> {
    let view = handle.view();
    if view.private(MARK)?.is_none() {
        return Ok(());
    }
    let gone = |key: Vec<u8>| Fact::Private(Private::Row { key, value: None });
    let mut last: Option<Ticket> = None;
    let mut append = |fact| handle.append_blocking(fact).map(|ticket| last = Some(ticket));
    for (key, value) in view.private_rows(b"label\0")? {
        if let (Some(lease), Ok(text)) = (lease_in(&key, b"label\0"), String::from_utf8(value)) {
            append(Fact::Private(Private::Label { lease, text }))?;
        }
        append(gone(key))?;
    }
    for (key, value) in view.private_rows(b"event\0")? {
        let event = encode::from_bytes::<LeaseEvent>(&value, limits::RECEIPT_BYTES);
        if let (Some(lease), Ok(event)) = (lease_in(&key, b"event\0"), event) {
            append(Fact::Private(Private::Event { lease, event }))?;
        }
        append(gone(key))?;
    }
    for (key, _) in view.private_rows(b"number\0")? {
        append(gone(key))?;
    }
    append(gone(MARK.to_vec()))?;
    if let Some(last) = last {
        handle.wait(last)?;
    }
    Ok(())
}

fn lease_in(key: &[u8], kind: &[u8]) -> Option<LeaseId> {
    key.strip_prefix(kind)?.first_chunk().map(|id| LeaseId(*id))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use souk_ledger::{commit::Ledger, thread::LedgerThread};
    use souk_protocol::{Keypair, NetworkId};

    use super::*;

    #[test]
    fn old_rows_go_and_are_looked_for_once() {
        let dir = tempfile::tempdir().unwrap();
        let key = Keypair::from_seed(&[1; 32]);
        let ledger = Ledger::open(dir.path(), key.node_id(), NetworkId::of_name("test")).unwrap();
        let thread = LedgerThread::spawn(ledger, |_| {}).unwrap();
        let handle = thread.handle();
        let lease = LeaseId([7; 32]);
        let put = |key: Vec<u8>, value: &[u8]| {
            let value = Some(value.to_vec().into());
            handle.append_blocking(Fact::Private(Private::Row { key, value })).unwrap()
        };
        // Of leases that the ledger does not know: they are refused, and still no row stays.
        put([b"label\0".as_slice(), &lease.0].concat(), b"train");
        put([b"event\0".as_slice(), &lease.0, &1u32.to_be_bytes()].concat(), b"?");
        put([b"number\0".as_slice(), &lease.0].concat(), &1u64.to_be_bytes());
        put(b"offer-seq".to_vec(), &5u64.to_be_bytes());
        let last = put(MARK.to_vec(), &2u64.to_be_bytes());
        handle.wait(last).unwrap();
        take_over(&handle).unwrap();
        let left = handle.view().private_rows(b"").unwrap();
        assert_eq!(left.iter().map(|(key, _)| key.as_slice()).collect::<Vec<_>>(), [b"offer-seq"]);
        take_over(&handle).unwrap();
        assert_eq!(handle.view().private_rows(b"").unwrap(), left);
    }
}
