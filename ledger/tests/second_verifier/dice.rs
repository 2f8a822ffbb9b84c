//! Small choices from one seeded source.

use proptest::{prelude::Rng, test_runner::TestRng};

/// Choices.
pub trait Dice {
    /// Below `n`, which is above zero.
    fn below(&mut self, n: usize) -> usize;
    /// True once in `n`.
    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
    /// From `low` to `high`, both included.
    fn between(&mut self, low: u64, high: u64) -> u64;
    /// A number of any length: as many small ones as large ones.
    fn magnitude(&mut self) -> u64;
}

impl Dice for TestRng {
    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next_u64() % n as u64).unwrap_or(0)
    }

    fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next_u64() % (high - low + 1)
    }

    fn magnitude(&mut self) -> u64 {
        self.next_u64() >> self.below(64)
    }
}
