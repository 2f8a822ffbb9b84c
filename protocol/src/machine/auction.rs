//! Which interruptible leases run, and what it takes to run.
//!
//! Owns the order of bids and the allocation rule: by price for a slot, then by the age of the bid, then by lease id; a bid is
//! taken while it fits, else it waits and smaller ones run. Pure functions of the bids and of how many slots are left to them.

use std::{cmp::Ordering, collections::BTreeSet};

use crate::{Amount, LeaseId, Timestamp, message::Rank};

/// An interruptible lease that runs or wants to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bid {
    /// The lease.
    pub lease: LeaseId,
    /// How many slots it is for, at least one.
    pub slots: u16,
    /// For all of them and an hour.
    pub price_hour: Amount,
    /// When that price was bid.
    pub at: Timestamp,
}

impl Bid {
    /// Orders bids, the first to be served first.
    #[must_use]
    pub fn order(&self, other: &Self) -> Ordering {
        // Prices for a slot are compared as fractions, so nothing is lost in a division.
        let cross = |price: Amount, slots: u16| u128::from(price.0) * u128::from(slots.max(1));
        cross(other.price_hour, self.slots)
            .cmp(&cross(self.price_hour, other.slots))
            .then(self.at.cmp(&other.at))
            .then(self.lease.cmp(&other.lease))
    }

    /// What it bids for a slot and an hour, rounded down.
    #[must_use]
    pub fn slot_hour(&self) -> Amount {
        Amount(self.price_hour.0 / u64::from(self.slots.max(1)))
    }
}

/// The bids on a machine, in order.
#[derive(Debug, Clone, Default)]
pub struct Auction {
    bids: Vec<Bid>,
}

impl Auction {
    /// Puts bids in order.
    #[must_use]
    pub fn new(mut bids: Vec<Bid>) -> Self {
        bids.sort_by(Bid::order);
        Self { bids }
    }

    /// The bids, the first to be served first.
    #[must_use]
    pub fn bids(&self) -> &[Bid] {
        &self.bids
    }

    /// The leases that run where `capacity` slots are left to bids.
    #[must_use]
    pub fn winners(&self, capacity: u16) -> BTreeSet<LeaseId> {
        let mut left = capacity;
        let fitting = self.bids.iter().filter(|bid| {
            let fits = bid.slots >= 1 && bid.slots <= left;
            if fits {
                left -= bid.slots;
            }
            fits
        });
        fitting.map(|bid| bid.lease).collect()
    }

    /// The lowest price for `slots` slots and an hour, not below `min_bid`, with which a bid made now would run; none if no bid
    /// would. `except` is a lease whose present bid the new one would replace.
    #[must_use]
    pub fn price_to_win(&self, capacity: u16, slots: u16, min_bid: Amount, except: Option<&LeaseId>) -> Option<Amount> {
        if slots == 0 || slots > capacity {
            return None;
        }
        let mut left = capacity;
        for bid in self.bids.iter().filter(|bid| Some(&bid.lease) != except) {
            if bid.slots < 1 || bid.slots > left {
                continue;
            }
            if left - bid.slots < slots {
                return above(bid, slots).map(|price| price.max(min_bid));
            }
            left -= bid.slots;
        }
        Some(min_bid)
    }

    /// Where a lease's bid stands, and with which bid it would run.
    #[must_use]
    pub fn rank(&self, capacity: u16, lease: &LeaseId, min_slot_hour: Amount) -> Option<Rank> {
        let ahead = self.bids.iter().position(|bid| bid.lease == *lease)?;
        let slots = self.bids[ahead].slots;
        let min_bid = Amount(min_slot_hour.0.saturating_mul(u64::from(slots)));
        Some(Rank {
            ahead: u16::try_from(ahead).unwrap_or(u16::MAX),
            to_win: self.price_to_win(capacity, slots, min_bid, Some(lease)),
        })
    }
}

/// The lowest price for so many slots that goes before `bid`, being younger.
fn above(bid: &Bid, slots: u16) -> Option<Amount> {
    let price = u128::from(bid.price_hour.0) * u128::from(slots) / u128::from(bid.slots) + 1;
    u64::try_from(price).ok().map(Amount)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn bid(n: u8, slots: u16, price: u64, at: u64) -> Bid {
        Bid { lease: LeaseId([n; 32]), slots, price_hour: Amount(price), at: Timestamp(at) }
    }

    fn run(capacity: u16, bids: &[Bid]) -> Vec<u8> {
        Auction::new(bids.to_vec()).winners(capacity).iter().map(|lease| lease.0[0]).collect()
    }

    #[test]
    fn the_highest_for_a_slot_runs_then_the_oldest_then_the_lowest_id() {
        assert_eq!(run(1, &[bid(1, 1, 5, 0), bid(2, 1, 6, 9)]), [2]);
        assert_eq!(run(1, &[bid(2, 1, 5, 1), bid(1, 1, 5, 2)]), [2]);
        assert_eq!(run(1, &[bid(2, 1, 5, 1), bid(1, 1, 5, 1)]), [1]);
        assert_eq!(run(2, &[bid(1, 2, 9, 0), bid(2, 1, 5, 0)]), [2], "9 for two is less than 5 for one");
    }

    #[test]
    fn what_does_not_fit_waits_and_smaller_ones_run() {
        assert_eq!(run(3, &[bid(1, 2, 20, 0), bid(2, 2, 18, 0), bid(3, 1, 5, 0)]), [1, 3]);
        assert_eq!(run(0, &[bid(1, 1, 20, 0)]), Vec::<u8>::new());
    }

    fn bids() -> impl Strategy<Value = Vec<Bid>> {
        proptest::collection::vec((1u16..5, 0u64..30, 0u64..4), 0..20)
            .prop_map(|all| (0u8..).zip(all).map(|(n, (slots, price, at))| bid(n, slots, price, at)).collect())
    }

    proptest! {
        /// Nothing that runs takes more than there is; whoever waits does not fit behind those served before it.
        #[test]
        fn the_rule_holds(bids in bids(), capacity in 0u16..12) {
            let auction = Auction::new(bids);
            let winners = auction.winners(capacity);
            let mut left = capacity;
            for bid in auction.bids() {
                prop_assert_eq!(winners.contains(&bid.lease), bid.slots <= left);
                if winners.contains(&bid.lease) {
                    left -= bid.slots;
                }
            }
        }

        /// A bid at the price to win runs, and one a unit lower does not.
        #[test]
        fn the_price_to_win_wins_and_no_lower_one(bids in bids(), capacity in 0u16..12, slots in 1u16..5, min in 0u64..10) {
            let runs = |price: u64| {
                let mut all = bids.clone();
                let new = bid(200, slots, price, 1000);
                all.push(new);
                Auction::new(all).winners(capacity).contains(&new.lease)
            };
            match Auction::new(bids.clone()).price_to_win(capacity, slots, Amount(min), None) {
                Some(price) => {
                    prop_assert!(runs(price.0) && price.0 >= min);
                    prop_assert!(price.0 == min || !runs(price.0 - 1));
                }
                None => prop_assert!(!runs(u64::MAX)),
            }
        }

        /// The order in which bids are told does not matter.
        #[test]
        fn no_order_of_telling_matters(bids in bids(), capacity in 0u16..12) {
            let mut reversed = bids.clone();
            reversed.reverse();
            prop_assert_eq!(Auction::new(bids).winners(capacity), Auction::new(reversed).winners(capacity));
        }
    }
}
