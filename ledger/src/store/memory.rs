//! The store in memory: for tests, simulations, and looking at a journal without touching the disk.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{PoisonError, RwLock},
};

use super::{Batch, Kv, KvError, Visitor, above, ceiling};

/// An ordered map in memory.
#[derive(Debug, Default)]
pub struct MemoryKv(RwLock<BTreeMap<Vec<u8>, Vec<u8>>>);

impl MemoryKv {
    fn collect(&self, prefix: &[u8], from: &[u8], end: Option<Vec<u8>>) -> Vec<(Vec<u8>, Vec<u8>)> {
        let start = Bound::Included(prefix.max(from).to_vec());
        let end = end.map_or(Bound::Unbounded, Bound::Excluded);
        if let (Bound::Included(a), Bound::Excluded(b)) = (&start, &end)
            && a >= b
        {
            return Vec::new();
        }
        let rows = self.0.read().unwrap_or_else(PoisonError::into_inner);
        rows.range((start, end)).map(|(k, v)| (k.clone(), v.clone())).collect()
    }
}

impl Kv for MemoryKv {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        let rows = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Ok(rows.get(key).cloned())
    }

    fn scan(&self, prefix: &[u8], from: &[u8], visit: Visitor<'_>) -> Result<(), KvError> {
        for (key, value) in self.collect(prefix, from, above(prefix)) {
            if visit(&key, &value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn scan_back(&self, prefix: &[u8], below: Option<&[u8]>, visit: Visitor<'_>) -> Result<(), KvError> {
        for (key, value) in self.collect(prefix, prefix, ceiling(prefix, below)).into_iter().rev() {
            if visit(&key, &value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn write(&self, batch: &Batch) -> Result<(), KvError> {
        let mut rows = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in batch {
            match value {
                Some(value) => rows.insert(key.clone(), value.clone()),
                None => rows.remove(key),
            };
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), KvError> {
        Ok(())
    }
}
