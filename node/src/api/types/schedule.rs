//! When a machine is not rented out, and what its owner keeps of it.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use souk_protocol::{Millis, Timestamp, offer::Window};

/// What is kept from renters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ScheduleView {
    /// Slots kept for the owner's own work: bids give way to it, signed contracts at a fixed price do not.
    pub hold: u16,
    /// When the machine is maintained, in order: no new contract crosses a window, and nothing runs in one.
    pub maintenance: Vec<WindowView>,
}

/// A span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowView {
    /// Its first moment.
    pub from_ms: Timestamp,
    /// The first moment after it.
    pub until_ms: Timestamp,
}

impl From<Window> for WindowView {
    fn from(window: Window) -> Self {
        Self { from_ms: window.from, until_ms: window.until }
    }
}

/// A change of what is kept from renters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ScheduleRequest {
    /// Keep so many slots.
    Hold {
        /// How many; 0 for none.
        slots: u16,
    },
    /// Announce maintenance.
    AddMaintenance {
        /// From when.
        from_ms: Timestamp,
        /// For how long.
        for_ms: Millis,
    },
    /// Take an announcement back.
    RemoveMaintenance {
        /// The window's first moment.
        from_ms: Timestamp,
    },
}

/// A last moment, or none: in text `2026-12-24T00:00:00Z` or `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Until(pub Option<Timestamp>);

impl Serialize for Until {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(at) => moment::serialize(&at, s),
            None => s.serialize_str("none"),
        }
    }
}

impl<'de> Deserialize<'de> for Until {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        if text == "none" {
            return Ok(Self(None));
        }
        moment::parse(&text).map(|at| Self(Some(at))).map_err(de::Error::custom)
    }
}

/// Points in time as text: `2026-12-24T00:00:00Z`.
pub mod moment {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use serde::{Deserialize, Deserializer, Serializer, de};
    use souk_protocol::Timestamp;

    /// The last millisecond of the year 9999.
    const LAST: u64 = 253_402_300_799_999;

    /// As text.
    ///
    /// # Errors
    /// The serialiser's.
    pub fn serialize<S: Serializer>(at: &Timestamp, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(at.0.min(LAST))))
    }

    /// From text.
    ///
    /// # Errors
    /// If the text is no point in time.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Timestamp, D::Error> {
        parse(&String::deserialize(d)?).map_err(de::Error::custom)
    }

    /// Reads one, in UTC: `2026-12-24`, `2026-12-24T18:00Z`, `2026-12-24 18:00:00`.
    ///
    /// # Errors
    /// A sentence that says how to write it.
    pub fn parse(text: &str) -> Result<Timestamp, String> {
        let bare = text.trim().trim_end_matches('Z');
        let whole = match bare.len() {
            10 => format!("{bare} 00:00:00"),
            16 => format!("{bare}:00"),
            _ => bare.to_owned(),
        };
        let at: Option<SystemTime> = humantime::parse_rfc3339_weak(&whole).ok();
        at.and_then(|at| at.duration_since(UNIX_EPOCH).ok())
            .and_then(|since| u64::try_from(since.as_millis()).ok())
            .map(Timestamp)
            .ok_or_else(|| {
                let shown: String = text.chars().filter(|c| !c.is_control()).take(40).collect();
                format!("`{shown}` is no time like 2026-12-24T18:00Z")
            })
    }

    /// The same where there may be none.
    pub mod option {
        use serde::{Deserialize, Deserializer, Serializer, de};
        use souk_protocol::Timestamp;

        /// As text, or nothing.
        ///
        /// # Errors
        /// The serialiser's.
        pub fn serialize<S: Serializer>(at: &Option<Timestamp>, s: S) -> Result<S::Ok, S::Error> {
            match at {
                Some(at) => super::serialize(at, s),
                None => s.serialize_none(),
            }
        }

        /// From text, or nothing.
        ///
        /// # Errors
        /// If the text is no point in time.
        pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Timestamp>, D::Error> {
            let text = Option::<String>::deserialize(d)?;
            text.map(|text| super::parse(&text).map_err(de::Error::custom)).transpose()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them_and_come_back() {
        let whole = moment::parse("2026-12-24T18:00:00Z").unwrap();
        for text in ["2026-12-24T18:00Z", "2026-12-24 18:00", "2026-12-24 18:00:00", " 2026-12-24T18:00:00.000Z"] {
            assert_eq!(moment::parse(text), Ok(whole), "{text}");
        }
        assert_eq!(moment::parse("2026-12-24").unwrap() + Millis::from_hours(18), whole);
        for text in ["", "tomorrow", "2026-13-24", "1969-12-31", "24.12.2026", "\u{1b}[2J"] {
            let error = moment::parse(text).unwrap_err();
            assert!(!error.contains('\u{1b}'), "{error}");
        }
        for until in [Until(None), Until(Some(whole))] {
            let text = serde_json::to_string(&until).unwrap();
            assert_eq!(serde_json::from_str::<Until>(&text).unwrap(), until, "{text}");
        }
    }
}
