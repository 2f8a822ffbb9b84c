//! The market task's face to the rest of the node.
//!
//! Owns the vocabulary of what may be asked of the market ([`command`]) and how a person's words name a lease ([`select`]). The
//! local API asks through [`MarketHandle`]; it knows nothing of the engine behind it.

pub mod command;
pub mod select;

pub use command::{Command, CommandError, ErrorCode, MarketHandle};
