//! Values that options take, from text.

use souk_protocol::{Currency, Millis, NodeId};

use crate::api::types::Who;

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
