//! Keeps dials that peers can bring about on the internet.
//!
//! Where a hole is to be punched, the peer behind the relay names the addresses to dial, and libp2p dials them. A fence refuses
//! such a dial when any of them is this machine's, or of somebody's own network: nobody makes a node knock at its LAN. What the
//! task itself dials has been judged (see `peers`), and passes by its connection's id.

use std::{
    collections::HashSet,
    fmt,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
        ToSwarm, dummy,
    },
};

use crate::peers::{Scope, scope};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Behaviour {
    /// The task's own dials, until they are begun.
    own: HashSet<ConnectionId>,
}

/// Why a dial was refused.
#[derive(Debug)]
struct Beyond(Multiaddr);

impl fmt::Display for Beyond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a peer wants {} dialled, which is not on the internet", self.0)
    }
}

impl std::error::Error for Beyond {}

impl Behaviour {
    /// The task is about to dial: whatever it dials is its own choice.
    pub(crate) fn pass(&mut self, id: ConnectionId) {
        self.own.insert(id);
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = std::convert::Infallible;

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        _: Option<PeerId>,
        addresses: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        if self.own.remove(&id) {
            return Ok(Vec::new());
        }
        match addresses.iter().find(|address| scope(address) != Some(Scope::Global)) {
            Some(beyond) => Err(ConnectionDenied::new(Beyond(beyond.clone()))),
            None => Ok(Vec::new()),
        }
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        // One that was refused before it came here.
        if let FromSwarm::DialFailure(failure) = event {
            self.own.remove(&failure.connection_id);
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn peers_send_nobody_to_their_lan_and_the_task_goes_where_it_likes() {
        let mut fence = Behaviour::default();
        let mut dial = |own: bool, addresses: &[&str]| {
            let id = ConnectionId::new_unchecked(7);
            if own {
                fence.pass(id);
            }
            let addresses: Vec<Multiaddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
            fence.handle_pending_outbound_connection(id, None, &addresses, Endpoint::Dialer).is_ok()
        };
        let (far, lan) = ("/ip4/8.8.8.8/udp/9/quic-v1", "/ip4/192.168.1.1/tcp/80");
        assert!(dial(false, &[far]) && dial(false, &[]));
        assert!(!dial(false, &[far, lan]) && !dial(false, &["/ip4/127.0.0.1/tcp/22"]) && !dial(false, &["/memory/1"]));
        assert!(dial(true, &[lan]));
        assert!(!dial(false, &[lan]), "a pass is for one dial");
    }
}
