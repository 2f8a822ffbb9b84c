//! The souk node: everything that touches the world.
//!
//! One program is host, renter, or both. A node is a few tasks, each the only owner of its resource: the network's swarm, the
//! market's engine, the ledger's store, the container runtime. The [`api`] serves them locally; the command line ([`cli`]) is a
//! client of that API and holds no rule of its own.

pub mod access;
pub mod acquaintances;
pub mod api;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod demo;
pub mod hooks;
pub mod host;
pub mod identity;
pub mod inside;
pub mod ledger;
pub mod market;
pub mod memory;
pub mod node;
pub mod orders;
pub mod owner;
pub mod remote;
pub mod seal;
pub mod settlement;
pub mod telemetry;
pub mod template;
