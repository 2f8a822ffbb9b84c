//! How a host's owner sets prices beyond a fixed one: following the market, or answering each bid by a program of their own.
//!
//! Pure functions and the words the engine asks the owner with. Asking is the shell's; what is answered is checked here.

use super::{policy::Decision, statistics::quantile};
use crate::{
    id::NodeId,
    money::{Amount, Currency},
    negotiation::{Proposal, Reject},
    resources::Resources,
    time::Timestamp,
};

/// Where the owner is asked about each proposal, beyond the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OwnerAsked {
    /// For the price of an on-demand proposal.
    pub price: bool,
    /// Whether to take a proposal that fits everything else.
    pub accept: bool,
    /// What holds where that question gets no answer: true for yes.
    pub unanswered_is_yes: bool,
}

/// What the owner is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// What one slot shall cost for an hour.
    Price,
    /// Whether the proposal is to be taken.
    Accept,
}

/// A question to the owner about a proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// What is asked.
    pub about: About,
    /// Who proposes.
    pub renter: NodeId,
    /// What.
    pub proposal: Proposal,
    /// Slots it is for.
    pub slots: u16,
    /// Slots of the machine.
    pub slots_total: u16,
    /// Slots nobody rents.
    pub slots_free: u16,
    /// The listed price of one slot for an hour.
    pub slot_hour: Amount,
    /// The lowest bid for one slot for an hour.
    pub min_bid_slot_hour: Amount,
    /// The currency.
    pub currency: Currency,
    /// What would be agreed: set when asked whether to accept.
    pub agreed: Option<Agreed>,
}

/// What a lease would say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    /// For all slots together, per hour.
    pub price_hour: Amount,
    /// What would be granted.
    pub resources: Resources,
    /// When the contract would end.
    pub ends_at: Timestamp,
}

/// The owner's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnerAnswer {
    /// What one slot shall cost for an hour; none for the listed price, as where the owner's program has failed.
    Price(Option<Amount>),
    /// Whether the proposal is taken.
    Accept(Result<(), Reject>),
}

/// What a decision becomes where the owner asks `slot_hour` for each of `slots` slots: that price, or less where less is bid
/// than it and taken. Never above the listed price, which stays an offer to everybody.
#[must_use]
pub fn at_price(decision: Decision, slots: u16, slot_hour: Amount, listed_slot_hour: Amount) -> Decision {
    let asked = slot_hour.min(listed_slot_hour);
    // The listed price times the slots fitted, and this is not more.
    let asked_hour = Amount(asked.0.saturating_mul(u64::from(slots)));
    match decision {
        Decision::Counter { listed_hour, .. } => Decision::Counter { price_hour: asked_hour, listed_hour },
        Decision::Draft { price_hour, listed_hour, resources, ends_at } => {
            Decision::Draft { price_hour: price_hour.min(asked_hour), listed_hour, resources, ends_at }
        }
        reject @ Decision::Reject(_) => reject,
    }
}

/// How the listed price follows the market.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarketRule {
    /// Never below.
    pub lowest: Amount,
    /// Never above.
    pub highest: Amount,
    /// Votes of so many other hosts are needed; with fewer the price stays.
    pub hosts: usize,
}

/// The dead band: a median within this share of the price (a twentieth) moves nothing.
const BAND: u64 = 20;
/// Nor does a difference below this, in 10⁻⁹ currency units.
const GRAIN: u64 = 1000;

/// The price that follows from the present one and the votes of others, in rising order ([`super::statistics::votes`]): half the
/// way to their median, unless that is within a twentieth. Half the way, so that followers who look at each other meet instead
/// of swapping; a dead band, so that they then rest. Always between the rule's bounds.
#[must_use]
pub fn follow(current: Amount, rule: &MarketRule, votes: &[Amount]) -> Amount {
    let within = |price: Amount| price.max(rule.lowest).min(rule.highest);
    let current = within(current);
    let Some(median) = quantile(votes, 1, 2).filter(|_| votes.len() >= rule.hosts.max(1)) else {
        return current;
    };
    let target = within(median);
    let apart = target.0.abs_diff(current.0);
    if apart < GRAIN || apart <= current.0 / BAND {
        return current;
    }
    let half = current.0.midpoint(target.0);
    within(Amount(rounded(half, current.0)))
}

/// To three digits, towards the present price: never past what was aimed at.
fn rounded(price: u64, current: u64) -> u64 {
    let grain = 10u64.checked_pow(price.checked_ilog10().unwrap_or(0).saturating_sub(2)).unwrap_or(1);
    let down = price / grain * grain;
    if price >= current { down } else { price.checked_next_multiple_of(grain).unwrap_or(price).min(current) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn rule(lowest: u64, highest: u64, hosts: usize) -> MarketRule {
        MarketRule { lowest: Amount(lowest), highest: Amount(highest), hosts }
    }

    fn sorted(mut votes: Vec<u64>) -> Vec<Amount> {
        votes.sort_unstable();
        votes.into_iter().map(Amount).collect()
    }

    #[test]
    fn it_goes_half_way_rests_near_by_and_needs_enough_hosts() {
        let rule = rule(100_000, 10_000_000, 3);
        let votes = sorted(vec![2_000_000, 2_000_000, 2_000_000]);
        assert_eq!(follow(Amount(1_000_000), &rule, &votes), Amount(1_500_000));
        assert_eq!(follow(Amount(1_950_000), &rule, &votes), Amount(1_950_000), "within a twentieth");
        assert_eq!(follow(Amount(1_000_000), &rule, &votes[..2]), Amount(1_000_000), "two hosts are no market");
        assert_eq!(follow(Amount(1), &rule, &[]), Amount(100_000), "bounds hold without a market, too");
        assert_eq!(follow(Amount(8_000_000), &rule, &sorted(vec![0, 0, 0])), Amount(4_050_000));
        assert_eq!(follow(Amount(1_234_567), &rule, &sorted(vec![0; 3])), Amount(668_000), "to three digits");
    }

    proptest! {
        #[test]
        fn never_out_of_bounds(current: u64, a: u64, b: u64, votes in vec(any::<u64>(), 0..20), hosts in 0usize..6) {
            let rule = rule(a.min(b), a.max(b), hosts);
            let votes = sorted(votes);
            let price = follow(Amount(current), &rule, &votes);
            prop_assert!(price >= rule.lowest && price <= rule.highest);
            prop_assert_eq!(price, follow(Amount(current), &rule, &votes));
        }

        /// One host says what it likes: the price stays between what it was and what the others say.
        #[test]
        fn one_outlier_moves_nothing_beyond_the_others(
            current in 1u64..1_000_000_000_000, others in vec(1u64..1_000_000_000_000, 2..20), lie: u64
        ) {
            let rule = rule(0, u64::MAX, 3);
            let low = others.iter().copied().min().unwrap().min(current);
            let high = others.iter().copied().max().unwrap().max(current);
            let price = follow(Amount(current), &rule, &sorted(others.into_iter().chain([lie]).collect()));
            prop_assert!(price.0 >= low && price.0 <= high, "{price:?} is not in {low} to {high}");
        }

        /// Hosts that all follow each other come to rest, within what they began with.
        #[test]
        fn followers_meet_and_rest(
            mut prices in vec(1_000_000u64..100_000_000_000, 2..9), fixed in vec(1_000_000u64..100_000_000_000, 0..4), at_once: bool
        ) {
            let rule = rule(0, u64::MAX, 1);
            let (low, high) = {
                let all = || prices.iter().chain(&fixed).copied();
                (all().min().unwrap(), all().max().unwrap())
            };
            let mut moved = true;
            for _ in 0..400 {
                let before = prices.clone();
                for i in 0..prices.len() {
                    let seen = if at_once { &before } else { &prices };
                    let others = seen.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, p)| *p);
                    let votes = sorted(others.chain(fixed.iter().copied()).collect());
                    prices[i] = follow(Amount(prices[i]), &rule, &votes).0;
                }
                prop_assert!(prices.iter().all(|p| *p >= low && *p <= high));
                moved = before != prices;
                if !moved {
                    break;
                }
            }
            prop_assert!(!moved, "they never rest: {prices:?} beside {fixed:?}");
        }

        #[test]
        fn the_owners_price_is_never_over_the_listed_one(bid: u64, slots in 1u16..=256, asked: u64, listed in 0u64..1 << 50) {
            let counter = Decision::Counter { price_hour: Amount(bid), listed_hour: Amount(listed * u64::from(slots)) };
            let Decision::Counter { price_hour, listed_hour } = at_price(counter, slots, Amount(asked), Amount(listed)) else {
                panic!("another decision")
            };
            prop_assert!(price_hour <= listed_hour);
        }
    }
}
