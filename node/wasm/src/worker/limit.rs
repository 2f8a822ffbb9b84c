//! The bound on a guest's memory: all its memories and tables together.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use wasmtime::ResourceLimiter;

use super::ticker::Shared;

/// What one element of a table takes, at most.
const ELEMENT_BYTES: usize = 16;
/// Tables of one module.
const TABLES: usize = 64;

pub(super) struct MemoryLimit {
    pub(super) most: u64,
    pub(super) shared: Arc<Shared>,
    used: u64,
    /// What the last growth added, to be taken back where it fails after all.
    pending: u64,
}

impl MemoryLimit {
    pub(super) fn new(most: u64, shared: Arc<Shared>) -> Self {
        Self { most, shared, used: 0, pending: 0 }
    }

    fn grow(&mut self, current: usize, desired: usize, unit: usize) -> bool {
        let more = u64::try_from(desired.saturating_sub(current).saturating_mul(unit)).unwrap_or(u64::MAX);
        let used = self.used.saturating_add(more);
        if used > self.most {
            self.shared.memory_refused.store(true, Ordering::Relaxed);
            self.pending = 0;
            return false;
        }
        self.pending = more;
        self.set(used);
        true
    }

    fn failed(&mut self) {
        self.shared.memory_refused.store(true, Ordering::Relaxed);
        let used = self.used.saturating_sub(self.pending);
        self.pending = 0;
        self.set(used);
    }

    fn set(&mut self, used: u64) {
        self.used = used;
        self.shared.memory.store(used, Ordering::Relaxed);
        self.shared.memory_peak.fetch_max(used, Ordering::Relaxed);
    }
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(maximum.is_none_or(|most| desired <= most) && self.grow(current, desired, 1))
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.failed();
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(maximum.is_none_or(|most| desired <= most) && self.grow(current, desired, ELEMENT_BYTES))
    }

    fn table_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.failed();
        Ok(())
    }

    fn instances(&self) -> usize {
        1
    }

    fn memories(&self) -> usize {
        1
    }

    fn tables(&self) -> usize {
        TABLES
    }
}
