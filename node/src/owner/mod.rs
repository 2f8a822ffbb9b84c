//! One owner, many machines: the owner's key, and what this node keeps of the owner it belongs to.
//!
//! Owns two files of the data directory: `owner.key`, on the one computer that signs, and `owner.toml`, on every node that belongs
//! to an owner or holds its key. Who is obeyed and what is news is decided in the protocol crate; the market task acts on it.

pub mod key;
pub mod record;

use serde::{Deserialize, Serialize};
use souk_protocol::{MachineId, NodeId, Timestamp, machine::sisters::SisterEvent};

/// Events that a listener has not read. When full, the oldest are lost to it, and it is told how many.
pub const EVENTS: usize = 256;

/// News of another machine of the same owner. Sent to whoever listens; nobody has to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum MachineEvent {
    /// It went without a word.
    MachineOffline {
        /// Its node.
        node: NodeId,
        /// The machine.
        machine: MachineId,
        /// When it was last seen.
        seen_ms: Option<Timestamp>,
    },
    /// It is back.
    MachineOnline {
        /// Its node.
        node: NodeId,
        /// The machine.
        machine: MachineId,
    },
}

impl From<SisterEvent> for MachineEvent {
    fn from(event: SisterEvent) -> Self {
        let SisterEvent { node, machine, online, seen_at } = event;
        if online {
            Self::MachineOnline { node, machine }
        } else {
            Self::MachineOffline { node, machine, seen_ms: seen_at }
        }
    }
}
