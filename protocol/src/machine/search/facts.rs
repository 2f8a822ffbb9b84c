//! What this node knows of a host beyond its offers: found out here, never taken from the host's word.

use crate::time::Timestamp;

/// Trust in a host nothing is known of.
pub const STRANGER_TRUST: f64 = 0.13;
/// Reliability of a host nothing is known of.
pub const STRANGER_RELIABILITY: f64 = 0.5;

/// What is known of one host. The default is a stranger.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PeerFacts {
    /// Uptime and completion, 0 to 1.
    pub reliability: f64,
    /// Reputation as seen from here, 0 to 1.
    pub trust: f64,
    /// Attested as verified by somebody whose word is accepted.
    pub verified: bool,
    /// Attested to stand in a datacentre.
    pub datacenter: bool,
    /// Keeps its public address.
    pub static_ip: bool,
    /// What we owe it, in currency units; negative where it owes us.
    pub owed: f64,
    /// Left out of searches until then, because it failed us (see [`crate::machine::backoff`]); 0 for not at all.
    pub avoided_until: Timestamp,
    /// The owner of this node wants nothing to do with it.
    pub blocked: bool,
}

impl Default for PeerFacts {
    fn default() -> Self {
        Self {
            reliability: STRANGER_RELIABILITY,
            trust: STRANGER_TRUST,
            verified: false,
            datacenter: false,
            static_ip: false,
            owed: 0.0,
            avoided_until: Timestamp(0),
            blocked: false,
        }
    }
}

impl PeerFacts {
    /// The same with every share between 0 and 1 and nothing that is not a number.
    #[must_use]
    pub(super) fn bounded(self) -> Self {
        let share = |x: f64, otherwise: f64| {
            if x.is_nan() { otherwise } else { x.clamp(0.0, 1.0) }
        };
        Self {
            reliability: share(self.reliability, STRANGER_RELIABILITY),
            trust: share(self.trust, STRANGER_TRUST),
            owed: if self.owed.is_finite() { self.owed } else { 0.0 },
            ..self
        }
    }
}
