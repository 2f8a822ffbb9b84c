//! Private clusters: what a node of one keeps, and how a node gets into one.
//!
//! Owns three files of the data directory ([`files`]): the signed list of members, the key that its members share, and, at the
//! keeper, the tickets that are out. Who may do what is decided in `souk_protocol::cluster`; the market task acts on it, and
//! [`joining`] speaks with a keeper before there is a node.

pub mod files;
pub mod joining;

pub use files::{ClusterError, ClusterFiles};
