//! The network of a souk node: the sole owner of the libp2p swarm. It knows bytes, topics and peers, and nothing of markets.
//!
//! ```text
//!   rest of the node ── NetworkHandle ──Command──▶ ┌──────────────┐ ──▶ consumer: mpsc::Receiver<NetworkEvent>
//!      request, open_stream, publish, keep …       │ network task │       Request + Reply, Gossip + GossipVerdict,
//!                       ◀── oneshot: outcome ───── │ owns Swarm   │       Stream, Connected, Disconnected, Listening
//!                                                  └──────┬───────┘
//!          exchange · streams · gossip · kad · identify · ping · relay · dcutr      (behaviour)
//!                     QUIC · TCP+Noise+yamux · circuits · DNS                            (transport)
//! ```
//!
//! | module | owns |
//! |---|---|
//! | `task` | the swarm, and everything that happens to it, in one loop that never waits for anybody |
//! | `behaviour`, `transport` | the protocols of a node put together; how bytes travel |
//! | `exchange` | request and answer: codec, caps, the budget of inbound bodies |
//! | `streams` | byte streams: which connection, how many, accepted or refused |
//! | `gossip` | gossipsub's parameters, publications that wait for a first reader |
//! | `discovery`, `peers`, `schedule` | pure policy: whom to dial and when, which addresses to believe, backoff |
//! | `reach` | pure policy: which own addresses to believe, and who relays while others can't dial this node |
//! | `door` | who is a member of a private cluster, what others get of this node, and knocking |
//! | `lan` | members found by multicast DNS |
//! | `portmap` | ports that the router is asked for |
//! | `fence` | which dials peers can bring about |
//! | `crowd` | how many connections one address may have |
//! | `table`, `status`, `rate`, `outbox` | who is connected, counters, token buckets, the way to the consumer |
//! | `turns` | how much one peer may ask at once |
//!
//! What holds whatever happens: every request ends in an answer or a typed error; every queue is bounded and says what happens
//! when it is full; a peer's bytes are length-checked before they take memory; a node of another network gets nothing.
//!
//! The binary installs rustls' default crypto provider before [`spawn`].

mod behaviour;
pub mod config;
mod crowd;
mod discovery;
mod door;
pub mod error;
mod event;
mod exchange;
mod fence;
mod gossip;
mod handle;
mod lan;
pub mod limits;
mod names;
mod outbox;
mod peers;
mod portmap;
mod rate;
mod reach;
mod schedule;
mod status;
mod streams;
mod table;
mod task;
mod transport;
mod turns;

pub use libp2p::{Multiaddr, multiaddr};

pub use self::{
    config::{Admission, FenceKey, Limits, NetworkConfig},
    error::{AnswerTooLarge, Closed, DialError, PublishError, RequestError, StartError, StreamError},
    event::{GossipVerdict, NetworkEvent, Reply},
    handle::NetworkHandle,
    names::Topic,
    portmap::{PortMapping, keep as map_ports},
    reach::Reachability,
    status::NetworkStatus,
    streams::PeerStream,
    table::{Direction, PeerInfo, Transport},
    task::spawn,
};
