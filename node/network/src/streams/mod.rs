//! Byte streams between peers.
//!
//! Owns which connection a stream goes over, how many there may be, and the one status byte with which a stream begins:
//! the opener waits for `1` (accepted) or `2` (busy). It never dials: a peer without a connection has no streams. What flows
//! through a stream is the consumer's business, and so is a watchdog on a stalled one.

mod handler;
mod stream;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    core::{ConnectedPoint, Endpoint, transport::PortUse},
    multiaddr::Protocol,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
    },
};
use tokio::sync::{Semaphore, mpsc, oneshot};

pub(crate) use self::handler::Admitted;
use self::handler::{Gate, Handler, Opening};
use self::stream::InUse;
pub use self::stream::PeerStream;
use crate::{error::StreamError, event::NetworkEvent, limits::STREAM_QUEUE, status::Counters};

/// Opens handed to the swarm and not yet to a connection; more fail at once.
const MAX_PENDING: usize = 1024;

/// How good a connection is for streams; the smallest is best. Direct before relayed, because a relay cuts tunnels short; QUIC
/// before TCP, because yamux can stall when both sides are blocked writing; then the oldest, which has proved itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Quality {
    relayed: bool,
    over_tcp: bool,
    age: u64,
}

impl Quality {
    fn of(address: &Multiaddr, relayed: bool, age: u64) -> Self {
        Self { relayed, over_tcp: !address.iter().any(|p| matches!(p, Protocol::QuicV1)), age }
    }
}

/// A peer opened a stream: its place in the consumer's queue is reserved.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) peer: PeerId,
    pub(crate) admitted: Admitted,
}

/// The streams of all connections.
pub(crate) struct Behaviour {
    protocol: StreamProtocol,
    gate: Gate,
    connections: HashMap<PeerId, Vec<(Quality, ConnectionId)>>,
    /// Besides the handler and this map, each stream of the connection holds it.
    in_use: HashMap<ConnectionId, Arc<InUse>>,
    /// Bytes received and sent over streams of connections that are closed, of peers that have others.
    past: HashMap<PeerId, (u64, u64)>,
    established: u64,
    pending: VecDeque<ToSwarm<Inbound, Opening>>,
    waker: Option<Waker>,
}

impl Behaviour {
    /// Streams of `protocol`, delivered to `events`.
    pub(crate) fn new(protocol: StreamProtocol, events: mpsc::Sender<NetworkEvent>, counters: Arc<Counters>) -> Self {
        Self {
            protocol,
            gate: Gate { queue: Arc::new(Semaphore::new(STREAM_QUEUE)), events, counters },
            connections: HashMap::new(),
            in_use: HashMap::new(),
            past: HashMap::new(),
            established: 0,
            pending: VecDeque::new(),
            waker: None,
        }
    }

    /// Opens a stream over the best connection to `peer`. The outcome goes to `reply`; a dropped `reply` means that the
    /// connection is gone.
    pub(crate) fn open(&mut self, peer: PeerId, reply: oneshot::Sender<Result<PeerStream, StreamError>>) {
        let best = self.connections.get(&peer).and_then(|all| all.iter().min_by_key(|(quality, _)| *quality));
        let Some((_, id)) = best else {
            reply.send(Err(StreamError::NotConnected)).ok();
            return;
        };
        if self.pending.len() >= MAX_PENDING {
            reply.send(Err(StreamError::TooMany)).ok();
            return;
        }
        self.pending.push_back(ToSwarm::NotifyHandler {
            peer_id: peer,
            handler: NotifyHandler::One(*id),
            event: Opening(reply),
        });
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Bytes received from a peer and sent to it over streams, since it is connected.
    pub(crate) fn traffic(&self, peer: &PeerId) -> (u64, u64) {
        let past = self.past.get(peer).copied().unwrap_or_default();
        let all = self.connections.get(peer).into_iter().flatten();
        all.filter_map(|(_, id)| self.in_use.get(id)).map(|used| used.traffic.sums()).fold(past, plus)
    }

    /// Whether nothing flows through a connection, and nothing is being opened on it.
    pub(crate) fn is_idle(&self, id: ConnectionId) -> bool {
        self.in_use.get(&id).is_none_or(|held| Arc::strong_count(held) <= 2)
    }

    fn connected(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint) {
        self.established += 1;
        let quality = Quality::of(endpoint.get_remote_address(), endpoint.is_relayed(), self.established);
        self.connections.entry(peer).or_default().push((quality, id));
    }

    fn handler(&mut self, id: ConnectionId) -> Handler {
        let in_use = Arc::clone(self.in_use.entry(id).or_default());
        Handler::new(self.protocol.clone(), self.gate.clone(), in_use)
    }
}

fn plus(a: (u64, u64), b: (u64, u64)) -> (u64, u64) {
    (a.0.saturating_add(b.0), a.1.saturating_add(b.1))
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Inbound;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(id))
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(id))
    }

    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "libp2p's events are many and open-ended; only connections concern streams"
    )]
    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(e) => {
                self.connected(e.peer_id, e.connection_id, e.endpoint);
            }
            // Others may have refused what this behaviour has made a handler for.
            FromSwarm::DialFailure(e) => {
                self.in_use.remove(&e.connection_id);
            }
            FromSwarm::ListenFailure(e) => {
                self.in_use.remove(&e.connection_id);
            }
            FromSwarm::ConnectionClosed(e) => {
                let used = self.in_use.remove(&e.connection_id).map_or((0, 0), |used| {
                    used.gone.cancel();
                    used.traffic.sums()
                });
                if let Some(all) = self.connections.get_mut(&e.peer_id) {
                    all.retain(|(_, id)| *id != e.connection_id);
                    if all.is_empty() {
                        self.connections.remove(&e.peer_id);
                        self.past.remove(&e.peer_id);
                    } else {
                        let past = self.past.entry(e.peer_id).or_default();
                        *past = plus(*past, used);
                    }
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, _: ConnectionId, admitted: THandlerOutEvent<Self>) {
        // Bounded: each holds a permit of the queue.
        self.pending.push_back(ToSwarm::GenerateEvent(Inbound { peer, admitted }));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some(event) = self.pending.pop_front() {
            return Poll::Ready(event);
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_direct_quic_connection_is_best() {
        let quic = "/ip4/10.0.0.1/udp/1/quic-v1".parse().unwrap();
        let tcp = "/ip4/10.0.0.1/tcp/1".parse().unwrap();
        let relayed = "/ip4/10.0.0.1/udp/1/quic-v1/p2p-circuit".parse().unwrap();
        let direct = |address, age| Quality::of(address, false, age);
        let mut all = [Quality::of(&relayed, true, 1), direct(&tcp, 2), direct(&quic, 4), direct(&quic, 3)];
        all.sort();
        assert_eq!(all.map(|q| q.age), [3, 4, 2, 1]);
    }
}
