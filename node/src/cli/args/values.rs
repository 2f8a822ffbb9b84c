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
