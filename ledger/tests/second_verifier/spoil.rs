//! Exports put together, and spoilt in every way we know.

use proptest::{prelude::Rng, test_runner::TestRng};
use souk_ledger::export::{Filter, Header, Trailer};
use souk_protocol::{Digest, DocumentId, LeaseId, NetworkId, NodeId, encode, entry::Entry, signed};

use super::{
    cbor::Value,
    dice::Dice,
    world::{Record, World},
};

/// An export's parts, each of which can be spoilt.
#[derive(Clone)]
pub struct Parts {
    pub header: Header,
    pub records: Vec<Record>,
    /// How many of them are before the cut.
    pub cut: Option<usize>,
}

fn frame(out: &mut Vec<u8>, body: &[u8]) {
    out.extend_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
    out.extend_from_slice(body);
}

fn item(kind: &str, payload: &[u8], signature: &[u8]) -> Value {
    let signed = vec![Value::Bytes(payload.to_vec()), Value::Bytes(signature.to_vec())];
    Value::Map(vec![(Value::Text(kind.into()), Value::List(signed))])
}

impl Parts {
    /// What a world's owner exports: everything, or the records of one lease.
    pub fn of(world: &World, lease: Option<LeaseId>) -> Self {
        let records = world.records.iter().filter(|r| lease.is_none() || r.lease == lease).cloned().collect();
        Self { header: Self::header(world, lease), records, cut: None }
    }

    /// The same without the old records that a checkpoint stands for, if one does.
    pub fn behind_cut(world: &World) -> Option<Self> {
        let cut = world.cut.as_ref()?;
        let kept = |(index, record): (usize, &Record)| (!cut.dropped.contains(&index)).then(|| record.clone());
        let records = world.records.iter().enumerate().filter_map(kept).collect();
        let header = Header { cut: true, ..Self::header(world, None) };
        Some(Self { header, records, cut: Some(cut.before - cut.dropped.len()) })
    }

    pub fn header(world: &World, lease: Option<LeaseId>) -> Header {
        Header {
            format: souk_ledger::export::FORMAT.to_owned(),
            version: souk_ledger::export::VERSION,
            network: world.network,
            author: world.parties[0].node,
            filter: lease.map_or(Filter::All, Filter::Lease),
            cut: false,
        }
    }

    /// Header and records, without a trailer.
    fn begun(&self) -> Vec<u8> {
        let mut out = Vec::new();
        frame(&mut out, &encode::to_bytes(&self.header));
        for (index, record) in self.records.iter().enumerate() {
            if self.cut == Some(index) {
                frame(&mut out, &Value::Text("cut".into()).write());
            }
            frame(&mut out, &item(record.kind, &record.payload, &record.signature).write());
        }
        if self.cut == Some(self.records.len()) {
            frame(&mut out, &Value::Text("cut".into()).write());
        }
        out
    }

    /// Frames between header and trailer.
    fn frames(&self) -> u64 {
        (self.records.len() + usize::from(self.cut.is_some_and(|cut| cut <= self.records.len()))) as u64
    }

    fn trailer(&self, world: &World, begun: &[u8]) -> Trailer {
        let own = |r: &&Record| r.kind == "entry" && r.author == self.header.author;
        let head = self.records.iter().rev().find(own).map(|r| id(world, r));
        Trailer { author: self.header.author, count: self.frames(), head, digest: Digest::of(begun) }
    }

    /// The file, as its author would sign it.
    pub fn sealed(&self, world: &World) -> Vec<u8> {
        let begun = self.begun();
        let trailer = self.trailer(world, &begun);
        finish(world, begun, &encode::to_bytes(&trailer), &self.header.author)
    }
}

fn id(world: &World, record: &Record) -> DocumentId {
    signed::digest(Record::context(record.kind), &world.network, &record.payload)
}

fn finish(world: &World, mut begun: Vec<u8>, trailer: &[u8], author: &NodeId) -> Vec<u8> {
    let signature = world.sign("trailer", trailer, author);
    frame(&mut begun, &item("trailer", trailer, &signature).write());
    begun
}

/// The ways, as often as each is tried. Lies and twists are many: each is another one.
pub const WAYS: [&str; 42] = [
    "nothing",
    "nothing",
    "nothing",
    "nothing",
    "bit",
    "bit",
    "cut",
    "cut",
    "dropped",
    "dropped",
    "twice",
    "swapped",
    "swapped",
    "restored",
    "restored",
    "header",
    "header",
    "trailer",
    "trailer",
    "signature",
    "signature",
    "frame",
    "frame",
    "bytes",
    "twisted",
    "twisted",
    "twisted",
    "twisted",
    "twisted",
    "twisted draft",
    "twisted draft",
    "twisted draft",
    "lie",
    "lie",
    "lie",
    "lie",
    "lie",
    "lie",
    "lie",
    "lie",
    "lie",
    "lie",
];

/// What a good generator makes validly.
pub const KINDS: [&str; 32] = [
    "genesis",
    "lease_open",
    "lease_accept",
    "void",
    "placement",
    "amend",
    "amended",
    "bid",
    "extend",
    "ceiling",
    "auto_extend",
    "repriced",
    "extended alone",
    "anchor",
    "close",
    "close_ack",
    "settle",
    "settle_ack",
    "dispute",
    "attestation",
    "probe",
    "probe of a rental",
    "checkpoint",
    "left out",
    "restored",
    "usage",
    "usage by terms",
    "usage waived",
    "left early",
    "ack",
    "ack partial",
    "fork",
];

/// One export: whole, or spoilt in a way.
pub fn spoilt(world: &World, rng: &mut TestRng, way: &str) -> Vec<u8> {
    let some = |rng: &mut TestRng| world.deals.get(rng.below(world.deals.len().max(1))).map(|deal| deal.id);
    let lease = if rng.one_in(3) { some(rng) } else { None };
    let cut = if lease.is_none() && rng.one_in(2) { Parts::behind_cut(world) } else { None };
    let mut parts = cut.unwrap_or_else(|| Parts::of(world, lease));
    let many = parts.records.len();
    if many < 2 {
        return parts.sealed(world);
    }
    let at = rng.below(many);
    match way {
        "nothing" => {
            // A ledger of any age is as good.
            parts.records.truncate(if rng.one_in(2) { many } else { at });
            parts.sealed(world)
        }
        "bit" => {
            let mut bytes = parts.sealed(world);
            let at = rng.below(bytes.len());
            bytes[at] ^= 1 << rng.below(8);
            bytes
        }
        "cut" => {
            let mut bytes = parts.sealed(world);
            let border = rng.one_in(2);
            let end = if border { ends(&bytes)[at] + rng.below(6) } else { rng.below(bytes.len()) };
            bytes.truncate(end);
            bytes
        }
        "dropped" => {
            parts.records.remove(at);
            parts.sealed(world)
        }
        "twice" => {
            let to = rng.below(many + 1);
            let record = parts.records[at].clone();
            parts.records.insert(to, record);
            parts.sealed(world)
        }
        "swapped" => {
            let other = if rng.one_in(2) { rng.below(many) } else { (at + 1) % many };
            parts.records.swap(at, other);
            parts.sealed(world)
        }
        "twisted" => {
            twist(world, rng, &mut parts.records[at]);
            cut_behind(rng, &mut parts, at);
            parts.sealed(world)
        }
        "twisted draft" => {
            if let Some(at) = parts.records.iter().position(|r| twist_draft(world, rng, &mut r.clone()).is_some()) {
                twist_draft(world, rng, &mut parts.records[at]);
                cut_behind(rng, &mut parts, at);
            }
            parts.sealed(world)
        }
        "lie" => {
            let Some((at, lie)) = world.lies.get(rng.below(world.lies.len().max(1))) else {
                return parts.sealed(world);
            };
            // With a lease's filter the place is another, and the lie may be none.
            let at = if lease.is_some() || parts.cut.is_some() { many } else { *at };
            parts.records.truncate(at);
            parts.records.push(lie.clone());
            parts.sealed(world)
        }
        "restored" => {
            parts.header.filter = Filter::Restored;
            for _ in 0..rng.below(4) {
                let at = rng.below(parts.records.len());
                let record = parts.records.remove(at);
                // Lost, or come back from others.
                if rng.one_in(2) {
                    let to = at + rng.below(parts.records.len() + 1 - at);
                    parts.records.insert(to, record);
                }
                if parts.records.is_empty() {
                    break;
                }
            }
            parts.sealed(world)
        }
        "header" => {
            spoil_header(world, rng, &mut parts.header);
            parts.sealed(world)
        }
        "trailer" => spoil_trailer(world, rng, &parts),
        "signature" => {
            spoil_signature(world, rng, &mut parts.records[at]);
            cut_behind(rng, &mut parts, at);
            parts.sealed(world)
        }
        "frame" => spoil_frame(world, rng, &parts, at),
        _ => {
            let mut bytes = parts.sealed(world);
            match rng.below(3) {
                0 => bytes.push(0),
                1 => bytes.extend_from_within(..),
                _ => bytes.splice(..0, [0; 4]).for_each(drop),
            }
            bytes
        }
    }
}

/// Mostly without what comes behind: that what follows does not fit is no news.
fn cut_behind(rng: &mut TestRng, parts: &mut Parts, at: usize) {
    if !rng.one_in(4) {
        parts.records.truncate(at + 1);
    }
}

/// Changes what a record says, and signs that.
fn twist(world: &World, rng: &mut TestRng, record: &mut Record) {
    let mut value = Value::read(&record.payload);
    match rng.below(10) {
        // Another encoding of the very same.
        0 => record.payload = value.write_longer(rng.below(30)),
        1 => {
            if let Value::Map(pairs) = &mut value {
                let last = pairs.len() - 1;
                pairs.swap(0, last);
            }
            record.payload = value.write();
        }
        2 => record.payload.push(0xf6),
        _ => {
            value.twist(rng);
            value.sort();
            record.payload = value.write();
        }
    }
    record.signature = world.sign(record.kind, &record.payload, &record.author);
}

/// Changes the draft in an open, and signs both; none if the record is no open.
fn twist_draft(world: &World, rng: &mut TestRng, record: &mut Record) -> Option<()> {
    let entry = (record.kind == "entry").then(|| encode::from_bytes::<Entry>(&record.payload, 6144).ok())??;
    let draft = entry.body.draft()?;
    let mut changed = Value::read(draft.payload());
    changed.twist(rng);
    changed.sort();
    let payload = changed.write();
    let host = entry.peer?;
    let signature = world.sign("draft", &payload, &host);
    let mut value = Value::read(&record.payload);
    *value.get("body")?.get("lease_open")?.get("draft")? =
        Value::List(vec![Value::Bytes(payload.clone()), Value::Bytes(signature.to_vec())]);
    if !rng.one_in(6) {
        let lease = signed::digest(Record::context("draft"), &world.network, &payload);
        *value.get("lease")? = Value::Bytes(lease.0.to_vec());
    }
    record.payload = value.write();
    record.signature = world.sign("entry", &record.payload, &record.author);
    Some(())
}

fn spoil_header(world: &World, rng: &mut TestRng, header: &mut Header) {
    let another = world.deals.get(rng.below(world.deals.len().max(1))).map(|deal| deal.id);
    match rng.below(8) {
        6 => header.filter = Filter::Restored,
        7 => header.cut = !header.cut,
        0 => header.network = NetworkId([4; 32]),
        1 => header.author = world.parties[1].node,
        2 => header.version += 1,
        3 => header.format.push('s'),
        4 => header.filter = another.map_or(Filter::All, Filter::Lease),
        _ => header.filter = Filter::All,
    }
}

fn spoil_trailer(world: &World, rng: &mut TestRng, parts: &Parts) -> Vec<u8> {
    let begun = parts.begun();
    let mut trailer = parts.trailer(world, &begun);
    let mut author = trailer.author;
    match rng.below(7) {
        0 => trailer.count += 1,
        1 => trailer.count -= 1,
        2 => trailer.head = None,
        3 => trailer.head = Some(DocumentId([9; 32])),
        4 => trailer.digest.0[7] ^= 1,
        5 => trailer.author = world.parties[1].node,
        _ => author = world.parties[1].node,
    }
    if rng.one_in(3) {
        author = trailer.author;
    }
    finish(world, begun, &encode::to_bytes(&trailer), &author)
}

/// The group's order, little-endian.
const ORDER: [u8; 32] = {
    let mut order =
        *b"\xed\xd3\xf5\x5c\x1a\x63\x12\x58\xd6\x9c\xf7\xa2\xde\xf9\xde\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x10";
    order[31] = 0x10;
    order
};

fn spoil_signature(world: &World, rng: &mut TestRng, record: &mut Record) {
    let signature = &mut record.signature;
    match rng.below(6) {
        // The same signature once more around the group: S + L.
        0 => {
            let mut carry = 0;
            for (byte, order) in signature[32..].iter_mut().zip(ORDER) {
                let sum = u16::from(*byte) + u16::from(order) + carry;
                *byte = (sum & 0xff) as u8;
                carry = sum >> 8;
            }
        }
        1 => signature[31] ^= 0x80,
        // Signed for another network, or as another kind.
        2 => {
            let digest = signed::digest(Record::context(record.kind), &NetworkId([4; 32]), &record.payload);
            *signature = world.parties[0].key.sign(&digest.0);
        }
        3 => *signature = world.sign("ack", &record.payload, &record.author),
        // Signed by nobody: a key of small order, under which (R, S) = (its neutral element, 0) may verify loosely.
        4 | 5 => {
            let mut weak = [0; 32];
            match rng.below(4) {
                0 => weak[0] = 1,
                1 => {}
                2 => weak = hex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
                _ => weak = hex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
            }
            let field =
                ["author", "host", "renter"][["entry", "usage", "ack"].iter().position(|k| *k == record.kind).unwrap()];
            let mut value = Value::read(&record.payload);
            if rng.one_in(2)
                && let Some(author) = value.get(field)
            {
                *author = Value::Bytes(weak.to_vec());
                record.payload = value.write();
            }
            *signature = [0; 64];
            signature[..32].copy_from_slice(&weak);
        }
        _ => rng.fill_bytes(&mut signature[..]),
    }
}

fn hex(text: &str) -> [u8; 32] {
    std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
}

/// Ends of the frames.
fn ends(bytes: &[u8]) -> Vec<usize> {
    let (mut at, mut ends) = (0, Vec::new());
    while at < bytes.len() {
        at += 4 + u32::from_le_bytes(*bytes[at..].first_chunk().unwrap()) as usize;
        ends.push(at);
    }
    ends
}

/// A frame that holds something else, with a trailer that knows of it.
fn spoil_frame(world: &World, rng: &mut TestRng, parts: &Parts, at: usize) -> Vec<u8> {
    let before = Parts { records: parts.records[..at].to_vec(), ..parts.clone() };
    let begun = before.begun();
    let record = &parts.records[at];
    let mut value = item(record.kind, &record.payload, &record.signature);
    let mut out = begun;
    match rng.below(8) {
        7 => frame(&mut out, &Value::Text("cut".into()).write()),
        0 => frame(&mut out, &[]),
        1 => frame(&mut out, &vec![0xa1; 8193]),
        2 => out.extend_from_slice(&u32::MAX.to_le_bytes()),
        3 => frame(&mut out, &value.write_longer(rng.below(5))),
        4 => frame(&mut out, &item("private", &record.payload, &record.signature).write()),
        5 => {
            let other = ["entry", "usage", "ack", "trailer"][rng.below(4)];
            frame(&mut out, &item(other, &record.payload, &record.signature).write());
        }
        _ => {
            value.twist(rng);
            value.sort();
            frame(&mut out, &value.write());
        }
    }
    let own = |r: &&Record| r.kind == "entry" && r.author == parts.header.author;
    let head = parts.records[..=at].iter().rev().find(own).map(|r| id(world, r));
    let trailer = Trailer { author: parts.header.author, count: before.frames() + 1, head, digest: Digest::of(&out) };
    finish(world, out, &encode::to_bytes(&trailer), &parts.header.author)
}
