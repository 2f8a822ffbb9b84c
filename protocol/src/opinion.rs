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

/// What a renter's own meter saw of the host of one lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watched {
    /// When it was first looked at.
    pub from: Timestamp,
    /// For how long it was looked at while it was due to run, and something is known.
    pub watched: Millis,
    /// For how long of that it ran, as far as is known: what is not known to be silence.
    pub answered: Millis,
}

impl Watched {
    /// Checks bounds.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn check(&self) -> Result<(), Invalid> {
        Invalid::unless(self.watched.0 > 0, "who has not looked has seen nothing")?;
        Invalid::unless(self.answered <= self.watched, "it answered for longer than it was looked at")
    }

    /// As it can be said at `at`, whose clock may have been set meanwhile: no longer than there was. None if nothing is left.
    #[must_use]
    pub fn until(self, at: Timestamp) -> Option<Self> {
        let from = self.from.min(at);
        let watched = self.watched.min(at.since(from));
        // What was silent stays so: a clock that is set makes nobody better.
        let silent = self.watched.0.saturating_sub(self.answered.0);
        let answered = Millis(watched.0.saturating_sub(silent));
        (watched.0 > 0).then_some(Self { from, watched, answered })
    }

    /// Whether there was as much time as was looked at, if the last look was at `at`.
    #[must_use]
    pub fn fits(&self, at: Timestamp) -> bool {
        self.from <= at && self.watched <= at.since(self.from)
    }
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
    /// By the renter, of the host of a lease, at its end.
    Rental(Watched),
}

impl Observation {
    /// What was seen of the host of a lease.
    #[must_use]
    pub const fn rental(&self) -> Option<&Watched> {
        if let Self::Rental(watched) = self { Some(watched) } else { None }
    }

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
            Self::Rental(watched) => watched.check(),
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
        let rental =
            |watched, answered| Watched { from: Timestamp(5), watched: Millis(watched), answered: Millis(answered) };
        rental(7, 7).check().unwrap();
        rental(7, 0).check().unwrap();
        rental(7, 8).check().unwrap_err();
        rental(0, 0).check().unwrap_err();
        assert!(
            rental(7, 7).fits(Timestamp(12)) && !rental(7, 7).fits(Timestamp(11)) && !rental(7, 7).fits(Timestamp(4))
        );
    }

    #[test]
    fn a_clock_that_is_set_makes_no_observation_longer_than_the_time_there_was() {
        let seen = Watched { from: Timestamp(100), watched: Millis(50), answered: Millis(40) };
        assert_eq!(seen.until(Timestamp(150)), Some(seen));
        assert_eq!(seen.until(Timestamp(130)), Some(Watched { watched: Millis(30), answered: Millis(20), ..seen }));
        assert_eq!(seen.until(Timestamp(90)), None);
    }

    #[test]
    fn a_codes_name_is_its_form_on_the_wire() {
        for code in DisputeCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.name());
        }
    }
}
