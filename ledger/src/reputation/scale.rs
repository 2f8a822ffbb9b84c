//! The few functions the formula is made of.
//!
//! Only operations that IEEE 754 rounds correctly (`+ − × ÷ √`) and whole numbers: the same on every platform and in every
//! language, so that anyone gets the same bits.

use souk_protocol::{Millis, Timestamp};

/// Evidence loses half its weight in so many days.
pub const HALF_LIFE_DAYS: u64 = 30;
/// Evidence older than this has no weight (a thousandth would be left).
pub const FORGOTTEN_DAYS: u64 = 10 * HALF_LIFE_DAYS;
/// The most that [`log_value`] gives: what 255 units are worth, for a pair as for a rater's whole trade.
pub const LOG_CAP: f64 = 8.0;
/// The 90 % point of the standard normal distribution.
const Z_90: f64 = 1.281_551_565_544_600_4;
/// 2^(−1/30): what a day leaves.
const DAY_LEAVES: f64 = 0.977_159_968_434_245_9;
const DAY_MS: u64 = Millis::from_hours(24).0;

/// What is left of evidence from `at` by now: half every [`HALF_LIFE_DAYS`], by whole days; none once it is forgotten.
#[must_use]
pub fn decay(at: Timestamp, now: Timestamp) -> f64 {
    let days = now.since(at).0 / DAY_MS;
    if days > FORGOTTEN_DAYS {
        return 0.0;
    }
    let halves = (0..days / HALF_LIFE_DAYS).fold(1.0, |left, _| left * 0.5);
    (0..days % HALF_LIFE_DAYS).fold(halves, |left, _| left * DAY_LEAVES)
}

/// log₂(1 + value), at most [`LOG_CAP`]; zero for what is not above zero. To 2⁻³², by squaring.
#[must_use]
pub fn log_value(value: f64) -> f64 {
    if value.is_nan() || value <= 0.0 {
        return 0.0;
    }
    let mut rest = 1.0 + value;
    let mut log = 0.0;
    while rest >= 2.0 {
        log += 1.0;
        rest *= 0.5;
        if log >= LOG_CAP {
            return LOG_CAP;
        }
    }
    let mut bit = 0.5;
    for _ in 0..32 {
        rest *= rest;
        if rest >= 2.0 {
            rest *= 0.5;
            log += bit;
        }
        bit *= 0.5;
    }
    log
}

/// The lower 10 % bound of Beta(a, b), by its normal approximation: mean − 1.2816 σ, at least 0. Of Beta(1, 1) it is 0.13.
#[must_use]
pub fn lower_bound(a: f64, b: f64) -> f64 {
    let n = a + b;
    let mean = a / n;
    let deviation = (mean * (1.0 - mean) / (n + 1.0)).sqrt();
    (mean - Z_90 * deviation).max(0.0)
}

/// 0 up to `from`, 1 from `to`, a straight line between.
#[must_use]
pub fn ramp(x: f64, from: f64, to: f64) -> f64 {
    ((x - from) / (to - from)).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_stranger_is_13_hundredths() {
        assert_eq!(format!("{:.4}", lower_bound(1.0, 1.0)), "0.1300");
    }

    /// Exact 10 % quantiles: Beta(a, 1) has p^(1/a), Beta(1, b) has 1 − (1 − p)^(1/b).
    #[test]
    fn the_bound_is_near_the_exact_quantile() {
        for k in 1..200 {
            let k = f64::from(k);
            let exact = 0.1_f64.powf(1.0 / k);
            assert!((lower_bound(k, 1.0) - exact).abs() < 0.05, "Beta({k}, 1): {} {exact}", lower_bound(k, 1.0));
            let exact = 1.0 - 0.9_f64.powf(1.0 / k);
            assert!((lower_bound(1.0, k) - exact).abs() < 0.05, "Beta(1, {k}): {} {exact}", lower_bound(1.0, k));
        }
        // From tables of the incomplete beta function: I_x(a, b) = 0.1.
        for (a, b, x) in [(2.0, 2.0, 0.1958), (5.0, 2.0, 0.4897), (2.0, 5.0, 0.0926), (10.0, 3.0, 0.6144)] {
            assert!((lower_bound(a, b) - x).abs() < 0.04, "Beta({a}, {b}): {} {x}", lower_bound(a, b));
        }
    }

    #[test]
    fn decay_halves_every_30_days() {
        let now = Timestamp(2_000_000_000_000);
        let ago = |days: u64| decay(Timestamp(now.0 - days * DAY_MS), now);
        assert_eq!(ago(0).to_bits(), 1.0_f64.to_bits());
        assert_eq!(ago(30).to_bits(), 0.5_f64.to_bits());
        assert_eq!(ago(90).to_bits(), 0.125_f64.to_bits());
        assert!((ago(15) - 0.5_f64.sqrt()).abs() < 1e-12);
        assert!(ago(299) > 0.0009 && ago(301) == 0.0);
        // What is dated ahead is not worth more than what is of today.
        assert_eq!(decay(Timestamp(now.0 + 5), now).to_bits(), 1.0_f64.to_bits());
    }

    proptest! {
        #[test]
        fn logarithms_are_right(value in 0.0_f64..1e6) {
            let exact = (1.0 + value).log2().min(LOG_CAP);
            prop_assert!((log_value(value) - exact).abs() < 1e-8);
        }

        #[test]
        fn the_bound_rises_with_successes_and_falls_with_failures(
            a in 1.0_f64..300.0, b in 1.0_f64..300.0, more in 0.01_f64..50.0
        ) {
            prop_assert!(lower_bound(a + more, b) >= lower_bound(a, b));
            prop_assert!(lower_bound(a, b + more) <= lower_bound(a, b));
            prop_assert!((0.0..1.0).contains(&lower_bound(a, b)));
        }
    }
}
