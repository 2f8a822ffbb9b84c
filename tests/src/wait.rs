//! Waiting for something to become true, with an end.
#![allow(clippy::panic, reason = "a test that waits in vain has failed")]

use std::time::{Duration, Instant};

/// How long anything may take before a test has failed: slack for a busy machine, not a measure.
pub const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(40);

/// Waits until `look` finds something, up to [`PATIENCE`].
///
/// # Panics
/// If it finds nothing in time.
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, look)
}

/// The same with another deadline.
///
/// # Panics
/// If it finds nothing in time.
pub fn within<T>(patience: Duration, what: &str, look: impl FnMut() -> Option<T>) -> T {
    poll(patience, look).unwrap_or_else(|| panic!("not within {patience:?}: {what}"))
}

/// Looks until something is found, or time is up.
pub fn poll<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + patience;
    loop {
        let found = look();
        if found.is_some() || Instant::now() >= end {
            return found;
        }
        std::thread::sleep(LOOK);
    }
}
