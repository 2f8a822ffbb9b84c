//! The node that keeps the list: it lets in who has a ticket, and changes the list as its owner says.
//!
//! Without I/O. Each change yields the next list, unsigned; nothing has changed until [`Keeper::adopt`] gets it back signed. The
//! shell signs, adopts, stores list and [`Tickets`] as one, and only then answers.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    founding::check_name,
    knock::{Knock, Nonce, Refusal},
    list::{Member, MemberList, Quota},
    secret::{PreSharedKey, Token, TokenId},
    tickets::{OpenTicket, Tickets},
};
use crate::{
    id::NodeId,
    limits,
    signed::{Invalid, Verified},
    time::Timestamp,
};

/// The keeper's state.
#[derive(Debug, Clone)]
pub struct Keeper {
    list: Verified<MemberList>,
    tickets: Tickets,
    /// Who has proved which token since the list was adopted: their tickets are used once they are on it. Those of whom nothing came
    /// are forgotten with the next list, or when there are too many.
    proved: BTreeMap<NodeId, TokenId>,
}

/// What a knocker that proved its token gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is a member already: the list as it is. Nothing is used up.
    Member(Verified<MemberList>),
    /// It is one once this is signed and adopted.
    Admit(MemberList),
}

/// Why a wish of the keeper's owner changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unchanged {
    /// The name is no name.
    #[error("{0}")]
    Name(#[from] Invalid),
    /// Another member has it.
    #[error("another member is called `{0}`: choose another name")]
    NameTaken(String),
    /// There is no room on the list.
    #[error("the cluster has as many members as one can have, 1,024: remove one first (souk cluster remove)")]
    Full,
    /// It is on the list.
    #[error("{0} is a member already")]
    Member(NodeId),
    /// It is not.
    #[error("{0} is no member: see `souk cluster members`")]
    NotMember(NodeId),
    /// Nobody else could sign the list.
    #[error("the keeper can't be removed: it signs the list. To end the cluster, remove the others and stop this node")]
    Keeper,
    /// The ticket's bounds.
    #[error("a ticket must end within 30 days from now")]
    Life,
    /// As before.
    #[error("a ticket admits 1 to 1,024 nodes")]
    Uses,
    /// Drawn twice: that is no random token.
    #[error("a ticket with this token was made before")]
    Token,
    /// Too many tickets are out.
    #[error("256 tickets can be redeemed already: wait until some are used or expire")]
    Tickets,
    /// The key is the one in use.
    #[error("this is the key that is in use")]
    SameKey,
    /// Another list was adopted meanwhile, or it is not by this keeper.
    #[error("the list has changed meanwhile: try again")]
    Overtaken,
}

impl Keeper {
    /// The keeper of this list, with what was stored beside it.
    #[must_use]
    pub const fn new(list: Verified<MemberList>, tickets: Tickets) -> Self {
        Self { list, tickets, proved: BTreeMap::new() }
    }

    /// The newest list.
    #[must_use]
    pub const fn list(&self) -> &Verified<MemberList> {
        &self.list
    }

    /// What is to be stored with it.
    #[must_use]
    pub const fn tickets(&self) -> &Tickets {
        &self.tickets
    }

    /// Tickets that can still be redeemed.
    pub fn open_tickets(&self, now: Timestamp) -> impl Iterator<Item = OpenTicket> + '_ {
        self.tickets.open(now)
    }

    /// Whether anybody may still come with a ticket; if only to be told that it is used up. Of an expired one its holder knows by itself.
    #[must_use]
    pub fn is_awaiting(&self, now: Timestamp) -> bool {
        self.tickets.may_come(now)
    }

    /// A ticket with this token, drawn at random, admits so many nodes until it expires. Holds at once, and is to be stored.
    ///
    /// # Errors
    /// [`Unchanged`]: bounds of tickets.
    pub fn invite(&mut self, token: Token, uses: u32, expires: Timestamp, now: Timestamp) -> Result<(), Unchanged> {
        self.tickets.forget(now);
        let most = u32::try_from(limits::CLUSTER_MEMBERS).unwrap_or(u32::MAX);
        if !(1..=most).contains(&uses) {
            return Err(Unchanged::Uses);
        }
        if expires <= now || expires.since(now) > limits::TICKET_LIFE {
            return Err(Unchanged::Life);
        }
        if self.tickets.find(token.id()).is_some() {
            return Err(Unchanged::Token);
        }
        if self.tickets.open(now).count() >= limits::TICKETS_OPEN {
            return Err(Unchanged::Tickets);
        }
        self.tickets.add(token, uses, expires);
        Ok(())
    }

    /// Somebody knocks: it gets a nonce, whether there is such a ticket or not. `entropy` is drawn anew for each knock, and is good
    /// for one proof.
    #[must_use]
    pub const fn knocked(&self, _knock: &Knock, entropy: [u8; 32]) -> Nonce {
        Nonce(entropy)
    }

    /// Judges a knocker's proof. `peer` is the id that the connection has proved, `token_id` what it knocked with, and `nonce` what it
    /// was given.
    ///
    /// # Errors
    /// [`Refusal`], which is what the knocker is told.
    #[allow(clippy::too_many_arguments)] // what one exchange consists of
    pub fn prove(
        &mut self,
        peer: NodeId,
        token_id: TokenId,
        nonce: &Nonce,
        mac: &[u8; 32],
        name: Option<&str>,
        now: Timestamp,
    ) -> Result<Outcome, Refusal> {
        self.tickets.forget(now);
        let known = self.tickets.find(token_id);
        // As much work without such a ticket, so that the time taken tells nothing either.
        let nobodys = Token::new([0; 16]);
        let token = known.map_or(&nobodys, |ticket| &ticket.token);
        let proved = token.mac(&nonce.0, &self.list.founding.keeper, &peer) == blake3::Hash::from_bytes(*mac);
        let Some(ticket) = known.filter(|_| proved) else { return Err(Refusal::Nothing) };
        if self.list.member(&peer).is_some() {
            return Ok(Outcome::Member(self.list.clone()));
        }
        if self.tickets.is_removed(&peer) {
            return Err(Refusal::Removed);
        }
        // Who had redeemed it is let in again, if the list was lost with which it was.
        if !ticket.redeemed.contains(&peer) {
            if ticket.uses_left == 0 {
                return Err(Refusal::Used);
            }
            if now >= ticket.expires {
                return Err(Refusal::Expired);
            }
        }
        if self.list.members.len() >= limits::CLUSTER_MEMBERS {
            return Err(Refusal::Full);
        }
        let taken = |name: &str| self.list.members.iter().any(|m| m.name == name);
        let name = match name {
            Some(name) if check_name(name, "the name").is_err() || taken(name) => return Err(Refusal::NameTaken),
            Some(name) => name.to_owned(),
            None => self.free_name(&peer),
        };
        if self.proved.len() >= limits::CLUSTER_MEMBERS {
            self.proved.clear();
        }
        self.proved.insert(peer, token_id);
        Ok(Outcome::Admit(self.with(Member { node: peer, name, quota: Quota::default() }, now)))
    }

    /// The list with a node that needs no ticket; also one that was removed before.
    ///
    /// # Errors
    /// [`Unchanged`]: it is a member, the list is full, or the name can't be had.
    pub fn admit(
        &self,
        node: NodeId,
        name: Option<&str>,
        quota: Quota,
        now: Timestamp,
    ) -> Result<MemberList, Unchanged> {
        if self.list.member(&node).is_some() {
            return Err(Unchanged::Member(node));
        }
        if self.list.members.len() >= limits::CLUSTER_MEMBERS {
            return Err(Unchanged::Full);
        }
        let name = match name {
            Some(name) => {
                check_name(name, "the name")?;
                if self.list.members.iter().any(|m| m.name == name) {
                    return Err(Unchanged::NameTaken(name.to_owned()));
                }
                name.to_owned()
            }
            None => self.free_name(&node),
        };
        Ok(self.with(Member { node, name, quota }, now))
    }

    /// The list without a member. Once that is adopted no ticket brings it back.
    ///
    /// # Errors
    /// [`Unchanged`]: it is the keeper, or no member.
    pub fn remove(&self, node: &NodeId, now: Timestamp) -> Result<MemberList, Unchanged> {
        if *node == self.list.founding.keeper {
            return Err(Unchanged::Keeper);
        }
        let mut next = self.next(now);
        next.members.retain(|m| m.node != *node);
        if next.members.len() == self.list.members.len() {
            return Err(Unchanged::NotMember(*node));
        }
        Ok(next)
    }

    /// The list with another quota of a member.
    ///
    /// # Errors
    /// [`Unchanged`]: it is no member.
    pub fn set_quota(&self, node: &NodeId, quota: Quota, now: Timestamp) -> Result<MemberList, Unchanged> {
        let mut next = self.next(now);
        let member = next.members.iter_mut().find(|m| m.node == *node).ok_or(Unchanged::NotMember(*node))?;
        member.quota = quota;
        Ok(next)
    }

    /// The list that says that another key is in use. Once it is adopted open tickets, which hold the old one, admit nobody.
    ///
    /// # Errors
    /// [`Unchanged`]: it is the key in use.
    pub fn rotate(&self, key: &PreSharedKey, now: Timestamp) -> Result<MemberList, Unchanged> {
        let fence = Some(key.fence());
        if self.list.fence == fence {
            return Err(Unchanged::SameKey);
        }
        Ok(MemberList { fence, ..self.next(now) })
    }

    /// A list that one of these gave, signed: it holds from now on, and so does what follows from it for tickets.
    ///
    /// # Errors
    /// [`Unchanged::Overtaken`] if it is not the next one of this cluster: the wish is to be tried again. So of two knockers who
    /// come at once with a ticket for one, one gets in.
    pub fn adopt(&mut self, list: Verified<MemberList>) -> Result<(), Unchanged> {
        if list.founding != self.list.founding || list.seq != self.list.seq.saturating_add(1) {
            return Err(Unchanged::Overtaken);
        }
        let now = list.issued_at;
        for joined in list.members.iter().map(|m| m.node).filter(|node| self.list.member(node).is_none()) {
            self.tickets.back(&joined);
            if let Some(token) = self.proved.get(&joined) {
                self.tickets.redeem(*token, joined, now);
            }
        }
        for left in self.list.members.iter().map(|m| m.node).filter(|node| list.member(node).is_none()) {
            self.tickets.removed(left);
        }
        if list.fence != self.list.fence {
            self.tickets.expire_all(now);
        }
        self.tickets.forget(now);
        self.proved.clear();
        self.list = list;
        Ok(())
    }

    fn next(&self, now: Timestamp) -> MemberList {
        let list = &*self.list;
        MemberList { seq: list.seq.saturating_add(1), issued_at: now.max(list.issued_at), ..list.clone() }
    }

    fn with(&self, member: Member, now: Timestamp) -> MemberList {
        let mut next = self.next(now);
        let at = next.members.partition_point(|m| m.node < member.node);
        next.members.insert(at, member);
        next
    }

    /// `node-` and the end of its id, and a number if that is another's.
    fn free_name(&self, node: &NodeId) -> String {
        let id = node.to_string().to_ascii_lowercase();
        let base = format!("node-{}", &id[id.len().saturating_sub(6)..]);
        let taken: BTreeSet<&str> = self.list.members.iter().map(|m| m.name.as_str()).collect();
        if !taken.contains(base.as_str()) {
            return base;
        }
        // One of so many is free: there is one more than members.
        let mut numbered = (2..=limits::CLUSTER_MEMBERS + 2).map(|n| format!("{base}-{n}"));
        numbered.find(|name| !taken.contains(name.as_str())).unwrap_or(base)
    }
}

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
