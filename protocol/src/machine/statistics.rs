//! What the offers seen say of prices: median, spread, occupancy, by GPU model.
//!
//! Pure, in whole numbers. **One vote a host**: a host's vote is the median of its machines' prices, and every price statistic
//! is one of votes, so that no host moves the market by offering many machines. Slots are counted as they are. Owns no history.

use std::collections::BTreeMap;

use crate::{
    id::NodeId,
    money::{Amount, Currency},
    offer::Offer,
    resources::SlotClass,
};

/// Bars of a histogram.
const BUCKETS: u128 = 8;

/// What machines of a class are compared by: the price of one GPU, or, since slots of machines without GPUs differ in size, of
/// one hardware thread, for an hour. None if it does not fit.
#[must_use]
pub fn unit_price(offer: &Offer) -> Option<Amount> {
    match offer.class() {
        SlotClass::Gpu(_) => Some(offer.terms.slot_hour),
        SlotClass::Cpu => {
            let (slots, threads) = (offer.availability.slots_total, offer.hardware.cpu.cores.max(1));
            scaled(offer.terms.slot_hour, slots, threads)
        }
    }
}

/// What one slot costs at a unit price of [`unit_price`], on a machine of `threads` hardware threads cut into `slots`.
#[must_use]
pub fn slot_price(unit: Amount, class: &SlotClass, slots: u16, threads: u16) -> Option<Amount> {
    match class {
        SlotClass::Gpu(_) => Some(unit),
        SlotClass::Cpu => scaled(unit, threads.max(1), slots.max(1)),
    }
}

fn scaled(amount: Amount, times: u16, over: u16) -> Option<Amount> {
    u64::try_from(u128::from(amount.0) * u128::from(times) / u128::from(over)).ok().map(Amount)
}

/// Each host's vote, in rising order: the median of its machines' prices.
#[must_use]
pub fn votes(prices: impl IntoIterator<Item = (NodeId, Amount)>) -> Vec<Amount> {
    let mut by_host: BTreeMap<NodeId, Vec<Amount>> = BTreeMap::new();
    for (host, price) in prices {
        by_host.entry(host).or_default().push(price);
    }
    let mut votes: Vec<Amount> = by_host.into_values().map(median_of).collect();
    votes.sort_unstable();
    votes
}

fn median_of(mut prices: Vec<Amount>) -> Amount {
    prices.sort_unstable();
    quantile(&prices, 1, 2).unwrap_or_default()
}

/// The value `part`/`of` of the way through sorted values, between neighbours in proportion and rounded down. None if there are
/// none, or for a part over the whole.
#[must_use]
pub fn quantile(sorted: &[Amount], part: u32, of: u32) -> Option<Amount> {
    let steps = u128::try_from(sorted.len().checked_sub(1)?).ok()? * u128::from(part);
    let of = u128::from(of.max(1));
    let below = usize::try_from(steps / of).ok()?;
    let low = u128::from(sorted.get(below)?.0);
    let rest = steps % of;
    if rest == 0 {
        return Some(Amount(u64::try_from(low).ok()?));
    }
    let high = u128::from(sorted.get(below + 1)?.0);
    // Sorted, so high is not below low, and the result is between both: it fits.
    Some(Amount(u64::try_from(low + high.saturating_sub(low) * rest / of).unwrap_or(u64::MAX)))
}

/// Prices of hosts, in rising order of what they say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spread {
    /// The cheapest host's.
    pub lowest: Amount,
    /// A quarter of the hosts are below.
    pub lower_quartile: Amount,
    /// Half of them are.
    pub median: Amount,
    /// Three quarters are.
    pub upper_quartile: Amount,
    /// The dearest host's.
    pub highest: Amount,
}

impl Spread {
    /// The spread of sorted votes; none of none.
    #[must_use]
    pub fn of(votes: &[Amount]) -> Option<Self> {
        Some(Self {
            lowest: *votes.first()?,
            lower_quartile: quantile(votes, 1, 4)?,
            median: quantile(votes, 1, 2)?,
            upper_quartile: quantile(votes, 3, 4)?,
            highest: *votes.last()?,
        })
    }
}

/// A bar of a histogram: hosts whose price is at least `from` and below `to`; the last one's `to` belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// From this price on. The first bar holds what is below, too.
    pub from: Amount,
    /// Up to this. The last bar holds what is above, too.
    pub to: Amount,
    /// How many hosts.
    pub hosts: usize,
}

/// What is on offer of one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelStatistics {
    /// The model, or CPU slots.
    pub class: SlotClass,
    /// Hosts: as many votes.
    pub hosts: usize,
    /// Machines.
    pub machines: usize,
    /// Asks: sizes the machines are sold in.
    pub asks: usize,
    /// Slots, rented or not.
    pub slots_total: u64,
    /// Slots that nobody rents on demand.
    pub slots_free: u64,
    /// Prices per hour of a GPU, or of a hardware thread.
    pub prices: Spread,
    /// The same as bars.
    pub histogram: Vec<Bucket>,
}

/// What is on offer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MarketStatistics {
    /// By model, most slots first.
    pub models: Vec<ModelStatistics>,
    /// Machines left out, since their prices are in another currency.
    pub other_currency: usize,
    /// Machines left out, since their prices make no sense.
    pub unpriced: usize,
}

#[derive(Default)]
struct Tally {
    prices: Vec<(NodeId, Amount)>,
    asks: usize,
    slots_total: u64,
    slots_free: u64,
}

/// Counts the offers whose prices are in `currency`. `voter` says whose vote an offer's price is part of.
#[must_use]
pub fn statistics<'a>(
    offers: impl IntoIterator<Item = &'a Offer>,
    currency: &Currency,
    voter: impl Fn(&Offer) -> NodeId,
) -> MarketStatistics {
    let mut found = MarketStatistics::default();
    let mut tallies: BTreeMap<Option<String>, Tally> = BTreeMap::new();
    for offer in offers {
        if offer.terms.currency != *currency {
            found.other_currency += 1;
            continue;
        }
        let Some(price) = unit_price(offer) else {
            found.unpriced += 1;
            continue;
        };
        let model = match offer.class() {
            SlotClass::Gpu(model) => Some(model),
            SlotClass::Cpu => None,
        };
        let tally = tallies.entry(model).or_default();
        tally.prices.push((voter(offer), price));
        tally.asks += offer.slices().len();
        tally.slots_total += u64::from(offer.availability.slots_total);
        tally.slots_free += u64::from(offer.availability.slots_free);
    }
    for (model, tally) in tallies {
        let machines = tally.prices.len();
        let votes = votes(tally.prices);
        let Some(prices) = Spread::of(&votes) else { continue };
        found.models.push(ModelStatistics {
            class: model.map_or(SlotClass::Cpu, SlotClass::Gpu),
            hosts: votes.len(),
            machines,
            asks: tally.asks,
            slots_total: tally.slots_total,
            slots_free: tally.slots_free,
            prices,
            histogram: histogram(&votes, &prices),
        });
    }
    // Stable: models of as many slots stay in the order of their names.
    found.models.sort_by_key(|m| std::cmp::Reverse(m.slots_total));
    found
}

/// Equal bars over what lies within one and a half times the middle half's width of it, so that a single absurd price does not
/// squeeze all others into one bar.
fn histogram(votes: &[Amount], spread: &Spread) -> Vec<Bucket> {
    let reach = spread.upper_quartile.saturating_sub(spread.lower_quartile).0;
    let reach = reach.saturating_add(reach / 2);
    let from = spread.lowest.0.max(spread.lower_quartile.0.saturating_sub(reach));
    let to = spread.highest.0.min(spread.upper_quartile.0.saturating_add(reach)).max(from);
    let width = u128::from(to - from);
    let bars = width.clamp(1, BUCKETS);
    let edge = |n: u128| Amount(from + u64::try_from(width * n / bars).unwrap_or(0));
    let mut buckets: Vec<Bucket> = (0..bars).map(|n| Bucket { from: edge(n), to: edge(n + 1), hosts: 0 }).collect();
    let last = buckets.len().saturating_sub(1);
    for vote in votes {
        let at = buckets.iter().position(|b| *vote < b.to).unwrap_or(last);
        if let Some(bucket) = buckets.get_mut(at) {
            bucket.hosts += 1;
        }
    }
    buckets
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::{
        machine::testkit::{NOW, key, offer},
        resources::GpuGroup,
    };

    fn amounts(values: &[u64]) -> Vec<Amount> {
        values.iter().copied().map(Amount).collect()
    }

    fn gpu(host: u8, model: &str, price: u64) -> Offer {
        let mut offer = offer(host, 1, NOW);
        offer.hardware.gpus = vec![GpuGroup {
            model: model.to_owned(),
            declared: false,
            uuid_hashes: vec![crate::Digest::of(&[host])],
            vram_mib: 1,
            compute_cap: 0,
            driver: String::new(),
            max_cuda: 0,
            pcie_gen: 0,
            pcie_width: 0,
            mem_bw: 0,
            power_w: 0,
        }];
        offer.terms.slot_hour = Amount(price);
        offer
    }

    #[test]
    fn quantiles_are_exact() {
        assert_eq!(quantile(&[], 1, 2), None);
        assert_eq!(quantile(&amounts(&[7]), 3, 4), Some(Amount(7)));
        assert_eq!(quantile(&amounts(&[1, 2]), 1, 2), Some(Amount(1)), "rounded down");
        assert_eq!(quantile(&amounts(&[10, 20, 30, 40, 50]), 1, 4), Some(Amount(20)));
        assert_eq!(quantile(&amounts(&[0, u64::MAX]), 1, 2), Some(Amount(u64::MAX / 2)));
        assert_eq!(quantile(&amounts(&[1, 2]), 5, 4), None);
    }

    #[test]
    fn a_host_with_many_machines_has_one_vote() {
        let mut offers: Vec<Offer> = (1..=3).map(|n| gpu(n, "H200", u64::from(n) * 100)).collect();
        for n in 0..40 {
            let mut cheap = gpu(9, "H200", 1);
            cheap.machine = crate::MachineId([n; 16]);
            offers.push(cheap);
        }
        let mut euros = gpu(8, "H200", 1);
        euros.terms.currency = Currency("EUR".to_owned());
        offers.push(euros);
        offers.push(offer(1, 1, NOW));
        let found = statistics(&offers, &Currency::usd(), |o| o.host);
        assert_eq!((found.models.len(), found.other_currency), (2, 1));
        let h200 = &found.models[0];
        assert_eq!((h200.hosts, h200.machines, h200.slots_total), (4, 43, 172));
        assert_eq!(h200.prices.median, Amount(150), "of 1, 100, 200 and 300");
        assert_eq!(h200.histogram.iter().map(|b| b.hosts).sum::<usize>(), 4);
        // Two threads a slot, 1.00 an hour a slot.
        assert_eq!(
            (found.models[1].class.clone(), found.models[1].prices.median),
            (SlotClass::Cpu, Amount(500_000_000))
        );
    }

    #[test]
    fn cpu_slots_of_all_sizes_are_compared_by_the_thread() {
        let offer = offer(1, 1, NOW);
        let unit = unit_price(&offer).unwrap();
        assert_eq!(unit, Amount(500_000_000));
        assert_eq!(slot_price(unit, &SlotClass::Cpu, 2, 8), Some(Amount(2_000_000_000)));
        assert_eq!(slot_price(Amount(u64::MAX), &SlotClass::Cpu, 1, 2), None);
        let mut absurd = offer;
        absurd.terms.slot_hour = Amount(u64::MAX);
        absurd.hardware.cpu.cores = 1;
        assert_eq!(unit_price(&absurd), None);
        assert_eq!(statistics([&absurd], &Currency::usd(), |o| o.host).unpriced, 1);
    }

    proptest! {
        #[test]
        fn spreads_are_in_order_and_bars_hold_every_host(values in vec(any::<u64>(), 1..60)) {
            let votes = votes(values.iter().enumerate().map(|(n, v)| (key(n as u8).node_id(), Amount(*v))));
            let s = Spread::of(&votes).unwrap();
            prop_assert!(s.lowest <= s.lower_quartile && s.lower_quartile <= s.median);
            prop_assert!(s.median <= s.upper_quartile && s.upper_quartile <= s.highest);
            let bars = histogram(&votes, &s);
            prop_assert!(!bars.is_empty() && bars.len() <= 8);
            prop_assert_eq!(bars.iter().map(|b| b.hosts).sum::<usize>(), votes.len());
            prop_assert!(bars.windows(2).all(|w| w[0].to == w[1].from));
        }

        /// Whatever one host says, the median stays between what its neighbours say.
        #[test]
        fn one_host_moves_the_median_no_further_than_its_neighbours(
            others in vec(1u64..1_000_000, 2..30), lies in vec(any::<u64>(), 1..50)
        ) {
            let honest: Vec<_> = others.iter().enumerate().map(|(n, v)| (key(n as u8).node_id(), Amount(*v))).collect();
            let liar = key(200).node_id();
            let all = votes(honest.iter().copied().chain(lies.iter().map(|l| (liar, Amount(*l)))));
            let mut sorted = amounts(&others);
            sorted.sort_unstable();
            // With one vote more, the median is next to where it was.
            let (n, even) = (sorted.len(), sorted.len().is_multiple_of(2));
            let between = |a: usize, b: usize| Amount(sorted[a].0.midpoint(sorted[b.min(n - 1)].0));
            let (low, high) = if even { (sorted[n / 2 - 1], sorted[n / 2]) } else { (between(n / 2 - 1, n / 2), between(n / 2, n / 2 + 1)) };
            let median = quantile(&all, 1, 2).unwrap();
            prop_assert!(median >= low && median <= high, "{median} of {all:?}, not in {low} to {high}");
        }
    }
}
