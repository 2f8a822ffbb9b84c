//! The one source of chance in a world.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

/// Draws from a seed.
#[derive(Debug, Clone)]
pub struct Dice(ChaCha8Rng);

impl Dice {
    /// Dice that always fall the same for the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// A number from `low` to below `high`; `low` if there is none.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.0.next_u64() % high.saturating_sub(low).max(1)
    }

    /// True in so many of a thousand throws.
    pub fn permille(&mut self, share: u64) -> bool {
        self.range(0, 1000) < share
    }

    /// One of these; none if there are none.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        let index = usize::try_from(self.range(0, of.len() as u64)).unwrap_or(0);
        of.get(index)
    }

    /// Random bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill_bytes(&mut bytes);
        bytes
    }
}
