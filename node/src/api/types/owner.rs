//! The owner of this node, its other machines, and what they are told to do.

use serde::{Deserialize, Serialize};
use souk_protocol::{
    Amount, Currency, MachineId, NodeId, OwnerId, Timestamp, machine::sisters::SisterState, owner::Membership,
};

use super::{AcceptRequest, EarningsRequest, ListRequest, PriceRequest, ScheduleRequest, decimal};
use crate::market::{CommandError, ErrorCode};

/// Whose this node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerView {
    /// This node.
    pub node: NodeId,
    /// Its owner, by the key it holds or the membership it carries; none if it is its own.
    pub owner: Option<OwnerId>,
    /// Whether the owner's key is here, so that orders can be given from here.
    pub has_key: bool,
    /// What makes this node the owner's, if it is a host of the owner's.
    pub membership: Option<MembershipView>,
}

/// A membership.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembershipView {
    /// Who signed it.
    pub owner: OwnerId,
    /// Whose it is.
    pub node: NodeId,
    /// The one machine it is of; none for all of the node's.
    pub machine: Option<MachineId>,
    /// When it was signed.
    pub issued_at_ms: Timestamp,
    /// When it ends.
    pub valid_until_ms: Timestamp,
}

impl MembershipView {
    /// What is shown of a membership.
    #[must_use]
    pub const fn of(membership: &Membership) -> Self {
        let Membership { owner, node, machine, issued_at, valid_until } = *membership;
        Self { owner, node, machine, issued_at_ms: issued_at, valid_until_ms: valid_until }
    }
}

/// Joins an owner.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JoinRequest {
    /// What the owner signed; none to sign with the key that is on this node.
    pub ticket: Option<String>,
}

/// Tells a node that its owner's key or members may have changed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RefreshRequest {
    /// Tickets that were signed.
    pub tickets: Vec<String>,
    /// Nodes that are none of the owner's any more.
    pub forget: Vec<NodeId>,
}

/// One machine of the owner's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineView {
    /// Its node.
    pub node: NodeId,
    /// The machine; none if only its node is known so far.
    pub machine: Option<MachineId>,
    /// Whether it is this one.
    pub here: bool,
    /// How it is, as seen from here.
    pub state: SisterState,
    /// Whether its node is connected.
    pub connected: bool,
    /// When it was last seen.
    pub seen_ms: Option<Timestamp>,
    /// What it offers; none if it is not on the market.
    pub offer: Option<MachineOffer>,
}

/// What a machine of the owner's offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineOffer {
    /// Its GPUs' model; none for a machine without.
    pub gpu: Option<String>,
    /// Slots it is cut into.
    pub slots_total: u16,
    /// Slots nobody rents.
    pub slots_free: u16,
    /// One slot for one hour.
    #[serde(with = "decimal")]
    pub slot_hour: Amount,
    /// The lowest bid for one slot for one hour.
    #[serde(with = "decimal")]
    pub min_bid: Amount,
    /// The currency of both.
    pub currency: Currency,
    /// What makes it the owner's; none for a host that offers it as its own.
    pub membership: Option<MembershipView>,
}

/// What a host may be told by its owner from another node: what the owner could say on the machine itself about renting it out,
/// and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", content = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum HostOrder {
    /// Say what is offered. Answered with a `HostView`, as the next ones.
    Show,
    /// Offer the machine, or change its prices.
    List(ListRequest),
    /// Change its prices, and how they come about; which program says them is the machine's own affair.
    Price(Box<PriceRequest>),
    /// Take the offer back.
    Unlist,
    /// Change who may rent.
    Accept(AcceptRequest),
    /// Keep slots, or announce maintenance; none only asks. Answered with a `ScheduleView`.
    Schedule(Option<ScheduleRequest>),
    /// Say what was earned. Answered with an `EarningsView`.
    Earnings(EarningsRequest),
    /// Take a newer membership. Answered with an [`OwnerView`].
    Join(JoinRequest),
    /// Belong to the owner no more. Answered with an [`OwnerView`].
    Leave,
}

impl HostOrder {
    /// Whether it may come from another node. What names a program to run must be said on the machine itself.
    ///
    /// # Errors
    /// Why not.
    pub fn check_remote(&self) -> Result<(), CommandError> {
        match self {
            Self::Price(request) if request.command.is_some() => {
                let message = "the program that says prices can only be set on the machine itself";
                Err(CommandError::new(ErrorCode::BadRequest, message).hint("run souk host price there"))
            }
            Self::Show
            | Self::List(_)
            | Self::Price(_)
            | Self::Unlist
            | Self::Accept(_)
            | Self::Schedule(_)
            | Self::Earnings(_)
            | Self::Join(_)
            | Self::Leave => Ok(()),
        }
    }
}

/// An order for one machine, or all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineOrder {
    /// A machine's id or its first digits, a peer id or its last characters, `this`, or `all`.
    pub machine: String,
    /// What it is to do.
    pub order: HostOrder,
}

/// What came of an order on one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineResult {
    /// The machine's node.
    pub node: NodeId,
    /// The machine, if it is known.
    pub machine: Option<MachineId>,
    /// What the machine answered, if it did as it was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<serde_json::Value>,
    /// Why it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<CommandError>,
}
