//! Hooks, as the API shows and takes them.

use serde::{Deserialize, Serialize};
use souk_protocol::{Millis, Timestamp};

use crate::hooks::event::EventKind;

/// A hook to add.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HookRequest {
    /// What people call it; none for `hook1`, `hook2` …
    #[serde(default)]
    pub name: Option<String>,
    /// What it waits for; empty for everything.
    pub events: Vec<EventKind>,
    /// A URL, or a command line that is split into words.
    #[serde(default)]
    pub target: Option<String>,
    /// Or a program and its arguments, as they are.
    #[serde(default)]
    pub program: Option<Vec<String>>,
}

/// A hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookView {
    /// Its name.
    pub name: String,
    /// What it waits for: names, or `all`.
    pub events: Vec<String>,
    /// `webhook` or `program`.
    pub kind: String,
    /// Where its events go, without what may be secret.
    pub target: String,
    /// Since when it is there.
    pub added_ms: Timestamp,
    /// Events that wait for delivery.
    pub waiting: u64,
    /// Since this start of the node: events delivered, given up, and let go because too many waited.
    pub delivered: u64,
    /// Given up after a day, or refused for good.
    pub failed: u64,
    /// Let go because too many waited.
    pub dropped: u64,
    /// The last attempt's outcome.
    pub last: Option<HookDelivery>,
    /// Why it gets nothing any more.
    pub disabled: Option<String>,
}

/// All hooks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HooksView {
    /// The key that signs webhooks, as receivers' libraries take it: `whpk_` and base64.
    pub public_key: String,
    /// In the order in which they were added.
    pub hooks: Vec<HookView>,
}

/// One attempt to deliver an event.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HookDelivery {
    /// When it ended.
    pub at_ms: Timestamp,
    /// The hook's name.
    pub hook: String,
    /// The event's name.
    pub event: String,
    /// The event's id.
    pub id: String,
    /// Which attempt it was: 1, 2, 3 …
    pub attempt: u32,
    /// Whether it was taken.
    pub delivered: bool,
    /// What became of it, for people.
    pub outcome: String,
    /// The receiver's HTTP status, or the program's exit code.
    pub code: Option<i32>,
    /// How long it took.
    pub took_ms: Millis,
    /// When it is tried again; none if it is not.
    pub next_ms: Option<Timestamp>,
    /// The end of what the receiver or the program said, at most 4 KiB.
    pub output: String,
}

/// Which of the log.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HookLogRequest {
    /// Of this hook only.
    pub name: Option<String>,
    /// So many of the newest; at most 1,000.
    pub limit: Option<usize>,
}
