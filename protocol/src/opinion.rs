//! What one node says about another: a complaint about a lease, a claim it vouches for, something it has measured.
//!
//! Each is the author's word alone. Whose word counts is decided by whoever reads it; nothing here is judged.

use serde::{Deserialize, Serialize};

use crate::{id::DocumentId, limits, signed::Invalid, time::Millis, time::Timestamp};

/// Bytes of a claim's name, and of what a performance figure is of.
pub const CLAIM_BYTES: usize = 32;
/// The time that one uptime observation covers; windows begin at whole multiples of it since 1970.
pub const UPTIME_WINDOW: Millis = Millis::from_hours(12);

/// What a party of a lease complains of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DisputeCode {
    /// More is claimed than was used.
    OverMetered,
    /// What was used is not acknowledged.
    NotAcknowledged,
    /// The instance never came, or was not what the lease says.
    NotDelivered,
    /// It was slower than the offer said.
    Performance,
    /// The offer said what was not so.
    Bait,
    /// What is owed was not paid.
    Unpaid,
    /// What was paid is not acknowledged.
    PaymentIgnored,
    /// The machine was used against its host's terms.
    Abuse,
    /// Something else: the sentence says what.
    Other,
}

impl DisputeCode {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::OverMetered,
        Self::NotAcknowledged,
        Self::NotDelivered,
        Self::Performance,
        Self::Bait,
        Self::Unpaid,
        Self::PaymentIgnored,
        Self::Abuse,
        Self::Other,
    ];

    /// The word lists and commands use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OverMetered => "over_metered",
            Self::NotAcknowledged => "not_acknowledged",
            Self::NotDelivered => "not_delivered",
            Self::Performance => "performance",
            Self::Bait => "bait",
            Self::Unpaid => "unpaid",
            Self::PaymentIgnored => "payment_ignored",
            Self::Abuse => "abuse",
            Self::Other => "other",
        }
    }
}

/// By a party of a lease: a complaint, kept with the lease as evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dispute {
    /// The document complained of: a usage, an acknowledgement, a close, a settlement; or the draft, for the lease as a whole.
    pub about: DocumentId,
    /// What is wrong.
    pub code: DisputeCode,
    /// For people.
    pub sentence: String,
}

impl Dispute {
    /// Checks bounds.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn check(&self) -> Result<(), Invalid> {
        Invalid::text(&self.sentence, limits::SENTENCE_BYTES, "the sentence")
    }
}

/// The author vouches for a claim about a peer, or takes that back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attestation {
    /// What is so: `datacenter`, `verified`, or any other word of [`claim`]'s form.
    pub claim: String,
    /// Until when; none for as long as it is not withdrawn.
    pub until: Option<Timestamp>,
    /// The author does not stand by it any more.
    pub withdrawn: bool,
}

impl Attestation {
    /// Checks bounds.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn check(&self) -> Result<(), Invalid> {
        claim(&self.claim)
    }
}

/// Checks the name of a claim: 1 to [`CLAIM_BYTES`] of `a-z`, `0-9`, `_` and `-`.
///
/// # Errors
/// [`Invalid`].
pub fn claim(name: &str) -> Result<(), Invalid> {
    let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b));
    Invalid::unless(plain && (1..=CLAIM_BYTES).contains(&name.len()), "a claim is up to 32 of a-z, 0-9, _ and -")
}

/// Something the author has seen of a peer itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Observation {
    /// How long it answered, of the time it could have.
    Uptime {
        /// The window's beginning: a whole multiple of [`UPTIME_WINDOW`].
        from: Timestamp,
        /// Share of the window in which it was looked for and answered, per mille.
        up_permille: u16,
    },
    /// A figure its offer promised, measured.
    Performance {
        /// Of what: the name of an offer's field.
        what: String,
        /// In the field's unit.
        promised: u64,
        /// In the same unit.
        measured: u64,
    },
}

impl Observation {
    /// Checks bounds.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn check(&self) -> Result<(), Invalid> {
        match self {
            Self::Uptime { from, up_permille } => {
                Invalid::unless(
                    from.0.is_multiple_of(UPTIME_WINDOW.0),
                    "an uptime window begins at noon or midnight, UTC",
                )?;
                Invalid::unless(*up_permille <= 1000, "a share is at most 1000 per mille")
            }
            Self::Performance { what, .. } => claim(what),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn bounds() {
        claim("datacenter").unwrap();
        for bad in ["", "Data", "a b", "ä", &"c".repeat(33)] {
            claim(bad).unwrap_err();
        }
        let uptime = |from, up_permille| Observation::Uptime { from: Timestamp(from), up_permille }.check();
        uptime(UPTIME_WINDOW.0 * 3, 1000).unwrap();
        uptime(UPTIME_WINDOW.0 * 3, 1001).unwrap_err();
        uptime(UPTIME_WINDOW.0 * 3 + 1, 10).unwrap_err();
    }

    #[test]
    fn a_codes_name_is_its_form_on_the_wire() {
        for code in DisputeCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.name());
        }
    }
}
