//! The node's local API: HTTP on a Unix socket, and on loopback with a bearer token where configured.
//!
//! Owns the routes under `/v1`, their limits, the JSON they speak ([`types`]), and the [`client`] that the command line uses.
//! Holds no rule: every request becomes a [`crate::market::Command`].
//!
//! | route | what |
//! |---|---|
//! | `GET status` `peers` | the node and its neighbours |
//! | `POST search` `quote` | offers; what a rental would cost |
//! | `POST rent` | rents; answers with one JSON step a line |
//! | `GET leases` `leases/{id}` `leases/{id}/events` | what is rented, either way |
//! | `POST leases/{id}/{start,stop,destroy,label}` | changes it |
//! | `POST leases/{id}/change` `leases/{id}/extension` | a bid, a later end, a ceiling; what the host takes for a later end |
//! | `POST leases/{id}/extension/{decline,offer}` | no to what the host asks for; as a host, asks for it |
//! | `POST quote/slices` | what it takes to win slots of a machine now |
//! | `GET leases/{id}/logs` | output, as frames of `souk_protocol::message::Frame` |
//! | `POST leases/{id}/exec` | upgrades to frames both ways |
//! | `GET orders`, `POST orders` `orders/{number}/cancel` | standing orders |
//! | `GET receipts` `ledger/check` `ledger/export` | the ledger |
//! | `GET host`, `POST host/{list,unlist,accept}` | renting out |
//! | `GET owner`, `POST owner/{join,leave,refresh}` | whose this node is |
//! | `GET cluster`, `POST cluster/{invite,member,rotate}` | the private cluster it is in |
//! | `GET host/machines`, `POST host/machines/order` | the owner's machines, and what they are told |
//! | `GET host/schedule`, `POST host/schedule` | slots held, maintenance |
//! | `GET hooks` `hooks/log`, `POST hooks` `hooks/{name}/{remove,test}` | who hears of what happens |
//! | `GET accounts` `accounts/{peer}`, `POST accounts/{peer}/{pay,received,forgive}` | what is owed; paying, saying what has arrived, and letting go |
//! | `GET payments/{reference}` `invoices` | how a payment stands; a month with each peer |
//! | `POST shutdown` | stops the node |

mod accounts;
pub mod client;
mod cluster;
mod error;
mod follow;
pub mod frames;
mod hooks;
mod metrics;
mod owner;
mod routes;
mod server;
mod streams;
mod terms;
mod tether;
mod trust;
mod tunnel;
pub mod types;

pub use server::{Server, ServerError};

/// The token's file in a data directory, for the API on loopback.
pub const TOKEN_FILE: &str = "api.token";
/// What an exec connection upgrades to.
pub(crate) const UPGRADE: &str = "souk-frames/1";
/// The content type of a stream of frames.
pub(crate) const FRAMES_TYPE: &str = "application/vnd.souk.frames";
/// The content type of a stream of JSON lines.
pub(crate) const LINES_TYPE: &str = "application/x-ndjson";
