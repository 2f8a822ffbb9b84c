//! A second reader of ledger exports: frames and signed bytes only, by the written format, not by the ledger's own code.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a harness: what can't be read fails the test")]

use std::path::Path;

use serde::{Deserialize, Serialize};
use souk_protocol::{
    Signed, encode,
    entry::Entry,
    receipt::{Ack, Usage},
};

use crate::node::Node;

/// A record of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Item {
    /// An entry of a chain.
    Entry(Signed<Entry>),
    /// A host's usage.
    Usage(Signed<Usage>),
    /// A renter's acknowledgement.
    Ack(Signed<Ack>),
}

/// An export in memory.
#[derive(Debug, Clone)]
pub struct Export {
    /// The file's bytes.
    pub bytes: Vec<u8>,
    /// Where each frame begins, header and trailer included.
    pub frames: Vec<usize>,
    /// The records between header and trailer.
    pub items: Vec<Item>,
}

impl Export {
    /// What a node exports of a lease, or of everything.
    ///
    /// # Panics
    /// If it can't be had or read.
    #[must_use]
    pub fn of(node: &Node, lease: Option<&str>, file: &Path) -> Self {
        let path = file.display().to_string();
        let mut arguments = vec!["ledger", "export", &path];
        arguments.extend(lease.map(|l| ["--lease", l]).into_iter().flatten());
        let _ = node.json(&arguments);
        Self::read(std::fs::read(file).unwrap())
    }

    /// Divides a file into its frames.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    pub fn read(bytes: Vec<u8>) -> Self {
        let (mut at, mut frames, mut bodies) = (0, Vec::new(), Vec::new());
        while at < bytes.len() {
            let len = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
            frames.push(at);
            bodies.push(at + 4..at + 4 + len);
            at += 4 + len;
        }
        let last = bodies.len() - 1;
        let read = |body: &std::ops::Range<usize>| encode::from_bytes(&bytes[body.clone()], 8192).unwrap();
        let items = bodies[1..last].iter().map(read).collect();
        Self { frames, items, bytes }
    }

    /// The payload of the entry of this kind (`lease_open`, `lease_accept` …), with its signature, as one value.
    ///
    /// # Panics
    /// If there is none, or more.
    #[must_use]
    pub fn entry(&self, kind: &str) -> &Signed<Entry> {
        let mut found = self.items.iter().filter_map(|item| match item {
            Item::Entry(entry) => (read_entry(entry).body.name() == kind).then_some(entry),
            Item::Usage(_) | Item::Ack(_) => None,
        });
        let entry = found.next().unwrap_or_else(|| panic!("no {kind} in it"));
        assert!(found.next().is_none(), "more than one {kind}");
        entry
    }

    /// The newest acknowledgement, with the usage it answers.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn last_receipt(&self) -> (&Signed<Usage>, &Signed<Ack>) {
        let at = self.items.iter().rposition(|i| matches!(i, Item::Ack(_))).unwrap();
        let Item::Ack(ack) = &self.items[at] else { panic!("not an ack") };
        let n = encode::from_bytes::<Ack>(ack.payload(), 1024).unwrap().n;
        let usage = self.items.iter().find_map(|i| match i {
            Item::Usage(usage) => (encode::from_bytes::<Usage>(usage.payload(), 1024).unwrap().n == n).then_some(usage),
            Item::Entry(_) | Item::Ack(_) => None,
        });
        (usage.unwrap(), ack)
    }
}

/// What an entry says.
///
/// # Panics
/// If it is none.
#[must_use]
pub fn read_entry(entry: &Signed<Entry>) -> Entry {
    encode::from_bytes(entry.payload(), souk_protocol::limits::ENTRY_BYTES).unwrap()
}
