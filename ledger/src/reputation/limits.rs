//! Bounds of what is looked at, and the formula's constants, each with its reason.

/// Leases looked at in all: what takes some tenths of a second.
pub const EVIDENCE: usize = 200_000;
/// Leases of one renter looked at: enough for one an hour over a quarter.
pub const EVIDENCE_OF_RENTER: usize = 2_000;
/// Leases between one renter and one host looked at.
pub const EVIDENCE_OF_PAIR: usize = 500;
/// Partners of one node through which the walk goes on: the largest by trade. It bounds a step, and dust is dropped first.
pub const PARTNERS: usize = 512;
/// Units of one pair's trade that the walk counts: one whale does not turn a whole market's trust to itself.
pub const PAIR_UNITS: f64 = 1_000.0;
/// Weight of one pair's admitted failures in others' eyes.
pub const PAIR_FAILURES: f64 = 20.0;
/// Receipts dated further ahead than this are ignored, in milliseconds: clocks differ, but nobody's evidence stays young.
pub const AHEAD_MS: u64 = 24 * 3_600_000;

/// Share of the walk that goes back to its start at each step.
pub const RESTART: f64 = 0.3;
/// Steps of the walk.
pub const DEPTH: usize = 4;
/// What is left of the trust of a region reached through one node alone.
pub const BRIDGE: f64 = 0.5;
/// Units of trade that a vouch of an accepted attester is worth in the walk.
pub const VOUCH_UNITS: f64 = 16.0;
/// The walk starts at ourselves with `n / (n + 3)` of it, for n partners of a unit or more …
pub const OWN_PARTNERS: f64 = 3.0;
/// … at most so much as long as there are seeds: a new node's first customers may all be one attacker.
pub const OWN_SHARE: f64 = 0.5;

/// Raters are measured by the lightest of the heaviest who hold this share of all trust: a few giants don't make everybody else
/// dust, and dust does not make everybody a giant.
pub const REFERENCE_SHARE: f64 = 0.75;
/// A rater with less than this share of the reference counts nothing; with all of it, in full.
pub const RATER_FROM: f64 = 0.25;
/// Praise below this share of what is usual for the praised counts nothing.
pub const PRAISE_FROM: f64 = 0.25;
/// Claims that nobody but the other side has signed count only above this share of what speaks for a node.
pub const CLAIMS_FROM: f64 = 0.1;
/// How much a failure weighs beside a success.
pub const FAILURE: f64 = 1.5;
/// A measured figure below this share of the promised one is a failure.
pub const PERFORMANCE_PERMILLE: u64 = 900;
/// Days of own probes that count.
pub const UPTIME_DAYS: u64 = 30;
