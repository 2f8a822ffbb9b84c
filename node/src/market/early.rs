//! Streams that renters open before the node may sign, or before it has found its container engine: they wait, so that who comes
//! back to a host that has just started is served, not hung up on.
//!
//! Owns only the waiting. Who may do what is judged when they are served.

use souk_network::PeerStream;
use souk_protocol::NodeId;

use super::task::Market;

/// Streams that wait at once, and of one peer. More are hung up on.
const WAITING: usize = 128;
const WAITING_PER_PEER: usize = 16;

/// Streams nobody has served yet.
#[derive(Debug, Default)]
pub struct Early(Vec<(NodeId, PeerStream)>);

impl Early {
    /// One more.
    pub fn push(&mut self, from: NodeId, stream: PeerStream) {
        let own = self.0.iter().filter(|(peer, _)| *peer == from).count();
        if self.0.len() < WAITING && own < WAITING_PER_PEER {
            self.0.push((from, stream));
        } else {
            tracing::debug!(peer = %from, "too many streams before the node has begun");
        }
    }
}

impl Market {
    /// Strangers are not even listened to; who rents here is asked what for.
    pub(super) fn stream(&mut self, from: NodeId, stream: PeerStream) {
        let rents = self.engine.host().leases().values().any(|l| l.draft().renter == from);
        match &self.server {
            Some(server) if rents => server.serve(from, stream),
            None if rents && self.host.is_some() && self.runtime_problem.is_none() => self.early.push(from, stream),
            Some(_) | None => tracing::debug!(peer = %from, "a stream of a peer that rents nothing here"),
        }
    }

    /// The container engine was found, or is not there: those that waited are served, or hung up on.
    pub(super) fn serve_early(&mut self) {
        for (from, stream) in std::mem::take(&mut self.early.0) {
            self.stream(from, stream);
        }
    }
}
