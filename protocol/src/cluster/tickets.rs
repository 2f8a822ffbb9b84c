//! The tickets a keeper has given out, and the nodes it has removed. Private to the keeper: the tokens are in it.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::secret::{Token, TokenId};
use crate::{id::NodeId, limits, time::Timestamp};

/// One that was given out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Issued {
    pub(super) token: Token,
    pub(super) expires: Timestamp,
    /// Nodes that it can still admit.
    pub(super) uses_left: u32,
    /// Those it has admitted.
    pub(super) redeemed: Vec<NodeId>,
    /// When it was used up, or expired before its time.
    pub(super) over_at: Option<Timestamp>,
}

impl Issued {
    fn is_open(&self, now: Timestamp) -> bool {
        self.uses_left > 0 && self.over_at.is_none() && now < self.expires
    }

    /// Since when it admits nobody any more, as far as that is known.
    fn ended(&self) -> Timestamp {
        self.over_at.map_or(self.expires, |at| at.min(self.expires))
    }
}

/// A ticket that still admits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenTicket {
    /// By which it is known.
    pub id: TokenId,
    /// Until when it admits.
    pub expires: Timestamp,
    /// Nodes that it can still admit.
    pub uses_left: u32,
    /// Those it has admitted.
    pub redeemed: Vec<NodeId>,
}

/// What a keeper keeps beside the list, for its private file. Holds the secrets of open tickets. It is to be stored with the list
/// that it goes with, before anybody is told of either.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tickets {
    issued: Vec<Issued>,
    /// Oldest first.
    removed: VecDeque<NodeId>,
}

impl Tickets {
    pub(super) fn open(&self, now: Timestamp) -> impl Iterator<Item = OpenTicket> + '_ {
        self.issued.iter().filter(move |t| t.is_open(now)).map(|t| OpenTicket {
            id: t.token.id(),
            expires: t.expires,
            uses_left: t.uses_left,
            redeemed: t.redeemed.clone(),
        })
    }

    /// Whether a ticket may still come: also one that is used up, so that it can be said of it.
    pub(super) fn may_come(&self, now: Timestamp) -> bool {
        self.issued.iter().any(|t| now < t.expires)
    }

    pub(super) fn find(&self, id: TokenId) -> Option<&Issued> {
        self.issued.iter().find(|t| t.token.id() == id)
    }

    pub(super) fn add(&mut self, token: Token, uses: u32, expires: Timestamp) {
        self.issued.push(Issued { token, expires, uses_left: uses, redeemed: Vec::new(), over_at: None });
    }

    /// A node was admitted by a ticket.
    pub(super) fn redeem(&mut self, id: TokenId, by: NodeId, now: Timestamp) {
        let Some(ticket) = self.issued.iter_mut().find(|t| t.token.id() == id) else { return };
        if ticket.redeemed.contains(&by) {
            return;
        }
        ticket.redeemed.push(by);
        ticket.uses_left = ticket.uses_left.saturating_sub(1);
        if ticket.uses_left == 0 {
            ticket.over_at = Some(now);
        }
    }

    /// Open tickets hold a key that is used no more: nobody gets in with them.
    pub(super) fn expire_all(&mut self, now: Timestamp) {
        for ticket in self.issued.iter_mut().filter(|t| t.is_open(now)) {
            ticket.expires = now;
            ticket.over_at = Some(now);
        }
    }

    /// Forgets the tickets that ended long ago, and the oldest of too many.
    pub(super) fn forget(&mut self, now: Timestamp) {
        self.issued.retain(|t| t.is_open(now) || now.since(t.ended()) < limits::TICKET_REMEMBERED);
        let mut past: Vec<(Timestamp, TokenId)> =
            self.issued.iter().filter(|t| !t.is_open(now)).map(|t| (t.ended(), t.token.id())).collect();
        past.sort_unstable();
        let many = past.len().saturating_sub(limits::TICKETS_PAST);
        let oldest = &past[..many];
        self.issued.retain(|t| t.is_open(now) || !oldest.iter().any(|(_, id)| *id == t.token.id()));
    }

    pub(super) fn is_removed(&self, node: &NodeId) -> bool {
        self.removed.contains(node)
    }

    pub(super) fn removed(&mut self, node: NodeId) {
        if self.removed.len() >= limits::REMOVED_REMEMBERED {
            self.removed.pop_front();
        }
        self.removed.push_back(node);
    }

    pub(super) fn back(&mut self, node: &NodeId) {
        self.removed.retain(|known| known != node);
    }
}
