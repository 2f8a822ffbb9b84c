//! What both parties of a lease have agreed to, month by month: what an invoice is made of.
//!
//! Amounts are cumulative and only the newest receipt of a lease is kept, so the fold keeps one row more for each lease and month:
//! the last agreement of that month. What a lease cost in a month is the difference between its last agreement in it and the last
//! one before it. Both parties hold the same signed documents, so both come to the same difference; and over all months the
//! differences add up to what was agreed to in all. A month is one of UTC.

use serde::{Deserialize, Serialize};
use souk_protocol::{Amount, DocumentId, Timestamp};

use crate::earnings::{day_of, start_of};

/// A month: the year times twelve, and 0 to 11.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Month(pub u32);

/// Days from 1970-01-01 to the first of a month of the proleptic Gregorian calendar, by counting March as the first month of a
/// year, so that a leap day is its last: <https://howardhinnant.github.io/date_algorithms.html#days_from_civil>.
const fn first_day(year: u32, month0: u32) -> u64 {
    let (year, month) =
        if month0 < 2 { (year as u64 - 1, month0 as u64 + 10) } else { (year as u64, month0 as u64 - 2) };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * month + 2) / 5;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

impl Month {
    /// The last one that there is.
    const LAST: Self = Self(9999 * 12 + 11);

    /// A month of a year from 1970 to 9999, counted from 1; none for others.
    #[must_use]
    pub fn new(year: u32, month: u32) -> Option<Self> {
        let fits = (1970..=9999).contains(&year) && (1..=12).contains(&month);
        fits.then(|| Self(year * 12 + month - 1))
    }

    /// The month of a moment. Moments beyond the year 9999 are in the last month.
    #[must_use]
    pub fn of(at: Timestamp) -> Self {
        let day = u64::from(day_of(at));
        // A guess that is never too late by more than a month, and then the months up to it.
        let guess = u32::try_from(day * 400 / 146_097).unwrap_or(u32::MAX).saturating_add(1970);
        let mut month = Self(guess.saturating_sub(1).clamp(1970, 9999) * 12);
        while month < Self::LAST && u64::from(day_of(month.next().start())) <= day {
            month = month.next();
        }
        month
    }

    /// The one after it.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// Its first moment.
    #[must_use]
    pub fn start(self) -> Timestamp {
        start_of(u32::try_from(first_day(self.0 / 12, self.0 % 12)).unwrap_or(u32::MAX))
    }
}

impl std::fmt::Display for Month {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04}-{:02}", self.0 / 12, self.0 % 12 + 1)
    }
}

/// Not a month.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a month like 2026-11")]
pub struct NotAMonth(String);

impl std::str::FromStr for Month {
    type Err = NotAMonth;

    fn from_str(text: &str) -> Result<Self, NotAMonth> {
        let number = |part: &str, len| {
            (part.len() == len && part.bytes().all(|b| b.is_ascii_digit())).then(|| part.parse().ok()).flatten()
        };
        let parsed = text.split_once('-').and_then(|(year, month)| Self::new(number(year, 4)?, number(month, 2)?));
        parsed.ok_or_else(|| NotAMonth(text.chars().filter(|c| !c.is_control()).take(40).collect()))
    }
}

/// What both had agreed to when a month of a lease ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgreedIn {
    /// For the whole lease up to there.
    pub due: Amount,
    /// The last document that says so: the renter's acknowledgement, or its close or close_ack.
    pub document: DocumentId,
    /// The usage that it answers, and that one's number; none where it is a close.
    pub usage: Option<(DocumentId, u64)>,
    /// When the usage, or the close, was signed.
    pub time: Timestamp,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn months_begin_where_the_calendar_says() {
        // Seconds from `date -ud DATE +%s`.
        for (text, secs) in [
            ("1970-01", 0),
            ("1972-03", 68_256_000),
            ("2000-02", 949_363_200),
            ("2000-03", 951_868_800),
            ("2024-03", 1_709_251_200),
            ("2026-11", 1_793_491_200),
            ("2027-01", 1_798_761_600),
            ("2100-03", 4_107_542_400),
        ] {
            let month: Month = text.parse().unwrap();
            assert_eq!((month.start().0, month.to_string()), (secs * 1000, text.to_owned()));
            assert_eq!(
                (Month::of(month.start()), Month::of(Timestamp((secs * 1000).max(1) - 1)).0),
                (month, month.0 - u32::from(secs > 0))
            );
        }
        let mut month = Month::new(1970, 1).unwrap();
        while month < Month::LAST {
            let days = day_of(month.next().start()) - day_of(month.start());
            assert!((28..=31).contains(&days), "{month}: {days}");
            assert_eq!(Month::of(Timestamp(month.next().start().0 - 1)), month);
            month = month.next();
        }
        assert_eq!(Month::of(Timestamp(u64::MAX)), Month::LAST);
        for text in ["2026-13", "2026-00", "1969-12", "2026-1", "26-11", "2026-11-01", "+026-11", "\u{1b}[2J"] {
            assert!(!text.parse::<Month>().unwrap_err().to_string().contains('\u{1b}'), "{text}");
        }
    }
}
