//! The rules of the market as state machines without I/O.
//!
//! Each takes inputs with a time and yields outputs in order; a shell around it (the node, or a simulator) carries the outputs
//! out. None of them reads a clock, draws randomness, signs before its record is asked to be stored, or panics on any input.
//! [`engine::Engine`] is the whole of a node; the others are its parts.

pub mod accept;
pub mod account;
pub mod auction;
pub mod backoff;
pub mod book;
pub mod chain;
mod context;
pub mod engine;
pub mod evidence;
pub mod forks;
pub mod guard;
mod heads;
pub mod host;
pub mod host_lease;
pub mod io;
pub mod meter;
pub mod opinions;
pub mod orders;
pub mod payments;
pub mod policy;
#[cfg(test)]
mod prepaid;
pub mod pricing;
mod quota;
pub mod record;
pub mod regard;
pub mod renter;
pub mod renter_lease;
pub mod search;
mod settling;
pub mod sisters;
pub mod slots;
pub mod standing;
pub mod statistics;
pub mod sync;
#[cfg(test)]
pub(crate) mod testkit;
pub mod uptime;
