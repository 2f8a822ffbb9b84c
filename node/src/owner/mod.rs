//! One owner, many machines: the owner's key, and what this node keeps of the owner it belongs to.
//!
//! Owns two files of the data directory: `owner.key`, on the one computer that signs, and `owner.toml`, on every node that belongs
//! to an owner or holds its key. Who is obeyed and what is news is decided in the protocol crate; the market task acts on it.

pub mod key;
pub mod record;
