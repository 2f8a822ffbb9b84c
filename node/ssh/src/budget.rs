//! How much of a client's input one connection holds for commands that don't read it yet.
//!
//! russh grants a client more room as soon as bytes arrive, whoever has read them, so the bound is set here: above [`EASY`] each packet is
//! held up until there is room again, and for a while at most. The while grows with what is held, so that memory is bounded, and it
//! ends, so that a command which must be rid of output before it reads on is never waited for in a circle. At [`MOST`] the
//! connection ends.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use std::time::Duration;

use tokio::sync::Notify;

/// Bytes held without any waiting.
pub const EASY: usize = 1024 * 1024;
/// Bytes held at most.
pub const MOST: usize = 8 * 1024 * 1024;
/// The first wait, doubled with each [`STEP`] above [`EASY`].
const FIRST_WAIT: Duration = Duration::from_millis(5);
/// See [`FIRST_WAIT`].
const STEP: usize = 512 * 1024;
/// What a message costs beside its bytes.
const OVERHEAD: usize = 64;

/// The input held by one connection.
#[derive(Debug, Clone, Default)]
pub struct Budget(Arc<State>);

#[derive(Debug, Default)]
struct State {
    held: AtomicUsize,
    freed: Notify,
}

/// Some input that counts while this lives.
#[derive(Debug)]
pub struct Charge {
    state: Arc<State>,
    bytes: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.state.held.fetch_sub(self.bytes, Ordering::AcqRel);
        self.state.freed.notify_waiters();
    }
}

/// The client has sent more than is ever held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl Budget {
    /// Counts so many bytes of input.
    ///
    /// # Errors
    /// [`Full`].
    pub fn charge(&self, bytes: usize) -> Result<Charge, Full> {
        let bytes = bytes.saturating_add(OVERHEAD);
        let before = self.0.held.fetch_add(bytes, Ordering::AcqRel);
        let charge = Charge { state: Arc::clone(&self.0), bytes };
        if before.saturating_add(bytes) > MOST { Err(Full) } else { Ok(charge) }
    }

    /// Waits for room, for a while at most.
    pub async fn wait(&self) {
        let over = self.0.held.load(Ordering::Acquire).saturating_sub(EASY);
        if over == 0 {
            return;
        }
        let doublings = u32::try_from(over / STEP).unwrap_or(u32::MAX).min(20);
        let room = async {
            loop {
                let freed = self.0.freed.notified();
                if self.0.held.load(Ordering::Acquire) <= EASY {
                    return;
                }
                freed.await;
            }
        };
        let _ = tokio::time::timeout(FIRST_WAIT * 2u32.pow(doublings), room).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn input_counts_until_it_is_read_and_no_longer() {
        let budget = Budget::default();
        let first = budget.charge(MOST - 2 * OVERHEAD).unwrap();
        assert_eq!(budget.charge(OVERHEAD + 1).unwrap_err(), Full);
        drop(first);
        assert_eq!(budget.0.held.load(Ordering::Acquire), 0);
        budget.wait().await;
    }

    #[tokio::test]
    async fn a_wait_ends_by_itself() {
        let budget = Budget::default();
        let _held = budget.charge(EASY + STEP).unwrap();
        budget.wait().await;
    }
}
