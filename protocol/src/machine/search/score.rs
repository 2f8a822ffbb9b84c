//! The score that offers are ordered by when nobody says otherwise.
//!
//! ```text
//! score = value × reliability × reachability × trust
//! value = (performance / dph) / median of the same over its class, clamped to [1/4, 4]
//! ```
//!
//! - *performance* is `dlperf`: what challenges have proven, else the reference table's figure for the model and no more.
//!   Machines without GPUs have threads × GHz, with at most [`CPU_REFERENCE_GHZ`](super::performance::CPU_REFERENCE_GHZ)
//!   counted. Of a model the table does not know nothing is believed: its value is ¼.
//! - a *class* is a GPU model, or machines without GPUs, within one currency. Each machine counts once, with its smallest
//!   slice; of an even number the lower middle is taken. The median is over all offers held, free or rented, at the disk
//!   size and rental type asked for.
//! - *reachability* is 1 direct, 0.8 relayed, 0.5 not known.
//!
//! Only exactly rounded operations are used, so every machine computes the same bits.

use std::sync::{Arc, PoisonError};

use super::{
    Pricing,
    columns::{Column, TextColumn},
    index::AskIndex,
    source::Pass,
};
use crate::offer::Reachability;

/// Bounds of the value part of a score.
pub const VALUE: (f64, f64) = (0.25, 4.0);

/// What the way a host is reached counts in its score.
pub(super) const fn reachability_factor(reachability: Reachability) -> f64 {
    match reachability {
        Reachability::Direct => 1.0,
        Reachability::Relayed => 0.8,
        Reachability::Unknown => 0.5,
    }
}

/// Performance for one currency unit an hour; NaN where nothing is known of the performance.
pub(super) fn per_price(performance: f64, dph: f64) -> f64 {
    if performance.is_nan() { f64::NAN } else { performance / dph }
}

/// The value part: how `ratio` stands to its class's median.
pub(super) fn value(ratio: f64, median: f64) -> f64 {
    if ratio.is_nan() || median.is_nan() {
        VALUE.0
    } else if ratio == median {
        // Also where both are infinite: free among free ones.
        1.0
    } else {
        (ratio / median).clamp(VALUE.0, VALUE.1)
    }
}

/// The medians of all classes, and what they were computed for.
#[derive(Debug)]
pub(super) struct Medians {
    generation: u64,
    pricing: Pricing,
    storage_gb: f64,
    /// By number of the class; NaN where nothing is known of any of its machines.
    pub of_class: Vec<f64>,
}

impl AskIndex {
    /// The medians for a disk size and rental type: those of the last search if nothing changed since.
    pub(super) fn medians(&self, pricing: Pricing, storage_gb: f64) -> Arc<Medians> {
        let mut kept = self.medians.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(medians) = kept.as_ref()
            && medians.generation == self.generation()
            && medians.pricing == pricing
            && medians.storage_gb == storage_gb
        {
            return medians.clone();
        }
        let medians = Arc::new(Medians {
            generation: self.generation(),
            pricing,
            storage_gb,
            of_class: self.compute_medians(pricing, storage_gb),
        });
        *kept = Some(medians.clone());
        medians
    }

    fn compute_medians(&self, pricing: Pricing, storage_gb: f64) -> Vec<f64> {
        let mut ratios: Vec<Vec<f64>> = vec![Vec::new(); self.pool(TextColumn::Class).capacity()];
        let classes = self.texts(TextColumn::Class);
        let performance = self.numbers(Column::Performance);
        for row in (0..self.rows()).filter(|row| self.is_smallest(*row)) {
            let machine = self.machine_of()[row] as usize;
            let slots = f64::from(self.slots()[row]);
            let dph = Pass::price(self, pricing, storage_gb, row);
            let ratio = per_price(performance[machine] * slots, dph);
            if let Some(class) = ratios.get_mut(classes[machine] as usize)
                && !ratio.is_nan()
            {
                class.push(ratio);
            }
        }
        ratios.iter_mut().map(|class| median(class)).collect()
    }
}

/// The middle, or the lower of two; NaN of nothing.
fn median(values: &mut [f64]) -> f64 {
    if values.is_empty() {
        return f64::NAN;
    }
    let middle = (values.len() - 1) / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_lower_middle() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0, 4.0]), 2.0);
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert!(median(&mut []).is_nan());
    }

    #[test]
    fn value_stays_within_its_bounds_whatever_the_prices() {
        assert_eq!(value(f64::NAN, 1.0), 0.25);
        assert_eq!(value(f64::INFINITY, f64::INFINITY), 1.0);
        assert_eq!(value(f64::INFINITY, 1.0), 4.0);
        assert_eq!(value(1.0, f64::INFINITY), 0.25);
        assert_eq!(value(3.0, 2.0), 1.5);
        assert_eq!(value(1e300, 1e-300), 4.0);
        assert_eq!(value(0.0, 0.0), 1.0);
    }
}
