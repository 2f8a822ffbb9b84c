//! Private clusters: who founded one, who is in it, how one gets in, and what each member may use.
//!
//! Owns the documents, the ticket's text, and the rules of admission, without I/O. Sealing the transport with the shared key,
//! asking peers for newer lists and keeping files is the node's; what a quota means for a lease is [`crate::machine`]'s.
//!
//! One node keeps the list and signs it. Its id is in the [`Founding`], whose hash is the network's id, so every member can
//! tell the list of its cluster from all others, whoever brings it.

mod founding;
mod keeper;
pub mod knock;
mod list;
mod message;
mod roster;
mod secret;
mod ticket;
mod tickets;

pub use self::{
    founding::{Founding, check_name},
    keeper::{Keeper, Outcome, Unchanged},
    knock::{Answer, Knock, Proof, Refusal},
    list::{Member, MemberList, Quota},
    message::{ClusterAnswer, ClusterRequest, SharedKey},
    roster::{Adoption, AnotherCluster, NotFound, Roster},
    secret::{Fence, PreSharedKey, Token, TokenId},
    ticket::{BadTicket, Expired, Ticket},
    tickets::{OpenTicket, Tickets},
};
