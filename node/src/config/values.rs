//! How amounts, points in time and lengths of time are written in the configuration.

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

/// The same where there may be none.
pub(super) mod duration_option {
    use serde::{Deserialize, Deserializer, Serializer};
    use souk_protocol::Millis;

    use super::duration;

    pub(crate) fn serialize<S: Serializer>(length: &Option<Millis>, s: S) -> Result<S::Ok, S::Error> {
        match length {
            Some(length) => duration::serialize(length, s),
            None => s.serialize_none(),
        }
    }

    #[derive(Deserialize)]
    struct Length(#[serde(with = "duration")] Millis);

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Millis>, D::Error> {
        Ok(Option::<Length>::deserialize(d)?.map(|length| length.0))
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

/// Points in time as text, where there may be none: `"2026-12-24T00:00:00Z"`.
pub(super) mod moment {
    pub(crate) use crate::api::types::moment::option::{deserialize, serialize};
}
