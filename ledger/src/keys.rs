//! The store's keys: one tag byte, then big-endian parts, so that rows written one after the other lie beside each other.

use souk_protocol::{Currency, LeaseId, NodeId, Nonce, Timestamp};

use crate::{lease::Status, months::Month};

/// What the store was made from, and the checksum over all rows.
pub(crate) const APPLIED: &[u8] = b"!applied";
/// How many proofs of forks are kept.
pub(crate) const PROOF_COUNT: &[u8] = b"!proofs";
/// How many leases were opened: the newest lease's number.
pub(crate) const LEASE_COUNT: &[u8] = b"!leases";
/// Our newest checkpoint and its number.
pub(crate) const CHECKPOINT: &[u8] = b"!checkpoint";
/// Our own chain may have gaps: the ledger was restored from an older copy.
pub(crate) const RESTORED: &[u8] = b"!restored";
/// The journal's owner and network.
pub(crate) const IDENTITY: &[u8] = b"!identity";

/// All author chains' heads.
pub(crate) const HEADS: &[u8] = b"h";
/// All leases.
pub(crate) const LEASES: &[u8] = b"l";
/// All receipts.
pub(crate) const RECEIPTS: &[u8] = b"r";
/// All balances.
pub(crate) const BALANCES: &[u8] = b"b";
/// What leases earned, by day.
pub(crate) const EARNED: &[u8] = b"d";
/// All proofs of forks.
pub(crate) const PROOFS: &[u8] = b"f";
/// All settlements.
pub(crate) const SETTLEMENTS: &[u8] = b"s";
/// What was agreed to by the end of each month.
pub(crate) const MONTHS: &[u8] = b"m";
/// All attestations held in chains.
pub(crate) const ATTESTATIONS: &[u8] = b"a";

fn key(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = vec![tag];
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

pub(crate) fn head(author: &NodeId) -> Vec<u8> {
    key(b'h', &[&author.0])
}

/// All entries of a chain.
pub(crate) fn entries(author: &NodeId) -> Vec<u8> {
    key(b'e', &[&author.0])
}

pub(crate) fn entry(author: &NodeId, seq: u64) -> Vec<u8> {
    key(b'e', &[&author.0, &seq.to_be_bytes()])
}

pub(crate) fn lease(lease: &LeaseId) -> Vec<u8> {
    key(b'l', &[&lease.0])
}

pub(crate) fn receipts(lease: &LeaseId) -> Vec<u8> {
    key(b'r', &[&lease.0])
}

pub(crate) fn workload(lease: &LeaseId) -> Vec<u8> {
    key(b'w', &[&lease.0])
}

pub(crate) fn events(lease: &LeaseId) -> Vec<u8> {
    key(b'v', &[&lease.0])
}

pub(crate) fn event(lease: &LeaseId, n: u32) -> Vec<u8> {
    key(b'v', &[&lease.0, &n.to_be_bytes()])
}

pub(crate) fn balances_with(peer: &NodeId) -> Vec<u8> {
    key(b'b', &[&peer.0])
}

pub(crate) fn balance(peer: &NodeId, currency: &Currency) -> Vec<u8> {
    key(b'b', &[&peer.0, currency.0.as_bytes()])
}

pub(crate) fn proof(author: &NodeId) -> Vec<u8> {
    key(b'f', &[&author.0])
}

/// The settlements with a peer in a currency, of one direction, in the order of their numbers. A currency has no zero byte.
pub(crate) fn settlements(peer: &NodeId, currency: &Currency, by_us: bool) -> Vec<u8> {
    key(b's', &[&peer.0, currency.0.as_bytes(), &[0, u8::from(by_us)]])
}

pub(crate) fn settlement(peer: &NodeId, currency: &Currency, by_us: bool, n: u32) -> Vec<u8> {
    let mut key = settlements(peer, currency, by_us);
    key.extend_from_slice(&n.to_be_bytes());
    key
}

/// The newest of [`settlements`], once more: its number follows from nothing else.
pub(crate) fn newest_settlement(settlements: &[u8]) -> Vec<u8> {
    key(b'S', &[settlements])
}

/// The last agreements about a lease in each month.
pub(crate) fn months(lease: &LeaseId) -> Vec<u8> {
    key(b'm', &[&lease.0])
}

/// The last agreement about a lease in a month.
pub(crate) fn month(lease: &LeaseId, month: Month) -> Vec<u8> {
    key(b'm', &[&lease.0, &month.0.to_be_bytes()])
}

/// The month at the end of [`month`].
pub(crate) fn month_of(key: &[u8]) -> Option<Month> {
    key.get(33..)?.first_chunk().map(|month| Month(u32::from_be_bytes(*month)))
}

pub(crate) fn settlements_with(peer: &NodeId) -> Vec<u8> {
    key(b's', &[&peer.0])
}

pub(crate) fn attestations_by(author: &NodeId) -> Vec<u8> {
    key(b'a', &[&author.0])
}

pub(crate) fn attestation(author: &NodeId, subject: &NodeId, claim: &str) -> Vec<u8> {
    key(b'a', &[&author.0, &subject.0, claim.as_bytes()])
}

pub(crate) fn private(name: &[u8]) -> Vec<u8> {
    key(b'p', &[name])
}

/// The rows of an index that share a value: all leases of a host, of a renter, in a status, or all.
pub(crate) fn by_host(host: &NodeId) -> Vec<u8> {
    key(b'i', &[b"h", &host.0])
}

pub(crate) fn by_renter(renter: &NodeId) -> Vec<u8> {
    key(b'i', &[b"r", &renter.0])
}

pub(crate) fn by_status(status: Status) -> Vec<u8> {
    key(b'i', &[b"s", &[status as u8]])
}

pub(crate) fn by_time() -> Vec<u8> {
    key(b'i', &[b"t"])
}

/// One lease's row in an index.
pub(crate) fn indexed(index: &[u8], opened: Timestamp, lease: &LeaseId) -> Vec<u8> {
    let mut key = index.to_vec();
    key.extend_from_slice(&opened.0.to_be_bytes());
    key.extend_from_slice(&lease.0);
    key
}

/// The lease at the end of an index's key.
pub(crate) fn lease_of(key: &[u8]) -> Option<LeaseId> {
    key.last_chunk().map(|id| LeaseId(*id))
}

/// The leases by their numbers; the value is the id.
pub(crate) fn by_number() -> Vec<u8> {
    key(b'i', &[b"n"])
}

/// The lease of a number.
pub(crate) fn numbered(number: u64) -> Vec<u8> {
    key(b'i', &[b"n", &number.to_be_bytes()])
}

/// The lease this node opened in the negotiation of a nonce; the value is the id.
pub(crate) fn of_nonce(nonce: &Nonce) -> Vec<u8> {
    key(b'i', &[b"o", &nonce.0])
}

/// The leases of a label, in the order of their opening. A label has no zero byte.
pub(crate) fn by_label(label: &str) -> Vec<u8> {
    key(b'i', &[b"l", label.as_bytes(), &[0]])
}

/// All leases whose ids begin with these bytes.
pub(crate) fn leases_like(start: &[u8]) -> Vec<u8> {
    key(b'l', &[start])
}

/// The events of all leases, in the order in which they were written.
pub(crate) fn by_record() -> Vec<u8> {
    key(b'i', &[b"v"])
}

/// The event in a record of the journal; the value is lease and number.
pub(crate) fn recorded(index: u64) -> Vec<u8> {
    key(b'i', &[b"v", &index.to_be_bytes()])
}

/// The number at the end of [`recorded`].
pub(crate) fn index_of(key: &[u8]) -> Option<u64> {
    key.last_chunk().map(|index| u64::from_be_bytes(*index))
}

/// What all leases earned from a day on.
pub(crate) fn earned_from(day: u32) -> Vec<u8> {
    key(b'd', &[&day.to_be_bytes()])
}

/// What a lease earned in a day.
pub(crate) fn earned(day: u32, lease: &LeaseId) -> Vec<u8> {
    key(b'd', &[&day.to_be_bytes(), &lease.0])
}

/// The day of such a row.
pub(crate) fn day_of(key: &[u8]) -> Option<u32> {
    key.get(1..5)?.first_chunk().map(|day| u32::from_be_bytes(*day))
}
