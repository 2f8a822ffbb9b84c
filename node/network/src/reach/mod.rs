//! How others reach this node: directly, through a relay, or not known yet.
//!
//! Owns the rules: which of its own addresses a node believes in (`policy`), and which peers relay for it while it has none
//! (`relays`). Pure: time, peers and outcomes are arguments; the task does the asking, listening and dialling.
//!
//! A node learns what it looks like from outside from its peers, and believes none of them: an address counts when a peer has
//! dialled back to it, from a port that the node has never spoken to. A relay is reserved as soon as peers see the node under an
//! address that it does not have itself, and given back when dialling back works.

mod news;
mod policy;
mod relays;

use souk_protocol::NodeId;

pub(crate) use self::{
    news::{MAX_ADDRESS, News},
    policy::{Addresses, Change, DialBack, Test},
    relays::{Relays, Step},
};

/// How others reach this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Reachability {
    /// Nobody has told yet. Also on a machine or a network of its own, where nothing lies between the nodes.
    #[default]
    Unknown,
    /// Others can dial it.
    Public,
    /// Others can't dial it: they come through these relays, if any.
    Private {
        /// Those that have a place reserved for this node.
        relays: Vec<NodeId>,
    },
}
