//! What a lease can cost, before it is signed: exact, in the same formula as what is owed.
//!
//! Owns the estimate only; what was used is [`money::due`].

use crate::{
    limits,
    money::{self, Amount, Counters, Overflow, Rates},
    time::Millis,
};

/// What a lease can cost. Each part is rounded down by itself; [`Self::at_most`] is the whole in one formula, as it is billed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// The disk for an hour.
    pub storage_hour: Amount,
    /// The disk for a month of 30 days.
    pub storage_month: Amount,
    /// Running from beginning to end.
    pub compute: Amount,
    /// The disk from beginning to end.
    pub storage: Amount,
    /// The disk for [`limits::DISK_KEPT`] after the end.
    pub disk_kept: Amount,
    /// All of it, without traffic.
    pub total: Amount,
    /// The most that can become due: the ceiling, if it is below the total or traffic costs something; else the total, and the
    /// traffic on top of it where [`Self::traffic_on_top`].
    pub at_most: Amount,
    /// Set if traffic costs something and no ceiling holds it.
    pub traffic_on_top: bool,
    /// How long it runs before the ceiling, less what keeping the disk costs, is reached without any traffic; none if it is not
    /// reached before the end.
    pub ceiling_after: Option<Millis>,
}

/// Estimates a lease of `disk_mb` MB that runs for `term`, and costs at most `ceiling` if there is one.
///
/// # Errors
/// [`Overflow`] if an amount does not fit: such terms can't be signed.
pub fn estimate(rates: &Rates, disk_mb: u64, term: Millis, ceiling: Option<Amount>) -> Result<Estimate, Overflow> {
    let cost = |active: Millis, storage: Millis| {
        money::due(rates, disk_mb, &Counters { active, storage, ..Counters::default() }, Amount::ZERO)
    };
    let nothing = Millis(0);
    let kept = Millis(term.0.checked_add(limits::DISK_KEPT.0).ok_or(Overflow)?);
    let total = cost(term, kept)?;
    let disk_kept = cost(nothing, limits::DISK_KEPT)?;
    let traffic = rates.up_gb > Amount::ZERO || rates.down_gb > Amount::ZERO;
    let bound = ceiling.filter(|c| *c < total || traffic);
    let ceiling_after = ceiling.filter(|c| *c < total).and_then(|c| {
        let for_running = c.saturating_sub(disk_kept);
        money::time_until(rates, disk_mb, &Counters::default(), true, true, for_running)
    });
    Ok(Estimate {
        storage_hour: cost(nothing, Millis::from_hours(1))?,
        storage_month: cost(nothing, Millis::from_hours(30 * 24))?,
        compute: cost(term, nothing)?,
        storage: cost(nothing, term)?,
        disk_kept,
        total,
        at_most: bound.unwrap_or(total),
        traffic_on_top: traffic && ceiling.is_none(),
        ceiling_after: ceiling_after.filter(|after| *after < term),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const RATES: Rates = Rates {
        compute_hour: Amount(350_000_000),
        storage_gb_month: Amount(100_000_000),
        up_gb: Amount(0),
        down_gb: Amount(0),
    };

    #[test]
    fn three_hours_and_the_days_of_the_disk() {
        let e = estimate(&RATES, 720_000, Millis::from_hours(3), None).unwrap();
        assert_eq!((e.storage_hour, e.storage_month), (Amount(100_000_000), Amount(72_000_000_000)));
        assert_eq!(
            (e.compute, e.storage, e.disk_kept),
            (Amount(1_050_000_000), Amount(300_000_000), Amount(4_800_000_000))
        );
        assert_eq!((e.total, e.at_most, e.ceiling_after), (Amount(6_150_000_000), Amount(6_150_000_000), None));
        assert!(!e.traffic_on_top);
    }

    #[test]
    fn a_ceiling_ends_it_early_and_holds_traffic() {
        // 4.80 of it keep the disk: 0.45 are an hour's compute and disk.
        let e = estimate(&RATES, 720_000, Millis::from_hours(3), Some(Amount(5_250_000_000))).unwrap();
        assert_eq!((e.at_most, e.ceiling_after), (Amount(5_250_000_000), Some(Millis::from_hours(1))));
        let loose = estimate(&RATES, 720_000, Millis::from_hours(3), Some(Amount(u64::MAX))).unwrap();
        assert_eq!((loose.at_most, loose.ceiling_after), (loose.total, None));
        let traffic = Rates { up_gb: Amount(1), ..RATES };
        let capped = estimate(&traffic, 720_000, Millis::from_hours(3), Some(Amount(9_000_000_000))).unwrap();
        assert_eq!((capped.at_most, capped.traffic_on_top), (Amount(9_000_000_000), false));
        assert!(estimate(&traffic, 1, Millis::from_hours(3), None).unwrap().traffic_on_top);
    }

    #[test]
    fn gifts_cost_nothing_and_absurd_prices_are_errors() {
        let gift = estimate(&Rates::default(), 1_000_000, limits::TERM, None).unwrap();
        assert_eq!((gift.total, gift.traffic_on_top), (Amount::ZERO, false));
        let absurd = Rates { compute_hour: Amount(u64::MAX), ..Rates::default() };
        assert_eq!(estimate(&absurd, 1, Millis::from_hours(2), None), Err(Overflow));
        assert_eq!(estimate(&RATES, 1, Millis(u64::MAX), None), Err(Overflow));
    }

    proptest! {
        /// What is billed at the end is never over what was said before.
        #[test]
        fn nothing_costs_more_than_was_said(
            hour in 0u64..10_000_000_000, month in 0u64..10_000_000_000, disk in 0u64..10_000_000,
            term in 1000u64..31_622_400_000, used in 0u64..31_622_400_000, kept in 0u64..=172_800_000,
            ceiling in proptest::option::of(1u64..100_000_000_000),
        ) {
            let rates = Rates { compute_hour: Amount(hour), storage_gb_month: Amount(month), ..Rates::default() };
            let ceiling = ceiling.map(Amount);
            let said = estimate(&rates, disk, Millis(term), ceiling).unwrap();
            let used = used.min(term);
            let counters = Counters { active: Millis(used), storage: Millis(term + kept), ..Counters::default() };
            let cost = money::due(&rates, disk, &counters, Amount::ZERO).unwrap();
            let billed = ceiling.map_or(cost, |c| cost.min(c));
            prop_assert!(billed <= said.at_most);
            let parts = said.compute.0 + said.storage.0 + said.disk_kept.0;
            prop_assert!(parts <= said.total.0 && said.total.0 - parts < 3);
        }
    }
}
