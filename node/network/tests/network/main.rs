//! Real nodes on loopback, over QUIC and TCP.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cluster;
mod discovery;
mod exchange;
mod gossip;
mod hostile;
mod node;
mod raw;
mod streams;
