//! Whose word counts, and what this node shows of itself.

use serde::{Deserialize, Serialize};
use souk_protocol::NodeId;

/// Attesters that can be named, and listed nodes.
pub const ATTESTERS: usize = 256;

/// Reputation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Trust {
    /// Nodes whose attestations count, beside those that `souk trust` names.
    pub attesters: Vec<NodeId>,
    /// Nodes whose dealings count for the scores of others as if they were known a little. Whoever is on it can praise whom it likes.
    pub listed: Vec<NodeId>,
    /// Whether other nodes are shown this node's leases when they ask: what both parties have signed, the image's name included.
    /// Without it this node stays a stranger to whoever it has not dealt with.
    pub show_leases: bool,
}

impl Default for Trust {
    fn default() -> Self {
        Self { attesters: Vec::new(), listed: Vec::new(), show_leases: true }
    }
}
