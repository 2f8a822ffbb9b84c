//! The queryable store: an ordered map of bytes, in sled or in memory.
//!
//! Everything in it follows from the journal and is made anew when lost, so it needs no durability of its own. Its rows carry
//! a checksum over all of them; what a row says is [`crate::state`]'s business.

mod memory;
pub mod place;
mod sled;
mod swap;

use std::{collections::BTreeMap, fmt, ops::ControlFlow, path::PathBuf};

pub use self::{memory::MemoryKv, sled::SledKv, swap::SwapKv};

/// Changes that are made together: a value, or none to delete.
pub type Batch = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// What a scan calls for each row, until told to stop.
pub type Visitor<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// Why the store failed. The journal has everything, so the cure is always to make the store anew, at the next start.
#[derive(Debug, thiserror::Error)]
pub enum KvError {
    /// The store's files are damaged, or can't be read or written.
    #[error("the store in {} can't be used: {what}; it is made anew from the journal at the next start", directory.display())]
    Damaged {
        /// Where it lies.
        directory: PathBuf,
        /// What sled said.
        what: String,
    },
    /// Somebody still has it open: a handle that was not dropped, or another process.
    #[error("the store in {} is still in use: stop the other node, or wait until this one has ended", directory.display())]
    InUse {
        /// Where it lies.
        directory: PathBuf,
    },
    /// A row is not what this version writes.
    #[error("a row of the store can't be read ({what}); the store is made anew from the journal at the next start")]
    Row {
        /// Which kind of row.
        what: &'static str,
    },
}

/// An ordered map of bytes. Reads go on while a batch is written.
pub trait Kv: fmt::Debug + Send + Sync {
    /// The value of a key.
    ///
    /// # Errors
    /// [`KvError`] if the store is damaged.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError>;

    /// Visits all rows whose key begins with `prefix` and is not below `from`, in order.
    ///
    /// # Errors
    /// [`KvError`] if the store is damaged.
    fn scan(&self, prefix: &[u8], from: &[u8], visit: Visitor<'_>) -> Result<(), KvError>;

    /// As [`Kv::scan`], but down: from the last row with the prefix, or from the last below `below`.
    ///
    /// # Errors
    /// [`KvError`] if the store is damaged.
    fn scan_back(&self, prefix: &[u8], below: Option<&[u8]>, visit: Visitor<'_>) -> Result<(), KvError>;

    /// Makes all changes, or after a crash none of them.
    ///
    /// # Errors
    /// [`KvError`] if the store is damaged or can't be written.
    fn write(&self, batch: &Batch) -> Result<(), KvError>;

    /// Hands written changes to the system, so that a later start has less to replay.
    ///
    /// # Errors
    /// [`KvError`] if the store can't be written.
    fn flush(&self) -> Result<(), KvError>;

    /// Bytes of its files; zero if it has none.
    fn disk_bytes(&self) -> u64 {
        0
    }
}

/// The first key past a scan down: the lower one of the prefix's end and `below`.
fn ceiling(prefix: &[u8], below: Option<&[u8]>) -> Option<Vec<u8>> {
    match (above(prefix), below) {
        (Some(end), Some(below)) => Some(end.min(below.to_vec())),
        (end, below) => end.or_else(|| below.map(<[u8]>::to_vec)),
    }
}

/// The least key above all that begin with `prefix`; none if there is no such key.
fn above(prefix: &[u8]) -> Option<Vec<u8>> {
    let keep = prefix.iter().rposition(|b| *b != 0xff)?;
    let mut end = prefix[..=keep].to_vec();
    end[keep] += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn keys(kv: &dyn Kv, prefix: &[u8], from: &[u8]) -> Vec<Vec<u8>> {
        let mut keys = Vec::new();
        kv.scan(prefix, from, &mut |key, _| {
            keys.push(key.to_vec());
            ControlFlow::Continue(())
        })
        .unwrap();
        keys
    }

    fn behaves(kv: &dyn Kv) {
        let rows: [&[u8]; 6] = [b"a", b"b\x00", b"b\x01", b"b\xff", b"b\xff\xff", b"c"];
        kv.write(&rows.iter().map(|k| (k.to_vec(), Some(k.to_vec()))).collect()).unwrap();
        assert_eq!(keys(kv, b"b", b""), rows[1..5]);
        assert_eq!(keys(kv, b"b", b"b\x01"), rows[2..5]);
        assert_eq!(keys(kv, b"b\xff", b""), rows[3..5]);
        assert_eq!(keys(kv, b"", b"b\xff\xff"), rows[4..]);
        let mut last = Vec::new();
        kv.scan_back(b"b", None, &mut |key, _| {
            last.push(key.to_vec());
            if last.len() == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
        assert_eq!(last, [b"b\xff\xff".to_vec(), b"b\xff".to_vec()]);
        let below = |below: &[u8]| {
            let mut found = Vec::new();
            kv.scan_back(b"b", Some(below), &mut |key, _| {
                found.push(key.to_vec());
                ControlFlow::Continue(())
            })
            .unwrap();
            found
        };
        assert_eq!(below(b"b\xff"), [b"b\x01".to_vec(), b"b\x00".to_vec()]);
        assert_eq!(below(b"c").len(), 4, "not beyond the prefix");
        assert!(below(b"a").is_empty());
        kv.write(&Batch::from([(b"a".to_vec(), None), (b"c".to_vec(), Some(vec![9]))])).unwrap();
        assert_eq!(kv.get(b"a").unwrap(), None);
        assert_eq!(kv.get(b"c").unwrap(), Some(vec![9]));
        kv.flush().unwrap();
    }

    #[test]
    fn sled_and_memory_behave_alike() {
        behaves(&MemoryKv::default());
        let directory = tempfile::tempdir().unwrap();
        behaves(&SledKv::open(&directory.path().join("sled")).unwrap());
    }

    #[test]
    fn a_prefix_of_all_ones_has_nothing_above_it() {
        assert_eq!(above(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(above(b"a\xff"), Some(b"b".to_vec()));
        assert_eq!(above(b"\xff\xff"), None);
        assert_eq!(above(b""), None);
    }
}
