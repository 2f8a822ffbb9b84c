//! What this node earned as a host, by day and machine.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use souk_ledger::{
    earnings::{Earned, Parts, day_of, start_of},
    view::View,
};
use souk_protocol::{Amount, Currency, MachineId, Timestamp};

use super::{CountersView, decimal};
use crate::{
    clock::now,
    ledger::unreadable,
    market::{CommandError, ErrorCode},
};

/// Days shown, where nothing else is asked for.
const DAYS: u32 = 30;
/// The most days in one answer.
const MOST_DAYS: u32 = 3_660;

/// In which days, `2026-11-22`, UTC, both included.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EarningsRequest {
    /// So many days up to the last; not with `from`. None for 30.
    pub days: Option<u32>,
    /// The first day.
    pub from: Option<String>,
    /// The last day; none for today.
    pub to: Option<String>,
}

/// What was earned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarningsView {
    /// The first day asked for.
    pub from: String,
    /// The last.
    pub to: String,
    /// By day, machine and currency, oldest first; days in which nothing was counted are left out.
    pub days: Vec<EarnedView>,
    /// All days together, by machine and currency.
    pub machines: Vec<EarnedView>,
    /// All days and machines together, by currency.
    pub total: Vec<EarnedView>,
}

/// What was earned in a day, by a machine, or by all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarnedView {
    /// The day; none for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub day: Option<String>,
    /// The machine; none for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineId>,
    /// The currency of all sums.
    pub currency: Currency,
    /// Leases that earned it; over several days, the most in one.
    pub leases: u64,
    /// What renters have signed for.
    pub acknowledged: PartsView,
    /// What is claimed beyond that.
    #[serde(with = "decimal")]
    pub unacknowledged: Amount,
    /// What is claimed, by kind: the acknowledged part and the other one together.
    pub claimed: PartsView,
    /// What was used.
    pub counters: CountersView,
}

/// A sum by kind of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartsView {
    /// GPUs and processors, while running.
    #[serde(with = "decimal")]
    pub compute: Amount,
    /// Disk.
    #[serde(with = "decimal")]
    pub storage: Amount,
    /// Bytes both ways.
    #[serde(with = "decimal")]
    pub traffic: Amount,
    /// Claimed beyond the counters: a discount taken back.
    #[serde(with = "decimal")]
    pub other: Amount,
    /// All together.
    #[serde(with = "decimal")]
    pub total: Amount,
}

impl From<Parts> for PartsView {
    fn from(parts: Parts) -> Self {
        let Parts { compute, storage, traffic, other } = parts;
        Self { compute, storage, traffic, other, total: parts.total() }
    }
}

impl EarnedView {
    fn of(day: Option<u32>, machine: Option<MachineId>, currency: Currency, earned: &Earned) -> Self {
        Self {
            day: day.map(date),
            machine,
            currency,
            leases: earned.leases,
            acknowledged: earned.acknowledged.into(),
            unacknowledged: earned.unacknowledged(),
            claimed: earned.claimed.into(),
            counters: earned.counters.into(),
        }
    }
}

impl EarningsRequest {
    /// The first and last day that this asks for.
    ///
    /// # Errors
    /// `bad_request`: a day that is none, days that contradict each other, or too many.
    pub fn span(&self, now: Timestamp) -> Result<(u32, u32), CommandError> {
        let bad = |message: String| {
            Err(CommandError::new(ErrorCode::BadRequest, message)
                .hint("souk host earnings --from 2026-11-01 --to 2026-11-30"))
        };
        let read = |text: &Option<String>| text.as_deref().map(day).transpose();
        let (from, to) = match (read(&self.from), read(&self.to)) {
            (Ok(from), Ok(to)) => (from, to.unwrap_or_else(|| day_of(now))),
            (Err(message), _) | (_, Err(message)) => return bad(message),
        };
        let from = match (from, self.days) {
            (Some(_), Some(_)) => return bad("--from and --days both say when to begin".to_owned()),
            (Some(from), None) => from,
            (None, days) => to.saturating_sub(days.unwrap_or(DAYS).max(1) - 1),
        };
        if from > to {
            return bad(format!("{} is after {}", date(from), date(to)));
        }
        if to - from >= MOST_DAYS {
            return bad(format!("more than {MOST_DAYS} days are asked for"));
        }
        Ok((from, to))
    }

    /// Reads what was earned.
    ///
    /// # Errors
    /// As [`Self::span`], or if the ledger can't be read.
    pub fn answer(&self, view: &View) -> Result<EarningsView, CommandError> {
        let (from, to) = self.span(now())?;
        let earnings = view.earnings(from..=to).map_err(|e| unreadable(&e))?;
        let days = earnings.days.iter();
        let machines = earnings.machines();
        Ok(EarningsView {
            from: date(from),
            to: date(to),
            days: days
                .map(|((day, machine, currency), e)| EarnedView::of(Some(*day), Some(*machine), currency.clone(), e))
                .collect(),
            machines: machines
                .iter()
                .map(|((machine, currency), e)| EarnedView::of(None, Some(*machine), currency.clone(), e))
                .collect(),
            total: earnings
                .total()
                .iter()
                .map(|(currency, e)| EarnedView::of(None, None, currency.clone(), e))
                .collect(),
        })
    }
}

/// A day as text: `2026-11-22`.
#[must_use]
pub fn date(day: u32) -> String {
    /// The last day that dates have four digits for the year in.
    const LAST: Timestamp = Timestamp(253_402_300_799_999);
    let at = UNIX_EPOCH + Duration::from_millis(start_of(day).0.min(LAST.0));
    let mut text = humantime::format_rfc3339_seconds(at).to_string();
    text.truncate(10);
    text
}

/// The day that a text names: days since the Unix epoch.
///
/// # Errors
/// A sentence that says what a day looks like.
pub fn day(text: &str) -> Result<u32, String> {
    let at = humantime::parse_rfc3339(&format!("{}T00:00:00Z", text.trim())).ok();
    let since = at.and_then(|at: SystemTime| at.duration_since(UNIX_EPOCH).ok());
    let ms = since.and_then(|since| u64::try_from(since.as_millis()).ok());
    ms.map(|ms| day_of(Timestamp(ms))).ok_or_else(|| {
        let shown: String = text.chars().filter(|c| !c.is_control()).take(40).collect();
        format!("`{shown}` is not a day like 2026-11-22")
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ask(days: Option<u32>, from: Option<&str>, to: Option<&str>) -> Result<(String, String), CommandError> {
        let text = |t: Option<&str>| t.map(str::to_owned);
        let request = EarningsRequest { days, from: text(from), to: text(to) };
        // 2026-11-22 18:00 UTC.
        request.span(Timestamp(1_795_370_400_000)).map(|(a, b)| (date(a), date(b)))
    }

    #[test]
    fn days_are_counted_back_from_the_last_one() {
        let span = |days, from, to| {
            let (a, b) = ask(days, from, to).unwrap();
            format!("{a} {b}")
        };
        assert_eq!(span(Some(1), None, None), "2026-11-22 2026-11-22");
        assert_eq!(span(None, None, None), "2026-10-24 2026-11-22");
        assert_eq!(span(Some(7), None, Some("2024-03-01")), "2024-02-24 2024-03-01");
        assert_eq!(span(None, Some("2026-11-01"), None), "2026-11-01 2026-11-22");
        assert_eq!(span(None, Some("1970-01-01"), Some("1970-01-01")), "1970-01-01 1970-01-01");
    }

    #[test]
    fn days_that_make_no_sense_are_refused_in_words() {
        for (days, from, to) in [
            (Some(3), Some("2026-11-01"), None),
            (None, Some("2026-11-02"), Some("2026-11-01")),
            (None, Some("2026-11-31"), None),
            (None, Some("1969-12-31"), None),
            (None, Some("yesterday\u{1b}[2J"), None),
            (None, Some("2026-11-01T00:00:00Z"), None),
            (None, Some("1970-01-01"), None),
            (Some(u32::MAX), None, None),
        ] {
            let error = ask(days, from, to).unwrap_err();
            assert_eq!(error.code, ErrorCode::BadRequest, "{from:?}");
            assert!(!error.message.contains('\u{1b}'));
        }
        assert_eq!(date(u32::MAX), "9999-12-31");
    }
}
