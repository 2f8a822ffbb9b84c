//! Every numeric limit of the network layer, with its unit and its reason.
//!
//! Owns numbers only. What a node's operator may change is in [`crate::config::Limits`]; what is here is part of the wire
//! protocol, or follows from it.

use std::time::Duration;

/// The most that the node itself adds to a peer's gossip score, or takes from it: less than one rejected message costs.
pub const APPLICATION_SCORE: f64 = 10.0;

/// Bytes of one request's body. The largest a market peer asks with is a batch of a few dozen signed documents of 4 KiB.
pub const MAX_REQUEST: usize = 256 * 1024;

/// Bytes of one answer's body: a page of a set reconciliation or of a receipt export. Longer answers are paged by the asker.
pub const MAX_ANSWER: usize = 1024 * 1024;

/// Bytes of one gossip message's data: the largest proof of a fork, which is two of the largest entries. Offers take a third.
pub const MAX_GOSSIP: usize = souk_protocol::limits::PROOF_BYTES;

/// Bytes of one gossipsub RPC. Holds one message of [`MAX_GOSSIP`] or one list of [`MAX_IHAVE`] message ids.
pub const MAX_GOSSIP_RPC: usize = 16 * 1024;

/// Message ids in one IHAVE or IWANT. An id is 32 bytes and 2 of framing: 200 of them stay within [`MAX_GOSSIP_RPC`].
pub const MAX_IHAVE: usize = 200;

/// Requests in flight from this node to one peer. More wait in the caller's task, so none is lost; small enough that both
/// directions together stay below [`EXCHANGE_STREAMS`] and below yamux's backlog of 256 unacknowledged streams.
pub const WINDOW: usize = 64;

/// Exchange streams of one connection, both directions together. Two windows, and as much again for answers still being
/// flushed when their slot in the asker's window is already free.
pub const EXCHANGE_STREAMS: usize = 4 * WINDOW;

/// The longest a request may take from opening its stream to the last byte of its answer, whatever its caller asked for.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Inbound request bodies held at once, in KiB, over all peers: they are read as they arrive and freed with their reply.
/// A request that does not fit is answered `busy`.
pub const INTAKE_KIB: usize = 64 * 1024;

/// The same for one connection: four of the largest. One address has at most 48 connections, so it can't spend the whole budget.
pub const CONNECTION_INTAKE_KIB: usize = 1024;

/// Requests of all nodes behind one address that wait or are with the consumer; more are answered `busy`. Each can keep a yamux
/// window of 256 KiB from being read meanwhile: 32 MiB in all. Two nodes' [`WINDOW`]s.
pub const SOURCE_REQUESTS: usize = 2 * WINDOW;

/// Requests of one peer that the consumer has at once. More of them wait, up to a [`WINDOW`], while others' get their turn; small
/// enough that the sixteen nodes of one crowded address delay others by some 256 answers at most.
pub const PEER_TURN: usize = 16;

/// Bytes of answers to one peer that it has not taken yet. Beyond that its requests are answered `busy`, which is five bytes: who
/// asks and does not read fills no memory.
pub const PEER_ANSWERS: usize = 4 * MAX_ANSWER;

/// The same over all peers. Beyond that each peer's share is an answer's quarter, except that whoever reads gets its next answer
/// whatever its size.
pub const ANSWERS: usize = 64 * MAX_ANSWER;

/// Inbound requests waiting for their reply at once, over all peers; more are answered `busy`.
pub const MAX_REPLIES: usize = 4096;

/// Requests of all callers waiting for a peer to be dialled; more fail as unreachable.
pub const MAX_WAITING: usize = 4096;

/// What a busy peer is told to wait before asking again, when nothing better is known.
pub const RETRY_AFTER: Duration = Duration::from_millis(250);

/// Gossip messages handed to the consumer and not yet judged; more are ignored.
pub const MAX_VERDICTS: usize = 4096;

/// Publications waiting for a first subscribed peer. The oldest goes when full: the market re-syncs by pulling.
pub const MAX_UNPUBLISHED: usize = 128;

/// How long a publication waits for a first subscribed peer: as long as an offer's issue time is acceptable to a reader.
pub const UNPUBLISHED_FOR: Duration = Duration::from_secs(120);

/// Inbound streams that were accepted and that the consumer has not touched yet, over all peers; more are refused `busy`.
pub const STREAM_QUEUE: usize = 256;

/// Inbound streams alive at once on one connection; more are refused `busy`.
pub const STREAMS_PER_CONNECTION: usize = 256;

/// Streams of one connection being opened at once. Others wait their turn, so that a burst of opens can never overrun the
/// 256 streams that yamux buffers, or the 128 that a libp2p peer negotiates at once by default.
pub const OPENING: usize = 32;

/// Streams waiting their turn to be opened on one connection; more fail at once.
pub const MAX_WAITING_OPENS: usize = 512;

/// How long a stream may take from its first byte to the peer's status byte, on either side.
pub const STREAM_OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Streams open on one connection, whoever opened them and whatever for: the sum of the above with room for gossip, identify,
/// ping and Kademlia.
pub const STREAMS: usize = 1024;

/// Inbound streams of a connection that may be negotiating their protocol at once.
pub const NEGOTIATING: usize = 256;

/// Commands waiting for the network task. Callers wait when it is full.
pub const COMMANDS: usize = 256;

/// Peers whose addresses are remembered. The one used longest ago goes first; kept peers stay.
pub const MAX_KNOWN_PEERS: usize = 4096;

/// Peers kept over a restart.
pub const MAX_KEPT_PEERS: usize = 256;

/// Addresses remembered for one peer; the newest stay.
pub const MAX_ADDRESSES: usize = 16;

/// Characters kept of a peer's agent string.
pub const MAX_AGENT: usize = 64;

/// Peers for which this node dials back at once, for others to learn how they are reached; more are answered `busy`.
pub const DIAL_BACKS: usize = 16;

/// Dial-backs that one peer may ask for in a minute, on average; eight at once. Each costs a handshake, with the peer itself.
pub const DIAL_BACKS_PER_MINUTE: u32 = 12;

/// How long a dial-back may take, with its answer: a handshake over a slow path, and no more.
pub const DIAL_BACK_TIMEOUT: Duration = Duration::from_secs(15);

/// Places that a node keeps for peers that can't be dialled, when it relays.
pub const RELAY_PLACES: usize = 256;

/// Circuits through a node that relays, over all peers. Each is a pair of streams with its buffers.
pub const RELAY_CIRCUITS: usize = 128;

/// Circuits of one peer, as the one who comes or the one who is visited.
pub const RELAY_CIRCUITS_PER_PEER: usize = 16;

/// Circuits that one peer may ask for in a minute, on average.
pub const RELAY_CIRCUITS_PER_MINUTE: u32 = 30;

/// How long a circuit lasts: a day's work over SSH.
pub const RELAY_CIRCUIT_TIME: Duration = Duration::from_secs(24 * 3600);

/// Bytes through one circuit, in both directions: an image and a data set. A cut copy is taken up over the next.
pub const RELAY_CIRCUIT_BYTES: u64 = 64 << 30;

/// How long a direct connection has lasted before the relayed ones beside it are let go, when nothing flows through them.
pub const RELAYED_SPARE_AFTER: Duration = Duration::from_secs(5);

/// How long a connection may live without showing that it belongs to this network.
pub const ADMISSION: Duration = Duration::from_secs(10);

/// From this age on a connection that its opener has opened anew is taken for lost. Younger ones are two dials at once.
pub const SUPERSEDED_AFTER: Duration = Duration::from_secs(1);

/// How long connections get to close when the node stops.
pub const CLOSING: Duration = Duration::from_millis(500);

/// Peer lookups under way at once for requests to peers with no known address; more fail as not connected.
pub const MAX_LOOKUPS: usize = 16;

/// Bytes of one knock: a ticket's token, a signed plea and a name.
pub const MAX_KNOCK: usize = 2 * 1024;

/// Bytes of the answer to a knock: the whole signed list of a cluster's members.
pub const MAX_KNOCK_ANSWER: usize = 512 * 1024;

/// How long a knock may take with its answer, and how long a stranger may stay connected: half a MiB over a poor uplink.
pub const KNOCK_TIMEOUT: Duration = Duration::from_secs(20);

/// Strangers connected at once, while the door is open. One of them is awaited.
pub const STRANGERS: usize = 16;

/// Strangers connected at once from one source: an IPv4 address, or the /64 of an IPv6 address.
pub const STRANGERS_PER_SOURCE: usize = 2;

/// How long a stranger that has become a member may keep its old connection after the answer, which may still be on its way.
pub const STRANGER_LINGERS: Duration = Duration::from_secs(1);

/// Knocks a minute from one source, on average and at once; more are answered `busy`. Who mistypes a ticket knocks twice.
pub const KNOCKS_PER_MINUTE: u32 = 30;

/// Knocks a minute from everybody together: each costs the check of a signature.
pub const ALL_KNOCKS_PER_MINUTE: u32 = 300;

/// Sources of knocks that are remembered for their rate. Beyond, a source that is not among them is answered `busy`.
pub const KNOCK_SOURCES: usize = 1024;

/// Knock streams of one connection at once.
pub const KNOCK_STREAMS: usize = 2;

/// Knock bodies held at once, in KiB: more than all strangers together can hold, so that they take no member's place.
pub const KNOCK_INTAKE_KIB: usize = 256;

/// Knocks of this node under way at once; more fail as busy.
pub const MAX_KNOCKING: usize = 16;

/// Members found on the local network that are remembered, with four addresses each.
pub const MAX_FOUND: usize = 256;
