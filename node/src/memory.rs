//! Memory that was taken in a rush goes back to the system.
//!
//! The allocator keeps what was freed, in as many heaps as there were threads at work: after a flood of requests or streams that is several
//! hundred megabytes, of which a sixth is in use. Owns the rule when it is asked to give the rest back.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Between two times. It takes some ten milliseconds of one thread for each gigabyte.
const EVERY: Duration = Duration::from_secs(30);
/// Less than this is not worth it: a node at rest has a third of it.
const LEAST_KIB: u64 = 96 * 1024;

/// Looks after it until `stop`.
pub async fn keep_small(stop: CancellationToken) {
    while tokio::time::timeout(EVERY, stop.cancelled()).await.is_err() {
        if resident_kib().is_some_and(|kib| kib >= LEAST_KIB) && tokio::task::spawn_blocking(trim).await.is_err() {
            return;
        }
    }
}

fn resident_kib() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(target_env = "gnu")]
#[allow(unsafe_code, reason = "the C library has no other way to ask for it")]
fn trim() {
    // SAFETY: it takes a number, may be called by any thread at any time, and leaves what is in use where it is.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(target_env = "gnu"))]
const fn trim() {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[cfg(target_env = "gnu")]
    #[test]
    fn what_was_freed_is_given_back() {
        // Small pieces of many sizes, every tenth of which stays: the heap can't shrink from its end.
        let pieces: Vec<Vec<u8>> = (0..400_000).map(|n| vec![1; 100 + n % 400]).collect();
        let full = resident_kib().unwrap();
        let kept: Vec<Vec<u8>> =
            pieces.into_iter().enumerate().filter(|(n, _)| n % 20_000 == 0).map(|(_, p)| p).collect();
        trim();
        let after = resident_kib().unwrap();
        assert!(after + 50_000 < full, "{full} KiB, then {after}, with {} pieces kept", kept.len());
    }
}
