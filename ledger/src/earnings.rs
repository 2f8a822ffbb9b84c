//! What a host earned: by day, machine and kind of use, claimed and acknowledged. Pure sums; the fold keeps the rows
//! ([`crate::state`]), and the view reads them.
//!
//! - A **day** is one of UTC. What a usage adds to the one before belongs to the day in which the usage was counted, whole: a
//!   tick that spans midnight is not cut.
//! - **Kinds.** Each cost is recomputed from the counters and the lease's rates, rounded down. What was due is rounded down once,
//!   so up to two nano-units may be left over: they go to the largest kind that was used. Under a ceiling less is due than was used: compute
//!   takes its share first, then storage, then traffic, and what does not fit is the host's loss.
//! - **Acknowledged** sums settle the oldest claims first. So what is claimed and not acknowledged is always the newest.
//! - Running time that a host waives is taken from the newest compute. What it gives up at the close is taken from the newest claims; what it claims beyond the counters (a discount taken
//!   back) is `other`.
//!
//! Over all days the claims add up to what the ledger says is claimed, to the unit, and so do the acknowledged ones to what was
//! agreed to, as far as it was claimed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use souk_protocol::{
    Amount, Currency, MachineId, Millis, Rates, Timestamp,
    money::{self, Counters},
};

/// Milliseconds in a day.
const DAY_MS: u64 = 86_400_000;
/// Nano-units that rounding down four times instead of once can leave.
const ROUNDING: u64 = 4;

/// The day of a moment: days since the Unix epoch, UTC. Moments beyond some ten million years are in the last day.
#[must_use]
pub fn day_of(at: Timestamp) -> u32 {
    u32::try_from(at.0 / DAY_MS).unwrap_or(u32::MAX)
}

/// The first moment of a day.
#[must_use]
pub const fn start_of(day: u32) -> Timestamp {
    Timestamp(day as u64 * DAY_MS)
}

/// A sum by kind of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Parts {
    /// Time running.
    pub compute: Amount,
    /// Disk.
    pub storage: Amount,
    /// Bytes both ways.
    pub traffic: Amount,
    /// Claimed beyond the counters.
    pub other: Amount,
}

impl Parts {
    const fn all(&self) -> [Amount; 4] {
        [self.compute, self.storage, self.traffic, self.other]
    }

    const fn of([compute, storage, traffic, other]: [Amount; 4]) -> Self {
        Self { compute, storage, traffic, other }
    }

    /// All together.
    #[must_use]
    pub fn total(&self) -> Amount {
        self.all().into_iter().fold(Amount::ZERO, Amount::saturating_add)
    }

    /// Both together.
    #[must_use]
    pub fn plus(&self, more: &Self) -> Self {
        let (mut sums, more) = (self.all(), more.all());
        for (sum, more) in sums.iter_mut().zip(more) {
            *sum = sum.saturating_add(more);
        }
        Self::of(sums)
    }

    /// The first `amount` of it: compute, then storage, then traffic.
    fn first(&self, mut amount: Amount) -> Self {
        let mut parts = self.all();
        for part in &mut parts {
            *part = (*part).min(amount);
            amount = amount.saturating_sub(*part);
        }
        Self::of(parts)
    }
}

/// What a lease earned in a day, as the ledger keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Day {
    /// What was due before its first usage.
    pub before: Amount,
    /// What its usages added.
    pub parts: Parts,
    /// What they counted.
    pub counters: Counters,
    /// The day before it that has a row of this lease.
    pub previous: Option<u32>,
}

/// What a step from one usage to the next adds, by kind. Adds up to the difference of what is due.
pub(crate) fn split(rates: &Rates, disk_mb: u64, from: (&Counters, Amount), to: (&Counters, Amount)) -> Parts {
    let cost = |counters: Counters| money::due(rates, disk_mb, &counters, Amount::ZERO).unwrap_or(Amount::ZERO);
    let by_kind = |c: &Counters| {
        let none = Counters::default();
        Parts {
            compute: cost(Counters { active: c.active, waived: c.waived, ..none }),
            storage: cost(Counters { storage: c.storage, ..none }),
            traffic: cost(Counters { rx_bytes: c.rx_bytes, tx_bytes: c.tx_bytes, ..none }),
            other: Amount::ZERO,
        }
    };
    let (old, new) = (by_kind(from.0), by_kind(to.0));
    let added = to.1.saturating_sub(from.1);
    let parts = Parts {
        compute: new.compute.saturating_sub(old.compute),
        storage: new.storage.saturating_sub(old.storage),
        traffic: new.traffic.saturating_sub(old.traffic),
        other: Amount::ZERO,
    }
    .first(added);
    let left = added.saturating_sub(parts.total());
    let (from, to) = (from.0, to.0);
    let bytes = (from.rx_bytes, from.tx_bytes) != (to.rx_bytes, to.tx_bytes);
    let used = [to.active > from.active, to.storage > from.storage, bytes];
    let mut sums = parts.all();
    let largest = (0..used.len()).rev().filter(|kind| used[*kind]).max_by_key(|kind| sums[*kind]);
    let home = largest.filter(|_| left.0 <= ROUNDING).unwrap_or(used.len());
    sums[home] = sums[home].saturating_add(left);
    Parts::of(sums)
}

/// What a host gives up from one usage to the next: running time that it counts, but no longer bills.
pub(crate) fn waived(rates: &Rates, from: &Counters, to: &Counters) -> Amount {
    let cost = |c: &Counters| {
        let ran = Counters { active: c.active, waived: c.waived, ..Counters::default() };
        money::due(rates, 0, &ran, Amount::ZERO).unwrap_or(Amount::ZERO)
    };
    cost(from).saturating_sub(cost(to))
}

/// `parts` without `amount` of it: compute goes first.
pub(crate) fn less(parts: &Parts, mut amount: Amount) -> Parts {
    let mut sums = parts.all();
    for sum in &mut sums {
        let taken = (*sum).min(amount);
        *sum = sum.saturating_sub(taken);
        amount = amount.saturating_sub(taken);
    }
    Parts::of(sums)
}

/// `sum`, and what has been counted between two usages.
pub(crate) fn passed(sum: &Counters, from: &Counters, to: &Counters) -> Counters {
    let time = |sum: Millis, from: Millis, to: Millis| Millis(sum.0.saturating_add(to.0.saturating_sub(from.0)));
    Counters {
        active: time(sum.active, from.active, to.active),
        waived: time(sum.waived, from.waived, to.waived),
        paused: time(sum.paused, from.paused, to.paused),
        storage: time(sum.storage, from.storage, to.storage),
        rx_bytes: sum.rx_bytes.saturating_add(to.rx_bytes.saturating_sub(from.rx_bytes)),
        tx_bytes: sum.tx_bytes.saturating_add(to.tx_bytes.saturating_sub(from.tx_bytes)),
    }
}

/// What was earned: of one machine in one day, or of more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Earned {
    /// Leases that earned it; over several days, the most in one of them.
    pub leases: u64,
    /// What the host claims.
    pub claimed: Parts,
    /// What its renters have signed for.
    pub acknowledged: Parts,
    /// What was used.
    pub counters: Counters,
}

impl Earned {
    /// What is claimed and not acknowledged.
    #[must_use]
    pub fn unacknowledged(&self) -> Amount {
        self.claimed.total().saturating_sub(self.acknowledged.total())
    }

    /// One lease's day, of which in all `claimed` is still claimed and `agreed` acknowledged.
    pub(crate) fn of(day: &Day, claimed: Amount, agreed: Amount) -> Self {
        let of_it = |cumulated: Amount| day.parts.first(cumulated.saturating_sub(day.before));
        Self { leases: 1, claimed: of_it(claimed), acknowledged: of_it(agreed.min(claimed)), counters: day.counters }
    }

    /// Adds what other leases earned at the same time.
    pub(crate) fn join(&mut self, other: &Self) {
        self.leases += other.leases;
        self.sum(other);
    }

    fn sum(&mut self, other: &Self) {
        self.claimed = self.claimed.plus(&other.claimed);
        self.acknowledged = self.acknowledged.plus(&other.acknowledged);
        self.counters = passed(&self.counters, &Counters::default(), &other.counters);
    }
}

/// What a host earned in some days.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Earnings {
    /// By day, machine and currency. Days in which nothing was counted are left out.
    pub days: BTreeMap<(u32, MachineId, Currency), Earned>,
}

impl Earnings {
    /// All days and machines together, by currency.
    #[must_use]
    pub fn total(&self) -> BTreeMap<Currency, Earned> {
        let mut totals: BTreeMap<Currency, Earned> = BTreeMap::new();
        for ((_, _, currency), earned) in &self.days {
            let total = totals.entry(currency.clone()).or_default();
            total.leases = total.leases.max(earned.leases);
            total.sum(earned);
        }
        totals
    }

    /// All days together, by machine and currency.
    #[must_use]
    pub fn machines(&self) -> BTreeMap<(MachineId, Currency), Earned> {
        let mut totals: BTreeMap<(MachineId, Currency), Earned> = BTreeMap::new();
        for ((_, machine, currency), earned) in &self.days {
            let total = totals.entry((*machine, currency.clone())).or_default();
            total.leases = total.leases.max(earned.leases);
            total.sum(earned);
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: u64 = 3_600_000;

    fn rates(compute: u64, storage: u64, traffic: u64) -> Rates {
        Rates {
            compute_hour: Amount(compute),
            storage_gb_month: Amount(storage),
            up_gb: Amount(traffic),
            down_gb: Amount(traffic),
        }
    }

    #[test]
    fn an_hour_of_compute_a_month_of_disk_and_a_gigabyte_are_told_apart() {
        let rates = rates(350_000_000, 100_000_000, 10_000_000);
        let used = Counters {
            active: Millis(HOUR),
            storage: Millis(720 * HOUR),
            tx_bytes: 1_000_000_000,
            ..Counters::default()
        };
        let due = Amount(350_000_000 + 1_000_000_000 + 10_000_000);
        let parts = split(&rates, 10_000, (&Counters::default(), Amount::ZERO), (&used, due));
        assert_eq!(parts.all(), [Amount(350_000_000), Amount(1_000_000_000), Amount(10_000_000), Amount::ZERO]);
    }

    #[test]
    fn a_paused_lease_earns_no_compute_even_by_rounding() {
        let rates = rates(333_333_333, 77_777_777, 0);
        let running = Counters { active: Millis(17), storage: Millis(29), ..Counters::default() };
        let mut at = running;
        let mut due = money::due(&rates, 12_345, &at, Amount::ZERO).unwrap_or_default();
        for _ in 0..1_000 {
            let mut next = at;
            next.storage.0 += 1_237;
            let more = money::due(&rates, 12_345, &next, Amount::ZERO).unwrap_or_default();
            assert_eq!(split(&rates, 12_345, (&at, due), (&next, more)).compute, Amount::ZERO);
            (at, due) = (next, more);
        }
    }

    #[test]
    fn acknowledgements_settle_the_oldest_days_first() {
        let parts = Parts { compute: Amount(60), storage: Amount(30), traffic: Amount(10), other: Amount::ZERO };
        let days = [Day { parts, ..Day::default() }, Day { before: Amount(100), parts, ..Day::default() }];
        let earned = days.map(|day| Earned::of(&day, Amount(200), Amount(170)));
        assert_eq!(earned[0].unacknowledged(), Amount::ZERO);
        assert_eq!(earned[1].acknowledged.all(), [Amount(60), Amount(10), Amount(0), Amount(0)]);
        assert_eq!(earned[1].unacknowledged(), Amount(30));
        // The host gave up 50 at the close.
        let earned = days.map(|day| Earned::of(&day, Amount(150), Amount(170)));
        assert_eq!(earned[1].claimed.total(), Amount(50));
        assert_eq!(earned[1].unacknowledged(), Amount::ZERO);
    }

    proptest! {
        #[test]
        fn parts_add_up_whatever_the_counters_and_the_ceiling(
            r in (0u64..u64::MAX / 2, 0u64..1 << 50, 0u64..1 << 50),
            from in (0u64..1 << 40, 0u64..1 << 40, 0u64..1 << 50),
            more in (0u64..1 << 30, 0u64..1 << 30, 0u64..1 << 40),
            due in (any::<u64>(), any::<u64>()),
        ) {
            let at = |(active, storage, tx_bytes): (u64, u64, u64)| Counters {
                active: Millis(active), storage: Millis(storage), tx_bytes, ..Counters::default()
            };
            let (old, new) = (at(from), at((from.0 + more.0, from.1 + more.1, from.2 + more.2)));
            let (a, b) = (Amount(due.0.min(due.1)), Amount(due.0.max(due.1)));
            let parts = split(&rates(r.0, r.1, r.2), 10_000, (&old, a), (&new, b));
            prop_assert_eq!(u128::from(parts.total().0), u128::from(b.0 - a.0));
            prop_assert_eq!(less(&parts, Amount(7)).total(), parts.total().saturating_sub(Amount(7)));
        }
    }
}
