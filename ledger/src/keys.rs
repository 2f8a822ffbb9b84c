//! The store's keys: one tag byte, then big-endian parts, so that rows written one after the other lie beside each other.

use souk_protocol::{Currency, LeaseId, NodeId, Timestamp};

use crate::lease::Status;

/// What the store was made from, and the checksum over all rows.
pub(crate) const APPLIED: &[u8] = b"!applied";
/// How many proofs of forks are kept.
pub(crate) const PROOF_COUNT: &[u8] = b"!proofs";
/// The journal's owner and network.
pub(crate) const IDENTITY: &[u8] = b"!identity";

/// All author chains' heads.
pub(crate) const HEADS: &[u8] = b"h";
/// All leases.
pub(crate) const LEASES: &[u8] = b"l";
/// All balances.
pub(crate) const BALANCES: &[u8] = b"b";
/// All proofs of forks.
pub(crate) const PROOFS: &[u8] = b"f";

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

pub(crate) fn event(lease: &LeaseId, n: u64) -> Vec<u8> {
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
