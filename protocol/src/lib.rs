//! What souk's peers say to each other, and who may say what next.
//!
//! This crate owns ids, keys, canonical bytes, signatures, every signed document, every wire message with its limits, and the
//! rules of the market as pure state machines under [`machine`]. It does no I/O, reads no clock, draws no randomness and knows
//! nothing of libp2p, tokio, Docker or disks: time, entropy and addresses are arguments, so that every rule about money, slots
//! and leases can be tested in virtual time.

pub mod checkpoint;
pub mod cluster;
pub mod cost;
pub mod encode;
pub mod entry;
pub mod evidence;
pub mod fork;
pub mod heads;
pub mod id;
pub mod key;
pub mod lease;
pub mod limits;
pub mod login;
pub mod logs;
pub mod machine;
pub mod message;
pub mod money;
pub mod negotiation;
pub mod offer;
pub mod opinion;
pub mod owner;
pub mod payment;
pub mod ports;
pub mod pulse;
pub mod query;
pub mod receipt;
pub mod resources;
pub mod settlement;
pub mod signed;
pub mod ssh;
pub mod terms;
pub mod time;
pub mod violation;
pub mod workload;

pub use id::{AskId, Digest, DocumentId, LeaseId, MachineId, NetworkId, NodeId, Nonce, SshKey};
pub use key::Keypair;
pub use money::{Amount, Currency, Rates};
pub use owner::{HostId, OwnerId};
pub use signed::{Document, Signed, Verified, VerifyError};
pub use time::{Millis, Timestamp};
