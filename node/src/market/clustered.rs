//! The private cluster of this node, as the market task holds it: who is a member, and at the keeper, who is let in.
//!
//! Owns the cluster's files while the node runs. The rules are `Roster` and `Keeper` of the protocol crate. A list is on disk before
//! anybody hears of it, and the engine and the network follow it at once.

use std::{collections::BTreeSet, path::PathBuf};

use souk_network::{NetworkHandle, Reply as PeerReply};
use souk_protocol::{
    Keypair, NodeId, Nonce, Signed, Timestamp, Verified,
    cluster::{
        Adopted, ClusterAnswer, ClusterRequest, Fence, Keeper, MemberList, PreSharedKey, Refusal, Roster, Ticket, Token,
    },
    limits,
    machine::io::{Command as EngineCommand, Input},
};

use super::{
    command::{ClusterCommand, CommandError, ErrorCode},
    commands::answer,
    task::{Internal, Market},
};
use crate::{
    api::types::{ClusterView, InviteRequest, InviteView, MemberChange, MemberRequest, MemberView, TicketView},
    clock::{now, random},
    cluster::{ClusterError, ClusterFiles, files},
};

/// Nonces given to knockers and not used; the oldest goes.
const NONCES: usize = 256;

/// What the market task keeps of the cluster.
#[derive(Debug)]
pub struct Clustered {
    dir: PathBuf,
    me: NodeId,
    signing: Keypair,
    roster: Roster,
    key: Option<PreSharedKey>,
    /// At the keeper alone.
    keeper: Option<Keeper>,
    /// Who knocked, and what it is to answer.
    nonces: std::collections::VecDeque<(NodeId, [u8; 32])>,
    /// Whether strangers may knock, as the network was told.
    door: Option<bool>,
    /// Members whose list is on its way here.
    asked: BTreeSet<NodeId>,
}
