//! Plots.
use crate::figures::Figures;
/// Plots.
#[must_use]
pub fn plots(_: &[Figures]) -> Vec<(String, String)> { Vec::new() }
