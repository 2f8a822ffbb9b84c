//! What happened, who owes whom: the records of one node, made durable, folded into answers, and checkable by anyone.
//!
//! ```text
//!  Fact ──► state (pure fold, refuses what can't follow) ──► journal (commit point) ──► store (queryable, made anew if lost)
//!              └──────────────── replay at start ◄────────────────┘                        │
//!                                                   export ──► verify (no node needed)     └──► View
//! ```
//!
//! [`journal`] and [`store`] know bytes only; [`state`] knows what records mean and does no I/O beyond the store it is given;
//! [`compact`] lets old records go; [`commit`] puts them together under one owner, [`thread`] gives that owner a thread and everybody else a handle.

pub mod chain;
pub mod check;
pub mod commit;
pub mod compact;
pub mod compacted;
pub mod earnings;
pub mod export;
#[cfg(test)]
mod fixture;
pub mod foreign;
mod housekeeping;
pub mod journal;
mod keys;
pub mod lease;
pub mod lock;
pub mod months;
pub mod pair;
pub mod record;
pub mod regard;
mod replay;
pub mod reputation;
pub mod state;
pub mod statement;

pub mod store;
pub mod thread;
pub mod verify;
pub mod view;

#[cfg(test)]
mod tests;
