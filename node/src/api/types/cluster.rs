//! The private cluster that a node is in: its members, its tickets, and what changes them.

use serde::{Deserialize, Serialize};
use souk_protocol::{Millis, NetworkId, NodeId, Timestamp, cluster::Quota};

/// The cluster of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterView {
    /// Its name.
    pub name: String,
    /// Its network.
    pub network_id: NetworkId,
    /// Who signs its list.
    pub keeper: NodeId,
    /// Whether that is this node.
    pub keeper_here: bool,
    /// Whether its members share a key, without which nobody can even shake hands with them.
    pub has_key: bool,
    /// The number of the list that this node has.
    pub list: u64,
    /// When that was signed.
    pub issued_at_ms: Timestamp,
    /// The members, by name.
    pub members: Vec<MemberView>,
    /// Tickets that are out; only the keeper knows them.
    pub tickets: Vec<TicketView>,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberView {
    /// Its node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Whether it is this node.
    pub here: bool,
    /// Whether this node is connected to it.
    pub connected: bool,
    /// What each host lets it use.
    pub quota: Quota,
}

/// A ticket that is out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketView {
    /// How many more nodes it lets in.
    pub uses_left: u32,
    /// Until when.
    pub expires_at_ms: Timestamp,
}

/// Makes a ticket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InviteRequest {
    /// How many nodes it lets in.
    pub uses: u32,
    /// For how long.
    pub valid_ms: Millis,
    /// Where the keeper is reached; none for where it listens and is known to be reached.
    #[serde(default)]
    pub addresses: Vec<String>,
}

/// A ticket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteView {
    /// The line to hand over: a secret.
    pub ticket: String,
    /// How many nodes it lets in.
    pub uses: u32,
    /// Until when.
    pub expires_at_ms: Timestamp,
    /// Where it says that the keeper is.
    pub addresses: Vec<String>,
}

/// Changes a member, or makes a node one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberRequest {
    /// The node, or a member by its name or part of its id.
    pub member: String,
    /// What to do.
    pub change: MemberChange,
}

/// What is done with a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberChange {
    /// Makes a node a member, also one that was removed.
    Admit {
        /// Its name; none for one made up.
        name: Option<String>,
        /// What each host lets it use.
        quota: Quota,
    },
    /// Puts it out.
    Remove,
    /// Changes what each host lets it use.
    Quota(Quota),
}
