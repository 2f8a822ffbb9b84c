//! How amounts and lengths of time are written in the configuration.

/// Lengths of time as people write them: `"60s"`, `"30days"`.
pub(super) mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de};
    use souk_protocol::Millis;

    pub(crate) fn serialize<S: Serializer>(length: &Millis, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&humantime::format_duration(Duration::from_millis(length.0)))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Millis, D::Error> {
        let text = String::deserialize(d)?;
        let length = humantime::parse_duration(&text).map_err(|e| {
            de::Error::custom(format!("`{text}` is not a length of time: {e}; write it like \"60s\" or \"12h\""))
        })?;
        u64::try_from(length.as_millis()).map(Millis).map_err(|_| de::Error::custom(format!("`{text}` is too long")))
    }
}

/// Amounts as text: `"0.35"`.
pub(super) mod price {
    pub(crate) use crate::api::types::decimal::{deserialize, serialize};

    /// The same where there may be none.
    pub(crate) mod option {
        pub(crate) use crate::api::types::decimal::option::{deserialize, serialize};
    }
}
