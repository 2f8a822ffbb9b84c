//! What only members get: a behaviour behind the door.
//!
//! On a stranger's connection the behaviour within has no handler at all, so none of its protocols is spoken there, and it never
//! hears of the connection. A connection stays what it was when it was made: who becomes a member connects anew.

use std::{
    collections::{HashMap, HashSet},
    ops::{Deref, DerefMut},
    task::{Context, Poll},
};

use either::Either;
use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm, behaviour::ConnectionEstablished, dummy,
    },
};

use super::Roster;
use crate::peers::is_relayed;

/// See the module.
pub(crate) struct Inside<B> {
    inner: B,
    roster: Roster,
    /// Whether connections through relays are none of its business either.
    direct_only: bool,
    /// Strangers' connections, and relayed ones where they don't count, of which the behaviour within knows nothing; bounded as
    /// connections are.
    strange: HashSet<ConnectionId>,
    /// Members' connections, the oldest first.
    members: HashMap<PeerId, Vec<ConnectionId>>,
}

impl<B> Inside<B> {
    pub(super) fn new(inner: B, roster: Roster) -> Self {
        Self { inner, roster, direct_only: false, strange: HashSet::new(), members: HashMap::new() }
    }

    /// The same for a behaviour that is to know nothing of connections through relays. libp2p's relay service gives these no handler,
    /// and then speaks to it when its status changes, which is a panic.
    pub(crate) fn direct_only(self) -> Self {
        Self { direct_only: true, ..self }
    }

    fn is_strange(&mut self, id: ConnectionId, peer: &PeerId, over: &Multiaddr) -> bool {
        let strange = self.roster.is_stranger(id, peer) || (self.direct_only && is_relayed(over));
        if strange {
            self.strange.insert(id);
        }
        strange
    }
}

impl<B> Deref for Inside<B> {
    type Target = B;

    fn deref(&self) -> &B {
        &self.inner
    }
}

impl<B> DerefMut for Inside<B> {
    fn deref_mut(&mut self) -> &mut B {
        &mut self.inner
    }
}

impl<B: NetworkBehaviour> Inside<B> {
    /// The behaviour within counts its own connections only: with a stranger's counted it would take a first one for a second.
    fn established(&mut self, event: ConnectionEstablished<'_>) {
        if self.strange.contains(&event.connection_id) {
            return;
        }
        let connections = self.members.entry(event.peer_id).or_default();
        let other_established = connections.len();
        connections.push(event.connection_id);
        self.inner
            .on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished { other_established, ..event }));
    }

    fn closed(&mut self, event: ConnectionClosed<'_>) {
        if self.strange.remove(&event.connection_id) {
            return;
        }
        let mut remaining_established = 0;
        if let Some(connections) = self.members.get_mut(&event.peer_id) {
            connections.retain(|id| *id != event.connection_id);
            remaining_established = connections.len();
        }
        if remaining_established == 0 {
            self.members.remove(&event.peer_id);
        }
        self.inner.on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed { remaining_established, ..event }));
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for Inside<B> {
    type ConnectionHandler = Either<THandler<B>, dummy::ConnectionHandler>;
    type ToSwarm = B::ToSwarm;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner.handle_pending_inbound_connection(id, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        // The listener is the relay's, whatever the remote end is called.
        if self.is_strange(id, &peer, local) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        self.inner.handle_established_inbound_connection(id, peer, local, remote).map(Either::Left)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.inner.handle_pending_outbound_connection(id, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if self.is_strange(id, &peer, address) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        self.inner.handle_established_outbound_connection(id, peer, address, role, port).map(Either::Left)
    }

    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "libp2p's events are many and open-ended; those that concern no connection are everybody's"
    )]
    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(e) => self.established(e),
            FromSwarm::ConnectionClosed(e) => self.closed(e),
            FromSwarm::AddressChange(e) if self.strange.contains(&e.connection_id) => {}
            FromSwarm::DialFailure(e) => {
                self.strange.remove(&e.connection_id);
                self.inner.on_swarm_event(event);
            }
            FromSwarm::ListenFailure(e) => {
                self.strange.remove(&e.connection_id);
                self.inner.on_swarm_event(event);
            }
            other => self.inner.on_swarm_event(other),
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, id: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {
            Either::Left(event) => self.inner.on_connection_handler_event(peer, id, event),
            Either::Right(never) => match never {},
        }
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "what is said to no connection passes as it is")]
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            let Poll::Ready(event) = self.inner.poll(cx) else {
                return Poll::Pending;
            };
            match event {
                // Any connection of the peer would do, but for a stranger's, where nobody listens.
                ToSwarm::NotifyHandler { peer_id, handler: NotifyHandler::Any, event } if !self.strange.is_empty() => {
                    let Some(id) = self.members.get(&peer_id).and_then(|all| all.first()) else {
                        continue;
                    };
                    let handler = NotifyHandler::One(*id);
                    return Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler, event: Either::Left(event) });
                }
                other => return Poll::Ready(other.map_in(Either::Left)),
            }
        }
    }
}
