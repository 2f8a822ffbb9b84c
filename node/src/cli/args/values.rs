//! Values that options take, from text.

use souk_protocol::{Amount, Currency, Millis, NodeId, Timestamp};

use super::{AutoExtend, Ceiling};
use crate::{
    api::types::{Until, Who},
    clock::now,
};

pub(super) fn duration(text: &str) -> Result<Millis, String> {
    let length = humantime::parse_duration(text).map_err(|e| format!("{e}; write it like 90s, 3h or \"1day 12h\""))?;
    u64::try_from(length.as_millis()).map(Millis).map_err(|_| "that is too long".to_owned())
}

pub(super) fn currency(text: &str) -> Result<Currency, String> {
    let currency = Currency(text.to_owned());
    currency.check().map_err(|e| e.0)?;
    Ok(currency)
}

/// Percent with at most one decimal, as thousandths.
pub(super) fn permille(text: &str) -> Result<u16, String> {
    let (whole, tenth) =
        text.trim().trim_end_matches('%').split_once('.').unwrap_or((text.trim().trim_end_matches('%'), "0"));
    let one = tenth.len() == 1 && tenth.bytes().all(|b| b.is_ascii_digit());
    let digits = !whole.is_empty() && whole.len() <= 3 && whole.bytes().all(|b| b.is_ascii_digit());
    let value = format!("{whole}{tenth}").parse::<u16>().ok().filter(|n| *n <= 1000 && one && digits);
    value.ok_or_else(|| "write it in percent, like 20 or 12.5, up to 100".to_owned())
}

pub(super) fn who(text: &str) -> Result<Who, String> {
    if text == "anyone" {
        return Ok(Who::Anyone);
    }
    text.parse::<NodeId>().map(Who::Peer).map_err(|e| format!("{e}, nor the word anyone"))
}

pub(super) fn length_or_off(text: &str) -> Result<AutoExtend, String> {
    if text == "off" { Ok(AutoExtend(None)) } else { duration(text).map(|by| AutoExtend(Some(by))) }
}

pub(super) fn amount_or_none(text: &str) -> Result<Ceiling, String> {
    if text == "none" {
        return Ok(Ceiling(None));
    }
    text.parse::<Amount>().map(|most| Ceiling(Some(most))).map_err(|e| format!("{e}, nor the word none"))
}

/// `2026-11-23T10:00Z`, or `in 3h`.
pub(super) fn moment(text: &str) -> Result<Timestamp, String> {
    match text.trim().strip_prefix("in ") {
        Some(length) => duration(length.trim()).map(|length| now() + length),
        None => crate::api::types::moment::parse(text).map_err(|e| format!("{e}, nor like 'in 3h'")),
    }
}

pub(super) fn until(text: &str) -> Result<Until, String> {
    if text == "none" { Ok(Until(None)) } else { moment(text).map(|at| Until(Some(at))) }
}
/// Bytes: a whole number with K, M, G or T (of 1000), or without.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let text = text.trim().trim_end_matches(['B', 'b']);
    let (digits, factor) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 1_000),
        Some((at, 'm' | 'M')) => (&text[..at], 1_000_000),
        Some((at, 'g' | 'G')) => (&text[..at], 1_000_000_000),
        Some((at, 't' | 'T')) => (&text[..at], 1_000_000_000_000),
        Some(_) | None => (text, 1),
    };
    let number = digits.trim().parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    number.ok_or_else(|| "write it as a whole number of bytes, or like 500M or 20G".to_owned())
}

#[cfg(test)]
mod tests {
    use super::permille;

    #[test]
    fn percents_are_thousandths() {
        for (text, value) in [("20", 200), ("12.5", 125), ("0", 0), ("100", 1000), ("7.5%", 75)] {
            assert_eq!(permille(text), Ok(value), "{text}");
        }
        for bad in ["", "100.1", "-1", "1.25", "1e1", "12.", ".", "99999999999"] {
            assert!(permille(bad).is_err(), "{bad}");
        }
    }
}
