//! What the local API says, in JSON.
//!
//! Amounts are decimal strings in the unit beside them (`"0.35"`), never floats. Points in time are milliseconds since the Unix
//! epoch and end in `_ms`, as do lengths of time. Ids are text. Owns shapes only.

mod access;
mod account;
mod cluster;
mod earnings;
mod events;
mod hook;
mod host;
mod lease;
mod metrics;
mod order;
mod owner;
mod pricing;
mod rent;
mod schedule;
mod search;
mod terms;
mod trust;

pub use access::*;
pub use account::*;
pub use cluster::*;
pub use earnings::*;
pub use events::*;
pub use hook::*;
pub use host::*;
pub use lease::*;
pub use metrics::*;
pub use order::*;
pub use owner::*;
pub use pricing::*;
pub use rent::*;
pub use schedule::*;
pub use search::*;
pub use terms::*;
pub use trust::*;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use souk_protocol::{NetworkId, NodeId, Timestamp};

/// Amounts as decimal text.
pub mod decimal {
    use serde::{Deserialize, Deserializer, Serializer, de};
    use souk_protocol::Amount;

    /// As text.
    ///
    /// # Errors
    /// The serialiser's.
    pub fn serialize<S: Serializer>(amount: &Amount, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(amount)
    }

    /// From text.
    ///
    /// # Errors
    /// If the text is not an amount.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Amount, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map_err(de::Error::custom)
    }

    /// The same where there may be none.
    pub mod option {
        use serde::{Deserialize, Deserializer, Serializer, de};
        use souk_protocol::Amount;

        /// As text, or null.
        ///
        /// # Errors
        /// The serialiser's.
        pub fn serialize<S: Serializer>(amount: &Option<Amount>, s: S) -> Result<S::Ok, S::Error> {
            match amount {
                Some(amount) => s.collect_str(amount),
                None => s.serialize_none(),
            }
        }

        /// From text, or null.
        ///
        /// # Errors
        /// If the text is not an amount.
        pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Amount>, D::Error> {
            Option::<String>::deserialize(d)?.map(|text| text.parse().map_err(de::Error::custom)).transpose()
        }
    }
}

/// How a node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusView {
    /// Its key, as a peer id.
    pub node: NodeId,
    /// The program's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Since when it runs.
    pub started_ms: Timestamp,
    /// The network's name.
    pub network: String,
    /// The network's id.
    pub network_id: NetworkId,
    /// Where its data is.
    pub dir: PathBuf,
    /// Where it listens.
    pub listen: Vec<String>,
    /// Where its owner says that others reach it.
    pub external: Vec<String>,
    /// How others reach it.
    #[serde(default)]
    pub reachability: ReachabilityView,
    /// Peers connected.
    pub peers: u64,
    /// Offers in its book.
    pub offers: u64,
    /// Whether it hosts, and whether its machine is offered now.
    pub host: HostRole,
    /// Leases that are not over: as renter.
    pub renting: u64,
    /// Leases that are not over: as host.
    pub hosting: u64,
    /// What is not as it should be.
    pub problems: Vec<Problem>,
}

/// What part a node plays as a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostRole {
    /// None: it was not started as one.
    Off,
    /// It hosts, but its machine is not offered now.
    Unlisted,
    /// Its machine is offered.
    Listed,
}

/// Something that is not as it should be, and what helps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What is wrong: a sentence, lower case, no full stop.
    pub sentence: String,
    /// What to do: a command or half a sentence.
    pub fix: String,
}

/// Another node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerView {
    /// Its key, as a peer id.
    pub node: NodeId,
    /// Where it is reached.
    pub address: String,
    /// Who dialled: true if this node did.
    pub outbound: bool,
    /// Whether the connection goes through a relay.
    pub relayed: bool,
    /// Connected since.
    pub since_ms: Option<Timestamp>,
    /// The last round trip in microseconds.
    pub rtt_us: Option<u64>,
    /// What it calls itself.
    pub agent: String,
    /// What its gossip is worth to this node: 0 for a stranger, up to 20 for one that brings news, below 0 for one that has sent
    /// what is invalid; below -80 it is not listened to.
    #[serde(default)]
    pub score: f64,
    /// Bytes received from it since it is connected.
    #[serde(default)]
    pub received_bytes: u64,
    /// Bytes sent to it since then, but for gossip.
    #[serde(default)]
    pub sent_bytes: u64,
    /// Machines of it in the offer book.
    pub machines: u32,
    /// Whether it is known to have signed two contradicting chains: no new leases with it.
    #[serde(default)]
    pub forked: bool,
}

/// How others reach a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReachabilityView {
    /// `direct`, `relayed`, or `unknown`, as in offers.
    pub state: String,
    /// The peers that relay for it.
    pub relays: Vec<NodeId>,
    /// What that means, in a sentence.
    pub sentence: String,
}

/// What a check of the ledger found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerCheckView {
    /// Entries of the own chain.
    pub entries: u64,
    /// Leases on record.
    pub leases: u64,
    /// Receipts countersigned.
    pub receipts: u64,
    /// What does not hold, a sentence each; empty if all is well.
    pub faults: Vec<String>,
}

/// What a compaction of the ledger has done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerCompactView {
    /// Bytes of the ledger's files when it was asked for.
    pub bytes_before: u64,
    /// The same afterwards.
    pub bytes_after: u64,
    /// Whether files that are replaced are still being read, and counted in that; they go when that is over.
    pub still_read: bool,
    /// Records that were looked at.
    pub records: u64,
    /// How many of these were dropped.
    pub dropped: u64,
    /// The number of the checkpoint in this node's chain.
    pub checkpoint: u64,
    /// The number of the newest entry of this node's chain that the checkpoint stands for.
    pub up_to: u64,
    /// Entries of this node's chain that are left up to that one.
    pub entries_kept: u64,
}

/// Answer to a stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShutdownView {
    /// The process that ends.
    pub pid: u32,
}
