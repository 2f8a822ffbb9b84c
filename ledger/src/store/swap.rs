//! A store that can be replaced by another with the same answers, while it is read.

use std::sync::{Arc, PoisonError, RwLock};

use super::{Batch, Kv, KvError, Visitor};

/// The store that is current. A read goes on with the store it began with.
#[derive(Debug)]
pub struct SwapKv(RwLock<Arc<dyn Kv>>);

impl SwapKv {
    /// Begins with `kv`.
    #[must_use]
    pub const fn new(kv: Arc<dyn Kv>) -> Self {
        Self(RwLock::new(kv))
    }

    /// Puts another in its place and returns the one before.
    pub fn replace(&self, kv: Arc<dyn Kv>) -> Arc<dyn Kv> {
        std::mem::replace(&mut *self.0.write().unwrap_or_else(PoisonError::into_inner), kv)
    }

    fn current(&self) -> Arc<dyn Kv> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Kv for SwapKv {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.current().get(key)
    }

    fn scan(&self, prefix: &[u8], from: &[u8], visit: Visitor<'_>) -> Result<(), KvError> {
        self.current().scan(prefix, from, visit)
    }

    fn scan_back(&self, prefix: &[u8], below: Option<&[u8]>, visit: Visitor<'_>) -> Result<(), KvError> {
        self.current().scan_back(prefix, below, visit)
    }

    fn write(&self, batch: &Batch) -> Result<(), KvError> {
        self.current().write(batch)
    }

    fn flush(&self) -> Result<(), KvError> {
        self.current().flush()
    }

    fn disk_bytes(&self) -> u64 {
        self.current().disk_bytes()
    }
}
