//! Bounds of what is looked at, and the formula's constants, each with its reason.

/// Leases looked at in all: what takes some tenths of a second.
pub const EVIDENCE: usize = 200_000;
/// Leases of one renter looked at: enough for one an hour over a quarter.
pub const EVIDENCE_OF_RENTER: usize = 2_000;
/// Leases between one renter and one host looked at.
pub const EVIDENCE_OF_PAIR: usize = 500;
/// Partners of one node through which the walk goes on: the largest by trade. It bounds a step, and dust is dropped first.
pub const PARTNERS: usize = 512;
/// Units of one pair's trade that the walk counts: about what a usual pair has, so that no whale turns a market's trust to
/// itself, and cutting trade into small pairs gains an attacker little.
pub const PAIR_UNITS: f64 = 16.0;
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
/// A rater with less trust than this share of the reference counts nothing …
pub const RATER_FROM: f64 = 0.03;
/// … and from this share on in full. Far below 1: trust is uneven, as trade is, and who is far from us is not dust.
pub const RATER_FULL: f64 = 0.1;
/// Trade with a node of less trust than this share of the reference does not make a rater honest …
pub const PARTNER_FROM: f64 = 0.15;
/// … and from this share on does in full. Stricter than for raters: an attacker who has bought its way in has a little trust for
/// each of its hosts, a market's real hosts have much each.
pub const PARTNER_FULL: f64 = 0.5;
/// Trade of a node with those behind it makes them honest up to so many times its trade with those nearer to the start.
pub const VOUCHED: f64 = 25.0;
/// A rater with less honest trade than this share of the usual counts nothing …
pub const DUST_FROM: f64 = 0.05;
/// … and from this share on in full: a thousand who have bought next to nothing are nobody.
pub const DUST_TO: f64 = 0.25;
/// Praise below this share of what is usual for the praised counts nothing.
pub const PRAISE_FROM: f64 = 0.2;
/// Claims that nobody but the other side has signed count only above this share of what speaks for a node.
pub const CLAIMS_FROM: f64 = 0.05;
/// How much a failure weighs beside a success.
pub const FAILURE: f64 = 1.5;
/// A measured figure below this share of the promised one is a failure.
pub const PERFORMANCE_PERMILLE: u64 = 900;
/// Days of own probes that count.
pub const UPTIME_DAYS: u64 = 30;
/// Leases whose own probes are named among a score's reasons.
pub const WATCHED_NAMED: usize = 10;
