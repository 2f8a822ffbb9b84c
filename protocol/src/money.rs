//! Money: whole numbers of 10⁻⁹ currency units, and the one formula that turns use into an amount owed.
//!
//! Rates are kept in the unit people quote them in (per hour, per GB and month, per GB), so that nothing is lost in a
//! conversion; [`due`] multiplies in 128 bits and rounds down once, so a third party recomputes it to the unit.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{signed::Invalid, time::Millis};

/// 10⁻⁹ currency units in one.
pub const NANO: u64 = 1_000_000_000;
/// Milliseconds in the month of a storage price: 30 days.
pub const MONTH_MS: u128 = 30 * 24 * 3_600_000;
/// Milliseconds in an hour.
const HOUR_MS: u128 = 3_600_000;
/// Bytes in a GB, as prices mean it.
pub const GB: u128 = 1_000_000_000;
/// Bytes in a MB.
const MB: u128 = 1_000_000;

/// An amount of money, in 10⁻⁹ units of the currency it goes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Amount(pub u64);

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// The sum; none on overflow.
    #[must_use]
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// The difference, or zero.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The sum, or the largest amount.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl fmt::Display for Amount {
    /// Shows at least two decimals, and as many more as the amount has: `0.35`, `0.000004166`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = format!("{:09}", self.0 % NANO);
        let kept = decimals.trim_end_matches('0').len().max(2);
        f.pad(&format!("{}.{}", self.0 / NANO, &decimals[..kept]))
    }
}

/// A text is not an amount of money.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an amount: write it like 0.35 (at most nine decimals)")]
pub struct ParseAmountError(String);

impl FromStr for Amount {
    type Err = ParseAmountError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseAmountError(text.chars().take(40).collect());
        let (whole, fraction) =
            text.trim().trim_start_matches('$').split_once('.').unwrap_or((text.trim().trim_start_matches('$'), ""));
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty()) || fraction.len() > 9 || !digits(whole) || !digits(fraction) {
            return Err(bad());
        }
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| bad())? };
        let nanos: u64 = format!("{fraction:0<9}").parse().map_err(|_| bad())?;
        whole.checked_mul(NANO).and_then(|n| n.checked_add(nanos)).map(Self).ok_or_else(bad)
    }
}

/// A currency's code: three to eight capital letters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Currency(pub String);

impl Currency {
    /// US dollars, the default.
    #[must_use]
    pub fn usd() -> Self {
        Self("USD".to_owned())
    }

    /// Checks the code's form.
    ///
    /// # Errors
    /// Says what a code looks like.
    pub fn check(&self) -> Result<(), Invalid> {
        let ok = (3..=8).contains(&self.0.len()) && self.0.bytes().all(|b| b.is_ascii_uppercase());
        Invalid::unless(ok, "a currency is three to eight capital letters")
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The prices of one lease, for all of its slots together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    /// Compute, per hour of `running`.
    pub compute_hour: Amount,
    /// Disk granted, per GB and month of 30 days, from creation to destruction.
    pub storage_gb_month: Amount,
    /// Traffic out of the instance, per GB.
    pub up_gb: Amount,
    /// Traffic into the instance, per GB.
    pub down_gb: Amount,
}

/// What has been used since a lease began: cumulative, never shrinking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counters {
    /// Time in `running`.
    pub active: Millis,
    /// Time in `running` that the host waived.
    pub waived: Millis,
    /// Time in a pause.
    pub paused: Millis,
    /// Time the disk has existed.
    pub storage: Millis,
    /// Bytes into the instance.
    pub rx_bytes: u64,
    /// Bytes out of the instance.
    pub tx_bytes: u64,
}

impl Counters {
    /// What has been used since `earlier`.
    #[must_use]
    pub const fn since(&self, earlier: &Self) -> Self {
        Self {
            active: Millis(self.active.0.saturating_sub(earlier.active.0)),
            waived: Millis(self.waived.0.saturating_sub(earlier.waived.0)),
            paused: Millis(self.paused.0.saturating_sub(earlier.paused.0)),
            storage: Millis(self.storage.0.saturating_sub(earlier.storage.0)),
            rx_bytes: self.rx_bytes.saturating_sub(earlier.rx_bytes),
            tx_bytes: self.tx_bytes.saturating_sub(earlier.tx_bytes),
        }
    }

    /// Whether no counter is less than in `earlier`.
    #[must_use]
    pub const fn covers(&self, earlier: &Self) -> bool {
        self.active.0 >= earlier.active.0
            && self.waived.0 >= earlier.waived.0
            && self.paused.0 >= earlier.paused.0
            && self.storage.0 >= earlier.storage.0
            && self.rx_bytes >= earlier.rx_bytes
            && self.tx_bytes >= earlier.tx_bytes
    }
}

/// An amount too large to be written down: the use or the rates are impossible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the amount due does not fit: impossible use or rates")]
pub struct Overflow;

/// Numerators over a GB-month.
const UNIT: u128 = GB * MONTH_MS;

/// What `counters` cost at `rates` for a disk of `disk_mb` MB, on top of `carried` from closed segments. All terms are brought
/// to one denominator (a GB-month) and rounded down once.
///
/// # Errors
/// [`Overflow`] if it does not fit in an [`Amount`].
pub fn due(rates: &Rates, disk_mb: u64, counters: &Counters, carried: Amount) -> Result<Amount, Overflow> {
    let sum = numerator(rates, disk_mb, counters)?;
    let used = u64::try_from(sum / UNIT).map_err(|_| Overflow)?;
    carried.checked_add(Amount(used)).ok_or(Overflow)
}

/// How much longer until `counters` cost at least `amount`, while the disk exists and, if `running`, compute is billed. None if
/// they never will.
#[must_use]
pub fn time_until(
    rates: &Rates,
    disk_mb: u64,
    counters: &Counters,
    running: bool,
    has_disk: bool,
    amount: Amount,
) -> Option<Millis> {
    let a_millisecond =
        Counters { active: Millis(u64::from(running)), storage: Millis(u64::from(has_disk)), ..Counters::default() };
    let (Ok(spent), Ok(each)) = (numerator(rates, disk_mb, counters), numerator(rates, disk_mb, &a_millisecond)) else {
        return Some(Millis(0));
    };
    let left = (u128::from(amount.0) * UNIT).saturating_sub(spent);
    if left == 0 {
        return Some(Millis(0));
    }
    if each == 0 {
        return None;
    }
    Some(Millis(u64::try_from(left.div_ceil(each)).unwrap_or(u64::MAX)))
}

fn numerator(rates: &Rates, disk_mb: u64, counters: &Counters) -> Result<u128, Overflow> {
    let term = |quantity: u128, rate: Amount, per_unit: u128| {
        quantity.checked_mul(u128::from(rate.0)).and_then(|x| x.checked_mul(per_unit)).ok_or(Overflow)
    };
    let billed = u128::from(counters.active.0.saturating_sub(counters.waived.0));
    let byte_ms = u128::from(disk_mb).checked_mul(MB * u128::from(counters.storage.0)).ok_or(Overflow)?;
    let terms = [
        term(billed, rates.compute_hour, UNIT / HOUR_MS)?,
        term(byte_ms, rates.storage_gb_month, 1)?,
        term(u128::from(counters.tx_bytes), rates.up_gb, UNIT / GB)?,
        term(u128::from(counters.rx_bytes), rates.down_gb, UNIT / GB)?,
    ];
    terms.into_iter().try_fold(0u128, u128::checked_add).ok_or(Overflow)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn amounts_read_and_print_as_people_write_them() {
        for (text, nanos) in
            [("0.35", 350_000_000), ("12", 12 * NANO), (".5", NANO / 2), ("$1.25", 1_250_000_000), ("0.000000001", 1)]
        {
            assert_eq!(text.parse::<Amount>().unwrap().0, nanos, "{text}");
        }
        assert_eq!(Amount(350_000_000).to_string(), "0.35");
        assert_eq!(Amount(1).to_string(), "0.000000001");
        assert_eq!(Amount(2 * NANO).to_string(), "2.00");
        for bad in ["", ".", "-1", "1e3", "0.0000000001", "99999999999999999999", "1,5", "$"] {
            assert!(bad.parse::<Amount>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_hour_costs_the_hourly_rate_and_a_month_of_disk_the_monthly_one() {
        let rates = Rates {
            compute_hour: Amount(350_000_000),
            storage_gb_month: Amount(100_000_000),
            up_gb: Amount(5),
            down_gb: Amount(7),
        };
        let hour = Counters { active: Millis::from_hours(1), ..Counters::default() };
        assert_eq!(due(&rates, 0, &hour, Amount::ZERO).unwrap(), Amount(350_000_000));
        let month = Counters { storage: Millis::from_hours(720), ..Counters::default() };
        assert_eq!(due(&rates, 10_000, &month, Amount::ZERO).unwrap(), Amount(1_000_000_000));
        let bytes = Counters { tx_bytes: 2_000_000_000, rx_bytes: 1_000_000_000, ..Counters::default() };
        assert_eq!(due(&rates, 0, &bytes, Amount(1)).unwrap(), Amount(1 + 10 + 7));
    }

    #[test]
    fn fractions_are_added_before_rounding() {
        // Half a nano of compute and half a nano of traffic make one.
        let rates = Rates { compute_hour: Amount(1), up_gb: Amount(1), ..Rates::default() };
        let counters = Counters { active: Millis(1_800_000), tx_bytes: 500_000_000, ..Counters::default() };
        assert_eq!(due(&rates, 0, &counters, Amount::ZERO).unwrap(), Amount(1));
    }

    #[test]
    fn the_time_until_an_amount_is_exact() {
        let rates =
            Rates { compute_hour: Amount(350_000_001), storage_gb_month: Amount(99_999_999), ..Rates::default() };
        let so_far = Counters { active: Millis(17), storage: Millis(1234), rx_bytes: 5, ..Counters::default() };
        for amount in [1, 2, 1000, 123_456_789] {
            let ms = time_until(&rates, 10_000, &so_far, true, true, Amount(amount)).unwrap();
            let at = |ms: u64| {
                let later = Counters {
                    active: Millis(17 + ms),
                    storage: Millis(1234 + ms),
                    rx_bytes: 5,
                    ..Counters::default()
                };
                due(&rates, 10_000, &later, Amount::ZERO).unwrap()
            };
            assert!(at(ms.0) >= Amount(amount), "{amount}");
            assert!(ms.0 == 0 || at(ms.0 - 1) < Amount(amount), "{amount}");
        }
        assert_eq!(time_until(&rates, 10_000, &so_far, false, false, Amount(u64::MAX)), None);
    }

    #[test]
    fn impossible_numbers_overflow_instead_of_wrapping() {
        let rates = Rates {
            compute_hour: Amount(u64::MAX),
            storage_gb_month: Amount(u64::MAX),
            up_gb: Amount(u64::MAX),
            down_gb: Amount(u64::MAX),
        };
        let all = Counters {
            active: Millis(u64::MAX),
            storage: Millis(u64::MAX),
            rx_bytes: u64::MAX,
            tx_bytes: u64::MAX,
            ..Counters::default()
        };
        assert_eq!(due(&rates, u64::MAX, &all, Amount::ZERO), Err(Overflow));
        assert_eq!(due(&Rates::default(), 0, &Counters::default(), Amount(u64::MAX)), Ok(Amount(u64::MAX)));
    }
}
