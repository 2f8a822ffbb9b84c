//! Events: their names, their ids, and what of them a receiver gets.
//!
//! Owns the vocabulary. What makes an event of something that happened is in `words` and `watch`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;
use souk_protocol::{LeaseId, MachineId, NodeId, Timestamp};

/// Characters of an event's sentence.
const TEXT_CHARS: usize = 500;

/// What happened. The words are Vast.ai's where it has one for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A rented instance lost its slots to a higher bid.
    Outbid,
    /// A rented instance's slots go to others soon.
    EvictionNotice,
    /// They don't, after all.
    NoticeWithdrawn,
    /// An instance runs again after a pause.
    Resumed,
    /// A rented instance can't be reached, or its host restarts.
    Offline,
    /// It can be again.
    BackOnline,
    /// A contract ends soon.
    ExpiringSoon,
    /// A contract's end was moved.
    ContractExtended,
    /// The host asks for a longer contract at another price.
    ExtensionAsked,
    /// The host stops an instance for maintenance, or has said that it will.
    Maintenance,
    /// The credit or the ceiling of a rented lease is nearly, or wholly, used up.
    LowCredit,
    /// A GPU of this machine does nothing.
    GpuIdle,
    /// This machine's disk, or that of an instance on it, is nearly full.
    DiskNearlyFull,
    /// An instance was stopped because it wrote more than its disk.
    DiskFull,
    /// An instance runs for the first time.
    LeaseStarted,
    /// An instance was stopped, for a reason that has no event of its own.
    LeaseStopped,
    /// A lease is over.
    LeaseEnded,
    /// Somebody rents here.
    Rented,
    /// Something is to be paid, and this node does not pay it by itself.
    PaymentDue,
    /// A payment program has refused to pay.
    PaymentFailed,
    /// A peer says to have paid; a person is to say whether it has arrived.
    PaymentClaimed,
    /// Another machine of the same owner is gone.
    MachineOffline,
    /// This host's container engine does not answer.
    EngineDown,
    /// It does again.
    EngineUp,
    /// Sent by `souk hook test`; nobody can wait for it.
    Test,
}

impl EventKind {
    /// All that can be waited for.
    pub const ALL: [Self; 24] = [
        Self::Outbid,
        Self::EvictionNotice,
        Self::NoticeWithdrawn,
        Self::Resumed,
        Self::Offline,
        Self::BackOnline,
        Self::ExpiringSoon,
        Self::ContractExtended,
        Self::ExtensionAsked,
        Self::Maintenance,
        Self::LowCredit,
        Self::GpuIdle,
        Self::DiskNearlyFull,
        Self::DiskFull,
        Self::LeaseStarted,
        Self::LeaseStopped,
        Self::LeaseEnded,
        Self::Rented,
        Self::PaymentDue,
        Self::PaymentFailed,
        Self::PaymentClaimed,
        Self::MachineOffline,
        Self::EngineDown,
        Self::EngineUp,
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Outbid => "outbid",
            Self::EvictionNotice => "eviction_notice",
            Self::NoticeWithdrawn => "notice_withdrawn",
            Self::Resumed => "resumed",
            Self::Offline => "offline",
            Self::BackOnline => "back_online",
            Self::ExpiringSoon => "expiring_soon",
            Self::ContractExtended => "contract_extended",
            Self::ExtensionAsked => "extension_asked",
            Self::Maintenance => "maintenance",
            Self::LowCredit => "low_credit",
            Self::GpuIdle => "gpu_idle",
            Self::DiskNearlyFull => "disk_nearly_full",
            Self::DiskFull => "disk_full",
            Self::LeaseStarted => "lease_started",
            Self::LeaseStopped => "lease_stopped",
            Self::LeaseEnded => "lease_ended",
            Self::Rented => "rented",
            Self::PaymentDue => "payment_due",
            Self::PaymentFailed => "payment_failed",
            Self::PaymentClaimed => "payment_claimed",
            Self::MachineOffline => "machine_offline",
            Self::EngineDown => "engine_down",
            Self::EngineUp => "engine_up",
            Self::Test => "test",
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Not an event's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no event `{given}`{}; events are {}, or all", nearest.map(|n| format!(" (did you mean {n}?)")).unwrap_or_default(), EventKind::ALL.map(EventKind::name).join(", "))]
pub struct UnknownEvent {
    given: String,
    nearest: Option<EventKind>,
}

impl FromStr for EventKind {
    type Err = UnknownEvent;

    /// Its name; Vast.ai's `client:` and `host:` before it, `-` and spaces for `_`, and `instance_` for `lease_` are taken too.
    fn from_str(text: &str) -> Result<Self, UnknownEvent> {
        let plain = text.trim().to_ascii_lowercase().replace(['-', ' '], "_");
        let plain = plain.strip_prefix("client:").or(plain.strip_prefix("host:")).unwrap_or(&plain);
        let plain = match plain.strip_prefix("instance_") {
            Some("resumed") => "resumed".to_owned(),
            Some(rest) => format!("lease_{rest}"),
            None => plain.to_owned(),
        };
        if let Some(kind) = Self::ALL.into_iter().find(|k| k.name() == plain) {
            return Ok(kind);
        }
        let near = |kind: &Self| strsim::damerau_levenshtein(kind.name(), &plain);
        let nearest = Self::ALL.into_iter().min_by_key(near).filter(|k| near(k) <= 3);
        Err(UnknownEvent { given: text.chars().filter(|c| !c.is_control()).take(40).collect(), nearest })
    }
}

/// Names one event: the same however often it is delivered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(pub [u8; 16]);

impl EventId {
    /// The id of what happened at this node as the `number`th of its kind to this subject: found again after a crash, it has
    /// the same id.
    #[must_use]
    pub fn of(node: &NodeId, kind: EventKind, subject: &[u8], number: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("souk 2026-11 hook event v1");
        hasher
            .update(&node.0)
            .update(kind.name().as_bytes())
            .update(&[0])
            .update(&number.to_be_bytes())
            .update(subject);
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        Self(id)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "evt_{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for EventId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EventId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let digits = text.strip_prefix("evt_").filter(|d| d.len() == 32);
        let bytes = digits.and_then(|d| hex::decode(d).ok()).and_then(|b| <[u8; 16]>::try_from(b).ok());
        bytes.map(Self).ok_or_else(|| de::Error::custom("not an event's id"))
    }
}

/// Something that happened, before it has an id.
#[derive(Debug, Clone, PartialEq)]
pub struct Happening {
    /// What.
    pub kind: EventKind,
    /// When.
    pub at: Timestamp,
    /// On which machine, where that matters.
    pub machine: Option<MachineId>,
    /// To which lease.
    pub lease: Option<LeaseId>,
    /// A sentence for people, without control characters.
    pub text: String,
    /// What programs may want to know: an object.
    pub data: Value,
    /// What it happened to, where that is no lease: a GPU, an engine. With [`Self::number`] and the kind it makes the id.
    pub subject: Vec<u8>,
    /// Counts events of this kind to this subject; any number that is found again after a crash does.
    pub number: u64,
}

/// An event as receivers get it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The same at each attempt.
    pub id: EventId,
    /// What happened.
    pub event: EventKind,
    /// When, in UTC: `2026-11-22T15:18:00.123Z`.
    pub time: String,
    /// The node that tells it.
    pub node: NodeId,
    /// On which machine, where that matters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineId>,
    /// To which lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseId>,
    /// A sentence for people.
    pub text: String,
    /// What programs may want to know.
    pub data: Value,
}

impl Event {
    /// What this node tells of it.
    #[must_use]
    pub fn of(node: NodeId, happening: Happening) -> Self {
        let Happening { kind, at, machine, lease, text, data, mut subject, number } = happening;
        subject.extend(lease.iter().flat_map(|l| l.0));
        let id = EventId::of(&node, kind, &subject, number);
        Self { id, event: kind, time: rfc3339(at), node, machine, lease, text: plain(&text), data }
    }

    /// Its bytes, as they are signed and sent.
    #[must_use]
    pub fn body(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// A point in time for other programs: RFC 3339, in UTC, to the millisecond.
#[must_use]
pub fn rfc3339(at: Timestamp) -> String {
    // Others may claim any time: beyond the year 9999 it has no date.
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(at.0.min(253_402_300_799_999));
    humantime::format_rfc3339_millis(at).to_string()
}

/// Text in which nothing is left that could move a terminal's cursor, and not too much of it.
#[must_use]
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT_CHARS).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_come_back_and_vasts_are_understood() {
        for kind in EventKind::ALL {
            assert_eq!(kind.name().parse::<EventKind>().unwrap(), kind);
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
        for (vast, ours) in [
            ("client:outbid", EventKind::Outbid),
            ("client:instance_started", EventKind::LeaseStarted),
            ("client:instance_resumed", EventKind::Resumed),
            ("host:machine_offline", EventKind::MachineOffline),
            ("back online", EventKind::BackOnline),
        ] {
            assert_eq!(vast.parse::<EventKind>().unwrap(), ours);
        }
        let error = "outbit".parse::<EventKind>().unwrap_err().to_string();
        assert!(error.contains("did you mean outbid?") && error.contains("low_credit"), "{error}");
        assert!("test".parse::<EventKind>().is_err(), "nobody waits for tests");
    }

    #[test]
    fn ids_are_found_again() {
        let node = NodeId([7; 32]);
        let id = EventId::of(&node, EventKind::Outbid, b"x", 3);
        assert_eq!(id, EventId::of(&node, EventKind::Outbid, b"x", 3));
        assert_ne!(id, EventId::of(&node, EventKind::Outbid, b"x", 4));
        assert_ne!(id, EventId::of(&node, EventKind::Resumed, b"x", 3));
        let text = serde_json::to_string(&id).unwrap();
        assert_eq!(serde_json::from_str::<EventId>(&text).unwrap(), id);
        assert!(serde_json::from_str::<EventId>("\"evt_+0000000000000000000000000000001\"").is_err());
    }
}
