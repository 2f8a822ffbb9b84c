//! A slice: how far one side of a pair trusts the other with money, grown by what was settled.

use serde::{Deserialize, Serialize};

use crate::money::Amount;

/// The most a slice grows to, in first slices: 24 h of price, where the first is five minutes of it.
const MOST: u64 = 24 * 12;
/// A miss costs this many doublings.
const MISS: u32 = 3;

/// A slice of money, and how it came to its size.
///
/// It grows only by what was settled in all: each doubling uses up as much of that as the slice was worth before it. So it is
/// never more than the first slice and all that was ever settled together, and does not depend on how settlements were cut up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slice {
    /// The first slice: of the dearest lease so far.
    pub base: Amount,
    /// The slice.
    pub slice: Amount,
    /// How much of what was settled in all its doublings have used up.
    pub used: Amount,
}

impl Slice {
    /// A lease whose first slice is `base`. A dearer one raises the slice to its own first slice.
    pub fn raise(&mut self, base: Amount) {
        self.base = self.base.max(base);
        self.slice = self.slice.max(self.base);
    }

    /// So much has been settled in all: doubles as often as that allows.
    pub fn grow(&mut self, settled: Amount) {
        let most = Amount(self.base.0.saturating_mul(MOST));
        while self.slice > Amount::ZERO && self.slice < most && settled.saturating_sub(self.used) >= self.slice {
            self.used = self.used.saturating_add(self.slice);
            self.slice = Amount(self.slice.0.saturating_mul(2)).min(most);
        }
    }

    /// What was due was not settled: three doublings are lost, and what was settled before counts for no new ones.
    pub fn miss(&mut self, settled: Amount) {
        self.slice = Amount(self.slice.0 >> MISS).max(self.base);
        self.used = self.used.max(settled);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn first(base: u64) -> Slice {
        let mut slice = Slice::default();
        slice.raise(Amount(base));
        slice
    }

    #[test]
    fn it_doubles_by_what_was_settled_since_the_last_doubling_up_to_a_day() {
        let mut slice = first(100);
        for (settled, now) in [(99, 100), (100, 200), (299, 200), (300, 400), (699, 400), (700, 800)] {
            slice.grow(Amount(settled));
            assert_eq!(slice.slice, Amount(now), "after {settled}");
        }
        slice.grow(Amount(u64::MAX));
        assert_eq!(slice.slice, Amount(28_800), "24 h where the first slice is five minutes");
    }

    #[test]
    fn a_miss_costs_three_doublings_and_they_are_earned_again_only_by_new_settlements() {
        let mut slice = first(100);
        slice.grow(Amount(1500));
        assert_eq!(slice.slice, Amount(1600));
        slice.miss(Amount(1500));
        assert_eq!(slice.slice, Amount(200));
        slice.grow(Amount(1500));
        assert_eq!(slice.slice, Amount(200));
        slice.grow(Amount(1700));
        assert_eq!(slice.slice, Amount(400));
        slice.miss(Amount(1700));
        slice.miss(Amount(1700));
        assert_eq!(slice.slice, Amount(100), "never below the first");
    }

    #[test]
    fn a_dearer_lease_has_its_own_first_slice_and_a_free_one_has_none() {
        let mut slice = Slice::default();
        slice.raise(Amount::ZERO);
        slice.grow(Amount(u64::MAX));
        assert_eq!(slice.slice, Amount::ZERO);
        slice.raise(Amount(100));
        slice.raise(Amount(3));
        assert_eq!((slice.base, slice.slice), (Amount(100), Amount(100)));
        slice.raise(Amount(1000));
        assert_eq!(slice.slice, Amount(1000));
    }

    proptest! {
        /// However settlements are cut up, and however often the same sum is told.
        #[test]
        fn only_the_sum_counts(base in 1u64..10_000, parts in proptest::collection::vec(0u64..100_000, 0..40)) {
            let (mut all, mut by_parts) = (first(base), first(base));
            let mut sum = 0;
            for part in &parts {
                sum += part;
                by_parts.grow(Amount(sum));
                by_parts.grow(Amount(sum));
            }
            all.grow(Amount(sum));
            prop_assert_eq!(all, by_parts);
            prop_assert!(all.slice.0 <= base + sum, "no more is trusted than was settled");
        }

        /// Dearer leases and misses in between change nothing about that bound.
        #[test]
        fn it_is_never_more_than_the_first_and_all_that_was_settled(
            steps in proptest::collection::vec((0u8..3, 0u64..1_000_000), 0..60),
        ) {
            let mut slice = Slice::default();
            let mut settled = 0u64;
            for (kind, amount) in steps {
                match kind {
                    0 => slice.raise(Amount(amount)),
                    1 => {
                        settled += amount;
                        slice.grow(Amount(settled));
                    }
                    _ => slice.miss(Amount(settled)),
                }
                prop_assert!(slice.slice.0 <= slice.base.0 + settled && slice.slice >= slice.base);
            }
        }
    }
}
